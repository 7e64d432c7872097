// SPDX-License-Identifier: MIT
/* qcow2_map.c: what L1 and L2 entries say. */
#include "qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "util/checked.h"

static uint64_t load(const void *entry, unsigned i)
{
        be64 v;

        memcpy(&v, (const uint8_t *)entry + i * 8, sizeof(v));
        return be64_get(v);
}

static int l1_entry(const struct vd_twolevel *t, uint64_t index, const void *entry, uint64_t *position,
                    struct vd_error *err)
{
        const struct qcow2 *q = t->context;
        uint64_t e = load(entry, 0);

        *position = e & QCOW2_POSITION;
        if (e & QCOW2_L1_RESERVED || *position % q->cluster)
                return vd_fail(err, VD_ECORRUPT, "L1 table at %" PRIu64 ": entry %" PRIu64 " is 0x%016" PRIx64
                               ", not a multiple of the cluster size %" PRIu64, t->top_position, index, e, q->cluster);
        return 0;
}

static int bad_entry(const struct vd_twolevel *t, uint64_t position, const struct vd_extent *ext, uint64_t e,
                     const char *why, struct vd_error *err)
{
        uint64_t i = ext->start / t->unit % t->entries;

        return vd_fail(err, VD_ECORRUPT, "L2 table at %" PRIu64 ": entry %" PRIu64 " (guest offset %" PRIu64
                       ") is 0x%016" PRIx64 ": %s", position - i * t->entry_bytes, i, ext->start, e, why);
}

static int packed_entry(const struct vd_twolevel *t, uint64_t at, uint64_t e, uint64_t bitmap, struct vd_extent *ext,
                        struct vd_error *err)
{
        const struct qcow2 *q = t->context;
        struct qcow2_packed p = qcow2_packed_of(q, e);
        uint64_t size = vd_file_size(t->file);

        if (qcow2_has_data_file(q))
                return bad_entry(t, at, ext, e, "compressed, which an external data file cannot hold", err);
        if (bitmap)
                return bad_entry(t, at, ext, e, "compressed, but has subclusters", err);
        if (p.position >= size)
                return bad_entry(t, at, ext, e, "compressed data begins after the end of the file", err);
        ext->kind = VD_PACKED;
        ext->file = q->data;
        ext->position = p.position;
        ext->unit_start = vd_round_down(ext->start, q->cluster);
        ext->unit_bytes = (uint32_t)q->cluster;
        /* The length is known in sectors only, and the file may end inside the last of them. */
        ext->packed_bytes = (uint32_t)vd_min(p.length, size - p.position);
        ext->codec = q->codec;
        return 0;
}

/* Subcluster i of an extended entry: UNALLOCATED, ZERO or DATA; both bits set is no kind at all. */
static bool subcluster_kind(uint64_t bitmap, unsigned i, enum vd_kind *kind)
{
        bool data = bitmap >> i & 1, zero = bitmap >> (QCOW2_SUBCLUSTERS + i) & 1;

        *kind = data ? VD_DATA : zero ? VD_ZERO : VD_UNALLOCATED;
        return !(data && zero);
}

/* Sets ext->kind and cuts ext->length to the subclusters that are alike. */
static int extended_entry(const struct vd_twolevel *t, uint64_t at, uint64_t e, uint64_t bitmap, bool has_place,
                          struct vd_extent *ext, struct vd_error *err)
{
        const struct qcow2 *q = t->context;
        uint64_t sub = q->cluster / QCOW2_SUBCLUSTERS, base = vd_round_down(ext->start, q->cluster);
        unsigned i = (unsigned)((ext->start - base) / sub);
        enum vd_kind next;

        if (!subcluster_kind(bitmap, i, &ext->kind))
                return bad_entry(t, at, ext, e, "a subcluster is both allocated and zero", err);
        if (ext->kind == VD_DATA && !has_place)
                return bad_entry(t, at, ext, e, "a subcluster is allocated, but the cluster has no place", err);
        while (++i < QCOW2_SUBCLUSTERS && subcluster_kind(bitmap, i, &next) && next == ext->kind)
                ;
        ext->length = vd_min(ext->length, base + i * sub - ext->start);
        return 0;
}

static int l2_entry(const struct vd_twolevel *t, uint64_t at, const void *entry, struct vd_extent *ext,
                    struct vd_error *err)
{
        const struct qcow2 *q = t->context;
        uint64_t e = load(entry, 0), bitmap = q->extended ? load(entry, 1) : 0;
        uint64_t reserved = QCOW2_L2_RESERVED | (q->version < 3 || q->extended ? QCOW2_ZERO : 0);
        uint64_t position = e & QCOW2_POSITION;
        bool has_place = position || (qcow2_has_data_file(q) && e & QCOW2_COPIED);
        int r;

        if (e & QCOW2_COMPRESSED)
                return packed_entry(t, at, e, bitmap, ext, err);
        if (e & reserved)
                return bad_entry(t, at, ext, e, "reserved bits are set", err);
        if (position % q->cluster)
                return bad_entry(t, at, ext, e, "not a multiple of the cluster size", err);
        if (has_place && qcow2_has_data_file(q) && position != vd_round_down(ext->start, q->cluster))
                return bad_entry(t, at, ext, e, "not at its own guest offset in the data file", err);
        if (q->extended) {
                r = extended_entry(t, at, e, bitmap, has_place, ext, err);
                if (r)
                        return r;
        } else {
                ext->kind = e & QCOW2_ZERO ? VD_ZERO : has_place ? VD_DATA : VD_UNALLOCATED;
        }
        if (!has_place)
                return 0;
        if (ext->kind == VD_DATA && !q->data)
                return vd_fail(err, VD_EPOLICY, "%s", q->no_data);
        ext->file = q->data;
        ext->position = position + ext->start % q->cluster;
        return 0;
}

const struct vd_twolevel_ops qcow2_map_ops = { .table = l1_entry, .entry = l2_entry };

/* Were clusters taken that the host never gave space to? QEMU's rule: a tenth more than the file has blocks for. */
static int looks_hollow(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t real = vd_file_disk_bytes(img->file) >> q->cluster_bits, used = 0, count;
        uint64_t threshold = vd_max(real * 10 / 9, real + 2), all = vd_file_size(img->file) >> q->cluster_bits;

        q->hollow_known = true;
        if (qcow2_has_data_file(q) || img->writable)
                return 0;
        for (uint64_t i = 0; i < all && used < threshold && all - i >= threshold - used; i++) {
                int r = qcow2_count(q, i, &count, err);

                if (r == VD_ECORRUPT) {         /* a matter for check, not for reading */
                        *err = (struct vd_error)VD_ERROR_INIT;
                        return 0;
                }
                if (r)
                        return r;
                used += count > 0;
        }
        q->has_hollow = used >= threshold;
        return 0;
}

/* Holes of the file under preallocated clusters are zeros that need not be read. */
static int split_at_holes(struct qcow2 *q, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t end;
        bool data;
        int r;

        /* The next question is about what follows, most often inside the same run. */
        q->ahead = *ext;
        ext->length = vd_min(ext->length, max);
        if (ext->kind != VD_DATA)
                return 0;
        r = vd_file_next(ext->file, ext->position, &data, &end, err);
        if (r)
                return r;
        ext->length = vd_min(ext->length, end - ext->position);
        ext->is_hole = !data;
        if (!data)
                ext->kind = VD_ZERO;
        return 0;
}

int qcow2_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        int r;

        if (q->crypt_method)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted (%s); vdtool does not decrypt qcow2 images",
                               q->crypt_method == QCOW2_CRYPT_AES ? "AES" : "LUKS");
        if (offset >= q->shown_size) {  /* the disk grew after the snapshot was taken */
                *ext = (struct vd_extent){ .start = offset, .length = max, .kind = VD_ZERO };
                return 0;
        }
        max = vd_min(max, q->shown_size - offset);
        r = q->hollow_known ? 0 : looks_hollow(img, err);
        if (!r && !q->has_hollow)
                return vd_twolevel_map(&q->map, offset, max, ext, err);
        if (!r && q->ahead.kind == VD_DATA && offset - q->ahead.start < q->ahead.length) {
                *ext = q->ahead;
                ext->length -= offset - ext->start;
                ext->position += offset - ext->start;
                ext->start = offset;
        } else if (!r) {
                r = vd_twolevel_map(&q->map, offset, q->shown_size - offset, ext, err);
        }
        return r ? r : split_at_holes(q, max, ext, err);
}
