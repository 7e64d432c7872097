// SPDX-License-Identifier: MIT
/* vhd_create.c: laying out new disks.
 *
 * Sizes are exact: when the geometry cannot express a size it says 65535/16/255, which makes QEMU and everything after
 * Virtual PC look at the size field.  The structures in front of the blocks are written by vhd_finish_new(), the footer
 * at the end last.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "util/checked.h"
#include "vhd.h"

#define FAT_FILE_BYTES (4096ull * 1024 * 1024 - VHD_SECTOR)    /* whole sectors that fit a file on FAT32 */

const char *const vhd_subformats[] = { "dynamic", "fixed", "differencing", "split", NULL };
static const char *const chs_modes[] = { "exact", "compat", NULL };
static const char *const preallocations[] = { "off", "falloc", "full", NULL };

#define FIELD(field) .offset = offsetof(struct vhd_params, field)

const struct vd_opt vhd_create_opts[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, FIELD(subformat), .argument = "TYPE", .choices = vhd_subformats,
          .help = "dynamic (grows), fixed, differencing (the default with a backing file), or split (dynamic, in parts "
                  "that fit FAT32)" },
        { .name = "split_size", .type = VD_OPT_SIZE, FIELD(split_bytes), .argument = "SIZE",
          .help = "split a disk of any type into files of this size, a multiple of 512" },
        { .name = "block_size", .type = VD_OPT_SIZE, FIELD(block_bytes), .argument = "SIZE",
          .help = "of a dynamic or differencing disk: a power of two from 512 to 256M; 2M when not given" },
        { .name = "chs", .type = VD_OPT_CHOICE, FIELD(chs), .argument = "MODE", .choices = chs_modes,
          .help = "exact (the size as asked for) or compat (rounded up to cylinders, heads and sectors)" },
        { .name = "force_size", .type = VD_OPT_FLAG, FIELD(force_size),
          .help = "exact size under QEMU's creator code, as qemu-img does it" },
        { .name = "uuid", .type = VD_OPT_TEXT, FIELD(uuid), .argument = "UUID",
          .help = "unique id of the disk; a random one when not given" },
        { .name = "creator", .type = VD_OPT_TEXT, FIELD(creator), .argument = "TEXT",
          .help = "creator application code, up to four characters" },
        { .name = "preallocation", .type = VD_OPT_CHOICE, FIELD(preallocation), .argument = "MODE",
          .choices = preallocations,
          .help = "of a fixed disk: off, falloc (space taken by the file system) or full (zeros written)" },
        { .type = VD_OPT_END },
};

uint64_t vhd_alignment(uint64_t blocks, uint32_t block_bytes, uint32_t bitmap_bytes)
{
        enum { PAGE = 4096, SMALL_BLOCK = 64 * 1024, METADATA = 16 * 1024 * 1024 };
        uint64_t stride = vd_round_up((uint64_t)block_bytes + bitmap_bytes, PAGE);

        if (block_bytes < SMALL_BLOCK || blocks > ((uint64_t)VHD_FREE * VHD_SECTOR - METADATA) / stride)
                return VHD_SECTOR;
        return PAGE;
}

static uint32_t vhd_now(void)
{
        int64_t now = vd_identity_time() - VHD_EPOCH;

        return now < 0 ? 0 : (uint32_t)vd_min((uint64_t)now, UINT32_MAX);
}

static int put_creator(struct vhd_footer_disk *footer, const struct vhd_params *params, struct vd_error *err)
{
        const char *creator = params->creator ? params->creator : params->force_size ? "qem2" : "vdtl";
        size_t length = strlen(creator);
        unsigned major = 0, minor = 0;

        if (!length || length > sizeof(footer->creator))
                return vd_fail(err, VD_EUSAGE, "creator '%s' is not one to four characters long", creator);
        memset(footer->creator, ' ', sizeof(footer->creator));
        memcpy(footer->creator, creator, length);
        sscanf(VD_VERSION, "%u.%u", &major, &minor);
        footer->creator_major = be16_put((uint16_t)major);
        footer->creator_minor = be16_put((uint16_t)minor);
        memcpy(footer->creator_os, "Wi2k", sizeof(footer->creator_os));
        return 0;
}

/* Size and geometry: sets image->size. */
static int put_size(struct vd_image *img, const struct vd_create *create, const struct vhd_params *params,
                    struct vd_error *err)
{
        struct vhd_footer_disk *footer = &((struct vhd *)img->state)->footer;
        bool compat = params->chs && !strcmp(params->chs, "compat");
        uint64_t sectors = vd_div_up(create->size, VHD_SECTOR);

        if (compat && params->force_size)
                return vd_fail(err, VD_EUSAGE, "force_size keeps the size as it is, chs=compat rounds it up");
        if (create->size > VHD_MAX_BYTES)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: VHD ends at 2040 GiB (%" PRIu64
                               " bytes)", create->size, (uint64_t)VHD_MAX_BYTES);
        if (compat)
                sectors = vd_chs_fitting(sectors);
        img->size = sectors * VHD_SECTOR;
        if (create->size % VHD_SECTOR && !compat)
                vd_image_warn(img, "the size is rounded up from %" PRIu64 " to %" PRIu64 " bytes, a whole sector",
                              create->size, img->size);

        struct vd_chs chs = vd_chs_of_sectors(sectors);

        if (params->force_size || vd_chs_bytes(chs) != img->size)
                chs = vd_chs_of_sectors(VD_CHS_MAX_SECTORS);
        footer->original_size = footer->current_size = be64_put(img->size);
        footer->cylinders = be16_put(chs.cylinders);
        footer->heads = chs.heads;
        footer->sectors_per_track = chs.sectors;
        return 0;
}

/* The table, all free, and room for it. */
static int write_free_table(struct vd_image *img, uint64_t position, uint64_t bytes, struct vd_error *err)
{
        uint8_t free_entries[64 * 1024];
        int rc = 0;

        memset(free_entries, 0xff, sizeof(free_entries));
        for (uint64_t at = 0; at < bytes && !rc; at += sizeof(free_entries))
                rc = vd_file_write(img->file, free_entries, vd_min(sizeof(free_entries), bytes - at), position + at,
                                   err);
        return rc;
}

static int create_blocks(struct vd_image *img, const struct vd_create *create, const struct vhd_params *params,
                         struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vhd_header_disk *h = &vhd->header;
        uint64_t block_bytes = params->block_bytes ? params->block_bytes : VHD_BLOCK_DEFAULT, entries, position;
        int rc = 0;

        if (!vd_is_pow2(block_bytes) || block_bytes < VHD_SECTOR || block_bytes > VHD_BLOCK_MAX)
                return vd_fail(err, VD_EUSAGE, "block_size %" PRIu64 " is not a power of two from 512 to %d",
                               block_bytes, VHD_BLOCK_MAX);
        if (params->preallocation && strcmp(params->preallocation, "off") != 0)
                return vd_fail(err, VD_EUSAGE, "preallocation=%s is for fixed disks", params->preallocation);
        if (block_bytes < 4096)
                vd_image_warn(img, "QEMU misreads disks with blocks of less than 4096 bytes");
        entries = vd_div_up(img->size, block_bytes);
        vhd->block_bytes = (uint32_t)block_bytes;
        vhd->bitmap_bytes = (uint32_t)vd_round_up(vd_div_up(block_bytes / VHD_SECTOR, 8), VHD_SECTOR);
        vhd->header_offset = VHD_SECTOR;
        vhd->end = INT64_MAX;           /* not known before the end */
        position = vhd->header_offset + sizeof(*h);

        memcpy(h->cookie, "cxsparse", sizeof(h->cookie));
        h->next_offset = be64_put(UINT64_MAX);
        h->table_offset = be64_put(position);
        h->version = be32_put(0x00010000);
        h->entries = be32_put((uint32_t)entries);
        h->block_bytes = be32_put(vhd->block_bytes);
        position += vd_max(vd_round_up(4 * entries, VHD_SECTOR), VHD_SECTOR);
        if (entries > (vhd->end - position) / (vhd->bitmap_bytes + block_bytes) ||
            position + entries * (vhd->bitmap_bytes + block_bytes) > (uint64_t)VHD_FREE * VHD_SECTOR)
                return vd_fail(err, VD_EUNSUPPORTED, "with blocks of %" PRIu64 " bytes a disk of %" PRIu64
                               " bytes would not fit the 2 TiB that the BAT can reach when it is full", block_bytes,
                               img->size);
        rc = vhd_add_parts(img, position + VHD_SECTOR, err);
        if (!rc)
                rc = write_free_table(img, be64_get(h->table_offset), position - be64_get(h->table_offset), err);
        if (!rc && vhd_is_differencing(vhd)) {
                rc = vhd_write_parent(img, create, &position, err);
                if (!rc)
                        rc = vd_image_add_parent_name(img, create->backing_name, "parent name", err);
                if (!rc && create->backing && create->backing->size > img->size)
                        vd_image_warn(img, "the disk is smaller than its parent (%" PRIu64 " bytes)",
                                      create->backing->size);
        }
        if (!rc)
                rc = vhd_add_parts(img, position + VHD_SECTOR, err);
        if (!rc)
                rc = vhd_open_tables(img, err);
        vhd->table.next = position;
        img->unit = block_bytes;
        return rc;
}

static int create_fixed(struct vd_image *img, const struct vd_create *create, const struct vhd_params *params,
                        struct vd_error *err)
{
        const char *mode = params->preallocation ? params->preallocation : "off";
        int rc = 0;

        if (params->block_bytes)
                return vd_fail(err, VD_EUSAGE, "a fixed disk has no blocks: block_size is for dynamic ones");
        img->identity = true;
        rc = vhd_add_parts(img, img->size + VHD_SECTOR, err);
        if (rc < 0)
                return rc;
        if (!strcmp(mode, "falloc") && img->size)
                return vd_file_allocate(img->file, 0, img->size, err);
        return strcmp(mode, "full") ? 0 : vd_file_fill(img->file, 0, img->size, create->stop, err);
}

static int choose_type(const struct vd_create *create, const struct vhd_params *params, enum vhd_type *type,
                       struct vd_error *err)
{
        const char *name = params->subformat;

        *type = create->backing_name ? VHD_DIFFERENCING : VHD_DYNAMIC;
        if (!name)
                return 0;
        if (!strcmp(name, "split"))
                return 0;
        if (create->backing_name && strcmp(name, "differencing") != 0)
                return vd_fail(err, VD_EUSAGE, "a %s VHD has no backing file, only a differencing one", name);
        if (!create->backing_name && !strcmp(name, "differencing"))
                return vd_fail(err, VD_EUSAGE, "a differencing VHD needs a backing file");
        if (!strcmp(name, "fixed"))
                *type = VHD_FIXED;
        return 0;
}

int vhd_add_parts(struct vd_image *img, uint64_t end, struct vd_error *err)
{
        struct vhd *vhd = img->state;

        while (vhd->part_bytes && end > vhd->parts * vhd->part_bytes) {
                const char *slash = strrchr(img->path, '/');
                char name[4096];
                int rc;

                if (vhd->parts == VHD_PARTS)
                        return vd_fail(err, VD_EUNSUPPORTED, "the disk needs more than %d parts of %" PRIu64
                                       " bytes: a larger split_size is needed", VHD_PARTS, vhd->part_bytes);
                if (!vhd_part_name(img->path, vhd->parts, name, sizeof(name)))
                        return vd_fail(err, VD_EUSAGE, "the name of a split disk ends in .vhd, '%s' does not",
                                       slash ? slash + 1 : img->path);
                rc = vd_file_truncate(vhd->part_files[vhd->parts - 1], vhd->part_bytes, err);
                if (!rc)
                        rc = vd_output_add(img->output, name, &vhd->part_files[vhd->parts], err);
                if (!rc)
                        rc = vd_file_join_add(img->file, vhd->part_files[vhd->parts], err);
                if (rc < 0)
                        return rc;
                vhd->parts++;
        }
        return 0;
}

/* A split disk is a join from the beginning; the first part has the disk's name. */
static int start_split(struct vd_image *img, const struct vhd_params *params, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        bool split = params->split_bytes || (params->subformat && !strcmp(params->subformat, "split"));
        struct vd_file *joined;
        int rc;

        if (!split)
                return 0;
        vhd->part_bytes = params->split_bytes ? params->split_bytes : FAT_FILE_BYTES;
        if (vhd->part_bytes % VHD_SECTOR || vhd->part_bytes < 4096)
                return vd_fail(err, VD_EUSAGE, "split_size %" PRIu64 " is not a multiple of 512 from 4096 on",
                               vhd->part_bytes);
        vhd->part_files[0] = img->file;
        rc = vd_file_join(&joined, &img->file, 1, vd_file_name(img->file), err);
        if (rc < 0)
                return rc;
        vd_file_unref(img->file);       /* the output keeps it */
        img->file = joined;
        return 0;
}

int vhd_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct vhd_params defaults;
        const struct vhd_params *params = create->params ? create->params : &defaults;
        struct vhd *vhd = calloc(1, sizeof(*vhd));
        struct vhd_footer_disk *footer;
        int rc;

        if (!vhd)
                return vd_fail(err, -ENOMEM, "no memory for the image");
        img->state = vhd;
        img->write_unit = VHD_SECTOR;
        footer = &vhd->footer;
        memcpy(footer->cookie, "conectix", sizeof(footer->cookie));
        footer->features = be32_put(2);
        footer->version = be32_put(0x00010000);
        footer->time_stamp = be32_put(vhd_now());
        vhd->size_rule = "current-size";
        vhd->back_bytes = VHD_SECTOR;
        vhd->parts = 1;
        rc = choose_type(create, params, &vhd->type, err);
        footer->type = be32_put(vhd->type);
        footer->data_offset = be64_put(vhd->type == VHD_FIXED ? UINT64_MAX : VHD_SECTOR);
        if (!rc)
                rc = put_creator(footer, params, err);
        if (!rc && params->uuid) {
                vhd->given_id = true;
                if (!vd_guid_parse(params->uuid, VD_GUID_RFC, footer->id) || vd_guid_is_zero(footer->id))
                        rc = vd_fail(err, VD_EUSAGE, "uuid '%s' is not of the form "
                                     "01234567-89ab-cdef-0123-456789abcdef, or is zero", params->uuid);
        }
        if (!rc)
                rc = put_size(img, create, params, err);
        if (!rc)
                rc = start_split(img, params, err);
        if (!rc)
                rc = vhd->type == VHD_FIXED ? create_fixed(img, create, params, err)
                                            : create_blocks(img, create, params, err);
        if (rc < 0)
                vhd_close(img);
        return rc;
}

int vhd_write_footer(struct vd_image *img, uint64_t position, struct vd_error *err)
{
        struct vhd *vhd = img->state;

        return vd_file_write(img->file, &vhd->footer, sizeof(vhd->footer), position, err);
}

/* Known late: with SOURCE_DATE_EPOCH the id comes from the content. */
static int put_id(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        uint64_t seed = img->digest ^ img->size * 0x9e3779b97f4a7c15;

        for (size_t i = 0; i < sizeof(vhd->parent_id); i++)
                seed = (seed ^ vhd->parent_id[i]) * 0x100000001b3;
        return vhd->given_id ? 0 : vd_identity_uuid(vhd->footer.id, "vhd unique id", seed, err);
}

int vhd_finish_new(struct vd_image *img, struct vd_error *err)
{
        struct vhd *vhd = img->state;
        struct vhd_footer_disk *footer = &vhd->footer;
        struct vhd_header_disk *h = &vhd->header;
        int rc = put_id(img, err);

        if (rc < 0)
                return rc;
        footer->checksum = be32_put(vhd_checksum(footer, sizeof(*footer), offsetof(struct vhd_footer_disk, checksum)));
        if (vhd->type == VHD_FIXED)
                return vhd_write_footer(img, img->size, err);
        h->checksum = be32_put(vhd_checksum(h, sizeof(*h), offsetof(struct vhd_header_disk, checksum)));
        rc = vhd_flush(img, err);
        if (!rc)
                rc = vd_file_write(img->file, h, sizeof(*h), vhd->header_offset, err);
        if (!rc)
                rc = vhd_write_footer(img, 0, err);
        return rc < 0 ? rc : vhd_write_footer(img, vhd->table.next, err);
}
