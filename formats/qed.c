// SPDX-License-Identifier: MIT
/* qed.c: QEMU enhanced disks (reference: docs/formats.md, "QED")
 *
 *      [ header, backing file name ][ L1 table ] ... [ L2 tables and data clusters in the order of allocation ]
 *
 * Two levels of le64 file positions; an L2 entry of 1 reads as zeros.  The end of the file is the only allocator.
 * Quirk: QEMU makes images with table_size 1 but does not open them; we do.
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

struct qed_header_disk {                /* everything is little-endian (QEMU, docs/interop/qed_spec) */
        char magic[4];                  /* "QED", NUL */
        le32 cluster_bytes;             /* a power of two from 4 KiB to 64 MiB */
        le32 table_clusters;            /* of each L1 and L2 table: 1, 2, 4, 8, 16 */
        le32 header_clusters;           /* up to the first other use of the file */
        le64 features;                  /* unknown ones: not for us */
        le64 compat_features;           /* unknown ones: kept */
        le64 autoclear_features;        /* unknown ones: cleared by whoever writes */
        le64 l1_offset;
        le64 image_bytes;
        le32 backing_offset, backing_bytes;     /* name of the backing file, not terminated */
};
static_assert(sizeof(struct qed_header_disk) == 64, "QED header");
static_assert(offsetof(struct qed_header_disk, image_bytes) == 48, "QED image size");

enum {
        QED_BACKING = 1,                /* features */
        QED_NEED_CHECK = 2,
        QED_BACKING_RAW = 4,
        QED_KNOWN = QED_BACKING | QED_NEED_CHECK | QED_BACKING_RAW,
        QED_CLUSTER_LEAST = 4096,
        QED_CLUSTER_MOST = 64 << 20,
        QED_CLUSTER_DEFAULT = 65536,
        QED_TABLE_DEFAULT = 4,
        QED_TABLE_MOST = 16,
        QED_ZERO = 1,                   /* L2 entry: reads as zeros */
        QED_PAGE_MOST = 65536,          /* of the tables */
        QED_CACHE_BYTES = 4 << 20,
};

struct qed {
        struct qed_header_disk header;
        uint64_t cluster_bytes, table_clusters, header_bytes, l1_offset, features;
        struct vd_twolevel map;
        struct vd_append append;
        bool started;                   /* in place: the header says that somebody writes */
};

static enum vd_match qed_probe(const struct vd_probe *probe)
{
        if (probe->head_bytes < 4 || memcmp(probe->head, "QED", 4) != 0)
                return VD_MATCH_NO;
        return VD_MATCH_SURE;
}

/* A position out of a table: aligned, behind the header. */
static int check_position(const struct qed *qed, uint64_t value, const char *what, struct vd_error *err)
{
        if (value % qed->cluster_bytes)
                return vd_fail(err, VD_ECORRUPT, "%s: position %" PRIu64 " is no multiple of the cluster size %" PRIu64,
                               what, value, qed->cluster_bytes);
        if (value < qed->header_bytes)
                return vd_fail(err, VD_ECORRUPT, "%s: position %" PRIu64 " lies in the header, which ends at %" PRIu64,
                               what, value, qed->header_bytes);
        return 0;
}

static int qed_table(const struct vd_twolevel *map, uint64_t index, const void *entry, uint64_t *position,
                     struct vd_error *err)
{
        char what[48];

        *position = le64_get(*(const le64 *)entry);
        snprintf(what, sizeof(what), "L1 entry %" PRIu64, index);
        return check_position(map->context, *position, what, err);
}

static int qed_entry(const struct vd_twolevel *map, uint64_t entry_position, const void *entry, struct vd_extent *ext,
                     struct vd_error *err)
{
        uint64_t value = le64_get(*(const le64 *)entry);
        char what[48];

        if (value == QED_ZERO) {
                ext->kind = VD_ZERO;
                return 0;
        }
        snprintf(what, sizeof(what), "L2 entry at %" PRIu64, entry_position);
        ext->kind = VD_DATA;
        ext->file = map->file;
        ext->position = value + ext->start % map->unit;
        return check_position(map->context, value, what, err);
}

static const struct vd_twolevel_ops map_ops = { .table = qed_table, .entry = qed_entry };

static void put_table(const struct vd_append *a, uint64_t position, void *raw)
{
        (void)a;
        *(le64 *)raw = le64_put(position);
}

static void put_entry(const struct vd_append *a, enum vd_kind kind, uint64_t position, uint32_t packed_bytes, void *raw)
{
        (void)a;
        (void)packed_bytes;
        *(le64 *)raw = le64_put(kind == VD_ZERO ? QED_ZERO : position);
}

static const struct vd_append_type append_type = { .put_table = put_table, .put_entry = put_entry, .has_zero = true };

static uint64_t entries_of_table(uint64_t cluster_bytes, uint64_t table_clusters)
{
        return cluster_bytes * table_clusters / sizeof(le64);
}

/* Guest bytes that two levels of tables reach; UINT64_MAX when that is more than 64 bits can say. */
static uint64_t most_bytes(uint64_t cluster_bytes, uint64_t table_clusters)
{
        uint64_t entries = entries_of_table(cluster_bytes, table_clusters), bytes;

        return vd_mul(entries * cluster_bytes, entries, &bytes) ? bytes : UINT64_MAX;
}

/* Sets up map and writer when the numbers of the header are known. */
static int start(struct vd_image *img, struct vd_error *err)
{
        enum { TOP_PAGES = 2048 };
        struct qed *qed = img->state;
        size_t page = vd_min(qed->cluster_bytes, QED_PAGE_MOST);
        bool in_place = img->writable && !img->is_new;

        img->unit = img->write_unit = qed->cluster_bytes;
        qed->map = (struct vd_twolevel){
                .ops = &map_ops, .context = qed, .top_name = "L1 table", .sub_name = "L2 table", .file = img->file,
                .top = vd_cache_new(img->file, qed->l1_offset, VD_TWOLEVEL_TOP_PAGE, TOP_PAGES, in_place),
                .sub = vd_cache_new(img->file, 0, page, QED_CACHE_BYTES / page, in_place),
                .top_position = qed->l1_offset, .top_entry_bytes = sizeof(le64), .entry_bytes = sizeof(le64),
                .top_entries = entries_of_table(qed->cluster_bytes, qed->table_clusters),
                .entries = entries_of_table(qed->cluster_bytes, qed->table_clusters),
                .unit = qed->cluster_bytes, .sub_page_bytes = page, .unwritten = img->is_new,
        };
        if (!qed->map.top || !qed->map.sub)
                return vd_fail(err, -ENOMEM, "L1 and L2 tables");
        if (img->is_new) {
                vd_cache_allow_short(qed->map.top, 0);
                vd_cache_allow_short(qed->map.sub, 0);
        }
        qed->append = (struct vd_append){
                .type = &append_type, .image = img, .map = &qed->map, .reach = INT64_MAX,
                .next = img->is_new ? qed->l1_offset + qed->table_clusters * qed->cluster_bytes
                                    : vd_round_up(vd_file_size(img->file), qed->cluster_bytes),
        };
        return vd_twolevel_check(&qed->map, img->size, err);
}

static void qed_close(struct vd_image *img)
{
        struct qed *qed = img->state;

        if (!qed)
                return;
        vd_cache_free(qed->map.top);
        vd_cache_free(qed->map.sub);
        vd_append_close(&qed->append);
        free(qed);
        img->state = NULL;
}

static int read_backing(struct vd_image *img, const struct qed *qed, struct vd_error *err)
{
        if (!(qed->features & QED_BACKING))
                return 0;
        if (qed->features & QED_BACKING_RAW && !(img->parent_ref.format = strdup("raw")))
                return vd_fail(err, -ENOMEM, "format of the backing file");
        return vd_backing_read(img, le32_get(qed->header.backing_offset), le32_get(qed->header.backing_bytes),
                               qed->header_bytes, err);
}

static int check_header(const struct qed *qed, uint64_t size, uint64_t file_size, struct vd_error *err)
{
        uint64_t table_bytes = qed->table_clusters * qed->cluster_bytes;

        if (!vd_is_pow2(qed->cluster_bytes) || qed->cluster_bytes < QED_CLUSTER_LEAST ||
            qed->cluster_bytes > QED_CLUSTER_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: cluster size %" PRIu64 " is not a power of two from %d to %d",
                               qed->cluster_bytes, QED_CLUSTER_LEAST, QED_CLUSTER_MOST);
        if (!vd_is_pow2(qed->table_clusters) || qed->table_clusters > QED_TABLE_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: table size of %" PRIu64 " clusters, allowed are 1, 2, 4, 8, "
                               "16", qed->table_clusters);
        if (qed->features & ~(uint64_t)QED_KNOWN)
                return vd_fail(err, VD_EUNSUPPORTED, "header: unknown features 0x%" PRIx64,
                               qed->features & ~(uint64_t)QED_KNOWN);
        if (!qed->header_bytes || qed->header_bytes > file_size)
                return vd_fail(err, VD_ECORRUPT, "header: its %" PRIu64 " bytes do not fit the file, which ends at %"
                               PRIu64, qed->header_bytes, file_size);
        if (qed->l1_offset % qed->cluster_bytes || qed->l1_offset < qed->header_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: L1 table at %" PRIu64 ", expected a multiple of %" PRIu64
                               " behind the header, which ends at %" PRIu64, qed->l1_offset, qed->cluster_bytes,
                               qed->header_bytes);
        if (!vd_range_fits(qed->l1_offset, table_bytes, file_size))
                return vd_fail(err, VD_ECORRUPT, "header: L1 table of %" PRIu64 " bytes at %" PRIu64 " does not fit "
                               "the file, which ends at %" PRIu64, table_bytes, qed->l1_offset, file_size);
        if (size % 512 || size > most_bytes(qed->cluster_bytes, qed->table_clusters))
                return vd_fail(err, VD_ECORRUPT, "header: image size %" PRIu64 " is not a multiple of 512 of at most %"
                               PRIu64, size, most_bytes(qed->cluster_bytes, qed->table_clusters));
        if (size > INT64_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "header: image size %" PRIu64 ", at most %" PRIu64 " supported",
                               size, (uint64_t)INT64_MAX);
        return 0;
}

static int read_header(struct vd_image *img, struct qed *qed, struct vd_error *err)
{
        const struct qed_header_disk *h = &qed->header;
        size_t got;
        int r = vd_file_read_some(img->file, &qed->header, sizeof(*h), 0, &got, err);

        if (r)
                return r;
        if (got < 4 || memcmp(h->magic, "QED", 4) != 0)
                return vd_fail(err, VD_EFORMAT, "no QED magic at 0");
        if (got < sizeof(*h))
                return vd_fail(err, VD_ECORRUPT, "the file ends at %zu, inside the header", got);
        qed->cluster_bytes = le32_get(h->cluster_bytes);
        qed->table_clusters = le32_get(h->table_clusters);
        qed->header_bytes = le32_get(h->header_clusters) * qed->cluster_bytes;
        qed->l1_offset = le64_get(h->l1_offset);
        qed->features = le64_get(h->features);
        img->size = le64_get(h->image_bytes);
        img->is_dirty = qed->features & QED_NEED_CHECK;
        return check_header(qed, img->size, vd_file_size(img->file), err);
}

static int qed_open(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = calloc(1, sizeof(*qed));
        int r;

        if (!qed)
                return vd_fail(err, -ENOMEM, "QED header");
        img->state = qed;
        r = read_header(img, qed, err);
        if (!r)
                r = read_backing(img, qed, err);
        if (!r)
                r = start(img, err);
        if (r)
                qed_close(img);
        return r;
}

static int qed_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct qed *qed = img->state;

        return vd_twolevel_map(&qed->map, offset, max, ext, err);
}

static void qed_describe(struct vd_image *img, struct vd_report *report)
{
        const struct qed *qed = img->state;

        vd_report_bytes(report, "table-size", "table size", qed->table_clusters * qed->cluster_bytes);
        vd_report_count(report, "table-clusters", "clusters per table", qed->table_clusters);
        vd_report_count(report, "header-clusters", "clusters of the header", qed->header_bytes / qed->cluster_bytes);
        vd_report_offset(report, "l1-offset", "L1 table at", qed->l1_offset);
        vd_report_flag(report, "need-check", "needs a check", qed->features & QED_NEED_CHECK);
        if (qed->features & QED_BACKING)
                vd_report_flag(report, "backing-is-raw", "backing file is raw", qed->features & QED_BACKING_RAW);
        if (le64_get(qed->header.compat_features))
                vd_report_textf(report, "compat-features", "compatible features", "0x%" PRIx64,
                                le64_get(qed->header.compat_features));
        if (le64_get(qed->header.autoclear_features))
                vd_report_textf(report, "autoclear-features", "autoclear features", "0x%" PRIx64,
                                le64_get(qed->header.autoclear_features));
}

/* ---- check ---- */

static int qed_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct qed *qed = img->state;
        struct vd_region header = { .class = VD_CLASS_HEADER, .length = qed->header_bytes, .guest = VD_NOWHERE,
                                    .what = "header" };
        struct vd_region l1 = { .class = VD_CLASS_TABLE, .position = qed->l1_offset, .guest = VD_NOWHERE,
                                .length = qed->map.top_entries * sizeof(le64), .what = "L1 table" };
        int r = vd_check_begin(check, qed->cluster_bytes, vd_file_size(img->file), err);

        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r)
                r = vd_check_region(check, &l1, err);
        return r ? r : vd_twolevel_regions(&qed->map, img->size, check, "qed-entry", err);
}

static int qed_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct qed *qed = img->state;

        (void)err;
        vd_twolevel_leaks(check, qed->cluster_bytes, qed->cluster_bytes, 0, vd_file_size(img->file), "qed-leak");
        if (qed->features & QED_NEED_CHECK)
                vd_find(&check->findings, VD_WARNING, "qed-need-check", offsetof(struct qed_header_disk, features), 8,
                        VD_NOWHERE, 0, true, "the image was not closed by its last writer");
        return 0;
}

/* ---- new images and writing ---- */

struct qed_params {
        uint64_t cluster_bytes, table_clusters;
};

static const struct vd_opt create_opts[] = {
        { .name = "cluster_size", .type = VD_OPT_SIZE, .offset = offsetof(struct qed_params, cluster_bytes),
          .argument = "SIZE", .help = "a power of two from 4k to 64M; 64k when not given" },
        { .name = "table_size", .type = VD_OPT_COUNT, .offset = offsetof(struct qed_params, table_clusters),
          .argument = "CLUSTERS", .help = "of each table: 1 (not for QEMU), 2, 4, 8 or 16; 4 when not given" },
        { .type = VD_OPT_END },
};

static int choose_layout(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct qed_params *params = create->params;
        struct qed *qed = img->state;
        uint64_t most;

        qed->cluster_bytes = params && params->cluster_bytes ? params->cluster_bytes : QED_CLUSTER_DEFAULT;
        qed->table_clusters = params && params->table_clusters ? params->table_clusters : QED_TABLE_DEFAULT;
        if (!vd_is_pow2(qed->cluster_bytes) || qed->cluster_bytes < QED_CLUSTER_LEAST ||
            qed->cluster_bytes > QED_CLUSTER_MOST)
                return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from %d to %d",
                               qed->cluster_bytes, QED_CLUSTER_LEAST, QED_CLUSTER_MOST);
        if (!vd_is_pow2(qed->table_clusters) || qed->table_clusters > QED_TABLE_MOST)
                return vd_fail(err, VD_EUSAGE, "table_size %" PRIu64 " is not 1, 2, 4, 8 or 16", qed->table_clusters);
        if (qed->table_clusters == 1 || most_bytes(qed->cluster_bytes, qed->table_clusters) == UINT64_MAX)
                vd_image_warn(img, "QEMU does not open images with cluster_size %" PRIu64 " and table_size %" PRIu64,
                              qed->cluster_bytes, qed->table_clusters);
        most = vd_min(most_bytes(qed->cluster_bytes, qed->table_clusters), vd_round_down(INT64_MAX, 512));
        if (create->size > most)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: with clusters of %" PRIu64
                               " bytes and tables of %" PRIu64 " clusters QED ends at %" PRIu64, create->size,
                               qed->cluster_bytes, qed->table_clusters, most);
        img->size = vd_round_up(create->size, 512);
        qed->header_bytes = qed->l1_offset = qed->cluster_bytes;
        return 0;
}

static int write_backing(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct qed *qed = img->state;
        uint32_t length;
        int r;

        if (!create->backing_name)
                return 0;
        r = vd_backing_write(img, create->backing_name, sizeof(qed->header), &length, err);
        if (r)
                return r;
        qed->features |= QED_BACKING;
        if (create->backing_format && !strcmp(create->backing_format, "raw"))
                qed->features |= QED_BACKING_RAW;
        qed->header.backing_offset = le32_put(sizeof(qed->header));
        qed->header.backing_bytes = le32_put(length);
        return 0;
}

static int qed_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct qed *qed = calloc(1, sizeof(*qed));
        int r;

        if (!qed)
                return vd_fail(err, -ENOMEM, "QED header");
        img->state = qed;
        r = choose_layout(img, create, err);
        if (!r)
                r = write_backing(img, create, err);
        if (!r)
                r = start(img, err);
        if (r)
                qed_close(img);
        return r;
}

static int qed_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                     struct vd_error *err)
{
        struct qed *qed = img->state;

        return vd_append_place(&qed->append, request, place, err);
}

static int write_header(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = img->state;

        qed->header.features = le64_put(qed->features);
        return vd_file_write(img->file, &qed->header, sizeof(qed->header), 0, err);
}

/* Before the first change QEMU is told that the file needs a look when we do not come to an end. */
static int qed_settle(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = img->state;
        int r = 0;

        if (!img->is_new && !qed->started) {
                qed->features |= QED_NEED_CHECK;
                qed->header.autoclear_features = le64_put(0);
                r = write_header(img, err);
                qed->started = true;
        }
        return r ? r : vd_append_settle(&qed->append, err);
}

static int qed_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct qed *qed = img->state;

        return vd_append_publish(&qed->append, place, err);
}

static int qed_flush(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = img->state;

        return vd_append_flush(&qed->append, err);
}

static int finish_new(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = img->state;
        struct qed_header_disk *h = &qed->header;
        int r = vd_append_flush(&qed->append, err);

        if (!r)
                r = vd_append_settle(&qed->append, err);
        memcpy(h->magic, "QED", sizeof(h->magic));
        h->cluster_bytes = le32_put((uint32_t)qed->cluster_bytes);
        h->table_clusters = le32_put((uint32_t)qed->table_clusters);
        h->header_clusters = le32_put(1);
        h->l1_offset = le64_put(qed->l1_offset);
        h->image_bytes = le64_put(img->size);
        return r ? r : write_header(img, err);
}

static int qed_finish(struct vd_image *img, struct vd_error *err)
{
        struct qed *qed = img->state;
        int r;

        if (img->is_new)
                return finish_new(img, err);
        if (!qed->started || img->is_dirty)     /* the mark of another writer stays */
                return 0;
        r = vd_image_barrier(img, img->file, err);
        qed->features &= ~(uint64_t)QED_NEED_CHECK;
        qed->started = false;
        return r ? r : write_header(img, err);
}

static const char *const extensions[] = { "qed", NULL };

const struct vd_format vd_format_qed = {
        .name = "qed", .title = "QEMU enhanced disk", .extensions = extensions, .caps = VD_CAP_BACKING,
        .probe = qed_probe, .open = qed_open, .close = qed_close, .map = qed_map, .describe = qed_describe,
        .walk = qed_walk, .check = qed_check,
        .params_size = sizeof(struct qed_params), .create_opts = create_opts, .create = qed_create,
        .place = qed_place, .settle = qed_settle, .publish = qed_publish, .flush = qed_flush, .finish = qed_finish,
};
