// SPDX-License-Identifier: MIT
/* vdi.c: VirtualBox disk images (reference: docs/formats.md, "VDI")
 *
 *      [ header 512 ][ block map: le32 per block ] ... [ slot 0 ][ slot 1 ] ...        in the order of allocation
 *
 * A map entry is a slot number, or one of two states: free (the parent's, or zeros) and zero.  Map and slots lie where
 * the header says; VirtualBox aligns them to 1 MiB, QEMU to 512 bytes.  A differencing image does not name its parent
 * but has its UUID.
 * Quirk: a size that is no multiple of 512 is rounded down by VirtualBox and up by QEMU; we show whole sectors, with
 * zeros behind the size that is stored.
 * Cost: nothing is kept but pages of the map.
 */
#include "vdi.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

static bool is_known_version(uint32_t version)
{
        return version >> 16 <= 1;      /* the oldest images store a plain 2, which has major number 0, too */
}

static bool is_version0(uint32_t version)
{
        return version >> 16 == 0;
}

static enum vd_match vdi_probe(const struct vd_probe *probe)
{
        const struct vdi_preheader_disk *pre = (const void *)probe->head;

        if (probe->head_bytes < sizeof(*pre) || le32_get(pre->signature) != VDI_SIGNATURE)
                return VD_MATCH_NO;
        return is_known_version(le32_get(pre->version)) ? VD_MATCH_SURE : VD_MATCH_WEAK;
}

static int decode_entry(const void *owner, uint64_t block, const void *raw, struct vd_block *out, struct vd_error *err)
{
        const struct vdi *vdi = owner;
        uint32_t entry = le32_get(*(const le32 *)raw);

        (void)block;
        (void)err;
        if (entry == VDI_FREE)
                return 0;
        if (entry == VDI_ZERO) {
                out->kind = VD_ZERO;
                return 0;
        }
        out->kind = VD_DATA;
        out->position = vdi->data_offset + entry * vdi->slot_bytes + vdi->extra_bytes;
        return 0;
}

static void encode_entry(const void *owner, uint64_t block, const struct vd_block *value, void *raw)
{
        const struct vdi *vdi = owner;
        uint32_t entry = VDI_FREE;

        (void)block;
        if (value->kind == VD_ZERO)
                entry = VDI_ZERO;
        else if (value->kind == VD_DATA)
                entry = (uint32_t)((value->position - vdi->extra_bytes - vdi->data_offset) / vdi->slot_bytes);
        *(le32 *)raw = le32_put(entry);
}

static const struct vd_blocktable_type map_type = {
        .what = "block map", .finding = "vdi-map-entry", .entry_bytes = sizeof(le32),
        .decode = decode_entry, .encode = encode_entry,
};

int vdi_open_table(struct vd_image *img, struct vd_error *err)
{
        enum { CACHE_BYTES = 1 << 20 };
        struct vdi *vdi = img->state;
        struct vd_blocktable *table = &vdi->table;
        bool in_place = img->writable && !img->is_new;
        uint64_t end = vdi->data_offset + vdi->allocated * vdi->slot_bytes;
        size_t page = vd_blocktable_page(vdi->blocks * sizeof(le32), vdi->data_offset - vdi->map_offset);
        int r;

        *table = (struct vd_blocktable){
                .type = &map_type, .owner = vdi, .file = img->file, .position = vdi->map_offset,
                .count = vdi->blocks, .block_bytes = vdi->block_bytes, .disk_bytes = vdi->disk_bytes,
                .lead_bytes = vdi->extra_bytes, .start = vdi->data_offset, .limit = vd_file_size(img->file),
                .in_place = in_place, .next = end, .align = 1,
                .reach = vdi->data_offset + vdi->blocks * vdi->slot_bytes,
        };
        if (img->is_new)
                table->limit = UINT64_MAX;
        else if (in_place)              /* the space behind is given to new blocks: nobody may use it already */
                table->limit = end;
        r = vd_blocktable_open(table, page, CACHE_BYTES / page, err);
        if (!r && img->is_new)
                vd_cache_allow_short(table->cache, 0xff);
        return r;
}

static void take_text(char *to, const char *from, size_t room)
{
        memcpy(to, from, room);
        to[room] = 0;
}

static void parse_version1(struct vdi *vdi)
{
        const struct vdi_header_disk *h = &vdi->header;

        vdi->header_end = sizeof(h->pre) + (uint64_t)le32_get(h->header_bytes);
        vdi->type = le32_get(h->type);
        vdi->flags = le32_get(h->flags);
        take_text(vdi->comment, h->comment, sizeof(h->comment));
        vdi->map_offset = le32_get(h->map_offset);
        vdi->data_offset = le32_get(h->data_offset);
        vdi->disk_bytes = le64_get(h->disk_bytes);
        vdi->block_bytes = le32_get(h->block_bytes);
        vdi->extra_bytes = le32_get(h->extra_bytes);
        vdi->blocks = le32_get(h->blocks);
        vdi->allocated = le32_get(h->allocated);
        memcpy(vdi->id, h->id, 16);
        memcpy(vdi->modify_id, h->modify_id, 16);
        memcpy(vdi->parent_id, h->parent_id, 16);
        memcpy(vdi->parent_modify_id, h->parent_modify_id, 16);
        if (le32_get(h->header_bytes) >= VDI_HEADER_WHOLE) {
                vdi->cylinders = le32_get(h->cylinders);
                vdi->heads = le32_get(h->heads);
                vdi->sectors = le32_get(h->sectors);
        }
}

static void parse_version0(struct vdi *vdi, const struct vdi_header0_disk *h)
{
        vdi->header_end = vdi->map_offset = sizeof(*h);
        vdi->type = le32_get(h->type);
        vdi->flags = le32_get(h->flags);
        take_text(vdi->comment, h->comment, sizeof(h->comment));
        vdi->disk_bytes = le64_get(h->disk_bytes);
        vdi->block_bytes = le32_get(h->block_bytes);
        vdi->blocks = le32_get(h->blocks);
        vdi->data_offset = vdi->map_offset + vdi->blocks * sizeof(le32);
        vdi->allocated = le32_get(h->allocated);
        memcpy(vdi->id, h->id, 16);
        memcpy(vdi->modify_id, h->modify_id, 16);
        memcpy(vdi->parent_id, h->parent_id, 16);
        vdi->cylinders = le32_get(h->cylinders);
        vdi->heads = le32_get(h->heads);
        vdi->sectors = le32_get(h->sectors);
}

static int check_numbers(const struct vdi *vdi, uint64_t file_size, struct vd_error *err)
{
        uint64_t map_bytes = vdi->blocks * sizeof(le32), covered;

        if (vdi->type == VDI_UNDO)
                return vd_fail(err, VD_EUNSUPPORTED, "undo images (type 3) are not read");
        if (vdi->type != VDI_DYNAMIC && vdi->type != VDI_FIXED && vdi->type != VDI_DIFFERENCING)
                return vd_fail(err, VD_ECORRUPT, "header: type %u, allowed are 1 (dynamic), 2 (fixed) and "
                               "4 (differencing)", (unsigned)vdi->type);
        if (vdi->header_end < sizeof(struct vdi_preheader_disk) + VDI_HEADER_LEAST && !is_version0(vdi->version))
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " bytes long, at least %d expected",
                               vdi->header_end - sizeof(struct vdi_preheader_disk), VDI_HEADER_LEAST);
        if (!vd_is_pow2(vdi->block_bytes) || vdi->block_bytes < VDI_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "header: block size %" PRIu64 " is not a power of two of at least %d",
                               vdi->block_bytes, VDI_SECTOR);
        if (vdi->extra_bytes && !vd_is_pow2(vdi->extra_bytes))
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " extra bytes per block, which is not a power of "
                               "two", vdi->extra_bytes);
        if (vdi->block_bytes > VDI_BLOCK_MAX || vdi->extra_bytes > VDI_BLOCK_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "header: blocks of %" PRIu64 " bytes and %" PRIu64 " extra bytes, "
                               "at most %d supported", vdi->block_bytes, vdi->extra_bytes, VDI_BLOCK_MAX);
        if (!vdi->disk_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: disk size 0");
        if (!vd_mul(vdi->blocks, vdi->block_bytes, &covered) || covered < vdi->disk_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " blocks of %" PRIu64 " bytes do not cover a disk "
                               "of %" PRIu64 " bytes", vdi->blocks, vdi->block_bytes, vdi->disk_bytes);
        if (vdi->map_offset < vdi->header_end)
                return vd_fail(err, VD_ECORRUPT, "header: block map at %" PRIu64 ", but the header ends at %" PRIu64,
                               vdi->map_offset, vdi->header_end);
        if (vdi->data_offset < vdi->map_offset + map_bytes)
                return vd_fail(err, VD_ECORRUPT, "header: blocks begin at %" PRIu64 ", but the block map ends at %"
                               PRIu64, vdi->data_offset, vdi->map_offset + map_bytes);
        if (vdi->data_offset > file_size)
                return vd_fail(err, VD_ECORRUPT, "header: blocks begin at %" PRIu64 ", but the file ends at %" PRIu64,
                               vdi->data_offset, file_size);
        return 0;
}

/* What only a writer cares about. */
static int check_writable(const struct vd_image *img, const struct vdi *vdi, struct vd_error *err)
{
        uint64_t end = vdi->data_offset + vdi->allocated * vdi->slot_bytes;

        if (is_version0(vdi->version))
                return vd_fail(err, VD_EUNSUPPORTED, "images of version 0 are only read");
        if (vdi->disk_bytes % VDI_SECTOR)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes, no multiple of %d, is only read",
                               vdi->disk_bytes, VDI_SECTOR);
        if (vdi->allocated > vdi->blocks)
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " blocks allocated of %" PRIu64, vdi->allocated,
                               vdi->blocks);
        if (end > vd_file_size(img->file))
                return vd_fail(err, VD_ECORRUPT, "%" PRIu64 " allocated blocks end at %" PRIu64 ", but the file at %"
                               PRIu64, vdi->allocated, end, vd_file_size(img->file));
        return 0;
}

static int read_header(struct vd_image *img, struct vdi *vdi, struct vd_error *err)
{
        struct vdi_header_disk *h = &vdi->header;
        size_t got, needed;
        int r = vd_file_read_some(img->file, h, sizeof(*h), 0, &got, err);

        if (r)
                return r;
        if (got < sizeof(h->pre) || le32_get(h->pre.signature) != VDI_SIGNATURE)
                return vd_fail(err, VD_EFORMAT, "no VDI signature at 64");
        vdi->version = le32_get(h->pre.version);
        if (!is_known_version(vdi->version))
                return vd_fail(err, VD_EUNSUPPORTED, "header: version %u.%u, known are 0 and 1", vdi->version >> 16,
                               vdi->version & 0xffff);
        needed = is_version0(vdi->version) ? sizeof(struct vdi_header0_disk)
                                           : sizeof(h->pre) + VDI_HEADER_LEAST;
        if (got < needed)
                return vd_fail(err, VD_ECORRUPT, "the file ends at %zu, inside the header", got);
        take_text(vdi->text, h->pre.text, sizeof(h->pre.text));
        vdi->text[strcspn(vdi->text, "\n")] = 0;
        if (is_version0(vdi->version))
                parse_version0(vdi, (const void *)h);
        else
                parse_version1(vdi);
        return check_numbers(vdi, vd_file_size(img->file), err);
}

static int add_parent(struct vd_image *img, const struct vdi *vdi, struct vd_error *err)
{
        char name[VD_GUID_TEXT + 2] = "{";

        if (!vdi_is_differencing(vdi))
                return 0;
        vd_guid_text(vdi->parent_id, VD_GUID_MICROSOFT, name + 1);
        strcat(name, "}");
        img->parent_ref.format = strdup("vdi");
        if (!img->parent_ref.format)
                return vd_fail(err, -ENOMEM, "format of the parent");
        return vd_image_add_parent_name(img, name, "UUID, looked for in the .vdi files beside the image", err);
}

static int vdi_open(struct vd_image *img, struct vd_error *err)
{
        struct vdi *vdi = calloc(1, sizeof(*vdi));
        int r;

        if (!vdi)
                return vd_fail(err, -ENOMEM, "VDI header");
        img->state = vdi;
        r = read_header(img, vdi, err);
        if (!r) {
                vdi->slot_bytes = vdi->extra_bytes + vdi->block_bytes;
                img->size = vd_round_up(vdi->disk_bytes, VDI_SECTOR);
                img->unit = vdi->block_bytes;
                img->write_unit = vdi_is_differencing(vdi) ? vdi->block_bytes : VDI_SECTOR;
                r = img->writable ? check_writable(img, vdi, err) : 0;
        }
        if (!r)
                r = add_parent(img, vdi, err);
        if (!r)
                r = vdi_open_table(img, err);
        if (r)
                vdi_close(img);
        return r;
}

void vdi_close(struct vd_image *img)
{
        struct vdi *vdi = img->state;

        if (!vdi)
                return;
        vd_blocktable_close(&vdi->table);
        free(vdi);
        img->state = NULL;
}

static int vdi_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        bool partial;

        if (offset >= vdi->disk_bytes) {
                *ext = (struct vd_extent){ .start = offset, .length = vd_min(max, img->size - offset),
                                           .kind = VD_ZERO };
                return 0;
        }
        return vd_blocktable_map(&vdi->table, offset, max, ext, &partial, err);
}

static const char *type_name(enum vdi_type type)
{
        switch (type) {
        case VDI_DYNAMIC: return "dynamic";
        case VDI_FIXED: return "fixed";
        case VDI_UNDO: return "undo";
        case VDI_DIFFERENCING: return "differencing";
        }
        return "unknown";
}

static void describe_id(struct vd_report *report, const char *key, const char *label, const uint8_t id[16])
{
        char text[VD_GUID_TEXT];

        if (!vd_guid_is_zero(id))
                vd_report_text(report, key, label, vd_guid_text(id, VD_GUID_MICROSOFT, text));
}

static void vdi_describe(struct vd_image *img, struct vd_report *report)
{
        const struct vdi *vdi = img->state;

        vd_report_text(report, "subformat", "subformat", type_name(vdi->type));
        vd_report_textf(report, "version", "version", "%u.%u", vdi->version >> 16, vdi->version & 0xffff);
        vd_report_text(report, "producer", "producer", vdi->text);
        if (vdi->comment[0])
                vd_report_text(report, "comment", "comment", vdi->comment);
        describe_id(report, "uuid", "UUID", vdi->id);
        describe_id(report, "modify-uuid", "UUID of last change", vdi->modify_id);
        describe_id(report, "parent-uuid", "UUID of parent", vdi->parent_id);
        describe_id(report, "parent-modify-uuid", "UUID of parent's last change", vdi->parent_modify_id);
        vd_report_bytes(report, "block-size", "block size", vdi->block_bytes);
        if (vdi->extra_bytes)
                vd_report_count(report, "block-extra-bytes", "extra bytes per block", vdi->extra_bytes);
        vd_report_count(report, "blocks", "blocks", vdi->blocks);
        vd_report_count(report, "allocated-blocks", "allocated blocks", vdi->allocated);
        vd_report_offset(report, "map-offset", "block map at", vdi->map_offset);
        vd_report_offset(report, "data-offset", "blocks from", vdi->data_offset);
        vd_report_flag(report, "zero-expand", "new blocks are filled with zeros", vdi->flags & VDI_ZERO_EXPAND);
        if (vdi->cylinders && vdi->heads && vdi->sectors)
                vd_report_textf(report, "geometry", "geometry", "%u/%u/%u", vdi->cylinders, vdi->heads, vdi->sectors);
        if (vdi->disk_bytes != img->size)
                vd_report_count(report, "stored-size", "stored size", vdi->disk_bytes);
}

static const char *const extensions[] = { "vdi", NULL };

const struct vd_format vd_format_vdi = {
        .name = "vdi", .title = "VirtualBox disk image", .extensions = extensions, .caps = VD_CAP_BACKING,
        .probe = vdi_probe, .open = vdi_open, .close = vdi_close, .map = vdi_map,
        .find_parent = vdi_find_parent, .accept_parent = vdi_accept_parent, .describe = vdi_describe,
        .walk = vdi_walk, .check = vdi_check,
        .params_size = sizeof(struct vdi_params), .create_opts = vdi_create_opts, .subformats = vdi_subformats,
        .create = vdi_create, .place = vdi_place, .settle = vdi_settle, .publish = vdi_publish, .flush = vdi_flush,
        .finish = vdi_finish,
};
