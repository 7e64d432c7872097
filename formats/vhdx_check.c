// SPDX-License-Identifier: MIT
/* vhdx_check.c: who uses which part of the file, and what only this format can know to be wrong. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/checked.h"
#include "vhdx.h"

enum { USER_ITEMS_MAX = 1024 };

static uint64_t chunk_count(const struct vhdx *v)
{
        return vd_div_up(v->table.count, v->chunk_ratio);
}

static int walk_bitmaps(struct vhdx *v, struct vd_check *check, struct vd_error *err)
{
        int r = 0;

        for (uint64_t chunk = 0; chunk < chunk_count(v) && !r; chunk++) {
                struct vd_error bad = VD_ERROR_INIT;
                char what[48];
                struct vd_region region = { .class = VD_CLASS_SUBTABLE, .length = VHDX_MIB, .what = what,
                                            .guest = chunk * v->chunk_ratio * v->block_bytes };

                snprintf(what, sizeof(what), "bitmap block %" PRIu64, chunk);
                if (vhdx_find_bitmap(v, chunk, &region.position, &bad))
                        vd_find(&check->findings, VD_ERROR, "vhdx-bitmap-entry", vhdx_bitmap_entry(v, chunk), 8,
                                region.guest, v->chunk_ratio * v->block_bytes, false, "%s", bad.text);
                else if (region.position)
                        r = vd_check_region(check, &region, err);
        }
        return r;
}

int vhdx_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r = vd_check_begin(check, VHDX_MIB, vd_file_size(v->file), err);

        for (size_t i = 0; i < v->region_count && !r; i++) {
                const struct vhdx_region *region = &v->regions[i];
                struct vd_region used = { .class = VD_CLASS_HEADER, .position = region->position, .guest = VD_NOWHERE,
                                          .length = region->length, .what = region->what };

                if (region->bitmap)
                        continue;
                if (region->position == v->bat.position)
                        used.class = VD_CLASS_TABLE;
                r = vd_check_region(check, &used, err);
        }
        if (!r && vhdx_is_differencing(v))
                r = walk_bitmaps(v, check, err);
        return r ? r : vd_blocktable_walk(&v->table, check, err);
}

static void check_copies(const struct vhdx *v, struct vd_findings *f)
{
        static const uint32_t headers[2] = { VHDX_HEADER_1, VHDX_HEADER_2 };
        static const uint32_t tables[2] = { VHDX_REGIONS_1, VHDX_REGIONS_2 };

        for (unsigned i = 0; i < 2; i++) {
                if (!v->headers[i])
                        vd_find(f, VD_ERROR, "vhdx-header", headers[i], sizeof(v->header), VD_NOWHERE, 0, true,
                                "header %u of 2 is damaged: signature or checksum is wrong", i + 1);
                if (v->tables[i] == VHDX_COPY_BAD)
                        vd_find(f, VD_ERROR, "vhdx-region-table", tables[i], VHDX_TABLE_BYTES, VD_NOWHERE, 0, true,
                                "region table %u of 2 is damaged: signature, count or checksum is wrong", i + 1);
                if (v->tables[i] == VHDX_COPY_DIFFERS)
                        vd_find(f, VD_ERROR, "vhdx-region-table-differs", tables[i], VHDX_TABLE_BYTES, VD_NOWHERE, 0,
                                true, "region table %u of 2 is not the same as the other", i + 1);
        }
        if (v->log_pending)
                vd_find(f, VD_ERROR, "vhdx-log-pending", le64_get(v->header.log_offset), le32_get(v->header.log_length),
                        VD_NOWHERE, 0, true, "the disk was not closed: %" PRIu64 " log entries wait to be replayed",
                        v->log_entries);
}

static void check_metadata(const struct vhdx *v, struct vd_findings *f)
{
        size_t users = 0;

        for (size_t i = 0; i < v->item_count; i++) {
                const struct vhdx_item *item = &v->items[i];

                users += item->flags & VHDX_ITEM_USER;
                if (item->flags & ~(uint32_t)(VHDX_ITEM_USER | VHDX_ITEM_DISK | VHDX_ITEM_REQUIRED))
                        vd_find(f, VD_WARNING, "vhdx-item-flags", v->metadata.position, VHDX_TABLE_BYTES, VD_NOWHERE, 0,
                                false, "metadata item %zu: flags 0x%" PRIx32 ", only bits 0 to 2 are defined", i,
                                item->flags);
        }
        if (users > USER_ITEMS_MAX)
                vd_find(f, VD_WARNING, "vhdx-user-items", v->metadata.position, VHDX_TABLE_BYTES, VD_NOWHERE, 0, false,
                        "%zu user metadata items, at most %d are allowed", users, USER_ITEMS_MAX);
        if (v->parameter_flags & ~(uint32_t)(VHDX_LEAVE_ALLOCATED | VHDX_HAS_PARENT))
                vd_find(f, VD_WARNING, "vhdx-parameter-flags", vhdx_item(v, VHDX_PARAMETERS)->position, 8, VD_NOWHERE,
                        0, false, "file parameters: flags 0x%" PRIx32 ", only bits 0 and 1 are defined",
                        v->parameter_flags);
}

/* What decoding does not mind: an entry's reserved bits and useless positions. */
static void check_entry(struct vhdx *v, uint64_t block, uint64_t at, uint64_t entry, struct vd_findings *f)
{
        uint64_t guest = block * v->block_bytes, length = vd_min(v->block_bytes, v->table.disk_bytes - guest), bitmap;
        struct vd_error known = VD_ERROR_INIT;          /* found by the walk */
        unsigned state = entry & VHDX_STATE_MASK;

        if (entry & ~VHDX_POSITION_MASK & ~(uint64_t)VHDX_STATE_MASK)
                vd_find(f, VD_WARNING, "vhdx-bat-reserved", at, 8, guest, length, true,
                        "BAT entry %" PRIu64 ": reserved bits in 0x%" PRIx64, block, entry);
        if (state == VHDX_ZERO && entry & VHDX_POSITION_MASK)
                vd_find(f, VD_WARNING, "vhdx-bat-position", at, 8, guest, length, true,
                        "BAT entry %" PRIu64 ": a block of zeros with position %" PRIu64 ", which Hyper-V rejects",
                        block, entry & VHDX_POSITION_MASK);
        if (state == VHDX_UNMAPPED_DRAFT)
                vd_find(f, VD_NOTE, "vhdx-bat-draft", at, 8, guest, length, true,
                        "BAT entry %" PRIu64 ": state 5 was UNMAPPED in a draft of the format", block);
        if (state == VHDX_PARTIAL && vhdx_is_differencing(v) &&
            !vhdx_find_bitmap(v, block / v->chunk_ratio, &bitmap, &known) && !bitmap)
                vd_find(f, VD_ERROR, "vhdx-bitmap-missing", at, 8, guest, length, false,
                        "BAT entry %" PRIu64 ": partially present, but its chunk has no bitmap block", block);
}

static int read_entry(struct vhdx *v, uint64_t at, uint64_t *entry, struct vd_error *err)
{
        void *raw;
        int r = vd_cache_get(v->table.cache, at, &raw, err);

        *entry = r ? 0 : le64_get(*(const le64 *)raw);
        return r;
}

static int check_bat(struct vhdx *v, struct vd_findings *f, struct vd_error *err)
{
        uint64_t chunks = vhdx_is_differencing(v) || !v->table.count ? 0 : (v->table.count - 1) / v->chunk_ratio, entry;
        int r = 0;

        for (uint64_t block = 0; block < v->table.count && !r; block++) {
                uint64_t at = v->bat.position + 8 * (block + block / v->chunk_ratio);

                r = read_entry(v, at, &entry, err);
                if (entry)
                        check_entry(v, block, at, entry, f);
        }
        for (uint64_t chunk = 0; chunk < chunks && !r; chunk++) {
                r = read_entry(v, vhdx_bitmap_entry(v, chunk), &entry, err);
                if (entry)
                        vd_find(f, VD_ERROR, "vhdx-bitmap-entry", vhdx_bitmap_entry(v, chunk), 8, VD_NOWHERE, 0, true,
                                "bitmap entry of chunk %" PRIu64 " is 0x%" PRIx64 ", but a disk without parent has no "
                                "bitmaps", chunk, entry);
        }
        return r;
}

/* Space between the structures in front is a matter of taste, among and behind the blocks it is lost. */
static void check_unused(const struct vhdx *v, struct vd_check *check)
{
        uint64_t index = 0, length = 0, count;
        bool blocks = false;
        enum vd_class class;

        for (; vd_spacemap_next(check->space, &index, &length, &count, &class); index += length) {
                blocks |= class == VD_CLASS_DATA || class == VD_CLASS_SUBTABLE;
                if (class != VD_CLASS_FREE || !(blocks || v->type == VHDX_FIXED))
                        continue;
                if (v->type == VHDX_FIXED)
                        vd_find(&check->findings, VD_NOTE, "vhdx-unused-fixed", index * VHDX_MIB, length * VHDX_MIB,
                                VD_NOWHERE, 0, false,
                                "%" PRIu64 " bytes at %" PRIu64 " of a fixed disk are used by no block",
                                length * VHDX_MIB, index * VHDX_MIB);
                else
                        vd_find(&check->findings, VD_LEAK, "vhdx-unused", index * VHDX_MIB, length * VHDX_MIB,
                                VD_NOWHERE, 0, true, "%" PRIu64 " bytes at %" PRIu64 " belong to nobody",
                                length * VHDX_MIB, index * VHDX_MIB);
        }
}

int vhdx_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t size = vd_file_size(v->file);

        check_copies(v, &check->findings);
        check_metadata(v, &check->findings);
        if (size % VHDX_MIB)
                vd_find(&check->findings, VD_NOTE, "vhdx-file-size", size, 0, VD_NOWHERE, 0, false,
                        "the file has %" PRIu64 " bytes, which is not a multiple of 1 MiB", size);
        check_unused(v, check);
        return check_bat(v, &check->findings, err);
}
