// SPDX-License-Identifier: MIT
/* qcow2_write.c: random writes, zeros, drops and packed units into qcow2 images in place, against a plain copy of the
 * disk in memory; after each session the checker must find nothing, not even a leak. */
#include "core/check.h"
#include "core/write.h"
#include "unit.h"
#include "util/checked.h"

#include <dirent.h>
#include <unistd.h>

enum { DISK = 5 * 1024 * 1024 + 512, OPERATIONS = 50, SESSIONS = 2 };

static struct vd_error err;
static uint8_t model[DISK], base[DISK], bytes[4 << 20];
static uint64_t seed = 20240229;
static const struct vd_format *format;

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

static void create(const char *options, bool has_backing)
{
        struct vd_create create = { .size = DISK, .backing_name = has_backing ? "base.raw" : NULL,
                                    .backing_format = has_backing ? "raw" : NULL };
        void *params = calloc(1, format->params_size);
        struct vd_output *output;
        struct vd_image *image;
        struct vd_writer *writer;

        NEED(params && !vd_opts_parse_list(format->create_opts, options, params, &err));
        create.params = params;
        NEED(!vd_output_new(&output, "disk.qcow2", VD_OUTPUT_REPLACE, &err));
        NEED(!vd_image_create(&image, format, output, &create, &err));
        NEED((writer = vd_writer_new(image)));
        NEED(!vd_writer_finish(writer, &err));
        NEED(!vd_output_commit(output, &err));
        vd_writer_free(writer);
        vd_image_close(image);
        vd_output_free(output);
        vd_opts_free(format->create_opts, params);
        free(params);
}

/* One request for whole units; what is packed or plain is taken from the model. */
static int ask(struct vd_writer *writer, enum vd_kind kind, uint64_t at, uint64_t length, const void *from,
               uint32_t packed_bytes)
{
        while (length) {
                struct vd_request request = { .start = at, .length = length, .kind = kind,
                                              .packed_bytes = packed_bytes };
                struct vd_place place;
                int r = vd_writer_place(writer, &request, &place, &err);

                if (!r)
                        r = vd_place_write(&place, from, &err);
                if (!r)
                        r = vd_writer_written(writer, 1, &err);
                if (r)
                        return r;
                at += place.length;
                length -= place.length;
        }
        return 0;
}

static int pack(struct vd_image *image, struct vd_writer *writer, struct vd_codec_context *codec, uint64_t at)
{
        uint64_t length = vd_min(image->pack.unit, DISK - at);
        static uint8_t plain[2 << 20], packed[2 << 20];
        size_t n;
        int r;

        memset(plain, 0, image->pack.unit);
        for (uint64_t i = 0; i < length; i++)
                plain[i] = (uint8_t)(i / 50 + seed);
        r = vd_pack(codec, image->pack.codec, &image->pack.settings, plain, image->pack.unit, packed,
                    image->pack.max_packed, &n, &err);
        if (r || !n)
                return r;
        memcpy(model + at, plain, length);
        return ask(writer, VD_PACKED, at, length, packed, (uint32_t)n);
}

static int one_operation(struct vd_image *image, struct vd_writer *writer, struct vd_codec_context *codec)
{
        uint64_t at = below(DISK), length = 1 + below(below(4) ? 9000 : 600000), unit = image->write_unit;
        unsigned what = (unsigned)below(8);

        length = vd_min(length, DISK - at);
        if (what < 4) {
                memset(model + at, (int)(1 + below(255)), length);
                return vd_writer_write(writer, model + at, length, at, &err);
        }
        if (what == 4 && image->pack.codec)
                return pack(image, writer, codec, vd_round_down(at, image->pack.unit));
        length = vd_min(vd_round_up(at + length, unit), DISK) - vd_round_down(at, unit);
        at = vd_round_down(at, unit);
        if (what == 5) {
                memcpy(model + at, base + at, length);
                return ask(writer, VD_UNALLOCATED, at, length, NULL, 0);
        }
        memset(model + at, 0, length);
        return ask(writer, VD_ZERO, at, length, NULL, 0);
}

static bool scribble(struct vd_codec_context *codec)
{
        struct vd_image *image = open_image("disk.qcow2", true);
        struct vd_writer *writer = image ? vd_writer_new(image) : NULL;
        int r = writer ? 0 : -1;

        for (int i = 0; i < OPERATIONS && !r; i++) {
                r = one_operation(image, writer, codec);
                if (!r && below(25) == 0)       /* each costs some syncs */
                        r = vd_writer_commit(writer, &err);
        }
        if (!r)
                r = vd_writer_finish(writer, &err);
        if (r)
                printf("# %s\n", err.text);
        vd_writer_free(writer);
        vd_image_close(image);
        return !r;
}

static bool reads_as_model(struct vd_codec_context *codec)
{
        struct vd_image *image = open_image("disk.qcow2", false);
        bool same = image && image->size == DISK;

        for (uint64_t at = 0, n; same && at < DISK; at += n) {
                n = vd_min(sizeof(bytes), DISK - at);
                same = !vd_image_read(image, bytes, n, at, codec, &err) && !memcmp(bytes, model + at, n);
        }
        vd_image_close(image);
        return same;
}

static bool is_clean(void)
{
        struct vd_image *image = open_image("disk.qcow2", false);
        struct vd_check_options options = { .data = false };
        struct vd_check check = { 0 };
        bool clean = image && !vd_check_image(image, &options, &check, &err) && !check.findings.count;

        for (size_t i = 0; i < check.findings.count; i++)
                printf("# %s\n", check.findings.items[i].text);
        vd_check_free(&check);
        vd_image_close(image);
        return clean;
}

static void try(const char *options, bool has_backing)
{
        struct vd_codec_context *codec = vd_codec_context_new();
        bool wrote = true, same = true, clean = true;
        char text[160];

        NEED(codec);
        memset(base, 0, DISK);
        for (uint64_t i = 0; has_backing && i < DISK; i++)
                base[i] = (uint8_t)(i >> 9);
        if (has_backing) {
                FILE *f = fopen("base.raw", "w");

                NEED(f && fwrite(base, DISK, 1, f) == 1 && fclose(f) == 0);
        }
        memcpy(model, base, DISK);
        create(options, has_backing);
        for (int session = 0; session < SESSIONS && wrote; session++) {
                wrote = scribble(codec);
                same = same && reads_as_model(codec);
                clean = clean && is_clean();
        }
        vd_codec_context_free(codec);
        snprintf(text, sizeof(text), "%s%s: writes succeed", *options ? options : "defaults",
                 has_backing ? ", backing file" : "");
        OK(text, wrote);
        OK("... the disk is what was written", same);
        OK("... check finds nothing", clean);
}

static void remove_files(void)
{
        DIR *d = opendir(".");
        struct dirent *entry;

        while (d && (entry = readdir(d)))
                if (entry->d_name[0] != '.')
                        unlink(entry->d_name);
        if (d)
                closedir(d);
}

int main(void)
{
        static const char *const options[] = {
                "", "compat=0.10", "cluster_size=512", "cluster_size=4k,refcount_bits=1",
                "cluster_size=512,refcount_bits=64", "cluster_size=1k,refcount_bits=2", "cluster_size=2M",
                "extended_l2=on,cluster_size=16k", "compression_type=zstd", "preallocation=metadata",
        };
        char directory[] = "/tmp/vdtool-unit-XXXXXX";

        NEED(mkdtemp(directory) && chdir(directory) == 0);
        NEED((format = vd_format_by_name("qcow2")));
        for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
                try(options[i], false);
                if (!strstr(options[i], "preallocation"))
                        try(options[i], true);
        }
        try("data_file=data.raw", false);
        remove_files();
        try("data_file=data.raw,data_file_raw=on", false);
        remove_files();
        NEED(chdir("/") == 0 && rmdir(directory) == 0);
        return unit_done();
}
