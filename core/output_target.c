// SPDX-License-Identifier: MIT
/* output_target.c: from a path to a directory and a name, and what stands there already. */
#include "output_target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lock.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { LINKS_FOLLOWED = 40 };           /* as the kernel */

static const char *type_name(mode_t mode)
{
        switch (mode & S_IFMT) {
        case S_IFDIR:
                return "a directory";
        case S_IFBLK:
                return "a block device";
        case S_IFCHR:
                return "a character device";
        case S_IFIFO:
                return "a pipe";
        case S_IFSOCK:
                return "a socket";
        default:
                return "not a regular file";
        }
}

static int refuse_type(const char *path, mode_t mode, struct vd_error *err)
{
        return vd_fail(err, VD_EUSAGE, "%s: is %s; a new image needs a new name or a regular file to replace", path,
                       type_name(mode));
}

/* One step: the directory of target->path opened, the name split off. */
static int open_directory(struct vd_target *target, int base, struct vd_error *err)
{
        const char *slash = strrchr(target->path, '/');
        const char *name = slash ? slash + 1 : target->path;
        VD_AUTOFREE char *directory = slash ? strndup(target->path, slash == target->path ? 1 : slash - target->path)
                                            : strdup(".");

        if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return refuse_type(target->path, S_IFDIR, err);
        if (target->dir >= 0)
                close(target->dir);
        free(target->name);
        target->dir = -1;
        target->name = strdup(name);
        if (!directory || !target->name)
                return vd_fail(err, -ENOMEM, "%s", target->path);
        target->dir = openat(base, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (target->dir < 0 && errno == EACCES)         /* may be written without being readable */
                target->dir = openat(base, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target->dir < 0) {
                int code = -errno;

                return vd_fail(err, code, "%s: directory %s", target->path, directory);
        }
        return 0;
}

/* The path that a link at target points to, relative to the same base as target's. */
static char *link_path(const struct vd_target *target)
{
        char text[PATH_MAX];
        ssize_t length = readlinkat(target->dir, target->name, text, sizeof(text));
        int directory = (int)(strlen(target->path) - strlen(target->name));

        if (length < 0)
                return NULL;
        if (length == sizeof(text)) {
                errno = ENAMETOOLONG;
                return NULL;
        }
        if (text[0] == '/')
                directory = 0;
        return vd_asprintf("%.*s%.*s", directory, target->path, (int)length, text);
}

int vd_target_resolve(struct vd_target *target, int base, const char *path, struct vd_error *err)
{
        struct stat named, found;
        bool exists;

        if (!path[0])
                return vd_fail(err, VD_EUSAGE, "the name of the output is empty");
        /* What the kernel makes of the whole path, before we follow links ourselves. */
        exists = fstatat(base, path, &named, 0) == 0;
        if (exists && !S_ISREG(named.st_mode))
                return refuse_type(path, named.st_mode, err);

        target->path = strdup(path);
        if (!target->path)
                return vd_fail(err, -ENOMEM, "%s", path);
        for (int links = 0;; links++) {
                char *next;

                if (open_directory(target, base, err) < 0)
                        return err->code;
                if (fstatat(target->dir, target->name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
                        if (errno != ENOENT)
                                return vd_fail(err, -errno, "%s", target->path);
                        found.st_ino = 0;
                        break;
                }
                if (!S_ISLNK(found.st_mode))
                        break;
                if (links == LINKS_FOLLOWED)
                        return vd_fail(err, -ELOOP, "%s", path);
                next = link_path(target);
                if (!next)
                        return vd_fail(err, -errno, "%s: reading the symbolic link", target->path);
                free(target->path);
                target->path = next;
        }
        /* Links in /proc lead to files whose names are gone or elsewhere. */
        if (exists && (found.st_ino != named.st_ino || found.st_dev != named.st_dev))
                return vd_fail(err, VD_EUSAGE, "%s: leads to an open file without a name that could be replaced", path);
        return 0;
}

void vd_target_free(struct vd_target *target)
{
        if (target->dir >= 0)
                close(target->dir);
        free(target->name);
        free(target->path);
        *target = (struct vd_target)VD_TARGET_INIT;
}

int vd_target_examine(const struct vd_target *target, bool *exists, struct stat *st, struct vd_error *err)
{
        VD_AUTOCLOSE int fd = -1;

        *exists = fstatat(target->dir, target->name, st, AT_SYMLINK_NOFOLLOW) == 0;
        if (!*exists)
                return errno == ENOENT ? 0 : vd_fail(err, -errno, "%s", target->path);
        if (!S_ISREG(st->st_mode))
                return refuse_type(target->path, st->st_mode, err);
        fd = openat(target->dir, target->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
                return vd_fail(err, -errno, "%s: cannot tell whether it is in use", target->path);
        return vd_lock_test_unused(fd, target->path, err);
}
