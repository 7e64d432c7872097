// SPDX-License-Identifier: MIT
/* map.c: where the parts of a disk are stored: qemu-img's table, its JSON, or a picture. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/common.h"
#include "cmd/map.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

struct map_args {
        struct vd_source source;
        const char *output;
        uint64_t start, length, max_depth;
        bool picture;
};

static const struct map_args map_defaults = { .length = UINT64_MAX, .max_depth = UINT32_MAX };

static const struct vd_opt map_opts[] = {
        VD_COMMON_FORMAT(map_args, source.format),
        { .letter = 's', .type = VD_OPT_SIZE, .name = "start-offset", .offset = offsetof(struct map_args, start),
          .argument = "BYTES", .help = "where on the disk to begin" },
        { .letter = 'l', .type = VD_OPT_SIZE, .name = "max-length", .offset = offsetof(struct map_args, length),
          .argument = "BYTES", .help = "how much of the disk to show" },
        { .type = VD_OPT_COUNT, .name = "max-depth", .offset = offsetof(struct map_args, max_depth), .argument = "N",
          .help = "how many parents to look through; 0 opens none" },
        { .type = VD_OPT_FLAG, .name = "picture", .offset = offsetof(struct map_args, picture),
          .help = "draw where the data lies" },
        VD_COMMON_OUTPUT(map_args, output),
        VD_COMMON_REFERENCES(map_args, source.references),
        VD_COMMON_FORCE_SHARE(map_args, source.force_share),
        VD_COMMON_NO_LOCK(map_args, source.no_lock),
        { .type = VD_OPT_END },
};

typedef int take_entry(void *context, const struct vd_map_entry *, struct vd_error *);

static const struct vd_image *image_at(const struct vd_image *image, unsigned depth)
{
        while (depth-- && image->parent)
                image = image->parent;
        return image;
}

static struct vd_map_entry entry_of(const struct vd_image *image, const struct vd_extent *ext)
{
        struct vd_map_entry e = { .start = ext->start, .length = ext->length, .depth = ext->depth };
        const struct vd_image *owner = image_at(image, ext->depth);

        switch (ext->kind) {
        case VD_UNALLOCATED:
                /* Zeros, unless a parent that was not looked at has something. */
                e.zero = !owner->parent_ref.count;
                break;
        case VD_ZERO:
                e.zero = true;
                e.present = true;
                e.data = ext->is_hole;
                if (ext->depth && ext->start >= owner->size) {
                        /* Past the end of a short parent: its child has nothing there, and nobody else can. */
                        e.present = false;
                        e.depth--;
                }
                break;
        case VD_DATA:
                e.present = e.data = true;
                break;
        case VD_PACKED:
                e.present = e.data = e.packed = true;
                break;
        }
        e.file = ext->file;
        e.has_offset = e.file && !e.packed;
        e.offset = e.has_offset ? ext->position : 0;
        return e;
}

static bool continues(const struct vd_map_entry *a, const struct vd_map_entry *b)
{
        return a->depth == b->depth && a->present == b->present && a->zero == b->zero && a->data == b->data &&
               a->packed == b->packed && a->has_offset == b->has_offset && a->file == b->file &&
               (!a->has_offset || a->offset + a->length == b->offset);
}

static int walk(struct vd_image *image, const struct map_args *args, const struct vd_session *session,
                take_entry *take, void *context, struct vd_error *err)
{
        uint64_t at = args->start, end = args->start + vd_min(args->length, image->size - args->start);
        struct vd_map_entry entry = { 0 };
        unsigned depth = (unsigned)vd_min(args->max_depth, UINT32_MAX);
        int ret = 0;

        while (at < end && !ret) {
                struct vd_map_entry next;
                struct vd_extent ext;

                ret = vd_session_check_stop(session, err);
                if (!ret)
                        ret = vd_image_map(image, at, end - at, depth, &ext, err);
                if (ret)
                        break;
                next = entry_of(image, &ext);
                at += next.length;
                if (entry.length && continues(&entry, &next)) {
                        entry.length += next.length;
                        continue;
                }
                if (entry.length)
                        ret = take(context, &entry, err);
                entry = next;
        }
        if (!ret && entry.length)
                ret = take(context, &entry, err);
        return ret;
}

static int print_json_entry(void *context, const struct vd_map_entry *e, struct vd_error *err)
{
        struct vd_report *r = vd_report_new();
        int ret;

        vd_report_count(r, "start", NULL, e->start);
        vd_report_count(r, "length", NULL, e->length);
        vd_report_count(r, "depth", NULL, e->depth);
        vd_report_flag(r, "present", NULL, e->present);
        vd_report_flag(r, "zero", NULL, e->zero);
        vd_report_flag(r, "data", NULL, e->data);
        if (e->has_offset)
                vd_report_count(r, "offset", NULL, e->offset);
        ret = vd_report_print_json_entry(r, context, stdout);
        vd_report_free(r);
        return ret ? vd_fail(err, ret, "standard output") : 0;
}

/* Stored data only.  Where qemu-img gives up because data is compressed, we say so in the line. */
static int print_line(void *context, const struct vd_map_entry *e, struct vd_error *err)
{
        VD_AUTOFREE char *shown = NULL;
        char position[32] = "compressed";
        int n;

        (void)context;
        if (!e->data || e->zero)
                return 0;
        shown = vd_printable_dup(vd_file_name(e->file), strlen(vd_file_name(e->file)));
        if (e->has_offset)
                snprintf(position, sizeof position, "%#" PRIx64, e->offset);
        n = printf("%#-16" PRIx64 "%#-16" PRIx64 "%-16s%s\n", e->start, e->length, position, shown ? shown : "");
        return n < 0 ? vd_fail(err, -EIO, "standard output") : 0;
}

static int add_to_picture(void *context, const struct vd_map_entry *e, struct vd_error *err)
{
        (void)err;
        vd_picture_add(context, e);
        return 0;
}

static int print_picture(struct vd_image *image, const struct map_args *args, const struct vd_session *session,
                         struct vd_error *err)
{
        uint64_t end = args->start + vd_min(args->length, image->size - args->start);
        struct vd_picture *picture = vd_picture_new(args->start, end, vd_terminal_columns(stdout));
        int ret;

        if (!picture)
                return vd_fail(err, -ENOMEM, "picture");
        ret = walk(image, args, session, add_to_picture, picture, err);
        if (!ret)
                vd_picture_print(picture, vd_use_colour(stdout), stdout);
        vd_picture_free(picture);
        return ret;
}

static int print_map(struct vd_image *image, const struct map_args *args, const struct vd_session *session,
                     struct vd_error *err)
{
        uint64_t printed = 0;
        int ret;

        if (args->picture)
                return print_picture(image, args, session, err);
        if (!vd_output_is_json(args->output)) {
                printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
                return walk(image, args, session, print_line, NULL, err);
        }
        ret = walk(image, args, session, print_json_entry, &printed, err);
        if (ret)
                return ret;
        ret = vd_report_print_json_entry(NULL, &printed, stdout);
        return ret ? vd_fail(err, ret, "standard output") : 0;
}

static int map_run(void *arguments, const struct vd_texts *operands, struct vd_session *session, struct vd_error *err)
{
        struct map_args *args = arguments;
        struct vd_open how = { .lock = VD_LOCK_READ, .lock_warn = true, .no_parent = !args->max_depth };
        struct vd_image *image;
        int ret = vd_check_operands(session, operands, 1, 1, err);

        if (!ret && args->picture && vd_output_is_json(args->output))
                ret = vd_fail(err, VD_EUSAGE, "--picture and --output json exclude each other");
        if (!ret)
                ret = vd_source_open(session, &args->source, operands->items[0], how, &image, err);
        if (ret)
                return ret;
        args->start = vd_min(args->start, image->size);
        ret = print_map(image, args, session, err);
        vd_image_close(image);
        return ret;
}

const struct vd_command vd_cmd_map = {
        .name = "map", .operands = "FILE", .summary = "show where the parts of a disk are stored",
        .completes = "file", .streams = true,
        .examples = "  vdtool map disk.vhd\n"
                    "  vdtool map --picture disk.qcow2\n"
                    "  vdtool map --output json -s 1G -l 64M overlay.qcow2\n",
        .opts = map_opts, .args_size = sizeof(struct map_args), .defaults = &map_defaults, .run = map_run,
};
