// SPDX-License-Identifier: MIT
/* opts.c: option tables: setting values, parsing command lines (popt) and key=value lists. */
#include "opts.h"

#include <errno.h>
#include <popt.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "size.h"
#include "text.h"

static size_t table_length(const struct vd_opt *opts)
{
        size_t n = 0;

        while (opts[n].type != VD_OPT_END)
                n++;
        return n;
}

static bool same_name(const char *a, const char *b)
{
        for (; *a && *b; a++, b++)
                if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))
                        return false;
        return *a == *b;
}

const struct vd_opt *vd_opts_find(const struct vd_opt *opts, const char *name)
{
        for (; opts && opts->type != VD_OPT_END; opts++)
                if (same_name(opts->name, name))
                        return opts;
        return NULL;
}

int vd_texts_add(struct vd_texts *texts, const char *text)
{
        char **items = realloc(texts->items, (texts->count + 1) * sizeof *items);

        if (!items)
                return -ENOMEM;
        texts->items = items;
        items[texts->count] = strdup(text);
        if (!items[texts->count])
                return -ENOMEM;
        texts->count++;
        return 0;
}

void vd_texts_free(struct vd_texts *texts)
{
        size_t i;

        for (i = 0; i < texts->count; i++)
                free(texts->items[i]);
        free(texts->items);
        *texts = (struct vd_texts){ 0 };
}

void vd_opts_free(const struct vd_opt *opts, void *args)
{
        for (; opts && opts->type != VD_OPT_END; opts++) {
                void *field = (char *)args + opts->offset;

                if (opts->type == VD_OPT_TEXT) {
                        free(*(char **)field);
                        *(char **)field = NULL;
                } else if (opts->type == VD_OPT_LIST) {
                        vd_texts_free(field);
                }
        }
}

/* "a, b or c" of a choice option. */
static void print_choices(const struct vd_opt *opt, char *text, size_t room)
{
        size_t i, used = 0;

        text[0] = '\0';
        for (i = 0; opt->choices[i] && used < room; i++)
                used += (size_t)snprintf(text + used, room - used, "%s%s",
                                         !i ? "" : opt->choices[i + 1] ? ", " : " or ", opt->choices[i]);
}

static int set_flag(const char *spelling, const char *value, bool *flag, struct vd_error *err)
{
        static const char *const yes[] = { "on", "true", "yes", NULL }, *const no[] = { "off", "false", "no", NULL };
        char shown[64];
        int i;

        if (!value) {
                *flag = true;
                return 0;
        }
        for (i = 0; yes[i]; i++) {
                if (!strcmp(value, yes[i]) || !strcmp(value, no[i])) {
                        *flag = !strcmp(value, yes[i]);
                        return 0;
                }
        }
        return vd_fail(err, VD_EUSAGE, "option %s: \"%s\" is neither on nor off", spelling,
                       vd_printable(shown, sizeof shown, value, strlen(value)));
}

static int set_count(const char *spelling, const char *value, uint64_t *count, struct vd_error *err)
{
        unsigned long long number;
        char shown[64], *end;

        errno = 0;
        number = strtoull(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || errno)
                return vd_fail(err, VD_EUSAGE, "option %s: \"%s\" is not a number from 0 on", spelling,
                               vd_printable(shown, sizeof shown, value, strlen(value)));
        *count = number;
        return 0;
}

static int set_choice(const struct vd_opt *opt, const char *spelling, const char *value, const char **choice,
                      struct vd_error *err)
{
        char shown[64], allowed[256];
        size_t i;

        for (i = 0; opt->choices[i]; i++) {
                if (!strcmp(opt->choices[i], value)) {
                        *choice = opt->choices[i];
                        return 0;
                }
        }
        print_choices(opt, allowed, sizeof allowed);
        return vd_fail(err, VD_EUSAGE, "option %s: \"%s\" is not %s", spelling,
                       vd_printable(shown, sizeof shown, value, strlen(value)), allowed);
}

static int set_value(const struct vd_opt *opt, const char *spelling, const char *value, void *args,
                     struct vd_error *err)
{
        void *field = (char *)args + opt->offset;
        struct vd_error size_error = VD_ERROR_INIT;
        char *copy;

        if (!value && opt->optional_value)
                value = opt->if_empty;
        if (!value && opt->type != VD_OPT_FLAG)
                return vd_fail(err, VD_EUSAGE, "option %s needs a value", spelling);
        switch (opt->type) {
        case VD_OPT_FLAG:
                return set_flag(spelling, value, field, err);
        case VD_OPT_SIZE:
                if (vd_size_parse(value, field, &size_error))
                        return vd_fail(err, VD_EUSAGE, "option %s: %s", spelling, size_error.text);
                return 0;
        case VD_OPT_COUNT:
                return set_count(spelling, value, field, err);
        case VD_OPT_CHOICE:
                return set_choice(opt, spelling, value, field, err);
        case VD_OPT_LIST:
                return vd_texts_add(field, value) ? vd_fail(err, -ENOMEM, "option %s", spelling) : 0;
        case VD_OPT_TEXT:
                copy = strdup(value);
                if (!copy)
                        return vd_fail(err, -ENOMEM, "option %s", spelling);
                free(*(char **)field);
                *(char **)field = copy;
                return 0;
        case VD_OPT_END:
                break;
        }
        return vd_fail(err, VD_EUSAGE, "option %s has no type", spelling);
}

int vd_opts_set(const struct vd_opt *opts, const char *name, const char *value, void *args, struct vd_error *err)
{
        const struct vd_opt *opt = vd_opts_find(opts, name);
        char shown[64], allowed[512];
        size_t used = 0;

        if (opt)
                return set_value(opt, opt->name, value, args, err);
        vd_printable(shown, sizeof shown, name, strlen(name));
        allowed[0] = '\0';
        for (; opts && opts->type != VD_OPT_END && used < sizeof allowed; opts++)
                if (!opts->hidden)
                        used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s", used ? ", " : "",
                                                 opts->name);
        return vd_fail(err, VD_EUSAGE, "unknown option %s (there are %s)", shown, used ? allowed : "none");
}

int vd_opts_each(const char *list, int (*set)(void *context, const char *name, const char *value, struct vd_error *),
                 void *context, struct vd_error *err)
{
        VD_AUTOFREE char *entry = malloc(strlen(list) + 1);
        const char *p = list;

        if (!entry)
                return vd_fail(err, -ENOMEM, "options");
        while (*p) {
                char *out = entry, *value;
                int ret;

                for (; *p && (*p != ',' || p[1] == ','); p++) {
                        *out++ = *p;
                        if (*p == ',')
                                p++;
                }
                *out = '\0';
                if (*p == ',')
                        p++;
                if (!*entry)
                        continue;
                value = strchr(entry, '=');
                if (value)
                        *value++ = '\0';
                ret = set(context, entry, value, err);
                if (ret)
                        return ret;
        }
        return 0;
}

struct list_target {
        const struct vd_opt *opts;
        void *args;
};

static int set_in_list(void *context, const char *name, const char *value, struct vd_error *err)
{
        struct list_target *target = context;

        return vd_opts_set(target->opts, name, value, target->args, err);
}

int vd_opts_parse_list(const struct vd_opt *opts, const char *list, void *args, struct vd_error *err)
{
        struct list_target target = { opts, args };

        return vd_opts_each(list, set_in_list, &target, err);
}

/* popt would take the argument after "--progress" for its value; with optional values only "--progress=..." does.
 * So the long form without a value is spelled out before popt sees it, and the letter takes none. */
static int spell_out(const struct vd_opt *opts, int argc, const char **argv, const char **out,
                     struct vd_texts *made, struct vd_error *err)
{
        bool ended = false;
        int i;

        for (i = 0; i < argc; i++) {
                const struct vd_opt *opt;

                out[i] = argv[i];
                ended = ended || !strcmp(argv[i], "--");
                if (ended || i == 0 || strncmp(argv[i], "--", 2))
                        continue;
                for (opt = opts; opt->type != VD_OPT_END; opt++) {
                        VD_AUTOFREE char *whole = NULL;

                        if (!opt->optional_value || strcmp(argv[i] + 2, opt->name))
                                continue;
                        whole = vd_asprintf("--%s=%s", opt->name, opt->if_empty);
                        if (!whole || vd_texts_add(made, whole))
                                return vd_fail(err, -ENOMEM, "options");
                        out[i] = made->items[made->count - 1];
                }
        }
        out[argc] = NULL;
        return 0;
}

static void fill_popt(const struct vd_opt *opts, size_t count, struct poptOption *table)
{
        size_t i;

        for (i = 0; i < count; i++) {
                bool flag = opts[i].type == VD_OPT_FLAG;

                *table++ = (struct poptOption){
                        .longName = opts[i].name,
                        .shortName = opts[i].optional_value ? '\0' : opts[i].letter,
                        .argInfo = flag ? POPT_ARG_NONE : POPT_ARG_STRING,
                        .val = (int)i + 1,
                };
                if (opts[i].optional_value && opts[i].letter)
                        *table++ = (struct poptOption){
                                .shortName = opts[i].letter, .argInfo = POPT_ARG_NONE,
                                .val = (int)(count + i) + 1,
                        };
        }
        *table = (struct poptOption)POPT_TABLEEND;
}

static int bad_option(const struct vd_opt *opts, size_t count, poptContext popt, int code, struct vd_error *err)
{
        const char *found = poptBadOption(popt, POPT_BADOPTION_NOALIAS), *near = NULL;
        VD_AUTOFREE const char **names = calloc(count + 1, sizeof *names);
        char shown[64];
        size_t i, n = 0, name_length = strcspn(found, "=");

        vd_printable(shown, sizeof shown, found, name_length);
        if (code == POPT_ERROR_NOARG)
                return vd_fail(err, VD_EUSAGE, "option %s needs a value", shown);
        if (code != POPT_ERROR_BADOPT)
                return vd_fail(err, VD_EUSAGE, "option %s: %s", shown, poptStrerror(code));
        if (names && !strncmp(found, "--", 2)) {
                VD_AUTOFREE char *word = strndup(found + 2, name_length - 2);

                for (i = 0; i < count; i++)
                        if (!opts[i].hidden)
                                names[n++] = opts[i].name;
                near = word ? vd_nearest(word, names) : NULL;
        }
        if (near)
                return vd_fail(err, VD_EUSAGE, "unknown option %s (did you mean --%s?)", shown, near);
        return vd_fail(err, VD_EUSAGE, "unknown option %s", shown);
}

static int take_options(const struct vd_opt *opts, size_t count, poptContext popt, void *args, struct vd_error *err)
{
        int code;

        while ((code = poptGetNextOpt(popt)) > 0) {
                size_t index = ((size_t)code - 1) % count;
                VD_AUTOFREE char *value = poptGetOptArg(popt);
                char spelling[64];
                int ret;

                snprintf(spelling, sizeof spelling, "--%s", opts[index].name);
                ret = set_value(&opts[index], spelling, value, args, err);
                if (ret)
                        return ret;
        }
        return code == -1 ? 0 : bad_option(opts, count, popt, code, err);
}

int vd_opts_parse(const struct vd_opt *opts, int argc, const char **argv, void *args, struct vd_texts *operands,
                  struct vd_error *err)
{
        size_t count = table_length(opts);
        VD_AUTOFREE struct poptOption *table = calloc(2 * count + 1, sizeof *table);
        VD_AUTOFREE const char **spelled = calloc((size_t)argc + 1, sizeof *spelled);
        struct vd_texts made = { 0 };
        const char **rest;
        poptContext popt;
        int ret;

        if (!table || !spelled)
                return vd_fail(err, -ENOMEM, "options");
        fill_popt(opts, count, table);
        ret = spell_out(opts, argc, argv, spelled, &made, err);
        if (ret)
                goto out_made;
        ret = -ENOMEM;
        popt = poptGetContext(NULL, argc, spelled, table, 0);
        if (!popt) {
                vd_fail(err, ret, "options");
                goto out_made;
        }
        ret = take_options(opts, count, popt, args, err);
        for (rest = poptGetArgs(popt); !ret && rest && *rest; rest++) {
                ret = vd_texts_add(operands, *rest);
                if (ret)
                        vd_fail(err, ret, "operands");
        }
        poptFreeContext(popt);
out_made:
        vd_texts_free(&made);
        return ret;
}
