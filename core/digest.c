// SPDX-License-Identifier: MIT
/* digest.c: the content digest, by nettle's SHA-256. */
#include "digest.h"

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/checked.h"

struct vd_digest {
        struct sha256_ctx root;
        bool has_zero_leaf;
        uint8_t zero_leaf[VD_DIGEST_BYTES];
};

struct vd_digest *vd_digest_new(void)
{
        struct vd_digest *d = calloc(1, sizeof(*d));

        if (d)
                sha256_init(&d->root);
        return d;
}

void vd_digest_free(struct vd_digest *d)
{
        free(d);
}

void vd_digest_leaf(const void *bytes, size_t length, uint8_t leaf[VD_DIGEST_BYTES])
{
        struct sha256_ctx ctx;

        sha256_init(&ctx);
        sha256_update(&ctx, length, bytes);
        sha256_digest(&ctx, VD_DIGEST_BYTES, leaf);
}

void vd_digest_add(struct vd_digest *d, const uint8_t leaf[VD_DIGEST_BYTES])
{
        sha256_update(&d->root, VD_DIGEST_BYTES, leaf);
}

static void hash_zeros(uint64_t length, uint8_t leaf[VD_DIGEST_BYTES])
{
        static const uint8_t zeros[4096];
        struct sha256_ctx ctx;

        sha256_init(&ctx);
        for (uint64_t at = 0; at < length; at += sizeof(zeros))
                sha256_update(&ctx, vd_min(sizeof(zeros), length - at), zeros);
        sha256_digest(&ctx, VD_DIGEST_BYTES, leaf);
}

void vd_digest_add_zeros(struct vd_digest *d, uint64_t length)
{
        uint8_t last[VD_DIGEST_BYTES];

        if (!d->has_zero_leaf) {
                hash_zeros(VD_DIGEST_LEAF, d->zero_leaf);
                d->has_zero_leaf = true;
        }
        for (; length >= VD_DIGEST_LEAF; length -= VD_DIGEST_LEAF)
                vd_digest_add(d, d->zero_leaf);
        if (length) {
                hash_zeros(length, last);
                vd_digest_add(d, last);
        }
}

void vd_digest_finish(struct vd_digest *d, char text[2 * VD_DIGEST_BYTES + 1])
{
        uint8_t sum[VD_DIGEST_BYTES];

        sha256_digest(&d->root, sizeof(sum), sum);
        for (size_t i = 0; i < sizeof(sum); i++)
                snprintf(text + 2 * i, 3, "%02x", sum[i]);
}
