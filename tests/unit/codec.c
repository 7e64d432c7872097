// SPDX-License-Identifier: MIT
/* codec.c: every codec against what its library (not our code) makes and reads. */
#include "core/codec.h"
#include "unit.h"

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

enum { UNIT = 65536, ROOM = 2 * UNIT };

static uint8_t plain[UNIT], noise[UNIT], packed[ROOM], unpacked[UNIT + 64];
static struct vd_codec_context *context;
static struct vd_error err;

/* Text-like bytes, with repeats at all distances up to 60000. */
static void fill(void)
{
        uint64_t seed = 88172645463325252u;

        for (size_t i = 0; i < UNIT; i++)
                noise[i] = (uint8_t)(unit_random(&seed) >> 24);
        for (size_t i = 0; i < UNIT;) {
                size_t length = 4 + unit_random(&seed) % 60;

                if (i + length > UNIT)
                        length = UNIT - i;
                if (i < 64 || unit_random(&seed) % 3 == 0) {
                        memcpy(plain + i, noise + i, length);
                } else {
                        size_t back = 1 + unit_random(&seed) % (i < 60000 ? i : 60000);

                        for (size_t j = 0; j < length; j++)
                                plain[i + j] = plain[i + j - back];
                }
                i += length;
        }
}

static size_t foreign_deflate(int window_bits, int flush)
{
        z_stream stream = { 0 };

        NEED(deflateInit2(&stream, 9, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY) == Z_OK);
        stream.next_in = plain;
        stream.avail_in = UNIT;
        stream.next_out = packed;
        stream.avail_out = ROOM;
        deflate(&stream, flush);
        NEED(stream.avail_in == 0);
        deflateEnd(&stream);
        return ROOM - stream.avail_out;
}

static int unpack(enum vd_codec codec, size_t packed_bytes, size_t unpacked_bytes)
{
        memset(unpacked, 0xaa, sizeof(unpacked));
        err.code = 0;
        return vd_unpack(context, codec, packed, packed_bytes, unpacked, unpacked_bytes, &err);
}

static bool unpacks(enum vd_codec codec, size_t packed_bytes)
{
        if (unpack(codec, packed_bytes, UNIT) < 0) {
                printf("# %s\n", err.text);
                return false;
        }
        return memcmp(unpacked, plain, UNIT) == 0 && unpacked[UNIT] == 0xaa;
}

/* What must hold for the stream in packed[], whatever made it. */
static void common_faults(enum vd_codec codec, size_t length)
{
        const char *codec_name = vd_codec_name(codec);
        char name[128];
        bool all = true;

        snprintf(name, sizeof(name), "%s: a foreign stream is unpacked", codec_name);
        OK(name, unpacks(codec, length));
        memset(packed + length, 0x5a, 512);
        snprintf(name, sizeof(name), "%s: bytes after the stream are ignored", codec_name);
        OK(name, unpacks(codec, length + 512));
        snprintf(name, sizeof(name), "%s: a stream that gives more than the unit is corrupt", codec_name);
        OK(name, unpack(codec, length, UNIT - 1) == VD_ECORRUPT && unpacked[UNIT - 1] == 0xaa);
        snprintf(name, sizeof(name), "%s: a stream that gives less than the unit is corrupt", codec_name);
        OK(name, unpack(codec, length, UNIT + 1) == VD_ECORRUPT);
        for (size_t cut = 0; cut < length - 16; cut += 997)
                all = all && unpack(codec, cut, UNIT) == VD_ECORRUPT && err.text[0];
        snprintf(name, sizeof(name), "%s: a stream cut anywhere is corrupt", codec_name);
        OK(name, all);
        memset(packed + length / 2, 0xff, 24);
        snprintf(name, sizeof(name), "%s: a damaged stream never reads as good data", codec_name);
        OK(name, unpack(codec, length, UNIT) < 0 || memcmp(unpacked, plain, UNIT) != 0);
}

static void unpack_deflate(void)
{
        size_t length, first;

        common_faults(VD_CODEC_DEFLATE, foreign_deflate(-15, Z_FINISH));
        length = foreign_deflate(-15, Z_SYNC_FLUSH);
        OK("deflate: no final block is needed when all bytes are there", unpacks(VD_CODEC_DEFLATE, length));
        memset(packed + length, 0x5a, 512);
        OK("deflate: nor when other bytes follow", unpacks(VD_CODEC_DEFLATE, length + 512));
        OK("deflate: without final block too, more than the unit is corrupt",
           unpack(VD_CODEC_DEFLATE, length, UNIT - 1) == VD_ECORRUPT);
        length = foreign_deflate(-15, Z_FINISH);
        first = length;
        while (first > length - 8 && unpack(VD_CODEC_DEFLATE, first - 1, UNIT) == 0)
                first--;
        OK("deflate: a cut end code after all bytes is survived, cut bytes are not", first >= length - 4);

        common_faults(VD_CODEC_ZLIB, foreign_deflate(15, Z_FINISH));
        length = foreign_deflate(15, Z_FINISH);
        packed[length - 1] ^= 1;
        OK("zlib: a wrong checksum is corrupt", unpack(VD_CODEC_ZLIB, length, UNIT) == VD_ECORRUPT);
        packed[length - 1] ^= 1;
        OK("zlib: a cut checksum is corrupt", unpack(VD_CODEC_ZLIB, length - 1, UNIT) == VD_ECORRUPT);
        OK("deflate: a zlib wrapper is not taken for content", unpack(VD_CODEC_DEFLATE, length, UNIT) == VD_ECORRUPT);
}

static void unpack_zstd(void)
{
        size_t length = ZSTD_compress(packed, ROOM, plain, UNIT, 3), second;

        common_faults(VD_CODEC_ZSTD, length);
        length = ZSTD_compress(packed, ROOM, plain, 1000, 3);
        second = ZSTD_compress(packed + length, ROOM - length, plain + 1000, UNIT - 1000, 3);
        OK("zstd: several frames make one unit", unpacks(VD_CODEC_ZSTD, length + second));
        OK("zstd: a missing second frame is corrupt", unpack(VD_CODEC_ZSTD, length, UNIT) == VD_ECORRUPT);
}

static void unpack_bzip2(void)
{
        unsigned length = ROOM;

        NEED(BZ2_bzBuffToBuffCompress((char *)packed, &length, (char *)plain, UNIT, 9, 0, 0) == BZ_OK);
        common_faults(VD_CODEC_BZIP2, length);
}

static void unpack_xz(void)
{
        lzma_options_lzma options;
        lzma_filter filters[2] = { { LZMA_FILTER_LZMA2, &options }, { LZMA_VLI_UNKNOWN, NULL } };
        size_t position = 0;
        uint8_t *header;

        NEED(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, plain, UNIT, packed, &position, ROOM) == LZMA_OK);
        common_faults(VD_CODEC_XZ, position);

        /* The dictionary size stands in the block header, after the stream header of 12 bytes: byte 16 there, with
         * the header's CRC-32 after it. */
        position = 0;
        NEED(!lzma_lzma_preset(&options, 6));
        NEED(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, plain, UNIT, packed, &position, ROOM) ==
             LZMA_OK);
        header = packed + LZMA_STREAM_HEADER_SIZE;
        for (size_t i = 2, size = lzma_block_header_size_decode(header[0]); i + 6 < size; i++) {
                if (header[i] == 0x21 && header[i + 1] == 1) {          /* LZMA2, one byte of properties */
                        uint32_t crc;

                        header[i + 2] = 40;                             /* 4 GiB - 1 */
                        crc = lzma_crc32(header, size - 4, 0);
                        for (int b = 0; b < 4; b++)
                                header[size - 4 + (size_t)b] = (uint8_t)(crc >> 8 * b);
                        break;
                }
        }
        OK("xz: a stream that wants 4 GiB of memory is refused",
           unpack(VD_CODEC_XZ, position, UNIT) == VD_EUNSUPPORTED);
}

/* Is the stream complete, and do all its matches reach back at most 1 << bits? zlib checks the distances when the
 * output arrives in pieces.  Positive bits: in a zlib wrapper. */
static bool window_is(size_t length, int bits)
{
        z_stream stream = { 0 };
        uint8_t piece[64];
        int status = Z_OK;

        NEED(inflateInit2(&stream, bits) == Z_OK);
        stream.next_in = packed;
        stream.avail_in = (unsigned)length;
        while (status == Z_OK) {
                stream.next_out = piece;
                stream.avail_out = sizeof(piece);
                status = inflate(&stream, Z_NO_FLUSH);
        }
        inflateEnd(&stream);
        return status == Z_STREAM_END && stream.avail_in == 0 && stream.total_out == UNIT;
}

static void pack_all_levels(enum vd_codec codec, unsigned window_bits)
{
        static uint8_t first[ROOM];
        bool good = true, same = true, bounded = true;
        size_t length, again;
        char name[128];

        for (int level = 0; level <= 9; level++) {
                struct vd_pack_settings settings = { level, window_bits };
                struct vd_codec_context *fresh = vd_codec_context_new();

                NEED(fresh);
                NEED(vd_pack(fresh, codec, &settings, plain, UNIT, first, ROOM, &length, &err) == 0);
                vd_codec_context_free(fresh);
                /* The used context has packed other things before. */
                NEED(vd_pack(context, codec, &settings, noise, UNIT / 2, packed, ROOM, &again, &err) == 0);
                NEED(vd_pack(context, codec, &settings, plain, UNIT, packed, ROOM, &again, &err) == 0);
                same = same && length == again && memcmp(first, packed, length) == 0;
                good = good && length > 0 && length < UNIT && unpacks(codec, length);
                if (codec != VD_CODEC_ZSTD)
                        bounded = bounded && window_is(length, codec == VD_CODEC_ZLIB ? 15 : -(int)window_bits);
                if (!good || !same || !bounded)
                        printf("# level %d: %zu bytes, again %zu\n", level, length, again);
        }
        snprintf(name, sizeof(name), "%s, window %u: all levels pack what unpacks", vd_codec_name(codec), window_bits);
        OK(name, good);
        snprintf(name, sizeof(name), "%s, window %u: a used context gives the same bytes as a fresh one",
                 vd_codec_name(codec), window_bits);
        OK(name, same);
        snprintf(name, sizeof(name), "%s, window %u: matches stay inside the window, and the stream is complete",
                 vd_codec_name(codec), window_bits);
        OK(name, bounded);
}

static void pack_limits(enum vd_codec codec)
{
        struct vd_pack_settings settings = { 0, 12 };
        char name[128];
        size_t length, exact;

        snprintf(name, sizeof(name), "%s: noise does not fit and says so", vd_codec_name(codec));
        OK(name, vd_pack(context, codec, &settings, noise, UNIT, packed, UNIT - 1, &length, &err) == 0 && length == 0);
        NEED(vd_pack(context, codec, &settings, plain, UNIT, packed, ROOM, &exact, &err) == 0 && exact);
        memset(packed, 0x77, ROOM);
        NEED(vd_pack(context, codec, &settings, plain, UNIT, packed, exact / 2, &length, &err) == 0);
        snprintf(name, sizeof(name), "%s: nothing is written past the room", vd_codec_name(codec));
        OK(name, length == 0 && packed[exact / 2] == 0x77);
        memset(unpacked, 0, UNIT);
        NEED(vd_pack(context, codec, &settings, unpacked, UNIT, packed, ROOM, &length, &err) == 0);
        snprintf(name, sizeof(name), "%s: zeros become small", vd_codec_name(codec));
        OK(name, length > 0 && length < 1024);
}

int main(void)
{
        struct vd_pack_settings settings = { 0, 15 };
        size_t length;

        fill();
        context = vd_codec_context_new();
        NEED(context);
        unpack_deflate();
        unpack_zstd();
        unpack_bzip2();
        unpack_xz();
        pack_all_levels(VD_CODEC_DEFLATE, 12);
        pack_all_levels(VD_CODEC_DEFLATE, 15);
        pack_all_levels(VD_CODEC_ZLIB, 15);
        pack_all_levels(VD_CODEC_ZSTD, 15);
        pack_limits(VD_CODEC_DEFLATE);
        pack_limits(VD_CODEC_ZLIB);
        pack_limits(VD_CODEC_ZSTD);
        OK("packing with a codec that we only read is refused",
           vd_pack(context, VD_CODEC_BZIP2, &settings, plain, UNIT, packed, ROOM, &length, &err) == VD_EUNSUPPORTED);
        OK("an unknown codec is refused",
           vd_unpack(context, VD_CODEC_COUNT, packed, 1, unpacked, 1, &err) == VD_EUNSUPPORTED);
        vd_codec_context_free(context);
        vd_codec_context_free(NULL);
        return unit_done();
}
