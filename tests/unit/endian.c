// SPDX-License-Identifier: MIT
/* endian.c: integers as they stand in files. */
#include "util/endian.h"
#include "unit.h"

#include <stdalign.h>

int main(void)
{
        static const uint8_t bytes[8] = { 0x81, 0x92, 0xa3, 0xb4, 0xc5, 0xd6, 0xe7, 0xf8 };
        uint64_t seed = 1;
        bool same = true;
        le16 l16;
        le32 l32;
        le64 l64;
        be16 b16;
        be32 b32;
        be64 b64;

        memcpy(&l16, bytes, sizeof(l16));
        memcpy(&l32, bytes, sizeof(l32));
        memcpy(&l64, bytes, sizeof(l64));
        memcpy(&b16, bytes, sizeof(b16));
        memcpy(&b32, bytes, sizeof(b32));
        memcpy(&b64, bytes, sizeof(b64));
        OK("le16 is read from its low byte up", le16_get(l16) == 0x9281);
        OK("le32, top bit set, stays unsigned", le32_get(l32) == 0xb4a39281);
        OK("le64", le64_get(l64) == 0xf8e7d6c5b4a39281);
        OK("be16 is read from its high byte down", be16_get(b16) == 0x8192);
        OK("be32, top bit set, stays unsigned", be32_get(b32) == 0x8192a3b4);
        OK("be64", be64_get(b64) == 0x8192a3b4c5d6e7f8);

        l16 = le16_put(0x9281);
        l32 = le32_put(0xb4a39281);
        l64 = le64_put(0xf8e7d6c5b4a39281);
        OK("little-endian values are written as they are read",
           !memcmp(&l16, bytes, 2) && !memcmp(&l32, bytes, 4) && !memcmp(&l64, bytes, 8));
        b16 = be16_put(0x8192);
        b32 = be32_put(0x8192a3b4);
        b64 = be64_put(0x8192a3b4c5d6e7f8);
        OK("big-endian values are written as they are read",
           !memcmp(&b16, bytes, 2) && !memcmp(&b32, bytes, 4) && !memcmp(&b64, bytes, 8));

        for (int i = 0; i < 1000; i++) {
                uint64_t v = unit_random(&seed);

                same = same && le16_get(le16_put((uint16_t)v)) == (uint16_t)v &&
                       be16_get(be16_put((uint16_t)v)) == (uint16_t)v &&
                       le32_get(le32_put((uint32_t)v)) == (uint32_t)v &&
                       be32_get(be32_put((uint32_t)v)) == (uint32_t)v && le64_get(le64_put(v)) == v &&
                       be64_get(be64_put(v)) == v;
        }
        OK("any value survives writing and reading", same);
        OK("the types may lie anywhere", alignof(le16) == 1 && alignof(le32) == 1 && alignof(le64) == 1 &&
                                         alignof(be16) == 1 && alignof(be32) == 1 && alignof(be64) == 1);
        OK("and have no padding", sizeof(le16) == 2 && sizeof(le32) == 4 && sizeof(le64) == 8 &&
                                  sizeof(be16) == 2 && sizeof(be32) == 4 && sizeof(be64) == 8);
        return unit_done();
}
