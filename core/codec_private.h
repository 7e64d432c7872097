// SPDX-License-Identifier: MIT
/* codec_private.h: what stands in codec.c's table: one record per (de)compressor. */
#ifndef VD_CORE_CODEC_PRIVATE_H
#define VD_CORE_CODEC_PRIVATE_H

#include <stdbool.h>

#include "codec.h"

struct vd_codec_methods {
        const char *name;
        /* State that is kept from unit to unit; made when the codec is first used.  NULL when memory is short.
         * No methods when there is none. */
        void *(*new_state)(void);
        void (*free_state)(void *state);
        /* As vd_unpack() and vd_pack() without context.  pack: NULL when nothing of ours writes this codec. */
        int (*unpack)(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                      struct vd_error *);
        int (*pack)(void *state, const struct vd_pack_settings *, const void *plain, size_t plain_bytes, void *packed,
                    size_t room, size_t *packed_bytes, struct vd_error *);
};

extern const struct vd_codec_methods vd_codec_deflate, vd_codec_zlib, vd_codec_zstd, vd_codec_bzip2, vd_codec_xz,
                                     vd_codec_adc, vd_codec_lzfse;

/* The methods of a codec, its state made; NULL after *err was set.  And that state. */
const struct vd_codec_methods *vd_codec_use(struct vd_codec_context *, enum vd_codec, struct vd_error *);
void *vd_codec_state(struct vd_codec_context *, enum vd_codec);

/* Unpacks a complete deflate stream of unpacked_bytes and says how long it is; false when it is not one. */
bool vd_deflate_length(void *state, const void *packed, size_t packed_bytes, void *unpacked, size_t unpacked_bytes,
                       size_t *length);

/* What a Lempel-Ziv decoder of our own has put out, and how far it may go. */
struct vd_lz_output {
        uint8_t *bytes;
        size_t done, room;
};

/* Appends bytes, or earlier output again (which may overlap what it becomes).  False, with nothing done, when there is
 * no room or no output at that distance. */
bool vd_lz_literals(struct vd_lz_output *, const uint8_t *, size_t length);
bool vd_lz_match(struct vd_lz_output *, size_t length, size_t distance);

/* All operations of an LZVN block; false when it is damaged or does not end with its last byte. */
bool vd_lzvn_block(struct vd_lz_output *, const uint8_t *in, size_t in_bytes);

/* The faults that all of them report in the same words. */
int vd_codec_ends_early(const struct vd_codec_methods *, size_t got, size_t expected, struct vd_error *);
int vd_codec_gives_more(const struct vd_codec_methods *, size_t expected, struct vd_error *);
int vd_codec_broken(const struct vd_codec_methods *, size_t got, size_t expected, struct vd_error *);
int vd_codec_no_memory(const struct vd_codec_methods *, struct vd_error *);

#endif
