// SPDX-License-Identifier: MIT
/* parallels_layer.c: one expanding image: header, table, where the bytes are. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "parallels.h"
#include "util/checked.h"

bool prl_is_image(const void *head, size_t length)
{
        return length >= 16 && (!memcmp(head, PRL_MAGIC, 16) || !memcmp(head, PRL_MAGIC_OLD, 16));
}

static uint64_t entry_unit(const struct prl_layer *layer)
{
        return layer->is_old ? PRL_SECTOR : layer->cluster_bytes;
}

static int decode_entry(const void *owner, uint64_t block, const void *raw, struct vd_block *out, struct vd_error *err)
{
        const struct prl_layer *layer = owner;
        uint32_t entry = le32_get(*(const le32 *)raw);

        (void)block;
        (void)err;
        if (entry) {
                out->kind = VD_DATA;
                out->position = entry * entry_unit(layer);
        }
        return 0;
}

static void encode_entry(const void *owner, uint64_t block, const struct vd_block *value, void *raw)
{
        const struct prl_layer *layer = owner;

        (void)block;
        *(le32 *)raw = le32_put(value->kind == VD_DATA ? (uint32_t)(value->position / entry_unit(layer)) : 0);
}

static const struct vd_blocktable_type table_type = {
        .what = "BAT", .finding = "parallels-bat-entry", .entry_bytes = sizeof(le32),
        .decode = decode_entry, .encode = encode_entry,
};

int prl_layer_open_table(struct prl_layer *layer, struct vd_error *err)
{
        enum { CACHE_BYTES = 1 << 20 };
        bool is_new = layer->image->is_new;
        uint64_t bytes = le32_get(layer->header.entries) * sizeof(le32);
        size_t page = vd_blocktable_page(bytes, layer->data_offset - sizeof(layer->header));
        int r;

        layer->table = (struct vd_blocktable){
                .type = &table_type, .owner = layer, .file = layer->file, .position = sizeof(layer->header),
                .count = le32_get(layer->header.entries), .block_bytes = layer->cluster_bytes,
                .disk_bytes = layer->disk_bytes, .start = layer->table_end,
                .limit = is_new ? UINT64_MAX : vd_file_size(layer->file), .in_place = layer->writable && !is_new,
                .align = entry_unit(layer), .next = vd_max(layer->data_offset, vd_file_size(layer->file)),
                .reach = UINT32_MAX * entry_unit(layer),
        };
        r = vd_blocktable_open(&layer->table, page, CACHE_BYTES / page, err);
        if (!r && is_new)
                vd_cache_allow_short(layer->table.cache, 0);
        return r;
}

static int check_header(struct prl_layer *layer, struct vd_error *err)
{
        const struct prl_header_disk *h = &layer->header;
        uint64_t entries = le32_get(h->entries), size = vd_file_size(layer->file), covered;
        uint64_t sectors = le64_get(h->disk_sectors), data = (uint64_t)le32_get(h->data_sector) * PRL_SECTOR;

        if (le32_get(h->version) != PRL_VERSION)
                return vd_fail(err, VD_EUNSUPPORTED, "header: version %" PRIu32 ", known is %d", le32_get(h->version),
                               PRL_VERSION);
        if (!layer->cluster_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: clusters of 0 sectors");
        if (layer->cluster_bytes > PRL_CLUSTER_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: clusters of %" PRIu64 " bytes, at most %d supported",
                               layer->cluster_bytes, PRL_CLUSTER_MOST);
        if (layer->is_old)
                sectors &= UINT32_MAX;
        if (sectors > INT64_MAX / PRL_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "header: a disk of %" PRIu64 " sectors", sectors);
        layer->disk_bytes = sectors * PRL_SECTOR;
        if (!vd_mul(entries, layer->cluster_bytes, &covered) || covered < layer->disk_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: a BAT of %" PRIu64 " entries for clusters of %" PRIu64
                               " bytes does not cover a disk of %" PRIu64 " bytes", entries, layer->cluster_bytes,
                               layer->disk_bytes);
        layer->table_end = sizeof(*h) + entries * sizeof(le32);
        if (layer->table_end > size)
                return vd_fail(err, VD_ECORRUPT, "header: the BAT of %" PRIu64 " entries ends at %" PRIu64
                               ", but the file at %" PRIu64, entries, layer->table_end, size);
        layer->data_offset = !data && layer->is_old ? vd_round_up(layer->table_end, PRL_SECTOR) : data;
        if (layer->data_offset < layer->table_end)
                return vd_fail(err, VD_ECORRUPT, "header: clusters begin at %" PRIu64 ", but the BAT ends at %" PRIu64,
                               layer->data_offset, layer->table_end);
        if (!vd_mul(le64_get(h->extension_sector), PRL_SECTOR, &layer->extension))
                return vd_fail(err, VD_ECORRUPT, "header: format extension at sector %" PRIu64,
                               le64_get(h->extension_sector));
        return 0;
}

/* An extension that nobody vouches for says nothing, see prl_header_disk.in_use. */
static int check_extension(struct prl_layer *layer, struct vd_error *err)
{
        struct vd_error why = VD_ERROR_INIT;
        int r;

        if (!layer->extension || le32_get(layer->header.in_use) != PRL_CLOSED)
                return 0;
        r = prl_extension_read(layer, NULL, NULL, &why);
        if (r != VD_EUNSUPPORTED)
                return 0;
        *err = why;
        return r;
}

int prl_layer_open(struct prl_layer *layer, struct vd_image *img, struct vd_file *file, bool writable,
                   struct vd_error *err)
{
        size_t got;
        int r;

        *layer = (struct prl_layer){ .image = img, .file = vd_file_ref(file), .writable = writable };
        r = vd_file_read_some(file, &layer->header, sizeof(layer->header), 0, &got, err);
        if (r)
                return r;
        if (!prl_is_image(&layer->header, got))
                return vd_fail(err, VD_EFORMAT, "no Parallels magic at 0");
        if (got < sizeof(layer->header))
                return vd_fail(err, VD_ECORRUPT, "the file ends at %zu, inside the header", got);
        layer->is_old = !memcmp(layer->header.magic, PRL_MAGIC_OLD, 16);
        layer->cluster_bytes = (uint64_t)le32_get(layer->header.cluster_sectors) * PRL_SECTOR;
        layer->was_open = le32_get(layer->header.in_use) && le32_get(layer->header.in_use) != PRL_CLOSED;
        r = check_header(layer, err);
        if (!r)
                r = check_extension(layer, err);
        return r ? r : prl_layer_open_table(layer, err);
}

int prl_layer_open_plain(struct prl_layer *layer, struct vd_image *img, struct vd_file *file, struct vd_error *err)
{
        (void)err;
        *layer = (struct prl_layer){ .image = img, .file = vd_file_ref(file), .plain = true,
                                     .disk_bytes = vd_file_size(file), .writable = img->writable };
        return 0;
}

void prl_layer_close(struct prl_layer *layer)
{
        vd_blocktable_close(&layer->table);
        vd_file_unref(layer->file);
        layer->file = NULL;
}

static int map_plain(struct prl_layer *layer, uint64_t offset, uint64_t max, struct vd_extent *ext,
                     struct vd_error *err)
{
        uint64_t end;
        bool data;
        int r = vd_file_next(layer->file, offset, &data, &end, err);

        if (r)
                return r;
        *ext = (struct vd_extent){ .start = offset, .length = vd_min(max, end - offset), .file = layer->file,
                                   .kind = data ? VD_DATA : VD_ZERO, .position = offset };
        return 0;
}

int prl_layer_map(struct prl_layer *layer, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        bool partial;

        if (offset >= layer->disk_bytes) {
                *ext = (struct vd_extent){ .start = offset, .length = max, .kind = VD_UNALLOCATED };
                return 0;
        }
        if (layer->plain)
                return map_plain(layer, offset, max, ext, err);
        return vd_blocktable_map(&layer->table, offset, vd_min(max, layer->disk_bytes - offset), ext, &partial, err);
}

static const char *in_use_text(uint32_t value)
{
        switch (value) {
        case 0: return "no";
        case PRL_CLOSED: return "no (closed with its extension)";
        case PRL_OPEN: return "yes, or not closed";
        default: return "unknown mark";
        }
}

static int describe_bitmap(void *context, const struct prl_bitmap *bitmap, struct vd_error *err)
{
        struct vd_report *item = vd_report_item(context);
        char text[VD_GUID_TEXT];

        (void)err;
        vd_report_text(item, "uuid", "UUID", vd_guid_text(bitmap->id, VD_GUID_RFC, text));
        vd_report_bytes(item, "granularity", "granularity", bitmap->granule_bytes);
        vd_report_count(item, "sectors", "sectors", bitmap->sectors);
        return 0;
}

void prl_layer_describe(const struct prl_layer *layer, struct vd_report *report)
{
        const struct prl_header_disk *h = &layer->header;
        struct vd_error ignored = VD_ERROR_INIT;

        vd_report_text(report, "magic", "magic", layer->is_old ? PRL_MAGIC_OLD : PRL_MAGIC);
        vd_report_bytes(report, "cluster-size", "cluster size", layer->cluster_bytes);
        vd_report_count(report, "bat-entries", "entries of the BAT", le32_get(h->entries));
        vd_report_offset(report, "data-offset", "clusters from", layer->data_offset);
        vd_report_textf(report, "geometry", "geometry", "%" PRIu32 " cylinders, %" PRIu32 " heads",
                        le32_get(h->cylinders), le32_get(h->heads));
        vd_report_text(report, "in-use", "in use", in_use_text(le32_get(h->in_use)));
        vd_report_flag(report, "empty", "said to be empty", le32_get(h->flags) & PRL_EMPTY);
        if (layer->extension) {
                vd_report_offset(report, "extension-offset", "format extension at", layer->extension);
                vd_report_flag(report, "extension-stale", "format extension is stale",
                               le32_get(h->in_use) != PRL_CLOSED);
                prl_extension_read(layer, describe_bitmap, vd_report_list(report, "bitmaps", "dirty bitmaps"),
                                   &ignored);
        }
}
