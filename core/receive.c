// SPDX-License-Identifier: MIT
/* receive.c: from a pipe into a file.
 *
 *      read  (ordered)   a buffer full
 *      store (parallel)  what is not zero
 */
#include "receive.h"

#include <errno.h>
#include <fcntl.h>
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
        int fd;
        const char *name;
        struct vd_file *to;
        const struct vd_copy_options *options;
        struct vd_pace pace;            /* read */
        size_t granule;                 /* 0: no holes */
        uint64_t position;
        bool ended;
};

static int wait_for_bytes(const struct receiver *rx, struct vd_error *err)
{
        struct pollfd bytes = { .fd = rx->fd, .events = POLLIN };

        if (poll(&bytes, 1, -1) < 0 && errno != EINTR)
                return vd_fail(err, -errno, "%s: waiting", rx->name);
        return 0;
}

static int read_part(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct receiver *rx = context;
        struct part *p = slot;

        (void)worker;
        if (!p->bytes && !(p->bytes = malloc(CHUNK)))
                return vd_fail(err, -ENOMEM, "a buffer of %d bytes", (int)CHUNK);
        p->position = rx->position;
        p->length = 0;
        while (p->length < CHUNK && !rx->ended) {
                ssize_t n = read(rx->fd, p->bytes + p->length, CHUNK - p->length);
                int r = 0;

                if (rx->options->stop && *rx->options->stop)
                        return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                if (n < 0 && errno == EAGAIN)
                        r = wait_for_bytes(rx, err);
                else if (n < 0 && errno != EINTR)
                        r = vd_fail(err, -errno, "%s: reading at %llu", rx->name,
                                    (unsigned long long)(p->position + p->length));
                if (r)
                        return r;
                rx->ended = n == 0;
                p->length += n > 0 ? (size_t)n : 0;
        }
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

int vd_receive(int fd, const char *name, struct vd_file *to, const struct vd_copy_options *options, uint64_t *length,
               struct vd_error *err)
{
        struct receiver rx = { .fd = fd, .name = name, .to = to, .options = options };
        unsigned threads = vd_copy_threads(options);
        size_t slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD;
        struct part *parts = calloc(slot_count, sizeof(*parts));
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = parts && slots ? 0 : vd_fail(err, -ENOMEM, "%s", name);

        if (options->sparse_bytes)
                rx.granule = vd_round_up(vd_max(options->sparse_bytes, HOLE_LEAST), 512);
        vd_pace_start(&rx.pace, options->rate, options->stop);
        fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);    /* no matter if it is not a pipe, or not ours */
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
