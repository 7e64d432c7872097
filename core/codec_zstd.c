// SPDX-License-Identifier: MIT
/* codec_zstd.c: Zstandard units (reference: RFC 8878).
 *
 * A unit is one or more frames that together give exactly its bytes.  Frames are unpacked straight into the unit, so
 * that the window which a frame declares costs no memory, however large.
 */
#include "codec_private.h"

#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { ZSTD_DEFAULT_LEVEL = 3 };

struct zstd {
        ZSTD_DCtx *unpacker;            /* each made when first needed */
        ZSTD_CCtx *packer;
};

static void *zstd_new(void)
{
        return calloc(1, sizeof(struct zstd));
}

static void zstd_free(void *state)
{
        struct zstd *zstd = state;

        ZSTD_freeDCtx(zstd->unpacker);
        ZSTD_freeCCtx(zstd->packer);
        free(zstd);
}

static int zstd_unpack(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                       struct vd_error *err)
{
        struct zstd *zstd = state;
        const char *in = packed;
        char *out = unpacked;
        size_t done = 0;

        if (!zstd->unpacker)
                zstd->unpacker = ZSTD_createDCtx();
        if (!zstd->unpacker)
                return vd_codec_no_memory(&vd_codec_zstd, err);

        /* Every frame takes input, so the loop ends even when frames give nothing. */
        while (done < unpacked_bytes) {
                size_t frame, got;

                if (packed_bytes == 0)
                        return vd_codec_ends_early(&vd_codec_zstd, done, unpacked_bytes, err);
                frame = ZSTD_findFrameCompressedSize(in, packed_bytes);
                if (ZSTD_isError(frame)) {
                        if (ZSTD_getErrorCode(frame) == ZSTD_error_srcSize_wrong)
                                return vd_codec_ends_early(&vd_codec_zstd, done, unpacked_bytes, err);
                        return vd_codec_broken(&vd_codec_zstd, done, unpacked_bytes, err);
                }
                got = ZSTD_decompressDCtx(zstd->unpacker, out + done, unpacked_bytes - done, in, frame);
                if (ZSTD_isError(got)) {
                        switch (ZSTD_getErrorCode(got)) {
                        case ZSTD_error_dstSize_tooSmall:
                                return vd_codec_gives_more(&vd_codec_zstd, unpacked_bytes, err);
                        case ZSTD_error_memory_allocation:
                                return vd_codec_no_memory(&vd_codec_zstd, err);
                        default:
                                return vd_codec_broken(&vd_codec_zstd, done, unpacked_bytes, err);
                        }
                }
                done += got;
                in += frame;
                packed_bytes -= frame;
        }
        return 0;
}

static int zstd_pack(void *state, const struct vd_pack_settings *settings, const void *plain, size_t plain_bytes,
                     void *packed, size_t room, size_t *packed_bytes, struct vd_error *err)
{
        struct zstd *zstd = state;
        size_t got;

        if (!zstd->packer)
                zstd->packer = ZSTD_createCCtx();
        if (!zstd->packer)
                return vd_codec_no_memory(&vd_codec_zstd, err);

        /* Frames carry their content size, which readers may need to size a buffer; that is the library's default. */
        got = ZSTD_compressCCtx(zstd->packer, packed, room, plain, plain_bytes,
                                settings->level ? settings->level : ZSTD_DEFAULT_LEVEL);
        if (!ZSTD_isError(got)) {
                *packed_bytes = got;
                return 0;
        }
        if (ZSTD_getErrorCode(got) == ZSTD_error_dstSize_tooSmall)
                return 0;
        if (ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
                return vd_codec_no_memory(&vd_codec_zstd, err);
        return vd_fail(err, VD_EUNSUPPORTED, "zstd cannot pack %zu bytes: %s", plain_bytes, ZSTD_getErrorName(got));
}

const struct vd_codec_methods vd_codec_zstd = {
        .name = "zstd",
        .new_state = zstd_new,
        .free_state = zstd_free,
        .unpack = zstd_unpack,
        .pack = zstd_pack,
};
