// SPDX-License-Identifier: MIT
/* utf16.c: UTF-16 to UTF-8 and back. */
#include "utf16.h"

#include <stdlib.h>
#include <string.h>

static uint16_t unit_get(const uint8_t *p, bool big_endian)
{
        return (uint16_t)(big_endian ? p[0] << 8 | p[1] : p[1] << 8 | p[0]);
}

static uint8_t *unit_put(uint8_t *p, uint32_t unit, bool big_endian)
{
        p[big_endian ? 0 : 1] = (uint8_t)(unit >> 8);
        p[big_endian ? 1 : 0] = (uint8_t)unit;
        return p + 2;
}

static char *utf8_put(char *out, uint32_t c)
{
        if (c < 0x80) {
                *out++ = (char)c;
        } else if (c < 0x800) {
                *out++ = (char)(0xc0 | c >> 6);
                *out++ = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
                *out++ = (char)(0xe0 | c >> 12);
                *out++ = (char)(0x80 | (c >> 6 & 0x3f));
                *out++ = (char)(0x80 | (c & 0x3f));
        } else {
                *out++ = (char)(0xf0 | c >> 18);
                *out++ = (char)(0x80 | (c >> 12 & 0x3f));
                *out++ = (char)(0x80 | (c >> 6 & 0x3f));
                *out++ = (char)(0x80 | (c & 0x3f));
        }
        return out;
}

char *vd_utf16_to_utf8(const void *text, size_t bytes, bool big_endian)
{
        const uint8_t *in = text;
        size_t units = bytes / 2;
        char *utf8 = malloc(3 * units + 1), *out = utf8;

        if (!utf8)
                return NULL;
        for (size_t i = 0; i < units; i++) {
                uint32_t c = unit_get(in + 2 * i, big_endian);

                if (!c)
                        break;
                if (c >= 0xd800 && c < 0xe000) {
                        uint32_t low = i + 1 < units ? unit_get(in + 2 * i + 2, big_endian) : 0;

                        if (c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
                                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                                i++;
                        } else {
                                c = 0xfffd;
                        }
                }
                out = utf8_put(out, c);
        }
        *out = '\0';
        return utf8;
}

/* The character at *text, which moves on; UINT32_MAX when it is not valid UTF-8. */
static uint32_t utf8_get(const uint8_t **text)
{
        static const uint32_t smallest[] = { 0, 0x80, 0x800, 0x10000 };
        const uint8_t *p = *text;
        unsigned more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : 4;

        if (more == 4)
                return UINT32_MAX;
        uint32_t c = more ? *p & (0x3fu >> more) : *p;

        for (unsigned i = 1; i <= more; i++) {
                if (p[i] >> 6 != 2)
                        return UINT32_MAX;
                c = c << 6 | (p[i] & 0x3f);
        }
        *text += more + 1;
        return c < smallest[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? UINT32_MAX : c;
}

uint8_t *vd_utf16_from_utf8(const char *text, bool big_endian, size_t *bytes)
{
        const uint8_t *in = (const uint8_t *)text;
        uint8_t *utf16 = malloc(2 * strlen(text) + 2), *out = utf16;

        *bytes = 0;
        if (!utf16)
                return NULL;
        while (*in) {
                uint32_t c = utf8_get(&in);

                if (c == UINT32_MAX) {
                        free(utf16);
                        *bytes = SIZE_MAX;
                        return NULL;
                }
                if (c >= 0x10000) {
                        out = unit_put(out, 0xd800 + ((c - 0x10000) >> 10), big_endian);
                        c = 0xdc00 + ((c - 0x10000) & 0x3ff);
                }
                out = unit_put(out, c, big_endian);
        }
        *bytes = (size_t)(out - utf16);
        return utf16;
}
