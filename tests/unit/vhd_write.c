// SPDX-License-Identifier: MIT
/* vhd_write.c: random writes into VHDs in place, against a plain copy of the disk in memory. */
#include "core/check.h"
#include "core/write.h"
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

enum { DISK = 6 * 1024 * 1024 + 512, OPERATIONS = 60, ROUNDS = 1 };

/* Create options, as a command line gives them. */
struct params {
        const char *subformat, *block_size, *split_size;
};

static struct vd_error err;
static uint8_t model[DISK], bytes[DISK];
static uint64_t seed;

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

/* A new VHD; with content the model's bytes go into it, else it is empty, perhaps on a parent. */
static void create(const char *path, const struct params *p, bool content, const char *parent)
{
        const struct vd_format *format = vd_format_by_name("vhd");
        struct vd_create create = { .size = DISK, .backing_name = parent, .backing_format = parent ? "vhd" : NULL };
        void *params = calloc(1, format->params_size);
        struct vd_output *output;
        struct vd_image *image;
        struct vd_writer *writer;

        NEED(params);
        NEED(!p->subformat || !vd_opts_set(format->create_opts, "subformat", p->subformat, params, &err));
        NEED(!p->block_size || !vd_opts_set(format->create_opts, "block_size", p->block_size, params, &err));
        NEED(!p->split_size || !vd_opts_set(format->create_opts, "split_size", p->split_size, params, &err));
        create.params = params;
        if (parent)
                NEED((create.backing = open_image(parent, false)));
        NEED(!vd_output_new(&output, path, VD_OUTPUT_REPLACE, &err));
        NEED(!vd_image_create(&image, format, output, &create, &err));
        writer = vd_writer_new(image);
        /* Sectors that are zero stay out. */
        for (uint64_t at = 0; content && at < DISK; at += 512)
                NEED(model[at] == 0 || !vd_writer_write(writer, model + at, 512, at, &err));
        NEED(!vd_writer_finish(writer, &err));
        NEED(!vd_output_commit(output, &err));
        vd_writer_free(writer);
        vd_image_close(image);
        vd_output_free(output);
        vd_image_close(create.backing);
        vd_opts_free(format->create_opts, params);
        free(params);
}

static int request(struct vd_writer *writer, enum vd_kind kind, uint64_t at, uint64_t length)
{
        while (length) {
                struct vd_request r = { .start = at, .length = length, .kind = kind };
                struct vd_place place;
                int rc = vd_writer_place(writer, &r, &place, &err);

                if (!rc)
                        rc = vd_place_write(&place, NULL, &err);
                if (!rc)
                        rc = vd_writer_written(writer, 1, &err);
                if (rc < 0)
                        return rc;
                at += place.length;
                length -= place.length;
        }
        return 0;
}

/* A few writes, zeros and commits; false when one failed. */
static bool scribble(const char *path)
{
        struct vd_image *image = open_image(path, true);
        struct vd_writer *writer = image ? vd_writer_new(image) : NULL;
        int rc = writer ? 0 : -1;

        for (int i = 0; i < OPERATIONS && !rc; i++) {
                uint64_t at = below(DISK), length = 1 + below(below(4) ? 9000 : 600000);

                if (at + length > DISK)
                        length = DISK - at;
                if (below(6) == 0) {
                        at -= at % 512;
                        length -= length % 512;
                        memset(model + at, 0, length);
                        rc = request(writer, VD_ZERO, at, length);
                } else {
                        memset(model + at, (int)(1 + below(255)), length);
                        rc = vd_writer_write(writer, model + at, length, at, &err);
                }
                if (!rc && below(20) == 0)      /* each costs a sync */
                        rc = vd_writer_commit(writer, &err);
        }
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
        bool same = image && image->size == DISK && !vd_image_read(image, bytes, DISK, 0, NULL, &err) &&
                    !memcmp(bytes, model, DISK);

        vd_image_close(image);
        return same;
}

static bool is_clean(const char *path)
{
        struct vd_image *image = open_image(path, false);
        struct vd_check_options options = { .data = false };
        struct vd_check check = { 0 };
        bool clean = image && !vd_check_image(image, &options, &check, &err) && !check.findings.totals[VD_ERROR] &&
                     !check.findings.totals[VD_LEAK] && !check.findings.totals[VD_WARNING];

        for (size_t i = 0; i < check.findings.count; i++)
                printf("# %s\n", check.findings.items[i].text);
        vd_check_free(&check);
        vd_image_close(image);
        return clean;
}

static void fill_model(void)
{
        memset(model, 0, DISK);
        for (int i = 0; i < 8; i++) {
                uint64_t at = below(DISK / 512) * 512;

                memset(model + at, (int)(1 + below(255)), at + 70000 > DISK ? DISK - at : 70000);
        }
}

static void try(const char *name, const struct params *p, bool differencing)
{
        bool wrote = true, same = true, clean = true;
        char text[128];

        for (int round = 0; round < ROUNDS; round++) {
                fill_model();
                if (differencing) {
                        create("parent.vhd", &(struct params){ 0 }, true, NULL);
                        create("disk.vhd", p, false, "parent.vhd");
                } else {
                        create("disk.vhd", p, true, NULL);
                }
                same = same && reads_as_model("disk.vhd");
                for (int again = 0; again < 2; again++) {
                        wrote = wrote && scribble("disk.vhd");
                        same = same && reads_as_model("disk.vhd");
                        clean = clean && is_clean("disk.vhd");
                }
        }
        snprintf(text, sizeof(text), "%s: writes succeed", name);
        OK(text, wrote);
        snprintf(text, sizeof(text), "%s: the disk is what was written", name);
        OK(text, same);
        snprintf(text, sizeof(text), "%s: check finds nothing", name);
        OK(text, clean);
}

/* A dropped range shows the parent again; a whole block that is dropped leaves the table. */
static void drop(void)
{
        struct vd_image *image;
        struct vd_writer *writer;
        struct vd_extent extent;
        static uint8_t fives[1024 * 1024];

        fill_model();
        create("parent.vhd", &(struct params){ 0 }, true, NULL);
        create("disk.vhd", &(struct params){ .block_size = "512k" }, false, "parent.vhd");
        memset(fives, 5, sizeof(fives));
        NEED((image = open_image("disk.vhd", true)));
        writer = vd_writer_new(image);
        NEED(!vd_writer_write(writer, fives, sizeof(fives), 0, &err));
        NEED(!vd_writer_commit(writer, &err));
        NEED(!request(writer, VD_UNALLOCATED, 4096, 512 * 1024));
        memcpy(bytes, model, DISK);
        memset(model, 5, sizeof(fives));
        memcpy(model + 4096, bytes + 4096, 512 * 1024);
        NEED(!request(writer, VD_UNALLOCATED, 512 * 1024, 512 * 1024));
        memcpy(model + 512 * 1024, bytes + 512 * 1024, 512 * 1024);
        NEED(!vd_writer_finish(writer, &err));
        vd_writer_free(writer);
        OK("a dropped block has no extent",
           !vd_image_map(image, 512 * 1024, 512 * 1024, 0, &extent, &err) && extent.kind == VD_UNALLOCATED);
        vd_image_close(image);
        OK("what was dropped shows the parent", reads_as_model("disk.vhd"));
}

static void remove_files(void)
{
        DIR *d = opendir(".");
        struct dirent *entry;

        while (d && (entry = readdir(d)))
                if (strstr(entry->d_name, ".v"))
                        unlink(entry->d_name);
        if (d)
                closedir(d);
}

int main(void)
{
        char directory[] = "/tmp/vdtool-unit-XXXXXX";

        NEED(mkdtemp(directory) && chdir(directory) == 0);
        seed = 20240229;
        try("dynamic", &(struct params){ 0 }, false);
        try("dynamic, blocks of 4 KiB", &(struct params){ .block_size = "4k" }, false);
        try("dynamic, blocks of 512 bytes", &(struct params){ .block_size = "512" }, false);
        try("dynamic, blocks of 4 MiB", &(struct params){ .block_size = "4M" }, false);
        try("fixed", &(struct params){ .subformat = "fixed" }, false);
        try("differencing", &(struct params){ 0 }, true);
        try("differencing, blocks of 4 KiB", &(struct params){ .block_size = "4k" }, true);
        try("differencing, blocks of 4 MiB", &(struct params){ .block_size = "4M" }, true);
        try("split", &(struct params){ .split_size = "1000448" }, false);
        try("split and fixed", &(struct params){ .subformat = "fixed", .split_size = "2M" }, false);
        drop();
        remove_files();
        NEED(chdir("/") == 0 && rmdir(directory) == 0);
        return unit_done();
}
