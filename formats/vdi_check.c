// SPDX-License-Identifier: MIT
/* vdi_check.c: the rules of a VDI that go beyond "blocks lie in the file and apart from each other". */
#include <inttypes.h>

#include "core/check.h"
#include "util/checked.h"
#include "vdi.h"

/* The largest power of two, at most a sector, that divides all positions of the file's structures. */
static uint64_t granule(const struct vdi *vdi)
{
        uint64_t all = VDI_SECTOR | vdi->map_offset | vdi->data_offset | vdi->slot_bytes;

        return all & -all;
}

int vdi_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        struct vd_region header = {
                .class = VD_CLASS_HEADER, .length = vdi->header_end, .guest = VD_NOWHERE, .what = "header",
        };
        struct vd_region map = {
                .class = VD_CLASS_TABLE, .position = vdi->map_offset, .length = vdi->blocks * sizeof(le32),
                .guest = VD_NOWHERE, .what = "block map",
        };
        int r = vd_check_begin(check, granule(vdi), vd_file_size(img->file), err);

        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r)
                r = vd_check_region(check, &map, err);
        return r ? r : vd_blocktable_walk(&vdi->table, check, err);
}

static void check_header(const struct vd_image *img, const struct vdi *vdi, struct vd_findings *findings)
{
        uint64_t needed = vd_div_up(vdi->disk_bytes, vdi->block_bytes);

        if (vdi->blocks > needed)
                vd_find(findings, VD_WARNING, "vdi-map-long", offsetof(struct vdi_header_disk, blocks), 4, VD_NOWHERE,
                        0, true, "the block map has %" PRIu64 " entries, a disk of %" PRIu64 " bytes needs %" PRIu64,
                        vdi->blocks, vdi->disk_bytes, needed);
        if (vdi->disk_bytes != img->size)
                vd_find(findings, VD_WARNING, "vdi-size", offsetof(struct vdi_header_disk, disk_bytes), 8, VD_NOWHERE,
                        0, true, "the disk size of %" PRIu64 " bytes is no multiple of %d", vdi->disk_bytes,
                        VDI_SECTOR);
        if (vd_guid_is_zero(vdi->id) || vd_guid_is_zero(vdi->modify_id))
                vd_find(findings, VD_WARNING, "vdi-uuid", offsetof(struct vdi_header_disk, id), 32, VD_NOWHERE, 0, true,
                        "the UUID of the disk or of its last change is null");
        if (vdi_is_differencing(vdi) == vd_guid_is_zero(vdi->parent_id))
                vd_find(findings, VD_WARNING, "vdi-parent-uuid", offsetof(struct vdi_header_disk, parent_id), 16,
                        VD_NOWHERE, 0, false, vdi_is_differencing(vdi)
                        ? "a differencing image without its parent's UUID"
                        : "an image without parent has a parent's UUID: QEMU refuses it");
}

/* Slots that no block uses: counted by the header (lost), or behind what it counts. */
static void check_slots(const struct vd_image *img, struct vdi *vdi, struct vd_check *check)
{
        uint64_t per = granule(vdi), used_end = vdi->data_offset, lost = 0, first_lost = VD_NOWHERE;
        uint64_t counted_end = vdi->data_offset + vdi->allocated * vdi->slot_bytes, file_size = vd_file_size(img->file);
        uint64_t index = 0, length, count;
        enum vd_class class;

        while (vd_spacemap_next(check->space, &index, &length, &count, &class)) {
                uint64_t start = vd_max(index * per, vdi->data_offset), end = (index + length) * per;

                if (count && end > vdi->data_offset) {
                        used_end = vd_max(used_end, end);
                } else if (end > start && start < counted_end) {
                        lost += (vd_min(end, counted_end) - start) / vdi->slot_bytes;
                        first_lost = vd_min(first_lost, start);
                }
                index += length;
        }
        check->findings.end_offset = vd_min(vd_max(used_end, counted_end), file_size);
        if (counted_end > file_size)
                vd_find(&check->findings, VD_ERROR, "vdi-truncated", file_size, counted_end - file_size, VD_NOWHERE, 0,
                        true, "%" PRIu64 " allocated blocks end at %" PRIu64 ", but the file at %" PRIu64,
                        vdi->allocated, counted_end, file_size);
        if (vdi->allocated > vdi->blocks)
                vd_find(&check->findings, VD_ERROR, "vdi-allocated", offsetof(struct vdi_header_disk, allocated), 4,
                        VD_NOWHERE, 0, true, "%" PRIu64 " blocks allocated of %" PRIu64, vdi->allocated, vdi->blocks);
        if (used_end > counted_end)
                vd_find(&check->findings, VD_ERROR, "vdi-allocated", offsetof(struct vdi_header_disk, allocated), 4,
                        VD_NOWHERE, 0, true, "blocks lie behind the %" PRIu64 " that the header counts: up to %" PRIu64
                        ", expected %" PRIu64, vdi->allocated, used_end, counted_end);
        if (lost)
                vd_find(&check->findings, VD_LEAK, "vdi-leak", first_lost, lost * vdi->slot_bytes, VD_NOWHERE, 0, true,
                        "%" PRIu64 " allocated slots belong to no block", lost);
        if (file_size > vd_max(counted_end, used_end))
                vd_find(&check->findings, VD_NOTE, "vdi-trailing", vd_max(counted_end, used_end),
                        file_size - vd_max(counted_end, used_end), VD_NOWHERE, 0, true,
                        "the file goes on for %" PRIu64 " bytes behind the last block",
                        file_size - vd_max(counted_end, used_end));
}

int vdi_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct vdi *vdi = img->state;
        struct vd_findings *findings = &check->findings;

        (void)err;
        check_header(img, vdi, findings);
        check_slots(img, vdi, check);
        if (vdi->type == VDI_FIXED && findings->allocated_units < findings->total_units)
                vd_find(findings, VD_WARNING, "vdi-fixed", vdi->map_offset, vdi->blocks * sizeof(le32), VD_NOWHERE, 0,
                        true, "a fixed image has %" PRIu64 " of %" PRIu64 " blocks", findings->allocated_units,
                        findings->total_units);
        return 0;
}
