// SPDX-License-Identifier: MIT
/* ova_check.c: what is in an archive, for people; and whether archive, descriptor and disks fit together. */
#include "ova.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "util/checked.h"
#include "util/text.h"

static const char *shown(const char *name, char buffer[256])
{
        return vd_printable(buffer, 256, name, strlen(name));
}

static const char *base_name(const char *name)
{
        const char *slash = strrchr(name, '/');

        return slash ? slash + 1 : name;
}

/* ---- info ---- */

static void describe_machine(const struct ova *a, struct vd_report *r)
{
        const struct ovf *o = a->ovf;
        uint64_t n;

        if (o->version)
                vd_report_count(r, "ovf-version", "OVF version", o->version);
        if (o->systems != 1)
                vd_report_count(r, "virtual-systems", "virtual machines", o->systems);
        if (o->name)
                vd_report_text(r, "name", "name", o->name);
        if (o->product)
                vd_report_text(r, "product", "product", o->product);
        if (o->product_version)
                vd_report_text(r, "product-version", "product version", o->product_version);
        if (o->os)
                vd_report_text(r, "operating-system", "operating system", o->os);
        if (o->hardware)
                vd_report_text(r, "hardware", "hardware", o->hardware);
        if ((n = ovf_quantity(o, OVF_CPU)))
                vd_report_count(r, "cpus", "CPUs", n);
        if ((n = ovf_quantity(o, OVF_MEMORY)))
                vd_report_bytes(r, "memory", "memory", n);
        if (a->manifest.count) {
                vd_report_text(r, "manifest-algorithm", "manifest", a->manifest.digests[0].algorithm);
                vd_report_count(r, "manifest-files", "files in manifest", a->manifest.count);
        } else {
                vd_report_text(r, NULL, "manifest", a->manifest.exists ? "empty" : "none");
        }
        vd_report_flag(r, "signed", "signed", a->has_certificate);
}

static void describe_disks(const struct ova *a, struct vd_report *r)
{
        struct vd_report *table = a->disk_count ? vd_report_table(r, "disks", "Disks") : NULL;

        for (size_t i = 0; i < a->disk_count; i++) {
                const struct ova_disk *d = &a->disks[i];
                struct vd_report *item = vd_report_item(table);
                char attached[64] = "";

                if (d->id) {
                        vd_report_text(item, "id", "ID", d->id);
                        ovf_attachment(a->ovf, d->id, attached);
                        vd_report_text(item, "attached-to", "ATTACHED TO", *attached ? attached : "-");
                }
                vd_report_text(item, "format", "FORMAT", d->image ? d->image->format->name : "unreadable");
                vd_report_count(item, "virtual-size", "VIRTUAL SIZE", d->image ? d->image->size : 0);
                if (d->ovf && d->ovf->unit)
                        vd_report_count(item, "capacity", NULL, d->ovf->capacity);
                if (d->ovf && d->ovf->format)
                        vd_report_text(item, "format-uri", NULL, d->ovf->format);
                vd_report_count(item, "file-size", "FILE SIZE", d->file ? vd_file_size(d->file) : 0);
                vd_report_text(item, "file", "FILE", d->name);
        }
}

static void describe_members(const struct ova *a, struct vd_report *r)
{
        static const char *const kinds[] = {
                [VD_TAR_FILE] = "file", [VD_TAR_DIRECTORY] = "directory", [VD_TAR_LINK] = "link",
                [VD_TAR_SPARSE] = "sparse file", [VD_TAR_OTHER] = "special",
        };
        enum { SHOWN_MOST = 1000 };
        struct vd_report *table = vd_report_table(r, "members", "Members of the archive");

        vd_report_count(r, "member-count", NULL, a->tar.count);
        for (size_t i = 0; i < a->tar.count && i < SHOWN_MOST; i++) {
                struct vd_report *item = vd_report_item(table);

                vd_report_text(item, "type", "TYPE", kinds[a->tar.members[i].kind]);
                vd_report_count(item, "offset", "OFFSET", a->tar.members[i].position);
                vd_report_count(item, "size", "SIZE", a->tar.members[i].size);
                vd_report_text(item, "name", "NAME", a->tar.members[i].name);
        }
        if (a->tar.count > SHOWN_MOST)
                vd_report_textf(r, NULL, "", "and %zu more", a->tar.count - SHOWN_MOST);
}

void ova_describe(struct vd_image *img, struct vd_report *r)
{
        const struct ova *a = img->state;

        if (a->ovf)
                describe_machine(a, r);
        describe_disks(a, r);
        describe_members(a, r);
        if (a->disk_count == 1 && a->disks[0].image && a->disks[0].image->format->describe) {
                struct vd_image *disk = a->disks[0].image;

                disk->format->describe(disk, vd_report_section(r, "disk", "The disk"));
        }
}

/* ---- the archive ---- */

static int walk_member(struct vd_check *check, const struct vd_tar_member *m, struct vd_error *err)
{
        char what[300], name[256];
        int r;

        snprintf(what, sizeof(what), "tar header of '%s'", shown(m->name, name));
        r = vd_check_region(check, &(struct vd_region){ VD_CLASS_HEADER, m->header, m->position - m->header,
                                                        VD_NOWHERE, what, false }, err);
        if (r || !m->size)
                return r;
        snprintf(what, sizeof(what), "'%s'", name);
        return vd_check_region(check, &(struct vd_region){ VD_CLASS_DATA, m->position, m->size, VD_NOWHERE, what,
                                                           false }, err);
}

int ova_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct ova *a = img->state;
        int r = vd_check_begin(check, VD_TAR_BLOCK, vd_file_size(img->file), err);

        for (size_t i = 0; i < a->tar.count && !r; i++)
                r = walk_member(check, &a->tar.members[i], err);
        if (!r && a->tar.has_end)
                r = vd_check_region(check, &(struct vd_region){ VD_CLASS_HEADER, a->tar.end,
                                                                vd_file_size(img->file) - a->tar.end, VD_NOWHERE,
                                                                "end of the archive", false }, err);
        if (!r && !a->tar.has_end)
                vd_find(&check->findings, VD_WARNING, "tar-no-end", a->tar.end, 0, VD_NOWHERE, 0, false,
                        "the archive ends without the blocks of zeros that mark its end");
        return r;
}

/* Rules that importers of appliances rely on. */
static void check_members(const struct ova *a, struct vd_findings *findings)
{
        char name[256];
        size_t count;

        for (size_t i = 0; i < a->tar.count; i++) {
                const struct vd_tar_member *m = &a->tar.members[i];
                const char *rule = NULL;

                if (m->kind != VD_TAR_FILE)
                        rule = "is no regular file";
                else if (!*m->name || strpbrk(m->name, "/\\:") || !strcmp(m->name, "..") || !strcmp(m->name, "."))
                        rule = "is no plain file name";
                if (rule)
                        vd_find(findings, VD_WARNING, "ova-member", m->header, VD_TAR_BLOCK, VD_NOWHERE, 0, false,
                                "'%s' %s, as members of an appliance have to be", shown(m->name, name), rule);
        }
        if (a->descriptor)
                vd_find(findings, VD_WARNING, "ova-order", a->tar.members[a->descriptor].header, VD_TAR_BLOCK,
                        VD_NOWHERE, 0, false, "the descriptor is not the first member, as most importers want it");
        for (size_t i = 0; i < a->ovf->file_count && i < OVA_DISKS_MOST; i++) {
                if (!a->ovf->files[i].href || a->ovf->files[i].chunk)
                        continue;
                ova_find_member(a, base_name(a->ovf->files[i].href), &count);
                if (count > 1)
                        vd_find(findings, VD_ERROR, "ova-duplicate", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                                "%zu members have the name '%s', allowed is one", count,
                                shown(a->ovf->files[i].href, name));
        }
}

/* ---- the descriptor ---- */

static void check_capacity(const struct ova_disk *d, struct vd_findings *findings)
{
        char name[256];
        uint64_t most;

        if (!d->ovf || !d->ovf->unit || !d->image || !vd_add(d->ovf->capacity, d->ovf->unit, &most))
                return;
        if (d->image->size >= most)
                vd_find(findings, VD_WARNING, "ova-capacity", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "the descriptor says that '%s' has %" PRIu64 " bytes, the disk itself has %" PRIu64,
                        shown(d->name, name), d->ovf->capacity, d->image->size);
}

static void check_references(const struct ova *a, struct vd_findings *findings)
{
        const struct ovf *o = a->ovf;
        char name[256];

        for (size_t i = 0; i < a->disk_count; i++) {
                const struct ova_disk *d = &a->disks[i];

                if (d->file && d->reference && d->reference->has_size && d->reference->size != vd_file_size(d->file))
                        vd_find(findings, VD_WARNING, "ova-file-size", a->tar.members[d->member].position, 0,
                                VD_NOWHERE, 0, false, "the descriptor says that '%s' is a file of %" PRIu64
                                " bytes, found %" PRIu64, shown(d->name, name), d->reference->size,
                                vd_file_size(d->file));
                check_capacity(d, findings);
        }
        for (size_t i = 0; i < o->item_count; i++) {
                const char *id = o->items[i].resource ? ovf_resource_disk(o->items[i].resource) : NULL;

                if (id && !ovf_find_disk(o, id))
                        vd_find(findings, VD_WARNING, "ova-disk-reference", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                                "a virtual machine has the disk '%s', which the descriptor does not describe",
                                shown(id, name));
        }
        if (!a->manifest.exists)
                vd_find(findings, VD_NOTE, "ova-no-manifest", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "there is no manifest: nothing tells whether the files are complete");
}

/* ---- the disks ---- */

/* What was found in a disk, as found in the archive. */
static void take_findings(const struct ova *a, const struct ova_disk *d, const struct vd_findings *from,
                          struct vd_findings *to)
{
        uint64_t shift = a->tar.members[d->member].position;
        char name[256];

        shown(d->name, name);
        for (size_t i = 0; i < from->count; i++) {
                const struct vd_finding *f = &from->items[i];
                bool placed = f->position != VD_NOWHERE && d->members == 1;

                vd_find(to, f->severity, f->code, placed ? f->position + shift : VD_NOWHERE, placed ? f->length : 0,
                        f->guest, f->guest_length, false, "%s: %s", name, f->text);
        }
        to->total_units += from->total_units;
        to->allocated_units += from->allocated_units;
        to->fragmented_units += from->fragmented_units;
        to->packed_units += from->packed_units;
}

int ova_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct vd_check_options options = { 0 };
        const struct ova *a = img->state;
        char name[256];
        int r = 0;

        if (a->ovf) {
                check_members(a, &check->findings);
                check_references(a, &check->findings);
        }
        for (size_t i = 0; i < a->disk_count && !r; i++) {
                const struct ova_disk *d = &a->disks[i];
                struct vd_check inside = { 0 };

                if (d->fault)
                        vd_find(&check->findings, VD_ERROR, "ova-disk", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                                "'%s' cannot be opened: %s", shown(d->name, name), d->fault);
                if (!d->image || !d->image->format->walk)
                        continue;
                r = vd_check_image(d->image, &options, &inside, err);
                if (!r)
                        take_findings(a, d, &inside.findings, &check->findings);
                vd_check_free(&inside);
        }
        return r;
}
