// SPDX-License-Identifier: MIT
/* report.h: describe once, print as aligned text or as JSON (jansson).
 *
 * A report is a tree of named values.  Drivers and commands add values; nobody formats JSON or columns by hand.
 * Keys are JSON names ("virtual-size"); labels are what people read ("virtual size").  A NULL label hides the value
 * from text, a NULL key hides it from JSON, an empty label shows the value, or what a section holds, without a
 * heading.  Text values are escaped by the printers: add them as found.
 */
#ifndef VD_UTIL_REPORT_H
#define VD_UTIL_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct vd_report;

/* A new empty object.  Memory failures are remembered inside and returned by vd_report_failed(), so that adding needs
 * no checks.  NULL is accepted everywhere below and does nothing. */
struct vd_report *vd_report_new(void);
/* The same for a list: several objects without a parent; text puts an empty line between them. */
struct vd_report *vd_report_new_list(void);
void vd_report_free(struct vd_report *);
bool vd_report_failed(const struct vd_report *);

void vd_report_text(struct vd_report *, const char *key, const char *label, const char *value);
void vd_report_textf(struct vd_report *, const char *key, const char *label, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
void vd_report_count(struct vd_report *, const char *key, const char *label, uint64_t value);
void vd_report_signed(struct vd_report *, const char *key, const char *label, int64_t value);
void vd_report_flag(struct vd_report *, const char *key, const char *label, bool value);        /* text: true, false */
/* Text "10 MiB (10485760 bytes)", JSON the number. */
void vd_report_bytes(struct vd_report *, const char *key, const char *label, uint64_t value);
/* Text 0x1000, JSON the number. */
void vd_report_offset(struct vd_report *, const char *key, const char *label, uint64_t value);

/* A nested object (text: label on a line of its own, contents indented by four) or list.  Owned by the parent. */
struct vd_report *vd_report_section(struct vd_report *, const char *key, const char *label);
struct vd_report *vd_report_list(struct vd_report *, const char *key, const char *label);
/* An object at the end of a list or table; list text prints its values after "- ". */
struct vd_report *vd_report_item(struct vd_report *list);
/* A list of objects with the same labels; text shows it as columns under those labels, numbers to the right. */
struct vd_report *vd_report_table(struct vd_report *, const char *key, const char *label);
/* A bare string at the end of a list. */
void vd_report_item_text(struct vd_report *list, const char *value);

/* The whole tree.  Text aligns the values of the siblings that follow each other when align is set, else prints
 * "label: value" as qemu-img does.  Both return 0, or -EIO when the stream failed, -ENOMEM. */
int vd_report_print_text(const struct vd_report *, bool align, FILE *);
int vd_report_print_json(const struct vd_report *, FILE *);

/* A JSON list too long to be held: an object per line as qemu-img map has it.  *count starts with 0; a NULL entry ends
 * the list. */
int vd_report_print_json_entry(const struct vd_report *entry, uint64_t *count, FILE *);

/* The value at a dotted path of keys ("format-specific.data.compat", lists by number) as text on a line: strings bare,
 * numbers decimal, objects and lists as JSON.  Returns 0, or -ENOENT when there is no such value. */
int vd_report_print_field(const struct vd_report *, const char *path, FILE *);

#endif
