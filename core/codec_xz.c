// SPDX-License-Identifier: MIT
/* codec_xz.c: .xz streams, as the LZMA chunks of UDIF images are; read only. */
#include "codec_private.h"

#include <lzma.h>
#include <stdlib.h>

/* Enough for the dictionary of "xz -9"; a hostile stream may ask for 4 GiB. */
#define XZ_MEMORY_LIMIT (UINT64_C(96) << 20)

static void *xz_new(void)
{
        lzma_stream *stream = malloc(sizeof(*stream));

        if (stream)
                *stream = (lzma_stream)LZMA_STREAM_INIT;
        return stream;
}

static void xz_free(void *state)
{
        lzma_end(state);
        free(state);
}

static int xz_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                     struct vd_error *err)
{
        lzma_stream *stream = state;
        uint8_t extra;
        size_t got;
        /* Starting again on a used stream keeps its memory. */
        lzma_ret status = lzma_stream_decoder(stream, XZ_MEMORY_LIMIT, 0);

        if (status != LZMA_OK)
                return vd_codec_no_memory(&vd_codec_xz, err);
        stream->next_in = packed;
        stream->avail_in = packed_bytes;
        stream->next_out = unpacked;
        stream->avail_out = unpacked_bytes;
        do {
                status = lzma_code(stream, LZMA_FINISH);
        } while (status == LZMA_OK && stream->avail_out);
        got = unpacked_bytes - stream->avail_out;
        if (status == LZMA_OK) {
                /* All there; what is left must be checks and index, not content. */
                stream->next_out = &extra;
                stream->avail_out = 1;
                do {
                        status = lzma_code(stream, LZMA_FINISH);
                } while (status == LZMA_OK && stream->avail_out);
                if (stream->avail_out == 0)
                        got++;
        }

        if (got > unpacked_bytes)
                return vd_codec_gives_more(&vd_codec_xz, unpacked_bytes, err);
        switch (status) {
        case LZMA_STREAM_END:
                return got == unpacked_bytes ? 0 : vd_codec_ends_early(&vd_codec_xz, got, unpacked_bytes, err);
        case LZMA_BUF_ERROR:
                return vd_codec_ends_early(&vd_codec_xz, got, unpacked_bytes, err);
        case LZMA_MEM_ERROR:
                return vd_codec_no_memory(&vd_codec_xz, err);
        case LZMA_MEMLIMIT_ERROR:
                return vd_fail(err, VD_EUNSUPPORTED, "xz stream needs %llu MiB of memory, more than the %llu allowed",
                               (unsigned long long)(lzma_memusage(stream) >> 20),
                               (unsigned long long)(XZ_MEMORY_LIMIT >> 20));
        case LZMA_OPTIONS_ERROR:
                return vd_fail(err, VD_EUNSUPPORTED, "xz stream uses a filter or an option that liblzma does not know");
        default:
                return vd_codec_broken(&vd_codec_xz, got, unpacked_bytes, err);
        }
}

const struct vd_codec_methods vd_codec_xz = {
        .name = "xz",
        .new_state = xz_new,
        .free_state = xz_free,
        .unpack = xz_unpack,
};
