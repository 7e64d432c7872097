// SPDX-License-Identifier: MIT
/* receive.h: bytes that come one after the other, from a pipe, into a file. */
#ifndef VD_CORE_RECEIVE_H
#define VD_CORE_RECEIVE_H

#include "copy.h"

/* Fills buffer as far as there is anything: *got < length only at the end. */
typedef int vd_receive_read(void *context, void *buffer, size_t length, size_t *got, struct vd_error *);

/* Writes all that read() gives to the (empty) file, from position 0 on; runs of zeros become holes, as
 * options->sparse_bytes says.  From the options also: threads, rate, stop.  *length: how much it was; may be NULL. */
int vd_receive(vd_receive_read *, void *context, struct vd_file *to, const struct vd_copy_options *, uint64_t *length,
               struct vd_error *);

/* The same from a descriptor; name is what messages call it. */
int vd_receive_fd(int fd, const char *name, struct vd_file *to, const struct vd_copy_options *, uint64_t *length,
                  struct vd_error *);

#endif
