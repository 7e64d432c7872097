// SPDX-License-Identifier: MIT
/* iszero.c: finding zeros at memory speed. */
#include "iszero.h"

#include <stdint.h>
#include <string.h>

/* One SSE2 or NEON register. */
typedef uint64_t vector __attribute__((vector_size(16), may_alias, aligned(1)));

enum { BLOCK_VECTORS = 16 };            /* what is or-ed together between two tests: 256 bytes */

static inline uint64_t load_word(const uint8_t *p)
{
        uint64_t word;

        memcpy(&word, p, sizeof(word));
        return word;
}

bool vd_is_zero(const void *bytes, size_t length)
{
        const uint8_t *p = bytes;

        if (length < sizeof(uint64_t)) {
                uint8_t all = 0;

                for (size_t i = 0; i < length; i++)
                        all |= p[i];
                return all == 0;
        }
        /* Most data shows itself in its first, middle or last bytes.  The last word also covers the odd tail. */
        if (load_word(p) | load_word(p + length / 2 - sizeof(uint64_t) / 2) | load_word(p + length - sizeof(uint64_t)))
                return false;

        while (length >= BLOCK_VECTORS * sizeof(vector)) {
                const vector *block = (const vector *)p;
                vector all = block[0];

#pragma GCC unroll 16                   /* gcc -O2 does not unroll by itself: five times the speed */
                for (size_t i = 1; i < BLOCK_VECTORS; i++)
                        all |= block[i];
                if (all[0] | all[1])
                        return false;
                p += BLOCK_VECTORS * sizeof(vector);
                length -= BLOCK_VECTORS * sizeof(vector);
        }
        for (; length >= sizeof(uint64_t); p += sizeof(uint64_t), length -= sizeof(uint64_t)) {
                if (load_word(p))
                        return false;
        }
        return true;
}
