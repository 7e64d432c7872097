// SPDX-License-Identifier: MIT
/* nbd_link.h: requests to an NBD server; private to core/file_nbd.c.
 *
 * Any number of threads may have requests in flight.  They share one connection, or several where the server says that
 * these see each other's writes.  No thread serves a connection: one of those that wait for an answer does.
 */
#ifndef VD_CORE_NBD_LINK_H
#define VD_CORE_NBD_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/error.h"

struct vd_nbd;

struct vd_nbd_facts {                   /* what the server says of the export */
        uint64_t size;
        uint64_t min_block;             /* requests are aligned to this, a power of two; 1: any byte */
        uint64_t max_block;             /* bytes in one request at most; a multiple of min_block */
        bool read_only, flushes, zeroes, has_status, many_links;
};

enum vd_nbd_verb { VD_NBD_READ, VD_NBD_WRITE, VD_NBD_ZERO, VD_NBD_FLUSH, VD_NBD_STATUS };

enum { VD_NBD_HOLE = 1, VD_NBD_READS_ZERO = 2 };        /* flags of base:allocation */

struct vd_nbd_request {
        enum vd_nbd_verb verb;
        uint64_t position, length;
        void *into;                     /* READ */
        const void *from;               /* WRITE */
        uint32_t *blocks;               /* STATUS, answer: length, flags, length, flags ...; malloc'ed */
        size_t block_count;             /* pairs */

        int error;                      /* an errno; the implementation's until vd_nbd_run() returns */
        struct vd_nbd_batch *batch;
};

int vd_nbd_connect(struct vd_nbd **, const char *uri, const char *name, const volatile int *stop, struct vd_error *);
void vd_nbd_free(struct vd_nbd *);
const struct vd_nbd_facts *vd_nbd_facts(const struct vd_nbd *);

/* Sends all of them and waits for the answers.  0, or what the first (in their order) that failed got: a negative errno, or
 * VD_ESTOPPED; nothing is said in words. */
int vd_nbd_run(struct vd_nbd *, struct vd_nbd_request *, size_t count);

#endif
