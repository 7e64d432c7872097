// SPDX-License-Identifier: MIT
/* append.h: writing into two-level images that hand out space at the end of the file and never take it back: QED, qcow.
 *
 * The counterpart of twolevel.h.  In place nothing that is used is moved, and tables point to something only after it
 * is in the file: data, sync, second-level tables, sync, first-level table, sync.  A cut leaves space that nobody uses.
 */
#ifndef VD_SHARED_APPEND_H
#define VD_SHARED_APPEND_H

#include "core/image.h"
#include "formats/shared/twolevel.h"

struct vd_append;

/* Guest bytes that have a place but no entry yet. */
struct vd_append_pending {
        uint64_t start, length, position;
        bool packed;
};

struct vd_append_type {
        /* Entries as they stand in the file.  entry: VD_DATA, VD_PACKED or, where the format has it, VD_ZERO. */
        void (*put_table)(const struct vd_append *, uint64_t position, void *raw);
        void (*put_entry)(const struct vd_append *, enum vd_kind, uint64_t position, uint32_t packed_bytes, void *raw);
        bool has_zero;                  /* an entry can say "zeros" */
};

/* Filled by the driver, freed with vd_append_close(). */
struct vd_append {
        const struct vd_append_type *type;
        struct vd_image *image;
        struct vd_twolevel *map;
        uint64_t next;                  /* first free byte of the file */
        uint64_t reach;                 /* highest position that an entry can express */

        /* Its own. */
        struct vd_append_pending *pending;      /* sorted, apart from each other */
        size_t pending_count, pending_room;
        bool verified;
        bool grown;                     /* something was allocated since the image was opened */
};

void vd_append_close(struct vd_append *);

/* The methods of struct vd_format, except that headers are the driver's. */
int vd_append_place(struct vd_append *, const struct vd_request *, struct vd_place *, struct vd_error *);
int vd_append_settle(struct vd_append *, struct vd_error *);
int vd_append_publish(struct vd_append *, const struct vd_place *, struct vd_error *);
int vd_append_flush(struct vd_append *, struct vd_error *);

#endif
