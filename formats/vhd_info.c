// SPDX-License-Identifier: MIT
/* vhd_info.c: everything that footer, dynamic header and parent locators say. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "util/checked.h"
#include "util/text.h"
#include "vhd.h"

static void add_time(struct vd_report *report, const char *key, const char *label, uint32_t since_2000)
{
        time_t t = (time_t)(since_2000 + VHD_EPOCH);
        struct tm tm;
        char text[32];

        if (gmtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
                vd_report_text(report, key, label, text);
}

static const char *copy_name(enum vhd_copy copy)
{
        switch (copy) {
        case VHD_COPY_NONE:
                return "none";
        case VHD_COPY_GOOD:
                return "good";
        case VHD_COPY_BAD:
                return "damaged";
        case VHD_COPY_DIFFERS:
                return "differs";
        }
        return "unknown";
}

static const char *type_name(enum vhd_type type)
{
        return type == VHD_FIXED ? "fixed" : type == VHD_DYNAMIC ? "dynamic" : "differencing";
}

static void describe_footer(const struct vhd *vhd, struct vd_report *report)
{
        const struct vhd_footer_disk *f = &vhd->footer;
        struct vd_chs chs = vhd_chs(f);
        char id[VD_GUID_TEXT], text[32];

        vd_report_text(report, "unique-id", "unique id", vd_guid_text(f->id, VD_GUID_RFC, id));
        vd_report_text(report, "creator", "creator", vd_printable(text, sizeof(text), f->creator, 4));
        vd_report_textf(report, "creator-version", "creator version", "%u.%u", be16_get(f->creator_major),
                        be16_get(f->creator_minor));
        vd_report_text(report, "creator-os", "creator system", vd_printable(text, sizeof(text), f->creator_os, 4));
        add_time(report, "created", "created", be32_get(f->time_stamp));
        vd_report_bytes(report, "current-size", "current size", be64_get(f->current_size));
        vd_report_bytes(report, "original-size", "original size", be64_get(f->original_size));
        vd_report_textf(report, "geometry", "geometry", "%u/%u/%u", chs.cylinders, chs.heads, chs.sectors);
        vd_report_bytes(report, "geometry-size", "geometry size", vd_chs_bytes(chs));
        vd_report_text(report, "size-rule", "size taken from", vhd->size_rule);
        vd_report_textf(report, "version", "version", "%" PRIu32 ".%" PRIu32, be32_get(f->version) >> 16,
                        be32_get(f->version) & 0xffff);
        vd_report_flag(report, "temporary", be32_get(f->features) & 1 ? "temporary" : NULL, be32_get(f->features) & 1);
        vd_report_flag(report, "saved-state", f->saved_state ? "saved state" : NULL, f->saved_state != 0);
        vd_report_flag(report, "hidden", f->hidden ? "hidden" : NULL, f->hidden != 0);
        if (vhd->type != VHD_FIXED)
                vd_report_text(report, "footer-copy", "footer copy", copy_name(vhd->front));
        vd_report_text(report, "footer", "footer", copy_name(vhd->back));
        vd_report_count(report, "footer-bytes", vhd->back_bytes == VHD_OLD_FOOTER ? "footer bytes" : NULL,
                        vhd->back_bytes);
        vd_report_count(report, "parts", vhd->parts > 1 ? "parts" : NULL, vhd->parts);
}

static void describe_parent(const struct vhd *vhd, struct vd_report *report)
{
        struct vd_report *parent = vd_report_section(report, "parent", "parent"), *list;
        char id[VD_GUID_TEXT];

        vd_report_text(parent, "unique-id", "unique id", vd_guid_text(vhd->parent_id, VD_GUID_RFC, id));
        vd_report_flag(parent, "raw", vd_guid_is_zero(vhd->parent_id) ? "raw disk" : NULL,
                       vd_guid_is_zero(vhd->parent_id));
        if (vhd->parent_time)
                add_time(parent, "time", "time stamp", vhd->parent_time);
        if (vhd->parent_name)
                vd_report_text(parent, "name", "name", vhd->parent_name);
        list = vd_report_list(parent, "locators", "locators");
        for (size_t i = 0; i < VHD_LOCATORS; i++) {
                const struct vhd_locator *l = &vhd->locators[i];

                if (!l->platform[0])
                        continue;

                struct vd_report *item = vd_report_item(list);

                vd_report_text(item, "platform", "platform", l->platform);
                if (l->text)
                        vd_report_text(item, "name", "name", l->text);
                vd_report_offset(item, "offset", "offset", l->offset);
                vd_report_count(item, "length", "length", l->length);
                vd_report_count(item, "space", "space", l->space);
        }
}

void vhd_describe(struct vd_image *img, struct vd_report *report)
{
        const struct vhd *vhd = img->state;

        vd_report_text(report, "subformat", "type", type_name(vhd->type));
        describe_footer(vhd, report);
        if (vhd->type == VHD_FIXED)
                return;
        vd_report_bytes(report, "block-size", "block size", vhd->block_bytes);
        vd_report_count(report, "table-entries", "table entries", be32_get(vhd->header.entries));
        vd_report_offset(report, "table-offset", "table offset", be64_get(vhd->header.table_offset));
        vd_report_offset(report, "header-offset", "header offset", vhd->header_offset);
        if (vhd->batmap_position) {
                struct vd_report *batmap = vd_report_section(report, "batmap", "batmap");

                vd_report_offset(batmap, "offset", "offset", be64_get(vhd->batmap.offset));
                vd_report_bytes(batmap, "length", "length", (uint64_t)be32_get(vhd->batmap.sectors) * VHD_SECTOR);
                vd_report_textf(batmap, "version", "version", "%" PRIu32 ".%" PRIu32,
                                be32_get(vhd->batmap.version) >> 16, be32_get(vhd->batmap.version) & 0xffff);
        }
        if (vhd_is_differencing(vhd))
                describe_parent(vhd, report);
}
