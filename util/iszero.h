// SPDX-License-Identifier: MIT
/* iszero.h: finding zeros at memory speed. */
#ifndef VD_UTIL_ISZERO_H
#define VD_UTIL_ISZERO_H

#include <stdbool.h>
#include <stddef.h>

/* Are all bytes zero? True for length 0. */
bool vd_is_zero(const void *, size_t length);

#endif
