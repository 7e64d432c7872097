// SPDX-License-Identifier: MIT
/* progress.c: how far a long job is, on stderr. */
#include "progress.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "size.h"

enum { BAR_MAX = 40, LINE_MAX_COLUMNS = 200 };

static double now_seconds(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

enum vd_progress_style vd_progress_style(const char *word, FILE *stream)
{
        if (word && !strcmp(word, "none"))
                return VD_PROGRESS_NONE;
        if (word && !strcmp(word, "json"))
                return VD_PROGRESS_JSON;
        if (word && !strcmp(word, "plain"))
                return VD_PROGRESS_PLAIN;
        if (word && !strcmp(word, "bar"))
                return VD_PROGRESS_BAR;
        return isatty(fileno(stream)) ? VD_PROGRESS_BAR : VD_PROGRESS_PLAIN;
}

void vd_progress_start(struct vd_progress *p, enum vd_progress_style style, FILE *stream)
{
        *p = (struct vd_progress){ .style = style, .stream = stream, .started = now_seconds() };
}

static double percent_of(uint64_t done, uint64_t total)
{
        return total ? 100.0 * (double)done / (double)total : 100.0;
}

static unsigned columns_of(FILE *stream)
{
        struct winsize size;

        if (ioctl(fileno(stream), TIOCGWINSZ, &size) || !size.ws_col)
                return 80;
        return size.ws_col < LINE_MAX_COLUMNS ? size.ws_col : LINE_MAX_COLUMNS;
}

static void print_time(char *text, size_t room, double seconds)
{
        uint64_t s = seconds > 359999 ? 359999 : (uint64_t)(seconds + 0.5);

        if (s >= 3600)
                snprintf(text, room, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60), (unsigned)(s % 60));
        else
                snprintf(text, room, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
}

static void print_bar(struct vd_progress *p, uint64_t done, uint64_t total, double now)
{
        unsigned columns = columns_of(p->stream), width, filled;
        double elapsed = now - p->started, rate = elapsed > 0.2 ? (double)done / elapsed : 0;
        char speed[32] = "", left[32] = "", tail[96], bar[BAR_MAX + 1];

        if (rate > 0) {
                vd_size_text((uint64_t)rate, speed);
                print_time(left, sizeof left, (double)(total - done) / rate);
        }
        snprintf(tail, sizeof tail, "%6.2f%%  %s%s  %s%s", percent_of(done, total), speed, *speed ? "/s" : "", left,
                 *left ? " left" : "");
        width = columns > 50 ? columns - 48 : 0;
        if (width > BAR_MAX)
                width = BAR_MAX;
        filled = (unsigned)(percent_of(done, total) * width / 100);
        memset(bar, '.', width);
        memset(bar, '#', filled);
        bar[width] = '\0';
        fprintf(p->stream, "\r[%s] %-*.*s", bar, (int)(columns > width + 4 ? columns - width - 4 : 0),
                (int)(columns > width + 4 ? columns - width - 4 : 0), tail);
        p->drawn = true;
}

static void print_json(struct vd_progress *p, uint64_t done, uint64_t total, double now)
{
        json_t *line = json_pack("{s:I, s:I, s:f, s:f}", "done", (json_int_t)done, "total", (json_int_t)total,
                                 "percent", percent_of(done, total), "seconds", now - p->started);

        if (line && !json_dumpf(line, p->stream, JSON_REAL_PRECISION(6)))
                fputc('\n', p->stream);
        json_decref(line);
}

static void print_line(struct vd_progress *p, uint64_t done, uint64_t total)
{
        char done_text[32], total_text[32];

        fprintf(p->stream, "%s%.2f%% (%s of %s)\n", p->drawn ? "\n" : "", percent_of(done, total),
                vd_size_text(done, done_text), vd_size_text(total, total_text));
        p->drawn = false;
}

void vd_progress_step(struct vd_progress *p, uint64_t done, uint64_t total, bool at_once)
{
        double now;

        if (!p->stream || (p->style == VD_PROGRESS_NONE && !at_once))
                return;
        if (done > total)
                done = total;
        now = now_seconds();
        if (at_once && p->style != VD_PROGRESS_JSON) {
                print_line(p, done, total);
        } else if (p->style == VD_PROGRESS_PLAIN) {
                unsigned tenth = (unsigned)(percent_of(done, total) / 10);

                if (tenth <= p->last_tenth)
                        return;
                p->last_tenth = tenth;
                print_line(p, done, total);
        } else {
                if (!at_once && done < total && p->last > 0 && now - p->last < 0.1)
                        return;
                p->last = now;
                if (p->style == VD_PROGRESS_JSON)
                        print_json(p, done, total, now);
                else
                        print_bar(p, done, total, now);
        }
        fflush(p->stream);
}

void vd_progress_end(struct vd_progress *p)
{
        if (!p->stream)
                return;
        if (p->drawn)
                fputc('\n', p->stream);
        fflush(p->stream);
        p->drawn = false;
}
