// SPDX-License-Identifier: MIT
/* lock.c: QEMU's image locks, taken and tested. */
#include "lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

enum { USES = 100, UNSHARES = 200 };    /* first byte of each group */
enum permission { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE, PERMISSIONS };

static const struct {
        uint8_t bytes[6], conflicts[6]; /* to lock; that must be free.  Zero ends both */
} protocols[] = {
        [VD_LOCK_SHARE] = { { USES + CONSISTENT_READ }, { UNSHARES + CONSISTENT_READ } },
        [VD_LOCK_READ] = { { USES + CONSISTENT_READ, UNSHARES + WRITE, UNSHARES + RESIZE },
                           { UNSHARES + CONSISTENT_READ, USES + WRITE, USES + RESIZE } },
        [VD_LOCK_WRITE] = { { USES + CONSISTENT_READ, USES + WRITE, USES + RESIZE, UNSHARES + WRITE,
                              UNSHARES + RESIZE },
                            { UNSHARES + CONSISTENT_READ, UNSHARES + WRITE, UNSHARES + RESIZE, USES + WRITE,
                              USES + RESIZE } },
};

static int lock_call(int fd, int command, struct flock *lock)
{
        int r;

        do {
                r = fcntl(fd, command, lock);
        } while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

static int set_byte(int fd, int byte, short type)
{
        struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

        return lock_call(fd, F_OFD_SETLK, &lock);
}

/* 1: somebody else has locked one of the bytes, and *found is the first such byte; 0: free; negative: errno. */
static int test_bytes(int fd, int first, int count, int *found)
{
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = first, .l_len = count };
        int r = lock_call(fd, F_OFD_GETLK, &lock);

        if (r < 0 || lock.l_type == F_UNLCK)
                return r;
        /* The other lock may be longer than what was asked about. */
        *found = lock.l_start > first ? (int)lock.l_start : first;
        return 1;
}

static void unlock_all(int fd, const uint8_t *bytes)
{
        for (; *bytes; bytes++)
                set_byte(fd, *bytes, F_UNLCK);
}

/* Errors that say "this file system has no such locks", not "somebody holds one". */
static bool is_unsupported(int code)
{
        return code == -ENOLCK || code == -EOPNOTSUPP || code == -ENOSYS || code == -EINVAL;
}

/* ---- who holds a lock ---- */

/* Does this /proc/PID/fdinfo/N name a lock that covers the byte? Its lines look like
 * "lock:  1: OFDLCK ADVISORY READ -1 fd:00:1234 101 101", the last number may be EOF. */
static bool fdinfo_locks(int directory, const char *name, long byte)
{
        char line[256];
        bool found = false;
        int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
        FILE *stream = fd < 0 ? NULL : fdopen(fd, "r");

        if (!stream) {
                if (fd >= 0)
                        close(fd);
                return false;
        }
        while (!found && fgets(line, sizeof(line), stream)) {
                char last[32];
                long first;

                if (sscanf(line, "lock: %*s %*s %*s %*s %*s %*s %ld %31s", &first, last) != 2)
                        continue;
                found = first <= byte && (strcmp(last, "EOF") == 0 || byte <= strtol(last, NULL, 10));
        }
        fclose(stream);
        return found;
}

/* Has process `pid` a descriptor of this file with a lock on the byte? */
static bool process_locks(int proc, const char *pid, const struct stat *file, long byte)
{
        char path[64];
        struct dirent *entry;
        bool found = false;
        DIR *list;
        VD_AUTOCLOSE int infos = -1;
        int descriptors;

        snprintf(path, sizeof(path), "%.20s/fdinfo", pid);
        infos = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        snprintf(path, sizeof(path), "%.20s/fd", pid);
        descriptors = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        list = infos < 0 || descriptors < 0 ? NULL : fdopendir(descriptors);
        if (!list) {
                if (descriptors >= 0)
                        close(descriptors);
                return false;
        }
        while (!found && (entry = readdir(list))) {
                struct stat st;

                found = fstatat(dirfd(list), entry->d_name, &st, 0) == 0 && st.st_dev == file->st_dev &&
                        st.st_ino == file->st_ino && fdinfo_locks(infos, entry->d_name, byte);
        }
        closedir(list);
        return found;
}

/* "pid 1234 (qemu-system-x86)", as far as /proc tells.  An OFD lock names no holder: we have to look for it. */
static void name_holder(char *text, size_t room, int fd, long byte)
{
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        struct stat file;

        snprintf(text, room, "another process");
        if (!proc)
                return;
        if (fstat(fd, &file) < 0) {
                closedir(proc);
                return;
        }
        while ((entry = readdir(proc))) {
                char path[64], name[64] = "";
                VD_AUTOCLOSE int comm = -1;

                if (!isdigit((unsigned char)entry->d_name[0]) ||
                    !process_locks(dirfd(proc), entry->d_name, &file, byte))
                        continue;
                if (strtol(entry->d_name, NULL, 10) == getpid()) {
                        snprintf(text, room, "this command itself, which reads it");
                        break;
                }
                snprintf(path, sizeof(path), "%.20s/comm", entry->d_name);
                comm = openat(dirfd(proc), path, O_RDONLY | O_CLOEXEC);
                if (comm >= 0 && read(comm, name, sizeof(name) - 1) > 0)
                        name[strcspn(name, "\n")] = 0;
                snprintf(text, room, "pid %.20s (%s)", entry->d_name, name[0] ? name : "?");
                break;
        }
        closedir(proc);
}

static int conflict(int fd, const char *name, int byte, struct vd_error *err)
{
        const char *what = byte == USES + WRITE || byte == USES + RESIZE ? "is being written to"
                           : byte >= UNSHARES ? "is in use and must not be changed" : "is in use";
        char holder[128];

        if (byte == UNSHARES + CONSISTENT_READ)
                what = "is in use and must not be read";
        name_holder(holder, sizeof(holder), fd, byte);
        return vd_fail(err, VD_ELOCKED, "%s: %s: byte %d is locked by %s", name, what, byte, holder);
}

int vd_lock_take(int fd, const char *name, enum vd_lock wanted, struct vd_error *err)
{
        const uint8_t *bytes, *conflicts;
        int r = 0, byte = 0;

        if (wanted == VD_LOCK_NONE)
                return 0;
        bytes = protocols[wanted].bytes;
        conflicts = protocols[wanted].conflicts;

        /* First say what we do, then look at what others do: of two that start together, one at least sees the other. */
        for (const uint8_t *b = bytes; *b && r == 0; b++) {
                byte = *b;
                r = set_byte(fd, *b, F_RDLCK);
        }
        for (const uint8_t *c = conflicts; *c && r == 0; c++)
                r = test_bytes(fd, *c, 1, &byte);
        if (r == 0)
                return 0;

        unlock_all(fd, bytes);
        if (r > 0 || r == -EAGAIN || r == -EACCES)
                return conflict(fd, name, byte, err);
        if (!is_unsupported(r))
                return vd_fail(err, r, "%s: locking byte %d", name, byte);
        if (wanted != VD_LOCK_WRITE)
                return 0;
        return vd_fail(err, r, "%s: cannot be locked here, and might be in use; --no-lock writes to it all the same",
                       name);
}

int vd_lock_test_unused(int fd, const char *name, struct vd_error *err)
{
        int byte = 0, r = test_bytes(fd, USES, PERMISSIONS, &byte);

        if (r == 0)
                r = test_bytes(fd, UNSHARES, PERMISSIONS, &byte);
        if (r > 0)
                return conflict(fd, name, byte, err);
        /* Without locks nobody can have told us anything; the file is replaced, not written to. */
        if (r < 0 && !is_unsupported(r))
                return vd_fail(err, r, "%s: testing for locks", name);
        return 0;
}
