// SPDX-License-Identifier: MIT
/* copy.h: the copy engine: one disk into another, holes as holes, packed units packed.
 *
 *      plan    (ordered)   map the source, cut chunks aligned to the units of both sides
 *      fetch   (parallel)  read or unpack, look for zeros, pack
 *      place   (ordered)   the target's driver says where: the layout is deterministic
 *      store   (parallel)  write
 *      publish (ordered)   the target's tables, progress, errors
 */
#ifndef VD_CORE_COPY_H
#define VD_CORE_COPY_H

#include "digest.h"
#include "image.h"

struct vd_layout;

struct vd_copy_options {
        unsigned threads;               /* 0: as many as processors; 1: everything inline */
        uint64_t sparse_bytes;          /* zero runs of at least this many bytes become holes; 0: dense output */
        bool keep_zeros;                /* zeros among the source's data stay data: only its holes are holes */
        bool compress;                  /* pack units that are not packed already, where the target can */
        bool expand;                    /* store packed units of the source unpacked */
        bool target_is_zero;            /* an old target is known to read as zeros */
        uint64_t rate;                  /* bytes per second at most; 0: no limit */
        struct vd_layout *layout;       /* NULL; else nothing is written, only noted there: see layout.h */
        struct vd_digest *digest;       /* takes in all of the source; NULL: none */
        const struct vd_image *skip;    /* what the source gets from this image (a parent of it) is left out */
        /* Salvage: called (never twice at once) for each guest range that cannot be read, with the reason; zeros are
         * written there.  NULL: the first such range is an error. */
        void (*unreadable)(void *context, uint64_t start, uint64_t length, const struct vd_error *);
        void (*progress)(void *context, uint64_t done, uint64_t total);         /* never two calls at once */
        void *context;
        const volatile int *stop;       /* non-zero: give up with VD_ESTOPPED */
};

struct vd_copy_stats {                  /* summed up over the targets */
        uint64_t data_bytes;            /* guest bytes written as plain data */
        uint64_t packed_units, verbatim_units;  /* packed by us; copied without unpacking */
        uint64_t zero_bytes;            /* guest bytes that became holes */
        uint64_t memory_bytes;          /* slots x chunk */
        unsigned threads;
};

/* Copies all of source into each target, at least as large: new ones, whose rest reads as zeros, or a single old one open
 * for writing, whose rest stays as it is.  The source is read and unpacked once.  Without targets it is only read (for
 * its digest).  Does not finish the targets.  stats may be NULL. */
int vd_copy(struct vd_image *source, struct vd_image *const *targets, size_t target_count,
            const struct vd_copy_options *, struct vd_copy_stats *, struct vd_error *);

#endif
