// SPDX-License-Identifier: MIT
/* cleanup.h: locals that free themselves.  Initialise on the declaration line; still check every allocation. */
#ifndef VD_UTIL_CLEANUP_H
#define VD_UTIL_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void vd_autofree_(void *p) { free(*(void **)p); }
static inline void vd_autoclose_(const int *fd) { if (*fd >= 0) close(*fd); }

#define VD_AUTOFREE __attribute__((cleanup(vd_autofree_)))
#define VD_AUTOCLOSE __attribute__((cleanup(vd_autoclose_)))

/* Takes the value out of an automatic local, so that its cleanup does nothing. */
#define VD_STEAL(pointer) \
        __extension__({ __typeof__(pointer) stolen_ = (pointer); (pointer) = NULL; stolen_; })

#endif
