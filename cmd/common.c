// SPDX-License-Identifier: MIT
/* common.c: what commands share. */
#include "cmd/common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/stream_in.h"
#include "core/spool.h"
#include "core/wrap.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { COLUMNS_LEAST = 40, COLUMNS_USUAL = 80, COLUMNS_MOST = 400 };

const char *const vd_reference_words[] = { "default", "any", "below", "none", NULL };
const char *const vd_output_words[] = { "human", "json", NULL };
const char *const vd_progress_words[] = { "auto", "bar", "plain", "json", "none", NULL };
const char *const vd_cache_words[] = { "none", "writeback", "writethrough", "directsync", "unsafe", NULL };

static void print_message(const struct vd_session *session, const char *kind, const char *format, va_list arguments)
{
        VD_AUTOFREE char *text = NULL, *shown = NULL;

        if (session->quiet || vasprintf(&text, format, arguments) < 0)
                return;
        shown = vd_printable_dup(text, strlen(text));
        if (shown)
                fprintf(stderr, "vdtool: %s: %s\n", kind, shown);
}

void vd_session_warn(const struct vd_session *session, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        print_message(session, "warning", format, arguments);
        va_end(arguments);
}

void vd_session_note(const struct vd_session *session, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        print_message(session, "note", format, arguments);
        va_end(arguments);
}

static enum vd_references references_of(const char *word)
{
        static const enum vd_references values[] = {
                VD_REFERENCES_DEFAULT, VD_REFERENCES_ANY, VD_REFERENCES_BELOW, VD_REFERENCES_NONE,
        };
        size_t i;

        for (i = 0; word && vd_reference_words[i]; i++)
                if (!strcmp(word, vd_reference_words[i]))
                        return values[i];
        return VD_REFERENCES_DEFAULT;
}

const struct vd_policy *vd_source_policy(struct vd_source *source)
{
        source->policy.references = references_of(source->references);
        return &source->policy;
}

/* -U does not care who else uses the image, but says so. */
static void warn_in_use(const struct vd_session *session, const struct vd_image *image)
{
        struct vd_error found = VD_ERROR_INIT;
        int fd = vd_file_fd(image->file);

        if (fd >= 0 && vd_lock_test_unused(fd, image->path, &found) == VD_ELOCKED)
                vd_session_warn(session, "%s; what is read may be changing", found.text);
}

void vd_session_warn_image(const struct vd_session *session, const struct vd_image *image)
{
        for (size_t i = 0; i < image->warning_count; i++)
                vd_session_warn(session, "%s: %s", image->path, image->warnings[i]);
}

int vd_source_open(struct vd_session *session, struct vd_source *source, const char *path, struct vd_open how,
                   struct vd_image **out, struct vd_error *err)
{
        const struct vd_image *image;
        struct vd_file *stream = NULL;
        int ret;

        if (!how.write && vd_is_stream_source(session, path)) {
                ret = vd_stream_in(session, path, &stream, err);
                if (ret)
                        return ret;
                how.opened = stream;
        }
        how.stop = &session->signals->stop;
        if (!how.format)
                how.format = source->format;
        how.policy = vd_source_policy(source);
        if (source->no_lock)
                how.lock = VD_LOCK_NONE;
        else if (source->force_share)
                how.lock = VD_LOCK_SHARE;
        ret = vd_image_open(out, path, &how, err);
        vd_file_unref(stream);
        if (ret == VD_ELOCKED && how.lock == VD_LOCK_READ) {
                struct vd_error found = *err;

                return vd_fail(err, ret, "%s; -U reads it nevertheless", found.text);
        }
        if (ret)
                return ret;
        if ((*out)->is_spooled)
                vd_session_note(session, "%s: its %s data was unpacked into a temporary file in %s", path,
                                vd_wrapper_name((*out)->wrapper), vd_spool_directory());
        for (image = *out; image; image = image->parent) {
                if (how.lock == VD_LOCK_SHARE)
                        warn_in_use(session, image);
                vd_session_warn_image(session, image);
        }
        return 0;
}

void vd_session_start_progress(struct vd_session *session, const char *style)
{
        bool wanted = style && !session->quiet;

        vd_progress_start(&session->progress, wanted ? vd_progress_style(style, stderr) : VD_PROGRESS_NONE, stderr);
}

void vd_session_progress(void *context, uint64_t done, uint64_t total)
{
        struct vd_session *session = context;
        bool asked = session->signals->progress;

        session->signals->progress = 0;
        vd_progress_step(&session->progress, done, total, asked);
}

void vd_session_end_progress(struct vd_session *session)
{
        vd_progress_end(&session->progress);
}

int vd_session_check_stop(const struct vd_session *session, struct vd_error *err)
{
        int number = session->signals->stop;

        return number ? vd_fail(err, VD_ESTOPPED, "stopped by signal %d (%s)", number, strsignal(number)) : 0;
}

bool vd_output_is_json(const char *word)
{
        return word && !strcmp(word, "json");
}

int vd_print_report(const struct vd_report *report, const char *output, struct vd_error *err)
{
        int ret = vd_output_is_json(output) ? vd_report_print_json(report, stdout) :
                                              vd_report_print_text(report, isatty(STDOUT_FILENO), stdout);

        return ret ? vd_fail(err, ret, "standard output") : 0;
}

int vd_check_operands(const struct vd_session *session, const struct vd_texts *operands, size_t least, size_t most,
                      struct vd_error *err)
{
        const struct vd_command *command = session->command;
        size_t i;

        for (i = 0; i < operands->count && !command->streams; i++)
                if (!strcmp(operands->items[i], "-"))
                        return vd_fail(err, VD_EUNSUPPORTED, "%s cannot use standard input or output; a file of the "
                                       "name \"-\" is \"./-\"", command->name);
        if (operands->count < least)
                return vd_fail(err, VD_EUSAGE, "%s needs %s, found %zu operand%s", command->name, command->operands,
                               operands->count, operands->count == 1 ? "" : "s");
        if (operands->count > most)
                return vd_fail(err, VD_EUSAGE, "%s takes %s, found also \"%s\"", command->name,
                               *command->operands ? command->operands : "no operands", operands->items[most]);
        return 0;
}

unsigned vd_terminal_columns(FILE *stream)
{
        const char *text = getenv("COLUMNS");
        unsigned long columns = text ? strtoul(text, NULL, 10) : 0;
        struct winsize size;

        if (columns >= COLUMNS_LEAST && columns <= COLUMNS_MOST)
                return (unsigned)columns;
        if (ioctl(fileno(stream), TIOCGWINSZ, &size) || size.ws_col < COLUMNS_LEAST)
                return COLUMNS_USUAL;
        return size.ws_col < COLUMNS_MOST ? size.ws_col : COLUMNS_MOST;
}

bool vd_use_colour(FILE *stream)
{
        const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

        return isatty(fileno(stream)) && !(no && *no) && !(term && !strcmp(term, "dumb"));
}

int vd_checksum(struct vd_session *session, struct vd_image *image, uint64_t threads,
                char text[2 * VD_DIGEST_BYTES + 1], struct vd_error *err)
{
        struct vd_copy_options options = {
                .threads = (unsigned)threads, .sparse_bytes = 4096, .digest = vd_digest_new(),
                .progress = vd_session_progress, .context = session, .stop = &session->signals->stop,
        };
        int ret = options.digest ? vd_copy(image, NULL, 0, &options, NULL, err) : vd_fail(err, -ENOMEM, "the digest");

        if (!ret)
                vd_digest_finish(options.digest, text);
        vd_digest_free(options.digest);
        return ret;
}
