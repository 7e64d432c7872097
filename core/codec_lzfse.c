// SPDX-License-Identifier: MIT
/* codec_lzfse.c: LZFSE streams, as newer UDIF images have them; read only (docs/formats.md, "DMG").
 *
 *      "bvx-" stored block   "bvxn" LZVN block   "bvx2" block below   "bvx$" end
 *
 * A bvx2 block has two bit streams, both read from their last bit to the first: the literals, and the matches as
 * numbers L (literals before it), M (length), D (distance).  Each symbol comes from a state machine (finite state
 * entropy) whose table follows from the frequencies that the header stores.  Matches may reach back into earlier
 * blocks.
 */
#include "codec_private.h"

#include <stdlib.h>
#include <string.h>

#include "util/endian.h"

enum {
        HEADER_BYTES = 32,              /* of a bvx2 block, without frequencies */
        LITERALS_MOST = 40000, MATCHES_MOST = 10000,
        L_SYMBOLS = 20, M_SYMBOLS = 20, D_SYMBOLS = 64, LITERAL_SYMBOLS = 256,
        SYMBOLS = L_SYMBOLS + M_SYMBOLS + D_SYMBOLS + LITERAL_SYMBOLS,
        L_STATES = 64, M_STATES = 64, D_STATES = 256, LITERAL_STATES = 1024,
        NO_STATE = 0xff,
};

/* A state: what it stands for, and the next state: base + a number of that many bits. */
struct state {
        uint8_t symbol, bits;           /* bits: NO_STATE where the frequencies leave a state unused */
        uint16_t base;
};

struct lzfse {
        struct state l[L_STATES], m[M_STATES], d[D_STATES], literal[LITERAL_STATES];
        uint16_t frequencies[SYMBOLS];  /* of L, M, D, literals */
        uint8_t literals[LITERALS_MOST];
};

struct header {
        size_t bytes;                   /* frequencies included */
        size_t literals, literal_bytes, matches, match_bytes;
        unsigned literal_spare, match_spare;    /* bits of the last byte that are not used */
        unsigned literal_state[4], l_state, m_state, d_state;
};

static void *lzfse_new(void)
{
        return malloc(sizeof(struct lzfse));
}

/* ---- bits, from the end of a payload to its beginning ---- */

struct bits {
        const uint8_t *start;
        size_t bytes;                   /* not yet loaded, from start */
        uint64_t word;                  /* the lowest `count` bits come next, highest first */
        unsigned count;
        bool overrun;
};

static bool bits_open(struct bits *bits, const uint8_t *start, size_t bytes, unsigned spare)
{
        *bits = (struct bits){ .start = start, .bytes = bytes };
        if (!bytes)
                return spare == 0;
        bits->word = start[--bits->bytes];
        bits->count = 8 - spare;
        return bits->word >> bits->count == 0;
}

static void bits_fill(struct bits *bits)
{
        unsigned n = (63 - bits->count) / 8;    /* 0 to 7 bytes */

        if (bits->bytes >= 8 && n) {
                le64 raw;

                memcpy(&raw, bits->start + bits->bytes - 8, sizeof(raw));
                bits->word = bits->word << 8 * n | le64_get(raw) >> (64 - 8 * n);
                bits->bytes -= n;
                bits->count += 8 * n;
                return;
        }
        for (; n && bits->bytes; n--) {
                bits->word = bits->word << 8 | bits->start[--bits->bytes];
                bits->count += 8;
        }
}

/* At most 15; zeros after the first, and overrun set. */
static unsigned bits_take(struct bits *bits, unsigned n)
{
        if (bits->count < n)
                bits_fill(bits);
        if (bits->count < n) {
                bits->overrun = true;
                return 0;
        }
        bits->count -= n;
        return (unsigned)(bits->word >> bits->count) & ((1u << n) - 1);
}

/* ---- tables ---- */

static unsigned log2_floor(unsigned v)
{
        return 31u - (unsigned)__builtin_clz(v);
}

/* Fills table[states] for the symbols of these frequencies.  False when they want more states than there are. */
static bool make_table(struct state *table, unsigned states, const uint16_t *frequencies, unsigned symbols)
{
        unsigned at = 0;

        for (unsigned s = 0; s < symbols; s++) {
                unsigned f = frequencies[s], k, split;

                if (!f)
                        continue;
                if (f > states - at)
                        return false;
                k = log2_floor(states) - log2_floor(f);
                split = (2 * states >> k) - f;
                for (unsigned j = 0; j < f; j++, at++) {
                        table[at].symbol = (uint8_t)s;
                        table[at].bits = (uint8_t)(j < split ? k : k - 1);
                        table[at].base = (uint16_t)(j < split ? ((f + j) << k) - states : (j - split) << (k - 1));
                }
        }
        for (; at < states; at++)
                table[at] = (struct state){ .bits = NO_STATE };
        return true;
}

/* One frequency, out of the lowest bits; *used: how many it took. */
static unsigned decode_frequency(uint32_t bits, unsigned *used)
{
        if ((bits & 1) == 0) {
                *used = 2;
                return bits >> 1 & 1;
        }
        if ((bits & 2) == 0) {
                *used = 3;
                return 2 + (bits >> 2 & 1);
        }
        if ((bits & 4) == 0) {
                *used = 5;
                return 4 + (bits >> 3 & 3);
        }
        if ((bits & 8) == 0) {
                *used = 8;
                return 8 + (bits >> 4 & 15);
        }
        *used = 14;
        return 24 + (bits >> 4 & 1023);
}

static bool read_frequencies(uint16_t *frequencies, const uint8_t *in, size_t in_bytes)
{
        uint32_t word = 0;
        unsigned count = 0;
        size_t at = 0;

        if (!in_bytes) {
                memset(frequencies, 0, SYMBOLS * sizeof(*frequencies));
                return true;
        }
        for (unsigned i = 0; i < SYMBOLS; i++) {
                unsigned used;

                for (; count < 14 && at < in_bytes; count += 8)
                        word |= (uint32_t)in[at++] << count;
                frequencies[i] = (uint16_t)decode_frequency(word, &used);
                if (used > count)
                        return false;
                word >>= used;
                count -= used;
        }
        return at == in_bytes && count < 8;
}

static bool make_tables(struct lzfse *z)
{
        const uint16_t *f = z->frequencies;

        return make_table(z->l, L_STATES, f, L_SYMBOLS) &&
               make_table(z->m, M_STATES, f + L_SYMBOLS, M_SYMBOLS) &&
               make_table(z->d, D_STATES, f + L_SYMBOLS + M_SYMBOLS, D_SYMBOLS) &&
               make_table(z->literal, LITERAL_STATES, f + L_SYMBOLS + M_SYMBOLS + D_SYMBOLS, LITERAL_SYMBOLS);
}

/* ---- symbols ---- */

/* The symbol of *state, which moves on; -1 when the state is one that no symbol has. */
static int next_symbol(const struct state *table, unsigned *state, struct bits *bits)
{
        const struct state *s = &table[*state];

        if (s->bits == NO_STATE)
                return -1;
        *state = s->base + bits_take(bits, s->bits);
        return s->symbol;
}

static int next_number(const struct state *table, unsigned *state, const uint32_t *base, const uint8_t *extra,
                       struct bits *bits)
{
        int symbol = next_symbol(table, state, bits);

        return symbol < 0 ? -1 : (int)(base[symbol] + bits_take(bits, extra[symbol]));
}

static bool read_literals(struct lzfse *z, const struct header *h, const uint8_t *payload)
{
        unsigned state[4];
        struct bits bits;

        memcpy(state, h->literal_state, sizeof(state));
        if (!bits_open(&bits, payload, h->literal_bytes, h->literal_spare))
                return false;
        for (size_t i = 0; i < h->literals; i++) {
                int symbol = next_symbol(z->literal, &state[i % 4], &bits);

                if (symbol < 0)
                        return false;
                z->literals[i] = (uint8_t)symbol;
        }
        return !bits.overrun;
}

static const uint32_t length_l[L_SYMBOLS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 28, 60 };
static const uint8_t extra_l[L_SYMBOLS] = { [16] = 2, 3, 5, 8 };
static const uint32_t length_m[M_SYMBOLS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 56, 312 };
static const uint8_t extra_m[M_SYMBOLS] = { [16] = 3, 5, 8, 11 };

/* Four symbols each have 0, 1, 2 ... 15 extra bits. */
static int next_distance(const struct lzfse *z, unsigned *state, struct bits *bits)
{
        int symbol = next_symbol(z->d, state, bits);
        unsigned extra = (unsigned)symbol / 4;

        if (symbol < 0)
                return -1;
        return (int)((4u << extra) - 4 + ((unsigned)symbol % 4 << extra) + bits_take(bits, extra));
}

static bool read_matches(const struct lzfse *z, const struct header *h, const uint8_t *payload,
                         struct vd_lz_output *out)
{
        unsigned l_state = h->l_state, m_state = h->m_state, d_state = h->d_state;
        const uint8_t *literals = z->literals;
        size_t left = h->literals, distance = 0;
        struct bits bits;

        if (!bits_open(&bits, payload, h->match_bytes, h->match_spare))
                return false;
        for (size_t i = 0; i < h->matches; i++) {
                int l = next_number(z->l, &l_state, length_l, extra_l, &bits);
                int m = l < 0 ? -1 : next_number(z->m, &m_state, length_m, extra_m, &bits);
                int d = m < 0 ? -1 : next_distance(z, &d_state, &bits);

                if (d < 0 || bits.overrun || (size_t)l > left || !vd_lz_literals(out, literals, (size_t)l))
                        return false;
                literals += l;
                left -= (size_t)l;
                if (d)
                        distance = (size_t)d;
                if (m && !vd_lz_match(out, (size_t)m, distance))
                        return false;
        }
        return true;
}

/* ---- blocks ---- */

static unsigned field(uint64_t v, unsigned shift, unsigned bits)
{
        return (unsigned)(v >> shift) & ((1u << bits) - 1);
}

static bool parse_header(struct header *h, const uint8_t *in, size_t in_bytes)
{
        le64 raw[3];
        uint64_t v0, v1, v2;

        if (in_bytes < HEADER_BYTES)
                return false;
        memcpy(raw, in + 8, sizeof(raw));
        v0 = le64_get(raw[0]);
        v1 = le64_get(raw[1]);
        v2 = le64_get(raw[2]);
        h->literals = field(v0, 0, 20);
        h->literal_bytes = field(v0, 20, 20);
        h->matches = field(v0, 40, 20);
        h->literal_spare = 7 - field(v0, 60, 3);
        for (unsigned i = 0; i < 4; i++)
                h->literal_state[i] = field(v1, 10 * i, 10);
        h->match_bytes = field(v1, 40, 20);
        h->match_spare = 7 - field(v1, 60, 3);
        h->bytes = (size_t)(v2 & UINT32_MAX);
        h->l_state = field(v2, 32, 10);
        h->m_state = field(v2, 42, 10);
        h->d_state = field(v2, 52, 10);
        return h->bytes >= HEADER_BYTES && h->bytes <= in_bytes &&
               h->literal_bytes + h->match_bytes <= in_bytes - h->bytes &&
               h->literals <= LITERALS_MOST && h->literals % 4 == 0 && h->matches <= MATCHES_MOST &&
               h->l_state < L_STATES && h->m_state < M_STATES && h->d_state < D_STATES;
}

/* *used: bytes of input, magic included. */
static bool compressed_block(struct lzfse *z, const uint8_t *in, size_t in_bytes, struct vd_lz_output *out,
                             size_t *used)
{
        struct header h;
        const uint8_t *payload;

        if (!parse_header(&h, in, in_bytes) ||
            !read_frequencies(z->frequencies, in + HEADER_BYTES, h.bytes - HEADER_BYTES) || !make_tables(z))
                return false;
        payload = in + h.bytes;
        *used = h.bytes + h.literal_bytes + h.match_bytes;
        return read_literals(z, &h, payload) && read_matches(z, &h, payload + h.literal_bytes, out);
}

static bool stored_block(const uint8_t *in, size_t in_bytes, struct vd_lz_output *out, size_t *used)
{
        size_t length = out->room - out->done;

        if (length > in_bytes - 8)
                return false;
        *used = 8 + length;
        return vd_lz_literals(out, in + 8, length);
}

static bool lzvn_block(const uint8_t *in, size_t in_bytes, struct vd_lz_output *out, size_t *used)
{
        le32 raw;
        size_t length;

        if (in_bytes < 12)
                return false;
        memcpy(&raw, in + 8, sizeof(raw));
        length = le32_get(raw);
        *used = 12 + length;
        return length <= in_bytes - 12 && vd_lzvn_block(out, in + 12, length);
}

static bool is_magic(const uint8_t *in, const char *magic)
{
        return !memcmp(in, magic, 4);
}

static int lzfse_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                        struct vd_error *err)
{
        struct vd_lz_output out = { .bytes = unpacked };
        const uint8_t *in = packed;
        size_t left = packed_bytes;

        while (left >= 4 && !is_magic(in, "bvx$")) {
                size_t used = 0, block;
                bool good = false;
                le32 raw;

                if (left < 8)
                        break;
                memcpy(&raw, in + 4, sizeof(raw));
                block = le32_get(raw);
                if (block > unpacked_bytes - out.done)
                        return vd_codec_gives_more(&vd_codec_lzfse, unpacked_bytes, err);
                out.room = out.done + block;
                if (is_magic(in, "bvx1"))
                        return vd_fail(err, VD_EUNSUPPORTED, "lzfse stream has a block of an early version (bvx1)");
                if (is_magic(in, "bvx2"))
                        good = compressed_block(state, in, left, &out, &used);
                else if (is_magic(in, "bvx-"))
                        good = stored_block(in, left, &out, &used);
                else if (is_magic(in, "bvxn"))
                        good = lzvn_block(in, left, &out, &used);
                if (!good || out.done != out.room)
                        return vd_codec_broken(&vd_codec_lzfse, out.done, unpacked_bytes, err);
                in += used;
                left -= used;
        }
        if (left < 4 || !is_magic(in, "bvx$") || out.done < unpacked_bytes)
                return vd_codec_ends_early(&vd_codec_lzfse, out.done, unpacked_bytes, err);
        return 0;
}

const struct vd_codec_methods vd_codec_lzfse = {
        .name = "lzfse",
        .new_state = lzfse_new,
        .free_state = free,
        .unpack = lzfse_unpack,
};
