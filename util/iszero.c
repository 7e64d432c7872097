// SPDX-License-Identifier: MIT
/* iszero.c: finding zeros at memory speed. */
#include "iszero.h"

#include <stdint.h>
#include <string.h>

enum { BLOCK_WORDS = 32 };              /* what is or-ed together between two tests: 256 bytes */

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

        while (length >= BLOCK_WORDS * sizeof(uint64_t)) {
                uint64_t all = 0;

                /* Fixed count and no exit inside: the compiler turns this into vector instructions. */
                for (size_t i = 0; i < BLOCK_WORDS; i++)
                        all |= load_word(p + i * sizeof(uint64_t));
                if (all)
                        return false;
                p += BLOCK_WORDS * sizeof(uint64_t);
                length -= BLOCK_WORDS * sizeof(uint64_t);
        }
        for (; length >= sizeof(uint64_t); p += sizeof(uint64_t), length -= sizeof(uint64_t)) {
                if (load_word(p))
                        return false;
        }
        return true;
}
