// SPDX-License-Identifier: MIT
/* bitmap.h: bitmaps in the file, a page at a time: which clusters or sectors are there (add-cow, cow, Bochs).
 *
 * Bit i is in byte i / 8, 1 << i % 8.
 */
#ifndef VD_SHARED_BITMAP_H
#define VD_SHARED_BITMAP_H

#include "core/cache.h"

struct vd_bitmap {
        struct vd_cache *cache;         /* the driver's */
        uint64_t page;                  /* bytes of its pages */
        uint64_t position;              /* in the file; begins a page of the cache */
        uint64_t stored;                /* bytes that the file has of it; bits behind are errors */
};

/* How many bits from first (< end) on are alike, up to end; *set is their value.  Gives up after a number of pages,
 * so that the result may be less than there is. */
int vd_bitmap_run(const struct vd_bitmap *, uint64_t first, uint64_t end, bool *set, uint64_t *run, struct vd_error *);

/* Gives bits [first, end) a value, in the cache. */
int vd_bitmap_fill(const struct vd_bitmap *, uint64_t first, uint64_t end, bool value, struct vd_error *);

#endif
