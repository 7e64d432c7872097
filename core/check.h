// SPDX-License-Identifier: MIT
/* check.h: one checker for every format. */
#ifndef VD_CORE_CHECK_H
#define VD_CORE_CHECK_H

#include "image.h"

struct vd_check_options {
        bool data;                      /* also read and unpack every unit */
        void (*progress)(void *context, uint64_t done, uint64_t total);
        void *context;
        const volatile int *stop;       /* non-zero: give up with VD_ESTOPPED */
};

struct vd_check {
        struct vd_findings findings;
        struct vd_spacemap *space;      /* filled by walk() through vd_check_region() */
        const struct vd_check_options *options;         /* for check(): checksums of guest data only with ->data */
};

/* For walk(): takes the map with this granule, over the first `limit` bytes.  Called once, first. */
int vd_check_begin(struct vd_check *, uint64_t granule, uint64_t limit, struct vd_error *);
/* For walk(): this region is in use. */
int vd_check_region(struct vd_check *, const struct vd_region *, struct vd_error *);

/* walk, space map, the driver's check, and the data if asked.  0 when the check was completed, whatever it found. */
int vd_check_image(struct vd_image *, const struct vd_check_options *, struct vd_check *, struct vd_error *);
void vd_check_free(struct vd_check *);

/* Do the checksums that the images of this chain carry of themselves fit?  VD_ECORRUPT names the first that does not;
 * images without any are fine.  stop as above, may be NULL. */
int vd_image_verify(struct vd_image *, const volatile int *stop, struct vd_error *);

#endif
