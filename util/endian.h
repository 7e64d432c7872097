// SPDX-License-Identifier: MIT
/* endian.h: integers as they stand in files.
 *
 * One type per width and byte order, so that the compiler refuses arithmetic on unconverted fields.
 * Their alignment is 1: structs of them need no packing and may lie anywhere in a buffer.
 */
#ifndef VD_UTIL_ENDIAN_H
#define VD_UTIL_ENDIAN_H

#include <stdint.h>

typedef struct { uint8_t b[2]; } le16;
typedef struct { uint8_t b[4]; } le32;
typedef struct { uint8_t b[8]; } le64;
typedef struct { uint8_t b[2]; } be16;
typedef struct { uint8_t b[4]; } be32;
typedef struct { uint8_t b[8]; } be64;

static inline uint16_t le16_get(le16 v) { return (uint16_t)(v.b[0] | v.b[1] << 8); }
static inline uint32_t le32_get(le32 v)
{
        return v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
}
static inline uint64_t le64_get(le64 v)
{
        return v.b[0] | (uint64_t)v.b[1] << 8 | (uint64_t)v.b[2] << 16 | (uint64_t)v.b[3] << 24 |
               (uint64_t)v.b[4] << 32 | (uint64_t)v.b[5] << 40 | (uint64_t)v.b[6] << 48 | (uint64_t)v.b[7] << 56;
}
static inline uint16_t be16_get(be16 v) { return (uint16_t)(v.b[0] << 8 | v.b[1]); }
static inline uint32_t be32_get(be32 v)
{
        return (uint32_t)v.b[0] << 24 | (uint32_t)v.b[1] << 16 | (uint32_t)v.b[2] << 8 | v.b[3];
}
static inline uint64_t be64_get(be64 v)
{
        return (uint64_t)v.b[0] << 56 | (uint64_t)v.b[1] << 48 | (uint64_t)v.b[2] << 40 | (uint64_t)v.b[3] << 32 |
               (uint64_t)v.b[4] << 24 | (uint64_t)v.b[5] << 16 | (uint64_t)v.b[6] << 8 | v.b[7];
}

static inline le16 le16_put(uint16_t v) { return (le16){ { (uint8_t)v, (uint8_t)(v >> 8) } }; }
static inline le32 le32_put(uint32_t v)
{
        return (le32){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) } };
}
static inline le64 le64_put(uint64_t v)
{
        return (le64){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24), (uint8_t)(v >> 32),
                         (uint8_t)(v >> 40), (uint8_t)(v >> 48), (uint8_t)(v >> 56) } };
}
static inline be16 be16_put(uint16_t v) { return (be16){ { (uint8_t)(v >> 8), (uint8_t)v } }; }
static inline be32 be32_put(uint32_t v)
{
        return (be32){ { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v } };
}
static inline be64 be64_put(uint64_t v)
{
        return (be64){ { (uint8_t)(v >> 56), (uint8_t)(v >> 48), (uint8_t)(v >> 40), (uint8_t)(v >> 32),
                         (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v } };
}

#endif
