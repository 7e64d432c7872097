// SPDX-License-Identifier: MIT
/* create.c: make an empty image. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/new_image.h"
#include "util/cleanup.h"
#include "util/size.h"
#include "util/text.h"

struct create_args {
        struct vd_source source;
        struct vd_new_args target;
        bool backing_unsafe, quiet;
};

static const struct vd_opt create_opts[] = {
        { .letter = 'f', .type = VD_OPT_TEXT, .name = "format", .offset = offsetof(struct create_args, target.format),
          .argument = "FORMAT", .completes = "format",
          .help = "format of the new image; without it the extension of its name tells" },
        { .letter = 'O', .type = VD_OPT_TEXT, .name = "target-format", .hidden = true,
          .offset = offsetof(struct create_args, target.format) },
        VD_NEW_OPTIONS(create_args, target),
        { .letter = 'b', .type = VD_OPT_TEXT, .name = "backing",
          .offset = offsetof(struct create_args, target.backing_file), .argument = "FILE", .completes = "file",
          .help = "parent: the new image holds the differences to it" },
        { .letter = 'F', .type = VD_OPT_TEXT, .name = "backing-format",
          .offset = offsetof(struct create_args, target.backing_format), .argument = "FORMAT", .completes = "format",
          .help = "format of the parent; without it the content tells" },
        { .letter = 'B', .type = VD_OPT_TEXT, .name = "backing-fmt", .hidden = true,
          .offset = offsetof(struct create_args, target.backing_format) },
        { .letter = 'u', .type = VD_OPT_FLAG, .name = "backing-unsafe",
          .offset = offsetof(struct create_args, backing_unsafe), .help = "do not open the parent; needs a size" },
        VD_COMMON_QUIET(create_args, quiet),
        VD_COMMON_REFERENCES(create_args, source.references),
        VD_COMMON_FORCE_SHARE(create_args, source.force_share),
        VD_COMMON_NO_LOCK(create_args, source.no_lock),
        { .type = VD_OPT_END },
};

/* The operand, else -o size=, else the parent's. */
static int choose_size(const struct vd_new_image *new, const char *operand, uint64_t *size, struct vd_error *err)
{
        if (operand && new->has_size)
                return vd_fail(err, VD_EUSAGE, "the size is given twice: \"%s\" and with -o size=", operand);
        if (operand)
                return vd_size_parse(operand, size, err);
        if (new->has_size)
                *size = new->size;
        else if (new->backing)
                *size = new->backing->size;
        else
                return vd_fail(err, VD_EUSAGE, "create needs a size, or a parent (-b) that has one");
        return 0;
}

static void print_formatting(const char *path, const struct vd_new_image *new, uint64_t size,
                             const struct vd_new_args *args)
{
        VD_AUTOFREE char *shown = vd_printable_dup(path, strlen(path));
        size_t i;

        printf("Formatting '%s', fmt=%s size=%" PRIu64, shown ? shown : "", new->format->name, size);
        if (new->backing_file)
                printf(" backing_file=%s", new->backing_file);
        if (new->backing_format)
                printf(" backing_fmt=%s", new->backing_format);
        if (args->type)
                printf(" subformat=%s", args->type);
        for (i = 0; i < args->options.count; i++)
                printf(" %s", args->options.items[i]);
        putchar('\n');
}

static int create(struct create_args *args, const struct vd_texts *operands, struct vd_session *session,
                  struct vd_new_image *new, struct vd_error *err)
{
        const char *path = operands->items[0];
        uint64_t size = 0, final_size;
        int ret = 0;

        if (new->backing_file && !args->backing_unsafe) {
                ret = vd_new_image_open_backing(new, session, &args->source, path, err);
                if (!ret)
                        ret = vd_check_not_input(path, &new->backing, 1, err);
        }
        if (!ret)
                ret = choose_size(new, operands->count > 1 ? operands->items[1] : NULL, &size, err);
        if (!ret)
                ret = vd_new_image_create(new, path, size, NULL, err);
        if (ret)
                return ret;
        vd_session_warn_image(session, new->image);
        final_size = new->image->size;
        ret = vd_session_check_stop(session, err);
        if (!ret)
                ret = vd_new_image_finish(new, NULL, 0, err);
        if (!ret)
                ret = vd_new_image_publish(new, err);
        if (!ret && !session->quiet)
                print_formatting(path, new, final_size, &args->target);
        return ret;
}

static int create_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                      struct vd_error *err)
{
        struct create_args *args = arguments;
        struct vd_new_image new = VD_NEW_IMAGE_INIT;
        int ret;

        session->quiet = args->quiet;
        new.stop = &session->signals->stop;
        ret = vd_new_image_init(&new, operands->count ? operands->items[0] : NULL, &args->target, err);
        if (!ret && new.wants_help) {
                vd_new_image_print_options(&new, stdout);
        } else {
                struct vd_error usage = VD_ERROR_INIT;

                /* Too few operands explain themselves better than the format that could not be told from them. */
                if (vd_check_operands(session, operands, 1, 2, &usage)) {
                        *err = usage;
                        ret = usage.code;
                }
                if (!ret)
                        ret = create(args, operands, session, &new, err);
        }
        vd_new_image_free(&new);
        return ret;
}

const struct vd_command vd_cmd_create = {
        .name = "create", .operands = "FILE [SIZE]", .summary = "make an empty image", .completes = "file",
        .examples = "  vdtool create disk.qcow2 10G\n"
                    "  vdtool create --type fixed disk.vhd 2880s\n"
                    "  vdtool create -b base.qcow2 overlay.qcow2\n",
        .opts = create_opts, .args_size = sizeof(struct create_args), .run = create_run,
};
