// SPDX-License-Identifier: MIT
/* cache.h: tables of an image, a page at a time.
 *
 * Drivers read and change on-disk tables (BAT, L1, L2, refcount blocks ...) through a cache, so that nobody reads a
 * table whole, memory has a bound, and a new image writes its tables the same way as an old one in place.
 * Not for several threads: drivers never see one.
 */
#ifndef VD_CORE_CACHE_H
#define VD_CORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.h"

struct vd_cache;

/* Pages of page_bytes lie at origin + n * page_bytes of the file; they are read and written whole, so a page must not
 * reach into space that is not the table's.  At most max_pages (>= 4) clean pages are kept; dirty
 * ones are written when they would exceed the bound, lowest position first, unless pin_dirty (in-place changes, where
 * the driver decides about the order of writes): then only vd_cache_flush() writes.  Takes a reference to the file. */
struct vd_cache *vd_cache_new(struct vd_file *, uint64_t origin, size_t page_bytes, size_t max_pages, bool pin_dirty);
void vd_cache_free(struct vd_cache *);          /* dirty pages are dropped */

/* *bytes points at the byte at position; valid up to the end of its page and until the next call that takes a cache
 * argument.  A page past the end of the file, or cut by it, is VD_ECORRUPT, except with vd_cache_allow_short(). */
int vd_cache_get(struct vd_cache *, uint64_t position, void **bytes, struct vd_error *);

/* Bytes of pages that lie past the end of the file read as fill (a table that is not written yet). */
void vd_cache_allow_short(struct vd_cache *, uint8_t fill);

/* As vd_cache_get, for a page that is about to be filled: not read, all bytes fill, dirty. */
int vd_cache_get_new(struct vd_cache *, uint64_t position, uint8_t fill, void **bytes, struct vd_error *);

/* The page holding position was changed. */
void vd_cache_dirty(struct vd_cache *, uint64_t position);

bool vd_cache_is_dirty(const struct vd_cache *);
/* Writes all dirty pages, lowest position first, without syncing. */
int vd_cache_flush(struct vd_cache *, struct vd_error *);
/* Forgets the pages in the range, dirty or not (their space was freed or moved). */
void vd_cache_drop(struct vd_cache *, uint64_t position, uint64_t length);

#endif
