// SPDX-License-Identifier: MIT
/* output_target.h: where a new file will stand: a directory held open, and a name in it; private to core/output*.c.
 *
 * Holding the directory keeps the transaction in it even when a directory of the path is renamed meanwhile.
 */
#ifndef VD_CORE_OUTPUT_TARGET_H
#define VD_CORE_OUTPUT_TARGET_H

#include <stdbool.h>
#include <sys/stat.h>

#include "util/error.h"

struct vd_target {
        int dir;                        /* of the directory; -1: not resolved */
        char *name;                     /* in it */
        char *path;                     /* both, for people; symbolic links are resolved */
};

#define VD_TARGET_INIT { .dir = -1 }

/* Follows symbolic links, also one that leads to nothing.  path is relative to base, a directory or AT_FDCWD. */
int vd_target_resolve(struct vd_target *, int base, const char *path, struct vd_error *);
void vd_target_free(struct vd_target *);

/* *exists: something has this name now, and *st is what it is.  Only a regular file that nobody uses passes. */
int vd_target_examine(const struct vd_target *, bool *exists, struct stat *st, struct vd_error *);

#endif
