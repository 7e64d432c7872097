// SPDX-License-Identifier: MIT
/* main.c: global options, finding and running the command, the one place that prints an error, exit status. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/command.h"
#include "util/cleanup.h"
#include "util/text.h"

#define VD_COMMAND(name) extern const struct vd_command vd_cmd_##name;
#include "commands.def"
#undef VD_COMMAND

#define VD_COMMAND(name) &vd_cmd_##name,
const struct vd_command *const vd_commands[] = {
#include "commands.def"
        NULL
};

static volatile struct vd_signals signals;

/* A command must never get descriptors 0 to 2 for an image.  Where one is missing a useless one takes its place: what
 * is written to a closed standard output fails, instead of vanishing. */
static int fill_descriptors(void)
{
        int fd;

        for (fd = 0; fd <= 2; fd++)
                if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
                    open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
                        return -1;
        return 0;
}

/* A VMDK of 2 TiB may be cut into a thousand files, which is as many as one may usually have open. */
static void allow_many_files(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
                limit.rlim_cur = limit.rlim_max;
                setrlimit(RLIMIT_NOFILE, &limit);
        }
}

static void on_stop(int number)
{
        signals.stop = number;
}

static void on_progress(int number)
{
        (void)number;
        signals.progress = 1;
}

static void catch_signal(int number, void (*handler)(int), int flags)
{
        struct sigaction action = { .sa_handler = handler, .sa_flags = flags }, old;

        /* nohup and shells without job control have these ignored: that stays. */
        if (!sigaction(number, NULL, &old) && old.sa_handler == SIG_IGN && handler == on_stop)
                return;
        sigemptyset(&action.sa_mask);
        sigaction(number, &action, NULL);
}

static void set_up_signals(void)
{
        catch_signal(SIGINT, on_stop, 0);
        catch_signal(SIGTERM, on_stop, 0);
        catch_signal(SIGHUP, on_stop, 0);
        catch_signal(SIGUSR1, on_progress, SA_RESTART);
        catch_signal(SIGPIPE, SIG_IGN, 0);
        catch_signal(SIGXFSZ, SIG_IGN, 0);
}

static void print_error(const char *text)
{
        VD_AUTOFREE char *shown = vd_printable_dup(text, strlen(text));

        fprintf(stderr, "vdtool: %s\n", shown ? shown : "out of memory");
}

const struct vd_command *vd_command_by_name(const char *name)
{
        const struct vd_command *const *c;

        for (c = vd_commands; *c; c++)
                if (!strcmp((*c)->name, name))
                        return *c;
        return NULL;
}

static int unknown_command(const char *name)
{
        const char *names[sizeof vd_commands / sizeof *vd_commands], *near;
        struct vd_error err = VD_ERROR_INIT;
        size_t i;

        for (i = 0; vd_commands[i]; i++)
                names[i] = vd_commands[i]->name;
        names[i] = NULL;
        near = vd_nearest(name, names);
        if (near)
                vd_fail(&err, VD_EUSAGE, "unknown command \"%s\" (did you mean %s?)", name, near);
        else
                vd_fail(&err, VD_EUSAGE, "unknown command \"%s\" (vdtool --help lists them)", name);
        print_error(err.text);
        return 1;
}

static bool has_word(int argc, const char **argv, const char *word)
{
        int i;

        for (i = 1; i < argc && strcmp(argv[i], "--"); i++)
                if (!strcmp(argv[i], word))
                        return true;
        return false;
}

static int run_command(const struct vd_command *command, int argc, const char **argv)
{
        struct vd_session session = { .command = command, .signals = &signals, .failure_status = 1 };
        struct vd_error err = VD_ERROR_INIT;
        struct vd_texts operands = { 0 };
        VD_AUTOFREE void *args = NULL;
        int ret;

        if (has_word(argc, argv, "--help") || has_word(argc, argv, "-h")) {
                vd_command_print_help(command, stdout);
                return 0;
        }
        if (has_word(argc, argv, "--list-options")) {
                vd_opts_list(command->opts, stdout);
                return 0;
        }
        args = calloc(1, command->args_size ? command->args_size : 1);
        if (!args) {
                print_error("out of memory");
                return 1;
        }
        if (command->defaults)
                memcpy(args, command->defaults, command->args_size);
        ret = vd_opts_parse(command->opts, argc, argv, args, &operands, &err);
        if (ret)
                vd_error_prefix(&err, "%s", command->name);
        else
                ret = command->run(args, &operands, &session, &err);
        if (ret < 0) {
                fflush(stdout);
                print_error(*err.text ? err.text : "failed without a message");
                ret = session.failure_status;
        }
        vd_opts_free(command->opts, args);
        vd_texts_free(&operands);
        return ret;
}

static void print_version(void)
{
        puts("vdtool " VD_VERSION);
        fputs("optional libraries:", stdout);
#ifdef HAVE_ISAL
        fputs(" isal", stdout);
#endif
#ifdef HAVE_NBD
        fputs(" nbd", stdout);
#endif
#ifdef HAVE_FUSE3
        fputs(" fuse3", stdout);
#endif
#if !defined HAVE_ISAL && !defined HAVE_NBD && !defined HAVE_FUSE3
        fputs(" none", stdout);
#endif
        putchar('\n');
}

static void list_commands(bool described)
{
        const struct vd_command *const *c;

        for (c = vd_commands; *c; c++)
                if (described)
                        printf("%s\t%s\t%s\n", (*c)->name, (*c)->completes ? (*c)->completes : "", (*c)->summary);
                else
                        puts((*c)->name);
}

static int run(int argc, const char **argv)
{
        const struct vd_command *command;

        if (argc < 2) {
                vd_command_print_overview(stderr);
                return 1;
        }
        if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
                vd_command_print_overview(stdout);
                return 0;
        }
        if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
                print_version();
                return 0;
        }
        if (!strcmp(argv[1], "--list-commands") || !strcmp(argv[1], "--list-commands=described")) {
                list_commands(strchr(argv[1], '=') != NULL);
                return 0;
        }
        command = vd_command_by_name(argv[1]);
        return command ? run_command(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}

/* Output that did not arrive is a failure.  A reader who went away knows that; everybody else is told. */
static int finish_output(int status)
{
        struct pollfd reader = { .fd = STDOUT_FILENO, .events = POLLOUT };
        bool gone = poll(&reader, 1, 0) == 1 && (reader.revents & POLLERR), failed = ferror(stdout);
        int error = 0;

        if (fclose(stdout)) {
                failed = true;
                error = errno;
        }
        if (!failed)
                return status;
        if (!gone && error != EPIPE) {
                struct vd_error err = VD_ERROR_INIT;

                vd_fail(&err, error ? -error : -EIO, "standard output");
                print_error(err.text);
        }
        return status ? status : 1;
}

int main(int argc, char **argv)
{
        int status;

        if (fill_descriptors())
                return 1;
        set_up_signals();
        allow_many_files();
        status = finish_output(run(argc, (const char **)argv));
        if (status && signals.stop) {
                /* Everything is cleaned up: end as if the signal had done it, so that shells see why. */
                signal(signals.stop, SIG_DFL);
                raise(signals.stop);
        }
        return status;
}
