// SPDX-License-Identifier: MIT
/* utf16.h: names stored as UTF-16, in either byte order. */
#ifndef VD_SHARED_UTF16_H
#define VD_SHARED_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8 of the text up to its first NUL or to the end of bytes; what is not valid UTF-16 becomes U+FFFD.  malloc'ed;
 * NULL when memory is short. */
char *vd_utf16_to_utf8(const void *text, size_t bytes, bool big_endian);

/* UTF-16 of the text without a terminator, malloc'ed, *bytes long.  NULL with *bytes = SIZE_MAX when text is not valid
 * UTF-8, NULL otherwise when memory is short. */
uint8_t *vd_utf16_from_utf8(const char *text, bool big_endian, size_t *bytes);

#endif
