// SPDX-License-Identifier: MIT
/* lock.c: the locks that QEMU sees, and those of QEMU that we see.
 *
 * OFD locks belong to open file descriptions: a second open() is as good as a second process.
 */
#include "core/lock.h"
#include "unit.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[] = "/tmp/vdtool-unit-XXXXXX";
static struct vd_error err;

static int reopen(void)
{
        int fd = open(path, O_RDWR | O_CLOEXEC);

        NEED(fd >= 0);
        return fd;
}

/* The bytes that others have locked, of 0 .. 299, as text. */
static const char *locked_bytes(void)
{
        static char text[128];
        int fd = reopen();

        text[0] = 0;
        for (int byte = 0; byte < 300; byte++) {
                struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

                NEED(fcntl(fd, F_OFD_GETLK, &lock) == 0);
                if (lock.l_type != F_UNLCK)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%d ", byte);
        }
        close(fd);
        return text;
}

static bool locks(enum vd_lock lock, const char *bytes)
{
        int fd = reopen();
        bool same = vd_lock_take(fd, "image", lock, &err) == 0 && strcmp(locked_bytes(), bytes) == 0;

        close(fd);
        return same;
}

/* Somebody else holds these bytes: what does each of our locks say? "nsrw": the ones that pass. */
static const char *passing(const int *bytes)
{
        static const enum vd_lock all[] = { VD_LOCK_NONE, VD_LOCK_SHARE, VD_LOCK_READ, VD_LOCK_WRITE };
        static char text[6];
        int other = reopen(), passed = 0;

        for (; *bytes; bytes++) {
                struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = *bytes, .l_len = 1 };

                NEED(fcntl(other, F_OFD_SETLK, &lock) == 0);
        }
        for (int i = 0; i < 4; i++) {
                int fd = reopen();
                int r = vd_lock_take(fd, "image", all[i], &err);

                NEED(r == 0 || r == VD_ELOCKED);
                if (r == 0)
                        text[passed++] = "nsrw"[i];
                close(fd);
        }
        text[passed] = 0;
        close(other);
        return text;
}

static void matrix(void)
{
        OK("nobody there: everything passes", strcmp(passing((int[]){ 0 }), "nsrw") == 0);
        OK("a force-share reader is in nobody's way", strcmp(passing((int[]){ 100, 0 }), "nsrw") == 0);
        OK("a reader keeps writers out", strcmp(passing((int[]){ 100, 201, 203, 0 }), "nsr") == 0);
        OK("a writer keeps readers and writers out",
           strcmp(passing((int[]){ 100, 101, 103, 201, 203, 0 }), "ns") == 0);
        OK("one that shares writing as well: we do not", strcmp(passing((int[]){ 100, 101, 0 }), "ns") == 0);
        OK("one that only may resize keeps readers out", strcmp(passing((int[]){ 103, 0 }), "ns") == 0);
        OK("one that suffers no reader keeps everybody out", strcmp(passing((int[]){ 200, 0 }), "n") == 0);
        OK("bytes that are not QEMU's do not matter", strcmp(passing((int[]){ 1, 99, 104, 204, 0 }), "nsrw") == 0);
}

static void conflicts(void)
{
        int first = reopen(), second = reopen();

        NEED(vd_lock_take(first, "image", VD_LOCK_READ, &err) == 0);
        OK("two may read", vd_lock_take(second, "image", VD_LOCK_READ, &err) == 0);
        OK("a reader cannot become a writer while another reads",
           vd_lock_take(second, "image", VD_LOCK_WRITE, &err) == VD_ELOCKED);
        OK("the message names the file and who holds it",
           strncmp(err.text, "image: ", 7) == 0 && strstr(err.text, "this command itself"));
        close(first);
        OK("a closed descriptor holds nothing", vd_lock_take(second, "image", VD_LOCK_WRITE, &err) == 0);
        first = reopen();
        OK("a second writer is refused", vd_lock_take(first, "image", VD_LOCK_WRITE, &err) == VD_ELOCKED);
        OK("so is a reader, and told why", vd_lock_take(first, "image", VD_LOCK_READ, &err) == VD_ELOCKED &&
                                           strstr(err.text, "is being written to"));
        close(second);
        OK("after a refusal nothing stays locked", strcmp(locked_bytes(), "") == 0);
        close(first);
}

static void holder(void)
{
        int ready[2], done[2], fd = reopen();
        char expected[32], byte;
        pid_t child;

        NEED(pipe(ready) == 0 && pipe(done) == 0);
        child = fork();
        NEED(child >= 0);
        if (child == 0) {
                int other = reopen();

                close(fd);
                close(done[1]);
                if (vd_lock_take(other, "image", VD_LOCK_WRITE, &err) == 0)
                        byte = 'y';
                _exit(write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) < 0);
        }
        NEED(read(ready[0], &byte, 1) == 1 && byte == 'y');
        snprintf(expected, sizeof(expected), "pid %d (lock)", (int)child);
        OK("another process is named with pid and program",
           vd_lock_take(fd, "image", VD_LOCK_READ, &err) == VD_ELOCKED && strstr(err.text, expected));
        close(done[1]);
        NEED(waitpid(child, NULL, 0) == child);
        close(done[0]);
        close(ready[0]);
        close(ready[1]);
        close(fd);
}

static void unused(void)
{
        int other = reopen(), fd = open(path, O_RDONLY | O_CLOEXEC);

        NEED(fd >= 0);
        OK("a file that nobody uses is unused", vd_lock_test_unused(fd, "image", &err) == 0);
        NEED(vd_lock_take(other, "image", VD_LOCK_SHARE, &err) == 0);
        OK("one that somebody only looks at is not", vd_lock_test_unused(fd, "image", &err) == VD_ELOCKED);
        OK("testing takes no lock", strcmp(locked_bytes(), "100 ") == 0);
        OK("a descriptor for reading is enough to lock", vd_lock_take(fd, "image", VD_LOCK_READ, &err) == 0);
        close(other);
        close(fd);
}

int main(void)
{
        int fd = mkstemp(path);

        NEED(fd >= 0);
        close(fd);
        OK("no lock is no lock", locks(VD_LOCK_NONE, ""));
        OK("sharing locks what qemu-img -U locks", locks(VD_LOCK_SHARE, "100 "));
        OK("reading locks what qemu-img locks", locks(VD_LOCK_READ, "100 201 203 "));
        OK("writing locks what qemu-img locks", locks(VD_LOCK_WRITE, "100 101 103 201 203 "));
        matrix();
        conflicts();
        holder();
        unused();
        unlink(path);
        return unit_done();
}
