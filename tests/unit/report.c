// SPDX-License-Identifier: MIT
/* report.c: one description printed as text, JSON and single fields. */
#include "util/report.h"
#include "unit.h"

#include <errno.h>

static struct vd_report *example(void)
{
        struct vd_report *r = vd_report_new(), *section, *list;

        vd_report_text(r, "filename", "image", "a\nb\xff");
        vd_report_bytes(r, "virtual-size", "virtual size", 10485760);
        vd_report_flag(r, "dirty-flag", NULL, false);
        vd_report_text(r, NULL, "cleanly shut down", "no");
        section = vd_report_section(r, "format-specific", "Format specific information");
        vd_report_text(section, "type", NULL, "x");
        section = vd_report_section(section, "data", "");
        vd_report_offset(section, "offset", "offset", 4096);
        vd_report_signed(section, "signed", "signed", -5);
        vd_report_count(section, "huge", "huge", UINT64_MAX);
        list = vd_report_list(section, "parts", "parts");
        section = vd_report_item(list);
        vd_report_text(section, "name", "name", "one");
        vd_report_count(section, "number", "number", 1);
        vd_report_item_text(list, "two");
        list = vd_report_table(r, "findings", "");
        section = vd_report_item(list);
        vd_report_text(section, "code", "CODE", "overlap");
        vd_report_count(section, "at", "AT", 5);
        section = vd_report_item(list);
        vd_report_text(section, "code", "CODE", "leak");
        vd_report_count(section, "at", "AT", 12345);
        vd_report_text(r, NULL, "", "All is well.");
        vd_report_section(r, "empty", "Empty");
        return r;
}

typedef int print_function(const struct vd_report *, FILE *);

static int print_text(const struct vd_report *r, FILE *stream)
{
        return vd_report_print_text(r, false, stream);
}

static int print_aligned(const struct vd_report *r, FILE *stream)
{
        return vd_report_print_text(r, true, stream);
}

static char *printed(const struct vd_report *r, print_function *print)
{
        char *text = NULL;
        size_t length;
        FILE *stream = open_memstream(&text, &length);

        NEED(stream);
        NEED(print(r, stream) == 0);
        fclose(stream);
        return text;
}

static bool prints(const struct vd_report *r, print_function *print, const char *expected)
{
        char *text = printed(r, print);
        bool same = !strcmp(text, expected);

        if (!same)
                printf("# found:\n%s# expected:\n%s", text, expected);
        free(text);
        return same;
}

static bool field_is(const struct vd_report *r, const char *path, const char *expected)
{
        char *text = NULL;
        size_t length;
        FILE *stream = open_memstream(&text, &length);
        bool same;
        int ret;

        NEED(stream);
        ret = vd_report_print_field(r, path, stream);
        fclose(stream);
        same = expected ? !ret && !strcmp(text, expected) : ret == -ENOENT;
        free(text);
        return same;
}

static const char text_form[] =
        "image: a\\x0ab\\xff\n"
        "virtual size: 10 MiB (10485760 bytes)\n"
        "cleanly shut down: no\n"
        "Format specific information:\n"
        "    offset: 0x1000\n"
        "    signed: -5\n"
        "    huge: 18446744073709551615\n"
        "    parts:\n"
        "        - name: one\n"
        "          number: 1\n"
        "        - two\n"
        "CODE        AT\n"
        "overlap      5\n"
        "leak     12345\n"
        "All is well.\n";

static const char json_form[] =
        "{\n"
        "    \"filename\": \"a\\nb\\\\xff\",\n"
        "    \"virtual-size\": 10485760,\n"
        "    \"dirty-flag\": false,\n"
        "    \"format-specific\": {\n"
        "        \"type\": \"x\",\n"
        "        \"data\": {\n"
        "            \"offset\": 4096,\n"
        "            \"signed\": -5,\n"
        "            \"huge\": \"18446744073709551615\",\n"
        "            \"parts\": [\n"
        "                {\n"
        "                    \"name\": \"one\",\n"
        "                    \"number\": 1\n"
        "                },\n"
        "                \"two\"\n"
        "            ]\n"
        "        }\n"
        "    },\n"
        "    \"findings\": [\n"
        "        {\n"
        "            \"code\": \"overlap\",\n"
        "            \"at\": 5\n"
        "        },\n"
        "        {\n"
        "            \"code\": \"leak\",\n"
        "            \"at\": 12345\n"
        "        }\n"
        "    ],\n"
        "    \"empty\": {}\n"
        "}\n";

static void streamed(void)
{
        struct vd_report *r = vd_report_new();
        char *text = NULL;
        size_t length;
        uint64_t count = 0;
        FILE *stream = open_memstream(&text, &length);

        NEED(stream);
        vd_report_count(r, "start", NULL, 0);
        vd_report_flag(r, "zero", NULL, true);
        NEED(!vd_report_print_json_entry(r, &count, stream) && !vd_report_print_json_entry(r, &count, stream) &&
             !vd_report_print_json_entry(NULL, &count, stream));
        count = 0;
        NEED(!vd_report_print_json_entry(NULL, &count, stream));
        fclose(stream);
        OK("a streamed list is an object a line",
           !strcmp(text, "[{ \"start\": 0, \"zero\": true},\n{ \"start\": 0, \"zero\": true}]\n[]\n"));
        free(text);
        vd_report_free(r);
}

int main(void)
{
        struct vd_report *r = example(), *list = vd_report_new_list();
        FILE *full = fopen("/dev/full", "w");
        char *aligned;

        NEED(r && list && full);
        OK("text", prints(r, print_text, text_form));
        OK("JSON, in the order of adding", prints(r, vd_report_print_json, json_form));
        aligned = printed(r, print_aligned);
        OK("aligned text has its values in one column", strstr(aligned, "image:             a\\x0ab") &&
           strstr(aligned, "cleanly shut down: no\n") && strstr(aligned, "    huge:   18446744073709551615\n"));
        free(aligned);
        OK("fields by path", field_is(r, "virtual-size", "10485760\n") && field_is(r, "format-specific.type", "x\n") &&
           field_is(r, "format-specific.data.parts.0.name", "one\n") &&
           field_is(r, "format-specific.data.parts.1", "two\n") && field_is(r, "filename", "a\\x0ab\\xff\n"));
        OK("fields that are not there", field_is(r, "nothing", NULL) &&
           field_is(r, "format-specific.data.parts.2", NULL) &&
           field_is(r, "format-specific.data.parts.x", NULL) && field_is(r, "virtual-size.more", NULL));
        vd_report_count(vd_report_item(list), "n", "n", 1);
        vd_report_count(vd_report_item(list), "n", "n", 2);
        OK("a list of objects as text", prints(list, print_text, "n: 1\n\nn: 2\n"));
        OK("nothing is done with NULL", (vd_report_text(NULL, "a", "b", "c"), vd_report_item(NULL) == NULL) &&
           vd_report_failed(NULL));
        setvbuf(full, NULL, _IONBF, 0);
        OK("a full stream is an error", vd_report_print_json(r, full) == -EIO &&
           vd_report_print_text(r, false, full) == -EIO);
        fclose(full);
        vd_report_free(r);
        vd_report_free(list);
        streamed();
        return unit_done();
}
