// SPDX-License-Identifier: MIT
/* new_image.h: the new image of create and convert: its format, create options, parent, and how it comes to be. */
#ifndef VD_CMD_NEW_IMAGE_H
#define VD_CMD_NEW_IMAGE_H

#include "cmd/common.h"
#include "core/layout.h"
#include "core/write.h"

/* What the command line says about a new image. */
struct vd_new_args {
        const char *format, *type;
        const char *backing_file, *backing_format;
        struct vd_texts options;
        bool force, fsync;
};

#define VD_NEW_OPTIONS(args, field) \
        { .letter = 'o', .type = VD_OPT_LIST, .name = "options", .offset = offsetof(struct args, field.options), \
          .argument = "KEY=VALUE,...", .help = "create options of the format; \"-o help\" lists them" }, \
        { .type = VD_OPT_LIST, .name = "target-format-options", .hidden = true, \
          .offset = offsetof(struct args, field.options) }, \
        { .type = VD_OPT_TEXT, .name = "type", .offset = offsetof(struct args, field.type), .argument = "TYPE", \
          .help = "kind of image within the format: fixed, dynamic, ...; the same as -o subformat=TYPE" }, \
        { .type = VD_OPT_FLAG, .name = "force", .offset = offsetof(struct args, field.force), \
          .help = "replace an existing file, in one step when the new one is complete" }, \
        { .type = VD_OPT_FLAG, .name = "fsync", .offset = offsetof(struct args, field.fsync), \
          .help = "have the new file on disk before it gets its name" }

/* The same, checked. */
struct vd_new_image {
        const struct vd_format *format;
        void *params;                   /* for the format's create() */
        const struct vd_wrapper *wrapper;       /* the file is to be compressed as a whole; NULL: it is not */
        uint64_t wrapper_level;         /* -o compression_level= of that; 0: not given */
        uint64_t size;
        bool has_size;                  /* -o size= */
        bool wants_help;                /* -o help */
        unsigned flags;                 /* VD_OUTPUT_... */
        char *backing_file, *backing_format;
        struct vd_source backing_source;
        struct vd_image *backing;
        const volatile int *stop;       /* as in struct vd_create */

        struct vd_output *output;       /* from vd_new_image_create() on */
        struct vd_image *image;
};

#define VD_NEW_IMAGE_INIT { 0 }

/* Chooses the format (by its name, else by the path's extension; a NULL path needs the name) and reads the options. */
int vd_new_image_init(struct vd_new_image *, const char *path, const struct vd_new_args *, struct vd_error *);
void vd_new_image_free(struct vd_new_image *);
void vd_new_image_print_options(const struct vd_new_image *, FILE *);

/* Opens the parent that new->backing_file names, as the image at path will find it; notes its format when none was
 * given. */
int vd_new_image_open_backing(struct vd_new_image *, struct vd_session *, const struct vd_source *,
                              const char *path, struct vd_error *);

/* The transaction only: new->output. */
int vd_new_image_open_output(struct vd_new_image *, const char *path, struct vd_error *);

/* Lays the new image out: new->output and new->image.  like: the disk that will be copied into it, or NULL. */
int vd_new_image_create(struct vd_new_image *, const char *path, uint64_t size, const struct vd_image *like,
                        struct vd_error *);

/* The layout that the image would have, see core/layout.h; source: what is copied into it, or NULL. */
int vd_new_image_layout(const struct vd_new_image *, const char *path, uint64_t size, struct vd_image *source,
                        const struct vd_copy_options *, enum vd_layout_purpose, struct vd_layout **,
                        struct vd_copy_stats *, struct vd_error *);

/* As vd_new_image_create(), in a temporary file without a name; path is what the image takes itself to be called. */
int vd_new_image_create_unnamed(struct vd_new_image *, const char *path, uint64_t size, const struct vd_image *like,
                                struct vd_error *);

/* Completes the image, which has no name yet.  VD_ECHANGED when an input changed meanwhile, VD_EUSAGE when giving the
 * image its name would destroy an input. */
int vd_new_image_finish(struct vd_new_image *, struct vd_image *const *inputs, size_t count, struct vd_error *);
/* Gives the finished image its name. */
/* VD_EUSAGE when both would give a file the same name: the later one would replace the earlier one. */
int vd_new_images_check_apart(const struct vd_new_image *, const struct vd_new_image *, struct vd_error *);
int vd_new_image_publish(struct vd_new_image *, struct vd_error *);

/* VD_EUSAGE when path is a file that one of these images reads. */
int vd_check_not_input(const char *path, struct vd_image *const *inputs, size_t count, struct vd_error *);

#endif
