// SPDX-License-Identifier: MIT
/* copy_job.h: what the stages of the copy engine share; private to core/copy*.c. */
#ifndef VD_CORE_COPY_JOB_H
#define VD_CORE_COPY_JOB_H

#include "copy.h"
#include "write.h"

/* A run inside a chunk that is written in one way. */
struct piece {
        uint64_t start, length;         /* guest range */
        enum vd_kind kind;              /* VD_DATA, VD_ZERO or VD_PACKED, as in a request */
        const char *bytes;              /* in the chunk's buffers; NULL for VD_ZERO */
        uint32_t packed_bytes;          /* VD_PACKED */
};

/* One item of the pipeline.  At any time it belongs to the one stage that works on it. */
struct chunk {
        uint64_t start, length;         /* guest range; multiples of the job's unit, except at the disk's end */
        struct vd_extent *extents;      /* plan: what the source has there */
        size_t extent_count, extent_room;
        bool all_zero;                  /* plan: one long hole, of any length, without buffers */

        struct piece *pieces;           /* fetch */
        size_t piece_count, piece_room;
        char *buffer;                   /* chunk_bytes (made by plan when first needed) */
        char *packed;                   /* the same, when the job packs */
        unsigned verbatim_units;        /* moved without packing */
        uint64_t digest;                /* of the chunk's data, when identifiers must come from content */

        struct vd_place *places;        /* place: in the order of the pieces */
        const char **place_bytes;       /* what goes there; NULL: zeros */
        size_t place_count, place_room;

        uint64_t data_ahead;            /* plan: guest offset up to which the source is known to be plain data */
};

struct copy_job {
        struct vd_image *source, *target;
        const struct vd_copy_options *options;
        struct vd_writer *writer;
        struct vd_codec_context **codecs;       /* one per worker */

        /* Fixed before the run. */
        uint64_t unit;                  /* chunks are aligned to this: what the target writes or packs at once */
        uint64_t chunk_bytes;           /* multiple of unit */
        uint64_t packed_stride;         /* of packed units in a chunk's buffer: what the longest one may need */
        uint64_t granule;               /* zero runs shorter than this are data */
        bool dense;                     /* holes are written as zeros too */
        bool write_zeros;               /* the target does not read as zeros by itself: say so where the source does */
        bool packs;                     /* -c: what is not packed gets packed */
        bool keeps_packed;              /* the target takes packed units, and packed units are to stay so */
        bool lacks_parent;              /* unallocated in the source does not mean zeros */
        bool needs_digest;
        unsigned skip_depth;            /* parents of the source from this depth on are left out; UINT_MAX: none */

        /* Ordered stages only. */
        uint64_t cursor;                /* plan: guest offset up to which everything is cut */
        struct vd_extent ahead;         /* plan: the extent at the cursor, when has_ahead */
        bool has_ahead;
        bool last_was_data;             /* place: the previous chunk had no zero run */
        uint64_t run_start, run_end, reserved_end;      /* place: file positions written one after the other */
        struct hole *holes;             /* place: zero runs inside reserved space, to be punched at the end */
        size_t hole_count, hole_room;
        struct vd_copy_stats stats;
};

struct hole { uint64_t position, length; };

/* The stages, as in struct vd_stage. */
int vd_copy_plan(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_fetch(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_place(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_store(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_publish(void *job, void *chunk, unsigned worker, struct vd_error *);

/* Makes room for one item more in an array that grows.  -ENOMEM or 0. */
int vd_copy_grow(void *array, size_t count, size_t *room, size_t item_bytes, struct vd_error *);

#endif
