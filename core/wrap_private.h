// SPDX-License-Identifier: MIT
/* wrap_private.h: what stands in wrap.c's table: one record per wrapper; private to core/wrap*.c. */
#ifndef VD_CORE_WRAP_PRIVATE_H
#define VD_CORE_WRAP_PRIVATE_H

#include <stdio.h>

#include "wrap.h"

/* What a step of unpacking takes and gives. */
struct vd_unwrap_step {
        const uint8_t *in;
        size_t in_left;
        uint8_t *out;
        size_t out_left;
        bool is_last;                   /* nothing follows what is in `in` */
};

/* A block that can be unpacked without the others. */
struct vd_wrap_block {
        uint64_t start;                 /* of what is unpacked */
        uint64_t position;              /* of the packed bytes */
        uint64_t packed : 56;
        uint64_t tag : 8;               /* the wrapper's; so is check */
        uint32_t check;
};

enum {
        VD_WRAP_BLOCKS_MOST = 1024 * 1024,      /* 32 MiB of index */
        VD_WRAP_BLOCK_MOST = 24 * 1024 * 1024,  /* of a block read by random access: what xz -T makes by itself */
        VD_WRAP_MEMORY_MOST = 48 * 1024 * 1024, /* unpacked blocks that are kept */
        VD_WRAP_CODEC_MOST = 256 * 1024 * 1024, /* what a stream may make its decoder need */
};

/* An index: blocks follow each other without gaps in what is unpacked; one more at the end for where it ends. */
struct vd_wrap_index {
        struct vd_wrap_block *blocks;
        size_t count, room;             /* without the one at the end */
        uint64_t longest;               /* unpacked length of the longest block */
};

/* Adds a block that begins where the one before ends (its start is set here).  0, -ENOMEM; *fits turns false when there
 * are too many or it is too long. */
int vd_wrap_index_add(struct vd_wrap_index *, struct vd_wrap_block, uint64_t length, bool *fits, struct vd_error *);

/* What is written before, after and between packed blocks. */
struct vd_wrap_out {
        struct vd_file *file;
        uint64_t position;
};
int vd_wrap_put(struct vd_wrap_out *, const void *bytes, size_t length, struct vd_error *);

struct vd_wrapper {
        const char *name;
        const char *const *extensions;  /* NULL-terminated */
        bool (*matches)(const uint8_t *head, size_t bytes);

        /* As a stream.  unpack() consumes and produces; *done: all has been given, and nothing is left in `in`. */
        void *(*start)(void);           /* NULL when memory is short */
        int (*unpack)(void *state, struct vd_unwrap_step *, bool *done, struct vd_error *);
        void (*end)(void *state);

        /* By random access; NULL where that does not exist.  index(): count stays 0 when this file has none. */
        int (*index)(struct vd_file *, struct vd_wrap_index *, struct vd_error *);
        int (*unpack_block)(struct vd_file *, const struct vd_wrap_block *, void *to, size_t length, struct vd_error *);

        /* Writing; NULL where vdtool does not. */
        size_t pack_bytes;              /* of a block */
        size_t (*pack_room)(size_t bytes);      /* what a packed block may need */
        /* One block, on any thread: *packed bytes of room; check: whatever add_block() needs of it. */
        int (*pack)(unsigned level, const void *bytes, size_t length, void *to, size_t room, size_t *packed,
                    uint64_t *check, struct vd_error *);
        /* In order. */
        int (*open)(struct vd_wrap_out *, void **state, struct vd_error *);
        int (*add_block)(void *state, struct vd_wrap_out *, size_t length, const void *packed, size_t packed_bytes,
                         uint64_t check, struct vd_error *);
        int (*close)(void *state, struct vd_wrap_out *, struct vd_error *);
        void (*free_state)(void *state);
};

extern const struct vd_wrapper vd_wrapper_gzip, vd_wrapper_bzip2, vd_wrapper_xz, vd_wrapper_zstd;

/* A file made of an index and its blocks.  Takes the index over. */
int vd_wrap_open_blocks(struct vd_file **, const struct vd_wrapper *, struct vd_file *base, struct vd_wrap_index *,
                        struct vd_error *);

/* The faults that all of them report in the same words. */
int vd_wrap_ends_early(const char *name, struct vd_error *);
int vd_wrap_broken(const char *name, const char *why, struct vd_error *);
int vd_wrap_trailing(const char *name, struct vd_error *);

#endif
