// SPDX-License-Identifier: MIT
/* error.h: a code and a message that the caller owns.
 *
 * A function that can fail returns 0 or a negative code and has said *what and where* once, with vd_fail().
 * Callers may add context in front (vd_error_prefix), never replace it.  Only cmd/main.c prints.
 */
#ifndef VD_UTIL_ERROR_H
#define VD_UTIL_ERROR_H

#include <stdarg.h>

#define VD_PRINTF(format_at, first_at) __attribute__((format(printf, format_at, first_at)))

/* Codes are negative errno values from the system, or one of these. */
enum {
        VD_EFORMAT = -10001,            /* not of this format, or of no known format */
        VD_ECORRUPT = -10002,           /* breaks the specification of its format, or is cut short */
        VD_EUNSUPPORTED = -10003,       /* valid, but vdtool cannot do it */
        VD_EUSAGE = -10004,             /* the request contradicts itself or names something unknown */
        VD_EPOLICY = -10005,            /* refused by the policy: see core/policy.h */
        VD_EPARENT = -10006,            /* the parent image is missing or is not the right one */
        VD_ELOCKED = -10007,            /* the image is in use by another process */
        VD_ESTOPPED = -10008,           /* a signal asked us to stop */
        VD_ECHANGED = -10009,           /* an input changed while it was read */
};

struct vd_error {
        int code;                       /* 0 while nothing failed */
        char text[1024];                /* lower case, no full stop; printable, whatever was in the image */
};

#define VD_ERROR_INIT { 0, "" }

/* Sets code and text and returns code, so that "return vd_fail(...)" is one line.
 * Code: negative errno or VD_E...; for a negative errno ": " and the system's text are appended. */
int vd_fail(struct vd_error *, int code, const char *format, ...) VD_PRINTF(3, 4);
int vd_vfail(struct vd_error *, int code, const char *format, va_list) VD_PRINTF(3, 0);

/* Puts "prefix: " before the text, unless it begins with that already.  Returns err->code. */
int vd_error_prefix(struct vd_error *, const char *format, ...) VD_PRINTF(2, 3);

/* A stable word for a code, as JSON shows it: "corrupt", "no-space", "locked", ...; never NULL. */
const char *vd_error_symbol(int code);

#endif
