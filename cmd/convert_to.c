// SPDX-License-Identifier: MIT
/* convert_to.c: the targets of convert: new images, existing ones, streams and compressed files. */
#include "cmd/convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/stream_out.h"
#include "core/file_nbd.h"
#include "core/wrap.h"
#include "util/checked.h"
#include "util/cleanup.h"

/* The image of the source's chain that is the new image's parent too: what comes from there need not be copied. */
static const struct vd_image *find_common_parent(const struct conversion *c, const struct vd_image *backing)
{
        const struct vd_image *link;
        struct stat st;
        int fd = backing ? vd_file_fd(backing->file) : -1;

        if (fd < 0 || fstat(fd, &st))
                return NULL;
        for (link = c->source->parent; link; link = link->parent)
                if (vd_file_is(link->file, &st) && link->format == backing->format)
                        return link;
        vd_session_note(c->session, "%s is not in the chain of %s: all of the disk is copied", backing->path,
                        c->source->path);
        return NULL;
}

static void show_progress(void *context, uint64_t done, uint64_t total)
{
        struct conversion *c = context;

        vd_session_progress(c->session, done, total);
}

static void list_unreadable(void *context, uint64_t start, uint64_t length, const struct vd_error *why)
{
        struct conversion *c = context;

        c->unreadable_bytes += length;
        vd_session_warn(c->session, "unreadable, zeros written: %" PRIu64 " bytes at guest offset %" PRIu64 " (%s)",
                        length, start, why->text);
}

struct vd_copy_options vd_convert_options(struct conversion *c, const struct vd_image *skip)
{
        const struct convert_args *args = c->args;

        return (struct vd_copy_options){
                .threads = (unsigned)args->threads, .sparse_bytes = args->dense ? 0 : args->sparse_size,
                .compress = args->compress, .expand = args->expand, .target_is_zero = args->target_is_zero,
                .rate = args->rate, .skip = skip, .unreadable = args->salvage ? list_unreadable : NULL,
                .progress = show_progress, .context = c, .stop = &c->session->signals->stop,
        };
}

static int copy(struct conversion *c, struct vd_image *const *targets, size_t count, const struct vd_image *skip,
                struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_copy_options options = vd_convert_options(c, skip);
        int ret;

        if ((c->args->verify || c->args->checksum) && !(options.digest = vd_digest_new()))
                return vd_fail(err, -ENOMEM, "the digest");
        vd_session_start_progress(c->session, c->args->progress);
        ret = vd_copy(c->source, targets, count, &options, stats, err);
        vd_session_end_progress(c->session);
        if (!ret && options.digest)
                vd_digest_finish(options.digest, c->digest);
        vd_digest_free(options.digest);
        return ret;
}

/* Reads a finished image through its driver, as if it were opened anew. */
static int verify(struct conversion *c, const struct convert_target *t, struct vd_error *err)
{
        struct vd_open how = { .format = t->new.format->name, .lock = VD_LOCK_NONE, .unpublished = t->new.output,
                               .policy = vd_source_policy(&c->args->source) };
        struct vd_image *image;
        char digest[sizeof(c->digest)];
        int ret = vd_image_open(&image, t->path, &how, err);

        if (ret)
                return vd_error_prefix(err, "reading the new image back");
        image->size = vd_min(image->size, c->source->size);
        ret = vd_checksum(c->session, image, c->args->threads, digest, err);
        vd_image_close(image);
        if (!ret && strcmp(digest, c->digest))
                ret = vd_fail(err, -EIO, "%s: reads back with digest %s, the source has %s", t->path, digest,
                              c->digest);
        return ret;
}

static int choose_size(const struct conversion *c, const struct convert_target *t, uint64_t *size, struct vd_error *err)
{
        *size = t->new.has_size ? t->new.size : c->source->size;
        if (*size < c->source->size)
                return vd_fail(err, VD_EUSAGE, "the source has %" PRIu64 " bytes, more than size=%" PRIu64 " of %s",
                               c->source->size, *size, t->path);
        return 0;
}

static int create_target(struct conversion *c, struct convert_target *t, struct vd_error *err)
{
        uint64_t size;
        int ret = choose_size(c, t, &size, err);

        if (!ret)
                ret = vd_new_image_create(&t->new, t->path, size, c->source, err);
        if (!ret)
                vd_session_warn_image(c->session, t->new.image);
        return ret;
}

/* All of the file is compressed: the copy engine has no part in it. */
static int wrap(struct conversion *c, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_new_image *new = &c->targets->new;
        struct vd_copy_options options = vd_convert_options(c, NULL);
        uint64_t size;
        int ret = c->args->compress ? vd_convert_conflict(err, "-c", "a file that is compressed as a whole") : 0;

        if (!ret)
                ret = choose_size(c, c->targets, &size, err);
        if (!ret)
                ret = vd_new_image_open_output(new, c->target_path, err);
        if (!ret && (c->args->verify || c->args->checksum) && !(options.digest = vd_digest_new()))
                ret = vd_fail(err, -ENOMEM, "the digest");
        if (ret)
                return ret;
        vd_session_start_progress(c->session, c->args->progress);
        ret = vd_wrap(new->wrapper, (unsigned)new->wrapper_level, c->source, size, vd_output_file(new->output),
                      &options, stats, err);
        vd_session_end_progress(c->session);
        if (!ret && options.digest)
                vd_digest_finish(options.digest, c->digest);
        vd_digest_free(options.digest);
        return ret;
}

/* Makes the new images, without names. */
static int write_targets(struct conversion *c, const struct vd_image *skip, struct vd_copy_stats *stats,
                         struct vd_error *err)
{
        VD_AUTOFREE struct vd_image **images = calloc(c->target_count, sizeof(struct vd_image *));
        int ret = images ? 0 : vd_fail(err, -ENOMEM, "targets");

        if (c->target_count == 1 && c->targets->new.wrapper)
                return wrap(c, stats, err);
        for (size_t i = 0; i < c->target_count && !ret; i++)
                if (c->targets[i].new.wrapper)
                        ret = vd_convert_conflict(err, "--also", "a file that is compressed as a whole");
        for (size_t i = 0; i < c->target_count && !ret; i++) {
                ret = create_target(c, &c->targets[i], err);
                images[i] = c->targets[i].new.image;
        }
        return ret ? ret : copy(c, images, c->target_count, skip, stats, err);
}

static int stream(struct conversion *c, const struct vd_image *skip, struct vd_copy_stats *stats,
                  struct vd_error *err)
{
        struct vd_copy_options options = vd_convert_options(c, skip);
        uint64_t size;
        int ret = choose_size(c, c->targets, &size, err);

        if (!ret && (c->args->verify || c->args->checksum))
                ret = vd_convert_conflict(err, c->args->verify ? "--verify" : "--checksum", "a stream as target");
        if (ret)
                return ret;
        vd_session_start_progress(c->session, c->args->progress);
        ret = vd_stream_out(c->session, &c->targets->new, c->target_path, size, c->source, c->inputs, c->input_count,
                            &options, stats, err);
        vd_session_end_progress(c->session);
        return ret;
}

int vd_convert_to_new(struct conversion *c, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_new_image *first = &c->targets[0].new;
        const struct vd_image *skip = NULL;
        int ret = 0;

        if (!ret && first->backing_file) {
                ret = vd_new_image_open_backing(first, c->session, &c->args->source, c->target_path, err);
                if (!ret)
                        ret = vd_check_not_input(c->target_path, &first->backing, 1, err);
                if (!ret)
                        skip = find_common_parent(c, first->backing);
        }
        if (!ret && vd_is_stream(c->target_path))
                return stream(c, skip, stats, err);
        if (!ret)
                ret = write_targets(c, skip, stats, err);
        for (size_t i = 0; i < c->target_count && !ret; i++)
                ret = vd_new_image_finish(&c->targets[i].new, c->inputs, c->input_count, err);
        for (size_t i = 0; i < c->target_count && !ret && c->args->verify; i++)
                ret = verify(c, &c->targets[i], err);
        for (size_t i = 1; i < c->target_count && !ret; i++)
                for (size_t j = 0; j < i && !ret; j++)
                        ret = vd_new_images_check_apart(&c->targets[j].new, &c->targets[i].new, err);
        for (size_t i = 0; i < c->target_count && !ret; i++)
                ret = vd_new_image_publish(&c->targets[i].new, err);
        return ret;
}

static int open_existing(struct conversion *c, struct vd_error *err)
{
        const struct convert_args *args = c->args;
        struct vd_open how = {
                .format = args->target.format, .write = true, .lock = VD_LOCK_WRITE,
                .window_offset = args->target_offset, .window_size = args->target_size,
        };
        int ret;

        /* A window is a piece of a plain disk, whatever happens to stand there now; an export is one too. */
        if (!how.format && (how.window_offset || how.window_size || vd_file_is_nbd_uri(c->target_path)))
                how.format = "raw";
        c->existing_source = (struct vd_source){ .references = args->source.references,
                                                 .no_lock = args->source.no_lock };
        ret = vd_source_open(c->session, &c->existing_source, c->target_path, how, &c->existing, err);
        if (!ret && !how.format)
                vd_session_note(c->session, "%s: format not given with -O: found %s", c->target_path,
                                c->existing->format->name);
        return ret;
}

int vd_convert_to_existing(struct conversion *c, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_writer *writer;
        size_t i;
        int ret = open_existing(c, err);

        if (ret)
                return ret;
        if (c->existing->size < c->source->size)
                return vd_fail(err, VD_EUSAGE, "%s: its disk of %" PRIu64 " bytes is smaller than the source of %"
                               PRIu64, c->target_path, c->existing->size, c->source->size);
        for (i = 0; i < c->input_count; i++)
                if (vd_image_would_change(c->existing, c->inputs[i]))
                        return vd_fail(err, VD_EUSAGE, "%s: writing to it would change the input %s", c->target_path,
                                       c->inputs[i]->path);
        ret = copy(c, &c->existing, 1, NULL, stats, err);
        if (ret)
                return ret;
        writer = vd_writer_new(c->existing);
        ret = writer ? vd_writer_finish(writer, err) : vd_fail(err, -ENOMEM, "finishing the image");
        vd_writer_free(writer);
        for (i = 0; i < c->input_count && !ret; i++)
                ret = vd_image_check_unchanged(c->inputs[i], err);
        return ret;
}
/* "FILE,fmt=FORMAT,KEY=VALUE...": the file's name ends at the first single comma. */
static int init_also(struct conversion *c, struct convert_target *t, const char *text, struct vd_error *err)
{
        struct vd_new_args args = { .force = c->args->target.force, .fsync = c->args->target.fsync };
        VD_AUTOFREE char *format = NULL;
        char *to;
        int ret = 0;

        t->also_path = to = malloc(strlen(text) + 1);
        if (!to)
                return vd_fail(err, -ENOMEM, "--also");
        while (*text && (*text != ',' || text[1] == ',')) {
                text += *text == ',';
                *to++ = *text++;
        }
        *to = '\0';
        t->path = t->also_path;
        if (!strncmp(text, ",fmt=", 5)) {
                size_t length = strcspn(text + 5, ",");

                args.format = format = strndup(text + 5, length);
                text += 5 + length;
                if (!format)
                        return vd_fail(err, -ENOMEM, "--also");
        }
        if (*text == ',' && text[1])
                ret = vd_texts_add(&args.options, text + 1) ? vd_fail(err, -ENOMEM, "--also") : 0;
        if (!ret)
                ret = vd_new_image_init(&t->new, t->path, &args, err);
        vd_texts_free(&args.options);
        return ret;
}

int vd_convert_init_targets(struct conversion *c, struct vd_error *err)
{
        const struct vd_texts *also = &c->args->also;
        int ret;

        c->targets = calloc(1 + also->count, sizeof(*c->targets));
        if (!c->targets)
                return vd_fail(err, -ENOMEM, "targets");
        c->target_count = 1 + also->count;
        for (size_t i = 0; i < c->target_count; i++)
                c->targets[i].new.stop = &c->session->signals->stop;
        c->targets[0].path = c->target_path;
        ret = vd_new_image_init(&c->targets[0].new, c->target_path, &c->args->target, err);
        for (size_t i = 0; i < also->count && !ret; i++)
                ret = init_also(c, &c->targets[1 + i], also->items[i], err);
        return ret;
}

