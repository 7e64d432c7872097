// SPDX-License-Identifier: MIT
/* xml.c: expat's events as a tree. */
#include "xml.h"

#include <ctype.h>
#include <errno.h>
#include <expat.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
        DEPTH_MOST = 64,
        ELEMENTS_MOST = 100000,
};

struct reader {
        XML_Parser parser;
        struct vd_xml *root, *current;
        unsigned depth, elements;
        const char *fault;              /* why we stopped the parser */
        bool no_memory;
};

static void stop(struct reader *r, const char *fault)
{
        if (!r->fault)
                r->fault = fault;
        XML_StopParser(r->parser, XML_FALSE);
}

static void stop_memory(struct reader *r)
{
        r->no_memory = true;
        stop(r, "memory is short");
}

static bool copy_attributes(struct vd_xml *e, const char **attributes)
{
        size_t n = 0;

        while (attributes[n])
                n++;
        e->attributes = calloc(n + 1, sizeof(*e->attributes));
        for (size_t i = 0; e->attributes && i < n; i++)
                if (!(e->attributes[i] = strdup(attributes[i])))
                        return false;
        return e->attributes != NULL;
}

static void XMLCALL on_start(void *context, const char *name, const char **attributes)
{
        struct reader *r = context;
        struct vd_xml *e;

        if (++r->depth > DEPTH_MOST || ++r->elements > ELEMENTS_MOST) {
                stop(r, r->depth > DEPTH_MOST ? "elements are nested too deeply" : "too many elements");
                return;
        }
        e = calloc(1, sizeof(*e));
        if (!e) {
                stop_memory(r);
                return;
        }
        e->parent = r->current;
        if (!r->current)
                r->root = e;
        else if (r->current->last_child)
                r->current->last_child->next = e;
        else
                r->current->child = e;
        if (r->current)
                r->current->last_child = e;
        r->current = e;
        e->name = strdup(name);
        if (!e->name || !copy_attributes(e, attributes))
                stop_memory(r);
}

/* Trims blanks at both ends; an element without text gets an empty one. */
static bool finish_text(struct vd_xml *e)
{
        size_t start = 0, end = e->text_length;

        while (start < end && isspace((unsigned char)e->text[start]))
                start++;
        while (end > start && isspace((unsigned char)e->text[end - 1]))
                end--;
        if (!e->text)
                return (e->text = strdup("")) != NULL;
        memmove(e->text, e->text + start, end - start);
        e->text[end - start] = 0;
        e->text_length = end - start;
        return true;
}

static void XMLCALL on_end(void *context, const char *name)
{
        struct reader *r = context;

        (void)name;
        if (!r->current)
                return;
        if (!finish_text(r->current))
                stop_memory(r);
        r->current = r->current->parent;
        r->depth--;
}

static void XMLCALL on_text(void *context, const char *text, int length)
{
        struct reader *r = context;
        struct vd_xml *e = r->current;
        size_t need;

        if (!e || length <= 0)
                return;
        need = e->text_length + (size_t)length + 1;
        if (need > e->text_room) {
                size_t room = need < 64 ? 64 : 2 * need;
                char *grown = realloc(e->text, room);

                if (!grown) {
                        stop_memory(r);
                        return;
                }
                e->text = grown;
                e->text_room = room;
        }
        memcpy(e->text + e->text_length, text, (size_t)length);
        e->text_length += (size_t)length;
        e->text[e->text_length] = 0;
}

static void XMLCALL on_entity(void *context, const char *name, int is_parameter, const char *value, int length,
                              const char *base, const char *system, const char *public, const char *notation)
{
        (void)name, (void)is_parameter, (void)value, (void)length, (void)base, (void)system, (void)public;
        (void)notation;
        stop(context, "it declares entities");
}

int vd_xml_parse(struct vd_xml **root, const void *bytes, size_t length, struct vd_error *err)
{
        struct reader r = { .parser = XML_ParserCreate(NULL) };
        int rc = 0;

        if (!r.parser)
                return vd_fail(err, -ENOMEM, "XML");
        XML_SetUserData(r.parser, &r);
        XML_SetElementHandler(r.parser, on_start, on_end);
        XML_SetCharacterDataHandler(r.parser, on_text);
        XML_SetEntityDeclHandler(r.parser, on_entity);
        if (length > INT_MAX)
                rc = vd_fail(err, VD_EUNSUPPORTED, "XML of %zu bytes", length);
        else if (XML_Parse(r.parser, bytes, (int)length, XML_TRUE) != XML_STATUS_OK)
                rc = vd_fail(err, r.no_memory ? -ENOMEM : VD_ECORRUPT, "XML, line %lu: %s",
                             (unsigned long)XML_GetCurrentLineNumber(r.parser),
                             r.fault ? r.fault : XML_ErrorString(XML_GetErrorCode(r.parser)));
        XML_ParserFree(r.parser);
        if (rc)
                vd_xml_free(r.root);
        else
                *root = r.root;
        return rc;
}

void vd_xml_free(struct vd_xml *e)
{
        while (e) {
                struct vd_xml *next = e->next;

                vd_xml_free(e->child);          /* as deep as DEPTH_MOST */
                for (size_t i = 0; e->attributes && e->attributes[i]; i++)
                        free(e->attributes[i]);
                free(e->attributes);
                free(e->name);
                free(e->text);
                free(e);
                e = next;
        }
}

const struct vd_xml *vd_xml_find(const struct vd_xml *e, const char *path)
{
        while (e && *path) {
                size_t n = strcspn(path, "/");

                for (e = e->child; e; e = e->next)
                        if (strlen(e->name) == n && !memcmp(e->name, path, n))
                                break;
                path += n + (path[n] == '/');
        }
        return e;
}

const char *vd_xml_text(const struct vd_xml *e, const char *path)
{
        e = vd_xml_find(e, path);
        return e ? e->text : NULL;
}

const struct vd_xml *vd_xml_next(const struct vd_xml *e)
{
        const struct vd_xml *n = e->next;

        while (n && strcmp(n->name, e->name) != 0)
                n = n->next;
        return n;
}

const char *vd_xml_attribute(const struct vd_xml *e, const char *name)
{
        for (size_t i = 0; e->attributes && e->attributes[i] && e->attributes[i + 1]; i += 2)
                if (!strcmp(e->attributes[i], name))
                        return e->attributes[i + 1];
        return NULL;
}
