// SPDX-License-Identifier: MIT
/* sink.c: writing forward. */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/iszero.h"

enum {
        PIPE_BYTES = 1024 * 1024,       /* what an ordinary user may ask for */
        HOLE = 4096,
        WRITE_STEP = 256 * 1024,
};

void vd_sink_init(struct vd_sink *sink, int fd, const char *name, const volatile int *stop)
{
        struct stat st;
        off_t at;

        *sink = (struct vd_sink){ .fd = fd, .name = name, .stop = stop };
        if (fstat(fd, &st) < 0)
                return;
        if (S_ISFIFO(st.st_mode))
                fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
        if (S_ISREG(st.st_mode) && !(fcntl(fd, F_GETFL) & O_APPEND)) {
                at = lseek(fd, 0, SEEK_CUR);
                sink->makes_holes = at >= 0 && at >= st.st_size;
        }
}

static int wait_for_room(const struct vd_sink *sink, struct vd_error *err)
{
        struct pollfd room = { .fd = sink->fd, .events = POLLOUT };

        if (poll(&room, 1, -1) < 0 && errno != EINTR)
                return vd_fail(err, -errno, "%s: waiting for its reader", sink->name);
        return 0;
}

static int write_all(const struct vd_sink *sink, const char *bytes, size_t length, struct vd_error *err)
{
        while (length) {
                ssize_t n = write(sink->fd, bytes, length < WRITE_STEP ? length : WRITE_STEP);
                int r = 0;

                if (n < 0 && errno == EAGAIN)
                        r = wait_for_room(sink, err);
                else if (n < 0 && errno != EINTR)
                        r = vd_fail(err, -errno, "%s: writing", sink->name);
                if (!r && sink->stop && *sink->stop)
                        r = vd_fail(err, VD_ESTOPPED, "stopped by a signal");
                if (r)
                        return r;
                if (n > 0) {
                        bytes += n;
                        length -= (size_t)n;
                }
        }
        return 0;
}

static size_t zeros_ahead(const char *bytes, size_t length)
{
        size_t n = 0;

        while (length - n >= HOLE && vd_is_zero(bytes + n, HOLE))
                n += HOLE;
        return n;
}

static size_t data_ahead(const char *bytes, size_t length)
{
        size_t n = 0;

        while (length - n >= HOLE && !vd_is_zero(bytes + n, HOLE))
                n += HOLE;
        return length - n < HOLE ? length : n;
}

int vd_sink_write(struct vd_sink *sink, const void *buffer, size_t length, struct vd_error *err)
{
        const char *bytes = buffer;
        int r = 0;

        if (!sink->makes_holes)
                return write_all(sink, bytes, length, err);
        while (length && !r) {
                size_t zeros = zeros_ahead(bytes, length), data = zeros ? 0 : data_ahead(bytes, length);

                if (zeros && lseek(sink->fd, (off_t)zeros, SEEK_CUR) < 0)
                        r = vd_fail(err, -errno, "%s: leaving a hole", sink->name);
                else if (data)
                        r = write_all(sink, bytes, data, err);
                bytes += zeros + data;
                length -= zeros + data;
        }
        return r;
}

int vd_sink_finish(struct vd_sink *sink, struct vd_error *err)
{
        struct stat st;
        off_t at;

        if (!sink->makes_holes)
                return 0;
        at = lseek(sink->fd, 0, SEEK_CUR);
        if (at < 0 || fstat(sink->fd, &st) < 0 || (at > st.st_size && ftruncate(sink->fd, at) < 0))
                return vd_fail(err, -errno, "%s: setting its length", sink->name);
        return 0;
}
