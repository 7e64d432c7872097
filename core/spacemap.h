// SPDX-License-Identifier: MIT
/* spacemap.h: who uses which part of a file.
 *
 * A driver's walk() names every region in use; the map finds overlaps and regions outside the file, for every format
 * alike, and afterwards knows what is free.  Overlap is class-aware: data on data may be sharing (a refcount above 1),
 * anything on metadata is corruption.
 * Memory: one byte per granule where neighbours differ, one word per 4096 granules where they are alike.
 */
#ifndef VD_CORE_SPACEMAP_H
#define VD_CORE_SPACEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "findings.h"

enum vd_class {                         /* what a region is; 0 is "nobody's" */
        VD_CLASS_FREE,
        VD_CLASS_HEADER,                /* headers, footers, descriptors, locators, names */
        VD_CLASS_TABLE,                 /* first-level tables, BATs, maps */
        VD_CLASS_SUBTABLE,              /* second-level tables, sector bitmaps outside blocks */
        VD_CLASS_COUNTS,                /* refcount tables and blocks */
        VD_CLASS_SNAPSHOT,              /* snapshot tables, bitmap directories */
        VD_CLASS_DATA,
        VD_CLASS_PACKED,                /* compressed units; several may share a granule */
        VD_CLASSES
};

struct vd_region {
        enum vd_class class;
        uint64_t position, length;      /* in the file */
        uint64_t guest;                 /* guest offset it serves, or VD_NOWHERE */
        const char *what;               /* "L2 table", "block 7": for messages; borrowed during the visit */
        bool shared;                    /* the format allows others to use the same bytes (snapshots, packed units) */
};

struct vd_spacemap;

/* granule: bytes per unit of account, a power of two.  limit: the end of the file. */
struct vd_spacemap *vd_spacemap_new(uint64_t granule, uint64_t limit);
void vd_spacemap_free(struct vd_spacemap *);

/* Counts the region; overlaps and regions (partly) past the limit become findings ("overlap", "out-of-file").
 * What lies past the limit is not counted.  Returns 0 or -ENOMEM. */
int vd_spacemap_add(struct vd_spacemap *, const struct vd_region *, struct vd_findings *);

/* How many regions use this granule (index = position / granule), and what the first of them was. */
uint64_t vd_spacemap_count(const struct vd_spacemap *, uint64_t granule_index);
enum vd_class vd_spacemap_class(const struct vd_spacemap *, uint64_t granule_index);

/* The next run of granules from *index on with the same count and class: sets *index to its first granule, *length to
 * their number.  False at the end of the map.  Starts with *index = 0. */
bool vd_spacemap_next(const struct vd_spacemap *, uint64_t *index, uint64_t *length, uint64_t *count,
                      enum vd_class *);

#endif
