// SPDX-License-Identifier: MIT
/* qcow2_write.c: place, publish, flush, finish.
 *
 * place() takes clusters and makes sure that the L2 tables exist and are ours alone; their entries change in publish().
 * Order on disk for an image that is changed in place (new ones have no order, but their header comes last):
 *      counts up, data, new L2 tables   barrier   L2 entries   barrier   L1 entries   barrier   counts down
 * so that a cut leaves what was there before, or clusters that nobody uses.
 */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"

/* An L2 entry, and where it stands. */
struct entry {
        uint64_t position;              /* 0: there is no table */
        uint64_t descriptor, bitmap;
};

/* vd_place.token */
enum { NOTHING_TO_PUBLISH, PUBLISH };

static int get_entry(struct qcow2 *q, uint64_t guest, struct entry *e, struct vd_error *err)
{
        be64 *bytes;
        int r = vd_twolevel_find(&q->map, guest, &e->position, err);

        e->descriptor = e->bitmap = 0;
        if (r || !e->position)
                return r;
        r = vd_cache_get(q->l2, e->position, (void **)&bytes, err);
        if (r)
                return r;
        e->descriptor = be64_get(bytes[0]);
        if (q->extended)
                e->bitmap = be64_get(bytes[1]);
        return 0;
}

static int put_entry(struct qcow2 *q, const struct entry *e, struct vd_error *err)
{
        be64 *bytes;
        int r = vd_cache_get(q->l2, e->position, (void **)&bytes, err);

        if (r)
                return r;
        bytes[0] = be64_put(e->descriptor);
        if (q->extended)
                bytes[1] = be64_put(e->bitmap);
        vd_cache_dirty(q->l2, e->position);
        return 0;
}

static int get_l1(struct qcow2 *q, uint64_t guest, uint64_t *e, struct vd_error *err)
{
        be64 *bytes;
        int r = vd_cache_get(q->l1, vd_twolevel_top_position(&q->map, guest), (void **)&bytes, err);

        if (!r)
                *e = be64_get(*bytes);
        return r;
}

static int put_l1(struct qcow2 *q, uint64_t guest, uint64_t e, struct vd_error *err)
{
        uint64_t position = vd_twolevel_top_position(&q->map, guest);
        be64 *bytes;
        int r = vd_cache_get(q->l1, position, (void **)&bytes, err);

        if (r)
                return r;
        *bytes = be64_put(e);
        vd_cache_dirty(q->l1, position);
        return 0;
}

/* A copy of a table that a snapshot shares; written at once, nothing refers to it yet. */
static int copy_l2(struct vd_image *img, uint64_t from, uint64_t to, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t page = q->map.sub_page_bytes;
        void *bytes;
        int r = 0;

        for (uint64_t at = 0; at < q->cluster && !r; at += page) {
                r = vd_cache_get(q->l2, from + at, &bytes, err);
                if (!r)
                        r = vd_file_write(img->file, bytes, page, to + at, err);
        }
        return r;
}

/* The table for this guest offset exists and belongs to nobody else. */
static int own_table(struct vd_image *img, uint64_t guest, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t e, old, position = 0, got;
        int r = get_l1(q, guest, &e, err);

        if (r || e & QCOW2_COPIED)
                return r;
        r = vd_twolevel_find(&q->map, guest, &old, err);        /* checks the entry */
        if (r)
                return r;
        old = e & QCOW2_POSITION;
        r = qcow2_take(img, 1, 1, &position, &got, err);
        if (!img->is_new)               /* the cluster may have been a table before */
                vd_cache_drop(q->l2, position, q->cluster);
        if (!r && old)
                r = copy_l2(img, old, position, err);
        else if (!r && !img->is_new)    /* a new image has nothing but zeros there */
                r = vd_file_zero(img->file, position, q->cluster, err);
        if (!r)
                r = put_l1(q, guest, position | QCOW2_COPIED, err);
        if (!r && old)
                r = qcow2_release(q, old, q->cluster, err);
        return r;
}

static int own_tables(struct vd_image *img, uint64_t start, uint64_t length, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t reach = q->map.entries * q->cluster;
        int r = 0;

        for (uint64_t at = start; at < start + length && !r; at = vd_round_down(at, reach) + reach)
                r = own_table(img, at, err);
        return r;
}

/* Before the first change: features that we do not keep up to date are declared invalid. */
static int start_writing(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t kept = q->autoclear & QCOW2_RAW_DATA_FILE;
        be64 disk = be64_put(kept);
        int r;

        if (q->started)
                return 0;
        if (!img->is_new && q->autoclear != kept) {
                if (q->autoclear & QCOW2_BITMAPS_VALID && q->has_bitmaps)
                        vd_image_warn(img, "its dirty bitmaps are not kept up to date and become invalid");
                r = vd_file_write(img->file, &disk, sizeof(disk), offsetof(struct qcow2_header_disk, autoclear), err);
                if (!r)
                        r = vd_image_barrier(img, img->file, err);
                if (r)
                        return r;
                q->autoclear = kept;
        }
        q->started = true;
        return 0;
}

/* Can the cluster at guest be overwritten where it is? *as_is: its entry says plain data already. */
static int find_own(struct qcow2 *q, uint64_t guest, uint64_t *position, bool *as_is, struct vd_error *err)
{
        struct entry e;
        uint64_t l1;
        int r = get_l1(q, guest, &l1, err);

        *position = 0;
        if (r || !(l1 & QCOW2_COPIED))
                return r;
        r = get_entry(q, guest, &e, err);
        if (r || e.descriptor & QCOW2_COMPRESSED || !(e.descriptor & QCOW2_COPIED))
                return r;
        *position = e.descriptor & QCOW2_POSITION;
        if (*position % q->cluster)
                return vd_fail(err, VD_ECORRUPT, "L2 entry for guest offset %" PRIu64 " is 0x%016" PRIx64
                               ", not a multiple of the cluster size %" PRIu64, guest, e.descriptor, q->cluster);
        *as_is = q->extended ? e.bitmap == QCOW2_ALL_ALLOCATED : !(e.descriptor & QCOW2_ZERO);
        return 0;
}

/* How many clusters from guest on (at most max) stand one after the other at *position and may be overwritten; or,
 * when the first may not (*position = 0), how many may not. */
static int find_run(struct qcow2 *q, uint64_t guest, uint64_t max, uint64_t *position, uint64_t *run, bool *as_is,
                    struct vd_error *err)
{
        bool plain = true;
        int r = find_own(q, guest, position, &plain, err);

        *as_is = plain;
        for (*run = 1; !r && *run < max; ++*run) {
                uint64_t next, expected = *position ? *position + *run * q->cluster : 0;

                plain = true;
                r = find_own(q, guest + *run * q->cluster, &next, &plain, err);
                if (!r && next != expected)
                        break;
                *as_is = *as_is && plain;
        }
        return r;
}

static void set_place(struct vd_image *img, const struct vd_request *request, uint64_t clusters, uint64_t position,
                      bool as_is, struct vd_place *place)
{
        const struct qcow2 *q = img->state;
        uint64_t room = clusters * q->cluster;

        place->start = request->start;
        place->length = vd_min(request->length, room);
        place->kind = VD_DATA;
        place->file = q->data;
        place->position = position;
        /* The rest of the last cluster lies past the disk's end, where a data file ends too. */
        place->pad = as_is || qcow2_has_data_file(q) ? 0 : room - place->length;
        place->token = as_is ? NOTHING_TO_PUBLISH : PUBLISH;
}

static int place_data(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                      struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t run, position, max = vd_div_up(request->length, q->cluster);
        bool as_is;
        int r;

        if (!q->data)
                return vd_fail(err, VD_EPOLICY, "%s", q->no_data);
        if (qcow2_has_data_file(q)) {
                r = own_tables(img, request->start, request->length, err);
                if (!r)
                        set_place(img, request, max, request->start, false, place);
                return r;
        }
        r = find_run(q, request->start, max, &position, &run, &as_is, err);
        if (!r && !position) {
                as_is = false;
                r = own_tables(img, request->start, vd_min(request->length, run * q->cluster), err);
                if (!r)
                        r = qcow2_take(img, run, 1, &position, &run, err);
        } else if (!r && !img->is_new &&
                   !vd_range_fits(position, run * q->cluster, vd_round_up(vd_file_size(img->file), q->cluster))) {
                r = vd_fail(err, VD_ECORRUPT, "guest offset %" PRIu64 " is at %" PRIu64
                            ", but the file ends at %" PRIu64, request->start, position, vd_file_size(img->file));
        }
        if (!r)
                set_place(img, request, run, position, as_is, place);
        return r;
}

/* Room for a packed unit: behind the previous one, if need be into the next cluster.  Every unit counts once in every
 * cluster that it touches. */
static int take_bytes(struct vd_image *img, uint64_t bytes, uint64_t *position, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t end = q->packed_end, count, fresh, got;
        int r = 0;

        if (end) {
                r = qcow2_count(q, end >> q->cluster_bits, &count, err);
                if (!r && count == q->max_count)
                        end = 0;
        }
        *position = end;
        if (!r && (!end || end % q->cluster + bytes > q->cluster)) {
                r = qcow2_take(img, 1, 1, &fresh, &got, err);
                if (r)
                        return r;
                if (!end || vd_round_up(end, q->cluster) != fresh)
                        *position = fresh;
        }
        if (!r && end && *position == end)
                r = qcow2_count_change(q, end >> q->cluster_bits, 1, 1, err);
        if (r)
                return r;
        if (*position >> q->compressed_shift)
                return vd_fail(err, -EFBIG, "compressed data cannot lie at %" PRIu64 " with clusters of %" PRIu64
                               " bytes", *position, q->cluster);
        q->packed_end = *position + bytes;
        if (q->packed_end % q->cluster == 0)
                q->packed_end = 0;
        return 0;
}

static int place_packed(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                        struct vd_error *err)
{
        struct qcow2 *q = img->state;
        int r;

        if (qcow2_has_data_file(q) || request->length > q->cluster || !request->packed_bytes ||
            request->packed_bytes >= q->cluster)
                return vd_fail(err, -EINVAL, "a packed unit of %" PRIu32 " bytes for %" PRIu64 " bytes at %" PRIu64,
                               request->packed_bytes, request->length, request->start);
        r = own_table(img, request->start, err);
        if (!r)
                r = take_bytes(img, request->packed_bytes, &place->position, err);
        place->start = request->start;
        place->length = request->length;
        place->kind = VD_PACKED;
        place->file = img->file;
        place->packed_bytes = request->packed_bytes;
        place->token = PUBLISH;
        return r;
}

/* Zeros, or nothing at all.  What reads so already is skipped however long it is. */
static int place_hole(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                      struct vd_error *err)
{
        struct qcow2 *q = img->state;
        struct vd_extent ext = { 0 };
        uint64_t end = request->start + request->length;
        bool done;
        int r = vd_twolevel_map(&q->map, request->start, request->length, &ext, err);

        if (r)
                return r;
        *place = (struct vd_place){ .start = request->start, .kind = request->kind };
        done = ext.kind == VD_UNALLOCATED && (q->reads_zero || request->kind == VD_UNALLOCATED);
        if (ext.kind == VD_ZERO && request->kind == VD_ZERO)
                done = true;
        if (ext.start + ext.length < end)       /* a cluster may be of several kinds */
                ext.length = vd_round_down(ext.length, q->cluster);
        if (done && ext.length) {
                place->length = ext.length;
                return 0;
        }
        if (q->autoclear & QCOW2_RAW_DATA_FILE || (q->version < 3 && !q->reads_zero && request->kind == VD_ZERO))
                return place_data(img, request, place, err);
        /* A table at a time: in place, tables stay in memory until they are flushed. */
        place->length = vd_min(vd_max(ext.length, vd_min(q->cluster, request->length)),
                               vd_round_down(request->start, q->map.entries * q->cluster) +
                               q->map.entries * q->cluster - request->start);
        place->token = PUBLISH;
        return own_tables(img, place->start, place->length, err);
}

int qcow2_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        int r = start_writing(img, err);

        if (r)
                return r;
        switch (request->kind) {
        case VD_DATA:
                return place_data(img, request, place, err);
        case VD_PACKED:
                return place_packed(img, request, place, err);
        case VD_ZERO:
        case VD_UNALLOCATED:
                return place_hole(img, request, place, err);
        }
        return vd_fail(err, -EINVAL, "request of unknown kind %d", (int)request->kind);
}

/* What the entry becomes; *keep when it goes on using its cluster. */
static struct entry new_entry(const struct qcow2 *q, const struct vd_place *place, uint64_t offset,
                              const struct entry *old, bool *keep)
{
        struct entry e = { .position = old->position };
        bool has_own = old->descriptor & QCOW2_COPIED && !(old->descriptor & QCOW2_COMPRESSED);

        *keep = false;
        switch (place->kind) {
        case VD_DATA:
                e.descriptor = (place->position + offset) | QCOW2_COPIED;
                e.bitmap = q->extended && !q->hollow ? QCOW2_ALL_ALLOCATED : 0;
                *keep = has_own && (old->descriptor & QCOW2_POSITION) == place->position + offset;
                break;
        case VD_PACKED:
                e.descriptor = QCOW2_COMPRESSED | place->position |
                               ((place->position + place->packed_bytes - 1) / 512 - place->position / 512)
                               << q->compressed_shift;
                break;
        case VD_ZERO:
                *keep = has_own && q->keep_allocated && q->version >= 3;
                if (*keep)
                        e.descriptor = old->descriptor;
                if (q->extended)
                        e.bitmap = *keep || !q->reads_zero ? QCOW2_ALL_ZERO : 0;
                else if (*keep || !q->reads_zero)
                        e.descriptor |= QCOW2_ZERO;
                break;
        case VD_UNALLOCATED:
                break;
        }
        return e;
}

static int release_entry(struct qcow2 *q, const struct entry *old, struct vd_error *err)
{
        struct qcow2_packed p = qcow2_packed_of(q, old->descriptor);

        if (old->descriptor & QCOW2_COMPRESSED)
                return qcow2_release(q, p.position, p.length, err);
        if (!(old->descriptor & QCOW2_POSITION) || qcow2_has_data_file(q))
                return 0;
        return qcow2_release(q, old->descriptor & QCOW2_POSITION, q->cluster, err);
}

int qcow2_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct qcow2 *q = img->state;

        if (place->token == NOTHING_TO_PUBLISH)
                return 0;
        for (uint64_t at = 0; at < place->length; at += q->cluster) {
                struct entry old, e;
                bool keep;
                int r = get_entry(q, place->start + at, &old, err);

                if (r)
                        return r;
                e = new_entry(q, place, at, &old, &keep);
                if (!keep)
                        r = release_entry(q, &old, err);
                if (!r && (e.descriptor != old.descriptor || e.bitmap != old.bitmap))
                        r = put_entry(q, &e, err);
                if (r)
                        return r;
        }
        return 0;
}

int qcow2_flush(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        int r = vd_cache_flush(q->l2, err);

        if (!r && vd_cache_is_dirty(q->l1)) {
                r = vd_image_barrier(img, img->file, err);
                if (!r)
                        r = vd_cache_flush(q->l1, err);
        }
        if (!r && q->freed_count) {
                r = vd_image_barrier(img, img->file, err);
                if (!r)
                        r = qcow2_apply_released(q, err);
        }
        return r;
}

/* Tables that were never full reach to the end of their cluster all the same; packed data need not. */
static int extend_file(struct vd_image *img, struct vd_error *err)
{
        const struct qcow2 *q = img->state;
        uint64_t end = q->cursor << q->cluster_bits, l1_end = q->l1_position + q->l1_entries * 8;

        if (end == vd_round_up(l1_end, q->cluster))     /* an empty disk: the file ends with the L1 table */
                end = l1_end;
        else if (q->packed_end && end == vd_round_up(q->packed_end, q->cluster))
                end = vd_round_up(q->packed_end, 512);
        return vd_file_size(img->file) < end ? vd_file_truncate(img->file, end, err) : 0;
}

int qcow2_finish(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        int r = qcow2_settle(img, err);

        if (!r && (vd_cache_is_dirty(q->l2) || vd_cache_is_dirty(q->l1)))
                r = vd_image_barrier(img, img->file, err);
        if (!r)
                r = qcow2_flush(img, err);
        if (!r)
                r = qcow2_settle(img, err);
        if (r || !img->is_new)
                return r;
        r = extend_file(img, err);
        return r ? r : qcow2_write_header(img, err);
}
