// SPDX-License-Identifier: MIT
/* vhd.h: what the files of the VHD driver share: structures on disk, the open image, its writer. */
#ifndef VD_FORMATS_VHD_H
#define VD_FORMATS_VHD_H

#include <assert.h>
#include <stddef.h>

#include "core/image.h"
#include "formats/shared/blocktable.h"
#include "formats/shared/chs.h"
#include "formats/shared/guid.h"
#include "util/endian.h"

/* On disk: everything is big-endian, sectors have 512 bytes ("Virtual Hard Disk Image Format Specification" 1.0). */

struct vhd_footer_disk {                /* the last sector; of dynamic and differencing disks also the first */
        char cookie[8];                 /* "conectix" */
        be32 features;                  /* bit 0 temporary, bit 1 always set */
        be32 version;                   /* 1.0 as 0x00010000 */
        be64 data_offset;               /* of the dynamic header; fixed disks: all ones */
        be32 time_stamp;                /* of creation, seconds since 2000-01-01 */
        char creator[4];                /* "vpc ", "win ", "qemu", ... */
        be16 creator_major, creator_minor;
        char creator_os[4];             /* "Wi2k", "Mac " */
        be64 original_size;             /* at creation; informational */
        be64 current_size;              /* bytes the guest sees, except where the geometry rules: see vhd_size() */
        be16 cylinders;
        uint8_t heads, sectors_per_track;
        be32 type;                      /* enum vhd_type */
        be32 checksum;                  /* one's complement of the sum of all other bytes */
        uint8_t id[16];                 /* children name it as their parent */
        uint8_t saved_state;            /* 1: a virtual machine was suspended on this disk */
        uint8_t hidden;                 /* XenServer; reserved elsewhere, as all that follows */
        uint8_t reserved[426];
};
static_assert(sizeof(struct vhd_footer_disk) == 512, "VHD footer is one sector");
static_assert(offsetof(struct vhd_footer_disk, checksum) == 64, "VHD footer checksum");

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

enum {
        VHD_SECTOR = 512,
        VHD_OLD_FOOTER = 511,           /* Virtual PC before 2004 left the last byte out */
        VHD_LOCATORS = 8,
        VHD_NAME_BYTES = 512,
        VHD_TEXT_MAX = 64 * 1024,       /* longer locator texts are not looked at */
        VHD_PARTS = 64,                 /* of a split disk */
        VHD_BLOCK_MAX = 256 << 20,
        VHD_BLOCK_DEFAULT = 2 << 20,
};

#define VHD_EPOCH 946684800ll           /* 2000-01-01 in seconds since 1970 */
#define VHD_MAX_BYTES (0xff000000ull * 512)     /* 2040 GiB: the largest dynamic disk */
#define VHD_FREE 0xffffffffu            /* table entry: no block */

struct vhd_locator_disk {
        char platform[4];               /* "W2ru", "W2ku", "MacX", ...; zeros: not used */
        be32 space;                     /* sectors in the specification, bytes in practice: see locator_room() */
        be32 length;                    /* of the text, without a terminator */
        be32 reserved;
        be64 offset;                    /* of the text in the file */
};
static_assert(sizeof(struct vhd_locator_disk) == 24, "VHD parent locator");

struct vhd_header_disk {                /* of dynamic and differencing disks, at footer.data_offset */
        char cookie[8];                 /* "cxsparse" */
        be64 next_offset;               /* all ones */
        be64 table_offset;
        be32 version;                   /* 0x00010000 */
        be32 entries;                   /* of the table; may be more than the disk needs */
        be32 block_bytes;
        be32 checksum;                  /* as the footer's, over 1024 bytes */
        uint8_t parent_id[16];          /* the parent's footer.id; zeros (XenServer): the parent is a raw disk */
        be32 parent_time;               /* the parent file's modification time; Windows writes 0 */
        be32 reserved;
        uint8_t parent_name[VHD_NAME_BYTES];    /* UTF-16, big-endian, padded with NULs */
        struct vhd_locator_disk locators[VHD_LOCATORS];
        uint8_t reserved2[256];
};
static_assert(sizeof(struct vhd_header_disk) == 1024, "VHD dynamic header is two sectors");
static_assert(offsetof(struct vhd_header_disk, checksum) == 36, "VHD dynamic header checksum");
static_assert(offsetof(struct vhd_header_disk, locators) == 576, "VHD parent locators");

struct vhd_batmap_disk {                /* XenServer, in the first sector after the table */
        char cookie[8];                 /* "tdbatmap" */
        be64 offset;                    /* of the map: one bit a block, set when its sector bitmap is all ones */
        be32 sectors;                   /* of the map */
        be32 version;
        be32 checksum;                  /* of the map, as the footer's */
        uint8_t rest[484];              /* marker and key hash */
};
static_assert(sizeof(struct vhd_batmap_disk) == 512, "XenServer batmap header");

/* In memory. */

enum vhd_copy {                         /* state of one copy of the footer */
        VHD_COPY_NONE,                  /* not there and not expected: the front of a fixed disk */
        VHD_COPY_GOOD,
        VHD_COPY_BAD,                   /* its place holds something else, or it is damaged */
        VHD_COPY_DIFFERS,               /* good, but not the same as the one that is used */
};

struct vhd_locator {
        char platform[5];               /* printable */
        uint32_t space, length;
        uint64_t offset, room;          /* room: bytes of the file that are its own */
        char *text;                     /* UTF-8, or NULL: empty, opaque or outside the file */
};

struct vhd_region {                     /* a structure that blocks must not touch */
        uint64_t position, length;
        const char *what;
};

struct vhd {
        struct vhd_footer_disk footer;  /* the copy that is used */
        struct vhd_header_disk header;  /* dynamic and differencing */
        enum vhd_type type;
        const char *size_rule;          /* "current-size" or "geometry": what decided about image->size */
        enum vhd_copy front, back;
        char back_fault[128];           /* what is wrong with a bad copy */
        char front_fault[128];
        unsigned back_bytes;            /* 512, 511, or 0: there is none */
        uint64_t end;                   /* where the footer at the end begins, or would */
        size_t parts;                   /* files that the disk is split into; 1: whole */

        uint64_t header_offset;
        uint32_t block_bytes, bitmap_bytes;
        struct vd_blocktable table;
        struct vd_cache *bitmaps;       /* the sectors of sector bitmaps */
        struct vhd_region regions[VHD_LOCATORS + 6];
        size_t region_count, vital_regions;     /* the first so many: where a block there means a broken table */

        uint8_t parent_id[16];
        uint32_t parent_time;
        char *parent_name;              /* UTF-8 */
        struct vhd_locator locators[VHD_LOCATORS];

        struct vhd_batmap_disk batmap;
        uint64_t batmap_position;       /* of its header; 0: none */

        /* Writing. */
        uint64_t part_bytes;            /* new split disks: of every part but the last; 0: whole */
        struct vd_file *part_files[VHD_PARTS];  /* of them; borrowed from the output */
        bool grown;                     /* in place: the footer was moved, there may be spare room in front of it */
        bool batmap_cleared;
        bool given_id;                  /* new: the id is the user's */
};

static inline bool vhd_is_differencing(const struct vhd *vhd) { return vhd->type == VHD_DIFFERENCING; }

/* vhd.c */
uint32_t vhd_checksum(const void *bytes, size_t length, size_t field);
/* The geometry of a footer. */
struct vd_chs vhd_chs(const struct vhd_footer_disk *);
/* Starts table and bitmap caches when header, block_bytes and end are set. */
int vhd_open_tables(struct vd_image *, struct vd_error *);
void vhd_close(struct vd_image *);
/* Remembers a structure; false when it lies outside the file. */
bool vhd_add_region(struct vhd *, uint64_t position, uint64_t length, const char *what);

/* vhd_open.c */
int vhd_open(struct vd_image *, struct vd_error *);
/* "disk.v07" for "dir/disk.vhd"; false and "" when the name does not end in .vhd. */
bool vhd_part_name(const char *path, size_t part, char *name, size_t room);
/* A footer that can be used: 0, or fault says why not. */
int vhd_judge_footer(const struct vhd_footer_disk *, char fault[128]);
enum vd_match vhd_probe(const struct vd_probe *);

/* vhd_parent.c */
int vhd_read_parent(struct vd_image *, struct vd_error *);
int vhd_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *);
/* Names, ids and locators of a new image's parent go to vhd->header and to the file, from *position on, which moves. */
int vhd_write_parent(struct vd_image *, const struct vd_create *, uint64_t *position, struct vd_error *);

/* vhd_info.c */
void vhd_describe(struct vd_image *, struct vd_report *);

/* vhd_create.c */
struct vhd_params {
        const char *subformat, *chs, *uuid, *creator, *preallocation;
        uint64_t block_bytes, split_bytes;
        bool force_size;
};
extern const struct vd_opt vhd_create_opts[];
extern const char *const vhd_subformats[];
int vhd_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int vhd_finish_new(struct vd_image *, struct vd_error *);
int vhd_write_footer(struct vd_image *, uint64_t position, struct vd_error *);
/* New split disks: there are parts for the first `end` bytes.  Nothing for others. */
int vhd_add_parts(struct vd_image *, uint64_t end, struct vd_error *);
/* Where the data of new blocks begins: a multiple of this, as long as the disk then still fits the table's reach. */
uint64_t vhd_alignment(uint64_t blocks, uint32_t block_bytes, uint32_t bitmap_bytes);

/* vhd_write.c */
int vhd_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int vhd_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int vhd_flush(struct vd_image *, struct vd_error *);
int vhd_finish(struct vd_image *, struct vd_error *);

/* vhd_check.c */
int vhd_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int vhd_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
