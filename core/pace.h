// SPDX-License-Identifier: MIT
/* pace.h: not faster than so many bytes a second. */
#ifndef VD_CORE_PACE_H
#define VD_CORE_PACE_H

#include <stdint.h>

struct vd_pace {
        uint64_t rate;                  /* bytes per second; 0: no limit */
        const volatile int *stop;       /* non-zero: wait no longer; may be NULL */
        uint64_t started, moved;
};

void vd_pace_start(struct vd_pace *, uint64_t rate, const volatile int *stop);
/* So many bytes more are through: waits until that is within the rate. */
void vd_pace_keep(struct vd_pace *, uint64_t bytes);

#endif
