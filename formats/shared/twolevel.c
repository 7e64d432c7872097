// SPDX-License-Identifier: MIT
/* twolevel.c: see twolevel.h.  Cost of a map: one page of the first level, and the pages of the second level that hold
 * something; a page without any entry is skipped at the speed of reading memory. */
#include "twolevel.h"

#include <inttypes.h>
#include <string.h>

#include "util/checked.h"
#include "util/iszero.h"

static uint64_t table_bytes(const struct vd_twolevel *t)
{
        return t->entries * t->entry_bytes;
}

/* Guest bytes that one first-level entry serves. */
static uint64_t reach(const struct vd_twolevel *t)
{
        return t->entries * t->unit;
}

int vd_twolevel_check(const struct vd_twolevel *t, uint64_t size, struct vd_error *err)
{
        uint64_t needed = vd_div_up(size, reach(t)), bytes;

        if (t->top_entries < needed)
                return vd_fail(err, VD_ECORRUPT, "%s at %" PRIu64 ": %" PRIu64 " entries, but a disk of %" PRIu64
                               " bytes needs %" PRIu64, t->top_name, t->top_position, t->top_entries, size, needed);
        if (!t->unwritten && (!vd_mul(t->top_entries, t->top_entry_bytes, &bytes) ||
                              !vd_range_fits(t->top_position, bytes, vd_file_size(t->file))))
                return vd_fail(err, VD_ECORRUPT, "%s at %" PRIu64 ": %" PRIu64 " entries of %u bytes do not fit the "
                               "file, which ends at %" PRIu64, t->top_name, t->top_position, t->top_entries,
                               t->top_entry_bytes, vd_file_size(t->file));
        return 0;
}

uint64_t vd_twolevel_top_position(const struct vd_twolevel *t, uint64_t offset)
{
        return t->top_position + offset / reach(t) * t->top_entry_bytes;
}

/* How many bytes from here to the end of the page that holds position, if pages of this size start at base. */
static size_t page_rest(uint64_t position, uint64_t base, size_t page_bytes)
{
        return page_bytes - (size_t)((position - base) % page_bytes);
}

/* How many of the entries are zero from the first on. */
static uint64_t zero_run(const uint8_t *entry, unsigned entry_bytes, uint64_t count)
{
        uint64_t n = 0;

        while (count - n >= 64 && vd_is_zero(entry + n * entry_bytes, (size_t)64 * entry_bytes))
                n += 64;
        while (n < count && vd_is_zero(entry + n * entry_bytes, entry_bytes))
                n++;
        return n;
}

/* The second-level table for first-level entry `index`; 0: none. */
static int find_table(const struct vd_twolevel *t, uint64_t index, uint64_t *position, struct vd_error *err)
{
        uint8_t *entry;
        int r = vd_cache_get(t->top, t->top_position + index * t->top_entry_bytes, (void **)&entry, err);

        *position = 0;
        if (r || vd_is_zero(entry, t->top_entry_bytes))
                return r;
        r = t->ops->table(t, index, entry, position, err);
        if (r || !*position || t->unwritten)
                return r;
        if (!vd_range_fits(*position, table_bytes(t), vd_file_size(t->file)))
                return vd_fail(err, VD_ECORRUPT, "%s entry %" PRIu64 ": %s at %" PRIu64 " with %" PRIu64
                               " bytes does not fit the file, which ends at %" PRIu64, t->top_name, index, t->sub_name,
                               *position, table_bytes(t), vd_file_size(t->file));
        if (*position < t->top_position + t->top_entries * t->top_entry_bytes &&
            t->top_position < *position + table_bytes(t))
                return vd_fail(err, VD_ECORRUPT, "%s entry %" PRIu64 ": %s at %" PRIu64 " lies in the %s itself",
                               t->top_name, index, t->sub_name, *position, t->top_name);
        return 0;
}

int vd_twolevel_find(const struct vd_twolevel *t, uint64_t offset, uint64_t *position, struct vd_error *err)
{
        int r = find_table(t, offset / reach(t), position, err);

        if (!r && *position)
                *position += offset / t->unit % t->entries * t->entry_bytes;
        return r;
}

/* The first entry from *index on, before last, that is not empty; last when there is none. */
static int skip_empty(const struct vd_twolevel *t, uint64_t last, uint64_t *index, struct vd_error *err)
{
        size_t page = t->top_page_bytes ? t->top_page_bytes : VD_TWOLEVEL_TOP_PAGE;

        while (*index < last) {
                uint64_t position = t->top_position + *index * t->top_entry_bytes, n, run;
                uint8_t *entry;
                int r = vd_cache_get(t->top, position, (void **)&entry, err);

                if (r)
                        return r;
                n = vd_min(last - *index, page_rest(position, t->top_position, page) / t->top_entry_bytes);
                run = zero_run(entry, t->top_entry_bytes, n);
                *index += run;
                if (run < n)
                        break;
        }
        return 0;
}

/* Does b continue a? */
static bool continues(const struct vd_extent *a, const struct vd_extent *b)
{
        if (a->kind != b->kind || a->kind == VD_PACKED || a->file != b->file)
                return false;
        return !a->file || a->position + a->length == b->position;
}

/* One piece: what the entry says about [ext->start, ext->start + ext->length), checked. */
static int one_entry(const struct vd_twolevel *t, uint64_t position, const uint8_t *entry, struct vd_extent *ext,
                     struct vd_error *err)
{
        uint64_t unit_end = vd_round_down(ext->start, t->unit) + t->unit, i = ext->start / t->unit % t->entries;
        int r;

        ext->length = vd_min(ext->length, unit_end - ext->start);
        r = t->ops->entry(t, position, entry, ext, err);
        if (r || ext->kind != VD_DATA || t->unwritten ||
            vd_range_fits(ext->position, ext->length, vd_file_size(ext->file)))
                return r;
        return vd_fail(err, VD_ECORRUPT, "%s at %" PRIu64 ": entry %" PRIu64 " (guest offset %" PRIu64
                       ") needs %" PRIu64 " bytes at %" PRIu64 " of %s, which ends at %" PRIu64, t->sub_name,
                       position - i * t->entry_bytes, i, ext->start, ext->length, ext->position,
                       vd_file_name(ext->file), vd_file_size(ext->file));
}

/* Lengthens *ext (empty: length 0) by what the entries in this page say, up to end.  *more is false when something else
 * follows. */
static int use_page(const struct vd_twolevel *t, uint64_t position, const uint8_t *entry, uint64_t end,
                    struct vd_extent *ext, bool *more, struct vd_error *err)
{
        uint64_t at = ext->start + ext->length;
        uint64_t in_table = t->entries - at / t->unit % t->entries;
        uint64_t count = vd_min(in_table, page_rest(position, 0, t->sub_page_bytes) / t->entry_bytes);
        uint64_t first = at / t->unit, i = 0;

        while (i < count && at < end) {
                struct vd_error later = VD_ERROR_INIT;
                struct vd_extent piece = { .start = at, .length = end - at, .kind = VD_UNALLOCATED };
                uint64_t zeros = zero_run(entry + i * t->entry_bytes, t->entry_bytes, count - i);

                if (zeros) {
                        uint64_t zero_end = vd_round_down(at, t->unit) + zeros * t->unit;

                        piece.length = vd_min(piece.length, zero_end - at);
                } else {
                        int r = one_entry(t, position + i * t->entry_bytes, entry + i * t->entry_bytes, &piece,
                                          ext->length ? &later : err);

                        if (r && !ext->length)
                                return r;
                        if (r) {                /* said when somebody asks for it */
                                *more = false;
                                return 0;
                        }
                }
                if (!ext->length) {
                        *ext = piece;
                } else if (continues(ext, &piece)) {
                        ext->length += piece.length;
                } else {
                        *more = false;
                        return 0;
                }
                at += piece.length;
                i = at / t->unit - first;
        }
        return 0;
}

int vd_twolevel_map(const struct vd_twolevel *t, uint64_t offset, uint64_t max, struct vd_extent *ext,
                    struct vd_error *err)
{
        uint64_t end = offset + max;
        bool more = true;

        *ext = (struct vd_extent){ .start = offset, .kind = VD_UNALLOCATED };
        while (more && ext->start + ext->length < end) {
                struct vd_error later = VD_ERROR_INIT, *say = ext->length ? &later : err;
                uint64_t at = ext->start + ext->length, position, next = at / reach(t) + 1;
                uint8_t *entry;
                int r = vd_twolevel_find(t, at, &position, say);

                if (!r && !position && ext->length && ext->kind != VD_UNALLOCATED)
                        break;
                if (!r && !position) {
                        r = skip_empty(t, vd_div_up(end, reach(t)), &next, say);
                        if (!r)
                                ext->length = vd_min(end, next * reach(t)) - ext->start;
                } else if (!r) {
                        r = vd_cache_get(t->sub, position, (void **)&entry, say);
                        if (!r)
                                r = use_page(t, position, entry, end, ext, &more, say);
                }
                if (r && !ext->length)
                        return r;
                if (r)
                        break;
        }
        return 0;
}

static int walk_table(const struct vd_twolevel *t, uint64_t guest, uint64_t table,
                      const struct vd_twolevel_visit *visit, struct vd_error *err)
{
        uint8_t copy[16];

        for (uint64_t i = 0; i < t->entries;) {
                uint64_t position = table + i * t->entry_bytes, count, zeros;
                uint8_t *entry;
                int r = vd_cache_get(t->sub, position, (void **)&entry, err);

                if (r)
                        return r;
                count = vd_min(t->entries - i, page_rest(position, 0, t->sub_page_bytes) / t->entry_bytes);
                zeros = zero_run(entry, t->entry_bytes, count);
                i += zeros;
                if (zeros == count)
                        continue;
                memcpy(copy, entry + zeros * t->entry_bytes, t->entry_bytes);
                r = visit->on_entry(visit->context, guest == UINT64_MAX ? guest : guest + i * t->unit,
                                    table + i * t->entry_bytes, copy, err);
                if (r)
                        return r;
                i++;
        }
        return 0;
}

int vd_twolevel_walk(const struct vd_twolevel *t, const struct vd_twolevel_visit *visit, struct vd_error *err)
{
        for (uint64_t index = 0;; index++) {
                uint64_t table = 0, guest, end;
                uint8_t *entry, copy[8];
                int r = skip_empty(t, t->top_entries, &index, err);

                if (r || index == t->top_entries)
                        return r;
                r = vd_cache_get(t->top, t->top_position + index * t->top_entry_bytes, (void **)&entry, err);
                if (r)
                        return r;
                memcpy(copy, entry, t->top_entry_bytes);
                r = visit->on_table(visit->context, index, copy, &table, err);
                if (!vd_mul(index, reach(t), &guest) || !vd_add(guest, reach(t), &end))
                        guest = UINT64_MAX;
                if (r == 1)
                        r = walk_table(t, guest, table, visit, err);
                if (r < 0)
                        return r;
        }
}
