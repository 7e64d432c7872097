// SPDX-License-Identifier: MIT
/* measure.c: how large an image would be, to the byte, without writing it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/new_image.h"
#include "util/cleanup.h"

enum { SPARSE_USUAL = 4096 };

struct measure_args {
        struct vd_source source;
        struct vd_new_args target;
        const char *output, *parent, *snapshot;
        uint64_t size;
        bool compress, quiet;
};

#define FIELD(field) .offset = offsetof(struct measure_args, field)

static const uint64_t no_size = UINT64_MAX;
static const struct measure_args measure_defaults = { .size = no_size };

static const struct vd_opt measure_opts[] = {
        VD_COMMON_FORMAT(measure_args, source.format),
        { .type = VD_OPT_TEXT, .name = "source-format", .hidden = true, FIELD(source.format) },
        { .letter = 'O', .type = VD_OPT_TEXT, .name = "target-format", FIELD(target.format), .argument = "FORMAT",
          .completes = "format", .help = "format that the new image would have (raw)" },
        { .letter = 'o', .type = VD_OPT_LIST, .name = "options", FIELD(target.options), .argument = "KEY=VALUE,...",
          .help = "create options of that format; \"-o help\" lists them" },
        { .type = VD_OPT_LIST, .name = "target-format-options", .hidden = true, FIELD(target.options) },
        { .type = VD_OPT_TEXT, .name = "type", FIELD(target.type), .argument = "TYPE",
          .help = "kind of image within the format: fixed, dynamic, ...; the same as -o subformat=TYPE" },
        { .letter = 'c', .type = VD_OPT_FLAG, .name = "compress", FIELD(compress),
          .help = "as convert -c would store it; the data is read and packed to know" },
        { .type = VD_OPT_SIZE, .name = "size", FIELD(size), .argument = "SIZE",
          .help = "of an empty disk of this size, instead of a file" },
        { .letter = 'l', .type = VD_OPT_TEXT, .name = "snapshot", FIELD(snapshot), .argument = "SNAPSHOT",
          .help = "measure this internal snapshot (its id or name)" },
        { .type = VD_OPT_TEXT, .name = "parent", FIELD(parent), .argument = "FILE", .completes = "file",
          .help = "use this file as the image's parent, instead of the one it names" },
        VD_COMMON_OUTPUT(measure_args, output),
        VD_COMMON_QUIET(measure_args, quiet),
        VD_COMMON_REFERENCES(measure_args, source.references),
        VD_COMMON_FORCE_SHARE(measure_args, source.force_share),
        VD_COMMON_NO_LOCK(measure_args, source.no_lock),
        { .type = VD_OPT_END },
};

static int measure_for(const struct vd_new_image *new, const struct measure_args *args, struct vd_image *source,
                       enum vd_layout_purpose purpose, struct vd_session *session, uint64_t *bytes,
                       struct vd_error *err)
{
        struct vd_copy_options options = { .sparse_bytes = SPARSE_USUAL, .compress = args->compress,
                                           .stop = &session->signals->stop };
        struct vd_layout *layout;
        uint64_t size = new->has_size ? new->size : source ? source->size : args->size;
        int ret = vd_new_image_layout(new, "measured", size, source, &options, purpose, &layout, NULL, err);

        if (ret)
                return ret;
        *bytes = vd_layout_bytes(layout);
        vd_layout_free(layout);
        return 0;
}

static int measure(struct measure_args *args, struct vd_session *session, const struct vd_new_image *new,
                   const char *path, struct vd_error *err)
{
        struct vd_open how = { .lock = VD_LOCK_READ, .parent_path = args->parent, .snapshot = args->snapshot };
        struct vd_image *source = NULL;
        uint64_t required, full = 0;
        struct vd_report *r;
        bool has_full;
        int ret = path ? vd_source_open(session, &args->source, path, how, &source, err) : 0;

        if (!ret && source && new->has_size && new->size < source->size)
                ret = vd_fail(err, VD_EUSAGE, "the source has %" PRIu64 " bytes, more than -o size=%" PRIu64,
                              source->size, new->size);
        if (!ret)
                ret = measure_for(new, args, source, VD_LAYOUT_SIZE, session, &required, err);
        if (!ret)
                ret = measure_for(new, args, source, VD_LAYOUT_FULL_SIZE, session, &full, err);
        vd_image_close(source);
        has_full = !ret;
        if (ret == -EFBIG) {            /* some kinds of images cannot hold as much data as their disk is large */
                vd_session_warn(session, "there is no fully allocated size: %s", err->text);
                *err = (struct vd_error)VD_ERROR_INIT;
                ret = 0;
        }
        if (ret)
                return ret;
        r = vd_report_new();
        vd_report_count(r, "required", "required size", required);
        if (has_full)
                vd_report_count(r, "fully-allocated", "fully allocated size", full);
        ret = vd_print_report(r, args->output, err);
        vd_report_free(r);
        return ret;
}

static int measure_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                       struct vd_error *err)
{
        struct measure_args *args = arguments;
        struct vd_new_image new = VD_NEW_IMAGE_INIT;
        bool has_size = args->size != no_size;
        int ret;

        session->quiet = args->quiet;
        if (!args->target.format && !(args->target.format = strdup("raw")))
                return vd_fail(err, -ENOMEM, "format");
        ret = vd_new_image_init(&new, NULL, &args->target, err);
        if (!ret && new.wants_help) {
                vd_new_image_print_options(&new, stdout);
        } else if (!ret) {
                ret = vd_check_operands(session, operands, has_size ? 0 : 1, 1, err);
                if (!ret && has_size && operands->count)
                        ret = vd_fail(err, VD_EUSAGE, "measure takes a file or --size, not both");
                if (!ret && new.backing_file)
                        ret = vd_fail(err, VD_EUNSUPPORTED, "images with a backing file cannot be measured");
                if (!ret)
                        ret = measure(args, session, &new, has_size ? NULL : operands->items[0], err);
        }
        vd_new_image_free(&new);
        return ret;
}

const struct vd_command vd_cmd_measure = {
        .name = "measure", .operands = "[FILE]", .summary = "tell how large an image would be, to the byte",
        .completes = "file", .streams = true,
        .examples = "  vdtool measure -O qcow2 disk.vhd\n"
                    "  vdtool measure -O vhd --type fixed --size 10G\n"
                    "  vdtool measure -O qcow2 -o cluster_size=2M --output json disk.raw\n",
        .opts = measure_opts, .args_size = sizeof(struct measure_args), .defaults = &measure_defaults,
        .run = measure_run,
};
