// SPDX-License-Identifier: MIT
/* map_picture.c: a disk as a field of Unicode blocks. */
#include <stdlib.h>
#include <string.h>

#include "cmd/map.h"
#include "util/checked.h"
#include "util/size.h"

enum { ROWS = 16, LABEL_COLUMNS = 10, SMALLEST_CELL = 512 };

enum shade { HOLE, ZERO, PARENT, PACKED, DATA, SHADES };

static const struct {
        const char *glyph, *colour, *meaning;
} shades[SHADES] = {
        [HOLE] = { "\u00b7", "\033[90m", "nothing" },
        [ZERO] = { "\u2591", "\033[90m", "zeros" },
        [PARENT] = { "\u2592", "\033[34m", "in a parent" },
        [PACKED] = { "\u2593", "\033[36m", "compressed" },
        [DATA] = { "\u2588", "\033[32m", "data" },
};

static const char plain[] = "\033[0m";

/* A cell of which less than half is stored data. */
static const char some_data[] = "\u2584";

struct cell {
        uint64_t bytes[SHADES];
};

struct vd_picture {
        uint64_t start, end, cell_bytes;
        uint64_t totals[SHADES];
        size_t columns, count;
        struct cell cells[];
};

struct vd_picture *vd_picture_new(uint64_t start, uint64_t end, unsigned terminal_columns)
{
        size_t columns = terminal_columns - LABEL_COLUMNS - 1, count;
        struct vd_picture *p;
        uint64_t cell_bytes;

        cell_bytes = vd_round_up(vd_max(vd_div_up(end - start, columns * ROWS), 1), SMALLEST_CELL);
        count = vd_div_up(end - start, cell_bytes);
        p = calloc(1, sizeof *p + count * sizeof p->cells[0]);
        if (!p)
                return NULL;
        *p = (struct vd_picture){ .start = start, .end = end, .cell_bytes = cell_bytes, .columns = columns,
                                  .count = count };
        return p;
}

void vd_picture_free(struct vd_picture *p)
{
        free(p);
}

static enum shade shade_of(const struct vd_map_entry *e)
{
        if (e->data && !e->zero)
                return e->depth ? PARENT : e->packed ? PACKED : DATA;
        return e->zero && e->present && !e->has_offset ? ZERO : e->zero ? HOLE : PARENT;
}

void vd_picture_add(struct vd_picture *p, const struct vd_map_entry *e)
{
        enum shade shade = shade_of(e);
        uint64_t at = vd_max(e->start, p->start), end = vd_min(e->start + e->length, p->end);

        while (at < end) {
                uint64_t i = (at - p->start) / p->cell_bytes;
                uint64_t n = vd_min(end, p->start + (i + 1) * p->cell_bytes) - at;

                p->cells[i].bytes[shade] += n;
                p->totals[shade] += n;
                at += n;
        }
}

/* What is stored shows before what is not, however little it is. */
static enum shade strongest(const struct cell *cell)
{
        enum shade best = HOLE;
        int s;

        for (s = PARENT; s < SHADES; s++)
                if (cell->bytes[s] && (best < PARENT || cell->bytes[s] >= cell->bytes[best]))
                        best = (enum shade)s;
        return best == HOLE && cell->bytes[ZERO] > cell->bytes[HOLE] ? ZERO : best;
}

static const char *glyph(enum shade shade, bool some)
{
        return some ? some_data : shades[shade].glyph;
}

/* One entry of the legend, on a new line when it does not fit. */
static void explain(const struct vd_picture *p, enum shade shade, bool some, const char *text, bool colour,
                    size_t *used, FILE *stream)
{
        size_t width = strlen(text) + 2, line = p->columns + LABEL_COLUMNS + 1;

        if (*used && *used + 3 + width > line) {
                fputc('\n', stream);
                *used = 0;
        } else if (*used) {
                *used += (size_t)fprintf(stream, "   ");
        }
        fprintf(stream, "%s%s%s %s", colour ? shades[shade].colour : "", glyph(shade, some), colour ? plain : "", text);
        *used += width;
}

static void print_legend(const struct vd_picture *p, bool colour, FILE *stream)
{
        char size[32], text[64];
        size_t used = 0;
        int s;

        for (s = SHADES - 1; s >= 0; s--) {
                if (!p->totals[s])
                        continue;
                snprintf(text, sizeof text, "%s %s", shades[s].meaning, vd_size_text(p->totals[s], size));
                explain(p, (enum shade)s, false, text, colour, &used, stream);
        }
        if (p->totals[DATA])
                explain(p, DATA, true, "less than half data", colour, &used, stream);
        fprintf(stream, "%sa character is %s\n", used ? "\n" : "", vd_size_text(p->cell_bytes, size));
}

void vd_picture_print(const struct vd_picture *p, bool colour, FILE *stream)
{
        enum shade last = SHADES;
        char size[32];
        size_t i;

        for (i = 0; i < p->count; i++) {
                const struct cell *cell = &p->cells[i];
                enum shade shade = strongest(cell);

                if (i % p->columns == 0) {
                        fprintf(stream, "%s%s%*s ", colour && i ? plain : "", i ? "\n" : "", (int)LABEL_COLUMNS,
                                vd_size_text(p->start + i * p->cell_bytes, size));
                        last = SHADES;
                }
                if (colour && shade != last)
                        fputs(shades[shade].colour, stream);
                last = shade;
                fputs(glyph(shade, shade == DATA && cell->bytes[DATA] < p->cell_bytes / 2), stream);
        }
        if (p->count)
                fprintf(stream, "%s\n", colour ? plain : "");
        print_legend(p, colour, stream);
}
