// SPDX-License-Identifier: MIT
/* file_record.c: a file that exists only as far as it must: see vd_file_record().
 *
 * Written bytes are kept in pages, found through a hash table.  A page that holds one byte over and over (most of what
 * fills tables and bitmaps) is not stored; other pages take slots, of which the first MEMORY_SLOTS lie in memory and
 * the rest in a temporary file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "file_ops.h"
#include "spool.h"
#include "util/checked.h"
#include "util/iszero.h"

enum {
        PAGE = 512,
        BLOCK_SLOTS = 2048,             /* memory is taken in blocks of 1 MiB ... */
        MEMORY_BLOCKS = 24,             /* ... of which there are so many */
        MEMORY_SLOTS = BLOCK_SLOTS * MEMORY_BLOCKS,
        FIRST_ROOM = 1024,
};

#define FILLED 0xFFFFFF00u              /* a slot from here on: no slot, but a page full of the lowest byte */

struct page {
        uint64_t number;                /* position / PAGE */
        uint32_t slot;
        bool used;
};

struct record_file {
        struct vd_file file;
        uint64_t size;
        struct page *pages;             /* open addressing; room is a power of two */
        size_t count, room;
        uint8_t *blocks[MEMORY_BLOCKS];
        uint32_t slots;                 /* taken so far */
        struct vd_file *spool;          /* slots from MEMORY_SLOTS on */
        bool allocated;
};

static struct record_file *record(struct vd_file *f)
{
        return (struct record_file *)f;
}

static const struct record_file *record_const(const struct vd_file *f)
{
        return (const struct record_file *)f;
}

static uint64_t record_size(const struct vd_file *f)
{
        return record_const(f)->size;
}

/* ---- pages ---- */

static struct page *find(const struct record_file *rec, uint64_t number)
{
        size_t i = (size_t)((number * 0x9E3779B97F4A7C15u) >> 20) & (rec->room - 1);

        while (rec->pages[i].used && rec->pages[i].number != number)
                i = (i + 1) & (rec->room - 1);
        return &rec->pages[i];
}

static int make_room(struct record_file *rec, struct vd_error *err)
{
        struct page *old = rec->pages;
        size_t old_room = rec->room;

        if (rec->count < old_room / 4 * 3)
                return 0;
        rec->room = old_room ? old_room * 2 : FIRST_ROOM;
        rec->pages = calloc(rec->room, sizeof(*rec->pages));
        if (!rec->pages) {
                rec->pages = old;
                rec->room = old_room;
                return vd_fail(err, -ENOMEM, "%s: %zu pages of tables", rec->file.name, rec->count);
        }
        for (size_t i = 0; i < old_room; i++)
                if (old[i].used)
                        *find(rec, old[i].number) = old[i];
        free(old);
        return 0;
}

static int load(struct record_file *rec, const struct page *p, uint8_t bytes[PAGE], struct vd_error *err)
{
        if (!p->used)
                memset(bytes, 0, PAGE);
        else if (p->slot >= FILLED)
                memset(bytes, (int)(p->slot & 0xFF), PAGE);
        else if (p->slot < MEMORY_SLOTS)
                memcpy(bytes, rec->blocks[p->slot / BLOCK_SLOTS] + p->slot % BLOCK_SLOTS * PAGE, PAGE);
        else
                return vd_file_read(rec->spool, bytes, PAGE, (uint64_t)(p->slot - MEMORY_SLOTS) * PAGE, err);
        return 0;
}

static int take_slot(struct record_file *rec, uint32_t *slot, struct vd_error *err)
{
        uint32_t n = rec->slots;
        int r;

        if (n == FILLED)
                return vd_fail(err, -EFBIG, "%s: tables of more than %" PRIu64 " bytes", rec->file.name,
                               (uint64_t)FILLED * PAGE);
        if (n < MEMORY_SLOTS && n % BLOCK_SLOTS == 0) {
                rec->blocks[n / BLOCK_SLOTS] = malloc((size_t)BLOCK_SLOTS * PAGE);
                if (!rec->blocks[n / BLOCK_SLOTS])
                        return vd_fail(err, -ENOMEM, "%s: tables", rec->file.name);
        }
        if (n == MEMORY_SLOTS) {
                r = vd_spool_new(&rec->spool, rec->file.name, err);
                if (r)
                        return r;
        }
        *slot = rec->slots++;
        return 0;
}

static bool is_filled(const uint8_t bytes[PAGE])
{
        return !memcmp(bytes, bytes + 1, PAGE - 1);
}

static int store(struct record_file *rec, struct page *p, const uint8_t bytes[PAGE], struct vd_error *err)
{
        int r = 0;

        if ((!p->used || p->slot >= FILLED) && is_filled(bytes)) {
                p->slot = FILLED | bytes[0];
                return 0;
        }
        if (!p->used || p->slot >= FILLED)
                r = take_slot(rec, &p->slot, err);
        if (r)
                return r;
        if (p->slot >= MEMORY_SLOTS)
                return vd_file_write(rec->spool, bytes, PAGE, (uint64_t)(p->slot - MEMORY_SLOTS) * PAGE, err);
        memcpy(rec->blocks[p->slot / BLOCK_SLOTS] + p->slot % BLOCK_SLOTS * PAGE, bytes, PAGE);
        return 0;
}

/* Changes part of one page: bytes NULL for zeros.  A page that was never written is zeros already. */
static int change(struct record_file *rec, const uint8_t *bytes, size_t length, uint64_t position, struct vd_error *err)
{
        uint8_t page[PAGE];
        struct page *p;
        int r = make_room(rec, err);

        if (r)
                return r;
        p = find(rec, position / PAGE);
        if (!p->used && (!bytes || vd_is_zero(bytes, length)))
                return 0;
        r = load(rec, p, page, err);
        if (r)
                return r;
        if (bytes)
                memcpy(page + position % PAGE, bytes, length);
        else
                memset(page + position % PAGE, 0, length);
        r = store(rec, p, page, err);
        if (!r && !p->used) {
                p->used = true;
                p->number = position / PAGE;
                rec->count++;
        }
        return r;
}

/* ---- the backend ---- */

static int record_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                       struct vd_error *err)
{
        struct record_file *rec = record(f);
        uint8_t *to = buffer, page[PAGE];

        *got = position < rec->size ? vd_min(length, rec->size - position) : 0;
        for (size_t left = *got; left; ) {
                size_t inside = position % PAGE, n = vd_min(left, PAGE - inside);
                int r = 0;

                if (!rec->room)
                        memset(page, 0, PAGE);
                else
                        r = load(rec, find(rec, position / PAGE), page, err);
                if (r)
                        return r;
                memcpy(to, page + inside, n);
                to += n;
                position += n;
                left -= n;
        }
        return 0;
}

static int record_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        const uint8_t *from = buffer;

        record(f)->size = vd_max(record(f)->size, position + length);
        while (length) {
                size_t n = vd_min(length, PAGE - position % PAGE);
                int r = change(record(f), from, n, position, err);

                if (r)
                        return r;
                from += n;
                position += n;
                length -= n;
        }
        return 0;
}

/* Long ranges are cheaper page by page of what there is than of what there could be. */
static int clear_pages(struct record_file *rec, uint64_t first, uint64_t end, struct vd_error *err)
{
        static const uint8_t zeros[PAGE];
        int r = 0;

        if (end - first < rec->room) {
                for (uint64_t n = first; n < end && !r; n++)
                        r = change(rec, NULL, PAGE, n * PAGE, err);
                return r;
        }
        for (size_t i = 0; i < rec->room && !r; i++)
                if (rec->pages[i].used && rec->pages[i].number >= first && rec->pages[i].number < end)
                        r = store(rec, &rec->pages[i], zeros, err);
        return r;
}

static int clear(struct record_file *rec, uint64_t start, uint64_t end, struct vd_error *err)
{
        uint64_t first = vd_round_up(start, PAGE), last = vd_round_down(end, PAGE);
        int r = 0;

        if (first > last)
                return change(rec, NULL, end - start, start, err);
        if (start < first)
                r = change(rec, NULL, first - start, start, err);
        if (!r && last < end)
                r = change(rec, NULL, end - last, last, err);
        return r ? r : clear_pages(rec, first / PAGE, last / PAGE, err);
}

static int record_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        struct record_file *rec = record(f);
        uint64_t end = vd_min(position + length, rec->size);
        int r = position < end ? clear(rec, position, end, err) : 0;

        rec->size = vd_max(rec->size, position + length);
        return r;
}

static int record_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        (void)err;
        record(f)->allocated = true;
        record(f)->size = vd_max(record(f)->size, position + length);
        return 0;
}

static int record_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        struct record_file *rec = record(f);
        int r = size < rec->size ? clear(rec, size, rec->size, err) : 0;

        rec->size = size;
        return r;
}

static int record_sync(struct vd_file *f, struct vd_error *err)
{
        (void)f;
        (void)err;
        return 0;
}

static int record_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        (void)position;
        (void)err;
        *data = true;
        *end = record(f)->size;
        return 0;
}

static bool record_is(const struct vd_file *f, const struct stat *st)
{
        (void)f;
        (void)st;
        return false;
}

static void record_close(struct vd_file *f)
{
        struct record_file *rec = record(f);

        for (size_t i = 0; i < MEMORY_BLOCKS; i++)
                free(rec->blocks[i]);
        vd_file_unref(rec->spool);
        free(rec->pages);
        free(rec);
}

static const struct vd_file_ops record_ops = {
        .size = record_size, .disk_bytes = record_size, .read = record_read, .write = record_write,
        .zero = record_zero, .allocate = record_allocate, .truncate = record_truncate, .sync = record_sync,
        .next = record_next, .is = record_is, .close = record_close,
};

int vd_file_record(struct vd_file **out, const char *name, struct vd_error *err)
{
        struct record_file *rec = calloc(1, sizeof(*rec));

        if (!rec || vd_file_init(&rec->file, &record_ops, name, true, err)) {
                free(rec);
                return vd_fail(err, -ENOMEM, "%s", name);
        }
        *out = &rec->file;
        return 0;
}

void vd_file_record_grow(struct vd_file *f, uint64_t end)
{
        record(f)->size = vd_max(record(f)->size, end);
}

bool vd_file_record_allocated(const struct vd_file *f)
{
        return record_const(f)->allocated;
}
