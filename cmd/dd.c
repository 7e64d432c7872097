// SPDX-License-Identifier: MIT
/* dd.c: copy some blocks of a disk, as dd(1) does with files. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/new_image.h"
#include "cmd/stream_out.h"
#include "core/copy.h"
#include "core/file_nbd.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/size.h"

enum { BLOCK_USUAL = 512, BLOCK_MOST = INT32_MAX, HOLE_BYTES = 4096 };

struct dd_args {
        struct vd_source source;
        struct vd_new_args target;
        const char *progress;
        uint64_t threads;
        bool quiet;
};

#define FIELD(field) .offset = offsetof(struct dd_args, field)

static const struct vd_opt dd_opts[] = {
        VD_COMMON_FORMAT(dd_args, source.format),
        { .letter = 'O', .type = VD_OPT_TEXT, .name = "target-format", FIELD(target.format), .argument = "FORMAT",
          .completes = "format",
          .help = "format of the output; without it the extension of its name tells, raw if that is unknown" },
        VD_NEW_OPTIONS(dd_args, target),
        { .letter = 'm', .type = VD_OPT_COUNT, .name = "parallel", FIELD(threads), .argument = "N",
          .help = "number of threads; 0: as many as are useful" },
        VD_COMMON_PROGRESS(dd_args, progress),
        VD_COMMON_QUIET(dd_args, quiet),
        VD_COMMON_REFERENCES(dd_args, source.references),
        VD_COMMON_FORCE_SHARE(dd_args, source.force_share),
        VD_COMMON_NO_LOCK(dd_args, source.no_lock),
        { .type = VD_OPT_END },
};

/* What "if=... bs=..." say, then what that means in bytes. */
struct blocks {
        const char *in, *out;
        uint64_t size, count, skip, seek;
        bool has_count, keeps, finds_holes;     /* count=; conv=notrunc; conv=sparse */
        uint64_t from, length, at;
};

struct dd {
        struct dd_args *args;
        struct vd_session *session;
        struct blocks blocks;
        struct vd_image *input;         /* belongs to slice once that is set */
        struct vd_image *slice;
        struct vd_new_image new;
        struct vd_source existing_source;
        struct vd_image *existing;
};

static int read_conversions(struct dd *dd, const char *text, struct vd_error *err)
{
        static const char *const known[] = { "notrunc", "sparse", "fsync", NULL };
        VD_AUTOFREE char *list = strdup(text);
        char *next = list;

        if (!list)
                return vd_fail(err, -ENOMEM, "conv=");
        for (const char *word; (word = strsep(&next, ","));) {
                const char *near = vd_nearest(word, known);

                if (!strcmp(word, "notrunc"))
                        dd->blocks.keeps = true;
                else if (!strcmp(word, "sparse"))
                        dd->blocks.finds_holes = true;
                else if (!strcmp(word, "fsync"))
                        dd->args->target.fsync = true;
                else
                        return vd_fail(err, VD_EUSAGE, "conv=: \"%s\" is none of notrunc, sparse, fsync%s%s%s", word,
                                       near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
        }
        return 0;
}

static int read_operand(struct dd *dd, const char *text, struct vd_error *err)
{
        static const char *const names[] = { "if", "of", "bs", "count", "skip", "seek", "conv", NULL };
        struct blocks *b = &dd->blocks;
        uint64_t *const numbers[] = { NULL, NULL, &b->size, &b->count, &b->skip, &b->seek, NULL };
        const char *value = strchr(text, '=');
        size_t length = value ? (size_t)(value - text) : 0, i = 0;
        int ret;

        while (names[i] && (strlen(names[i]) != length || strncmp(names[i], text, length)))
                i++;
        if (!value || !names[i])
                return vd_fail(err, VD_EUSAGE, "\"%s\" is none of if=, of=, bs=, count=, skip=, seek=, conv=", text);
        value++;
        if (i == 0)
                b->in = value;
        else if (i == 1)
                b->out = value;
        else if (!numbers[i])
                return read_conversions(dd, value, err);
        if (i < 2)
                return 0;
        ret = vd_size_parse(value, numbers[i], err);
        if (ret)
                return vd_error_prefix(err, "%s=", names[i]);
        b->has_count = b->has_count || numbers[i] == &b->count;
        if (!b->size || b->size > BLOCK_MOST)
                return vd_fail(err, VD_EUSAGE, "bs=: %" PRIu64 " is not from 1 to %d", b->size, (int)BLOCK_MOST);
        return 0;
}

static int read_operands(struct dd *dd, const struct vd_texts *operands, struct vd_error *err)
{
        int ret = 0;

        dd->blocks.size = BLOCK_USUAL;
        for (size_t i = 0; i < operands->count && !ret; i++)
                ret = read_operand(dd, operands->items[i], err);
        if (!ret && (!dd->blocks.in || !dd->blocks.out))
                ret = vd_fail(err, VD_EUSAGE, "dd needs if= and of=");
        return ret;
}

/* From blocks to bytes of the disk. */
static int find_window(struct dd *dd, struct vd_error *err)
{
        struct blocks *b = &dd->blocks;
        uint64_t disk = dd->input->size, most, end;

        if (!vd_mul(b->seek, b->size, &b->at) || b->at > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "seek=: %" PRIu64 " blocks of %" PRIu64 " bytes are too much", b->seek,
                               b->size);
        if (!vd_mul(b->skip, b->size, &b->from) || b->from > disk) {
                vd_session_warn(dd->session, "%s: its disk ends before what is skipped; nothing is copied", b->in);
                b->from = disk;
        }
        b->length = disk - b->from;
        if (b->has_count && vd_mul(b->count, b->size, &most))
                b->length = vd_min(b->length, most);
        if (!vd_add(b->at, b->length, &end) || end > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "seek=: %" PRIu64 " blocks of %" PRIu64 " bytes are too much", b->seek,
                               b->size);
        return 0;
}

static struct vd_copy_options copy_options(const struct dd *dd)
{
        return (struct vd_copy_options){
                .threads = (unsigned)vd_min(dd->args->threads, 64), .sparse_bytes = HOLE_BYTES,
                .keep_zeros = !dd->blocks.finds_holes, .skip = dd->existing, .progress = vd_session_progress,
                .context = dd->session, .stop = &dd->session->signals->stop,
        };
}

static int slice(struct dd *dd, struct vd_error *err)
{
        const struct blocks *b = &dd->blocks;

        return vd_image_slice(&dd->slice, dd->input, b->from, b->length, b->at, dd->existing, err);
}

static int copy(struct dd *dd, struct vd_image *target, struct vd_error *err)
{
        struct vd_copy_options options = copy_options(dd);
        int ret;

        vd_session_start_progress(dd->session, dd->args->progress);
        ret = vd_copy(dd->slice, &target, 1, &options, NULL, err);
        vd_session_end_progress(dd->session);
        return ret;
}

static int copy_to_new(struct dd *dd, struct vd_error *err)
{
        int ret = slice(dd, err);

        if (!ret && vd_is_stream(dd->blocks.out)) {
                struct vd_copy_options options = copy_options(dd);
                struct vd_copy_stats stats;

                return vd_stream_out(dd->session, &dd->new, dd->blocks.out, dd->slice->size, dd->slice, &dd->input, 1,
                                     &options, &stats, err);
        }
        if (!ret)
                ret = vd_new_image_create(&dd->new, dd->blocks.out, dd->slice->size, dd->slice, err);
        if (ret)
                return ret;
        vd_session_warn_image(dd->session, dd->new.image);
        ret = copy(dd, dd->new.image, err);
        if (!ret)
                ret = vd_new_image_finish(&dd->new, &dd->input, 1, err);
        return ret ? ret : vd_new_image_publish(&dd->new, err);
}

static int copy_to_existing(struct dd *dd, struct vd_error *err)
{
        const struct dd_args *args = dd->args;
        struct vd_open how = { .format = args->target.format, .write = true, .lock = VD_LOCK_WRITE };
        uint64_t end = dd->blocks.at + dd->blocks.length;
        struct vd_writer *writer;
        int ret;

        dd->existing_source = (struct vd_source){ .references = args->source.references,
                                                  .no_lock = args->source.no_lock };
        if (!how.format && vd_file_is_nbd_uri(dd->blocks.out))
                how.format = "raw";
        ret = vd_source_open(dd->session, &dd->existing_source, dd->blocks.out, how, &dd->existing, err);
        if (ret)
                return ret;
        if (!how.format)
                vd_session_note(dd->session, "%s: format not given with -O: found %s", dd->blocks.out,
                                dd->existing->format->name);
        if (!dd->blocks.length)
                return 0;
        if (end > dd->existing->size && dd->existing->format->caps & VD_CAP_BARE) {
                ret = vd_file_truncate(dd->existing->file, end, err);
                if (ret)
                        return ret;
                dd->existing->size = end;
        }
        if (end > dd->existing->size)
                return vd_fail(err, VD_EUSAGE, "%s: its disk of %" PRIu64 " bytes ends before %" PRIu64, dd->blocks.out,
                               dd->existing->size, end);
        ret = slice(dd, err);
        if (!ret)
                ret = copy(dd, dd->existing, err);
        if (ret)
                return ret;
        writer = vd_writer_new(dd->existing);
        ret = writer ? vd_writer_finish(writer, err) : vd_fail(err, -ENOMEM, "finishing the image");
        vd_writer_free(writer);
        return ret ? ret : vd_image_check_unchanged(dd->input, err);
}

/* Is the output something to write into, and not to be made? */
static bool is_kept(const struct blocks *b)
{
        struct stat st;

        if (vd_file_is_nbd_uri(b->out))
                return true;
        return !stat(b->out, &st) && (S_ISBLK(st.st_mode) || (b->keeps && S_ISREG(st.st_mode)));
}

static int copy_blocks(struct dd *dd, struct vd_error *err)
{
        struct vd_open how = { .lock = VD_LOCK_READ };
        bool kept = is_kept(&dd->blocks);
        int ret = 0;

        if (!kept) {
                struct vd_new_args target = dd->args->target;

                if (!target.format && !vd_format_by_extension(dd->blocks.out))
                        target.format = "raw";
                ret = vd_new_image_init(&dd->new, dd->blocks.out, &target, err);
        } else if (dd->args->target.options.count || dd->args->target.type) {
                ret = vd_fail(err, VD_EUSAGE, "%s exists and is kept: there are no create options for it",
                              dd->blocks.out);
        }
        if (!ret && dd->new.wants_help) {
                vd_new_image_print_options(&dd->new, stdout);
                return 0;
        }
        if (!ret)
                ret = vd_source_open(dd->session, &dd->args->source, dd->blocks.in, how, &dd->input, err);
        if (!ret)
                ret = vd_check_not_input(dd->blocks.out, &dd->input, 1, err);
        if (!ret)
                ret = find_window(dd, err);
        if (!ret)
                ret = kept ? copy_to_existing(dd, err) : copy_to_new(dd, err);
        /* Whoever reads no more of a stream knows. */
        return ret == -EPIPE ? dd->session->failure_status : ret;
}

static int dd_run(void *arguments, const struct vd_texts *operands, struct vd_session *session, struct vd_error *err)
{
        struct dd dd = { .args = arguments, .session = session, .new = VD_NEW_IMAGE_INIT };
        int ret;

        session->quiet = dd.args->quiet;
        ret = read_operands(&dd, operands, err);
        if (!ret)
                ret = copy_blocks(&dd, err);
        vd_new_image_free(&dd.new);
        vd_image_close(dd.slice ? dd.slice : dd.input);
        vd_image_close(dd.existing);
        return ret;
}

const struct vd_command vd_cmd_dd = {
        .name = "dd", .operands = "if=SOURCE of=TARGET [bs=SIZE] [count=N] [skip=N] [seek=N] [conv=WORD,...]",
        .summary = "copy some blocks of a disk", .completes = "file", .streams = true,
        .examples = "  vdtool dd if=disk.vhd of=mbr.bin count=1\n"
                    "  vdtool dd bs=1M skip=1 count=512 if=disk.qcow2 of=partition.raw\n"
                    "  vdtool dd bs=1M seek=1 conv=notrunc if=partition.raw of=disk.qcow2\n",
        .opts = dd_opts, .args_size = sizeof(struct dd_args), .run = dd_run,
};
