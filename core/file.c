// SPDX-License-Identifier: MIT
/* file.c: vd_file on descriptors of regular files and block devices, and the dispatch to all backends. */
#include "file_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "util/checked.h"
#include "util/text.h"

enum {
        IO_STEP = 256 * 1024,           /* larger single writes are slower on ext4 and no faster elsewhere */
        ZERO_STEP = 64 * 1024,
};

struct host_file {
        struct vd_file file;
        int fd;
        bool device;
        bool sync_failed;               /* written by sync only: the driver's thread */
        struct stat opened;             /* as it was before we read anything */
        _Atomic uint64_t size;          /* any thread: grows with writes */

        /* Reservation, touched by one thread: see vd_file_reserve(). */
        bool can_reserve;
        uint64_t reserved_start, reserved_end;  /* the latest reservations that follow each other */
        uint64_t reserved_most;                 /* end of the furthest one */
};

static struct host_file *host(struct vd_file *f)
{
        return (struct host_file *)f;
}

static const struct host_file *host_const(const struct vd_file *f)
{
        return (const struct host_file *)f;
}

static uint64_t host_size(const struct vd_file *f)
{
        return atomic_load(&host_const(f)->size);
}

static uint64_t host_disk_bytes(const struct vd_file *f)
{
        struct stat st;

        if (fstat(host_const(f)->fd, &st) < 0)
                return 0;
        return host_const(f)->device ? host_size(f) : (uint64_t)st.st_blocks * 512;
}

static void host_grew(struct host_file *h, uint64_t end)
{
        uint64_t size = atomic_load(&h->size);

        while (end > size && !atomic_compare_exchange_weak(&h->size, &size, end))
                ;
}

static int host_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                     struct vd_error *err)
{
        size_t done = 0;

        while (done < length) {
                size_t want = vd_min(length - done, 1u << 30);
                ssize_t n = pread(host(f)->fd, (char *)buffer + done, want, (off_t)(position + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return vd_fail(err, -errno, "%s: reading %zu bytes at %" PRIu64, f->name, want,
                                       position + done);
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        *got = done;
        return 0;
}

static int host_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        size_t done = 0;

        while (done < length) {
                size_t want = vd_min(length - done, IO_STEP);
                ssize_t n = pwrite(host(f)->fd, (const char *)buffer + done, want, (off_t)(position + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return vd_fail(err, -errno, "%s: writing %zu bytes at %" PRIu64, f->name, want,
                                       position + done);
                if (n == 0)
                        return vd_fail(err, -ENOSPC, "%s: writing %zu bytes at %" PRIu64, f->name, want,
                                       position + done);
                done += (size_t)n;
        }
        host_grew(host(f), position + length);
        return 0;
}

static int host_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        struct host_file *h = host(f);
        int r;

        if (h->device) {
                if (size <= host_size(f))
                        return 0;
                return vd_fail(err, -ENOSPC, "%s: a device of %" PRIu64 " bytes cannot grow to %" PRIu64, f->name,
                               host_size(f), size);
        }
        do {
                r = ftruncate(h->fd, (off_t)size);
        } while (r < 0 && errno == EINTR);
        if (r < 0)
                return vd_fail(err, -errno, "%s: setting the length to %" PRIu64, f->name, size);
        atomic_store(&h->size, size);
        h->reserved_start = h->reserved_end = 0;
        return 0;
}

static int write_zeros(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        static const char zeros[ZERO_STEP];
        int r = 0;

        while (length && !r) {
                size_t n = vd_min(length, sizeof(zeros));

                r = host_write(f, zeros, n, position, err);
                position += n;
                length -= n;
        }
        return r;
}

static int host_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        struct host_file *h = host(f);
        uint64_t size = host_size(f), end = position + length;
        uint64_t inside = position < size ? vd_min(end, size) - position : 0;
        int r;

        if (inside) {
                do {
                        r = fallocate(h->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)position,
                                      (off_t)inside);
                } while (r < 0 && errno == EINTR);
                if (r < 0 && (errno == EIO || errno == ENOSPC))
                        return vd_fail(err, -errno, "%s: zeroing %" PRIu64 " bytes at %" PRIu64, f->name, inside,
                                       position);
                if (r < 0) {
                        r = write_zeros(f, position, inside, err);
                        if (r)
                                return r;
                }
        }
        /* Other threads may be writing further on: a byte written can only make the file longer, ftruncate could cut. */
        return end > size ? host_write(f, "", 1, end - 1, err) : 0;
}

static void host_reserve(struct vd_file *f, uint64_t position, uint64_t length)
{
        struct host_file *h = host(f);

        if (!h->can_reserve || (position >= h->reserved_start && position + length <= h->reserved_end))
                return;
        if (fallocate(h->fd, FALLOC_FL_KEEP_SIZE, (off_t)position, (off_t)length) < 0) {
                h->can_reserve = false;
                return;
        }
        if (position != h->reserved_end)
                h->reserved_start = position;
        h->reserved_end = position + length;
        h->reserved_most = vd_max(h->reserved_most, h->reserved_end);
}

static int host_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        struct host_file *h = host(f);
        int r;

        if (!length)
                return 0;
        do {
                r = fallocate(h->fd, 0, (off_t)position, (off_t)length);
        } while (r < 0 && errno == EINTR);
        if (r < 0)
                return vd_fail(err, -errno, "%s: allocating %" PRIu64 " bytes at %" PRIu64, f->name, length,
                               position);
        host_grew(h, position + length);
        return 0;
}

static int host_sync(struct vd_file *f, struct vd_error *err)
{
        struct host_file *h = host(f);

        if (h->sync_failed)
                return vd_fail(err, -EIO, "%s: an earlier sync failed: do not trust this file", f->name);
        if (fdatasync(h->fd) < 0) {
                h->sync_failed = true;
                return vd_fail(err, -errno, "%s: syncing; do not trust this file", f->name);
        }
        return 0;
}

static int host_finish(struct vd_file *f, struct vd_error *err)
{
        struct host_file *h = host(f);
        uint64_t size = host_size(f);
        int copy;

        if (h->reserved_most > size && ftruncate(h->fd, (off_t)size) < 0)
                return vd_fail(err, -errno, "%s: giving back reserved space", f->name);
        h->reserved_most = 0;
        copy = fcntl(h->fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return vd_fail(err, -errno, "%s: closing", f->name);
        if (close(copy) < 0 && errno != EINTR)
                return vd_fail(err, -errno, "%s: closing", f->name);
        return 0;
}

static int host_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        struct host_file *h = host(f);
        uint64_t size = host_size(f);
        off_t at;

        *data = true;
        *end = size;
        if (h->device)
                return 0;
        at = lseek(h->fd, (off_t)position, SEEK_DATA);
        if (at < 0 && errno == ENXIO) {
                *data = false;
                return 0;
        }
        if (at < 0 && errno == EINVAL)          /* a file system without hole support: all data */
                return 0;
        if (at < 0)
                return vd_fail(err, -errno, "%s: looking for data at %" PRIu64, f->name, position);
        if ((uint64_t)at > position) {
                *data = false;
                *end = vd_min((uint64_t)at, size);
                return 0;
        }
        at = lseek(h->fd, (off_t)position, SEEK_HOLE);
        if (at > 0 && (uint64_t)at > position)
                *end = vd_min((uint64_t)at, size);
        return 0;
}

static int host_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        const struct host_file *h = host_const(f);
        struct stat now;

        if (f->writable || h->device)
                return 0;
        if (fstat(h->fd, &now) < 0)
                return vd_fail(err, -errno, "%s: fstat", f->name);
        if (now.st_size != h->opened.st_size || now.st_mtim.tv_sec != h->opened.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != h->opened.st_mtim.tv_nsec || now.st_ctim.tv_sec != h->opened.st_ctim.tv_sec ||
            now.st_ctim.tv_nsec != h->opened.st_ctim.tv_nsec)
                return vd_fail(err, VD_ECHANGED, "%s: was changed by somebody else while it was read", f->name);
        return 0;
}

static bool host_is(const struct vd_file *f, const struct stat *st)
{
        const struct stat *own = &host_const(f)->opened;

        if (host_const(f)->device && S_ISBLK(st->st_mode))
                return own->st_rdev == st->st_rdev;
        return own->st_dev == st->st_dev && own->st_ino == st->st_ino;
}

static void host_close(struct vd_file *f)
{
        close(host(f)->fd);
        free(f);
}

static const struct vd_file_ops host_ops = {
        .size = host_size, .disk_bytes = host_disk_bytes, .read = host_read, .write = host_write, .zero = host_zero,
        .reserve = host_reserve, .allocate = host_allocate, .truncate = host_truncate, .sync = host_sync,
        .next = host_next, .finish = host_finish, .check_unchanged = host_check_unchanged, .is = host_is,
        .close = host_close,
};

int vd_file_from_fd(struct vd_file **out, int fd, const char *name, bool writable, struct vd_error *err)
{
        struct host_file *h = calloc(1, sizeof(*h));
        uint64_t size;
        struct statfs fs;
        int r;

        if (!h) {
                r = vd_fail(err, -ENOMEM, "%s", name);
                goto fail;
        }
        r = vd_file_init(&h->file, &host_ops, name, writable, err);
        if (r)
                goto fail;
        h->fd = fd;
        r = fstat(fd, &h->opened) < 0 ? -errno : 0;
        if (r) {
                vd_fail(err, r, "%s: fstat", h->file.name);
                goto fail;
        }
        h->device = S_ISBLK(h->opened.st_mode);
        if (!h->device && !S_ISREG(h->opened.st_mode)) {
                r = vd_fail(err, VD_EUSAGE, "%s: is a %s; an image is a regular file or a block device", h->file.name,
                            S_ISDIR(h->opened.st_mode) ? "directory" : S_ISCHR(h->opened.st_mode)
                            ? "character device" : S_ISFIFO(h->opened.st_mode) ? "pipe" : "socket");
                goto fail;
        }
        size = (uint64_t)h->opened.st_size;
        if (h->device && ioctl(fd, BLKGETSIZE64, &size) < 0) {
                r = vd_fail(err, -errno, "%s: asking for the size of the device", h->file.name);
                goto fail;
        }
        atomic_init(&h->size, size);
        /* On tmpfs reserving costs as much as writing. */
        h->can_reserve = writable && !h->device && fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
        *out = &h->file;
        return 0;
fail:
        if (h)
                free(h->file.name);
        free(h);
        close(fd);
        return r;
}

int vd_file_open(struct vd_file **out, const char *path, unsigned flags, struct vd_error *err)
{
        bool writable = flags & VD_FILE_WRITE;
        int fd;

        /* O_NONBLOCK: opening a FIFO must not wait for the other end. */
        do {
                fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        } while (fd < 0 && errno == EINTR);
        if (fd < 0) {
                int code = -errno;
                char shown[256];

                return vd_fail(err, code, "%s", vd_printable(shown, sizeof(shown), path, strlen(path)));
        }
        return vd_file_from_fd(out, fd, path, writable, err);
}

int vd_file_fd(const struct vd_file *f)
{
        return f->ops == &host_ops ? host_const(f)->fd : -1;
}

bool vd_file_is_device(const struct vd_file *f)
{
        return f->ops == &host_ops && host_const(f)->device;
}

/* Dispatch: range checks and messages that are the same for every backend. */

int vd_file_init(struct vd_file *f, const struct vd_file_ops *ops, const char *name, bool writable,
                 struct vd_error *err)
{
        f->name = vd_printable_dup(name, strlen(name));
        if (!f->name)
                return vd_fail(err, -ENOMEM, "file name");
        f->ops = ops;
        f->writable = writable;
        atomic_init(&f->references, 1);
        return 0;
}

struct vd_file *vd_file_ref(struct vd_file *f)
{
        atomic_fetch_add(&f->references, 1);
        return f;
}

void vd_file_unref(struct vd_file *f)
{
        if (!f || atomic_fetch_sub(&f->references, 1) != 1)
                return;
        free(f->name);
        f->ops->close(f);
}

const char *vd_file_name(const struct vd_file *f)
{
        return f->name;
}

uint64_t vd_file_size(const struct vd_file *f)
{
        return f->ops->size(f);
}

uint64_t vd_file_disk_bytes(const struct vd_file *f)
{
        return f->ops->disk_bytes(f);
}

bool vd_file_is_writable(const struct vd_file *f)
{
        return f->writable;
}

bool vd_file_is_remote(const struct vd_file *f)
{
        return f->ops->is_remote && f->ops->is_remote(f);
}

bool vd_file_is(const struct vd_file *f, const struct stat *st)
{
        return f->ops->is(f, st);
}

int vd_file_read_some(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                      struct vd_error *err)
{
        *got = 0;
        if (position >= INT64_MAX || length > INT64_MAX - position)
                return vd_fail(err, VD_ECORRUPT, "%s: position %" PRIu64 " lies past any possible end of file",
                               f->name, position);
        return f->ops->read(f, buffer, length, position, got, err);
}

int vd_file_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        size_t got;
        int r = vd_file_read_some(f, buffer, length, position, &got, err);

        if (!r && got < length)
                return vd_fail(err, VD_ECORRUPT, "%s: file ends at %" PRIu64 ", expected %zu bytes at %" PRIu64,
                               f->name, position + got, length, position);
        return r;
}

static int check_write(const struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        if (!f->writable)
                return vd_fail(err, -EBADF, "%s: is open for reading only", f->name);
        if (position > INT64_MAX || length > INT64_MAX - position)
                return vd_fail(err, -EFBIG, "%s: writing %" PRIu64 " bytes at %" PRIu64, f->name, length, position);
        return 0;
}

int vd_file_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        int r = check_write(f, position, length, err);

        return r ? r : f->ops->write(f, buffer, length, position, err);
}

int vd_file_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        int r = check_write(f, position, length, err);

        return r || !length ? r : f->ops->zero(f, position, length, err);
}

int vd_file_fill(struct vd_file *f, uint64_t position, uint64_t length, const volatile int *stop, struct vd_error *err)
{
        static const char zeros[ZERO_STEP];
        int r = 0;

        for (uint64_t at = 0; at < length && !r; at += sizeof(zeros))
                r = stop && *stop ? vd_fail(err, VD_ESTOPPED, "stopped by a signal")
                                  : vd_file_write(f, zeros, vd_min(sizeof(zeros), length - at), position + at, err);
        return r;
}

void vd_file_reserve(struct vd_file *f, uint64_t position, uint64_t length)
{
        if (f->ops->reserve)
                f->ops->reserve(f, position, length);
}

int vd_file_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        int r = check_write(f, position, length, err);

        return r ? r : f->ops->allocate(f, position, length, err);
}

int vd_file_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        int r = check_write(f, size, 0, err);

        return r ? r : f->ops->truncate(f, size, err);
}

int vd_file_sync(struct vd_file *f, struct vd_error *err)
{
        return f->ops->sync(f, err);
}

int vd_file_finish(struct vd_file *f, struct vd_error *err)
{
        return f->ops->finish ? f->ops->finish(f, err) : 0;
}

int vd_file_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        return f->ops->next(f, position, data, end, err);
}

int vd_file_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        return f->ops->check_unchanged ? f->ops->check_unchanged(f, err) : 0;
}
