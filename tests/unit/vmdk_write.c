// SPDX-License-Identifier: MIT
/* vmdk_write.c: random writes into VMDKs, new ones and in place, against a plain copy of the disk in memory. */
#include "core/check.h"
#include "core/write.h"
#include "unit.h"
#include "util/checked.h"

#include <unistd.h>

enum { DISK = 6 * 1024 * 1024 + 1536, OPERATIONS = 60 };

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

/* A new VMDK with the model's bytes where they are not zero, or an empty one. */
static void create(const char *path, const char *options, bool content, const char *parent)
{
        const struct vd_format *format = vd_format_by_name("vmdk");
        struct vd_create create = { .size = DISK, .backing_name = parent, .backing_format = parent ? "vmdk" : NULL };
        void *params = calloc(1, format->params_size);
        struct vd_output *output;
        struct vd_image *image;
        struct vd_writer *writer;

        NEED(params && !vd_opts_parse_list(format->create_opts, options, params, &err));
        create.params = params;
        if (parent)
                NEED((create.backing = open_image(parent, false)));
        NEED(!vd_output_new(&output, path, VD_OUTPUT_REPLACE, &err));
        NEED(!vd_image_create(&image, format, output, &create, &err));
        writer = vd_writer_new(image);
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
                        at -= at % image->write_unit;
                        length += image->write_unit - length % image->write_unit;
                        if (at + length > DISK)
                                length = DISK - at;
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

        if (image && !same)
                printf("# %s\n", err.text);
        vd_image_close(image);
        return same;
}

static bool is_clean(const char *path)
{
        struct vd_image *image = open_image(path, false);
        struct vd_check_options options = { .data = true };
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
                uint64_t at = below(DISK / 512) * 512, length = vd_min(512 * (1 + below(300)), DISK - at);

                memset(model + at, (int)(1 + below(255)), length);
        }
        model[DISK - 1] = model[DISK - 512] = 0xEE;
}

static void try_options(const char *options, const char *name)
{
        char text[128];

        fill_model();
        create("disk.vmdk", options, true, NULL);
        snprintf(text, sizeof(text), "%s: a new disk reads as written", name);
        OK(text, reads_as_model("disk.vmdk"));
        for (int round = 0; round < 3; round++)
                NEED(scribble("disk.vmdk"));
        snprintf(text, sizeof(text), "%s: writes in place are read back", name);
        OK(text, reads_as_model("disk.vmdk"));
        snprintf(text, sizeof(text), "%s: and leave the disk clean", name);
        OK(text, is_clean("disk.vmdk"));
}

static void try_child(const char *options, const char *name)
{
        char text[128];

        fill_model();
        create("parent.vmdk", "subformat=monolithicFlat", true, NULL);
        create("child.vmdk", options, false, "parent.vmdk");
        snprintf(text, sizeof(text), "%s: an empty child reads as its parent", name);
        OK(text, reads_as_model("child.vmdk"));
        for (int round = 0; round < 3; round++)
                NEED(scribble("child.vmdk"));
        snprintf(text, sizeof(text), "%s: a child after writes and zeros", name);
        OK(text, reads_as_model("child.vmdk"));
        OK("the child is clean", is_clean("child.vmdk"));
        NEED(scribble("parent.vmdk"));
        OK("a parent that was written to is not accepted", !open_image("child.vmdk", false) && err.code == VD_EPARENT);
}

/* Dropped grains show the parent again, and their space at the end of the file is given back. */
static void try_drop(void)
{
        static uint8_t fives[1024 * 1024];
        struct vd_image *image;
        struct vd_writer *writer;
        uint64_t before, after;

        fill_model();
        create("parent.vmdk", "subformat=monolithicSparse", true, NULL);
        create("child.vmdk", "subformat=monolithicSparse", false, "parent.vmdk");
        memset(fives, 5, sizeof(fives));
        NEED((image = open_image("child.vmdk", true)));
        before = vd_file_size(image->file);
        writer = vd_writer_new(image);
        NEED(!vd_writer_write(writer, fives, sizeof(fives), 0, &err));
        NEED(!vd_writer_commit(writer, &err));
        NEED(!request(writer, VD_UNALLOCATED, 0, sizeof(fives)));
        NEED(!vd_writer_finish(writer, &err));
        after = vd_file_size(image->file);
        vd_writer_free(writer);
        vd_image_close(image);
        OK("what was dropped shows the parent", reads_as_model("child.vmdk"));
        OK("the space is given back", before == after && is_clean("child.vmdk"));
}

int main(void)
{
        char directory[] = "/tmp/vmdk_write.XXXXXX";
        static const char *const names[] = {
                "disk.vmdk", "disk-flat.vmdk", "disk-s001.vmdk", "disk-f001.vmdk", "parent.vmdk", "parent-flat.vmdk",
                "child.vmdk", "child-s001.vmdk",
        };

        seed = 88172645463325252u;
        NEED(mkdtemp(directory) && !chdir(directory));
        try_options("subformat=monolithicSparse", "monolithicSparse");
        try_options("subformat=monolithicSparse,zeroed_grain=on", "zeroed grains");
        try_options("subformat=monolithicFlat", "monolithicFlat");
        try_options("subformat=twoGbMaxExtentSparse", "twoGbMaxExtentSparse");
        try_options("subformat=twoGbMaxExtentFlat", "twoGbMaxExtentFlat");
        try_child("subformat=monolithicSparse", "monolithicSparse");
        try_child("subformat=monolithicSparse,zeroed_grain=on", "zeroed grains");
        try_child("subformat=twoGbMaxExtentSparse", "twoGbMaxExtentSparse");
        try_drop();
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                unlink(names[i]);
        NEED(!chdir("/") && !rmdir(directory));
        return unit_done();
}
