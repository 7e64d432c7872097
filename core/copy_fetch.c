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

static int add_piece(struct portion *c, uint64_t start, uint64_t length, enum vd_kind kind, const char *bytes,
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
static char *packed_at(const struct chunk *c, const struct copy_target *t, const struct portion *p, uint64_t guest)
{
        return p->packed + (guest - c->start) / t->image->pack.unit * t->packed_stride;
}

/* [start, end) of the chunk has data: as it is, or packed unit by unit. */
static int add_data(struct chunk *c, const struct copy_target *t, struct portion *p, uint64_t start, uint64_t end,
                    bool pack, struct vd_codec_context *codec, struct vd_error *err)
{
        uint32_t unit = t->image->pack.unit;
        int r = 0;

        if (!pack)
                return add_piece(p, start, end - start, VD_DATA, c->buffer + (start - c->start), 0, err);
        for (uint64_t at = start; at < end && !r; at += unit) {
                uint64_t inside = vd_min(unit, end - at);
                char *plain = c->buffer + (at - c->start), *packed = packed_at(c, t, p, at);
                size_t n;

                if (inside < unit)      /* only at the end of the disk; the buffer has room for the whole unit */
                        memset(plain + inside, 0, unit - inside);
                r = vd_pack(codec, t->image->pack.codec, &t->image->pack.settings, plain, unit, packed,
                            t->image->pack.max_packed, &n, err);
                if (!r)
                        r = n ? add_piece(p, at, inside, VD_PACKED, packed, (uint32_t)n, err)
                              : add_piece(p, at, inside, VD_DATA, plain, 0, err);
        }
        return r;
}

/* Splits [start, end) of the buffer into zero runs of whole granules, and data. */
static int split(const struct copy_job *job, struct chunk *c, const struct copy_target *t, struct portion *p,
                 uint64_t start, uint64_t end, bool pack, struct vd_codec_context *codec, struct vd_error *err)
{
        uint64_t data_start = start;
        int r = 0;

        end = vd_min(end, t->image->size);      /* a smaller target: what follows are zeros past the source's end */
        if (!job->finds_zeros)
                return start < end ? add_data(c, t, p, start, end, pack, codec, err) : 0;
        for (uint64_t at = start; at < end && !r; ) {
                uint64_t stop = vd_min(vd_round_down(at, t->granule) + t->granule, end);

                if (vd_is_zero(c->buffer + (at - c->start), stop - at)) {
                        if (data_start < at)
                                r = add_data(c, t, p, data_start, at, pack, codec, err);
                        if (!r)
                                r = add_piece(p, at, stop - at, VD_ZERO, NULL, 0, err);
                        data_start = stop;
                }
                at = stop;
        }
        if (!r && data_start < end)
                r = add_data(c, t, p, data_start, end, pack, codec, err);
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

/* Of what the pieces hold and where; chunks may be summed up in any order. */
static uint64_t digest(const struct portion *portion)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < portion->piece_count; i++) {
                const struct piece *p = &portion->pieces[i];
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
static bool is_portable(const struct copy_target *t, const struct vd_extent *ext)
{
        return ext->kind == VD_PACKED && t->keeps_packed && ext->start == ext->unit_start &&
               ext->unit_bytes == t->image->pack.unit && ext->start % t->image->pack.unit == 0 &&
               (ext->length == ext->unit_bytes || ext->start + ext->length == t->image->size);
}

/* Moves a packed unit over.  *length stays 0 when its wrapper, window or length does not suit the target.  A unit that
 * the end of the file may have cut is not moved: unpacking it will tell. */
static int move_packed(const struct chunk *c, const struct copy_target *t, struct portion *p,
                       const struct vd_extent *ext, uint32_t *length, struct vd_codec_context *codec,
                       struct vd_error *err)
{
        const struct vd_image *image = t->image;
        char *packed = packed_at(c, t, p, ext->start);
        int r;

        if (ext->packed_bytes > t->packed_stride || ext->position + ext->packed_bytes >= vd_file_size(ext->file))
                return 0;
        r = vd_file_read(ext->file, packed, ext->packed_bytes, ext->position, err);
        if (!r)
                *length = (uint32_t)vd_rewrap(codec, &(struct vd_rewrap){
                        .from = ext->codec, .to = image->pack.codec, .settings = &image->pack.settings,
                        .buffer = (uint8_t *)packed, .packed_bytes = ext->packed_bytes, .room = t->packed_stride,
                        .scratch = c->buffer + (ext->start - c->start), .unpacked_bytes = ext->unit_bytes,
                        .max_packed = image->pack.max_packed,
                });
        return r;
}

/* Takes over packed what the target can hold. */
static int move_units(struct chunk *c, const struct copy_target *t, struct portion *p,
                      struct vd_codec_context *codec, struct vd_error *err)
{
        int r = 0;

        if ((t->packs || t->keeps_packed) && !p->packed && !(p->packed = malloc(t->packed_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", t->packed_bytes);
        while (p->moved_room < c->extent_count) {
                r = vd_copy_grow(&p->moved, p->moved_room, &p->moved_room, sizeof(*p->moved), err);
                if (r)
                        return r;
        }
        for (size_t i = 0; i < c->extent_count && !r; i++) {
                p->moved[i] = 0;
                if (is_portable(t, &c->extents[i]))
                        r = move_packed(c, t, p, &c->extents[i], &p->moved[i], codec, err);
                p->verbatim_units += p->moved[i] > 0;
        }
        return r;
}

/* Has somebody to see the bytes of this extent?  A layout needs those whose packed length decides. */
static bool is_needed(const struct copy_job *job, const struct chunk *c, size_t extent)
{
        if (job->options->digest)
                return true;
        for (size_t i = 0; i < job->target_count; i++) {
                const struct copy_target *t = &job->targets[i];

                if (!c->portions[i].moved[extent] && (!job->options->layout || t->packs || job->needs_digest ||
                                                      is_portable(t, &c->extents[extent])))
                        return true;
        }
        return false;
}

/* Salvage: zeros where nothing can be read, piece by piece for plain data. */
static int salvage(struct copy_job *job, const struct vd_extent *whole, char *to, struct vd_codec_context *codec,
                   struct vd_error *err)
{
        enum { STEP = 4096 };

        for (uint64_t at = 0; at < whole->length; ) {
                struct vd_extent ext = *whole;
                int r;

                ext.start += at;
                ext.length = whole->kind == VD_DATA ? vd_min(STEP, whole->length - at) : whole->length;
                if (ext.kind == VD_DATA)
                        ext.position += at;
                r = vd_extent_read(&ext, to + at, codec, err);
                if (r == -ENOMEM)
                        return r;
                if (r) {
                        memset(to + at, 0, ext.length);
                        pthread_mutex_lock(&job->salvage_lock);
                        job->options->unreadable(job->options->context, ext.start, ext.length, err);
                        pthread_mutex_unlock(&job->salvage_lock);
                        *err = (struct vd_error)VD_ERROR_INIT;
                }
                at += ext.length;
        }
        return 0;
}

int vd_copy_read(struct copy_job *job, const struct vd_extent *ext, char *to, struct vd_codec_context *codec,
                 struct vd_error *err)
{
        int r = vd_extent_read(ext, to, codec, err);

        if (!r || r == -ENOMEM || !job->options->unreadable || ext->start >= job->source->size)
                return r;
        return salvage(job, ext, to, codec, err);
}

/* A layout for which nothing is read: data is data, and as long as it can get where it has to be packed. */
static int pretend_pieces(const struct copy_job *job, const struct chunk *c, struct portion *p, struct vd_error *err)
{
        const struct copy_target *t = job->targets;
        uint64_t end = vd_min(c->start + c->length, t->image->size), unit = t->image->pack.unit;
        int r = 0;

        if (!t->image->pack.always)
                return add_piece(p, c->start, end - c->start, c->all_zero ? VD_ZERO : VD_DATA, NULL, 0, err);
        for (uint64_t at = c->start; at < end && !r; at += unit)
                r = add_piece(p, at, vd_min(unit, end - at), c->all_zero ? VD_ZERO : VD_PACKED, NULL,
                              t->image->pack.max_packed, err);
        return r;
}

/* What is to be written into one target, in guest order. */
static int make_pieces(const struct copy_job *job, struct chunk *c, const struct copy_target *t, struct portion *p,
                       struct vd_codec_context *codec, struct vd_error *err)
{
        uint64_t start = c->start;      /* of what is in the buffer and not yet split */
        int r = 0;

        for (size_t i = 0; i < c->extent_count && !r; i++) {
                const struct vd_extent *ext = &c->extents[i];
                uint64_t end = ext->start + ext->length;

                if (!is_portable(t, ext))
                        continue;
                r = split(job, c, t, p, start, ext->start, t->packs, codec, err);
                if (r)
                        return r;
                if (p->moved[i])
                        r = add_piece(p, ext->start, ext->length, VD_PACKED, packed_at(c, t, p, ext->start), p->moved[i], err);
                else                    /* what was packed stays packed, if in another way */
                        r = split(job, c, t, p, ext->start, end, true, codec, err);
                start = end;
        }
        if (!r)
                r = split(job, c, t, p, start, c->start + c->length, t->packs, codec, err);
        if (!r && job->needs_digest)
                p->digest = digest(p);
        return r;
}

/* The digests of the chunk's leaves; what lies past the source's end is not part of them. */
static int hash_leaves(const struct copy_job *job, struct chunk *c, struct vd_error *err)
{
        uint64_t end = vd_min(c->start + c->length, job->source->size);

        if (!c->leaves && !(c->leaves = calloc(vd_div_up(job->chunk_bytes, VD_DIGEST_LEAF), sizeof(*c->leaves))))
                return vd_fail(err, -ENOMEM, "digests");
        for (uint64_t at = c->start; at < end; at += VD_DIGEST_LEAF)
                vd_digest_leaf(c->buffer + (at - c->start), vd_min(VD_DIGEST_LEAF, end - at),
                               c->leaves[(at - c->start) / VD_DIGEST_LEAF]);
        return 0;
}

int vd_copy_fetch(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct copy_job *job = context;
        struct vd_codec_context *codec = job->codecs[worker];
        struct chunk *c = slot;
        int r = 0;

        if (!job->reads)
                return pretend_pieces(job, c, c->portions, err);
        for (size_t i = 0; i < job->target_count && !r; i++) {
                struct portion *p = &c->portions[i];
                uint64_t size = job->targets[i].image->size;

                if (!c->all_zero)
                        r = move_units(c, &job->targets[i], p, codec, err);
                else if (c->start < size && job->write_zeros)
                        r = add_piece(p, c->start, vd_min(c->length, size - c->start), VD_ZERO, NULL, 0, err);
        }
        if (r || c->all_zero)
                return r;
        for (size_t i = 0; i < c->extent_count && !r; i++) {
                const struct vd_extent *ext = &c->extents[i];
                char *to = c->buffer + (ext->start - c->start);

                if (is_needed(job, c, i))
                        r = vd_copy_read(job, ext, to, codec, err);
        }
        if (!r && job->options->digest)
                r = hash_leaves(job, c, err);
        for (size_t i = 0; i < job->target_count && !r; i++)
                r = make_pieces(job, c, &job->targets[i], &c->portions[i], codec, err);
        return r;
}
