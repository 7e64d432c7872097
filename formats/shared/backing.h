// SPDX-License-Identifier: MIT
/* backing.h: the name of a backing file, stored in the header area without a terminator (qcow, QED). */
#ifndef VD_SHARED_BACKING_H
#define VD_SHARED_BACKING_H

#include "core/image.h"

enum { VD_BACKING_NAME_MOST = 1023 };   /* bytes; what QEMU takes */

/* Adds the name of `length` bytes at offset as the image's parent; it must end before limit. */
int vd_backing_read(struct vd_image *, uint64_t offset, uint32_t length, uint64_t limit, struct vd_error *);

/* The other way round for a new image: writes the name at offset; *length: its bytes. */
int vd_backing_write(struct vd_image *, const char *name, uint64_t offset, uint32_t *length, struct vd_error *);

#endif
