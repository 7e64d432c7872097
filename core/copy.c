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
        PACK_CHUNK = 1024 * 1024,       /* work enough to hand to a thread */
        SLOTS_PER_THREAD = 3,
        RESERVE_AFTER = 1024 * 1024,    /* a run of writes this long gets space reserved ahead of it */
        RESERVE_STEP = 32 * 1024 * 1024,
        HOLES_KEPT = 65536,
};

/* Reserves space ahead of a place that continues a run.  A target whose positions are guest offsets may get it only
 * where the source surely has data, others append and give the rest back at the end. */
static void reserve(struct copy_job *job, const struct chunk *c, const struct vd_place *p)
{
        uint64_t length = p->kind == VD_PACKED ? p->packed_bytes : p->length, end, most = RESERVE_STEP;

        if (!job->target->is_new || p->file != job->target->file || (p->kind != VD_DATA && p->kind != VD_PACKED))
                return;
        if (p->position < job->run_end || p->position > job->run_end + job->chunk_bytes)
                job->run_start = p->position;
        job->run_end = p->position + length;
        end = job->run_end;
        if (end <= job->reserved_end || end - job->run_start < RESERVE_AFTER || p->position < vd_file_size(p->file))
                return;
        if (job->target->identity) {
                if (!job->last_was_data || job->hole_count == HOLES_KEPT || c->data_ahead <= end)
                        return;
                most = vd_min(most, c->data_ahead - end);
        }
        vd_file_reserve(p->file, p->position, length + most);
        job->reserved_end = end + most;
}

/* A zero run of a new target needs nothing, unless space was reserved there: that is punched in the end. */
static int leave_hole(struct copy_job *job, const struct piece *p, struct vd_error *err)
{
        int r;

        job->stats.zero_bytes += p->length;
        if (!job->target->identity || p->start >= job->reserved_end)
                return 0;
        r = vd_copy_grow(&job->holes, job->hole_count, &job->hole_room, sizeof(*job->holes), err);
        if (!r)
                job->holes[job->hole_count++] = (struct hole){ p->start, p->length };
        return r;
}

static int place_piece(struct copy_job *job, struct chunk *c, const struct piece *p, struct vd_error *err)
{
        struct vd_request request = { p->start, p->length, p->kind, p->packed_bytes };
        const char *bytes = p->bytes;

        while (request.length) {
                size_t bytes_room = c->place_room;
                struct vd_place *place;
                int r = vd_copy_grow(&c->places, c->place_count, &c->place_room, sizeof(*c->places), err);

                if (!r)
                        r = vd_copy_grow(&c->place_bytes, c->place_count, &bytes_room, sizeof(*c->place_bytes), err);
                if (r)
                        return r;
                place = &c->places[c->place_count];
                r = vd_writer_place(job->writer, &request, place, err);
                if (r)
                        return r;
                c->place_bytes[c->place_count++] = bytes;
                reserve(job, c, place);
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

int vd_copy_place(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        bool all_data = true;
        int r = 0;

        (void)worker;
        for (size_t i = 0; i < c->piece_count && !r; i++) {
                const struct piece *p = &c->pieces[i];

                if (p->kind == VD_ZERO)
                        all_data = false;
                if (p->kind == VD_ZERO && !job->write_zeros)
                        r = leave_hole(job, p, err);
                else
                        r = place_piece(job, c, p, err);
        }
        job->last_was_data = all_data;
        return r;
}

int vd_copy_store(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct chunk *c = slot;
        int r = 0;

        (void)context;
        (void)worker;
        for (size_t i = 0; i < c->place_count && !r; i++)
                r = vd_place_write(&c->places[i], c->place_bytes[i], err);
        return r;
}

int vd_copy_publish(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        int r;

        (void)worker;
        job->stats.verbatim_units += c->verbatim_units;
        if (job->needs_digest && !c->all_zero)
                job->target->digest += c->digest;
        r = vd_writer_written(job->writer, c->place_count, err);
        if (!r && job->options->progress)
                job->options->progress(job->options->context, c->start + c->length, job->target->size);
        return r;
}

static const struct vd_stage stages[] = {
        { "plan", true, vd_copy_plan },
        { "fetch", false, vd_copy_fetch },
        { "place", true, vd_copy_place },
        { "store", false, vd_copy_store },
        { "publish", true, vd_copy_publish },
};

static unsigned choose_threads(const struct copy_job *job)
{
        long processors = sysconf(_SC_NPROCESSORS_ONLN);

        if (job->options->threads)
                return job->options->threads;
        return processors > 0 ? (unsigned)processors : 1;
}

static int set_up(struct copy_job *job, struct vd_error *err)
{
        const struct vd_copy_options *o = job->options;
        struct vd_image *s = job->source, *t = job->target;
        bool packing;

        if (o->compress && o->expand)
                return vd_fail(err, VD_EUSAGE, "to compress and to store uncompressed exclude each other");
        if (t->size < s->size)
                return vd_fail(err, VD_EUSAGE, "%s: a disk of %" PRIu64 " bytes does not fit into one of %" PRIu64,
                               t->path, s->size, t->size);
        if (o->compress && !t->pack.codec)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: %s images of this kind hold no compressed data", t->path,
                               t->format->name);
        job->packs = o->compress || t->pack.always;
        job->keeps_packed = s->is_packed && t->pack.codec && (!o->expand || t->pack.always);
        job->packed_stride = vd_max(t->pack.unit, t->pack.max_packed);
        packing = job->packs || s->is_packed;
        job->unit = vd_max(t->write_unit, job->packs || job->keeps_packed ? t->pack.unit : 1);
        job->chunk_bytes = vd_max(packing ? PACK_CHUNK : PLAIN_CHUNK, s->is_packed ? s->unit : 0);
        job->chunk_bytes = vd_round_up(job->chunk_bytes, job->unit);
        job->dense = !o->sparse_bytes;
        job->granule = vd_round_up(vd_max(o->sparse_bytes, 512), job->unit);
        /* A new image without a parent, or a target that is said to be empty, reads as zeros where nothing is put. */
        job->write_zeros = job->dense || !((t->is_new && !t->parent_ref.count) || o->target_is_zero);
        job->lacks_parent = vd_image_lacks_parent(s);
        job->needs_digest = t->is_new && vd_identity_is_fixed();
        job->skip_depth = o->skip ? o->skip->depth : UINT_MAX;
        return 0;
}

static void free_chunk(struct chunk *c)
{
        if (!c)
                return;
        free(c->extents);
        free(c->pieces);
        free(c->places);
        free(c->place_bytes);
        free(c->buffer);
        free(c->packed);
        free(c);
}

static int run(struct copy_job *job, unsigned threads, size_t slot_count, struct vd_error *err)
{
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = 0;

        job->codecs = calloc(threads, sizeof(struct vd_codec_context *));
        job->writer = vd_writer_new(job->target);
        for (unsigned i = 0; i < threads && job->codecs && !r; i++)
                r = (job->codecs[i] = vd_codec_context_new()) ? 0 : -ENOMEM;
        for (size_t i = 0; i < slot_count && slots && !r; i++)
                r = (slots[i] = calloc(1, sizeof(struct chunk))) ? 0 : -ENOMEM;
        if (r || !slots || !job->codecs || !job->writer)
                r = vd_fail(err, -ENOMEM, "starting the copy");
        if (!r)
                r = vd_pipeline_run(stages, sizeof(stages) / sizeof(stages[0]), slots, slot_count, threads, job, err);
        if (!r)
                r = vd_writer_commit(job->writer, err);
        for (size_t i = 0; i < job->hole_count && !r; i++)
                r = vd_file_zero(job->target->file, job->holes[i].position, job->holes[i].length, err);
        for (size_t i = 0; i < slot_count && slots; i++)
                free_chunk(slots[i]);
        for (unsigned i = 0; i < threads && job->codecs; i++)
                vd_codec_context_free(job->codecs[i]);
        vd_writer_free(job->writer);
        free(job->codecs);
        free(job->holes);
        free(slots);
        return r;
}

int vd_copy(struct vd_image *source, struct vd_image *target, const struct vd_copy_options *options,
            struct vd_copy_stats *stats, struct vd_error *err)
{
        struct copy_job job = { .source = source, .target = target, .options = options };
        unsigned threads;
        size_t slot_count;
        int r = set_up(&job, err);

        if (r)
                return r;
        threads = choose_threads(&job);
        slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD;
        job.stats.threads = threads;
        job.stats.memory_bytes = slot_count * job.chunk_bytes * (job.packs ? 2 : 1);
        r = run(&job, threads, slot_count, err);
        job.stats.packed_units -= job.stats.verbatim_units;
        if (stats)
                *stats = job.stats;
        if (!r && options->progress)
                options->progress(options->context, target->size, target->size);
        return r;
}
