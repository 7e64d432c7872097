// SPDX-License-Identifier: MIT
/* ova_open.c: which members of an archive are disks, opening them, and mapping through them. */
#include "ova.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum {
        DESCRIPTOR_MOST = 16 * 1024 * 1024,
        MANIFEST_MOST = 1024 * 1024,
        PROBED_MOST = 10000,            /* members looked into for want of a descriptor */
        PIECES_MOST = 10000,
};

bool ova_has_suffix(const char *name, const char *suffix)
{
        size_t length = strlen(name), wanted = strlen(suffix);

        return length > wanted && !strcasecmp(name + length - wanted, suffix);
}

static const char *shown(const char *name, char buffer[256])
{
        return vd_printable(buffer, 256, name, strlen(name));
}

/* "./disk.raw" is what tar calls "disk.raw" when it is told to pack ".". */
static const char *plain(const char *name)
{
        while (name[0] == '.' && name[1] == '/')
                name += 2;
        return name;
}

size_t ova_find_member(const struct ova *a, const char *name, size_t *count)
{
        size_t found = SIZE_MAX;

        *count = 0;
        for (size_t i = 0; i < a->tar.count; i++) {
                if (a->tar.members[i].kind == VD_TAR_DIRECTORY ||
                    strcmp(plain(a->tar.members[i].name), plain(name)))
                        continue;
                if (!(*count)++)
                        found = i;
        }
        return found;
}

/* ---- reading descriptor and manifest ---- */

/* The first member of this kind; SIZE_MAX: none. */
static size_t find_suffix(const struct ova *a, const char *suffix)
{
        for (size_t i = 0; i < a->tar.count; i++)
                if (a->tar.members[i].kind == VD_TAR_FILE && ova_has_suffix(a->tar.members[i].name, suffix))
                        return i;
        return SIZE_MAX;
}

/* A whole member as text. */
static int read_text(struct vd_image *img, size_t member, uint64_t most, char **text, struct vd_error *err)
{
        const struct vd_tar_member *m = &((const struct ova *)img->state)->tar.members[member];
        char name[256];
        int r;

        if (m->size > most)
                return vd_fail(err, VD_EUNSUPPORTED, "'%s' has %" PRIu64 " bytes, allowed are %" PRIu64,
                               shown(m->name, name), m->size, most);
        *text = calloc(1, m->size + 1);
        if (!*text)
                return vd_fail(err, -ENOMEM, "'%s'", shown(m->name, name));
        r = vd_file_read(img->file, *text, m->size, m->position, err);
        return r ? vd_error_prefix(err, "'%s'", shown(m->name, name)) : 0;
}

static int read_descriptor(struct vd_image *img, struct vd_error *err)
{
        VD_AUTOFREE char *text = NULL;
        struct ova *a = img->state;
        char name[256];
        int r;

        a->descriptor = find_suffix(a, ".ovf");
        if (a->descriptor == SIZE_MAX)
                return img->format == &vd_format_ova ? vd_fail(err, VD_EFORMAT, "the archive holds no .ovf file") : 0;
        r = read_text(img, a->descriptor, DESCRIPTOR_MOST, &text, err);
        if (!r)
                r = ovf_parse(&a->ovf, text, a->tar.members[a->descriptor].size, err);
        return r ? vd_error_prefix(err, "'%s'", shown(a->tar.members[a->descriptor].name, name)) : 0;
}

static int read_manifest(struct vd_image *img, struct vd_error *err)
{
        VD_AUTOFREE char *text = NULL;
        struct ova *a = img->state;
        size_t member = a->ovf ? find_suffix(a, ".mf") : SIZE_MAX;
        int r;

        a->has_certificate = a->ovf && find_suffix(a, ".cert") != SIZE_MAX;
        if (member == SIZE_MAX)
                return 0;
        r = read_text(img, member, MANIFEST_MOST, &text, err);
        return r ? r : ova_manifest_parse(&a->manifest, text, err);
}

/* ---- which members are disks ---- */

static int add_disk(struct ova *a, const struct ovf_disk *ovf, const char *name, struct ova_disk **out,
                    struct vd_error *err)
{
        struct ova_disk *disks, *d;

        if (a->disk_count == OVA_DISKS_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "more than %d disks", (int)OVA_DISKS_MOST);
        disks = reallocarray(a->disks, a->disk_count + 1, sizeof(*disks));
        if (!disks)
                return vd_fail(err, -ENOMEM, "disks of an archive");
        a->disks = disks;
        d = &disks[a->disk_count];
        *d = (struct ova_disk){ .ovf = ovf, .id = ovf ? ovf->id : NULL, .name = strdup(name) };
        if (!d->name)
                return vd_fail(err, -ENOMEM, "name of a disk");
        a->disk_count++;
        if (out)
                *out = d;
        return 0;
}

/* %41 is A. */
static char *decode(const char *href)
{
        char *text = strdup(href), *to = text;

        for (const char *from = href; text && *from; to++) {
                unsigned byte;

                if (*from == '%' && strspn(from + 1, "0123456789abcdefABCDEF") >= 2 &&
                    sscanf(from + 1, "%2x", &byte) == 1 && byte) {
                        *to = (char)byte;
                        from += 3;
                } else {
                        *to = *from++;
                }
        }
        if (text)
                *to = '\0';
        return text;
}

/* A name that a descriptor may use for a file beside it. */
static bool is_safe(const char *name)
{
        return *name && !strpbrk(name, "/\\:") && strcmp(name, ".") && strcmp(name, "..");
}

static int add_described(struct ova *a, const struct ovf_disk *disk, struct vd_error *err)
{
        const struct ovf_file *file = disk->file ? ovf_find_file(a->ovf, disk->file) : NULL;
        VD_AUTOFREE char *decoded = NULL;
        struct ova_disk *d;
        char name[256];
        size_t count;
        int r;

        if (!disk->file)
                return 0;               /* an empty disk, made when the machine is */
        if (!disk->id || !file || !file->href)
                return vd_fail(err, VD_ECORRUPT, "the descriptor names no file for the disk '%s'",
                               shown(disk->id ? disk->id : disk->file, name));
        decoded = decode(file->href);
        if (!decoded)
                return vd_fail(err, -ENOMEM, "name of a disk");
        if (!is_safe(decoded))
                return vd_fail(err, VD_ECORRUPT, "the descriptor names '%s', which is no plain file name",
                               shown(file->href, name));
        ova_find_member(a, file->href, &count);
        r = add_disk(a, disk, count ? file->href : decoded, &d, err);
        if (!r)
                d->reference = file;
        return r;
}

/* Does the content tell that this is an image, or else the name? */
static bool is_image(struct vd_image *img, const struct vd_tar_member *m)
{
        const struct vd_format *found, *named = vd_format_by_extension(m->name);
        struct vd_error ignored = VD_ERROR_INIT;
        enum vd_match match;
        struct vd_file *file;
        bool is = false;

        if (m->kind == VD_TAR_SPARSE)
                return named && !(named->caps & VD_CAP_CONTAINER);      /* opening it says why not */
        if (m->kind != VD_TAR_FILE || !m->size || vd_file_window(&file, img->file, m->position, m->size, &ignored))
                return false;
        if (!vd_format_by_content(file, &found, &match, &ignored))
                is = match == VD_MATCH_FALLBACK ? named && !(named->caps & VD_CAP_CONTAINER)
                                                : !(found->caps & VD_CAP_CONTAINER);
        vd_file_unref(file);
        return is;
}

static int find_disks(struct vd_image *img, struct vd_error *err)
{
        struct ova *a = img->state;
        int r = 0;

        if (a->ovf) {
                for (size_t i = 0; i < a->ovf->disk_count && !r; i++)
                        r = add_described(a, &a->ovf->disks[i], err);
                return r;
        }
        if (a->tar.count > PROBED_MOST && !img->inside)
                return vd_fail(err, VD_EUSAGE, "the archive has %zu members: name one (archive.tar:disk.raw)",
                               a->tar.count);
        for (size_t i = 0; i < a->tar.count && !img->inside && !r; i++)
                if (is_image(img, &a->tar.members[i]))
                        r = add_disk(a, NULL, a->tar.members[i].name, NULL, err);
        return r;
}

/* Leaves the disk that the user named, by its file or its id, as the only one; any member will do. */
static int keep_named(struct vd_image *img, struct vd_error *err)
{
        struct ova *a = img->state;
        size_t keep, count, member = ova_find_member(a, img->inside, &count);
        char name[256];
        int r = 0;

        for (keep = 0; keep < a->disk_count; keep++) {
                const struct ova_disk *d = &a->disks[keep];

                if (!strcmp(plain(d->name), plain(img->inside)) || (d->id && !count && !strcmp(d->id, img->inside)))
                        break;
        }
        if (keep == a->disk_count) {
                if (!count)
                        return vd_fail(err, -ENOENT, "the archive holds no '%s'", shown(img->inside, name));
                r = add_disk(a, NULL, a->tar.members[member].name, NULL, err);
        }
        for (size_t i = 0; i < a->disk_count && !r; i++)
                if (i != keep)
                        free(a->disks[i].name);
        if (!r) {
                a->disks[0] = a->disks[keep];
                a->disk_count = 1;
        }
        return r;
}

static int list_disks(const struct vd_image *img, struct vd_error *err)
{
        const struct ova *a = img->state;
        char list[700] = "", name[256];
        size_t at = 0;

        for (size_t i = 0; i < a->disk_count && at < sizeof(list); i++)
                at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "",
                                       shown(a->disks[i].name, name));
        return vd_fail(err, VD_EUSAGE, "holds %zu disks: name one after a colon: %s", a->disk_count, list);
}

/* ---- opening them ---- */

static int open_pieces(struct vd_image *img, struct ova_disk *d, struct vd_error *err)
{
        const struct ova *a = img->state;
        uint64_t left = d->reference->size;
        VD_AUTOFREE struct vd_file **files = NULL;
        size_t count = 0, wanted = vd_div_up(left, d->reference->chunk), found;
        int r = 0;

        if (!d->reference->has_size || !wanted || wanted > PIECES_MOST)
                return vd_fail(err, VD_ECORRUPT, "%" PRIu64 " bytes in pieces of %" PRIu64 ": allowed are 1 to %d "
                               "pieces", left, d->reference->chunk, (int)PIECES_MOST);
        files = calloc(wanted, sizeof(*files));
        if (!files)
                return vd_fail(err, -ENOMEM, "pieces of a disk");
        for (; count < wanted && !r; count++) {
                VD_AUTOFREE char *name = vd_asprintf("%s.%09zu", d->name, count);
                size_t i = name ? ova_find_member(a, name, &found) : SIZE_MAX;

                if (!name)
                        r = vd_fail(err, -ENOMEM, "pieces of a disk");
                else if (found != 1 || a->tar.members[i].kind != VD_TAR_FILE)
                        r = vd_fail(err, VD_ECORRUPT, "piece %zu of %zu: found %zu members of this name", count + 1,
                                    wanted, found);
                else if (a->tar.members[i].size != vd_min(left, d->reference->chunk))
                        r = vd_fail(err, VD_ECORRUPT, "piece %zu has %" PRIu64 " bytes, expected %" PRIu64, count + 1,
                                    a->tar.members[i].size, vd_min(left, d->reference->chunk));
                else
                        r = vd_file_window(&files[count], img->file, a->tar.members[i].position,
                                           a->tar.members[i].size, err);
                if (r)
                        break;
                d->member = count ? vd_min(d->member, i) : i;
                d->members = count + 1;
                left -= a->tar.members[i].size;
        }
        if (!r)
                r = vd_file_join(&d->file, files, wanted, vd_file_name(img->file), err);
        for (size_t i = 0; i < count; i++)
                vd_file_unref(files[i]);
        return r;
}

static int open_member(struct vd_image *img, struct ova_disk *d, struct vd_error *err)
{
        const struct ova *a = img->state;
        const struct vd_tar_member *m;
        size_t count;

        if (d->reference && d->reference->packed)
                return vd_fail(err, VD_EUNSUPPORTED, "is compressed as a whole and has to be extracted first");
        if (d->reference && d->reference->chunk)
                return open_pieces(img, d, err);
        d->member = ova_find_member(a, d->name, &count);
        if (count != 1)
                return vd_fail(err, VD_ECORRUPT, "found %zu members of this name, allowed is one", count);
        d->members = 1;
        m = &a->tar.members[d->member];
        if (m->kind != VD_TAR_FILE)
                return vd_fail(err, VD_EUNSUPPORTED, m->kind == VD_TAR_SPARSE
                               ? "is stored as a sparse member, which has to be extracted first"
                               : "is no regular file");
        if (!vd_range_fits(m->position, m->size, vd_file_size(img->file)))
                return vd_fail(err, VD_ECORRUPT, "%" PRIu64 " bytes at %" PRIu64 " of the archive, which ends at %"
                               PRIu64, m->size, m->position, vd_file_size(img->file));
        return vd_file_window(&d->file, img->file, m->position, m->size, err);
}

static int open_disk(struct vd_image *img, struct ova_disk *d, struct vd_error *err)
{
        struct vd_open how = { .policy = img->policy, .no_references = true };
        VD_AUTOFREE char *path = vd_asprintf("%s:%s", vd_file_name(img->file), d->name);
        char name[256];
        int r;

        if (!path)
                return vd_fail(err, -ENOMEM, "disk in an archive");
        if (d->ovf && d->ovf->parent)
                r = vd_fail(err, VD_EUNSUPPORTED, "is the difference to another disk of the appliance");
        else
                r = open_member(img, d, err);
        if (r)
                return vd_error_prefix(err, "'%s'", shown(d->name, name));
        how.file = d->file;
        return vd_image_open(&d->image, path, &how, err);
}

/* Where everything is looked at, one bad disk is no reason to say nothing of the others. */
static int open_disks(struct vd_image *img, struct vd_error *err)
{
        struct ova *a = img->state;

        for (size_t i = 0; i < a->disk_count; i++) {
                struct ova_disk *d = &a->disks[i];
                struct vd_error why = VD_ERROR_INIT;
                int r = open_disk(img, d, &why);

                if (r && (!img->whole_set || r == -ENOMEM)) {
                        *err = why;
                        return r;
                }
                if (r) {
                        d->fault = strdup(why.text);
                        vd_image_warn(img, "%s", why.text);
                        continue;
                }
                d->start = img->size;
                img->unit = vd_max(img->unit, d->image->unit);
                img->is_packed = img->is_packed || vd_image_may_be_packed(d->image);
                img->is_dirty = img->is_dirty || d->image->is_dirty;
                img->is_encrypted = img->is_encrypted || d->image->is_encrypted;
                for (size_t w = 0; w < d->image->warning_count; w++)
                        vd_image_warn(img, "%s: %s", d->name, d->image->warnings[w]);
                if (!vd_add(img->size, d->image->size, &img->size) || img->size > INT64_MAX)
                        return vd_fail(err, VD_ECORRUPT, "the disks together are larger than any disk");
        }
        return 0;
}

void ova_close(struct vd_image *img)
{
        struct ova *a = img->state;

        for (size_t i = 0; i < a->disk_count; i++) {
                vd_image_close(a->disks[i].image);
                vd_file_unref(a->disks[i].file);
                free(a->disks[i].name);
                free(a->disks[i].fault);
        }
        free(a->disks);
        ova_manifest_free(&a->manifest);
        ovf_free(a->ovf);
        vd_tar_free(&a->tar);
        ova_new_free(a->fresh);
        free(a);
}

int ova_open(struct vd_image *img, struct vd_error *err)
{
        struct ova *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return vd_fail(err, -ENOMEM, "archive");
        img->state = a;
        r = img->writable ? vd_fail(err, VD_EUNSUPPORTED, "disks inside an archive cannot be changed in place") : 0;
        if (!r)
                r = vd_tar_read(&a->tar, img->file, err);
        if (!r && !a->tar.count)
                r = vd_fail(err, VD_EFORMAT, "is no tar archive");
        if (!r)
                r = read_descriptor(img, err);
        if (!r)
                r = read_manifest(img, err);
        if (!r)
                r = find_disks(img, err);
        if (!r && img->inside)
                r = keep_named(img, err);
        if (!r && !img->whole_set && a->disk_count != 1)
                r = a->disk_count ? list_disks(img, err)
                                  : vd_fail(err, VD_EFORMAT, "the archive holds no disk that can be recognised");
        if (!r)
                r = open_disks(img, err);
        if (r)
                ova_close(img);
        return r;
}

int ova_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct ova *a = img->state;
        const struct ova_disk *d = a->disks + a->disk_count - 1;
        int r;

        while (!d->image || d->start > offset)
                d--;
        r = vd_image_map(d->image, offset - d->start, max, UINT32_MAX, ext, err);
        if (!r && ext->kind == VD_UNALLOCATED && vd_image_lacks_parent(d->image))
                r = vd_fail(err, VD_EPARENT, "%s: the disk has a parent, which is not in the archive", d->image->path);
        if (r)
                return r;
        ext->start += d->start;
        ext->unit_start += d->start;
        if (ext->file == d->file && d->members == 1) {
                ext->file = img->file;          /* in place: what follows can use the descriptor of the archive */
                ext->position += a->tar.members[d->member].position;
        }
        return 0;
}
