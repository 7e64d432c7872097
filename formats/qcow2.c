// SPDX-License-Identifier: MIT
/* qcow2.c: QEMU copy-on-write disks, versions 2 and 3 (reference: QEMU docs/interop/qcow2; docs/formats.md, "qcow2")
 *
 *      [ header, extensions, backing file name: cluster 0 ][ refcount table ][ refcount blocks ]
 *      [ L1 table ][ L2 tables ][ data clusters, compressed units ][ snapshots, bitmaps ]        in any order
 *
 * This file: probing, the header, opening.  Reads everything but encrypted data; images with damaged reference counts
 * or snapshot tables can still be read, not written.
 * Quirk: QEMU shows a size that is not a multiple of 512 rounded down; we keep it exact.
 * Cost: 4 MiB of cached L2 tables and 2 MiB of cached refcount blocks at most, whatever the size of the disk.
 */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

/* The first cluster, or as much of it as there is, while the header is parsed. */
struct first {
        uint8_t *bytes;
        size_t length;
        uint64_t backing_position;
        uint32_t backing_bytes;
};

static enum vd_match qcow2_probe(const struct vd_probe *probe)
{
        be32 magic, version;

        if (probe->head_bytes < 8)
                return VD_MATCH_NO;
        memcpy(&magic, probe->head, 4);
        memcpy(&version, probe->head + 4, 4);
        /* Version 1 is the older format "qcow"; later ones than ours are still qcow2, never raw. */
        return be32_get(magic) == QCOW2_MAGIC && be32_get(version) >= 2 ? VD_MATCH_SURE : VD_MATCH_NO;
}

static int read_first(struct vd_image *img, struct first *first, struct qcow2_header_disk *h, struct vd_error *err)
{
        size_t got;
        uint32_t bits;
        int r;

        memset(h, 0, sizeof(*h));
        r = vd_file_read_some(img->file, h, sizeof(*h), 0, &got, err);
        if (r)
                return r;
        if (got < QCOW2_V2_HEADER_BYTES)
                return vd_fail(err, VD_ECORRUPT, "the file ends at %zu, inside the header", got);
        if (be32_get(h->magic) != QCOW2_MAGIC)
                return vd_fail(err, VD_EFORMAT, "not a qcow2 image: magic 0x%08" PRIx32, be32_get(h->magic));
        if (be32_get(h->version) != 2 && be32_get(h->version) != 3)
                return vd_fail(err, VD_EUNSUPPORTED, "qcow2 version %" PRIu32 ", only 2 and 3 are known",
                               be32_get(h->version));
        bits = be32_get(h->cluster_bits);
        if (bits < QCOW2_MIN_CLUSTER_BITS || bits > QCOW2_MAX_CLUSTER_BITS)
                return vd_fail(err, VD_ECORRUPT, "header: cluster size 2^%" PRIu32 ", allowed are 2^%d to 2^%d", bits,
                               QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
        first->length = (size_t)vd_min(UINT64_C(1) << bits, vd_file_size(img->file));
        first->bytes = malloc(first->length);
        if (!first->bytes)
                return vd_fail(err, -ENOMEM, "the header cluster of %zu bytes", first->length);
        return vd_file_read(img->file, first->bytes, first->length, 0, err);
}

/* Fields that only version 3 has. */
static int parse_v3(struct qcow2 *q, const struct qcow2_header_disk *h, const struct first *first, struct vd_error *err)
{
        unsigned type;

        q->header_bytes = be32_get(h->header_bytes);
        if (q->header_bytes < QCOW2_V3_HEADER_BYTES || q->header_bytes % 8 || q->header_bytes > q->cluster ||
            q->header_bytes > first->length)
                return vd_fail(err, VD_ECORRUPT, "header: length %" PRIu64 ", allowed are multiples of 8 from %d to %"
                               PRIu64, q->header_bytes, QCOW2_V3_HEADER_BYTES, vd_min(q->cluster, first->length));
        q->incompatible = be64_get(h->incompatible);
        q->compatible = be64_get(h->compatible);
        q->autoclear = be64_get(h->autoclear);
        q->refcount_order = be32_get(h->refcount_order);
        if (q->refcount_order > 6)
                return vd_fail(err, VD_ECORRUPT, "header: reference counts of 2^%u bits, allowed are 2^0 to 2^6",
                               q->refcount_order);
        type = q->header_bytes > offsetof(struct qcow2_header_disk, compression_type) ? h->compression_type : 0;
        if (type > 1)
                return vd_fail(err, VD_EUNSUPPORTED, "compression type %u, known are 0 (deflate) and 1 (zstd)", type);
        if (!type != !(q->incompatible & QCOW2_COMPRESSION))
                return vd_fail(err, VD_ECORRUPT, "header: compression type %u contradicts incompatible features 0x%"
                               PRIx64, type, q->incompatible);
        if (type == 1)
                q->codec = VD_CODEC_ZSTD;
        q->extended = q->incompatible & QCOW2_EXTENDED_L2;
        if (q->extended && q->cluster_bits < QCOW2_EXTENDED_CLUSTER_BITS)
                return vd_fail(err, VD_ECORRUPT, "header: extended L2 entries with clusters of %" PRIu64
                               " bytes, at least %d are needed", q->cluster, 1 << QCOW2_EXTENDED_CLUSTER_BITS);
        return 0;
}

static int parse_header(struct vd_image *img, struct qcow2 *q, const struct qcow2_header_disk *h, struct first *first,
                        struct vd_error *err)
{
        int r;

        q->version = be32_get(h->version);
        q->cluster_bits = be32_get(h->cluster_bits);
        q->cluster = UINT64_C(1) << q->cluster_bits;
        q->header_bytes = QCOW2_V2_HEADER_BYTES;
        q->refcount_order = 4;
        q->codec = VD_CODEC_DEFLATE;
        q->compressed_shift = 62 - (q->cluster_bits - 8);
        if (q->version >= 3) {
                r = parse_v3(q, h, first, err);
                if (r)
                        return r;
        }
        img->size = be64_get(h->size);
        if (img->size > INT64_MAX)
                return vd_fail(err, VD_ECORRUPT, "header: disk of %" PRIu64 " bytes, at most %" PRId64 " are possible",
                               img->size, INT64_MAX);
        q->crypt_method = be32_get(h->crypt_method);
        if (q->crypt_method > QCOW2_CRYPT_LUKS)
                return vd_fail(err, VD_EUNSUPPORTED, "encryption method %u, known are 1 (AES) and 2 (LUKS)",
                               q->crypt_method);
        q->l1_position = be64_get(h->l1_position);
        q->l1_entries = be32_get(h->l1_entries);
        if (q->l1_position % q->cluster || (q->l1_entries && !q->l1_position))
                return vd_fail(err, VD_ECORRUPT, "header: L1 table at %" PRIu64 ", not a multiple of the cluster size %"
                               PRIu64 " after the header", q->l1_position, q->cluster);
        q->reftable_position = be64_get(h->reftable_position);
        q->reftable_entries = (uint64_t)be32_get(h->reftable_clusters) * (q->cluster / 8);
        q->snapshots_position = be64_get(h->snapshots_position);
        q->snapshot_count = be32_get(h->snapshot_count);

        first->backing_position = be64_get(h->backing_position);
        first->backing_bytes = first->backing_position ? be32_get(h->backing_bytes) : 0;
        if (first->backing_position &&
            (first->backing_bytes > QCOW2_NAME_BYTES || first->backing_position < q->header_bytes ||
             !vd_range_fits(first->backing_position, first->backing_bytes, first->length)))
                return vd_fail(err, VD_ECORRUPT, "header: backing file name of %" PRIu32 " bytes at %" PRIu64
                               ", allowed are %d bytes between %" PRIu64 " and %zu", first->backing_bytes,
                               first->backing_position, QCOW2_NAME_BYTES, q->header_bytes, first->length);
        return 0;
}

/* The next header extension from *at on: false at the end of the area, err->code set when it is broken. */
static bool next_extension(const struct first *first, uint64_t *at, uint32_t *type, const uint8_t **data,
                           uint32_t *length, struct vd_error *err)
{
        /* Extensions end where the backing file name begins, at the latest. */
        uint64_t end = first->backing_position ? first->backing_position : first->length;
        struct qcow2_extension_disk d;

        if (*at > end || end - *at < sizeof(d))
                return false;
        memcpy(&d, first->bytes + *at, sizeof(d));
        *type = be32_get(d.type);
        *length = be32_get(d.length);
        if (*type == QCOW2_EXT_END)
                return false;
        if (*length > end - *at - sizeof(d)) {
                vd_fail(err, VD_ECORRUPT, "header extension 0x%08" PRIx32 " at %" PRIu64 ": %" PRIu32
                        " bytes, but there is room for %" PRIu64, *type, *at, *length, end - *at - sizeof(d));
                return false;
        }
        *data = first->bytes + *at + sizeof(d);
        *at += sizeof(d) + vd_round_up(*length, 8);
        return true;
}

/* A string from the header area: no NUL inside. */
static char *take_text(const void *bytes, uint32_t length, const char *what, struct vd_error *err)
{
        char *text;

        if (memchr(bytes, 0, length)) {
                vd_fail(err, VD_ECORRUPT, "header: the %s contains a zero byte", what);
                return NULL;
        }
        text = strndup(bytes, length);
        if (!text)
                vd_fail(err, -ENOMEM, "the %s", what);
        return text;
}

static int use_extension(struct vd_image *img, struct qcow2 *q, uint32_t type, const uint8_t *data, uint32_t length,
                         struct vd_error *err)
{
        struct qcow2_crypto_disk crypto;

        if ((type == QCOW2_EXT_BACKING_FORMAT && img->parent_ref.format) ||
            (type == QCOW2_EXT_DATA_FILE && q->data_name) || (type == QCOW2_EXT_BITMAPS && q->has_bitmaps) ||
            (type == QCOW2_EXT_CRYPTO && q->crypto.position))
                q->extension_twice = type;
        switch (type) {
        case QCOW2_EXT_BACKING_FORMAT:
                free(img->parent_ref.format);
                img->parent_ref.format = take_text(data, length, "backing format", err);
                return img->parent_ref.format ? 0 : err->code;
        case QCOW2_EXT_DATA_FILE:
                free(q->data_name);
                q->data_name = take_text(data, length, "name of the data file", err);
                return q->data_name ? 0 : err->code;
        case QCOW2_EXT_BITMAPS:
                if (length != sizeof(q->bitmaps))
                        return vd_fail(err, VD_ECORRUPT, "bitmaps extension of %" PRIu32 " bytes, expected %zu", length,
                                       sizeof(q->bitmaps));
                memcpy(&q->bitmaps, data, sizeof(q->bitmaps));
                q->has_bitmaps = true;
                return 0;
        case QCOW2_EXT_CRYPTO:
                if (length != sizeof(crypto))
                        return vd_fail(err, VD_ECORRUPT, "encryption header extension of %" PRIu32
                                       " bytes, expected %zu", length, sizeof(crypto));
                memcpy(&crypto, data, sizeof(crypto));
                q->crypto = (struct qcow2_span){ be64_get(crypto.position), be64_get(crypto.length) };
                return 0;
        }
        return 0;       /* unknown ones are kept, not understood */
}

/* The name that the image itself gives to an incompatible feature. */
static void feature_name(const struct qcow2 *q, const struct first *first, unsigned bit, char *name, size_t room)
{
        struct vd_error ignored = VD_ERROR_INIT;
        uint64_t at = q->header_bytes;
        const uint8_t *data;
        uint32_t type, length;

        snprintf(name, room, "not named in the image");
        while (next_extension(first, &at, &type, &data, &length, &ignored)) {
                if (type != QCOW2_EXT_FEATURES)
                        continue;
                for (uint32_t i = 0; i + sizeof(struct qcow2_feature_disk) <= length;
                     i += sizeof(struct qcow2_feature_disk)) {
                        struct qcow2_feature_disk f;

                        memcpy(&f, data + i, sizeof(f));
                        if (f.kind == 0 && f.bit == bit) {
                                vd_printable(name, room, f.name, sizeof(f.name));
                                return;
                        }
                }
        }
}

static int refuse_unknown(const struct qcow2 *q, const struct first *first, struct vd_error *err)
{
        uint64_t unknown = q->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN;
        char name[200], text[600] = "";
        size_t at = 0;

        if (!unknown)
                return 0;
        for (unsigned bit = 0; bit < 64; bit++) {
                if (!(unknown >> bit & 1) || at >= sizeof(text))
                        continue;
                feature_name(q, first, bit, name, sizeof(name));
                at += (size_t)snprintf(text + at, sizeof(text) - at, "%s'%s' (bit %u)", at ? ", " : "", name, bit);
        }
        return vd_fail(err, VD_EUNSUPPORTED, "uses incompatible features that vdtool does not know: %s", text);
}

static int parse_extensions(struct vd_image *img, struct qcow2 *q, const struct first *first, struct vd_error *err)
{
        uint64_t at = q->header_bytes;
        const uint8_t *data;
        uint32_t type, length;
        char *name;
        int r;

        while (next_extension(first, &at, &type, &data, &length, err)) {
                r = use_extension(img, q, type, data, length, err);
                if (r)
                        return r;
        }
        if (err->code)
                return err->code;
        q->extensions = (struct qcow2_span){ q->header_bytes, at - q->header_bytes };
        if (!first->backing_bytes)
                return 0;
        name = take_text(first->bytes + first->backing_position, first->backing_bytes, "backing file name", err);
        if (!name)
                return err->code;
        r = vd_image_add_parent_name(img, name, "backing file name", err);
        free(name);
        return r;
}

/* Reference counts and snapshots are not needed for reading: damage there must not cost the data.  What cannot be used
 * is taken for not there. */
static int check_secondary(struct vd_image *img, struct qcow2 *q, struct vd_error *err)
{
        uint64_t size = vd_file_size(img->file), bytes = q->reftable_entries * 8;
        struct vd_error why = VD_ERROR_INIT;

        if (q->snapshot_count && (q->snapshots_position % q->cluster || q->snapshots_position >= size ||
                                  q->snapshot_count > QCOW2_MAX_SNAPSHOTS)) {
                vd_fail(&why, VD_ECORRUPT, "header: %" PRIu32 " snapshots at %" PRIu64 ", at most %d are allowed and "
                        "the file ends at %" PRIu64, q->snapshot_count, q->snapshots_position, QCOW2_MAX_SNAPSHOTS,
                        size);
                q->snapshot_count = 0;
        }
        if (!q->reftable_entries || !q->reftable_position || q->reftable_position % q->cluster ||
            bytes > QCOW2_MAX_REFTABLE_BYTES || !vd_range_fits(q->reftable_position, bytes, size)) {
                vd_fail(&why, VD_ECORRUPT, "header: refcount table of %" PRIu64 " bytes at %" PRIu64
                        ", expected some clusters of %" PRIu64 " bytes, at most %d bytes, before the end of the file "
                        "at %" PRIu64, bytes, q->reftable_position, q->cluster, QCOW2_MAX_REFTABLE_BYTES, size);
                q->reftable_entries = 0;
        }
        if (q->snapshot_count)
                vd_image_add_extra(img, "%" PRIu32 " internal snapshot%s", q->snapshot_count,
                                   q->snapshot_count == 1 ? "" : "s");
        if (q->has_bitmaps)
                vd_image_add_extra(img, "%" PRIu32 " dirty bitmap%s", be32_get(q->bitmaps.count),
                                   be32_get(q->bitmaps.count) == 1 ? "" : "s");
        if (!why.code)
                return 0;
        if (img->writable) {
                *err = why;
                return why.code;
        }
        q->damage = strdup(why.text);
        vd_image_warn(img, "%s; the image can be read, not changed", why.text);
        return q->damage ? 0 : vd_fail(err, -ENOMEM, "opening a qcow2 image");
}

static int check_writable(struct vd_image *img, const struct qcow2 *q, struct vd_error *err)
{
        if (!img->writable)
                return 0;
        if (q->incompatible & QCOW2_CORRUPT)
                return vd_fail(err, VD_ECORRUPT, "is marked corrupt and can only be read until it is repaired");
        if (q->incompatible & QCOW2_DIRTY)
                return vd_fail(err, VD_ECORRUPT, "was not closed cleanly and can only be read until its reference "
                               "counts are repaired");
        if (q->crypt_method)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted and cannot be written");
        return 0;
}

static int open_data_file(struct vd_image *img, struct qcow2 *q, struct vd_error *err)
{
        struct vd_error why = VD_ERROR_INIT;
        int r;

        if (!qcow2_has_data_file(q)) {
                q->data = vd_file_ref(img->file);
                return 0;
        }
        r = q->data_name ? vd_image_open_member(img, q->data_name, &q->data, &why)
                         : vd_fail(&why, VD_EPOLICY, "the image does not record its name");
        if (!r)
                return 0;
        vd_error_prefix(&why, "external data file");
        if (r != VD_EPOLICY) {
                *err = why;
                return r;
        }
        q->no_data = strdup(why.text);
        return q->no_data ? 0 : vd_fail(err, -ENOMEM, "external data file");
}

static struct vd_cache *new_cache(struct vd_image *img, size_t page, size_t total, bool may_be_short)
{
        struct vd_cache *c = vd_cache_new(img->file, 0, page, total / page, !img->is_new);

        if (c && (may_be_short || img->is_new))
                vd_cache_allow_short(c, 0);
        return c;
}

int qcow2_start(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        size_t small = (size_t)vd_min(q->cluster, 4096), large = (size_t)vd_min(q->cluster, 32 << 10);

        /* The one-dimensional tables may end inside the page, and so may the file. */
        q->l1 = new_cache(img, small, 256 << 10, true);
        q->reftable = new_cache(img, small, 256 << 10, true);
        q->l2 = new_cache(img, large, 4 << 20, false);
        q->blocks = new_cache(img, large, 2 << 20, false);
        if (!q->l1 || !q->reftable || !q->l2 || !q->blocks)
                return vd_fail(err, -ENOMEM, "caches for tables");
        q->per_block = q->cluster * 8 >> q->refcount_order;
        q->max_count = q->refcount_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1 << q->refcount_order)) - 1;
        q->shown_size = img->size;
        q->map = (struct vd_twolevel){
                .ops = &qcow2_map_ops, .context = q, .top_name = "L1 table", .sub_name = "L2 table",
                .file = img->file, .top = q->l1, .sub = q->l2,
                .top_position = q->l1_position, .top_entries = q->l1_entries, .top_entry_bytes = 8,
                .entry_bytes = (unsigned)qcow2_entry_bytes(q), .entries = q->cluster / qcow2_entry_bytes(q),
                .unit = q->cluster, .sub_page_bytes = large, .unwritten = img->is_new,
        };
        img->unit = q->cluster;
        img->write_unit = q->cluster;
        if (!qcow2_has_data_file(q) && !q->crypt_method) {
                img->pack.codec = q->codec;
                img->pack.unit = (uint32_t)q->cluster;
                img->pack.max_packed = (uint32_t)q->cluster - 1;
                if (!img->pack.settings.window_bits)
                        img->pack.settings.window_bits = 12;
        }
        return 0;
}

void qcow2_close(struct vd_image *img)
{
        struct qcow2 *q = img->state;

        if (!q)
                return;
        vd_cache_free(q->l1);
        vd_cache_free(q->l2);
        vd_cache_free(q->reftable);
        vd_cache_free(q->blocks);
        vd_file_unref(q->data);
        free(q->data_name);
        free(q->no_data);
        free(q->damage);
        free(q->freed);
        free((char *)q->last_snapshot.id);
        free((char *)q->last_snapshot.name);
        free(q);
        img->state = NULL;
}

static int open_parsed(struct vd_image *img, struct first *first, struct vd_error *err)
{
        struct qcow2_header_disk h;
        struct qcow2 *q = img->state;
        int r = read_first(img, first, &h, err);

        if (!r)
                r = parse_header(img, q, &h, first, err);
        if (!r)
                r = refuse_unknown(q, first, err);
        if (!r)
                r = parse_extensions(img, q, first, err);
        if (!r)
                r = check_writable(img, q, err);
        if (!r)
                r = check_secondary(img, q, err);
        if (!r)
                r = open_data_file(img, q, err);
        if (!r)
                r = qcow2_start(img, err);
        if (!r)
                r = vd_twolevel_check(&q->map, img->size, err);
        if (r)
                return r;
        q->reads_zero = !img->parent_ref.count;
        img->is_dirty = q->incompatible & QCOW2_DIRTY;
        img->is_encrypted = q->crypt_method != QCOW2_CRYPT_NONE;
        return 0;
}

static int qcow2_open(struct vd_image *img, struct vd_error *err)
{
        struct first first = { 0 };
        int r;

        img->state = calloc(1, sizeof(struct qcow2));
        if (!img->state)
                return vd_fail(err, -ENOMEM, "opening a qcow2 image");
        r = open_parsed(img, &first, err);
        free(first.bytes);
        if (r)
                qcow2_close(img);
        return r;
}

static const char *const extensions[] = { "qcow2", NULL };

const struct vd_format vd_format_qcow2 = {
        .name = "qcow2", .title = "QEMU copy-on-write disk, version 2 or 3", .extensions = extensions,
        .caps = VD_CAP_BACKING | VD_CAP_PACKED | VD_CAP_SNAPSHOTS | VD_CAP_SET,
        .probe = qcow2_probe, .open = qcow2_open, .close = qcow2_close, .map = qcow2_map,
        .describe = qcow2_describe, .snapshot = qcow2_snapshot, .select = qcow2_select,
        .walk = qcow2_walk, .check = qcow2_check,
        .params_size = sizeof(struct qcow2_params), .create_opts = qcow2_create_options, .create = qcow2_create,
        .place = qcow2_place, .settle = qcow2_settle, .publish = qcow2_publish, .flush = qcow2_flush,
        .finish = qcow2_finish,
};
