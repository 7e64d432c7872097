// SPDX-License-Identifier: MIT
/* stream_in.h: images that come through standard input or a pipe. */
#ifndef VD_CMD_STREAM_IN_H
#define VD_CMD_STREAM_IN_H

#include "cmd/new_image.h"

/* Is this source "-" (where the command takes that), or a pipe? */
bool vd_is_stream_source(const struct vd_session *, const char *path);

/* A file with what comes through it: standard input itself when the shell opened a file, else a temporary file,
 * of which a note tells. */
int vd_stream_in(struct vd_session *, const char *path, struct vd_file **, struct vd_error *);

/* A bare disk (raw) on its way into a bare image: straight into the new file. */
int vd_stream_in_bare(struct vd_session *, const char *from, struct vd_new_image *, const char *path,
                      const struct vd_copy_options *, struct vd_copy_stats *, struct vd_error *);

#endif
