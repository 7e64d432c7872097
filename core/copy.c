// SPDX-License-Identifier: MIT
/* copy.c: setting a copy up, and the stages that touch the target. */
#include "copy.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "copy_job.h"
#include "identity.h"
#include "pipeline.h"
#include "util/checked.h"

enum {
        PLAIN_CHUNK = 256 * 1024,       /* stays in the processor's cache between reading and writing */
        PACK_CHUNK = 1024 * 1024,       /* work enough to hand to a thread, or over a network */
        LAYOUT_CHUNK = 64 * 1024 * 1024,        /* of which nothing is read */
        SLOTS_PER_THREAD = 3,
        RESERVE_AFTER = 1024 * 1024,    /* a run of writes this long gets space reserved ahead of it */
        RESERVE_STEP = 32 * 1024 * 1024,
        RESERVE_IN_BLOCK = 4 * 1024 * 1024,
        HOLES_KEPT = 65536,
        THREADS_MAX = 64,
        REMOTE_THREADS = 8,             /* they wait more than they work */
        REMOTE_MEMORY = 48 * 1024 * 1024,       /* for buffers, with more threads than processors */
};

/* Reserves space ahead of a place that continues a run.  A target whose positions are guest offsets, at least inside
 * large blocks, may get it only where the source surely has data, others append and give the rest back at the end. */
static void reserve(const struct copy_job *job, struct copy_target *t, const struct chunk *c,
                    const struct vd_place *p)
{
        uint64_t length = p->kind == VD_PACKED ? p->packed_bytes : p->length, end, most = RESERVE_STEP;

        if (job->options->layout || !t->image->is_new || p->file != t->image->file ||
            (p->kind != VD_DATA && p->kind != VD_PACKED))
                return;
        if (p->position < t->run_end || p->position > t->run_end + job->chunk_bytes)
                t->run_start = p->position;
        t->run_end = p->position + length;
        end = t->run_end;
        if (end <= t->reserved_end || end - t->run_start < RESERVE_AFTER || p->position < vd_file_size(p->file))
                return;
        if (t->image->identity || t->image->unit > job->chunk_bytes) {
                if (!t->last_was_data || t->hole_count == HOLES_KEPT || c->data_ahead <= end)
                        return;
                /* What turns out to be zeros is punched only where it is known to be. */
                most = vd_min(t->image->identity ? RESERVE_STEP : RESERVE_IN_BLOCK, c->data_ahead - end);
        }
        vd_file_reserve(p->file, p->position, length + most);
        t->reserved_end = end + most;
}

/* A zero run of a new target needs nothing, unless space was reserved there: that is punched in the end. */
static int leave_hole(struct copy_job *job, struct copy_target *t, const struct piece *p, struct vd_error *err)
{
        int r;

        job->stats.zero_bytes += p->length;
        if (!t->image->identity || p->start >= t->reserved_end)
                return 0;
        r = vd_copy_grow(&t->holes, t->hole_count, &t->hole_room, sizeof(*t->holes), err);
        if (!r)
                t->holes[t->hole_count++] = (struct hole){ p->start, p->length };
        return r;
}

static int place_piece(struct copy_job *job, struct copy_target *t, const struct chunk *c, struct portion *to,
                       const struct piece *p, struct vd_error *err)
{
        struct vd_request request = { p->start, p->length, p->kind, p->packed_bytes };
        const char *bytes = p->bytes;

        while (request.length) {
                size_t bytes_room = to->place_room;
                struct vd_place *place;
                int r = vd_copy_grow(&to->places, to->place_count, &to->place_room, sizeof(*to->places), err);

                if (!r)
                        r = vd_copy_grow(&to->place_bytes, to->place_count, &bytes_room, sizeof(*to->place_bytes),
                                         err);
                if (r)
                        return r;
                place = &to->places[to->place_count];
                r = vd_writer_place(t->writer, &request, place, err);
                if (r)
                        return r;
                to->place_bytes[to->place_count++] = bytes;
                reserve(job, t, c, place);
                if (job->options->layout)
                        r = vd_layout_note(job->options->layout, place, p->kind == VD_ZERO, err);
                if (r)
                        return r;
                if (place->kind == VD_PACKED)
                        job->stats.packed_units++;      /* those moved verbatim are taken off at the end */
                else if (p->kind == VD_DATA)
                        job->stats.data_bytes += place->length;
                else
                        job->stats.zero_bytes += place->length;
                if (bytes)
                        bytes += place->length;
                request.start += place->length;
                request.length -= place->length;
        }
        return 0;
}

static int place_portion(struct copy_job *job, struct copy_target *t, const struct chunk *c, struct portion *to,
                         struct vd_error *err)
{
        bool all_data = true;
        int r = 0;

        for (size_t i = 0; i < to->piece_count && !r; i++) {
                const struct piece *p = &to->pieces[i];

                if (p->kind == VD_ZERO)
                        all_data = false;
                if (p->kind == VD_ZERO && !t->write_zeros)
                        r = leave_hole(job, t, p, err);
                else
                        r = place_piece(job, t, c, to, p, err);
        }
        t->last_was_data = all_data;
        return r;
}

int vd_copy_place(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        int r = 0;

        (void)worker;
        for (size_t i = 0; i < job->target_count && !r; i++)
                r = place_portion(job, &job->targets[i], c, &c->portions[i], err);
        return r;
}

int vd_copy_store(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        const struct copy_job *job = context;
        struct chunk *c = slot;
        int r = 0;

        (void)worker;
        for (size_t t = 0; t < job->target_count && !job->options->layout; t++)
                for (size_t i = 0; i < c->portions[t].place_count && !r; i++)
                        r = vd_place_write(&c->portions[t].places[i], c->portions[t].place_bytes[i], err);
        return r;
}

static void take_digest(const struct copy_job *job, const struct chunk *c)
{
        uint64_t end = vd_min(c->start + c->length, job->source->size);

        if (c->all_zero && c->start < end)
                vd_digest_add_zeros(job->options->digest, end - c->start);
        for (uint64_t at = c->start; at < end && !c->all_zero; at += VD_DIGEST_LEAF)
                vd_digest_add(job->options->digest, c->leaves[(at - c->start) / VD_DIGEST_LEAF]);
}

int vd_copy_publish(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        int r = 0;

        (void)worker;
        if (job->options->digest)
                take_digest(job, c);
        for (size_t i = 0; i < job->target_count && !r; i++) {
                struct portion *p = &c->portions[i];

                job->stats.verbatim_units += p->verbatim_units;
                if (job->needs_digest && !c->all_zero)
                        job->targets[i].image->digest += p->digest;
                r = vd_writer_written(job->targets[i].writer, p->place_count, err);
        }
        if (!r && job->options->progress)
                job->options->progress(job->options->context, c->start + c->length, job->size);
        if (!c->all_zero && !job->options->layout)
                vd_pace_keep(&job->pace, c->length);
        return r;
}

static const struct vd_stage stages[] = {
        { "plan", true, vd_copy_plan },
        { "fetch", false, vd_copy_fetch },
        { "place", true, vd_copy_place },
        { "store", false, vd_copy_store },
        { "publish", true, vd_copy_publish },
};

unsigned vd_copy_threads(const struct vd_copy_options *options)
{
        long processors = sysconf(_SC_NPROCESSORS_ONLN);

        if (options->threads)
                return options->threads;
        return processors < 1 ? 1 : processors > THREADS_MAX ? THREADS_MAX : (unsigned)processors;
}

static uint64_t least_common_multiple(uint64_t a, uint64_t b)
{
        uint64_t x = a, y = b;

        while (y) {
                uint64_t rest = x % y;

                x = y;
                y = rest;
        }
        return a / x * b;
}

static int set_up_target(struct copy_job *job, struct copy_target *t, struct vd_image *image, struct vd_error *err)
{
        const struct vd_copy_options *o = job->options;

        t->image = image;
        if (image->size < job->source->size)
                return vd_fail(err, VD_EUSAGE, "%s: a disk of %" PRIu64 " bytes does not fit into one of %" PRIu64,
                               image->path, job->source->size, image->size);
        if (!image->is_new && job->target_count > 1)
                return vd_fail(err, VD_EUSAGE, "%s: an old image is written alone", image->path);
        if (o->compress && !image->pack.codec)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: %s images of this kind hold no compressed data",
                               image->path, image->format->name);
        t->packs = o->compress || image->pack.always;
        t->keeps_packed = job->may_be_packed && image->pack.codec && (!o->expand || image->pack.always);
        t->packed_stride = vd_max(image->pack.unit, image->pack.max_packed);
        job->unit = least_common_multiple(job->unit, image->write_unit);
        if (t->packs || t->keeps_packed)
                job->unit = least_common_multiple(job->unit, image->pack.unit);
        t->granule = vd_round_up(vd_max(o->sparse_bytes, 512),
                                 vd_max(image->write_unit, t->packs ? image->pack.unit : 1));
        /* A new image without a parent, or a target that is said to be empty, reads as zeros where nothing is put. */
        t->write_zeros = job->dense || !((image->is_new && !image->parent_ref.count) || o->target_is_zero);
        job->write_zeros = job->write_zeros || t->write_zeros;
        job->needs_digest = job->needs_digest || (image->is_new && vd_identity_is_fixed());
        if (image->is_new) {
                job->size = vd_max(job->size, image->size);
        } else {        /* whole units are written: what of the last one is not the source's is read first */
                job->size = vd_min(vd_round_up(job->source->size, job->unit), image->size);
                job->old = image;
        }
        t->writer = vd_writer_new(image);
        return t->writer ? 0 : vd_fail(err, -ENOMEM, "%s", image->path);
}

/* Does the data of the source have to be looked at?  A layout is made without, where lengths do not depend on it. */
static bool needs_data(const struct copy_job *job)
{
        const struct vd_layout *layout = job->options->layout;

        if (!layout)
                return true;
        return !vd_layout_pretends(layout) && (job->targets->packs || job->targets->keeps_packed || job->needs_digest);
}

int vd_copy_set_up(struct copy_job *job, struct vd_image *const *targets, size_t target_count, struct vd_error *err)
{
        const struct vd_copy_options *o = job->options;
        bool packing;

        if (o->compress && o->expand)
                return vd_fail(err, VD_EUSAGE, "to compress and to store uncompressed exclude each other");
        job->targets = calloc(target_count, sizeof(*job->targets));
        if (!job->targets)
                return vd_fail(err, -ENOMEM, "starting the copy");
        job->target_count = target_count;
        pthread_mutex_init(&job->salvage_lock, NULL);
        packing = job->may_be_packed = vd_image_may_be_packed(job->source);
        job->unit = o->digest ? VD_DIGEST_LEAF : 1;
        job->size = job->source->size;
        job->dense = !o->sparse_bytes;
        job->lacks_parent = vd_image_lacks_parent(job->source);
        job->is_remote = vd_image_is_remote(job->source);
        job->skip_depth = o->skip ? o->skip->depth : UINT_MAX;
        vd_pace_start(&job->pace, o->rate, o->stop);
        for (size_t i = 0; i < job->target_count; i++) {
                int r = set_up_target(job, &job->targets[i], targets[i], err);

                if (r)
                        return r;
                packing = packing || job->targets[i].packs;
                job->is_remote = job->is_remote || vd_image_is_remote(targets[i]);
        }
        if (o->layout && vd_layout_purpose(o->layout) != VD_LAYOUT_STREAM)
                job->needs_digest = false;
        job->reads = needs_data(job);
        job->finds_zeros = !job->dense && !o->keep_zeros && (!o->layout || (job->reads && job->targets->packs));
        job->chunk_bytes = vd_max(packing || job->is_remote ? PACK_CHUNK : PLAIN_CHUNK,
                                  job->may_be_packed ? job->source->unit : 0);
        if (!job->reads)
                job->chunk_bytes = vd_max(job->chunk_bytes, LAYOUT_CHUNK);
        job->chunk_bytes = vd_round_up(job->chunk_bytes, job->unit);
        for (size_t i = 0; i < job->target_count; i++) {
                struct copy_target *t = &job->targets[i];

                if (t->image->pack.unit)
                        t->packed_bytes = job->chunk_bytes / t->image->pack.unit * t->packed_stride;
                job->buffer_bytes += job->chunk_bytes * (i == 0) + (t->packs || t->keeps_packed ? t->packed_bytes : 0);
        }
        return 0;
}

void vd_copy_tear_down(struct copy_job *job)
{
        for (size_t i = 0; i < job->target_count; i++) {
                vd_writer_free(job->targets[i].writer);
                free(job->targets[i].holes);
        }
        if (job->targets)
                pthread_mutex_destroy(&job->salvage_lock);
        free(job->targets);
        job->targets = NULL;
}

struct chunk *vd_copy_new_chunk(const struct copy_job *job)
{
        struct chunk *c = calloc(1, sizeof(*c));

        if (c && !(c->portions = calloc(job->target_count + 1, sizeof(*c->portions)))) {
                free(c);
                return NULL;
        }
        return c;
}

void vd_copy_free_chunk(const struct copy_job *job, struct chunk *c)
{
        if (!c)
                return;
        for (size_t i = 0; i < job->target_count; i++) {
                free(c->portions[i].pieces);
                free(c->portions[i].moved);
                free(c->portions[i].packed);
                free(c->portions[i].places);
                free(c->portions[i].place_bytes);
        }
        free(c->portions);
        free(c->leaves);
        free(c->extents);
        free(c->buffer);
        free(c);
}

static int finish_targets(struct copy_job *job, struct vd_error *err)
{
        int r = 0;

        for (size_t n = 0; n < job->target_count && !r; n++) {
                struct copy_target *t = &job->targets[n];

                r = vd_writer_commit(t->writer, err);
                for (size_t i = 0; i < t->hole_count && !r; i++)
                        r = vd_file_zero(t->image->file, t->holes[i].position, t->holes[i].length, err);
        }
        return r;
}

static int run(struct copy_job *job, unsigned threads, size_t slot_count, struct vd_error *err)
{
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = 0;

        job->codecs = calloc(threads, sizeof(struct vd_codec_context *));
        for (unsigned i = 0; i < threads && job->codecs && !r; i++)
                r = (job->codecs[i] = vd_codec_context_new()) ? 0 : -ENOMEM;
        for (size_t i = 0; i < slot_count && slots && !r; i++)
                r = (slots[i] = vd_copy_new_chunk(job)) ? 0 : -ENOMEM;
        if (r || !slots || !job->codecs)
                r = vd_fail(err, -ENOMEM, "starting the copy");
        if (!r)
                r = vd_pipeline_run(stages, sizeof(stages) / sizeof(stages[0]), slots, slot_count, threads, job, err);
        if (!r)
                r = finish_targets(job, err);
        for (size_t i = 0; i < slot_count && slots; i++)
                vd_copy_free_chunk(job, slots[i]);
        for (unsigned i = 0; i < threads && job->codecs; i++)
                vd_codec_context_free(job->codecs[i]);
        free(job->codecs);
        free(slots);
        return r;
}

static unsigned choose_threads(const struct copy_job *job)
{
        unsigned threads = vd_copy_threads(job->options);

        if (!job->reads)
                return 1;
        if (job->options->threads || !job->is_remote)
                return threads;
        return (unsigned)vd_max(threads, vd_min(REMOTE_THREADS, REMOTE_MEMORY / SLOTS_PER_THREAD / job->buffer_bytes));
}

int vd_copy(struct vd_image *source, struct vd_image *const *targets, size_t target_count,
            const struct vd_copy_options *options, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct copy_job job = { .source = source, .options = options };
        int r = vd_copy_set_up(&job, targets, target_count, err);
        unsigned threads = r ? 1 : choose_threads(&job);
        size_t slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD;

        if (!r)
                r = run(&job, threads, slot_count, err);
        vd_copy_tear_down(&job);
        job.stats.threads = threads;
        job.stats.memory_bytes = slot_count * job.buffer_bytes;
        job.stats.packed_units -= vd_min(job.stats.verbatim_units, job.stats.packed_units);
        if (stats)
                *stats = job.stats;
        if (!r && options->progress)
                options->progress(options->context, job.size, job.size);
        return r;
}
