// SPDX-License-Identifier: MIT
/* asif.h: private to formats/asif*.c. */
#ifndef VD_FORMATS_ASIF_H
#define VD_FORMATS_ASIF_H

#include <assert.h>
#include <stddef.h>

#include "core/cache.h"
#include "core/check.h"
#include "core/image.h"
#include "util/endian.h"

enum {
        ASIF_HEADER_BYTES = 512,
        ASIF_CHUNK_LEAST = 32768, ASIF_CHUNK_MOST = 64 << 20,
        ASIF_TABLES_MOST = 1 << 20,
        ASIF_PAGE = 4096,
};

#define ASIF_INDEX_MASK ((UINT64_C(1) << 55) - 1)
#define ASIF_RESERVED_MASK (UINT64_C(0x7f) << 55)

struct asif_header_disk {
        char magic[4];                  /* "shdw" */
        be32 version, header_bytes, flags;      /* 1, 512, 0 */
        be64 directories[2];            /* where they are */
        uint8_t uuid[16];
        be64 sectors, most_sectors;     /* the disk's, and up to which it may grow */
        be32 chunk_bytes;
        be16 block_bytes;
        be16 segments;                  /* meaning not known */
        be64 metadata_chunk;            /* of the disk, behind its end */
        uint8_t unknown[16];
        be32 read_only_flags, metadata_flags, metadata_read_only_flags;
};
static_assert(offsetof(struct asif_header_disk, metadata_chunk) == 0x48, "ASIF metadata chunk");
static_assert(sizeof(struct asif_header_disk) == 0x6c, "ASIF header");

struct asif {
        struct asif_header_disk header;
        uint64_t chunk, block;          /* bytes */
        uint64_t group, groups;         /* data chunks of a group, groups of a table */
        uint64_t table_covers, table_count;     /* bytes of a table's part of the disk */
        uint64_t most_bytes;            /* up to which the disk may grow */
        uint64_t directories[2], sequence[2];
        int active;
        struct vd_cache *tables;        /* directory, tables and bitmaps */
};

/* The top bits of an entry. */
enum asif_state { ASIF_EMPTY, ASIF_WHOLE, ASIF_UNKNOWN, ASIF_PARTIAL };

struct asif_entry {
        enum asif_state state;
        uint64_t position;              /* of the chunk; not for ASIF_EMPTY */
};

/* The chunk of a table, 0: there is none. */
int asif_find_table(struct vd_image *, uint64_t table, uint64_t *position, struct vd_error *);
/* Where the entry for a data chunk of the table at this position is. */
uint64_t asif_entry_position(const struct asif *, uint64_t table, uint64_t chunk);
/* Checked against the file; guest: of the chunk. */
int asif_decode(struct vd_image *, uint64_t entry, uint64_t guest, struct asif_entry *, struct vd_error *);
/* 0: there is none. */
int asif_find_bitmap(struct vd_image *, uint64_t table, uint64_t group, uint64_t *position, struct vd_error *);
/* map() up to end, which may lie behind the disk (metadata). */
int asif_map_within(struct vd_image *, uint64_t offset, uint64_t end, struct vd_extent *, struct vd_error *);

/* asif_check.c */
void asif_describe(struct vd_image *, struct vd_report *);
int asif_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int asif_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
