// SPDX-License-Identifier: MIT
/* codec_lz.c: the two moves of every Lempel-Ziv decoder, bounded. */
#include "codec_private.h"

#include <string.h>

bool vd_lz_literals(struct vd_lz_output *out, const uint8_t *bytes, size_t length)
{
        if (length > out->room - out->done)
                return false;
        if (length)
                memcpy(out->bytes + out->done, bytes, length);
        out->done += length;
        return true;
}

bool vd_lz_match(struct vd_lz_output *out, size_t length, size_t distance)
{
        uint8_t *to = out->bytes + out->done;

        if (length > out->room - out->done || !distance || distance > out->done)
                return false;
        if (distance >= length) {
                memcpy(to, to - distance, length);
        } else if (distance == 1) {
                memset(to, to[-1], length);
        } else {
                for (size_t i = 0; i < length; i++)
                        to[i] = to[i - distance];
        }
        out->done += length;
        return true;
}
