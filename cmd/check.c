// SPDX-License-Identifier: MIT
/* check.c: is the structure of an image sound? Findings, qemu-img's summary and exit status. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cmd/common.h"
#include "core/check.h"

enum { STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_NO_CHECK = 63 };

struct check_args {
        struct vd_source source;
        const char *output, *repair, *progress, *source_cache;
        bool data, quiet;
};

static const struct vd_opt check_opts[] = {
        VD_COMMON_FORMAT(check_args, source.format),
        { .letter = 'r', .type = VD_OPT_TEXT, .name = "repair", .hidden = true, .optional_value = true,
          .if_empty = "leaks", .offset = offsetof(struct check_args, repair) },
        { .type = VD_OPT_FLAG, .name = "data", .offset = offsetof(struct check_args, data),
          .help = "also read and unpack everything that is stored" },
        VD_COMMON_OUTPUT(check_args, output),
        VD_COMMON_PROGRESS(check_args, progress),
        VD_COMMON_QUIET(check_args, quiet),
        VD_COMMON_REFERENCES(check_args, source.references),
        VD_COMMON_FORCE_SHARE(check_args, source.force_share),
        VD_COMMON_NO_LOCK(check_args, source.no_lock),
        VD_COMMON_SOURCE_CACHE(check_args, source_cache),
        { .type = VD_OPT_END },
};

static void add_finding(struct vd_report *list, const struct vd_finding *f)
{
        struct vd_report *item = vd_report_item(list);

        vd_report_text(item, "severity", "SEVERITY", vd_severity_name(f->severity));
        vd_report_text(item, "code", "FINDING", f->code);
        if (f->position != VD_NOWHERE) {
                vd_report_count(item, "position", NULL, f->position);
                vd_report_count(item, "length", NULL, f->length);
                vd_report_textf(item, NULL, "POSITION", "0x%" PRIx64, f->position);
        } else {
                vd_report_text(item, NULL, "POSITION", "-");
        }
        if (f->guest != VD_NOWHERE) {
                vd_report_count(item, "guest-offset", NULL, f->guest);
                vd_report_count(item, "guest-length", NULL, f->guest_length);
                vd_report_textf(item, NULL, "GUEST", "0x%" PRIx64, f->guest);
        } else {
                vd_report_text(item, NULL, "GUEST", "-");
        }
        vd_report_flag(item, "repairable", NULL, f->repairable);
        vd_report_text(item, "message", "WHAT", f->text ? f->text : "");
}

/* A number that JSON has only when it is not 0, as in qemu-img. */
static void add_count(struct vd_report *r, const char *key, uint64_t value)
{
        if (value)
                vd_report_count(r, key, NULL, value);
}

static double percent(uint64_t part, uint64_t whole)
{
        return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* The sentences are qemu-img's: scripts look for them. */
static void add_summary(struct vd_report *r, const struct vd_findings *f)
{
        uint64_t errors = f->totals[VD_ERROR], leaks = f->totals[VD_LEAK];

        if (!errors && !leaks && !f->failed)
                vd_report_text(r, NULL, "", "No errors were found on the image.");
        if (errors) {
                vd_report_textf(r, NULL, "", "%" PRIu64 " errors were found on the image.", errors);
                vd_report_text(r, NULL, "", "Data may be corrupted, or further writes to the image may corrupt it.");
        }
        if (leaks) {
                vd_report_textf(r, NULL, "", "%" PRIu64 " leaked clusters were found on the image.", leaks);
                vd_report_text(r, NULL, "", "This means waste of disk space, but no harm to data.");
        }
        if (f->totals[VD_WARNING])
                vd_report_textf(r, NULL, "", "%" PRIu64 " deviations from the format without effect on the data.",
                                f->totals[VD_WARNING]);
        if (f->failed)
                vd_report_text(r, NULL, "", "1 internal errors have occurred during the check.");
        if (f->total_units && f->allocated_units)
                vd_report_textf(r, NULL, "", "%" PRIu64 "/%" PRIu64
                                " = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters",
                                f->allocated_units, f->total_units, percent(f->allocated_units, f->total_units),
                                percent(f->fragmented_units, f->allocated_units),
                                percent(f->packed_units, f->allocated_units));
        if (f->end_offset)
                vd_report_textf(r, NULL, "", "Image end offset: %" PRIu64, f->end_offset);
}

static void describe(struct vd_report *r, const struct vd_image *image, const struct vd_findings *f)
{
        const struct vd_format *format = image->format;
        struct vd_report *list;
        uint64_t all = 0;
        size_t i;

        vd_report_text(r, "filename", NULL, image->path);
        vd_report_text(r, "format", NULL, format->qemu_name ? format->qemu_name : format->name);
        vd_report_count(r, "check-errors", NULL, f->failed);
        add_count(r, "image-end-offset", f->end_offset);
        add_count(r, "corruptions", f->totals[VD_ERROR]);
        add_count(r, "leaks", f->totals[VD_LEAK]);
        add_count(r, "warnings", f->totals[VD_WARNING]);
        add_count(r, "total-clusters", f->total_units);
        add_count(r, "allocated-clusters", f->allocated_units);
        add_count(r, "fragmented-clusters", f->fragmented_units);
        add_count(r, "compressed-clusters", f->packed_units);
        list = vd_report_table(r, "findings", "");
        for (i = 0; i < f->count; i++)
                add_finding(list, &f->items[i]);
        for (i = 0; i < VD_SEVERITIES; i++)
                all += f->totals[i];
        if (all > f->count) {
                vd_report_count(r, "findings-not-listed", NULL, all - f->count);
                vd_report_textf(r, NULL, "", "... and %" PRIu64 " more", all - f->count);
        }
        add_summary(r, f);
}

static int status_of(const struct vd_findings *f)
{
        if (f->failed)
                return 1;
        return f->totals[VD_ERROR] ? STATUS_CORRUPT : f->totals[VD_LEAK] ? STATUS_LEAKS : 0;
}

static int check(struct vd_image *image, const struct check_args *args, struct vd_session *session,
                 struct vd_error *err)
{
        struct vd_check_options options = {
                .data = args->data, .progress = vd_session_progress, .context = session,
                .stop = &session->signals->stop,
        };
        struct vd_check result = { 0 };
        int ret;

        vd_session_start_progress(session, args->progress);
        ret = vd_check_image(image, &options, &result, err);
        vd_session_end_progress(session);
        if (!ret && (!args->quiet || vd_output_is_json(args->output))) {
                struct vd_report *r = vd_report_new();

                describe(r, image, &result.findings);
                ret = vd_print_report(r, args->output, err);
                vd_report_free(r);
        }
        if (!ret)
                ret = status_of(&result.findings);
        vd_check_free(&result);
        return ret;
}

static int check_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                     struct vd_error *err)
{
        struct check_args *args = arguments;
        /* The structure is in the file itself; the data of some formats is in others. */
        struct vd_open how = { .lock = VD_LOCK_READ, .no_parent = true, .no_references = !args->data,
                               .whole_set = true };
        struct vd_image *image;
        int ret;

        session->quiet = args->quiet;
        if (args->repair)
                return vd_fail(err, VD_EUNSUPPORTED, "check -r: repairing is not part of this version yet");
        ret = vd_check_operands(session, operands, 1, 1, err);
        if (!ret)
                ret = vd_source_open(session, &args->source, operands->items[0], how, &image, err);
        if (ret)
                return ret;
        if (!image->format->walk && !image->format->check) {
                session->failure_status = STATUS_NO_CHECK;
                ret = vd_fail(err, VD_EUNSUPPORTED, "%s: This image format does not support checks", image->path);
        } else {
                ret = check(image, args, session, err);
        }
        vd_image_close(image);
        return ret;
}

const struct vd_command vd_cmd_check = {
        .name = "check", .operands = "FILE", .summary = "find damage in an image", .completes = "file", .streams = true,
        .examples = "  vdtool check disk.vhd\n"
                    "  vdtool check --data --output json disk.qcow2\n",
        .opts = check_opts, .args_size = sizeof(struct check_args), .run = check_run,
};
