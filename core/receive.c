// SPDX-License-Identifier: MIT
/* receive.c: what comes in order, into a file.
 *
 *      read  (ordered)   a buffer full
 *      store (parallel)  what is not zero
 */
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "copy_job.h"
#include "pipeline.h"
#include "util/checked.h"
#include "util/iszero.h"

enum {
        CHUNK = 256 * 1024,
        PIPE_BYTES = 1024 * 1024,
        SLOTS_PER_THREAD = 3,
        HOLE_LEAST = 4096,
};

struct part {
        uint64_t position;
        size_t length;
        char *bytes;
};

struct receiver {
        vd_receive_read *read;
        void *context;
        struct vd_file *to;
        const struct vd_copy_options *options;
        struct vd_pace pace;            /* read */
        size_t granule;                 /* 0: no holes */
        uint64_t position;
};

static int read_part(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct receiver *rx = context;
        struct part *p = slot;
        int r;

        (void)worker;
        if (rx->options->stop && *rx->options->stop)
                return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
        if (!p->bytes && !(p->bytes = malloc(CHUNK)))
                return vd_fail(err, -ENOMEM, "a buffer of %d bytes", (int)CHUNK);
        p->position = rx->position;
        r = rx->read(rx->context, p->bytes, CHUNK, &p->length, err);
        if (r)
                return r;
        rx->position += p->length;
        vd_pace_keep(&rx->pace, p->length);
        return p->length ? 0 : 1;
}

static int store_part(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct receiver *rx = context;
        struct part *p = slot;
        size_t step = rx->granule ? rx->granule : p->length, from = 0;
        int r = 0;

        (void)worker;
        for (size_t at = 0; at < p->length && !r; ) {
                size_t end = vd_min(at + step, p->length);

                if (rx->granule && vd_is_zero(p->bytes + at, end - at)) {
                        if (from < at)
                                r = vd_file_write(rx->to, p->bytes + from, at - from, p->position + from, err);
                        from = end;
                }
                at = end;
        }
        if (!r && from < p->length)
                r = vd_file_write(rx->to, p->bytes + from, p->length - from, p->position + from, err);
        return r;
}

static const struct vd_stage stages[] = {
        { "read", true, read_part },
        { "store", false, store_part },
};

int vd_receive(vd_receive_read *read_bytes, void *context, struct vd_file *to, const struct vd_copy_options *options,
               uint64_t *length, struct vd_error *err)
{
        struct receiver rx = { .read = read_bytes, .context = context, .to = to, .options = options };
        unsigned threads = vd_copy_threads(options);
        size_t slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD;
        struct part *parts = calloc(slot_count, sizeof(*parts));
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = parts && slots ? 0 : vd_fail(err, -ENOMEM, "%s", vd_file_name(to));

        if (options->sparse_bytes)
                rx.granule = vd_round_up(vd_max(options->sparse_bytes, HOLE_LEAST), 512);
        vd_pace_start(&rx.pace, options->rate, options->stop);
        for (size_t i = 0; i < slot_count && !r; i++)
                slots[i] = &parts[i];
        if (!r)
                r = vd_pipeline_run(stages, sizeof(stages) / sizeof(stages[0]), slots, slot_count, threads, &rx, err);
        if (!r && vd_file_size(to) < rx.position)
                r = vd_file_truncate(to, rx.position, err);
        if (length)
                *length = rx.position;
        for (size_t i = 0; i < slot_count && parts; i++)
                free(parts[i].bytes);
        free(parts);
        free(slots);
        return r;
}

/* ---- descriptors ---- */

struct descriptor {
        int fd;
        const char *name;
        const volatile int *stop;
        uint64_t position;
};

static int wait_for_bytes(const struct descriptor *d, struct vd_error *err)
{
        struct pollfd bytes = { .fd = d->fd, .events = POLLIN };

        if (poll(&bytes, 1, -1) < 0 && errno != EINTR)
                return vd_fail(err, -errno, "%s: waiting", d->name);
        return 0;
}

static int read_descriptor(void *context, void *buffer, size_t length, size_t *got, struct vd_error *err)
{
        struct descriptor *d = context;
        ssize_t n = 1;

        for (*got = 0; *got < length && n; ) {
                int r = 0;

                n = read(d->fd, (char *)buffer + *got, length - *got);
                if (d->stop && *d->stop)
                        return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                if (n < 0 && errno == EAGAIN)
                        r = wait_for_bytes(d, err);
                else if (n < 0 && errno != EINTR)
                        r = vd_fail(err, -errno, "%s: reading at %" PRIu64, d->name, d->position + *got);
                if (r)
                        return r;
                *got += n > 0 ? (size_t)n : 0;
        }
        d->position += *got;
        return 0;
}

int vd_receive_fd(int fd, const char *name, struct vd_file *to, const struct vd_copy_options *options,
                  uint64_t *length, struct vd_error *err)
{
        struct descriptor d = { .fd = fd, .name = name, .stop = options->stop };

        fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);    /* no matter if it is not a pipe, or not ours */
        return vd_receive(read_descriptor, &d, to, options, length, err);
}
