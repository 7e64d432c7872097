// SPDX-License-Identifier: MIT
/* vhd_parent.c: how a differencing disk names its parent: unique id, time stamp, name, eight locators. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/identity.h"
#include "formats/shared/utf16.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"
#include "vhd.h"

/* What the known platform codes hold. */
static const struct platform {
        char code[5];
        const char *origin;
        enum { TEXT_UTF16, TEXT_8BIT, TEXT_URL, TEXT_OPAQUE } text;
        unsigned trust;                 /* lower: tried earlier */
} platforms[] = {
        { "W2ru", "relative locator W2ru", TEXT_UTF16, 0 },
        { "Wi2r", "relative locator Wi2r", TEXT_8BIT, 1 },
        { "MacX", "file URL locator MacX", TEXT_URL, 2 },
        { "W2ku", "absolute locator W2ku", TEXT_UTF16, 3 },
        { "Wi2k", "absolute locator Wi2k", TEXT_8BIT, 4 },
        { "Mac ", "alias locator Mac", TEXT_OPAQUE, 5 },
};
enum { PLATFORMS = sizeof(platforms) / sizeof(platforms[0]) };

static const struct platform *platform_of(const char code[4])
{
        for (size_t i = 0; i < PLATFORMS; i++)
                if (!memcmp(platforms[i].code, code, 4))
                        return &platforms[i];
        return NULL;
}

/* "space" is said to count sectors, but Microsoft and XenServer store bytes. */
static uint64_t locator_room(uint32_t space, uint32_t length)
{
        if (space < VHD_SECTOR)
                return vd_max((uint64_t)space * VHD_SECTOR, length);
        return space % VHD_SECTOR ? length : vd_max(space, length);
}

static char *decode_text(const struct platform *platform, const char *bytes, size_t length)
{
        if (platform->text == TEXT_UTF16)
                return vd_utf16_to_utf8(bytes, length, false);
        return strndup(bytes, length);
}

static int read_locator(struct vd_image *img, size_t i, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        const struct vhd_locator_disk *disk = &vhd->header.locators[i];
        struct vhd_locator *l = &vhd->locators[i];
        const struct platform *platform = platform_of(disk->platform);
        VD_AUTOFREE char *bytes = NULL;

        if (!memcmp(disk->platform, "\0\0\0\0", 4))
                return 0;
        for (size_t j = 0; j < 4; j++)
                l->platform[j] = disk->platform[j] >= 32 && disk->platform[j] < 127 ? disk->platform[j] : '?';
        l->space = be32_get(disk->space);
        l->length = be32_get(disk->length);
        l->offset = be64_get(disk->offset);
        l->room = locator_room(l->space, l->length);
        if (!vd_range_fits(l->offset, l->length, vhd->end)) {
                vd_image_warn(img, "parent locator %zu (%s): %" PRIu32 " bytes at %" PRIu64 " lie past end of file", i,
                              l->platform, l->length, l->offset);
                l->room = 0;
                return 0;
        }
        /* A count of bytes taken for sectors, or the reverse: what cannot be there is not counted. */
        l->room = vd_min(l->room, vhd->end - l->offset);
        vhd_add_region(vhd, l->offset, l->length, "parent locator");
        if (!platform || platform->text == TEXT_OPAQUE || !l->length || l->length > VHD_TEXT_MAX)
                return 0;
        bytes = malloc(l->length);
        if (!bytes)
                return vd_fail(err, -ENOMEM, "parent locator");
        int rc = vd_file_read(img->file, bytes, l->length, l->offset, err);

        if (rc < 0)
                return rc;
        l->text = decode_text(platform, bytes, l->length);
        return l->text ? 0 : vd_fail(err, -ENOMEM, "parent locator");
}

/* "file://localhost/a%20b" and "file://./a" to paths, in place.  False when it is none or hides a NUL. */
static bool path_of_url(char *url)
{
        static const char scheme[] = "file://", local[] = "localhost/";
        char *in = url, *out = url;

        if (strncmp(in, scheme, sizeof(scheme) - 1))
                return false;
        in += sizeof(scheme) - 1;
        if (!strncmp(in, local, sizeof(local) - 1))
                in += sizeof(local) - 2;
        for (; *in; in++) {
                unsigned code = 0;
                int used = 0;

                if (*in == '%' && sscanf(in + 1, "%2x%n", &code, &used) == 1 && used == 2) {
                        if (!code)
                                return false;
                        *out++ = (char)code;
                        in += 2;
                } else {
                        *out++ = *in;
                }
        }
        *out = '\0';
        return true;
}

/* A Windows path as a path of this system: separators, drive letter, ".\".  NULL for names on other machines. */
static char *local_path(char *text)
{
        for (char *p = text; *p; p++)
                if (*p == '\\')
                        *p = '/';
        if (((*text | 32) >= 'a' && (*text | 32) <= 'z') && text[1] == ':')
                text += 2;
        if (text[0] == '/' && text[1] == '/')
                return NULL;
        while (text[0] == '.' && text[1] == '/')
                text += 2;
        return *text ? text : NULL;
}

/* One name as a candidate, or (base) only its last component beside the child. */
static int add_candidate(struct vd_image *img, const char *text, bool url, bool base, const char *origin,
                         struct vd_error *err)
{
        VD_AUTOFREE char *copy = strdup(text);
        char *path;

        if (!copy)
                return vd_fail(err, -ENOMEM, "name of the parent");
        if (url && !path_of_url(copy))
                return 0;
        path = url ? copy : local_path(copy);
        if (base) {
                char *slash = strrchr(path ? path : copy, '/');

                path = slash ? slash + 1 : path;
        } else if (path && url) {
                while (path[0] == '.' && path[1] == '/')
                        path += 2;
        }
        return path && *path ? vd_image_add_parent_name(img, path, origin, err) : 0;
}

/* All names, the most trusted first; then their last components, which survive a move to another machine. */
static int add_candidates(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = 0;

        for (int base = 0; base < 2 && !rc; base++) {
                for (unsigned trust = 0; trust < PLATFORMS && !rc; trust++) {
                        for (size_t i = 0; i < VHD_LOCATORS && !rc; i++) {
                                const struct platform *p = platform_of(vhd->header.locators[i].platform);

                                if (vhd->locators[i].text && p && p->trust == trust)
                                        rc = add_candidate(img, vhd->locators[i].text, p->text == TEXT_URL, base,
                                                           p->origin, err);
                        }
                }
                if (!rc && vhd->parent_name[0])
                        rc = add_candidate(img, vhd->parent_name, false, base, "parent name", err);
        }
        if (!rc && !img->parent_ref.count)
                rc = vd_fail(err, VD_ECORRUPT, "differencing disk that does not name its parent");
        return rc;
}

int vhd_read_parent(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = 0;

        memcpy(vhd->parent_id, vhd->header.parent_id, sizeof(vhd->parent_id));
        vhd->parent_time = be32_get(vhd->header.parent_time);
        vhd->parent_name = vd_utf16_to_utf8(vhd->header.parent_name, VHD_NAME_BYTES, true);
        if (!vhd->parent_name)
                return vd_fail(err, -ENOMEM, "name of the parent");
        for (size_t i = 0; i < VHD_LOCATORS && !rc; i++)
                rc = read_locator(img, i, err);
        if (!rc)
                rc = add_candidates(img, err);
        if (rc < 0)
                return rc;
        /* A parent without id is a raw disk, never to be probed: its guest decides about its content. */
        img->parent_ref.format = strdup(vd_guid_is_zero(vhd->parent_id) ? "raw" : img->format->name);
        return img->parent_ref.format ? 0 : vd_fail(err, -ENOMEM, "format of the parent");
}

/* Some old writers leave ids zero: a dynamic VHD would then be taken for a raw disk. */
static int refuse_vhd_as_raw(const struct vd_image *parent, const char *shown, struct vd_error *err)
{
        struct vhd_footer_disk footer;
        char fault[128];
        size_t got;
        int rc = vd_file_read_some(parent->file, &footer, sizeof(footer), 0, &got, err);

        if (rc < 0 || got < sizeof(footer) || vhd_judge_footer(&footer, fault) || be32_get(footer.type) == VHD_FIXED)
                return rc;
        return vd_fail(err, VD_EPARENT, "%s is a VHD, but the child was made for a raw disk or for a VHD without id",
                       shown);
}

/* Seconds since 2000 of the file's last change; 0 when it has none. */
static uint32_t time_of_file(const struct vd_image *parent)
{
        int fd = vd_file_fd(parent->file);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0 || st.st_mtime < VHD_EPOCH)
                return 0;
        return (uint32_t)vd_min((uint64_t)(st.st_mtime - VHD_EPOCH), UINT32_MAX);
}

int vhd_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        struct vhd *vhd = child->state;
        struct vhd *other = parent->format == child->format ? parent->state : NULL;
        char wanted[VD_GUID_TEXT], found[VD_GUID_TEXT], shown[512];
        uint32_t changed = time_of_file(parent);

        vd_guid_text(vhd->parent_id, VD_GUID_RFC, wanted);
        vd_printable(shown, sizeof(shown), parent->path, strlen(parent->path));
        if (vd_guid_is_zero(vhd->parent_id)) {
                int rc = refuse_vhd_as_raw(parent, shown, err);

                if (rc < 0)
                        return rc;
        } else if (!other) {
                return vd_fail(err, VD_EPARENT, "%s is not a VHD, but the child was made for the one with id %s",
                               shown, wanted);
        } else if (memcmp(vhd->parent_id, other->footer.id, sizeof(vhd->parent_id))) {
                return vd_fail(err, VD_EPARENT, "%s has id %s, but the child was made for id %s", shown,
                               vd_guid_text(other->footer.id, VD_GUID_RFC, found), wanted);
        }
        if (vhd->parent_time && changed && vhd->parent_time != changed)
                vd_image_warn(child, "the parent %s was changed or copied since the child was made (time stamp %" PRIu32
                              ", expected %" PRIu32 ")", shown, changed, vhd->parent_time);
        return 0;
}

/* Puts a locator into the header and its text into the file; *position moves on. */
static int write_locator(struct vd_image *img, size_t i, const char *code, const void *text, size_t length,
                         uint64_t *position, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vhd_locator_disk *disk = &vhd->header.locators[i];
        uint64_t room = vd_round_up(length, VHD_SECTOR);
        int rc = vd_file_write(img->file, text, length, *position, err);

        if (rc < 0)
                return rc;
        memcpy(disk->platform, code, 4);
        disk->space = be32_put((uint32_t)room);
        disk->length = be32_put((uint32_t)length);
        disk->offset = be64_put(*position);
        vhd_add_region(vhd, *position, room, "parent locator");
        *position += room;
        return 0;
}

static int write_windows_locator(struct vd_image *img, size_t i, const char *code, const char *name,
                                 uint64_t *position, struct vd_error *err)
{
        VD_AUTOFREE char *windows = strdup(name);
        VD_AUTOFREE uint8_t *utf16 = NULL;
        size_t bytes;

        for (char *p = windows; p && *p; p++)
                if (*p == '/')
                        *p = '\\';
        if (windows)
                utf16 = vd_utf16_from_utf8(windows, false, &bytes);
        if (!utf16)
                return vd_fail(err, -ENOMEM, "parent locator");
        return write_locator(img, i, code, utf16, bytes, position, err);
}

/* As XenServer writes them: "file://./name", "file:///dir/name". */
static int write_url_locator(struct vd_image *img, size_t i, const char *name, uint64_t *position,
                             struct vd_error *err)
{
        VD_AUTOFREE char *url = malloc(sizeof("file://") + 3 * strlen(name));
        char *out = url;

        if (!url)
                return vd_fail(err, -ENOMEM, "parent locator");
        out += sprintf(out, "file://");
        for (const char *p = name; *p; p++) {
                if (*p > 32 && *p < 127 && *p != '%' && *p != '?' && *p != '#')
                        *out++ = *p;
                else
                        out += sprintf(out, "%%%02X", (unsigned)(unsigned char)*p);
        }
        return write_locator(img, i, "MacX", url, (size_t)(out - url), position, err);
}

/* The parent name field: the whole name, or its last component when that does not fit. */
static int put_name(struct vhd *vhd, const char *name, struct vd_error *err)
{
        const char *slash = strrchr(name, '/');

        for (const char *part = name; part; part = part == name && slash ? slash + 1 : NULL) {
                size_t bytes;
                VD_AUTOFREE uint8_t *utf16 = vd_utf16_from_utf8(part, true, &bytes);

                if (!utf16)
                        return bytes == SIZE_MAX
                                ? vd_fail(err, VD_EUNSUPPORTED, "the parent's name is not UTF-8, as VHD needs it")
                                : vd_fail(err, -ENOMEM, "name of the parent");
                if (bytes < VHD_NAME_BYTES) {
                        memcpy(vhd->header.parent_name, utf16, bytes);
                        return 0;
                }
        }
        return vd_fail(err, VD_EUNSUPPORTED, "the parent's name is longer than the 255 characters of a VHD");
}

int vhd_write_parent(struct vd_image *img, const struct vd_create *create, uint64_t *position, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vd_image *parent = create->backing;
        const char *name = create->backing_name;
        bool is_vhd = parent ? parent->format == img->format
                             : !create->backing_format || strcmp(create->backing_format, "raw") != 0;
        bool is_raw = !is_vhd && !strcmp(parent ? parent->format->name : create->backing_format, "raw");
        VD_AUTOFREE char *relative = NULL;
        int rc;

        if (!is_vhd && !is_raw)
                return vd_fail(err, VD_EUNSUPPORTED, "the parent of a differencing VHD is a VHD or a raw disk, not %s",
                               parent->format->name);
        if (!parent)
                return vd_fail(err, VD_EUNSUPPORTED, "the parent must be there: its id becomes part of the new disk");
        if (strchr(name, '\\'))
                return vd_fail(err, VD_EUNSUPPORTED, "the parent's name has a backslash, a separator to VHD");
        if (is_raw) {
                char shown[512];

                rc = refuse_vhd_as_raw(parent, vd_printable(shown, sizeof(shown), parent->path, strlen(parent->path)),
                                       err);
                if (rc < 0)
                        return rc;
        } else {
                const struct vhd *other = parent->state;

                if (vd_guid_is_zero(other->footer.id))
                        return vd_fail(err, VD_EUNSUPPORTED, "%s has no unique id and cannot be a parent",
                                       parent->path);
                memcpy(vhd->parent_id, other->footer.id, sizeof(vhd->parent_id));
        }
        /* Never later than now, which SOURCE_DATE_EPOCH may have set back. */
        int64_t now = vd_identity_time() - VHD_EPOCH;

        vhd->parent_time = now < 0 ? 0 : (uint32_t)vd_min((uint64_t)now, time_of_file(parent));
        memcpy(vhd->header.parent_id, vhd->parent_id, sizeof(vhd->parent_id));
        vhd->header.parent_time = be32_put(vhd->parent_time);
        rc = put_name(vhd, name, err);
        if (rc < 0)
                return rc;
        if (*name == '/') {
                rc = write_windows_locator(img, 0, "W2ku", name, position, err);
                return rc < 0 ? rc : write_url_locator(img, 1, name, position, err);
        }
        /* Windows wants relative names to begin with ".\". */
        relative = vd_asprintf("./%s", !strncmp(name, "./", 2) ? name + 2 : name);
        if (!relative)
                return vd_fail(err, -ENOMEM, "name of the parent");
        rc = write_windows_locator(img, 0, "W2ru", relative, position, err);
        if (!rc)
                rc = write_windows_locator(img, 1, "W2ku", relative, position, err);
        return rc < 0 ? rc : write_url_locator(img, 2, relative, position, err);
}
