// SPDX-License-Identifier: MIT
/* cow.c: copy-on-write files of user-mode Linux and of early QEMU (reference: docs/formats.md, "cow")
 *
 *      [ header with the parent's path ][ bitmap: one bit per sector ][ sectors at the guest's offsets ]
 *
 * A set bit means this file, a clear one the parent.
 * Three versions, and for each the layouts that compilers made of the same struct: sizes and alignment tell which.
 * Only read.
 * Quirk: versions 1 and 2 of user-mode Linux round the length of the bitmap down; the last bits stand in the padding.
 * Cost: pages of the bitmap.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/check.h"
#include "core/image.h"
#include "formats/shared/bitmap.h"
#include "util/checked.h"
#include "util/endian.h"

enum {
        MAGIC_BYTES = 4,
        HEADER_MOST = 4136,             /* of all layouts */
        SECTOR_LEAST = 512, SECTOR_MOST = 4096,
        ALIGNMENT_MOST = 1 << 30,
        QEMU_SECTOR = 512,
};

/* Offsets in the header; 0: not there. */
struct layout {
        const char *name;
        uint8_t version;
        bool is_qemu;
        uint16_t path, path_bytes, mtime, size, sector, alignment, kind, header_bytes;
};

/* In the order in which they are tried. */
static const struct layout layouts[] = {
        { "version 1", 1, false, 8, 256, 264, 268, 276, 0, 0, 280 },
        { "version 1, 64-bit", 1, false, 8, 256, 264, 272, 280, 0, 0, 288 },
        { "version 2, QEMU", 2, true, 8, 1024, 1032, 1040, 1048, 0, 0, 1056 },
        { "version 2, QEMU 32-bit", 2, true, 8, 1024, 1032, 1036, 1044, 0, 0, 1048 },
        { "version 2", 2, false, 8, 4096, 4104, 4108, 4116, 0, 0, 4120 },
        { "version 2, 64-bit", 2, false, 8, 4096, 4104, 4112, 4120, 0, 0, 4128 },
        { "version 3", 3, false, 32, 4096, 8, 12, 20, 24, 28, 4128 },
        { "version 3, 64-bit before 2005", 3, false, 36, 4096, 8, 16, 24, 28, 32, 4136 },
};

struct cow {
        const struct layout *layout;
        bool is_little;                 /* version 1 has the byte order of its machine */
        uint32_t version, mtime, sector, alignment;
        uint64_t unit, units;           /* what a bit stands for, and how many there are */
        uint64_t data_offset;
        char *path;
        struct vd_bitmap bitmap;
};

static uint32_t get32(const struct cow *c, const uint8_t *at)
{
        return c->is_little ? le32_get(*(const le32 *)(const void *)at) : be32_get(*(const be32 *)(const void *)at);
}

static uint64_t get64(const struct cow *c, const uint8_t *at)
{
        return c->is_little ? le64_get(*(const le64 *)(const void *)at) : be64_get(*(const be64 *)(const void *)at);
}

/* Magic and version; false when this is no cow. */
static bool read_magic(struct cow *c, const uint8_t *head, size_t bytes)
{
        if (bytes < 2 * MAGIC_BYTES || (memcmp(head, "OOOM", 4) != 0 && memcmp(head, "MOOO", 4) != 0))
                return false;
        c->is_little = head[0] == 'M';
        c->version = get32(c, head + MAGIC_BYTES);
        return c->version == 1 || ((c->version == 2 || c->version == 3) && !c->is_little);
}

static enum vd_match cow_probe(const struct vd_probe *probe)
{
        struct cow c = { 0 };

        return read_magic(&c, probe->head, probe->head_bytes) ? VD_MATCH_WEAK : VD_MATCH_NO;
}

static void cow_close(struct vd_image *img)
{
        struct cow *c = img->state;

        if (!c)
                return;
        vd_cache_free(c->bitmap.cache);
        free(c->path);
        free(c);
        img->state = NULL;
}

/* Where bitmap and data are in this layout.  False when the numbers make no sense in it. */
static bool try_layout(struct cow *c, const struct layout *l, const uint8_t *head, uint64_t file_size, uint64_t *disk)
{
        uint64_t size = get64(c, head + l->size), align, bitmap_bytes, end;

        c->sector = get32(c, head + l->sector);
        c->alignment = l->alignment ? get32(c, head + l->alignment) : 0;
        if (!vd_is_pow2(c->sector) || c->sector < SECTOR_LEAST || c->sector > SECTOR_MOST || !size ||
            size > INT64_MAX / 2 || size % c->sector || !memchr(head + l->path, 0, l->path_bytes))
                return false;
        if (l->alignment && (!c->alignment || c->alignment > ALIGNMENT_MOST))
                return false;
        c->unit = l->is_qemu ? QEMU_SECTOR : c->sector;
        c->units = vd_div_up(size, c->unit);
        align = l->alignment ? c->alignment : c->unit;
        c->bitmap.position = l->alignment ? vd_round_up(l->header_bytes, c->alignment) : l->header_bytes;
        bitmap_bytes = l->is_qemu || l->alignment ? vd_div_up(c->units, 8) : c->units / 8;
        end = c->bitmap.position + bitmap_bytes;
        c->data_offset = vd_round_up(end, align);
        c->layout = l;
        *disk = size;
        return end <= file_size;
}

static int read_header(struct vd_image *img, struct cow *c, struct vd_error *err)
{
        uint8_t head[HEADER_MOST] = { 0 };
        size_t got, i = 0, count = sizeof(layouts) / sizeof(layouts[0]);
        int r = vd_file_read_some(img->file, head, sizeof(head), 0, &got, err);

        if (r)
                return r;
        if (!read_magic(c, head, got))
                return vd_fail(err, VD_EFORMAT, "no cow magic of a known version");
        for (; i < count; i++) {
                const struct layout *l = &layouts[i];

                if (l->version != c->version || got < l->header_bytes)
                        continue;
                /* The path begins where the early layout has its kind, which is 0. */
                if (c->version == 3 && (l->path == 36) != (get32(c, head + 32) == 0))
                        continue;
                if (try_layout(c, l, head, vd_file_size(img->file), &img->size))
                        break;
        }
        if (i == count)
                return vd_fail(err, VD_ECORRUPT, "header of version %u: size, sector size, alignment and length of "
                               "the file fit none of the known layouts", (unsigned)c->version);
        if (c->layout->kind && get32(c, head + c->layout->kind))
                return vd_fail(err, VD_EUNSUPPORTED, "header: kind %u, known is 0 (bitmap)",
                               (unsigned)get32(c, head + c->layout->kind));
        c->mtime = get32(c, head + c->layout->mtime);
        c->path = strdup((const char *)head + c->layout->path);
        return c->path ? 0 : vd_fail(err, -ENOMEM, "path of the parent");
}

static int open_bitmap(struct vd_image *img, struct cow *c, struct vd_error *err)
{
        enum { PAGE = 4096, PAGES = 256 };

        c->bitmap.page = PAGE;
        c->bitmap.stored = vd_min(c->data_offset, vd_file_size(img->file)) - c->bitmap.position;
        c->bitmap.cache = vd_cache_new(img->file, c->bitmap.position, PAGE, PAGES, false);
        if (!c->bitmap.cache)
                return vd_fail(err, -ENOMEM, "cache of the bitmap");
        vd_cache_allow_short(c->bitmap.cache, 0);
        return 0;
}

static int cow_open(struct vd_image *img, struct vd_error *err)
{
        struct cow *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return vd_fail(err, -ENOMEM, "cow header");
        img->state = c;
        r = read_header(img, c, err);
        if (!r && img->writable)
                r = vd_fail(err, VD_EUNSUPPORTED, "cow images are only read");
        if (!r)
                r = open_bitmap(img, c, err);
        /* User-mode Linux puts it on raw files only, QEMU on anything. */
        if (!r && c->path[0] && !c->layout->is_qemu && !(img->parent_ref.format = strdup("raw")))
                r = vd_fail(err, -ENOMEM, "format of the parent");
        if (!r && c->path[0])
                r = vd_image_add_parent_name(img, c->path, "header", err);
        if (r)
                cow_close(img);
        return r;
}

/* A parent that was changed later makes this file worthless; but the time may only have been lost in a copy. */
static int cow_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        const struct cow *c = child->state;
        struct stat st;

        (void)err;
        if (c->mtime && vd_file_fd(parent->file) >= 0 && !fstat(vd_file_fd(parent->file), &st) &&
            (uint32_t)st.st_mtime != c->mtime)
                vd_image_warn(child, "the parent was last changed at %" PRIu32 ", not at %" PRIu32
                              " as recorded: it may not be the one, or not as it was", (uint32_t)st.st_mtime, c->mtime);
        return 0;
}

static int cow_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct cow *c = img->state;
        uint64_t length = vd_min(max, img->size - offset), first = offset / c->unit, run;
        uint64_t size = vd_file_size(img->file), position = c->data_offset + offset;
        bool set;
        int r = vd_bitmap_run(&c->bitmap, first, vd_div_up(offset + length, c->unit), &set, &run, err);

        if (r)
                return r;
        *ext = (struct vd_extent){ .start = offset, .length = vd_min(length, (first + run) * c->unit - offset),
                                   .kind = c->path[0] ? VD_UNALLOCATED : VD_ZERO };
        if (!set)
                return 0;
        if (position >= size)
                return vd_fail(err, VD_ECORRUPT, "guest offset %" PRIu64 " is at %" PRIu64 ", but the file ends at %"
                               PRIu64, offset, position, size);
        ext->length = vd_min(ext->length, size - position);
        ext->kind = VD_DATA;
        ext->file = img->file;
        ext->position = position;
        return 0;
}

static void cow_describe(struct vd_image *img, struct vd_report *report)
{
        const struct cow *c = img->state;

        vd_report_count(report, "version", "version", c->version);
        vd_report_text(report, "layout", "layout", c->layout->name);
        vd_report_count(report, "sector-size", "sector size", c->sector);
        if (c->alignment)
                vd_report_count(report, "alignment", "alignment", c->alignment);
        if (c->mtime)
                vd_report_count(report, "backing-mtime", "parent changed at", c->mtime);
        vd_report_offset(report, "bitmap-offset", "bitmap at", c->bitmap.position);
        vd_report_offset(report, "data-offset", "data at", c->data_offset);
}

static int cow_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct cow *c = img->state;
        uint64_t size = vd_file_size(img->file);
        struct vd_region regions[] = {
                { .class = VD_CLASS_HEADER, .length = c->bitmap.position, .guest = VD_NOWHERE, .what = "header" },
                { .class = VD_CLASS_TABLE, .position = c->bitmap.position, .length = c->bitmap.stored,
                  .guest = VD_NOWHERE, .what = "bitmap" },
                { .class = VD_CLASS_DATA, .position = c->data_offset, .guest = 0, .what = "data",
                  .length = size > c->data_offset ? vd_min(size - c->data_offset, img->size) : 0 },
        };
        int r = vd_check_begin(check, 1, size, err);

        for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]) && !r; i++)
                if (regions[i].length)
                        r = vd_check_region(check, &regions[i], err);
        return r;
}

/* Bits past the last sector, in the last byte of the bitmap. */
static int check_spare_bits(const struct cow *c, struct vd_findings *findings, struct vd_error *err)
{
        uint64_t end = vd_round_up(c->units, 8), run = 0;
        bool set = false;
        int r = 0;

        for (uint64_t at = c->units; at < end && !set && !r && at / 8 < c->bitmap.stored; at += run)
                r = vd_bitmap_run(&c->bitmap, at, end, &set, &run, err);
        if (!r && set)
                vd_find(findings, VD_WARNING, "cow-spare-bits", c->bitmap.position + c->units / 8, 1, VD_NOWHERE, 0,
                        false, "bits are set behind the last sector (%" PRIu64 ")", c->units - 1);
        return r;
}

static int cow_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct cow *c = img->state;
        struct vd_findings *findings = &check->findings;
        uint64_t size = vd_file_size(img->file), present = size > c->data_offset ? (size - c->data_offset) / c->unit
        : 0;

        findings->total_units = c->units;
        for (uint64_t at = 0, run; at < c->units; at += run) {
                bool set;
                int r;

                if (at / 8 >= c->bitmap.stored) {
                        vd_find(findings, VD_ERROR, "cow-bitmap-short", c->bitmap.position, c->bitmap.stored,
                                at * c->unit, img->size - at * c->unit, false, "sectors from %" PRIu64
                                " on have no bit: data begins at %" PRIu64, at, c->data_offset);
                        return 0;
                }
                r = vd_bitmap_run(&c->bitmap, at, c->units, &set, &run, err);
                if (r)
                        return r;
                findings->allocated_units += set ? run : 0;
                if (set && at + run > present) {
                        uint64_t from = vd_max(at, present);

                        vd_find(findings, VD_ERROR, "cow-truncated", c->data_offset + from * c->unit,
                                (at + run - from) * c->unit, from * c->unit, (at + run - from) * c->unit, false,
                                "%" PRIu64 " sectors from %" PRIu64 " on are in this file, which ends before",
                                at + run - from, from);
                }
        }
        return check_spare_bits(c, findings, err);
}

static const char *const extensions[] = { "cow", NULL };

const struct vd_format vd_format_cow = {
        .name = "cow", .title = "copy-on-write file of user-mode Linux", .extensions = extensions,
        .caps = VD_CAP_BACKING,
        .probe = cow_probe, .open = cow_open, .close = cow_close, .map = cow_map, .accept_parent = cow_accept_parent,
        .describe = cow_describe, .walk = cow_walk, .check = cow_check,
};
