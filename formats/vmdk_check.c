// SPDX-License-Identifier: MIT
/* vmdk_check.c: who uses which part of which file, and what only this format can know to be wrong.
 *
 * The image's own file goes into the checker's map; every further sparse extent gets a map of its own, and its findings
 * name it.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

/* A sparse extent being walked. */
struct walk {
        const struct vmdk_extent *extent;
        struct vmdk_sparse *sparse;
        struct vd_findings *findings;
        struct vd_spacemap *space;
        char name[256];                         /* "extent 'x': ", or nothing for the image's own file */
        uint64_t expected;                      /* where the next grain would lie without fragmentation */
        uint64_t used_end;
};

static void found(struct walk *w, enum vd_severity severity, const char *code, uint64_t position, uint64_t length,
                  uint64_t guest, bool repairable, const char *text)
{
        vd_find(w->findings, severity, code, position, length, guest, guest == VD_NOWHERE ? 0 : w->sparse->grain,
                repairable, "%s%s", w->name, text);
}

static int region(struct walk *w, enum vd_class class, uint64_t position, uint64_t length, uint64_t guest,
                  const char *what, struct vd_error *err)
{
        char text[384];
        struct vd_region r = { .class = class, .position = position, .length = length, .guest = guest, .what = text };
        uint64_t end;

        snprintf(text, sizeof(text), "%s%s", w->name, what);
        if (!length)
                return 0;
        if (vd_add(position, length, &end))
                w->used_end = vd_max(w->used_end, end);
        return vd_spacemap_add(w->space, &r, w->findings) < 0 ? vd_fail(err, -ENOMEM, "map of the space in use") : 0;
}

static bool is_fatal(int code)
{
        return code != VD_ECORRUPT && code != VD_EUNSUPPORTED;
}

/* Both trees must say the same: readers differ in which one they follow. */
static int compare_tables(struct walk *w, uint64_t index, uint64_t position, struct vd_error *err)
{
        struct vmdk_sparse *s = w->sparse;
        uint64_t bytes = s->map.entries * s->map.entry_bytes, copy;
        uint8_t ours[VMDK_TABLE_BYTES], theirs[VMDK_TABLE_BYTES];
        struct vd_error why = VD_ERROR_INIT;
        char text[160];
        int r = vd_twolevel_find(&s->copy, index * s->map.entries * s->grain, &copy, &why);

        if (!r && copy && copy != position)
                r = vd_file_read(s->file, theirs, bytes, copy, &why);
        if (!r)
                r = vd_file_read(s->file, ours, bytes, position, &why);
        if (r && is_fatal(r)) {
                *err = why;
                return r;
        }
        if (r) {
                found(w, VD_ERROR, "vmdk-redundant-directory", s->redundant + index * 4, 4, VD_NOWHERE, true, why.text);
        } else if (!copy || copy == position) {
                snprintf(text, sizeof(text), "redundant grain directory entry %" PRIu64 " %s", index,
                         copy ? "names the same table as the directory" : "is empty, that of the directory is not");
                found(w, VD_ERROR, "vmdk-redundant-directory", s->redundant + index * 4, 4, VD_NOWHERE, true, text);
        } else if (memcmp(ours, theirs, bytes)) {
                snprintf(text, sizeof(text), "grain table %" PRIu64 " at %" PRIu64 " and its redundant copy at %" PRIu64
                         " differ", index, position, copy);
                found(w, VD_ERROR, VMDK_COPY_FINDING, copy, bytes, VD_NOWHERE, true, text);
        }
        return 0;
}

static int visit_table(void *context, uint64_t index, const void *entry, uint64_t *position, struct vd_error *err)
{
        struct walk *w = context;
        struct vmdk_sparse *s = w->sparse;
        uint64_t bytes = s->map.entries * s->map.entry_bytes;
        struct vd_error why = VD_ERROR_INIT;
        char text[64];
        int r = s->map.ops->table(&s->map, index, entry, position, &why);

        if (r) {
                found(w, VD_ERROR, "vmdk-directory-entry", s->directory + index * s->map.top_entry_bytes,
                      s->map.top_entry_bytes, VD_NOWHERE, false, why.text);
                return 0;
        }
        snprintf(text, sizeof(text), "grain table %" PRIu64, index);
        r = region(w, VD_CLASS_SUBTABLE, *position, bytes, VD_NOWHERE, text, err);
        if (r || !vd_range_fits(*position, bytes, vd_file_size(s->file)))
                return r;               /* the map of the space has said so */
        if (s->redundant)
                r = compare_tables(w, index, *position, err);
        return r ? r : 1;
}

static int visit_copy(void *context, uint64_t index, const void *entry, uint64_t *position, struct vd_error *err)
{
        struct walk *w = context;
        struct vmdk_sparse *s = w->sparse;
        uint64_t bytes = s->copy.entries * s->copy.entry_bytes, first;
        struct vd_error why = VD_ERROR_INIT;
        char text[128];
        int r = s->copy.ops->table(&s->copy, index, entry, position, &why);

        if (r)
                return 0;               /* compare_tables() has said so */
        r = vd_twolevel_find(&s->map, index * s->map.entries * s->grain, &first, &why);
        if (!r && !first) {
                snprintf(text, sizeof(text), "grain directory entry %" PRIu64 " is empty, that of the redundant one "
                         "is not", index);
                found(w, VD_ERROR, "vmdk-redundant-directory", s->redundant + index * 4, 4, VD_NOWHERE, true, text);
        }
        if (!r && first == *position)
                return 0;
        snprintf(text, sizeof(text), "redundant grain table %" PRIu64, index);
        return region(w, VD_CLASS_SUBTABLE, *position, bytes, VD_NOWHERE, text, err);
}

static int visit_entry(void *context, uint64_t guest, uint64_t entry_position, const void *entry, struct vd_error *err)
{
        struct walk *w = context;
        struct vmdk_sparse *s = w->sparse;
        struct vd_extent ext = { .start = guest, .length = s->grain };
        struct vd_error why = VD_ERROR_INIT;
        uint64_t disk = w->extent->start + guest, position, length;
        char text[128];
        int r;

        if (guest >= s->capacity) {
                snprintf(text, sizeof(text), "grain table entry at %" PRIu64 " serves guest offset %" PRIu64
                         ", past the end", entry_position, disk);
                found(w, VD_WARNING, "vmdk-entry-past-end", entry_position, s->map.entry_bytes, VD_NOWHERE, true, text);
                return 0;
        }
        r = s->map.ops->entry(&s->map, entry_position, entry, &ext, &why);
        if (r && is_fatal(r)) {
                *err = why;
                return r;
        }
        if (r) {
                found(w, VD_ERROR, "vmdk-table-entry", entry_position, s->map.entry_bytes, disk, false, why.text);
                return 0;
        }
        if (ext.kind != VD_DATA && ext.kind != VD_PACKED)
                return 0;
        position = ext.position;
        length = vd_min(s->grain, s->capacity - guest);
        if (ext.kind == VD_PACKED) {
                position = vd_round_down(ext.position, VMDK_SECTOR);
                length = vd_round_up(ext.position + ext.packed_bytes, VMDK_SECTOR) - position;
                length = vd_min(length, vd_file_size(s->file) - position);      /* padding may be cut off */
                w->findings->packed_units++;
        }
        w->findings->allocated_units++;
        w->findings->fragmented_units += w->expected && position != w->expected;
        w->expected = position + length;
        snprintf(text, sizeof(text), "grain of guest offset %" PRIu64, disk);
        return region(w, ext.kind == VD_PACKED ? VD_CLASS_PACKED : VD_CLASS_DATA, position, length, disk, text, err);
}

/* Space between grains that nobody uses.  In compressed extents markers lie there. */
static void find_leaks(struct walk *w)
{
        const struct vmdk_sparse *s = w->sparse;
        uint64_t index = 0, length, count;
        enum vd_class class;
        char text[128];

        if (s->layout == VMDK_SE || s->flags & VMDK_FLAG_PACKED)
                return;
        while (vd_spacemap_next(w->space, &index, &length, &count, &class)) {
                uint64_t start = vd_max(index * VMDK_SECTOR, vd_round_up(s->overhead, s->grain));
                uint64_t end = vd_min((index + length) * VMDK_SECTOR, vd_file_size(s->file));

                index += length;
                if (count || start >= end || end - start < s->grain)
                        continue;
                snprintf(text, sizeof(text), "%" PRIu64 " bytes at %" PRIu64 " are no grain of the disk", end - start,
                         start);
                found(w, VD_LEAK, "vmdk-leak", start, end - start, VD_NOWHERE, true, text);
        }
}

static int walk_headers(struct walk *w, struct vd_error *err)
{
        struct vmdk_sparse *s = w->sparse;
        uint64_t directory = s->map.top_entries * s->map.top_entry_bytes;
        uint64_t header = s->layout == VMDK_COWD ? sizeof(struct vmdk_cowd_disk) : VMDK_SECTOR;
        int r = region(w, VD_CLASS_HEADER, 0, header, VD_NOWHERE, "header", err);

        if (!r && s->descriptor)
                r = region(w, VD_CLASS_HEADER, s->descriptor, s->descriptor_room, VD_NOWHERE, "descriptor", err);
        if (!r)
                r = region(w, VD_CLASS_TABLE, s->directory, directory, VD_NOWHERE, "grain directory", err);
        if (!r && s->redundant)
                r = region(w, VD_CLASS_TABLE, s->redundant, directory, VD_NOWHERE, "redundant grain directory", err);
        if (!r && s->footer)
                r = region(w, VD_CLASS_HEADER, s->footer, VMDK_SECTOR, VD_NOWHERE, "footer", err);
        return r;
}

static void check_header(struct walk *w)
{
        const struct vmdk_sparse *s = w->sparse;

        if (s->unclean)
                found(w, VD_WARNING, "vmdk-unclean", 72, 1, VD_NOWHERE, true, "the extent was not closed by its last "
                      "writer");
        if (s->layout == VMDK_COWD && s->free_sector * VMDK_SECTOR > vd_round_up(vd_file_size(s->file), VMDK_SECTOR))
                found(w, VD_WARNING, "vmdk-free-sector", 28, 4, VD_NOWHERE, true,
                      "the next free sector lies past the end of the file");
        if (s->layout == VMDK_COWD && s->free_sector * VMDK_SECTOR < w->used_end)
                found(w, VD_ERROR, "vmdk-free-sector", 28, 4, VD_NOWHERE, true,
                      "the next free sector is in use: the next write would destroy data");
        if (s->layout == VMDK_HOSTED && !(s->flags & VMDK_FLAG_LINE_ENDS))
                found(w, VD_NOTE, "vmdk-line-ends", 8, 4, VD_NOWHERE, false,
                      "the header does not say whether its line ends are valid");
        if (s->layout == VMDK_HOSTED && s->version == 3 && !(s->flags & VMDK_FLAG_PACKED))
                found(w, VD_NOTE, "vmdk-version-3", 4, 4, VD_NOWHERE, false,
                      "header version 3 in an extent that is not compressed");
}

static int walk_sparse(struct walk *w, struct vd_error *err)
{
        struct vmdk_sparse *s = w->sparse;
        const struct vd_twolevel_visit visit = { .context = w, .on_table = visit_table, .on_entry = visit_entry };
        const struct vd_twolevel_visit copies = { .context = w, .on_table = visit_copy };
        int r = walk_headers(w, err);

        w->findings->total_units += vd_div_up(s->capacity, s->grain);
        if (!r)
                r = vd_twolevel_walk(&s->map, &visit, err);
        if (!r && s->redundant) {
                struct vd_error why = VD_ERROR_INIT;

                if (vd_twolevel_check(&s->copy, s->capacity, &why))
                        found(w, VD_ERROR, "vmdk-redundant-directory", s->redundant, 0, VD_NOWHERE, true, why.text);
                else
                        r = vd_twolevel_walk(&s->copy, &copies, err);
        }
        if (r)
                return r;
        check_header(w);
        find_leaks(w);
        return 0;
}

static int walk_extent(struct vd_image *img, struct vd_check *check, const struct vmdk_extent *e, uint64_t *used_end,
                       struct vd_error *err)
{
        struct walk w = { .extent = e, .sparse = e->sparse, .findings = &check->findings, .space = check->space };
        char shown[200];
        int r = vmdk_sparse_warm(img->state, e->sparse, err);

        if (r)
                return r;
        if (e->file != img->file) {
                snprintf(w.name, sizeof(w.name), "extent '%s': ",
                         vd_printable(shown, sizeof(shown), e->name ? e->name : "", e->name ? strlen(e->name) : 0));
                w.space = vd_spacemap_new(VMDK_SECTOR, vd_file_size(e->file));
                if (!w.space)
                        return vd_fail(err, -ENOMEM, "map of the space in use");
        }
        r = walk_sparse(&w, err);
        if (e->file != img->file)
                vd_spacemap_free(w.space);
        *used_end = w.used_end;
        return r;
}

int vmdk_used_end(struct vd_image *img, const struct vmdk_extent *e, uint64_t *end, struct vd_error *err)
{
        struct vd_check check = { 0 };
        int r = vd_check_begin(&check, VMDK_SECTOR, vd_file_size(e->file), err);

        if (!r)
                r = walk_extent(img, &check, e, end, err);
        vd_check_free(&check);
        return r;
}

int vmdk_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct vmdk *v = img->state;
        uint64_t end;
        int r = vd_check_begin(check, VMDK_SECTOR, vd_file_size(img->file), err);

        if (!r && v->has_descriptor && !v->embedded) {
                struct vd_region text = { .class = VD_CLASS_HEADER, .position = v->descriptor_position,
                                          .length = v->descriptor.bytes, .guest = VD_NOWHERE, .what = "descriptor" };

                r = vd_check_region(check, &text, err);
        }
        for (size_t i = 0; i < v->extent_count && !r; i++) {
                if (!v->extents[i].sparse)
                        continue;
                r = walk_extent(img, check, &v->extents[i], &end, err);
                if (v->extents[i].file == img->file)
                        check->findings.end_offset = end;
        }
        return r;
}

/* ---- the descriptor ---- */

static void check_names(const struct vd_image *img, const struct vmdk *v, struct vd_findings *f)
{
        for (size_t i = 0; i < v->extent_count; i++) {
                const struct vmdk_extent *e = &v->extents[i];
                VD_AUTOFREE char *shown = e->name ? vd_printable_dup(e->name, strlen(e->name)) : NULL;

                if (e->type != VMDK_ZERO && !e->file)
                        vd_find(f, VD_WARNING, "vmdk-extent-not-checked", VD_NOWHERE, 0, e->start, e->length, false,
                                "extent '%s' was not looked into", shown ? shown : "");
                for (size_t j = 0; j < i && e->sparse; j++)
                        if (v->extents[j].sparse && v->extents[j].name && e->name &&
                            !strcmp(v->extents[j].name, e->name))
                                vd_find(f, VD_ERROR, "vmdk-extent-twice", VD_NOWHERE, 0, e->start, e->length, false,
                                        "sparse extent '%s' is listed twice", shown ? shown : "");
                if (e->sparse && e->sparse->capacity > e->length)
                        vd_find(f, VD_WARNING, "vmdk-extent-size", VD_NOWHERE, 0, e->start, e->length, false,
                                "extent '%s' has %" PRIu64 " bytes, the descriptor uses %" PRIu64,
                                shown ? shown : img->path, e->sparse->capacity, e->length);
        }
}

static void check_create_type(const struct vmdk *v, struct vd_findings *f)
{
        static const struct { const char *name; enum vmdk_type type; } expected[] = {
                { "monolithicSparse", VMDK_SPARSE }, { "monolithicFlat", VMDK_FLAT },
                { "twoGbMaxExtentSparse", VMDK_SPARSE }, { "twoGbMaxExtentFlat", VMDK_FLAT },
                { "streamOptimized", VMDK_SPARSE }, { "vmfs", VMDK_VMFS }, { "vmfsSparse", VMDK_VMFS_SPARSE },
                { "seSparse", VMDK_SE_SPARSE },
        };
        const char *type = vmdk_descriptor_value(&v->descriptor, "createType");
        bool packed = v->extents[0].sparse && v->extents[0].sparse->flags & VMDK_FLAG_PACKED;

        if (!type) {
                vd_find(f, VD_WARNING, "vmdk-create-type", v->descriptor_position, v->descriptor.bytes, VD_NOWHERE, 0,
                        false, "the descriptor has no createType");
                return;
        }
        for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
                if (!strcasecmp(type, expected[i].name) &&
                    (v->extents[0].type != expected[i].type ||
                     (v->extents[0].sparse && packed != !strcasecmp(type, "streamOptimized"))))
                        vd_find(f, VD_WARNING, "vmdk-create-type", v->descriptor_position, v->descriptor.bytes,
                                VD_NOWHERE, 0, false, "createType is %s, but the first extent is %s%s",
                                expected[i].name, packed ? "compressed " : "", vmdk_type_name(v->extents[0].type));
}

static void check_descriptor(const struct vmdk *v, struct vd_findings *f)
{
        const struct vmdk_descriptor *d = &v->descriptor;
        uint64_t at = v->descriptor_position;

        if (!vmdk_descriptor_key(d, "CID"))
                vd_find(f, VD_WARNING, "vmdk-cid", at, d->bytes, VD_NOWHERE, 0, false,
                        "the descriptor has no content id: children cannot know their parent");
        for (size_t i = 0; i < d->key_count; i++)
                for (size_t j = 0; j < i && i < 200; j++)
                        if (!strcasecmp(d->keys[i].name, d->keys[j].name)) {
                                VD_AUTOFREE char *shown = vd_printable_dup(d->keys[i].name, strlen(d->keys[i].name));

                                vd_find(f, VD_WARNING, "vmdk-key-twice", at + d->keys[i].value_at,
                                        d->keys[i].value_bytes, VD_NOWHERE, 0, false, "the descriptor says %s twice",
                                        shown ? shown : "");
                        }
        if (v->embedded && d->line_count == 1 && d->lines[0].sectors * VMDK_SECTOR != v->extents[0].length)
                vd_find(f, VD_ERROR, "vmdk-extent-size", at, d->bytes, VD_NOWHERE, 0, false, "the descriptor says "
                        "%" PRIu64 " sectors, the sparse header %" PRIu64, d->lines[0].sectors,
                        v->extents[0].length / VMDK_SECTOR);
        check_create_type(v, f);
}

int vmdk_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct vmdk *v = img->state;

        (void)err;
        if (v->has_descriptor)
                check_descriptor(v, &check->findings);
        else
                vd_find(&check->findings, VD_NOTE, "vmdk-no-descriptor", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "this is one extent of a disk, without its descriptor");
        if (v->refused)
                vd_find(&check->findings, VD_NOTE, "vmdk-not-readable", VD_NOWHERE, 0, VD_NOWHERE, 0, false, "%s",
                        v->refused);
        else
                check_names(img, v, &check->findings);
        return 0;
}
