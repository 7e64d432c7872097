// SPDX-License-Identifier: MIT
/* twolevel_check.c: two-level tables as regions of the file, for images where nothing counts references. */
#include <inttypes.h>
#include <stdio.h>

#include "core/check.h"
#include "core/image.h"
#include "twolevel.h"
#include "util/checked.h"

struct walk {
        const struct vd_twolevel *map;
        struct vd_check *check;
        const char *finding;
        uint64_t disk_bytes, file_size;
        uint64_t expected;              /* where the next cluster would begin if nothing were fragmented */
};

static uint64_t reach(const struct vd_twolevel *map)
{
        return map->entries * map->unit;
}

/* An entry that cannot be right; length: guest bytes that it serves. */
static void find_bad(const struct walk *walk, uint64_t position, unsigned entry_bytes, uint64_t guest, uint64_t length,
                     const struct vd_error *why)
{
        length = guest < walk->disk_bytes ? vd_min(length, walk->disk_bytes - guest) : 0;
        vd_find(&walk->check->findings, VD_ERROR, walk->finding, position, entry_bytes, length ? guest : VD_NOWHERE,
                length, true, "%s", why->text);
}

static int walk_table(void *context, uint64_t index, const void *entry, uint64_t *position, struct vd_error *err)
{
        struct walk *walk = context;
        const struct vd_twolevel *map = walk->map;
        struct vd_region region = {
                .class = VD_CLASS_SUBTABLE, .length = map->entries * map->entry_bytes, .guest = VD_NOWHERE,
                .what = map->sub_name,
        };
        struct vd_error why = VD_ERROR_INIT;
        uint64_t guest;
        int r;

        if (!vd_mul(index, reach(map), &guest))
                guest = VD_NOWHERE;
        if (map->ops->table(map, index, entry, position, &why)) {
                find_bad(walk, map->top_position + index * map->top_entry_bytes, map->top_entry_bytes, guest,
                         reach(map), &why);
                return 0;
        }
        region.position = *position;
        r = vd_check_region(walk->check, &region, err);
        return r ? r : vd_range_fits(*position, region.length, walk->file_size);
}

static int walk_entry(void *context, uint64_t guest, uint64_t entry_position, const void *entry, struct vd_error *err)
{
        struct walk *walk = context;
        const struct vd_twolevel *map = walk->map;
        struct vd_findings *findings = &walk->check->findings;
        struct vd_extent ext = { .start = guest, .length = map->unit };
        struct vd_error why = VD_ERROR_INIT;
        struct vd_region region;
        bool packed;
        char what[64];

        if (map->ops->entry(map, entry_position, entry, &ext, &why)) {
                find_bad(walk, entry_position, map->entry_bytes, guest, map->unit, &why);
                return 0;
        }
        if (ext.kind != VD_DATA && ext.kind != VD_PACKED)
                return 0;
        packed = ext.kind == VD_PACKED;
        snprintf(what, sizeof(what), "%s at guest offset %" PRIu64, packed ? "packed cluster" : "cluster", guest);
        region = (struct vd_region){
                .class = packed ? VD_CLASS_PACKED : VD_CLASS_DATA, .position = ext.position, .guest = guest,
                .length = packed ? ext.packed_bytes : map->unit, .what = what, .shared = packed,
        };
        /* Of the disk's last cluster only the disk's bytes must be there. */
        if (!packed && guest < walk->disk_bytes && !vd_range_fits(region.position, region.length, walk->file_size))
                region.length = vd_min(region.length, walk->disk_bytes - guest);
        findings->allocated_units++;
        findings->packed_units += packed;
        findings->fragmented_units += walk->expected && region.position != walk->expected;
        walk->expected = region.position + region.length;
        return vd_check_region(walk->check, &region, err);
}

int vd_twolevel_regions(const struct vd_twolevel *map, uint64_t disk_bytes, struct vd_check *check, const char *finding,
                        struct vd_error *err)
{
        struct walk walk = { .map = map, .check = check, .finding = finding, .disk_bytes = disk_bytes,
                             .file_size = vd_file_size(map->file) };
        const struct vd_twolevel_visit visit = { .context = &walk, .on_table = walk_table, .on_entry = walk_entry };

        check->findings.total_units += vd_div_up(disk_bytes, map->unit);
        return vd_twolevel_walk(map, &visit, err);
}

void vd_twolevel_leaks(struct vd_check *check, uint64_t granule, uint64_t cluster, uint64_t from, uint64_t file_size,
                       const char *finding)
{
        uint64_t index = 0, length, count;
        enum vd_class class;

        while (vd_spacemap_next(check->space, &index, &length, &count, &class)) {
                uint64_t start = vd_max(index * granule, from), end = vd_min((index + length) * granule, file_size);

                if (!count && end > start && end - start >= cluster)
                        vd_find(&check->findings, VD_LEAK, finding, start, end - start, VD_NOWHERE, 0, end == file_size,
                                "%" PRIu64 " bytes belong to nothing", end - start);
                index += length;
        }
}
