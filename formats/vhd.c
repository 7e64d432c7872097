// SPDX-License-Identifier: MIT
/* vhd.c: Virtual PC and Hyper-V disks (reference: docs/formats.md, "VHD")
 *
 *      fixed           [ guest data ][ footer 512 ]
 *      dynamic         [ footer copy 512 ][ header 1024 ][ table: be32 per block ][ locators ][ blocks ][ footer 512 ]
 *      a block         [ sector bitmap, padded to 512 ][ guest data ]
 *
 * A table entry is the sector number of a block's bitmap; all ones: no block.  Of dynamic disks the bitmaps are not
 * read (some writers forget to set them), of differencing ones they decide sector by sector between image and parent.
 * Cost: nothing is kept but pages of the table and of the bitmaps.
 */
#include "vhd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/text.h"

uint32_t vhd_checksum(const void *bytes, size_t length, size_t field)
{
        const uint8_t *b = bytes;
        uint32_t sum = 0;

        for (size_t i = 0; i < length; i++)
                if (i < field || i >= field + 4)
                        sum += b[i];
        return ~sum;
}

struct vd_chs vhd_chs(const struct vhd_footer_disk *footer)
{
        return (struct vd_chs){ be16_get(footer->cylinders), footer->heads, footer->sectors_per_track };
}

bool vhd_add_region(struct vhd *vhd, uint64_t position, uint64_t length, const char *what)
{
        if (vhd->region_count < sizeof(vhd->regions) / sizeof(vhd->regions[0]))
                vhd->regions[vhd->region_count++] = (struct vhd_region){ position, length, what };
        return vd_range_fits(position, length, vhd->end);
}

static int decode_entry(const void *owner, uint64_t block, const void *raw, struct vd_block *out, struct vd_error *err)
{
        const struct vhd *vhd = owner;
        uint32_t sector = be32_get(*(const be32 *)raw);
        uint64_t host = (uint64_t)sector * VHD_SECTOR, length = (uint64_t)vhd->bitmap_bytes + vhd->block_bytes;

        (void)block;
        if (sector == VHD_FREE)
                return 0;
        for (size_t i = 0; i < vhd->vital_regions; i++) {
                const struct vhd_region *r = &vhd->regions[i];

                if (host < r->position + r->length && r->position < host + length)
                        return vd_fail(err, VD_ECORRUPT, "sector %" PRIu32 ": %" PRIu64 " bytes at %" PRIu64
                                       " would lie on the %s at %" PRIu64, sector, length, host, r->what, r->position);
        }
        out->kind = VD_DATA;
        out->partial = vhd_is_differencing(vhd);
        out->position = host + vhd->bitmap_bytes;
        return 0;
}

static void encode_entry(const void *owner, uint64_t block, const struct vd_block *value, void *raw)
{
        const struct vhd *vhd = owner;

        (void)block;
        *(be32 *)raw = be32_put(value->kind == VD_DATA ? (uint32_t)((value->position - vhd->bitmap_bytes) / VHD_SECTOR)
                                                       : VHD_FREE);
}

static const struct vd_blocktable_type table_type = {
        .what = "BAT", .finding = "vhd-bat-entry", .entry_bytes = sizeof(be32),
        .decode = decode_entry, .encode = encode_entry,
};

int vhd_open_tables(struct vd_image *img, struct vd_error *err)
{
        enum { PAGES = 2048 };          /* of a sector each */
        struct vhd *vhd = img->state;

        vhd->table.type = &table_type;
        vhd->table.owner = vhd;
        vhd->table.file = img->file;
        vhd->table.position = be64_get(vhd->header.table_offset);
        vhd->table.count = be32_get(vhd->header.entries);
        vhd->table.block_bytes = vhd->block_bytes;
        vhd->table.disk_bytes = img->size;
        vhd->table.lead_bytes = vhd->bitmap_bytes;
        vhd->table.start = 0;           /* decode_entry() knows what blocks must not touch */
        vhd->table.limit = vhd->end;
        vhd->table.in_place = img->writable && !img->is_new;
        vhd->table.align = vhd_alignment(vhd->table.count, vhd->block_bytes, vhd->bitmap_bytes);
        vhd->table.reach = (uint64_t)(VHD_FREE - 1) * VHD_SECTOR + vhd->bitmap_bytes;
        vhd->bitmaps = vd_cache_new(img->file, 0, VHD_SECTOR, PAGES, vhd->table.in_place);
        if (!vhd->bitmaps)
                return vd_fail(err, -ENOMEM, "cannot cache sector bitmaps");
        /* The table may end anywhere, also in the file's last, incomplete sector; its own bytes are there. */
        int rc = vd_blocktable_open(&vhd->table, VHD_SECTOR, PAGES, err);

        if (rc < 0)
                return rc;
        vd_cache_allow_short(vhd->table.cache, 0xff);
        return 0;
}

/* A block of a differencing disk: bits that are alike, as far as one sector of the bitmap goes. */
static int map_sectors(struct vhd *vhd, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t in_block = ext->start % vhd->block_bytes;
        uint64_t bitmap = ext->position - in_block - vhd->bitmap_bytes;
        uint64_t first = in_block / VHD_SECTOR, per_page = VHD_SECTOR * 8;
        uint64_t last = vd_div_up(in_block + ext->length, VHD_SECTOR);
        void *bits;
        bool set;
        int rc = vd_cache_get(vhd->bitmaps, bitmap + first / per_page * VHD_SECTOR, &bits, err);

        if (rc < 0)
                return vd_error_prefix(err, "sector bitmap of block %" PRIu64, ext->start / vhd->block_bytes);
        last = vd_min(last, vd_round_down(first, per_page) + per_page);

        uint64_t run = vd_bits_run(bits, first % per_page, last - vd_round_down(first, per_page), true, &set);

        ext->length = vd_min(ext->length, (first + run) * VHD_SECTOR - in_block);
        if (!set) {
                ext->kind = VD_UNALLOCATED;
                ext->file = NULL;
                ext->position = 0;
        }
        return 0;
}

static int map_fixed(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t size = vd_file_size(img->file), end = size;
        bool data = false;

        if (offset < size) {
                int rc = vd_file_next(img->file, offset, &data, &end, err);

                if (rc < 0)
                        return rc;
        } else if (!img->is_new) {
                return vd_fail(err, VD_ECORRUPT, "guest offset %" PRIu64 " lies past end of file at %" PRIu64, offset,
                               size);
        }
        *ext = (struct vd_extent){ .start = offset, .kind = data ? VD_DATA : VD_ZERO, .file = img->file,
                                   .position = offset, .is_hole = !data };
        ext->length = vd_min(vd_min(max, img->size - offset), end > offset ? end - offset : UINT64_MAX);
        return 0;
}

/* The rest of a new image's last block, which nobody has written yet. */
static void trim_unwritten(struct vd_extent *ext)
{
        uint64_t size = vd_file_size(ext->file);

        if (ext->position >= size)
                ext->kind = VD_ZERO;
        else
                ext->length = vd_min(ext->length, size - ext->position);
}

/* Without a footer at the end an entry that points too far has a likely reason. */
static void explain_cut(const struct vd_image *img, struct vd_error *err)
{
        char name[4096], shown[512];

        if (vhd_part_name(img->path, 1, name, sizeof(name)))
                vd_error_prefix(err, "the file is cut short, or its part %s is missing",
                                vd_printable(shown, sizeof(shown), name, strlen(name)));
        else
                vd_error_prefix(err, "the file is cut short");
}

static int vhd_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        bool partial = false;
        int rc;

        if (vhd->type == VHD_FIXED)
                return map_fixed(img, offset, max, ext, err);
        rc = img->is_new ? 0 : vd_blocktable_scan(&vhd->table, err);
        if (!rc)
                rc = vd_blocktable_map(&vhd->table, offset, max, ext, &partial, err);
        if (rc < 0 && vhd->back == VHD_COPY_BAD)
                explain_cut(img, err);
        if (!rc && partial)
                rc = map_sectors(vhd, ext, err);
        if (!rc && ext->kind == VD_UNALLOCATED && vhd->type == VHD_DYNAMIC)
                ext->kind = VD_ZERO;    /* nobody else could say otherwise */
        if (!rc && img->is_new && ext->kind == VD_DATA)
                trim_unwritten(ext);
        return rc;
}

void vhd_close(struct vd_image *img)
{
        struct vhd *vhd = img->state;

        if (!vhd)
                return;
        vd_blocktable_close(&vhd->table);
        vd_cache_free(vhd->bitmaps);
        for (size_t i = 0; i < VHD_LOCATORS; i++)
                free(vhd->locators[i].text);
        free(vhd->parent_name);
        free(vhd);
        img->state = NULL;
}

static const char *const aliases[] = { "vpc", NULL };
static const char *const extensions[] = { "vhd", "vpc", "avhd", "vud", "vhdf", NULL };    /* vhdf: FreeBSD's mkimg */

const struct vd_format vd_format_vhd = {
        .name = "vhd", .title = "Virtual PC and Hyper-V disk", .qemu_name = "vpc", .aliases = aliases,
        .extensions = extensions, .caps = VD_CAP_BACKING | VD_CAP_SET,
        .probe = vhd_probe, .open = vhd_open, .close = vhd_close, .map = vhd_map,
        .accept_parent = vhd_accept_parent, .describe = vhd_describe, .walk = vhd_walk, .check = vhd_check,
        .params_size = sizeof(struct vhd_params), .create_opts = vhd_create_opts, .subformats = vhd_subformats,
        .create = vhd_create, .place = vhd_place, .publish = vhd_publish, .flush = vhd_flush, .finish = vhd_finish,
};
