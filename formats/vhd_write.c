// SPDX-License-Identifier: MIT
/* vhd_write.c: writing into a VHD, new or in place.
 *
 * Blocks are appended.  In place the order is: a footer at the new end, sync; the old footer's bytes become zeros and
 * with them part of the new blocks; data, sync (core); sector bitmaps, sync; table entries, sync (core).  To pay for
 * the first sync seldom the end moves SPARE bytes further than needed, and back in vhd_finish().  Cut short anywhere,
 * the image has a footer at its end and reads as before or as after; space is lost at worst.
 */
#include <errno.h>
#include <string.h>

#include "core/write.h"
#include "util/checked.h"
#include "vhd.h"

enum { SPARE = 64 * 1024 * 1024 };

/* In place: moves the footer so that blocks up to `need` lie in front of it. */
static int move_end(struct vd_image *img, uint64_t need, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t old_end = vhd->end, old_size = vd_file_size(img->file);
        uint64_t new_end = vd_round_up(need, VHD_SECTOR) + SPARE;
        int rc = vhd_write_footer(img, new_end, err);

        if (!rc)
                rc = vd_image_barrier(img, img->file, err);
        if (!rc && old_size > old_end)
                rc = vd_file_zero(img->file, old_end, old_size - old_end, err);
        if (rc < 0)
                return rc;
        vhd->end = vhd->table.limit = new_end;
        vhd->grown = true;
        return 0;
}

/* The sector bitmap of a block that is new in the table. */
static int start_bitmap(struct vhd *vhd, const struct vd_block *value, struct vd_error *err)
{
        uint64_t bitmap = value->position - vhd->bitmap_bytes;
        int rc = 0;

        /* What is not written in a block of a dynamic disk is zero and may be said to be there. */
        for (uint64_t at = 0; at < vhd->bitmap_bytes && !rc; at += VHD_SECTOR) {
                void *bits;

                rc = vd_cache_get_new(vhd->bitmaps, bitmap + at, vhd_is_differencing(vhd) ? 0 : 0xff, &bits, err);
        }
        return rc;
}

static int allocate(struct vd_image *img, uint64_t block, struct vd_block *value, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vd_blocktable *table = &vhd->table;
        int rc;

        if (!img->is_new && !table->next) {
                /* An entry that points past the end would come to lie on a new block. */
                rc = vd_blocktable_verify(table, err);
                if (rc < 0)
                        return rc;
                table->next = vd_round_up(vhd->end, VHD_SECTOR);
        }
        rc = vd_blocktable_allocate(table, block, value, err);
        if (rc < 0)
                return rc;
        if (img->is_new) {
                rc = vhd_add_parts(img, table->next + VHD_SECTOR, err);
                return rc < 0 ? rc : start_bitmap(vhd, value, err);
        }
        return table->next > vhd->end ? move_end(img, table->next, err) : 0;
}

/* A place in a new split disk is one in a part; at most up to the part's end. */
static int place_in_part(const struct vhd *vhd, struct vd_place *place)
{
        if (!vhd->part_bytes || place->kind != VD_DATA)
                return 0;
        place->file = vhd->part_files[place->position / vhd->part_bytes];
        place->position %= vhd->part_bytes;
        place->length = vd_min(place->length, vhd->part_bytes - place->position);
        return 0;
}

int vhd_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vd_blocktable *table = &vhd->table;
        bool drop = request->kind == VD_UNALLOCATED;
        struct vd_block value;

        *place = (struct vd_place){ .start = request->start, .length = request->length,
                                    .kind = drop ? VD_UNALLOCATED : VD_DATA, .file = img->file,
                                    .position = request->start };
        if (vhd->type == VHD_FIXED)
                return place_in_part(vhd, place);

        uint64_t block = request->start / vhd->block_bytes, in_block = request->start % vhd->block_bytes;
        int rc = vd_blocktable_find(table, block, &value, err);

        if (rc < 0)
                return rc;
        place->length = vd_min(request->length, vhd->block_bytes - in_block);
        if (value.kind != VD_DATA && (drop || (request->kind == VD_ZERO && !vhd_is_differencing(vhd)))) {
                struct vd_extent run;
                bool partial;

                place->kind = request->kind;    /* there is nothing to do */
                if (!table->pending_count &&
                    !vd_blocktable_map(table, request->start, request->length, &run, &partial, err))
                        place->length = run.length;
                return 0;
        }
        if (value.kind != VD_DATA)
                rc = allocate(img, block, &value, err);
        place->position = value.position + in_block;
        place->token = value.position;
        return rc < 0 ? rc : place_in_part(vhd, place);
}

/* Gives the bits of a range of sectors inside one block a value. */
static int mark_sectors(struct vhd *vhd, const struct vd_block *value, uint64_t in_block, uint64_t length, bool set,
                        struct vd_error *err)
{
        const uint64_t per_page = VHD_SECTOR * 8;
        uint64_t first = in_block / VHD_SECTOR, end = vd_div_up(in_block + length, VHD_SECTOR);

        while (first < end) {
                uint64_t base = vd_round_down(first, per_page), stop = vd_min(end, base + per_page);
                uint64_t at = value->position - vhd->bitmap_bytes + base / 8;
                void *bits;
                int rc = vd_cache_get(vhd->bitmaps, at, &bits, err);

                if (rc < 0)
                        return rc;
                if (vd_bits_fill(bits, first - base, stop - base, true, set))
                        vd_cache_dirty(vhd->bitmaps, at);
                first = stop;
        }
        return 0;
}

/* A sector bitmap is about to lose bits: XenServer's map of full ones says nothing any more. */
static int clear_batmap(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc;

        if (!vhd->batmap_position || vhd->batmap_cleared)
                return 0;
        rc = vd_file_zero(img->file, be64_get(vhd->batmap.offset), (uint64_t)be32_get(vhd->batmap.sectors) * VHD_SECTOR,
                          err);
        vhd->batmap.checksum = be32_put(0xffffffff);
        if (!rc)
                rc = vd_file_write(img->file, &vhd->batmap, sizeof(vhd->batmap), vhd->batmap_position, err);
        if (!rc)
                rc = vd_image_barrier(img, img->file, err);
        vhd->batmap_cleared = !rc;
        return rc;
}

/* Takes a range out of its block: the parent shows through, or zeros. */
static int drop_range(struct vd_image *img, uint64_t start, uint64_t length, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t block = start / vhd->block_bytes, in_block = start % vhd->block_bytes;
        struct vd_block value;
        int rc = vd_blocktable_get(&vhd->table, block, &value, err);

        if (rc < 0 || value.kind != VD_DATA)
                return rc;
        if (vhd_is_differencing(vhd)) {
                rc = clear_batmap(img, err);
                if (rc < 0)
                        return rc;
        }
        if (!in_block && (length == vhd->block_bytes || start + length == img->size))
                return vd_blocktable_set(&vhd->table, block, &(struct vd_block){ .kind = VD_UNALLOCATED }, err);
        if (vhd_is_differencing(vhd))
                return mark_sectors(vhd, &value, in_block, length, false, err);
        return vd_file_zero(img->file, value.position + in_block, length, err);
}

int vhd_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vd_block value;
        bool fresh;
        int rc;

        if (place->kind == VD_ZERO)
                return 0;
        if (vhd->type == VHD_FIXED)
                return place->kind == VD_DATA ? 0 : vd_file_zero(img->file, place->position, place->length, err);
        if (place->kind == VD_UNALLOCATED) {
                for (uint64_t at = place->start, end = place->start + place->length; at < end; ) {
                        uint64_t stop = vd_min(end, vd_round_down(at, vhd->block_bytes) + vhd->block_bytes);

                        rc = drop_range(img, at, stop - at, err);
                        if (rc < 0)
                                return rc;
                        at = stop;
                }
                return 0;
        }

        uint64_t block = place->start / vhd->block_bytes, in_block = place->start % vhd->block_bytes;

        value = (struct vd_block){ .kind = VD_DATA, .position = place->token };
        rc = vd_blocktable_publish(&vhd->table, block, &fresh, err);
        if (!rc && fresh)
                rc = start_bitmap(vhd, &value, err);
        return rc < 0 ? rc : mark_sectors(vhd, &value, in_block, place->length, true, err);
}

int vhd_flush(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc;

        if (vhd->type == VHD_FIXED)
                return 0;
        if (vd_cache_is_dirty(vhd->bitmaps)) {
                rc = vd_cache_flush(vhd->bitmaps, err);
                if (!rc)
                        rc = vd_image_barrier(img, img->file, err);
                if (rc < 0)
                        return rc;
        }
        return vd_cache_flush(vhd->table.cache, err);
}

int vhd_finish(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc;

        if (img->is_new)
                return vhd_finish_new(img, err);
        if (!vhd->grown)
                return 0;
        /* Gives the spare room back; in between the file has two footers. */
        rc = vhd_write_footer(img, vhd->table.next, err);
        if (!rc)
                rc = vd_image_barrier(img, img->file, err);
        if (!rc)
                rc = vd_file_truncate(img->file, vhd->table.next + VHD_SECTOR, err);
        if (!rc) {
                vhd->end = vhd->table.limit = vhd->table.next;
                vhd->grown = false;
        }
        return rc;
}
