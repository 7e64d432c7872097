// SPDX-License-Identifier: MIT
/* twolevel.h: guest offset -> first-level entry -> second-level table -> entry: qcow, qcow2, QED, VMDK.
 *
 * The format says what its entries mean (struct vd_twolevel_ops); finding them, skipping what is empty, merging runs
 * and the bounds of the tables are done here.  An entry of all zero bytes is "nothing mapped" at both levels, as in all
 * these formats; ops never see one.
 */
#ifndef VD_FORMATS_TWOLEVEL_H
#define VD_FORMATS_TWOLEVEL_H

#include "core/cache.h"
#include "core/extent.h"

struct vd_twolevel;
struct vd_check;

struct vd_twolevel_ops {
        /* The position of the second-level table that first-level entry `index` names; 0: none after all.
         * VD_ECORRUPT when the entry breaks the format; whether the table lies inside the file is checked by us. */
        int (*table)(const struct vd_twolevel *, uint64_t index, const void *entry, uint64_t *position,
                     struct vd_error *);

        /* What lies at guest offset ext->start, inside the unit that the entry serves: sets kind and what belongs to
         * it, and may shorten ext->length (which reaches to the end of the unit or of the question).  DATA positions
         * are checked against the file by us, PACKED ones by the format.  entry_position is for messages.  Must not
         * use the caches of the map. */
        int (*entry)(const struct vd_twolevel *, uint64_t entry_position, const void *entry, struct vd_extent *ext,
                     struct vd_error *);
};

enum { VD_TWOLEVEL_TOP_PAGE = 512 };    /* bytes, unless the format sets top_page_bytes */

struct vd_twolevel {
        const struct vd_twolevel_ops *ops;
        void *context;                  /* the format's */
        const char *top_name, *sub_name;        /* "L1 table", "grain table": for messages */

        struct vd_file *file;           /* holds the tables */
        /* Borrowed caches.  Pages of top begin at top_position + multiples of top_page_bytes; pages of sub at
         * multiples of sub_page_bytes. */
        struct vd_cache *top, *sub;
        uint64_t top_position;
        uint64_t top_entries;
        unsigned top_entry_bytes;       /* 4 or 8 */
        size_t top_page_bytes;          /* 0: VD_TWOLEVEL_TOP_PAGE */

        unsigned entry_bytes;           /* second level: 4, 8 or 16 */
        uint64_t entries;               /* of a second-level table */
        uint64_t unit;                  /* guest bytes that one of them serves */
        size_t sub_page_bytes;
        bool unwritten;                 /* a new image: tables may lie past the end of the file */
};

/* Do all tables of the first level lie inside the file, and do they cover size bytes? */
int vd_twolevel_check(const struct vd_twolevel *, uint64_t size, struct vd_error *);

/* The extent at offset, at most max long (offset + max lies within the size that was checked), merged as far as
 * neighbours continue it.  Ranges without tables are skipped whole. */
int vd_twolevel_map(const struct vd_twolevel *, uint64_t offset, uint64_t max, struct vd_extent *, struct vd_error *);

/* Where the first-level entry for this guest offset lies. */
uint64_t vd_twolevel_top_position(const struct vd_twolevel *, uint64_t offset);
/* Where the second-level entry for this guest offset lies; *position = 0 when there is no table for it. */
int vd_twolevel_find(const struct vd_twolevel *, uint64_t offset, uint64_t *position, struct vd_error *);

/* Everything that is mapped, for checkers: each non-empty first-level entry, then, where on_table returned 1, the
 * non-empty entries of its table.  Both return a negative code to end the walk.  guest: where what the entry serves
 * begins; UINT64_MAX when that is more than 64 bits can say.  Both get a copy of the entry and may use the caches. */
struct vd_twolevel_visit {
        void *context;
        int (*on_table)(void *context, uint64_t index, const void *entry, uint64_t *position, struct vd_error *);
        int (*on_entry)(void *context, uint64_t guest, uint64_t entry_position, const void *entry, struct vd_error *);
};
int vd_twolevel_walk(const struct vd_twolevel *, const struct vd_twolevel_visit *, struct vd_error *);

/* For formats that count no references: all second-level tables and all that they map as regions of the check's space
 * map; the first level is for the caller.  Entries that break the format become findings.  Adds to the unit counts. */
int vd_twolevel_regions(const struct vd_twolevel *, uint64_t disk_bytes, struct vd_check *, const char *finding,
                        struct vd_error *);
/* What no region covers from position `from` on, once the space map is filled, as leaks.  Runs shorter than a cluster
 * are alignment. */
void vd_twolevel_leaks(struct vd_check *, uint64_t granule, uint64_t cluster, uint64_t from, uint64_t file_size,
                       const char *finding);

#endif
