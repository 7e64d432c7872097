// SPDX-License-Identifier: MIT
/* dmg.h: private to formats/dmg*.c: Apple disk images of the UDIF kind. */
#ifndef VD_FORMATS_DMG_H
#define VD_FORMATS_DMG_H

#include <assert.h>
#include <stddef.h>

#include "core/check.h"
#include "core/image.h"
#include "util/endian.h"

enum {
        DMG_SECTOR = 512,
        DMG_VERSION = 4,
        DMG_TABLE_VERSION = 1,
        DMG_CRC32 = 2,                  /* type of a checksum; 0: none */
        DMG_VARIANT_DEVICE = 1, DMG_VARIANT_PARTITION = 2,
};

#define DMG_UNIT_MOST (UINT64_C(64) << 20)      /* unpacked bytes of a packed chunk */
#define DMG_PACKED_MOST (2 * DMG_UNIT_MOST)     /* its stored bytes */
#define DMG_LIST_MOST (UINT64_C(64) << 20)      /* bytes of the property list or resource fork */
#define DMG_CHUNKS_MOST (UINT64_C(1) << 21)

struct dmg_checksum_disk {
        be32 type, bits;
        uint8_t value[128];             /* CRC-32: the first four bytes, big-endian */
};

/* The trailer; its last bytes are the file's. */
struct dmg_trailer_disk {
        char magic[4];                  /* "koly" */
        be32 version;                   /* 4 */
        be32 header_bytes;              /* 512 */
        be32 flags;                     /* 1: flattened, 4: from the Internet */
        be64 running_offset;            /* of this segment's data in the whole set */
        be64 fork_offset, fork_bytes;   /* data fork: what chunks count from */
        be64 resource_offset, resource_bytes;   /* classic resource fork */
        be32 segment, segments;         /* 0 or 1 for single files */
        uint8_t segment_id[16];
        struct dmg_checksum_disk fork_checksum; /* of the data fork as stored */
        be64 list_offset, list_bytes;   /* XML property list */
        uint8_t reserved[120];          /* garbage in old files */
        struct dmg_checksum_disk checksum;      /* of the checksums of all tables */
        be32 variant;
        be64 sectors;                   /* of the disk; some writers leave it 0 */
        uint8_t reserved2[12];
};
static_assert(sizeof(struct dmg_trailer_disk) == 512, "UDIF trailer");
static_assert(offsetof(struct dmg_trailer_disk, list_offset) == 0xd8, "UDIF property list");
static_assert(offsetof(struct dmg_trailer_disk, sectors) == 0x1ec, "UDIF sector count");

/* One block table ("blkx"): chunks follow. */
struct dmg_table_disk {
        char magic[4];                  /* "mish" */
        be32 version;
        be64 start, sectors;            /* of the disk */
        be64 data_offset;               /* added to what chunks say */
        be32 buffers;                   /* hint, not trusted */
        be32 descriptor;
        uint8_t reserved[24];
        struct dmg_checksum_disk checksum;      /* of the content, "ignore" chunks left out */
        be32 chunks;
};
static_assert(sizeof(struct dmg_table_disk) == 204, "UDIF block table");

struct dmg_chunk_disk {
        be32 type;
        be32 comment;                   /* garbage in real files */
        be64 first, sectors;            /* in the table's part of the disk */
        be64 position, bytes;           /* position from the start of the data fork */
};
static_assert(sizeof(struct dmg_chunk_disk) == 40, "UDIF chunk");

enum dmg_type {
        DMG_ZERO = 0,
        DMG_RAW = 1,
        DMG_IGNORE = 2,                 /* reads as zeros; not part of the table's checksum */
        DMG_ADC = (int)0x80000004,
        DMG_ZLIB,
        DMG_BZIP2,
        DMG_LZFSE,
        DMG_XZ,
        DMG_COMMENT = 0x7ffffffe,
        DMG_END = -1,
};

struct dmg_chunk {
        uint64_t start, end;            /* guest bytes */
        uint64_t position, bytes;       /* in the file; UINT64_MAX: does not fit 64 bits */
        uint64_t reach;                 /* highest end of all chunks that are not after this one in `order` */
        enum dmg_type type;
        uint32_t table;
        bool overlaps;                  /* others have part of its range, too */
        bool is_missing;                /* the table has no chunk for this range; type is DMG_COMMENT */
};

struct dmg_table {
        char *name;                     /* as stored; may be NULL */
        uint64_t start, end;            /* guest bytes */
        size_t first, count;            /* of its chunks */
        uint32_t checksum_type, checksum;
        bool ordered, terminated;
};

struct dmg {
        struct dmg_trailer_disk trailer;
        uint64_t trailer_offset;
        uint64_t fork_offset, fork_bytes;       /* bytes 0: not known */
        uint64_t list_offset, list_bytes;       /* property list or resource fork */
        bool is_resource_fork;
        uint64_t size;                  /* guest bytes */

        struct dmg_table *tables;
        size_t table_count, table_room;
        struct dmg_chunk *chunks;       /* in the order of the tables */
        size_t chunk_count, chunk_room;
        uint32_t *order;                /* their numbers by start */
};

/* What a chunk type means. */
struct dmg_type_info {
        enum dmg_type type;
        enum vd_codec codec;
        const char *name, *subformat;   /* "zlib", "UDZO"; no subformat: holds nothing */
};

/* NULL for types that we do not know. */
const struct dmg_type_info *dmg_type_info(enum dmg_type);

/* dmg_lists.c */
bool dmg_is_trailer(const void *);
int dmg_read_tables(struct dmg *, struct vd_file *, struct vd_error *);

/* dmg_tables.c */
int dmg_add_table(struct dmg *, const uint8_t *bytes, size_t length, const char *name, size_t name_length,
                  struct vd_error *);
int dmg_sort_chunks(struct dmg *, struct vd_error *);
void dmg_free(struct dmg *);
/* What is wrong with the chunk, before its data is looked at: 0, or why it cannot be read. */
int dmg_chunk_fault(const struct dmg *, const struct vd_file *, const struct dmg_chunk *, struct vd_error *);
void dmg_chunk_extent(const struct dmg_chunk *, struct vd_file *, uint64_t offset, uint64_t max, struct vd_extent *);

/* dmg_check.c */
int dmg_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int dmg_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
