// SPDX-License-Identifier: MIT
/* nbd_link.c: connections to an NBD server, and requests over them. */
#ifdef HAVE_NBD
#include "nbd_link.h"

#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/checked.h"

enum {
        LINKS = 4,
        FURTHER_LINK_MS = 1000,         /* a server may keep more clients than it serves waiting */
        LOOK_MS = 200,                  /* at the stop flag */
        BLOCK_MOST = 65536,             /* the largest minimum that the protocol knows */
        PAYLOAD_MOST = 32 * 1024 * 1024,        /* what every server that names no maximum takes */
};

struct link {
        struct nbd_handle *handle;      /* has a lock of its own, which is never taken with ours held */
        int wake;                       /* eventfd: the thread that polls shall look again */
        pthread_mutex_t lock;           /* for all below, and the batches under way here */
        pthread_cond_t changed;
        bool polled;                    /* some thread waits for the socket */
        unsigned in_flight;
};

struct vd_nbd_batch {
        struct link *link;
        size_t pending;
};

struct vd_nbd {
        char *uri;
        const volatile int *stop;
        struct vd_nbd_facts facts;
        pthread_mutex_t lock;           /* for the number of links and who makes one */
        struct link *links[LINKS];
        unsigned link_count, links_most;
        bool connecting;
};

static bool is_stopped(const struct vd_nbd *n)
{
        return n->stop && *n->stop;
}

/* libnbd's words without the name of its function. */
static int fail_connecting(const char *name, struct vd_error *err)
{
        const char *text = nbd_get_error(), *colon = text ? strstr(text, ": ") : NULL;
        int code = nbd_get_errno() ? -nbd_get_errno() : -EIO;

        if (colon && !strncmp(text, "nbd_", 4))
                text = colon + 2;
        vd_fail(err, VD_EUNSUPPORTED, "%s: connecting: %s", name, text ? text : "failed");
        return err->code = code;
}

static void free_link(struct link *l)
{
        if (!l)
                return;
        if (l->handle && nbd_aio_is_ready(l->handle) == 1)
                nbd_shutdown(l->handle, 0);
        nbd_close(l->handle);
        if (l->wake >= 0)
                close(l->wake);
        pthread_cond_destroy(&l->changed);
        pthread_mutex_destroy(&l->lock);
        free(l);
}

/* patience: milliseconds; -1: until the user stops it. */
static int wait_connected(const struct vd_nbd *n, struct nbd_handle *handle, int patience, const char *name,
                          struct vd_error *err)
{
        for (int waited = 0; nbd_aio_is_connecting(handle) == 1; waited += LOOK_MS) {
                int r = nbd_poll(handle, LOOK_MS);

                if (r < 0)
                        return fail_connecting(name, err);
                if (r > 0)
                        waited = 0;
                if (is_stopped(n))
                        return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                if (patience >= 0 && waited >= patience)
                        return vd_fail(err, -ETIMEDOUT, "%s: connecting", name);
        }
        return nbd_aio_is_ready(handle) == 1 ? 0 : fail_connecting(name, err);
}

static int new_link(const struct vd_nbd *n, int patience, const char *name, struct link **out, struct vd_error *err)
{
        struct link *l = calloc(1, sizeof(*l));
        int r = 0;

        if (!l)
                return vd_fail(err, -ENOMEM, "%s", name);
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->changed, NULL);
        l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        l->handle = nbd_create();
        if (l->wake < 0)
                r = vd_fail(err, -errno, "%s: eventfd", name);
        /* The URI is the user's, and so are the files with keys that it names. */
        else if (!l->handle || nbd_add_meta_context(l->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
                 nbd_set_uri_allow_local_file(l->handle, true) < 0 || nbd_aio_connect_uri(l->handle, n->uri) < 0)
                r = fail_connecting(name, err);
        if (!r)
                r = wait_connected(n, l->handle, patience, name, err);
        if (r)
                free_link(l);
        else
                *out = l;
        return r;
}

static int learn(struct vd_nbd *n, struct nbd_handle *h, const char *name, struct vd_error *err)
{
        int64_t size = nbd_get_size(h), least = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
        int64_t most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
        struct vd_nbd_facts *f = &n->facts;

        if (size < 0 || least < 0 || most < 0)
                return fail_connecting(name, err);
        f->size = (uint64_t)size;
        f->min_block = least ? (uint64_t)least : 1;
        if (!vd_is_pow2(f->min_block) || f->min_block > BLOCK_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: the server's smallest block is %" PRIu64
                               " bytes; allowed are powers of two up to %d", name, f->min_block, (int)BLOCK_MOST);
        f->max_block = vd_round_down(vd_min(most ? (uint64_t)most : UINT64_MAX, PAYLOAD_MOST), f->min_block);
        if (!f->max_block)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: the server's largest block of %" PRId64
                               " bytes is less than its smallest of %" PRIu64, name, most, f->min_block);
        f->read_only = nbd_is_read_only(h) != 0;
        f->flushes = nbd_can_flush(h) == 1;
        f->zeroes = nbd_can_zero(h) == 1;
        f->has_status = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
        f->many_links = nbd_can_multi_conn(h) == 1;
        return 0;
}

int vd_nbd_connect(struct vd_nbd **out, const char *uri, const char *name, const volatile int *stop,
                   struct vd_error *err)
{
        struct vd_nbd *n = calloc(1, sizeof(*n));
        int r;

        if (!n || !(n->uri = strdup(uri))) {
                free(n);
                return vd_fail(err, -ENOMEM, "%s", name);
        }
        n->stop = stop;
        pthread_mutex_init(&n->lock, NULL);
        r = new_link(n, -1, name, &n->links[0], err);
        if (!r) {
                n->link_count = 1;
                r = learn(n, n->links[0]->handle, name, err);
                n->links_most = n->facts.many_links ? LINKS : 1;
        }
        if (r)
                vd_nbd_free(n);
        else
                *out = n;
        return r;
}

void vd_nbd_free(struct vd_nbd *n)
{
        if (!n)
                return;
        for (unsigned i = 0; i < n->link_count; i++)
                free_link(n->links[i]);
        pthread_mutex_destroy(&n->lock);
        free(n->uri);
        free(n);
}

const struct vd_nbd_facts *vd_nbd_facts(const struct vd_nbd *n)
{
        return &n->facts;
}

/* The least busy link. */
static struct link *least_busy(const struct vd_nbd *n, unsigned *in_flight)
{
        struct link *best = NULL;

        for (unsigned i = 0; i < n->link_count; i++) {
                struct link *l = n->links[i];
                unsigned count;

                pthread_mutex_lock(&l->lock);
                count = l->in_flight;
                pthread_mutex_unlock(&l->lock);
                if (!best || count < *in_flight) {
                        best = l;
                        *in_flight = count;
                }
        }
        return best;
}

/* A link for the next requests; one more when all are busy.  That a further one cannot be had is no matter. */
static struct link *choose_link(struct vd_nbd *n)
{
        struct vd_error ignored = VD_ERROR_INIT;
        struct link *best, *further = NULL;
        unsigned in_flight = 0;
        bool connect;

        pthread_mutex_lock(&n->lock);
        best = least_busy(n, &in_flight);
        connect = in_flight && n->link_count < n->links_most && !n->connecting;
        n->connecting = n->connecting || connect;
        pthread_mutex_unlock(&n->lock);
        if (!connect)
                return best;
        if (!new_link(n, FURTHER_LINK_MS, "", &further, &ignored) &&
            nbd_get_size(further->handle) != (int64_t)n->facts.size) {
                free_link(further);
                further = NULL;
        }
        pthread_mutex_lock(&n->lock);
        n->connecting = false;
        if (further)
                n->links[n->link_count++] = best = further;
        else
                n->links_most = n->link_count;
        pthread_mutex_unlock(&n->lock);
        return best;
}

/* In libnbd's callbacks its lock is held, ours is not. */
static int on_done(void *context, int *error)
{
        struct vd_nbd_request *request = context;
        struct link *l = request->batch->link;

        pthread_mutex_lock(&l->lock);
        if (!request->error)
                request->error = *error;
        l->in_flight--;
        if (!--request->batch->pending)
                pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        return 1;                       /* libnbd may forget the request */
}

static int on_blocks(void *context, const char *metacontext, uint64_t offset, uint32_t *entries, size_t count,
                     int *error)
{
        struct vd_nbd_request *request = context;

        (void)offset;
        if (strcmp(metacontext, LIBNBD_CONTEXT_BASE_ALLOCATION) || request->blocks)
                return 0;
        request->blocks = malloc(count * sizeof(*entries));
        if (!request->blocks) {
                *error = ENOMEM;
                return -1;
        }
        memcpy(request->blocks, entries, count * sizeof(*entries));
        request->block_count = count / 2;
        return 0;
}

static int64_t send_request(struct nbd_handle *h, struct vd_nbd_request *r)
{
        nbd_completion_callback done = { .callback = on_done, .user_data = r };
        nbd_extent_callback blocks = { .callback = on_blocks, .user_data = r };

        switch (r->verb) {
        case VD_NBD_READ:
                return nbd_aio_pread(h, r->into, r->length, r->position, done, 0);
        case VD_NBD_WRITE:
                return nbd_aio_pwrite(h, r->from, r->length, r->position, done, 0);
        case VD_NBD_ZERO:
                return nbd_aio_zero(h, r->length, r->position, done, 0);
        case VD_NBD_FLUSH:
                return nbd_aio_flush(h, done, 0);
        case VD_NBD_STATUS:
                return nbd_aio_block_status(h, r->length, r->position, blocks, done, 0);
        }
        return -1;
}

static void submit(struct link *l, struct vd_nbd_batch *batch, struct vd_nbd_request *request)
{
        bool polled;
        int error = 0;

        request->error = 0;
        request->batch = batch;
        pthread_mutex_lock(&l->lock);
        batch->pending++;
        l->in_flight++;
        pthread_mutex_unlock(&l->lock);
        if (send_request(l->handle, request) < 0)
                error = nbd_get_errno() ? nbd_get_errno() : EIO;
        pthread_mutex_lock(&l->lock);
        if (error) {                    /* on_done() is not called then */
                request->error = error;
                batch->pending--;
                l->in_flight--;
        }
        polled = l->polled;
        pthread_mutex_unlock(&l->lock);
        /* What did not go out at once needs a wait with POLLOUT, of which the thread in poll() does not know. */
        if (polled && nbd_aio_get_direction(l->handle) & LIBNBD_AIO_DIRECTION_WRITE)
                eventfd_write(l->wake, 1);
}

/* Waits for the socket once and does what it allows. */
static void serve(const struct vd_nbd *n, struct link *l)
{
        unsigned direction = nbd_aio_get_direction(l->handle);
        struct pollfd polls[] = {
                { .fd = nbd_aio_get_fd(l->handle),
                  .events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                    (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)) },
                { .fd = l->wake, .events = POLLIN },
        };
        eventfd_t ignored;
        int ready = poll(polls, 2, LOOK_MS);

        /* Buffers are lent to libnbd until each request has its answer: a broken connection answers all of them. */
        if (is_stopped(n))
                shutdown(polls[0].fd, SHUT_RDWR);
        if (ready <= 0)
                return;
        if (polls[1].revents)
                eventfd_read(l->wake, &ignored);
        /* Only one of both: the first may change what the connection waits for. */
        if (polls[0].revents & (POLLIN | POLLHUP | POLLERR))
                nbd_aio_notify_read(l->handle);
        else if (polls[0].revents & POLLOUT)
                nbd_aio_notify_write(l->handle);
}

static void wait_for(const struct vd_nbd *n, struct link *l, const struct vd_nbd_batch *batch)
{
        pthread_mutex_lock(&l->lock);
        while (batch->pending) {
                if (l->polled) {
                        pthread_cond_wait(&l->changed, &l->lock);
                        continue;
                }
                l->polled = true;
                while (batch->pending) {
                        pthread_mutex_unlock(&l->lock);
                        serve(n, l);
                        pthread_mutex_lock(&l->lock);
                }
                l->polled = false;
                pthread_cond_broadcast(&l->changed);    /* somebody else has to go on */
        }
        pthread_mutex_unlock(&l->lock);
}

int vd_nbd_run(struct vd_nbd *n, struct vd_nbd_request *requests, size_t count)
{
        struct link *l = choose_link(n);
        struct vd_nbd_batch batch = { .link = l };

        for (size_t i = 0; i < count; i++)
                submit(l, &batch, &requests[i]);
        wait_for(n, l, &batch);
        for (size_t i = 0; i < count; i++) {
                if (!requests[i].error)
                        continue;
                if (is_stopped(n))
                        return VD_ESTOPPED;
                return nbd_aio_is_ready(l->handle) == 1 || nbd_aio_is_processing(l->handle) == 1 ? -requests[i].error
                                                                                                 : -ECONNRESET;
        }
        return 0;
}
#endif
