// SPDX-License-Identifier: MIT
/* parallels_write.c: new expanding images, and writing into old ones.
 *
 * In place the in-use mark comes first, synced; then data, sync, table entries, sync, and the mark goes when all is done.
 * Clusters are appended; the format extension stays where it is, marked as stale (see parallels_extension.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/write.h"
#include "parallels.h"
#include "util/checked.h"

const char *const prl_subformats[] = { "expanding", "old", NULL };

const struct vd_opt prl_create_opts[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, .offset = offsetof(struct prl_params, subformat),
          .argument = "TYPE", .choices = prl_subformats,
          .help = "expanding, or old: the layout that VirtualBox knows, up to 2 TiB" },
        { .name = "cluster_size", .type = VD_OPT_SIZE, .offset = offsetof(struct prl_params, cluster_bytes),
          .argument = "SIZE", .help = "a power of two from 512 to 64M; 1M when not given" },
        { .type = VD_OPT_END },
};

static int choose_layout(struct vd_image *img, struct prl_layer *layer, const struct vd_create *create,
                         struct vd_error *err)
{
        enum { CLUSTER_MOST = 64 << 20, HEADS = 16, TRACK_SECTORS = 32 };
        const struct prl_params *params = create->params;
        struct prl_header_disk *h = &layer->header;
        uint64_t entries, sectors, end;

        layer->is_old = params && params->subformat && !strcmp(params->subformat, "old");
        layer->cluster_bytes = params && params->cluster_bytes ? params->cluster_bytes : PRL_CLUSTER_DEFAULT;
        if (!vd_is_pow2(layer->cluster_bytes) || layer->cluster_bytes < PRL_SECTOR || layer->cluster_bytes > CLUSTER_MOST)
                return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from %d to %d",
                               layer->cluster_bytes, PRL_SECTOR, CLUSTER_MOST);
        if (create->size > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes are more than a file can have", create->size);
        img->size = layer->disk_bytes = vd_round_up(create->size, PRL_SECTOR);
        sectors = img->size / PRL_SECTOR;
        entries = vd_div_up(img->size, layer->cluster_bytes);
        layer->table_end = sizeof(*h) + entries * sizeof(le32);
        layer->data_offset = vd_round_up(layer->table_end, layer->is_old ? PRL_SECTOR : layer->cluster_bytes);
        if (!vd_add(layer->data_offset, entries * layer->cluster_bytes, &end) || entries > UINT32_MAX / sizeof(le32) ||
            layer->data_offset / PRL_SECTOR > UINT32_MAX || end / (layer->is_old ? PRL_SECTOR : layer->cluster_bytes) > UINT32_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: its %" PRIu64 " clusters of %" PRIu64
                               " bytes are more than the BAT can point to", img->size, entries, layer->cluster_bytes);
        memcpy(h->magic, layer->is_old ? PRL_MAGIC_OLD : PRL_MAGIC, sizeof(h->magic));
        h->version = le32_put(PRL_VERSION);
        h->heads = le32_put(HEADS);
        h->cylinders = le32_put((uint32_t)vd_min(sectors / HEADS / TRACK_SECTORS, UINT32_MAX));
        h->cluster_sectors = le32_put((uint32_t)(layer->cluster_bytes / PRL_SECTOR));
        h->entries = le32_put((uint32_t)entries);
        h->disk_sectors = le64_put(sectors);
        h->data_sector = le32_put((uint32_t)(layer->data_offset / PRL_SECTOR));
        return 0;
}

int prl_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        struct prl *prl = calloc(1, sizeof(*prl));
        struct prl_layer *layer = calloc(1, sizeof(*layer));
        struct prl_storage *storage = calloc(1, sizeof(*storage));
        int r;

        if (!prl || !layer || !storage) {
                free(prl);
                free(layer);
                free(storage);
                return vd_fail(err, -ENOMEM, "Parallels header");
        }
        img->state = prl;
        *prl = (struct prl){ .storages = storage, .count = 1 };
        *storage = (struct prl_storage){ .layers = layer, .count = 1 };
        *layer = (struct prl_layer){ .image = img, .file = vd_file_ref(img->file), .writable = true };
        r = choose_layout(img, layer, create, err);
        if (!r)
                r = vd_file_truncate(img->file, layer->data_offset, err);
        if (!r)
                r = prl_layer_open_table(layer, err);
        if (r) {
                prl_close(img);
                return r;
        }
        storage->end = img->size;
        img->unit = layer->cluster_bytes;
        img->write_unit = PRL_SECTOR;
        return 0;
}

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

        *place = (struct vd_place){ .length = length, .kind = VD_DATA, .file = layer->file, .position = request->start };
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
