// SPDX-License-Identifier: MIT
/* stream.h: a new image from front to back into a descriptor that cannot go back. */
#ifndef VD_CORE_STREAM_H
#define VD_CORE_STREAM_H

#include "layout.h"

/* Writes what vd_layout_new() (VD_LAYOUT_STREAM, with the same source and options) laid out: tables from its record,
 * data from the source, in between zeros.  A reader that went away is -EPIPE.  name is what messages call fd. */
int vd_stream_image(struct vd_layout *, struct vd_image *source, const struct vd_copy_options *, int fd,
                    const char *name, struct vd_error *);

/* The same with a complete file. */
int vd_stream_file(struct vd_file *, const struct vd_copy_options *, int fd, const char *name, struct vd_error *);

#endif
