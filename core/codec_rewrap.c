// SPDX-License-Identifier: MIT
/* codec_rewrap.c: from one wrapper of deflate into another, without packing again.
 *
 * The history window of a zlib stream is what its header announces.  Looking for the distances really used would take
 * longer than unpacking and packing the unit again.
 */
#include <libdeflate.h>
#include <string.h>

#include "codec_private.h"
#include "util/endian.h"

enum {
        ZLIB_HEADER = 2,
        ZLIB_CHECKSUM = 4,
        ZLIB_METHOD_DEFLATE = 8,        /* low nibble of the first byte; the high one is log2(window) - 8 */
        ZLIB_DICTIONARY = 0x20,         /* in the second byte */
};

/* RFC 1950, 2.2: the two bytes as a big-endian number are a multiple of 31. */
static bool is_zlib_within(const uint8_t *stream, size_t bytes, unsigned window_bits)
{
        return bytes > ZLIB_HEADER + ZLIB_CHECKSUM && (stream[0] & 15) == ZLIB_METHOD_DEFLATE &&
               (unsigned)(stream[0] >> 4) + 8 <= window_bits && !(stream[1] & ZLIB_DICTIONARY) &&
               (stream[0] << 8 | stream[1]) % 31 == 0;
}

/* The checksum may stay behind the stream: readers of raw deflate ignore what follows. */
static size_t unwrap(const struct vd_rewrap *r)
{
        if (!is_zlib_within(r->buffer, r->packed_bytes, r->settings->window_bits))
                return 0;
        memmove(r->buffer, r->buffer + ZLIB_HEADER, r->packed_bytes - ZLIB_HEADER);
        return r->packed_bytes - ZLIB_HEADER;
}

static size_t wrap(struct vd_codec_context *context, const struct vd_rewrap *r)
{
        struct vd_error ignored = VD_ERROR_INIT;
        be32 checksum;
        size_t n;

        if (!vd_codec_use(context, VD_CODEC_DEFLATE, &ignored) ||
            !vd_deflate_length(vd_codec_state(context, VD_CODEC_DEFLATE), r->buffer, r->packed_bytes, r->scratch,
                               r->unpacked_bytes, &n) || n + ZLIB_HEADER + ZLIB_CHECKSUM > r->room)
                return 0;
        memmove(r->buffer + ZLIB_HEADER, r->buffer, n);
        r->buffer[0] = 0x78;            /* a window of 32 KiB holds whatever the unit uses */
        r->buffer[1] = 0x01;
        checksum = be32_put(libdeflate_adler32(1, r->scratch, r->unpacked_bytes));
        memcpy(r->buffer + ZLIB_HEADER + n, &checksum, sizeof(checksum));
        return n + ZLIB_HEADER + ZLIB_CHECKSUM;
}

size_t vd_rewrap(struct vd_codec_context *context, const struct vd_rewrap *r)
{
        size_t n = 0;

        if (r->from == r->to)
                n = r->packed_bytes;
        else if (r->from == VD_CODEC_ZLIB && r->to == VD_CODEC_DEFLATE)
                n = unwrap(r);
        else if (r->from == VD_CODEC_DEFLATE && r->to == VD_CODEC_ZLIB)
                n = wrap(context, r);
        return n <= r->max_packed ? n : 0;
}
