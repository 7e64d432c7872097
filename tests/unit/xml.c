// SPDX-License-Identifier: MIT
/* xml.c: descriptors as trees, and what is not let in. */
#include "formats/shared/xml.h"
#include "unit.h"

static struct vd_xml *parse(const char *text, struct vd_error *err)
{
        struct vd_xml *root = NULL;

        *err = (struct vd_error)VD_ERROR_INIT;
        return vd_xml_parse(&root, text, strlen(text), err) ? NULL : root;
}

static bool is(const char *text, const char *expected)
{
        return text && !strcmp(text, expected);
}

static void trees(void)
{
        static const char text[] = "<?xml version='1.0'?>\n<disk a='1' b=\"two\"> <size> 10 &amp; 11\n</size>"
                                   "<part>x<in/>y</part><part>second</part><other/><part/> </disk>";
        struct vd_error err;
        struct vd_xml *root = parse(text, &err);
        const struct vd_xml *part;

        NEED(root);
        OK("the document's element is the root", is(root->name, "disk") && !root->parent);
        OK("attributes", is(vd_xml_attribute(root, "a"), "1") && is(vd_xml_attribute(root, "b"), "two"));
        OK("no such attribute", !vd_xml_attribute(root, "c"));
        OK("text is trimmed and unescaped", is(vd_xml_text(root, "size"), "10 & 11"));
        part = vd_xml_find(root, "part");
        OK("text around a child is joined", part && is(part->text, "xy"));
        OK("a path of names", vd_xml_find(root, "part/in") && !vd_xml_find(root, "part/out"));
        OK("the next of that name", (part = vd_xml_next(part)) && is(part->text, "second"));
        OK("others are skipped", (part = vd_xml_next(part)) && is(part->text, ""));
        OK("and then there is none", !vd_xml_next(part));
        OK("no text where there is no element", !vd_xml_text(root, "nothing"));
        vd_xml_free(root);
}

static void refusals(void)
{
        static char deep[4096], wide[2600000];
        struct vd_xml *root;
        size_t n = 0;
        struct vd_error err;

        OK("no text", !parse("", &err) && err.code == VD_ECORRUPT);
        OK("an open element", !parse("<a><b></a>", &err) && err.code == VD_ECORRUPT);
        OK("the line is named", !parse("<a>\n\n</b>", &err) && strstr(err.text, "line 3"));
        OK("an entity", !parse("<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", &err) && strstr(err.text, "entities"));
        OK("an external entity", !parse("<!DOCTYPE a [<!ENTITY e SYSTEM '/etc/passwd'>]><a>&e;</a>", &err));
        for (int i = 0; i < 100; i++)
                n += (size_t)sprintf(deep + n, "<a>");
        OK("a hundred levels", !parse(deep, &err) && strstr(err.text, "deeply"));
        n = (size_t)sprintf(wide, "<a>");
        for (int i = 0; i < 200000; i++)
                n += (size_t)sprintf(wide + n, "<b/>");
        sprintf(wide + n, "</a>");
        OK("two hundred thousand elements", !parse(wide, &err) && strstr(err.text, "many"));
        root = parse("<!DOCTYPE plist SYSTEM 'http://example.org/x.dtd'><a/>", &err);
        OK("a document type alone is let in", root);
        vd_xml_free(root);
}

int main(void)
{
        trees();
        refusals();
        return unit_done();
}
