// SPDX-License-Identifier: MIT
/* command.h: what a command is: one record drives parsing, help, completion and the man page test. */
#ifndef VD_CMD_COMMAND_H
#define VD_CMD_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/opts.h"
#include "util/progress.h"

struct vd_command;

/* Set by the signal handlers of main.c, looked at by everybody else. */
struct vd_signals {
        int stop;                       /* the signal that asked us to stop, or 0 */
        int progress;                   /* SIGUSR1: print progress once */
};

/* What a run of a command has beside its arguments. */
struct vd_session {
        const struct vd_command *command;
        volatile struct vd_signals *signals;
        bool quiet;                     /* no warnings, notes, progress */
        bool used_stdin;                /* some operand was standard input: there is no second time */
        int failure_status;             /* exit status if run() fails; 1 unless the command says otherwise */
        struct vd_progress progress;
};

struct vd_command {
        const char *name;               /* "info" */
        const char *operands;           /* "FILE..." */
        const char *summary;            /* one line, lower case, no full stop */
        const char *completes;          /* what operands are: "file", "format", "command" or NULL */
        bool streams;                   /* "-" as an operand is standard input or output */
        const char *examples;           /* lines for help, each ending in a newline; or NULL */
        const struct vd_opt *opts;
        size_t args_size;               /* of the struct that opts fill */
        const void *defaults;           /* its initial content; NULL: zeros.  No texts: they would be freed */

        /* Does the work.  >= 0: the exit status; negative: an error, which main.c prints. */
        int (*run)(void *args, const struct vd_texts *operands, struct vd_session *, struct vd_error *);
};

/* All commands; NULL-terminated. */
extern const struct vd_command *const vd_commands[];

const struct vd_command *vd_command_by_name(const char *name);

/* The whole program's help; one command's. */
void vd_command_print_overview(FILE *);
void vd_command_print_help(const struct vd_command *, FILE *);

#endif
