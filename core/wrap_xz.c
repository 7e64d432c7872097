// SPDX-License-Identifier: MIT
/* wrap_xz.c: .xz files (version 1.2.0 of the format), by liblzma.
 *
 * An index at the end tells where each block begins, so that files of several blocks are read by random access.  Ours
 * have one stream with blocks of 4 MiB.
 */
#include <errno.h>
#include <inttypes.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "wrap_private.h"

enum {
        READ_BYTES = 64 * 1024,
        INDEX_MEMORY = 64 * 1024 * 1024,
        PACK_BYTES = 4 * 1024 * 1024,
        LEVEL_USUAL = 1,                /* half the time of 3 for 7% more */
};

static const char *const extensions[] = { "xz", NULL };

static bool xz_matches(const uint8_t *head, size_t bytes)
{
        return bytes >= 6 && !memcmp(head, "\xFD" "7zXZ\0", 6);
}

static int fail(lzma_ret r, struct vd_error *err)
{
        switch (r) {
        case LZMA_MEM_ERROR:
                return vd_fail(err, -ENOMEM, "xz");
        case LZMA_MEMLIMIT_ERROR:
                return vd_fail(err, VD_EUNSUPPORTED, "its xz data needs more than %d MiB of memory to unpack",
                               VD_WRAP_CODEC_MOST >> 20);
        case LZMA_OPTIONS_ERROR:
        case LZMA_UNSUPPORTED_CHECK:
                return vd_fail(err, VD_EUNSUPPORTED, "its xz data uses a filter or check that liblzma does not know");
        default:
                return vd_wrap_broken("xz", r == LZMA_FORMAT_ERROR ? "not of its format" : "wrong checksum or content",
                                      err);
        }
}

/* ---- as a stream ---- */

static void *xz_start(void)
{
        lzma_stream *z = calloc(1, sizeof(*z));

        if (z && lzma_stream_decoder(z, VD_WRAP_CODEC_MOST, LZMA_CONCATENATED) != LZMA_OK) {
                free(z);
                return NULL;
        }
        return z;
}

static void xz_end(void *state)
{
        lzma_end(state);
        free(state);
}

static int xz_unpack(void *state, struct vd_unwrap_step *s, bool *done, struct vd_error *err)
{
        lzma_stream *z = state;
        lzma_ret r;

        z->next_in = s->in;
        z->avail_in = s->in_left;
        z->next_out = s->out;
        z->avail_out = s->out_left;
        r = lzma_code(z, s->is_last ? LZMA_FINISH : LZMA_RUN);
        s->in = z->next_in;
        s->in_left = z->avail_in;
        s->out = z->next_out;
        s->out_left = z->avail_out;
        *done = r == LZMA_STREAM_END;
        if (r == LZMA_OK || r == LZMA_STREAM_END)
                return 0;
        if (r != LZMA_BUF_ERROR)
                return fail(r, err);
        return s->is_last && s->out_left ? vd_wrap_ends_early("xz", err) : 0;
}

/* ---- by random access ---- */

#if LZMA_VERSION >= UINT32_C(50040002)
static int read_index(struct vd_file *file, lzma_index **index, struct vd_error *err)
{
        VD_AUTOFREE uint8_t *buffer = malloc(READ_BYTES);
        lzma_stream z = LZMA_STREAM_INIT;
        uint64_t position = 0;
        lzma_ret code;
        int r = 0;

        if (!buffer)
                return vd_fail(err, -ENOMEM, "xz");
        code = lzma_file_info_decoder(&z, index, INDEX_MEMORY, vd_file_size(file));
        while (code == LZMA_OK && !r) {
                if (!z.avail_in) {
                        r = vd_file_read_some(file, buffer, READ_BYTES, position, &z.avail_in, err);
                        z.next_in = buffer;
                        position += z.avail_in;
                }
                if (!r)
                        code = lzma_code(&z, LZMA_RUN);
                if (code == LZMA_SEEK_NEEDED) {
                        position = z.seek_pos;
                        z.avail_in = 0;
                        code = LZMA_OK;
                }
        }
        lzma_end(&z);
        if (!r && code != LZMA_STREAM_END && code != LZMA_MEMLIMIT_ERROR)
                r = code == LZMA_BUF_ERROR ? vd_wrap_ends_early("xz", err) : fail(code, err);
        return r;
}

static int xz_index(struct vd_file *file, struct vd_wrap_index *out, struct vd_error *err)
{
        lzma_index *index = NULL;
        lzma_index_iter it;
        bool fits = true;
        int r = read_index(file, &index, err);

        if (r || !index)                /* an index too long for the memory: as a stream */
                return r;
        lzma_index_iter_init(&it, index);
        while (!r && fits && !lzma_index_iter_next(&it, LZMA_INDEX_ITER_NONEMPTY_BLOCK)) {
                struct vd_wrap_block block = {
                        .position = it.block.compressed_file_offset, .packed = it.block.unpadded_size,
                        .tag = it.stream.flags ? it.stream.flags->check : LZMA_CHECK_NONE,
                };

                r = vd_wrap_index_add(out, block, it.block.uncompressed_size, &fits, err);
        }
        if (!fits || out->count == 1)   /* one block: nothing is won */
                out->count = 0;
        lzma_index_end(index, NULL);
        return r;
}
#else
static int xz_index(struct vd_file *file, struct vd_wrap_index *out, struct vd_error *err)
{
        (void)file;
        (void)out;
        (void)err;
        return 0;
}
#endif

static int decode_header(struct vd_file *file, const struct vd_wrap_block *b, lzma_block *block, struct vd_error *err)
{
        uint8_t header[LZMA_BLOCK_HEADER_SIZE_MAX];
        size_t got;
        lzma_ret code;
        int r = vd_file_read_some(file, header, sizeof(header), b->position, &got, err);

        if (r)
                return r;
        if (!got || !header[0])
                return vd_wrap_broken("xz", "there is no block where the index has one", err);
        block->header_size = lzma_block_header_size_decode(header[0]);
        if (block->header_size > got)
                return vd_wrap_ends_early("xz", err);
        code = lzma_block_header_decode(block, NULL, header);
        if (code == LZMA_OK)
                code = lzma_block_compressed_size(block, b->packed);
        if (code == LZMA_OK && lzma_raw_decoder_memusage(block->filters) > VD_WRAP_CODEC_MOST)
                code = LZMA_MEMLIMIT_ERROR;
        return code == LZMA_OK ? 0 : fail(code, err);
}

static int decode_block(struct vd_file *file, const struct vd_wrap_block *b, lzma_stream *z, uint64_t header_bytes,
                        struct vd_error *err)
{
        VD_AUTOFREE uint8_t *buffer = malloc(READ_BYTES);
        uint64_t position = b->position + header_bytes, end = b->position + vd_round_up(b->packed, 4);
        lzma_ret code = LZMA_OK;

        if (!buffer)
                return vd_fail(err, -ENOMEM, "xz");
        while (code == LZMA_OK) {
                if (!z->avail_in) {
                        int r = vd_file_read_some(file, buffer, vd_min(READ_BYTES, end - position), position,
                                                  &z->avail_in, err);

                        if (r)
                                return r;
                        z->next_in = buffer;
                        position += z->avail_in;
                }
                code = lzma_code(z, LZMA_RUN);
        }
        if (code == LZMA_BUF_ERROR)
                return vd_wrap_broken("xz", "a block is shorter or longer than the index says", err);
        return code == LZMA_STREAM_END ? 0 : fail(code, err);
}

static int xz_unpack_block(struct vd_file *file, const struct vd_wrap_block *b, void *to, size_t length,
                           struct vd_error *err)
{
        lzma_filter filters[LZMA_FILTERS_MAX + 1] = { { .id = LZMA_VLI_UNKNOWN } };
        lzma_block block = { .version = 1, .check = (lzma_check)b->tag, .filters = filters };
        lzma_stream z = LZMA_STREAM_INIT;
        int r = decode_header(file, b, &block, err);

        if (!r) {
                lzma_ret code = lzma_block_decoder(&z, &block);

                z.next_out = to;
                z.avail_out = length;
                r = code == LZMA_OK ? decode_block(file, b, &z, block.header_size, err) : fail(code, err);
                if (!r && z.avail_out)
                        r = vd_wrap_broken("xz", "a block is shorter than the index says", err);
                lzma_end(&z);
        }
        for (size_t i = 0; filters[i].id != LZMA_VLI_UNKNOWN; i++)
                free(filters[i].options);
        return r;
}

/* ---- writing ---- */

struct writer {
        lzma_index *index;
};

static const lzma_stream_flags stream_flags = { .version = 0, .check = LZMA_CHECK_CRC64 };

static size_t xz_pack_room(size_t bytes)
{
        return lzma_block_buffer_bound(bytes);
}

static int xz_pack(unsigned level, const void *bytes, size_t length, void *to, size_t room, size_t *packed,
                   uint64_t *check, struct vd_error *err)
{
        lzma_options_lzma options;
        lzma_filter filters[2] = { { .id = LZMA_FILTER_LZMA2, .options = &options }, { .id = LZMA_VLI_UNKNOWN } };
        lzma_block block = { .version = 1, .check = stream_flags.check, .filters = filters };
        lzma_ret code;

        if (lzma_lzma_preset(&options, level ? level : LEVEL_USUAL))
                return vd_fail(err, VD_EUSAGE, "xz has no level %u", level);
        options.dict_size = (uint32_t)vd_min(options.dict_size, PACK_BYTES);
        *packed = 0;
        code = lzma_block_buffer_encode(&block, NULL, bytes, length, to, packed, room);
        if (code != LZMA_OK)
                return code == LZMA_MEM_ERROR ? vd_fail(err, -ENOMEM, "xz")
                                              : vd_fail(err, -EIO, "xz: packing a block failed (%d)", (int)code);
        *check = lzma_block_unpadded_size(&block);
        return 0;
}

static int xz_open(struct vd_wrap_out *out, void **state, struct vd_error *err)
{
        struct writer *w = calloc(1, sizeof(*w));
        uint8_t header[LZMA_STREAM_HEADER_SIZE];

        *state = w;
        if (!w || !(w->index = lzma_index_init(NULL)))
                return vd_fail(err, -ENOMEM, "xz");
        if (lzma_stream_header_encode(&stream_flags, header) != LZMA_OK)
                return vd_fail(err, -EIO, "xz: making a header failed");
        return vd_wrap_put(out, header, sizeof(header), err);
}

static int xz_add_block(void *state, struct vd_wrap_out *out, size_t length, const void *packed, size_t packed_bytes,
                        uint64_t check, struct vd_error *err)
{
        struct writer *w = state;
        lzma_ret code = lzma_index_append(w->index, NULL, check, length);

        if (code != LZMA_OK)
                return code == LZMA_MEM_ERROR ? vd_fail(err, -ENOMEM, "xz")
                                              : vd_fail(err, -EFBIG, "xz: more than an index can hold");
        return vd_wrap_put(out, packed, packed_bytes, err);
}

static int put_index(struct writer *w, struct vd_wrap_out *out, struct vd_error *err)
{
        VD_AUTOFREE uint8_t *buffer = malloc(READ_BYTES);
        lzma_stream z = LZMA_STREAM_INIT;
        lzma_ret code;
        int r = buffer ? 0 : vd_fail(err, -ENOMEM, "xz");

        code = lzma_index_encoder(&z, w->index);
        while (code == LZMA_OK && !r) {
                z.next_out = buffer;
                z.avail_out = READ_BYTES;
                code = lzma_code(&z, LZMA_RUN);
                r = vd_wrap_put(out, buffer, READ_BYTES - z.avail_out, err);
        }
        lzma_end(&z);
        return r || code == LZMA_STREAM_END ? r : vd_fail(err, -EIO, "xz: writing the index failed (%d)", (int)code);
}

static int xz_close(void *state, struct vd_wrap_out *out, struct vd_error *err)
{
        struct writer *w = state;
        lzma_stream_flags flags = stream_flags;
        uint8_t footer[LZMA_STREAM_HEADER_SIZE];
        int r = put_index(w, out, err);

        flags.backward_size = lzma_index_size(w->index);
        if (!r && lzma_stream_footer_encode(&flags, footer) != LZMA_OK)
                r = vd_fail(err, -EIO, "xz: making a footer failed");
        return r ? r : vd_wrap_put(out, footer, sizeof(footer), err);
}

static void xz_free_state(void *state)
{
        struct writer *w = state;

        if (w)
                lzma_index_end(w->index, NULL);
        free(w);
}

const struct vd_wrapper vd_wrapper_xz = {
        .name = "xz", .extensions = extensions, .matches = xz_matches,
        .start = xz_start, .unpack = xz_unpack, .end = xz_end,
        .index = xz_index, .unpack_block = xz_unpack_block,
        .pack_bytes = PACK_BYTES, .pack_room = xz_pack_room, .pack = xz_pack,
        .open = xz_open, .add_block = xz_add_block, .close = xz_close, .free_state = xz_free_state,
};
