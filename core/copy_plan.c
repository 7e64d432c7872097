// SPDX-License-Identifier: MIT
/* copy_plan.c: cutting the source into chunks, and looking into them.
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
#include "util/iszero.h"

static bool is_hole(const struct vd_extent *ext)
{
        return ext->kind == VD_UNALLOCATED || ext->kind == VD_ZERO;
}

/* The source's extent at offset, zeros past its end.  Everything from skip_depth on stays UNALLOCATED unless deep. */
static int map_source(struct copy_job *job, uint64_t offset, bool deep, struct vd_extent *ext, struct vd_error *err)
{
        unsigned depth = deep || job->skip_depth == UINT_MAX ? UINT_MAX : job->skip_depth - 1;
        int r;

        if (offset >= job->source->size) {
                *ext = (struct vd_extent){ .start = offset, .length = job->target->size - offset, .kind = VD_ZERO };
                return 0;
        }
        r = vd_image_map(job->source, offset, UINT64_MAX, depth, ext, err);
        if (r || ext->kind != VD_UNALLOCATED || depth != UINT_MAX)
                return r;
        if (job->lacks_parent)
                return vd_fail(err, VD_EPARENT, "%s: guest offset %" PRIu64 " is in the parent image, which is not open",
                               job->source->path, offset);
        ext->kind = VD_ZERO;
        return 0;
}

/* The extent at the cursor; asked once even when a chunk ends inside it. */
static int look_ahead(struct copy_job *job, uint64_t offset, struct vd_extent *ext, struct vd_error *err)
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
        uint64_t disk = job->target->size, end = vd_min(disk, c->start + job->chunk_bytes), at = c->start;

        while (at < end) {
                struct vd_extent ext;
                uint64_t stop;
                int r = look_ahead(job, at, &ext, err);

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
        uint64_t disk = job->target->size;

        (void)worker;
        c->extent_count = c->piece_count = c->place_count = 0;
        c->all_zero = false;
        c->data_ahead = 0;
        while (job->cursor < disk) {
                struct vd_extent ext;
                uint64_t stop;
                int r;

                if (job->options->stop && *job->options->stop)
                        return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                c->start = job->cursor;
                r = look_ahead(job, c->start, &ext, err);
                if (r)
                        return r;
                stop = vd_min(ext.start + ext.length, disk);
                if (stop < disk)
                        stop = vd_round_down(stop, job->unit);
                if (!is_hole(&ext) || stop <= c->start || (job->dense && ext.kind == VD_ZERO)) {
                        if (!c->buffer && !(c->buffer = malloc(job->chunk_bytes)))
                                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", job->chunk_bytes);
                        return cut_data(job, c, err);
                }
                job->cursor = stop;
                if (ext.kind == VD_ZERO)
                        job->stats.zero_bytes += stop - c->start;
                if (ext.kind == VD_ZERO && job->write_zeros) {
                        c->length = stop - c->start;
                        c->all_zero = true;
                        return 0;
                }
        }
        return 1;
}

/* Fetch: reading, zero search, packing. */

static int add_piece(struct chunk *c, uint64_t start, uint64_t length, enum vd_kind kind, const char *bytes,
                     uint32_t packed_bytes, struct vd_error *err)
{
        struct piece *last = c->piece_count ? &c->pieces[c->piece_count - 1] : NULL;
        int r;

        if (last && last->kind == kind && kind != VD_PACKED && last->start + last->length == start) {
                last->length += length;
                return 0;
        }
        r = vd_copy_grow(&c->pieces, c->piece_count, &c->piece_room, sizeof(*c->pieces), err);
        if (!r)
                c->pieces[c->piece_count++] = (struct piece){ start, length, kind, bytes, packed_bytes };
        return r;
}

/* [start, end) has data: packs unit by unit where the job packs. */
static int add_data(struct copy_job *job, struct chunk *c, uint64_t start, uint64_t end,
                    struct vd_codec_context *codec, struct vd_error *err)
{
        const struct vd_image *t = job->target;
        int r = 0;

        if (!job->packs)
                return add_piece(c, start, end - start, VD_DATA, c->buffer + (start - c->start), 0, err);
        for (uint64_t at = start; at < end && !r; at += t->pack.unit) {
                uint64_t inside = vd_min(t->pack.unit, end - at);
                char *plain = c->buffer + (at - c->start), *packed = c->packed + (at - c->start);
                size_t n;

                memset(plain + inside, 0, t->pack.unit - inside);
                r = vd_pack(codec, t->pack.codec, &t->pack.settings, plain, t->pack.unit, packed, t->pack.max_packed,
                            &n, err);
                if (!r)
                        r = n ? add_piece(c, at, inside, VD_PACKED, packed, (uint32_t)n, err)
                              : add_piece(c, at, inside, VD_DATA, plain, 0, err);
        }
        return r;
}

/* Splits what is in the buffer into zero runs of whole granules, and data. */
static int split(struct copy_job *job, struct chunk *c, struct vd_codec_context *codec, struct vd_error *err)
{
        uint64_t end = c->start + c->length, data_start = c->start;
        int r = 0;

        if (job->dense)
                return add_data(job, c, c->start, end, codec, err);
        for (uint64_t at = c->start; at < end && !r; ) {
                uint64_t stop = vd_min(vd_round_down(at, job->granule) + job->granule, end);

                if (vd_is_zero(c->buffer + (at - c->start), stop - at)) {
                        if (data_start < at)
                                r = add_data(job, c, data_start, at, codec, err);
                        if (!r)
                                r = add_piece(c, at, stop - at, VD_ZERO, NULL, 0, err);
                        data_start = stop;
                }
                at = stop;
        }
        if (!r && data_start < end)
                r = add_data(job, c, data_start, end, codec, err);
        return r;
}

/* splitmix64's finaliser: any good mixing does, nobody relies on it across versions. */
static uint64_t mix(uint64_t a, uint64_t b)
{
        a ^= b + 0x9E3779B97F4A7C15u + (a << 6) + (a >> 2);
        a = (a ^ (a >> 30)) * 0xBF58476D1CE4E5B9u;
        a = (a ^ (a >> 27)) * 0x94D049BB133111EBu;
        return a ^ (a >> 31);
}

/* Independent of how chunks are cut: by 4 KiB blocks of guest data, zero blocks left out, in any order. */
static uint64_t digest(const struct chunk *c)
{
        uint64_t sum = 0;

        for (uint64_t at = 0; at < c->length; at += 4096) {
                size_t n = vd_min(4096, c->length - at);
                uint64_t h = c->start + at, word;

                if (vd_is_zero(c->buffer + at, n))
                        continue;
                for (size_t i = 0; i + 8 <= n; i += 8) {
                        memcpy(&word, c->buffer + at + i, 8);
                        h = mix(h, word);
                }
                sum += h;
        }
        return sum;
}

int vd_copy_fetch(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct chunk *c = slot;
        int r = 0;

        if (c->all_zero)
                return add_piece(c, c->start, c->length, VD_ZERO, NULL, 0, err);
        if (job->packs && !c->packed && !(c->packed = malloc(job->chunk_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", job->chunk_bytes);
        for (size_t i = 0; i < c->extent_count && !r; i++)
                r = vd_extent_read(&c->extents[i], c->buffer + (c->extents[i].start - c->start), job->codecs[worker],
                                   err);
        if (!r && job->needs_digest)
                c->digest = digest(c);
        return r ? r : split(job, c, job->codecs[worker], err);
}
