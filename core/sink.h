// SPDX-License-Identifier: MIT
/* sink.h: a descriptor that is written from front to back: a pipe, a device, or what the shell opened with ">". */
#ifndef VD_CORE_SINK_H
#define VD_CORE_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "util/error.h"

struct vd_sink {
        int fd;                         /* borrowed */
        const char *name;               /* in messages */
        const volatile int *stop;       /* non-zero: give up with VD_ESTOPPED */
        bool makes_holes;               /* a fresh regular file: zeros are skipped */
};

void vd_sink_init(struct vd_sink *, int fd, const char *name, const volatile int *stop);

/* A reader that went away is -EPIPE. */
int vd_sink_write(struct vd_sink *, const void *bytes, size_t length, struct vd_error *);
int vd_sink_finish(struct vd_sink *, struct vd_error *);

#endif
