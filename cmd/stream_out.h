// SPDX-License-Identifier: MIT
/* stream_out.h: a new image to standard output or into a pipe. */
#ifndef VD_CMD_STREAM_OUT_H
#define VD_CMD_STREAM_OUT_H

#include "cmd/new_image.h"

bool vd_is_stdout(const char *path);

/* Is this target "-", or something that takes bytes only one after the other? */
bool vd_is_stream(const char *path);

/* Copies source into a new image of that size and writes it to path.  source: one of the inputs or all of them. */
int vd_stream_out(struct vd_session *, struct vd_new_image *, const char *path, uint64_t size, struct vd_image *source,
                  struct vd_image *const *inputs, size_t count, const struct vd_copy_options *, struct vd_copy_stats *,
                  struct vd_error *);

#endif
