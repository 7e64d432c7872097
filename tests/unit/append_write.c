// SPDX-License-Identifier: MIT
/* append_write.c: random writes, zeros and drops in place into the formats that append (VDI, qcow, QED, Parallels),
 * with and without a parent, against a plain copy of the disk in memory. */
#include "core/check.h"
#include "core/write.h"
#include "unit.h"
#include "util/checked.h"

#include <dirent.h>
#include <unistd.h>

enum { DISK = 3 * 1024 * 1024 + 512, OPERATIONS = 60, SESSIONS = 3 };

static struct vd_error err;
static uint8_t model[DISK], base[DISK], bytes[DISK];
static uint64_t seed = 20261120;

static uint64_t below(uint64_t limit)
{
        return unit_random(&seed) % limit;
}

static struct vd_image *open_image(const char *path, bool write)
{
        struct vd_open how = { .write = write, .lock = write ? VD_LOCK_WRITE : VD_LOCK_READ };
        struct vd_image *image = NULL;

        if (vd_image_open(&image, path, &how, &err) < 0)
                printf("# %s\n", err.text);
        return image;
}

/* content: written into it; NULL: empty. */
static void create(const char *name, const char *path, const char *options, const char *parent, const uint8_t *content)
{
        const struct vd_format *format = vd_format_by_name(name);
        struct vd_create create = { .size = DISK, .backing_name = parent };
        void *params = calloc(1, format->params_size);
        struct vd_output *output;
        struct vd_image *image;
        struct vd_writer *writer;

        NEED(params && !vd_opts_parse_list(format->create_opts, options, params, &err));
        create.params = params;
        if (parent)
                NEED((create.backing = open_image(parent, false)));
        if (parent)
                create.backing_format = create.backing->format->name;
        NEED(!vd_output_new(&output, path, VD_OUTPUT_REPLACE, &err));
        NEED(!vd_image_create(&image, format, output, &create, &err));
        NEED((writer = vd_writer_new(image)));
        if (content)
                NEED(!vd_writer_write(writer, content, DISK, 0, &err));
        NEED(!vd_writer_finish(writer, &err));
        NEED(!vd_output_commit(output, &err));
        vd_writer_free(writer);
        vd_image_close(image);
        vd_output_free(output);
        vd_image_close(create.backing);
        vd_opts_free(format->create_opts, params);
        free(params);
}

/* Whole units become zeros, or what the parent has. */
static int ask(struct vd_writer *writer, enum vd_kind kind, uint64_t at, uint64_t length)
{
        int rc = 0;

        while (length && !rc) {
                struct vd_request r = { .start = at, .length = length, .kind = kind };
                struct vd_place place;

                rc = vd_writer_place(writer, &r, &place, &err);
                if (!rc)
                        rc = vd_place_write(&place, NULL, &err);
                if (!rc)
                        rc = vd_writer_written(writer, 1, &err);
                at += place.length;
                length -= place.length;
        }
        return rc;
}

static int operation(struct vd_image *image, struct vd_writer *writer, bool has_parent)
{
        uint64_t at = below(DISK), length = 1 + below(below(4) ? 9000 : 400000), what = below(8);

        length = vd_min(length, DISK - at);
        if (what < 2) {
                uint64_t unit = image->write_unit, start = vd_round_down(at, unit);
                uint64_t end = vd_min(vd_round_up(at + length, unit), DISK);

                if (what == 0 && has_parent)
                        memcpy(model + start, base + start, end - start);
                else
                        memset(model + start, 0, end - start);
                return ask(writer, what == 0 ? VD_UNALLOCATED : VD_ZERO, start, end - start);
        }
        if (what == 2)
                return vd_writer_commit(writer, &err);
        memset(model + at, (int)(1 + below(255)), length);
        return vd_writer_write(writer, model + at, length, at, &err);
}

static bool session(const char *path, bool has_parent)
{
        struct vd_image *image = open_image(path, true);
        struct vd_writer *writer = image ? vd_writer_new(image) : NULL;
        int rc = writer ? 0 : -1;

        for (int i = 0; i < OPERATIONS && !rc; i++)
                rc = operation(image, writer, has_parent);
        if (!rc)
                rc = vd_writer_finish(writer, &err);
        if (rc)
                printf("# %s\n", err.text);
        vd_writer_free(writer);
        vd_image_close(image);
        return !rc;
}

static bool reads_as_model(const char *path)
{
        struct vd_image *image = open_image(path, false);
        struct vd_codec_context *codec = vd_codec_context_new();
        bool same = image && codec && image->size == DISK && !vd_image_read(image, bytes, DISK, 0, codec, &err) &&
                    !memcmp(bytes, model, DISK);

        if (image && !same)
                printf("# %s\n", err.code ? err.text : "other content");
        vd_codec_context_free(codec);
        vd_image_close(image);
        return same;
}

/* Dropping may lose space, nothing else may be wrong. */
static bool is_sound(const char *path)
{
        struct vd_image *image = open_image(path, false);
        struct vd_check check = { .space = NULL };
        struct vd_check_options options = { .data = true };
        bool sound = image && !vd_check_image(image, &options, &check, &err) && !check.findings.totals[VD_ERROR] &&
                     !check.findings.totals[VD_WARNING];

        for (size_t i = 0; i < check.findings.count && !sound; i++)
                printf("# %s\n", check.findings.items[i].text);
        vd_check_free(&check);
        vd_image_close(image);
        return sound;
}

static void run(const char *format, const char *options, const char *parent)
{
        const char *path = !strcmp(format, "vdi") ? "disk.vdi" : "disk";
        char name[160];

        for (int full = 0; full < 2 && !(full && parent); full++) {
                bool good = true;

                memset(model, 0, DISK);
                if (parent)
                        memcpy(model, base, DISK);
                if (full)
                        memset(model, 'f', DISK);
                create(format, path, options, parent, full ? model : NULL);
                for (int i = 0; i < SESSIONS && good; i++)
                        good = session(path, parent) && reads_as_model(path) && is_sound(path);
                snprintf(name, sizeof(name), "%s %s, %s", format, options,
                         parent ? "on a parent" : full ? "full" : "empty");
                OK(name, good);
                unlink(path);
        }
}

int main(void)
{
        char directory[] = "/tmp/vdtool-append-XXXXXX";
        FILE *raw;
        DIR *left;
        int files = 0;

        NEED(mkdtemp(directory) && !chdir(directory));
        for (uint64_t at = 0; at < DISK; at += 4096)
                memset(base + at, (int)(at / 4096 % 3 ? 'b' : 0), vd_min(4096, DISK - at));
        NEED((raw = fopen("base.raw", "wb")) && fwrite(base, DISK, 1, raw) == 1 && !fclose(raw));
        create("vdi", "base.vdi", "", NULL, base);

        run("vdi", "", NULL);
        run("vdi", "subformat=fixed", NULL);
        run("vdi", "block_size=4k", NULL);
        run("vdi", "", "base.vdi");
        run("vdi", "block_size=16k", "base.vdi");
        run("qed", "", NULL);
        run("qed", "cluster_size=4k,table_size=1", NULL);
        run("qed", "cluster_size=4k,table_size=2", "base.raw");
        run("qcow", "", NULL);
        run("qcow", "cluster_size=512", NULL);
        run("qcow", "", "base.raw");
        run("qcow", "cluster_size=64k", "base.raw");
        run("parallels", "", NULL);
        run("parallels", "cluster_size=4k", NULL);
        run("parallels", "subformat=old,cluster_size=4k", NULL);

        unlink("base.raw");
        unlink("base.vdi");
        left = opendir(".");
        while (left && readdir(left))
                files++;
        closedir(left);
        OK("nothing is left behind", files == 2);
        NEED(!chdir("/") && !rmdir(directory));
        return unit_done();
}
