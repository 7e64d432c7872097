// SPDX-License-Identifier: MIT
/* ova_descriptor.c: OVF envelopes, as far as disks and the machine around them go (reference: DMTF DSP0243).
 *
 * Elements and attributes are found by local name: prefixes differ between producers.
 */
#include "ova.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

static const char *local_name(const char *name)
{
        const char *colon = strrchr(name, ':');

        return colon ? colon + 1 : name;
}

static bool is(const struct vd_xml *e, const char *name)
{
        return !strcmp(local_name(e->name), name);
}

static const char *attribute(const struct vd_xml *e, const char *name)
{
        for (char **a = e->attributes; a && a[0]; a += 2)
                if (!strcmp(local_name(a[0]), name))
                        return a[1];
        return NULL;
}

static const struct vd_xml *child(const struct vd_xml *e, const char *name)
{
        for (e = e->child; e; e = e->next)
                if (is(e, name))
                        return e;
        return NULL;
}

static const char *text_of(const struct vd_xml *e, const char *name)
{
        const struct vd_xml *c = child(e, name);

        return c && c->text && *c->text ? c->text : NULL;
}

static bool read_number(const char *text, uint64_t *value)
{
        char *end;

        if (!text || !isdigit((unsigned char)*text))
                return false;
        errno = 0;
        *value = strtoull(text, &end, 10);
        while (isspace((unsigned char)*end))
                end++;
        return !errno && !*end;
}

/* "byte", "byte * 2^30", "byte * 10^6", and the words of OVF 0.9.  0 when it is none of these. */
static uint64_t read_unit(const char *text)
{
        static const struct { const char *word; uint64_t bytes; } words[] = {
                { "byte", 1 }, { "bytes", 1 }, { "kilobytes", UINT64_C(1) << 10 }, { "megabytes", UINT64_C(1) << 20 },
                { "gigabytes", UINT64_C(1) << 30 },
        };
        char word[32];
        size_t n = 0;
        unsigned base, power;
        uint64_t unit = 1;
        int used = 0;

        for (; text && *text; text++) {
                if (isspace((unsigned char)*text))
                        continue;
                if (n == sizeof(word) - 1)
                        return 0;
                word[n++] = (char)tolower((unsigned char)*text);
        }
        word[n] = '\0';
        if (!n)
                return 1;
        for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
                if (!strcmp(word, words[i].word))
                        return words[i].bytes;
        if (sscanf(word, "byte*%2u^%2u%n", &base, &power, &used) != 2 || word[used] || (base != 2 && base != 10))
                return 0;
        while (power--)
                if (!vd_mul(unit, base, &unit))
                        return 0;
        return unit;
}

/* One more element at the end of an array; zeroed.  NULL when memory is short. */
static void *append(void *array_pointer, size_t *count, size_t bytes)
{
        char *array = reallocarray(*(void **)array_pointer, *count + 1, bytes);

        if (!array)
                return NULL;
        *(void **)array_pointer = array;
        return memset(array + (*count)++ * bytes, 0, bytes);
}

static bool take_file(struct ovf *o, const struct vd_xml *e)
{
        struct ovf_file *f = append(&o->files, &o->file_count, sizeof(*f));
        const char *compression = attribute(e, "compression");

        if (!f)
                return false;
        f->id = attribute(e, "id");
        f->href = attribute(e, "href");
        f->has_size = read_number(attribute(e, "size"), &f->size);
        f->packed = compression && *compression && strcmp(compression, "identity");
        if (!read_number(attribute(e, "chunkSize"), &f->chunk))
                f->chunk = 0;
        return true;
}

static bool take_disk(struct ovf *o, const struct vd_xml *e)
{
        struct ovf_disk *d = append(&o->disks, &o->disk_count, sizeof(*d));

        if (!d)
                return false;
        d->id = attribute(e, "diskId");
        d->file = attribute(e, "fileRef");
        d->format = attribute(e, "format");
        d->parent = attribute(e, "parentRef");
        if (read_number(attribute(e, "capacity"), &d->capacity))
                d->unit = read_unit(attribute(e, "capacityAllocationUnits"));
        if (!vd_mul(d->capacity, d->unit, &d->capacity))
                d->unit = 0;
        return true;
}

static bool take_item(struct ovf *o, const struct vd_xml *e)
{
        struct ovf_item *i = append(&o->items, &o->item_count, sizeof(*i));
        uint64_t type;

        if (!i)
                return false;
        i->instance = text_of(e, "InstanceID");
        i->parent = text_of(e, "Parent");
        i->address = text_of(e, "AddressOnParent");
        if (!i->address)
                i->address = text_of(e, "Address");
        i->subtype = text_of(e, "ResourceSubType");
        i->resource = text_of(e, "HostResource");
        i->quantity = text_of(e, "VirtualQuantity");
        i->units = text_of(e, "AllocationUnits");
        i->type = read_number(text_of(e, "ResourceType"), &type) && type < 1000 ? (unsigned)type : 0;
        return true;
}

static void take_system(struct ovf *o, const struct vd_xml *e)
{
        const struct vd_xml *hardware = child(e, "VirtualHardwareSection"), *product = child(e, "ProductSection");
        const struct vd_xml *os = child(e, "OperatingSystemSection");
        const struct vd_xml *system = hardware ? child(hardware, "System") : NULL;

        if (o->systems++)
                return;
        o->name = text_of(e, "Name");
        if (!o->name)
                o->name = attribute(e, "id");
        if (system)
                o->hardware = text_of(system, "VirtualSystemType");
        if (product) {
                o->product = text_of(product, "Product");
                o->product_version = text_of(product, "FullVersion");
                if (!o->product_version)
                        o->product_version = text_of(product, "Version");
        }
        if (os) {
                o->os = text_of(os, "Description");
                if (!o->os)
                        o->os = attribute(os, "osType");
                if (!o->os)
                        o->os = attribute(os, "id");
        }
}

/* The tree is at most as deep as the parser allows. */
static bool take(struct ovf *o, const struct vd_xml *e)
{
        bool ok = true;

        for (e = e->child; e && ok; e = e->next) {
                if (is(e, "File"))
                        ok = take_file(o, e);
                else if (is(e, "Disk"))
                        ok = take_disk(o, e);
                else if (is(e, "Item") || is(e, "StorageItem") || is(e, "EthernetPortItem"))
                        ok = take_item(o, e);
                else if (is(e, "VirtualSystem"))
                        take_system(o, e);
                ok = ok && take(o, e);
        }
        return ok;
}

static unsigned version_of(const struct vd_xml *root)
{
        static const char start[] = "http://schemas.dmtf.org/ovf/envelope/";
        const char *colon = strchr(root->name, ':');

        for (char **a = root->attributes; a && a[0]; a += 2) {
                bool own = colon ? !strncmp(a[0], "xmlns:", 6) && strlen(a[0] + 6) == (size_t)(colon - root->name) &&
                                   !strncmp(a[0] + 6, root->name, (size_t)(colon - root->name))
                                 : !strcmp(a[0], "xmlns");

                if (own && !strncmp(a[1], start, sizeof(start) - 1))
                        return (unsigned)(a[1][sizeof(start) - 1] - '0') <= 2 ? a[1][sizeof(start) - 1] - '0' : 0;
                if (own && !strncmp(a[1], "http://www.vmware.com/schema/ovf/1/envelope", 43))
                        return 1;       /* OVF 0.9, which is near enough */
        }
        return 0;
}

int ovf_parse(struct ovf **out, const void *text, size_t length, struct vd_error *err)
{
        struct ovf *o = calloc(1, sizeof(*o));
        int r = o ? vd_xml_parse(&o->root, text, length, err) : vd_fail(err, -ENOMEM, "descriptor");

        if (!r && !is(o->root, "Envelope"))
                r = vd_fail(err, VD_ECORRUPT, "is no OVF envelope");
        if (!r && !take(o, o->root))
                r = vd_fail(err, -ENOMEM, "descriptor");
        if (r) {
                ovf_free(o);
                return r;
        }
        o->version = version_of(o->root);
        *out = o;
        return 0;
}

void ovf_free(struct ovf *o)
{
        if (!o)
                return;
        vd_xml_free(o->root);
        free(o->files);
        free(o->disks);
        free(o->items);
        free(o);
}

const struct ovf_file *ovf_find_file(const struct ovf *o, const char *id)
{
        for (size_t i = 0; i < o->file_count; i++)
                if (o->files[i].id && !strcmp(o->files[i].id, id))
                        return &o->files[i];
        return NULL;
}

const struct ovf_disk *ovf_find_disk(const struct ovf *o, const char *id)
{
        for (size_t i = 0; i < o->disk_count; i++)
                if (o->disks[i].id && !strcmp(o->disks[i].id, id))
                        return &o->disks[i];
        return NULL;
}

/* Also written "/disk/ID" and "ovf://disk/ID". */
const char *ovf_resource_disk(const char *resource)
{
        if (!strncmp(resource, "ovf:", 4))
                resource += 4;
        while (*resource == '/')
                resource++;
        return strncmp(resource, "disk/", 5) ? NULL : resource + 5;
}

static const struct ovf_item *find_item(const struct ovf *o, const char *instance)
{
        for (size_t i = 0; i < o->item_count; i++)
                if (o->items[i].instance && !strcmp(o->items[i].instance, instance))
                        return &o->items[i];
        return NULL;
}

void ovf_attachment(const struct ovf *o, const char *disk_id, char text[64])
{
        text[0] = '\0';
        for (size_t i = 0; i < o->item_count; i++) {
                const struct ovf_item *item = &o->items[i], *controller;
                const char *id = item->resource ? ovf_resource_disk(item->resource) : NULL;

                if (!id || strcmp(id, disk_id))
                        continue;
                controller = item->parent ? find_item(o, item->parent) : NULL;
                if (!controller)
                        return;
                snprintf(text, 64, "%s %.16s:%.16s",
                         controller->type == OVF_IDE ? "ide" : controller->type == OVF_SCSI ? "scsi"
                         : controller->type == OVF_SATA ? "sata" : "controller",
                         controller->address ? controller->address : "0", item->address ? item->address : "0");
                return;
        }
}

uint64_t ovf_quantity(const struct ovf *o, enum ovf_type type)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < o->item_count; i++) {
                const struct ovf_item *item = &o->items[i];
                uint64_t n, unit = type == OVF_MEMORY && item->units ? read_unit(item->units) : 1;

                if (item->type == type && read_number(item->quantity, &n) && vd_mul(n, unit, &n) &&
                    !vd_add(sum, n, &sum))
                        return 0;
        }
        return sum;
}
