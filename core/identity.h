// SPDX-License-Identifier: MIT
/* identity.h: the only source of time and chance.
 *
 * With SOURCE_DATE_EPOCH in the environment both come from it and from what the caller passes as seed, so that the same
 * input gives the same bytes.
 */
#ifndef VD_CORE_IDENTITY_H
#define VD_CORE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

/* Is SOURCE_DATE_EPOCH in force? */
bool vd_identity_is_fixed(void);

/* Seconds since 1970; the clock's when SOURCE_DATE_EPOCH is malformed. */
int64_t vd_identity_time(void);

/* A random (version 4) UUID, or one computed from SOURCE_DATE_EPOCH, seed and purpose ("vhd unique id").  VD_EUSAGE when
 * SOURCE_DATE_EPOCH is not a decimal number. */
int vd_identity_uuid(uint8_t uuid[16], const char *purpose, uint64_t seed, struct vd_error *);

#endif
