// SPDX-License-Identifier: MIT
/* xml.h: small XML descriptors as a tree (libexpat does the parsing).
 *
 * The text comes from files that are not to be trusted: entities may not be declared, nothing external is loaded, and
 * depth and number of elements have bounds.
 */
#ifndef VD_SHARED_XML_H
#define VD_SHARED_XML_H

#include <stddef.h>

#include "util/error.h"

struct vd_xml {
        struct vd_xml *parent, *child, *next;   /* first child, next sibling */
        struct vd_xml *last_child;
        char *name;                     /* as written, prefix included; UTF-8 as all texts */
        char *text;                     /* between this element's tags, without that of its children; trimmed */
        size_t text_length, text_room;
        char **attributes;              /* name, value, name, value, ..., NULL */
};

/* *root is the document's element. */
int vd_xml_parse(struct vd_xml **root, const void *bytes, size_t length, struct vd_error *);
void vd_xml_free(struct vd_xml *);

/* The first element at a path of names below, "Snapshots/TopGUID"; NULL when there is none. */
const struct vd_xml *vd_xml_find(const struct vd_xml *, const char *path);
/* Its text; NULL when there is none. */
const char *vd_xml_text(const struct vd_xml *, const char *path);
/* The next sibling of the same name, or NULL. */
const struct vd_xml *vd_xml_next(const struct vd_xml *);
/* NULL when there is none. */
const char *vd_xml_attribute(const struct vd_xml *, const char *name);

#endif
