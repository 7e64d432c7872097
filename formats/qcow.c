// SPDX-License-Identifier: MIT
/* qcow.c: QEMU copy-on-write disks, version 1 (reference: docs/formats.md, "qcow")
 *
 *      [ header 48 ][ backing file name ][ L1 table ] ... [ L2 tables, clusters, packed clusters as they came ]
 *
 * Two levels of be64 file positions; with bit 63 an L2 entry is a packed cluster (raw deflate) of exactly known length.
 * Nothing is counted, the end of the file is the only allocator, and there is no entry that reads as zeros: over a
 * backing file zeros take space.  The L1 table's length follows from the disk's; it lies at any multiple of 8.
 * Quirk: Xen's tapdisk wrote L1 tables in the byte order of its host; those images are only read.
 * Refused: reading or writing encrypted disks (AES).
 * Cost: nothing is kept but pages of the tables.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/check.h"
#include "core/write.h"
#include "formats/shared/append.h"
#include "formats/shared/backing.h"
#include "util/checked.h"
#include "util/endian.h"

struct qcow_header_disk {               /* everything is big-endian (QEMU, block/qcow.c) */
        char magic[4];                  /* "QFI", 0xfb */
        be32 version;                   /* 1 */
        be64 backing_offset;            /* of the backing file's name; 0: none */
        be32 backing_bytes;             /* of the name, not terminated */
        be32 mtime;                     /* of the backing file; nobody looks at it */
        be64 disk_bytes;
        uint8_t cluster_bits;           /* 9 to 16 */
        uint8_t l2_bits;                /* entries of an L2 table: 6 to 13 */
        be16 padding;
        be32 crypt_method;              /* 0: none, 1: AES */
        be64 l1_offset;
};
static_assert(sizeof(struct qcow_header_disk) == 48, "qcow header");
static_assert(offsetof(struct qcow_header_disk, cluster_bits) == 32, "qcow cluster bits");

struct qcow_xen_disk {                  /* Xen's tapdisk: behind the header */
        be32 magic;                     /* QCOW_XEN_MAGIC */
        be32 checksum;                  /* of the L1 table */
        be32 min_cluster_alloc;
        be32 flags;
};
static_assert(sizeof(struct qcow_xen_disk) == 16, "qcow header of Xen");

#define QCOW_MAGIC "QFI\xfb"
#define QCOW_XEN_MAGIC 0x58454efbu
#define QCOW_PACKED (UINT64_C(1) << 63)

enum {
        QCOW_CLUSTER_LEAST = 9, QCOW_CLUSTER_MOST = 16,
        QCOW_L2_LEAST = 6, QCOW_L2_MOST = 13,
        QCOW_SECTOR = 512,
        QCOW_XEN_BIG_ENDIAN = 2,        /* flag */
        QCOW_CRYPT_AES = 1,
        QCOW_L1_MOST = 512 << 20,       /* bytes of the L1 table of what we make */
};

struct qcow {
        struct qcow_header_disk header;
        bool is_xen, l1_is_little, is_encrypted;
        unsigned cluster_bits, l2_bits;
        uint64_t cluster_bytes, l1_offset, l1_end, name_end, stored_bytes;
        struct vd_twolevel map;
        struct vd_append append;
};

static enum vd_match qcow_probe(const struct vd_probe *probe)
{
        const struct qcow_header_disk *h = (const void *)probe->head;

        if (probe->head_bytes < 8 || memcmp(h->magic, QCOW_MAGIC, 4) != 0 || be32_get(h->version) != 1)
                return VD_MATCH_NO;
        return VD_MATCH_SURE;
}

static int qcow_table(const struct vd_twolevel *map, uint64_t index, const void *entry, uint64_t *position,
                      struct vd_error *err)
{
        const struct qcow *qcow = map->context;
        uint64_t value = qcow->l1_is_little ? le64_get(*(const le64 *)entry) : be64_get(*(const be64 *)entry);

        if (value & QCOW_PACKED || value % sizeof(be64))
                return vd_fail(err, VD_ECORRUPT, "L1 entry %" PRIu64 ": 0x%" PRIx64 " is no position of a table", index,
                               value);
        if (value < sizeof(qcow->header))
                return vd_fail(err, VD_ECORRUPT, "L1 entry %" PRIu64 ": L2 table at %" PRIu64 ", inside the header",
                               index, value);
        if (qcow->append.image->writable && value % QCOW_SECTOR)
                return vd_fail(err, VD_EUNSUPPORTED, "L1 entry %" PRIu64 ": L2 table at %" PRIu64
                               " does not begin at a sector and is only read", index, value);
        *position = value;
        return 0;
}

static int packed_entry(const struct qcow *qcow, uint64_t entry_position, uint64_t value, struct vd_extent *ext,
                        struct vd_error *err)
{
        unsigned shift = 63 - qcow->cluster_bits;
        uint64_t file_size = vd_file_size(qcow->map.file);

        ext->kind = VD_PACKED;
        ext->codec = VD_CODEC_DEFLATE;
        ext->packed_bytes = (uint32_t)((value & ~QCOW_PACKED) >> shift);
        ext->position = value & ((UINT64_C(1) << shift) - 1);
        ext->unit_start = vd_round_down(ext->start, qcow->cluster_bytes);
        ext->unit_bytes = (uint32_t)qcow->cluster_bytes;
        if (!ext->packed_bytes || ext->position < sizeof(qcow->header))
                return vd_fail(err, VD_ECORRUPT, "L2 entry at %" PRIu64 ": packed cluster of %" PRIu32 " bytes at %"
                               PRIu64, entry_position, ext->packed_bytes, ext->position);
        if (!qcow->map.unwritten && !vd_range_fits(ext->position, ext->packed_bytes, file_size))
                return vd_fail(err, VD_ECORRUPT, "L2 entry at %" PRIu64 ": packed cluster of %" PRIu32 " bytes at %"
                               PRIu64 " lies past end of file at %" PRIu64, entry_position, ext->packed_bytes,
                               ext->position, file_size);
        return 0;
}

static int qcow_entry(const struct vd_twolevel *map, uint64_t entry_position, const void *entry, struct vd_extent *ext,
                      struct vd_error *err)
{
        const struct qcow *qcow = map->context;
        uint64_t value = be64_get(*(const be64 *)entry);

        ext->file = map->file;
        if (value & QCOW_PACKED)
                return packed_entry(qcow, entry_position, value, ext, err);
        ext->kind = VD_DATA;
        ext->position = value + ext->start % map->unit;
        if (value % QCOW_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "L2 entry at %" PRIu64 ": cluster at %" PRIu64 ", no multiple of %d",
                               entry_position, value, QCOW_SECTOR);
        if (value < qcow->l1_end && qcow->l1_offset < value + map->unit)
                return vd_fail(err, VD_ECORRUPT, "L2 entry at %" PRIu64 ": cluster at %" PRIu64 " lies on the L1 table",
                               entry_position, value);
        return 0;
}

static const struct vd_twolevel_ops map_ops = { .table = qcow_table, .entry = qcow_entry };

static void put_table(const struct vd_append *a, uint64_t position, void *raw)
{
        (void)a;
        *(be64 *)raw = be64_put(position);
}

static void put_entry(const struct vd_append *a, enum vd_kind kind, uint64_t position, uint32_t packed_bytes, void *raw)
{
        const struct qcow *qcow = a->map->context;

        if (kind == VD_PACKED)
                position |= QCOW_PACKED | (uint64_t)packed_bytes << (63 - qcow->cluster_bits);
        *(be64 *)raw = be64_put(position);
}

static const struct vd_append_type append_type = { .put_table = put_table, .put_entry = put_entry };

static uint64_t l1_entries(uint64_t disk_bytes, unsigned cluster_bits, unsigned l2_bits)
{
        return vd_div_up(disk_bytes, UINT64_C(1) << (cluster_bits + l2_bits));
}

/* Pages of the L1 table: they may not reach into the sector that follows it, which is somebody else's. */
static size_t top_page(uint64_t l1_offset, uint64_t l1_bytes)
{
        size_t page = QCOW_SECTOR;

        while (l1_offset + vd_round_up(l1_bytes, page) > vd_round_up(l1_offset + l1_bytes, QCOW_SECTOR))
                page /= 2;
        return page;
}

/* Sets up map and writer when the numbers of the header are known. */
static int start(struct vd_image *img, struct vd_error *err)
{
        enum { TOP_BYTES = 1 << 20, SUB_PAGES = 2048 };
        struct qcow *qcow = img->state;
        bool in_place = img->writable && !img->is_new;
        uint64_t entries = l1_entries(img->size, qcow->cluster_bits, qcow->l2_bits), bytes = entries * sizeof(be64);
        size_t page = top_page(qcow->l1_offset, bytes);

        qcow->l1_end = qcow->l1_offset + bytes;
        img->unit = img->write_unit = qcow->cluster_bytes;
        qcow->map = (struct vd_twolevel){
                .ops = &map_ops, .context = qcow, .top_name = "L1 table", .sub_name = "L2 table", .file = img->file,
                .top = vd_cache_new(img->file, qcow->l1_offset, page, TOP_BYTES / page, in_place),
                .sub = vd_cache_new(img->file, 0, QCOW_SECTOR, SUB_PAGES, in_place),
                .top_position = qcow->l1_offset, .top_entries = entries, .top_entry_bytes = sizeof(be64),
                .top_page_bytes = page, .entry_bytes = sizeof(be64), .entries = UINT64_C(1) << qcow->l2_bits,
                .unit = qcow->cluster_bytes, .sub_page_bytes = QCOW_SECTOR, .unwritten = img->is_new,
        };
        qcow->append = (struct vd_append){
                .type = &append_type, .image = img, .map = &qcow->map,
                .next = vd_max(vd_round_up(qcow->l1_end, QCOW_SECTOR), vd_file_size(img->file)),
                .reach = (UINT64_C(1) << (63 - qcow->cluster_bits)) - 1,
        };
        if (!qcow->map.top || !qcow->map.sub)
                return vd_fail(err, -ENOMEM, "L1 and L2 tables");
        vd_cache_allow_short(qcow->map.top, 0);         /* the file may end with the table's last entry */
        if (img->is_new)
                vd_cache_allow_short(qcow->map.sub, 0);
        img->pack.codec = VD_CODEC_DEFLATE;
        img->pack.unit = (uint32_t)qcow->cluster_bytes;
        img->pack.max_packed = (uint32_t)qcow->cluster_bytes - 1;
        img->pack.settings.window_bits = 12;
        return vd_twolevel_check(&qcow->map, img->size, err);
}

static void qcow_close(struct vd_image *img)
{
        struct qcow *qcow = img->state;

        if (!qcow)
                return;
        vd_cache_free(qcow->map.top);
        vd_cache_free(qcow->map.sub);
        vd_append_close(&qcow->append);
        free(qcow);
        img->state = NULL;
}

static int read_backing(struct vd_image *img, struct qcow *qcow, struct vd_error *err)
{
        uint64_t offset = be64_get(qcow->header.backing_offset);
        uint32_t length = be32_get(qcow->header.backing_bytes);

        qcow->name_end = sizeof(qcow->header);
        if (!offset || !length)
                return 0;
        qcow->name_end = offset + length;       /* checked with the name */
        return vd_backing_read(img, offset, length, vd_file_size(img->file), err);
}

static int read_xen(struct vd_image *img, struct qcow *qcow, struct vd_error *err)
{
        struct qcow_xen_disk xen;
        size_t got;
        int r = vd_file_read_some(img->file, &xen, sizeof(xen), sizeof(qcow->header), &got, err);

        if (r || got < sizeof(xen) || be32_get(xen.magic) != QCOW_XEN_MAGIC)
                return r;
        qcow->is_xen = qcow->l1_offset % 4096 == 0;
        qcow->l1_is_little = qcow->is_xen && !(be32_get(xen.flags) & QCOW_XEN_BIG_ENDIAN);
        return 0;
}

static int check_header(const struct vd_image *img, const struct qcow *qcow, struct vd_error *err)
{
        uint32_t crypt_method = be32_get(qcow->header.crypt_method);
        uint64_t size = be64_get(qcow->header.disk_bytes), file_size = vd_file_size(img->file);

        if (qcow->cluster_bits < QCOW_CLUSTER_LEAST || qcow->cluster_bits > QCOW_CLUSTER_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: cluster bits %u, allowed are %d to %d", qcow->cluster_bits,
                               QCOW_CLUSTER_LEAST, QCOW_CLUSTER_MOST);
        if (qcow->l2_bits < QCOW_L2_LEAST || qcow->l2_bits > QCOW_L2_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: L2 bits %u, allowed are %d to %d", qcow->l2_bits,
                               QCOW_L2_LEAST, QCOW_L2_MOST);
        if (crypt_method > QCOW_CRYPT_AES)
                return vd_fail(err, VD_EUNSUPPORTED, "header: encryption method %" PRIu32 ", known is 1 (AES)",
                               crypt_method);
        if (size <= 1 || size > INT64_MAX)
                return vd_fail(err, VD_ECORRUPT, "header: disk of %" PRIu64 " bytes, allowed are 2 to %" PRIu64, size,
                               (uint64_t)INT64_MAX);
        if (qcow->l1_offset < sizeof(qcow->header) || qcow->l1_offset > file_size)
                return vd_fail(err, VD_ECORRUPT, "header: L1 table at %" PRIu64 ", expected between %zu and the file's "
                               "end at %" PRIu64, qcow->l1_offset, sizeof(qcow->header), file_size);
        if (img->writable && qcow->is_encrypted)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted (AES) and cannot be written");
        if (img->writable && (qcow->is_xen || qcow->l1_offset % sizeof(be64)))
                return vd_fail(err, VD_EUNSUPPORTED, "%s are only read", qcow->is_xen ? "images of Xen's tapdisk"
                               : "images whose L1 table is not aligned to 8 bytes");
        return 0;
}

static int read_header(struct vd_image *img, struct qcow *qcow, struct vd_error *err)
{
        const struct qcow_header_disk *h = &qcow->header;
        size_t got;
        int r = vd_file_read_some(img->file, &qcow->header, sizeof(*h), 0, &got, err);

        if (r)
                return r;
        if (got < 8 || memcmp(h->magic, QCOW_MAGIC, 4) != 0 || be32_get(h->version) != 1)
                return vd_fail(err, VD_EFORMAT, "no qcow magic of version 1 at 0");
        if (got < sizeof(*h))
                return vd_fail(err, VD_ECORRUPT, "the file ends at %zu, inside the header", got);
        qcow->cluster_bits = h->cluster_bits;
        qcow->l2_bits = h->l2_bits;
        qcow->l1_offset = be64_get(h->l1_offset);
        qcow->stored_bytes = be64_get(h->disk_bytes);
        qcow->is_encrypted = be32_get(h->crypt_method);
        r = read_xen(img, qcow, err);
        if (!r)
                r = check_header(img, qcow, err);
        if (r)
                return r;
        qcow->cluster_bytes = UINT64_C(1) << qcow->cluster_bits;
        img->size = vd_round_down(qcow->stored_bytes, QCOW_SECTOR);
        img->is_encrypted = qcow->is_encrypted;
        if (img->size != qcow->stored_bytes)
                vd_image_warn(img, "the disk of %" PRIu64 " bytes is taken for %" PRIu64 ", whole sectors, as QEMU "
                              "does", qcow->stored_bytes, img->size);
        return read_backing(img, qcow, err);
}

/* The first thing near the disk's beginning tells whether the image was packed; finding out for sure would mean reading
 * all tables. */
static bool begins_packed(const struct vd_image *img, const struct qcow *qcow)
{
        struct vd_error ignored = VD_ERROR_INIT;
        struct vd_extent ext = { .length = 0 };
        uint64_t at = 0, end = vd_min(img->size, 64 * qcow->map.entries * qcow->map.unit);
        int r = 0;

        for (int i = 0; i < 2 && !r && at < end && (!i || ext.kind == VD_UNALLOCATED); i++) {
                r = vd_twolevel_map(&qcow->map, at, end - at, &ext, &ignored);
                at += ext.length;
        }
        return !r && ext.kind == VD_PACKED;
}

static int qcow_open(struct vd_image *img, struct vd_error *err)
{
        struct qcow *qcow = calloc(1, sizeof(*qcow));
        int r;

        if (!qcow)
                return vd_fail(err, -ENOMEM, "qcow header");
        img->state = qcow;
        r = read_header(img, qcow, err);
        if (!r)
                r = start(img, err);
        if (r)
                qcow_close(img);
        else
                img->is_packed = begins_packed(img, qcow);
        return r;
}

static int qcow_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct qcow *qcow = img->state;

        if (qcow->is_encrypted)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted (AES); vdtool does not decrypt qcow images");
        return vd_twolevel_map(&qcow->map, offset, max, ext, err);
}

static void qcow_describe(struct vd_image *img, struct vd_report *report)
{
        const struct qcow *qcow = img->state;

        vd_report_count(report, "l2-entries", "entries of an L2 table", qcow->map.entries);
        vd_report_count(report, "l1-entries", "entries of the L1 table", qcow->map.top_entries);
        vd_report_offset(report, "l1-offset", "L1 table at", qcow->l1_offset);
        if (be32_get(qcow->header.mtime))
                vd_report_count(report, "backing-mtime", "backing file changed at", be32_get(qcow->header.mtime));
        if (qcow->is_xen)
                vd_report_text(report, "producer", "producer", "Xen tapdisk");
        if (qcow->is_encrypted)
                vd_report_text(report, "encryption", "encryption", "AES");
        if (qcow->stored_bytes != img->size)
                vd_report_count(report, "stored-size", "stored size", qcow->stored_bytes);
}

/* ---- check ---- */

static int qcow_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct qcow *qcow = img->state;
        struct vd_region header = { .class = VD_CLASS_HEADER, .guest = VD_NOWHERE, .what = "header",
                                    .length = qcow->is_xen ? sizeof(qcow->header) + sizeof(struct qcow_xen_disk)
                                                           : sizeof(qcow->header) };
        struct vd_region name = { .class = VD_CLASS_HEADER, .position = be64_get(qcow->header.backing_offset),
                                  .length = be32_get(qcow->header.backing_bytes), .guest = VD_NOWHERE,
                                  .what = "backing file name" };
        struct vd_region l1 = { .class = VD_CLASS_TABLE, .position = qcow->l1_offset, .guest = VD_NOWHERE,
                                .length = qcow->l1_end - qcow->l1_offset, .what = "L1 table" };
        int r = vd_check_begin(check, QCOW_SECTOR, vd_file_size(img->file), err);

        /* What begins in the sector where the header ends is one with it: nobody else may use that sector. */
        if (name.position && name.length && name.position < vd_round_up(header.length, QCOW_SECTOR))
                header.length = vd_max(header.length, name.position + name.length);
        if (l1.position < vd_round_up(header.length, QCOW_SECTOR))
                header.length = vd_max(header.length, qcow->l1_end);
        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r && name.length && name.position >= vd_round_up(header.length, QCOW_SECTOR))
                r = vd_check_region(check, &name, err);
        if (!r && l1.position >= vd_round_up(header.length, QCOW_SECTOR))
                r = vd_check_region(check, &l1, err);
        return r ? r : vd_twolevel_regions(&qcow->map, img->size, check, "qcow-entry", err);
}

static int qcow_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct qcow *qcow = img->state;

        uint64_t table_room = vd_round_up(qcow->l1_end - qcow->l1_offset, QCOW_SECTOR);

        (void)err;
        /* QEMU takes whole sectors for the L1 table, from where it begins on. */
        vd_twolevel_leaks(check, QCOW_SECTOR, qcow->cluster_bytes,
                          vd_round_up(qcow->l1_offset + table_room, qcow->cluster_bytes), vd_file_size(img->file),
                          "qcow-leak");
        if (qcow->stored_bytes != img->size)
                vd_find(&check->findings, VD_WARNING, "qcow-size", offsetof(struct qcow_header_disk, disk_bytes), 8,
                        VD_NOWHERE, 0, true, "the disk size of %" PRIu64 " bytes is no multiple of %d",
                        qcow->stored_bytes, QCOW_SECTOR);
        return 0;
}

/* ---- new images and writing ---- */

struct qcow_params {
        uint64_t cluster_bytes;
};

static const struct vd_opt create_opts[] = {
        { .name = "cluster_size", .type = VD_OPT_SIZE, .offset = offsetof(struct qcow_params, cluster_bytes),
          .argument = "SIZE", .help = "a power of two from 512 to 64k; when not given 4k, with a backing file 512" },
        { .type = VD_OPT_END },
};

static int choose_layout(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct qcow_params *params = create->params;
        struct qcow *qcow = img->state;
        uint64_t l1_bytes;

        qcow->cluster_bits = create->backing_name ? 9 : 12;     /* as QEMU makes them */
        qcow->l2_bits = create->backing_name ? 12 : 9;
        if (params && params->cluster_bytes) {
                qcow->cluster_bits = QCOW_CLUSTER_LEAST;
                while (qcow->cluster_bits < QCOW_CLUSTER_MOST &&
                       UINT64_C(1) << qcow->cluster_bits < params->cluster_bytes)
                        qcow->cluster_bits++;
                if (UINT64_C(1) << qcow->cluster_bits != params->cluster_bytes)
                        return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from %d to %d",
                                       params->cluster_bytes, 1 << QCOW_CLUSTER_LEAST, 1 << QCOW_CLUSTER_MOST);
                qcow->l2_bits = qcow->cluster_bits - 3;         /* a table is one cluster */
        }
        qcow->cluster_bytes = UINT64_C(1) << qcow->cluster_bits;
        l1_bytes = l1_entries(create->size, qcow->cluster_bits, qcow->l2_bits) * sizeof(be64);
        if (!create->size)
                return vd_fail(err, VD_EUNSUPPORTED, "a qcow image of 0 bytes");
        if (create->size > INT64_MAX - QCOW_SECTOR || l1_bytes > QCOW_L1_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: with clusters of %" PRIu64
                               " bytes its L1 table would have %" PRIu64 " bytes, at most %d", create->size,
                               qcow->cluster_bytes, l1_bytes, QCOW_L1_MOST);
        img->size = qcow->stored_bytes = vd_round_up(create->size, QCOW_SECTOR);
        return 0;
}

static int write_backing(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct qcow *qcow = img->state;
        uint32_t length = 0;
        int r = 0;

        if (create->backing_name)
                r = vd_backing_write(img, create->backing_name, sizeof(qcow->header), &length, err);
        qcow->name_end = sizeof(qcow->header) + length;
        qcow->l1_offset = vd_round_up(qcow->name_end, sizeof(be64));
        qcow->header.backing_offset = be64_put(length ? sizeof(qcow->header) : 0);
        qcow->header.backing_bytes = be32_put(length);
        return r;
}

static int qcow_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct qcow *qcow = calloc(1, sizeof(*qcow));
        int r;

        if (!qcow)
                return vd_fail(err, -ENOMEM, "qcow header");
        img->state = qcow;
        r = choose_layout(img, create, err);
        if (!r)
                r = write_backing(img, create, err);
        if (!r)
                r = start(img, err);
        if (r)
                qcow_close(img);
        return r;
}

static int qcow_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                      struct vd_error *err)
{
        struct qcow *qcow = img->state;

        return vd_append_place(&qcow->append, request, place, err);
}

static int qcow_settle(struct vd_image *img, struct vd_error *err)
{
        struct qcow *qcow = img->state;

        return qcow->append.grown ? vd_append_settle(&qcow->append, err) : 0;
}

static int qcow_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct qcow *qcow = img->state;

        return vd_append_publish(&qcow->append, place, err);
}

static int qcow_flush(struct vd_image *img, struct vd_error *err)
{
        struct qcow *qcow = img->state;

        return vd_append_flush(&qcow->append, err);
}

static int qcow_finish(struct vd_image *img, struct vd_error *err)
{
        struct qcow *qcow = img->state;
        struct qcow_header_disk *h = &qcow->header;
        uint64_t end = qcow->append.grown ? qcow->append.next : qcow->l1_end;
        int r;

        if (!img->is_new)
                return 0;
        r = vd_append_flush(&qcow->append, err);
        if (!r && vd_file_size(img->file) != end)
                r = vd_file_truncate(img->file, end, err);
        memcpy(h->magic, QCOW_MAGIC, sizeof(h->magic));
        h->version = be32_put(1);
        h->disk_bytes = be64_put(img->size);
        h->cluster_bits = (uint8_t)qcow->cluster_bits;
        h->l2_bits = (uint8_t)qcow->l2_bits;
        h->l1_offset = be64_put(qcow->l1_offset);
        return r ? r : vd_file_write(img->file, h, sizeof(*h), 0, err);
}

static const char *const extensions[] = { "qcow", "qcow1", NULL };

const struct vd_format vd_format_qcow = {
        .name = "qcow", .title = "QEMU copy-on-write disk, version 1", .extensions = extensions,
        .caps = VD_CAP_BACKING | VD_CAP_PACKED,
        .probe = qcow_probe, .open = qcow_open, .close = qcow_close, .map = qcow_map, .describe = qcow_describe,
        .walk = qcow_walk, .check = qcow_check,
        .params_size = sizeof(struct qcow_params), .create_opts = create_opts, .create = qcow_create,
        .place = qcow_place, .settle = qcow_settle, .publish = qcow_publish, .flush = qcow_flush,
        .finish = qcow_finish,
};
