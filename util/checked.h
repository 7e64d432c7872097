// SPDX-License-Identifier: MIT
/* checked.h: arithmetic on numbers that come from files.
 *
 * Every product or sum of values that a file supplies goes through vd_add() and vd_mul(), in uint64_t, before it is
 * compared or narrowed.
 */
#ifndef VD_UTIL_CHECKED_H
#define VD_UTIL_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* *out = a + b; false (and *out undefined) when it does not fit 64 bits. */
static inline bool vd_add(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_add_overflow(a, b, out); }

/* *out = a * b; false (and *out undefined) when it does not fit 64 bits. */
static inline bool vd_mul(uint64_t a, uint64_t b, uint64_t *out) { return !__builtin_mul_overflow(a, b, out); }

/* Does [start, start + length) lie inside [0, limit)? An empty range at the limit does. */
static inline bool vd_range_fits(uint64_t start, uint64_t length, uint64_t limit)
{
        return start <= limit && length <= limit - start;
}

static inline bool vd_is_pow2(uint64_t v) { return v && !(v & (v - 1)); }

/* Rounding to any unit > 0, not only powers of two.  vd_round_up needs v + unit - 1 to fit 64 bits. */
static inline uint64_t vd_round_down(uint64_t v, uint64_t unit) { return v - v % unit; }
static inline uint64_t vd_round_up(uint64_t v, uint64_t unit) { return v % unit ? v + (unit - v % unit) : v; }
static inline uint64_t vd_div_up(uint64_t v, uint64_t unit) { return v / unit + (v % unit != 0); }

static inline uint64_t vd_min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t vd_max(uint64_t a, uint64_t b) { return a > b ? a : b; }

#endif
