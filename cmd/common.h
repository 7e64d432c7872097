// SPDX-License-Identifier: MIT
/* common.h: what commands share: option entries with the same text everywhere, opening sources, printing reports. */
#ifndef VD_CMD_COMMON_H
#define VD_CMD_COMMON_H

#include "cmd/command.h"
#include "core/copy.h"
#include "core/image.h"
#include "util/report.h"

/* How the images that a command reads are to be opened. */
struct vd_source {
        const char *format;             /* NULL: by content */
        const char *references;         /* word of --references, NULL: default */
        bool force_share, no_lock;
        struct vd_policy policy;        /* filled by vd_source_policy(); must outlive the image */
};

extern const char *const vd_reference_words[], *const vd_output_words[], *const vd_progress_words[],
        *const vd_cache_words[];

#define VD_COMMON_FORMAT(args, field) \
        { .letter = 'f', .type = VD_OPT_TEXT, .name = "format", .offset = offsetof(struct args, field), \
          .argument = "FORMAT", .completes = "format", \
          .help = "format of the image; without it the content tells" }
#define VD_COMMON_OUTPUT(args, field) \
        { .type = VD_OPT_CHOICE, .name = "output", .offset = offsetof(struct args, field), \
          .choices = vd_output_words, .help = "form of what is printed" }
#define VD_COMMON_QUIET(args, field) \
        { .letter = 'q', .type = VD_OPT_FLAG, .name = "quiet", .offset = offsetof(struct args, field), \
          .help = "print errors only" }
#define VD_COMMON_PROGRESS(args, field) \
        { .letter = 'p', .type = VD_OPT_CHOICE, .name = "progress", .offset = offsetof(struct args, field), \
          .optional_value = true, .if_empty = "auto", .choices = vd_progress_words, \
          .help = "show progress on standard error" }
#define VD_COMMON_FORCE_SHARE(args, field) \
        { .letter = 'U', .type = VD_OPT_FLAG, .name = "force-share", .offset = offsetof(struct args, field), \
          .help = "read although another process may be writing" }
#define VD_COMMON_NO_LOCK(args, field) \
        { .type = VD_OPT_FLAG, .name = "no-lock", .offset = offsetof(struct args, field), \
          .help = "neither take nor look at locks" }
#define VD_COMMON_REFERENCES(args, field) \
        { .type = VD_OPT_CHOICE, .name = "references", .offset = offsetof(struct args, field), \
          .choices = vd_reference_words, \
          .help = "which files named inside images may be opened" }
/* Cache modes of qemu-img that make no difference here. */
#define VD_COMMON_SOURCE_CACHE(args, field) \
        { .letter = 'T', .type = VD_OPT_CHOICE, .name = "source-cache", .offset = offsetof(struct args, field), \
          .choices = vd_cache_words, .argument = "MODE", .help = "accepted for qemu-img's sake, has no effect" }

/* Opens an image as the source says; format, policy and lock of how are filled from it where how leaves them open.
 * Warnings about the image and its parents are printed. */
int vd_source_open(struct vd_session *, struct vd_source *, const char *path, struct vd_open how, struct vd_image **,
                   struct vd_error *);

/* The policy of its --references; lives in the source. */
const struct vd_policy *vd_source_policy(struct vd_source *);

/* "vdtool: warning: ..." and "vdtool: note: ..." on stderr, unless quiet. */
void vd_session_warn(const struct vd_session *, const char *format, ...) VD_PRINTF(2, 3);
void vd_session_note(const struct vd_session *, const char *format, ...) VD_PRINTF(2, 3);
/* What its driver said about the image; its parents' warnings are not among it. */
void vd_session_warn_image(const struct vd_session *, const struct vd_image *);

/* Progress of the run: style is the option's word, NULL when it was not given; SIGUSR1 works either way. */
void vd_session_start_progress(struct vd_session *, const char *style);
void vd_session_progress(void *session, uint64_t done, uint64_t total);         /* fits core's callbacks */
void vd_session_end_progress(struct vd_session *);
/* VD_ESTOPPED when a signal asked for it. */
int vd_session_check_stop(const struct vd_session *, struct vd_error *);

/* Prints as the word of --output says (NULL: for people). */
int vd_print_report(const struct vd_report *, const char *output, struct vd_error *);
bool vd_output_is_json(const char *word);

/* Are there as many operands as the command wants?  VD_EUSAGE names what is missing or too much. */
int vd_check_operands(const struct vd_session *, const struct vd_texts *, size_t least, size_t most,
                      struct vd_error *);

/* The content digest (core/digest.h) of a disk, by `threads` threads (0: all processors), with progress. */
int vd_checksum(struct vd_session *, struct vd_image *, uint64_t threads, char text[2 * VD_DIGEST_BYTES + 1],
                struct vd_error *);

unsigned vd_terminal_columns(FILE *);           /* what COLUMNS says, else the terminal; 80 when it is none */
bool vd_use_colour(FILE *);                     /* a terminal, and no NO_COLOR */

#endif
