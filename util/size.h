// SPDX-License-Identifier: MIT
/* size.h: sizes as people write and read them. */
#ifndef VD_UTIL_SIZE_H
#define VD_UTIL_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* "10G", "1.5T", "4k", "2880s" (512-byte sectors), "512b" or "512": powers of 1024, fraction allowed (the result
 * rounded up to a byte).  VD_EUSAGE for anything else, a negative number or more than 2^63 - 1. */
int vd_size_parse(const char *text, uint64_t *bytes, struct vd_error *);

/* "10 MiB", "1.5 GiB", "512 B": three significant digits, as qemu-img prints.  Returns buffer. */
char *vd_size_text(uint64_t bytes, char buffer[32]);

#endif
