// SPDX-License-Identifier: MIT
/* vhd_check.c: who uses which part of the file, and what only this format can know to be wrong. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/iszero.h"
#include "vhd.h"

enum { CHECK_BYTES = 256 * 1024 };

struct check_buffers {
        uint8_t bits[VHD_BLOCK_MAX / VHD_SECTOR / 8];
        uint8_t data[CHECK_BYTES];
};

static int region(struct vd_check *check, enum vd_class class, uint64_t position, uint64_t length, const char *what,
                  struct vd_error *err)
{
        struct vd_region r = { .class = class, .position = position, .length = length, .guest = VD_NOWHERE,
                               .what = what };

        return length ? vd_check_region(check, &r, err) : 0;
}

static int walk_locators(const struct vhd *vhd, struct vd_check *check, struct vd_error *err)
{
        int rc = 0;

        for (size_t i = 0; i < VHD_LOCATORS && !rc; i++) {
                const struct vhd_locator *l = &vhd->locators[i];

                if (l->platform[0] && !l->room && l->length)
                        vd_find(&check->findings, VD_WARNING, "vhd-locator", l->offset, l->length, VD_NOWHERE, 0, true,
                                "parent locator %zu (%s): %" PRIu32 " bytes at %" PRIu64 " lie past %" PRIu64
                                ", where blocks end", i, l->platform, l->length, l->offset, vhd->end);
                /* Only the text: some writers claim more room than there is between two structures. */
                else if (l->platform[0])
                        rc = region(check, VD_CLASS_HEADER, l->offset, l->length, "parent locator", err);
        }
        return rc;
}

int vhd_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = vd_check_begin(check, VHD_SECTOR, vd_file_size(img->file), err);

        if (!rc)
                rc = region(check, VD_CLASS_HEADER, vhd->end, vhd->back_bytes, "footer", err);
        check->findings.end_offset = vhd->end + vhd->back_bytes;
        if (!rc && vhd->type == VHD_FIXED)
                return region(check, VD_CLASS_DATA, 0, vhd->end, "guest data", err);
        if (!rc)
                rc = region(check, VD_CLASS_HEADER, 0, VHD_SECTOR, "footer copy", err);
        if (!rc)
                rc = region(check, VD_CLASS_HEADER, vhd->header_offset, sizeof(vhd->header), "dynamic header", err);
        if (!rc)
                rc = region(check, VD_CLASS_TABLE, be64_get(vhd->header.table_offset),
                            4ull * be32_get(vhd->header.entries), "BAT", err);
        if (!rc && vhd->batmap_position) {
                rc = region(check, VD_CLASS_HEADER, vhd->batmap_position, sizeof(vhd->batmap), "batmap header", err);
                if (!rc)
                        rc = region(check, VD_CLASS_SUBTABLE, be64_get(vhd->batmap.offset),
                                    (uint64_t)be32_get(vhd->batmap.sectors) * VHD_SECTOR, "batmap", err);
        }
        if (!rc)
                rc = walk_locators(vhd, check, err);
        return rc < 0 ? rc : vd_blocktable_walk(&vhd->table, check, err);
}

static void check_footers(const struct vhd *vhd, struct vd_findings *f)
{
        if (vhd->front == VHD_COPY_BAD)
                vd_find(f, VD_ERROR, "vhd-footer-copy", 0, VHD_SECTOR, VD_NOWHERE, 0, true,
                        "the copy of the footer at 0 is damaged: %s", vhd->front_fault);
        if (vhd->back == VHD_COPY_BAD)
                vd_find(f, VD_ERROR, "vhd-footer", vhd->end, VHD_SECTOR, VD_NOWHERE, 0, true,
                        "the footer at the end of the file is damaged: %s", vhd->back_fault);
        if (vhd->back == VHD_COPY_DIFFERS)
                vd_find(f, VD_ERROR, "vhd-footer-differs", vhd->end, VHD_SECTOR, VD_NOWHERE, 0, true,
                        "the footer at the end of the file is not the same as its copy at 0");
        if (vhd->back_bytes == VHD_OLD_FOOTER)
                vd_find(f, VD_WARNING, "vhd-footer-short", vhd->end, VHD_OLD_FOOTER, VD_NOWHERE, 0, true,
                        "the footer has 511 bytes, as Virtual PC before 2004 wrote it; 512 is right");
}

static void check_footer_fields(const struct vhd *vhd, const struct vd_image *img, struct vd_findings *f)
{
        const struct vhd_footer_disk *footer = &vhd->footer;
        uint64_t at = vhd->front == VHD_COPY_GOOD ? 0 : vhd->end, current = be64_get(footer->current_size);
        struct vd_chs chs = vhd_chs(footer), usual = vd_chs_of_sectors(current / VHD_SECTOR);
        int64_t ahead = (int64_t)be32_get(footer->time_stamp) + VHD_EPOCH - vd_identity_time();

        if (be32_get(footer->version) != 0x00010000)
                vd_find(f, VD_WARNING, "vhd-footer-version", at + 12, 4, VD_NOWHERE, 0, true,
                        "footer version 0x%08" PRIx32 ", only 0x00010000 exists", be32_get(footer->version));
        if ((be32_get(footer->features) & ~1u) != 2)
                vd_find(f, VD_WARNING, "vhd-footer-features", at + 8, 4, VD_NOWHERE, 0, true,
                        "footer features 0x%08" PRIx32 ": bit 1 must be set, and none but bit 0 beside it",
                        be32_get(footer->features));
        if (current % VHD_SECTOR)
                vd_find(f, VD_WARNING, "vhd-size", at + 48, 8, VD_NOWHERE, 0, false,
                        "size %" PRIu64 " is not a multiple of 512", current);
        if (vhd->type == VHD_FIXED && be64_get(footer->data_offset) != UINT64_MAX)
                vd_find(f, VD_NOTE, "vhd-data-offset", at + 16, 8, VD_NOWHERE, 0, true,
                        "data offset 0x%" PRIx64 " of a fixed disk, all ones is right", be64_get(footer->data_offset));
        if (vhd->type == VHD_FIXED && vhd->end > current)
                vd_find(f, VD_WARNING, "vhd-fixed-length", current, vhd->end - current, VD_NOWHERE, 0, false,
                        "%" PRIu64 " bytes between the end of the disk and the footer", vhd->end - current);
        if (memcmp(&chs, &usual, sizeof(chs)) && !vd_chs_is_largest(chs))
                vd_find(f, VD_NOTE, "vhd-geometry", at + 56, 4, VD_NOWHERE, 0, true,
                        "geometry %u/%u/%u, for %" PRIu64 " bytes it is %u/%u/%u", chs.cylinders, chs.heads,
                        chs.sectors, current, usual.cylinders, usual.heads, usual.sectors);
        if (img->size < current - current % VHD_SECTOR)
                vd_find(f, VD_WARNING, "vhd-size-rule", at + 48, 8, img->size, current - img->size, false,
                        "creator '%.4s' and geometry make the disk %" PRIu64 " bytes long, the size field says %"
                        PRIu64, footer->creator, img->size, current);
        if (vd_guid_is_zero(footer->id))
                vd_find(f, VD_WARNING, "vhd-id-zero", at + 68, 16, VD_NOWHERE, 0, true,
                        "the unique id is zero: the disk cannot be a parent");
        if (ahead > 30 * 60)
                vd_find(f, VD_NOTE, "vhd-time", at + 24, 4, VD_NOWHERE, 0, false,
                        "it was created in the future, %" PRId64 " seconds from now", ahead);
        if (footer->saved_state)
                vd_find(f, VD_NOTE, "vhd-saved-state", at + 84, 1, VD_NOWHERE, 0, false,
                        "a suspended virtual machine depends on this disk");
}

static void check_header(const struct vhd *vhd, struct vd_findings *f)
{
        const struct vhd_header_disk *h = &vhd->header;
        uint64_t at = vhd->header_offset;

        if (be64_get(h->next_offset) != UINT64_MAX)
                vd_find(f, VD_NOTE, "vhd-next-offset", at + 8, 8, VD_NOWHERE, 0, true,
                        "next offset 0x%" PRIx64 " of the dynamic header, all ones is right", be64_get(h->next_offset));
        if (!vhd_is_differencing(vhd) && !vd_is_zero(h->parent_id, sizeof(h->parent_id)))
                vd_find(f, VD_WARNING, "vhd-parent-fields", at + 40, sizeof(h->parent_id), VD_NOWHERE, 0, true,
                        "a dynamic disk names a parent id");
        if (!vhd_is_differencing(vhd) && !vd_is_zero(h->locators, sizeof(h->locators)))
                vd_find(f, VD_WARNING, "vhd-parent-fields", at + 576, sizeof(h->locators), VD_NOWHERE, 0, true,
                        "a dynamic disk has parent locators");
        if (vhd->batmap_position) {
                uint32_t found = be32_get(vhd->batmap.checksum);

                if (!be32_get(vhd->batmap.sectors) && found != UINT32_MAX)
                        vd_find(f, VD_WARNING, "vhd-batmap", vhd->batmap_position, sizeof(vhd->batmap), VD_NOWHERE, 0,
                                true, "XenServer batmap is empty, but has checksum 0x%08" PRIx32, found);
        }
}

/* How many of the sectors, at most `most`, read as zeros without being there: holes of the host's file. */
static int sectors_of_hole(struct vd_file *file, uint64_t position, uint64_t most, uint64_t *sectors,
                           struct vd_error *err)
{
        uint64_t end;
        bool data;
        int rc = vd_file_next(file, position, &data, &end, err);

        *sectors = data ? 0 : vd_min(most, (end - position) / VHD_SECTOR);
        return rc;
}

/* Is there data where the bitmap of a dynamic disk's block says that nothing was written? */
static int find_unmarked(struct vd_image *img, uint64_t block, const struct vd_block *value, struct check_buffers *b,
                         struct vd_findings *f, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t bytes = vd_min(vhd->block_bytes, img->size - block * vhd->block_bytes);
        uint64_t sectors = vd_div_up(bytes, VHD_SECTOR), found = 0, first = 0, run;
        int rc = vd_file_read(img->file, b->bits, vhd->bitmap_bytes, value->position - vhd->bitmap_bytes, err);

        for (uint64_t s = 0; s < sectors && !rc; s += run) {
                uint64_t at = value->position + s * VHD_SECTOR, hole;
                bool set;

                run = vd_bits_run(b->bits, s, sectors, true, &set);
                if (set)
                        continue;
                rc = sectors_of_hole(img->file, at, run, &hole, err);
                run = hole ? hole : vd_min(run, CHECK_BYTES / VHD_SECTOR);
                if (rc < 0 || hole)
                        continue;
                rc = vd_file_read(img->file, b->data, run * VHD_SECTOR, at, err);
                for (uint64_t i = 0; i < run && !rc; i++)
                        if (!vd_is_zero(b->data + i * VHD_SECTOR, VHD_SECTOR) && !found++)
                                first = s + i;
        }
        if (!rc && found)
                vd_find(f, VD_WARNING, "vhd-bitmap-clear", value->position + first * VHD_SECTOR, found * VHD_SECTOR,
                        block * vhd->block_bytes + first * VHD_SECTOR, found * VHD_SECTOR, true,
                        "block %" PRIu64 ": %" PRIu64 " sectors hold data although their bits are clear, the first is %"
                        PRIu64, block, found, first);
        return rc;
}

/* QEMU appends blocks without clearing the space: an old footer behind the last block becomes guest data. */
static int find_old_footer(struct vd_image *img, uint64_t block, const struct vd_block *value,
                           struct check_buffers *b, struct vd_findings *f, struct vd_error *err)
{
        enum { NEAR = 16 };             /* sectors; writers pad to 4 KiB */
        struct vhd *vhd = img->state;
        size_t got;
        int rc = vd_file_read_some(img->file, b->data, vd_min(NEAR * VHD_SECTOR, vhd->block_bytes), value->position,
                                   &got, err);

        for (size_t at = 0; at + VHD_SECTOR <= got && !rc; at += VHD_SECTOR) {
                const struct vhd_footer_disk *old = (const void *)(b->data + at);

                if (!memcmp(old->cookie, vhd->footer.cookie, sizeof(old->cookie)) &&
                    !memcmp(old->id, vhd->footer.id, sizeof(old->id)))
                        vd_find(f, VD_ERROR, "vhd-footer-in-data", value->position + at, VHD_SECTOR,
                                block * vhd->block_bytes + at, VHD_SECTOR, false,
                                "block %" PRIu64 ": sector %zu is an old footer of this image, not guest data", block,
                                at / VHD_SECTOR);
        }
        return rc;
}

static int check_blocks(struct vd_image *img, struct vd_findings *f, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        VD_AUTOFREE struct check_buffers *b = malloc(sizeof(*b));
        uint64_t blocks = vd_div_up(img->size, vhd->block_bytes);
        int rc = 0;

        if (!b)
                return vd_fail(err, -ENOMEM, "no memory to check blocks");
        for (uint64_t block = 0; block < blocks && !rc; ) {
                struct vd_error known = VD_ERROR_INIT;          /* found by the walk */
                struct vd_extent run;
                struct vd_block value;
                bool partial;

                if (vd_blocktable_map(&vhd->table, block * vhd->block_bytes, UINT64_MAX, &run, &partial, &known) < 0) {
                        block++;
                        continue;
                }
                if (run.kind != VD_DATA) {
                        block += vd_div_up(run.length, vhd->block_bytes);
                        continue;
                }
                value = (struct vd_block){ .kind = VD_DATA, .position = run.position };
                if (vhd->type == VHD_DYNAMIC)
                        rc = find_unmarked(img, block, &value, b, f, err);
                if (!rc && !vd_guid_is_zero(vhd->footer.id))
                        rc = find_old_footer(img, block, &value, b, f, err);
                block++;
        }
        return rc;
}

/* Space between structures: alignment is normal, room for a whole block is lost space. */
static void check_unused(const struct vhd *vhd, struct vd_check *check)
{
        uint64_t index = 0, length = 0, count, block = (uint64_t)vhd->block_bytes + vhd->bitmap_bytes;
        enum vd_class class;

        for (; vd_spacemap_next(check->space, &index, &length, &count, &class); index += length)
                if (class == VD_CLASS_FREE && length * VHD_SECTOR >= block)
                        vd_find(&check->findings, VD_LEAK, "vhd-unused", index * VHD_SECTOR, length * VHD_SECTOR,
                                VD_NOWHERE, 0, true, "%" PRIu64 " bytes at %" PRIu64 " belong to nobody",
                                length * VHD_SECTOR, index * VHD_SECTOR);
}

int vhd_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vhd *vhd = img->state;

        check_footers(vhd, &check->findings);
        check_footer_fields(vhd, img, &check->findings);
        if (vhd->type == VHD_FIXED)
                return 0;
        check_header(vhd, &check->findings);
        check_unused(vhd, check);
        return check_blocks(img, &check->findings, err);
}
