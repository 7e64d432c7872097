// SPDX-License-Identifier: MIT
/* codec_lzvn.c: LZVN, the byte-wise half of LZFSE (docs/formats.md, "DMG").
 *
 * An operation is up to three bytes, its literals, and a match at a distance that may be that of the match before.
 */
#include "codec_private.h"

enum { END_BYTES = 8 };                 /* 06 and seven zeros */

enum kind { SEQUENCE, END, NOTHING, INVALID };

struct operation {
        enum kind kind;
        size_t bytes;                   /* of the operation itself */
        size_t literals, match;
        size_t distance;                /* 0: as before */
};

static struct operation sequence(size_t bytes, size_t literals, size_t match, size_t distance)
{
        return (struct operation){ SEQUENCE, bytes, literals, match, distance };
}

/* in has two bytes more, whatever they are; distance 0 in the stream is told apart from "as before" by *no_distance. */
static struct operation decode(const uint8_t *in, bool *no_distance)
{
        uint8_t c = in[0];
        size_t word = in[1] | (size_t)in[2] << 8;
        struct operation op;

        *no_distance = false;
        if (c >= 0xf0)
                return c == 0xf0 ? sequence(2, 0, in[1] + 16u, 0) : sequence(1, 0, c & 15, 0);
        if (c >= 0xe0)
                return c == 0xe0 ? sequence(2, in[1] + 16u, 0, 0) : sequence(1, c & 15, 0, 0);
        if (c == 0x06)
                return (struct operation){ .kind = END, .bytes = END_BYTES };
        if (c == 0x0e || c == 0x16)
                return (struct operation){ .kind = NOTHING, .bytes = 1 };
        if ((c & 0xf0) == 0x70 || (c & 0xf0) == 0xd0 || ((c & 7) == 6 && c < 0x40))
                return (struct operation){ .kind = INVALID };
        if ((c & 0xe0) == 0xa0)
                op = sequence(3, c >> 3 & 3, ((c & 7u) << 2 | (word & 3)) + 3, word >> 2);
        else if ((c & 7) == 7)
                op = sequence(3, c >> 6, (c >> 3 & 7) + 3u, word);
        else if ((c & 7) == 6)
                return sequence(1, c >> 6, (c >> 3 & 7) + 3u, 0);
        else
                op = sequence(2, c >> 6, (c >> 3 & 7) + 3u, (size_t)(c & 7) << 8 | in[1]);
        *no_distance = op.distance == 0;
        return op;
}

bool vd_lzvn_block(struct vd_lz_output *out, const uint8_t *in, size_t in_bytes)
{
        size_t at = 0, distance = 0;

        while (at < in_bytes) {
                uint8_t head[3] = { in[at], at + 1 < in_bytes ? in[at + 1] : 0, at + 2 < in_bytes ? in[at + 2] : 0 };
                bool no_distance;
                struct operation op = decode(head, &no_distance);

                if (op.kind == INVALID || no_distance || op.bytes > in_bytes - at)
                        return false;
                at += op.bytes;
                if (op.kind == END)
                        return at == in_bytes;
                if (op.kind == NOTHING)
                        continue;
                if (op.literals > in_bytes - at || !vd_lz_literals(out, in + at, op.literals))
                        return false;
                at += op.literals;
                if (op.distance)
                        distance = op.distance;
                if (op.match && !vd_lz_match(out, op.match, distance))
                        return false;
        }
        return false;                   /* no end mark */
}
