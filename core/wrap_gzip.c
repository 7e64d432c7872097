// SPDX-License-Identifier: MIT
/* wrap_gzip.c: gzip files (RFC 1952), by zlib.
 *
 * Read: all members, as a stream.  Written: one member, whose deflate data is packed in blocks that end on a byte and do
 * not look back into each other (as pigz -i does), so that several processors can work on it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "util/endian.h"
#include "wrap_private.h"

static const char *const extensions[] = { "gz", NULL };

static bool gzip_matches(const uint8_t *head, size_t bytes)
{
        return bytes >= 4 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8 && !(head[3] & 0xe0);
}

/* ---- reading ---- */

struct reader {
        z_stream z;
        bool between;                   /* a member ended, none has begun since */
};

static void *gzip_start(void)
{
        struct reader *rd = calloc(1, sizeof(*rd));

        if (rd && inflateInit2(&rd->z, 15 + 16) != Z_OK) {
                free(rd);
                return NULL;
        }
        return rd;
}

static void gzip_end(void *state)
{
        struct reader *rd = state;

        inflateEnd(&rd->z);
        free(rd);
}

static int gzip_unpack(void *state, struct vd_unwrap_step *s, bool *done, struct vd_error *err)
{
        struct reader *rd = state;
        int r;

        if (rd->between && s->in_left) {
                if (*s->in != 0x1f)
                        return vd_wrap_trailing("gzip", err);
                inflateReset(&rd->z);
                rd->between = false;
        }
        *done = rd->between && s->is_last;
        if (rd->between)
                return 0;
        rd->z.next_in = (Bytef *)s->in;
        rd->z.avail_in = (uInt)s->in_left;
        rd->z.next_out = s->out;
        rd->z.avail_out = (uInt)s->out_left;
        r = inflate(&rd->z, Z_NO_FLUSH);
        s->in = rd->z.next_in;
        s->in_left = rd->z.avail_in;
        s->out = rd->z.next_out;
        s->out_left = rd->z.avail_out;
        if (r == Z_STREAM_END) {
                rd->between = true;
                *done = s->is_last && !s->in_left;
                return 0;
        }
        if (r == Z_MEM_ERROR)
                return vd_fail(err, -ENOMEM, "gzip");
        if (r != Z_OK && r != Z_BUF_ERROR)
                return vd_wrap_broken("gzip", rd->z.msg ? rd->z.msg : "not of its format", err);
        return s->is_last && !s->in_left && s->out_left ? vd_wrap_ends_early("gzip", err) : 0;
}

/* ---- writing ---- */

struct writer {
        uLong crc;
        uint64_t length;
};

static size_t gzip_pack_room(size_t bytes)
{
        return compressBound((uLong)bytes) + 64;
}

static int gzip_pack(unsigned level, const void *bytes, size_t length, void *to, size_t room, size_t *packed,
                     uint64_t *check, struct vd_error *err)
{
        z_stream z = { .next_in = (Bytef *)bytes, .avail_in = (uInt)length, .next_out = to, .avail_out = (uInt)room };
        int r;

        if (deflateInit2(&z, level ? (int)level : Z_DEFAULT_COMPRESSION, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY) != Z_OK)
                return vd_fail(err, -ENOMEM, "gzip");
        r = deflate(&z, Z_SYNC_FLUSH);
        *packed = room - z.avail_out;
        *check = crc32(0, bytes, (uInt)length);
        deflateEnd(&z);
        return r == Z_OK && !z.avail_in && z.avail_out ? 0 : vd_fail(err, -EIO, "gzip: a block does not fit");
}

static int gzip_open(struct vd_wrap_out *out, void **state, struct vd_error *err)
{
        static const uint8_t header[10] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3 };

        *state = calloc(1, sizeof(struct writer));
        return *state ? vd_wrap_put(out, header, sizeof(header), err) : vd_fail(err, -ENOMEM, "gzip");
}

static int gzip_add_block(void *state, struct vd_wrap_out *out, size_t length, const void *packed, size_t packed_bytes,
                          uint64_t check, struct vd_error *err)
{
        struct writer *w = state;

        w->crc = crc32_combine(w->crc, (uLong)check, (z_off_t)length);
        w->length += length;
        return vd_wrap_put(out, packed, packed_bytes, err);
}

static int gzip_close(void *state, struct vd_wrap_out *out, struct vd_error *err)
{
        const struct writer *w = state;
        struct { uint8_t last_block[2]; le32 crc, length; } trailer = {
                { 3, 0 }, le32_put((uint32_t)w->crc), le32_put((uint32_t)w->length),
        };

        return vd_wrap_put(out, &trailer, sizeof(trailer), err);
}

const struct vd_wrapper vd_wrapper_gzip = {
        .name = "gzip", .extensions = extensions, .matches = gzip_matches,
        .start = gzip_start, .unpack = gzip_unpack, .end = gzip_end,
        .pack_bytes = 1024 * 1024, .pack_room = gzip_pack_room, .pack = gzip_pack,
        .open = gzip_open, .add_block = gzip_add_block, .close = gzip_close, .free_state = free,
};
