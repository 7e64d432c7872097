// SPDX-License-Identifier: MIT
/* wrap_bzip2.c: bzip2 files, read as a stream, by libbz2. */
#include <bzlib.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wrap_private.h"

static const char *const extensions[] = { "bz2", NULL };

struct reader {
        bz_stream bz;
        bool between;                   /* a stream ended, none has begun since */
};

/* The header, and the mark of a first block or of an end without blocks. */
static bool bzip2_matches(const uint8_t *head, size_t bytes)
{
        return bytes >= 10 && !memcmp(head, "BZh", 3) && head[3] >= '1' && head[3] <= '9' &&
               (!memcmp(head + 4, "\x31\x41\x59\x26\x53\x59", 6) || !memcmp(head + 4, "\x17\x72\x45\x38\x50\x90", 6));
}

static void *bzip2_start(void)
{
        struct reader *rd = calloc(1, sizeof(*rd));

        if (rd && BZ2_bzDecompressInit(&rd->bz, 0, 0) != BZ_OK) {
                free(rd);
                return NULL;
        }
        return rd;
}

static void bzip2_end(void *state)
{
        struct reader *rd = state;

        BZ2_bzDecompressEnd(&rd->bz);
        free(rd);
}

static int bzip2_unpack(void *state, struct vd_unwrap_step *s, bool *done, struct vd_error *err)
{
        struct reader *rd = state;
        int r;

        if (rd->between && s->in_left) {
                if (*s->in != 'B')
                        return vd_wrap_trailing("bzip2", err);
                BZ2_bzDecompressEnd(&rd->bz);
                memset(&rd->bz, 0, sizeof(rd->bz));
                if (BZ2_bzDecompressInit(&rd->bz, 0, 0) != BZ_OK)
                        return vd_fail(err, -ENOMEM, "bzip2");
                rd->between = false;
        }
        *done = rd->between && s->is_last;
        if (rd->between)
                return 0;
        rd->bz.next_in = (char *)s->in;
        rd->bz.avail_in = (unsigned)s->in_left;
        rd->bz.next_out = (char *)s->out;
        rd->bz.avail_out = (unsigned)s->out_left;
        r = BZ2_bzDecompress(&rd->bz);
        s->in = (const uint8_t *)rd->bz.next_in;
        s->in_left = rd->bz.avail_in;
        s->out = (uint8_t *)rd->bz.next_out;
        s->out_left = rd->bz.avail_out;
        if (r == BZ_STREAM_END) {
                rd->between = true;
                *done = s->is_last && !s->in_left;
                return 0;
        }
        if (r == BZ_MEM_ERROR)
                return vd_fail(err, -ENOMEM, "bzip2");
        if (r != BZ_OK)
                return vd_wrap_broken("bzip2", r == BZ_DATA_ERROR ? "wrong checksum or content" : "not of its format",
                                      err);
        return s->is_last && !s->in_left && s->out_left ? vd_wrap_ends_early("bzip2", err) : 0;
}

const struct vd_wrapper vd_wrapper_bzip2 = {
        .name = "bzip2", .extensions = extensions, .matches = bzip2_matches,
        .start = bzip2_start, .unpack = bzip2_unpack, .end = bzip2_end,
};
