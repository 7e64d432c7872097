// SPDX-License-Identifier: MIT
/* digest.h: one number for all that a disk holds, the same for every format and layout.
 *
 * SHA-256 over the SHA-256 digests of the disk's leaves of 1 MiB (the last one may be shorter), in order.  A tree of two
 * levels, so that leaves are computed on every processor and holes cost next to nothing.
 */
#ifndef VD_CORE_DIGEST_H
#define VD_CORE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { VD_DIGEST_LEAF = 1024 * 1024, VD_DIGEST_BYTES = 32 };

struct vd_digest;

struct vd_digest *vd_digest_new(void);          /* NULL when memory is short */
void vd_digest_free(struct vd_digest *);

/* The digest of one leaf; any thread. */
void vd_digest_leaf(const void *bytes, size_t length, uint8_t leaf[VD_DIGEST_BYTES]);

/* Leaves in the order of the disk; one thread at a time.  Zeros: length bytes, a multiple of VD_DIGEST_LEAF but at the
 * end of the disk. */
void vd_digest_add(struct vd_digest *, const uint8_t leaf[VD_DIGEST_BYTES]);
void vd_digest_add_zeros(struct vd_digest *, uint64_t length);

/* Once, at the end: 64 hexadecimal digits and a NUL. */
void vd_digest_finish(struct vd_digest *, char text[2 * VD_DIGEST_BYTES + 1]);

#endif
