// SPDX-License-Identifier: MIT
/* convert.h: one run of convert: private to cmd/convert*.c. */
#ifndef VD_CMD_CONVERT_H
#define VD_CMD_CONVERT_H

#include "cmd/new_image.h"
#include "core/copy.h"

struct convert_args {
        struct vd_source source;
        struct vd_new_args target;
        struct vd_texts also;
        const char *parent, *snapshot, *progress, *cache, *source_cache;
        uint64_t offset, size, target_offset, target_size, sparse_size, threads, rate;
        bool compress, expand, dense, salvage, verify, checksum, no_verify, no_create, target_is_zero;
        bool quiet, verbose, ignored;
};

/* A new image to be made. */
struct convert_target {
        const char *path;
        char *also_path;                        /* owned, when path comes from --also */
        struct vd_new_image new;
};

/* One run: what is open, closed in one place. */
struct conversion {
        struct convert_args *args;
        struct vd_session *session;
        const char *target_path;
        struct vd_image **inputs;               /* as opened; owned by source once that is set */
        size_t input_count;
        struct vd_image *source;                /* the only input, or all of them joined */
        struct convert_target *targets;                 /* without -n: TARGET, then one for each --also */
        size_t target_count;
        uint64_t unreadable_bytes;              /* --salvage */
        char digest[2 * VD_DIGEST_BYTES + 1];   /* --verify, --checksum: of the source */
        struct vd_source existing_source;       /* -n */
        struct vd_image *existing;
};

/* VD_EUSAGE: the two options contradict each other. */
int vd_convert_conflict(struct vd_error *, const char *one, const char *other);

/* Reads what the command line says about TARGET and each --also. */
int vd_convert_init_targets(struct conversion *, struct vd_error *);

/* From c->source, which is open, into new images or into an existing one; finished and named. */
int vd_convert_to_new(struct conversion *, struct vd_copy_stats *, struct vd_error *);
int vd_convert_to_existing(struct conversion *, struct vd_copy_stats *, struct vd_error *);

/* The options of the copy; skip: a parent of the source that is left out, or NULL. */
struct vd_copy_options vd_convert_options(struct conversion *, const struct vd_image *skip);

#endif
