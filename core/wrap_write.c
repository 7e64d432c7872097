// SPDX-License-Identifier: MIT
/* wrap_write.c: a disk into a wrapped raw file.
 *
 *      plan  (ordered)   the next block of the disk, and where the source has it
 *      pack  (parallel)  read and pack it
 *      write (ordered)   append it
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copy_job.h"
#include "pipeline.h"
#include "util/checked.h"
#include "util/iszero.h"
#include "wrap_private.h"

enum {
        LEAVES_MOST = 4,                /* of the digest, in a block */
};

/* One item of the pipeline. */
struct block {
        uint64_t start;
        size_t length;
        struct vd_extent *extents;      /* of data; the rest is zeros */
        size_t extent_count, extent_room;
        char *bytes, *packed;
        size_t packed_bytes;
        uint64_t check;
        bool is_empty;                  /* a whole block of zeros */
        uint8_t leaves[LEAVES_MOST][VD_DIGEST_BYTES];
};

struct wrapping {
        const struct vd_wrapper *wrapper;
        unsigned level;
        struct vd_image *source;
        uint64_t size;
        const struct vd_copy_options *options;
        struct copy_job job;
        size_t room;                    /* for a packed block */
        char *empty;                    /* a packed block of zeros */
        size_t empty_bytes;
        uint64_t empty_check;
        uint64_t cursor;                /* plan */
        void *state;                    /* write: the wrapper's */
        struct vd_wrap_out out;
        struct vd_copy_stats stats;
};

int vd_wrap_put(struct vd_wrap_out *out, const void *bytes, size_t length, struct vd_error *err)
{
        int r = vd_file_write(out->file, bytes, length, out->position, err);

        out->position += length;
        return r;
}

static int add_extent(struct block *b, const struct vd_extent *ext, struct vd_error *err)
{
        int r;

        if (ext->kind == VD_UNALLOCATED || ext->kind == VD_ZERO)
                return 0;
        r = vd_copy_grow(&b->extents, b->extent_count, &b->extent_room, sizeof(*b->extents), err);
        if (!r)
                b->extents[b->extent_count++] = *ext;
        return r;
}

static int plan(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct wrapping *w = context;
        struct block *b = slot;

        (void)worker;
        if (w->options->stop && *w->options->stop)
                return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
        b->start = w->cursor;
        b->length = vd_min(w->wrapper->pack_bytes, w->size - w->cursor);
        b->extent_count = 0;
        if (!b->length)
                return 1;
        if (!b->bytes && !(b->bytes = malloc(w->wrapper->pack_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %zu bytes", w->wrapper->pack_bytes);
        if (!b->packed && !(b->packed = malloc(w->room)))
                return vd_fail(err, -ENOMEM, "a buffer of %zu bytes", w->room);
        while (w->cursor < b->start + b->length) {
                struct vd_extent ext;
                int r = vd_copy_look_ahead(&w->job, w->cursor, &ext, err);

                ext.length = vd_min(ext.length, b->start + b->length - w->cursor);
                if (!r)
                        r = add_extent(b, &ext, err);
                if (r)
                        return r;
                w->cursor += ext.length;
        }
        return 0;
}

/* Of the source: what lies past its end is not part of its digest. */
static uint64_t digested(const struct wrapping *w, const struct block *b)
{
        return b->start < w->source->size ? vd_min(b->length, w->source->size - b->start) : 0;
}

static void take_digest(struct wrapping *w, const struct block *b)
{
        uint64_t length = digested(w, b);

        if (b->is_empty)
                vd_digest_add_zeros(w->options->digest, length);
        for (uint64_t at = 0; at < length && !b->is_empty; at += VD_DIGEST_LEAF)
                vd_digest_add(w->options->digest, b->leaves[at / VD_DIGEST_LEAF]);
}

static void hash_leaves(const struct wrapping *w, struct block *b)
{
        uint64_t length = digested(w, b);

        for (uint64_t at = 0; at < length; at += VD_DIGEST_LEAF)
                vd_digest_leaf(b->bytes + at, vd_min(VD_DIGEST_LEAF, length - at), b->leaves[at / VD_DIGEST_LEAF]);
}

static int pack(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct wrapping *w = context;
        struct block *b = slot;
        uint64_t at = b->start;
        int r = 0;

        b->is_empty = !b->extent_count && b->length == w->wrapper->pack_bytes;
        if (b->is_empty)
                return 0;
        for (size_t i = 0; i < b->extent_count && !r; i++) {
                const struct vd_extent *ext = &b->extents[i];

                memset(b->bytes + (at - b->start), 0, ext->start - at);
                r = vd_copy_read(&w->job, ext, b->bytes + (ext->start - b->start), w->job.codecs[worker], err);
                at = ext->start + ext->length;
        }
        memset(b->bytes + (at - b->start), 0, b->start + b->length - at);
        b->is_empty = b->length == w->wrapper->pack_bytes && vd_is_zero(b->bytes, b->length);
        if (r || b->is_empty)
                return r;
        if (w->options->digest)
                hash_leaves(w, b);
        return w->wrapper->pack(w->level, b->bytes, b->length, b->packed, w->room, &b->packed_bytes, &b->check, err);
}

static int write_block(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct wrapping *w = context;
        const struct block *b = slot;
        int r;

        (void)worker;
        r = w->wrapper->add_block(w->state, &w->out, b->length, b->is_empty ? w->empty : b->packed,
                                  b->is_empty ? w->empty_bytes : b->packed_bytes,
                                  b->is_empty ? w->empty_check : b->check, err);
        if (w->options->digest)
                take_digest(w, b);
        if (b->is_empty)
                w->stats.zero_bytes += b->length;
        else
                w->stats.packed_units++;
        if (!r && w->options->progress)
                w->options->progress(w->options->context, b->start + b->length, w->size);
        vd_pace_keep(&w->job.pace, b->is_empty ? 0 : b->length);
        return r;
}

static const struct vd_stage stages[] = {
        { "plan", true, plan },
        { "pack", false, pack },
        { "write", true, write_block },
};

static int prepare(struct wrapping *w, unsigned threads, struct vd_error *err)
{
        size_t bytes = w->wrapper->pack_bytes;
        char *zeros = calloc(1, bytes);
        int r;

        w->room = w->wrapper->pack_room(bytes);
        w->empty = malloc(w->room);
        w->job.codecs = calloc(threads, sizeof(struct vd_codec_context *));
        r = zeros && w->empty && w->job.codecs ? 0 : vd_fail(err, -ENOMEM, "%s", w->wrapper->name);
        for (unsigned i = 0; i < threads && !r; i++)
                if (!(w->job.codecs[i] = vd_codec_context_new()))
                        r = vd_fail(err, -ENOMEM, "%s", w->wrapper->name);
        if (!r)
                r = w->wrapper->pack(w->level, zeros, bytes, w->empty, w->room, &w->empty_bytes, &w->empty_check, err);
        free(zeros);
        return r ? r : w->wrapper->open(&w->out, &w->state, err);
}

static int run(struct wrapping *w, unsigned threads, struct vd_error *err)
{
        size_t slot_count = threads == 1 ? 1 : threads + 1u;
        struct block *blocks = calloc(slot_count, sizeof(*blocks));
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = blocks && slots ? 0 : vd_fail(err, -ENOMEM, "%s", w->wrapper->name);

        for (size_t i = 0; i < slot_count && !r; i++)
                slots[i] = &blocks[i];
        w->stats.threads = threads;
        w->stats.memory_bytes = slot_count * (w->wrapper->pack_bytes + w->room);
        if (!r)
                r = vd_pipeline_run(stages, sizeof(stages) / sizeof(stages[0]), slots, slot_count, threads, w, err);
        for (size_t i = 0; i < slot_count && blocks; i++) {
                free(blocks[i].extents);
                free(blocks[i].bytes);
                free(blocks[i].packed);
        }
        free(blocks);
        free(slots);
        return r;
}

int vd_wrap(const struct vd_wrapper *wrapper, unsigned level, struct vd_image *source, uint64_t size, struct vd_file *to,
            const struct vd_copy_options *options, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct wrapping w = { .wrapper = wrapper, .level = level, .source = source, .size = size, .options = options,
                              .job = { .source = source, .options = options }, .out = { .file = to } };
        unsigned threads = vd_copy_threads(options);
        int r = vd_copy_set_up(&w.job, NULL, 0, err);

        w.job.size = size;
        if (!r)
                r = prepare(&w, threads, err);
        if (!r)
                r = run(&w, threads, err);
        if (!r)
                r = wrapper->close(w.state, &w.out, err);
        if (w.state)
                wrapper->free_state(w.state);
        for (unsigned i = 0; i < threads && w.job.codecs; i++)
                vd_codec_context_free(w.job.codecs[i]);
        free(w.job.codecs);
        free(w.empty);
        vd_copy_tear_down(&w.job);
        if (stats)
                *stats = w.stats;
        return r;
}
