// SPDX-License-Identifier: MIT
/* cache.c: a hash of pages with a least-recently-used list. */
#include "cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

struct page {
        uint64_t number;                /* position = origin + number * page_bytes */
        struct page *hash_next;
        struct page *newer, *older;     /* all pages, by last use */
        bool dirty;
        unsigned char bytes[];
};

struct vd_cache {
        struct vd_file *file;
        uint64_t origin;
        size_t page_bytes, max_pages, count, dirty_count;
        bool pin_dirty, allow_short;
        uint8_t short_fill;
        struct page *newest, *oldest;
        struct page *last;              /* the page of the previous call: most calls ask for it again */
        size_t buckets;                 /* a power of two */
        struct page **hash;
};

struct vd_cache *vd_cache_new(struct vd_file *file, uint64_t origin, size_t page_bytes, size_t max_pages,
                              bool pin_dirty)
{
        struct vd_cache *c = calloc(1, sizeof(*c));

        if (!c)
                return NULL;
        c->buckets = 16;
        while (c->buckets < max_pages)
                c->buckets *= 2;
        c->hash = calloc(c->buckets, sizeof(*c->hash));
        if (!c->hash) {
                free(c);
                return NULL;
        }
        c->file = vd_file_ref(file);
        c->origin = origin;
        c->page_bytes = page_bytes;
        c->max_pages = max_pages < 4 ? 4 : max_pages;
        c->pin_dirty = pin_dirty;
        return c;
}

void vd_cache_free(struct vd_cache *c)
{
        if (!c)
                return;
        for (struct page *p = c->newest, *older; p; p = older) {
                older = p->older;
                free(p);
        }
        vd_file_unref(c->file);
        free(c->hash);
        free(c);
}

void vd_cache_allow_short(struct vd_cache *c, uint8_t fill)
{
        c->allow_short = true;
        c->short_fill = fill;
}

static struct page **bucket(struct vd_cache *c, uint64_t number)
{
        return &c->hash[(number * 0x9E3779B97F4A7C15u >> 32) & (c->buckets - 1)];
}

static void unlink_use(struct vd_cache *c, struct page *p)
{
        *(p->newer ? &p->newer->older : &c->newest) = p->older;
        *(p->older ? &p->older->newer : &c->oldest) = p->newer;
}

static void link_newest(struct vd_cache *c, struct page *p)
{
        p->newer = NULL;
        p->older = c->newest;
        *(c->newest ? &c->newest->newer : &c->oldest) = p;
        c->newest = p;
}

static void discard(struct vd_cache *c, struct page *p)
{
        struct page **at = bucket(c, p->number);

        while (*at != p)
                at = &(*at)->hash_next;
        *at = p->hash_next;
        unlink_use(c, p);
        if (c->last == p)
                c->last = NULL;
        c->count--;
        c->dirty_count -= p->dirty;
        free(p);
}

static struct page *find(struct vd_cache *c, uint64_t number)
{
        struct page *p;

        if (c->last && c->last->number == number)
                return c->last;
        for (p = *bucket(c, number); p && p->number != number; p = p->hash_next)
                ;
        if (p) {
                unlink_use(c, p);
                link_newest(c, p);
                c->last = p;
        }
        return p;
}

static int write_page(struct vd_cache *c, struct page *p, struct vd_error *err)
{
        int r = vd_file_write(c->file, p->bytes, c->page_bytes, c->origin + p->number * c->page_bytes, err);

        if (!r) {
                p->dirty = false;
                c->dirty_count--;
        }
        return r;
}

/* Makes room for one page more: the oldest clean page goes; when most are dirty they are all written first, in the
 * order of the file. */
static int make_room(struct vd_cache *c, struct vd_error *err)
{
        struct page *p, *newer;

        if (c->count < c->max_pages)
                return 0;
        if (!c->pin_dirty && c->dirty_count > c->max_pages / 2) {
                int r = vd_cache_flush(c, err);

                if (r)
                        return r;
        }
        for (p = c->oldest; p && c->count >= c->max_pages; p = newer) {
                newer = p->newer;
                if (!p->dirty)
                        discard(c, p);
        }
        return 0;
}

static struct page *add_page(struct vd_cache *c, uint64_t number, struct vd_error *err)
{
        struct page *p;

        if (make_room(c, err))
                return NULL;
        p = malloc(sizeof(*p) + c->page_bytes);
        if (!p) {
                vd_fail(err, -ENOMEM, "a table page of %zu bytes", c->page_bytes);
                return NULL;
        }
        p->number = number;
        p->dirty = false;
        p->hash_next = *bucket(c, number);
        *bucket(c, number) = p;
        link_newest(c, p);
        c->count++;
        c->last = p;
        return p;
}

static int read_page(struct vd_cache *c, struct page *p, struct vd_error *err)
{
        uint64_t position = c->origin + p->number * c->page_bytes;
        size_t got;
        int r = vd_file_read_some(c->file, p->bytes, c->page_bytes, position, &got, err);

        if (r)
                return r;
        if (got < c->page_bytes && !c->allow_short)
                return vd_fail(err, VD_ECORRUPT, "%s: table at %" PRIu64 ": the file ends at %" PRIu64
                               ", expected %zu bytes", vd_file_name(c->file), position, vd_file_size(c->file),
                               c->page_bytes);
        memset(p->bytes + got, c->short_fill, c->page_bytes - got);
        return 0;
}

int vd_cache_get(struct vd_cache *c, uint64_t position, void **bytes, struct vd_error *err)
{
        uint64_t number = (position - c->origin) / c->page_bytes;
        struct page *p = find(c, number);

        if (!p) {
                int r;

                p = add_page(c, number, err);
                if (!p)
                        return err->code;
                r = read_page(c, p, err);
                if (r) {
                        discard(c, p);
                        return r;
                }
        }
        *bytes = p->bytes + (position - c->origin) % c->page_bytes;
        return 0;
}

int vd_cache_get_new(struct vd_cache *c, uint64_t position, uint8_t fill, void **bytes, struct vd_error *err)
{
        uint64_t number = (position - c->origin) / c->page_bytes;
        struct page *p = find(c, number);

        if (!p)
                p = add_page(c, number, err);
        if (!p)
                return err->code;
        memset(p->bytes, fill, c->page_bytes);
        if (!p->dirty)
                c->dirty_count++;
        p->dirty = true;
        *bytes = p->bytes + (position - c->origin) % c->page_bytes;
        return 0;
}

void vd_cache_dirty(struct vd_cache *c, uint64_t position)
{
        struct page *p = find(c, (position - c->origin) / c->page_bytes);

        if (p && !p->dirty) {
                p->dirty = true;
                c->dirty_count++;
        }
}

bool vd_cache_is_dirty(const struct vd_cache *c)
{
        return c->dirty_count > 0;
}

static int by_number(const void *a, const void *b)
{
        const struct page *const *p = a, *const *q = b;

        return (*p)->number < (*q)->number ? -1 : (*p)->number > (*q)->number;
}

int vd_cache_flush(struct vd_cache *c, struct vd_error *err)
{
        struct page **dirty;
        size_t n = 0;
        int r = 0;

        if (!c->dirty_count)
                return 0;
        dirty = malloc(c->dirty_count * sizeof(*dirty));
        if (!dirty)
                return vd_fail(err, -ENOMEM, "writing tables");
        for (struct page *p = c->newest; p; p = p->older)
                if (p->dirty)
                        dirty[n++] = p;
        qsort(dirty, n, sizeof(*dirty), by_number);
        for (size_t i = 0; i < n && !r; i++)
                r = write_page(c, dirty[i], err);
        free(dirty);
        return r;
}

void vd_cache_drop(struct vd_cache *c, uint64_t position, uint64_t length)
{
        for (struct page *p = c->newest, *older; p; p = older) {
                uint64_t start = c->origin + p->number * c->page_bytes;

                older = p->older;
                if (start < position + length && start + c->page_bytes > position)
                        discard(c, p);
        }
}
