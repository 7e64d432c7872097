// SPDX-License-Identifier: MIT
/* vhdx_open.c: headers, region tables and metadata of an existing disk, checked once. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shared/utf16.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/crc32c.h"
#include "vhdx.h"

/* A GUID as it is stored: the first three groups are little-endian. */
#define GUID(a, b, c, d, e) { \
        (a) & 0xff, (a) >> 8 & 0xff, (a) >> 16 & 0xff, (a) >> 24 & 0xff, (b) & 0xff, (b) >> 8, (c) & 0xff, (c) >> 8, \
        (d) >> 8, (d) & 0xff, (e) >> 40 & 0xff, (e) >> 32 & 0xff, (e) >> 24 & 0xff, (e) >> 16 & 0xff, \
        (e) >> 8 & 0xff, (e) & 0xff }

const uint8_t vhdx_bat_guid[16] = GUID(0x2dc27766, 0xf623, 0x4200, 0x9d64, 0x115e9bfd4a08);
const uint8_t vhdx_metadata_guid[16] = GUID(0x8b7ca206, 0x4790, 0x4b9a, 0xb8fe, 0x575f050f886e);

const struct vhdx_known_item vhdx_known_items[VHDX_KNOWN] = {
        [VHDX_PARAMETERS] = { GUID(0xcaa16737, 0xfa36, 0x4d43, 0xb3b6, 0x33f0aa44e76b), 8, VHDX_ITEM_REQUIRED,
                              "file parameters" },
        [VHDX_DISK_SIZE] = { GUID(0x2fa54224, 0xcd1b, 0x4876, 0xb211, 0x5dbed83bf4b8), 8,
                             VHDX_ITEM_DISK | VHDX_ITEM_REQUIRED, "virtual disk size" },
        [VHDX_DISK_ID] = { GUID(0xbeca12ab, 0xb2e6, 0x4523, 0x93ef, 0xc309e000c746), 16,
                           VHDX_ITEM_DISK | VHDX_ITEM_REQUIRED, "virtual disk id" },
        [VHDX_LOGICAL] = { GUID(0x8141bf1d, 0xa96f, 0x4709, 0xba47, 0xf233a8faab5f), 4,
                           VHDX_ITEM_DISK | VHDX_ITEM_REQUIRED, "logical sector size" },
        [VHDX_PHYSICAL] = { GUID(0xcda348c7, 0x445d, 0x4471, 0x9cc9, 0xe9885251c556), 4,
                            VHDX_ITEM_DISK | VHDX_ITEM_REQUIRED, "physical sector size" },
        [VHDX_LOCATOR] = { GUID(0xa8d35f2d, 0xb30b, 0x454d, 0xabf7, 0xd3d84834ab0c), 0, VHDX_ITEM_REQUIRED,
                           "parent locator" },
};

uint32_t vhdx_checksum(const void *bytes, size_t length)
{
        static const uint8_t none[4];
        const uint8_t *at = bytes;

        return vd_crc32c(vd_crc32c(vd_crc32c(0, at, 4), none, 4), at + 8, length - 8);
}

static bool is_unaligned(uint64_t position, uint64_t length)
{
        return position % VHDX_MIB || position < VHDX_MIB || length % VHDX_MIB;
}

/* Headers */

static int read_header(struct vhdx *v, unsigned slot, struct vhdx_header_disk *h, struct vd_error *err)
{
        size_t got;
        int r = vd_file_read_some(v->file, h, sizeof(*h), slot ? VHDX_HEADER_2 : VHDX_HEADER_1, &got, err);

        if (!r && got == sizeof(*h) && !memcmp(h->signature, "head", 4) &&
            le32_get(h->checksum) == vhdx_checksum(h, sizeof(*h)))
                v->headers[slot] = VHDX_COPY_GOOD;
        return r;
}

static int choose_header(struct vhdx *v, struct vd_error *err)
{
        VD_AUTOFREE struct vhdx_header_disk *h = calloc(2, sizeof(*h));
        uint64_t first, second;
        int r = h ? 0 : vd_fail(err, -ENOMEM, "headers");

        for (unsigned slot = 0; slot < 2 && !r; slot++)
                r = read_header(v, slot, &h[slot], err);
        if (r)
                return r;
        if (!v->headers[0] && !v->headers[1])
                return vd_fail(err, VD_ECORRUPT, "neither of the headers at %d and %d is valid: signature or checksum "
                               "is wrong", VHDX_HEADER_1, VHDX_HEADER_2);
        first = le64_get(h[0].sequence);
        second = le64_get(h[1].sequence);
        v->slot = !v->headers[0] || (v->headers[1] && second > first);
        /* disk2vhd writes the same header twice. */
        if (v->headers[0] && v->headers[1] && first == second && memcmp(&h[0], &h[1], sizeof(*h)) != 0)
                return vd_fail(err, VD_ECORRUPT, "two different headers with the same sequence number %" PRIu64, first);
        v->header = h[v->slot];
        if (le16_get(v->header.version) != 1)
                return vd_fail(err, VD_EUNSUPPORTED, "header at %d: version %u, only 1 is known",
                               v->slot ? VHDX_HEADER_2 : VHDX_HEADER_1, le16_get(v->header.version));
        return 0;
}

static int read_headers(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        const struct vhdx_header_disk *h = &v->header;
        struct vhdx_region fixed = { .length = VHDX_MIB, .known = true, .what = "the header section" };
        struct vhdx_region log = { .known = true, .what = "the log" };
        struct vhdx_identifier_disk identifier;
        int r = vd_file_read(v->file, &identifier, sizeof(identifier), 0, err);

        if (!r && memcmp(identifier.signature, "vhdxfile", 8) != 0)
                r = vd_fail(err, VD_EFORMAT, "does not begin with 'vhdxfile'");
        if (!r)
                r = choose_header(v, err);
        if (r)
                return r;
        v->creator = vd_utf16_to_utf8(identifier.creator, sizeof(identifier.creator), false);
        if (!v->creator)
                return vd_fail(err, -ENOMEM, "creator");
        for (unsigned slot = 0; slot < 2; slot++)
                if (!v->headers[slot])
                        vd_image_warn(img, "header %u of 2 is damaged, the other one is used", slot + 1);
        log.position = le64_get(h->log_offset);
        log.length = le32_get(h->log_length);
        r = vhdx_add_region(v, &fixed, err);
        if (r || (!log.length && vd_guid_is_zero(h->log_guid) && !img->writable))
                return r;
        if (is_unaligned(log.position, log.length) || !log.length || log.position > INT64_MAX - log.length)
                return vd_fail(err, VD_ECORRUPT, "log of %" PRIu64 " bytes at %" PRIu64 ": both must be multiples of 1 "
                               "MiB, past the first one", log.length, log.position);
        return vhdx_add_region(v, &log, err);
}

/* Region tables */

static int read_region(struct vhdx *v, unsigned i, const struct vhdx_region_disk *disk, struct vd_error *err)
{
        struct vhdx_region region = { .position = le64_get(disk->position), .length = le32_get(disk->length) };
        struct vhdx_region *known = NULL;
        char text[VD_GUID_TEXT];

        memcpy(region.guid, disk->guid, 16);
        vd_guid_text(region.guid, VD_GUID_MICROSOFT, text);
        region.what = "an unknown region";
        if (!memcmp(disk->guid, vhdx_bat_guid, 16)) {
                known = &v->bat;
                region.what = "the BAT";
        } else if (!memcmp(disk->guid, vhdx_metadata_guid, 16)) {
                known = &v->metadata;
                region.what = "the metadata region";
        } else if (le32_get(disk->flags) & 1) {
                return vd_fail(err, VD_EUNSUPPORTED, "region %u (%s) is required, but not known to vdtool", i, text);
        }
        region.known = known != NULL;
        if (is_unaligned(region.position, region.length) || !region.length ||
            region.position > INT64_MAX - region.length)
                return vd_fail(err, VD_ECORRUPT, "region %u (%s) has %" PRIu64 " bytes at %" PRIu64
                               ": both must be multiples of 1 MiB, past the first one", i, text, region.length,
                               region.position);
        for (size_t j = 0; j < v->region_count; j++)
                if (!memcmp(v->regions[j].guid, region.guid, 16) && v->regions[j].position >= VHDX_MIB)
                        return vd_fail(err, VD_ECORRUPT, "region %u (%s) is there twice", i, text);
        if (known)
                *known = region;
        return vhdx_add_region(v, &region, err);
}

static int read_regions(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        VD_AUTOFREE uint8_t *tables = calloc(2, VHDX_TABLE_BYTES);
        const struct vhdx_region_disk *entries;
        const uint8_t *used;
        uint32_t count;
        int r = tables ? 0 : vd_fail(err, -ENOMEM, "region tables");

        for (unsigned i = 0; i < 2 && !r; i++) {
                uint8_t *bytes = tables + i * VHDX_TABLE_BYTES;
                const struct vhdx_table_disk *t = (const struct vhdx_table_disk *)bytes;
                size_t got;

                r = vd_file_read_some(v->file, bytes, VHDX_TABLE_BYTES, i ? VHDX_REGIONS_2 : VHDX_REGIONS_1, &got, err);
                if (!r && got == VHDX_TABLE_BYTES && !memcmp(t->signature, "regi", 4) &&
                    le32_get(t->count) <= VHDX_TABLE_ENTRIES &&
                    le32_get(t->checksum) == vhdx_checksum(bytes, VHDX_TABLE_BYTES))
                        v->tables[i] = VHDX_COPY_GOOD;
        }
        if (r)
                return r;
        if (!v->tables[0] && !v->tables[1])
                return vd_fail(err, VD_ECORRUPT, "neither of the region tables at %d and %d is valid: signature, count "
                               "or checksum is wrong", VHDX_REGIONS_1, VHDX_REGIONS_2);
        for (unsigned i = 0; i < 2; i++)
                if (!v->tables[i])
                        vd_image_warn(img, "region table %u of 2 is damaged, the other one is used", i + 1);
        if (v->tables[0] && v->tables[1] && memcmp(tables, tables + VHDX_TABLE_BYTES, VHDX_TABLE_BYTES) != 0) {
                v->tables[1] = VHDX_COPY_DIFFERS;
                vd_image_warn(img, "the region tables differ, the first one is used");
        }
        used = v->tables[0] ? tables : tables + VHDX_TABLE_BYTES;
        count = le32_get(((const struct vhdx_table_disk *)used)->count);
        entries = (const struct vhdx_region_disk *)(used + sizeof(struct vhdx_table_disk));
        for (uint32_t i = 0; i < count && !r; i++)
                r = read_region(v, i, entries + i, err);
        if (!r && (!v->bat.length || !v->metadata.length))
                r = vd_fail(err, VD_ECORRUPT, "the region table names no %s",
                            v->bat.length ? "metadata region" : "BAT");
        return r;
}

/* Metadata */

const struct vhdx_item *vhdx_item(const struct vhdx *v, enum vhdx_known known)
{
        for (size_t i = 0; i < v->item_count; i++)
                if (!(v->items[i].flags & VHDX_ITEM_USER) &&
                    !memcmp(v->items[i].guid, vhdx_known_items[known].guid, 16))
                        return &v->items[i];
        return NULL;
}

static bool is_known_item(const struct vhdx_item *item)
{
        for (size_t i = 0; i < VHDX_KNOWN; i++)
                if (!memcmp(item->guid, vhdx_known_items[i].guid, 16))
                        return !(item->flags & VHDX_ITEM_USER);
        return false;
}

static int check_item(const struct vhdx *v, size_t i, struct vd_error *err)
{
        const struct vhdx_item *item = &v->items[i];
        char text[VD_GUID_TEXT];

        vd_guid_text(item->guid, VD_GUID_MICROSOFT, text);
        if ((item->flags & VHDX_ITEM_REQUIRED) && !is_known_item(item))
                return vd_fail(err, VD_EUNSUPPORTED, "metadata item %zu (%s) is required, but not known to vdtool", i,
                               text);
        if (item->length && (item->offset < VHDX_TABLE_BYTES || item->length > VHDX_ITEM_MAX ||
                             !vd_range_fits(item->offset, item->length, v->metadata.length)))
                return vd_fail(err, VD_ECORRUPT, "metadata item %zu (%s) has %" PRIu32 " bytes at offset %" PRIu32
                               ", allowed are up to 1 MiB from %d to %" PRIu64, i, text, item->length, item->offset,
                               VHDX_TABLE_BYTES, v->metadata.length);
        for (size_t j = 0; j < i; j++) {
                const struct vhdx_item *other = &v->items[j];

                if (!memcmp(item->guid, other->guid, 16) && !((item->flags ^ other->flags) & VHDX_ITEM_USER))
                        return vd_fail(err, VD_ECORRUPT, "metadata item %zu (%s) is the same as item %zu", i, text, j);
                if (item->offset < (uint64_t)other->offset + other->length &&
                    other->offset < (uint64_t)item->offset + item->length)
                        return vd_fail(err, VD_ECORRUPT, "metadata items %zu and %zu overlap at offset %" PRIu32, j, i,
                                       item->offset);
        }
        return 0;
}

static int read_items(struct vhdx *v, struct vd_error *err)
{
        VD_AUTOFREE uint8_t *bytes = malloc(VHDX_TABLE_BYTES);
        const struct vhdx_metadata_disk *t = (const struct vhdx_metadata_disk *)bytes;
        size_t count;
        int r = bytes ? vd_file_read(v->file, bytes, VHDX_TABLE_BYTES, v->metadata.position, err)
                      : vd_fail(err, -ENOMEM, "metadata table");

        if (r)
                return vd_error_prefix(err, "metadata table");
        count = le16_get(t->count);
        if (memcmp(t->signature, "metadata", 8) != 0 || count > VHDX_TABLE_ENTRIES)
                return vd_fail(err, VD_ECORRUPT, "metadata table at %" PRIu64 ": wrong signature, or %zu items instead "
                               "of at most %d", v->metadata.position, count, VHDX_TABLE_ENTRIES);
        v->items = calloc(count ? count : 1, sizeof(*v->items));
        if (!v->items)
                return vd_fail(err, -ENOMEM, "%zu metadata items", count);
        for (size_t i = 0; i < count && !r; i++) {
                const struct vhdx_item_disk *disk = (const struct vhdx_item_disk *)(bytes + sizeof(*t)) + i;
                struct vhdx_item *item = &v->items[i];

                memcpy(item->guid, disk->guid, 16);
                item->offset = le32_get(disk->offset);
                item->length = le32_get(disk->length);
                item->flags = le32_get(disk->flags);
                item->position = v->metadata.position + item->offset;
                v->item_count = i + 1;
                r = check_item(v, i, err);
        }
        return r;
}

static int read_known(struct vhdx *v, enum vhdx_known known, void *buffer, struct vd_error *err)
{
        const struct vhdx_known_item *k = &vhdx_known_items[known];
        const struct vhdx_item *item = vhdx_item(v, known);
        int r;

        if (!item)
                return vd_fail(err, VD_ECORRUPT, "metadata: the item '%s' is missing", k->what);
        if (item->length != k->length)
                return vd_fail(err, VD_ECORRUPT, "metadata: %s has %" PRIu32 " bytes instead of %" PRIu32, k->what,
                               item->length, k->length);
        r = vd_file_read(v->file, buffer, k->length, item->position, err);
        return r ? vd_error_prefix(err, "metadata: %s", k->what) : 0;
}

static int read_sector_size(struct vhdx *v, enum vhdx_known known, uint32_t *bytes, struct vd_error *err)
{
        le32 raw;
        int r = read_known(v, known, &raw, err);

        if (r)
                return r;
        *bytes = le32_get(raw);
        if (*bytes != 512 && *bytes != 4096)
                return vd_fail(err, VD_ECORRUPT, "metadata: %s %" PRIu32 " is not 512 or 4096",
                               vhdx_known_items[known].what, *bytes);
        return 0;
}

static int read_metadata(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_parameters_disk parameters;
        le64 size;
        int r = read_items(v, err);

        if (!r)
                r = read_known(v, VHDX_PARAMETERS, &parameters, err);
        if (!r)
                r = read_known(v, VHDX_DISK_SIZE, &size, err);
        if (!r)
                r = read_known(v, VHDX_DISK_ID, v->disk_id, err);
        if (!r)
                r = read_sector_size(v, VHDX_LOGICAL, &v->logical_bytes, err);
        if (!r)
                r = read_sector_size(v, VHDX_PHYSICAL, &v->physical_bytes, err);
        if (r)
                return r;
        v->block_bytes = le32_get(parameters.block_bytes);
        v->parameter_flags = le32_get(parameters.flags);
        if (!vd_is_pow2(v->block_bytes) || v->block_bytes < VHDX_MIB || v->block_bytes > VHDX_BLOCK_MAX)
                return vd_fail(err, VD_ECORRUPT, "metadata: block size %" PRIu32 " is not a power of two from 1 MiB to "
                               "256 MiB", v->block_bytes);
        img->size = le64_get(size);
        if (img->size > VHDX_SIZE_MAX || img->size % v->logical_bytes)
                return vd_fail(err, VD_ECORRUPT, "metadata: virtual disk size %" PRIu64 " is not a multiple of the "
                               "sector size %" PRIu32 " up to 64 TiB", img->size, v->logical_bytes);
        v->type = v->parameter_flags & VHDX_HAS_PARENT ? VHDX_DIFFERENCING
                  : v->parameter_flags & VHDX_LEAVE_ALLOCATED ? VHDX_FIXED : VHDX_DYNAMIC;
        v->chunk_ratio = VHDX_BITS_PER_CHUNK * v->logical_bytes / v->block_bytes;
        return vhdx_is_differencing(v) ? vhdx_read_locator(img, err) : 0;
}

static int check_bat(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t entries = vhdx_bat_entries(v, img->size), size = vd_file_size(v->file);

        if (8 * entries > v->bat.length)
                return vd_fail(err, VD_ECORRUPT, "the BAT has %" PRIu64 " bytes, but a disk of %" PRIu64
                               " bytes needs %" PRIu64 " entries of 8", v->bat.length, img->size, entries);
        if (v->bat.position > size || 8 * entries > size - v->bat.position)
                return vd_fail(err, VD_ECORRUPT, "the BAT needs %" PRIu64 " bytes at %" PRIu64 ", but the file ends at "
                               "%" PRIu64, 8 * entries, v->bat.position, size);
        return 0;
}

int vhdx_open(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = calloc(1, sizeof(*v));
        int r;

        if (!v)
                return vd_fail(err, -ENOMEM, "no memory for the image");
        img->state = v;
        v->file = vd_file_ref(img->file);
        v->data = vd_file_ref(img->file);
        r = read_headers(img, err);
        if (!r)
                r = vhdx_replay(img, err);
        if (!r)
                r = read_regions(img, err);
        if (!r)
                r = read_metadata(img, err);
        if (!r)
                r = check_bat(img, err);
        if (!r && img->writable) {
                vd_file_unref(v->file);
                v->file = NULL;
                r = vd_file_overlay(&v->file, img->file, err);
        }
        if (!r)
                r = vhdx_open_tables(img, err);
        if (r)
                vhdx_close(img);
        return r;
}
