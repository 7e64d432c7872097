// SPDX-License-Identifier: MIT
/* stream_out.c: a new image to standard output or into a pipe.
 *
 * Where the layout is known before the data, it is laid out first and then written from front to back.  Else the image
 * is made in a temporary file, and that is written.
 */
#include "cmd/stream_out.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/copy.h"
#include "core/spool.h"
#include "core/stream.h"
#include "util/cleanup.h"

bool vd_is_stdout(const char *path)
{
        return !strcmp(path, "-") || !strcmp(path, "/dev/stdout") || !strcmp(path, "/dev/fd/1");
}

bool vd_is_stream(const char *path)
{
        struct stat st;

        return vd_is_stdout(path) || (!stat(path, &st) && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)));
}

/* Opening a pipe waits for its reader. */
static int open_target(const char *path, struct vd_image *const *inputs, size_t count, int *fd, struct vd_error *err)
{
        struct stat st;

        *fd = vd_is_stdout(path) ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
                                 : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        if (*fd < 0 && errno == EINTR)
                return vd_fail(err, VD_ESTOPPED, "stopped by a signal");
        if (*fd < 0 || fstat(*fd, &st) < 0)
                return vd_fail(err, -errno, "%s", path);
        if (isatty(*fd))
                return vd_fail(err, VD_EUSAGE, "%s: is a terminal; an image goes into a file or a pipe", path);
        for (size_t i = 0; i < count; i++)
                if (S_ISREG(st.st_mode) && vd_image_uses(inputs[i], &st))
                        return vd_fail(err, VD_EUSAGE, "%s: the output is also an input (%s, or in its chain)", path,
                                       inputs[i]->path);
        return 0;
}

static int finish(struct vd_image *image, struct vd_error *err)
{
        struct vd_writer *writer = vd_writer_new(image);
        int ret = writer ? vd_writer_finish(writer, err) : vd_fail(err, -ENOMEM, "finishing the image");

        vd_writer_free(writer);
        return ret;
}

static int by_file(struct vd_session *session, struct vd_new_image *new, const char *name, uint64_t size,
                   struct vd_image *source, const struct vd_copy_options *options, int fd,
                   struct vd_copy_stats *stats, struct vd_error *err)
{
        int ret = vd_new_image_create_unnamed(new, name, size, source, err);

        if (ret)
                return ret;
        vd_session_note(session, "%s: the image is made in a temporary file in %s first", name, vd_spool_directory());
        ret = vd_copy(source, &new->image, 1, options, stats, err);
        if (!ret)
                ret = finish(new->image, err);
        return ret ? ret : vd_stream_file(new->image->file, options, fd, name, err);
}

static int by_layout(struct vd_session *session, struct vd_new_image *new, const char *name, uint64_t size,
                     struct vd_image *source, const struct vd_copy_options *options, int fd,
                     struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_layout *layout;
        int ret = vd_new_image_layout(new, name, size, source, options, VD_LAYOUT_STREAM, &layout, stats, err);

        if (ret)
                return ret;
        switch (vd_layout_shape(layout)) {
        case VD_SHAPE_STREAMS:
                ret = vd_stream_image(layout, source, options, fd, name, err);
                break;
        case VD_SHAPE_PACKS:
        case VD_SHAPE_SCATTERED:
                ret = by_file(session, new, name, size, source, options, fd, stats, err);
                break;
        case VD_SHAPE_SEVERAL_FILES:
                ret = vd_fail(err, VD_EUSAGE, "%s: an image of several files cannot be written as a stream", name);
                break;
        case VD_SHAPE_RESERVES:
                ret = vd_fail(err, VD_EUSAGE, "%s: space cannot be reserved in a stream: not with preallocation", name);
                break;
        }
        vd_layout_free(layout);
        return ret;
}

int vd_stream_out(struct vd_session *session, struct vd_new_image *new, const char *path, uint64_t size,
                  struct vd_image *source, struct vd_image *const *inputs, size_t count,
                  const struct vd_copy_options *options, struct vd_copy_stats *stats, struct vd_error *err)
{
        const char *name = vd_is_stdout(path) ? "stdout" : path;
        VD_AUTOCLOSE int fd = -1;
        int ret = open_target(path, inputs, count, &fd, err);

        if (!ret)
                ret = by_layout(session, new, name, size, source, options, fd, stats, err);
        for (size_t i = 0; i < count && !ret; i++)
                ret = vd_image_check_unchanged(inputs[i], err);
        if (!ret) {
                int last = fd;

                fd = -1;
                if (close(last) < 0 && errno != EINTR)
                        ret = vd_fail(err, -errno, "%s: closing", name);
        }
        return ret;
}
