// SPDX-License-Identifier: MIT
/* opts.h: one table describes options; it drives parsing (popt), --help, completion and the man page test.
 *
 * The same table form serves command lines (--cluster-size 4k) and create options (-o cluster_size=4k): an entry says
 * where in a caller's struct the value goes.
 */
#ifndef VD_UTIL_OPTS_H
#define VD_UTIL_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

enum vd_opt_type {
        VD_OPT_END,
        VD_OPT_FLAG,            /* bool; on a command line without value, in -o lists on|off|true|false|yes|no */
        VD_OPT_TEXT,            /* const char * */
        VD_OPT_SIZE,            /* uint64_t bytes: number with suffix, see size.h */
        VD_OPT_COUNT,           /* uint64_t, plain decimal number */
        VD_OPT_CHOICE,          /* const char * out of .choices (points into the table) */
        VD_OPT_LIST,            /* struct vd_texts: the option may be repeated */
};

/* The strings of a repeated option; owned by the args struct, freed by vd_opts_free(). */
struct vd_texts {
        char **items;
        size_t count;
};

struct vd_opt {
        char letter;                    /* short name or 0 */
        bool optional_value;            /* TEXT and CHOICE: "--name" alone is allowed and stores .if_empty */
        bool hidden;                    /* accepted, not shown in help: other spellings of qemu-img */
        enum vd_opt_type type;
        const char *name;               /* long name, without dashes */
        size_t offset;                  /* of the field in the struct */
        const char *argument;           /* word for the value in help: "FORMAT", "SIZE" */
        const char *help;               /* one line, lower case, no full stop */
        const char *const *choices;     /* CHOICE: NULL-terminated */
        const char *if_empty;           /* with optional_value */
        const char *completes;          /* what completion offers: "file", "format", "command" or NULL */
};

/* Parses argv (argv[0] is the command's name) into args, which the caller has zeroed or filled with defaults.
 * Options may stand anywhere; "--" ends them.  Operands go to *operands (pointers into argv).
 * Returns 0, or VD_EUSAGE with a text that names the option, the value found and what is allowed. */
int vd_opts_parse(const struct vd_opt *, int argc, const char **argv, void *args, struct vd_texts *operands,
                  struct vd_error *);

/* Parses "key=value,key=value" (",," is a literal comma; a bare key sets a flag) into the struct. */
int vd_opts_parse_list(const struct vd_opt *, const char *list, void *args, struct vd_error *);

/* Calls set() for each entry of such a list; value is NULL for a bare key. */
int vd_opts_each(const char *list, int (*set)(void *context, const char *name, const char *value, struct vd_error *),
                 void *context, struct vd_error *);

/* The entry of this long name, '-' and '_' being the same; NULL when there is none. */
const struct vd_opt *vd_opts_find(const struct vd_opt *, const char *name);

/* Sets one option by its long name; a NULL value is for flags and optional values. */
int vd_opts_set(const struct vd_opt *, const char *name, const char *value, void *args, struct vd_error *);

/* Frees what parsing allocated inside args (texts and lists), not args itself. */
void vd_opts_free(const struct vd_opt *, void *args);
void vd_texts_free(struct vd_texts *);
int vd_texts_add(struct vd_texts *, const char *text);         /* copies; 0 or -ENOMEM */

/* "  -f, --format FORMAT    help" lines, aligned and wrapped to width columns. */
void vd_opts_help(const struct vd_opt *, unsigned width, FILE *);

/* The same for create options: "  cluster_size=SIZE    help". */
void vd_opts_help_keys(const struct vd_opt *, unsigned width, FILE *);

/* The candidate (of a NULL-terminated list) that is most like word; NULL when none is near. */
const char *vd_nearest(const char *word, const char *const *candidates);

/* One option a line for completion scripts: "-f\t--format\tformat\thelp".  Letter may be empty.  Third column: empty
 * (takes no value), what completes, "value", or choices joined by blanks after '='; before it '?' when the value may be
 * left out. */
void vd_opts_list(const struct vd_opt *, FILE *);

#endif
