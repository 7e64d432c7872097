// SPDX-License-Identifier: MIT
/* chs.c: disk geometry. */
#include "chs.h"

struct vd_chs vd_chs_of_sectors(uint64_t sectors)
{
        uint64_t total = sectors < VD_CHS_MAX_SECTORS ? sectors : VD_CHS_MAX_SECTORS;
        uint64_t per_track, heads, tracks;

        if (total >= 65535ull * 16 * 63) {
                per_track = 255;
                heads = 16;
                tracks = total / per_track;
        } else {
                per_track = 17;
                tracks = total / per_track;
                heads = (tracks + 1023) / 1024;
                if (heads < 4)
                        heads = 4;
                if (tracks >= heads * 1024 || heads > 16) {
                        per_track = 31;
                        heads = 16;
                        tracks = total / per_track;
                }
                if (tracks >= heads * 1024) {
                        per_track = 63;
                        heads = 16;
                        tracks = total / per_track;
                }
        }
        return (struct vd_chs){ (uint16_t)(tracks / heads), (uint8_t)heads, (uint8_t)per_track };
}

uint64_t vd_chs_bytes(struct vd_chs chs)
{
        return 512ull * chs.cylinders * chs.heads * chs.sectors;
}

uint64_t vd_chs_fitting(uint64_t sectors)
{
        if (sectors >= VD_CHS_MAX_SECTORS)
                return sectors;

        /* A cylinder has at most 16 * 255 sectors, so few steps are needed; the product never shrinks. */
        for (uint64_t candidate = sectors; ; candidate++) {
                uint64_t covered = vd_chs_bytes(vd_chs_of_sectors(candidate)) / 512;

                if (covered >= sectors)
                        return covered;
        }
}

bool vd_chs_is_largest(struct vd_chs chs)
{
        return chs.cylinders == 65535 && chs.heads == 16 && chs.sectors == 255;
}
