// SPDX-License-Identifier: MIT
/* file_nbd.c: the export of an NBD server as a file. */
#include "file_nbd.h"

#include <string.h>

#include "util/text.h"

bool vd_file_is_nbd_uri(const char *name)
{
        static const char *const schemes[] = {
                "nbd://", "nbds://", "nbd+unix://", "nbds+unix://", "nbd+vsock://", "nbds+vsock://",
        };

        for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
                if (!strncmp(name, schemes[i], strlen(schemes[i])))
                        return true;
        return false;
}

#ifndef HAVE_NBD

int vd_file_open_nbd(struct vd_file **out, const char *uri, unsigned flags, const volatile int *stop,
                     struct vd_error *err)
{
        char shown[512];

        (void)out;
        (void)flags;
        (void)stop;
        return vd_fail(err, VD_EUNSUPPORTED, "%s: this vdtool was built without libnbd",
                       vd_printable(shown, sizeof(shown), uri, strlen(uri)));
}

#else

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "file_ops.h"
#include "nbd_link.h"
#include "util/checked.h"
#include "util/cleanup.h"

enum {
        AT_ONCE = 16,                   /* requests that one call has in flight at most */
        ZERO_MOST = 1024 * 1024 * 1024, /* bytes zeroed by one request: it carries none of them */
        ZERO_STEP = 256 * 1024,
        RUNS_KEPT = 65536,
};

/* As long as a request can be, and whole blocks of any size. */
#define STATUS_MOST UINT64_C(0xFFFF0000)

/* What the server said about a part of the export. */
struct run {
        uint64_t end;
        bool data;
};

struct nbd_file {
        struct vd_file file;
        struct vd_nbd *nbd;
        struct vd_nbd_facts facts;
        atomic_bool writes_zeros;       /* the server does not zero after all */
        atomic_bool sync_failed;
        pthread_mutex_t edge_lock;      /* blocks that are written in part are read, changed and written under it */

        pthread_mutex_t run_lock;       /* for all below */
        struct run *runs;               /* of [runs_start, end of the last one) */
        size_t run_count;
        uint64_t runs_start;
        bool has_status;
};

static struct nbd_file *nbd(struct vd_file *f)
{
        return (struct nbd_file *)f;
}

static uint64_t nbd_size(const struct vd_file *f)
{
        return ((const struct nbd_file *)f)->facts.size;
}

/* Splits an aligned range into requests of at most step bytes. */
static int run_range(struct nbd_file *n, struct vd_nbd_request like, uint64_t step, uint64_t length, uint64_t position)
{
        int r = 0;

        while (length && !r) {
                struct vd_nbd_request requests[AT_ONCE];
                size_t count = 0;

                while (length && count < AT_ONCE) {
                        uint64_t bytes = vd_min(length, step);

                        like.position = position;
                        like.length = bytes;
                        requests[count++] = like;
                        if (like.into)
                                like.into = (char *)like.into + bytes;
                        if (like.from)
                                like.from = (const char *)like.from + bytes;
                        position += bytes;
                        length -= bytes;
                }
                r = vd_nbd_run(n->nbd, requests, count);
        }
        return r;
}

static int failed(const struct nbd_file *n, int code, const char *doing, uint64_t length, uint64_t position,
                  struct vd_error *err)
{
        if (code == VD_ESTOPPED)
                return vd_fail(err, code, "stopped by a signal");
        return vd_fail(err, code, "%s: %s %" PRIu64 " bytes at %" PRIu64, n->file.name, doing, length, position);
}

static int read_aligned(struct nbd_file *n, void *buffer, uint64_t length, uint64_t position)
{
        return run_range(n, (struct vd_nbd_request){ .verb = VD_NBD_READ, .into = buffer }, n->facts.max_block, length,
                         position);
}

static int write_aligned(struct nbd_file *n, const void *buffer, uint64_t length, uint64_t position)
{
        return run_range(n, (struct vd_nbd_request){ .verb = VD_NBD_WRITE, .from = buffer }, n->facts.max_block,
                         length, position);
}

static int nbd_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                    struct vd_error *err)
{
        struct nbd_file *n = nbd(f);
        uint64_t size = n->facts.size, block = n->facts.min_block, start, end;
        VD_AUTOFREE char *whole = NULL;
        int r;

        if (position >= size)
                return 0;
        length = vd_min(length, size - position);
        start = vd_round_down(position, block);
        end = vd_min(vd_round_up(position + length, block), size);
        if (start == position && end == position + length) {
                r = read_aligned(n, buffer, length, position);
        } else {
                whole = malloc(end - start);
                if (!whole)
                        return vd_fail(err, -ENOMEM, "%s: reading %zu bytes", f->name, length);
                r = read_aligned(n, whole, end - start, start);
                if (!r)
                        memcpy(buffer, whole + (position - start), length);
        }
        if (r)
                return failed(n, r, "reading", length, position, err);
        *got = length;
        return 0;
}

static void forget_runs(struct nbd_file *n)
{
        pthread_mutex_lock(&n->run_lock);
        n->run_count = 0;
        pthread_mutex_unlock(&n->run_lock);
}

/* Part of one block; no bytes are zeros. */
static int write_edge(struct nbd_file *n, const void *bytes, uint64_t length, uint64_t position)
{
        uint64_t start = vd_round_down(position, n->facts.min_block);
        uint64_t end = vd_min(start + n->facts.min_block, n->facts.size);
        VD_AUTOFREE char *block = malloc(end - start);
        int r;

        if (!block)
                return -ENOMEM;
        pthread_mutex_lock(&n->edge_lock);
        r = read_aligned(n, block, end - start, start);
        if (!r && bytes)
                memcpy(block + (position - start), bytes, length);
        else if (!r)
                memset(block + (position - start), 0, length);
        if (!r)
                r = write_aligned(n, block, end - start, start);
        pthread_mutex_unlock(&n->edge_lock);
        return r;
}

static int write_zeros(struct nbd_file *n, uint64_t length, uint64_t position)
{
        static const char zeros[ZERO_STEP];
        uint64_t step = vd_min(ZERO_STEP, n->facts.max_block);
        int r = 0;

        while (length && !r) {
                uint64_t bytes = vd_min(length, step);

                r = write_aligned(n, zeros, bytes, position);
                position += bytes;
                length -= bytes;
        }
        return r;
}

static int zero_aligned(struct nbd_file *n, uint64_t length, uint64_t position)
{
        int r = -ENOTSUP;

        if (!atomic_load(&n->writes_zeros))
                r = run_range(n, (struct vd_nbd_request){ .verb = VD_NBD_ZERO }, ZERO_MOST, length, position);
        if (r == -ENOTSUP || r == -EOPNOTSUPP || r == -EINVAL || r == -EOVERFLOW) {
                atomic_store(&n->writes_zeros, true);
                r = write_zeros(n, length, position);
        }
        return r;
}

/* Whole blocks as they are, the rest of the blocks at both ends kept; no bytes are zeros. */
static int change(struct nbd_file *n, const char *bytes, uint64_t length, uint64_t position, struct vd_error *err)
{
        uint64_t block = n->facts.min_block, size = n->facts.size, end = position + length;
        uint64_t middle = vd_round_up(position, block);
        uint64_t middle_end = end == size ? size : vd_round_down(end, block);
        int r = 0;

        if (!vd_range_fits(position, length, size))
                return vd_fail(err, -ENOSPC, "%s: writing %" PRIu64 " bytes at %" PRIu64 " of an export of %" PRIu64,
                               n->file.name, length, position, size);
        if (middle >= middle_end) {     /* two blocks at most, none of them whole */
                uint64_t first = vd_min(length, middle - position);

                if (first)
                        r = write_edge(n, bytes, first, position);
                if (!r && first < length)
                        r = write_edge(n, bytes ? bytes + first : NULL, length - first, middle);
        } else {
                if (position < middle)
                        r = write_edge(n, bytes, middle - position, position);
                if (!r && bytes)
                        r = write_aligned(n, bytes + (middle - position), middle_end - middle, middle);
                else if (!r)
                        r = zero_aligned(n, middle_end - middle, middle);
                if (!r && middle_end < end)
                        r = write_edge(n, bytes ? bytes + (middle_end - position) : NULL, end - middle_end, middle_end);
        }
        forget_runs(n);                 /* now: what is asked from here on is answered with the change in it */
        return r ? failed(n, r, bytes ? "writing" : "zeroing", length, position, err) : 0;
}

static int nbd_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        return length ? change(nbd(f), buffer, length, position, err) : 0;
}

static int nbd_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return change(nbd(f), NULL, length, position, err);
}

static int nbd_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return vd_fail(err, -EOPNOTSUPP, "%s: allocating %" PRIu64 " bytes at %" PRIu64, f->name, length, position);
}

static int nbd_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        if (size <= nbd_size(f))
                return 0;
        return vd_fail(err, -ENOSPC, "%s: an export of %" PRIu64 " bytes cannot grow to %" PRIu64, f->name, nbd_size(f),
                       size);
}

static int nbd_sync(struct vd_file *f, struct vd_error *err)
{
        struct vd_nbd_request request = { .verb = VD_NBD_FLUSH };
        struct nbd_file *n = nbd(f);
        int r;

        if (!f->writable || !n->facts.flushes)
                return 0;
        if (atomic_load(&n->sync_failed))
                return vd_fail(err, -EIO, "%s: an earlier sync failed: do not trust this export", f->name);
        r = vd_nbd_run(n->nbd, &request, 1);
        if (!r)
                return 0;
        atomic_store(&n->sync_failed, true);
        if (r == VD_ESTOPPED)
                return vd_fail(err, r, "stopped by a signal");
        return vd_fail(err, r, "%s: syncing; do not trust this export", f->name);
}

static bool holds(const struct nbd_file *n, uint64_t position)
{
        return n->run_count && position >= n->runs_start && position < n->runs[n->run_count - 1].end;
}

/* Blocks as runs, the like ones joined.  A server may say less than it was asked for, or more. */
static int keep_runs(struct nbd_file *n, const struct vd_nbd_request *answer)
{
        uint64_t at = answer->position;
        struct run *runs = realloc(n->runs, vd_min(answer->block_count, RUNS_KEPT) * sizeof(*runs));
        size_t count = 0;

        if (!runs)
                return -ENOMEM;
        n->runs = runs;
        n->runs_start = at;
        for (size_t i = 0; i < answer->block_count && at < n->facts.size; i++) {
                bool data = !(answer->blocks[2 * i + 1] & VD_NBD_READS_ZERO);

                if (!answer->blocks[2 * i])
                        return -EPROTO;
                at = vd_min(at + answer->blocks[2 * i], n->facts.size);
                if (count && runs[count - 1].data == data)
                        runs[count - 1].end = at;
                else if (count == RUNS_KEPT)
                        break;
                else
                        runs[count++] = (struct run){ at, data };
        }
        n->run_count = count;
        return 0;
}

/* A server that cannot tell has data everywhere, as one that never could. */
static int ask(struct nbd_file *n, uint64_t position)
{
        uint64_t block = n->facts.min_block, start = vd_round_down(position, block);
        struct vd_nbd_request request = {
                .verb = VD_NBD_STATUS, .position = start,
                .length = vd_min(n->facts.size - start, STATUS_MOST),
        };
        int r = vd_nbd_run(n->nbd, &request, 1);

        n->run_count = 0;
        if (!r)
                r = keep_runs(n, &request);
        free(request.blocks);
        if (r == VD_ESTOPPED || r == -ECONNRESET || r == -ENOMEM)
                return r;
        if (r || !holds(n, position))
                n->has_status = false;
        return 0;
}

static void look_up(const struct nbd_file *n, uint64_t position, bool *data, uint64_t *end)
{
        size_t low = 0, high = n->run_count - 1;        /* the first run that ends after position */

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (n->runs[middle].end > position)
                        high = middle;
                else
                        low = middle + 1;
        }
        *data = n->runs[low].data;
        *end = n->runs[low].end;
}

static int nbd_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        struct nbd_file *n = nbd(f);
        int r = 0;

        *data = true;
        *end = n->facts.size;
        pthread_mutex_lock(&n->run_lock);
        if (n->has_status && !holds(n, position))
                r = ask(n, position);
        if (!r && n->has_status)
                look_up(n, position, data, end);
        pthread_mutex_unlock(&n->run_lock);
        return r ? failed(n, r, "asking for the holes in", n->facts.size - position, position, err) : 0;
}

static bool nbd_is(const struct vd_file *f, const struct stat *st)
{
        (void)f;
        (void)st;
        return false;
}

static bool nbd_is_remote(const struct vd_file *f)
{
        (void)f;
        return true;
}

static void nbd_close_file(struct vd_file *f)
{
        struct nbd_file *n = nbd(f);

        vd_nbd_free(n->nbd);
        pthread_mutex_destroy(&n->edge_lock);
        pthread_mutex_destroy(&n->run_lock);
        free(n->runs);
        free(n);
}

static const struct vd_file_ops nbd_ops = {
        .size = nbd_size, .disk_bytes = nbd_size, .read = nbd_read, .write = nbd_write, .zero = nbd_zero,
        .allocate = nbd_allocate, .truncate = nbd_truncate, .sync = nbd_sync, .next = nbd_next, .is = nbd_is,
        .is_remote = nbd_is_remote, .close = nbd_close_file,
};

int vd_file_open_nbd(struct vd_file **out, const char *uri, unsigned flags, const volatile int *stop,
                     struct vd_error *err)
{
        struct nbd_file *n = calloc(1, sizeof(*n));
        bool writable = flags & VD_FILE_WRITE;
        int r = n ? vd_file_init(&n->file, &nbd_ops, uri, writable, err) : vd_fail(err, -ENOMEM, "%s", uri);

        if (r) {
                free(n);
                return r;
        }
        pthread_mutex_init(&n->edge_lock, NULL);
        pthread_mutex_init(&n->run_lock, NULL);
        r = vd_nbd_connect(&n->nbd, uri, n->file.name, stop, err);
        if (!r) {
                n->facts = *vd_nbd_facts(n->nbd);
                n->has_status = n->facts.has_status;
                atomic_init(&n->writes_zeros, !n->facts.zeroes);
                if (writable && n->facts.read_only)
                        r = vd_fail(err, -EROFS, "%s: the server", n->file.name);
        }
        if (r)
                vd_file_unref(&n->file);
        else
                *out = &n->file;
        return r;
}

#endif
