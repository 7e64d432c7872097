// SPDX-License-Identifier: MIT
/* parallels_check.c: the rules of an expanding image, for each file of the disk. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/check.h"
#include "parallels.h"
#include "util/checked.h"
#include "util/text.h"

struct walk {
        const struct prl_layer *layer;
        struct vd_check *check;
};

static int walk_bitmap(void *context, const struct prl_bitmap *bitmap, struct vd_error *err)
{
        const struct walk *walk = context;
        int r = 0;

        for (uint64_t i = 0; i < bitmap->entries && !r; i++) {
                struct vd_region region = { .class = VD_CLASS_SNAPSHOT, .length = walk->layer->cluster_bytes,
                                            .guest = VD_NOWHERE, .what = "dirty bitmap" };
                le64 entry;

                r = vd_file_read(walk->layer->file, &entry, sizeof(entry), bitmap->table + i * sizeof(entry), err);
                if (r || le64_get(entry) <= 1)
                        continue;
                if (!vd_mul(le64_get(entry), PRL_SECTOR, &region.position))
                        region.position = UINT64_MAX - region.length;
                r = vd_check_region(walk->check, &region, err);
        }
        return r;
}

static int walk_extension(struct prl_layer *layer, struct vd_check *check, struct vd_error *err)
{
        struct walk walk = { layer, check };
        struct vd_region region = { .class = VD_CLASS_SNAPSHOT, .position = layer->extension, .guest = VD_NOWHERE,
                                    .length = layer->cluster_bytes, .what = "format extension" };
        bool is_stale = le32_get(layer->header.in_use) != PRL_CLOSED;
        struct vd_error why = VD_ERROR_INIT;
        int r = vd_check_region(check, &region, err);

        if (!r)
                r = prl_extension_read(layer, walk_bitmap, &walk, &why);
        if (!r && !is_stale)
                r = prl_extension_verify(layer, &why);
        if (r == -ENOMEM || r == -EIO) {
                *err = why;
                return r;
        }
        if (is_stale)
                vd_find(&check->findings, VD_NOTE, "parallels-extension-stale", layer->extension, layer->cluster_bytes,
                        VD_NOWHERE, 0, true, "the format extension is stale: the image was written without it");
        else if (r)
                vd_find(&check->findings, VD_WARNING, "parallels-extension", layer->extension, layer->cluster_bytes,
                        VD_NOWHERE, 0, true, "%s", why.text);
        return 0;
}

static int walk_layer(struct prl_layer *layer, struct vd_check *check, struct vd_error *err)
{
        struct vd_region head = { .class = VD_CLASS_HEADER, .length = layer->table_end, .guest = VD_NOWHERE,
                                  .what = "header and BAT" };
        int r = vd_check_begin(check, PRL_SECTOR, vd_file_size(layer->file), err);

        if (!r)
                r = vd_check_region(check, &head, err);
        if (!r && layer->extension)
                r = walk_extension(layer, check, err);
        return r ? r : vd_blocktable_walk(&layer->table, check, err);
}

static void check_header(const struct prl_layer *layer, struct vd_findings *findings)
{
        const struct prl_header_disk *h = &layer->header;
        uint64_t needed = vd_div_up(layer->disk_bytes, layer->cluster_bytes), entries = le32_get(h->entries);

        if (layer->was_open)
                vd_find(findings, VD_WARNING, "parallels-in-use", offsetof(struct prl_header_disk, in_use), 4,
                        VD_NOWHERE, 0, true, "the image is open, or was not closed by its last writer (mark 0x%" PRIx32
                        ")", le32_get(h->in_use));
        if (entries > needed)
                vd_find(findings, VD_NOTE, "parallels-bat-long", offsetof(struct prl_header_disk, entries), 4,
                        VD_NOWHERE, 0, false, "the BAT has %" PRIu64 " entries, the disk needs %" PRIu64, entries,
                        needed);
        if (!layer->is_old && layer->data_offset % layer->cluster_bytes)
                vd_find(findings, VD_WARNING, "parallels-data-offset", offsetof(struct prl_header_disk, data_sector), 4,
                        VD_NOWHERE, 0, true, "clusters begin at %" PRIu64 ", no multiple of their size %" PRIu64,
                        layer->data_offset, layer->cluster_bytes);
        if (layer->data_offset > vd_file_size(layer->file))
                vd_find(findings, VD_ERROR, "parallels-data-offset", offsetof(struct prl_header_disk, data_sector), 4,
                        VD_NOWHERE, 0, true, "clusters begin at %" PRIu64 ", but the file ends at %" PRIu64,
                        layer->data_offset, vd_file_size(layer->file));
}

/* Space that nobody uses: whole clusters between others, and what lies behind the last one. */
static void find_leaks(const struct prl_layer *layer, struct vd_check *check)
{
        uint64_t index = 0, length, count, file_size = vd_file_size(layer->file);
        enum vd_class class;

        while (vd_spacemap_next(check->space, &index, &length, &count, &class)) {
                uint64_t start = vd_max(index * PRL_SECTOR, layer->data_offset);
                uint64_t end = vd_min((index + length) * PRL_SECTOR, file_size);

                if (!count && end > start && end - start >= layer->cluster_bytes)
                        vd_find(&check->findings, VD_LEAK, "parallels-leak", start, end - start, VD_NOWHERE, 0,
                                end == file_size, "%" PRIu64 " bytes belong to nothing", end - start);
                index += length;
        }
}

static int check_layer(struct prl_layer *layer, struct vd_check *check, struct vd_error *err)
{
        int r = walk_layer(layer, check, err);

        if (r)
                return r;
        check_header(layer, &check->findings);
        find_leaks(layer, check);
        return 0;
}

/* A file of a bundle has a space map of its own; its findings name it and count guest offsets from the disk's start. */
static int check_member(const struct prl_storage *storage, struct prl_layer *layer, struct vd_check *check,
                        struct vd_error *err)
{
        struct vd_check own = { .space = NULL };
        struct vd_findings *from = &own.findings, *to = &check->findings;
        int r;

        if (layer->plain)
                return 0;
        r = check_layer(layer, &own, err);
        for (size_t i = 0; i < from->count; i++) {
                const struct vd_finding *f = &from->items[i];

                vd_find(to, f->severity, f->code, f->position, f->length,
                        f->guest == VD_NOWHERE ? f->guest : storage->start + f->guest, f->guest_length, f->repairable,
                        "%s: %s", vd_file_name(layer->file), f->text);
                from->totals[f->severity]--;
        }
        for (int i = 0; i < VD_SEVERITIES; i++)         /* those that were only counted */
                to->totals[i] += from->totals[i];
        to->failed |= from->failed;
        to->total_units += from->total_units;
        to->allocated_units += from->allocated_units;
        to->fragmented_units += from->fragmented_units;
        vd_check_free(&own);
        return r;
}

int prl_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct prl *prl = img->state;
        struct vd_region text = { .class = VD_CLASS_HEADER, .length = vd_file_size(img->file), .guest = VD_NOWHERE,
                                  .what = "descriptor" };
        int r;

        if (!prl->bundle)
                return walk_layer(prl->storages[0].layers, check, err);
        r = vd_check_begin(check, PRL_SECTOR, vd_file_size(img->file), err);
        return r ? r : vd_check_region(check, &text, err);
}

int prl_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct prl *prl = img->state;
        int r = 0;

        if (!prl->bundle) {
                check_header(prl->storages[0].layers, &check->findings);
                find_leaks(prl->storages[0].layers, check);
                return 0;
        }
        for (size_t i = 0; i < prl->count && !r; i++)
                for (size_t k = 0; k < prl->storages[i].count && !r; k++)
                        r = check_member(&prl->storages[i], &prl->storages[i].layers[k], check, err);
        return r;
}
