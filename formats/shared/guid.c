// SPDX-License-Identifier: MIT
/* guid.c: 16-byte identifiers as text. */
#include "guid.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Which stored byte is printed as number i. */
static unsigned stored_at(unsigned i, enum vd_guid_order order)
{
        static const uint8_t microsoft[8] = { 3, 2, 1, 0, 5, 4, 7, 6 };

        return order == VD_GUID_MICROSOFT && i < 8 ? microsoft[i] : i;
}

char *vd_guid_text(const uint8_t guid[16], enum vd_guid_order order, char buffer[VD_GUID_TEXT])
{
        char *out = buffer;

        for (unsigned i = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *out++ = '-';
                snprintf(out, 3, "%02x", guid[stored_at(i, order)]);
                out += 2;
        }
        return buffer;
}

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

bool vd_guid_parse(const char *text, enum vd_guid_order order, uint8_t guid[16])
{
        bool braced = *text == '{';

        text += braced;
        for (unsigned i = 0; i < 16; i++) {
                if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
                        return false;
                int high = hex_digit(text[0]);
                int low = high < 0 ? -1 : hex_digit(text[1]);

                if (low < 0)
                        return false;
                guid[stored_at(i, order)] = (uint8_t)(high << 4 | low);
                text += 2;
        }
        return strcmp(text, braced ? "}" : "") == 0;
}

bool vd_guid_is_zero(const uint8_t guid[16])
{
        static const uint8_t zero[16];

        return memcmp(guid, zero, 16) == 0;
}
