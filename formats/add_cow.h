// SPDX-License-Identifier: MIT
/* add_cow.h: private to formats/add_cow*.c. */
#ifndef VD_FORMATS_ADD_COW_H
#define VD_FORMATS_ADD_COW_H

#include <assert.h>
#include <stddef.h>

#include "core/check.h"
#include "core/image.h"
#include "formats/shared/bitmap.h"
#include "util/endian.h"

enum {
        ADD_COW_SECTOR = 512,
        ADD_COW_BITS_LEAST = 9, ADD_COW_BITS_MOST = 21,
        ADD_COW_BITS_NEW = 12,          /* the least that the last revision allows */
        ADD_COW_CLUSTER_DEFAULT = 65536,
        ADD_COW_ALL_ALLOCATED = 1,      /* of `compatible` */
        ADD_COW_NAME_MOST = 4096,
};

struct add_cow_header_disk {
        char magic[4];                  /* "ACOW" */
        le32 backing_offset, backing_length;    /* of a name without NUL; 0, 0: none */
        le32 image_offset, image_length;
        le32 cluster_bits;              /* 9 to 21; since the second revision at least 12 */
        le64 features;                  /* that readers must know; none is defined */
        le64 compatible;                /* bit 0: everything is allocated */
        le32 header_bytes;              /* a cluster, or 4096 when that is more */
        char backing_format[16], image_format[16];      /* NUL-padded, perhaps not terminated */
};
static_assert(sizeof(struct add_cow_header_disk) == 76, "add-cow header");

static inline uint64_t add_cow_header_bytes(uint32_t cluster_bits)
{
        return (UINT64_C(1) << cluster_bits) > 4096 ? UINT64_C(1) << cluster_bits : 4096;
}

struct add_cow {
        struct add_cow_header_disk header;
        uint64_t header_bytes, cluster, clusters;
        bool all_allocated;
        char *image_name, *backing_name;        /* backing: NULL when there is none */
        char image_format[17], backing_format[17];
        struct vd_file *image;          /* NULL: no references were to be opened */
        struct vd_bitmap bitmap;
};

struct add_cow_params {
        const char *image_file, *image_format;
        uint64_t cluster_bytes;
};

void add_cow_close(struct vd_image *);
/* img->size is known. */
int add_cow_open_bitmap(struct vd_image *, struct vd_error *);

/* add_cow_write.c */
extern const struct vd_opt add_cow_create_opts[];
int add_cow_create(struct vd_image *, const struct vd_create *, struct vd_error *);
int add_cow_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int add_cow_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int add_cow_flush(struct vd_image *, struct vd_error *);
int add_cow_finish(struct vd_image *, struct vd_error *);

/* add_cow_check.c */
int add_cow_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int add_cow_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
