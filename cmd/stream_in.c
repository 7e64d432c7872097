// SPDX-License-Identifier: MIT
/* stream_in.c: images that come through standard input or a pipe. */
#include "cmd/stream_in.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/receive.h"
#include "core/spool.h"
#include "util/cleanup.h"

enum { HOLE_BYTES = 4096 };

static bool is_stdin(const struct vd_session *session, const char *path)
{
        return session->command->streams && !strcmp(path, "-");
}

bool vd_is_stream_source(const struct vd_session *session, const char *path)
{
        struct stat st;

        return is_stdin(session, path) || (!stat(path, &st) && S_ISFIFO(st.st_mode));
}

static int open_source(struct vd_session *session, const char *path, int *fd, struct stat *st, struct vd_error *err)
{
        if (is_stdin(session, path) && session->used_stdin)
                return vd_fail(err, VD_EUSAGE, "standard input can be read only once");
        if (is_stdin(session, path))
                *fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        else
                *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (*fd < 0 && errno == EINTR)
                return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
        if (*fd < 0 || fstat(*fd, st) < 0)
                return vd_fail(err, -errno, "%s", path);
        if (S_ISCHR(st->st_mode) || S_ISDIR(st->st_mode))
                return vd_fail(err, VD_EUSAGE, "%s: is a %s; an image comes out of a file or a pipe", path,
                               S_ISDIR(st->st_mode) ? "directory" : isatty(*fd) ? "terminal" : "character device");
        session->used_stdin = session->used_stdin || is_stdin(session, path);
        return 0;
}

/* What never sent a byte has most likely failed, and is no empty disk. */
static int check_length(const char *path, uint64_t length, struct vd_error *err)
{
        return length ? 0 : vd_fail(err, VD_ECORRUPT, "%s: nothing came through the pipe", path);
}

int vd_stream_in(struct vd_session *session, const char *path, struct vd_file **file, struct vd_error *err)
{
        struct vd_copy_options options = { .sparse_bytes = HOLE_BYTES, .stop = &session->signals->stop };
        VD_AUTOCLOSE int fd = -1;
        struct stat st;
        uint64_t length;
        int ret = open_source(session, path, &fd, &st, err);

        if (ret)
                return ret;
        if (S_ISBLK(st.st_mode) || (S_ISREG(st.st_mode) && lseek(fd, 0, SEEK_CUR) == 0)) {
                int own = fd;

                fd = -1;
                return vd_file_from_fd(file, own, path, false, err);
        }
        ret = vd_spool_new(file, path, err);
        if (ret)
                return ret;
        vd_session_note(session, "%s: is read into a temporary file in %s first", path, vd_spool_directory());
        ret = vd_receive_fd(fd, path, *file, &options, &length, err);
        if (!ret)
                ret = vd_file_finish(*file, err);
        if (!ret)
                ret = check_length(path, length, err);
        if (ret)
                vd_file_unref(*file);
        return ret;
}

int vd_stream_in_bare(struct vd_session *session, const char *from, struct vd_new_image *new, const char *path,
                      const struct vd_copy_options *options, struct vd_copy_stats *stats, struct vd_error *err)
{
        VD_AUTOCLOSE int fd = -1;
        struct stat st, replaced;
        int ret = open_source(session, from, &fd, &st, err);

        if (!ret && S_ISREG(st.st_mode) && !stat(path, &replaced) && st.st_dev == replaced.st_dev &&
            st.st_ino == replaced.st_ino)
                return vd_fail(err, VD_EUSAGE, "%s: the output is also an input", path);
        if (!ret)
                ret = vd_new_image_open_output(new, path, err);
        if (!ret)
                ret = vd_receive_fd(fd, from, vd_output_file(new->output), options, &stats->data_bytes, err);
        if (!ret)
                ret = check_length(from, stats->data_bytes, err);
        return ret ? ret : vd_output_commit(new->output, err);
}
