// SPDX-License-Identifier: MIT
/* text.c: strings from images are not to be trusted; strings in general want growing. */
#include "text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Length of the UTF-8 character at p and its code; 0 when the bytes are none (overlong forms and surrogates too). */
static size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *code)
{
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        size_t length, i;

        if (p[0] < 0x80) {
                *code = p[0];
                return 1;
        }
        if (p[0] >= 0xc2 && p[0] < 0xe0)
                length = 2;
        else if (p[0] >= 0xe0 && p[0] < 0xf0)
                length = 3;
        else if (p[0] >= 0xf0 && p[0] < 0xf5)
                length = 4;
        else
                return 0;
        if (length > left)
                return 0;
        *code = p[0] & (0x7fu >> length);
        for (i = 1; i < length; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                *code = *code << 6 | (p[i] & 0x3fu);
        }
        if (*code < smallest[length] || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
                return 0;
        return length;
}

/* Characters that move the cursor, or make text look other than it is (direction marks). */
static bool is_treacherous(uint32_t code)
{
        return (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
               (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/* Copies what fits, whole characters only.  Returns the bytes of text that were used; *filled: bytes written. */
static size_t escape(char *buffer, size_t room, const char *text, size_t length, bool keep_controls, size_t *filled)
{
        static const char hex[] = "0123456789abcdef";
        const unsigned char *p = (const unsigned char *)text;
        size_t used = 0, out = 0;

        while (used < length && p[used]) {
                uint32_t code = 0;
                size_t n = utf8_decode(p + used, length - used, &code), i;

                if (n && !is_treacherous(code) && (code >= 0x20 || keep_controls)) {
                        if (n > room - out)
                                break;
                        memcpy(buffer + out, p + used, n);
                        out += n;
                        used += n;
                        continue;
                }
                n = n ? n : 1;
                if (4 * n > room - out)
                        break;
                for (i = 0; i < n; i++, used++) {
                        buffer[out++] = '\\';
                        buffer[out++] = 'x';
                        buffer[out++] = hex[p[used] >> 4];
                        buffer[out++] = hex[p[used] & 15];
                }
        }
        *filled = out;
        return used;
}

char *vd_printable(char *buffer, size_t room, const char *text, size_t length)
{
        static const char more[] = "...";
        size_t filled, used;

        if (!room)
                return buffer;
        used = escape(buffer, room - 1, text, length, false, &filled);
        if (used < length && text[used] && room >= sizeof more) {
                escape(buffer, room - sizeof more, text, length, false, &filled);
                memcpy(buffer + filled, more, sizeof more - 1);
                filled += sizeof more - 1;
        }
        buffer[filled] = '\0';
        return buffer;
}

static char *escape_dup(const char *text, size_t length, bool keep_controls)
{
        size_t filled, room = strnlen(text, length);
        char *copy;

        if (room > (SIZE_MAX - 1) / 4)
                return NULL;
        copy = malloc(4 * room + 1);
        if (!copy)
                return NULL;
        escape(copy, 4 * room, text, room, keep_controls, &filled);
        copy[filled] = '\0';
        return copy;
}

char *vd_printable_dup(const char *text, size_t length)
{
        return escape_dup(text, length, false);
}

char *vd_utf8_dup(const char *text, size_t length)
{
        return escape_dup(text, length, true);
}

char *vd_asprintf(const char *format, ...)
{
        va_list arguments;
        char *text;
        int n;

        va_start(arguments, format);
        n = vasprintf(&text, format, arguments);
        va_end(arguments);
        return n < 0 ? NULL : text;
}
