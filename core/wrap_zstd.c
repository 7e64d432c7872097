// SPDX-License-Identifier: MIT
/* wrap_zstd.c: .zst files (RFC 8878), by libzstd; with the seekable format of zstd's contrib/seekable_format: frames that
 * stand for themselves, and at the end, in a skippable frame, a table of their lengths:
 *
 *      [ frame ] ... [ 0x184D2A5E | length | table: { packed, unpacked (, checksum) } ... | frames | flags | 0x8F92EAB1 ]
 *
 * Every number is 32 bits, little-endian, except the flags (8 bits: 0x80, entries have checksums).
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/endian.h"
#include "wrap_private.h"

#define SKIPPABLE 0x184D2A50u           /* to 0x184D2A5F */
#define TABLE_MAGIC 0x184D2A5Eu
#define SEEKABLE_MAGIC 0x8F92EAB1u

enum {
        PACK_BYTES = 4 * 1024 * 1024,
        TABLE_ENTRIES_AT_ONCE = 4096,
        FLAG_CHECKSUMS = 0x80,
};

struct seek_footer_disk {
        le32 frames;
        uint8_t flags;
        le32 magic;
};
static_assert(sizeof(struct seek_footer_disk) == 9, "layout");

struct skippable_disk {
        le32 magic;
        le32 length;                    /* of what follows */
};
static_assert(sizeof(struct skippable_disk) == 8, "layout");

struct seek_entry_disk {
        le32 packed, unpacked;
};
static_assert(sizeof(struct seek_entry_disk) == 8, "layout");

static const char *const extensions[] = { "zst", NULL };

static uint32_t number(const uint8_t *bytes)
{
        le32 v;

        memcpy(&v, bytes, sizeof(v));
        return le32_get(v);
}

/* pzstd begins with a skippable frame. */
static bool zstd_matches(const uint8_t *head, size_t bytes)
{
        if (bytes >= 4 && number(head) == ZSTD_MAGICNUMBER)
                return true;
        return bytes >= 12 && (number(head) & 0xFFFFFFF0u) == SKIPPABLE && number(head + 4) <= bytes - 12 &&
               number(head + 8 + number(head + 4)) == ZSTD_MAGICNUMBER;
}

static int fail(size_t code, struct vd_error *err)
{
        switch (ZSTD_getErrorCode(code)) {
        case ZSTD_error_memory_allocation:
                return vd_fail(err, -ENOMEM, "zstd");
        case ZSTD_error_frameParameter_windowTooLarge:
                return vd_fail(err, VD_EUNSUPPORTED, "its zstd data needs more than 128 MiB of memory to unpack");
        default:
                return vd_wrap_broken("zstd", ZSTD_getErrorName(code), err);
        }
}

/* ---- as a stream ---- */

struct reader {
        ZSTD_DStream *z;
        bool inside;                    /* a frame has begun and not ended */
};

static void *zstd_start(void)
{
        struct reader *rd = calloc(1, sizeof(*rd));

        if (rd && !(rd->z = ZSTD_createDStream())) {
                free(rd);
                return NULL;
        }
        return rd;
}

static void zstd_end(void *state)
{
        struct reader *rd = state;

        ZSTD_freeDStream(rd->z);
        free(rd);
}

static int zstd_unpack(void *state, struct vd_unwrap_step *s, bool *done, struct vd_error *err)
{
        struct reader *rd = state;
        ZSTD_inBuffer in = { s->in, s->in_left, 0 };
        ZSTD_outBuffer out = { s->out, s->out_left, 0 };
        size_t r;

        *done = !rd->inside && !s->in_left && s->is_last;
        if (*done || (!rd->inside && !s->in_left))
                return 0;
        r = ZSTD_decompressStream(rd->z, &out, &in);
        if (ZSTD_isError(r))
                return fail(r, err);
        rd->inside = r != 0;
        s->in += in.pos;
        s->in_left -= in.pos;
        s->out += out.pos;
        s->out_left -= out.pos;
        *done = !rd->inside && !s->in_left && s->is_last;
        return rd->inside && s->is_last && !s->in_left && s->out_left ? vd_wrap_ends_early("zstd", err) : 0;
}

/* ---- by random access ---- */

/* Where the table's entries begin; *entries stays 0 when there is no table. */
static int find_table(struct vd_file *file, uint64_t *position, uint64_t *entries, size_t *entry_bytes,
                      struct vd_error *err)
{
        struct seek_footer_disk footer;
        struct skippable_disk head;
        uint64_t size = vd_file_size(file), count, bytes;
        int r;

        if (size < sizeof(head) + sizeof(footer))
                return 0;
        r = vd_file_read(file, &footer, sizeof(footer), size - sizeof(footer), err);
        if (r || le32_get(footer.magic) != SEEKABLE_MAGIC)
                return r;
        count = le32_get(footer.frames);
        *entry_bytes = sizeof(struct seek_entry_disk) + (footer.flags & FLAG_CHECKSUMS ? sizeof(le32) : 0);
        bytes = sizeof(head) + count * *entry_bytes + sizeof(footer);
        if (bytes > size)
                return vd_wrap_broken("zstd", "its seek table is longer than the file", err);
        r = vd_file_read(file, &head, sizeof(head), size - bytes, err);
        if (r)
                return r;
        if (le32_get(head.magic) != TABLE_MAGIC || le32_get(head.length) != bytes - sizeof(head))
                return vd_wrap_broken("zstd", "its seek table has no beginning", err);
        *position = size - bytes + sizeof(head);
        *entries = count;
        return 0;
}

static int zstd_index(struct vd_file *file, struct vd_wrap_index *index, struct vd_error *err)
{
        VD_AUTOFREE uint8_t *table = NULL;
        uint64_t position = 0, entries = 0, at = 0;
        size_t entry_bytes = 0;
        bool fits = true;
        int r = find_table(file, &position, &entries, &entry_bytes, err);

        if (r || !entries)
                return r;
        table = malloc(TABLE_ENTRIES_AT_ONCE * entry_bytes);
        if (!table)
                return vd_fail(err, -ENOMEM, "zstd");
        for (uint64_t first = 0; first < entries && !r && fits; first += TABLE_ENTRIES_AT_ONCE) {
                uint64_t n = vd_min(TABLE_ENTRIES_AT_ONCE, entries - first);

                r = vd_file_read(file, table, n * entry_bytes, position + first * entry_bytes, err);
                for (uint64_t i = 0; i < n && !r && fits; i++) {
                        const uint8_t *entry = table + i * entry_bytes;
                        struct vd_wrap_block block = { .position = at, .packed = number(entry) };
                        uint32_t length = number(entry + 4);

                        block.tag = entry_bytes > sizeof(struct seek_entry_disk);
                        block.check = block.tag ? number(entry + 8) : 0;
                        if (length)
                                r = vd_wrap_index_add(index, block, length, &fits, err);
                        at += block.packed;
                }
        }
        if (!r && fits && at != position - sizeof(struct skippable_disk))
                r = vd_wrap_broken("zstd", "its seek table does not fit its frames", err);
        if (!fits)
                index->count = 0;
        return r;
}

/* The table's checksum of a frame is what zstd puts at the end of frames, which not all have: so it makes one. */
static int verify(const void *bytes, size_t length, uint32_t expected, struct vd_error *err)
{
        size_t room = ZSTD_compressBound(length), n = 0;
        VD_AUTOFREE uint8_t *packed = malloc(room);
        ZSTD_CCtx *z = ZSTD_createCCtx();

        if (packed && z) {
                ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, ZSTD_minCLevel());
                ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
                n = ZSTD_compress2(z, packed, room, bytes, length);
        }
        ZSTD_freeCCtx(z);
        if (n < sizeof(le32) || ZSTD_isError(n))
                return vd_fail(err, -ENOMEM, "zstd");
        return number(packed + n - sizeof(le32)) == expected ? 0 : vd_wrap_broken("zstd", "wrong checksum", err);
}

static int zstd_unpack_block(struct vd_file *file, const struct vd_wrap_block *b, void *to, size_t length,
                             struct vd_error *err)
{
        VD_AUTOFREE void *packed = NULL;
        size_t n;
        int r;

        if (b->packed > ZSTD_COMPRESSBOUND((uint64_t)length) + 4096)
                return vd_wrap_broken("zstd", "a frame is longer than its content can need", err);
        packed = malloc(b->packed ? b->packed : 1);
        if (!packed)
                return vd_fail(err, -ENOMEM, "zstd");
        r = vd_file_read(file, packed, b->packed, b->position, err);
        if (r)
                return r;
        n = ZSTD_decompress(to, length, packed, b->packed);
        if (ZSTD_isError(n))
                return fail(n, err);
        if (n != length)
                return vd_wrap_broken("zstd", "a frame is shorter than the seek table says", err);
        return b->tag ? verify(to, length, b->check, err) : 0;
}

/* ---- writing ---- */

struct writer {
        struct seek_entry_disk *entries;
        size_t count, room;
};

static size_t zstd_pack_room(size_t bytes)
{
        return ZSTD_compressBound(bytes);
}

/* Levels 1 to 9 span those of the library that are usable without huge windows: 1 to 19. */
static int level_of(unsigned level)
{
        static const int levels[] = { 3, 1, 2, 3, 5, 7, 9, 12, 15, 19 };

        return levels[level];
}

static int zstd_pack(unsigned level, const void *bytes, size_t length, void *to, size_t room, size_t *packed,
                     uint64_t *check, struct vd_error *err)
{
        ZSTD_CCtx *z = ZSTD_createCCtx();
        size_t n;

        if (!z)
                return vd_fail(err, -ENOMEM, "zstd");
        ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, level_of(level));
        ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
        n = ZSTD_compress2(z, to, room, bytes, length);
        ZSTD_freeCCtx(z);
        if (ZSTD_isError(n))
                return vd_fail(err, -EIO, "zstd: packing a block failed: %s", ZSTD_getErrorName(n));
        *packed = n;
        *check = 0;
        return 0;
}

static int zstd_open(struct vd_wrap_out *out, void **state, struct vd_error *err)
{
        (void)out;
        *state = calloc(1, sizeof(struct writer));
        return *state ? 0 : vd_fail(err, -ENOMEM, "zstd");
}

static int zstd_add_block(void *state, struct vd_wrap_out *out, size_t length, const void *packed, size_t packed_bytes,
                          uint64_t check, struct vd_error *err)
{
        struct writer *w = state;

        (void)check;
        if (w->count == w->room) {
                size_t room = w->room ? w->room * 2 : 1024;
                struct seek_entry_disk *entries = reallocarray(w->entries, room, sizeof(*entries));

                if (!entries)
                        return vd_fail(err, -ENOMEM, "zstd: %zu frames", room);
                w->entries = entries;
                w->room = room;
        }
        w->entries[w->count++] = (struct seek_entry_disk){ le32_put((uint32_t)packed_bytes), le32_put((uint32_t)length) };
        return vd_wrap_put(out, packed, packed_bytes, err);
}

enum { FRAMES_MOST = 0x8000000 };      /* in a table, as the format says */

static int put_empty_frame(struct vd_wrap_out *out, struct vd_error *err)
{
        char packed[64];
        size_t n = ZSTD_compress(packed, sizeof(packed), "", 0, 1);

        return ZSTD_isError(n) ? vd_fail(err, -EIO, "zstd: an empty frame") : vd_wrap_put(out, packed, n, err);
}

static int zstd_close(void *state, struct vd_wrap_out *out, struct vd_error *err)
{
        const struct writer *w = state;
        size_t bytes = w->count * sizeof(*w->entries);
        struct skippable_disk head = { le32_put(TABLE_MAGIC), le32_put((uint32_t)(bytes + sizeof(struct seek_footer_disk))) };
        struct seek_footer_disk footer = { le32_put((uint32_t)w->count), 0, le32_put(SEEKABLE_MAGIC) };
        int r;

        if (!w->count)
                return put_empty_frame(out, err);
        if (w->count > FRAMES_MOST)     /* then without */
                return 0;
        r = vd_wrap_put(out, &head, sizeof(head), err);
        if (!r)
                r = vd_wrap_put(out, w->entries, bytes, err);
        return r ? r : vd_wrap_put(out, &footer, sizeof(footer), err);
}

static void zstd_free_state(void *state)
{
        struct writer *w = state;

        if (w)
                free(w->entries);
        free(w);
}

const struct vd_wrapper vd_wrapper_zstd = {
        .name = "zstd", .extensions = extensions, .matches = zstd_matches,
        .start = zstd_start, .unpack = zstd_unpack, .end = zstd_end,
        .index = zstd_index, .unpack_block = zstd_unpack_block,
        .pack_bytes = PACK_BYTES, .pack_room = zstd_pack_room, .pack = zstd_pack,
        .open = zstd_open, .add_block = zstd_add_block, .close = zstd_close, .free_state = zstd_free_state,
};
