// SPDX-License-Identifier: MIT
/* codec_adc.c: Apple Data Compression, as old UDIF images have it; read only (docs/formats.md, "DMG").
 *
 * Literal runs and matches without header, checksum or end mark: the unit is complete when it is full.
 *
 *      1LLLLLLL bytes ...              L + 1 literals
 *      00LLLLDD DDDDDDDD               match of L + 3 bytes at distance D + 1
 *      01LLLLLL DDDDDDDD DDDDDDDD      match of L + 4 bytes at distance D + 1
 */
#include "codec_private.h"

#include <string.h>

struct operation {
        size_t bytes, length, distance; /* bytes: of the operation itself; distance 0: literals follow */
};

static struct operation decode(const uint8_t in[3])
{
        if (in[0] & 0x80)
                return (struct operation){ 1, (in[0] & 0x7fu) + 1, 0 };
        if (in[0] & 0x40)
                return (struct operation){ 3, (in[0] & 0x3fu) + 4, ((size_t)in[1] << 8 | in[2]) + 1 };
        return (struct operation){ 2, (in[0] >> 2) + 3u, ((size_t)(in[0] & 3) << 8 | in[1]) + 1 };
}

static int adc_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                      struct vd_error *err)
{
        struct vd_lz_output out = { .bytes = unpacked, .room = unpacked_bytes };
        const uint8_t *in = packed;
        size_t left = packed_bytes;

        (void)state;
        while (out.done < out.room) {
                uint8_t head[3] = { 0 };
                struct operation op;

                if (!left)
                        return vd_codec_ends_early(&vd_codec_adc, out.done, unpacked_bytes, err);
                memcpy(head, in, left < sizeof(head) ? left : sizeof(head));
                op = decode(head);
                if (left < op.bytes || (!op.distance && left - op.bytes < op.length))
                        return vd_codec_ends_early(&vd_codec_adc, out.done, unpacked_bytes, err);
                if (op.length > out.room - out.done)
                        return vd_codec_gives_more(&vd_codec_adc, unpacked_bytes, err);
                in += op.bytes;
                left -= op.bytes;
                if (!op.distance) {
                        vd_lz_literals(&out, in, op.length);
                        in += op.length;
                        left -= op.length;
                } else if (!vd_lz_match(&out, op.length, op.distance)) {
                        return vd_codec_broken(&vd_codec_adc, out.done, unpacked_bytes, err);
                }
        }
        return 0;
}

const struct vd_codec_methods vd_codec_adc = {
        .name = "adc",
        .unpack = adc_unpack,
};
