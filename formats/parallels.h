// SPDX-License-Identifier: MIT
/* parallels.h: what the files of the Parallels driver share: structures on disk, layers, the open disk. */
#ifndef VD_FORMATS_PARALLELS_H
#define VD_FORMATS_PARALLELS_H

#include <assert.h>
#include <stddef.h>

#include "core/image.h"
#include "formats/shared/blocktable.h"
#include "formats/shared/guid.h"
#include "util/endian.h"

/* On disk: everything is little-endian (QEMU, docs/interop/parallels.txt). */

struct prl_header_disk {
        char magic[16];                 /* PRL_MAGIC_OLD or PRL_MAGIC */
        le32 version;                   /* 2 */
        le32 heads, cylinders;          /* geometry; informational */
        le32 cluster_sectors;
        le32 entries;                   /* of the table (BAT) */
        le64 disk_sectors;              /* with the old magic only the lower half counts */
        le32 in_use;                    /* PRL_OPEN, PRL_CLOSED, or 0: closed by somebody who ignores the extension */
        le32 data_sector;               /* where clusters begin; 0 with the old magic: after the table */
        le32 flags;                     /* bit 0: nothing is allocated; nobody relies on it */
        le64 extension_sector;          /* 0: none */
};
static_assert(sizeof(struct prl_header_disk) == 64, "Parallels header");
static_assert(offsetof(struct prl_header_disk, in_use) == 44, "Parallels in-use mark");

struct prl_extension_disk {             /* at the beginning of the extension's cluster */
        le64 magic;                     /* PRL_EXTENSION */
        uint8_t md5[16];                /* of what follows in the cluster */
};
static_assert(sizeof(struct prl_extension_disk) == 24, "Parallels format extension");

struct prl_feature_disk {               /* then one after the other, aligned to 8 bytes; magic 0 ends them */
        le64 magic, flags;
        le32 data_bytes, unused;
};
static_assert(sizeof(struct prl_feature_disk) == 24, "Parallels extension feature");

struct prl_bitmap_disk {                /* data of feature PRL_BITMAP */
        le64 sectors;                   /* of the disk that it covers */
        uint8_t id[16];
        le32 granule_sectors;
        le32 entries;                   /* of the table that follows: le64 each, 0: clear, 1: set, else a sector */
};
static_assert(sizeof(struct prl_bitmap_disk) == 32, "Parallels dirty bitmap");

#define PRL_MAGIC_OLD "WithoutFreeSpace"        /* table entries count sectors */
#define PRL_MAGIC "WithouFreSpacExt"            /* table entries count clusters */
#define PRL_TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"        /* current state, when the descriptor names none */
#define PRL_OPEN 0x746f6e59u
#define PRL_CLOSED 0x312e3276u
#define PRL_EXTENSION 0xab234cef23dcea87u
#define PRL_BITMAP 0x20385fae252cb34au

enum {
        PRL_SECTOR = 512,
        PRL_VERSION = 2,
        PRL_EMPTY = 1,                  /* header flag */
        PRL_NECESSARY = 1,              /* feature flags: who does not know it may not use the image */
        PRL_TRANSIT = 2,                /* kept by who does not know it */
        PRL_CLUSTER_DEFAULT = 1 << 20,
        PRL_CLUSTER_MOST = 256 << 20,
        PRL_FILES_MOST = 1024,          /* of a bundle */
        PRL_EXTENSION_MOST = 64 << 20,  /* bytes of the extension's cluster */
};

/* In memory. */

/* One file: an expanding image, or plain bytes at the bottom of a chain. */
struct prl_layer {
        struct vd_image *image;         /* that it belongs to */
        struct vd_file *file;           /* ours */
        bool plain;
        uint64_t disk_bytes;            /* guest bytes that it can hold */
        uint64_t cluster_bytes;

        struct prl_header_disk header;
        bool is_old;
        bool was_open;                  /* its last writer did not close it */
        uint64_t table_end, data_offset, extension;     /* extension: position, 0: none */
        struct vd_blocktable table;

        bool writable;
        bool started;                   /* in place: the header says that somebody writes */
        bool verified;
};

/* A piece of the disk, and what it is stored in: the current layer first, what it was made of after it. */
struct prl_storage {
        uint64_t start, end;            /* guest bytes */
        struct prl_layer *layers;
        size_t count;
};

struct prl_bundle;                      /* the descriptor: parallels_bundle.c */

struct prl {
        struct prl_bundle *bundle;      /* NULL: a single image */
        struct prl_storage *storages;   /* sorted, without gaps; NULL: not opened (info of a bundle) */
        size_t count;
        bool is_new_bundle;
};

/* parallels_layer.c */
bool prl_is_image(const void *head, size_t length);
/* Takes a reference to the file; after a failure prl_layer_close() is still due. */
int prl_layer_open(struct prl_layer *, struct vd_image *, struct vd_file *, bool writable, struct vd_error *);
int prl_layer_open_plain(struct prl_layer *, struct vd_image *, struct vd_file *, struct vd_error *);
/* Starts the table's cache when the numbers are set. */
int prl_layer_open_table(struct prl_layer *, struct vd_error *);
void prl_layer_close(struct prl_layer *);
/* offset is the layer's own. */
int prl_layer_map(struct prl_layer *, uint64_t offset, uint64_t max, struct vd_extent *, struct vd_error *);
void prl_layer_describe(const struct prl_layer *, struct vd_report *);

/* parallels_create.c */
struct prl_params {
        const char *subformat;
        uint64_t cluster_bytes, split_bytes;
};
extern const struct vd_opt prl_create_opts[];
extern const char *const prl_subformats[];
int prl_create(struct vd_image *, const struct vd_create *, struct vd_error *);
/* The descriptor of a new bundle, written last. */
int prl_finish_bundle(struct vd_image *, struct vd_error *);

/* parallels_write.c: in one layer, offsets are its own. */
int prl_layer_place(struct prl_layer *, const struct vd_request *, bool layered, struct vd_place *, struct vd_error *);
int prl_layer_settle(struct prl_layer *, struct vd_error *);
int prl_layer_publish(struct prl_layer *, uint64_t offset, const struct vd_place *, struct vd_error *);
int prl_layer_flush(struct prl_layer *, struct vd_error *);
int prl_layer_finish(struct prl_layer *, struct vd_error *);

/* parallels_check.c */
int prl_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int prl_check(struct vd_image *, struct vd_check *, struct vd_error *);

/* parallels_extension.c */
struct prl_bitmap {
        uint8_t id[16];
        uint64_t sectors, granule_bytes, entries, table;        /* table: position of its entries in the file */
};
/* What the extension holds: bitmap(), when given, is called for each dirty bitmap.  VD_ECORRUPT when it cannot be
 * right, VD_EUNSUPPORTED when it has a feature that must be known and is not. */
int prl_extension_read(const struct prl_layer *,
                       int (*bitmap)(void *context, const struct prl_bitmap *, struct vd_error *), void *context,
                       struct vd_error *);
/* 0 when the checksum is right. */
int prl_extension_verify(const struct prl_layer *, struct vd_error *);

/* parallels_bundle.c */
bool prl_is_bundle(const void *head, size_t length);
int prl_bundle_open(struct vd_image *, struct vd_error *);
void prl_bundle_free(struct prl_bundle *);
void prl_bundle_describe(const struct prl_bundle *, struct vd_report *);
int prl_bundle_snapshot(struct vd_image *, unsigned i, struct vd_snapshot *, struct vd_error *);
int prl_bundle_select(struct vd_image *, const char *id, struct vd_error *);

/* parallels.c */
void prl_close(struct vd_image *);
void prl_close_storages(struct prl *);

#endif
