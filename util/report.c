// SPDX-License-Identifier: MIT
/* report.c: a tree of named values, printed as text or as JSON (jansson). */
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "size.h"
#include "text.h"

enum kind { OBJECT, LIST, TABLE, TEXT, COUNT, SIGNED, FLAG, BYTES, OFFSET };

struct vd_report {
        enum kind kind;
        char *key, *label;              /* NULL: hidden from JSON, from text */
        char *text;
        uint64_t number;                /* also SIGNED (two's complement) and FLAG */
        bool failed;                    /* on the root: memory ran out somewhere below */
        struct vd_report *root, *first, *last, *next;
};

static struct vd_report *new_root(enum kind kind)
{
        struct vd_report *r = calloc(1, sizeof *r);

        if (r) {
                r->kind = kind;
                r->root = r;
        }
        return r;
}

struct vd_report *vd_report_new(void)
{
        return new_root(OBJECT);
}

struct vd_report *vd_report_new_list(void)
{
        return new_root(LIST);
}

void vd_report_free(struct vd_report *r)
{
        while (r) {
                struct vd_report *next = r->next;

                vd_report_free(r->first);
                free(r->key);
                free(r->label);
                free(r->text);
                free(r);
                r = next;
        }
}

bool vd_report_failed(const struct vd_report *r)
{
        return !r || r->root->failed;
}

static struct vd_report *add(struct vd_report *parent, enum kind kind, const char *key, const char *label)
{
        struct vd_report *r;

        if (!parent)
                return NULL;
        r = calloc(1, sizeof *r);
        if (!r) {
                parent->root->failed = true;
                return NULL;
        }
        r->kind = kind;
        r->root = parent->root;
        r->key = key ? strdup(key) : NULL;
        r->label = label ? strdup(label) : NULL;
        if ((key && !r->key) || (label && !r->label))
                parent->root->failed = true;
        if (parent->last)
                parent->last->next = r;
        else
                parent->first = r;
        parent->last = r;
        return r;
}

static void add_number(struct vd_report *parent, enum kind kind, const char *key, const char *label, uint64_t value)
{
        struct vd_report *r = add(parent, kind, key, label);

        if (r)
                r->number = value;
}

void vd_report_text(struct vd_report *parent, const char *key, const char *label, const char *value)
{
        struct vd_report *r = add(parent, TEXT, key, label);

        if (!r)
                return;
        r->text = strdup(value ? value : "");
        if (!r->text)
                r->root->failed = true;
}

void vd_report_textf(struct vd_report *parent, const char *key, const char *label, const char *format, ...)
{
        struct vd_report *r = add(parent, TEXT, key, label);
        va_list arguments;
        int n;

        if (!r)
                return;
        va_start(arguments, format);
        n = vasprintf(&r->text, format, arguments);
        va_end(arguments);
        if (n < 0) {
                r->text = NULL;
                r->root->failed = true;
        }
}

void vd_report_count(struct vd_report *parent, const char *key, const char *label, uint64_t value)
{
        add_number(parent, COUNT, key, label, value);
}

void vd_report_signed(struct vd_report *parent, const char *key, const char *label, int64_t value)
{
        add_number(parent, SIGNED, key, label, (uint64_t)value);
}

void vd_report_flag(struct vd_report *parent, const char *key, const char *label, bool value)
{
        add_number(parent, FLAG, key, label, value);
}

void vd_report_bytes(struct vd_report *parent, const char *key, const char *label, uint64_t value)
{
        add_number(parent, BYTES, key, label, value);
}

void vd_report_offset(struct vd_report *parent, const char *key, const char *label, uint64_t value)
{
        add_number(parent, OFFSET, key, label, value);
}

struct vd_report *vd_report_section(struct vd_report *parent, const char *key, const char *label)
{
        return add(parent, OBJECT, key, label);
}

struct vd_report *vd_report_list(struct vd_report *parent, const char *key, const char *label)
{
        return add(parent, LIST, key, label);
}

struct vd_report *vd_report_table(struct vd_report *parent, const char *key, const char *label)
{
        return add(parent, TABLE, key, label);
}

/* Members of lists have no names of their own: empty ones show them in both forms. */
struct vd_report *vd_report_item(struct vd_report *list)
{
        return add(list, OBJECT, "", "");
}

void vd_report_item_text(struct vd_report *list, const char *value)
{
        vd_report_text(list, "", "", value);
}

/* --- text --- */

static bool is_scalar(const struct vd_report *r)
{
        return r->kind > TABLE;
}

static int print_value(const struct vd_report *r, FILE *stream)
{
        VD_AUTOFREE char *shown = NULL;
        char size[32];

        switch (r->kind) {
        case TEXT:
                shown = vd_printable_dup(r->text ? r->text : "", r->text ? strlen(r->text) : 0);
                if (!shown)
                        return -ENOMEM;
                fputs(shown, stream);
                break;
        case COUNT:
                fprintf(stream, "%" PRIu64, r->number);
                break;
        case SIGNED:
                fprintf(stream, "%" PRId64, (int64_t)r->number);
                break;
        case FLAG:
                fputs(r->number ? "true" : "false", stream);
                break;
        case BYTES:
                fprintf(stream, "%s (%" PRIu64 " bytes)", vd_size_text(r->number, size), r->number);
                break;
        case OFFSET:
                fprintf(stream, "0x%" PRIx64, r->number);
                break;
        case OBJECT:
        case LIST:
        case TABLE:
                break;
        }
        return 0;
}

/* The widest label of the run of named values that r begins. */
static size_t label_width(const struct vd_report *r)
{
        size_t width = 0;

        for (; r && (!r->label || (is_scalar(r) && *r->label)); r = r->next)
                if (r->label && strlen(r->label) > width)
                        width = strlen(r->label);
        return width;
}

static int print_children(const struct vd_report *, bool align, unsigned indent, bool skip_first_indent, FILE *);

/* Members of a list: "- " and the member, whose further lines stand below its first. */
static int print_items(const struct vd_report *list, bool align, unsigned indent, FILE *stream)
{
        const struct vd_report *r;
        int ret = 0;

        for (r = list->first; r && !ret; r = r->next) {
                fprintf(stream, "%*s- ", (int)indent, "");
                if (is_scalar(r)) {
                        ret = print_value(r, stream);
                        fputc('\n', stream);
                } else if (r->first) {
                        ret = print_children(r, align, indent + 2, true, stream);
                } else {
                        fputc('\n', stream);
                }
        }
        return ret;
}

static size_t columns_of(const char *text)
{
        size_t n = 0;

        for (; *text; text++)
                n += ((unsigned char)*text & 0xc0) != 0x80;
        return n;
}

static char *cell_text(const struct vd_report *r)
{
        size_t length;
        char *text = NULL;
        FILE *memory = open_memstream(&text, &length);

        if (!memory)
                return NULL;
        if (print_value(r, memory) | fclose(memory)) {
                free(text);
                return NULL;
        }
        return text;
}

/* One row, or with values false the labels; last one unpadded.  Without a stream it only widens the widths. */
static int print_row(const struct vd_report *row, bool values, size_t *widths, unsigned indent, FILE *stream)
{
        const struct vd_report *r;
        size_t column = 0, gap = indent;

        for (r = row->first; r; r = r->next) {
                VD_AUTOFREE char *text = NULL;
                size_t width;
                bool right = r->kind != TEXT && r->kind != FLAG;

                if (!r->label)
                        continue;
                text = values ? cell_text(r) : strdup(r->label);
                if (!text)
                        return -ENOMEM;
                width = columns_of(text);
                if (!stream) {
                        if (width > widths[column])
                                widths[column] = width;
                } else {
                        size_t pad = widths[column] > width ? widths[column] - width : 0;

                        fprintf(stream, "%*s%s", (int)(gap + (right ? pad : 0)), "", text);
                        gap = 2 + (right ? 0 : pad);
                }
                column++;
        }
        if (stream)
                fputc('\n', stream);
        return 0;
}

static int print_table(const struct vd_report *table, unsigned indent, FILE *stream)
{
        const struct vd_report *r;
        VD_AUTOFREE size_t *widths = NULL;
        size_t columns = 0;
        int ret;

        if (!table->first)
                return 0;
        for (r = table->first->first; r; r = r->next)
                columns += r->label != NULL;
        widths = calloc(columns + 1, sizeof *widths);
        if (!widths)
                return -ENOMEM;
        ret = print_row(table->first, false, widths, indent, NULL);
        for (r = table->first; r && !ret; r = r->next)
                ret = print_row(r, true, widths, indent, NULL);
        if (!ret)
                ret = print_row(table->first, false, widths, indent, stream);
        for (r = table->first; r && !ret; r = r->next)
                ret = print_row(r, true, widths, indent, stream);
        return ret;
}

/* Would print_children() print anything? */
static bool has_text(const struct vd_report *parent)
{
        const struct vd_report *r;

        for (r = parent->first; r; r = r->next)
                if (r->label && (is_scalar(r) || has_text(r)))
                        return true;
        return false;
}

static int print_children(const struct vd_report *parent, bool align, unsigned indent, bool skip_first_indent,
                          FILE *stream)
{
        const struct vd_report *r;
        size_t width = 0;
        int ret = 0;

        for (r = parent->first; r && !ret; r = r->next) {
                if (!r->label || (!is_scalar(r) && !has_text(r)))
                        continue;
                if (!is_scalar(r) && !*r->label) {
                        ret = r->kind == LIST ? print_items(r, align, indent, stream) :
                              r->kind == TABLE ? print_table(r, indent, stream) :
                                                 print_children(r, align, indent, skip_first_indent, stream);
                        skip_first_indent = false;
                        width = 0;
                        continue;
                }
                fprintf(stream, "%*s", skip_first_indent ? 0 : (int)indent, "");
                skip_first_indent = false;
                if (!is_scalar(r)) {
                        fprintf(stream, "%s:\n", r->label);
                        ret = r->kind == LIST ? print_items(r, align, indent + 4, stream) :
                              r->kind == TABLE ? print_table(r, indent + 4, stream) :
                                                 print_children(r, align, indent + 4, false, stream);
                        width = 0;
                        continue;
                }
                if (*r->label) {
                        if (align && !width)
                                width = label_width(r);
                        fprintf(stream, "%s: ", r->label);
                        if (align && width > strlen(r->label))
                                fprintf(stream, "%*s", (int)(width - strlen(r->label)), "");
                } else {
                        width = 0;
                }
                ret = print_value(r, stream);
                fputc('\n', stream);
        }
        return ret;
}

int vd_report_print_text(const struct vd_report *r, bool align, FILE *stream)
{
        const struct vd_report *item;
        int ret = 0;

        if (vd_report_failed(r))
                return -ENOMEM;
        if (r->kind == OBJECT)
                ret = print_children(r, align, 0, false, stream);
        for (item = r->kind == LIST ? r->first : NULL; item && !ret; item = item->next) {
                if (item != r->first)
                        fputc('\n', stream);
                ret = print_children(item, align, 0, false, stream);
        }
        return ret ? ret : ferror(stream) ? -EIO : 0;
}

/* --- JSON --- */

/* Numbers beyond what JSON readers keep exact as integers (and jansson can hold) become text. */
static json_t *json_number(uint64_t number)
{
        char text[32];

        if (number <= INT64_MAX)
                return json_integer((json_int_t)number);
        snprintf(text, sizeof text, "%" PRIu64, number);
        return json_string(text);
}

static json_t *to_json(const struct vd_report *r)
{
        const struct vd_report *child;
        VD_AUTOFREE char *text = NULL;
        json_t *tree;

        switch (r->kind) {
        case TEXT:
                text = vd_utf8_dup(r->text ? r->text : "", r->text ? strlen(r->text) : 0);
                return text ? json_string(text) : NULL;
        case SIGNED:
                return json_integer((json_int_t)r->number);
        case FLAG:
                return json_boolean(r->number);
        case COUNT:
        case BYTES:
        case OFFSET:
                return json_number(r->number);
        case OBJECT:
        case LIST:
        case TABLE:
                break;
        }
        tree = r->kind == OBJECT ? json_object() : json_array();
        for (child = r->first; tree && child; child = child->next) {
                json_t *value = child->key ? to_json(child) : NULL;

                if (!child->key)
                        continue;
                if (!value || (r->kind == OBJECT ? json_object_set_new(tree, child->key, value) :
                                                   json_array_append_new(tree, value))) {
                        json_decref(tree);
                        return NULL;
                }
        }
        return tree;
}

static int dump(json_t *tree, FILE *stream)
{
        int ret = json_dumpf(tree, stream, JSON_INDENT(4) | JSON_ENCODE_ANY);

        json_decref(tree);
        if (ret || fputc('\n', stream) == EOF)
                return -EIO;
        return 0;
}

int vd_report_print_json(const struct vd_report *r, FILE *stream)
{
        json_t *tree = vd_report_failed(r) ? NULL : to_json(r);

        return tree ? dump(tree, stream) : -ENOMEM;
}

int vd_report_print_json_entry(const struct vd_report *entry, uint64_t *count, FILE *stream)
{
        VD_AUTOFREE char *text = NULL;
        json_t *tree;

        if (!entry)
                return fputs(*count ? "]\n" : "[]\n", stream) == EOF ? -EIO : 0;
        tree = vd_report_failed(entry) ? NULL : to_json(entry);
        if (!tree)
                return -ENOMEM;
        text = json_dumps(tree, 0);
        json_decref(tree);
        if (!text)
                return -ENOMEM;
        /* qemu-img has a blank behind the brace. */
        return fprintf(stream, "%s{ %s", (*count)++ ? ",\n" : "[", text + 1) < 0 ? -EIO : 0;
}

int vd_report_print_field(const struct vd_report *r, const char *path, FILE *stream)
{
        json_t *tree = vd_report_failed(r) ? NULL : to_json(r);
        const json_t *value = tree;
        int ret = -ENOENT;

        if (!tree)
                return -ENOMEM;
        while (value && *path) {
                size_t length = strcspn(path, ".");
                VD_AUTOFREE char *step = strndup(path, length);
                char *end;

                if (!step) {
                        ret = -ENOMEM;
                        value = NULL;
                        break;
                }
                if (json_is_array(value)) {
                        unsigned long index = strtoul(step, &end, 10);

                        value = *step && !*end ? json_array_get(value, index) : NULL;
                } else {
                        value = json_object_get(value, step);
                }
                path += length + (path[length] == '.');
        }
        if (value && json_is_string(value)) {
                const char *text = json_string_value(value);
                VD_AUTOFREE char *shown = vd_printable_dup(text, strlen(text));

                ret = !shown ? -ENOMEM : fprintf(stream, "%s\n", shown) < 0 ? -EIO : 0;
        } else if (value) {
                ret = json_dumpf(value, stream, JSON_INDENT(4) | JSON_ENCODE_ANY) || fputc('\n', stream) == EOF ?
                        -EIO : 0;
        }
        json_decref(tree);
        return ret;
}
