// SPDX-License-Identifier: MIT
/* vhdx_write.c: writing into a disk, new or in place.
 *
 * Blocks and bitmap blocks are appended.  In place the order is: new GUIDs in the headers; the file grows; data, sync
 * (core); BAT entries and sector bitmaps through the log (vhdx_journal.c).  Cut short anywhere, the disk reads as
 * before or as after; space is lost at worst.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/write.h"
#include "util/checked.h"
#include "vhdx.h"

/* Sectors of tables that publishing one place can change: BAT entries and the bits of the largest block. */
enum { PUBLISH_SECTORS = 2 + VHDX_BLOCK_MAX / 512 / 8 / VHDX_SECTOR + 1 };

/* What publish() is to do about a place of kind UNALLOCATED or ZERO. */
enum { TOKEN_NOTHING, TOKEN_SET, TOKEN_DROP };

static bool is_whole(const struct vd_image *img, uint64_t start, uint64_t length)
{
        const struct vhdx *v = img->state;

        return start % v->block_bytes == 0 && (length == v->block_bytes || start + length == img->size);
}

/* Before the first change in place. */
static int begin(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r;

        if (img->is_new || v->begun)
                return 0;
        /* An entry that points past the end would come to lie on a new block. */
        r = vd_blocktable_verify(&v->table, err);
        if (!r)
                r = vhdx_new_guid(img, "vhdx data write", v->header.data_write_guid, err);
        if (!r)
                r = vhdx_write_headers(img, err);
        v->stable = vd_file_size(img->file);
        v->begun = !r;
        return r;
}

static struct vhdx_pending *find_pending(struct vhdx *v, uint64_t chunk)
{
        for (size_t i = v->pending_count; i > 0; i--)
                if (v->pending[i - 1].chunk == chunk)
                        return &v->pending[i - 1];
        return NULL;
}

static int set_bitmap_entry(struct vhdx *v, uint64_t chunk, uint64_t position, struct vd_error *err)
{
        uint64_t at = vhdx_bitmap_entry(v, chunk);
        void *raw;
        int r = vd_cache_get(v->table.cache, at, &raw, err);

        if (r)
                return r;
        *(le64 *)raw = le64_put(position | VHDX_PRESENT);
        vd_cache_dirty(v->table.cache, at);
        return 0;
}

/* Sees to it that the block's chunk has a bitmap block, published or pending. */
static int need_bitmap(struct vd_image *img, uint64_t block, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t chunk = block / v->chunk_ratio, position;
        int r = vhdx_find_bitmap(v, chunk, &position, err);

        if (r || position || find_pending(v, chunk))
                return r;
        position = vd_round_up(v->table.next, VHDX_MIB);
        v->table.next = position + VHDX_MIB;
        if (img->is_new)
                return set_bitmap_entry(v, chunk, position, err);
        if (v->pending_count == v->pending_room) {
                size_t room = v->pending_room ? 2 * v->pending_room : 16;
                struct vhdx_pending *grown = reallocarray(v->pending, room, sizeof(*grown));

                if (!grown)
                        return vd_fail(err, -ENOMEM, "%zu bitmap blocks", room);
                v->pending = grown;
                v->pending_room = room;
        }
        v->pending[v->pending_count++] = (struct vhdx_pending){ chunk, position };
        return 0;
}

/* A block for a place that has none.  Partly written blocks whose rest is the parent's need a bitmap. */
static int allocate(struct vd_image *img, uint64_t block, bool partial, struct vd_block *value, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r = partial ? need_bitmap(img, block, err) : 0;

        if (!r)
                r = vd_blocktable_allocate(&v->table, block, value, err);
        if (!r && partial && img->is_new) {
                value->partial = true;
                r = vd_blocktable_set(&v->table, block, value, err);
        }
        return r;
}

/* Nothing is to be done: as far as that is cheap to say. */
static void skip(struct vhdx *v, const struct vd_request *request, struct vd_place *place)
{
        struct vd_error ignored = VD_ERROR_INIT;
        struct vd_extent run;
        bool partial;

        place->kind = request->kind;
        place->token = TOKEN_NOTHING;
        if (!v->table.pending_count &&
            !vd_blocktable_map(&v->table, request->start, request->length, &run, &partial, &ignored) && !partial)
                place->length = run.length;
}

/* UNALLOCATED: the block, or its part, is to show the parent, or zeros. */
static int place_drop(struct vd_image *img, const struct vd_block *value, struct vd_place *place, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t block = place->start / v->block_bytes;
        bool partial = vhdx_is_differencing(v) && !is_whole(img, place->start, place->length);
        struct vd_block fresh;
        int r = begin(img, err);

        place->token = TOKEN_DROP;
        if (!r && partial && value->kind == VD_ZERO)
                return allocate(img, block, true, &fresh, err);
        return !r && partial ? need_bitmap(img, block, err) : r;
}

int vhdx_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t block = request->start / v->block_bytes, in_block = request->start % v->block_bytes;
        bool differencing = vhdx_is_differencing(v), drop = request->kind == VD_UNALLOCATED, whole;
        struct vd_block value;
        int r = vhdx_scan(img, err);

        if (!r)
                r = vd_blocktable_find(&v->table, block, &value, err);
        if (r)
                return r;
        *place = (struct vd_place){ .start = request->start, .kind = request->kind, .file = img->file,
                                    .length = vd_min(request->length, v->block_bytes - in_block), .token = TOKEN_SET };
        whole = is_whole(img, place->start, place->length);
        if (value.kind != VD_DATA && ((drop && (value.kind == VD_UNALLOCATED || !differencing)) ||
                                      (request->kind == VD_ZERO && (value.kind == VD_ZERO || !differencing)))) {
                skip(v, request, place);
                return 0;
        }
        if (drop)
                return place_drop(img, &value, place, err);
        r = begin(img, err);
        if (r || (request->kind == VD_ZERO && value.kind == VD_UNALLOCATED && whole))
                return r;
        /* Zeros over a block stay in it: its space can be punched, and its entry need not change. */
        place->kind = VD_DATA;
        if (value.kind != VD_DATA)
                r = allocate(img, block, differencing && value.kind == VD_UNALLOCATED && !whole, &value, err);
        place->position = value.position + in_block;
        return r;
}

/* Gives the bits of a range inside one block a value. */
static int mark_sectors(struct vhdx *v, uint64_t bitmap, uint64_t start, uint64_t length, bool set,
                        struct vd_error *err)
{
        const uint64_t per_page = VHDX_SECTOR * 8;
        uint64_t chunk_bytes = v->chunk_ratio * v->block_bytes;
        uint64_t first = start % chunk_bytes / v->logical_bytes, end = first + vd_div_up(length, v->logical_bytes);

        while (first < end) {
                uint64_t base = vd_round_down(first, per_page), stop = vd_min(end, base + per_page);
                void *bits;
                int r = vd_cache_get(v->bitmaps, bitmap + base / 8, &bits, err);

                if (r)
                        return r;
                if (vd_bits_fill(bits, first - base, stop - base, false, set))
                        vd_cache_dirty(v->bitmaps, bitmap + base / 8);
                first = stop;
        }
        return 0;
}

/* Are all sectors of the block here? */
static int is_complete(struct vhdx *v, uint64_t bitmap, uint64_t start, uint64_t length, bool *complete,
                       struct vd_error *err)
{
        const uint64_t per_page = VHDX_SECTOR * 8;
        uint64_t chunk_bytes = v->chunk_ratio * v->block_bytes;
        uint64_t first = start % chunk_bytes / v->logical_bytes, end = first + vd_div_up(length, v->logical_bytes);

        for (*complete = true; first < end && *complete; ) {
                uint64_t base = vd_round_down(first, per_page), stop = vd_min(end, base + per_page);
                bool set;
                void *bits;
                int r = vd_cache_get(v->bitmaps, bitmap + base / 8, &bits, err);

                if (r)
                        return r;
                *complete = vd_bits_run(bits, first - base, stop - base, false, &set) == stop - first && set;
                first = stop;
        }
        return 0;
}

/* The bitmap block of a block's chunk; one that was placed gets its entry. */
static int publish_bitmap(struct vhdx *v, uint64_t block, uint64_t *bitmap, struct vd_error *err)
{
        uint64_t chunk = block / v->chunk_ratio;
        int r = vhdx_find_bitmap(v, chunk, bitmap, err);
        struct vhdx_pending *pending = r || *bitmap ? NULL : find_pending(v, chunk);

        if (r || *bitmap)
                return r;
        if (!pending)
                return vd_fail(err, -EINVAL, "chunk %" PRIu64 " has no bitmap block", chunk);
        *bitmap = pending->position;
        *pending = v->pending[--v->pending_count];
        return set_bitmap_entry(v, chunk, *bitmap, err);
}

/* Sectors of a block got their data, or lose it. */
static int publish_sectors(struct vd_image *img, const struct vd_place *place, struct vd_block value, bool fresh,
                           bool drop, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t block = place->start / v->block_bytes, start = block * v->block_bytes;
        uint64_t length = vd_min(v->block_bytes, img->size - start), bitmap;
        bool was_partial = value.partial, all = false;
        int r = publish_bitmap(v, block, &bitmap, err);

        /* Bits of a block that had no use for them are not to be relied on. */
        if (!r && (fresh || !value.partial))
                r = mark_sectors(v, bitmap, start, length, drop, err);
        if (!r)
                r = mark_sectors(v, bitmap, place->start, place->length, !drop, err);
        if (!r && !drop)
                r = is_complete(v, bitmap, start, length, &all, err);
        value.partial = !all;
        return r || (value.partial == was_partial && !fresh) ? r : vd_blocktable_set(&v->table, block, &value, err);
}

static int publish_data(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t block = place->start / v->block_bytes;
        struct vd_block before, value;
        bool fresh;
        int r = vd_blocktable_get(&v->table, block, &before, err);

        if (r || (before.kind == VD_DATA && !before.partial))
                return r;
        r = vd_blocktable_publish(&v->table, block, &fresh, err);
        value = (struct vd_block){ .kind = VD_DATA, .position = place->position - place->start % v->block_bytes };
        if (r || (fresh && before.kind == VD_ZERO))
                return r;
        if (is_whole(img, place->start, place->length))
                return vd_blocktable_set(&v->table, block, &value, err);
        if (!vhdx_is_differencing(v))
                return 0;
        value.partial = before.partial;
        return publish_sectors(img, place, value, fresh, false, err);
}

static int publish_drop(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t block = place->start / v->block_bytes;
        struct vd_block value;
        bool fresh;
        int r = vd_blocktable_publish(&v->table, block, &fresh, err);

        if (!r)
                r = vd_blocktable_get(&v->table, block, &value, err);
        if (r)
                return r;
        /* A fixed disk keeps its space; a part of a block without parent keeps its block. */
        if (value.kind == VD_DATA && (v->type == VHDX_FIXED || (v->type == VHDX_DYNAMIC &&
                                                                !is_whole(img, place->start, place->length))))
                return vd_file_zero(img->file, value.position + place->start % v->block_bytes, place->length, err);
        if (is_whole(img, place->start, place->length))
                return vd_blocktable_set(&v->table, block, &(struct vd_block){ .kind = VD_UNALLOCATED }, err);
        return value.kind == VD_DATA ? publish_sectors(img, place, value, fresh, true, err) : 0;
}

int vhdx_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r = 0;

        if (place->kind == VD_DATA)
                r = publish_data(img, place, err);
        else if (place->token == TOKEN_DROP)
                r = publish_drop(img, place, err);
        else if (place->token == TOKEN_SET)
                r = vd_blocktable_set(&v->table, place->start / v->block_bytes,
                                      &(struct vd_block){ .kind = VD_ZERO }, err);
        if (r || img->is_new)
                return r;
        /* One place is never spread over two transactions. */
        r = vd_cache_flush(v->table.cache, err);
        if (!r && v->bitmaps)
                r = vd_cache_flush(v->bitmaps, err);
        if (!r && vd_file_overlay_count(v->file) > VHDX_TRANSACTION - PUBLISH_SECTORS)
                r = vhdx_commit(img, err);
        return r;
}

int vhdx_settle(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r = 0;

        if (v->begun && v->table.next > vd_file_size(img->file))
                r = vd_file_truncate(img->file, v->table.next, err);
        v->table.limit = vd_file_size(img->file);
        return r;
}

int vhdx_flush(struct vd_image *img, struct vd_error *err)
{
        return img->is_new ? 0 : vhdx_commit(img, err);
}

int vhdx_finish(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        int r;

        if (img->is_new)
                return vhdx_finish_new(img, err);
        r = vhdx_commit(img, err);
        if (r || vd_guid_is_zero(v->header.log_guid))
                return r;
        memset(v->header.log_guid, 0, 16);
        return vhdx_write_headers(img, err);
}
