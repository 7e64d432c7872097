// SPDX-License-Identifier: MIT
/* vdi.h: what the files of the VDI driver share: structures on disk and the open image. */
#ifndef VD_FORMATS_VDI_H
#define VD_FORMATS_VDI_H

#include <assert.h>
#include <stddef.h>

#include "core/image.h"
#include "formats/shared/blocktable.h"
#include "formats/shared/guid.h"
#include "util/endian.h"

/* On disk: everything is little-endian, identifiers are in Microsoft order (VirtualBox, "VDICore.h"). */

enum { VDI_COMMENT_BYTES = 256 };

struct vdi_preheader_disk {
        char text[64];                  /* says what the file is, in a line; differs between producers */
        le32 signature;                 /* VDI_SIGNATURE */
        le32 version;                   /* major in the upper half, minor in the lower */
};
static_assert(sizeof(struct vdi_preheader_disk) == 0x48, "VDI pre-header");

struct vdi_header_disk {                /* version 1.1 */
        struct vdi_preheader_disk pre;
        le32 header_bytes;              /* from here on: 0x180, or 0x190 with the geometry at the end */
        le32 type;                      /* enum vdi_type */
        le32 flags;                     /* bit 0: new blocks are filled with zeros */
        char comment[VDI_COMMENT_BYTES];        /* UTF-8, ends with a NUL */
        le32 map_offset, data_offset;   /* of the block map and of slot 0 */
        le32 old_cylinders, old_heads, old_sectors;
        le32 sector_bytes;              /* 512 */
        le32 unused;
        le64 disk_bytes;                /* guest bytes */
        le32 block_bytes;               /* 1 MiB; a power of two */
        le32 extra_bytes;               /* in front of each block's data; 0 in practice */
        le32 blocks;                    /* entries of the map */
        le32 allocated;                 /* slots in the file */
        uint8_t id[16];                 /* children name it */
        uint8_t modify_id[16];          /* new whenever the disk is written to */
        uint8_t parent_id[16];          /* zeros: no parent */
        uint8_t parent_modify_id[16];
        le32 cylinders, heads, sectors, chs_sector_bytes;
        uint8_t rest[0x28];
};
static_assert(sizeof(struct vdi_header_disk) == 512, "VDI header is one sector");
static_assert(offsetof(struct vdi_header_disk, map_offset) == 0x154, "VDI map offset");
static_assert(offsetof(struct vdi_header_disk, disk_bytes) == 0x170, "VDI disk size");
static_assert(offsetof(struct vdi_header_disk, id) == 0x188, "VDI identifiers");
static_assert(offsetof(struct vdi_header_disk, cylinders) == 0x1c8, "VDI geometry");

struct vdi_header0_disk {               /* before version 1; the map follows at once, and the blocks follow the map */
        struct vdi_preheader_disk pre;
        le32 type, flags;
        char comment[VDI_COMMENT_BYTES];
        le32 cylinders, heads, sectors, sector_bytes;
        le64 disk_bytes;
        le32 block_bytes, blocks, allocated;
        uint8_t id[16], modify_id[16], parent_id[16];
};
static_assert(sizeof(struct vdi_header0_disk) == 0x1a4, "VDI header of version 0");

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION 0x00010001u
#define VDI_FREE 0xffffffffu            /* never written: the parent's, or zeros */
#define VDI_ZERO 0xfffffffeu            /* zeros, whatever the parent has */

enum vdi_type { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_UNDO = 3, VDI_DIFFERENCING = 4 };

enum {
        VDI_SECTOR = 512,
        VDI_HEADER_LEAST = 0x180,       /* values of header_bytes */
        VDI_HEADER_WHOLE = 0x190,
        VDI_ZERO_EXPAND = 1,            /* in flags */
        VDI_BLOCK_DEFAULT = 1 << 20,
        VDI_BLOCK_MAX = 256 << 20,
};

/* In memory. */
struct vdi {
        struct vdi_header_disk header;  /* version 1: as in the file, for writing it back */
        uint32_t version, flags;
        enum vdi_type type;
        char text[65], comment[VDI_COMMENT_BYTES + 1];
        uint64_t header_end, map_offset, data_offset;
        uint64_t disk_bytes;            /* as stored; the last sector of image->size may be cut */
        uint64_t block_bytes, extra_bytes, slot_bytes;
        uint64_t blocks, allocated;
        uint32_t cylinders, heads, sectors;
        uint8_t id[16], modify_id[16], parent_id[16], parent_modify_id[16];
        struct vd_blocktable table;

        /* Writing. */
        bool given_id;                  /* new: the id is the user's */
        bool renewed;                   /* in place: modify_id is this session's */
        bool dropped;                   /* in place: blocks lost their slots */
};

extern const struct vd_format vd_format_vdi;

static inline bool vdi_is_differencing(const struct vdi *vdi) { return vdi->type == VDI_DIFFERENCING; }

/* vdi.c */
/* Starts the map's cache when the numbers are set. */
int vdi_open_table(struct vd_image *, struct vd_error *);
void vdi_close(struct vd_image *);

/* vdi_parent.c */
int vdi_find_parent(struct vd_image *, struct vd_error *);
int vdi_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *);

/* vdi_check.c */
int vdi_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int vdi_check(struct vd_image *, struct vd_check *, struct vd_error *);

/* vdi_write.c */
struct vdi_params {
        const char *subformat, *comment, *uuid;
        uint64_t block_bytes;
        bool fixed;                     /* qemu-img's "static" */
};
extern const struct vd_opt vdi_create_opts[];
extern const char *const vdi_subformats[];
int vdi_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int vdi_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int vdi_settle(struct vd_image *, struct vd_error *);
int vdi_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int vdi_flush(struct vd_image *, struct vd_error *);
int vdi_finish(struct vd_image *, struct vd_error *);

#endif
