// SPDX-License-Identifier: MIT
/* codec.h: packing and unpacking single units of a disk.
 *
 * A unit is at most a few MiB and unpacks to a length known beforehand.  Contexts are not shared between threads.
 */
#ifndef VD_CORE_CODEC_H
#define VD_CORE_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "util/error.h"

enum vd_codec {
        VD_CODEC_NONE,
        VD_CODEC_DEFLATE,               /* raw deflate (RFC 1951), no wrapper */
        VD_CODEC_ZLIB,                  /* deflate in a zlib wrapper (RFC 1950) */
        VD_CODEC_ZSTD,                  /* one or more zstd frames (RFC 8878) */
        VD_CODEC_BZIP2,
        VD_CODEC_XZ,                    /* an .xz stream, as LZMA chunks of UDIF have */
        VD_CODEC_ADC,                   /* Apple Data Compression; ends when the unit is full */
        VD_CODEC_LZFSE,                 /* an LZFSE stream up to its end mark, LZVN blocks included */
        VD_CODEC_COUNT
};

/* Reused state: one per thread that packs or unpacks.  NULL when memory is short. */
struct vd_codec_context;
struct vd_codec_context *vd_codec_context_new(void);
void vd_codec_context_free(struct vd_codec_context *);

/* "deflate", "zstd", ... */
const char *vd_codec_name(enum vd_codec);

/* Unpacks to exactly unpacked_bytes.  Bytes that follow the stream are ignored; a stream that ends early, breaks its
 * format or would give more is VD_ECORRUPT.  Deflate matches may reach back 32768 bytes. */
int vd_unpack(struct vd_codec_context *, enum vd_codec, const void *packed, size_t packed_bytes,
              void *unpacked, size_t unpacked_bytes, struct vd_error *);

struct vd_pack_settings {
        int level;                      /* 1 (fastest) .. 9 (smallest); 0: the codec's default here */
        unsigned window_bits;           /* deflate history: 12 for qcow2 (matches reach back 4096 bytes), 15 otherwise */
};

/* Packs into at most room bytes.  *packed_bytes = 0 when the result would not fit, which is not an error. */
int vd_pack(struct vd_codec_context *, enum vd_codec, const struct vd_pack_settings *, const void *plain,
            size_t plain_bytes, void *packed, size_t room, size_t *packed_bytes, struct vd_error *);

/* A packed unit on its way into a format with another wrapper. */
struct vd_rewrap {
        enum vd_codec from, to;
        const struct vd_pack_settings *settings;        /* of the target */
        uint8_t *buffer;                /* holds the unit, and then the result; room bytes long */
        size_t packed_bytes, room;
        void *scratch;                  /* unpacked_bytes long, for the case that a checksum is needed */
        size_t unpacked_bytes;
        size_t max_packed;
};

/* Changes the wrapper without packing again, where that is possible: the same codec; raw deflate out of a zlib wrapper
 * that announces a history window within settings->window_bits; raw deflate into a zlib wrapper.  Returns the length of
 * the result, or 0 when it is not possible or would be longer than max_packed. */
size_t vd_rewrap(struct vd_codec_context *, const struct vd_rewrap *);

#endif
