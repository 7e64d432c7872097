// SPDX-License-Identifier: MIT
/* append.c: place and publish for two-level images whose only allocator is the end of the file. */
#include "append.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/write.h"
#include "util/checked.h"

enum token { TOKEN_NONE, TOKEN_NEW, TOKEN_ZERO, TOKEN_FREE };

void vd_append_close(struct vd_append *a)
{
        free(a->pending);
        a->pending = NULL;
        a->pending_count = a->pending_room = 0;
}

/* ---- what was placed and not published ---- */

/* The first pending range that ends behind start; pending_count when there is none. */
static size_t pending_at(const struct vd_append *a, uint64_t start)
{
        size_t low = 0, high = a->pending_count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const struct vd_append_pending *p = &a->pending[middle];

                if (p->start + p->length <= start)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static int pending_insert(struct vd_append *a, size_t index, struct vd_append_pending value, struct vd_error *err)
{
        if (a->pending_count == a->pending_room) {
                size_t room = a->pending_room ? 2 * a->pending_room : 64;
                struct vd_append_pending *grown = reallocarray(a->pending, room, sizeof(*grown));

                if (!grown)
                        return vd_fail(err, -ENOMEM, "%zu new clusters", room);
                a->pending = grown;
                a->pending_room = room;
        }
        memmove(&a->pending[index + 1], &a->pending[index], (a->pending_count - index) * sizeof(*a->pending));
        a->pending[index] = value;
        a->pending_count++;
        return 0;
}

/* Forgets what is pending of [start, end). */
static int pending_remove(struct vd_append *a, uint64_t start, uint64_t end, struct vd_error *err)
{
        for (size_t i = pending_at(a, start); i < a->pending_count && a->pending[i].start < end;) {
                struct vd_append_pending *p = &a->pending[i], rest = *p;
                uint64_t stop = p->start + p->length;

                if (stop > end) {
                        rest.start = end;
                        rest.length = stop - end;
                        rest.position += end - p->start;
                }
                if (p->start < start) {
                        p->length = start - p->start;
                        return stop > end ? pending_insert(a, i + 1, rest, err) : 0;
                }
                if (stop > end) {
                        *p = rest;
                        return 0;
                }
                a->pending_count--;
                memmove(p, p + 1, (a->pending_count - i) * sizeof(*p));
        }
        return 0;
}

/* ---- taking space ---- */

static uint64_t reach_of_table(const struct vd_append *a)
{
        return a->map->entries * a->map->unit;
}

static int take(struct vd_append *a, uint64_t length, uint64_t align, uint64_t *position, struct vd_error *err)
{
        uint64_t end;

        if (a->next > a->reach || !vd_add(vd_round_up(a->next, align), length, &end) || end > INT64_MAX ||
            vd_round_up(a->next, align) > a->reach)
                return vd_fail(err, -EFBIG, "no room for %" PRIu64 " bytes behind %" PRIu64 ", entries reach up to %"
                               PRIu64, length, a->next, a->reach);
        *position = vd_round_up(a->next, align);
        a->next = end;
        a->grown = true;
        return 0;
}

/* An entry that points past the end of the file would come to point into new space. */
static int verify(struct vd_append *a, struct vd_error *err)
{
        uint64_t size = a->image->size;
        struct vd_extent ext;

        if (a->verified || a->image->is_new)
                return 0;
        for (uint64_t at = 0; at < size; at += ext.length) {
                int r = vd_twolevel_map(a->map, at, size - at, &ext, err);

                if (r)
                        return r;
        }
        a->verified = true;
        return 0;
}

/* Sees to it that there is a second-level table for this guest offset.  It is all zeros: the file was never so long. */
static int need_table(struct vd_append *a, uint64_t guest, struct vd_error *err)
{
        struct vd_twolevel *map = a->map;
        uint64_t position, top = vd_twolevel_top_position(map, guest);
        void *raw;
        int r = vd_twolevel_find(map, guest, &position, err);

        if (r || position)
                return r;
        r = verify(a, err);
        if (!r)
                r = take(a, map->entries * map->entry_bytes, map->unit, &position, err);
        if (!r && !a->image->is_new && vd_file_size(map->file) < a->next)
                r = vd_file_truncate(map->file, a->next, err);
        if (!r)
                r = vd_cache_get(map->top, top, &raw, err);
        if (r)
                return r;
        a->type->put_table(a, position, raw);
        vd_cache_dirty(map->top, top);
        return 0;
}

static int allocate(struct vd_append *a, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        bool packed = request->kind == VD_PACKED;
        uint64_t unit = a->map->unit, bytes = packed ? request->packed_bytes : vd_round_up(place->length, unit);
        struct vd_append_pending value = { .start = place->start, .length = place->length, .packed = packed };
        int r = verify(a, err);

        if (!r)
                r = need_table(a, place->start, err);
        if (!r)
                r = take(a, bytes, packed ? 1 : unit, &value.position, err);
        if (!r)
                r = pending_remove(a, place->start, place->start + place->length, err);
        if (!r)
                r = pending_insert(a, pending_at(a, place->start), value, err);
        place->kind = packed ? VD_PACKED : VD_DATA;
        place->packed_bytes = packed ? request->packed_bytes : 0;
        place->position = value.position;
        place->token = TOKEN_NEW;
        return r;
}

/* ---- place and publish ---- */

/* The part of the request that is placed at once: within one table, and one unit when it is packed. */
static uint64_t piece_length(const struct vd_append *a, const struct vd_request *request)
{
        uint64_t reach = reach_of_table(a), length = vd_min(request->length, reach - request->start % reach);

        return request->kind == VD_PACKED ? vd_min(length, a->map->unit) : length;
}

/* What is asked of a range that has no plain cluster. */
static int place_other(struct vd_append *a, const struct vd_request *request, enum vd_kind now, struct vd_place *place,
                       struct vd_error *err)
{
        bool has_parent = a->image->parent_ref.count > 0;

        if (request->kind == VD_DATA || request->kind == VD_PACKED)
                return allocate(a, request, place, err);
        place->kind = request->kind;
        if (now == request->kind || (now == VD_UNALLOCATED && !has_parent))
                return 0;
        if (request->kind == VD_UNALLOCATED || !has_parent) {
                place->token = TOKEN_FREE;
                return 0;
        }
        if (!a->type->has_zero)
                return allocate(a, request, place, err);
        place->token = TOKEN_ZERO;
        return need_table(a, place->start, err);
}

int vd_append_place(struct vd_append *a, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        size_t i = pending_at(a, request->start);
        struct vd_append_pending *p = i < a->pending_count ? &a->pending[i] : NULL;
        bool overwrites = request->kind == VD_DATA || request->kind == VD_ZERO;
        struct vd_extent ext;
        int r;

        *place = (struct vd_place){ .start = request->start, .length = piece_length(a, request), .file = a->map->file };
        if (p && p->start <= request->start) {
                place->length = vd_min(place->length, p->start + p->length - request->start);
                if (!overwrites || p->packed)
                        return place_other(a, request, p->packed ? VD_PACKED : VD_DATA, place, err);
                place->kind = VD_DATA;
                place->position = p->position + (request->start - p->start);
                place->token = TOKEN_NEW;
                return 0;
        }
        if (p)
                place->length = vd_min(place->length, p->start - request->start);
        r = vd_twolevel_map(a->map, request->start, place->length, &ext, err);
        if (r)
                return r;
        place->length = ext.length;
        if (ext.kind != VD_DATA || !overwrites)
                return place_other(a, request, ext.kind, place, err);
        place->kind = VD_DATA;
        place->position = ext.position;
        return 0;
}

int vd_append_settle(struct vd_append *a, struct vd_error *err)
{
        return vd_file_size(a->map->file) < a->next ? vd_file_truncate(a->map->file, a->next, err) : 0;
}

static int set_entries(struct vd_append *a, const struct vd_place *place, struct vd_error *err)
{
        struct vd_twolevel *map = a->map;
        uint64_t count = vd_div_up(place->length, map->unit), position;
        int r = vd_twolevel_find(map, place->start, &position, err);

        if (r || !position)
                return r;
        for (uint64_t i = 0; i < count; i++, position += map->entry_bytes) {
                void *raw;

                r = vd_cache_get(map->sub, position, &raw, err);
                if (r)
                        return r;
                if (place->token == TOKEN_FREE)
                        memset(raw, 0, map->entry_bytes);
                else if (place->token == TOKEN_ZERO)
                        a->type->put_entry(a, VD_ZERO, 0, 0, raw);
                else
                        a->type->put_entry(a, place->kind, place->position + i * map->unit, place->packed_bytes, raw);
                vd_cache_dirty(map->sub, position);
        }
        return 0;
}

int vd_append_publish(struct vd_append *a, const struct vd_place *place, struct vd_error *err)
{
        int r;

        if (place->token == TOKEN_NONE)
                return 0;
        r = set_entries(a, place, err);
        return r ? r : pending_remove(a, place->start, place->start + place->length, err);
}

int vd_append_flush(struct vd_append *a, struct vd_error *err)
{
        int r = vd_cache_flush(a->map->sub, err);

        if (r || !vd_cache_is_dirty(a->map->top))
                return r;
        r = vd_image_barrier(a->image, a->map->file, err);
        return r ? r : vd_cache_flush(a->map->top, err);
}
