// SPDX-License-Identifier: MIT
/* copy_fetch.c: looking into a chunk: reading, zero search, packing; packed units stay packed where the target can hold
 * them as they are.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "copy_job.h"
#include "util/checked.h"
#include "util/iszero.h"

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

/* Where the packed form of the unit at this guest offset goes. */
static char *packed_at(const struct copy_job *job, const struct chunk *c, uint64_t guest)
{
        return c->packed + (guest - c->start) / job->target->pack.unit * job->packed_stride;
}

/* [start, end) has data: as it is, or packed unit by unit. */
static int add_data(struct copy_job *job, struct chunk *c, uint64_t start, uint64_t end, bool pack,
                    struct vd_codec_context *codec, struct vd_error *err)
{
        const struct vd_image *t = job->target;
        int r = 0;

        if (!pack)
                return add_piece(c, start, end - start, VD_DATA, c->buffer + (start - c->start), 0, err);
        for (uint64_t at = start; at < end && !r; at += t->pack.unit) {
                uint64_t inside = vd_min(t->pack.unit, end - at);
                char *plain = c->buffer + (at - c->start), *packed = packed_at(job, c, at);
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

/* Splits [start, end) of the buffer into zero runs of whole granules, and data. */
static int split(struct copy_job *job, struct chunk *c, uint64_t start, uint64_t end, bool pack,
                 struct vd_codec_context *codec, struct vd_error *err)
{
        uint64_t data_start = start;
        int r = 0;

        if (job->dense)
                return start < end ? add_data(job, c, start, end, pack, codec, err) : 0;
        for (uint64_t at = start; at < end && !r; ) {
                uint64_t stop = vd_min(vd_round_down(at, job->granule) + job->granule, end);

                if (vd_is_zero(c->buffer + (at - c->start), stop - at)) {
                        if (data_start < at)
                                r = add_data(job, c, data_start, at, pack, codec, err);
                        if (!r)
                                r = add_piece(c, at, stop - at, VD_ZERO, NULL, 0, err);
                        data_start = stop;
                }
                at = stop;
        }
        if (!r && data_start < end)
                r = add_data(job, c, data_start, end, pack, codec, err);
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

/* Of what the chunk's pieces hold and where; chunks may be summed up in any order. */
static uint64_t digest(const struct chunk *c)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < c->piece_count; i++) {
                const struct piece *p = &c->pieces[i];
                uint64_t n = p->kind == VD_PACKED ? p->packed_bytes : p->length, h = p->start, word;

                if (p->kind == VD_ZERO)
                        continue;
                for (uint64_t at = 0; at + 8 <= n; at += 8) {
                        memcpy(&word, p->bytes + at, 8);
                        h = mix(h, word);
                }
                sum += h;
        }
        return sum;
}

/* Is this extent a whole unit that the target could take as it stands? */
static bool is_portable(const struct copy_job *job, const struct vd_extent *ext)
{
        const struct vd_image *t = job->target;

        return ext->kind == VD_PACKED && job->keeps_packed && ext->start == ext->unit_start &&
               ext->unit_bytes == t->pack.unit && ext->start % t->pack.unit == 0 &&
               (ext->length == ext->unit_bytes || ext->start + ext->length == t->size);
}

/* Moves a packed unit over.  *moved stays false when its wrapper, window or length does not suit the target.  A unit that
 * the end of the file may have cut is not moved: unpacking it will tell. */
static int move_packed(struct copy_job *job, struct chunk *c, const struct vd_extent *ext, bool *moved,
                       struct vd_error *err)
{
        const struct vd_image *t = job->target;
        char *packed = packed_at(job, c, ext->start);
        size_t n;
        int r;

        if (ext->packed_bytes > job->packed_stride || ext->position + ext->packed_bytes >= vd_file_size(ext->file))
                return 0;
        r = vd_file_read(ext->file, packed, ext->packed_bytes, ext->position, err);
        if (r)
                return r;
        n = vd_rewrap(ext->codec, packed, ext->packed_bytes, t->pack.codec, &t->pack.settings, t->pack.max_packed);
        if (!n)
                return 0;
        *moved = true;
        return add_piece(c, ext->start, ext->length, VD_PACKED, packed, (uint32_t)n, err);
}

int vd_copy_fetch(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct vd_codec_context *codec = job->codecs[worker];
        struct chunk *c = slot;
        uint64_t start = c->start;      /* of what is in the buffer and not yet split */
        uint64_t packed_bytes = job->packed_stride ? job->chunk_bytes / job->target->pack.unit * job->packed_stride : 0;
        int r = 0;

        if (c->all_zero)
                return add_piece(c, c->start, c->length, VD_ZERO, NULL, 0, err);
        if ((job->packs || job->keeps_packed) && !c->packed && !(c->packed = malloc(packed_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", packed_bytes);
        for (size_t i = 0; i < c->extent_count && !r; i++) {
                const struct vd_extent *ext = &c->extents[i];
                bool portable = is_portable(job, ext), moved = false;

                if (portable) {
                        r = split(job, c, start, ext->start, job->packs, codec, err);
                        start = ext->start;
                        if (!r)
                                r = move_packed(job, c, ext, &moved, err);
                }
                if (!r && !moved)
                        r = vd_extent_read(ext, c->buffer + (ext->start - c->start), codec, err);
                if (!r && portable && !moved)           /* what was packed stays packed, if in another way */
                        r = split(job, c, ext->start, ext->start + ext->length, true, codec, err);
                if (portable)
                        start = ext->start + ext->length;
                c->verbatim_units += moved;
        }
        if (!r)
                r = split(job, c, start, c->start + c->length, job->packs, codec, err);
        if (!r && job->needs_digest)
                c->digest = digest(c);
        return r;
}
