// SPDX-License-Identifier: MIT
/* parallels_write.c: writing into expanding images.
 *
 * In place the in-use mark comes first, synced; then data, sync, table entries, sync, and the mark goes when all is
 * done.
 * Clusters are appended; the format extension stays where it is, marked as stale (see parallels_extension.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/write.h"
#include "parallels.h"
#include "util/checked.h"

static int write_header(struct prl_layer *layer, struct vd_error *err)
{
        return vd_file_write(layer->file, &layer->header, sizeof(layer->header), 0, err);
}

/* Before the first change: the mark, and no hint any more that the image is empty. */
static int start(struct prl_layer *layer, struct vd_error *err)
{
        int r;

        if (layer->image->is_new || layer->started)
                return 0;
        layer->header.in_use = le32_put(PRL_OPEN);
        layer->header.flags = le32_put(le32_get(layer->header.flags) & ~(uint32_t)PRL_EMPTY);
        r = write_header(layer, err);
        if (!r)
                r = vd_image_barrier(layer->image, layer->file, err);
        layer->started = !r;
        return r;
}

static int allocate(struct prl_layer *layer, uint64_t block, struct vd_block *value, struct vd_error *err)
{
        struct vd_blocktable *table = &layer->table;
        int r = 0;

        if (!layer->verified && !layer->image->is_new) {
                /* An entry that points past the end would come to point into a new cluster. */
                r = vd_blocktable_verify(table, err);
                layer->verified = !r;
        }
        if (!r)
                r = vd_blocktable_allocate(table, block, value, err);
        if (!r && !layer->image->is_new)
                table->limit = vd_max(table->limit, table->next);
        return r;
}

int prl_layer_place(struct prl_layer *layer, const struct vd_request *request, bool layered, struct vd_place *place,
                    struct vd_error *err)
{
        uint64_t block = request->start / layer->cluster_bytes, in_block = request->start % layer->cluster_bytes;
        uint64_t length = vd_min(request->length, layer->cluster_bytes - in_block);
        bool whole = !in_block && (length == layer->cluster_bytes || request->start + length == layer->disk_bytes);
        enum vd_kind kind = request->kind;
        struct vd_block value;
        int r;

        *place = (struct vd_place){ .length = length, .kind = VD_DATA, .file = layer->file,
                                    .position = request->start };
        r = start(layer, err);
        if (r || layer->plain)
                return r;
        r = vd_blocktable_find(&layer->table, block, &value, err);
        if (r)
                return r;
        if (kind == VD_UNALLOCATED && (whole || value.kind != VD_DATA)) {
                place->kind = VD_UNALLOCATED;
                place->token = value.kind == VD_DATA;
                return 0;
        }
        if (kind == VD_ZERO && value.kind != VD_DATA && !layered) {
                place->kind = VD_ZERO;
                return 0;
        }
        if (value.kind != VD_DATA)
                r = allocate(layer, block, &value, err);
        place->position = value.position + in_block;
        return r;
}

int prl_layer_settle(struct prl_layer *layer, struct vd_error *err)
{
        if (layer->plain || !layer->started || vd_file_size(layer->file) >= layer->table.next)
                return 0;
        return vd_file_truncate(layer->file, layer->table.next, err);
}

int prl_layer_publish(struct prl_layer *layer, uint64_t offset, const struct vd_place *place, struct vd_error *err)
{
        uint64_t block = offset / layer->cluster_bytes;
        bool fresh;

        if (place->kind == VD_DATA)
                return vd_blocktable_publish(&layer->table, block, &fresh, err);
        if (!place->token)
                return 0;
        return vd_blocktable_set(&layer->table, block, &(struct vd_block){ .kind = VD_UNALLOCATED }, err);
}

int prl_layer_flush(struct prl_layer *layer, struct vd_error *err)
{
        int r;

        if (layer->plain || !vd_cache_is_dirty(layer->table.cache))
                return 0;
        r = vd_cache_flush(layer->table.cache, err);
        return r ? r : vd_image_barrier(layer->image, layer->file, err);
}

int prl_layer_finish(struct prl_layer *layer, struct vd_error *err)
{
        int r;

        if (layer->image->is_new) {
                r = vd_cache_flush(layer->table.cache, err);
                if (!r && vd_file_size(layer->file) < layer->table.next)
                        r = vd_file_truncate(layer->file, layer->table.next, err);
                return r ? r : write_header(layer, err);
        }
        if (!layer->started || layer->was_open) /* what another writer left open stays marked */
                return 0;
        r = vd_image_barrier(layer->image, layer->file, err);
        layer->header.in_use = le32_put(0);
        if (!r)
                r = write_header(layer, err);
        layer->started = false;
        return r ? r : vd_image_barrier(layer->image, layer->file, err);
}
