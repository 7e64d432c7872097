// SPDX-License-Identifier: MIT
/* vhdx.h: what the files of the VHDX driver share: structures on disk, the open image.
 *
 * Everything is little-endian, identifiers are in Microsoft's order; checksums are CRC-32C over the whole structure
 * with the checksum field zero ([MS-VHDX], "Virtual Hard Disk v2 File Format").
 */
#ifndef VD_FORMATS_VHDX_H
#define VD_FORMATS_VHDX_H

#include <assert.h>
#include <stddef.h>

#include "core/image.h"
#include "formats/shared/blocktable.h"
#include "formats/shared/guid.h"
#include "util/endian.h"

enum {
        VHDX_MIB = 1 << 20,             /* everything past the first MiB begins at a multiple of this */
        VHDX_SECTOR = 4096,             /* unit of the log */
        VHDX_HEADER_1 = 64 * 1024, VHDX_HEADER_2 = 128 * 1024,
        VHDX_REGIONS_1 = 192 * 1024, VHDX_REGIONS_2 = 256 * 1024,
        VHDX_TABLE_BYTES = 64 * 1024,   /* region tables, metadata table */
        VHDX_TABLE_ENTRIES = 2047,
        VHDX_BLOCK_MAX = 256 * VHDX_MIB,
        VHDX_ITEM_MAX = VHDX_MIB,
};
#define VHDX_SIZE_MAX (64ull << 40)
#define VHDX_BITS_PER_CHUNK (1ull << 23)        /* sectors that one bitmap block has bits for */

struct vhdx_identifier_disk {           /* at 0; written once and never again */
        char signature[8];              /* "vhdxfile" */
        uint8_t creator[512];           /* UTF-16; must not influence anything */
};
static_assert(sizeof(struct vhdx_identifier_disk) == 520, "VHDX file type identifier");

struct vhdx_header_disk {
        char signature[4];              /* "head" */
        le32 checksum;
        le64 sequence;                  /* the valid header with the higher one is current */
        uint8_t file_write_guid[16];    /* new before the first change after opening */
        uint8_t data_write_guid[16];    /* new before the first change that a guest can see; children remember it */
        uint8_t log_guid[16];           /* zero: the log is empty */
        le16 log_version;               /* 0 */
        le16 version;                   /* 1 */
        le32 log_length;
        le64 log_offset;
        uint8_t reserved[4016];
};
static_assert(sizeof(struct vhdx_header_disk) == 4096, "VHDX header");
static_assert(offsetof(struct vhdx_header_disk, log_offset) == 72, "VHDX header: log offset");

struct vhdx_table_disk {                /* head of a region table; 32-byte entries follow */
        char signature[4];              /* "regi" */
        le32 checksum;                  /* over all 64 KiB */
        le32 count;
        le32 reserved;
};
static_assert(sizeof(struct vhdx_table_disk) == 16, "VHDX region table");

struct vhdx_region_disk {
        uint8_t guid[16];
        le64 position;
        le32 length;
        le32 flags;                     /* bit 0: who does not know this region must not open the file */
};
static_assert(sizeof(struct vhdx_region_disk) == 32, "VHDX region");

struct vhdx_metadata_disk {             /* head of the metadata table; 32-byte entries follow */
        char signature[8];              /* "metadata" */
        le16 reserved;
        le16 count;
        uint8_t reserved2[20];
};
static_assert(sizeof(struct vhdx_metadata_disk) == 32, "VHDX metadata table");

struct vhdx_item_disk {
        uint8_t guid[16];
        le32 offset;                    /* from the start of the region; 0 when length is 0 */
        le32 length;
        le32 flags;                     /* VHDX_ITEM_... */
        le32 reserved;
};
static_assert(sizeof(struct vhdx_item_disk) == 32, "VHDX metadata item");

enum { VHDX_ITEM_USER = 1, VHDX_ITEM_DISK = 2, VHDX_ITEM_REQUIRED = 4 };

struct vhdx_parameters_disk {
        le32 block_bytes;
        le32 flags;                     /* VHDX_FIXED, VHDX_HAS_PARENT */
};
static_assert(sizeof(struct vhdx_parameters_disk) == 8, "VHDX file parameters");

enum { VHDX_LEAVE_ALLOCATED = 1, VHDX_HAS_PARENT = 2 };

struct vhdx_locator_disk {              /* parent locator; 12-byte entries follow */
        uint8_t type[16];
        le16 reserved;
        le16 count;
};
static_assert(sizeof(struct vhdx_locator_disk) == 20, "VHDX parent locator");

struct vhdx_locator_entry_disk {        /* offsets from the start of the item; UTF-16 texts without terminator */
        le32 key_offset, value_offset;
        le16 key_length, value_length;
};
static_assert(sizeof(struct vhdx_locator_entry_disk) == 12, "VHDX parent locator entry");

/* Entries of the block allocation table: state in the low three bits, position in the upper 44 (in MiB). */
enum vhdx_state {
        VHDX_NOT_PRESENT = 0,
        VHDX_UNDEFINED = 1,
        VHDX_ZERO = 2,
        VHDX_UNMAPPED = 3,
        VHDX_UNMAPPED_DRAFT = 5,        /* UNMAPPED in version 0.95 of the specification */
        VHDX_PRESENT = 6,               /* also of bitmap blocks */
        VHDX_PARTIAL = 7,
        VHDX_STATE_MASK = 7,
};
#define VHDX_POSITION_MASK (~(uint64_t)0xfffff)

/* In memory. */

enum vhdx_copy { VHDX_COPY_BAD, VHDX_COPY_GOOD, VHDX_COPY_DIFFERS /* good, not the one that is used */ };
enum vhdx_type { VHDX_DYNAMIC, VHDX_FIXED, VHDX_DIFFERENCING };

struct vhdx_region {                    /* a part of the file that no block may touch */
        uint64_t position, length;
        uint8_t guid[16];
        bool known;
        bool bitmap;                    /* a sector bitmap block, see vhdx_scan() */
        const char *what;               /* "the BAT" */
};

struct vhdx_item {
        uint8_t guid[16];
        uint64_t position;              /* in the file */
        uint32_t offset, length, flags;
};

struct vhdx_pair { char *key, *value; };        /* of the parent locator, UTF-8 */

struct vhdx_pending { uint64_t chunk, position; };      /* a bitmap block that has no entry yet */

struct vhdx {
        /* Tables are read, and in place changed, through `file`: the image's own file; with a log pending in a file
         * opened for reading, an overlay in which it is replayed; when writing in place, an overlay that holds one
         * transaction.  Guest data is in `data`: the first or the second of these. */
        struct vd_file *file, *data;

        struct vhdx_header_disk header; /* the current one, and its slot */
        unsigned slot;
        enum vhdx_copy headers[2], tables[2];
        bool log_pending;               /* there was a log to replay */
        uint64_t log_entries;           /* how many were replayed */
        char *creator;                  /* UTF-8 */

        struct vhdx_region *regions;    /* sorted by position; header section and log are among them */
        size_t region_count;
        struct vhdx_region bat, metadata;

        struct vhdx_item *items;
        size_t item_count;
        enum vhdx_type type;
        uint32_t block_bytes, logical_bytes, physical_bytes;
        uint32_t parameter_flags;
        uint8_t disk_id[16];            /* SCSI page 83 */
        struct vhdx_pair *locator;
        size_t locator_count;

        uint64_t chunk_ratio;           /* payload entries for each bitmap entry */
        struct vd_blocktable table;     /* of the payload entries */
        struct vd_cache *bitmaps;       /* sectors of bitmap blocks; NULL without parent */
        bool scanned;

        /* Writing. */
        bool begun;                     /* in place: the GUIDs say that this file was changed */
        bool zero_states;               /* new: blocks without data are ZERO, not NOT_PRESENT */
        uint64_t stable;                /* in place: this length of the file is on disk */
        uint64_t log_sequence;
        uint32_t log_at;                /* where in the log the next entry goes */
        struct vhdx_pending *pending;
        size_t pending_count, pending_room;
};

static inline bool vhdx_is_differencing(const struct vhdx *v) { return v->type == VHDX_DIFFERENCING; }

/* vhdx.c */
void vhdx_close(struct vd_image *);
/* Starts table and bitmap caches; the sizes and the BAT's place are set. */
int vhdx_open_tables(struct vd_image *, struct vd_error *);
/* The region (header section and log included) that the range touches; NULL: none. */
const struct vhdx_region *vhdx_region_at(const struct vhdx *, uint64_t position, uint64_t length);
/* Adds a region, keeping the order; VD_ECORRUPT when it overlaps another. */
int vhdx_add_region(struct vhdx *, const struct vhdx_region *, struct vd_error *);
uint64_t vhdx_bat_entries(const struct vhdx *, uint64_t disk_bytes);
/* Where the entry of a chunk's bitmap block stands. */
uint64_t vhdx_bitmap_entry(const struct vhdx *, uint64_t chunk);
/* The bitmap block of a chunk, checked; *position 0: it has none. */
int vhdx_find_bitmap(struct vhdx *, uint64_t chunk, uint64_t *position, struct vd_error *);

/* Finds, once, what lies on each other: before data is read or written. */
int vhdx_scan(struct vd_image *, struct vd_error *);

/* vhdx_open.c */
extern const uint8_t vhdx_bat_guid[16], vhdx_metadata_guid[16];
/* Metadata items that the format defines, in the order in which we write them. */
enum vhdx_known {
        VHDX_PARAMETERS, VHDX_DISK_SIZE, VHDX_DISK_ID, VHDX_LOGICAL, VHDX_PHYSICAL, VHDX_LOCATOR, VHDX_KNOWN
};
extern const struct vhdx_known_item {
        uint8_t guid[16];
        uint32_t length;                /* 0: any */
        uint32_t flags;
        const char *what;
} vhdx_known_items[VHDX_KNOWN];
int vhdx_open(struct vd_image *, struct vd_error *);
/* The item of that kind; NULL when there is none. */
const struct vhdx_item *vhdx_item(const struct vhdx *, enum vhdx_known);
/* CRC-32C of a structure whose checksum field stands at byte 4. */
uint32_t vhdx_checksum(const void *bytes, size_t length);

/* vhdx_parent.c */
int vhdx_read_locator(struct vd_image *, struct vd_error *);
int vhdx_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *);
/* The parent locator item of a new image: malloc'ed, *bytes long. */
int vhdx_make_locator(struct vd_image *, const struct vd_create *, uint8_t **item, uint32_t *bytes, struct vd_error *);

/* vhdx_log.c */
/* Replays a pending log: on disk when the image may be written, else in an overlay. */
int vhdx_replay(struct vd_image *, struct vd_error *);

/* vhdx_journal.c */
/* Writes v->header into both slots, one after the other, each synced, with a new FileWriteGuid. */
int vhdx_write_headers(struct vd_image *, struct vd_error *);
/* A new identifier that was never in this file. */
int vhdx_new_guid(struct vd_image *, const char *purpose, uint8_t guid[16], struct vd_error *);
/* Sectors that one transaction may change. */
enum { VHDX_TRANSACTION = 126 };
/* Makes what v->file holds permanent: log entry, sync, in place, sync. */
int vhdx_commit(struct vd_image *, struct vd_error *);

/* vhdx_write.c */
int vhdx_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int vhdx_settle(struct vd_image *, struct vd_error *);
int vhdx_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int vhdx_flush(struct vd_image *, struct vd_error *);
int vhdx_finish(struct vd_image *, struct vd_error *);

/* vhdx_create.c */
struct vhdx_params {
        const char *subformat, *preallocation, *uuid;
        uint64_t block_bytes, log_bytes, logical_bytes, physical_bytes;
        bool block_state_zero;
};
extern const struct vd_opt vhdx_create_opts[];
extern const char *const vhdx_subformats[];
int vhdx_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int vhdx_finish_new(struct vd_image *, struct vd_error *);

/* vhdx_info.c */
void vhdx_describe(struct vd_image *, struct vd_report *);

/* vhdx_check.c */
int vhdx_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int vhdx_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
