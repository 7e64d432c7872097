// SPDX-License-Identifier: MIT
/* blocktable.h: flat tables: one entry per block of the disk says where that block lives.
 *
 *      guest offset / block_bytes = block  ->  entry  ->  (decode)  ->  nothing | zeros | bytes in the file
 *
 * VHD, VHDX, VDI, Parallels and Bochs store this table; they differ in the width, byte order and meaning of an entry,
 * in what stands in front of a block's data, and in where new blocks may go.  A format supplies the meaning (struct
 * vd_blocktable_type) and a few numbers (struct vd_blocktable); looking up, merging runs, checking against the file,
 * allocating and walking are here.  The table is read through core/cache.h and never held whole.
 */
#ifndef VD_SHARED_BLOCKTABLE_H
#define VD_SHARED_BLOCKTABLE_H

#include "core/cache.h"
#include "core/check.h"
#include "core/extent.h"

/* An entry, decoded. */
struct vd_block {
        enum vd_kind kind;              /* VD_UNALLOCATED, VD_ZERO or VD_DATA */
        bool partial;                   /* DATA: a bitmap of the format says which sectors are there */
        uint64_t position;              /* DATA: of the block's first guest byte in the file */
};

/* What the entries of a format mean.  owner is the driver's state. */
struct vd_blocktable_type {
        const char *what;               /* "BAT", "block map": for messages */
        const char *finding;            /* code of the finding for an entry that cannot be right: "vhd-bat-entry" */
        unsigned entry_bytes;           /* 4 or 8 */

        /* Raw bytes to meaning.  Fails (VD_ECORRUPT) on values that the format does not know and on positions that it
         * alone can rule out; what lies outside [start, limit) is found here. */
        int (*decode)(const void *owner, uint64_t block, const void *raw, struct vd_block *, struct vd_error *);
        /* Meaning to raw bytes; raw holds the old entry.  NULL for formats that are only read. */
        void (*encode)(const void *owner, uint64_t block, const struct vd_block *, void *raw);
        /* Where the entry of a block stands, for tables that are interleaved with something else; NULL: entry after
         * entry from `position` on.  *run: how many, this one included, follow each other there. */
        void (*locate)(const void *owner, uint64_t block, uint64_t *position, uint64_t *run);
};

/* A block that has a place in the file but no entry yet. */
struct vd_blocktable_pending {
        uint64_t block, position;
};

/* Filled by the driver, then vd_blocktable_open(). */
struct vd_blocktable {
        const struct vd_blocktable_type *type;
        const void *owner;
        struct vd_file *file;           /* of the table and the blocks; borrowed */
        uint64_t position;              /* of entry 0 (without type->locate) */
        uint64_t count;                 /* blocks that have an entry */
        uint64_t block_bytes;           /* guest bytes of a block */
        uint64_t disk_bytes;            /* guest bytes in all: what the last block holds past them need not be there */
        uint64_t lead_bytes;            /* of the file, in front of a block's data and part of it (sector bitmap) */
        uint64_t start, limit;          /* blocks, lead included, lie in [start, limit) of the file */

        /* For writing. */
        bool in_place;                  /* entries change when they are published, not when space is taken */
        uint64_t next;                  /* first free byte of the file: new blocks are appended */
        uint64_t align;                 /* of a new block's data */
        uint64_t reach;                 /* highest position of data that an entry can express */

        /* Its own. */
        struct vd_cache *cache;
        uint64_t page_bytes;
        struct vd_blocktable_pending *pending;  /* sorted by block */
        size_t pending_count, pending_room;
        uint64_t *overlapping;          /* blocks that share bytes with others, ascending; see vd_blocktable_scan() */
        size_t overlap_count;
        bool scanned;
};

/* The largest page for a table of that many bytes such that no page reaches past the room it has (>= bytes; both multiples
 * of 4). */
size_t vd_blocktable_page(uint64_t bytes, uint64_t room);

/* Starts caching; page_bytes divides the table into pages (a multiple of entry_bytes; pages of a table that is written
 * must not reach past it).  Without failure the driver calls vd_blocktable_close() later. */
int vd_blocktable_open(struct vd_blocktable *, size_t page_bytes, size_t max_pages, struct vd_error *);
void vd_blocktable_close(struct vd_blocktable *);       /* also after a failed open or on a zeroed struct */

/* The published entry of a block, checked against the file. */
int vd_blocktable_get(struct vd_blocktable *, uint64_t block, struct vd_block *, struct vd_error *);

/* The extent at offset, at most max long: runs of unallocated and zero blocks and of data that is contiguous in the
 * file are merged.  A partial block is never merged: *partial says so, and the extent is its rest as plain data. */
int vd_blocktable_map(struct vd_blocktable *, uint64_t offset, uint64_t max, struct vd_extent *, bool *partial,
                      struct vd_error *);

/* Does the block have a place, published or pending? As vd_blocktable_get, but sees what was only allocated. */
int vd_blocktable_find(struct vd_blocktable *, uint64_t block, struct vd_block *, struct vd_error *);

/* A place at the end of the file for a block that has none: moves `next`.  A new image's entry is set at once; in place
 * it is pending until vd_blocktable_publish(). */
int vd_blocktable_allocate(struct vd_blocktable *, uint64_t block, struct vd_block *, struct vd_error *);

/* Makes a pending block's entry point to it; *fresh: it was pending. */
int vd_blocktable_publish(struct vd_blocktable *, uint64_t block, bool *fresh, struct vd_error *);

/* Changes an entry (in the cache). */
int vd_blocktable_set(struct vd_blocktable *, uint64_t block, const struct vd_block *, struct vd_error *);

/* Finds the blocks that share bytes of the file with others; from then on they are errors for get, find, map and walk.
 * To be called before data is read or written, once; looks at the whole table.  Nothing happens, for the sake of memory
 * and time, when the file has room for more than VD_BLOCKTABLE_SCANNED blocks or the table 32 times as many entries. */
int vd_blocktable_scan(struct vd_blocktable *, struct vd_error *);
enum { VD_BLOCKTABLE_SCANNED = 2 * 1024 * 1024 };

/* All entries are good: no block lies outside the file or on another.  Before an image in place grows over what they
 * point at. */
int vd_blocktable_verify(struct vd_blocktable *, struct vd_error *);

/* Every block as a region; bad entries become findings.  Adds to total_units, allocated_units, fragmented_units. */
int vd_blocktable_walk(struct vd_blocktable *, struct vd_check *, struct vd_error *);

/* Sector bitmaps.  Bit i is in byte i / 8; msb_first: 0x80 >> i % 8, else 1 << i % 8. */

/* How many bits from first (< end) on have the same value, up to end; *set is that value. */
uint64_t vd_bits_run(const uint8_t *bits, uint64_t first, uint64_t end, bool msb_first, bool *set);
/* Gives bits [first, end) a value; true when that changed one. */
bool vd_bits_fill(uint8_t *bits, uint64_t first, uint64_t end, bool msb_first, bool value);

#endif
