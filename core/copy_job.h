// SPDX-License-Identifier: MIT
/* copy_job.h: what the stages of the copy engine share; private to core/copy*.c. */
#ifndef VD_CORE_COPY_JOB_H
#define VD_CORE_COPY_JOB_H

#include <pthread.h>

#include "copy.h"
#include "layout.h"
#include "pace.h"
#include "write.h"

/* A run inside a chunk that is written in one way. */
struct piece {
        uint64_t start, length;         /* guest range */
        enum vd_kind kind;              /* VD_DATA, VD_ZERO or VD_PACKED, as in a request */
        const char *bytes;              /* in the chunk's buffers; NULL for VD_ZERO */
        uint32_t packed_bytes;          /* VD_PACKED */
};

/* What becomes of a chunk in one target.  Written by the stage that has the chunk. */
struct portion {
        struct piece *pieces;           /* fetch */
        size_t piece_count, piece_room;
        uint32_t *moved;                /* fetch: per extent, the length of a unit that stays packed; 0: none */
        size_t moved_room;
        char *packed;                   /* packed_bytes of the target, when it takes packed units */
        unsigned verbatim_units;
        uint64_t digest;                /* of the pieces, when identifiers must come from content */

        struct vd_place *places;        /* place: in the order of the pieces */
        const char **place_bytes;       /* what goes there; NULL: zeros */
        size_t place_count, place_room;
};

/* One item of the pipeline.  At any time it belongs to the one stage that works on it. */
struct chunk {
        uint64_t start, length;         /* guest range; multiples of the job's unit, except at the disk's end */
        struct vd_extent *extents;      /* plan: what the source has there */
        size_t extent_count, extent_room;
        bool all_zero;                  /* plan: one long hole, of any length, without buffers */
        uint64_t data_ahead;            /* plan: guest offset up to which the source is known to be plain data */
        char *buffer;                   /* chunk_bytes (made by plan when first needed) */
        struct portion *portions;       /* one per target */
        uint8_t (*leaves)[VD_DIGEST_BYTES];     /* fetch: of the source's bytes, when a digest is wanted */
};

struct hole { uint64_t position, length; };

struct copy_target {
        struct vd_image *image;
        struct vd_writer *writer;

        /* Fixed before the run. */
        uint64_t granule;               /* zero runs shorter than this are data */
        uint64_t packed_stride;         /* of packed units in a chunk's buffer: what the longest one may need */
        uint64_t packed_bytes;          /* of that buffer */
        bool write_zeros;               /* does not read as zeros by itself: say so where the source does */
        bool packs;                     /* -c: what is not packed gets packed */
        bool keeps_packed;              /* takes packed units, and packed units are to stay so */

        /* The place stage's. */
        uint64_t run_start, run_end, reserved_end;      /* file positions written one after the other */
        struct hole *holes;             /* zero runs inside reserved space, to be punched at the end */
        size_t hole_count, hole_room;
        bool last_was_data;             /* the previous chunk had no zero run */
};

struct copy_job {
        struct vd_image *source;
        const struct vd_copy_options *options;
        struct copy_target *targets;
        size_t target_count;
        struct vd_codec_context **codecs;       /* one per worker */

        /* Fixed before the run. */
        uint64_t size;                  /* where the copy ends, in the largest target */
        struct vd_image *old;           /* past the source's end the disk stays as this target has it; NULL: zeros */
        uint64_t unit;                  /* chunks are aligned to this: what the targets write or pack at once */
        uint64_t chunk_bytes;           /* multiple of unit */
        uint64_t buffer_bytes;          /* of a chunk, packed forms included */
        bool dense;                     /* holes are written as zeros too */
        bool write_zeros;               /* some target wants to hear of zeros */
        bool is_remote;                 /* source or a target: few and large requests are better */
        bool may_be_packed;             /* the source may have packed units */
        bool lacks_parent;              /* unallocated in the source does not mean zeros */
        bool needs_digest;
        bool reads;                     /* chunks have buffers: all but some layouts */
        bool finds_zeros;               /* zeros among the data become holes */
        unsigned skip_depth;            /* parents of the source from this depth on are left out; UINT_MAX: none */

        /* Ordered stages only. */
        uint64_t cursor;                /* plan: guest offset up to which everything is cut */
        struct vd_extent ahead;         /* plan: the extent at the cursor, when has_ahead */
        bool has_ahead;
        struct vd_pace pace;            /* publish */
        struct vd_copy_stats stats;

        pthread_mutex_t salvage_lock;   /* around options->unreadable */
};

/* The stages, as in struct vd_stage. */
int vd_copy_plan(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_fetch(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_place(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_store(void *job, void *chunk, unsigned worker, struct vd_error *);
int vd_copy_publish(void *job, void *chunk, unsigned worker, struct vd_error *);

/* From source, options and the targets to everything that is fixed before the run. */
int vd_copy_set_up(struct copy_job *, struct vd_image *const *targets, size_t target_count, struct vd_error *);
void vd_copy_tear_down(struct copy_job *);
struct chunk *vd_copy_new_chunk(const struct copy_job *);       /* NULL when memory is short */
void vd_copy_free_chunk(const struct copy_job *, struct chunk *);

/* The source's extent at offset, zeros past its end; long ones are asked for once, however often they are cut. */
int vd_copy_look_ahead(struct copy_job *, uint64_t offset, struct vd_extent *, struct vd_error *);

/* The bytes of an extent, as vd_extent_read(); when salvaging, zeros for those that cannot be read. */
int vd_copy_read(struct copy_job *, const struct vd_extent *, char *to, struct vd_codec_context *, struct vd_error *);
unsigned vd_copy_threads(const struct vd_copy_options *);

/* array: address of a pointer to items.  Makes room for one item more.  -ENOMEM or 0. */
int vd_copy_grow(void *array, size_t count, size_t *room, size_t item_bytes, struct vd_error *);

#endif
