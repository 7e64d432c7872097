// SPDX-License-Identifier: MIT
/* lz.c: ADC and LZFSE, the codecs that we decode ourselves: known streams, streams of an encoder made for this test,
 * and damage everywhere.
 *
 * With the name of a file as argument the encoder's stream of 64 KiB is written there, for other decoders to judge.
 */
#include "core/codec.h"
#include "unit.h"

enum { UNIT = 65536, ROOM = 2 * UNIT };

static uint8_t plain[UNIT], packed[ROOM], unpacked[UNIT];
static struct vd_codec_context *context;
static struct vd_error err;

static int unpack(enum vd_codec codec, const void *from, size_t bytes, size_t to)
{
        /* Exact copies on the heap: a sanitizer or valgrind sees a step outside. */
        uint8_t *in = malloc(bytes ? bytes : 1), *out = malloc(to ? to : 1);
        int r;

        NEED(in && out);
        memcpy(in, from, bytes);
        memset(out, 0xaa, to);
        r = vd_unpack(context, codec, in, bytes, out, to, &err);
        if (to <= UNIT)
                memcpy(unpacked, out, to);
        free(in);
        free(out);
        return r;
}

static bool gives(enum vd_codec codec, const void *from, size_t bytes, const char *text)
{
        return unpack(codec, from, bytes, strlen(text)) == 0 && !memcmp(unpacked, text, strlen(text));
}

/* ---- ADC ---- */

static void adc(void)
{
        static const uint8_t stream[] = { 0x82, 'a', 'b', 'c', 0x0c, 2, 0x40, 0, 0, 0x80, '!' };
        static const uint8_t far[] = { 0x80, 'a', 0x40, 0, 1 }, before[] = { 0x00, 0 };

        OK("adc: literals, a short and a long match that overlap themselves",
           gives(VD_CODEC_ADC, stream, sizeof(stream), "abcabcabccccc!"));
        OK("adc: what follows a full unit is ignored", gives(VD_CODEC_ADC, stream, sizeof(stream), "abcabcabc"));
        OK("adc: a stream that ends early is corrupt", unpack(VD_CODEC_ADC, stream, sizeof(stream), 15) == VD_ECORRUPT);
        OK("adc: a match past the end of the unit is corrupt",
           unpack(VD_CODEC_ADC, stream, sizeof(stream), 8) == VD_ECORRUPT);
        OK("adc: a match before the beginning is corrupt",
           unpack(VD_CODEC_ADC, far, sizeof(far), 5) == VD_ECORRUPT &&
           unpack(VD_CODEC_ADC, before, sizeof(before), 3) == VD_ECORRUPT);
        for (size_t cut = 0; cut < sizeof(stream); cut++)
                NEED(unpack(VD_CODEC_ADC, stream, cut, 14) == VD_ECORRUPT);
        OK("adc: cut anywhere it is corrupt", true);
}

/* ---- LZVN and stored blocks ---- */

static const char hello[] = "hello hello hello hello hello hello\n";
static const uint8_t lzvn[] = {
        'b', 'v', 'x', 'n', 0x24, 0, 0, 0, 0x15, 0, 0, 0, 0xe6, 'h', 'e', 'l', 'l', 'o', ' ', 0x38, 0x06, 0xf0, 0x03,
        0xe1,
        '\n', 0x06, 0, 0, 0, 0, 0, 0, 0, 'b', 'v', 'x', '$',
};

static void lzvn_blocks(void)
{
        static const uint8_t stored[] = { 'b', 'v', 'x', '-', 3, 0, 0, 0, 'a', 'b', 'c', 'b', 'v', 'x', '$' };
        static const uint8_t old[] = { 'b', 'v', 'x', '1', 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
        uint8_t both[sizeof(stored) + sizeof(lzvn)], bad[sizeof(lzvn)];
        bool all = true;

        OK("lzvn: literals, a match, and one at the same distance",
           gives(VD_CODEC_LZFSE, lzvn, sizeof(lzvn), hello));
        OK("lzfse: a stored block", gives(VD_CODEC_LZFSE, stored, sizeof(stored), "abc"));
        memcpy(both, stored, sizeof(stored) - 4);
        memcpy(both + sizeof(stored) - 4, lzvn, sizeof(lzvn));
        OK("lzfse: blocks of two kinds", unpack(VD_CODEC_LZFSE, both, sizeof(both) - 4, 39) == 0 &&
           !memcmp(unpacked, "abchello", 8));
        OK("lzfse: a unit that is longer or shorter is corrupt",
           unpack(VD_CODEC_LZFSE, lzvn, sizeof(lzvn), 37) == VD_ECORRUPT &&
           unpack(VD_CODEC_LZFSE, lzvn, sizeof(lzvn), 35) == VD_ECORRUPT);
        OK("lzfse: a block of the first version is refused", unpack(VD_CODEC_LZFSE, old, sizeof(old),
                                                                    3) == VD_EUNSUPPORTED);
        for (size_t cut = 0; cut < sizeof(lzvn); cut++)
                all = all && unpack(VD_CODEC_LZFSE, lzvn, cut, 36) == VD_ECORRUPT;
        OK("lzvn: cut anywhere it is corrupt", all);
        for (unsigned op = 0; op < 256; op++) {
                memcpy(bad, lzvn, sizeof(bad));
                bad[12] = (uint8_t)op;          /* in place of the first operation */
                if (op != 0xe6)
                        all = all && unpack(VD_CODEC_LZFSE, bad, sizeof(bad), 36) == VD_ECORRUPT;
        }
        OK("lzvn: no other first operation makes sense of the rest", all);
}

/* ---- an encoder of bvx2 blocks ---- */

struct entry { unsigned symbol, bits, base; };

struct table {
        unsigned states, symbols, frequency[256];
        struct entry entries[1024];
};

/* Frequencies that add up to the number of states, in proportion to counts. */
static void make_table(struct table *t, unsigned states, unsigned symbols, const unsigned *counts)
{
        unsigned total = 0, sum = 0, most = 0, at = 0;

        t->states = states;
        t->symbols = symbols;
        for (unsigned s = 0; s < symbols; s++)
                total += counts[s];
        for (unsigned s = 0; s < symbols; s++) {
                t->frequency[s] = counts[s] ? 1 + (unsigned)((uint64_t)counts[s] * (states - symbols) / total) : 0;
                sum += t->frequency[s];
                most = t->frequency[s] > t->frequency[most] ? s : most;
        }
        NEED(total && sum <= states);
        t->frequency[most] += states - sum;
        for (unsigned s = 0; s < symbols; s++) {
                unsigned f = t->frequency[s], k = 0;

                while (f && (f << (k + 1)) < 2 * states)
                        k++;            /* f << k lies in [states, 2 * states) */
                for (unsigned j = 0; j < f; j++, at++) {
                        unsigned whole = (2 * states >> k) - f;

                        t->entries[at].symbol = s;
                        t->entries[at].bits = j < whole ? k : k - 1;
                        t->entries[at].base = j < whole ? ((f + j) << k) - states : (j - whole) << (k - 1);
                }
        }
        NEED(at == states);
}

/* Bits in the order in which the decoder reads them. */
struct bits {
        uint32_t value[400000];
        uint8_t count[400000];
        size_t used;
};
static struct bits literal_bits, match_bits;

static size_t write_bits(const struct bits *bits, uint8_t *to, unsigned *spare)
{
        size_t total = 0, bytes, at;

        for (size_t i = 0; i < bits->used; i++)
                total += bits->count[i];
        bytes = (total + 7) / 8;
        memset(to, 0, bytes);
        at = total;
        for (size_t i = 0; i < bits->used; i++) {
                at -= bits->count[i];
                for (unsigned b = 0; b < bits->count[i]; b++)
                        to[(at + b) / 8] |= (uint8_t)((bits->value[i] >> b & 1) << (at + b) % 8);
        }
        *spare = (unsigned)(8 * bytes - total);
        return bytes;
}

/* The state before *state that stands for the symbol; the bits that lead from it to *state. */
static void step_back(const struct table *t, unsigned symbol, unsigned *state, uint32_t *value, uint8_t *count)
{
        for (unsigned u = 0; u < t->states; u++) {
                const struct entry *e = &t->entries[u];

                if (e->symbol == symbol && *state >= e->base && *state < e->base + (1u << e->bits)) {
                        *value = *state - e->base;
                        *count = (uint8_t)e->bits;
                        *state = u;
                        return;
                }
        }
        NEED(!"a state before this one");
}

struct match { unsigned l, m, d; };

static const unsigned base_l[] = { 16, 20, 28, 60, 316 }, base_m[] = { 16, 24, 56, 312, 2360 };

/* Symbol and extra bits of a number: L and M (16 plain symbols, then four ranges), or D. */
static unsigned split(unsigned v, const unsigned *base, unsigned *extra, uint8_t *extra_bits)
{
        static const uint8_t bits_l[] = { 2, 3, 5, 8 }, bits_m[] = { 3, 5, 8, 11 };

        if (base) {
                unsigned i = 0;

                *extra = *extra_bits = 0;
                if (v < 16)
                        return v;
                while (v >= base[i + 1])
                        i++;
                *extra = v - base[i];
                *extra_bits = base == base_l ? bits_l[i] : bits_m[i];
                return 16 + i;
        }
        for (unsigned s = 0, start = 0; s < 64; start += 1u << s / 4, s++) {
                if (v < start + (1u << s / 4)) {
                        *extra = v - start;
                        *extra_bits = (uint8_t)(s / 4);
                        return s;
                }
        }
        NEED(!"a distance in range");
        return 0;
}

static struct match matches[10000];
static uint8_t literals[40000];
static size_t match_count, literal_count;

/* Matches of four bytes or more at the place where their first four were seen last. */
static void find_matches(size_t length)
{
        static size_t last[65536];
        size_t at = 0, start = 0;
        unsigned before = 0;

        match_count = literal_count = 0;
        memset(last, 0xff, sizeof(last));
        while (at < length) {
                size_t n = 0, seen = SIZE_MAX;

                if (at + 4 <= length) {
                        unsigned pair = plain[at] * 2654435761u ^ plain[at + 1] * 40503u;
                        unsigned hash = (pair ^ plain[at + 2] * 251u ^ plain[at + 3]) & 65535;

                        seen = last[hash];
                        last[hash] = at;
                }
                while (seen != SIZE_MAX && at + n < length && n < 2300 && plain[seen + n] == plain[at + n])
                        n++;
                if (n < 4 && at - start < 300) {
                        literals[literal_count++] = plain[at++];
                        continue;
                }
                matches[match_count++] = (struct match){ (unsigned)(at - start), n < 4 ? 0 : (unsigned)n,
                                                         n < 4 || at - seen == before ? 0 : (unsigned)(at - seen) };
                before = n < 4 ? before : (unsigned)(at - seen);
                at += n < 4 ? 0 : n;
                start = at;
        }
        matches[match_count++] = (struct match){ (unsigned)(at - start), 0, 0 };
        while (literal_count % 4)
                literals[literal_count++] = literals[0];
        NEED(match_count < 10000 && literal_count < 40000);
}

static void put(uint8_t *to, uint64_t v, unsigned bytes)
{
        for (unsigned i = 0; i < bytes; i++)
                to[i] = (uint8_t)(v >> 8 * i);
}

static void put_frequency(uint8_t *to, size_t *bit, unsigned f)
{
        static const unsigned codes[] = { 0, 2, 1, 5 };
        uint32_t value = f < 4 ? codes[f] : f < 8 ? 3 | (f - 4) << 3 : f < 24 ? 7 | (f - 8) << 4 : 15 | (f - 24) << 4;
        unsigned count = f < 2 ? 2 : f < 4 ? 3 : f < 8 ? 5 : f < 24 ? 8 : 14;

        for (unsigned b = 0; b < count; b++, ++*bit)
                to[*bit / 8] |= (uint8_t)((value >> b & 1) << *bit % 8);
}

static struct table tables[4];          /* L, M, D, literals */

static void make_tables(void)
{
        unsigned counts[4][256] = { { 0 } }, extra;
        uint8_t bits;

        for (size_t i = 0; i < match_count; i++) {
                counts[0][split(matches[i].l, base_l, &extra, &bits)]++;
                counts[1][split(matches[i].m, base_m, &extra, &bits)]++;
                counts[2][split(matches[i].d, NULL, &extra, &bits)]++;
        }
        for (size_t i = 0; i < literal_count; i++)
                counts[3][literals[i]]++;
        make_table(&tables[0], 64, 20, counts[0]);
        make_table(&tables[1], 64, 20, counts[1]);
        make_table(&tables[2], 256, 64, counts[2]);
        make_table(&tables[3], 1024, 256, counts[3]);
}

/* One number of a match: the bits for its state, then its extra bits. */
static void encode_number(unsigned kind, unsigned v, unsigned *state, size_t at)
{
        const unsigned *base = kind == 0 ? base_l : kind == 1 ? base_m : NULL;
        unsigned extra, symbol = split(v, base, &extra, &match_bits.count[at + 1]);

        match_bits.value[at + 1] = extra;
        step_back(&tables[kind], symbol, state, &match_bits.value[at], &match_bits.count[at]);
}

/* A block of `length` bytes of plain, and the end mark. */
static size_t encode(size_t length)
{
        unsigned state[4] = { 0 }, lmd[3] = { 0 }, spare[2];
        size_t bit = 32 * 8, header, literal_bytes, lmd_bytes;

        find_matches(length);
        make_tables();
        literal_bits.used = literal_count;
        for (size_t i = literal_count; i-- > 0;)
                step_back(&tables[3], literals[i], &state[i % 4], &literal_bits.value[i], &literal_bits.count[i]);
        match_bits.used = 6 * match_count;
        for (size_t i = match_count; i-- > 0;) {
                encode_number(2, matches[i].d, &lmd[2], 6 * i + 4);
                encode_number(1, matches[i].m, &lmd[1], 6 * i + 2);
                encode_number(0, matches[i].l, &lmd[0], 6 * i);
        }
        memset(packed, 0, ROOM);
        for (unsigned t = 0; t < 4; t++)
                for (unsigned s = 0; s < tables[t].symbols; s++)
                        put_frequency(packed, &bit, tables[t].frequency[s]);
        header = (bit + 7) / 8;
        literal_bytes = write_bits(&literal_bits, packed + header, &spare[0]);
        lmd_bytes = write_bits(&match_bits, packed + header + literal_bytes, &spare[1]);
        memcpy(packed, "bvx2", 4);
        put(packed + 4, length, 4);
        put(packed + 8, literal_count | (uint64_t)literal_bytes << 20 | (uint64_t)match_count << 40 |
            (uint64_t)(7 - spare[0]) << 60, 8);
        put(packed + 16, state[0] | (uint64_t)state[1] << 10 | (uint64_t)state[2] << 20 | (uint64_t)state[3] << 30 |
            (uint64_t)lmd_bytes << 40 | (uint64_t)(7 - spare[1]) << 60, 8);
        put(packed + 24, header | (uint64_t)lmd[0] << 32 | (uint64_t)lmd[1] << 42 | (uint64_t)lmd[2] << 52, 8);
        memcpy(packed + header + literal_bytes + lmd_bytes, "bvx$", 4);
        return header + literal_bytes + lmd_bytes + 4;
}

/* Words of a few letters, and some noise. */
static void fill(void)
{
        uint64_t seed = 99;

        for (size_t i = 0; i < UNIT;) {
                unsigned word = (unsigned)(unit_random(&seed) % 700), noise = word < 30;

                for (unsigned j = 0; j < 3 + word % 9 && i < UNIT; j++)
                        plain[i++] = noise ? (uint8_t)unit_random(&seed) : (uint8_t)('a' + (word * (j + 3) + j) % 26);
        }
}

static void bvx2_blocks(const char *save)
{
        uint64_t seed = 7;
        size_t length = encode(UNIT);
        bool all = true;

        printf("# %zu matches, %zu literals: %d bytes become %zu\n", match_count, literal_count, UNIT, length);
        OK("bvx2: what the encoder packed", unpack(VD_CODEC_LZFSE, packed, length, UNIT) == 0 && !memcmp(unpacked,
                                                                                                         plain, UNIT));
        if (save) {
                FILE *file = fopen(save, "wb");

                NEED(file && fwrite(packed, 1, length, file) == length && !fclose(file));
        }
        for (size_t cut = 0; cut < length; cut += cut < 2000 ? 1 : 97)
                all = all && unpack(VD_CODEC_LZFSE, packed, cut, UNIT) == VD_ECORRUPT;
        OK("bvx2: cut anywhere it is corrupt", all);
        for (int i = 0; i < 3000; i++) {
                size_t at = unit_random(&seed) % (i % 2 ? length : 800);
                uint8_t old = packed[at];
                int r;

                packed[at] ^= (uint8_t)(1u << unit_random(&seed) % 8);
                r = unpack(VD_CODEC_LZFSE, packed, length, UNIT);
                all = all && (r == 0 || r == VD_ECORRUPT || r == VD_EUNSUPPORTED);
                packed[at] = old;
        }
        OK("bvx2: a flipped bit gives other bytes or an error, never anything worse", all);
        length = encode(1000);
        OK("bvx2: a short block", unpack(VD_CODEC_LZFSE, packed, length, 1000) == 0 && !memcmp(unpacked, plain, 1000));
}

int main(int argc, char **argv)
{
        context = vd_codec_context_new();
        NEED(context);
        fill();
        adc();
        lzvn_blocks();
        bvx2_blocks(argc > 1 ? argv[1] : NULL);
        vd_codec_context_free(context);
        return unit_done();
}
