// SPDX-License-Identifier: MIT
/* vdi_parent.c: a differencing image knows its parent's UUIDs, not its name: finding and recognising the parent. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "util/text.h"
#include "vdi.h"

enum { LOOKED_AT = 1000 };              /* files whose header is read at most */

static bool is_vdi_name(const char *name)
{
        const char *dot = strrchr(name, '.');

        return dot && !strcasecmp(dot, ".vdi");
}

/* Reads the header of the file called name beside img.  0: the create UUID is the parent's; *same_change: so is the
 * UUID of the last change.  Whatever else it is, it is not our parent. */
static int compare_file(const struct vd_image *img, const char *name, bool *same_change)
{
        const struct vdi *vdi = img->state;
        struct vd_error ignored = VD_ERROR_INIT;
        VD_AUTOFREE char *path = NULL;
        struct vdi_header_disk h;
        struct vd_file *file;
        size_t got = 0;
        int r = vd_policy_resolve(img->policy, VD_REFERENCE_PARENT, img->path, name, &path, &ignored);

        if (!r)
                r = vd_file_open(&file, path, VD_FILE_READ, &ignored);
        if (r)
                return r;
        r = vd_file_read_some(file, &h, sizeof(h), 0, &got, &ignored);
        vd_file_unref(file);
        if (r || got < sizeof(h) || le32_get(h.pre.signature) != VDI_SIGNATURE ||
            le32_get(h.pre.version) >> 16 != VDI_VERSION >> 16 || memcmp(h.id, vdi->parent_id, 16))
                return VD_EPARENT;
        *same_change = !memcmp(h.modify_id, vdi->parent_modify_id, 16);
        return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int accept_name(const struct dirent *entry)
{
        return is_vdi_name(entry->d_name);
}

/* Puts a candidate in front of all names, or behind the others but before the UUID, which is last. */
static int add_candidate(struct vd_image *img, const char *name, bool first, struct vd_error *err)
{
        struct vd_parent_name *names = img->parent_ref.names, added;
        size_t before = img->parent_ref.count, at = first ? 0 : before - 1;
        int r = vd_image_add_parent_name(img, name, "a .vdi file with the parent's UUID", err);

        if (r || img->parent_ref.count == before)
                return r;
        added = names[before];
        memmove(names + at + 1, names + at, (before - at) * sizeof(*names));
        names[at] = added;
        return 0;
}

int vdi_find_parent(struct vd_image *img, struct vd_error *err)
{
        const char *slash = strrchr(img->path, '/');
        VD_AUTOFREE char *directory = slash ? strndup(img->path, (size_t)(slash - img->path) + 1) : strdup(".");
        struct dirent **entries = NULL;
        int count, r = 0;

        if (!directory)
                return vd_fail(err, -ENOMEM, "directory of the image");
        count = scandir(directory, &entries, accept_name, by_name);
        for (int i = 0; i < count; i++) {
                bool same_change = false;

                if (!r && i < LOOKED_AT && !compare_file(img, entries[i]->d_name, &same_change))
                        r = add_candidate(img, entries[i]->d_name, same_change, err);
                free(entries[i]);
        }
        free(entries);
        return r;
}

int vdi_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        const struct vdi *vdi = child->state, *other = parent->state;
        char wanted[VD_GUID_TEXT], found[VD_GUID_TEXT];

        vd_guid_text(vdi->parent_id, VD_GUID_MICROSOFT, wanted);
        if (parent->format != &vd_format_vdi)
                return vd_fail(err, VD_EPARENT, "%s is a %s image, expected the VDI with UUID %s",
                               vd_file_name(parent->file), parent->format->name, wanted);
        vd_guid_text(other->id, VD_GUID_MICROSOFT, found);
        if (memcmp(vdi->parent_id, other->id, 16))
                return vd_fail(err, VD_EPARENT, "%s has UUID %s, but the parent of this image has %s",
                               vd_file_name(parent->file), found, wanted);
        if (vd_guid_is_zero(vdi->parent_modify_id) || !memcmp(vdi->parent_modify_id, other->modify_id, 16))
                return 0;
        vd_guid_text(vdi->parent_modify_id, VD_GUID_MICROSOFT, wanted);
        vd_guid_text(other->modify_id, VD_GUID_MICROSOFT, found);
        if (child->writable)
                return vd_fail(err, VD_EPARENT, "%s was changed after this image was made of it: its last change is "
                               "%s, expected %s", vd_file_name(parent->file), found, wanted);
        vd_image_warn(child, "the parent image was changed after this one was made of it: its last change is %s, "
                      "expected %s", found, wanted);
        return 0;
}
