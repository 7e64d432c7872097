// SPDX-License-Identifier: MIT
/* vhdx.c: Hyper-V disks, version 2 (reference: docs/formats.md, "VHDX")
 *
 *      [ identifier | header | header | region table | region table ]  first MiB
 *      [ log ] [ metadata ] [ BAT ] [ blocks and sector bitmaps, multiples of 1 MiB ]  in any order
 *
 * Reads and writes dynamic, fixed and differencing disks with sectors of 512 and 4096 bytes.  This file has the map:
 * payload entries of the BAT are interleaved with one bitmap entry after every chunk_ratio of them; a bitmap block
 * says for each sector of a partial block whether it is here (1) or in the parent, lowest bit first.
 * Quirk: QEMU's fixed disks say ZERO for every block and allocate again at the end; a last block may be cut off.
 * Cost: tables are read a page at a time; nothing depends on the size of the disk.
 */
#include "vhdx.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

enum { TABLE_PAGES = 512, BITMAP_PAGES = 64 };

/* The first region that ends behind position. */
static size_t region_index(const struct vhdx *v, uint64_t position)
{
        size_t low = 0, high = v->region_count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (v->regions[middle].position + v->regions[middle].length <= position)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

const struct vhdx_region *vhdx_region_at(const struct vhdx *v, uint64_t position, uint64_t length)
{
        size_t i = region_index(v, position);

        return i < v->region_count && v->regions[i].position < position + length ? &v->regions[i] : NULL;
}

int vhdx_add_region(struct vhdx *v, const struct vhdx_region *region, struct vd_error *err)
{
        const struct vhdx_region *other = vhdx_region_at(v, region->position, region->length);
        size_t i = region_index(v, region->position);
        struct vhdx_region *grown;

        if (other)
                return vd_fail(err, VD_ECORRUPT, "%s (%" PRIu64 " bytes at %" PRIu64 ") overlaps %s (%" PRIu64
                               " bytes at %" PRIu64 ")", region->what, region->length, region->position, other->what,
                               other->length, other->position);
        grown = reallocarray(v->regions, v->region_count + 1, sizeof(*grown));
        if (!grown)
                return vd_fail(err, -ENOMEM, "%zu regions", v->region_count + 1);
        v->regions = grown;
        memmove(&grown[i + 1], &grown[i], (v->region_count - i) * sizeof(*grown));
        grown[i] = *region;
        v->region_count++;
        return 0;
}

uint64_t vhdx_bat_entries(const struct vhdx *v, uint64_t disk_bytes)
{
        uint64_t blocks = vd_div_up(disk_bytes, v->block_bytes);

        if (vhdx_is_differencing(v))
                return vd_div_up(blocks, v->chunk_ratio) * (v->chunk_ratio + 1);
        return blocks ? blocks + (blocks - 1) / v->chunk_ratio : 0;
}

uint64_t vhdx_bitmap_entry(const struct vhdx *v, uint64_t chunk)
{
        return v->bat.position + 8 * (chunk * (v->chunk_ratio + 1) + v->chunk_ratio);
}

static void bat_locate(const void *owner, uint64_t block, uint64_t *position, uint64_t *run)
{
        const struct vhdx *v = owner;

        *position = v->bat.position + 8 * (block + block / v->chunk_ratio);
        *run = v->chunk_ratio - block % v->chunk_ratio;
}

static int bat_decode(const void *owner, uint64_t block, const void *raw, struct vd_block *out, struct vd_error *err)
{
        const struct vhdx *v = owner;
        uint64_t entry = le64_get(*(const le64 *)raw);
        const struct vhdx_region *region;

        out->position = entry & VHDX_POSITION_MASK;
        switch (entry & VHDX_STATE_MASK) {
        case VHDX_NOT_PRESENT:
                out->kind = VD_UNALLOCATED;
                return 0;
        case VHDX_UNDEFINED:
        case VHDX_ZERO:
        case VHDX_UNMAPPED:
        case VHDX_UNMAPPED_DRAFT:
                out->kind = VD_ZERO;
                return 0;
        case VHDX_PARTIAL:
                if (!vhdx_is_differencing(v))
                        return vd_fail(err, VD_ECORRUPT, "state 7 (partially present) in a disk without parent");
                out->partial = true;
                break;
        case VHDX_PRESENT:
                break;
        default:
                return vd_fail(err, VD_ECORRUPT, "state %" PRIu64 " is not defined", entry & VHDX_STATE_MASK);
        }
        out->kind = VD_DATA;
        region = vhdx_region_at(v, out->position, vd_min(v->block_bytes, v->table.disk_bytes - block * v->block_bytes));
        if (region)
                return vd_fail(err, VD_ECORRUPT, "block at %" PRIu64 " overlaps %s at %" PRIu64, out->position,
                               region->what, region->position);
        return 0;
}

static void bat_encode(const void *owner, uint64_t block, const struct vd_block *value, void *raw)
{
        uint64_t entry = VHDX_NOT_PRESENT;

        (void)owner;
        (void)block;
        if (value->kind == VD_ZERO)
                entry = VHDX_ZERO;
        else if (value->kind == VD_DATA)
                entry = value->position | (value->partial ? VHDX_PARTIAL : VHDX_PRESENT);
        *(le64 *)raw = le64_put(entry);
}

static const struct vd_blocktable_type bat_type = {
        .what = "BAT", .finding = "vhdx-bat-entry", .entry_bytes = 8,
        .decode = bat_decode, .encode = bat_encode, .locate = bat_locate,
};

int vhdx_open_tables(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t size = vd_file_size(v->file);
        int r;

        v->table = (struct vd_blocktable){
                .type = &bat_type, .owner = v, .file = v->file, .position = v->bat.position,
                .count = vd_div_up(img->size, v->block_bytes), .block_bytes = v->block_bytes, .disk_bytes = img->size,
                .start = VHDX_MIB, .limit = img->is_new ? INT64_MAX : size,
                .in_place = !img->is_new, .next = vd_round_up(size, VHDX_MIB), .align = VHDX_MIB,
                .reach = INT64_MAX - VHDX_BLOCK_MAX,
        };
        r = vd_blocktable_open(&v->table, VHDX_SECTOR, TABLE_PAGES, err);
        if (!r && vhdx_is_differencing(v)) {
                v->bitmaps = vd_cache_new(v->file, 0, VHDX_SECTOR, BITMAP_PAGES, !img->is_new);
                if (!v->bitmaps)
                        r = vd_fail(err, -ENOMEM, "cannot cache the sector bitmaps");
        }
        if (!r && img->is_new) {
                vd_cache_allow_short(v->table.cache, 0);
                if (v->bitmaps)
                        vd_cache_allow_short(v->bitmaps, 0);
        }
        img->unit = v->block_bytes;
        img->write_unit = v->logical_bytes;
        return r;
}

int vhdx_find_bitmap(struct vhdx *v, uint64_t chunk, uint64_t *position, struct vd_error *err)
{
        const struct vhdx_region *region;
        uint64_t entry;
        void *raw;
        int r = vd_cache_get(v->table.cache, vhdx_bitmap_entry(v, chunk), &raw, err);

        if (r)
                return vd_error_prefix(err, "bitmap entry of chunk %" PRIu64, chunk);
        entry = le64_get(*(const le64 *)raw);
        *position = entry & VHDX_POSITION_MASK;
        if ((entry & VHDX_STATE_MASK) == VHDX_NOT_PRESENT) {
                *position = 0;
                return 0;
        }
        if ((entry & VHDX_STATE_MASK) != VHDX_PRESENT)
                return vd_fail(err, VD_ECORRUPT, "bitmap entry of chunk %" PRIu64 ": state %" PRIu64
                               ", only 0 and 6 are defined", chunk, entry & VHDX_STATE_MASK);
        if (*position < VHDX_MIB || !vd_range_fits(*position, VHDX_MIB, v->table.limit))
                return vd_fail(err, VD_ECORRUPT, "bitmap block of chunk %" PRIu64 " lies past end of file: %d bytes at "
                               "%" PRIu64 ", blocks lie in %d to %" PRIu64, chunk, VHDX_MIB, *position, VHDX_MIB,
                               v->table.limit);
        region = vhdx_region_at(v, *position, VHDX_MIB);
        if (region && !(region->bitmap && region->position == *position))
                return vd_fail(err, VD_ECORRUPT, "bitmap block of chunk %" PRIu64 " at %" PRIu64 " overlaps %s at %"
                               PRIu64, chunk, *position, region->what, region->position);
        return 0;
}

int vhdx_scan(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t chunks = vhdx_is_differencing(v) ? vd_div_up(v->table.count, v->chunk_ratio) : 0;
        int r = 0;

        if (img->is_new || v->scanned)
                return 0;
        for (uint64_t chunk = 0; chunk < chunks && !r; chunk++) {
                struct vhdx_region region = { .length = VHDX_MIB, .known = true, .bitmap = true,
                                              .what = "a sector bitmap block" };
                struct vd_error known_later = VD_ERROR_INIT;

                if (!vhdx_find_bitmap(v, chunk, &region.position, &known_later) && region.position)
                        r = vhdx_add_region(v, &region, err);
        }
        if (!r)
                r = vd_blocktable_scan(&v->table, err);
        v->scanned = !r;
        return r;
}

/* The extent lies in one block, which is partial: cuts it off where the sectors change sides. */
static int map_sectors(struct vhdx *v, struct vd_extent *ext, struct vd_error *err)
{
        const uint64_t per_page = VHDX_SECTOR * 8;
        uint64_t block = ext->start / v->block_bytes, in_block = ext->start % v->block_bytes, bitmap, run;
        uint64_t base = block % v->chunk_ratio * (v->block_bytes / v->logical_bytes);
        uint64_t first = base + in_block / v->logical_bytes;
        uint64_t end = base + vd_div_up(in_block + ext->length, v->logical_bytes);
        uint64_t page = vd_round_down(first, per_page);
        void *bits;
        bool set;
        int r = vhdx_find_bitmap(v, block / v->chunk_ratio, &bitmap, err);

        if (!r && !bitmap)
                r = vd_fail(err, VD_ECORRUPT, "BAT entry %" PRIu64 ": partially present, but its chunk has no bitmap "
                            "block", block);
        if (!r)
                r = vd_cache_get(v->bitmaps, bitmap + page / 8, &bits, err);
        if (r)
                return r;
        run = vd_bits_run(bits, first - page, vd_min(end, page + per_page) - page, false, &set);
        ext->length = vd_min(ext->length, (first + run - base) * v->logical_bytes - in_block);
        if (!set) {
                ext->kind = VD_UNALLOCATED;
                ext->file = NULL;
                ext->position = 0;
        }
        return 0;
}

static int vhdx_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct vhdx *v = img->state;
        bool partial = false;
        int r = vhdx_scan(img, err);

        if (!r)
                r = vd_blocktable_map(&v->table, offset, max, ext, &partial, err);
        if (!r && ext->kind == VD_DATA)
                ext->file = v->data;
        return !r && partial ? map_sectors(v, ext, err) : r;
}

static enum vd_match vhdx_probe(const struct vd_probe *probe)
{
        return probe->head_bytes >= 8 && !memcmp(probe->head, "vhdxfile", 8) ? VD_MATCH_SURE : VD_MATCH_NO;
}

void vhdx_close(struct vd_image *img)
{
        struct vhdx *v = img->state;

        if (!v)
                return;
        vd_blocktable_close(&v->table);
        vd_cache_free(v->bitmaps);
        for (size_t i = 0; i < v->locator_count; i++) {
                free(v->locator[i].key);
                free(v->locator[i].value);
        }
        free(v->locator);
        free(v->items);
        free(v->regions);
        free(v->creator);
        free(v->pending);
        vd_file_unref(v->file);
        vd_file_unref(v->data);
        free(v);
        img->state = NULL;
}

static const char *const extensions[] = { "vhdx", "avhdx", NULL };

const struct vd_format vd_format_vhdx = {
        .name = "vhdx", .title = "Hyper-V disk, version 2", .extensions = extensions, .caps = VD_CAP_BACKING,
        .probe = vhdx_probe, .open = vhdx_open, .close = vhdx_close, .map = vhdx_map,
        .accept_parent = vhdx_accept_parent, .describe = vhdx_describe, .walk = vhdx_walk, .check = vhdx_check,
        .params_size = sizeof(struct vhdx_params), .create_opts = vhdx_create_opts, .subformats = vhdx_subformats,
        .create = vhdx_create, .place = vhdx_place, .settle = vhdx_settle, .publish = vhdx_publish,
        .flush = vhdx_flush, .finish = vhdx_finish,
};
