// SPDX-License-Identifier: MIT
/* wrap.c: finding wrappers, and unpacking those that have no index. */
#include "wrap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "file_ops.h"
#include "receive.h"
#include "spool.h"
#include "util/checked.h"
#include "wrap_private.h"

enum {
        HEAD_BYTES = 512,
        READ_BYTES = 256 * 1024,
        HOLE_BYTES = 4096,
};

static const struct vd_wrapper *const wrappers[] = {
        &vd_wrapper_gzip, &vd_wrapper_bzip2, &vd_wrapper_xz, &vd_wrapper_zstd, NULL
};

int vd_wrapper_by_content(struct vd_file *file, const struct vd_wrapper **found, struct vd_error *err)
{
        uint8_t head[HEAD_BYTES];
        size_t got;
        int r = vd_file_read_some(file, head, sizeof(head), 0, &got, err);

        *found = NULL;
        for (size_t i = 0; wrappers[i] && !r && !*found; i++)
                if (wrappers[i]->matches(head, got))
                        *found = wrappers[i];
        return r;
}

const struct vd_wrapper *vd_wrapper_by_extension(const char *path)
{
        const char *dot = strrchr(path, '.');

        for (size_t i = 0; wrappers[i] && dot; i++)
                for (const char *const *e = wrappers[i]->extensions; *e; e++)
                        if (!strcasecmp(dot + 1, *e))
                                return wrappers[i];
        return NULL;
}

const char *vd_wrapper_name(const struct vd_wrapper *w)
{
        return w->name;
}

bool vd_wrapper_packs(const struct vd_wrapper *w)
{
        return w->pack;
}

int vd_wrap_ends_early(const char *name, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "its %s data ends before it is complete", name);
}

int vd_wrap_broken(const char *name, const char *why, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "its %s data is damaged: %s", name, why);
}

int vd_wrap_trailing(const char *name, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "something that is no %s data follows its %s data", name, name);
}

/* ---- what had to be unpacked: the bytes from one file, the identity of the other ---- */

struct unpacked_file {
        struct vd_file file;
        struct vd_file *base, *bytes;
};

static const struct unpacked_file *unpacked(const struct vd_file *f)
{
        return (const struct unpacked_file *)f;
}

static uint64_t unpacked_size(const struct vd_file *f)
{
        return vd_file_size(unpacked(f)->bytes);
}

static uint64_t unpacked_disk_bytes(const struct vd_file *f)
{
        return vd_file_disk_bytes(unpacked(f)->base);
}

static int unpacked_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                         struct vd_error *err)
{
        return vd_file_read_some(unpacked(f)->bytes, buffer, length, position, got, err);
}

static int unpacked_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        return vd_file_next(unpacked(f)->bytes, position, data, end, err);
}

static int unpacked_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        return vd_file_check_unchanged(unpacked(f)->base, err);
}

static bool unpacked_is(const struct vd_file *f, const struct stat *st)
{
        return vd_file_is(unpacked(f)->base, st);
}

static void unpacked_close(struct vd_file *f)
{
        vd_file_unref(unpacked(f)->base);
        vd_file_unref(unpacked(f)->bytes);
        free(f);
}

static const struct vd_file_ops unpacked_ops = {
        .size = unpacked_size, .disk_bytes = unpacked_disk_bytes, .read = unpacked_read, .next = unpacked_next,
        .check_unchanged = unpacked_check_unchanged, .is = unpacked_is, .close = unpacked_close,
};

/* ---- unpacking ---- */

struct unpacker {
        const struct vd_wrapper *wrapper;
        void *state;
        struct vd_file *base;
        uint64_t position;              /* of what is read next */
        uint8_t *buffer;
        struct vd_unwrap_step step;
        bool done;
};

static int unpack_some(void *context, void *buffer, size_t length, size_t *got, struct vd_error *err)
{
        struct unpacker *u = context;
        int r = 0;

        u->step.out = buffer;
        u->step.out_left = length;
        while (u->step.out_left && !u->done && !r) {
                if (!u->step.in_left && !u->step.is_last) {
                        size_t n;

                        r = vd_file_read_some(u->base, u->buffer, READ_BYTES, u->position, &n, err);
                        if (r)
                                break;
                        u->position += n;
                        u->step.in = u->buffer;
                        u->step.in_left = n;
                        u->step.is_last = n < READ_BYTES;
                }
                r = u->wrapper->unpack(u->state, &u->step, &u->done, err);
        }
        *got = length - u->step.out_left;
        return r;
}

static int unpack_all(const struct vd_wrapper *wrapper, struct vd_file *base, struct vd_file *to,
                      const volatile int *stop, struct vd_error *err)
{
        struct vd_copy_options options = { .sparse_bytes = HOLE_BYTES, .stop = stop };
        struct unpacker u = { .wrapper = wrapper, .base = base };
        int r;

        u.buffer = malloc(READ_BYTES);
        u.state = u.buffer ? wrapper->start() : NULL;
        r = u.state ? vd_receive(unpack_some, &u, to, &options, NULL, err)
                    : vd_fail(err, -ENOMEM, "unpacking %s data", wrapper->name);
        if (u.state)
                wrapper->end(u.state);
        free(u.buffer);
        return r ? r : vd_file_finish(to, err);
}

static int unwrap_spooled(struct vd_file **out, const struct vd_wrapper *wrapper, struct vd_file *base,
                          const volatile int *stop, struct vd_error *err)
{
        struct unpacked_file *u = calloc(1, sizeof(*u));
        int r;

        if (!u || vd_file_init(&u->file, &unpacked_ops, vd_file_name(base), false, err)) {
                free(u);
                return vd_fail(err, -ENOMEM, "%s", vd_file_name(base));
        }
        u->base = vd_file_ref(base);
        r = vd_spool_new(&u->bytes, vd_file_name(base), err);
        if (!r)
                r = unpack_all(wrapper, base, u->bytes, stop, err);
        if (r)
                vd_file_unref(&u->file);
        else
                *out = &u->file;
        return r;
}

/* ---- by random access, where that is possible ---- */

int vd_wrap_index_add(struct vd_wrap_index *x, struct vd_wrap_block block, uint64_t length, bool *fits,
                      struct vd_error *err)
{
        uint64_t end;

        block.start = x->count ? x->blocks[x->count].start : 0;
        *fits = x->count < VD_WRAP_BLOCKS_MOST && length <= VD_WRAP_BLOCK_MOST &&
                vd_add(block.start, length, &end) && end <= INT64_MAX;
        if (!*fits)
                return 0;
        if (x->count + 2 > x->room) {
                size_t room = x->room ? x->room * 2 : 256;
                struct vd_wrap_block *blocks = reallocarray(x->blocks, room, sizeof(*blocks));

                if (!blocks)
                        return vd_fail(err, -ENOMEM, "an index of %zu blocks", room);
                x->blocks = blocks;
                x->room = room;
        }
        x->blocks[x->count++] = block;
        x->blocks[x->count] = (struct vd_wrap_block){ .start = end };
        x->longest = vd_max(x->longest, length);
        return 0;
}

int vd_unwrap(struct vd_file **out, const struct vd_wrapper *wrapper, struct vd_file *base, const volatile int *stop,
              bool *spooled, struct vd_error *err)
{
        struct vd_wrap_index index = { 0 };
        int r = wrapper->index ? wrapper->index(base, &index, err) : 0;

        *spooled = !index.count;
        if (!r && index.count)
                return vd_wrap_open_blocks(out, wrapper, base, &index, err);
        free(index.blocks);
        return r ? r : unwrap_spooled(out, wrapper, base, stop, err);
}
