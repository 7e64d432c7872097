// SPDX-License-Identifier: MIT
/* vmdk_info.c: what a person or a script may want to know about a VMDK. */
#include "vmdk.h"

#include <inttypes.h>
#include <string.h>

struct known_key { const char *name, *key, *label; };

static const struct known_key known_keys[] = {
        { "encoding", "encoding", "encoding" },
        { "ddb.encoding", "ddb-encoding", "encoding of the disk data base" },
        { "isNativeSnapshot", "native-snapshot", "native snapshot" },
        { "changeTrackPath", "change-track-path", "changed blocks are tracked in" },
        { "ddb.adapterType", "adapter-type", "adapter type" },
        { "ddb.virtualHWVersion", "hw-version", "virtual hardware version" },
        { "ddb.toolsVersion", "tools-version", "tools version" },
        { "ddb.thinProvisioned", "thin-provisioned", "thin provisioned" },
        { "ddb.uuid", "uuid", "UUID" },
        { "ddb.longContentID", "long-content-id", "long content id" },
        { "ddb.uuid.image", "vbox-uuid", "VirtualBox UUID" },
        { "ddb.uuid.modification", "vbox-modification-uuid", "VirtualBox modification UUID" },
        { "ddb.uuid.parent", "vbox-parent-uuid", "VirtualBox parent UUID" },
        { "ddb.comment", "comment", "comment" },
};

static const char *layout_name(const struct vmdk_sparse *s)
{
        return s->layout == VMDK_HOSTED ? "KDMV" : s->layout == VMDK_COWD ? "COWD" : "seSparse";
}

static void describe_sparse(struct vd_report *r, const struct vmdk_sparse *s)
{
        vd_report_text(r, "layout", "layout", layout_name(s));
        vd_report_bytes(r, "cluster-size", "grain", s->grain);
        vd_report_count(r, "grain-table-entries", "grain table entries", s->map.entries);
        if (s->layout != VMDK_HOSTED)
                return;
        vd_report_count(r, "header-version", "header version", s->version);
        vd_report_textf(r, "flags", "flags", "0x%" PRIx32, s->flags);
        if (s->flags & VMDK_FLAG_PACKED)
                vd_report_flag(r, "compressed", "compressed", true);
        vd_report_text(r, "grain-directory", "grain directory", s->footer ? "at the end" : "in front");
        vd_report_flag(r, "redundant-tables", "redundant tables", s->redundant != 0);
        vd_report_flag(r, "zeroed-grains", "zeroed grains", (s->flags & VMDK_FLAG_ZERO_GRAINS) != 0);
        vd_report_flag(r, "unclean-shutdown", "unclean shutdown", s->unclean);
}

/* Where the file is, as QEMU says it. */
static void describe_file(struct vd_report *r, const struct vd_image *img, const char *name)
{
        const char *slash = strrchr(img->path, '/');

        if (!name)
                vd_report_text(r, "filename", "file", img->path);
        else if (!slash || *name == '/')
                vd_report_text(r, "filename", "file", name);
        else
                vd_report_textf(r, "filename", "file", "%.*s/%s", (int)(slash - img->path), img->path, name);
}

static void describe_extent(struct vd_report *r, const struct vd_image *img, const struct vmdk_extent *e)
{
        if (e->name || e->type != VMDK_ZERO)
                describe_file(r, img, e->name);
        vd_report_text(r, "format", "type", vmdk_type_name(e->type));
        vd_report_text(r, "access", "access", vmdk_access_name(e->access));
        vd_report_bytes(r, "virtual-size", "size", e->length);
        if (e->position)
                vd_report_offset(r, "offset", "offset in the file", e->position);
        if (e->sparse)
                describe_sparse(r, e->sparse);
}

static void describe_geometry(struct vd_report *r, const struct vmdk_descriptor *d)
{
        const char *c = vmdk_descriptor_value(d, "ddb.geometry.cylinders");
        const char *h = vmdk_descriptor_value(d, "ddb.geometry.heads");
        const char *s = vmdk_descriptor_value(d, "ddb.geometry.sectors");

        if (c && h && s)
                vd_report_textf(r, "geometry", "geometry", "%s/%s/%s", c, h, s);
}

void vmdk_describe(struct vd_image *img, struct vd_report *r)
{
        const struct vmdk *v = img->state;
        const struct vmdk_descriptor *d = &v->descriptor;
        const char *type = vmdk_descriptor_value(d, "createType");
        struct vd_report *list;

        if (v->has_descriptor) {
                vd_report_count(r, "cid", NULL, d->cid);
                vd_report_count(r, "parent-cid", NULL, d->parent_cid);
                vd_report_textf(r, NULL, "content id", "%08" PRIx32, d->cid);
                if (d->parent_cid != VMDK_NO_CID)
                        vd_report_textf(r, NULL, "parent content id", "%08" PRIx32, d->parent_cid);
        }
        vd_report_text(r, "create-type", "create type", type ? type : "");
        vd_report_text(r, "descriptor", "descriptor", !v->has_descriptor ? "none" : v->embedded ? "embedded" : "file");
        if (v->refused)
                vd_report_text(r, "not-readable", "not readable", v->refused);
        for (size_t i = 0; i < sizeof(known_keys) / sizeof(known_keys[0]); i++) {
                const char *value = vmdk_descriptor_value(d, known_keys[i].name);

                if (value)
                        vd_report_text(r, known_keys[i].key, known_keys[i].label, value);
        }
        describe_geometry(r, d);
        list = vd_report_list(r, "extents", "extents");
        for (size_t i = 0; i < v->extent_count; i++)
                describe_extent(vd_report_item(list), img, &v->extents[i]);
}
