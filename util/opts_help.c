// SPDX-License-Identifier: MIT
/* opts_help.c: option tables shown: help, completion, and the word that was probably meant. */
#include "opts.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_COLUMN_MAX = 34, TEXT_ROOM = 256 };

/* The word for an option's value: what the table says, else its choices. */
static void value_word(const struct vd_opt *opt, char *text, size_t room)
{
        size_t i, used = 0;

        text[0] = '\0';
        if (opt->type == VD_OPT_FLAG)
                return;
        if (opt->argument || !opt->choices) {
                static const char *const words[] = {
                        [VD_OPT_TEXT] = "TEXT", [VD_OPT_SIZE] = "SIZE", [VD_OPT_COUNT] = "NUMBER",
                        [VD_OPT_CHOICE] = "WORD", [VD_OPT_LIST] = "TEXT",
                };

                snprintf(text, room, "%s", opt->argument ? opt->argument : words[opt->type]);
                return;
        }
        for (i = 0; opt->choices[i] && used < room; i++)
                used += (size_t)snprintf(text + used, room - used, "%s%s", i ? "|" : "", opt->choices[i]);
}

static void option_words(const struct vd_opt *opt, char *text, size_t room)
{
        char value[TEXT_ROOM], letter[8] = "    ";

        value_word(opt, value, sizeof value);
        if (opt->letter)
                snprintf(letter, sizeof letter, "-%c, ", opt->letter);
        if (opt->optional_value)
                snprintf(text, room, "%s--%s[=%s]", letter, opt->name, value);
        else
                snprintf(text, room, "%s--%s%s%s", letter, opt->name, *value ? " " : "", value);
}

static void key_words(const struct vd_opt *opt, char *text, size_t room)
{
        char value[TEXT_ROOM];

        value_word(opt, value, sizeof value);
        snprintf(text, room, "%s=%s", opt->name, opt->type == VD_OPT_FLAG ? "on|off" : value);
}

/* Words of text from column on, broken at blanks before width. */
static void print_wrapped(const char *text, size_t column, size_t width, FILE *stream)
{
        size_t at = column;

        while (*text) {
                size_t word = strcspn(text, " ");

                if (at > column && at + 1 + word > width) {
                        fprintf(stream, "\n%*s", (int)column, "");
                        at = column;
                } else if (at > column) {
                        fputc(' ', stream);
                        at++;
                }
                fprintf(stream, "%.*s", (int)word, text);
                at += word;
                text += word + strspn(text + word, " ");
        }
        fputc('\n', stream);
}

static void print_table(const struct vd_opt *opts, unsigned width, FILE *stream,
                        void (*words_of)(const struct vd_opt *, char *, size_t))
{
        const struct vd_opt *opt;
        char words[2 * TEXT_ROOM];
        size_t column = 0;

        for (opt = opts; opt->type != VD_OPT_END; opt++) {
                size_t length;

                if (opt->hidden)
                        continue;
                words_of(opt, words, sizeof words);
                length = strlen(words) + 4;
                if (length <= NAME_COLUMN_MAX && length > column)
                        column = length;
        }
        if (!column)
                column = NAME_COLUMN_MAX;
        for (opt = opts; opt->type != VD_OPT_END; opt++) {
                if (opt->hidden)
                        continue;
                words_of(opt, words, sizeof words);
                if (strlen(words) + 4 > column)
                        fprintf(stream, "  %s\n%*s", words, (int)column, "");
                else
                        fprintf(stream, "  %-*s", (int)column - 2, words);
                print_wrapped(opt->help ? opt->help : "", column, width, stream);
        }
}

void vd_opts_help(const struct vd_opt *opts, unsigned width, FILE *stream)
{
        print_table(opts, width, stream, option_words);
}

void vd_opts_help_keys(const struct vd_opt *opts, unsigned width, FILE *stream)
{
        print_table(opts, width, stream, key_words);
}

void vd_opts_list(const struct vd_opt *opts, FILE *stream)
{
        for (; opts->type != VD_OPT_END; opts++) {
                size_t i;

                if (opts->hidden)
                        continue;
                if (opts->letter)
                        fprintf(stream, "-%c", opts->letter);
                fprintf(stream, "\t--%s\t%s", opts->name, opts->optional_value ? "?" : "");
                if (opts->completes)
                        fputs(opts->completes, stream);
                else if (opts->choices)
                        for (i = 0; opts->choices[i]; i++)
                                fprintf(stream, "%c%s", i ? ' ' : '=', opts->choices[i]);
                else if (opts->type != VD_OPT_FLAG)
                        fputs("value", stream);
                fprintf(stream, "\t%s\n", opts->help ? opts->help : "");
        }
}

/* Levenshtein distance; words longer than the table count as far. */
static size_t distance(const char *a, const char *b)
{
        enum { LONGEST = 40 };
        size_t row[LONGEST + 1], la = strlen(a), lb = strlen(b), i, j;

        if (la > LONGEST || lb > LONGEST)
                return SIZE_MAX;
        for (j = 0; j <= lb; j++)
                row[j] = j;
        for (i = 1; i <= la; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (j = 1; j <= lb; j++) {
                        size_t best = diagonal + (a[i - 1] != b[j - 1]);

                        if (row[j] + 1 < best)
                                best = row[j] + 1;
                        if (row[j - 1] + 1 < best)
                                best = row[j - 1] + 1;
                        diagonal = row[j];
                        row[j] = best;
                }
        }
        return row[lb];
}

const char *vd_nearest(const char *word, const char *const *candidates)
{
        const char *best = NULL;
        size_t best_distance = SIZE_MAX;

        for (; *candidates; candidates++) {
                size_t d = distance(word, *candidates);

                if (d < best_distance) {
                        best_distance = d;
                        best = *candidates;
                }
        }
        return best_distance <= 1 + strlen(word) / 3 ? best : NULL;
}
