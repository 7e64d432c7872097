// SPDX-License-Identifier: MIT
/* crc32c.c: CRC-32C by libisal where there is one, else by processor instruction, else four bits at a time. */
#include "crc32c.h"

#ifdef HAVE_ISAL

#include <isa-l/crc.h>

uint32_t vd_crc32c(uint32_t crc, const void *bytes, size_t length)
{
        enum { STEP = 1 << 30 };        /* its lengths are ints */
        unsigned char *at = (unsigned char *)bytes;     /* only read */

        crc = ~crc;
        for (; length > STEP; at += STEP, length -= STEP)
                crc = crc32_iscsi(at, STEP, crc);
        return ~crc32_iscsi(at, (int)length, crc);
}

#else

static uint32_t by_table(uint32_t crc, const unsigned char *at, size_t length)
{
        static const uint32_t nibbles[16] = {
                0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
        };

        while (length--) {
                crc ^= *at++;
                crc = crc >> 4 ^ nibbles[crc & 15];
                crc = crc >> 4 ^ nibbles[crc & 15];
        }
        return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2")))
static uint32_t by_instruction(uint32_t crc, const unsigned char *at, size_t length)
{
        uint64_t wide = crc;

        for (; length >= 8; at += 8, length -= 8) {
                uint64_t word;

                __builtin_memcpy(&word, at, 8);
                wide = __builtin_ia32_crc32di(wide, word);
        }
        crc = (uint32_t)wide;
        while (length--)
                crc = __builtin_ia32_crc32qi(crc, *at++);
        return crc;
}
#endif

uint32_t vd_crc32c(uint32_t crc, const void *bytes, size_t length)
{
#ifdef __x86_64__
        if (__builtin_cpu_supports("sse4.2"))
                return ~by_instruction(~crc, bytes, length);
#endif
        return ~by_table(~crc, bytes, length);
}

#endif
