// SPDX-License-Identifier: MIT
/* chs.h: disk geometry as the VHD specification computes it ("CHS calculation" in its appendix).
 *
 * Cylinders x heads x sectors is rounded down and cannot express more than VD_CHS_MAX_SECTORS.
 */
#ifndef VD_SHARED_CHS_H
#define VD_SHARED_CHS_H

#include <stdbool.h>
#include <stdint.h>

struct vd_chs {
        uint16_t cylinders;
        uint8_t heads, sectors;         /* sectors per track */
};

#define VD_CHS_MAX_SECTORS (65535ull * 16 * 255)        /* 136899993600 bytes */

/* The geometry for a disk of that many 512-byte sectors; larger disks get the largest geometry. */
struct vd_chs vd_chs_of_sectors(uint64_t sectors);

/* Bytes that the geometry covers. */
uint64_t vd_chs_bytes(struct vd_chs);

/* The smallest number of sectors, at least as many, whose geometry covers them exactly.  Above VD_CHS_MAX_SECTORS: the
 * number itself. */
uint64_t vd_chs_fitting(uint64_t sectors);

/* 65535/16/255: the geometry that says "see the size field". */
bool vd_chs_is_largest(struct vd_chs);

#endif
