// SPDX-License-Identifier: MIT
/* vhdx_create.c: laying out new disks.
 *
 *      0 headers | 1 MiB log | metadata | BAT | blocks
 *
 * Metadata is written at once, tables through their caches; identifiers, region tables and headers, without which this
 * is no VHDX, by vhdx_finish_new().
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "formats/shared/utf16.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "vhdx.h"

const char *const vhdx_subformats[] = { "dynamic", "fixed", "differencing", NULL };
static const char *const preallocations[] = { "off", "falloc", "full", NULL };

#define FIELD(field) .offset = offsetof(struct vhdx_params, field)

const struct vd_opt vhdx_create_opts[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, FIELD(subformat), .argument = "TYPE", .choices = vhdx_subformats,
          .help = "dynamic (grows), fixed, or differencing (the default with a backing file)" },
        { .name = "block_size", .type = VD_OPT_SIZE, FIELD(block_bytes), .argument = "SIZE",
          .help = "a power of two from 1M to 256M; when not given 8M to 64M by the disk's size, 2M with a parent" },
        { .name = "log_size", .type = VD_OPT_SIZE, FIELD(log_bytes), .argument = "SIZE",
          .help = "of the log: a multiple of 1M, which is what it has when not given" },
        { .name = "logical_sector_size", .type = VD_OPT_SIZE, FIELD(logical_bytes), .argument = "SIZE",
          .help = "512 or 4096; when not given 512, or that of the parent" },
        { .name = "physical_sector_size", .type = VD_OPT_SIZE, FIELD(physical_bytes), .argument = "SIZE",
          .help = "512 or 4096; when not given 4096, or that of the parent" },
        { .name = "block_state_zero", .type = VD_OPT_FLAG, FIELD(block_state_zero),
          .help = "blocks without data are marked as zeros instead of not present" },
        { .name = "uuid", .type = VD_OPT_TEXT, FIELD(uuid), .argument = "UUID",
          .help = "virtual disk id (SCSI page 83); when not given a random one, or that of the parent" },
        { .name = "preallocation", .type = VD_OPT_CHOICE, FIELD(preallocation), .argument = "MODE",
          .choices = preallocations,
          .help = "of a fixed disk: off, falloc (space taken by the file system) or full (zeros written)" },
        { .type = VD_OPT_END },
};

static int choose_type(struct vhdx *v, const struct vd_create *create, const char *name, struct vd_error *err)
{
        const struct vd_image *backing = create->backing;

        v->type = create->backing_name ? VHDX_DIFFERENCING : VHDX_DYNAMIC;
        if (name && create->backing_name && strcmp(name, "differencing") != 0)
                return vd_fail(err, VD_EUSAGE, "a %s VHDX has no backing file, only a differencing one", name);
        if (name && !create->backing_name && !strcmp(name, "differencing"))
                return vd_fail(err, VD_EUSAGE, "a differencing VHDX needs a backing file");
        if (name && !strcmp(name, "fixed"))
                v->type = VHDX_FIXED;
        if (vhdx_is_differencing(v) && !backing)
                return vd_fail(err, VD_EUSAGE, "a differencing VHDX records an identifier of its parent, which "
                               "therefore has to be opened");
        if (backing && backing->format->create != vhdx_create)
                return vd_fail(err, VD_EUNSUPPORTED, "the parent of a VHDX is a VHDX, not %s", backing->format->name);
        return 0;
}

static int choose_sector(const char *name, uint64_t asked, uint32_t otherwise, uint32_t *bytes, struct vd_error *err)
{
        if (asked && asked != 512 && asked != 4096)
                return vd_fail(err, VD_EUSAGE, "%s %" PRIu64 " is not 512 or 4096", name, asked);
        *bytes = asked ? (uint32_t)asked : otherwise;
        return 0;
}

static uint32_t default_block(const struct vhdx *v, uint64_t size)
{
        if (vhdx_is_differencing(v))
                return 2 * VHDX_MIB;
        return size <= 1ull << 30 ? 8 * VHDX_MIB : size <= 100ull << 30 ? 16 * VHDX_MIB
               : size <= 32ull << 40 ? 32 * VHDX_MIB : 64 * VHDX_MIB;
}

/* The disk that is copied into the new one, when it is a VHDX too: what nobody asked for is as it is there. */
static const struct vhdx *copied_disk(const struct vd_create *create)
{
        return create->like && create->like->format->create == vhdx_create ? create->like->state : NULL;
}

static int choose_sizes(struct vd_image *img, const struct vd_create *create, const struct vhdx_params *params,
                        struct vd_error *err)
{
        struct vhdx *v = img->state;
        const struct vhdx *parent = create->backing ? create->backing->state : NULL;
        const struct vhdx *like = parent ? parent : copied_disk(create);
        uint64_t block = params->block_bytes ? params->block_bytes
                         : like && !parent ? like->block_bytes : default_block(v, create->size);
        uint64_t log = params->log_bytes ? params->log_bytes : VHDX_MIB;
        int r = choose_sector("logical_sector_size", params->logical_bytes, like ? like->logical_bytes : 512,
                              &v->logical_bytes, err);

        if (!r)
                r = choose_sector("physical_sector_size", params->physical_bytes, like ? like->physical_bytes : 4096,
                                  &v->physical_bytes, err);
        if (r)
                return r;
        if (parent && parent->logical_bytes != v->logical_bytes)
                return vd_fail(err, VD_EUSAGE, "logical_sector_size %" PRIu32 " differs from the parent's %" PRIu32,
                               v->logical_bytes, parent->logical_bytes);
        if (!vd_is_pow2(block) || block < VHDX_MIB || block > VHDX_BLOCK_MAX)
                return vd_fail(err, VD_EUSAGE, "block_size %" PRIu64 " is not a power of two from 1M to 256M", block);
        if (log % VHDX_MIB || log > UINT32_MAX)
                return vd_fail(err, VD_EUSAGE, "log_size %" PRIu64 " is not a multiple of 1M from 1M to 4095M", log);
        if (create->size > VHDX_SIZE_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: VHDX ends at 64 TiB (%" PRIu64
                               " bytes)", create->size, (uint64_t)VHDX_SIZE_MAX);
        img->size = vd_round_up(create->size, v->logical_bytes);
        if (img->size != create->size)
                vd_image_warn(img, "the size is rounded up from %" PRIu64 " to %" PRIu64 " bytes, a whole sector",
                              create->size, img->size);
        if (parent && create->backing->size > img->size)
                vd_image_warn(img, "the disk is smaller than its parent (%" PRIu64 " bytes)", create->backing->size);
        v->block_bytes = (uint32_t)block;
        v->chunk_ratio = VHDX_BITS_PER_CHUNK * v->logical_bytes / block;
        v->parameter_flags = v->type == VHDX_FIXED ? VHDX_LEAVE_ALLOCATED
                             : vhdx_is_differencing(v) ? VHDX_HAS_PARENT : 0;
        v->header.log_length = le32_put((uint32_t)log);
        v->header.log_offset = le64_put(VHDX_MIB);
        return 0;
}

/* Whose user metadata the new disk gets: all of a copied one, of a parent's what belongs to the virtual disk. */
static const struct vhdx *metadata_source(const struct vd_create *create, uint32_t *flags)
{
        const struct vhdx *like = copied_disk(create);

        *flags = like ? VHDX_ITEM_USER : VHDX_ITEM_USER | VHDX_ITEM_DISK;
        return like ? like : create->backing ? create->backing->state : NULL;
}

/* Bytes of the metadata region: table, known items, the user's items. */
static uint64_t metadata_bytes(const struct vd_create *create)
{
        uint32_t flags;
        const struct vhdx *source = metadata_source(create, &flags);
        uint64_t bytes = 2 * VHDX_TABLE_BYTES + VHDX_TABLE_BYTES;

        for (size_t i = 0; source && i < source->item_count; i++)
                if ((source->items[i].flags & flags) == flags)
                        bytes += vd_round_up(source->items[i].length, 8);
        return vd_round_up(bytes, VHDX_MIB);
}

/* Everything in front of the blocks. */
static int lay_out(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_region fixed = { .length = VHDX_MIB, .known = true, .what = "the header section" };
        struct vhdx_region log = { .position = le64_get(v->header.log_offset), .length = le32_get(v->header.log_length),
                                   .known = true, .what = "the log" };
        uint64_t bat_bytes = vd_max(vd_round_up(8 * vhdx_bat_entries(v, img->size), VHDX_MIB), VHDX_MIB);
        int r = vhdx_add_region(v, &fixed, err);

        v->metadata = (struct vhdx_region){ .position = log.position + log.length, .known = true,
                                            .length = metadata_bytes(create), .what = "the metadata region" };
        v->bat = (struct vhdx_region){ .position = v->metadata.position + v->metadata.length, .known = true,
                                       .length = bat_bytes, .what = "the BAT" };
        memcpy(v->metadata.guid, vhdx_metadata_guid, 16);
        memcpy(v->bat.guid, vhdx_bat_guid, 16);
        if (!r)
                r = vhdx_add_region(v, &log, err);
        if (!r)
                r = vhdx_add_region(v, &v->metadata, err);
        if (!r)
                r = vhdx_add_region(v, &v->bat, err);
        if (!r)
                r = vhdx_open_tables(img, err);
        v->table.next = v->bat.position + v->bat.length;
        return r;
}

/* Appends an item to table and region; *offset moves. */
static int add_item(struct vd_image *img, const struct vhdx_item *item, const void *value, uint32_t *offset,
                    struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_item *added = &v->items[v->item_count];
        struct vhdx_item_disk disk = { .length = le32_put(item->length), .flags = le32_put(item->flags) };
        uint64_t entry = v->metadata.position + sizeof(struct vhdx_metadata_disk) + v->item_count * sizeof(disk);
        int r = 0;

        if (v->item_count == VHDX_TABLE_ENTRIES)
                return vd_fail(err, VD_EUNSUPPORTED, "more metadata items than the %d that the table has room for",
                               VHDX_TABLE_ENTRIES);
        *added = *item;
        added->offset = item->length ? *offset : 0;
        added->position = v->metadata.position + added->offset;
        memcpy(disk.guid, item->guid, 16);
        disk.offset = le32_put(added->offset);
        v->item_count++;
        *offset += (uint32_t)vd_round_up(item->length, 8);
        if (item->length)
                r = vd_file_write(img->file, value, item->length, added->position, err);
        return r ? r : vd_file_write(img->file, &disk, sizeof(disk), entry, err);
}

static int copy_user_items(struct vd_image *img, const struct vhdx *like, uint32_t flags, uint32_t *offset,
                           struct vd_error *err)
{
        VD_AUTOFREE uint8_t *bytes = malloc(VHDX_ITEM_MAX);
        int r = bytes ? 0 : vd_fail(err, -ENOMEM, "user metadata");

        for (size_t i = 0; i < like->item_count && !r; i++) {
                const struct vhdx_item *item = &like->items[i];

                if ((item->flags & flags) != flags)
                        continue;
                r = vd_file_read(like->file, bytes, item->length, item->position, err);
                if (!r)
                        r = add_item(img, item, bytes, offset, err);
        }
        return r;
}

/* The metadata region; the disk id may not be known yet. */
static int write_metadata(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint32_t flags;
        const struct vhdx *source = metadata_source(create, &flags);
        struct vhdx_metadata_disk head = { .reserved = le16_put(0) };
        struct vhdx_parameters_disk parameters = { le32_put(v->block_bytes), le32_put(v->parameter_flags) };
        le64 size = le64_put(img->size);
        le32 logical = le32_put(v->logical_bytes), physical = le32_put(v->physical_bytes);
        VD_AUTOFREE uint8_t *locator = NULL;
        const void *values[VHDX_KNOWN] = { &parameters, &size, v->disk_id, &logical, &physical, NULL };
        uint32_t offset = VHDX_TABLE_BYTES, locator_bytes = 0;
        int r = 0;

        v->items = calloc(VHDX_KNOWN + (source ? source->item_count : 0), sizeof(*v->items));
        if (!v->items)
                r = vd_fail(err, -ENOMEM, "metadata items");
        if (!r && vhdx_is_differencing(v))
                r = vhdx_make_locator(img, create, &locator, &locator_bytes, err);
        values[VHDX_LOCATOR] = locator;
        for (unsigned i = 0; i < VHDX_KNOWN && !r; i++) {
                const struct vhdx_known_item *known = &vhdx_known_items[i];
                struct vhdx_item item = { .length = known->length ? known->length : locator_bytes,
                                          .flags = known->flags };

                memcpy(item.guid, known->guid, 16);
                if (values[i])
                        r = add_item(img, &item, values[i], &offset, err);
        }
        if (!r && source)
                r = copy_user_items(img, source, flags, &offset, err);
        memcpy(head.signature, "metadata", 8);
        head.count = le16_put((uint16_t)v->item_count);
        return r ? r : vd_file_write(img->file, &head, sizeof(head), v->metadata.position, err);
}

/* All blocks of a fixed disk, one after the other. */
static int place_all(struct vd_image *img, const char *mode, const volatile int *stop, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t start = v->table.next, end;
        struct vd_block value;
        int r = 0;

        for (uint64_t block = 0; block < v->table.count && !r; block++)
                r = vd_blocktable_allocate(&v->table, block, &value, err);
        end = v->table.next;
        if (!r && mode && !strcmp(mode, "falloc"))
                r = vd_file_allocate(img->file, start, end - start, err);
        if (!r && mode && !strcmp(mode, "full"))
                r = vd_file_fill(img->file, start, end - start, stop, err);
        return r;
}

static int choose_id(struct vhdx *v, const struct vd_create *create, const char *uuid, struct vd_error *err)
{
        const struct vhdx *like = create->backing ? create->backing->state : copied_disk(create);

        if (like)
                memcpy(v->disk_id, like->disk_id, 16);
        if (uuid && (!vd_guid_parse(uuid, VD_GUID_MICROSOFT, v->disk_id) || vd_guid_is_zero(v->disk_id)))
                return vd_fail(err, VD_EUSAGE, "uuid '%s' is not of the form 01234567-89ab-cdef-0123-456789abcdef, "
                               "or is zero", uuid);
        return 0;
}

int vhdx_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct vhdx_params defaults;
        const struct vhdx_params *params = create->params ? create->params : &defaults;
        struct vhdx *v = calloc(1, sizeof(*v));
        int r;

        if (!v)
                return vd_fail(err, -ENOMEM, "no memory for the image");
        img->state = v;
        v->file = vd_file_ref(img->file);
        v->data = vd_file_ref(img->file);
        v->zero_states = params->block_state_zero;
        r = choose_type(v, create, params->subformat, err);
        if (!r && params->preallocation && strcmp(params->preallocation, "off") != 0 && v->type != VHDX_FIXED)
                r = vd_fail(err, VD_EUSAGE, "preallocation=%s is for fixed disks", params->preallocation);
        if (!r && v->zero_states && vhdx_is_differencing(v))
                r = vd_fail(err, VD_EUSAGE, "block_state_zero would hide the parent");
        if (!r)
                r = choose_sizes(img, create, params, err);
        if (!r)
                r = choose_id(v, create, params->uuid, err);
        if (!r)
                r = lay_out(img, create, err);
        if (!r)
                r = write_metadata(img, create, err);
        if (!r && v->type == VHDX_FIXED)
                r = place_all(img, params->preallocation, create->stop, err);
        if (r)
                vhdx_close(img);
        return r;
}

static int set_zero_states(struct vhdx *v, struct vd_error *err)
{
        int r = 0;

        for (uint64_t block = 0; block < v->table.count && !r; block++) {
                struct vd_block value;

                r = vd_blocktable_get(&v->table, block, &value, err);
                if (!r && value.kind == VD_UNALLOCATED)
                        r = vd_blocktable_set(&v->table, block, &(struct vd_block){ .kind = VD_ZERO }, err);
        }
        return r;
}

static int write_region_tables(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        VD_AUTOFREE uint8_t *bytes = calloc(1, VHDX_TABLE_BYTES);
        struct vhdx_table_disk *t = (struct vhdx_table_disk *)bytes;
        struct vhdx_region_disk *disk = (struct vhdx_region_disk *)(t + 1);
        const struct vhdx_region *regions[2] = { &v->bat, &v->metadata };
        int r;

        if (!bytes)
                return vd_fail(err, -ENOMEM, "region table");
        memcpy(t->signature, "regi", 4);
        t->count = le32_put(2);
        for (unsigned i = 0; i < 2; i++) {
                memcpy(disk[i].guid, regions[i]->guid, 16);
                disk[i].position = le64_put(regions[i]->position);
                disk[i].length = le32_put((uint32_t)regions[i]->length);
                disk[i].flags = le32_put(1);
        }
        t->checksum = le32_put(vhdx_checksum(bytes, VHDX_TABLE_BYTES));
        r = vd_file_write(img->file, bytes, VHDX_TABLE_BYTES, VHDX_REGIONS_1, err);
        return r ? r : vd_file_write(img->file, bytes, VHDX_TABLE_BYTES, VHDX_REGIONS_2, err);
}

static int write_identifier(struct vd_image *img, struct vd_error *err)
{
        static const char creator[] = "vdtool " VD_VERSION;
        struct vhdx_identifier_disk identifier = { .signature = "vhdxfil" };
        size_t length;
        VD_AUTOFREE uint8_t *utf16 = vd_utf16_from_utf8(creator, false, &length);

        if (!utf16)
                return vd_fail(err, -ENOMEM, "creator");
        memcpy(identifier.signature, "vhdxfile", 8);
        memcpy(identifier.creator, utf16, vd_min(length, sizeof(identifier.creator) - 2));
        return vd_file_write(img->file, &identifier, sizeof(identifier), 0, err);
}

/* Known late: with SOURCE_DATE_EPOCH identifiers come from the content. */
static int put_ids(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t seed = img->digest ^ img->size * 0x9e3779b97f4a7c15;
        int r = 0;

        for (size_t i = 0; i < v->locator_count; i++)
                for (const char *p = v->locator[i].value; *p; p++)
                        seed = (seed ^ (uint8_t)*p) * 0x100000001b3;
        if (vd_guid_is_zero(v->disk_id))
                r = vd_identity_uuid(v->disk_id, "vhdx disk id", seed, err);
        if (!r)
                r = vd_file_write(img->file, v->disk_id, 16, vhdx_item(v, VHDX_DISK_ID)->position, err);
        if (!r)
                r = vd_identity_uuid(v->header.data_write_guid, "vhdx data write", seed, err);
        return r ? r : vd_identity_uuid(v->header.file_write_guid, "vhdx file write", seed, err);
}

int vhdx_finish_new(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_header_disk *h = &v->header;
        int r = v->zero_states ? set_zero_states(v, err) : 0;

        if (!r)
                r = vd_cache_flush(v->table.cache, err);
        if (!r && v->bitmaps)
                r = vd_cache_flush(v->bitmaps, err);
        if (!r && vd_file_size(img->file) < v->table.next)
                r = vd_file_truncate(img->file, v->table.next, err);
        if (!r)
                r = put_ids(img, err);
        if (!r)
                r = write_region_tables(img, err);
        memcpy(h->signature, "head", 4);
        h->version = le16_put(1);
        for (unsigned slot = 0; slot < 2 && !r; slot++) {
                h->sequence = le64_put(slot + 1);
                h->checksum = le32_put(vhdx_checksum(h, sizeof(*h)));
                r = vd_file_write(img->file, h, sizeof(*h), slot ? VHDX_HEADER_2 : VHDX_HEADER_1, err);
        }
        return r ? r : write_identifier(img, err);
}
