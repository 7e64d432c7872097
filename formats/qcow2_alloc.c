// SPDX-License-Identifier: MIT
/* qcow2_alloc.c: reference counts, and finding free clusters by them.
 *
 * The search is next-fit: a cursor moves through the counts and every count is looked at once, until it comes back for
 * clusters that were freed behind it.  Where no refcount block exists yet, everything is free; new blocks (and a bigger
 * table of blocks) are laid right there, before what they are needed for.
 *
 * Order on disk, for an image that is changed in place: counts go up before anything refers to the clusters
 * (qcow2_settle), and down after nothing does any more (qcow2_apply_released); a new block is complete before the table
 * names it, a new table before the header does.
 */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

uint64_t qcow2_count_at(const void *block, uint64_t i, unsigned order)
{
        const uint8_t *b = block;
        be64 v64;

        switch (order) {
        case 3:
                return b[i];
        case 4:
                return (uint64_t)(b[2 * i] << 8 | b[2 * i + 1]);
        case 5:
                return be32_get(((const be32 *)block)[i]);
        case 6:
                memcpy(&v64, b + 8 * i, 8);
                return be64_get(v64);
        }
        /* 1, 2 or 4 bits, the first in the lowest */
        return b[i >> (3 - order)] >> (i << order & 7) & ((1u << (1 << order)) - 1);
}

static void put_count(void *block, uint64_t i, unsigned order, uint64_t count)
{
        uint8_t *b = block;
        unsigned shift = (unsigned)(i << order & 7), mask;

        switch (order) {
        case 3:
                b[i] = (uint8_t)count;
                return;
        case 4:
                ((be16 *)block)[i] = be16_put((uint16_t)count);
                return;
        case 5:
                ((be32 *)block)[i] = be32_put((uint32_t)count);
                return;
        case 6:
                ((be64 *)block)[i] = be64_put(count);
                return;
        }
        mask = (1u << (1 << order)) - 1;
        b += i >> (3 - order);
        *b = (uint8_t)((*b & ~(mask << shift)) | (unsigned)count << shift);
}

int qcow2_block_position(struct qcow2 *q, uint64_t index, uint64_t *position, struct vd_error *err)
{
        be64 *entry;
        uint64_t e;
        int r;

        *position = 0;
        if (index >= q->reftable_entries)
                return 0;
        r = vd_cache_get(q->reftable, q->reftable_position + index * 8, (void **)&entry, err);
        if (r)
                return r;
        e = be64_get(*entry);
        if (e % q->cluster)
                return vd_fail(err, VD_ECORRUPT, "refcount table at %" PRIu64 ": entry %" PRIu64 " is 0x%016" PRIx64
                               ", not a multiple of the cluster size %" PRIu64, q->reftable_position, index, e,
                               q->cluster);
        *position = e;
        return 0;
}

/* The bytes that hold the count of cluster i and, *in_page of them, those that follow in the same page of its block.
 * *bytes = NULL where there is no block.  *base: number of the first count in *bytes. */
static int count_page(struct qcow2 *q, uint64_t i, uint8_t **bytes, uint64_t *base, uint64_t *in_page,
                      uint64_t *position, struct vd_error *err)
{
        uint64_t page = vd_min(q->cluster, 32 << 10), per_page = page * 8 >> q->refcount_order, block;
        uint64_t in_block = i % q->per_block;
        int r = qcow2_block_position(q, i / q->per_block, &block, err);

        *bytes = NULL;
        if (r || !block)
                return r;
        *position = block + in_block / per_page * page;
        *base = i - in_block % per_page;
        *in_page = per_page - in_block % per_page;
        return vd_cache_get(q->blocks, *position, (void **)bytes, err);
}

int qcow2_count(struct qcow2 *q, uint64_t i, uint64_t *count, struct vd_error *err)
{
        uint64_t base, in_page, position;
        uint8_t *bytes;
        int r = count_page(q, i, &bytes, &base, &in_page, &position, err);

        *count = !r && bytes ? qcow2_count_at(bytes, i - base, q->refcount_order) : 0;
        return r;
}

/* Nobody uses cluster i any more. */
static void note_free(struct qcow2 *q, uint64_t i)
{
        if (i < q->cursor) {
                q->reusable_first = q->reusable ? vd_min(q->reusable_first, i) : i;
                q->reusable++;
        }
        if (q->packed_end >> q->cluster_bits == i)      /* the next packed unit must not follow into somebody's data */
                q->packed_end = 0;
}

int qcow2_count_change(struct qcow2 *q, uint64_t first, uint64_t count, int by, struct vd_error *err)
{
        while (count) {
                uint64_t base, in_page, position, n;
                uint8_t *bytes;
                int r = count_page(q, first, &bytes, &base, &in_page, &position, err);

                if (r)
                        return r;
                if (!bytes)
                        return vd_fail(err, VD_ECORRUPT, "cluster %" PRIu64 " is in use, but its reference count does "
                                       "not exist", first);
                n = vd_min(count, in_page);
                for (uint64_t i = first; i < first + n; i++) {
                        uint64_t now = qcow2_count_at(bytes, i - base, q->refcount_order);

                        if (by > 0 ? now == q->max_count : now == 0)
                                return vd_fail(err, VD_ECORRUPT, "the reference count %" PRIu64 " of cluster %" PRIu64
                                               " cannot go %s", now, i, by > 0 ? "up" : "down");
                        put_count(bytes, i - base, q->refcount_order, by > 0 ? now + 1 : now - 1);
                        if (by < 0 && now == 1)
                                note_free(q, i);
                }
                vd_cache_dirty(q->blocks, position);
                first += n;
                count -= n;
        }
        return 0;
}

/* Fills the clusters of a new table or block with zeros, in the cache. */
static int clear_clusters(struct qcow2 *q, struct vd_cache *cache, uint64_t position, uint64_t clusters, size_t page,
                          struct vd_error *err)
{
        for (uint64_t at = position; at < position + clusters * q->cluster; at += page) {
                void *bytes;
                int r = vd_cache_get_new(cache, at, 0, &bytes, err);

                if (r)
                        return r;
        }
        return 0;
}

static int set_block(struct qcow2 *q, uint64_t table, uint64_t index, uint64_t position, struct vd_error *err)
{
        be64 *entry;
        int r = vd_cache_get(q->reftable, table + index * 8, (void **)&entry, err);

        if (r)
                return r;
        *entry = be64_put(position);
        vd_cache_dirty(q->reftable, table + index * 8);
        return 0;
}

static int copy_table(struct qcow2 *q, uint64_t to, struct vd_error *err)
{
        for (uint64_t i = 0; i < q->reftable_entries; i++) {
                uint64_t position;
                int r = qcow2_block_position(q, i, &position, err);

                if (!r && position)
                        r = set_block(q, to, i, position, err);
                if (r)
                        return r;
        }
        return 0;
}

int qcow2_settle(struct vd_image *img, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        int r = vd_cache_flush(q->blocks, err);

        if (r || !vd_cache_is_dirty(q->reftable))
                return r;
        r = vd_image_barrier(img, img->file, err);
        return r ? r : vd_cache_flush(q->reftable, err);
}

/* The header's pointer to the refcount table, in one write: the new table is on disk. */
static int switch_table(struct vd_image *img, uint64_t position, uint64_t clusters, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t old = q->reftable_position, old_bytes = q->reftable_entries * 8;
        struct { be64 position; be32 clusters; } pointer = { be64_put(position), be32_put((uint32_t)clusters) };
        int r;

        static_assert(sizeof(pointer) == 12, "refcount table pointer");
        if (!img->is_new) {
                r = qcow2_settle(img, err);
                if (!r)
                        r = vd_image_barrier(img, img->file, err);
                if (!r)
                        r = vd_file_write(img->file, &pointer, sizeof(pointer),
                                          offsetof(struct qcow2_header_disk, reftable_position), err);
                if (!r)
                        r = vd_image_barrier(img, img->file, err);
                if (r)
                        return r;
        }
        q->reftable_position = position;
        q->reftable_entries = clusters * (q->cluster / 8);
        vd_cache_drop(q->reftable, old, old_bytes);
        return old_bytes ? qcow2_release(q, old, old_bytes, err) : 0;
}

/* What has to be laid at cluster `at`, where no block exists, so that `want` clusters after it can be counted. */
struct growth {
        uint64_t first_block, blocks;
        uint64_t table_clusters;        /* of a bigger table before the blocks; 0: the old one has room */
};

static int plan_growth(struct qcow2 *q, uint64_t at, uint64_t want, struct growth *g, struct vd_error *err)
{
        uint64_t needed = 1, before = 0, per_cluster = q->cluster / 8;

        *g = (struct growth){ .first_block = at / q->per_block };
        while (needed != before) {
                before = needed;
                if (g->first_block >= q->reftable_entries)      /* half as much again: the table moves seldom */
                        g->table_clusters = vd_div_up((g->first_block + needed) + g->first_block / 2, per_cluster);
                needed = vd_div_up(at % q->per_block + g->table_clusters + needed + want, q->per_block);
        }
        if (g->table_clusters * q->cluster > QCOW2_MAX_REFTABLE_BYTES)
                return vd_fail(err, -EFBIG, "a file of %" PRIu64 " clusters of %" PRIu64 " bytes needs a refcount "
                               "table of more than %d bytes", at + want, q->cluster, QCOW2_MAX_REFTABLE_BYTES);
        if (!g->table_clusters)
                needed = vd_min(needed, q->reftable_entries - g->first_block);
        /* Only over a gap without blocks is everything free. */
        for (g->blocks = 1; g->blocks < needed; g->blocks++) {
                uint64_t position;
                int r = qcow2_block_position(q, g->first_block + g->blocks, &position, err);

                if (r)
                        return r;
                if (position)
                        break;
        }
        return 0;
}

/* Counts that are too low must not make us overwrite what everything hangs on. */
static int guard(const struct qcow2 *q, uint64_t first, uint64_t count, struct vd_error *err)
{
        const struct { const char *what; uint64_t position, bytes; } used[] = {
                { "the header", 0, q->cluster },
                { "the L1 table", q->l1_position, q->l1_entries * 8 },
                { "the refcount table", q->reftable_position, q->reftable_entries * 8 },
                { "the snapshot table", q->snapshots_position, q->snapshot_count ? q->cluster : 0 },
        };
        uint64_t start = first << q->cluster_bits, end = (first + count) << q->cluster_bits;

        for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
                if (start < used[i].position + used[i].bytes && used[i].position < end)
                        return vd_fail(err, VD_ECORRUPT, "reference counts say that the clusters from %" PRIu64
                                       " on are free, but %s lies at %" PRIu64 ": the image needs repair", start,
                                       used[i].what, used[i].position);
        return 0;
}

/* Lays the refcount blocks (and a table) that clusters from `at` on need; *next: the first cluster after them. */
static int grow(struct vd_image *img, uint64_t at, uint64_t want, uint64_t *next, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t table = q->reftable_position, block = at;
        struct growth g;
        int r = plan_growth(q, at, want, &g, err);

        if (!r)
                r = guard(q, at, g.table_clusters + g.blocks, err);
        if (!r && g.table_clusters) {
                table = at << q->cluster_bits;
                block = at + g.table_clusters;
                r = clear_clusters(q, q->reftable, table, g.table_clusters, (size_t)vd_min(q->cluster, 4096), err);
                if (!r)
                        r = copy_table(q, table, err);
        }
        if (!r)
                r = clear_clusters(q, q->blocks, block << q->cluster_bits, g.blocks,
                                   (size_t)vd_min(q->cluster, 32 << 10), err);
        for (uint64_t i = 0; i < g.blocks && !r; i++)
                r = set_block(q, table, g.first_block + i, (block + i) << q->cluster_bits, err);
        if (r)
                return r;
        *next = block + g.blocks;
        if (g.table_clusters) {
                /* The counts of the table and the blocks themselves are found through the new table only. */
                uint64_t old = q->reftable_position, old_entries = q->reftable_entries;

                q->reftable_position = table;
                q->reftable_entries = g.table_clusters * (q->cluster / 8);
                r = qcow2_count_change(q, at, *next - at, 1, err);
                q->reftable_position = old;
                q->reftable_entries = old_entries;
                return r ? r : switch_table(img, table, g.table_clusters, err);
        }
        return qcow2_count_change(q, at, *next - at, 1, err);
}

/* How many clusters from i on are free, at most max; *blocked when it ended where no block exists. */
static int free_run(struct qcow2 *q, uint64_t i, uint64_t max, uint64_t *run, bool *blocked, struct vd_error *err)
{
        *blocked = false;
        for (*run = 0; *run < max;) {
                uint64_t base, in_page, position, n;
                uint8_t *bytes;
                int r = count_page(q, i + *run, &bytes, &base, &in_page, &position, err);

                *blocked = !r && !bytes;
                if (r || !bytes)
                        return r;
                in_page = vd_min(in_page, max - *run);
                for (n = 0; n < in_page && !qcow2_count_at(bytes, i + *run + n - base, q->refcount_order); n++)
                        ;
                *run += n;
                if (n < in_page)
                        break;
        }
        return 0;
}

/* The next cluster from i on with a free count, or the first whose count does not exist. */
static int skip_used(struct qcow2 *q, uint64_t *i, struct vd_error *err)
{
        for (;;) {
                uint64_t base, in_page, position;
                uint8_t *bytes;
                int r = count_page(q, *i, &bytes, &base, &in_page, &position, err);

                if (r || !bytes)
                        return r;
                for (uint64_t n = 0; n < in_page; n++, ++*i)
                        if (!qcow2_count_at(bytes, *i - base, q->refcount_order))
                                return 0;
        }
}

int qcow2_take(struct vd_image *img, uint64_t want, uint64_t least, uint64_t *position, uint64_t *got,
               struct vd_error *err)
{
        struct qcow2 *q = img->state;
        uint64_t at, run = 0, next, limit = QCOW2_POSITION >> q->cluster_bits;
        bool blocked;
        int r;

        /* Worth another round through the old part of the file? */
        if (q->cursor >= vd_file_size(img->file) >> q->cluster_bits && q->reusable > 64 &&
            q->reusable >= q->cursor / 16) {
                q->cursor = q->reusable_first;
                q->reusable = 0;
        }
        for (at = q->cursor;; at += run) {
                r = skip_used(q, &at, err);
                if (!r)
                        r = free_run(q, at, want, &run, &blocked, err);
                if (r)
                        return r;
                if (at + want > limit)
                        return vd_fail(err, -EFBIG, "no free cluster below %" PRIu64, limit << q->cluster_bits);
                if (run >= least)
                        break;
                if (blocked) {
                        at += run;      /* too few before the gap: they stay free */
                        run = 0;
                        r = grow(img, at, want, &next, err);
                        if (r)
                                return r;
                        at = next;
                }
        }
        r = guard(q, at, run, err);
        if (!r)
                r = qcow2_count_change(q, at, run, 1, err);
        q->cursor = at + run;
        *position = at << q->cluster_bits;
        *got = run;
        return r;
}

int qcow2_release(struct qcow2 *q, uint64_t position, uint64_t length, struct vd_error *err)
{
        uint64_t first = position >> q->cluster_bits, count = ((position + length - 1) >> q->cluster_bits) - first + 1;
        struct qcow2_freed *last = q->freed_count ? &q->freed[q->freed_count - 1] : NULL;

        if (last && last->first + last->count == first) {
                last->count += count;
                return 0;
        }
        if (q->freed_count == q->freed_room) {
                size_t room = q->freed_room ? q->freed_room * 2 : 64;
                struct qcow2_freed *grown = realloc(q->freed, room * sizeof(*grown));

                if (!grown)
                        return vd_fail(err, -ENOMEM, "list of %zu freed clusters", room);
                q->freed = grown;
                q->freed_room = room;
        }
        q->freed[q->freed_count++] = (struct qcow2_freed){ first, count };
        return 0;
}

int qcow2_apply_released(struct qcow2 *q, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < q->freed_count && !r; i++)
                r = qcow2_count_change(q, q->freed[i].first, q->freed[i].count, -1, err);
        q->freed_count = 0;
        return r;
}
