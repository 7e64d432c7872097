// SPDX-License-Identifier: MIT
/* parallels_bundle.c: DiskDescriptor.xml: which files a disk is made of, and of which snapshots (QEMU,
 * docs/interop/prl-xml.txt).
 *
 * The disk is cut into storages; each has a file per snapshot.  A snapshot names its parent; the current state is the
 * top one.  Names are followed under the policy: only in the bundle's directory or below.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shared/xml.h"
#include "parallels.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { DESCRIPTOR_MOST = 4 << 20 };      /* bytes */

struct bundle_image {
        uint8_t guid[16];
        bool plain;
        const char *file;               /* in the XML tree */
};

struct bundle_storage {
        uint64_t start, end, cluster_bytes;
        struct bundle_image *images;
        size_t count;
};

struct bundle_shot {
        uint8_t guid[16], parent[16];
        char text[VD_GUID_TEXT];
};

struct prl_bundle {
        struct vd_xml *xml;
        uint64_t disk_bytes;
        uint8_t top[16];
        bool is_encrypted;
        struct bundle_storage *storages;
        size_t storage_count;
        struct bundle_shot *shots;
        size_t shot_count;
};

bool prl_is_bundle(const void *head, size_t length)
{
        return memmem(head, length, "<Parallels_disk_image", strlen("<Parallels_disk_image")) != NULL;
}

void prl_bundle_free(struct prl_bundle *bundle)
{
        if (!bundle)
                return;
        for (size_t i = 0; i < bundle->storage_count; i++)
                free(bundle->storages[i].images);
        free(bundle->storages);
        free(bundle->shots);
        vd_xml_free(bundle->xml);
        free(bundle);
}

/* ---- the descriptor ---- */

static int get_text(const struct vd_xml *e, const char *name, const char **text, struct vd_error *err)
{
        *text = vd_xml_text(e, name);
        return *text ? 0 : vd_fail(err, VD_ECORRUPT, "descriptor: %s has no %s", e->name, name);
}

/* A number of sectors, as bytes. */
static int get_bytes(const struct vd_xml *e, const char *name, uint64_t *bytes, struct vd_error *err)
{
        const char *text;
        char *end, shown[128];
        uint64_t value;
        int r = get_text(e, name, &text, err);

        if (r)
                return r;
        errno = 0;
        value = strtoull(text, &end, 10);
        if (!*text || text[0] < '0' || text[0] > '9' || *end || errno || value > INT64_MAX / PRL_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "descriptor: %s of %s is '%s', expected a number of sectors", name,
                               e->name, vd_printable(shown, sizeof(shown), text, strlen(text)));
        *bytes = value * PRL_SECTOR;
        return 0;
}

static int parse_guid(const char *text, uint8_t guid[16], struct vd_error *err)
{
        char shown[128];

        if (vd_guid_parse(text, VD_GUID_RFC, guid))
                return 0;
        return vd_fail(err, VD_ECORRUPT, "descriptor: '%s' is not a GUID",
                       vd_printable(shown, sizeof(shown), text, strlen(text)));
}

static int get_guid(const struct vd_xml *e, const char *name, uint8_t guid[16], struct vd_error *err)
{
        const char *text;
        int r = get_text(e, name, &text, err);

        return r ? r : parse_guid(text, guid, err);
}

static size_t count_of(const struct vd_xml *first)
{
        size_t n = 0;

        for (; first; first = vd_xml_next(first))
                n++;
        return n;
}

static int read_images(const struct vd_xml *e, struct bundle_storage *storage, struct vd_error *err)
{
        const struct vd_xml *image = vd_xml_find(e, "Image");
        size_t count = count_of(image);

        if (!count)
                return vd_fail(err, VD_ECORRUPT, "descriptor: a Storage without an Image");
        storage->images = calloc(count, sizeof(*storage->images));
        if (!storage->images)
                return vd_fail(err, -ENOMEM, "%zu images", count);
        for (; image; image = vd_xml_next(image)) {
                struct bundle_image *out = &storage->images[storage->count++];
                const char *type;
                char shown[128];
                int r = get_guid(image, "GUID", out->guid, err);

                if (!r)
                        r = get_text(image, "Type", &type, err);
                if (!r)
                        r = get_text(image, "File", &out->file, err);
                if (r)
                        return r;
                out->plain = !strcmp(type, "Plain");
                if (!out->plain && strcmp(type, "Compressed") != 0)
                        return vd_fail(err, VD_EUNSUPPORTED, "descriptor: image type '%s', known are Compressed and "
                                       "Plain", vd_printable(shown, sizeof(shown), type, strlen(type)));
        }
        return 0;
}

static int by_start(const void *a, const void *b)
{
        const struct bundle_storage *p = a, *q = b;

        return p->start < q->start ? -1 : p->start > q->start;
}

static int read_storages(struct prl_bundle *bundle, struct vd_error *err)
{
        const struct vd_xml *storage = vd_xml_find(bundle->xml, "StorageData/Storage");
        size_t count = count_of(storage);
        uint64_t at = 0;

        bundle->storages = calloc(count ? count : 1, sizeof(*bundle->storages));
        if (!bundle->storages)
                return vd_fail(err, -ENOMEM, "%zu storages", count);
        for (; storage; storage = vd_xml_next(storage)) {
                struct bundle_storage *out = &bundle->storages[bundle->storage_count++];
                int r = get_bytes(storage, "Start", &out->start, err);

                if (!r)
                        r = get_bytes(storage, "End", &out->end, err);
                if (!r && vd_xml_find(storage, "Blocksize"))
                        r = get_bytes(storage, "Blocksize", &out->cluster_bytes, err);
                if (!r)
                        r = read_images(storage, out, err);
                if (r)
                        return r;
        }
        qsort(bundle->storages, bundle->storage_count, sizeof(*bundle->storages), by_start);
        for (size_t i = 0; i < bundle->storage_count; i++) {
                const struct bundle_storage *s = &bundle->storages[i];

                if (s->start != at || s->end <= s->start)
                        return vd_fail(err, VD_ECORRUPT, "descriptor: a storage from byte %" PRIu64 " to %" PRIu64
                                       ", expected one that begins at %" PRIu64, s->start, s->end, at);
                at = s->end;
        }
        if (at != bundle->disk_bytes)
                return vd_fail(err, VD_ECORRUPT, "descriptor: the storages hold %" PRIu64 " bytes, the disk has %"
                               PRIu64, at, bundle->disk_bytes);
        return 0;
}

static int read_shots(struct prl_bundle *bundle, struct vd_error *err)
{
        const struct vd_xml *shot = vd_xml_find(bundle->xml, "Snapshots/Shot");
        const char *top = vd_xml_text(bundle->xml, "Snapshots/TopGUID");
        size_t count = count_of(shot);
        int r = parse_guid(top ? top : PRL_TOP, bundle->top, err);

        if (r)
                return r;
        bundle->shots = calloc(count ? count : 1, sizeof(*bundle->shots));
        if (!bundle->shots)
                return vd_fail(err, -ENOMEM, "%zu snapshots", count);
        for (; shot; shot = vd_xml_next(shot)) {
                struct bundle_shot *out = &bundle->shots[bundle->shot_count++];

                r = get_guid(shot, "GUID", out->guid, err);
                if (!r)
                        r = get_guid(shot, "ParentGUID", out->parent, err);
                if (r)
                        return r;
                vd_guid_text(out->guid, VD_GUID_RFC, out->text);
        }
        return 0;
}

static int parse(struct prl_bundle *bundle, struct vd_error *err)
{
        const char *engine;
        uint8_t guid[16];
        int r;

        if (strcmp(bundle->xml->name, "Parallels_disk_image") != 0)
                return vd_fail(err, VD_EFORMAT, "descriptor: the document is no Parallels_disk_image");
        r = get_bytes(bundle->xml, "Disk_Parameters/Disk_size", &bundle->disk_bytes, err);
        if (!r)
                r = read_storages(bundle, err);
        if (!r)
                r = read_shots(bundle, err);
        engine = vd_xml_text(bundle->xml, "Disk_Parameters/Encryption/Engine");
        bundle->is_encrypted = engine && *engine &&
                               (!vd_guid_parse(engine, VD_GUID_RFC, guid) || !vd_guid_is_zero(guid));
        return r;
}

static int read_descriptor(struct vd_image *img, struct prl_bundle *bundle, struct vd_error *err)
{
        uint64_t length = vd_file_size(img->file);
        VD_AUTOFREE char *text = NULL;
        int r;

        if (length > DESCRIPTOR_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "descriptor of %" PRIu64 " bytes, at most %d", length,
                               DESCRIPTOR_MOST);
        text = malloc(length + 1);
        if (!text)
                return vd_fail(err, -ENOMEM, "descriptor");
        r = vd_file_read(img->file, text, length, 0, err);
        if (!r)
                r = vd_xml_parse(&bundle->xml, text, length, err);
        return r ? r : parse(bundle, err);
}

/* ---- the files ---- */

static const struct bundle_shot *find_shot(const struct prl_bundle *bundle, const uint8_t guid[16])
{
        for (size_t i = 0; i < bundle->shot_count; i++)
                if (!memcmp(bundle->shots[i].guid, guid, 16))
                        return &bundle->shots[i];
        return NULL;
}

static const struct bundle_image *find_image(const struct bundle_storage *storage, const uint8_t guid[16])
{
        for (size_t i = 0; i < storage->count; i++)
                if (!memcmp(storage->images[i].guid, guid, 16))
                        return &storage->images[i];
        return NULL;
}

/* Two pieces in one file would overwrite each other. */
static int check_once(const struct prl *prl, const struct vd_file *file, struct vd_error *err)
{
        struct stat st;

        if (fstat(vd_file_fd(file), &st))
                return 0;
        for (size_t i = 0; i < prl->count; i++)
                for (size_t k = 0; k < prl->storages[i].count; k++)
                        if (prl->storages[i].layers[k].file && vd_file_is(prl->storages[i].layers[k].file, &st))
                                return vd_fail(err, VD_ECORRUPT, "is named twice in the descriptor");
        return 0;
}

static int open_layer(struct vd_image *img, const struct bundle_storage *from, const struct bundle_image *image,
                      struct prl_storage *storage, struct vd_error *err)
{
        bool is_top = !storage->count, writable = img->writable;
        struct prl_layer *layer = &storage->layers[storage->count];
        struct vd_file *file;
        int r;

        img->writable = writable && is_top;     /* what a snapshot was made of is never written */
        r = vd_image_open_member(img, image->file, &file, err);
        img->writable = writable;
        if (r)
                return r;
        r = check_once(img->state, file, err);
        storage->count++;
        if (!r && image->plain)
                r = prl_layer_open_plain(layer, img, file, err);
        else if (!r)
                r = prl_layer_open(layer, img, file, writable && is_top, err);
        if (!r && image->plain && layer->disk_bytes < from->end - from->start)
                r = vd_fail(err, VD_ECORRUPT, "ends at %" PRIu64 ", but its piece of the disk has %" PRIu64 " bytes",
                            layer->disk_bytes, from->end - from->start);
        if (!r && layer->was_open)
                img->is_dirty = true;
        if (r)
                vd_error_prefix(err, "%s", vd_file_name(file));
        vd_file_unref(file);
        return r;
}

/* A snapshot has at most all others as ancestors. */
static int check_ancestors(const struct prl_bundle *bundle, const uint8_t top[16], struct vd_error *err)
{
        const struct bundle_shot *shot = find_shot(bundle, top);

        for (size_t i = 0; shot; i++, shot = find_shot(bundle, shot->parent))
                if (i == bundle->shot_count)
                        return vd_fail(err, VD_ECORRUPT, "descriptor: snapshot %s is its own ancestor", shot->text);
        return 0;
}

/* The files of one piece, from a snapshot down to the one that has no parent. */
static int open_chain(struct vd_image *img, const struct bundle_storage *from, const uint8_t top[16],
                      struct prl_storage *storage, size_t *files, struct vd_error *err)
{
        const struct prl_bundle *bundle = ((struct prl *)img->state)->bundle;
        uint8_t guid[16];
        char text[VD_GUID_TEXT];

        memcpy(guid, top, 16);
        storage->start = from->start;
        storage->end = from->end;
        storage->layers = calloc(bundle->shot_count + 1, sizeof(*storage->layers));
        if (!storage->layers)
                return vd_fail(err, -ENOMEM, "%zu snapshots", bundle->shot_count);
        do {
                const struct bundle_image *image = find_image(from, guid);
                const struct bundle_shot *shot = find_shot(bundle, guid);
                int r;

                vd_guid_text(guid, VD_GUID_RFC, text);
                if (!image)
                        return vd_fail(err, VD_ECORRUPT, "descriptor: the storage at byte %" PRIu64
                                       " has no image of snapshot %s", from->start, text);
                if (++*files > PRL_FILES_MOST)
                        return vd_fail(err, VD_EUNSUPPORTED, "descriptor: more than %d files", PRL_FILES_MOST);
                r = open_layer(img, from, image, storage, err);
                if (r)
                        return r;
                if (!shot)
                        break;          /* without Snapshots there is just one state */
                memcpy(guid, shot->parent, 16);
                if (image->plain && !vd_guid_is_zero(guid))
                        return vd_fail(err, VD_ECORRUPT, "descriptor: snapshot %s is a plain file and has a parent",
                                       text);
        } while (!vd_guid_is_zero(guid));
        return 0;
}

/* What is written must not straddle the clusters of a piece that has something below it. */
static int choose_write_unit(struct vd_image *img, struct vd_error *err)
{
        const struct prl *prl = img->state;
        uint64_t unit = PRL_SECTOR;

        for (size_t i = 0; i < prl->count; i++)
                if (prl->storages[i].count > 1)
                        unit = vd_max(unit, prl->storages[i].layers[0].cluster_bytes);
        img->write_unit = unit;
        for (size_t i = 0; i < prl->count && img->writable; i++) {
                const struct prl_storage *s = &prl->storages[i];

                if (s->start % unit || (s->count > 1 && unit % s->layers[0].cluster_bytes))
                        return vd_fail(err, VD_EUNSUPPORTED, "storage at byte %" PRIu64 " with clusters of %" PRIu64
                                       " bytes: pieces that are not aligned to %" PRIu64 " bytes are only read",
                                       s->start, s->layers[0].cluster_bytes, unit);
        }
        return 0;
}

static int open_state(struct vd_image *img, const uint8_t top[16], struct vd_error *err)
{
        struct prl *prl = img->state;
        const struct prl_bundle *bundle = prl->bundle;
        size_t files = 0;
        int r = check_ancestors(bundle, top, err);

        if (r)
                return r;
        prl_close_storages(prl);
        prl->storages = calloc(bundle->storage_count, sizeof(*prl->storages));
        if (!prl->storages)
                return vd_fail(err, -ENOMEM, "%zu storages", bundle->storage_count);
        for (size_t i = 0; i < bundle->storage_count && !r; i++) {
                prl->count++;
                r = open_chain(img, &bundle->storages[i], top, &prl->storages[i], &files, err);
        }
        return r ? r : choose_write_unit(img, err);
}

int prl_bundle_open(struct vd_image *img, struct vd_error *err)
{
        struct prl *prl = img->state;
        int r;

        prl->bundle = calloc(1, sizeof(*prl->bundle));
        if (!prl->bundle)
                return vd_fail(err, -ENOMEM, "descriptor");
        r = read_descriptor(img, prl->bundle, err);
        if (r)
                return r;
        img->size = prl->bundle->disk_bytes;
        img->unit = prl->bundle->storage_count ? prl->bundle->storages[0].cluster_bytes : 0;
        img->is_encrypted = prl->bundle->is_encrypted;
        if (img->is_encrypted && img->writable)
                return vd_fail(err, VD_EUNSUPPORTED, "is encrypted and cannot be written");
        return img->no_references || img->is_encrypted ? 0 : open_state(img, prl->bundle->top, err);
}

/* ---- snapshots and info ---- */

int prl_bundle_snapshot(struct vd_image *img, unsigned i, struct vd_snapshot *out, struct vd_error *err)
{
        const struct prl_bundle *bundle = ((struct prl *)img->state)->bundle;

        for (size_t k = 0; bundle && k < bundle->shot_count; k++) {
                const struct bundle_shot *shot = &bundle->shots[k];

                if (!memcmp(shot->guid, bundle->top, 16) || i--)
                        continue;
                *out = (struct vd_snapshot){ .id = shot->text, .name = shot->text, .size = bundle->disk_bytes,
                                             .icount = UINT64_MAX };
                return 0;
        }
        (void)err;
        return -ENOENT;
}

int prl_bundle_select(struct vd_image *img, const char *id, struct vd_error *err)
{
        const struct prl_bundle *bundle = ((struct prl *)img->state)->bundle;
        uint8_t guid[16];

        if (!bundle || !vd_guid_parse(id, VD_GUID_RFC, guid) || !find_shot(bundle, guid))
                return vd_fail(err, VD_EUSAGE, "there is no snapshot '%s'", id);
        return open_state(img, guid, err);
}

static void describe_parameter(const struct prl_bundle *bundle, struct vd_report *report, const char *element,
                               const char *key, const char *label)
{
        const struct vd_xml *parameters = vd_xml_find(bundle->xml, "Disk_Parameters");
        const char *text = vd_xml_text(parameters, element);

        if (text && *text)
                vd_report_text(report, key, label, text);
}

static void describe_storage(const struct bundle_storage *storage, struct vd_report *item)
{
        struct vd_report *images = NULL;
        char text[VD_GUID_TEXT];

        vd_report_count(item, "start", "start", storage->start);
        vd_report_count(item, "end", "end", storage->end);
        vd_report_count(item, "cluster-size", "cluster size", storage->cluster_bytes);
        images = vd_report_list(item, "images", "images");
        for (size_t i = 0; i < storage->count; i++) {
                struct vd_report *image = vd_report_item(images);

                vd_report_text(image, "snapshot", "snapshot", vd_guid_text(storage->images[i].guid, VD_GUID_RFC, text));
                vd_report_text(image, "type", "type", storage->images[i].plain ? "plain" : "expanding");
                vd_report_text(image, "filename", "file", storage->images[i].file);
        }
}

void prl_bundle_describe(const struct prl_bundle *bundle, struct vd_report *report)
{
        struct vd_report *list;
        char text[VD_GUID_TEXT];

        describe_parameter(bundle, report, "Name", "name", "name");
        describe_parameter(bundle, report, "UID", "uuid", "UUID");
        describe_parameter(bundle, report, "Cylinders", "cylinders", "cylinders");
        describe_parameter(bundle, report, "Heads", "heads", "heads");
        describe_parameter(bundle, report, "Sectors", "sectors-per-track", "sectors per track");
        describe_parameter(bundle, report, "Padding", "padding", "padding");
        vd_report_text(report, "top-snapshot", "current state", vd_guid_text(bundle->top, VD_GUID_RFC, text));
        list = vd_report_list(report, "storages", "storages");
        for (size_t i = 0; i < bundle->storage_count; i++)
                describe_storage(&bundle->storages[i], vd_report_item(list));
        if (!bundle->shot_count)
                return;
        list = vd_report_list(report, "shots", "states");
        for (size_t i = 0; i < bundle->shot_count; i++) {
                struct vd_report *item = vd_report_item(list);

                vd_report_text(item, "uuid", "UUID", bundle->shots[i].text);
                vd_report_text(item, "parent-uuid", "made of", vd_guid_is_zero(bundle->shots[i].parent)
                               ? "nothing" : vd_guid_text(bundle->shots[i].parent, VD_GUID_RFC, text));
        }
}
