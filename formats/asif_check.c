// SPDX-License-Identifier: MIT
/* asif_check.c: what an ASIF says about itself, and whether its tables are sound.
 *
 * The metadata is a property list in a chunk of its own, which is addressed like a part of the disk behind its end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "asif.h"
#include "formats/shared/guid.h"
#include "formats/shared/xml.h"
#include "util/checked.h"
#include "util/cleanup.h"

/* ---- metadata ---- */

/* The metadata chunk's extent.  *found false: the image has none. */
static int find_metadata(struct vd_image *img, struct vd_extent *ext, bool *found, struct vd_error *err)
{
        const struct asif *a = img->state;
        uint64_t offset;
        int r;

        *found = false;
        if (!vd_mul(be64_get(a->header.metadata_chunk), a->chunk, &offset) || offset < img->size ||
            offset >= a->most_bytes)
                return 0;
        r = asif_map_within(img, offset, offset + vd_min(a->chunk, a->most_bytes - offset), ext, err);
        *found = !r && ext->kind == VD_DATA;
        return r;
}

/* *list stays NULL when there is no metadata. */
static int read_metadata(struct vd_image *img, struct vd_xml **list, struct vd_error *err)
{
        enum { HEADER_BYTES = 512 };
        VD_AUTOFREE char *bytes = NULL;
        struct vd_extent ext;
        const char *end;
        bool found;
        int r = find_metadata(img, &ext, &found, err);

        *list = NULL;
        if (r || !found)
                return r;
        bytes = malloc(ext.length + 1);
        if (!bytes)
                return vd_fail(err, -ENOMEM, "metadata");
        r = vd_file_read(ext.file, bytes, ext.length, ext.position, err);
        if (r)
                return r;
        bytes[ext.length] = 0;
        if (ext.length < HEADER_BYTES || memcmp(bytes, "meta", 4) != 0)
                return vd_fail(err, VD_ECORRUPT, "metadata at %" PRIu64 ": no 'meta' magic", ext.position);
        end = strstr(bytes + HEADER_BYTES, "</plist>");
        r = vd_xml_parse(list, bytes + HEADER_BYTES,
                         end ? (size_t)(end - bytes) + strlen("</plist>") - HEADER_BYTES
                         : strlen(bytes + HEADER_BYTES), err);
        return r ? vd_error_prefix(err, "metadata at %" PRIu64, ext.position + HEADER_BYTES) : 0;
}

/* Every <key> with a text value below it. */
static void describe_dict(const struct vd_xml *dict, struct vd_report *report)
{
        for (const struct vd_xml *e = dict->child; e && e->next; e = e->next) {
                if (strcmp(e->name, "key") != 0)
                        continue;
                if (!strcmp(e->next->name, "dict"))
                        describe_dict(e->next, report);
                else if (e->next->text[0])
                        vd_report_text(report, e->text, e->text, e->next->text);
        }
}

void asif_describe(struct vd_image *img, struct vd_report *report)
{
        const struct asif *a = img->state;
        struct vd_error ignored = VD_ERROR_INIT;        /* check tells */
        char id[VD_GUID_TEXT];
        struct vd_xml *list;

        vd_report_count(report, "version", "version", be32_get(a->header.version));
        vd_report_text(report, "uuid", "UUID", vd_guid_text(a->header.uuid, VD_GUID_RFC, id));
        vd_report_bytes(report, "chunk-size", "chunk size", a->chunk);
        vd_report_count(report, "block-size", "block size", a->block);
        vd_report_bytes(report, "max-size", "may grow to", a->most_bytes);
        vd_report_text(report, "active-directory", "active directory", a->active ? "B" : "A");
        vd_report_count(report, "sequence", "sequence number", a->sequence[a->active]);
        if (read_metadata(img, &list, &ignored) || !list)
                return;
        if (list->child)
                describe_dict(list->child, vd_report_section(report, "metadata", "metadata"));
        vd_xml_free(list);
}

/* ---- walk ---- */

struct walker {
        struct vd_image *image;
        struct vd_check *check;
        uint64_t table;                 /* which, and where */
        uint64_t position;
};

static int add_region(struct walker *w, enum vd_class class, uint64_t position, uint64_t length, uint64_t guest,
                      const char *what, uint64_t number, struct vd_error *err)
{
        char name[64];
        struct vd_region region = { .class = class, .position = position, .length = length, .guest = guest,
                                   .what = name };

        snprintf(name, sizeof(name), "%s %" PRIu64, what, number);
        return vd_check_region(w->check, &region, err);
}

/* Faults of the image become findings; anything else ends the check. */
static int note(struct walker *w, const char *code, uint64_t position, uint64_t guest, uint64_t length,
                const struct vd_error *why, struct vd_error *err)
{
        if (why->code != VD_ECORRUPT && why->code != VD_EUNSUPPORTED) {
                *err = *why;
                return why->code;
        }
        vd_find(&w->check->findings, VD_ERROR, code, position, sizeof(be64), guest, length, false, "%s", why->text);
        return 0;
}

static int walk_entry(struct walker *w, uint64_t chunk, bool *partial, struct vd_error *err)
{
        const struct asif *a = w->image->state;
        uint64_t at = asif_entry_position(a, w->position, chunk), guest = w->table * a->table_covers + chunk * a->chunk;
        uint64_t inside = guest < w->image->size ? vd_min(a->chunk, w->image->size - guest) : 0;
        struct vd_error why = VD_ERROR_INIT;
        struct asif_entry entry;
        void *raw;
        int r = vd_cache_get(a->tables, at, &raw, err);

        if (r)
                return r;
        if (asif_decode(w->image, be64_get(*(const be64 *)raw), guest, &entry, &why))
                return note(w, "asif-entry", at, inside ? guest : VD_NOWHERE, inside, &why, err);
        if (entry.state == ASIF_EMPTY)
                return 0;
        w->check->findings.allocated_units += inside > 0;
        *partial = *partial || entry.state == ASIF_PARTIAL;
        return add_region(w, VD_CLASS_DATA, entry.position,
                          vd_min(a->chunk, vd_file_size(w->image->file) - entry.position), inside ? guest : VD_NOWHERE,
                          "data chunk", w->table * a->groups * a->group + chunk, err);
}

/* The entry of a group's bitmap, and of bitmaps that are needed the states. */
static int walk_bitmap(struct walker *w, uint64_t group, bool needed, struct vd_error *err)
{
        const struct asif *a = w->image->state;
        uint64_t at = w->position + sizeof(be64) * (group * (a->group + 1) + a->group), position;
        uint64_t guest = w->table * a->table_covers + group * a->group * a->chunk;
        struct vd_error why = VD_ERROR_INIT;
        int r = asif_find_bitmap(w->image, w->position, group, &position, &why);

        if (r)
                return note(w, "asif-bitmap", at, VD_NOWHERE, 0, &why, err);
        if (!position && needed)
                vd_find(&w->check->findings, VD_ERROR, "asif-bitmap-missing", at, sizeof(be64), guest,
                        a->group * a->chunk,
                        false, "chunks of group %" PRIu64 " of table %" PRIu64 " are there in part, but there is no "
                        "bitmap", group, w->table);
        if (!position)
                return 0;
        for (uint64_t i = 0; needed && i < a->chunk; i += ASIF_PAGE) {
                void *page;

                r = vd_cache_get(a->tables, position + i, &page, err);
                if (r)
                        return r;
                for (size_t j = 0; j < ASIF_PAGE; j++) {
                        if (!(((const uint8_t *)page)[j] & 0xaa))
                                continue;
                        vd_find(&w->check->findings, VD_ERROR, "asif-bitmap-state", position + i + j, 1,
                                guest + (i + j) * 4 * a->block, 4 * a->block, false,
                                "the bitmap has a state other than 0 and 1");
                        break;          /* one per page will do */
                }
        }
        return add_region(w, VD_CLASS_SUBTABLE, position, a->chunk, VD_NOWHERE, "bitmap of group", group, err);
}

static int walk_table(struct walker *w, struct vd_error *err)
{
        const struct asif *a = w->image->state;
        int r = add_region(w, VD_CLASS_TABLE, w->position, a->chunk, VD_NOWHERE, "table", w->table, err);

        /* A table that two ranges share is reported already; walking it for each would never end. */
        if (!r && vd_spacemap_count(w->check->space, w->position / a->chunk) > 1)
                return 0;
        for (uint64_t group = 0; group < a->groups && !r; group++) {
                bool partial = false;

                for (uint64_t i = 0; i < a->group && !r; i++)
                        r = walk_entry(w, group * a->group + i, &partial, err);
                if (!r)
                        r = walk_bitmap(w, group, partial, err);
        }
        return r;
}

int asif_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct asif *a = img->state;
        struct walker w = { .image = img, .check = check };
        uint64_t bytes = sizeof(be64) * (1 + a->table_count), first = vd_min(a->directories[0], a->directories[1]);
        struct vd_region header = { .class = VD_CLASS_HEADER, .guest = VD_NOWHERE, .what = "header and directories",
                                    .length = vd_max(a->directories[0], a->directories[1]) + bytes };
        int r = vd_check_begin(check, a->chunk, vd_file_size(img->file), err);

        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r && first + bytes > vd_max(a->directories[0], a->directories[1]))
                vd_find(&check->findings, VD_ERROR, "asif-directories", first, bytes, VD_NOWHERE, 0, false,
                        "the directories at %" PRIu64 " and %" PRIu64 " overlap", a->directories[0], a->directories[1]);
        check->findings.total_units = vd_div_up(img->size, a->chunk);
        for (w.table = 0; w.table < a->table_count && !r; w.table++) {
                struct vd_error why = VD_ERROR_INIT;

                if (asif_find_table(img, w.table, &w.position, &why))
                        r = note(&w, "asif-table", a->directories[a->active] + sizeof(be64) * (1 + w.table),
                                 w.table * a->table_covers, a->table_covers, &why, err);
                else if (w.position)
                        r = walk_table(&w, err);
        }
        return r;
}

int asif_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vd_error why = VD_ERROR_INIT;
        struct vd_xml *list;
        int r = read_metadata(img, &list, &why);

        if (r == -ENOMEM || r == -EIO) {
                *err = why;
                return r;
        }
        if (r)
                vd_find(&check->findings, VD_WARNING, "asif-metadata", VD_NOWHERE, 0, VD_NOWHERE, 0, false, "%s",
                        why.text);
        else
                vd_xml_free(list);
        return 0;
}
