// SPDX-License-Identifier: MIT
/* codec_bzip2.c: bzip2 units, as UDIF images have; read only. */
#include "codec_private.h"

#include <bzlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static void *bzip2_new(void)
{
        return calloc(1, sizeof(bz_stream));
}

/* Runs the decoder until the stream ends or input or output is used up. */
static int bzip2_run(bz_stream *stream)
{
        unsigned in, out;
        int status;

        do {
                in = stream->avail_in;
                out = stream->avail_out;
                status = BZ2_bzDecompress(stream);
        } while (status == BZ_OK && stream->avail_out && (stream->avail_in != in || stream->avail_out != out));
        return status;
}

static int bzip2_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                        struct vd_error *err)
{
        bz_stream *stream = state;
        char extra;
        size_t got;
        int status;

        if (packed_bytes > UINT_MAX || unpacked_bytes > UINT_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a bzip2 unit of %zu bytes is too large", unpacked_bytes);
        memset(stream, 0, sizeof(*stream));
        if (BZ2_bzDecompressInit(stream, 0, 0) != BZ_OK)
                return vd_codec_no_memory(&vd_codec_bzip2, err);
        stream->next_in = (char *)packed;       /* the library's type has no const; it only reads */
        stream->avail_in = (unsigned)packed_bytes;
        stream->next_out = unpacked;
        stream->avail_out = (unsigned)unpacked_bytes;
        status = bzip2_run(stream);
        got = unpacked_bytes - stream->avail_out;
        if (status == BZ_OK && got == unpacked_bytes) {
                /* All there; what is left must be the check of the last block, not content. */
                stream->next_out = &extra;
                stream->avail_out = 1;
                status = bzip2_run(stream);
                if (stream->avail_out == 0)
                        got++;
        }
        BZ2_bzDecompressEnd(stream);

        if (status == BZ_MEM_ERROR)
                return vd_codec_no_memory(&vd_codec_bzip2, err);
        if (got > unpacked_bytes)
                return vd_codec_gives_more(&vd_codec_bzip2, unpacked_bytes, err);
        if (status != BZ_OK && status != BZ_STREAM_END)
                return vd_codec_broken(&vd_codec_bzip2, got, unpacked_bytes, err);
        if (got < unpacked_bytes || status != BZ_STREAM_END)
                return vd_codec_ends_early(&vd_codec_bzip2, got, unpacked_bytes, err);
        return 0;
}

const struct vd_codec_methods vd_codec_bzip2 = {
        .name = "bzip2",
        .new_state = bzip2_new,
        .free_state = free,
        .unpack = bzip2_unpack,
};
