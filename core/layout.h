// SPDX-License-Identifier: MIT
/* layout.h: the exact layout of a new image, without writing it.
 *
 * The copy engine runs as always, into files that only record: tables are kept, and of data it is noted which guest
 * range belongs at which file position.  What the source's map calls data is data (finding zeros would mean reading
 * it), except where data has to be packed to know its length.
 */
#ifndef VD_CORE_LAYOUT_H
#define VD_CORE_LAYOUT_H

#include "copy.h"

struct vd_layout;

enum vd_layout_purpose {
        VD_LAYOUT_SIZE,                 /* only the length is wanted */
        VD_LAYOUT_FULL_SIZE,            /* the length if all of the disk was data, and nothing could be packed */
        VD_LAYOUT_STREAM,               /* positions too, and identifiers as they will be */
};

/* Data of the disk at a place in the file. */
struct vd_layout_run {
        uint64_t position, guest;
        uint64_t length : 63;           /* in the file */
        uint64_t is_packed : 1;         /* one packed unit */
};

/* Where the image would be written, and what is copied into it; as in vd_image_create() and vd_copy().  source may be
 * NULL: an empty disk.  create->size may be rounded up by the format. */
int vd_layout_new(struct vd_layout **, const struct vd_format *, const char *path, const struct vd_create *create,
                  struct vd_image *source, const struct vd_copy_options *, enum vd_layout_purpose,
                  struct vd_copy_stats *, struct vd_error *);
void vd_layout_free(struct vd_layout *);

/* The length of all files of the image. */
uint64_t vd_layout_bytes(const struct vd_layout *);

/* Can it be written from front to back? */
enum vd_layout_shape {
        VD_SHAPE_STREAMS,
        VD_SHAPE_PACKS,                 /* positions are known after packing only (nothing was laid out) */
        VD_SHAPE_SCATTERED,             /* it lies in too many pieces to remember all of them */
        VD_SHAPE_SEVERAL_FILES,
        VD_SHAPE_RESERVES,              /* space was asked for that a stream cannot reserve */
};
enum vd_layout_shape vd_layout_shape(const struct vd_layout *);
/* The image as it would be: finished, nothing can be read from it. */
struct vd_image *vd_layout_target(const struct vd_layout *);
/* The file that was recorded: all but the runs; and the runs, by ascending position. */
struct vd_file *vd_layout_file(const struct vd_layout *);
const struct vd_layout_run *vd_layout_runs(const struct vd_layout *, size_t *count);

/* For the copy engine. */
enum vd_layout_purpose vd_layout_purpose(const struct vd_layout *);
bool vd_layout_pretends(const struct vd_layout *);      /* there is no source that could be read */
/* This place would be written now.  is_zero: with zeros. */
int vd_layout_note(struct vd_layout *, const struct vd_place *, bool is_zero, struct vd_error *);

#endif
