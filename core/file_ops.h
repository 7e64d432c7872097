// SPDX-License-Identifier: MIT
/* file_ops.h: what a backend of vd_file supplies; private to core/file*.c. */
#ifndef VD_CORE_FILE_OPS_H
#define VD_CORE_FILE_OPS_H

#include <stdatomic.h>

#include "file.h"

struct vd_file_ops {
        uint64_t (*size)(const struct vd_file *);
        uint64_t (*disk_bytes)(const struct vd_file *);
        int (*read)(struct vd_file *, void *, size_t, uint64_t position, size_t *got, struct vd_error *);
        int (*write)(struct vd_file *, const void *, size_t, uint64_t position, struct vd_error *);
        int (*zero)(struct vd_file *, uint64_t position, uint64_t length, struct vd_error *);
        void (*reserve)(struct vd_file *, uint64_t position, uint64_t length);                  /* NULL: nothing */
        int (*allocate)(struct vd_file *, uint64_t position, uint64_t length, struct vd_error *);
        int (*truncate)(struct vd_file *, uint64_t size, struct vd_error *);
        int (*sync)(struct vd_file *, struct vd_error *);
        int (*next)(struct vd_file *, uint64_t position, bool *data, uint64_t *end, struct vd_error *);
        int (*finish)(struct vd_file *, struct vd_error *);
        int (*check_unchanged)(const struct vd_file *, struct vd_error *);
        bool (*is)(const struct vd_file *, const struct stat *);
        bool (*is_remote)(const struct vd_file *);      /* NULL: no */
        void (*close)(struct vd_file *);                /* frees the backend's part, and the struct */
};

struct vd_file {                        /* first member of every backend's struct */
        const struct vd_file_ops *ops;
        atomic_uint references;
        char *name;                     /* printable */
        bool writable;
};

/* Fills the common part; on failure (memory) returns -ENOMEM and the caller frees its struct. */
int vd_file_init(struct vd_file *, const struct vd_file_ops *, const char *name, bool writable, struct vd_error *);

#endif
