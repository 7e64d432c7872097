// SPDX-License-Identifier: MIT
/* blocktable.c: flat block tables: look up, merge, allocate, walk. */
#include "blocktable.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

size_t vd_blocktable_page(uint64_t bytes, uint64_t room)
{
        size_t page = 4096;

        while (page > sizeof(uint32_t) && vd_round_up(bytes, page) > room)
                page /= 2;
        return page;
}

int vd_blocktable_open(struct vd_blocktable *table, size_t page_bytes, size_t max_pages, struct vd_error *err)
{
        table->page_bytes = page_bytes;
        table->cache = vd_cache_new(table->file, table->type->locate ? 0 : table->position, page_bytes, max_pages,
                                    table->in_place);
        if (!table->cache)
                return vd_fail(err, -ENOMEM, "cannot cache the %s", table->type->what);
        return 0;
}

void vd_blocktable_close(struct vd_blocktable *table)
{
        vd_cache_free(table->cache);
        free(table->pending);
        free(table->overlapping);
        table->cache = NULL;
        table->pending = NULL;
        table->overlapping = NULL;
        table->pending_count = table->pending_room = table->overlap_count = 0;
}

/* *raw: the entry of block, *run: how many entries, this one included, stand in a row there. */
static int entries_at(struct vd_blocktable *table, uint64_t block, void **raw, uint64_t *run, uint64_t *position,
                      struct vd_error *err)
{
        const struct vd_blocktable_type *type = table->type;
        uint64_t origin = type->locate ? 0 : table->position, rest;
        int rc;

        *position = table->position + block * type->entry_bytes;
        *run = table->count - block;
        if (type->locate)
                type->locate(table->owner, block, position, run);
        rc = vd_cache_get(table->cache, *position, raw, err);
        if (rc < 0)
                return vd_error_prefix(err, "%s entry %" PRIu64, type->what, block);
        rest = table->page_bytes - (*position - origin) % table->page_bytes;
        *run = vd_min(*run, vd_min(rest / type->entry_bytes, table->count - block));
        return 0;
}

/* Guest bytes of the disk that the block holds. */
static uint64_t bytes_of_block(const struct vd_blocktable *table, uint64_t block)
{
        uint64_t start = block * table->block_bytes;

        return start >= table->disk_bytes ? 0 : vd_min(table->block_bytes, table->disk_bytes - start);
}

static int by_number(const void *a, const void *b)
{
        const uint64_t *p = a, *q = b;

        return *p < *q ? -1 : *p > *q;
}

static bool overlaps(const struct vd_blocktable *table, uint64_t block)
{
        return table->overlap_count && bsearch(&block, table->overlapping, table->overlap_count,
                                               sizeof(*table->overlapping), by_number);
}

static int decode(const struct vd_blocktable *table, uint64_t block, const void *raw, struct vd_block *out,
                  struct vd_error *err)
{
        *out = (struct vd_block){ .kind = VD_UNALLOCATED };
        int rc = table->type->decode(table->owner, block, raw, out, err);

        if (rc < 0)
                return vd_error_prefix(err, "%s entry %" PRIu64, table->type->what, block);
        if (out->kind != VD_DATA)
                return 0;

        uint64_t needed = bytes_of_block(table, block);

        if (out->position < table->lead_bytes || out->position - table->lead_bytes < table->start)
                return vd_fail(err, VD_ECORRUPT, "%s entry %" PRIu64 ": block at %" PRIu64 " lies before %" PRIu64
                               ", where blocks may begin", table->type->what, block, out->position, table->start);
        if (!vd_range_fits(out->position, needed, table->limit))
                return vd_fail(err, VD_ECORRUPT, "block %" PRIu64 " lies past end of file: %" PRIu64 " bytes at %"
                               PRIu64 ", blocks end at %" PRIu64, block, needed, out->position, table->limit);
        if (overlaps(table, block))
                return vd_fail(err, VD_ECORRUPT, "block %" PRIu64 " at %" PRIu64 " lies on another block", block,
                               out->position);
        return 0;
}

int vd_blocktable_get(struct vd_blocktable *table, uint64_t block, struct vd_block *out, struct vd_error *err)
{
        void *raw = NULL;
        uint64_t run = 0, position = 0;
        int rc = entries_at(table, block, &raw, &run, &position, err);

        return rc < 0 ? rc : decode(table, block, raw, out, err);
}

/* Does this entry say that a block has no data, and all others of the run the same? Tables of large disks are mostly
 * like that, and need not be decoded one by one. */
static bool is_empty_run(const struct vd_blocktable *table, const struct vd_block *first, const void *raw, uint64_t run)
{
        size_t entry = table->type->entry_bytes;

        return first->kind != VD_DATA && !memcmp(raw, (const char *)raw + entry, (run - 1) * entry);
}

/* Does next continue the run that began with first, `blocks` blocks before? */
static bool continues(const struct vd_blocktable *table, const struct vd_block *first, uint64_t blocks,
                      const struct vd_block *next)
{
        if (next->kind != first->kind || next->partial)
                return false;
        return first->kind != VD_DATA ||
               (table->lead_bytes == 0 && next->position == first->position + blocks * table->block_bytes);
}

int vd_blocktable_map(struct vd_blocktable *table, uint64_t offset, uint64_t max, struct vd_extent *extent,
                      bool *partial, struct vd_error *err)
{
        uint64_t first_block = offset / table->block_bytes;
        uint64_t end = vd_min(table->disk_bytes, max > UINT64_MAX - offset ? UINT64_MAX : offset + max);
        struct vd_block first;
        int rc = vd_blocktable_get(table, first_block, &first, err);

        if (rc < 0)
                return rc;
        *partial = first.partial;
        *extent = (struct vd_extent){ .start = offset, .kind = first.kind };
        if (first.kind == VD_DATA) {
                extent->file = table->file;
                extent->position = first.position + offset % table->block_bytes;
        }

        uint64_t block = first_block + 1;

        while (!first.partial && block < table->count && block * table->block_bytes < end) {
                void *raw = NULL;
                uint64_t run = 0, position = 0, i = 0;
                struct vd_error later = VD_ERROR_INIT;  /* reported when that block is asked for */

                if (entries_at(table, block, &raw, &run, &position, &later) < 0)
                        break;
                run = vd_min(run, vd_div_up(end, table->block_bytes) - block);
                for (; i < run; i++) {
                        const char *entry = (const char *)raw + i * table->type->entry_bytes;
                        struct vd_error ignored = VD_ERROR_INIT;
                        struct vd_block next;

                        if (decode(table, block + i, entry, &next, &ignored) < 0 ||
                            !continues(table, &first, block + i - first_block, &next))
                                break;
                        if (!i && is_empty_run(table, &next, raw, run))
                                i = run - 1;
                }
                block += i;
                if (i < run)
                        break;
        }
        extent->length = vd_min(end, block * table->block_bytes) - offset;
        return 0;
}

/* The index of block in the pending list, or where it would be inserted. */
static size_t pending_index(const struct vd_blocktable *table, uint64_t block)
{
        size_t low = 0, high = table->pending_count;

        if (high && table->pending[high - 1].block < block)
                return high;            /* the usual case: blocks come in order */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (table->pending[middle].block < block)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static bool is_pending(const struct vd_blocktable *table, uint64_t block, size_t *index)
{
        *index = pending_index(table, block);
        return *index < table->pending_count && table->pending[*index].block == block;
}

int vd_blocktable_find(struct vd_blocktable *table, uint64_t block, struct vd_block *out, struct vd_error *err)
{
        size_t index;

        if (is_pending(table, block, &index)) {
                *out = (struct vd_block){ .kind = VD_DATA, .position = table->pending[index].position };
                return 0;
        }
        return vd_blocktable_get(table, block, out, err);
}

static int pending_add(struct vd_blocktable *table, uint64_t block, uint64_t position, struct vd_error *err)
{
        if (table->pending_count == table->pending_room) {
                size_t room = table->pending_room ? 2 * table->pending_room : 64;
                struct vd_blocktable_pending *grown = reallocarray(table->pending, room, sizeof(*grown));

                if (!grown)
                        return vd_fail(err, -ENOMEM, "cannot remember %zu new blocks", room);
                table->pending = grown;
                table->pending_room = room;
        }
        size_t index = pending_index(table, block);

        memmove(&table->pending[index + 1], &table->pending[index],
                (table->pending_count - index) * sizeof(*table->pending));
        table->pending[index] = (struct vd_blocktable_pending){ block, position };
        table->pending_count++;
        return 0;
}

int vd_blocktable_allocate(struct vd_blocktable *table, uint64_t block, struct vd_block *out, struct vd_error *err)
{
        uint64_t position, next;

        if (!vd_add(table->next, table->lead_bytes + table->align, &position) ||
            !vd_add(position, table->block_bytes, &next))
                return vd_fail(err, VD_EUNSUPPORTED, "no room for block %" PRIu64, block);
        position = vd_round_up(table->next + table->lead_bytes, table->align);
        if (position > table->reach)
                return vd_fail(err, VD_EUNSUPPORTED, "no room for block %" PRIu64 ": the %s cannot point past %" PRIu64,
                               block, table->type->what, table->reach);
        *out = (struct vd_block){ .kind = VD_DATA, .position = position };

        int rc = table->in_place ? pending_add(table, block, position, err) : vd_blocktable_set(table, block, out, err);

        if (rc < 0)
                return rc;
        table->next = position + table->block_bytes;
        return 0;
}

int vd_blocktable_publish(struct vd_blocktable *table, uint64_t block, bool *fresh, struct vd_error *err)
{
        size_t index;

        *fresh = is_pending(table, block, &index);
        if (!*fresh)
                return 0;

        struct vd_block value = { .kind = VD_DATA, .position = table->pending[index].position };
        int rc = vd_blocktable_set(table, block, &value, err);

        if (rc < 0)
                return rc;
        table->pending_count--;
        memmove(&table->pending[index], &table->pending[index + 1],
                (table->pending_count - index) * sizeof(*table->pending));
        return 0;
}

int vd_blocktable_set(struct vd_blocktable *table, uint64_t block, const struct vd_block *value, struct vd_error *err)
{
        void *raw = NULL;
        uint64_t run = 0, position = 0;
        int rc = entries_at(table, block, &raw, &run, &position, err);

        if (rc < 0)
                return rc;
        table->type->encode(table->owner, block, value, raw);
        vd_cache_dirty(table->cache, position);
        return 0;
}

/* Calls visit for every entry, except where none of many has data; bad: what decode said, or NULL. */
static int each_entry(struct vd_blocktable *table,
                      int (*visit)(struct vd_blocktable *, uint64_t block, uint64_t position, const struct vd_block *,
                                   const struct vd_error *bad, void *context, struct vd_error *),
                      void *context, struct vd_error *err)
{
        uint64_t block = 0;

        while (block < table->count) {
                void *raw = NULL;
                uint64_t run = 0, position = 0;
                int rc = entries_at(table, block, &raw, &run, &position, err);

                if (rc < 0)
                        return rc;
                for (uint64_t i = 0; i < run; i++) {
                        struct vd_error bad = VD_ERROR_INIT;
                        struct vd_block value;

                        rc = decode(table, block + i, (const char *)raw + i * table->type->entry_bytes, &value, &bad);
                        if (!i && !rc && is_empty_run(table, &value, raw, run))
                                break;
                        rc = visit(table, block + i, position + i * table->type->entry_bytes, &value,
                                   rc < 0 ? &bad : NULL, context, err);
                        if (rc < 0)
                                return rc;
                }
                block += run;
        }
        return 0;
}

static int refuse_bad(struct vd_blocktable *table, uint64_t block, uint64_t position, const struct vd_block *value,
                      const struct vd_error *bad, void *context, struct vd_error *err)
{
        (void)table, (void)block, (void)position, (void)value, (void)context;
        return bad ? vd_fail(err, bad->code, "%s", bad->text) : 0;
}

struct span {
        uint64_t start, end, block;
};

struct scan {
        struct span *spans;
        size_t count, room, most;
};

static int by_start(const void *a, const void *b)
{
        const struct span *p = a, *q = b;

        return p->start < q->start ? -1 : p->start > q->start;
}

static int scan_block(struct vd_blocktable *table, uint64_t block, uint64_t position, const struct vd_block *value,
                      const struct vd_error *bad, void *context, struct vd_error *err)
{
        struct scan *scan = context;
        uint64_t needed = bytes_of_block(table, block);

        (void)position;
        if (bad || value->kind != VD_DATA || !needed)
                return 0;
        if (scan->count == scan->most)
                return vd_fail(err, VD_ECORRUPT, "the %s has more than the %zu blocks that the file has room for: some "
                               "lie on others", table->type->what, scan->most);
        if (scan->count == scan->room) {
                size_t room = scan->room ? 2 * scan->room : 256;
                struct span *grown = reallocarray(scan->spans, room, sizeof(*grown));

                if (!grown)
                        return vd_fail(err, -ENOMEM, "no memory for %zu blocks", room);
                scan->spans = grown;
                scan->room = room;
        }
        scan->spans[scan->count++] = (struct span){ value->position - table->lead_bytes, value->position + needed,
                                                    block };
        return 0;
}

/* Fills `overlapping` from spans in ascending order. */
static int find_overlaps(struct vd_blocktable *table, const struct scan *scan, struct vd_error *err)
{
        size_t furthest = 0, count = 0;

        for (int pass = 0; pass < 2; pass++) {
                furthest = count = 0;
                for (size_t i = 1; i < scan->count; i++) {
                        if (scan->spans[i].start < scan->spans[furthest].end) {
                                if (pass) {
                                        table->overlapping[count] = scan->spans[i].block;
                                        table->overlapping[count + 1] = scan->spans[furthest].block;
                                }
                                count += 2;
                        }
                        if (scan->spans[i].end > scan->spans[furthest].end)
                                furthest = i;
                }
                if (!pass && !count)
                        return 0;
                if (!pass)
                        table->overlapping = calloc(count, sizeof(*table->overlapping));
                if (!table->overlapping)
                        return vd_fail(err, -ENOMEM, "no memory for %zu overlapping blocks", count);
        }
        qsort(table->overlapping, count, sizeof(*table->overlapping), by_number);
        table->overlap_count = count;
        return 0;
}

int vd_blocktable_scan(struct vd_blocktable *table, struct vd_error *err)
{
        uint64_t room = table->limit > table->start ? (table->limit - table->start) / table->block_bytes : 0;
        struct scan scan = { .most = (size_t)room + 2 };        /* the last block may be short, one may be off */
        int rc;

        if (table->scanned || room > VD_BLOCKTABLE_SCANNED || table->count / 32 > VD_BLOCKTABLE_SCANNED)
                return 0;
        rc = each_entry(table, scan_block, &scan, err);
        if (!rc && scan.count) {
                qsort(scan.spans, scan.count, sizeof(*scan.spans), by_start);
                rc = find_overlaps(table, &scan, err);
        }
        free(scan.spans);
        table->scanned = !rc;
        return rc;
}

int vd_blocktable_verify(struct vd_blocktable *table, struct vd_error *err)
{
        int rc = vd_blocktable_scan(table, err);

        return rc < 0 ? rc : each_entry(table, refuse_bad, NULL, err);
}

struct walk {
        struct vd_check *check;
        uint64_t expected;              /* where the next block would begin if nothing were fragmented */
};

static int walk_block(struct vd_blocktable *table, uint64_t block, uint64_t position, const struct vd_block *value,
                      const struct vd_error *bad, void *context, struct vd_error *err)
{
        struct walk *walk = context;
        struct vd_findings *findings = &walk->check->findings;
        uint64_t guest = block * table->block_bytes, guest_bytes = bytes_of_block(table, block);

        if (bad) {
                vd_find(findings, VD_ERROR, table->type->finding, position, table->type->entry_bytes,
                        guest_bytes ? guest : VD_NOWHERE, guest_bytes, false, "%s", bad->text);
                return 0;
        }
        if (value->kind != VD_DATA)
                return 0;

        uint64_t host = value->position - table->lead_bytes;
        uint64_t whole = table->lead_bytes + table->block_bytes;
        char what[48];

        snprintf(what, sizeof(what), "block %" PRIu64, block);
        findings->allocated_units++;
        if (walk->expected && (host < walk->expected || host - walk->expected >= table->align))
                findings->fragmented_units++;
        walk->expected = host + whole;

        /* Only the part of the last block past the disk's end may be missing, see decode(). */
        struct vd_region region = { .class = VD_CLASS_DATA, .position = host,
                                    .length = vd_min(whole, table->limit - host),
                                    .guest = guest_bytes ? guest : VD_NOWHERE, .what = what };

        return vd_check_region(walk->check, &region, err);
}

int vd_blocktable_walk(struct vd_blocktable *table, struct vd_check *check, struct vd_error *err)
{
        struct walk walk = { .check = check };

        check->findings.total_units += vd_div_up(table->disk_bytes, table->block_bytes);
        return each_entry(table, walk_block, &walk, err);
}

static bool bit_get(const uint8_t *bits, uint64_t i, bool msb_first)
{
        return bits[i / 8] & (msb_first ? 0x80 >> i % 8 : 1 << i % 8);
}

uint64_t vd_bits_run(const uint8_t *bits, uint64_t first, uint64_t end, bool msb_first, bool *set)
{
        uint64_t i = first;

        *set = bit_get(bits, first, msb_first);
        uint8_t same = *set ? 0xff : 0;

        while (i < end) {
                if (i % 8 == 0 && end - i >= 8 && bits[i / 8] == same) {
                        i += 8;
                        continue;
                }
                if (bit_get(bits, i, msb_first) != *set)
                        break;
                i++;
        }
        return i - first;
}

bool vd_bits_fill(uint8_t *bits, uint64_t first, uint64_t end, bool msb_first, bool value)
{
        bool changed = false;
        uint64_t i = first;

        while (i < end) {
                uint64_t step = i % 8 == 0 && end - i >= 8 ? 8 : 1;
                uint8_t mask = step == 8 ? 0xff : (uint8_t)(msb_first ? 0x80 >> i % 8 : 1 << i % 8);
                uint8_t old = bits[i / 8];

                bits[i / 8] = value ? old | mask : old & (uint8_t)~mask;
                changed |= bits[i / 8] != old;
                i += step;
        }
        return changed;
}
