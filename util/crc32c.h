// SPDX-License-Identifier: MIT
/* crc32c.h: CRC-32C (Castagnoli), as VHDX, iSCSI and btrfs use it. */
#ifndef VD_UTIL_CRC32C_H
#define VD_UTIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what crc covers followed by these bytes; crc of nothing is 0.  "123456789" gives 0xe3069283. */
uint32_t vd_crc32c(uint32_t crc, const void *bytes, size_t length);

#endif
