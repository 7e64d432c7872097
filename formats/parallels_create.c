// SPDX-License-Identifier: MIT
/* parallels_create.c: new disks: a single expanding image, or a bundle of one or several. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "parallels.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

const char *const prl_subformats[] = { "expanding", "old", "bundle", NULL };

const struct vd_opt prl_create_opts[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, .offset = offsetof(struct prl_params, subformat),
          .argument = "TYPE", .choices = prl_subformats,
          .help = "expanding, old (the layout that VirtualBox knows, up to 2 TiB), or bundle (a directory)" },
        { .name = "cluster_size", .type = VD_OPT_SIZE, .offset = offsetof(struct prl_params, cluster_bytes),
          .argument = "SIZE", .help = "a power of two from 512 to 64M; 1M when not given" },
        { .name = "split_size", .type = VD_OPT_SIZE, .offset = offsetof(struct prl_params, split_bytes),
          .argument = "SIZE", .help = "of a bundle: the disk is cut into files for that many bytes, whole clusters" },
        { .type = VD_OPT_END },
};

enum { HEADS = 16, TRACK_SECTORS = 32 };        /* as QEMU and Parallels write it */

/* The layout of one image. */
static int choose_layout(struct prl_layer *layer, uint64_t disk_bytes, struct vd_error *err)
{
        struct prl_header_disk *h = &layer->header;
        uint64_t sectors = disk_bytes / PRL_SECTOR, entries = vd_div_up(disk_bytes, layer->cluster_bytes);
        uint64_t unit = layer->is_old ? PRL_SECTOR : layer->cluster_bytes, end;

        layer->disk_bytes = disk_bytes;
        layer->table_end = sizeof(*h) + entries * sizeof(le32);
        layer->data_offset = vd_round_up(layer->table_end, unit);
        if (entries > UINT32_MAX / sizeof(le32) || layer->data_offset / PRL_SECTOR > UINT32_MAX ||
            !vd_add(layer->data_offset, entries * layer->cluster_bytes, &end) || end / unit > UINT32_MAX)
                return vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: its %" PRIu64 " clusters of %" PRIu64
                               " bytes are more than the BAT can point to", disk_bytes, entries, layer->cluster_bytes);
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

static int create_layer(struct vd_image *img, struct prl_storage *storage, struct vd_file *file, bool is_old,
                        uint64_t cluster_bytes, struct vd_error *err)
{
        struct prl_layer *layer = storage->layers = calloc(1, sizeof(*layer));
        int r;

        if (!layer)
                return vd_fail(err, -ENOMEM, "Parallels header");
        storage->count = 1;
        *layer = (struct prl_layer){ .image = img, .file = vd_file_ref(file), .writable = true, .is_old = is_old,
                                     .cluster_bytes = cluster_bytes };
        r = choose_layout(layer, storage->end - storage->start, err);
        if (!r)
                r = vd_file_truncate(file, layer->data_offset, err);
        return r ? r : prl_layer_open_table(layer, err);
}

static int create_single(struct vd_image *img, bool is_old, uint64_t cluster_bytes, struct vd_error *err)
{
        struct prl *prl = img->state;

        prl->storages = calloc(1, sizeof(*prl->storages));
        if (!prl->storages)
                return vd_fail(err, -ENOMEM, "Parallels header");
        prl->count = 1;
        prl->storages->end = img->size;
        return create_layer(img, prl->storages, img->file, is_old, cluster_bytes, err);
}

/* ---- bundles ---- */

/* The last component of the output's path, without extension. */
static char *bundle_name(const struct vd_image *img)
{
        const char *slash = strrchr(img->path, '/'), *name = slash ? slash + 1 : img->path, *dot = strrchr(name, '.');

        return strndup(name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
}

static char *member_name(const char *bundle, size_t i)
{
        return vd_asprintf("%s.hdd.%zu." PRL_TOP ".hds", bundle, i);
}

static int create_bundle(struct vd_image *img, const struct prl_params *params, uint64_t cluster_bytes,
                         struct vd_error *err)
{
        uint64_t piece = params->split_bytes ? params->split_bytes : img->size;
        struct prl *prl = img->state;
        VD_AUTOFREE char *name = bundle_name(img);
        VD_AUTOFREE char *marker = name ? vd_asprintf("%s.hdd", name) : NULL;
        size_t count = img->size ? vd_div_up(img->size, piece) : 0;
        struct vd_file *file;
        int r;

        if (!marker)
                return vd_fail(err, -ENOMEM, "bundle");
        if (!count)
                return vd_fail(err, VD_EUNSUPPORTED, "a bundle for a disk of 0 bytes");
        if (count > PRL_FILES_MOST || (params->split_bytes && piece % cluster_bytes))
                return vd_fail(err, VD_EUSAGE, "split_size %" PRIu64 ": at most %d files of a multiple of %" PRIu64
                               " bytes are made", piece, PRL_FILES_MOST, cluster_bytes);
        r = vd_output_directory(img->output, "DiskDescriptor.xml", err);
        if (!r)                         /* other programs look for this empty file */
                r = vd_output_add(img->output, marker, &file, err);
        prl->is_new_bundle = true;
        prl->storages = calloc(count, sizeof(*prl->storages));
        if (!r && !prl->storages)
                r = vd_fail(err, -ENOMEM, "%zu storages", count);
        for (size_t i = 0; i < count && !r; i++) {
                VD_AUTOFREE char *member = member_name(name, i);
                struct prl_storage *storage = &prl->storages[prl->count++];

                storage->start = i * piece;
                storage->end = vd_min(storage->start + piece, img->size);
                r = member ? vd_output_add(img->output, member, &file, err) : vd_fail(err, -ENOMEM, "bundle");
                if (!r)
                        r = create_layer(img, storage, file, false, cluster_bytes, err);
        }
        return r;
}

/* Text between tags. */
static int put_escaped(FILE *out, const char *text)
{
        for (; *text; text++) {
                if (*text == '&' || *text == '<' || *text == '>')
                        fprintf(out, "&#%d;", *text);
                else
                        fputc(*text, out);
        }
        return ferror(out);
}

static int put_descriptor(struct vd_image *img, FILE *out, struct vd_error *err)
{
        const struct prl *prl = img->state;
        uint64_t sectors = img->size / PRL_SECTOR;
        VD_AUTOFREE char *name = bundle_name(img);
        char uuid[VD_GUID_TEXT];
        uint8_t id[16];
        int r = vd_identity_uuid(id, "parallels disk", img->digest, err);

        if (r)
                return r;
        fprintf(out, "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n"
                "    <Disk_Parameters>\n        <Disk_size>%" PRIu64 "</Disk_size>\n"
                "        <Cylinders>%" PRIu64 "</Cylinders>\n        <Heads>%d</Heads>\n"
                "        <Sectors>%d</Sectors>\n        <Padding>0</Padding>\n        <UID>{%s}</UID>\n"
                "        <Name>", sectors, sectors / HEADS / TRACK_SECTORS, HEADS, TRACK_SECTORS,
                vd_guid_text(id, VD_GUID_RFC, uuid));
        put_escaped(out, name ? name : "");
        fprintf(out, "</Name>\n    </Disk_Parameters>\n    <StorageData>\n");
        for (size_t i = 0; i < prl->count; i++) {
                const struct prl_storage *s = &prl->storages[i];
                VD_AUTOFREE char *member = name ? member_name(name, i) : NULL;

                if (!member)
                        return vd_fail(err, -ENOMEM, "descriptor");
                fprintf(out, "        <Storage>\n            <Start>%" PRIu64 "</Start>\n            <End>%" PRIu64
                        "</End>\n            <Blocksize>%" PRIu64 "</Blocksize>\n            <Image>\n"
                        "                <GUID>" PRL_TOP "</GUID>\n                <Type>Compressed</Type>\n"
                        "                <File>", s->start / PRL_SECTOR, s->end / PRL_SECTOR,
                        s->layers->cluster_bytes / PRL_SECTOR);
                put_escaped(out, member);
                fprintf(out, "</File>\n            </Image>\n        </Storage>\n");
        }
        fprintf(out, "    </StorageData>\n    <Snapshots>\n        <Shot>\n            <GUID>" PRL_TOP "</GUID>\n"
                "            <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID>\n        </Shot>\n"
                "    </Snapshots>\n</Parallels_disk_image>\n");
        return 0;
}

int prl_finish_bundle(struct vd_image *img, struct vd_error *err)
{
        VD_AUTOFREE char *text = NULL;
        size_t length = 0;
        FILE *out = open_memstream(&text, &length);
        int r;

        if (!out)
                return vd_fail(err, -ENOMEM, "descriptor");
        r = put_descriptor(img, out, err);
        if (fclose(out) && !r)
                r = vd_fail(err, -ENOMEM, "descriptor");
        return r ? r : vd_file_write(img->file, text, length, 0, err);
}

int prl_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        enum { CLUSTER_MOST = 64 << 20 };
        static const struct prl_params defaults;
        const struct prl_params *params = create->params ? create->params : &defaults;
        const char *subformat = params->subformat ? params->subformat : prl_subformats[0];
        uint64_t cluster_bytes = params->cluster_bytes ? params->cluster_bytes : PRL_CLUSTER_DEFAULT;
        struct prl *prl;
        int r;

        if (!vd_is_pow2(cluster_bytes) || cluster_bytes < PRL_SECTOR || cluster_bytes > CLUSTER_MOST)
                return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from %d to %d",
                               cluster_bytes, PRL_SECTOR, CLUSTER_MOST);
        if (params->split_bytes && strcmp(subformat, "bundle") != 0)
                return vd_fail(err, VD_EUSAGE, "split_size is for bundles, found subformat=%s", subformat);
        if (create->size > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes are more than a file can have", create->size);
        img->state = prl = calloc(1, sizeof(*prl));
        if (!prl)
                return vd_fail(err, -ENOMEM, "Parallels header");
        img->size = vd_round_up(create->size, PRL_SECTOR);
        img->unit = cluster_bytes;
        img->write_unit = PRL_SECTOR;
        if (!strcmp(subformat, "bundle"))
                r = create_bundle(img, params, cluster_bytes, err);
        else
                r = create_single(img, !strcmp(subformat, "old"), cluster_bytes, err);
        if (r)
                prl_close(img);
        return r;
}
