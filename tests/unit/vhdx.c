// SPDX-License-Identifier: MIT
/* vhdx.c: random writes, zeros and drops into VHDX disks, new and in place, against a model in memory. */
#include <stdlib.h>
#include <unistd.h>

#include "core/check.h"
#include "core/write.h"
#include "unit.h"
#include "util/checked.h"

#define GIB (1ull << 30)
#define MIB (1ull << 20)

/* The parts of a large disk that the tests touch: its start, the border of two chunks, its end. */
enum { WINDOWS = 3, WINDOW = 6 << 20 };

struct disk {
        uint64_t size, starts[WINDOWS];
        uint8_t *now[WINDOWS], *parent[WINDOWS];
};

static uint64_t state = 88172645463325252ull;

static uint64_t random_below(uint64_t limit)
{
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state % limit;
}

static bool ok(int r, const struct vd_error *err)
{
        if (r)
                printf("# %s\n", err->text);
        return r == 0;
}

static bool make(const char *path, const char *options, uint64_t size, struct vd_image *backing, const char *backing_name)
{
        const struct vd_format *format = vd_format_by_name("vhdx");
        struct vd_error err = VD_ERROR_INIT;
        struct vd_output *out = NULL;
        struct vd_image *img = NULL;
        void *params = calloc(1, format->params_size);
        struct vd_create create = { .size = size, .params = params, .backing = backing, .backing_name = backing_name,
                                    .backing_format = backing ? "vhdx" : NULL };
        struct vd_writer *w;
        int r = vd_opts_parse_list(format->create_opts, options, params, &err);

        unlink(path);
        if (!r)
                r = vd_output_new(&out, path, 0, &err);
        if (!r)
                r = vd_image_create(&img, format, out, &create, &err);
        w = r ? NULL : vd_writer_new(img);
        if (!r)
                r = vd_writer_finish(w, &err);
        vd_writer_free(w);
        vd_image_close(img);
        if (!r)
                r = vd_output_commit(out, &err);
        vd_output_free(out);
        vd_opts_free(format->create_opts, params);
        free(params);
        return ok(r, &err);
}

static struct vd_image *open_image(const char *path, bool write)
{
        struct vd_open how = { .write = write };
        struct vd_error err = VD_ERROR_INIT;
        struct vd_image *img = NULL;

        return ok(vd_image_open(&img, path, &how, &err), &err) ? img : NULL;
}

static bool same(const char *path, const struct disk *d)
{
        struct vd_codec_context *codec = vd_codec_context_new();
        struct vd_image *img = open_image(path, false);
        struct vd_error err = VD_ERROR_INIT;
        uint8_t *buffer = malloc(WINDOW);
        bool good = img && img->size == d->size;

        for (unsigned i = 0; i < WINDOWS && good; i++) {
                good = ok(vd_image_read(img, buffer, WINDOW, d->starts[i], codec, &err), &err) &&
                       !memcmp(buffer, d->now[i], WINDOW);
                for (size_t at = 0; !good && at < WINDOW; at++)
                        if (buffer[at] != d->now[i][at]) {
                                printf("# %s: window %u differs at %zu\n", path, i, at);
                                break;
                        }
        }
        free(buffer);
        vd_image_close(img);
        vd_codec_context_free(codec);
        return good;
}

/* Places a request that carries no bytes of its own. */
static bool request(struct vd_writer *w, uint64_t start, uint64_t length, enum vd_kind kind)
{
        struct vd_error err = VD_ERROR_INIT;
        int r = 0;

        while (length && !r) {
                struct vd_request want = { .start = start, .length = length, .kind = kind };
                struct vd_place place;

                r = vd_writer_place(w, &want, &place, &err);
                if (!r)
                        r = vd_place_write(&place, NULL, &err);
                if (!r)
                        r = vd_writer_written(w, 1, &err);
                start += r ? 0 : place.length;
                length -= r ? 0 : place.length;
        }
        return ok(r, &err);
}

static bool step(struct vd_writer *w, struct disk *d, unsigned sector)
{
        unsigned i = (unsigned)random_below(WINDOWS), what = (unsigned)random_below(8);
        uint64_t from = random_below(WINDOW), length = 1 + random_below(random_below(4) ? 20000 : 3 * MIB);
        uint64_t to = vd_min(from + length, WINDOW);
        struct vd_error err = VD_ERROR_INIT;

        if (what < 5) {
                memset(d->now[i] + from, 1 + (int)random_below(255), to - from);
                return ok(vd_writer_write(w, d->now[i] + from, to - from, d->starts[i] + from, &err), &err);
        }
        from = random_below(3) ? vd_round_down(from, sector) : vd_round_down(from, MIB);
        to = vd_round_up(to, random_below(3) ? sector : MIB);
        if (what < 7)
                memset(d->now[i] + from, 0, to - from);
        else
                memcpy(d->now[i] + from, d->parent[i] + from, to - from);
        return request(w, d->starts[i] + from, to - from, what < 7 ? VD_ZERO : VD_UNALLOCATED);
}

static bool steps(const char *path, struct disk *d, unsigned count, unsigned sector, bool finish)
{
        struct vd_image *img = open_image(path, true);
        struct vd_writer *w = img ? vd_writer_new(img) : NULL;
        struct vd_error err = VD_ERROR_INIT;
        bool good = w != NULL;

        for (unsigned i = 0; i < count && good; i++) {
                good = step(w, d, sector);
                if (good && random_below(6) == 0)
                        good = ok(vd_writer_commit(w, &err), &err);
        }
        /* Without finish the log stays pending, as after a crash. */
        if (good)
                good = finish ? ok(vd_writer_finish(w, &err), &err) : ok(vd_writer_commit(w, &err), &err);
        vd_writer_free(w);
        vd_image_close(img);
        return good;
}

static bool is_clean(const char *path)
{
        const struct vd_check_options options = { .data = true };
        struct vd_check check = { .space = NULL };
        struct vd_error err = VD_ERROR_INIT;
        struct vd_image *img = open_image(path, false);
        bool good = img && ok(vd_check_image(img, &options, &check, &err), &err);

        for (size_t i = 0; good && i < check.findings.count; i++)
                if (check.findings.items[i].severity == VD_ERROR &&
                    strcmp(check.findings.items[i].code, "vhdx-log-pending") != 0) {
                        printf("# %s: %s\n", path, check.findings.items[i].text);
                        good = false;
                }
        vd_check_free(&check);
        vd_image_close(img);
        return good;
}

static void set_windows(struct disk *d, uint64_t size)
{
        d->size = size;
        d->starts[0] = 0;
        d->starts[1] = 4 * GIB - WINDOW / 2;
        d->starts[2] = size - WINDOW;
}

static void exercise(const char *name, const char *path, const char *options, struct disk *d, unsigned sector,
                     struct vd_image *backing, const char *backing_name)
{
        bool good = make(path, options, d->size, backing, backing_name);

        for (unsigned i = 0; i < WINDOWS; i++)
                memcpy(d->now[i], d->parent[i], WINDOW);
        for (unsigned round = 0; round < 9 && good; round++) {
                good = steps(path, d, 40, sector, round % 3 != 0);
                good = good && same(path, d) && is_clean(path);
        }
        OK(name, good);
}

int main(void)
{
        char memory[] = "/dev/shm/vdtool-unit-XXXXXX", disk[] = "/tmp/vdtool-unit-XXXXXX";
        char *folder = access("/dev/shm", W_OK) == 0 ? memory : disk;   /* syncs cost nothing there */
        struct disk d;
        struct vd_image *parent;

        NEED(mkdtemp(folder) && chdir(folder) == 0);
        for (unsigned i = 0; i < WINDOWS; i++) {
                d.now[i] = calloc(1, WINDOW);
                d.parent[i] = calloc(1, WINDOW);
                NEED(d.now[i] && d.parent[i]);
        }
        set_windows(&d, 4 * GIB + 9 * MIB + 512);
        exercise("dynamic, blocks of 1 MiB", "a.vhdx", "block_size=1M", &d, 512, NULL, NULL);
        exercise("dynamic, blocks of 8 MiB", "b.vhdx", "block_size=8M,block_state_zero=on", &d, 512, NULL, NULL);
        exercise("fixed", "c.vhdx", "subformat=fixed", &d, 512, NULL, NULL);

        NEED(make("p.vhdx", "block_size=2M", d.size, NULL, NULL));
        NEED(steps("p.vhdx", &d, 0, 512, true));
        for (unsigned i = 0; i < WINDOWS; i++)
                memset(d.now[i], 0, WINDOW);
        NEED(steps("p.vhdx", &d, 30, 512, true));
        for (unsigned i = 0; i < WINDOWS; i++)
                memcpy(d.parent[i], d.now[i], WINDOW);
        parent = open_image("p.vhdx", false);
        NEED(parent);
        exercise("differencing, blocks of 1 MiB", "d.vhdx", "block_size=1M", &d, 512, parent, "p.vhdx");
        exercise("differencing, blocks of 2 MiB", "e.vhdx", "", &d, 512, parent, "p.vhdx");
        exercise("differencing, blocks of 256 MiB", "f.vhdx", "block_size=256M", &d, 512, parent, "p.vhdx");
        vd_image_close(parent);

        for (unsigned i = 0; i < WINDOWS; i++)
                memset(d.parent[i], 0, WINDOW);
        set_windows(&d, 4 * GIB + 12 * MIB);
        exercise("dynamic, sectors of 4096 bytes", "g.vhdx", "logical_sector_size=4096", &d, 4096, NULL, NULL);
        parent = open_image("g.vhdx", false);
        NEED(parent);
        for (unsigned i = 0; i < WINDOWS; i++)
                memcpy(d.parent[i], d.now[i], WINDOW);
        exercise("differencing, sectors of 4096 bytes", "h.vhdx", "", &d, 4096, parent, "g.vhdx");
        vd_image_close(parent);

        for (unsigned i = 0; i < WINDOWS; i++) {
                free(d.now[i]);
                free(d.parent[i]);
        }
        for (char name[] = "a.vhdx"; name[0] <= 'p'; name[0]++)
                unlink(name);
        NEED(chdir("/") == 0 && rmdir(folder) == 0);
        return unit_done();
}
