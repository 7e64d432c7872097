// SPDX-License-Identifier: MIT
/* new_image.c: the new image of create and convert. */
#include "cmd/new_image.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file_nbd.h"
#include "core/spool.h"
#include "core/wrap.h"
#include "util/cleanup.h"
#include "util/text.h"

/* What qemu-img takes as create options although it is no matter of the format. */
struct general_options {
        uint64_t size;
        const char *backing_file, *backing_format;
};

static const struct vd_opt general_opts[] = {
        { .type = VD_OPT_SIZE, .name = "size", .offset = offsetof(struct general_options, size),
          .help = "size of the disk" },
        { .type = VD_OPT_TEXT, .name = "backing_file", .offset = offsetof(struct general_options, backing_file),
          .argument = "FILE", .help = "the parent" },
        { .type = VD_OPT_TEXT, .name = "backing_fmt", .offset = offsetof(struct general_options, backing_format),
          .argument = "FORMAT", .help = "the parent's format" },
        { .type = VD_OPT_END },
};

/* Of files that are compressed as a whole. */
static const struct vd_opt wrapper_opts[] = {
        { .type = VD_OPT_COUNT, .name = "compression_level", .offset = offsetof(struct vd_new_image, wrapper_level),
          .argument = "N", .help = "1 (fastest) to 9 (smallest)" },
        { .type = VD_OPT_END },
};

/* The extensions that say which format is meant, for a message. */
static void list_extensions(char *text, size_t room)
{
        const struct vd_format *const *f;
        const char *const *e;
        size_t used = 0;

        text[0] = '\0';
        for (f = vd_formats; *f; f++)
                for (e = (*f)->create ? (*f)->extensions : NULL; e && *e && used < room; e++)
                        used += (size_t)snprintf(text + used, room - used, "%s.%s", used ? " " : "", *e);
}

/* "disk.raw.xz": raw, and all of it compressed.  *stem: the name without that. */
static int choose_wrapper(struct vd_new_image *new, const char *path, char **stem, struct vd_error *err)
{
        const struct vd_wrapper *wrapper = path ? vd_wrapper_by_extension(path) : NULL;

        *stem = path ? strndup(path, wrapper ? (size_t)(strrchr(path, '.') - path) : strlen(path)) : NULL;
        if (path && !*stem)
                return vd_fail(err, -ENOMEM, "%s", path);
        if (wrapper && !vd_wrapper_packs(wrapper))
                return vd_fail(err, VD_EUNSUPPORTED, "%s: %s files can be read but not written; .gz, .xz and .zst can",
                               path, vd_wrapper_name(wrapper));
        new->wrapper = wrapper;
        return 0;
}

static int choose_format(struct vd_new_image *new, const char *path, const char *name, struct vd_error *err)
{
        VD_AUTOFREE char *stem = NULL;
        char known[512];
        int ret = choose_wrapper(new, path, &stem, err);

        if (ret)
                return ret;
        if (name) {
                new->format = vd_format_by_name(name);
                if (!new->format)
                        return vd_fail(err, VD_EUSAGE, "unknown format \"%s\" (vdtool formats lists them)", name);
        } else {
                new->format = stem ? vd_format_by_extension(stem) : NULL;
                if (!new->format) {
                        list_extensions(known, sizeof known);
                        return vd_fail(err, VD_EUSAGE, "%s: the extension names no format; known are %s; or use -O",
                                       path ? path : "", known);
                }
        }
        if (new->wrapper && !(new->format->caps & VD_CAP_BARE))
                return vd_fail(err, VD_EUSAGE, "%s: only raw disks are compressed as a whole (%s); %s images are not", path,
                               vd_wrapper_name(new->wrapper), new->format->name);
        if (!new->format->create)
                return vd_fail(err, VD_EUNSUPPORTED, "%s images can be read but not created", new->format->name);
        return 0;
}

struct option_context {
        struct vd_new_image *new_image;
        struct general_options *general;
};

static int set_option(void *context, const char *name, const char *value, struct vd_error *err)
{
        struct option_context *c = context;
        const struct vd_format *format = c->new_image->format;

        if (!strcmp(name, "help") || !strcmp(name, "?")) {
                c->new_image->wants_help = true;
                return 0;
        }
        if (c->new_image->wrapper && vd_opts_find(wrapper_opts, name))
                return vd_opts_set(wrapper_opts, name, value, c->new_image, err);
        if (vd_opts_find(general_opts, name)) {
                if (vd_opts_find(general_opts, name)->type == VD_OPT_SIZE)
                        c->new_image->has_size = true;
                return vd_opts_set(general_opts, name, value, c->general, err);
        }
        return vd_opts_set(format->create_opts, name, value, c->new_image->params, err);
}

static int read_options(struct vd_new_image *new, const struct vd_new_args *args, struct general_options *general,
                        struct vd_error *err)
{
        struct option_context context = { new, general };
        const struct vd_format *format = new->format;
        int ret = 0;
        size_t i;

        new->params = calloc(1, format->params_size ? format->params_size : 1);
        if (!new->params)
                return vd_fail(err, -ENOMEM, "create options");
        for (i = 0; i < args->options.count && !ret; i++)
                ret = vd_opts_each(args->options.items[i], set_option, &context, err);
        if (!ret && args->type) {
                if (!vd_opts_find(format->create_opts, "subformat"))
                        return vd_fail(err, VD_EUSAGE, "there are no types of %s images, found --type %s",
                                       format->name, args->type);
                ret = vd_opts_set(format->create_opts, "subformat", args->type, new->params, err);
        }
        return ret == VD_EUSAGE ? vd_error_prefix(err, "%s", format->name) : ret;
}

static char *copy_text(const char *first, const char *second)
{
        return first ? strdup(first) : second ? strdup(second) : NULL;
}

int vd_new_image_init(struct vd_new_image *new, const char *path, const struct vd_new_args *args,
                   struct vd_error *err)
{
        struct general_options general = { 0 };
        int ret;

        if (path && vd_file_is_nbd_uri(path))
                return vd_fail(err, VD_EUSAGE, "%s: an NBD export is not created; convert -n writes into it", path);
        ret = choose_format(new, path, args->format, err);
        if (ret)
                return ret;
        ret = read_options(new, args, &general, err);
        if (!ret && new->wrapper_level > 9)
                ret = vd_fail(err, VD_EUSAGE, "compression_level is %" PRIu64 ", allowed are 1 to 9", new->wrapper_level);
        new->size = general.size;
        new->backing_file = copy_text(args->backing_file, general.backing_file);
        new->backing_format = copy_text(args->backing_format, general.backing_format);
        vd_opts_free(general_opts, &general);
        new->flags = (args->force ? VD_OUTPUT_REPLACE : 0u) | (args->fsync ? VD_OUTPUT_SYNC : 0u);
        if (!ret && new->backing_format && !new->backing_file)
                ret = vd_fail(err, VD_EUSAGE, "a format of the backing file is given, but no backing file");
        if (!ret && new->backing_file && !(new->format->caps & VD_CAP_BACKING))
                ret = vd_fail(err, VD_EUNSUPPORTED, "%s images cannot have a backing file", new->format->name);
        if (!ret && new->backing_format && !vd_format_by_name(new->backing_format))
                ret = vd_fail(err, VD_EUSAGE, "unknown format \"%s\" of the backing file (vdtool formats lists them)",
                              new->backing_format);
        return ret;
}

void vd_new_image_free(struct vd_new_image *new)
{
        vd_image_close(new->image);
        vd_output_free(new->output);
        vd_image_close(new->backing);
        if (new->format && new->params)
                vd_opts_free(new->format->create_opts, new->params);
        free(new->params);
        free(new->backing_file);
        free(new->backing_format);
        *new = (struct vd_new_image)VD_NEW_IMAGE_INIT;
}

void vd_new_image_print_options(const struct vd_new_image *new, FILE *stream)
{
        enum { GENERAL = sizeof general_opts / sizeof *general_opts + 1 };
        const struct vd_format *format = new->format;
        const struct vd_opt *opt;
        VD_AUTOFREE struct vd_opt *all = NULL;
        size_t count = 0;

        for (opt = format->create_opts; opt && opt->type != VD_OPT_END; opt++)
                count++;
        all = calloc(count + GENERAL, sizeof *all);
        if (!all)
                return;
        count = 0;
        for (opt = format->create_opts; opt && opt->type != VD_OPT_END; opt++)
                all[count++] = *opt;
        if (new->wrapper)
                all[count++] = wrapper_opts[0];
        for (opt = general_opts; opt->type != VD_OPT_END; opt++)
                if (opt->type == VD_OPT_SIZE || format->caps & VD_CAP_BACKING)
                        all[count++] = *opt;
        fprintf(stream, "Create options of %s (%s):\n", format->name, format->title);
        /* For scripts each option is a line, as with qemu-img. */
        vd_opts_help_keys(all, isatty(fileno(stream)) ? vd_terminal_columns(stream) : UINT_MAX, stream);
}

int vd_new_image_open_backing(struct vd_new_image *new, struct vd_session *session, const struct vd_source *source,
                              const char *path, struct vd_error *err)
{
        struct vd_open how = { .format = new->backing_format, .lock = VD_LOCK_READ };
        VD_AUTOFREE char *resolved = NULL;
        const struct vd_format *format;
        const char *name;
        int ret;

        /* The sources' format is none of the backing file's. */
        new->backing_source = *source;
        new->backing_source.format = NULL;
        ret = vd_policy_resolve(vd_source_policy(&new->backing_source), VD_REFERENCE_PARENT, path, new->backing_file,
                                &resolved, err);
        if (!ret)
                ret = vd_source_open(session, &new->backing_source, resolved, how, &new->backing, err);
        if (ret == -ENOENT && new->backing_file[0] != '/' && strchr(path, '/'))
                return vd_fail(err, VD_EPARENT, "there is no backing file \"%s\" in the directory of %s",
                               new->backing_file, path);
        if (ret)
                return vd_error_prefix(err, "backing file");
        if (new->backing->wrapper)
                return vd_fail(err, VD_EUSAGE, "backing file %s: is compressed as a whole (%s), which no parent can be",
                               resolved, vd_wrapper_name(new->backing->wrapper));
        format = new->backing->format;
        name = format->qemu_name ? format->qemu_name : format->name;
        if (!new->backing_format)
                vd_session_note(session, "%s: format not given with -F: found %s, which is recorded", resolved, name);
        free(new->backing_format);
        new->backing_format = strdup(name);
        return new->backing_format ? 0 : vd_fail(err, -ENOMEM, "backing file");
}

static struct vd_create create_request(const struct vd_new_image *new, uint64_t size, const struct vd_image *like)
{
        return (struct vd_create){
                .size = size, .params = new->params, .backing = new->backing,
                .backing_name = new->backing_file, .backing_format = new->backing_format, .like = like,
                .stop = new->stop,
        };
}

int vd_new_image_layout(const struct vd_new_image *new, const char *path, uint64_t size, struct vd_image *source,
                        const struct vd_copy_options *options, enum vd_layout_purpose purpose, struct vd_layout **out,
                        struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_create create = create_request(new, size, source);

        return vd_layout_new(out, new->format, path, &create, source, options, purpose, stats, err);
}

int vd_new_image_open_output(struct vd_new_image *new, const char *path, struct vd_error *err)
{
        int ret = vd_output_new(&new->output, path, new->flags, err);

        if (ret == -EEXIST) {
                size_t used = strlen(err->text);

                snprintf(err->text + used, sizeof err->text - used, " (--force replaces it)");
        }
        return ret;
}

int vd_new_image_create(struct vd_new_image *new, const char *path, uint64_t size, const struct vd_image *like,
                        struct vd_error *err)
{
        struct vd_create create = create_request(new, size, like);
        int ret = 0;

        if (new->wrapper)
                return vd_fail(err, VD_EUSAGE, "%s: only convert makes a file that is compressed as a whole (%s)", path,
                               vd_wrapper_name(new->wrapper));
        ret = vd_new_image_open_output(new, path, err);

        return ret ? ret : vd_image_create(&new->image, new->format, new->output, &create, err);
}

int vd_new_image_create_unnamed(struct vd_new_image *new, const char *path, uint64_t size, const struct vd_image *like,
                                struct vd_error *err)
{
        struct vd_create create = create_request(new, size, like);
        int ret = vd_output_new_unnamed(&new->output, path, vd_spool_new, err);

        return ret ? ret : vd_image_create(&new->image, new->format, new->output, &create, err);
}

/* Would giving the output its names destroy a file that image reads? */
static int check_not_replaced(const struct vd_output *output, const struct vd_image *image, struct vd_error *err)
{
        size_t i;

        for (; image; image = image->parent) {
                bool replaced = vd_output_replaces(output, image->file);

                for (i = 0; i < image->member_count; i++)
                        replaced = replaced || vd_output_replaces(output, image->members[i]);
                if (replaced)
                        return vd_fail(err, VD_EUSAGE, "%s: the output would replace this input", image->path);
        }
        return 0;
}

static int finish_image(struct vd_image *image, struct vd_error *err)
{
        struct vd_writer *writer = vd_writer_new(image);
        int ret = writer ? vd_writer_finish(writer, err) : vd_fail(err, -ENOMEM, "finishing the image");

        vd_writer_free(writer);
        return ret;
}

int vd_new_image_finish(struct vd_new_image *new, struct vd_image *const *inputs, size_t count, struct vd_error *err)
{
        int ret = new->image ? finish_image(new->image, err) : 0;
        size_t i;

        for (i = 0; i < count && !ret; i++) {
                ret = vd_image_check_unchanged(inputs[i], err);
                if (!ret)
                        ret = check_not_replaced(new->output, inputs[i], err);
        }
        if (!ret && new->backing)
                ret = check_not_replaced(new->output, new->backing, err);
        return ret;
}

int vd_new_images_check_apart(const struct vd_new_image *one, const struct vd_new_image *other, struct vd_error *err)
{
        if (!one->output || !other->output || !vd_output_collides(one->output, other->output))
                return 0;
        return vd_fail(err, VD_EUSAGE, "%s and %s: two targets would have the same file", vd_output_path(one->output),
                       vd_output_path(other->output));
}

int vd_new_image_publish(struct vd_new_image *new, struct vd_error *err)
{
        vd_image_close(new->image);
        new->image = NULL;
        return vd_output_commit(new->output, err);
}

int vd_check_not_input(const char *path, struct vd_image *const *inputs, size_t count, struct vd_error *err)
{
        struct stat st;
        size_t i;

        for (i = 0; i < count && vd_file_is_nbd_uri(path); i++)
                if (!strcmp(inputs[i]->path, path))
                        return vd_fail(err, VD_EUSAGE, "%s: the output is also an input", path);
        if (stat(path, &st))
                return 0;
        for (i = 0; i < count; i++)
                if (vd_image_uses(inputs[i], &st))
                        return vd_fail(err, VD_EUSAGE, "%s: the output is also an input (%s, or in its chain)", path,
                                       inputs[i]->path);
        return 0;
}
