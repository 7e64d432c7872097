// SPDX-License-Identifier: MIT
/* bitmap.c: runs of bits across pages. */
#include "bitmap.h"

#include <inttypes.h>

#include "blocktable.h"
#include "util/checked.h"

int vd_bitmap_run(const struct vd_bitmap *map, uint64_t first, uint64_t end, bool *set, uint64_t *run,
                  struct vd_error *err)
{
        enum { PAGES_MOST = 64 };
        uint64_t per_page = map->page * 8, at = first;

        if (first / 8 >= map->stored)
                return vd_fail(err, VD_ECORRUPT, "bit %" PRIu64 " of the bitmap at %" PRIu64
                               " is missing: the file has %" PRIu64 " bytes of it", first, map->position, map->stored);
        if (end / 8 >= map->stored)
                end = map->stored * 8;
        for (unsigned pages = 0; at < end && pages < PAGES_MOST; pages++) {
                uint64_t base = vd_round_down(at, per_page), stop = vd_min(end, base + per_page);
                bool here;
                void *bits;
                int r = vd_cache_get(map->cache, map->position + base / 8, &bits, err);

                if (r)
                        return vd_error_prefix(err, "bitmap at %" PRIu64, map->position);
                uint64_t alike = vd_bits_run(bits, at - base, stop - base, false, &here);

                if (!pages)
                        *set = here;
                if (here == *set)
                        at += alike;
                if (here != *set || at < stop)
                        break;
        }
        *run = at - first;
        return 0;
}

int vd_bitmap_fill(const struct vd_bitmap *map, uint64_t first, uint64_t end, bool value, struct vd_error *err)
{
        uint64_t per_page = map->page * 8;

        while (first < end) {
                uint64_t base = vd_round_down(first, per_page), stop = vd_min(end, base + per_page);
                uint64_t position = map->position + base / 8;
                void *bits;
                int r = vd_cache_get(map->cache, position, &bits, err);

                if (r)
                        return vd_error_prefix(err, "bitmap at %" PRIu64, map->position);
                if (vd_bits_fill(bits, first - base, stop - base, false, value))
                        vd_cache_dirty(map->cache, position);
                first = stop;
        }
        return 0;
}
