// SPDX-License-Identifier: MIT
/* vmdk.h: what the parts of the VMDK driver share: structs as in files, and a checked image in memory.
 *
 * A VMDK link is a text descriptor (a file of its own, or embedded in a sparse extent) that lists extents: flat files,
 * ranges of zeros, and sparse extents of three kinds.  Sparse extents map grains through a grain directory and grain
 * tables.  On disk everything counts in sectors of 512 bytes; in memory everything is bytes.
 */
#ifndef VD_FORMATS_VMDK_H
#define VD_FORMATS_VMDK_H

#include <assert.h>
#include <stdlib.h>

#include "core/check.h"
#include "core/image.h"
#include "shared/twolevel.h"
#include "util/endian.h"

#define VMDK_NO_CID 0xffffffffu                 /* parentCID of a disk without parent */
#define VMDK_NEW_CID 0xfffffffeu                /* what VMware gives to a disk that was never written */
#define VMDK_GD_AT_END UINT64_MAX               /* gd_offset: "see the footer" */

enum {
        VMDK_SECTOR = 512,
        VMDK_GRAIN = 64 * 1024,                 /* of what we create */
        VMDK_TABLE_ENTRIES = 512,               /* of what we create, and the most that is allowed */
        VMDK_TABLE_BYTES = VMDK_TABLE_ENTRIES * 4,
        VMDK_DESCRIPTOR_SECTORS = 20,           /* room for an embedded descriptor */
        VMDK_DESCRIPTOR_LIMIT = 1024 * 1024,
        VMDK_EXTENT_LIMIT = 10000,
        VMDK_MARKER_BYTES = 12,                 /* before the packed bytes of a grain */
};

/* ---- as on disk ---- */

enum {                                          /* flags */
        VMDK_FLAG_LINE_ENDS = 1,                /* line_ends is valid */
        VMDK_FLAG_REDUNDANT = 2,                /* the redundant directory and tables are kept up to date */
        VMDK_FLAG_ZERO_GRAINS = 4,              /* a table entry of 1 is a grain of zeros */
        VMDK_FLAG_PACKED = 0x10000,
        VMDK_FLAG_MARKERS = 0x20000,            /* grains and tables have markers before them */
        VMDK_FLAGS_KNOWN = 0x30007,
};

/* Hosted sparse extent ("KDMV"), Virtual Disk Format 5.0, "Hosted Sparse Extent Header". */
struct vmdk_sparse_disk {
        char magic[4];                          /* "KDMV"; "kdmv": open-vmdk had not finished it */
        le32 version;                           /* 1; 2: zero grains; 3: as streamOptimized has it */
        le32 flags;
        le64 capacity;                          /* sectors */
        le64 grain;                             /* sectors, a power of two */
        le64 descriptor_offset;                 /* sectors; 0: none */
        le64 descriptor_size;                   /* sectors */
        le32 table_entries;                     /* 512 */
        le64 redundant_offset;                  /* sectors: of the redundant grain directory */
        le64 directory_offset;                  /* sectors: of the grain directory; all ones: in the footer */
        le64 overhead;                          /* sectors before the first grain */
        uint8_t unclean;                        /* 1 while a writer has it open */
        uint8_t line_ends[4];                   /* "\n \r\n": damaged by transfers as text */
        le16 compression;                       /* 0, or 1: deflate */
        uint8_t pad[433];
};
static_assert(sizeof(struct vmdk_sparse_disk) == 512, "VMDK sparse header is one sector");
static_assert(offsetof(struct vmdk_sparse_disk, unclean) == 72, "VMDK sparse header");

/* ESX sparse extent ("COWD"), "ESX Server Sparse Extent". */
struct vmdk_cowd_disk {
        char magic[4];                          /* "COWD" */
        le32 version;                           /* 1 */
        le32 flags;                             /* 3 */
        le32 capacity;                          /* sectors */
        le32 grain;                             /* sectors */
        le32 directory_offset;                  /* sectors: 4 */
        le32 directory_entries;
        le32 free_sector;                       /* the next one to allocate */
        uint8_t root[1024];                     /* geometry, or the name of the parent */
        le32 parent_generation, generation;
        char name[60];
        char description[512];
        le32 saved_generation;
        uint8_t reserved[8];
        le32 unclean;
        uint8_t pad[396];
};
static_assert(sizeof(struct vmdk_cowd_disk) == 2048, "COWD header is four sectors");
static_assert(offsetof(struct vmdk_cowd_disk, unclean) == 0x670, "COWD header");

/* Space-efficient sparse extent. */
struct vmdk_se_area { le64 offset, size; };     /* sectors */
struct vmdk_se_disk {
        le64 magic;                             /* 0xcafebabe */
        le64 version;                           /* 0x0000000200000001 */
        le64 capacity;                          /* sectors */
        le64 grain;                             /* sectors: 8 */
        le64 table_size;                        /* sectors: 64 */
        le64 flags;
        le64 reserved[4];
        struct vmdk_se_area volatile_header, journal_header, journal, directory, tables, free_bitmap, backmap, grains;
        uint8_t pad[304];
};
static_assert(sizeof(struct vmdk_se_disk) == 512, "seSparse header is one sector");
static_assert(offsetof(struct vmdk_se_disk, directory) == 0x80, "seSparse header");

struct vmdk_se_volatile_disk {
        le64 magic;                             /* 0xcafecafe */
        le64 free_table, next_sequence;
        le64 replay_journal;                    /* not 0: the tables are behind the journal */
        uint8_t pad[480];
};
static_assert(sizeof(struct vmdk_se_volatile_disk) == 512, "seSparse volatile header is one sector");

/* Stream-optimized extents: size 0 marks metadata, any other a packed grain whose bytes begin at `type`. */
struct vmdk_marker_disk {
        le64 value;                             /* metadata: sectors that follow; grain: its first guest sector */
        le32 size;                              /* grain: packed bytes */
        le32 type;                              /* enum vmdk_marker */
        uint8_t pad[496];
};
static_assert(sizeof(struct vmdk_marker_disk) == 512, "stream marker is one sector");

enum vmdk_marker { VMDK_MARKER_END, VMDK_MARKER_TABLE, VMDK_MARKER_DIRECTORY, VMDK_MARKER_FOOTER };

/* ---- the descriptor ---- */

enum vmdk_type {
        VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO, VMDK_VMFS, VMDK_VMFS_SPARSE, VMDK_VMFS_RDM, VMDK_VMFS_RAW, VMDK_SE_SPARSE,
        VMDK_VMFS_RDMP, VMDK_VSAN_SPARSE,
};
enum vmdk_access { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS };

struct vmdk_key {
        char *name, *value;                     /* the value in UTF-8, without quotes */
        size_t value_at, value_bytes;           /* where it stands in the descriptor */
};

struct vmdk_line {
        enum vmdk_access access;
        enum vmdk_type type;
        uint64_t sectors;
        uint64_t offset;                        /* sectors into the file; flat only */
        char *name;                             /* in UTF-8 where the encoding is known; NULL: none */
        char *raw_name;                         /* as stored, when that differs; NULL */
};

struct vmdk_descriptor {
        char *text;                             /* up to the first NUL */
        size_t bytes;
        struct vmdk_key *keys;
        size_t key_count;
        struct vmdk_line *lines;
        size_t line_count;
        uint32_t cid, parent_cid;
};

/* Takes over text (malloc'ed, bytes + 1 long). */
int vmdk_descriptor_parse(struct vmdk_descriptor *, char *text, size_t bytes, struct vd_error *);
void vmdk_descriptor_free(struct vmdk_descriptor *);
/* NULL when it is not there; names are compared without case. */
const struct vmdk_key *vmdk_descriptor_key(const struct vmdk_descriptor *, const char *name);
const char *vmdk_descriptor_value(const struct vmdk_descriptor *, const char *name);
/* Does this look like a descriptor? */
enum vd_match vmdk_descriptor_probe(const uint8_t *head, size_t bytes);
const char *vmdk_type_name(enum vmdk_type);
const char *vmdk_access_name(enum vmdk_access);
/* Names of candidates for the parent, from parentFileNameHint. */
int vmdk_descriptor_parents(struct vd_image *, const struct vmdk_descriptor *, struct vd_error *);

/* ---- an open image ---- */

enum vmdk_layout { VMDK_HOSTED, VMDK_COWD, VMDK_SE };

/* A run of grains that place() gave out and publish() has not seen yet. */
struct vmdk_pending {
        uint64_t start, length;                 /* in the extent */
        uint64_t position;                      /* in the file */
};

struct vmdk_sparse {
        enum vmdk_layout layout;
        struct vd_file *file;                   /* borrowed from the extent */
        uint64_t capacity;                      /* guest bytes */
        uint64_t grain;                         /* bytes */
        uint64_t overhead;                      /* bytes: grains begin here */
        uint32_t version, flags;                /* VMDK_HOSTED */
        uint64_t descriptor, descriptor_room;   /* bytes; VMDK_HOSTED; 0: none */
        uint64_t directory, redundant;          /* bytes; redundant 0: none */
        uint64_t footer;                        /* bytes; 0: none */
        bool unclean;
        uint64_t free_sector;                   /* VMDK_COWD */
        uint64_t tables, table_count;           /* VMDK_SE: where tables lie, and how many there are */
        uint64_t grains, grain_count;           /* VMDK_SE: where grains lie, and how many there are */

        struct vd_twolevel map, copy;           /* copy: through the redundant directory */
        uint32_t last_unit;                     /* what the packed grain over the end unpacks to; 0: not known yet */

        /* Writing. */
        bool writable;
        uint64_t next;                          /* first free byte, a multiple of the grain */
        struct vmdk_pending *pending;
        size_t pending_count, pending_room;
        bool dropped;                           /* some grains were */
};

struct vmdk_extent {
        uint64_t start, length;                 /* guest bytes */
        enum vmdk_type type;
        enum vmdk_access access;
        const char *name;                       /* as in the descriptor; NULL: none */
        struct vd_file *file;                   /* NULL: zeros, or not opened */
        uint64_t position;                      /* flat: of its first byte */
        struct vmdk_sparse *sparse;
        bool touched;                           /* in place: written to, and its header says so */
};

struct vmdk_stream;
struct vmdk_new;

struct vmdk {
        struct vmdk_descriptor descriptor;
        uint64_t descriptor_position;           /* of its text in image->file */
        bool has_descriptor, embedded;
        struct vmdk_extent *extents;
        size_t extent_count;
        char **names;                           /* new: of the extents, as many */
        unsigned warm;                          /* sparse extents that have caches, about */
        const char *refused;                    /* why the extents are not opened; NULL: they are */

        bool marked;                            /* in place: the first write was announced */
        struct vmdk_stream *stream;             /* being written */
        struct vmdk_new *fresh;                 /* being created */
};

extern const struct vd_format vd_format_vmdk;

void vmdk_close(struct vd_image *);
/* The extent that holds a guest offset of the disk. */
struct vmdk_extent *vmdk_extent_at(const struct vmdk *, uint64_t offset);

/* vmdk_sparse.c */
int vmdk_sparse_open(struct vmdk_sparse **, struct vd_file *, enum vmdk_layout, bool writable, struct vd_error *);
int vmdk_sparse_start(struct vmdk_sparse *, bool writable, bool unwritten, struct vd_error *);
void vmdk_sparse_free(struct vmdk_sparse *);
/* Before the tables of an extent are looked at; those of others may lose their caches. */
int vmdk_sparse_warm(struct vmdk *, struct vmdk_sparse *, struct vd_error *);

/* vmdk_packed.c */
int vmdk_packed_entry(struct vmdk_sparse *, uint64_t position, struct vd_extent *, struct vd_error *);
int vmdk_find_footer(struct vd_file *, const struct vmdk_sparse_disk *header, struct vmdk_sparse_disk *footer,
                     uint64_t *position, struct vd_error *);

/* vmdk_write.c */
int vmdk_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int vmdk_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int vmdk_flush(struct vd_image *, struct vd_error *);
int vmdk_finish(struct vd_image *, struct vd_error *);

/* vmdk_stream.c: writing stream-optimized extents */
int vmdk_stream_start(struct vmdk_stream **, const struct vmdk_sparse_disk *, uint64_t size, struct vd_error *);
int vmdk_stream_place(struct vmdk_stream *, struct vd_file *, const struct vd_request *, struct vd_place *,
                      struct vd_error *);
int vmdk_stream_finish(struct vmdk_stream *, struct vd_file *, struct vd_error *);
void vmdk_stream_free(struct vmdk_stream *);

/* vmdk_create.c */
struct vmdk_params {
        const char *subformat, *adapter, *hwversion, *toolsversion;
        bool zeroed_grain, compat6;
        uint64_t compression_level;
};
extern const struct vd_opt vmdk_options[];
extern const char *const vmdk_subformats[];
int vmdk_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int vmdk_create_finish(struct vd_image *, struct vd_error *);
void vmdk_new_free(struct vmdk_new *);
/* Content ids out of 16 random bytes: the 32-bit one, and the long one of 32 digits that ends in it. */
uint32_t vmdk_cid(const uint8_t id[16]);
void vmdk_long_cid(const uint8_t id[16], uint32_t cid, char text[33]);

/* vmdk_info.c, vmdk_check.c */
void vmdk_describe(struct vd_image *, struct vd_report *);
/* Findings of this code do not forbid writing: the tables that are read are whole. */
#define VMDK_COPY_FINDING "vmdk-redundant-table"
int vmdk_walk(struct vd_image *, struct vd_check *, struct vd_error *);
/* Where the last thing in use of a sparse extent ends. */
int vmdk_used_end(struct vd_image *, const struct vmdk_extent *, uint64_t *end, struct vd_error *);
int vmdk_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
