// SPDX-License-Identifier: MIT
/* output.c: new files that appear complete, or not at all.
 *
 * VDTOOL_NO_TMPFILE=1 in the environment: named temporary files even where unnamed ones exist (for tests).
 * VDTOOL_FSYNC=always: as if VD_OUTPUT_SYNC were always given.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "output_target.h"
#include "util/text.h"

enum {
        NAME_ATTEMPTS = 100,
        NAME_LONGEST = 255,             /* NAME_MAX of every file system that we know */
};

enum state {
        NEW,                            /* has no name, or its temporary one */
        LINKED,                         /* has its final name, where there was nothing before */
        EXCHANGED,                      /* has its final name; the file replaced has the temporary one */
        REPLACED,                       /* has its final name; the file replaced is gone */
};

struct output_file {
        struct vd_target target;
        struct vd_file *file;
        char *temporary;                /* its name in the directory, or of what it was exchanged with; NULL: none */
        bool replaces;                  /* when the transaction began there was ... */
        struct stat old;                /* ... this */
        enum state state;
};

struct vd_output {
        struct output_file *files;      /* [0]: the main one */
        size_t count;
        unsigned flags;
        struct vd_target directory;     /* the files lie in a new directory, which goes there */
        char *directory_temporary;      /* its name until then; NULL: it has its own, or there is none */
        /* Files without names come from here; NULL: they have names. */
        int (*make)(struct vd_file **, const char *name, struct vd_error *);
};

/* ---- temporary names ---- */

/* Names only have to differ: creating fails when one is taken. */
static void random_letters(char *text, size_t count)
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
        uint64_t bits;

        if (getrandom(&bits, sizeof(bits), GRND_NONBLOCK) != sizeof(bits)) {
                struct timespec now;

                clock_gettime(CLOCK_MONOTONIC, &now);
                bits = ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) * 0x9e3779b97f4a7c15u ^
                       (uint64_t)getpid() << 32;
        }
        for (size_t i = 0; i < count; i++, bits /= sizeof(letters) - 1)
                text[i] = letters[bits % (sizeof(letters) - 1)];
}

/* ".NAME.vdtool-XXXXXX"; a long NAME is cut. */
static char *temporary_name(const char *name)
{
        static const char marker[] = ".vdtool-";
        char letters[6];

        random_letters(letters, sizeof(letters));
        return vd_asprintf(".%.*s%s%.6s", (int)(NAME_LONGEST - 1 - (sizeof(marker) - 1) - sizeof(letters)), name,
                           marker, letters);
}

/* Gives the file a temporary name: links it, or creates it (link_from NULL).  Returns the descriptor, 0 after linking,
 * or a negative code with *err set. */
static int make_temporary(struct output_file *f, const char *link_from, struct vd_error *err)
{
        for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
                char *name = temporary_name(f->target.name);
                int r;

                if (!name)
                        return vd_fail(err, -ENOMEM, "%s", f->target.path);
                if (link_from)
                        r = linkat(AT_FDCWD, link_from, f->target.dir, name, AT_SYMLINK_FOLLOW);
                else
                        r = openat(f->target.dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
                if (r >= 0) {
                        f->temporary = name;
                        return r;
                }
                free(name);
                if (errno != EEXIST && errno != EINTR)
                        return vd_fail(err, -errno, "%s: creating a temporary file beside it", f->target.path);
        }
        return vd_fail(err, -EEXIST, "%s: no free name for a temporary file beside it", f->target.path);
}

/* Removes the temporary name if it still is what we gave it to. */
static void drop_temporary(struct output_file *f, const struct stat *ours)
{
        struct stat found;

        if (!f->temporary)
                return;
        if (fstatat(f->target.dir, f->temporary, &found, AT_SYMLINK_NOFOLLOW) == 0 && found.st_dev == ours->st_dev &&
            found.st_ino == ours->st_ino)
                unlinkat(f->target.dir, f->temporary, 0);
        free(f->temporary);
        f->temporary = NULL;
}

/* ---- creating ---- */

#define FD_PATH_ROOM 32

static char *fd_path(char room[FD_PATH_ROOM], int fd)
{
        snprintf(room, FD_PATH_ROOM, "/proc/self/fd/%d", fd);
        return room;
}

/* An unnamed file that can be linked later; -1 where that does not exist.  O_EXCL would forbid the link. */
static int open_unnamed(const struct output_file *f)
{
        const char *no = getenv("VDTOOL_NO_TMPFILE");
        char path[FD_PATH_ROOM];
        int fd;

        if (no && strcmp(no, "1") == 0)
                return -1;
        fd = openat(f->target.dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0 && access(fd_path(path, fd), F_OK) < 0) {           /* no /proc */
                close(fd);
                fd = -1;
        }
        return fd;
}

/* Further files were resolved beside the main one; people want to read where that is. */
static int show_directory(const struct vd_output *output, struct vd_target *target)
{
        const struct vd_target *main_target = &output->files[0].target;
        char *path;

        if (output->count == 0 || target->path[0] == '/')
                return 0;
        path = vd_asprintf("%.*s%s", (int)(strlen(main_target->path) - strlen(main_target->name)), main_target->path,
                           target->path);
        if (!path)
                return -1;
        free(target->path);
        target->path = path;
        return 0;
}

static int create_unnamed(struct vd_output *output, struct output_file *f, const char *path, struct vd_error *err)
{
        f->target.path = strdup(path);
        f->target.name = strdup(path);
        if (!f->target.path || !f->target.name)
                return vd_fail(err, -ENOMEM, "%s", path);
        return output->make(&f->file, path, err);
}

static bool is_same_place(const struct vd_target *a, const struct vd_target *b)
{
        struct stat st, other;

        return strcmp(a->name, b->name) == 0 && fstat(a->dir, &st) == 0 && fstat(b->dir, &other) == 0 &&
               st.st_dev == other.st_dev && st.st_ino == other.st_ino;
}

static int create_file(struct vd_output *output, struct output_file *f, int base, const char *path,
                       struct vd_error *err)
{
        int fd;

        if (vd_target_resolve(&f->target, base, path, err) < 0)
                return err->code;
        if (show_directory(output, &f->target) < 0)
                return vd_fail(err, -ENOMEM, "%s", path);
        if (vd_target_examine(&f->target, &f->replaces, &f->old, err) < 0)
                return err->code;
        if (f->replaces && !(output->flags & VD_OUTPUT_REPLACE))
                return vd_fail(err, -EEXIST, "%s", f->target.path);
        for (size_t i = 0; i < output->count; i++)
                if (is_same_place(&output->files[i].target, &f->target))
                        return vd_fail(err, VD_EUSAGE, "%s: two files of the image would have this name",
                                       f->target.path);
        /* Whatever stopped the unnamed file stops the named one too, with a better message, or does not matter. */
        fd = open_unnamed(f);
        if (fd < 0)
                fd = make_temporary(f, NULL, err);
        if (fd < 0)
                return err->code;
        if (vd_file_from_fd(&f->file, fd, f->target.path, true, err) < 0) {
                /* The descriptor is closed by now, so that nothing proves the name ours but its being exclusive. */
                if (f->temporary)
                        unlinkat(f->target.dir, f->temporary, 0);
                free(f->temporary);
                f->temporary = NULL;
                return err->code;
        }
        return 0;
}

static void free_file(struct output_file *f)
{
        struct stat ours;

        if (f->file && fstat(vd_file_fd(f->file), &ours) == 0)
                drop_temporary(f, &ours);
        vd_file_unref(f->file);
        free(f->temporary);
        vd_target_free(&f->target);
}

static int add_file(struct vd_output *output, int base, const char *path, struct vd_file **file, struct vd_error *err)
{
        struct output_file *files = reallocarray(output->files, output->count + 1, sizeof(*files));
        struct output_file f = { .target = VD_TARGET_INIT };

        if (!files)
                return vd_fail(err, -ENOMEM, "%s", path);
        output->files = files;
        if ((output->make ? create_unnamed(output, &f, path, err) : create_file(output, &f, base, path, err)) < 0) {
                free_file(&f);
                return err->code;
        }
        files[output->count++] = f;
        *file = f.file;
        return 0;
}

int vd_output_new(struct vd_output **out, const char *path, unsigned flags, struct vd_error *err)
{
        struct vd_output *output = calloc(1, sizeof(*output));
        const char *sync = getenv("VDTOOL_FSYNC");
        struct vd_file *file;

        if (!output)
                return vd_fail(err, -ENOMEM, "%s", path);
        output->flags = flags;
        output->directory = (struct vd_target)VD_TARGET_INIT;
        if (sync && strcmp(sync, "always") == 0)
                output->flags |= VD_OUTPUT_SYNC;
        if (add_file(output, AT_FDCWD, path, &file, err) < 0) {
                vd_output_free(output);
                return err->code;
        }
        *out = output;
        return 0;
}

int vd_output_new_unnamed(struct vd_output **out, const char *path,
                          int (*make)(struct vd_file **, const char *name, struct vd_error *), struct vd_error *err)
{
        struct vd_output *output = calloc(1, sizeof(*output));
        struct vd_file *file;

        if (!output)
                return vd_fail(err, -ENOMEM, "%s", path);
        output->make = make;
        if (add_file(output, AT_FDCWD, path, &file, err) < 0) {
                vd_output_free(output);
                return err->code;
        }
        *out = output;
        return 0;
}

struct vd_file *vd_output_file(const struct vd_output *output)
{
        return output->files[0].file;
}

const char *vd_output_path(const struct vd_output *output)
{
        return output->files[0].target.path;
}

size_t vd_output_count(const struct vd_output *output)
{
        return output->count;
}

struct vd_file *vd_output_file_at(const struct vd_output *output, size_t i)
{
        return output->files[i].file;
}

int vd_output_add(struct vd_output *output, const char *name, struct vd_file **file, struct vd_error *err)
{
        return add_file(output, output->files[0].target.dir, name, file, err);
}

struct vd_file *vd_output_member(const struct vd_output *output, const char *name)
{
        for (size_t i = 0; i < output->count; i++)
                if (!strcmp(output->files[i].target.name, name))
                        return output->files[i].file;
        return NULL;
}

/* Makes the temporary directory beside the main file's place and returns its descriptor. */
static int make_directory(struct vd_output *output, struct vd_error *err)
{
        const struct vd_target *place = &output->files[0].target;

        for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
                char *name = temporary_name(place->name);

                if (!name)
                        return vd_fail(err, -ENOMEM, "%s", place->path);
                if (mkdirat(place->dir, name, 0700) == 0) {
                        int dir = openat(place->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

                        output->directory_temporary = name;
                        return dir >= 0 ? dir : vd_fail(err, -errno, "%s: its temporary directory", place->path);
                }
                free(name);
                if (errno != EEXIST && errno != EINTR)
                        return vd_fail(err, -errno, "%s: creating a temporary directory beside it", place->path);
        }
        return vd_fail(err, -EEXIST, "%s: no free name for a temporary directory beside it", place->path);
}

int vd_output_directory(struct vd_output *output, const char *main_name, struct vd_error *err)
{
        struct output_file *f = &output->files[0];
        struct vd_target inside = { .dir = -1, .name = strdup(main_name),
                                    .path = vd_asprintf("%s/%s", f->target.path, main_name) };
        int r = 0;

        if (!inside.name || !inside.path)
                r = vd_fail(err, -ENOMEM, "%s", f->target.path);
        else if (f->replaces)
                r = vd_fail(err, VD_EUSAGE, "%s: a directory cannot replace a file", f->target.path);
        if (!r)
                r = inside.dir = make_directory(output, err);
        if (r >= 0 && f->temporary && renameat(f->target.dir, f->temporary, inside.dir, f->temporary) < 0)
                r = vd_fail(err, -errno, "%s: moving a temporary file", f->target.path);
        if (r < 0) {
                if (output->directory_temporary)
                        unlinkat(f->target.dir, output->directory_temporary, AT_REMOVEDIR);
                free(output->directory_temporary);
                output->directory_temporary = NULL;
                vd_target_free(&inside);
                return r;
        }
        output->directory = f->target;
        f->target = inside;
        return 0;
}

bool vd_output_replaces(const struct vd_output *output, const struct vd_file *input)
{
        for (size_t i = 0; i < output->count; i++) {
                if (output->files[i].replaces && vd_file_is(input, &output->files[i].old))
                        return true;
        }
        return false;
}

bool vd_output_collides(const struct vd_output *output, const struct vd_output *other)
{
        for (size_t i = 0; i < output->count; i++)
                for (size_t j = 0; j < other->count; j++)
                        if (is_same_place(&output->files[i].target, &other->files[j].target))
                                return true;
        return false;
}

/* ---- publishing ---- */

/* What the kernel would give a new file or directory. */
static mode_t new_mode(mode_t mode)
{
        mode_t mask = umask(022);       /* cannot be read without being set */

        umask(mask);
        return mode & ~mask;
}

/* The last touch before a file gets its name: nothing of it is only in our hands any more. */
static int complete_file(const struct vd_output *output, struct output_file *f, struct vd_error *err)
{
        int fd = vd_file_fd(f->file);
        struct stat now;

        /* What is there now counts, not what was there at the start. */
        if (vd_target_examine(&f->target, &f->replaces, &now, err) < 0)
                return err->code;
        if (f->replaces && !(output->flags & VD_OUTPUT_REPLACE))
                return vd_fail(err, -EEXIST, "%s: appeared while we were working", f->target.path);
        if (vd_file_finish(f->file, err) < 0)
                return err->code;
        /* Without the privilege to give files away this is not root, whatever its number. */
        if (f->replaces && geteuid() == 0 && fchown(fd, now.st_uid, now.st_gid) < 0 && errno != EPERM)
                return vd_fail(err, -errno, "%s: setting the owner", f->target.path);
        if (fchmod(fd, f->replaces ? now.st_mode & 0777 : new_mode(0666)) < 0)
                return vd_fail(err, -errno, "%s: setting the mode", f->target.path);
        /* A replacing file goes to disk first: else a power cut could take the old and the new one. */
        if (f->replaces || output->flags & VD_OUTPUT_SYNC)
                return vd_file_sync(f->file, err);
        return 0;
}

/* The file gets a name that nobody has. */
static int publish_new(struct output_file *f, struct vd_error *err)
{
        int dir = f->target.dir, r;
        char path[FD_PATH_ROOM];

        if (!f->temporary) {
                r = linkat(AT_FDCWD, fd_path(path, vd_file_fd(f->file)), dir, f->target.name, AT_SYMLINK_FOLLOW);
        } else {
                r = renameat2(dir, f->temporary, dir, f->target.name, RENAME_NOREPLACE);
                if (r < 0 && (errno == EINVAL || errno == ENOSYS)) {
                        r = linkat(dir, f->temporary, dir, f->target.name, 0);
                        if (r == 0)
                                unlinkat(dir, f->temporary, 0);
                }
        }
        if (r < 0)
                return vd_fail(err, -errno, "%s: giving the complete file its name", f->target.path);
        free(f->temporary);
        f->temporary = NULL;
        f->state = LINKED;
        return 0;
}

/* The file takes the place of another.  is_last: no undoing will be asked for. */
static int publish_replacing(struct output_file *f, bool is_last, struct vd_error *err)
{
        int dir = f->target.dir;
        char path[FD_PATH_ROOM];

        if (!f->temporary && make_temporary(f, fd_path(path, vd_file_fd(f->file)), err) < 0)
                return err->code;
        if (!is_last) {
                if (renameat2(dir, f->temporary, dir, f->target.name, RENAME_EXCHANGE) == 0) {
                        f->state = EXCHANGED;
                        return 0;
                }
                if (errno != EINVAL && errno != ENOSYS)
                        return vd_fail(err, -errno, "%s: replacing it", f->target.path);
        }
        if (renameat(dir, f->temporary, dir, f->target.name) < 0)
                return vd_fail(err, -errno, "%s: replacing it", f->target.path);
        free(f->temporary);
        f->temporary = NULL;
        f->state = REPLACED;
        return 0;
}

/* Undoes what publishing did, as far as that goes. */
static void withdraw(struct output_file *f)
{
        struct stat ours, found;
        int dir = f->target.dir;

        if (f->state != LINKED && f->state != EXCHANGED)
                return;
        if (fstat(vd_file_fd(f->file), &ours) < 0 ||
            fstatat(dir, f->target.name, &found, AT_SYMLINK_NOFOLLOW) < 0 || found.st_dev != ours.st_dev ||
            found.st_ino != ours.st_ino)
                return;
        if (f->state == LINKED)
                unlinkat(dir, f->target.name, 0);
        else if (renameat2(dir, f->temporary, dir, f->target.name, RENAME_EXCHANGE) < 0)
                return;
        f->state = NEW;
}

static int sync_directory(const struct vd_target *target, struct vd_error *err)
{
        /* Some file systems cannot sync directories; an unreadable one we hold only as a path. */
        if (fsync(target->dir) < 0 && errno != EINVAL && errno != EBADF)
                return vd_fail(err, -errno, "%s: written, but not known to be durable", target->path);
        return 0;
}

static int sync_directories(const struct vd_output *output, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < output->count && !r; i++)
                r = sync_directory(&output->files[i].target, err);
        return !r && output->directory.name ? sync_directory(&output->directory, err) : r;
}

/* The complete directory gets its name. */
static int publish_directory(struct vd_output *output, struct vd_error *err)
{
        const struct vd_target *place = &output->directory;
        int r;

        if (!output->directory_temporary)
                return 0;
        if (fchmod(output->files[0].target.dir, new_mode(0777)) < 0)
                return vd_fail(err, -errno, "%s: setting the mode", place->path);
        r = renameat2(place->dir, output->directory_temporary, place->dir, place->name, RENAME_NOREPLACE);
        if (r < 0 && (errno == EINVAL || errno == ENOSYS))      /* this replaces an empty directory at worst */
                r = renameat(place->dir, output->directory_temporary, place->dir, place->name);
        if (r < 0)
                return vd_fail(err, -errno, "%s: giving the complete directory its name", place->path);
        free(output->directory_temporary);
        output->directory_temporary = NULL;
        return 0;
}

int vd_output_commit(struct vd_output *output, struct vd_error *err)
{
        size_t i;

        for (i = output->count; i-- > 0;) {
                if (complete_file(output, &output->files[i], err) < 0)
                        return err->code;
        }
        for (i = output->count; i-- > 0;) {
                struct output_file *f = &output->files[i];

                if ((f->replaces ? publish_replacing(f, i == 0, err) : publish_new(f, err)) < 0)
                        goto fail;
        }
        if (publish_directory(output, err) < 0)
                goto fail;
        for (i = 1; i < output->count; i++) {
                struct output_file *f = &output->files[i];

                if (f->state == EXCHANGED)
                        unlinkat(f->target.dir, f->temporary, 0);
                free(f->temporary);
                f->temporary = NULL;
        }
        return output->flags & VD_OUTPUT_SYNC ? sync_directories(output, err) : 0;
fail:
        for (i = output->count; i-- > 0;)
                withdraw(&output->files[i]);
        return err->code;
}

void vd_output_free(struct vd_output *output)
{
        if (!output)
                return;
        for (size_t i = 0; i < output->count; i++)
                free_file(&output->files[i]);
        if (output->directory_temporary)
                unlinkat(output->directory.dir, output->directory_temporary, AT_REMOVEDIR);
        free(output->directory_temporary);
        vd_target_free(&output->directory);
        free(output->files);
        free(output);
}
