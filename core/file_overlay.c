// SPDX-License-Identifier: MIT
/* file_overlay.c: a file with changes that only memory knows.
 *
 * Changes are pieces, sorted by position, that never overlap: bytes, or a run of zeros however long.  Their number has
 * a bound, so that a hostile image can neither fill the memory nor make the sorted array slow.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "file_ops.h"
#include "util/checked.h"

enum {
        PIECES_MAX = 32768,
        PIECE_BYTES = 4096,             /* longest piece of bytes: longer writes become several */
};

struct piece {
        uint64_t start, end;
        uint8_t *bytes;                 /* NULL: zeros */
};

struct overlay_file {
        struct vd_file file;
        struct vd_file *base;
        struct piece *pieces;
        size_t count, room;
        uint64_t size;                  /* UINT64_MAX: that of the base */
        uint64_t base_end;              /* what the base has from here on was cut off */
};

static struct overlay_file *overlay(struct vd_file *f)
{
        return (struct overlay_file *)f;
}

static const struct overlay_file *overlay_const(const struct vd_file *f)
{
        return (const struct overlay_file *)f;
}

static uint64_t overlay_size(const struct vd_file *f)
{
        const struct overlay_file *o = overlay_const(f);

        return o->size == UINT64_MAX ? vd_file_size(o->base) : o->size;
}

static uint64_t overlay_disk_bytes(const struct vd_file *f)
{
        return vd_file_disk_bytes(overlay_const(f)->base);
}

/* The first piece that ends behind position. */
static size_t piece_at(const struct overlay_file *o, uint64_t position)
{
        size_t low = 0, high = o->count;

        if (high && o->pieces[high - 1].end <= position)
                return high;            /* the usual case: changes come in order */
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (o->pieces[middle].end <= position)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static int read_base(struct overlay_file *o, char *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        uint64_t inside = position < o->base_end ? vd_min(length, o->base_end - position) : 0;
        size_t got = 0;
        int r = inside ? vd_file_read_some(o->base, buffer, inside, position, &got, err) : 0;

        if (!r)
                memset(buffer + got, 0, length - got);
        return r;
}

static int overlay_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                        struct vd_error *err)
{
        struct overlay_file *o = overlay(f);
        uint64_t size = overlay_size(f), end;
        char *to = buffer;

        *got = position < size ? vd_min(length, size - position) : 0;
        end = position + *got;
        for (size_t i = piece_at(o, position); position < end; i++) {
                const struct piece *p = i < o->count ? &o->pieces[i] : NULL;
                uint64_t stop = p ? vd_min(p->start, end) : end;

                if (position < stop) {
                        int r = read_base(o, to, stop - position, position, err);

                        if (r)
                                return r;
                        to += stop - position;
                        position = stop;
                }
                if (p && position < end) {
                        uint64_t n = vd_min(p->end, end) - position;

                        if (p->bytes)
                                memcpy(to, p->bytes + (position - p->start), n);
                        else
                                memset(to, 0, n);
                        to += n;
                        position += n;
                }
        }
        return 0;
}

/* Room for two pieces more: a change in the middle of one splits it. */
static int make_room(struct overlay_file *o, struct vd_error *err)
{
        size_t room = o->room ? o->room * 2 : 64;
        struct piece *pieces;

        if (o->count + 2 > PIECES_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: more than %d changes are not kept in memory", o->file.name,
                               PIECES_MAX);
        if (o->count + 2 <= o->room)
                return 0;
        pieces = realloc(o->pieces, room * sizeof(*pieces));
        if (!pieces)
                return vd_fail(err, -ENOMEM, "%s: %zu changes in memory", o->file.name, room);
        o->pieces = pieces;
        o->room = room;
        return 0;
}

static void insert(struct overlay_file *o, size_t i, struct piece p)
{
        memmove(&o->pieces[i + 1], &o->pieces[i], (o->count - i) * sizeof(*o->pieces));
        o->pieces[i] = p;
        o->count++;
}

/* Takes [start, end) out of the pieces.  Needs room for one more. */
static int clear(struct overlay_file *o, uint64_t start, uint64_t end, struct vd_error *err)
{
        size_t first = piece_at(o, start), i = first;
        struct piece *p = first < o->count ? &o->pieces[first] : NULL;

        if (p && p->start < start && p->end > end) {
                struct piece rest = { end, p->end, NULL };

                if (p->bytes) {
                        rest.bytes = malloc(rest.end - rest.start);
                        if (!rest.bytes)
                                return vd_fail(err, -ENOMEM, "%s: a change in memory", o->file.name);
                        memcpy(rest.bytes, p->bytes + (end - p->start), rest.end - rest.start);
                }
                p->end = start;
                insert(o, first + 1, rest);
                return 0;
        }
        if (p && p->start < start) {
                p->end = start;
                i = ++first;
        }
        for (; i < o->count && o->pieces[i].end <= end; i++)
                free(o->pieces[i].bytes);
        memmove(&o->pieces[first], &o->pieces[i], (o->count - i) * sizeof(*o->pieces));
        o->count -= i - first;
        p = first < o->count ? &o->pieces[first] : NULL;
        if (p && p->start < end) {
                if (p->bytes)
                        memmove(p->bytes, p->bytes + (end - p->start), p->end - end);
                p->start = end;
        }
        return 0;
}

static void grow(struct overlay_file *o, uint64_t end)
{
        if (end > overlay_size(&o->file))
                o->size = end;
}

/* One piece: bytes, or zeros when NULL. */
static int change(struct overlay_file *o, const void *bytes, uint64_t length, uint64_t position, struct vd_error *err)
{
        struct piece p = { position, position + length, NULL };
        int r = make_room(o, err);

        if (!r && bytes) {
                p.bytes = malloc(length);
                r = p.bytes ? 0 : vd_fail(err, -ENOMEM, "%s: a change in memory", o->file.name);
        }
        if (!r)
                r = clear(o, p.start, p.end, err);
        if (r) {
                free(p.bytes);
                return r;
        }
        if (bytes)
                memcpy(p.bytes, bytes, length);
        insert(o, piece_at(o, position), p);
        grow(o, p.end);
        return 0;
}

static int overlay_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        const char *from = buffer;
        int r = 0;

        while (length && !r) {
                size_t n = vd_min(length, PIECE_BYTES - position % PIECE_BYTES);

                r = change(overlay(f), from, n, position, err);
                from += n;
                position += n;
                length -= n;
        }
        return r;
}

static int overlay_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return change(overlay(f), NULL, length, position, err);
}

static int overlay_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        (void)err;
        grow(overlay(f), position + length);
        return 0;
}

static int overlay_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        struct overlay_file *o = overlay(f);
        int r = make_room(o, err);

        if (!r)
                r = clear(o, size, UINT64_MAX, err);
        if (r)
                return r;
        o->base_end = vd_min(o->base_end, size);
        o->size = size;
        return 0;
}

static int overlay_sync(struct vd_file *f, struct vd_error *err)
{
        (void)f;
        (void)err;
        return 0;
}

static int overlay_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        struct overlay_file *o = overlay(f);
        size_t i = piece_at(o, position);
        uint64_t limit = overlay_size(f), base_size = vd_min(vd_file_size(o->base), o->base_end);

        if (i < o->count && o->pieces[i].start <= position) {
                *data = o->pieces[i].bytes != NULL;
                *end = vd_min(o->pieces[i].end, limit);
                return 0;
        }
        if (i < o->count)
                limit = vd_min(limit, o->pieces[i].start);
        if (position < base_size) {
                int r = vd_file_next(o->base, position, data, end, err);

                *end = vd_min(*end, vd_min(limit, base_size));
                return r;
        }
        *data = false;
        *end = limit;
        return 0;
}

static int overlay_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        return vd_file_check_unchanged(overlay_const(f)->base, err);
}

static bool overlay_is(const struct vd_file *f, const struct stat *st)
{
        return vd_file_is(overlay_const(f)->base, st);
}

static void overlay_close(struct vd_file *f)
{
        struct overlay_file *o = overlay(f);

        vd_file_overlay_forget(f);
        vd_file_unref(o->base);
        free(o->pieces);
        free(o);
}

static const struct vd_file_ops overlay_ops = {
        .size = overlay_size, .disk_bytes = overlay_disk_bytes, .read = overlay_read, .write = overlay_write,
        .zero = overlay_zero, .allocate = overlay_allocate, .truncate = overlay_truncate, .sync = overlay_sync,
        .next = overlay_next, .check_unchanged = overlay_check_unchanged, .is = overlay_is, .close = overlay_close,
};

int vd_file_overlay(struct vd_file **out, struct vd_file *base, struct vd_error *err)
{
        struct overlay_file *o = calloc(1, sizeof(*o));

        if (!o || vd_file_init(&o->file, &overlay_ops, vd_file_name(base), true, err)) {
                free(o);
                return vd_fail(err, -ENOMEM, "%s", vd_file_name(base));
        }
        o->base = vd_file_ref(base);
        o->size = o->base_end = UINT64_MAX;
        *out = &o->file;
        return 0;
}

size_t vd_file_overlay_count(const struct vd_file *f)
{
        return overlay_const(f)->count;
}

void vd_file_overlay_piece(const struct vd_file *f, size_t i, uint64_t *position, uint64_t *length, const void **bytes)
{
        const struct piece *p = &overlay_const(f)->pieces[i];

        *position = p->start;
        *length = p->end - p->start;
        *bytes = p->bytes;
}

void vd_file_overlay_forget(struct vd_file *f)
{
        struct overlay_file *o = overlay(f);

        for (size_t i = 0; i < o->count; i++)
                free(o->pieces[i].bytes);
        o->count = 0;
        o->size = o->base_end = UINT64_MAX;
}
