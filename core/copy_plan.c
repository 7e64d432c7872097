// SPDX-License-Identifier: MIT
/* copy_plan.c: cutting the source into chunks.
 *
 * A chunk begins at a multiple of the job's unit.  Where the source has a hole that covers whole units, the hole is a
 * chunk of its own (or nothing at all, when the target reads as zeros anyway), however long it is.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "copy_job.h"
#include "util/checked.h"

static bool is_hole(const struct vd_extent *ext)
{
        return ext->kind == VD_UNALLOCATED || ext->kind == VD_ZERO;
}

/* Salvage: what the tables cannot tell reads as zeros, up to the next unit of the source. */
static int skip_unmapped(struct copy_job *job, uint64_t offset, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t unit = job->source->unit ? job->source->unit : 65536;
        uint64_t end = vd_min(vd_round_down(offset, unit) + unit, job->source->size);

        pthread_mutex_lock(&job->salvage_lock);
        job->options->unreadable(job->options->context, offset, end - offset, err);
        pthread_mutex_unlock(&job->salvage_lock);
        *err = (struct vd_error)VD_ERROR_INIT;
        *ext = (struct vd_extent){ .start = offset, .length = end - offset, .kind = VD_ZERO };
        return 0;
}

/* The extent at offset past the source's end. */
static int map_rest(struct copy_job *job, uint64_t offset, struct vd_extent *ext, struct vd_error *err)
{
        int r = 0;

        *ext = (struct vd_extent){ .start = offset, .length = job->size - offset, .kind = VD_ZERO };
        if (job->old)
                r = vd_image_map(job->old, offset, job->size - offset, UINT_MAX, ext, err);
        if (ext->kind == VD_UNALLOCATED)
                ext->kind = VD_ZERO;
        return r;
}

/* The source's extent at offset, or what is past its end.  Everything from skip_depth on stays UNALLOCATED unless deep. */
static int map_source(struct copy_job *job, uint64_t offset, bool deep, struct vd_extent *ext, struct vd_error *err)
{
        unsigned depth = deep || job->skip_depth == UINT_MAX ? UINT_MAX : job->skip_depth - 1;
        int r;

        if (offset >= job->source->size)
                return map_rest(job, offset, ext, err);
        r = vd_image_map(job->source, offset, UINT64_MAX, depth, ext, err);
        if (r && job->options->unreadable && r != -ENOMEM)
                return skip_unmapped(job, offset, ext, err);
        if (r || ext->kind != VD_UNALLOCATED || depth != UINT_MAX)
                return r;
        if (job->lacks_parent)
                return vd_fail(err, VD_EPARENT, "%s: guest offset %" PRIu64
                               " is in the parent image, which is not open", job->source->path, offset);
        ext->kind = VD_ZERO;
        return 0;
}

int vd_copy_look_ahead(struct copy_job *job, uint64_t offset, struct vd_extent *ext, struct vd_error *err)
{
        int r = 0;

        if (!job->has_ahead || offset < job->ahead.start || offset >= job->ahead.start + job->ahead.length) {
                r = map_source(job, offset, false, &job->ahead, err);
                job->has_ahead = !r;
        }
        *ext = job->ahead;
        if (!r && offset > ext->start) {
                if (ext->kind != VD_PACKED)
                        ext->position += offset - ext->start;
                ext->length -= offset - ext->start;
                ext->start = offset;
        }
        return r;
}

int vd_copy_grow(void *array, size_t count, size_t *room, size_t item_bytes, struct vd_error *err)
{
        size_t more = *room ? *room * 2 : 16;
        void *grown;

        if (count < *room)
                return 0;
        grown = realloc(*(void **)array, more * item_bytes);
        if (!grown)
                return vd_fail(err, -ENOMEM, "%zu extents", more);
        *(void **)array = grown;
        *room = more;
        return 0;
}

static int add_extent(struct chunk *c, const struct vd_extent *ext, struct vd_error *err)
{
        int r = vd_copy_grow(&c->extents, c->extent_count, &c->extent_room, sizeof(*c->extents), err);

        if (!r)
                c->extents[c->extent_count++] = *ext;
        return r;
}

/* A skipped range that does not cover whole units of the target: what the left-out parent has is needed after all. */
static int add_deep(struct copy_job *job, struct chunk *c, uint64_t start, uint64_t end, struct vd_error *err)
{
        while (start < end) {
                struct vd_extent ext;
                int r = map_source(job, start, true, &ext, err);

                if (r)
                        return r;
                ext.length = vd_min(ext.length, end - start);
                r = add_extent(c, &ext, err);
                if (r)
                        return r;
                start += ext.length;
        }
        return 0;
}

/* A chunk of data: up to chunk_bytes, or up to a hole that covers whole units. */
static int cut_data(struct copy_job *job, struct chunk *c, struct vd_error *err)
{
        uint64_t disk = job->size, end = vd_min(disk, c->start + job->chunk_bytes), at = c->start;

        while (at < end) {
                struct vd_extent ext;
                uint64_t stop;
                int r = vd_copy_look_ahead(job, at, &ext, err);

                if (r)
                        return r;
                stop = ext.start + ext.length;
                if (is_hole(&ext) && !job->dense && at > c->start) {
                        uint64_t next = vd_round_up(at, job->unit);     /* the first unit that may be all hole */

                        if (stop >= vd_min(next + job->unit, disk) && next < end)
                                end = next;
                        if (at >= end)
                                break;
                }
                ext.length = vd_min(ext.length, end - at);
                r = ext.kind == VD_UNALLOCATED ? add_deep(job, c, at, at + ext.length, err) : add_extent(c, &ext, err);
                if (r)
                        return r;
                if (ext.kind == VD_DATA)
                        c->data_ahead = stop;
                at += ext.length;
        }
        c->length = end - c->start;
        job->cursor = end;
        return 0;
}

int vd_copy_plan(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        uint64_t disk = job->size;

        (void)worker;
        c->extent_count = 0;
        for (size_t i = 0; i < job->target_count; i++)
                c->portions[i].piece_count = c->portions[i].place_count = c->portions[i].verbatim_units = 0;
        c->all_zero = false;
        c->data_ahead = 0;
        while (job->cursor < disk) {
                struct vd_extent ext;
                uint64_t stop;
                int r;

                if (job->options->stop && *job->options->stop)
                        return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                c->start = job->cursor;
                r = vd_copy_look_ahead(job, c->start, &ext, err);
                if (r)
                        return r;
                stop = vd_min(ext.start + ext.length, disk);
                if (stop < disk)
                        stop = vd_round_down(stop, job->unit);
                if (!is_hole(&ext) || stop <= c->start || (job->dense && ext.kind == VD_ZERO)) {
                        if (job->reads && !c->buffer && !(c->buffer = malloc(job->chunk_bytes)))
                                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", job->chunk_bytes);
                        return cut_data(job, c, err);
                }
                job->cursor = stop;
                if (ext.kind == VD_ZERO)
                        job->stats.zero_bytes += stop - c->start;
                if ((ext.kind == VD_ZERO && job->write_zeros) || job->options->digest) {
                        c->length = stop - c->start;
                        c->all_zero = true;
                        return 0;
                }
        }
        return 1;
}
