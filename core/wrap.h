// SPDX-License-Identifier: MIT
/* wrap.h: files that are compressed as a whole: .gz, .bz2, .xz, .zst.
 *
 * What is inside is read by random access where the wrapper consists of independent blocks with an index (xz with
 * several blocks, zstd in the seekable format); else it is unpacked into a temporary file.
 */
#ifndef VD_CORE_WRAP_H
#define VD_CORE_WRAP_H

#include "copy.h"

struct vd_wrapper;

/* By content; NULL: none.  Reads the first bytes of the file. */
int vd_wrapper_by_content(struct vd_file *, const struct vd_wrapper **, struct vd_error *);
/* By the last extension of a name; NULL: none. */
const struct vd_wrapper *vd_wrapper_by_extension(const char *path);

const char *vd_wrapper_name(const struct vd_wrapper *);         /* "xz" */
/* Can vdtool write it? */
bool vd_wrapper_packs(const struct vd_wrapper *);

/* What is inside of base, which the new file takes a reference to.  *spooled: it had to be unpacked into a temporary
 * file.  stop: non-zero gives up with VD_ESTOPPED; may be NULL. */
int vd_unwrap(struct vd_file **, const struct vd_wrapper *, struct vd_file *base, const volatile int *stop,
              bool *spooled, struct vd_error *);

/* For opening an image: puts what is inside in the place of image->file, when that is wrapped and the user named it. */
int vd_image_unwrap(struct vd_image *, const struct vd_open *, struct vd_error *);

/* Writes all of the source's disk, and zeros up to size, packed by options->threads processors, into an empty file.
 * level: 1 to 9, 0: the usual one.  From the options also: digest, rate, progress, stop, unreadable. */
int vd_wrap(const struct vd_wrapper *, unsigned level, struct vd_image *source, uint64_t size, struct vd_file *to,
            const struct vd_copy_options *, struct vd_copy_stats *, struct vd_error *);

#endif
