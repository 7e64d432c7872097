// SPDX-License-Identifier: MIT
/* opts.c: option tables: command lines, key=value lists, help. */
#include "util/opts.h"
#include "unit.h"

struct args {
        bool flag;
        const char *text, *choice, *maybe;
        uint64_t size, count;
        struct vd_texts list;
};

static const char *const colours[] = { "red", "green", NULL };

static const struct vd_opt table[] = {
        { .letter = 'q', .type = VD_OPT_FLAG, .name = "quiet", .offset = offsetof(struct args, flag),
          .help = "be quiet" },
        { .letter = 't', .type = VD_OPT_TEXT, .name = "text", .offset = offsetof(struct args, text), .help = "a text" },
        { .type = VD_OPT_CHOICE, .name = "colour", .offset = offsetof(struct args, choice), .choices = colours,
          .help = "a colour" },
        { .letter = 'S', .type = VD_OPT_SIZE, .name = "cluster_size", .offset = offsetof(struct args, size),
          .help = "a size" },
        { .letter = 'm', .type = VD_OPT_COUNT, .name = "count", .offset = offsetof(struct args, count),
          .argument = "N", .help = "a number" },
        { .letter = 'o', .type = VD_OPT_LIST, .name = "options", .offset = offsetof(struct args, list),
          .help = "some texts" },
        { .letter = 'p', .type = VD_OPT_TEXT, .name = "progress", .offset = offsetof(struct args, maybe),
          .optional_value = true, .if_empty = "auto", .argument = "STYLE", .help = "a style" },
        { .type = VD_OPT_TEXT, .name = "old-name", .hidden = true, .offset = offsetof(struct args, text) },
        { .type = VD_OPT_END },
};

static struct args args;
static struct vd_texts operands;
static struct vd_error err;

static void forget(void)
{
        vd_opts_free(table, &args);
        vd_texts_free(&operands);
        args = (struct args){ 0 };
        err = (struct vd_error)VD_ERROR_INIT;
}

static int parse(const char *a, const char *b, const char *c, const char *d)
{
        const char *argv[] = { "command", a, b, c, d, NULL };
        int argc = 1;

        forget();
        while (argc < 5 && argv[argc])
                argc++;
        argv[argc] = NULL;
        return vd_opts_parse(table, argc, argv, &args, &operands, &err);
}

static bool is(const char *found, const char *expected)
{
        return found && !strcmp(found, expected);
}

static bool has_operands(const char *first, const char *second)
{
        return operands.count == (size_t)!!first + !!second && (!first || is(operands.items[0], first)) &&
               (!second || is(operands.items[1], second));
}

static void command_lines(void)
{
        OK("options stand anywhere", !parse("one", "-q", "two", "-tx") && args.flag && is(args.text, "x") &&
           has_operands("one", "two"));
        OK("long names, with = and without", !parse("--text=x", "--colour", "red", NULL) && is(args.text, "x") &&
           is(args.choice, "red"));
        OK("-- ends options, - is an operand", !parse("-", "--", "-q", NULL) && !args.flag && has_operands("-", "-q"));
        OK("sizes and numbers", !parse("-S", "64k", "-m", "3") && args.size == 65536 && args.count == 3);
        OK("lists grow", !parse("-o", "a=1", "-o", "b=2") && args.list.count == 2 && is(args.list.items[1], "b=2"));
        OK("the last text wins", !parse("-t", "a", "-t", "b") && is(args.text, "b"));
        OK("an optional value is never the next word", !parse("-p", "one", "--progress", "two") &&
           is(args.maybe, "auto") && has_operands("one", "two"));
        OK("an optional value follows =", !parse("--progress=bar", "one", NULL, NULL) && is(args.maybe, "bar"));
        OK("hidden names work", !parse("--old-name", "x", NULL, NULL) && is(args.text, "x"));
        OK("an unknown option suggests another", parse("--txet", NULL, NULL, NULL) == VD_EUSAGE &&
           strstr(err.text, "--txet") && strstr(err.text, "--text"));
        OK("a value is missing", parse("--text", NULL, NULL, NULL) == VD_EUSAGE && strstr(err.text, "--text"));
        OK("a flag takes no value", parse("--quiet=3", NULL, NULL, NULL) == VD_EUSAGE);
        OK("a bad choice names the good ones", parse("--colour", "blue", NULL, NULL) == VD_EUSAGE &&
           strstr(err.text, "blue") && strstr(err.text, "red or green"));
        OK("bad numbers", parse("-m", "-1", NULL, NULL) == VD_EUSAGE && parse("-m", "3x", NULL, NULL) == VD_EUSAGE &&
           parse("-m", "99999999999999999999", NULL, NULL) == VD_EUSAGE && parse("-S", "4q", NULL, NULL) == VD_EUSAGE);
}

static bool list_is_bad(const char *list)
{
        forget();
        return vd_opts_parse_list(table, list, &args, &err) == VD_EUSAGE;
}

static void lists(void)
{
        forget();
        OK("a list sets its keys",
           !vd_opts_parse_list(table, "quiet=on,text=a,,b=c,cluster-size=1M,colour=green", &args, &err) &&
           args.flag && is(args.text, "a,b=c") && args.size == 1048576 && is(args.choice, "green"));
        OK("flags are off when told", !vd_opts_parse_list(table, "quiet=off", &args, &err) && !args.flag);
        OK("a bare key sets a flag", !vd_opts_parse_list(table, "quiet", &args, &err) && args.flag);
        OK("an empty list is none", !vd_opts_parse_list(table, "", &args, &err) &&
           !vd_opts_parse_list(table, ",", &args, &err));
        OK("an unknown key names the known ones", list_is_bad("nonsense=1") && strstr(err.text, "nonsense") &&
           strstr(err.text, "cluster_size") && !strstr(err.text, "old-name"));
        OK("values that do not fit", list_is_bad("quiet=perhaps") && list_is_bad("text") && list_is_bad("count=x") &&
           list_is_bad("cluster_size=-1"));
}

static void help(void)
{
        char *text = NULL;
        size_t length;
        FILE *stream = open_memstream(&text, &length);

        NEED(stream);
        vd_opts_help(table, 80, stream);
        vd_opts_help_keys(table, 80, stream);
        vd_opts_list(table, stream);
        fclose(stream);
        OK("help shows letter, name, value and text", strstr(text, "  -m, --count N ") && strstr(text, "a number\n"));
        OK("help shows choices", strstr(text, "      --colour red|green "));
        OK("help shows that a value may be missing", strstr(text, "--progress[=STYLE]"));
        OK("help of keys", strstr(text, "  quiet=on|off ") && strstr(text, "  cluster_size=SIZE "));
        OK("completion lines", strstr(text, "-q\t--quiet\t\tbe quiet\n"));
        OK("completion of choices", strstr(text, "\t--colour\t=red green\ta colour\n"));
        OK("hidden options are not shown", !strstr(text, "old-name"));
        free(text);
}

int main(void)
{
        static const char *const words[] = { "convert", "compare", "check", NULL };

        command_lines();
        lists();
        help();
        OK("the nearest word", is(vd_nearest("convrt", words), "convert") && !vd_nearest("frobnicate", words));
        forget();
        return unit_done();
}
