// SPDX-License-Identifier: MIT
/* text.h: strings from images are not to be trusted; strings in general want growing. */
#ifndef VD_UTIL_TEXT_H
#define VD_UTIL_TEXT_H

#include <stddef.h>

#include "error.h"

/* Copies at most length bytes (up to the first NUL) of untrusted text into buffer as valid UTF-8 without control
 * characters: anything else becomes \xNN.  Always terminates; cuts with "..." when full.  Returns buffer. */
char *vd_printable(char *buffer, size_t room, const char *text, size_t length);

/* The same on the heap; NULL when memory is short. */
char *vd_printable_dup(const char *text, size_t length);

/* As vd_printable_dup, but ASCII control characters stay, for printers that escape them on their own (JSON). */
char *vd_utf8_dup(const char *text, size_t length);

/* printf into new memory; NULL when memory is short. */
char *vd_asprintf(const char *format, ...) VD_PRINTF(1, 2);

#endif
