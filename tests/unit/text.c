// SPDX-License-Identifier: MIT
/* text.c: untrusted text made printable. */
#include "util/text.h"
#include "unit.h"

static bool becomes(const char *text, const char *expected)
{
        char buffer[200];

        return !strcmp(vd_printable(buffer, sizeof buffer, text, strlen(text)), expected);
}

static bool cut(const char *text, size_t room, const char *expected)
{
        char buffer[64];

        memset(buffer, 'X', sizeof buffer);
        vd_printable(buffer, room, text, strlen(text));
        return !strcmp(buffer, expected) && buffer[room] == 'X';
}

int main(void)
{
        char *copy;

        OK("plain text stays", becomes("C:\\disk one.vhd", "C:\\disk one.vhd"));
        OK("UTF-8 stays", becomes("\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe"));
        OK("control characters", becomes("a\033[31m\n\x7f", "a\\x1b[31m\\x0a\\x7f"));
        OK("control characters of the upper half", becomes("\xc2\x9b", "\\xc2\\x9b"));
        OK("direction marks", becomes("\xe2\x80\xae", "\\xe2\\x80\\xae"));
        OK("not UTF-8: stray, overlong, surrogate, too large, cut",
           becomes("\x80\xff", "\\x80\\xff") && becomes("\xc0\xaf", "\\xc0\\xaf") &&
           becomes("\xe0\x80\xaf", "\\xe0\\x80\\xaf") &&
           becomes("\xed\xa0\x80", "\\xed\\xa0\\x80") && becomes("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80") &&
           becomes("\xe2\x82", "\\xe2\\x82"));
        OK("what fits exactly is not cut", cut("1234567", 8, "1234567"));
        OK("what does not fit ends in dots", cut("12345678", 8, "1234..."));
        OK("no character and no escape is cut in two", cut("12\xe2\x82\xac""3456789", 8, "12...") &&
           cut("12\n3456789", 8, "12..."));
        OK("hardly any room", cut("123", 1, "") && cut("123", 2, "1"));
        copy = vd_printable_dup("a\0b", 3);
        OK("text ends at the first NUL", copy && !strcmp(copy, "a"));
        free(copy);
        copy = vd_utf8_dup("a\n\xff", 3);
        OK("for JSON only what is not UTF-8 is escaped", copy && !strcmp(copy, "a\n\\xff"));
        free(copy);
        copy = vd_asprintf("%d and %s", 1, "two");
        OK("printf into memory", copy && !strcmp(copy, "1 and two"));
        free(copy);
        return unit_done();
}
