// SPDX-License-Identifier: MIT
/* progress.h: how far a long job is, on stderr. */
#ifndef VD_UTIL_PROGRESS_H
#define VD_UTIL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum vd_progress_style {
        VD_PROGRESS_NONE,
        VD_PROGRESS_BAR,        /* a bar with rate and time left, redrawn at most ten times a second */
        VD_PROGRESS_PLAIN,      /* a line per 10% */
        VD_PROGRESS_JSON,       /* a JSON object per line, at most ten a second */
};

struct vd_progress {            /* owned by the caller; fields are the implementation's */
        enum vd_progress_style style;
        FILE *stream;
        double started, last;
        unsigned last_tenth;
        bool drawn;
};

/* Style for "-p" (NULL: bar on a terminal, else plain lines) or "--progress=auto|bar|plain|json|none". */
enum vd_progress_style vd_progress_style(const char *word, FILE *);
void vd_progress_start(struct vd_progress *, enum vd_progress_style, FILE *);
/* done of total bytes; now: print one line at once whatever the style (SIGUSR1). */
void vd_progress_step(struct vd_progress *, uint64_t done, uint64_t total, bool now);
/* Leaves the line of the bar. */
void vd_progress_end(struct vd_progress *);

#endif
