// SPDX-License-Identifier: MIT
/* receive.h: bytes that come one after the other, from a pipe, into a file. */
#ifndef VD_CORE_RECEIVE_H
#define VD_CORE_RECEIVE_H

#include "copy.h"

/* Reads fd up to its end and writes it to the (empty) file from position 0 on; runs of zeros become holes, as
 * options->sparse_bytes says.  From the options also: threads, rate, stop.  *length: how much it was; may be
 * NULL. */
int vd_receive(int fd, const char *name, struct vd_file *to, const struct vd_copy_options *, uint64_t *length,
               struct vd_error *);

#endif
