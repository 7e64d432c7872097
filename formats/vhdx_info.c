// SPDX-License-Identifier: MIT
/* vhdx_info.c: what is worth knowing about a disk. */
#include "vhdx.h"

static void add_guid(struct vd_report *report, const char *key, const char *label, const uint8_t guid[16])
{
        char text[VD_GUID_TEXT];

        vd_report_text(report, key, label, vd_guid_text(guid, VD_GUID_MICROSOFT, text));
}

static void describe_log(const struct vhdx *v, struct vd_report *report)
{
        vd_report_offset(report, "log-offset", "log offset", le64_get(v->header.log_offset));
        vd_report_bytes(report, "log-size", "log size", le32_get(v->header.log_length));
        vd_report_flag(report, "log-pending", "log to be replayed", v->log_pending);
        if (v->log_entries)
                vd_report_count(report, "log-entries-replayed", "log entries replayed", v->log_entries);
}

static void describe_locator(const struct vhdx *v, struct vd_report *report)
{
        struct vd_report *section = NULL;

        if (v->locator_count)
                section = vd_report_section(report, "parent-locator", "parent locator");
        for (size_t i = 0; i < v->locator_count; i++)
                vd_report_text(section, v->locator[i].key, v->locator[i].key, v->locator[i].value);
}

static void describe_items(const struct vhdx *v, struct vd_report *report)
{
        struct vd_report *list = NULL;

        for (size_t i = 0; i < v->item_count; i++) {
                const struct vhdx_item *item = &v->items[i];
                struct vd_report *entry;

                if (!(item->flags & VHDX_ITEM_USER))
                        continue;
                if (!list)
                        list = vd_report_list(report, "user-metadata", "user metadata");
                entry = vd_report_item(list);
                add_guid(entry, "guid", "guid", item->guid);
                vd_report_bytes(entry, "length", "length", item->length);
                vd_report_flag(entry, "is-virtual-disk", "of the virtual disk", item->flags & VHDX_ITEM_DISK);
        }
}

static void describe_regions(const struct vhdx *v, struct vd_report *report)
{
        struct vd_report *list = NULL;

        for (size_t i = 0; i < v->region_count; i++) {
                const struct vhdx_region *region = &v->regions[i];
                struct vd_report *entry;

                if (region->known)
                        continue;
                if (!list)
                        list = vd_report_list(report, "unknown-regions", "unknown regions");
                entry = vd_report_item(list);
                add_guid(entry, "guid", "guid", region->guid);
                vd_report_offset(entry, "offset", "offset", region->position);
                vd_report_bytes(entry, "length", "length", region->length);
        }
}

void vhdx_describe(struct vd_image *img, struct vd_report *report)
{
        static const char *const copies[] = { "damaged", "good", "differs" };
        static const char *const types[] = { "dynamic", "fixed", "differencing" };
        const struct vhdx *v = img->state;

        vd_report_text(report, "subformat", "type", types[v->type]);
        vd_report_bytes(report, "block-size", "block size", v->block_bytes);
        vd_report_bytes(report, "logical-sector-size", "logical sector size", v->logical_bytes);
        vd_report_bytes(report, "physical-sector-size", "physical sector size", v->physical_bytes);
        add_guid(report, "virtual-disk-id", "virtual disk id", v->disk_id);
        vd_report_text(report, "creator", "creator", v->creator);
        add_guid(report, "file-write-guid", "file write GUID", v->header.file_write_guid);
        add_guid(report, "data-write-guid", "data write GUID", v->header.data_write_guid);
        vd_report_count(report, "header-sequence", "header sequence", le64_get(v->header.sequence));
        vd_report_count(report, "header-used", "header used", v->slot + 1);
        vd_report_text(report, "header-1", "header 1", copies[v->headers[0]]);
        vd_report_text(report, "header-2", "header 2", copies[v->headers[1]]);
        vd_report_text(report, "region-table-1", "region table 1", copies[v->tables[0]]);
        vd_report_text(report, "region-table-2", "region table 2", copies[v->tables[1]]);
        describe_log(v, report);
        vd_report_offset(report, "metadata-offset", "metadata offset", v->metadata.position);
        vd_report_bytes(report, "metadata-size", "metadata size", v->metadata.length);
        vd_report_offset(report, "bat-offset", "BAT offset", v->bat.position);
        vd_report_bytes(report, "bat-size", "BAT size", v->bat.length);
        vd_report_count(report, "bat-entries", "BAT entries", vhdx_bat_entries(v, img->size));
        describe_locator(v, report);
        describe_items(v, report);
        describe_regions(v, report);
}
