// SPDX-License-Identifier: MIT
/* spool.h: unnamed temporary files, for bytes that must be kept for a while and may not fit the memory.
 *
 * They lie in $TMPDIR, /var/tmp when that is not set, and vanish with the last reference.
 */
#ifndef VD_CORE_SPOOL_H
#define VD_CORE_SPOOL_H

#include "file.h"

/* Empty, writable.  name is what messages call it. */
int vd_spool_new(struct vd_file **, const char *name, struct vd_error *);

/* Where they lie: for notes to the user. */
const char *vd_spool_directory(void);

#endif
