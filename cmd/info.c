// SPDX-License-Identifier: MIT
/* info.c: describe images: qemu-img's keys and lines, and more. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/common.h"
#include "core/wrap.h"
#include "util/cleanup.h"
#include "util/size.h"
#include "util/text.h"

struct info_args {
        struct vd_source source;
        const char *output, *field;
        bool chain;
};

static const struct vd_opt info_opts[] = {
        VD_COMMON_FORMAT(info_args, source.format),
        { .type = VD_OPT_FLAG, .name = "backing-chain", .offset = offsetof(struct info_args, chain),
          .help = "also describe every parent; without it no other file is opened" },
        { .type = VD_OPT_TEXT, .name = "field", .offset = offsetof(struct info_args, field), .argument = "NAME",
          .help = "print this value only: a path of JSON keys, such as format-specific.data.compat" },
        VD_COMMON_OUTPUT(info_args, output),
        VD_COMMON_REFERENCES(info_args, source.references),
        VD_COMMON_FORCE_SHARE(info_args, source.force_share),
        VD_COMMON_NO_LOCK(info_args, source.no_lock),
        { .type = VD_OPT_END },
};

/* Where a name inside an image points to, as a path to show: nothing is opened or looked up. */
static char *beside(const char *image_path, const char *name)
{
        const char *slash = strrchr(image_path, '/');

        if (*name == '/' || !slash)
                return strdup(name);
        return vd_asprintf("%.*s/%s", (int)(slash - image_path), image_path, name);
}

static void describe_parent(struct vd_report *r, const struct vd_image *image)
{
        const char *name, *format = image->parent_ref.format;
        VD_AUTOFREE char *full = NULL;

        if (!image->parent_ref.count)
                return;
        name = image->parent_ref.names[0].name;
        full = image->parent ? strdup(image->parent->path) : beside(image->path, name);
        vd_report_text(r, "backing-filename", NULL, name);
        if (full)
                vd_report_text(r, "full-backing-filename", NULL, full);
        if (full && strcmp(full, name))
                vd_report_textf(r, NULL, "backing file", "%s (actual path: %s)", name, full);
        else
                vd_report_text(r, NULL, "backing file", name);
        if (format)
                vd_report_text(r, "backing-filename-format", "backing file format", format);
}

static void describe_references(struct vd_report *r, const struct vd_image *image)
{
        size_t i, count = image->parent_ref.count;
        struct vd_report *list;

        if (!count)
                return;
        list = vd_report_table(r, "references", count > 1 ? "Names of the parent" : NULL);
        for (i = 0; i < count; i++) {
                struct vd_report *item = vd_report_item(list);

                vd_report_text(item, "type", NULL, "parent");
                vd_report_text(item, "origin", "FROM", image->parent_ref.names[i].origin);
                vd_report_text(item, "name", "NAME", image->parent_ref.names[i].name);
        }
}

static void add_snapshot(struct vd_report *r, struct vd_report *list, const struct vd_snapshot *s)
{
        struct vd_report *item = vd_report_item(list);
        uint64_t seconds = s->vm_clock_nanoseconds / 1000000000, nanoseconds = s->vm_clock_nanoseconds % 1000000000;
        time_t date = (time_t)s->date_seconds;
        char size[32], when[32] = "", clock[64], icount[32] = "";
        struct tm utc;

        vd_report_text(item, "id", NULL, s->id);
        vd_report_text(item, "name", NULL, s->name);
        vd_report_count(item, "vm-state-size", NULL, s->vm_state_bytes);
        vd_report_signed(item, "date-sec", NULL, s->date_seconds);
        vd_report_count(item, "date-nsec", NULL, s->date_nanoseconds);
        vd_report_count(item, "vm-clock-sec", NULL, seconds);
        vd_report_count(item, "vm-clock-nsec", NULL, nanoseconds);
        if (s->icount != UINT64_MAX) {
                vd_report_count(item, "icount", NULL, s->icount);
                snprintf(icount, sizeof icount, "%" PRIu64, s->icount);
        }
        /* In UTC: what is printed depends on the image alone. */
        if (gmtime_r(&date, &utc))
                strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &utc);
        snprintf(clock, sizeof clock, "%02" PRIu64 ":%02u:%02u.%03u", seconds / 3600, (unsigned)(seconds / 60 % 60),
                 (unsigned)(seconds % 60), (unsigned)(nanoseconds / 1000000));
        vd_report_textf(r, NULL, "", "%-9s %-16s %8s%20s%13s%11s", s->id, s->name,
                        vd_size_text(s->vm_state_bytes, size), when, clock, icount);
}

/* The columns are those of qemu-img, which scripts cut apart. */
static int describe_snapshots(struct vd_report *r, struct vd_image *image, struct vd_error *err)
{
        struct vd_report *list = NULL;
        struct vd_snapshot snapshot;
        unsigned i;

        for (i = 0; image->format->snapshot; i++) {
                int ret = image->format->snapshot(image, i, &snapshot, err);

                if (ret == -ENOENT) {
                        *err = (struct vd_error)VD_ERROR_INIT;
                        break;
                }
                if (ret)
                        return vd_error_prefix(err, "%s", image->path);
                if (!list) {
                        list = vd_report_list(r, "snapshots", NULL);
                        vd_report_text(r, NULL, "", "Snapshot list:");
                        vd_report_textf(r, NULL, "", "%-9s %-16s %8s%20s%13s%11s", "ID", "TAG", "VM SIZE", "DATE",
                                        "VM CLOCK", "ICOUNT");
                }
                add_snapshot(r, list, &snapshot);
        }
        return 0;
}

static int describe(struct vd_report *r, struct vd_image *image, struct vd_error *err)
{
        const struct vd_format *format = image->format;
        const char *qemu_name = format->qemu_name ? format->qemu_name : format->name;
        struct vd_report *specific;
        char size[32];
        int ret;

        vd_report_text(r, "filename", "image", image->path);
        vd_report_text(r, "format", NULL, qemu_name);
        vd_report_text(r, NULL, "file format", format->name);
        vd_report_bytes(r, "virtual-size", "virtual size", image->size);
        vd_report_count(r, "actual-size", NULL, vd_file_disk_bytes(image->file));
        vd_report_text(r, NULL, "disk size", vd_size_text(vd_file_disk_bytes(image->file), size));
        if (image->is_encrypted) {
                vd_report_flag(r, "encrypted", NULL, true);
                vd_report_text(r, NULL, "encrypted", "yes");
        }
        if (image->unit)
                vd_report_count(r, "cluster-size", "cluster_size", image->unit);
        if (image->wrapper)
                vd_report_text(r, "wrapper", "wrapped in", vd_wrapper_name(image->wrapper));
        if (image->is_packed)
                vd_report_flag(r, "compressed", "compressed", true);
        vd_report_flag(r, "dirty-flag", NULL, image->is_dirty);
        if (image->is_dirty)
                vd_report_text(r, NULL, "cleanly shut down", "no");
        describe_parent(r, image);
        ret = describe_snapshots(r, image, err);
        if (ret)
                return ret;
        if (format->describe) {
                specific = vd_report_section(r, "format-specific", "Format specific information");
                vd_report_text(specific, "type", NULL, qemu_name);
                format->describe(image, vd_report_section(specific, "data", ""));
        }
        describe_references(r, image);
        return 0;
}

/* The image and, where they were opened, its parents: one item each. */
static int describe_file(struct vd_session *session, struct info_args *args, const char *path,
                         struct vd_report *list, struct vd_report *single, struct vd_error *err)
{
        struct vd_open how = { .lock = VD_LOCK_READ, .lock_warn = true, .no_references = !args->chain };
        struct vd_image *image, *link;
        int ret = vd_source_open(session, &args->source, path, how, &image, err);

        if (ret)
                return ret;
        for (link = image; link && !ret; link = link->parent) {
                struct vd_report *r = single ? single : vd_report_item(list);

                ret = describe(r, link, err);
                if (!ret && args->field) {
                        ret = vd_report_print_field(r, args->field, stdout);
                        if (ret == -ENOENT)
                                vd_fail(err, VD_EUSAGE, "%s: there is no field \"%s\"", link->path, args->field);
                        else if (ret)
                                vd_fail(err, ret, "standard output");
                }
        }
        vd_image_close(image);
        return ret;
}

static int info_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                    struct vd_error *err)
{
        struct info_args *args = arguments;
        struct vd_report *list = NULL, *single = NULL;
        int ret = vd_check_operands(session, operands, 1, SIZE_MAX, err);
        size_t i;

        if (ret)
                return ret;
        if (operands->count == 1 && !args->chain)
                single = vd_report_new();
        else
                list = vd_report_new_list();
        for (i = 0; i < operands->count && !ret; i++)
                ret = describe_file(session, args, operands->items[i], list, single, err);
        if (!ret && !args->field)
                ret = vd_print_report(single ? single : list, args->output, err);
        vd_report_free(single);
        vd_report_free(list);
        return ret;
}

const struct vd_command vd_cmd_info = {
        .name = "info", .operands = "FILE...", .summary = "describe images", .completes = "file", .streams = true,
        .examples = "  vdtool info disk.vhd\n"
                    "  vdtool info --output json --backing-chain overlay.qcow2\n"
                    "  vdtool info --field virtual-size disk.vhd\n",
        .opts = info_opts, .args_size = sizeof(struct info_args), .run = info_run,
};
