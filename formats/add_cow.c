// SPDX-License-Identifier: MIT
/* add_cow.c: add-cow, copy-on-write for raw images (reference: docs/formats.md, "add-cow")
 *
 *      disk.add-cow    [ header, names ][ bitmap: one bit per cluster ]
 *      disk.raw        the image file: where writes go, at the guest's own offsets
 *
 * A set bit means the image file, a clear one the parent.  When everything is allocated the header says so, and the
 * image file alone is the disk.
 * The disk is as long as the image file, in whole sectors: there is no size in the header.
 * Quirk: the flag for "everything is allocated" stands among those that readers may ignore; they must not.
 * Cost: pages of the bitmap.
 */
#include "add_cow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/text.h"

static enum vd_match add_cow_probe(const struct vd_probe *probe)
{
        const struct add_cow_header_disk *h = (const void *)probe->head;
        uint32_t bits;

        if (probe->head_bytes < sizeof(*h) || memcmp(h->magic, "ACOW", 4) != 0)
                return VD_MATCH_NO;
        bits = le32_get(h->cluster_bits);
        return bits >= ADD_COW_BITS_LEAST && bits <= ADD_COW_BITS_MOST &&
               le32_get(h->header_bytes) == add_cow_header_bytes(bits) ? VD_MATCH_SURE : VD_MATCH_WEAK;
}

void add_cow_close(struct vd_image *img)
{
        struct add_cow *a = img->state;

        if (!a)
                return;
        vd_cache_free(a->bitmap.cache);
        vd_file_unref(a->image);
        free(a->image_name);
        free(a->backing_name);
        free(a);
        img->state = NULL;
}

/* ---- header ---- */

/* A name in the header; *name stays NULL for "none". */
static int read_name(struct vd_image *img, const struct add_cow *a, le32 offset_field, le32 length_field,
                     const char *what, char **name, struct vd_error *err)
{
        uint64_t offset = le32_get(offset_field), length = le32_get(length_field);
        int r;

        if (!offset && !length)
                return 0;
        if (offset < sizeof(struct add_cow_header_disk) || !length || !vd_range_fits(offset, length, a->header_bytes))
                return vd_fail(err, VD_ECORRUPT, "header: name of the %s is %" PRIu64 " bytes at %" PRIu64
                               ", allowed are %zu to %"
                               PRIu64, what, length, offset, sizeof(struct add_cow_header_disk), a->header_bytes);
        if (length > ADD_COW_NAME_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: name of the %s is %" PRIu64
                               " bytes long, at most %d supported", what, length, ADD_COW_NAME_MOST);
        *name = calloc(1, length + 1);
        if (!*name)
                return vd_fail(err, -ENOMEM, "name of the %s", what);
        r = vd_file_read(img->file, *name, length, offset, err);
        if (!r && strlen(*name) != length && length - strlen(*name) > 1)
                r = vd_fail(err, VD_ECORRUPT, "header: name of the %s has a NUL inside", what);
        return r;
}

/* "raw" out of 16 bytes, terminated or not. */
static void take_format(char to[17], const char from[16])
{
        memcpy(to, from, 16);
        to[16] = 0;
}

static int check_header(const struct add_cow_header_disk *h, struct vd_error *err)
{
        uint32_t bits = le32_get(h->cluster_bits);

        if (memcmp(h->magic, "ACOW", 4) != 0)
                return vd_fail(err, VD_EFORMAT, "no 'ACOW' magic");
        if (bits < ADD_COW_BITS_LEAST || bits > ADD_COW_BITS_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: cluster bits %u, allowed are %d to %d", (unsigned)bits,
                               ADD_COW_BITS_LEAST, ADD_COW_BITS_MOST);
        if (le64_get(h->features))
                return vd_fail(err, VD_EUNSUPPORTED, "header: incompatible features 0x%" PRIx64 ", none are known",
                               le64_get(h->features));
        if (le32_get(h->header_bytes) != add_cow_header_bytes(bits))
                return vd_fail(err, VD_ECORRUPT, "header: its size is %u, expected %" PRIu64
                               " for clusters of %u bytes",
                               (unsigned)le32_get(h->header_bytes), add_cow_header_bytes(bits), 1u << bits);
        return 0;
}

static int read_header(struct vd_image *img, struct add_cow *a, struct vd_error *err)
{
        struct add_cow_header_disk *h = &a->header;
        char shown[64];
        int r = vd_file_read(img->file, h, sizeof(*h), 0, err);

        if (!r)
                r = check_header(h, err);
        if (r)
                return r;
        a->cluster = UINT64_C(1) << le32_get(h->cluster_bits);
        a->header_bytes = le32_get(h->header_bytes);
        a->all_allocated = le64_get(h->compatible) & ADD_COW_ALL_ALLOCATED;
        take_format(a->image_format, h->image_format);
        take_format(a->backing_format, h->backing_format);
        r = read_name(img, a, h->backing_offset, h->backing_length, "backing file", &a->backing_name, err);
        if (!r)
                r = read_name(img, a, h->image_offset, h->image_length, "image file", &a->image_name, err);
        if (r)
                return r;
        if (!a->image_name)
                return vd_fail(err, VD_ECORRUPT, "header: no name of the image file");
        if (strcmp(a->image_format, "raw") != 0)
                return vd_fail(err, VD_EUNSUPPORTED, "header: the image file is of format '%s', only raw is supported",
                               vd_printable(shown, sizeof(shown), a->image_format, strlen(a->image_format)));
        return 0;
}

/* Opens the image file, or only asks for its length when no references are to be opened. */
static int open_image_file(struct vd_image *img, struct add_cow *a, struct vd_error *err)
{
        struct vd_error why = VD_ERROR_INIT;
        uint64_t size;
        struct stat st;
        int fd, r = vd_image_open_member(img, a->image_name, &a->image, &why);

        if (r && img->no_references) {
                r = vd_image_member_size(img, a->image_name, &size, err);
        } else if (r) {
                *err = why;
        } else {
                size = vd_file_size(a->image);
                fd = vd_file_fd(a->image);
                if (fd >= 0 && !fstat(fd, &st) && vd_file_is(img->file, &st))
                        r = vd_fail(err, VD_ECORRUPT, "header: the image file is the add-cow file itself");
        }
        if (!r)
                img->size = vd_round_down(size, ADD_COW_SECTOR);
        return r;
}

static int add_parent(struct vd_image *img, const struct add_cow *a, struct vd_error *err)
{
        if (a->all_allocated || !a->backing_name)
                return 0;
        if (a->backing_format[0] && !(img->parent_ref.format = strdup(a->backing_format)))
                return vd_fail(err, -ENOMEM, "format of the backing file");
        return vd_image_add_parent_name(img, a->backing_name, "header", err);
}

int add_cow_open_bitmap(struct vd_image *img, struct vd_error *err)
{
        enum { PAGES = 256 };
        struct add_cow *a = img->state;

        a->clusters = vd_div_up(img->size, a->cluster);
        img->unit = a->cluster;
        img->write_unit = a->all_allocated ? 1 : a->cluster;
        a->bitmap.page = vd_min(a->cluster, 4096);
        a->bitmap.position = a->header_bytes;
        if (img->is_new)
                a->bitmap.stored = UINT64_MAX - a->header_bytes;
        else if (vd_file_size(img->file) > a->header_bytes)
                a->bitmap.stored = vd_file_size(img->file) - a->header_bytes;
        a->bitmap.cache = vd_cache_new(img->file, a->header_bytes, a->bitmap.page, PAGES, img->writable &&
                                       !img->is_new);
        if (!a->bitmap.cache)
                return vd_fail(err, -ENOMEM, "cache of the bitmap");
        vd_cache_allow_short(a->bitmap.cache, 0);
        return 0;
}

static int add_cow_open(struct vd_image *img, struct vd_error *err)
{
        struct add_cow *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return vd_fail(err, -ENOMEM, "add-cow header");
        img->state = a;
        r = read_header(img, a, err);
        if (!r)
                r = open_image_file(img, a, err);
        if (!r)
                r = add_parent(img, a, err);
        if (!r)
                r = add_cow_open_bitmap(img, err);
        if (!r && img->writable && !a->all_allocated && a->bitmap.stored < vd_div_up(a->clusters, 8))
                r = vd_fail(err, VD_ECORRUPT, "the file ends at %" PRIu64 ", inside the bitmap of %" PRIu64
                            " bytes at %" PRIu64, vd_file_size(img->file), vd_div_up(a->clusters, 8), a->header_bytes);
        if (r)
                add_cow_close(img);
        return r;
}

static int add_cow_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        const struct add_cow *a = child->state;
        struct stat st;

        if (fstat(vd_file_fd(a->image), &st))
                return vd_fail(err, -errno, "%s", vd_file_name(a->image));
        if (vd_image_uses(parent, &st))
                return vd_fail(err, VD_EPARENT, "%s is the image file of the add-cow, too", vd_file_name(a->image));
        return 0;
}

/* ---- map ---- */

/* Bytes of the image file. */
static int map_image(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct add_cow *a = img->state;
        uint64_t size, end;
        bool data = false;
        int r = 0;

        if (!a->image)
                return vd_fail(err, VD_EPOLICY, "guest offset %" PRIu64 " is in the image file, which is not open",
                               offset);
        size = vd_file_size(a->image);
        end = img->size;
        if (offset < size)
                r = vd_file_next(a->image, offset, &data, &end, err);
        else if (!img->is_new)
                r = vd_fail(err, VD_ECORRUPT, "%s ends at %" PRIu64 ", before guest offset %" PRIu64,
                            vd_file_name(a->image), size, offset);
        if (r)
                return r;
        *ext = (struct vd_extent){ .start = offset, .length = vd_min(max, vd_min(end, img->size) - offset),
                                   .kind = data ? VD_DATA : VD_ZERO, .is_hole = !data, .file = a->image,
                                   .position = offset };
        return 0;
}

static int add_cow_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct add_cow *a = img->state;
        uint64_t first = offset / a->cluster, run, length = vd_min(max, img->size - offset);
        bool set;
        int r;

        if (a->all_allocated)
                return map_image(img, offset, max, ext, err);
        r = vd_bitmap_run(&a->bitmap, first, vd_div_up(offset + length, a->cluster), &set, &run, err);
        if (r)
                return r;
        length = vd_min(length, (first + run) * a->cluster - offset);
        if (set)
                return map_image(img, offset, length, ext, err);
        *ext = (struct vd_extent){ .start = offset, .length = length,
                                   .kind = a->backing_name ? VD_UNALLOCATED : VD_ZERO };
        return 0;
}

static void add_cow_describe(struct vd_image *img, struct vd_report *report)
{
        const struct add_cow *a = img->state;

        vd_report_text(report, "image-file", "image file", a->image_name);
        vd_report_text(report, "image-format", "format of image file", a->image_format);
        vd_report_flag(report, "all-allocated", "all allocated", a->all_allocated);
        if (a->all_allocated && a->backing_name)
                vd_report_text(report, "ignored-backing-file", "backing file (ignored)", a->backing_name);
        vd_report_bytes(report, "header-size", "header size", a->header_bytes);
        vd_report_textf(report, "compat-features", "compatible features", "0x%" PRIx64, le64_get(a->header.compatible));
        if (!a->all_allocated)
                vd_report_bytes(report, "bitmap-size", "bitmap size", vd_div_up(a->clusters, 8));
}

static const char *const aliases[] = { "add_cow", NULL };
static const char *const extensions[] = { "add-cow", NULL };

const struct vd_format vd_format_add_cow = {
        .name = "add-cow", .title = "QEMU add-cow bitmap over a raw image", .aliases = aliases,
        .extensions = extensions,
        .caps = VD_CAP_BACKING,
        .probe = add_cow_probe, .open = add_cow_open, .close = add_cow_close, .map = add_cow_map,
        .accept_parent = add_cow_accept_parent, .describe = add_cow_describe, .walk = add_cow_walk,
        .check = add_cow_check,
        .params_size = sizeof(struct add_cow_params), .create_opts = add_cow_create_opts, .create = add_cow_create,
        .place = add_cow_place, .publish = add_cow_publish, .flush = add_cow_flush, .finish = add_cow_finish,
};
