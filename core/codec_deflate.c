// SPDX-License-Identifier: MIT
/* codec_deflate.c: deflate units, raw (RFC 1951) or in a zlib wrapper (RFC 1950).
 *
 * Unpacking is libdeflate's, which wants a complete stream.  Raw units of qcow2 may lack their final block, since its
 * readers stop when the cluster is full; those are given to zlib.  A wrapped unit has a checksum and must be complete.
 *
 * Packing: levels 1 to 3 are ISA-L's, with a bounded history where asked, ten times as fast as zlib for about 5% more
 * size.  Higher levels, and all of them where ISA-L does not exist, are libdeflate's with the full window and zlib's
 * with a smaller one, which libdeflate cannot make.
 */
#include "codec_private.h"

#include <libdeflate.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

enum {
        DEFLATE_DEFAULT_LEVEL = 3,
        DEFLATE_FULL_WINDOW = 15,
        ISAL_TOP_LEVEL = 3,
};

struct deflate_tools {
        struct libdeflate_decompressor *unpacker;       /* everything is made when first needed */
        struct libdeflate_compressor *packer;           /* of packer_level */
        z_stream *inflater;
        z_stream *deflater;                             /* of deflater_level and deflater_window */
        int packer_level, deflater_level;
        unsigned deflater_window;
#ifdef HAVE_ISAL
        struct isal_zstream *isal;
        uint8_t *isal_buffer;                           /* room for any of its levels */
#endif
};

static void *deflate_new(void)
{
        return calloc(1, sizeof(struct deflate_tools));
}

static void deflate_free(void *state)
{
        struct deflate_tools *tools = state;

        if (tools->unpacker)
                libdeflate_free_decompressor(tools->unpacker);
        if (tools->packer)
                libdeflate_free_compressor(tools->packer);
        if (tools->inflater)
                inflateEnd(tools->inflater);
        if (tools->deflater)
                deflateEnd(tools->deflater);
        free(tools->inflater);
        free(tools->deflater);
#ifdef HAVE_ISAL
        free(tools->isal);
        free(tools->isal_buffer);
#endif
        free(tools);
}

/* ---- unpacking ---- */

static int make_inflater(struct deflate_tools *tools)
{
        z_stream *stream;

        if (tools->inflater)
                return inflateReset(tools->inflater);
        stream = calloc(1, sizeof(*stream));
        if (!stream)
                return Z_MEM_ERROR;
        if (inflateInit2(stream, -DEFLATE_FULL_WINDOW) != Z_OK) {
                free(stream);
                return Z_MEM_ERROR;
        }
        tools->inflater = stream;
        return Z_OK;
}

/* For raw streams that libdeflate refused: those which give all their bytes and then just stop, or go on with something
 * else between two blocks, are fine. */
static int unpack_unfinished(struct deflate_tools *tools, const void *packed, size_t packed_bytes, void *unpacked,
                             size_t unpacked_bytes, struct vd_error *err)
{
        enum { BETWEEN_BLOCKS = 128 };  /* in z_stream.data_type, after Z_BLOCK */
        z_stream *stream;
        uint8_t extra;
        int status;

        if (packed_bytes > UINT_MAX || unpacked_bytes > UINT_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a deflate unit of %zu bytes is too large", unpacked_bytes);
        if (make_inflater(tools) != Z_OK)
                return vd_codec_no_memory(&vd_codec_deflate, err);
        stream = tools->inflater;
        stream->next_in = (uint8_t *)packed;    /* the library's type has no const; it only reads */
        stream->avail_in = (unsigned)packed_bytes;
        stream->next_out = unpacked;
        stream->avail_out = (unsigned)unpacked_bytes;
        do {
                status = inflate(stream, Z_BLOCK);
        } while (status == Z_OK && stream->avail_out);
        if (stream->avail_out) {
                size_t got = unpacked_bytes - stream->avail_out;

                if (status == Z_MEM_ERROR)
                        return vd_codec_no_memory(&vd_codec_deflate, err);
                if (status == Z_DATA_ERROR)
                        return vd_codec_broken(&vd_codec_deflate, got, unpacked_bytes, err);
                return vd_codec_ends_early(&vd_codec_deflate, got, unpacked_bytes, err);
        }
        if (status == Z_STREAM_END || stream->data_type & BETWEEN_BLOCKS)
                return 0;

        /* Inside a block: only its end, or the end of the input, may come now. */
        stream->next_out = &extra;
        stream->avail_out = 1;
        status = inflate(stream, Z_BLOCK);
        if (stream->avail_out == 0)
                return vd_codec_gives_more(&vd_codec_deflate, unpacked_bytes, err);
        if (status == Z_DATA_ERROR)
                return vd_codec_broken(&vd_codec_deflate, unpacked_bytes, unpacked_bytes, err);
        return 0;
}

static int make_unpacker(struct deflate_tools *tools, const struct vd_codec_methods *codec, struct vd_error *err)
{
        if (!tools->unpacker)
                tools->unpacker = libdeflate_alloc_decompressor();
        return tools->unpacker ? 0 : vd_codec_no_memory(codec, err);
}

static int deflate_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                          struct vd_error *err)
{
        struct deflate_tools *tools = state;

        if (make_unpacker(tools, &vd_codec_deflate, err) < 0)
                return err->code;
        if (libdeflate_deflate_decompress(tools->unpacker, packed, packed_bytes, unpacked, unpacked_bytes, NULL) ==
            LIBDEFLATE_SUCCESS)
                return 0;
        return unpack_unfinished(tools, packed, packed_bytes, unpacked, unpacked_bytes, err);
}

bool vd_deflate_length(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                       size_t *length)
{
        struct deflate_tools *tools = state;
        size_t got;

        if (!tools->unpacker && !(tools->unpacker = libdeflate_alloc_decompressor()))
                return false;
        return libdeflate_deflate_decompress_ex(tools->unpacker, packed, packed_bytes, unpacked, unpacked_bytes,
                                                length, &got) == LIBDEFLATE_SUCCESS && got == unpacked_bytes;
}

static int zlib_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                       struct vd_error *err)
{
        struct deflate_tools *tools = state;
        size_t got = 0;

        if (make_unpacker(tools, &vd_codec_zlib, err) < 0)
                return err->code;
        switch (libdeflate_zlib_decompress(tools->unpacker, packed, packed_bytes, unpacked, unpacked_bytes, &got)) {
        case LIBDEFLATE_SUCCESS:
                return got == unpacked_bytes ? 0 : vd_codec_ends_early(&vd_codec_zlib, got, unpacked_bytes, err);
        case LIBDEFLATE_INSUFFICIENT_SPACE:
                return vd_codec_gives_more(&vd_codec_zlib, unpacked_bytes, err);
        default:
                return vd_fail(err, VD_ECORRUPT, "zlib stream is damaged or cut, or its checksum is wrong");
        }
}

/* ---- packing ---- */

#ifdef HAVE_ISAL
static int make_isal(struct deflate_tools *tools)
{
        if (!tools->isal)
                tools->isal = calloc(1, sizeof(*tools->isal));
        if (!tools->isal_buffer)
                tools->isal_buffer = calloc(1, ISAL_DEF_LVL3_DEFAULT);
        return tools->isal && tools->isal_buffer ? 0 : -1;
}

static int pack_isal(struct deflate_tools *tools, const struct vd_codec_methods *codec, int level, unsigned window_bits,
                     const void *plain, size_t plain_bytes, void *packed, size_t room, size_t *packed_bytes,
                     struct vd_error *err)
{
        static const uint32_t buffer_bytes[ISAL_TOP_LEVEL + 1] = {
                0, ISAL_DEF_LVL1_DEFAULT, ISAL_DEF_LVL2_DEFAULT, ISAL_DEF_LVL3_DEFAULT,
        };
        struct isal_zstream *stream;

        if (make_isal(tools) < 0)
                return vd_codec_no_memory(codec, err);
        stream = tools->isal;
        isal_deflate_init(stream);
        stream->level = (uint32_t)level;
        stream->level_buf = tools->isal_buffer;
        stream->level_buf_size = buffer_bytes[level];
        stream->hist_bits = (uint16_t)window_bits;
        stream->gzip_flag = codec == &vd_codec_zlib ? IGZIP_ZLIB : IGZIP_DEFLATE;
        stream->end_of_stream = 1;
        stream->next_in = (uint8_t *)plain;     /* the library's type has no const; it only reads */
        stream->avail_in = (uint32_t)plain_bytes;
        stream->next_out = packed;
        stream->avail_out = (uint32_t)room;
        if (isal_deflate(stream) == COMP_OK && stream->internal_state.state == ZSTATE_END)
                *packed_bytes = stream->total_out;
        return 0;
}
#endif

static int pack_libdeflate(struct deflate_tools *tools, const struct vd_codec_methods *codec, int level,
                           const void *plain, size_t plain_bytes, void *packed, size_t room, size_t *packed_bytes,
                           struct vd_error *err)
{
        if (tools->packer && tools->packer_level != level) {
                libdeflate_free_compressor(tools->packer);
                tools->packer = NULL;
        }
        if (!tools->packer)
                tools->packer = libdeflate_alloc_compressor(level);
        if (!tools->packer)
                return vd_codec_no_memory(codec, err);
        tools->packer_level = level;
        if (codec == &vd_codec_zlib)
                *packed_bytes = libdeflate_zlib_compress(tools->packer, plain, plain_bytes, packed, room);
        else
                *packed_bytes = libdeflate_deflate_compress(tools->packer, plain, plain_bytes, packed, room);
        return 0;
}

static int make_deflater(struct deflate_tools *tools, const struct vd_codec_methods *codec, int level,
                         unsigned window_bits)
{
        int window = codec == &vd_codec_zlib ? (int)window_bits : -(int)window_bits;
        z_stream *stream = tools->deflater;

        if (stream && tools->deflater_level == level && tools->deflater_window == window_bits)
                return deflateReset(stream);
        if (stream) {
                deflateEnd(stream);
                free(stream);
                tools->deflater = NULL;
        }
        stream = calloc(1, sizeof(*stream));
        if (!stream)
                return Z_MEM_ERROR;
        if (deflateInit2(stream, level, Z_DEFLATED, window, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
                free(stream);
                return Z_MEM_ERROR;
        }
        tools->deflater = stream;
        tools->deflater_level = level;
        tools->deflater_window = window_bits;
        return Z_OK;
}

static int pack_zlib(struct deflate_tools *tools, const struct vd_codec_methods *codec, int level, unsigned window_bits,
                     const void *plain, size_t plain_bytes, void *packed, size_t room, size_t *packed_bytes,
                     struct vd_error *err)
{
        z_stream *stream;

        if (make_deflater(tools, codec, level, window_bits) != Z_OK)
                return vd_codec_no_memory(codec, err);
        stream = tools->deflater;
        stream->next_in = (uint8_t *)plain;     /* the library's type has no const; it only reads */
        stream->avail_in = (unsigned)plain_bytes;
        stream->next_out = packed;
        stream->avail_out = (unsigned)room;
        if (deflate(stream, Z_FINISH) == Z_STREAM_END)
                *packed_bytes = room - stream->avail_out;
        return 0;
}

static int pack(struct deflate_tools *tools, const struct vd_codec_methods *codec,
                const struct vd_pack_settings *settings, const void *plain, size_t plain_bytes, void *packed,
                size_t room, size_t *packed_bytes, struct vd_error *err)
{
        int level = settings->level ? settings->level : DEFLATE_DEFAULT_LEVEL;
        unsigned window_bits = settings->window_bits ? settings->window_bits : DEFLATE_FULL_WINDOW;

        if (plain_bytes > INT_MAX || room > INT_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a %s unit of %zu bytes is too large", codec->name, plain_bytes);
        *packed_bytes = 0;
#ifdef HAVE_ISAL
        if (level <= ISAL_TOP_LEVEL)
                return pack_isal(tools, codec, level, window_bits, plain, plain_bytes, packed, room, packed_bytes,
                                 err);
#endif
        if (window_bits >= DEFLATE_FULL_WINDOW)
                return pack_libdeflate(tools, codec, level, plain, plain_bytes, packed, room, packed_bytes, err);
        return pack_zlib(tools, codec, level, window_bits, plain, plain_bytes, packed, room, packed_bytes, err);
}

static int deflate_pack(void *state, const struct vd_pack_settings *settings, const void *plain, size_t plain_bytes,
                        void *packed, size_t room, size_t *packed_bytes, struct vd_error *err)
{
        return pack(state, &vd_codec_deflate, settings, plain, plain_bytes, packed, room, packed_bytes, err);
}

static int zlib_pack(void *state, const struct vd_pack_settings *settings, const void *plain, size_t plain_bytes,
                     void *packed, size_t room, size_t *packed_bytes, struct vd_error *err)
{
        return pack(state, &vd_codec_zlib, settings, plain, plain_bytes, packed, room, packed_bytes, err);
}

const struct vd_codec_methods vd_codec_deflate = {
        .name = "deflate",
        .new_state = deflate_new,
        .free_state = deflate_free,
        .unpack = deflate_unpack,
        .pack = deflate_pack,
};

const struct vd_codec_methods vd_codec_zlib = {
        .name = "zlib",
        .new_state = deflate_new,
        .free_state = deflate_free,
        .unpack = zlib_unpack,
        .pack = zlib_pack,
};
