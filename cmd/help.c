// SPDX-License-Identifier: MIT
/* help.c: vdtool help: what there is, in general and of one command. */
#include <string.h>

#include "cmd/common.h"
#include "core/format.h"

static const struct vd_opt help_opts[] = {
        { .type = VD_OPT_END },
};

static int name_width(void)
{
        const struct vd_command *const *c;
        size_t width = 0;

        for (c = vd_commands; *c; c++)
                if (strlen((*c)->name) > width)
                        width = strlen((*c)->name);
        return (int)width;
}

void vd_command_print_overview(FILE *stream)
{
        const struct vd_command *const *c;
        const struct vd_format *const *f;

        fputs("usage: vdtool COMMAND [OPTIONS] OPERANDS\n"
              "       vdtool help [COMMAND]\n\n"
              "A toolkit for virtual disk images.\n\n"
              "Commands:\n", stream);
        for (c = vd_commands; *c; c++)
                fprintf(stream, "  %-*s  %s\n", name_width(), (*c)->name, (*c)->summary);
        fputs("\nFormats:", stream);
        for (f = vd_formats; *f; f++)
                fprintf(stream, " %s", (*f)->name);
        fputs("\n\n  -h, --help           print this help, or after a command that command's\n"
              "  -V, --version        print the version and the optional libraries in it\n"
              "      --list-commands  print the commands, one on a line\n", stream);
}

void vd_command_print_help(const struct vd_command *command, FILE *stream)
{
        fprintf(stream, "usage: vdtool %s%s%s%s\n\n%s\n", command->name,
                command->opts->type == VD_OPT_END ? "" : " [OPTIONS]", *command->operands ? " " : "",
                command->operands, command->summary);
        if (command->opts->type != VD_OPT_END) {
                fputs("\nOptions:\n", stream);
                vd_opts_help(command->opts, vd_terminal_columns(stream), stream);
        }
        if (command->examples)
                fprintf(stream, "\nExamples:\n%s", command->examples);
}

static int help_run(void *args, const struct vd_texts *operands, struct vd_session *session, struct vd_error *err)
{
        const struct vd_command *command;
        int ret = vd_check_operands(session, operands, 0, 1, err);

        (void)args;
        if (ret)
                return ret;
        if (!operands->count) {
                vd_command_print_overview(stdout);
                return 0;
        }
        command = vd_command_by_name(operands->items[0]);
        if (!command)
                return vd_fail(err, VD_EUSAGE, "unknown command \"%s\" (vdtool --help lists them)",
                               operands->items[0]);
        vd_command_print_help(command, stdout);
        return 0;
}

const struct vd_command vd_cmd_help = {
        .name = "help", .operands = "[COMMAND]", .summary = "explain vdtool or one of its commands",
        .completes = "command", .opts = help_opts, .run = help_run,
};
