// SPDX-License-Identifier: MIT
/* wrap_blocks.c: a file of packed blocks, read by random access.
 *
 * Some unpacked blocks are kept, the latest used ones.  Who reads a block that is not there unpacks it himself, others
 * who want the same one wait for him.  When somebody reads block after block, helpers unpack the next ones ahead.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file_ops.h"
#include "util/checked.h"
#include "wrap_private.h"

enum {
        HELPERS_MOST = 16,
        KEPT_BESIDES = 4,               /* blocks beyond those that helpers fill, where blocks are small */
};

enum state { EMPTY, LOADING, READY };

struct kept {
        enum state state;
        size_t block;
        char *bytes;                    /* as long as the longest block */
        unsigned readers;               /* who copies out of it now */
        uint64_t used;                  /* clock of the last use */
};

struct blocks_file {
        struct vd_file file;
        const struct vd_wrapper *wrapper;
        struct vd_file *base;
        struct vd_wrap_index index;
        uint64_t size;

        pthread_mutex_t lock;           /* protects all below */
        pthread_cond_t changed;         /* a block became ready or free; something to do for helpers */
        struct kept *kept;
        size_t kept_count;
        uint64_t clock;
        size_t last_block;              /* the furthest that was asked for */
        bool in_order;                  /* block after block is asked for */
        size_t ahead, ahead_end;        /* blocks that helpers shall unpack */
        unsigned helper_count;
        pthread_t helpers[HELPERS_MOST];
        bool closing;
};

static struct blocks_file *blocks(struct vd_file *f)
{
        return (struct blocks_file *)f;
}

static const struct blocks_file *blocks_const(const struct vd_file *f)
{
        return (const struct blocks_file *)f;
}

static size_t block_length(const struct blocks_file *b, size_t n)
{
        return (size_t)(b->index.blocks[n + 1].start - b->index.blocks[n].start);
}

static size_t find_block(const struct blocks_file *b, uint64_t position)
{
        size_t low = 0, high = b->index.count - 1;

        while (low < high) {
                size_t middle = low + (high - low + 1) / 2;

                if (b->index.blocks[middle].start <= position)
                        low = middle;
                else
                        high = middle - 1;
        }
        return low;
}

/* ---- under the lock ---- */

static struct kept *find_kept(struct blocks_file *b, size_t n)
{
        for (size_t i = 0; i < b->kept_count; i++)
                if (b->kept[i].state != EMPTY && b->kept[i].block == n)
                        return &b->kept[i];
        return NULL;
}

/* The one that was not used for the longest time; NULL when all are busy. */
static struct kept *find_victim(struct blocks_file *b)
{
        struct kept *best = NULL;

        for (size_t i = 0; i < b->kept_count; i++) {
                struct kept *k = &b->kept[i];

                if (k->state == LOADING || k->readers)
                        continue;
                if (k->state == EMPTY)
                        return k;
                if (!best || k->used < best->used)
                        best = k;
        }
        return best;
}

/* Unpacks block n into k; leaves the lock meanwhile. */
static int load(struct blocks_file *b, struct kept *k, size_t n, struct vd_error *err)
{
        int r = 0;

        k->state = LOADING;
        k->block = n;
        pthread_mutex_unlock(&b->lock);
        if (!k->bytes && !(k->bytes = malloc(b->index.longest)))
                r = vd_fail(err, -ENOMEM, "a block of %llu bytes", (unsigned long long)b->index.longest);
        if (!r)
                r = b->wrapper->unpack_block(b->base, &b->index.blocks[n], k->bytes, block_length(b, n), err);
        pthread_mutex_lock(&b->lock);
        k->state = r ? EMPTY : READY;
        k->used = ++b->clock;
        pthread_cond_broadcast(&b->changed);
        return r;
}

/* Waits for block n, or unpacks it. */
static int get(struct blocks_file *b, size_t n, struct kept **found, struct vd_error *err)
{
        for (;;) {
                struct kept *k = find_kept(b, n);

                if (k && k->state == READY) {
                        *found = k;
                        return 0;
                }
                if (!k && (k = find_victim(b))) {
                        int r = load(b, k, n, err);

                        if (r)
                                return r;
                        continue;
                }
                pthread_cond_wait(&b->changed, &b->lock);
        }
}

/* ---- helpers ---- */

static void *help(void *argument)
{
        struct blocks_file *b = argument;

        pthread_mutex_lock(&b->lock);
        while (!b->closing) {
                struct vd_error ignored = VD_ERROR_INIT;       /* who reads the block will see it too */
                struct kept *k = b->ahead < b->ahead_end ? find_victim(b) : NULL;

                if (!k) {
                        pthread_cond_wait(&b->changed, &b->lock);
                        continue;
                }
                if (find_kept(b, b->ahead))
                        b->ahead++;
                else
                        load(b, k, b->ahead++, &ignored);
        }
        pthread_mutex_unlock(&b->lock);
        return NULL;
}

static void start_helpers(struct blocks_file *b)
{
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        size_t most = vd_min(b->kept_count > KEPT_BESIDES ? b->kept_count - KEPT_BESIDES : 1, HELPERS_MOST);

        most = vd_min(most, processors > 0 ? (size_t)processors : 1);
        while (b->helper_count < most && !pthread_create(&b->helpers[b->helper_count], NULL, help, b))
                b->helper_count++;
}

/* Block n is wanted, at inside: are the next ones likely to be?  Several threads may read a little apart, so that nothing
 * is thrown away for the next block before this one is well begun. */
static void look_ahead(struct blocks_file *b, size_t n, uint64_t inside)
{
        size_t last = b->last_block;

        if (n > last || last - n > b->kept_count) {
                b->in_order = n == last + 1;
                b->last_block = n;
        }
        if (!b->in_order || n < last || inside < block_length(b, n) / 4)
                return;
        if (!b->helper_count)
                start_helpers(b);
        b->ahead = vd_max(b->ahead, n + 1);
        if (b->ahead > n + 1 + b->helper_count)         /* was elsewhere before */
                b->ahead = n + 1;
        b->ahead_end = vd_min(n + 1 + b->helper_count, b->index.count);
        pthread_cond_broadcast(&b->changed);
}

/* ---- the backend ---- */

static uint64_t blocks_size(const struct vd_file *f)
{
        return blocks_const(f)->size;
}

static uint64_t blocks_disk_bytes(const struct vd_file *f)
{
        return vd_file_disk_bytes(blocks_const(f)->base);
}

static int blocks_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                       struct vd_error *err)
{
        struct blocks_file *b = blocks(f);
        char *to = buffer;
        int r = 0;

        *got = 0;
        length = position < b->size ? vd_min(length, b->size - position) : 0;
        while (*got < length && !r) {
                size_t n = find_block(b, position);
                uint64_t inside = position - b->index.blocks[n].start;
                size_t part = vd_min(length - *got, block_length(b, n) - inside);
                struct kept *k;

                pthread_mutex_lock(&b->lock);
                look_ahead(b, n, inside);
                r = get(b, n, &k, err);
                if (!r) {
                        k->readers++;
                        pthread_mutex_unlock(&b->lock);
                        memcpy(to, k->bytes + inside, part);
                        pthread_mutex_lock(&b->lock);
                        k->used = ++b->clock;
                        if (!--k->readers)
                                pthread_cond_broadcast(&b->changed);
                        *got += part;
                        to += part;
                        position += part;
                }
                pthread_mutex_unlock(&b->lock);
        }
        return r ? vd_error_prefix(err, "%s", f->name) : 0;
}

static int blocks_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        (void)position;
        (void)err;
        *data = true;
        *end = blocks(f)->size;
        return 0;
}

static int blocks_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        return vd_file_check_unchanged(blocks_const(f)->base, err);
}

static bool blocks_is(const struct vd_file *f, const struct stat *st)
{
        return vd_file_is(blocks_const(f)->base, st);
}

static void blocks_close(struct vd_file *f)
{
        struct blocks_file *b = blocks(f);

        pthread_mutex_lock(&b->lock);
        b->closing = true;
        pthread_cond_broadcast(&b->changed);
        pthread_mutex_unlock(&b->lock);
        for (unsigned i = 0; i < b->helper_count; i++)
                pthread_join(b->helpers[i], NULL);
        for (size_t i = 0; i < b->kept_count; i++)
                free(b->kept[i].bytes);
        free(b->kept);
        free(b->index.blocks);
        vd_file_unref(b->base);
        pthread_mutex_destroy(&b->lock);
        pthread_cond_destroy(&b->changed);
        free(b);
}

static const struct vd_file_ops blocks_ops = {
        .size = blocks_size, .disk_bytes = blocks_disk_bytes, .read = blocks_read, .next = blocks_next,
        .check_unchanged = blocks_check_unchanged, .is = blocks_is, .close = blocks_close,
};

int vd_wrap_open_blocks(struct vd_file **out, const struct vd_wrapper *wrapper, struct vd_file *base,
                        struct vd_wrap_index *index, struct vd_error *err)
{
        struct blocks_file *b = calloc(1, sizeof(*b));
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        uint64_t most = VD_WRAP_MEMORY_MOST / index->longest;          /* 2 at least */

        if (b) {
                b->kept_count = vd_min(most,
                                       KEPT_BESIDES + vd_min(processors > 0 ? (size_t)processors : 1, HELPERS_MOST));
                b->kept = calloc(b->kept_count, sizeof(*b->kept));
        }
        if (!b || !b->kept || vd_file_init(&b->file, &blocks_ops, vd_file_name(base), false, err)) {
                if (b)
                        free(b->kept);
                free(b);
                free(index->blocks);
                return vd_fail(err, -ENOMEM, "%s", vd_file_name(base));
        }
        b->wrapper = wrapper;
        b->base = vd_file_ref(base);
        b->index = *index;
        b->size = index->blocks[index->count].start;
        pthread_mutex_init(&b->lock, NULL);
        pthread_cond_init(&b->changed, NULL);
        *out = &b->file;
        return 0;
}
