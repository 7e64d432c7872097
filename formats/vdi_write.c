// SPDX-License-Identifier: MIT
/* vdi_write.c: new VDIs, and writing into old ones.
 *
 * Slots are handed out in order; the header counts them.  In place: data and header, sync, map entries, sync, so that a
 * slot is never handed out twice; what a cut leaves behind is a slot that nobody uses.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "core/write.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "vdi.h"

const char *const vdi_subformats[] = { "dynamic", "fixed", "differencing", NULL };

#define FIELD(field) .offset = offsetof(struct vdi_params, field)

const struct vd_opt vdi_create_opts[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, FIELD(subformat), .argument = "TYPE", .choices = vdi_subformats,
          .help = "dynamic (grows), fixed, or differencing (the default with a backing file)" },
        { .name = "static", .type = VD_OPT_FLAG, FIELD(fixed), .help = "subformat=fixed, as qemu-img calls it" },
        { .name = "block_size", .type = VD_OPT_SIZE, FIELD(block_bytes), .argument = "SIZE",
          .help = "a power of two from 512 to 256M; 1M when not given, the only one that VirtualBox and QEMU take" },
        { .name = "comment", .type = VD_OPT_TEXT, FIELD(comment), .argument = "TEXT", .help = "at most 255 bytes" },
        { .name = "uuid", .type = VD_OPT_TEXT, FIELD(uuid), .argument = "UUID",
          .help = "of the disk; a random one when not given" },
        { .type = VD_OPT_END },
};

enum {
        MAP_OFFSET = 4096,
        DATA_ALIGN = 1 << 20,           /* what VirtualBox aligns blocks to */
};

enum token { TOKEN_NONE, TOKEN_ZERO, TOKEN_FREE };

static int choose_type(struct vdi *vdi, const struct vd_create *create, const struct vdi_params *params,
                       struct vd_error *err)
{
        const char *asked = params->subformat;

        if (params->fixed && asked && strcmp(asked, "fixed") != 0)
                return vd_fail(err, VD_EUSAGE, "static means subformat=fixed, found subformat=%s", asked);
        if (params->fixed)
                asked = "fixed";
        if (!asked)
                asked = create->backing_name ? "differencing" : "dynamic";
        if ((strcmp(asked, "differencing") == 0) != (create->backing_name != NULL))
                return vd_fail(err, VD_EUSAGE, create->backing_name ? "an image with a parent is differencing, found "
                               "subformat=%s" : "subformat=%s needs a parent (-b)", asked);
        vdi->type = !strcmp(asked, "fixed") ? VDI_FIXED : create->backing_name ? VDI_DIFFERENCING : VDI_DYNAMIC;
        return 0;
}

static int take_parent(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        const struct vdi *parent;

        if (!vdi_is_differencing(vdi))
                return 0;
        if (!create->backing)
                return vd_fail(err, VD_EUSAGE, "the parent must be opened, since its UUID is what a VDI records");
        if (create->backing->format != &vd_format_vdi)
                return vd_fail(err, VD_EUNSUPPORTED, "the parent of a VDI is a VDI, found a %s image",
                               create->backing->format->name);
        parent = create->backing->state;
        memcpy(vdi->parent_id, parent->id, 16);
        memcpy(vdi->parent_modify_id, parent->modify_id, 16);
        if (strchr(create->backing_name, '/'))
                vd_image_warn(img, "a VDI does not record where its parent is: outside of its directory it is only "
                              "found with --parent");
        return vd_image_add_parent_name(img, create->backing_name, "parent", err);
}

static int take_texts(struct vdi *vdi, const struct vdi_params *params, struct vd_error *err)
{
        size_t length = params->comment ? strlen(params->comment) : 0;

        if (length >= VDI_COMMENT_BYTES)
                return vd_fail(err, VD_EUSAGE, "a comment of %zu bytes, at most %d fit", length, VDI_COMMENT_BYTES - 1);
        memcpy(vdi->comment, params->comment ? params->comment : "", length);
        if (!params->uuid)
                return 0;
        vdi->given_id = true;
        if (!vd_guid_parse(params->uuid, VD_GUID_MICROSOFT, vdi->id) || vd_guid_is_zero(vdi->id))
                return vd_fail(err, VD_EUSAGE, "'%s' is not a UUID", params->uuid);
        return 0;
}

static int choose_layout(struct vd_image *img, const struct vd_create *create, const struct vdi_params *params,
                         struct vd_error *err)
{
        struct vdi *vdi = img->state;

        vdi->block_bytes = params->block_bytes ? params->block_bytes : VDI_BLOCK_DEFAULT;
        if (!vd_is_pow2(vdi->block_bytes) || vdi->block_bytes < VDI_SECTOR || vdi->block_bytes > VDI_BLOCK_MAX)
                return vd_fail(err, VD_EUSAGE, "block_size %" PRIu64 " is not a power of two from %d to %d",
                               vdi->block_bytes, VDI_SECTOR, VDI_BLOCK_MAX);
        if (!create->size)
                return vd_fail(err, VD_EUNSUPPORTED, "a VDI of 0 bytes");
        if (create->size > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes are more than a file can have", create->size);
        img->size = vdi->disk_bytes = vd_round_up(create->size, VDI_SECTOR);
        vdi->blocks = vd_div_up(vdi->disk_bytes, vdi->block_bytes);
        vdi->map_offset = MAP_OFFSET;
        vdi->data_offset = vd_round_up(MAP_OFFSET + vdi->blocks * sizeof(le32), DATA_ALIGN);
        if (vdi->data_offset > UINT32_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: the map of its %" PRIu64
                               " blocks of %" PRIu64 " bytes does not fit the first 4 GiB of the file", img->size,
                               vdi->blocks, vdi->block_bytes);
        vdi->slot_bytes = vdi->block_bytes;
        vdi->version = VDI_VERSION;
        img->unit = vdi->block_bytes;
        img->write_unit = vdi_is_differencing(vdi) ? vdi->block_bytes : VDI_SECTOR;
        return 0;
}

/* The map: every block free, or in a fixed image in its slot. */
static int write_map(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        le32 entries[4096];
        uint64_t per_write = sizeof(entries) / sizeof(entries[0]);
        int r = vd_file_truncate(img->file, vdi->data_offset, err);

        memset(entries, 0xff, sizeof(entries));
        for (uint64_t first = 0; first < vdi->blocks && !r; first += per_write) {
                uint64_t n = vd_min(per_write, vdi->blocks - first);

                for (uint64_t i = 0; i < n && vdi->type == VDI_FIXED; i++)
                        entries[i] = le32_put((uint32_t)(first + i));
                r = vd_file_write(img->file, entries, n * sizeof(entries[0]),
                                  vdi->map_offset + first * sizeof(entries[0]), err);
        }
        vdi->allocated = vdi->type == VDI_FIXED ? vdi->blocks : 0;
        return r;
}

int vdi_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct vdi_params defaults;
        const struct vdi_params *params = create->params ? create->params : &defaults;
        struct vdi *vdi = calloc(1, sizeof(*vdi));
        int r;

        if (!vdi)
                return vd_fail(err, -ENOMEM, "VDI header");
        img->state = vdi;
        r = choose_type(vdi, create, params, err);
        if (!r)
                r = take_texts(vdi, params, err);
        if (!r)
                r = choose_layout(img, create, params, err);
        if (!r)
                r = take_parent(img, create, err);
        if (!r)
                r = write_map(img, err);
        if (!r)
                r = vdi_open_table(img, err);
        if (r)
                vdi_close(img);
        return r;
}

/* A slot that no block uses, in an image where every slot was handed out: blocks of children that were dropped have
 * left theirs.  What is not published yet still counts. */
static int find_lost_slot(struct vdi *vdi, uint64_t *position, struct vd_error *err)
{
        uint64_t slots = vdi->blocks, slot;
        VD_AUTOFREE uint8_t *used = calloc(vd_div_up(slots, 8), 1);
        bool is_used;

        if (!used)
                return vd_fail(err, -ENOMEM, "%" PRIu64 " slots", slots);
        for (uint64_t block = 0; block < vdi->blocks; block++) {
                struct vd_block value;
                int r = vd_blocktable_find(&vdi->table, block, &value, err);

                if (r)
                        return r;
                if (value.kind != VD_DATA)
                        continue;
                slot = (value.position - vdi->extra_bytes - vdi->data_offset) / vdi->slot_bytes;
                vd_bits_fill(used, slot, slot + 1, false, true);
        }
        slot = vd_bits_run(used, 0, slots, false, &is_used);
        if (!is_used)
                slot = 0;
        *position = vdi->data_offset + slot * vdi->slot_bytes;
        return slot < slots ? 0 : vd_fail(err, VD_ECORRUPT, "all %" PRIu64 " slots are taken, though not every block "
                                          "has one", slots);
}

/* A slot for a block that has none. */
static int allocate(struct vd_image *img, uint64_t block, struct vd_block *value, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        uint64_t slot, end, next = vdi->table.next;
        bool is_full = vdi->allocated == vdi->blocks;
        int r = is_full ? find_lost_slot(vdi, &vdi->table.next, err) : 0;

        if (!r)
                r = vd_blocktable_allocate(&vdi->table, block, value, err);
        if (is_full)
                vdi->table.next = next;
        if (r)
                return r;
        vdi->allocated += !is_full;
        if (img->is_new)
                return 0;
        vdi->table.limit = vd_max(vdi->table.limit, vdi->table.next);
        slot = value->position - vdi->extra_bytes;
        end = vd_min(vd_file_size(img->file), slot + vdi->slot_bytes);
        return slot < end ? vd_file_zero(img->file, slot, end - slot, err) : 0;        /* what lay there is not ours */
}

int vdi_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        uint64_t block = request->start / vdi->block_bytes, in_block = request->start % vdi->block_bytes;
        uint64_t length = vd_min(request->length, vdi->block_bytes - in_block);
        bool whole = !in_block && (length == vdi->block_bytes || request->start + length == img->size);
        enum vd_kind kind = request->kind;
        struct vd_block value;
        int r = vd_blocktable_find(&vdi->table, block, &value, err);

        if (r)
                return r;
        /* Without a parent a block that is dropped keeps its slot: zeros are a hole, and slots cannot run out. */
        if (kind == VD_UNALLOCATED && (!whole || !vdi_is_differencing(vdi)))
                kind = VD_ZERO;
        *place = (struct vd_place){ .start = request->start, .length = length, .kind = kind, .file = img->file };
        if (kind == VD_UNALLOCATED && value.kind != VD_UNALLOCATED)
                place->token = TOKEN_FREE;
        if (kind == VD_ZERO && value.kind == VD_UNALLOCATED && vdi_is_differencing(vdi))
                place->token = TOKEN_ZERO;
        if (kind == VD_UNALLOCATED || (kind == VD_ZERO && value.kind != VD_DATA))
                return 0;
        place->kind = VD_DATA;
        if (value.kind != VD_DATA)
                r = allocate(img, block, &value, err);
        place->position = value.position + in_block;
        return r;
}

/* The UUID of the last change: a new one. */
static int renew(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        char text[VD_GUID_TEXT];
        uint64_t seed = img->digest;
        uint8_t id[16];
        int r;

        memcpy(&seed, vdi->modify_id, img->is_new ? 0 : sizeof(seed));  /* in place: not the one that it had */
        r = vd_identity_uuid(id, "vdi modify uuid", seed, err);
        if (!r)
                vd_guid_parse(vd_guid_text(id, VD_GUID_RFC, text), VD_GUID_MICROSOFT, vdi->modify_id);
        vdi->renewed = !r;
        return r;
}

static int write_header(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        struct vdi_header_disk *h = &vdi->header;

        h->allocated = le32_put((uint32_t)vdi->allocated);
        memcpy(h->id, vdi->id, 16);
        memcpy(h->modify_id, vdi->modify_id, 16);
        return vd_file_write(img->file, h, vd_min(sizeof(*h), vdi->map_offset), 0, err);
}

int vdi_settle(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        bool grown = le32_get(vdi->header.allocated) != vdi->allocated;
        int r = 0;

        if (img->is_new || (!grown && vdi->renewed))
                return 0;
        if (!vdi->renewed)
                r = renew(img, err);
        if (!r && vd_file_size(img->file) < vdi->table.next)
                r = vd_file_truncate(img->file, vdi->table.next, err);
        return r ? r : write_header(img, err);
}

int vdi_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        uint64_t block = place->start / vdi->block_bytes;
        struct vd_block value = { .kind = VD_UNALLOCATED };
        bool fresh;

        if (place->kind == VD_DATA)
                return vd_blocktable_publish(&vdi->table, block, &fresh, err);
        if (place->token == TOKEN_NONE)
                return 0;
        if (place->token == TOKEN_ZERO)
                value.kind = VD_ZERO;
        else
                vdi->dropped = true;
        return vd_blocktable_set(&vdi->table, block, &value, err);
}

int vdi_flush(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;

        return vd_cache_flush(vdi->table.cache, err);
}

/* Gives back the slots behind the last one in use, when blocks were dropped. */
static int give_back(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        uint64_t end = vdi->data_offset;
        int r = vd_image_barrier(img, img->file, err);

        for (uint64_t block = 0; block < vdi->blocks && !r; block++) {
                struct vd_block value;

                r = vd_blocktable_get(&vdi->table, block, &value, err);
                if (!r && value.kind == VD_DATA)
                        end = vd_max(end, value.position + vdi->block_bytes);
        }
        if (r || end >= vdi->table.next)
                return r;
        vdi->allocated = (end - vdi->data_offset) / vdi->slot_bytes;
        r = write_header(img, err);
        if (!r)
                r = vd_image_barrier(img, img->file, err);
        if (!r)
                r = vd_file_truncate(img->file, end, err);
        vdi->table.next = vdi->table.limit = end;
        return r;
}

static void fill_header(struct vdi *vdi)
{
        struct vdi_header_disk *h = &vdi->header;

        strcpy(h->pre.text, "<<< vdtool VirtualBox Disk Image >>>\n");
        h->pre.signature = le32_put(VDI_SIGNATURE);
        h->pre.version = le32_put(vdi->version);
        h->header_bytes = le32_put(VDI_HEADER_WHOLE);
        h->type = le32_put(vdi->type);
        memcpy(h->comment, vdi->comment, sizeof(h->comment));
        h->map_offset = le32_put((uint32_t)vdi->map_offset);
        h->data_offset = le32_put((uint32_t)vdi->data_offset);
        h->sector_bytes = h->chs_sector_bytes = le32_put(VDI_SECTOR);
        h->disk_bytes = le64_put(vdi->disk_bytes);
        h->block_bytes = le32_put((uint32_t)vdi->block_bytes);
        h->blocks = le32_put((uint32_t)vdi->blocks);
        memcpy(h->parent_id, vdi->parent_id, 16);
        memcpy(h->parent_modify_id, vdi->parent_modify_id, 16);
}

static int finish_new(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        uint64_t end = vdi->data_offset + vdi->allocated * vdi->slot_bytes;
        char text[VD_GUID_TEXT];
        int r = vd_cache_flush(vdi->table.cache, err);

        if (!r && vd_file_size(img->file) < end)
                r = vd_file_truncate(img->file, end, err);
        if (!r && !vdi->given_id) {
                r = vd_identity_uuid(vdi->id, "vdi create uuid", img->digest, err);
                if (!r)
                        vd_guid_parse(vd_guid_text(vdi->id, VD_GUID_RFC, text), VD_GUID_MICROSOFT, vdi->id);
        }
        if (!r)
                r = renew(img, err);
        if (r)
                return r;
        fill_header(vdi);
        return write_header(img, err);
}

int vdi_finish(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = img->state;

        if (img->is_new)
                return finish_new(img, err);
        return vdi->dropped ? give_back(img, err) : 0;
}
