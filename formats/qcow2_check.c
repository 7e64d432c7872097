// SPDX-License-Identifier: MIT
/* qcow2_check.c: everything that refers to a cluster, and whether the reference counts agree.
 *
 * walk() names every region once per reference, so that afterwards the space map holds the count that each cluster
 * ought to have; check() compares.  One finding per cluster, as qemu-img check counts them.
 */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/iszero.h"

struct walk {
        struct vd_image *image;
        struct qcow2 *q;
        struct vd_check *check;
        const struct vd_twolevel *map;  /* the tree being walked */
        bool active;                    /* of the disk itself, not of a snapshot */
        uint64_t file_size;

        /* Neighbouring data clusters are reported in one go. */
        uint64_t run_position, run_length, run_guest;

        uint64_t next_expected, table;  /* fragmentation is counted inside an L2 table */
};

#define FIND(w, severity, code, position, guest, repairable, ...) \
        vd_find(&(w)->check->findings, severity, code, position, 0, guest, 0, repairable, __VA_ARGS__)

static int add(struct walk *w, enum vd_class class, uint64_t position, uint64_t length, uint64_t guest,
               const char *what, struct vd_error *err)
{
        struct vd_region region = {
                .class = class, .position = position, .length = length, .guest = guest, .what = what,
                .shared = class == VD_CLASS_SUBTABLE || class == VD_CLASS_DATA || class == VD_CLASS_PACKED,
        };

        /* The file may end inside the last cluster; a map that needs those bytes fails. */
        if (position < w->file_size && length > w->file_size - position &&
            length - (w->file_size - position) < w->q->cluster && class != VD_CLASS_SUBTABLE)
                region.length = w->file_size - position;
        return length ? vd_check_region(w->check, &region, err) : 0;
}

static int end_run(struct walk *w, struct vd_error *err)
{
        uint64_t length = w->run_length;

        w->run_length = 0;
        return length ? add(w, VD_CLASS_DATA, w->run_position, length, w->run_guest, "data", err) : 0;
}

static int add_data(struct walk *w, uint64_t position, uint64_t guest, struct vd_error *err)
{
        bool cut = !vd_range_fits(position, w->q->cluster, w->file_size);
        uint64_t needed = guest < w->image->size ? vd_min(w->q->cluster, w->image->size - guest) : 0;
        int r;

        if (w->run_length && position == w->run_position + w->run_length && !cut) {
                w->run_length += w->q->cluster;
                return 0;
        }
        r = end_run(w, err);
        if (!r && cut && position < w->file_size && w->active && needed > w->file_size - position)
                FIND(w, VD_ERROR, "qcow2-data-cut", position, guest, false, "data for guest offset %" PRIu64 " at %"
                     PRIu64 " is cut short by the end of the file at %" PRIu64, guest, position, w->file_size);
        w->run_position = position;
        w->run_length = w->q->cluster;
        w->run_guest = guest;
        return r;
}

/* COPIED says that the count is exactly 1; only the tables of the active state must be right. */
static void check_copied(struct walk *w, const char *what, uint64_t at, uint64_t guest, uint64_t e, uint64_t position)
{
        struct vd_error ignored = VD_ERROR_INIT;
        uint64_t count;

        if (!w->active || qcow2_count(w->q, position >> w->q->cluster_bits, &count, &ignored))
                return;
        if ((count == 1) != !!(e & QCOW2_COPIED))
                FIND(w, VD_ERROR, "qcow2-copied", at, guest, true, "%s entry 0x%016" PRIx64 " at %" PRIu64
                     " says %s, but the reference count is %" PRIu64, what, e, at,
                     e & QCOW2_COPIED ? "copied" : "shared", count);
}

static int on_table(void *context, uint64_t index, const void *entry, uint64_t *position, struct vd_error *err)
{
        struct walk *w = context;
        uint64_t at = w->map->top_position + index * 8, e, guest;
        enum vd_class under;
        be64 disk;
        int r;

        memcpy(&disk, entry, sizeof(disk));
        e = be64_get(disk);
        *position = e & QCOW2_POSITION;
        if (!vd_mul(index, w->map->entries * w->map->unit, &guest))
                guest = VD_NOWHERE;
        if (e & QCOW2_L1_RESERVED)
                FIND(w, VD_ERROR, "qcow2-l1-reserved", at, guest, true, "L1 entry %" PRIu64 " is 0x%016" PRIx64
                     ": reserved bits are set", index, e);
        if (!*position)
                return 0;
        if (*position % w->q->cluster) {
                FIND(w, VD_ERROR, "qcow2-l1-unaligned", at, guest, true, "L1 entry %" PRIu64 " is 0x%016" PRIx64
                     ": not a multiple of the cluster size %" PRIu64, index, e, w->q->cluster);
                return 0;
        }
        check_copied(w, "L1", at, guest, e, *position);
        under = vd_spacemap_class(w->check->space, *position >> w->q->cluster_bits);
        r = add(w, VD_CLASS_SUBTABLE, *position, w->q->cluster, guest, "L2 table", err);
        if (r)
                return r;
        /* What stands in another structure, or outside of the file, is no table. */
        return vd_range_fits(*position, w->q->cluster, w->file_size) &&
               (under == VD_CLASS_FREE || under >= VD_CLASS_DATA || under == VD_CLASS_SUBTABLE);
}

static int on_packed(struct walk *w, uint64_t guest, uint64_t at, uint64_t e, uint64_t bitmap, struct vd_error *err)
{
        struct qcow2_packed p = qcow2_packed_of(w->q, e);
        struct vd_findings *f = &w->check->findings;

        if (e & QCOW2_COPIED)
                FIND(w, VD_ERROR, "qcow2-packed-copied", at, guest, true, "compressed entry 0x%016" PRIx64
                     " must not say copied", e);
        if (bitmap)
                FIND(w, VD_ERROR, "qcow2-packed-subclusters", at, guest, true, "compressed entry 0x%016" PRIx64
                     " has subclusters 0x%016" PRIx64, e, bitmap);
        if (qcow2_has_data_file(w->q))
                FIND(w, VD_ERROR, "qcow2-packed-data-file", at, guest, false, "compressed entry 0x%016" PRIx64
                     " in an image with an external data file", e);
        if (w->active) {
                f->allocated_units++;
                f->packed_units++;
                f->fragmented_units++;
        }
        if (p.position > QCOW2_POSITION) {
                FIND(w, VD_ERROR, "qcow2-l2-reserved", at, guest, false, "compressed entry 0x%016" PRIx64
                     " lies at %" PRIu64 ", offsets have 56 bits", e, p.position);
                return 0;
        }
        return add(w, VD_CLASS_PACKED, p.position, p.length, guest, "compressed cluster", err);
}

static void check_subclusters(struct walk *w, uint64_t guest, uint64_t at, uint64_t e, uint64_t bitmap)
{
        bool has_place = e & QCOW2_POSITION || (qcow2_has_data_file(w->q) && e & QCOW2_COPIED);

        if (bitmap & (bitmap >> QCOW2_SUBCLUSTERS) & QCOW2_ALL_ALLOCATED)
                FIND(w, VD_ERROR, "qcow2-subcluster-both", at, guest, true, "L2 entry 0x%016" PRIx64
                     ": subclusters 0x%016" PRIx64 " are both allocated and zero", e, bitmap);
        else if (!has_place && bitmap & QCOW2_ALL_ALLOCATED)
                FIND(w, VD_ERROR, "qcow2-subcluster-no-place", at, guest, true, "L2 entry 0x%016" PRIx64
                     ": subclusters 0x%016" PRIx64 " are allocated, but the cluster has no place", e, bitmap);
}

/* As qemu-img counts: a cluster is a fragment when it does not follow the previous one of its L2 table. */
static void count_unit(struct walk *w, uint64_t at, uint64_t position)
{
        uint64_t table = vd_round_down(at, w->q->cluster);

        w->check->findings.allocated_units++;
        if (w->table == table && w->next_expected && w->next_expected != position)
                w->check->findings.fragmented_units++;
        w->table = table;
        w->next_expected = position + w->q->cluster;
}

static int on_entry(void *context, uint64_t guest, uint64_t at, const void *entry, struct vd_error *err)
{
        struct walk *w = context;
        struct qcow2 *q = w->q;
        uint64_t reserved = QCOW2_L2_RESERVED | (q->version < 3 || q->extended ? QCOW2_ZERO : 0), e, position;
        uint64_t bitmap = 0;
        be64 disk[2];

        memcpy(disk, entry, qcow2_entry_bytes(q));
        e = be64_get(disk[0]);
        if (q->extended)
                bitmap = be64_get(disk[1]);
        if (e & QCOW2_COMPRESSED)
                return on_packed(w, guest, at, e, bitmap, err);
        if (e & reserved)
                FIND(w, VD_ERROR, "qcow2-l2-reserved", at, guest, true, "L2 entry 0x%016" PRIx64 " at %" PRIu64
                     ": reserved bits are set", e, at);
        if (q->extended)
                check_subclusters(w, guest, at, e, bitmap);
        position = e & QCOW2_POSITION;
        if (qcow2_has_data_file(q)) {
                if ((position || e & QCOW2_COPIED) && (position != guest || !(e & QCOW2_COPIED)) && w->active)
                        FIND(w, VD_ERROR, "qcow2-data-file-offset", at, guest, false, "L2 entry 0x%016" PRIx64
                             ": data in an external file stands at its guest offset, and says copied", e);
                if (w->active && (position || e & QCOW2_COPIED))
                        count_unit(w, at, position);
                return 0;
        }
        if (!position)
                return 0;
        if (position % q->cluster)
                FIND(w, VD_ERROR, "qcow2-l2-unaligned", at, guest, false, "L2 entry 0x%016" PRIx64 " at %" PRIu64
                     ": not a multiple of the cluster size %" PRIu64, e, at, q->cluster);
        else
                check_copied(w, "L2", at, guest, e, position);
        if (w->active)
                count_unit(w, at, position);
        return add_data(w, position, guest, err);
}

static int walk_tree(struct walk *w, const struct vd_twolevel *map, bool active, struct vd_error *err)
{
        const struct vd_twolevel_visit visit = { .context = w, .on_table = on_table, .on_entry = on_entry };
        int r;

        w->map = map;
        w->active = active;
        w->table = VD_NOWHERE;
        r = add(w, VD_CLASS_TABLE, map->top_position, map->top_entries * 8, VD_NOWHERE,
                active ? "L1 table" : "L1 table of a snapshot", err);
        if (!r)
                r = vd_twolevel_walk(map, &visit, err);
        return r ? r : end_run(w, err);
}

static int walk_counts(struct walk *w, struct vd_error *err)
{
        struct qcow2 *q = w->q;
        int r = add(w, VD_CLASS_COUNTS, q->reftable_position, q->reftable_entries * 8, VD_NOWHERE, "refcount table",
                    err);

        for (uint64_t i = 0; i < q->reftable_entries && !r; i++) {
                struct vd_error why = VD_ERROR_INIT;
                uint64_t position;

                r = qcow2_block_position(q, i, &position, &why);
                if (r == VD_ECORRUPT) {
                        FIND(w, VD_ERROR, "qcow2-refblock-unaligned", q->reftable_position + i * 8, VD_NOWHERE, true,
                             "%s", why.text);
                        r = 0;
                } else if (r) {
                        *err = why;
                } else if (position) {
                        r = add(w, VD_CLASS_COUNTS, position, q->cluster, VD_NOWHERE, "refcount block", err);
                }
        }
        return r;
}

/* A snapshot's tree, when its L1 table can be one. */
static int walk_snapshot(struct walk *w, const struct qcow2_snapshot *s, uint32_t i, struct vd_error *err)
{
        struct vd_twolevel map = w->q->map;

        if (w->q->version >= 3 && s->extra_bytes < offsetof(struct qcow2_snapshot_extra_disk, icount))
                FIND(w, VD_ERROR, "qcow2-snapshot-short", s->entry.position, VD_NOWHERE, true, "snapshot %" PRIu32
                     ": %" PRIu32 " bytes of extra data, version 3 needs 16", i, s->extra_bytes);
        if (s->l1.position % w->q->cluster) {
                FIND(w, VD_ERROR, "qcow2-snapshot-l1", s->entry.position, VD_NOWHERE, false, "snapshot %" PRIu32
                     ": L1 table at %" PRIu64 ", not a multiple of the cluster size %" PRIu64, i, s->l1.position,
                     w->q->cluster);
                return 0;
        }
        if (!vd_range_fits(s->l1.position, s->l1.length, w->file_size)) {
                FIND(w, VD_ERROR, "qcow2-snapshot-l1", s->entry.position, VD_NOWHERE, false, "snapshot %" PRIu32
                     ": L1 table of %" PRIu64 " bytes at %" PRIu64 ", but the file ends at %" PRIu64, i, s->l1.length,
                     s->l1.position, w->file_size);
                return 0;
        }
        map.top_position = s->l1.position;
        map.top_entries = s->l1.length / 8;
        return walk_tree(w, &map, false, err);
}

static int walk_snapshots(struct walk *w, struct vd_error *err)
{
        struct qcow2 *q = w->q;
        uint64_t at = q->snapshots_position, end = at;
        int r = 0;

        for (uint32_t i = 0; i < q->snapshot_count && !r; i++) {
                struct vd_error why = VD_ERROR_INIT;
                struct qcow2_snapshot s;

                r = qcow2_snapshot_read(w->image, at, &s, &at, &why);
                if (r) {
                        FIND(w, VD_ERROR, "qcow2-snapshot-table", at, VD_NOWHERE, false, "snapshot %" PRIu32
                             " of %" PRIu32 ": %s", i, q->snapshot_count, why.text);
                        r = 0;
                        break;
                }
                end = s.entry.position + s.entry.length;
                r = walk_snapshot(w, &s, i, err);
                qcow2_snapshot_clear(&s);
        }
        return r ? r : add(w, VD_CLASS_SNAPSHOT, q->snapshots_position, end - q->snapshots_position, VD_NOWHERE,
                           "snapshot table", err);
}

static int walk_bitmap(struct walk *w, const struct qcow2_bitmap_disk *d, struct vd_error *err)
{
        uint64_t table = be64_get(d->table_position), entries = be32_get(d->table_entries);
        int r;

        if (table % w->q->cluster || !vd_range_fits(table, entries * 8, w->file_size)) {
                FIND(w, VD_ERROR, "qcow2-bitmap-table", table, VD_NOWHERE, false, "bitmap table of %" PRIu64
                     " bytes at %" PRIu64 ", but the file ends at %" PRIu64 " and clusters have %" PRIu64 " bytes",
                     entries * 8, table, w->file_size, w->q->cluster);
                return 0;
        }
        r = add(w, VD_CLASS_SNAPSHOT, table, entries * 8, VD_NOWHERE, "bitmap table", err);
        for (uint64_t i = 0; i < entries && !r; i++) {
                uint64_t e;
                be64 disk;

                r = vd_file_read(w->image->file, &disk, sizeof(disk), table + i * 8, err);
                if (r)
                        return r;
                e = be64_get(disk);
                if (!(e & QCOW2_POSITION))
                        continue;
                if (e & ~QCOW2_POSITION || e % w->q->cluster)
                        FIND(w, VD_ERROR, "qcow2-bitmap-table", table + i * 8, VD_NOWHERE, false,
                             "bitmap table entry 0x%016" PRIx64 ": not a multiple of the cluster size %" PRIu64, e,
                             w->q->cluster);
                else
                        r = add(w, VD_CLASS_SNAPSHOT, e, w->q->cluster, VD_NOWHERE, "bitmap data", err);
        }
        return r;
}

static int walk_bitmaps(struct walk *w, struct vd_error *err)
{
        struct qcow2 *q = w->q;
        uint32_t count = be32_get(q->bitmaps.count);
        uint64_t directory = be64_get(q->bitmaps.directory_position), length = be64_get(q->bitmaps.directory_bytes);
        uint64_t at = directory;
        int r = 0;

        if (!(q->autoclear & QCOW2_BITMAPS_VALID)) {
                if (q->has_bitmaps)
                        FIND(w, VD_NOTE, "qcow2-bitmaps-stale", directory, VD_NOWHERE, true, "%" PRIu32
                             " dirty bitmaps are out of date: a program that does not keep them changed the image",
                             count);
                return 0;
        }
        if (!q->has_bitmaps || !count || count > QCOW2_MAX_BITMAPS || directory % q->cluster ||
            !vd_range_fits(directory, length, w->file_size)) {
                FIND(w, VD_ERROR, "qcow2-bitmaps", directory, VD_NOWHERE, false, "bitmap directory: %" PRIu32
                     " bitmaps in %" PRIu64 " bytes at %" PRIu64 "; allowed are 1 to %d inside the file, which ends "
                     "at %" PRIu64, q->has_bitmaps ? count : 0, length, directory, QCOW2_MAX_BITMAPS, w->file_size);
                return 0;
        }
        r = add(w, VD_CLASS_SNAPSHOT, directory, length, VD_NOWHERE, "bitmap directory", err);
        for (uint32_t i = 0; i < count && !r; i++) {
                struct vd_error why = VD_ERROR_INIT;
                struct qcow2_bitmap_disk d;
                char *name;

                if (qcow2_bitmap_read(w->image, at, &d, &name, &at, &why) || at - directory > length) {
                        free(why.code ? NULL : name);
                        FIND(w, VD_ERROR, "qcow2-bitmaps", at, VD_NOWHERE, false, "bitmap %" PRIu32 " of %" PRIu32
                             ": %s", i, count, why.code ? why.text : "the directory is too short for it");
                        return 0;
                }
                free(name);
                r = walk_bitmap(w, &d, err);
        }
        return r;
}

static int walk_header(struct walk *w, struct vd_error *err)
{
        const struct qcow2 *q = w->q;
        int r;

        if (q->damage)
                FIND(w, VD_ERROR, "qcow2-header", 0, VD_NOWHERE, true, "%s", q->damage);
        if (q->incompatible & QCOW2_CORRUPT)
                FIND(w, VD_WARNING, "qcow2-marked-corrupt", 72, VD_NOWHERE, true, "the image is marked corrupt");
        if (q->incompatible & QCOW2_DIRTY)
                FIND(w, VD_NOTE, "qcow2-dirty", 72, VD_NOWHERE, true, "the image was not closed cleanly");
        if (q->extension_twice)
                FIND(w, VD_WARNING, "qcow2-extension-twice", q->header_bytes, VD_NOWHERE, false,
                     "header extension 0x%08" PRIx32 " is there more than once", q->extension_twice);
        if (q->autoclear & QCOW2_RAW_DATA_FILE && !qcow2_has_data_file(q))
                FIND(w, VD_WARNING, "qcow2-raw-flag", 88, VD_NOWHERE, true,
                     "marked as having a raw external data file, but has no external data file");
        if (!q->crypto.length != (q->crypt_method != QCOW2_CRYPT_LUKS))
                FIND(w, VD_ERROR, "qcow2-crypto-header", 32, VD_NOWHERE, false, "encryption method %u %s",
                     q->crypt_method, q->crypto.length ? "needs no encryption header" : "has no encryption header");
        r = add(w, VD_CLASS_HEADER, 0, q->cluster, VD_NOWHERE, "header", err);
        return r ? r : add(w, VD_CLASS_HEADER, q->crypto.position, q->crypto.length, VD_NOWHERE, "encryption header",
                           err);
}

int qcow2_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        struct walk w = { .image = img, .q = q, .check = check, .file_size = vd_file_size(img->file) };
        struct vd_twolevel map = q->map;
        int r = vd_check_begin(check, q->cluster, w.file_size, err);

        map.top_position = q->l1_position;      /* whatever snapshot is shown */
        map.top_entries = q->l1_entries;
        check->findings.total_units = vd_div_up(img->size, q->cluster);
        if (!r)
                r = walk_header(&w, err);
        if (!r)
                r = walk_counts(&w, err);
        if (!r)
                r = walk_tree(&w, &map, true, err);
        if (!r)
                r = walk_snapshots(&w, err);
        return r ? r : walk_bitmaps(&w, err);
}

/* Stored against counted, for one cluster. */
static void compare_one(struct vd_check *check, const struct qcow2 *q, uint64_t i, uint64_t stored, uint64_t used)
{
        if (stored == used)
                return;
        vd_find(&check->findings, stored > used ? VD_LEAK : VD_ERROR, stored > used ? "qcow2-leak" : "qcow2-refcount",
                i << q->cluster_bits, q->cluster, VD_NOWHERE, 0, true, "cluster %" PRIu64 " at %" PRIu64
                ": reference count %" PRIu64 ", but %" PRIu64 " references", i, i << q->cluster_bits, stored, used);
}

/* The counts from cluster i on that stand in one page of a block, up to *end (at most last); *bytes = NULL where there
 * is no usable block.  *base: the cluster that the first of them counts. */
static int page_of_counts(struct vd_image *img, uint64_t i, uint64_t last, uint8_t **bytes, uint64_t *base,
                          uint64_t *end, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t page = q->map.sub_page_bytes * 8 >> q->refcount_order, position, in_block = i % q->per_block;
        struct vd_error why = VD_ERROR_INIT;
        int r = qcow2_block_position(q, i / q->per_block, &position, &why);

        *bytes = NULL;
        *base = i - in_block;
        *end = vd_min(last, *base + q->per_block);
        if (!r && position) {
                *base += in_block / page * page;
                *end = vd_min(*end, *base + page);
                r = vd_cache_get(q->blocks, position + in_block / page * q->map.sub_page_bytes, (void **)bytes, &why);
        }
        if (r == VD_ECORRUPT) {         /* a finding of the walk already: counts nothing */
                *bytes = NULL;
                return 0;
        }
        if (r)
                *err = why;
        return r;
}

/* [first, last) is referred to `used` times.  *highest: one more than the last cluster that is used or counted. */
static int compare_run(struct vd_image *img, struct vd_check *check, uint64_t first, uint64_t last, uint64_t used,
                       uint64_t *highest, struct vd_error *err)
{
        struct qcow2 *q = img->state;

        for (uint64_t i = first, end; i < last; i = end) {
                uint64_t base;
                uint8_t *bytes;
                int r = page_of_counts(img, i, last, &bytes, &base, &end, err);

                if (r)
                        return r;
                if (!bytes && !used && i / q->per_block >= q->reftable_entries)
                        return 0;
                if (!used && (!bytes || (end - i > 64 && vd_is_zero(bytes, q->map.sub_page_bytes))))
                        continue;
                for (uint64_t k = i; k < end; k++) {
                        uint64_t stored = bytes ? qcow2_count_at(bytes, k - base, q->refcount_order) : 0;

                        compare_one(check, q, k, stored, used);
                        if (stored || used)
                                *highest = k + 1;
                }
        }
        return 0;
}

/* Counts for clusters that the file does not have: space that will be lost when it grows. */
static int count_past_end(struct vd_image *img, struct vd_check *check, uint64_t first, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t last = q->reftable_entries * q->per_block, found = 0;

        for (uint64_t i = first, end; i < last; i = end) {
                uint64_t base;
                uint8_t *bytes;
                int r = page_of_counts(img, i, last, &bytes, &base, &end, err);

                if (r)
                        return r;
                if (!bytes || vd_is_zero(bytes, q->map.sub_page_bytes))
                        continue;
                for (uint64_t k = i; k < end; k++)
                        found += qcow2_count_at(bytes, k - base, q->refcount_order) != 0;
        }
        if (found)
                vd_find(&check->findings, VD_WARNING, "qcow2-count-past-end", first << q->cluster_bits, 0, VD_NOWHERE,
                        0, true, "%" PRIu64 " clusters after the end of the file have reference counts", found);
        return 0;
}

int qcow2_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct qcow2 *q = img->state;
        uint64_t index = 0, length, used, highest = 0;
        enum vd_class class;
        int r = 0;

        while (!r && vd_spacemap_next(check->space, &index, &length, &used, &class)) {
                r = compare_run(img, check, index, index + length, used, &highest, err);
                index += length;
        }
        check->findings.end_offset = highest << q->cluster_bits;
        return r ? r : count_past_end(img, check, vd_div_up(vd_file_size(img->file), q->cluster), err);
}
