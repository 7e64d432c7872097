// SPDX-License-Identifier: MIT
/* write.h: place, transfer, publish: the one way to write into an image.
 *
 * A writer collects places; a batch ends with
 *      settle()  data is in the file  barrier  publish() each  flush()  barrier
 * so that a cut at any moment leaves the old or the new content.  New images need no barriers.
 */
#ifndef VD_CORE_WRITE_H
#define VD_CORE_WRITE_H

#include "image.h"

struct vd_writer;

/* For an image that was created or opened for writing.  NULL when memory is short. */
struct vd_writer *vd_writer_new(struct vd_image *);
void vd_writer_free(struct vd_writer *);        /* what was not committed is lost (leaked space at worst) */

/* place(): the driver says where; the writer remembers the place for the next commit. */
int vd_writer_place(struct vd_writer *, const struct vd_request *, struct vd_place *, struct vd_error *);

/* Transfers into one place: bytes of it (NULL: zeros), then its padding.  Any thread, any order. */
int vd_place_write(const struct vd_place *, const void *bytes, struct vd_error *);

/* The bytes of the `count` oldest places are in the file: publishes them when the batch is large enough, or now. */
int vd_writer_written(struct vd_writer *, size_t count, struct vd_error *);
int vd_writer_commit(struct vd_writer *, struct vd_error *);

/* Commits, then the driver's finish(); syncs an image in place. */
int vd_writer_finish(struct vd_writer *, struct vd_error *);

/* Any bytes at any offset, read-modify-write at the edges of write units included. */
int vd_writer_write(struct vd_writer *, const void *bytes, size_t length, uint64_t offset, struct vd_error *);

/* For drivers: everything written so far to these files is on disk before what follows; nothing for new images. */
int vd_image_barrier(struct vd_image *, struct vd_file *, struct vd_error *);

#endif
