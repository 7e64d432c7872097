// SPDX-License-Identifier: MIT
/* qcow2_create.c: options, layout and header of a new image.
 *
 *      0 header   1 refcount table   2 first refcount block   3 L1 table ...   then L2 tables and data as they come
 *
 * as QEMU lays it out.  Everything goes through the allocator and the caches; the header is written last, by finish().
 */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"

static const char *const compats[] = { "1.1", "0.10", "v3", "v2", NULL };
static const char *const windows[] = { "4k", "32k", NULL };
static const char *const compressions[] = { "zlib", "zstd", NULL };
static const char *const preallocations[] = { "off", "metadata", "falloc", "full", NULL };

#define FIELD(name) .offset = offsetof(struct qcow2_params, name)
const struct vd_opt qcow2_create_options[] = {
        { .name = "cluster_size", .type = VD_OPT_SIZE, FIELD(cluster_size), .argument = "SIZE",
          .help = "unit of allocation, 512 to 2M (64k)" },
        { .name = "compat", .type = VD_OPT_CHOICE, FIELD(compat), .argument = "VERSION", .choices = compats,
          .help = "0.10 or v2: version 2; 1.1 or v3 (default): version 3" },
        { .name = "refcount_bits", .type = VD_OPT_COUNT, FIELD(refcount_bits), .argument = "BITS",
          .help = "width of reference counts: 1, 2, 4 .. 64 (16)" },
        { .name = "compression_type", .type = VD_OPT_CHOICE, FIELD(compression_type), .argument = "TYPE",
          .choices = compressions, .help = "how compressed clusters are packed: zlib (default) or zstd" },
        { .name = "deflate_window", .type = VD_OPT_CHOICE, FIELD(deflate_window), .argument = "SIZE",
          .choices = windows, .help = "how far back zlib-packed clusters may refer: 4k (default), which every reader "
                                      "accepts, or 32k" },
        { .name = "compression_level", .type = VD_OPT_COUNT, FIELD(compression_level), .argument = "LEVEL",
          .help = "1 (fastest) to 9 (smallest)" },
        { .name = "lazy_refcounts", .type = VD_OPT_FLAG, FIELD(lazy_refcounts),
          .help = "writers may postpone updates of reference counts" },
        { .name = "extended_l2", .type = VD_OPT_FLAG, FIELD(extended_l2),
          .help = "32 subclusters in each cluster" },
        { .name = "data_file", .type = VD_OPT_TEXT, FIELD(data_file), .argument = "FILE",
          .help = "new file beside the image that holds the guest's data" },
        { .name = "data_file_raw", .type = VD_OPT_FLAG, FIELD(data_file_raw),
          .help = "the data file is a raw image of the disk at any time" },
        { .name = "preallocation", .type = VD_OPT_CHOICE, FIELD(preallocation), .argument = "MODE",
          .choices = preallocations,
          .help = "off, metadata (tables), falloc (and space on the host) or full (and zeros written)" },
        { .type = VD_OPT_END },
};

static bool is(const char *value, const char *word) { return value && !strcmp(value, word); }

/* Options that are right by themselves but not together. */
static int check_together(const struct qcow2 *q, const struct qcow2_params *p, const struct vd_create *create,
                          struct vd_error *err)
{
        bool preallocates = p->preallocation && !is(p->preallocation, "off");

        if (q->version < 3 && (q->incompatible || q->compatible || q->refcount_order != 4))
                return vd_fail(err, VD_EUSAGE, "compat=0.10 has no %s; it needs compat=1.1",
                               q->extended ? "extended_l2" : q->compatible ? "lazy_refcounts"
                               : qcow2_has_data_file(q) ? "data_file"
                               : q->codec == VD_CODEC_ZSTD ? "compression_type=zstd" : "refcount_bits other than 16");
        if (q->extended && q->cluster_bits < QCOW2_EXTENDED_CLUSTER_BITS)
                return vd_fail(err, VD_EUSAGE, "extended_l2 needs a cluster_size of at least %d, not %" PRIu64,
                               1 << QCOW2_EXTENDED_CLUSTER_BITS, q->cluster);
        if (p->data_file_raw && !p->data_file)
                return vd_fail(err, VD_EUSAGE, "data_file_raw needs a data_file");
        if (p->data_file_raw && create->backing_name)
                return vd_fail(err, VD_EUSAGE, "data_file_raw and a backing file exclude each other");
        if (preallocates && create->backing_name && !q->extended)
                return vd_fail(err, VD_EUSAGE, "preallocation with a backing file needs extended_l2");
        return 0;
}

/* What was not asked for is taken from a source whose packed clusters then fit as they are. */
static const struct vd_image *packed_like(const struct vd_image *img, const struct vd_image *like)
{
        return like && (like->format == img->format || like->is_packed) && like->pack.codec &&
               vd_is_pow2(like->pack.unit) && like->pack.unit >= 1u << QCOW2_MIN_CLUSTER_BITS &&
               like->pack.unit <= 1u << QCOW2_MAX_CLUSTER_BITS ? like : NULL;
}

static int use_params(struct vd_image *img, struct qcow2 *q, const struct qcow2_params *p,
                      const struct vd_create *create, struct vd_error *err)
{
        const struct vd_image *like = p->extended_l2 ? NULL : packed_like(img, create->like);
        bool zstd = p->compression_type ? is(p->compression_type, "zstd")
                                        : like && like->pack.codec == VD_CODEC_ZSTD && !is(p->compat, "0.10") &&
                                          !is(p->compat, "v2");
        uint64_t cluster = p->cluster_size ? p->cluster_size : like ? like->pack.unit : 64 << 10;
        uint64_t bits = p->refcount_bits ? p->refcount_bits : 16;

        if (!vd_is_pow2(cluster) || cluster < 1u << QCOW2_MIN_CLUSTER_BITS || cluster > 1u << QCOW2_MAX_CLUSTER_BITS)
                return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from 512 to 2M",
                               cluster);
        if (!vd_is_pow2(bits) || bits > 64)
                return vd_fail(err, VD_EUSAGE, "refcount_bits %" PRIu64 " is not a power of two from 1 to 64", bits);
        if (p->compression_level > 9)
                return vd_fail(err, VD_EUSAGE, "compression_level %" PRIu64 " is not from 1 to 9",
                               p->compression_level);
        q->version = is(p->compat, "0.10") || is(p->compat, "v2") ? 2 : 3;
        q->header_bytes = q->version >= 3 ? sizeof(struct qcow2_header_disk) : QCOW2_V2_HEADER_BYTES;
        q->cluster = cluster;
        q->cluster_bits = (unsigned)__builtin_ctzll(cluster);
        q->refcount_order = (unsigned)__builtin_ctzll(bits);
        q->compressed_shift = 62 - (q->cluster_bits - 8);
        q->codec = zstd ? VD_CODEC_ZSTD : VD_CODEC_DEFLATE;
        q->extended = p->extended_l2;
        q->incompatible = (q->extended ? QCOW2_EXTENDED_L2 : 0) | (p->data_file ? QCOW2_DATA_FILE : 0) |
                          (q->codec == VD_CODEC_ZSTD ? QCOW2_COMPRESSION : 0);
        q->compatible = p->lazy_refcounts ? QCOW2_LAZY_REFCOUNTS : 0;
        q->autoclear = p->data_file_raw ? QCOW2_RAW_DATA_FILE : 0;
        q->reads_zero = !create->backing_name;
        if (create->size > INT64_MAX - 512)
                return vd_fail(err, VD_EUSAGE, "a disk of %" PRIu64 " bytes is too large", create->size);
        img->size = vd_round_up(create->size, 512);
        img->pack.settings.level = (int)p->compression_level;
        img->pack.settings.window_bits = is(p->deflate_window, "32k") ? 15 : 12;
        return check_together(q, p, create, err);
}

static int use_backing(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct vd_format *format;
        const char *stored = create->backing_format;
        int r;

        if (!create->backing_name)
                return 0;
        if (!*create->backing_name || strlen(create->backing_name) > QCOW2_NAME_BYTES)
                return vd_fail(err, VD_EUSAGE, "backing file name of %zu bytes, allowed are 1 to %d",
                               strlen(create->backing_name), QCOW2_NAME_BYTES);
        r = vd_image_add_parent_name(img, create->backing_name, "backing file name", err);
        if (r || !stored)
                return r;
        /* QEMU must understand it. */
        format = vd_format_by_name(stored);
        if (format)
                stored = format->qemu_name ? format->qemu_name : format->name;
        img->parent_ref.format = strdup(stored);
        return img->parent_ref.format ? 0 : vd_fail(err, -ENOMEM, "backing format");
}

static int use_data_file(struct vd_image *img, struct qcow2 *q, const struct qcow2_params *p, struct vd_error *err)
{
        int r;

        if (!p->data_file) {
                q->data = vd_file_ref(img->file);
                return 0;
        }
        q->data_name = strdup(p->data_file);
        if (!q->data_name)
                return vd_fail(err, -ENOMEM, "name of the data file");
        r = vd_output_add(img->output, q->data_name, &q->data, err);
        if (r)
                return r;
        vd_file_ref(q->data);
        return vd_file_truncate(q->data, img->size, err);
}

/* Header, refcount table and first block count themselves; everything else is taken from the allocator. */
static int lay_out(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t reach = q->cluster / qcow2_entry_bytes(q) * q->cluster, entries = vd_div_up(img->size, reach);
        uint64_t clusters, got;
        be64 *entry;
        void *block;
        int r;

        if (entries * 8 > QCOW2_MAX_L1_BYTES)
                return vd_fail(err, VD_EUSAGE, "a disk of %" PRIu64 " bytes needs larger clusters: with clusters of %"
                               PRIu64 " bytes at most %" PRIu64 " are possible", img->size, q->cluster,
                               QCOW2_MAX_L1_BYTES / 8 * reach);
        entries = vd_max(entries, 1);
        q->reftable_position = q->cluster;
        q->reftable_entries = q->cluster / 8;
        r = vd_cache_get_new(q->reftable, q->reftable_position, 0, (void **)&entry, err);
        if (r)
                return r;
        *entry = be64_put(2 * q->cluster);
        r = vd_cache_get_new(q->blocks, 2 * q->cluster, 0, &block, err);
        if (!r)
                r = qcow2_count_change(q, 0, 3, 1, err);
        q->cursor = 3;
        clusters = vd_div_up(entries * 8, q->cluster);
        if (!r)
                r = qcow2_take(img, clusters, clusters, &q->l1_position, &got, err);
        q->l1_entries = entries;
        q->map.top_position = q->l1_position;
        q->map.top_entries = entries;
        return r;
}

static int preallocate(struct vd_image *img, const char *mode, const volatile int *stop, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t at = 0;
        int r = 0;

        if (!(q->autoclear & QCOW2_RAW_DATA_FILE) && (!mode || is(mode, "off")))
                return 0;
        q->hollow = !q->reads_zero;     /* subclusters still come from the backing file */
        while (at < img->size && !r) {
                struct vd_request request = { .start = at, .length = img->size - at, .kind = VD_DATA };
                struct vd_place place = { 0 };

                r = qcow2_place(img, &request, &place, err);
                if (!r && is(mode, "falloc"))
                        r = vd_file_allocate(place.file, place.position, place.length + place.pad, err);
                if (!r && is(mode, "full"))
                        r = vd_file_fill(place.file, place.position, place.length + place.pad, stop, err);
                if (!r)
                        r = qcow2_publish(img, &place, err);
                at += place.length;
        }
        q->hollow = false;
        q->keep_allocated = true;
        if (!r && vd_file_size(img->file) < q->cursor << q->cluster_bits)
                r = vd_file_truncate(img->file, q->cursor << q->cluster_bits, err);
        return r;
}

int qcow2_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct qcow2_params defaults;
        const struct qcow2_params *params = create->params ? create->params : &defaults;
        struct qcow2 *q = calloc(1, sizeof(*q));
        int r;

        if (!q)
                return vd_fail(err, -ENOMEM, "a new qcow2 image");
        img->state = q;
        r = use_params(img, q, params, create, err);
        if (!r)
                r = use_backing(img, create, err);
        if (!r)
                r = qcow2_start(img, err);
        if (!r)
                r = lay_out(img, err);
        if (!r)
                r = use_data_file(img, q, params, err);
        if (!r)
                r = preallocate(img, params->preallocation, create->stop, err);
        if (r)
                qcow2_close(img);
        return r;
}

/* The header cluster, filled front to back. */
struct builder {
        uint8_t *bytes;
        uint64_t room, at;
        bool full;
};

static void append(struct builder *b, const void *bytes, uint64_t length)
{
        if (b->full || length > b->room - b->at) {
                b->full = true;
                return;
        }
        if (length)
                memcpy(b->bytes + b->at, bytes, length);
        b->at += length;
}

static void append_extension(struct builder *b, uint32_t type, const void *data, uint64_t length)
{
        struct qcow2_extension_disk d = { be32_put(type), be32_put((uint32_t)length) };
        static const uint8_t zeros[8];

        append(b, &d, sizeof(d));
        append(b, data, length);
        append(b, zeros, vd_round_up(length, 8) - length);
}

/* For programs that do not know a feature, to say its name.  Left out of small clusters, as by QEMU. */
static void append_feature_names(struct builder *b)
{
        static const struct qcow2_feature_disk names[] = {
                { 0, 0, "dirty bit" }, { 0, 1, "corrupt bit" }, { 0, 2, "external data file" },
                { 0, 3, "compression type" }, { 0, 4, "extended L2 entries" }, { 1, 0, "lazy refcounts" },
                { 2, 0, "bitmaps" }, { 2, 1, "raw external data" },
        };

        append_extension(b, QCOW2_EXT_FEATURES, names, sizeof(names));
}

int qcow2_write_header(struct vd_image *img, struct vd_error *err)
{
        const struct qcow2 *q = img->state;
        const char *backing = img->parent_ref.count ? img->parent_ref.names[0].name : NULL;
        VD_AUTOFREE uint8_t *bytes = calloc(1, q->cluster);
        struct builder b = { bytes, q->cluster, 0, false };
        struct qcow2_header_disk h = {
                .magic = be32_put(QCOW2_MAGIC), .version = be32_put(q->version),
                .cluster_bits = be32_put(q->cluster_bits), .size = be64_put(img->size),
                .l1_entries = be32_put((uint32_t)q->l1_entries), .l1_position = be64_put(q->l1_position),
                .reftable_position = be64_put(q->reftable_position),
                .reftable_clusters = be32_put((uint32_t)(q->reftable_entries * 8 / q->cluster)),
                .incompatible = be64_put(q->incompatible), .compatible = be64_put(q->compatible),
                .autoclear = be64_put(q->autoclear), .refcount_order = be32_put(q->refcount_order),
                .header_bytes = be32_put((uint32_t)q->header_bytes), .compression_type = q->codec == VD_CODEC_ZSTD,
        };

        if (!bytes)
                return vd_fail(err, -ENOMEM, "the header cluster of %" PRIu64 " bytes", q->cluster);
        append(&b, &h, q->header_bytes);
        if (img->parent_ref.format)
                append_extension(&b, QCOW2_EXT_BACKING_FORMAT, img->parent_ref.format, strlen(img->parent_ref.format));
        if (q->data_name)
                append_extension(&b, QCOW2_EXT_DATA_FILE, q->data_name, strlen(q->data_name));
        if (q->version >= 3 && q->cluster > 4096)
                append_feature_names(&b);
        append_extension(&b, QCOW2_EXT_END, NULL, 0);
        if (backing) {
                h.backing_position = be64_put(b.at);
                h.backing_bytes = be32_put((uint32_t)strlen(backing));
                append(&b, backing, strlen(backing));
        }
        if (b.full)
                return vd_fail(err, VD_EUSAGE, "the header with the names of its files does not fit a cluster of %"
                               PRIu64 " bytes", q->cluster);
        memcpy(bytes, &h, q->header_bytes);
        return vd_file_write(img->file, bytes, q->cluster, 0, err);
}
