// SPDX-License-Identifier: MIT
/* vhd_open.c: recognising a VHD, choosing between the copies of its footer, joining split disks, the size rule. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/text.h"
#include "vhd.h"

static const char cookie[8] = "conectix", header_cookie[8] = "cxsparse", batmap_cookie[8] = "tdbatmap";
static const char disabled_cookie[8] = "v_poison";      /* XenServer: a disk that must not be used any more */

static const char no_cookie[] = "there is none";

static bool is_footer(const uint8_t *bytes)
{
        return !memcmp(bytes, cookie, sizeof(cookie)) || !memcmp(bytes, disabled_cookie, sizeof(disabled_cookie));
}

enum vd_match vhd_probe(const struct vd_probe *probe)
{
        const uint8_t *tail = probe->tail + probe->tail_bytes;

        if (probe->head_bytes >= sizeof(cookie) && is_footer(probe->head))
                return VD_MATCH_SURE;
        if (probe->tail_bytes >= VHD_SECTOR && is_footer(tail - VHD_SECTOR))
                return VD_MATCH_SURE;
        if (probe->tail_bytes >= VHD_OLD_FOOTER && probe->file_size % VHD_SECTOR == VHD_OLD_FOOTER &&
            is_footer(tail - VHD_OLD_FOOTER))
                return VD_MATCH_SURE;
        return VD_MATCH_NO;
}

/* XenServer's first versions set the hidden byte without computing the checksum again. */
static bool checksum_is_right(const struct vhd_footer_disk *footer)
{
        uint32_t found = be32_get(footer->checksum);
        bool old_xen = !memcmp(footer->creator, "tap", 4) && be16_get(footer->creator_major) <= 1 &&
                       be16_get(footer->creator_minor) <= 1;

        if (found == vhd_checksum(footer, sizeof(*footer), offsetof(struct vhd_footer_disk, checksum)))
                return true;
        if (!old_xen)
                return false;

        struct vhd_footer_disk shown = *footer;

        shown.hidden = 0;
        return found == vhd_checksum(&shown, sizeof(shown), offsetof(struct vhd_footer_disk, checksum));
}

int vhd_judge_footer(const struct vhd_footer_disk *footer, char fault[128])
{
        uint32_t type = be32_get(footer->type);

        if (!memcmp(footer->cookie, disabled_cookie, sizeof(disabled_cookie))) {
                snprintf(fault, 128, "XenServer has disabled this disk");
                return VD_EUNSUPPORTED;
        }
        if (memcmp(footer->cookie, cookie, sizeof(cookie))) {
                snprintf(fault, 128, "%s", no_cookie);
                return VD_EFORMAT;
        }
        if (!checksum_is_right(footer)) {
                snprintf(fault, 128, "checksum 0x%08" PRIx32 " where 0x%08" PRIx32 " is right",
                         be32_get(footer->checksum),
                         vhd_checksum(footer, sizeof(*footer), offsetof(struct vhd_footer_disk, checksum)));
                return VD_ECORRUPT;
        }
        if (type < VHD_FIXED || type > VHD_DIFFERENCING) {
                snprintf(fault, 128, "disk type %" PRIu32 " is none of 2 (fixed), 3 (dynamic), 4 (differencing)", type);
                return VD_ECORRUPT;
        }
        return 0;
}

/* Reads the footer at the end: of 512 bytes, else of 511.  Sets back, back_bytes, end. */
static int read_back(struct vd_image *img, struct vhd_footer_disk *footer, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t size = vd_file_size(img->file);
        int rc;

        memset(footer, 0, sizeof(*footer));
        vhd->back = VHD_COPY_BAD;
        vhd->back_bytes = 0;
        vhd->end = size;
        if (size >= VHD_SECTOR) {
                rc = vd_file_read(img->file, footer, VHD_SECTOR, size - VHD_SECTOR, err);
                if (rc < 0)
                        return rc;
                if (!vhd_judge_footer(footer, vhd->back_fault)) {
                        vhd->back = VHD_COPY_GOOD;
                        vhd->back_bytes = VHD_SECTOR;
                        vhd->end = size - VHD_SECTOR;
                        return 0;
                }
        }
        if (size % VHD_SECTOR == VHD_OLD_FOOTER) {
                struct vhd_footer_disk old = { 0 };
                char fault[128];

                rc = vd_file_read(img->file, &old, VHD_OLD_FOOTER, size - VHD_OLD_FOOTER, err);
                if (rc < 0)
                        return rc;
                if (!vhd_judge_footer(&old, fault)) {
                        *footer = old;
                        vhd->back = VHD_COPY_GOOD;
                        vhd->back_bytes = VHD_OLD_FOOTER;
                        vhd->end = size - VHD_OLD_FOOTER;
                }
        }
        return 0;
}

bool vhd_part_name(const char *path, size_t part, char *name, size_t room)
{
        const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
        size_t length = strlen(base);

        *name = '\0';
        if (length < 5 || strcasecmp(base + length - 4, ".vhd") != 0)
                return false;
        return (size_t)snprintf(name, room, "%.*s%c%02zu", (int)(length - 3), base, base[length - 3], part) < room;
}

/* Adds parts to the first one until there is a footer at the end; img->file becomes all of them.  No part: nothing
 * changes.  A part that is missing: *missing is its name. */
static int join_parts(struct vd_image *img, struct vhd_footer_disk *back, char *missing, size_t room,
                      struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = 0;

        while (!rc && vhd->back != VHD_COPY_GOOD && vhd->parts < VHD_PARTS &&
               vhd_part_name(img->path, vhd->parts, missing, room)) {
                struct vd_error why = VD_ERROR_INIT;
                struct vd_file *part, *joined = NULL;

                rc = vd_image_open_part(img, missing, &part, &why);
                if (rc < 0) {
                        if (rc != -ENOENT)
                                *err = why;
                        return rc == -ENOENT ? 0 : rc;
                }
                if (vhd->parts == 1)
                        rc = vd_file_join(&joined, &img->file, 1, vd_file_name(img->file), err);
                if (joined) {
                        vd_file_unref(img->file);
                        img->file = joined;
                }
                if (!rc)
                        rc = vd_file_join_add(img->file, part, err);
                vd_file_unref(part);
                vhd->parts++;
                if (!rc)
                        rc = read_back(img, back, err);
        }
        *missing = '\0';
        return rc;
}

static int no_footer(struct vd_image *img, int front_rc, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        char name[4096], shown[512];

        if (vd_file_size(img->file) < VHD_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "no footer: the file has only %" PRIu64 " bytes",
                               vd_file_size(img->file));
        if (front_rc == VD_EFORMAT && !strcmp(vhd->back_fault, no_cookie)) {
                bool splits = vhd_part_name(img->path, 1, name, sizeof(name));

                return vd_fail(err, VD_EFORMAT, "no footer at either end: this is no VHD, or it is cut short%s%s; "
                               "-f raw reads it as it is", splits ? " or misses its part " : "",
                               vd_printable(shown, sizeof(shown), name, strlen(name)));
        }
        return vd_fail(err, front_rc == VD_EUNSUPPORTED ? front_rc : VD_ECORRUPT,
                       "no usable footer: at 0: %s; at the end: %s", vhd->front_fault, vhd->back_fault);
}

/* Reads both footers, joins the parts of a split disk and chooses the footer that is used. */
static int read_footers(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vhd_footer_disk front = { 0 }, back;
        char missing[4096], shown[512], ids[2][VD_GUID_TEXT];
        size_t got;
        int rc = vd_file_read_some(img->file, &front, sizeof(front), 0, &got, err);

        if (rc < 0)
                return rc;
        int front_rc = vhd_judge_footer(&front, vhd->front_fault);

        if (!front_rc && be32_get(front.type) == VHD_FIXED) {
                snprintf(vhd->front_fault, sizeof(vhd->front_fault), "it is that of a fixed disk");
                front_rc = VD_ECORRUPT;
        }
        vhd->parts = 1;
        rc = read_back(img, &back, err);
        if (!rc && vhd->back != VHD_COPY_GOOD) {
                rc = join_parts(img, &back, missing, sizeof(missing), err);
                if (!rc && vhd->parts > 1 && vhd->back != VHD_COPY_GOOD)
                        rc = vd_fail(err, VD_ECORRUPT, "the disk is split: part %s is missing, or the %zu parts that "
                                     "are there do not end with a good footer (%s)",
                                     vd_printable(shown, sizeof(shown), missing, strlen(missing)), vhd->parts,
                                     vhd->back_fault);
                if (!rc && vhd->parts > 1 && !front_rc && memcmp(front.id, back.id, sizeof(front.id)))
                        rc = vd_fail(err, VD_ECORRUPT, "the %zu parts do not belong together: the first is of disk %s, "
                                     "the last of %s", vhd->parts, vd_guid_text(front.id, VD_GUID_RFC, ids[0]),
                                     vd_guid_text(back.id, VD_GUID_RFC, ids[1]));
        }
        if (rc < 0)
                return rc;

        vhd->front = front_rc ? VHD_COPY_BAD : VHD_COPY_GOOD;
        if (vhd->back == VHD_COPY_GOOD && be32_get(back.type) == VHD_FIXED) {
                vhd->front = VHD_COPY_NONE;     /* whatever a guest wrote into its first sector */
                vhd->footer = back;
                return 0;
        }
        if (vhd->front != VHD_COPY_GOOD && vhd->back != VHD_COPY_GOOD)
                return no_footer(img, front_rc, err);
        /* Changes are written to the front first. */
        vhd->footer = vhd->front == VHD_COPY_GOOD ? front : back;
        if (vhd->front == VHD_COPY_GOOD && vhd->back == VHD_COPY_GOOD &&
            memcmp(&front, &back, vhd->back_bytes) != 0)
                vhd->back = VHD_COPY_DIFFERS;
        return 0;
}

static void warn_about_footers(struct vd_image *img)
{
        struct vhd *vhd = img->state;

        if (vhd->front == VHD_COPY_BAD)
                vd_image_warn(img, "the copy of the footer at 0 is damaged (%s); the footer at the end is used",
                              vhd->front_fault);
        if (vhd->back == VHD_COPY_BAD)
                vd_image_warn(img, "the footer at the end is damaged (%s); its copy at 0 is used", vhd->back_fault);
        if (vhd->back == VHD_COPY_DIFFERS)
                vd_image_warn(img, "the footer at the end is not the same as its copy at 0, which is used");
}

/* Creators whose disks are as large as their geometry says.  Bochs presents its own disks that way. */
static bool creator_uses_geometry(const struct vhd_footer_disk *footer)
{
        return !memcmp(footer->creator, "vpc ", 4) || !memcmp(footer->creator, "qemu", 4) ||
               !memcmp(footer->creator, "bxic", 4);
}

/* Virtual PC, and QEMU after it, show cylinders x heads x sectors; all others show the current size.
 * data: bytes that a fixed disk has, else UINT64_MAX. */
static int vhd_size(struct vd_image *img, uint64_t data, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t current = be64_get(vhd->footer.current_size);
        struct vd_chs chs = vhd_chs(&vhd->footer), usual = vd_chs_of_sectors(current / VHD_SECTOR);
        uint64_t by_chs = vd_chs_bytes(chs);
        bool rounding = !memcmp(&chs, &usual, sizeof(chs));

        vhd->size_rule = "current-size";
        img->size = current;
        if (current % VHD_SECTOR) {
                img->size = vd_round_down(current, VHD_SECTOR);
                vd_image_warn(img, "size %" PRIu64 " is not a multiple of 512; %" PRIu64 " is used", current,
                              img->size);
        }
        /* A fixed disk whose file is as long as its size, with a geometry that is not just the size rounded down, was
         * not made by the rule. */
        if (!vd_chs_is_largest(chs) && creator_uses_geometry(&vhd->footer) && by_chs && by_chs < img->size &&
            (data != img->size || rounding)) {
                vhd->size_rule = "geometry";
                vd_image_warn(img, "its creator '%.4s' shows %" PRIu64 " bytes (geometry %u/%u/%u) of a size of %"
                              PRIu64 "; the rest is left out", vhd->footer.creator, by_chs, chs.cylinders, chs.heads,
                              chs.sectors, img->size);
                img->size = by_chs;
        }
        if (data != UINT64_MAX && img->size > data)
                return vd_fail(err, VD_ECORRUPT, "the disk has %" PRIu64 " bytes, but the file only %" PRIu64
                               " in front of its footer: it is cut short", img->size, data);
        if (data == UINT64_MAX && img->size > VHD_MAX_BYTES)
                return vd_fail(err, VD_ECORRUPT, "size %" PRIu64 " is more than a dynamic disk can have, %" PRIu64,
                               img->size, (uint64_t)VHD_MAX_BYTES);
        return 0;
}

static int open_fixed(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = vhd_size(img, vhd->end, err);

        if (!rc && vhd->end > be64_get(vhd->footer.current_size))
                vd_image_warn(img, "%" PRIu64 " bytes between the end of the disk and the footer are left out",
                              vhd->end - be64_get(vhd->footer.current_size));
        img->identity = true;
        return rc;
}

static int read_header(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vhd_header_disk *h = &vhd->header;
        uint64_t at = be64_get(vhd->footer.data_offset), covered;
        int rc;

        if (at < VHD_SECTOR || !vd_range_fits(at, sizeof(*h), vhd->end))
                return vd_fail(err, VD_ECORRUPT, "dynamic header at %" PRIu64 ": outside 512 to %" PRIu64
                               ", or the file is cut short", at, vhd->end);
        rc = vd_file_read(img->file, h, sizeof(*h), at, err);
        if (rc < 0)
                return rc;
        vhd->header_offset = at;
        if (memcmp(h->cookie, header_cookie, sizeof(header_cookie)))
                return vd_fail(err, VD_ECORRUPT, "dynamic header at %" PRIu64 ": no cookie 'cxsparse'", at);

        uint32_t right = vhd_checksum(h, sizeof(*h), offsetof(struct vhd_header_disk, checksum));
        uint32_t entries = be32_get(h->entries), block_bytes = be32_get(h->block_bytes);
        uint64_t table = be64_get(h->table_offset);

        if (be32_get(h->checksum) != right)
                return vd_fail(err, VD_ECORRUPT, "dynamic header at %" PRIu64 ": checksum 0x%08" PRIx32 " where 0x%08"
                               PRIx32 " is right", at, be32_get(h->checksum), right);
        if (be32_get(h->version) >> 16 != 1)
                return vd_fail(err, VD_EUNSUPPORTED, "dynamic header at %" PRIu64 ": version 0x%08" PRIx32
                               ", only 1.x is known", at, be32_get(h->version));
        if (!vd_is_pow2(block_bytes) || block_bytes < VHD_SECTOR || block_bytes > VHD_BLOCK_MAX)
                return vd_fail(err, VD_ECORRUPT, "dynamic header at %" PRIu64 ": block size %" PRIu32
                               " is not a power of two from 512 to %d", at, block_bytes, VHD_BLOCK_MAX);
        if (table % VHD_SECTOR || table < VHD_SECTOR || !vd_range_fits(table, 4ull * entries, vhd->end) ||
            (table < at + sizeof(*h) && at < table + 4ull * entries))
                return vd_fail(err, VD_ECORRUPT, "BAT of %" PRIu32 " entries at %" PRIu64
                               ": not aligned, on the dynamic header, or past %" PRIu64
                               ", where the structures of the file end", entries, table, vhd->end);
        if (!vd_mul(entries, block_bytes, &covered) || covered < img->size)
                return vd_fail(err, VD_ECORRUPT, "BAT of %" PRIu32 " entries for blocks of %" PRIu32
                               " bytes is too small for a disk of %" PRIu64 " bytes", entries, block_bytes, img->size);
        vhd->block_bytes = block_bytes;
        vhd->bitmap_bytes = (uint32_t)vd_round_up(vd_div_up(block_bytes / VHD_SECTOR, 8), VHD_SECTOR);
        return 0;
}

/* XenServer's map of blocks whose sector bitmap is all ones; we do not need it, but must not write over it. */
static int read_batmap(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t table_end = be64_get(vhd->header.table_offset) + 4ull * be32_get(vhd->header.entries);
        uint64_t at = vd_round_up(table_end, VHD_SECTOR), map, length;
        bool has = !memcmp(vhd->footer.creator, "tap", 4) &&
                   (be16_get(vhd->footer.creator_major) > 1 ||
                    (be16_get(vhd->footer.creator_major) == 1 && be16_get(vhd->footer.creator_minor) >= 1));

        if (!has || !vd_range_fits(at, sizeof(vhd->batmap), vhd->end))
                return 0;
        int rc = vd_file_read(img->file, &vhd->batmap, sizeof(vhd->batmap), at, err);

        if (rc < 0)
                return rc;
        map = be64_get(vhd->batmap.offset);
        length = (uint64_t)be32_get(vhd->batmap.sectors) * VHD_SECTOR;
        if (memcmp(vhd->batmap.cookie, batmap_cookie, sizeof(batmap_cookie)))
                return 0;
        if (!vd_range_fits(map, length, vhd->end)) {
                vd_image_warn(img, "XenServer batmap of %" PRIu64 " bytes at %" PRIu64 " lies past end of file",
                              length, map);
                return 0;
        }
        vhd->batmap_position = at;
        vhd_add_region(vhd, at, sizeof(vhd->batmap), "batmap header");
        vhd_add_region(vhd, map, length, "batmap");
        return 0;
}

static int open_blocks(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        int rc = vhd_size(img, UINT64_MAX, err);

        if (!rc)
                rc = read_header(img, err);
        if (rc < 0)
                return rc;
        vhd_add_region(vhd, 0, VHD_SECTOR, "footer copy");
        vhd_add_region(vhd, vhd->header_offset, sizeof(vhd->header), "dynamic header");
        vhd_add_region(vhd, be64_get(vhd->header.table_offset), 4ull * be32_get(vhd->header.entries), "BAT");
        vhd->vital_regions = vhd->region_count;
        rc = read_batmap(img, err);
        if (!rc && vhd_is_differencing(vhd)) {
                if (!memcmp(vhd->footer.creator, "tap", 4) && be16_get(vhd->footer.creator_major) == 0)
                        return vd_fail(err, VD_EUNSUPPORTED,
                                       "differencing disk of XenServer 0.1: its sector bitmaps have another bit order");
                rc = vhd_read_parent(img, err);
        }
        img->unit = vhd->block_bytes;
        return rc < 0 ? rc : vhd_open_tables(img, err);
}

int vhd_open(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = calloc(1, sizeof(*vhd));
        int rc;

        if (!vhd)
                return vd_fail(err, -ENOMEM, "no memory for the image");
        img->state = vhd;
        img->write_unit = VHD_SECTOR;
        rc = read_footers(img, err);
        if (!rc) {
                vhd->type = (enum vhd_type)be32_get(vhd->footer.type);
                warn_about_footers(img);
                rc = vhd->type == VHD_FIXED ? open_fixed(img, err) : open_blocks(img, err);
        }
        if (!rc && img->writable && vhd->footer.saved_state == 1)
                rc = vd_fail(err, VD_EUNSUPPORTED, "a suspended virtual machine depends on this disk (saved state); "
                             "it is not written to");
        if (rc < 0)
                vhd_close(img);
        return rc;
}
