// SPDX-License-Identifier: MIT
/* convert.c: copy disks into a new image, or into an existing one (-n). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/convert.h"
#include "cmd/stream_in.h"
#include "cmd/stream_out.h"
#include "core/check.h"
#include "core/copy.h"
#include "util/cleanup.h"

enum { SPARSE_MAX = 16 * 1024 * 1024, THREADS_MAX = 64 };

static const struct convert_args convert_defaults = { .sparse_size = 4096 };

#define FIELD(field) .offset = offsetof(struct convert_args, field)

static const struct vd_opt convert_opts[] = {
        { .letter = 'f', .type = VD_OPT_TEXT, .name = "format", FIELD(source.format), .argument = "FORMAT",
          .completes = "format", .help = "format of the sources; without it the content tells" },
        { .type = VD_OPT_TEXT, .name = "source-format", .hidden = true, FIELD(source.format) },
        { .letter = 'O', .type = VD_OPT_TEXT, .name = "target-format", FIELD(target.format), .argument = "FORMAT",
          .completes = "format", .help = "format of the new image; without it the extension of its name tells" },
        VD_NEW_OPTIONS(convert_args, target),
        { .letter = 'c', .type = VD_OPT_FLAG, .name = "compress", FIELD(compress),
          .help = "compress what is not compressed already" },
        { .type = VD_OPT_FLAG, .name = "no-compress", FIELD(expand),
          .help = "store uncompressed what is compressed in the source" },
        { .type = VD_OPT_LIST, .name = "also", FIELD(also), .argument = "FILE[,fmt=FORMAT][,KEY=VALUE...]",
          .completes = "file",
          .help = "one more new image in the same pass; fmt is its format, the rest create options" },
        { .letter = 'B', .type = VD_OPT_TEXT, .name = "backing", FIELD(target.backing_file), .argument = "FILE",
          .completes = "file", .help = "parent of the new image; what the source has from it is left out" },
        { .letter = 'b', .type = VD_OPT_TEXT, .name = "backing-file", .hidden = true, FIELD(target.backing_file) },
        { .letter = 'F', .type = VD_OPT_TEXT, .name = "backing-format", FIELD(target.backing_format),
          .argument = "FORMAT", .completes = "format", .help = "format of that parent; without it the content tells" },
        { .type = VD_OPT_TEXT, .name = "parent", FIELD(parent), .argument = "FILE", .completes = "file",
          .help = "use this file as the source's parent, instead of the one it names" },
        { .letter = 'l', .type = VD_OPT_TEXT, .name = "snapshot", FIELD(snapshot), .argument = "SNAPSHOT",
          .help = "convert this internal snapshot (its id or name) of the source" },
        { .type = VD_OPT_SIZE, .name = "offset", FIELD(offset), .argument = "BYTES",
          .help = "where in the source file the image begins" },
        { .type = VD_OPT_SIZE, .name = "size", FIELD(size), .argument = "BYTES",
          .help = "how much of the source file the image is" },
        { .letter = 'n', .type = VD_OPT_FLAG, .name = "no-create", FIELD(no_create),
          .help = "write into an existing image or block device" },
        { .type = VD_OPT_SIZE, .name = "target-offset", FIELD(target_offset), .argument = "BYTES",
          .help = "with -n: where in the target file to write" },
        { .type = VD_OPT_SIZE, .name = "target-size", FIELD(target_size), .argument = "BYTES",
          .help = "with -n: how much of the target file may be written" },
        { .type = VD_OPT_FLAG, .name = "target-is-zero", FIELD(target_is_zero),
          .help = "with -n: the target reads as zeros, so that zeros need not be written" },
        { .letter = 'S', .type = VD_OPT_SIZE, .name = "sparse-size", FIELD(sparse_size), .argument = "SIZE",
          .help = "shortest run of zeros that becomes a hole (4k); 0: write all zeros" },
        { .type = VD_OPT_FLAG, .name = "dense", FIELD(dense), .help = "the same as -S 0" },
        { .type = VD_OPT_FLAG, .name = "salvage", FIELD(salvage),
          .help = "go on where the source cannot be read: zeros there, each range listed, exit status 1" },
        { .type = VD_OPT_FLAG, .name = "no-verify", FIELD(no_verify),
          .help = "do not compare the checksums that a source carries of itself (the manifest of an OVA)" },
        { .type = VD_OPT_FLAG, .name = "verify", FIELD(verify),
          .help = "read the new image back before it gets its name, and compare digests" },
        { .type = VD_OPT_FLAG, .name = "checksum", FIELD(checksum),
          .help = "print the digest of the disk's content, the same for every format" },
        { .letter = 'r', .type = VD_OPT_SIZE, .name = "rate-limit", FIELD(rate), .argument = "BYTES",
          .help = "copy at most so many bytes a second" },
        { .letter = 'm', .type = VD_OPT_COUNT, .name = "parallel", FIELD(threads), .argument = "N",
          .help = "number of threads; 0: as many as are useful" },
        VD_COMMON_PROGRESS(convert_args, progress),
        VD_COMMON_QUIET(convert_args, quiet),
        { .letter = 'v', .type = VD_OPT_FLAG, .name = "verbose", FIELD(verbose),
          .help = "print afterwards what was copied, and how" },
        VD_COMMON_REFERENCES(convert_args, source.references),
        VD_COMMON_FORCE_SHARE(convert_args, source.force_share),
        VD_COMMON_NO_LOCK(convert_args, source.no_lock),
        { .letter = 't', .type = VD_OPT_CHOICE, .name = "cache", FIELD(cache), .choices = vd_cache_words,
          .argument = "MODE", .help = "as qemu-img's: any mode but unsafe, which is the default, means --fsync" },
        { .type = VD_OPT_CHOICE, .name = "target-cache", .hidden = true, FIELD(cache), .choices = vd_cache_words },
        VD_COMMON_SOURCE_CACHE(convert_args, source_cache),
        { .letter = 'W', .type = VD_OPT_FLAG, .name = "oob-writes", FIELD(ignored),
          .help = "accepted for qemu-img's sake, has no effect" },
        { .letter = 'C', .type = VD_OPT_FLAG, .name = "copy-range-offloading", .hidden = true, FIELD(ignored) },
        { .type = VD_OPT_END },
};

int vd_convert_conflict(struct vd_error *err, const char *one, const char *other)
{
        return vd_fail(err, VD_EUSAGE, "%s and %s exclude each other", one, other);
}

static int needs_no_create(struct vd_error *err, const char *option)
{
        return vd_fail(err, VD_EUSAGE, "%s works with -n (--no-create) only", option);
}

/* Contradictions that can be seen without opening anything. */
static int check_args(const struct convert_args *args, size_t sources, const char *target, struct vd_error *err)
{
        const struct vd_new_args *t = &args->target;

        if (args->sparse_size % 512 || args->sparse_size > SPARSE_MAX)
                return vd_fail(err, VD_EUSAGE, "option --sparse-size: %" PRIu64 " is not a multiple of 512 up to %d",
                               args->sparse_size, (int)SPARSE_MAX);
        if (args->threads > THREADS_MAX)
                return vd_fail(err, VD_EUSAGE, "option --parallel: %" PRIu64 " is more than %d", args->threads,
                               (int)THREADS_MAX);
        if (args->no_create) {
                if (vd_is_stdout(target))
                        return vd_convert_conflict(err, "-n", "standard output");
                if (t->options.count || t->type)
                        return vd_convert_conflict(err, "-n", t->type ? "--type" : "-o");
                if (t->backing_file)
                        return vd_convert_conflict(err, "-n", "-B");
                if (t->force)
                        return vd_convert_conflict(err, "-n", "--force");
                if (args->also.count)
                        return vd_convert_conflict(err, "-n", "--also");
        } else {
                if (args->also.count && vd_is_stream(target))
                        return vd_convert_conflict(err, "--also", "a stream as the first target");
                if (args->target_is_zero)
                        return needs_no_create(err, "--target-is-zero");
                if (args->target_offset || args->target_size)
                        return needs_no_create(err, args->target_offset ? "--target-offset" : "--target-size");
        }
        if (args->compress && args->expand)
                return vd_convert_conflict(err, "-c", "--no-compress");
        if (args->verify && (args->no_create || args->salvage))
                return vd_convert_conflict(err, "--verify", args->no_create ? "-n" : "--salvage");
        if (sources > 1) {
                if (t->backing_file)
                        return vd_convert_conflict(err, "several sources", "-B");
                if (args->snapshot)
                        return vd_convert_conflict(err, "several sources", "--snapshot");
                if (args->parent)
                        return vd_convert_conflict(err, "several sources", "--parent");
        }
        return 0;
}

static int take_snapshot_key(void *context, const char *name, const char *value, struct vd_error *err)
{
        const char **wanted = context;
        bool is_id = !strcmp(name, "snapshot.id");

        if (!value || (!is_id && strcmp(name, "snapshot.name")))
                return vd_fail(err, VD_EUSAGE, "option --snapshot: \"%s\" is neither snapshot.id= nor snapshot.name=",
                               name);
        if (is_id || !*wanted) {
                free((char *)*wanted);
                *wanted = strdup(value);
                if (!*wanted)
                        return vd_fail(err, -ENOMEM, "option --snapshot");
        }
        return 0;
}

/* "snapshot.id=1,snapshot.name=x" is qemu-img's long form; everything else is an id or a name as it stands. */
static int read_snapshot(struct convert_args *args, struct vd_error *err)
{
        const char *wanted = NULL;
        int ret;

        if (!args->snapshot || strncmp(args->snapshot, "snapshot.", 9))
                return 0;
        ret = vd_opts_each(args->snapshot, take_snapshot_key, &wanted, err);
        if (!ret) {
                const char *old = args->snapshot;

                args->snapshot = wanted;
                wanted = old;
        }
        free((char *)wanted);
        return ret;
}

static int open_sources(struct conversion *c, char *const *paths, size_t count, struct vd_error *err)
{
        struct vd_open how = {
                .lock = VD_LOCK_READ, .parent_path = c->args->parent, .snapshot = c->args->snapshot,
                .window_offset = c->args->offset, .window_size = c->args->size,
        };
        int ret = 0;
        size_t i;

        c->inputs = calloc(count, sizeof(struct vd_image *));
        if (!c->inputs)
                return vd_fail(err, -ENOMEM, "sources");
        for (i = 0; i < count && !ret; i++) {
                ret = vd_source_open(c->session, &c->args->source, paths[i], how, &c->inputs[i], err);
                if (ret)
                        break;
                c->input_count++;
                for (size_t n = 0; n < c->inputs[i]->extra_count && !c->args->snapshot; n++)
                        vd_session_warn(c->session, "%s: %s: the copy will not have this", paths[i],
                                        c->inputs[i]->extras[n]);
        }
        return ret;
}

/* From here on the inputs belong to the source. */
static int join_sources(struct conversion *c, struct vd_error *err)
{
        VD_AUTOFREE struct vd_image **parts = NULL;
        int ret;

        if (c->input_count == 1) {
                c->source = c->inputs[0];
                return 0;
        }
        parts = calloc(c->input_count, sizeof(struct vd_image *));
        if (!parts)
                return vd_fail(err, -ENOMEM, "sources");
        memcpy(parts, c->inputs, c->input_count * sizeof(struct vd_image *));
        ret = vd_image_join(&c->source, parts, c->input_count, err);
        if (ret)
                c->input_count = 0;
        return ret;
}

static int print_stats(const struct conversion *c, const struct vd_copy_stats *stats, struct vd_error *err)
{
        FILE *stream = vd_is_stdout(c->target_path) ? stderr : stdout;
        struct vd_report *r = vd_report_new();
        int ret;

        vd_report_bytes(r, NULL, "data written", stats->data_bytes);
        vd_report_bytes(r, NULL, "left as holes", stats->zero_bytes);
        vd_report_count(r, NULL, "units compressed", stats->packed_units);
        vd_report_count(r, NULL, "units copied as they are", stats->verbatim_units);
        vd_report_bytes(r, NULL, "memory for buffers", stats->memory_bytes);
        vd_report_count(r, NULL, "threads", stats->threads);
        ret = vd_report_print_text(r, isatty(fileno(stream)), stream);
        vd_report_free(r);
        return ret ? vd_fail(err, ret, "printing what was copied") : 0;
}

/* Does the only source come through a pipe as it shall lie in the target?  Nobody has to see all of it first then. */
static bool goes_straight(const struct conversion *c, const char *source)
{
        const struct convert_args *args = c->args;
        const struct vd_format *format = args->source.format ? vd_format_by_name(args->source.format) : NULL;

        return vd_is_stream_source(c->session, source) && format && format->caps & VD_CAP_BARE &&
               c->target_count == 1 && c->targets->new.format == format && !c->targets->new.wrapper &&
               !args->target.options.count &&
               !args->target.type && !args->target.backing_file && !args->offset && !args->size && !args->compress &&
               !args->snapshot && !args->parent && !args->verify && !args->checksum && !vd_is_stream(c->target_path);
}

static int go_straight(struct conversion *c, const char *source, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_copy_options options = vd_convert_options(c, NULL);

        return vd_stream_in_bare(c->session, source, &c->targets->new, c->target_path, &options, stats, err);
}

/* Everything from the sources on. */
static int convert_images(struct conversion *c, char *const *paths, size_t count, struct vd_copy_stats *stats,
                          struct vd_error *err)
{
        int ret = open_sources(c, paths, count, err);

        if (!ret)
                ret = vd_check_not_input(c->target_path, c->inputs, c->input_count, err);
        for (size_t i = 1; i < c->target_count && !ret; i++)
                ret = vd_check_not_input(c->targets[i].path, c->inputs, c->input_count, err);
        for (size_t i = 0; i < c->input_count && !ret && !c->args->no_verify; i++)
                ret = vd_image_verify(c->inputs[i], &c->session->signals->stop, err);
        if (!ret)
                ret = join_sources(c, err);
        if (!ret)
                ret = c->args->no_create ? vd_convert_to_existing(c, stats, err) : vd_convert_to_new(c, stats, err);
        return ret;
}

static int convert(struct conversion *c, const struct vd_texts *operands, struct vd_error *err)
{
        struct vd_copy_stats stats = { 0 };
        size_t sources = operands->count - 1;
        int ret = check_args(c->args, sources, c->target_path, err);

        if (!ret)
                ret = read_snapshot(c->args, err);
        if (!ret && sources == 1 && goes_straight(c, operands->items[0]))
                ret = go_straight(c, operands->items[0], &stats, err);
        else if (!ret)
                ret = convert_images(c, operands->items, sources, &stats, err);
        if (!ret && c->args->verbose && !c->session->quiet)
                ret = print_stats(c, &stats, err);
        if (!ret && c->args->checksum)
                printf("%s\n", c->digest);
        if (!ret && c->unreadable_bytes)
                ret = vd_fail(err, VD_ECORRUPT, "%" PRIu64 " bytes could not be read and are zeros in the output",
                              c->unreadable_bytes);
        return ret;
}

static void close_all(struct conversion *c)
{
        size_t i;

        for (i = 0; i < c->target_count; i++) {
                vd_new_image_free(&c->targets[i].new);
                free(c->targets[i].also_path);
        }
        free(c->targets);
        vd_image_close(c->existing);
        if (c->source)
                vd_image_close(c->source);
        for (i = 0; i < c->input_count && !c->source; i++)
                vd_image_close(c->inputs[i]);
        free(c->inputs);
}

static int convert_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                       struct vd_error *err)
{
        struct convert_args *args = arguments;
        struct conversion c = { .args = args, .session = session };
        const char *target = operands->count ? operands->items[operands->count - 1] : NULL;
        int ret = 0;

        session->quiet = args->quiet;
        if (args->cache && strcmp(args->cache, "unsafe"))
                args->target.fsync = true;
        c.target_path = target;
        /* "-o help" needs a format, but no files. */
        if (!args->target.options.count || operands->count > 1)
                ret = vd_check_operands(session, operands, 2, SIZE_MAX, err);
        if (!ret && !args->no_create)
                ret = vd_convert_init_targets(&c, err);
        if (!ret && c.targets && c.targets[0].new.wants_help) {
                vd_new_image_print_options(&c.targets[0].new, stdout);
        } else {
                if (!ret)
                        ret = vd_check_operands(session, operands, 2, SIZE_MAX, err);
                if (!ret)
                        ret = convert(&c, operands, err);
        }
        /* Whoever reads no more of a stream knows. */
        if (ret == -EPIPE)
                ret = session->failure_status;
        close_all(&c);
        return ret;
}

const struct vd_command vd_cmd_convert = {
        .name = "convert", .operands = "SOURCE... TARGET", .summary = "copy a disk into an image of any format",
        .completes = "file", .streams = true,
        .examples = "  vdtool convert disk.vhd disk.qcow2\n"
                    "  vdtool convert -p --type fixed disk.qcow2 disk.vhd\n"
                    "  vdtool convert -c -o compression_type=zstd disk.raw small.qcow2\n"
                    "  vdtool convert -O qcow2 disk.vhd - | ssh host 'cat >disk.qcow2'\n"
                    "  vdtool convert -O raw -n disk.qcow2 /dev/sdx\n",
        .opts = convert_opts, .args_size = sizeof(struct convert_args), .defaults = &convert_defaults,
        .run = convert_run,
};
