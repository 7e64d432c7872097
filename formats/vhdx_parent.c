// SPDX-License-Identifier: MIT
/* vhdx_parent.c: how a differencing disk names its parent: a list of keys and values in a metadata item.
 *
 * parent_linkage is the parent's DataWriteGuid when the child was made, parent_linkage2 another one that will do;
 * relative_path, volume_path and absolute_win32_path say where it is, to be tried in this order.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shared/utf16.h"
#include "formats/shared/winpath.h"
#include "util/cleanup.h"
#include "util/checked.h"
#include "util/text.h"
#include "vhdx.h"

static const uint8_t locator_type[16] = { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                          0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 };

static const struct path_key {
        const char *key, *origin;
} path_keys[] = {
        { "relative_path", "relative_path" },
        { "volume_path", "volume_path" },
        { "absolute_win32_path", "absolute_win32_path" },
};
enum { PATH_KEYS = sizeof(path_keys) / sizeof(path_keys[0]) };

static const char *find_value(const struct vhdx *v, const char *key)
{
        for (size_t i = 0; i < v->locator_count; i++)
                if (!strcmp(v->locator[i].key, key))
                        return v->locator[i].value;
        return NULL;
}

static int read_text(const uint8_t *item, uint64_t item_bytes, size_t i, uint32_t offset, uint16_t length, char **text,
                     struct vd_error *err)
{
        if (!offset || !length || length % 2 || !vd_range_fits(offset, length, item_bytes))
                return vd_fail(err, VD_ECORRUPT, "parent locator entry %zu: %u bytes at offset %" PRIu32
                               " do not fit an item of %" PRIu64 " bytes", i, length, offset, item_bytes);
        *text = vd_utf16_to_utf8(item + offset, length, false);
        return *text ? 0 : vd_fail(err, -ENOMEM, "parent locator");
}

static int read_pairs(struct vhdx *v, const uint8_t *item, uint64_t bytes, struct vd_error *err)
{
        const struct vhdx_locator_disk *head = (const struct vhdx_locator_disk *)item;
        const struct vhdx_locator_entry_disk *e = (const struct vhdx_locator_entry_disk *)(item + sizeof(*head));
        size_t count;
        int r = 0;

        if (bytes < sizeof(*head) || memcmp(head->type, locator_type, 16) != 0)
                return vd_fail(err, VD_EUNSUPPORTED, "parent locator: it is not of the type that names a VHDX");
        count = le16_get(head->count);
        if (count * sizeof(*e) > bytes - sizeof(*head))
                return vd_fail(err, VD_ECORRUPT, "parent locator: %zu entries do not fit an item of %" PRIu64 " bytes",
                               count, bytes);
        v->locator = calloc(count ? count : 1, sizeof(*v->locator));
        if (!v->locator)
                return vd_fail(err, -ENOMEM, "parent locator");
        for (size_t i = 0; i < count && !r; i++) {
                v->locator_count = i + 1;
                r = read_text(item, bytes, i, le32_get(e[i].key_offset), le16_get(e[i].key_length), &v->locator[i].key,
                              err);
                if (!r)
                        r = read_text(item, bytes, i, le32_get(e[i].value_offset), le16_get(e[i].value_length),
                                      &v->locator[i].value, err);
        }
        return r;
}

/* All paths, the most trusted first; then their last components, which survive a move to another machine. */
static int add_candidates(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;

        for (unsigned i = 0; i < 2 * PATH_KEYS; i++) {
                const struct path_key *k = &path_keys[i % PATH_KEYS];
                const char *value = find_value(v, k->key);
                VD_AUTOFREE char *path = value ? vd_winpath_to_local(value) : NULL;
                char *name = path, *slash = path ? strrchr(path, '/') : NULL;
                int r;

                if (value && !path)
                        return vd_fail(err, -ENOMEM, "name of the parent");
                if (i >= PATH_KEYS && slash)
                        name = slash + 1;
                r = name && *name ? vd_image_add_parent_name(img, name, k->origin, err) : 0;
                if (r)
                        return r;
        }
        if (!img->parent_ref.count)
                return vd_fail(err, VD_ECORRUPT, "parent locator: it has no path");
        img->parent_ref.format = strdup(img->format->name);
        return img->parent_ref.format ? 0 : vd_fail(err, -ENOMEM, "format of the parent");
}

int vhdx_read_locator(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        const struct vhdx_item *item = vhdx_item(v, VHDX_LOCATOR);
        VD_AUTOFREE uint8_t *bytes = NULL;
        const char *linkage;
        uint8_t guid[16];
        int r;

        if (!item || !item->length)
                return vd_fail(err, VD_ECORRUPT, "metadata: the disk has a parent, but no parent locator");
        bytes = malloc(item->length);
        r = bytes ? vd_file_read(v->file, bytes, item->length, item->position, err)
                  : vd_fail(err, -ENOMEM, "parent locator");
        if (!r)
                r = read_pairs(v, bytes, item->length, err);
        if (r)
                return r;
        linkage = find_value(v, "parent_linkage");
        if (!linkage || !vd_guid_parse(linkage, VD_GUID_MICROSOFT, guid))
                return vd_fail(err, VD_ECORRUPT, "parent locator: parent_linkage is %s",
                               linkage ? "not a GUID" : "missing");
        return add_candidates(img, err);
}

int vhdx_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        struct vhdx *v = child->state, *other = parent->format == child->format ? parent->state : NULL;
        const char *linkage = find_value(v, "parent_linkage"), *linkage2 = find_value(v, "parent_linkage2");
        char found[VD_GUID_TEXT], shown[512], wanted[64];
        uint8_t guid[16];

        vd_printable(shown, sizeof(shown), parent->path, strlen(parent->path));
        vd_printable(wanted, sizeof(wanted), linkage, strlen(linkage));
        if (!other)
                return vd_fail(err, VD_EPARENT, "%s is not a VHDX, but the child was made for the one with data write "
                               "GUID %s", shown, wanted);
        if (v->logical_bytes != other->logical_bytes)
                return vd_fail(err, VD_EPARENT, "%s has sectors of %" PRIu32 " bytes, the child of %" PRIu32, shown,
                               other->logical_bytes, v->logical_bytes);
        if ((vd_guid_parse(linkage, VD_GUID_MICROSOFT, guid) && !memcmp(guid, other->header.data_write_guid, 16)) ||
            (linkage2 && vd_guid_parse(linkage2, VD_GUID_MICROSOFT, guid) &&
             !memcmp(guid, other->header.data_write_guid, 16)))
                return 0;
        return vd_fail(err, VD_EPARENT, "%s has data write GUID %s, but the child was made for %s: it is another disk, "
                       "or was changed since", shown,
                       vd_guid_text(other->header.data_write_guid, VD_GUID_MICROSOFT, found), wanted);
}

/* Appends key and value to the item and enters them. */
static int put_pair(uint8_t *item, uint32_t *bytes, unsigned i, const char *key, const char *value,
                    struct vd_error *err)
{
        struct vhdx_locator_entry_disk *entries = (void *)(item + sizeof(struct vhdx_locator_disk));
        const char *texts[2] = { key, value };
        le32 offsets[2];
        le16 lengths[2];

        for (unsigned t = 0; t < 2; t++) {
                size_t length;
                VD_AUTOFREE uint8_t *utf16 = vd_utf16_from_utf8(texts[t], false, &length);

                if (!utf16)
                        return length == SIZE_MAX
                                ? vd_fail(err, VD_EUNSUPPORTED, "the parent's name is not UTF-8, as VHDX needs it")
                                : vd_fail(err, -ENOMEM, "parent locator");
                if (length > UINT16_MAX || length > VHDX_TABLE_BYTES - *bytes)
                        return vd_fail(err, VD_EUNSUPPORTED, "the parent's name has %zu bytes of UTF-16, which VHDX "
                                       "has no room for", length);
                memcpy(item + *bytes, utf16, length);
                offsets[t] = le32_put(*bytes);
                lengths[t] = le16_put((uint16_t)length);
                *bytes += (uint32_t)length;
        }
        entries[i] = (struct vhdx_locator_entry_disk){ offsets[0], offsets[1], lengths[0], lengths[1] };
        return 0;
}

int vhdx_make_locator(struct vd_image *img, const struct vd_create *create, uint8_t **item, uint32_t *bytes,
                      struct vd_error *err)
{
        enum { PAIRS = 2 };
        struct vhdx *v = img->state;
        const struct vhdx *parent = create->backing->state;
        VD_AUTOFREE uint8_t *made = calloc(1, VHDX_TABLE_BYTES);
        VD_AUTOFREE char *path = vd_winpath_from_local(create->backing_name);
        struct vhdx_locator_disk *head = (struct vhdx_locator_disk *)made;
        char guid[VD_GUID_TEXT], linkage[VD_GUID_TEXT + 2];
        int r;

        if (!made || !path)
                return vd_fail(err, -ENOMEM, "parent locator");
        if (strchr(create->backing_name, '\\'))
                return vd_fail(err, VD_EUNSUPPORTED, "the parent's name has a backslash, which VHDX takes for a "
                               "separator");
        if (strlen(create->backing_name) == 0)
                return vd_fail(err, VD_EUSAGE, "the parent's name is empty");
        memcpy(head->type, locator_type, 16);
        head->count = le16_put(PAIRS);
        *bytes = sizeof(*head) + PAIRS * sizeof(struct vhdx_locator_entry_disk);
        vd_guid_text(parent->header.data_write_guid, VD_GUID_MICROSOFT, guid);
        memcpy(linkage, "{", 1);
        memcpy(linkage + 1, guid, VD_GUID_TEXT - 1);
        memcpy(linkage + VD_GUID_TEXT, "}", 2);
        r = put_pair(made, bytes, 0, "parent_linkage", linkage, err);
        if (!r)
                r = put_pair(made, bytes, 1, *create->backing_name == '/' ? "absolute_win32_path" : "relative_path",
                             path, err);
        if (r)
                return r;
        r = read_pairs(v, made, *bytes, err);
        if (!r)
                r = add_candidates(img, err);
        if (!r)
                *item = VD_STEAL(made);
        return r;
}
