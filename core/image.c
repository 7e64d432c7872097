// SPDX-License-Identifier: MIT
/* image.c: opening an image and its chain of parents, creating one, closing. */
#include "image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file_nbd.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"
#include "wrap.h"

static const struct vd_policy default_policy;

static const char *shown(const char *path, char buffer[512])
{
        return vd_printable(buffer, 512, path, strlen(path));
}

/* Puts the image's path before a message that a driver wrote. */
static int in_image(const struct vd_image *img, struct vd_error *err)
{
        char buffer[512];

        return vd_error_prefix(err, "%s", shown(img->path, buffer));
}

static void add_text(char ***texts, size_t *count, const char *format, va_list args)
{
        char **grown = realloc(*texts, (*count + 1) * sizeof(*grown));
        char text[1024];

        if (!grown)
                return;
        *texts = grown;
        vsnprintf(text, sizeof(text), format, args);
        grown[*count] = strdup(text);
        if (grown[*count])
                ++*count;
}

void vd_image_warn(struct vd_image *img, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        add_text(&img->warnings, &img->warning_count, format, args);
        va_end(args);
}

void vd_image_add_extra(struct vd_image *img, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        add_text(&img->extras, &img->extra_count, format, args);
        va_end(args);
}

int vd_image_add_parent_name(struct vd_image *img, const char *name, const char *origin, struct vd_error *err)
{
        size_t n = img->parent_ref.count;

        for (size_t i = 0; i < n; i++)
                if (!strcmp(img->parent_ref.names[i].name, name))
                        return 0;
        if (n == VD_PARENT_NAMES)
                return 0;
        img->parent_ref.names[n].name = strdup(name);
        if (!img->parent_ref.names[n].name)
                return vd_fail(err, -ENOMEM, "name of the parent");
        img->parent_ref.names[n].origin = origin;
        img->parent_ref.count++;
        return 0;
}

/* Locks as the image was asked to be; a conflict is a warning where the caller only looks. */
static int lock_file(struct vd_image *img, struct vd_file *file, struct vd_error *err)
{
        int fd = vd_file_fd(file), r;

        if (fd < 0 || img->lock == VD_LOCK_NONE)
                return 0;
        r = vd_lock_take(fd, vd_file_name(file), img->lock, err);
        if (r == VD_ELOCKED && img->lock_warn) {
                struct vd_error ignored = VD_ERROR_INIT;
                /* Whoever prints warnings says which image it is; only further files need their names. */
                size_t name = file == img->file ? strlen(vd_file_name(file)) + strlen(": ") : 0;

                vd_image_warn(img, "%s; what is shown may be changing", err->text + vd_min(name, strlen(err->text)));
                *err = (struct vd_error)VD_ERROR_INIT;
                vd_lock_take(fd, vd_file_name(file), VD_LOCK_SHARE, &ignored);
                return 0;
        }
        return r;
}

static int open_further(struct vd_image *img, enum vd_reference kind, const char *name, struct vd_file **out,
                        struct vd_error *err)
{
        struct vd_file *file = img->output ? vd_output_member(img->output, name) : NULL, **members;
        VD_AUTOFREE char *path = NULL;
        char buffer[512];
        int r;

        if (img->is_inside)
                return vd_fail(err, VD_EPOLICY, "'%s' is not opened: a disk in an archive may not lead to other files",
                               shown(name, buffer));
        r = file ? 0 : vd_policy_resolve(img->policy, kind, img->path, name, &path, err);
        if (r)
                return r;
        members = realloc(img->members, (img->member_count + 1) * sizeof(*members));
        if (!members)
                return vd_fail(err, -ENOMEM, "%s", shown(name, buffer));
        img->members = members;
        if (file) {
                vd_file_ref(file);
        } else {
                r = vd_file_open(&file, path, img->writable ? VD_FILE_WRITE : VD_FILE_READ, err);
                if (!r && (r = lock_file(img, file, err)))
                        vd_file_unref(file);
        }
        if (r)
                return r;
        members[img->member_count++] = vd_file_ref(file);
        *out = file;
        return 0;
}

int vd_image_open_member(struct vd_image *img, const char *name, struct vd_file **out, struct vd_error *err)
{
        char buffer[512];

        if (img->no_references)
                return vd_fail(err, VD_EPOLICY, "'%s' is not opened here", shown(name, buffer));
        return open_further(img, VD_REFERENCE_MEMBER, name, out, err);
}

int vd_image_member_size(struct vd_image *img, const char *name, uint64_t *size, struct vd_error *err)
{
        VD_AUTOFREE char *path = NULL;
        char buffer[512];
        struct stat st;
        int r = vd_policy_resolve(img->policy, VD_REFERENCE_MEMBER, img->path, name, &path, err);

        if (r)
                return r;
        if (stat(path, &st))
                return vd_fail(err, -errno, "%s", shown(name, buffer));
        *size = (uint64_t)st.st_size;
        return 0;
}

int vd_image_open_part(struct vd_image *img, const char *name, struct vd_file **out, struct vd_error *err)
{
        return open_further(img, VD_REFERENCE_PART, name, out, err);
}

static int open_at(struct vd_image **, const char *path, const struct vd_open *, struct vd_image *child,
                   struct vd_error *);

static int check_loop(const struct vd_image *img, struct vd_error *err)
{
        struct stat st;

        for (const struct vd_image *c = img->child; c; c = c->child) {
                char buffer[512];
                int fd = vd_file_fd(c->file);

                if (fd >= 0 && fstat(fd, &st) == 0 && vd_file_is(img->file, &st))
                        return vd_fail(err, VD_EPARENT, "the chain of parents comes back to %s",
                                       shown(c->path, buffer));
        }
        return 0;
}

/* Tries one name.  0, or why not. */
static int try_parent(struct vd_image *img, const char *name, bool resolve, const struct vd_open *how,
                      struct vd_error *err)
{
        VD_AUTOFREE char *path = NULL;
        struct vd_open parent_how = {
                .format = img->parent_ref.format, .policy = img->policy,
                .lock = how->lock == VD_LOCK_WRITE ? VD_LOCK_READ : how->lock, .lock_warn = how->lock_warn,
                .path_is_foreign = resolve, .stop = how->stop,
        };
        int r;

        if (resolve)
                r = vd_policy_resolve(img->policy, VD_REFERENCE_PARENT, img->path, name, &path, err);
        else
                r = (path = strdup(name)) ? 0 : vd_fail(err, -ENOMEM, "name of the parent");
        if (!r)
                r = open_at(&img->parent, path, &parent_how, img, err);
        if (r)
                return r;
        if (img->format->accept_parent)
                r = img->format->accept_parent(img, img->parent, err);
        if (r) {
                vd_image_close(img->parent);
                img->parent = NULL;
        }
        return r;
}

static int open_parent(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        unsigned max_depth = img->policy->max_depth ? img->policy->max_depth : VD_MAX_DEPTH;
        struct vd_error first = VD_ERROR_INIT;
        char tried[512] = "";
        size_t at = 0;

        if (img->depth + 1 >= max_depth)
                return vd_fail(err, VD_EPARENT, "the chain of parents is longer than %u images", max_depth);
        if (how->parent_path)
                return try_parent(img, how->parent_path, false, how, err);
        if (img->format->find_parent) {
                int r = img->format->find_parent(img, err);

                if (r)
                        return r;
        }
        for (size_t i = 0; i < img->parent_ref.count; i++) {
                const struct vd_parent_name *n = &img->parent_ref.names[i];
                struct vd_error why = VD_ERROR_INIT;
                char buffer[512];
                int r = try_parent(img, n->name, true, how, &why);

                if (!r)
                        return 0;
                if (r != -ENOENT && !first.code)
                        first = why;
                if (at < sizeof(tried))
                        at += (size_t)snprintf(tried + at, sizeof(tried) - at, "%s'%s' (%s)", i ? ", " : "",
                                               shown(n->name, buffer), n->origin);
        }
        if (first.code) {
                *err = first;
                return vd_error_prefix(err, "parent image");
        }
        return vd_fail(err, VD_EPARENT, "the parent image is missing: tried %s; name it with --parent", tried);
}

/* A parent whose format nobody recorded could be a guest's forgery: it may not lead to further files. */
static int check_probed(const struct vd_image *img, bool probed, struct vd_error *err)
{
        if (!probed || !img->child || img->policy->references == VD_REFERENCES_ANY ||
            (!img->parent_ref.count && !img->member_count))
                return 0;
        return vd_fail(err, VD_EPOLICY, "its format was not recorded in %s but guessed, and a guessed image may not "
                       "name further files; --references=any allows it", vd_file_name(img->child->file));
}

static struct vd_image *new_image(const char *path, struct vd_error *err)
{
        struct vd_image *img = calloc(1, sizeof(*img));

        if (img)
                img->path = strdup(path);
        if (!img || !img->path) {
                free(img);
                vd_fail(err, -ENOMEM, "%s", path);
                return NULL;
        }
        img->policy = &default_policy;
        img->write_unit = 1;
        return img;
}

static bool is_export(const struct vd_image *img, const struct vd_open *how)
{
        return !how->path_is_foreign && !how->opened && !how->unpublished && !how->file && vd_file_is_nbd_uri(img->path);
}

/* A directory stands for the file in it that some format looks for. */
static int enter_directory(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        struct stat st;

        if (stat(img->path, &st) || !S_ISDIR(st.st_mode))
                return 0;               /* if there is anything wrong, opening it tells */
        for (const struct vd_format *const *f = vd_formats; *f; f++) {
                VD_AUTOFREE char *path = NULL;

                if (!(*f)->directory_file || (how->format && vd_format_by_name(how->format) != *f))
                        continue;
                path = vd_asprintf("%s/%s", img->path, (*f)->directory_file);
                if (!path)
                        return vd_fail(err, -ENOMEM, "%s", (*f)->directory_file);
                if (stat(path, &st) || !S_ISREG(st.st_mode))
                        continue;
                free(img->path);
                img->path = VD_STEAL(path);
                return 0;
        }
        return 0;
}

/* "archive:file", unless something has this very name. */
static int split_path(struct vd_image *img, struct vd_error *err)
{
        struct stat st;

        if (stat(img->path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR))
                return 0;
        for (char *colon = strchr(img->path, ':'); colon; colon = strchr(colon + 1, ':')) {
                *colon = '\0';
                if (colon[1] && stat(img->path, &st) == 0 && S_ISREG(st.st_mode)) {
                        img->inside = strdup(colon + 1);
                        return img->inside ? 0 : vd_fail(err, -ENOMEM, "%s", img->path);
                }
                *colon = ':';
        }
        return 0;
}

/* Only a container can do with what split_path() found; it is part of the image's name from now on. */
static int check_inside(struct vd_image *img, struct vd_error *err)
{
        char buffer[512], *full;

        if (!img->inside)
                return 0;
        if (!(img->format->caps & VD_CAP_CONTAINER))
                return vd_fail(err, VD_EUSAGE, "is a %s image and no archive that could hold '%s'", img->format->name,
                               shown(img->inside, buffer));
        full = vd_asprintf("%s:%s", img->path, img->inside);
        if (!full)
                return vd_fail(err, -ENOMEM, "%s", img->path);
        free(img->path);
        img->path = full;
        return 0;
}

static int open_file(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        unsigned flags = how->write ? VD_FILE_WRITE : VD_FILE_READ;
        struct vd_file *window;
        int r;

        if (how->unpublished) {
                img->output = how->unpublished;
                img->file = vd_file_ref(vd_output_file(how->unpublished));
                return vd_image_unwrap(img, how, err);
        }
        if (how->opened) {
                img->file = vd_file_ref(how->opened);
                r = 0;
        } else {
                r = is_export(img, how) ? vd_file_open_nbd(&img->file, img->path, flags, how->stop, err)
                                        : vd_file_open(&img->file, img->path, flags, err);
        }
        if (r)
                return r;
        r = check_loop(img, err);
        if (!r)
                r = lock_file(img, img->file, err);
        if (!r)
                r = vd_image_unwrap(img, how, err);
        if (r || (!how->window_offset && !how->window_size))
                return r;
        r = vd_file_window(&window, img->file, how->window_offset, how->window_size ? how->window_size : UINT64_MAX,
                           err);
        if (!r && how->window_size &&
            (how->window_offset > vd_file_size(img->file) ||
             how->window_size > vd_file_size(img->file) - how->window_offset) && !how->write) {
                vd_file_unref(window);
                r = vd_fail(err, VD_EUSAGE, "a window of %" PRIu64 " bytes at %" PRIu64
                            " does not fit a file of %" PRIu64 " bytes", how->window_size, how->window_offset,
                            vd_file_size(img->file));
        }
        if (r)
                return r;
        vd_file_unref(img->file);
        img->file = window;
        return 0;
}

/* What the name of the file says.  "disk.vhd.xz" is that of a VHD; what an export is called says nothing:
 * "disk.qcow2" may well be the disk inside. */
static const struct vd_format *named_format(const struct vd_image *img, const struct vd_open *how)
{
        bool is_wrapped = img->wrapper && vd_wrapper_by_extension(img->path) == img->wrapper;
        size_t length = is_wrapped ? (size_t)(strrchr(img->path, '.') - img->path) : strlen(img->path);
        VD_AUTOFREE char *path = is_export(img, how) ? NULL : strndup(img->path, length);

        return path ? vd_format_by_extension(path) : NULL;
}

/* What nobody recognises is a raw disk, unless its name says otherwise: then it is more likely to be an image that was
 * damaged or cut short, or the first part of a split one, and reading it as raw would invent a disk. */
static int guess_format(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        const struct vd_format *named = named_format(img, how);
        enum vd_match match;
        int r = vd_format_by_content(img->file, &img->format, &match, err);

        if (r || match != VD_MATCH_FALLBACK || !named || named == img->format)
                return r;
        if (named->caps & VD_CAP_SET) {         /* what tells may be in another part: open() says so or not */
                img->format = named;
                return 0;
        }
        return vd_fail(err, VD_EFORMAT, "this is no %s image as its name says, or a damaged one: name the format with "
                       "-f (-f %s reads it as it is)", named->name, img->format->name);
}

static int choose_format(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        if (!how->format)
                return guess_format(img, how, err);
        img->format = vd_format_by_name(how->format);
        if (!img->format) {
                char buffer[512];

                return vd_fail(err, VD_EFORMAT, "unknown format '%s'", shown(how->format, buffer));
        }
        return 0;
}

static int open_at(struct vd_image **out, const char *path, const struct vd_open *how, struct vd_image *child,
                   struct vd_error *err)
{
        struct vd_image *img = new_image(path, err);
        int r;

        if (!img)
                return -ENOMEM;
        img->child = child;
        img->depth = child ? child->depth + 1 : 0;
        if (how->policy)
                img->policy = how->policy;
        img->lock = how->lock;
        img->lock_warn = how->lock_warn;
        img->writable = how->write;
        img->no_references = how->no_references;
        img->whole_set = how->whole_set || how->no_references;
        img->is_inside = how->file;

        if (how->file) {
                img->file = vd_file_ref(how->file);
                r = 0;
        } else {
                bool named = !how->unpublished && !how->opened && !is_export(img, how);

                r = child || !named ? 0 : split_path(img, err);
                if (!r && named)
                        r = enter_directory(img, how, err);
                if (!r)
                        r = open_file(img, how, err);
        }
        if (!r)
                r = choose_format(img, how, err);
        if (!r)
                r = check_inside(img, err);
        if (!r && img->is_inside && img->format->caps & VD_CAP_CONTAINER)
                r = vd_fail(err, VD_EUNSUPPORTED, "is an archive inside an archive");
        if (!r && how->whole_set && img->format->caps & VD_CAP_SPREAD)
                img->no_references = false;
        if (!r) {
                r = img->format->open(img, err);
                if (r)
                        img->format = NULL;     /* open() cleaned up: nothing to close */
        } else {
                img->format = NULL;
        }
        if (!r)
                r = check_probed(img, !how->format, err);
        if (!r && how->snapshot) {
                if (img->format->select)
                        r = img->format->select(img, how->snapshot, err);
                else
                        r = vd_fail(err, VD_EUNSUPPORTED, "%s images have no snapshots", img->format->name);
        }
        if (!r && img->parent_ref.count && !how->no_parent && !how->no_references)
                r = open_parent(img, how, err);
        else if (!r && how->parent_path && !img->parent_ref.count)
                r = vd_fail(err, VD_EUSAGE, "has no parent, but --parent names one");
        if (r) {
                in_image(img, err);
                vd_image_close(img);
                return r;
        }
        *out = img;
        return 0;
}

int vd_image_open(struct vd_image **out, const char *path, const struct vd_open *how, struct vd_error *err)
{
        return open_at(out, path, how, NULL, err);
}

void vd_image_close(struct vd_image *img)
{
        while (img) {
                struct vd_image *parent;

                if (img->format && img->format->close)
                        img->format->close(img);
                parent = img->parent;
                for (size_t i = 0; i < img->member_count; i++)
                        vd_file_unref(img->members[i]);
                for (size_t i = 0; i < img->parent_ref.count; i++)
                        free(img->parent_ref.names[i].name);
                for (size_t i = 0; i < img->warning_count; i++)
                        free(img->warnings[i]);
                for (size_t i = 0; i < img->extra_count; i++)
                        free(img->extras[i]);
                free(img->parent_ref.format);
                free(img->extras);
                free(img->members);
                free(img->warnings);
                vd_file_unref(img->file);
                free(img->inside);
                free(img->path);
                free(img);
                img = parent;
        }
}

static int create_in(struct vd_image **out, const struct vd_format *format, struct vd_file *file, const char *path,
                     struct vd_output *output, const struct vd_create *create, struct vd_error *err)
{
        struct vd_image *img = new_image(path, err);
        int r;

        if (!img)
                return -ENOMEM;
        img->file = vd_file_ref(file);
        img->output = output;
        img->is_inside = !output;
        img->is_new = true;
        img->writable = true;
        img->format = format;
        r = format->create ? format->create(img, create, err)
                           : vd_fail(err, VD_EUNSUPPORTED, "%s images can be read but not created", format->name);
        if (r) {
                img->format = NULL;
                in_image(img, err);
                vd_image_close(img);
                return r;
        }
        *out = img;
        return 0;
}

int vd_image_create(struct vd_image **out, const struct vd_format *format, struct vd_output *output,
                    const struct vd_create *create, struct vd_error *err)
{
        return create_in(out, format, vd_output_file(output), vd_output_path(output), output, create, err);
}

int vd_image_create_inside(struct vd_image **out, const struct vd_format *format, struct vd_file *file,
                           const char *path, const struct vd_create *create, struct vd_error *err)
{
        return create_in(out, format, file, path, NULL, create, err);
}

bool vd_image_lacks_parent(const struct vd_image *img)
{
        for (; img; img = img->parent)
                if (img->parent_ref.count && !img->parent)
                        return true;
        return false;
}

bool vd_image_is_remote(const struct vd_image *img)
{
        for (; img; img = img->parent)
                if (vd_file_is_remote(img->file))
                        return true;
        return false;
}

bool vd_image_may_be_packed(const struct vd_image *img)
{
        for (; img; img = img->parent)
                if (img->is_packed || (img->format->caps & VD_CAP_PACKED))
                        return true;
        return false;
}

bool vd_image_uses(const struct vd_image *img, const struct stat *st)
{
        for (; img; img = img->parent) {
                if (vd_file_is(img->file, st))
                        return true;
                for (size_t i = 0; i < img->member_count; i++)
                        if (vd_file_is(img->members[i], st))
                                return true;
        }
        return false;
}

bool vd_image_would_change(const struct vd_image *img, const struct vd_image *read)
{
        for (size_t i = 0; i <= img->member_count; i++) {
                int fd = vd_file_fd(i ? img->members[i - 1] : img->file);
                struct stat st;

                if (fd >= 0 && fstat(fd, &st) == 0 && vd_image_uses(read, &st))
                        return true;
        }
        return false;
}

int vd_image_check_unchanged(const struct vd_image *img, struct vd_error *err)
{
        int r = 0;

        for (; img && !r; img = img->parent) {
                r = vd_file_check_unchanged(img->file, err);
                for (size_t i = 0; i < img->member_count && !r; i++)
                        r = vd_file_check_unchanged(img->members[i], err);
        }
        return r;
}
