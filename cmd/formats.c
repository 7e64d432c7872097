// SPDX-License-Identifier: MIT
/* formats.c: what vdtool can do with which format: read from the registry, never written down twice. */
#include "cmd/common.h"

struct formats_args {
        const char *output;
        bool names;
};

static const struct vd_opt formats_opts[] = {
        { .type = VD_OPT_FLAG, .name = "names", .offset = offsetof(struct formats_args, names),
          .help = "print the names only, one on a line" },
        VD_COMMON_OUTPUT(formats_args, output),
        { .type = VD_OPT_END },
};

/* Column headings as the capability table has them, JSON keys, and how to tell. */
static bool can_read(const struct vd_format *f) { return f->map != NULL; }
static bool can_create(const struct vd_format *f) { return f->create != NULL; }
static bool can_write(const struct vd_format *f) { return f->place && f->publish && !(f->caps & VD_CAP_CONTAINER); }
static bool can_back(const struct vd_format *f) { return f->caps & VD_CAP_BACKING; }
static bool can_pack(const struct vd_format *f) { return f->caps & VD_CAP_PACKED; }
static bool can_check(const struct vd_format *f) { return f->walk || f->check; }
static bool can_snapshot(const struct vd_format *f) { return f->caps & VD_CAP_SNAPSHOTS; }
static bool can_split(const struct vd_format *f) { return f->caps & VD_CAP_SET; }

static const struct {
        const char *key, *label, *meaning;
        bool (*test)(const struct vd_format *);
} abilities[] = {
        { "read", "READ", "read", can_read },
        { "create", "NEW", "create new images", can_create },
        { "write", "WRITE", "write in place", can_write },
        { "parents", "PARENT", "parent images", can_back },
        { "packed", "PACKED", "compressed data", can_pack },
        { "check", "CHECK", "check the structure", can_check },
        { "snapshots", "SNAPSHOT", "internal snapshots", can_snapshot },
        { "sets", "SET", "several files as one disk", can_split },
};

/* A list in JSON, one line in text. */
static void add_words(struct vd_report *r, const char *key, const char *label, const char *const *words)
{
        struct vd_report *list;
        char line[256] = "";
        size_t used = 0;

        if (!words || !*words)
                return;
        list = vd_report_list(r, key, NULL);
        for (; *words; words++) {
                vd_report_item_text(list, *words);
                if (used < sizeof line)
                        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s", used ? ", " : "", *words);
        }
        if (label)
                vd_report_text(r, NULL, label, line);
}

static void add_abilities(struct vd_report *r, const struct vd_format *format, bool columns)
{
        size_t i;

        for (i = 0; i < sizeof abilities / sizeof *abilities; i++) {
                bool able = abilities[i].test(format);

                vd_report_flag(r, abilities[i].key, NULL, able);
                vd_report_text(r, NULL, columns ? abilities[i].label : abilities[i].meaning,
                               columns ? able ? "x" : "" : able ? "yes" : "no");
        }
}

static void add_create_options(struct vd_report *r, const struct vd_format *format)
{
        const struct vd_opt *opt = format->create_opts;
        struct vd_report *list;

        if (!opt || opt->type == VD_OPT_END)
                return;
        list = vd_report_list(r, "create-options", NULL);
        for (; opt->type != VD_OPT_END; opt++) {
                struct vd_report *item;

                if (opt->hidden)
                        continue;
                item = vd_report_item(list);
                vd_report_text(item, "name", NULL, opt->name);
                vd_report_text(item, "help", NULL, opt->help ? opt->help : "");
                add_words(item, "choices", NULL, opt->choices);
        }
}

static void add_format(struct vd_report *r, const struct vd_format *format, bool columns)
{
        vd_report_text(r, "name", columns ? "FORMAT" : "format", format->name);
        if (!columns)
                vd_report_text(r, "title", "title", format->title);
        vd_report_text(r, "qemu-name", NULL, format->qemu_name ? format->qemu_name : format->name);
        add_words(r, "aliases", columns ? NULL : "other names", format->aliases);
        add_words(r, "extensions", columns ? NULL : "extensions of file names", format->extensions);
        add_words(r, "types", columns ? NULL : "types", format->subformats);
        add_abilities(r, format, columns);
        if (columns)
                vd_report_text(r, "title", "DESCRIPTION", format->title);
        add_create_options(r, format);
}

static int print_one(const char *name, const char *output, struct vd_error *err)
{
        const struct vd_format *format = vd_format_by_name(name);
        struct vd_report *r;
        int ret;

        if (!format)
                return vd_fail(err, VD_EUSAGE, "unknown format \"%s\" (vdtool formats lists them)", name);
        r = vd_report_new();
        add_format(r, format, false);
        ret = vd_print_report(r, output, err);
        vd_report_free(r);
        if (!ret && !vd_output_is_json(output) && format->create_opts && format->create_opts->type != VD_OPT_END) {
                puts("create options (-o):");
                vd_opts_help_keys(format->create_opts, vd_terminal_columns(stdout), stdout);
        }
        return ret;
}

static int formats_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                       struct vd_error *err)
{
        struct formats_args *args = arguments;
        const struct vd_format *const *f;
        struct vd_report *r, *table;
        bool json = vd_output_is_json(args->output);
        int ret = vd_check_operands(session, operands, 0, 1, err);

        if (ret)
                return ret;
        if (operands->count)
                return print_one(operands->items[0], args->output, err);
        if (args->names) {
                for (f = vd_formats; *f; f++)
                        puts((*f)->name);
                return 0;
        }
        r = json ? vd_report_new_list() : vd_report_new();
        table = json ? r : vd_report_table(r, NULL, "");
        for (f = vd_formats; *f; f++)
                add_format(vd_report_item(table), *f, true);
        ret = vd_print_report(r, args->output, err);
        vd_report_free(r);
        return ret;
}

const struct vd_command vd_cmd_formats = {
        .name = "formats", .operands = "[FORMAT]", .summary = "list the formats and what can be done with them",
        .completes = "format",
        .examples = "  vdtool formats\n"
                    "  vdtool formats vhd\n",
        .opts = formats_opts, .args_size = sizeof(struct formats_args), .run = formats_run,
};
