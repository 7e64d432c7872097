// SPDX-License-Identifier: MIT
/* guid.h: 16-byte identifiers as text.
 *
 * RFC 4122 order stores the bytes as they are printed; Microsoft order stores the first three groups little-endian
 * (VHDX, VDI).  Identifiers are compared and copied as bytes, never converted.
 */
#ifndef VD_SHARED_GUID_H
#define VD_SHARED_GUID_H

#include <stdbool.h>
#include <stdint.h>

enum vd_guid_order { VD_GUID_RFC, VD_GUID_MICROSOFT };

enum { VD_GUID_TEXT = 37 };             /* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" and NUL */

/* Lower-case text; returns buffer. */
char *vd_guid_text(const uint8_t guid[16], enum vd_guid_order, char buffer[VD_GUID_TEXT]);
/* Accepts upper and lower case, with or without braces.  False when text is anything else. */
bool vd_guid_parse(const char *text, enum vd_guid_order, uint8_t guid[16]);
bool vd_guid_is_zero(const uint8_t guid[16]);

#endif
