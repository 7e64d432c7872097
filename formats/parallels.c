// SPDX-License-Identifier: MIT
/* parallels.c: Parallels disks (reference: docs/formats.md, "Parallels")
 *
 *      image           [ header 64 ][ BAT: le32 per cluster ] ... [ clusters in the order of allocation ]
 *      bundle          DIRECTORY/DiskDescriptor.xml, and an image or plain file per piece of the disk and snapshot
 *
 * A BAT entry counts sectors (magic WithoutFreeSpace) or clusters (WithouFreSpacExt); 0 is unallocated, and nothing
 * says "zeros": over a snapshot zeros take a cluster.  Clusters may have any number of sectors; 63 was usual once.
 * To this file a single image is a disk of one piece in one layer.
 * Quirk: the "empty" flag is set in images that are not; the mark of a writer stays after a crash.
 * Cost: nothing is kept but pages of the BATs.
 */
#include "parallels.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

static enum vd_match prl_probe(const struct vd_probe *probe)
{
        if (prl_is_image(probe->head, probe->head_bytes) || prl_is_bundle(probe->head, probe->head_bytes))
                return VD_MATCH_SURE;
        return VD_MATCH_NO;
}

void prl_close_storages(struct prl *prl)
{
        for (size_t i = 0; i < prl->count; i++) {
                for (size_t k = 0; k < prl->storages[i].count; k++)
                        prl_layer_close(&prl->storages[i].layers[k]);
                free(prl->storages[i].layers);
        }
        free(prl->storages);
        prl->storages = NULL;
        prl->count = 0;
}

void prl_close(struct vd_image *img)
{
        struct prl *prl = img->state;

        if (!prl)
                return;
        prl_close_storages(prl);
        prl_bundle_free(prl->bundle);
        free(prl);
        img->state = NULL;
}

static int open_single(struct vd_image *img, struct vd_error *err)
{
        struct prl *prl = img->state;
        struct prl_layer *layer;
        int r;

        prl->storages = calloc(1, sizeof(*prl->storages));
        if (!prl->storages)
                return vd_fail(err, -ENOMEM, "Parallels header");
        prl->count = 1;
        prl->storages->layers = layer = calloc(1, sizeof(*layer));
        if (!layer)
                return vd_fail(err, -ENOMEM, "Parallels header");
        prl->storages->count = 1;
        r = prl_layer_open(layer, img, img->file, img->writable, err);
        if (r)
                return r;
        prl->storages->end = img->size = layer->disk_bytes;
        img->unit = layer->cluster_bytes;
        img->write_unit = PRL_SECTOR;
        img->is_dirty = layer->was_open;
        return 0;
}

static int prl_open(struct vd_image *img, struct vd_error *err)
{
        uint8_t head[VD_PROBE_BYTES];
        size_t got;
        int r = vd_file_read_some(img->file, head, sizeof(head), 0, &got, err);

        if (r)
                return r;
        img->state = calloc(1, sizeof(struct prl));
        if (!img->state)
                return vd_fail(err, -ENOMEM, "Parallels header");
        r = prl_is_bundle(head, got) ? prl_bundle_open(img, err) : open_single(img, err);
        if (r)
                prl_close(img);
        return r;
}

/* The piece that holds a guest offset; NULL when the files were not opened. */
static struct prl_storage *find_storage(const struct prl *prl, uint64_t offset)
{
        size_t low = 0, high = prl->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (prl->storages[middle].end <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < prl->count ? &prl->storages[low] : NULL;
}

static int prl_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct prl *prl = img->state;
        const struct prl_storage *storage = find_storage(prl, offset);
        uint64_t limit;

        if (img->is_encrypted)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted; vdtool does not decrypt Parallels disks");
        if (!storage)
                return vd_fail(err, VD_EPOLICY, "the files that the descriptor names are not opened here");
        limit = vd_min(max, storage->end - offset);
        for (size_t i = 0; i < storage->count; i++) {
                int r = prl_layer_map(&storage->layers[i], offset - storage->start, limit, ext, err);

                if (r)
                        return prl->bundle ? vd_error_prefix(err, "%s", vd_file_name(storage->layers[i].file)) : r;
                limit = vd_min(limit, ext->length);
                if (ext->kind != VD_UNALLOCATED)
                        break;
        }
        ext->start = offset;
        ext->length = limit;
        return 0;
}

static void prl_describe(struct vd_image *img, struct vd_report *report)
{
        const struct prl *prl = img->state;

        vd_report_text(report, "subformat", "subformat", prl->bundle ? "bundle" : prl->storages->layers->is_old
                       ? "old" : "expanding");
        if (prl->bundle)
                prl_bundle_describe(prl->bundle, report);
        else
                prl_layer_describe(prl->storages->layers, report);
}

/* ---- writing ---- */

static int prl_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                     struct vd_error *err)
{
        struct prl_storage *storage = find_storage(img->state, request->start);
        struct vd_request own = *request;
        int r;

        if (!storage)
                return vd_fail(err, VD_EPOLICY, "the files that the descriptor names are not opened here");
        own.start -= storage->start;
        own.length = vd_min(own.length, storage->end - request->start);
        r = prl_layer_place(&storage->layers[0], &own, storage->count > 1, place, err);
        place->start = request->start;
        return r;
}

static int each_top(struct vd_image *img, int (*step)(struct prl_layer *, struct vd_error *), struct vd_error *err)
{
        struct prl *prl = img->state;
        int r = 0;

        for (size_t i = 0; i < prl->count && !r; i++)
                r = step(&prl->storages[i].layers[0], err);
        return r;
}

static int prl_settle(struct vd_image *img, struct vd_error *err)
{
        return each_top(img, prl_layer_settle, err);
}

static int prl_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct prl_storage *storage = find_storage(img->state, place->start);

        if (storage->layers->plain)
                return 0;
        return prl_layer_publish(storage->layers, place->start - storage->start, place, err);
}

static int prl_flush(struct vd_image *img, struct vd_error *err)
{
        return each_top(img, prl_layer_flush, err);
}

static int prl_finish(struct vd_image *img, struct vd_error *err)
{
        const struct prl *prl = img->state;
        int r = each_top(img, prl_layer_finish, err);

        return !r && prl->is_new_bundle ? prl_finish_bundle(img, err) : r;
}

static const char *const extensions[] = { "hdd", "hds", "parallels", NULL };

const struct vd_format vd_format_parallels = {
        .name = "parallels", .title = "Parallels disk", .extensions = extensions,
        .caps = VD_CAP_SNAPSHOTS | VD_CAP_SET | VD_CAP_SPREAD, .directory_file = "DiskDescriptor.xml",
        .probe = prl_probe, .open = prl_open, .close = prl_close, .map = prl_map, .describe = prl_describe,
        .snapshot = prl_bundle_snapshot, .select = prl_bundle_select, .walk = prl_walk, .check = prl_check,
        .params_size = sizeof(struct prl_params), .create_opts = prl_create_opts, .subformats = prl_subformats,
        .create = prl_create, .place = prl_place, .settle = prl_settle, .publish = prl_publish, .flush = prl_flush,
        .finish = prl_finish,
};
