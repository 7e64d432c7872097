// SPDX-License-Identifier: MIT
/* ova_create.c: a new appliance with one disk.
 *
 *      [ NAME.ovf, padded with blanks ][ NAME.mf ][ NAME-disk1.vmdk, streamOptimized ][ two blocks of zeros ]
 *
 * Descriptor and manifest have the same length whatever the disk becomes: their room is left free, the disk is written
 * behind it by its own driver, and when its length and digest are known all headers and texts are written.  The digest
 * is computed from the finished disk, since its descriptor is written last.
 */
#include "ova.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/identity.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { BASE_MOST = 80, END_BLOCKS = 2 * VD_TAR_BLOCK, CPUS_MOST = 4096, MEMORY_MOST = 1 << 26 };

struct ova_new {
        struct vd_image *disk;
        const struct nettle_hash *hash;
        const char *algorithm, *hardware;
        char *title;                            /* name of the machine */
        char base[BASE_MOST + 1];               /* beginning of the names of all members */
        uint64_t cpus, memory;
        uint64_t descriptor_size;
        uint64_t manifest, manifest_size;       /* where its data goes */
        uint64_t start;                         /* where the disk's data begins */
};

static const char *const digests[] = { "sha256", "sha1", "sha512", NULL };

#define FIELD(field) .offset = offsetof(struct ova_params, field)

const struct vd_opt ova_options[] = {
        { .name = "digest", .type = VD_OPT_CHOICE, FIELD(digest), .argument = "NAME", .choices = digests,
          .help = "algorithm of the manifest: sha256 (the default), sha1 (for importers before OVF 2) or sha512" },
        { .name = "hwversion", .type = VD_OPT_TEXT, FIELD(hardware), .argument = "VMX-NUMBER",
          .help = "virtual hardware that the appliance asks for; vmx-11 when not given" },
        { .name = "cpus", .type = VD_OPT_COUNT, FIELD(cpus), .argument = "NUMBER",
          .help = "processors of the virtual machine; 1 when not given" },
        { .name = "memory", .type = VD_OPT_COUNT, FIELD(memory), .argument = "MIB",
          .help = "memory of the virtual machine in MiB; 1024 when not given" },
        { .name = "compression_level", .type = VD_OPT_COUNT, FIELD(compression_level), .argument = "LEVEL",
          .help = "of the disk: 1 (fastest) to 9 (smallest)" },
        { .type = VD_OPT_END },
};

void ova_new_free(struct ova_new *n)
{
        if (!n)
                return;
        vd_image_close(n->disk);
        free(n->title);
        free(n);
}

/* ---- texts ---- */

static void put_escaped(FILE *out, const char *text)
{
        for (; *text; text++) {
                if (strchr("<>&\"", *text))
                        fprintf(out, "&#%d;", *text);
                else
                        putc(*text, out);
        }
}

struct property { const char *name, *value; };

static void put_item(FILE *out, const struct property *properties)
{
        fputs("      <Item>\n", out);
        for (const struct property *p = properties; p->name; p++)
                fprintf(out, "        <rasd:%s>%s</rasd:%s>\n", p->name, p->value, p->name);
        fputs("      </Item>\n", out);
}

/* Properties of an item stand in alphabetical order: strict importers check the schema. */
static void put_items(FILE *out, const struct ova_new *n)
{
        char cpus[24], cpus_name[32], memory[24], memory_name[48];
        const struct property cpu_item[] = {
                { "AllocationUnits", "hertz * 10^6" }, { "ElementName", cpus_name }, { "InstanceID", "1" },
                { "ResourceType", "3" }, { "VirtualQuantity", cpus }, { NULL, NULL },
        }, memory_item[] = {
                { "AllocationUnits", "byte * 2^20" }, { "ElementName", memory_name }, { "InstanceID", "2" },
                { "ResourceType", "4" }, { "VirtualQuantity", memory }, { NULL, NULL },
        }, controller_item[] = {
                { "Address", "0" }, { "ElementName", "SCSI controller 0" }, { "InstanceID", "3" },
                { "ResourceSubType", "lsilogic" }, { "ResourceType", "6" }, { NULL, NULL },
        }, disk_item[] = {
                { "AddressOnParent", "0" }, { "ElementName", "disk1" }, { "HostResource", "ovf:/disk/vmdisk1" },
                { "InstanceID", "4" }, { "Parent", "3" }, { "ResourceType", "17" }, { NULL, NULL },
        };

        snprintf(cpus, sizeof(cpus), "%" PRIu64, n->cpus);
        snprintf(cpus_name, sizeof(cpus_name), "%s CPU", cpus);
        snprintf(memory, sizeof(memory), "%" PRIu64, n->memory);
        snprintf(memory_name, sizeof(memory_name), "%s MiB of memory", memory);
        put_item(out, cpu_item);
        put_item(out, memory_item);
        put_item(out, controller_item);
        put_item(out, disk_item);
}

static void put_machine(FILE *out, const struct ova_new *n)
{
        fputs("  <VirtualSystem ovf:id=\"vm\">\n    <Info>A virtual machine</Info>\n    <Name>", out);
        put_escaped(out, n->title);
        fputs("</Name>\n    <OperatingSystemSection ovf:id=\"102\">\n      <Info>The guest operating system</Info>\n"
              "      <Description>Other 64-bit</Description>\n    </OperatingSystemSection>\n"
              "    <VirtualHardwareSection>\n      <Info>Virtual hardware</Info>\n      <System>\n"
              "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n"
              "        <vssd:InstanceID>0</vssd:InstanceID>\n        <vssd:VirtualSystemIdentifier>", out);
        put_escaped(out, n->title);
        fprintf(out, "</vssd:VirtualSystemIdentifier>\n        <vssd:VirtualSystemType>%s</vssd:VirtualSystemType>\n"
                "      </System>\n", n->hardware);
        put_items(out, n);
        fputs("    </VirtualHardwareSection>\n  </VirtualSystem>\n", out);
}

static char *make_descriptor(const struct ova_new *n, uint64_t file_size, uint64_t capacity, size_t *length)
{
        char *text = NULL;
        FILE *out = open_memstream(&text, length);

        if (!out)
                return NULL;
        fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
              "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\""
              " xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\""
              " xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\""
              " xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData\">\n", out);
        fprintf(out, "  <References>\n    <File ovf:href=\"%s-disk1.vmdk\" ovf:id=\"file1\" ovf:size=\"%" PRIu64
                "\"/>\n  </References>\n  <DiskSection>\n    <Info>Virtual disks</Info>\n", n->base, file_size);
        fprintf(out, "    <Disk ovf:capacity=\"%" PRIu64 "\" ovf:capacityAllocationUnits=\"byte\""
                " ovf:diskId=\"vmdisk1\" ovf:fileRef=\"file1\""
                " ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html"
                "#streamOptimized\"/>\n  </DiskSection>\n", capacity);
        put_machine(out, n);
        fputs("</Envelope>\n", out);
        if (ferror(out) | fclose(out)) {
                free(text);
                return NULL;
        }
        return text;
}

static char *member_name(const struct ova_new *n, const char *suffix)
{
        return vd_asprintf("%s%s", n->base, suffix);
}

static void put_digest(FILE *out, const struct ova_new *n, const char *suffix, const uint8_t *digest)
{
        fprintf(out, "%s(%s%s)= ", n->algorithm, n->base, suffix);
        for (size_t i = 0; i < n->hash->digest_size; i++)
                fprintf(out, "%02x", digest[i]);
        putc('\n', out);
}

static char *make_manifest(const struct ova_new *n, const uint8_t *descriptor, const uint8_t *disk, size_t *length)
{
        char *text = NULL;
        FILE *out = open_memstream(&text, length);

        if (!out)
                return NULL;
        put_digest(out, n, ".ovf", descriptor);
        put_digest(out, n, "-disk1.vmdk", disk);
        if (ferror(out) | fclose(out)) {
                free(text);
                return NULL;
        }
        return text;
}

/* ---- laying out ---- */

/* NAME of NAME.ova as the machine's name, and what every importer takes as a file name. */
static int take_name(const struct vd_image *img, struct ova_new *n, struct vd_error *err)
{
        const char *slash = strrchr(img->path, '/'), *name = slash ? slash + 1 : img->path;
        size_t length = strlen(name), i;

        if (ova_has_suffix(name, ".ova"))
                length -= 4;
        n->title = vd_printable_dup(name, length);
        if (!n->title)
                return vd_fail(err, -ENOMEM, "name");
        for (i = 0; i < length && i < BASE_MOST; i++) {
                bool plain = strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", name[i]) ||
                             (name[i] == '.' && i);

                n->base[i] = plain ? name[i] : '_';
        }
        n->base[i] = '\0';
        return 0;
}

static int take_options(struct ova_new *n, const struct ova_params *p, struct vd_error *err)
{
        const char *digits;

        n->algorithm = !p->digest || !strcmp(p->digest, "sha256") ? "SHA256" : !strcmp(p->digest, "sha1") ? "SHA1"
                                                                                                         : "SHA512";
        n->hash = ova_hash(n->algorithm);
        n->hardware = p->hardware ? p->hardware : "vmx-11";
        n->cpus = p->cpus ? p->cpus : 1;
        n->memory = p->memory ? p->memory : 1024;
        digits = n->hardware + 4;
        if (strncmp(n->hardware, "vmx-", 4) || !*digits || strlen(digits) > 4 ||
            digits[strspn(digits, "0123456789")])
                return vd_fail(err, VD_EUSAGE, "hwversion is vmx- and a number, found '%s'", n->hardware);
        if (n->cpus > CPUS_MOST || n->memory > MEMORY_MOST)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " cpus and %" PRIu64 " MiB of memory, allowed are %d and %d",
                               n->cpus, n->memory, (int)CPUS_MOST, (int)MEMORY_MOST);
        return 0;
}

static int lay_out(struct ova_new *n, struct vd_error *err)
{
        static const uint8_t none[OVA_DIGEST_MOST];
        size_t descriptor, manifest = 0;
        VD_AUTOFREE char *longest = make_descriptor(n, UINT64_MAX, UINT64_MAX, &descriptor);
        VD_AUTOFREE char *sample = longest ? make_manifest(n, none, none, &manifest) : NULL;

        if (!sample)
                return vd_fail(err, -ENOMEM, "descriptor");
        n->descriptor_size = descriptor;
        n->manifest = VD_TAR_BLOCK + vd_round_up(descriptor, VD_TAR_BLOCK) + VD_TAR_BLOCK;
        n->manifest_size = manifest;
        n->start = n->manifest + vd_round_up(manifest, VD_TAR_BLOCK) + VD_TAR_BLOCK;
        return 0;
}

static int create_disk(struct vd_image *img, struct ova_new *n, const struct vd_create *create, uint64_t level,
                       struct vd_error *err)
{
        const struct vd_format *vmdk = vd_format_by_name("vmdk");
        VD_AUTOFREE char *path = vd_asprintf("%s-disk1.vmdk", n->base);
        VD_AUTOFREE void *params = vmdk ? calloc(1, vmdk->params_size) : NULL;
        struct vd_create inner = { .size = create->size, .like = create->like, .params = params };
        struct vd_file *window = NULL;
        char digit[24];
        int r;

        if (!vmdk)
                return vd_fail(err, VD_EUNSUPPORTED, "the disk of an appliance is a VMDK, and this build has none");
        if (!path || !params)
                return vd_fail(err, -ENOMEM, "disk");
        snprintf(digit, sizeof(digit), "%" PRIu64, level);
        r = vd_opts_set(vmdk->create_opts, "subformat", "streamOptimized", params, err);
        if (!r && level)
                r = vd_opts_set(vmdk->create_opts, "compression_level", digit, params, err);
        if (!r)
                r = vd_file_truncate(img->file, n->start, err);
        if (!r)
                r = vd_file_window(&window, img->file, n->start, UINT64_MAX, err);
        if (!r)
                r = vd_image_create_inside(&n->disk, vmdk, window, path, &inner, err);
        vd_file_unref(window);
        vd_opts_free(vmdk->create_opts, params);
        return r;
}

int ova_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct ova_params defaults;
        const struct ova_params *params = create->params ? create->params : &defaults;
        struct ova *a = calloc(1, sizeof(*a));
        struct ova_new *n = a ? calloc(1, sizeof(*n)) : NULL;
        int r;

        if (!n) {
                free(a);
                return vd_fail(err, -ENOMEM, "appliance");
        }
        img->state = a;
        a->fresh = n;
        r = take_options(n, params, err);
        if (!r)
                r = take_name(img, n, err);
        if (!r)
                r = lay_out(n, err);
        if (!r)
                r = create_disk(img, n, create, params->compression_level, err);
        if (r) {
                ova_close(img);
                return r;
        }
        img->size = n->disk->size;
        img->unit = n->disk->unit;
        img->write_unit = n->disk->write_unit;
        img->pack = n->disk->pack;
        img->is_packed = n->disk->is_packed;
        return 0;
}

/* ---- writing: the disk's driver does it ---- */

static struct vd_image *disk_of(const struct vd_image *img)
{
        return ((const struct ova *)img->state)->fresh->disk;
}

int ova_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        return disk_of(img)->format->place(disk_of(img), request, place, err);
}

int ova_settle(struct vd_image *img, struct vd_error *err)
{
        return disk_of(img)->format->settle ? disk_of(img)->format->settle(disk_of(img), err) : 0;
}

int ova_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        return disk_of(img)->format->publish(disk_of(img), place, err);
}

int ova_flush(struct vd_image *img, struct vd_error *err)
{
        return disk_of(img)->format->flush(disk_of(img), err);
}

static int write_member(struct vd_image *img, const char *suffix, uint64_t position, uint64_t size, const char *text,
                        struct vd_error *err)
{
        const struct ova_new *n = ((const struct ova *)img->state)->fresh;
        VD_AUTOFREE char *name = member_name(n, suffix);
        uint8_t header[VD_TAR_BLOCK];
        int r;

        if (!name)
                return vd_fail(err, -ENOMEM, "name of a member");
        vd_tar_write_header(header, name, size, vd_identity_time());
        r = text ? vd_file_write(img->file, text, size, position, err) : 0;
        return r ? r : vd_file_write(img->file, header, sizeof(header), position - sizeof(header), err);
}

int ova_finish(struct vd_image *img, struct vd_error *err)
{
        struct ova_new *n = ((struct ova *)img->state)->fresh;
        uint8_t disk_digest[OVA_DIGEST_MOST], descriptor_digest[OVA_DIGEST_MOST];
        VD_AUTOFREE char *text = NULL, *padded = NULL, *manifest = NULL;
        VD_AUTOFREE void *context = malloc(n->hash->context_size);
        uint64_t size;
        size_t length;
        int r;

        n->disk->digest = img->digest;
        r = n->disk->format->finish(n->disk, err);
        if (r)
                return r;
        size = vd_file_size(n->disk->file);
        text = make_descriptor(n, size, img->size, &length);
        padded = malloc(n->descriptor_size);
        if (!context || !text || !padded)
                return vd_fail(err, -ENOMEM, "descriptor");
        memset(padded, ' ', n->descriptor_size);
        memcpy(padded, text, length);
        n->hash->init(context);
        n->hash->update(context, n->descriptor_size, (const uint8_t *)padded);
        n->hash->digest(context, n->hash->digest_size, descriptor_digest);
        r = ova_hash_file(n->hash, n->disk->file, 0, size, NULL, disk_digest, err);
        if (r)
                return r;
        manifest = make_manifest(n, descriptor_digest, disk_digest, &length);
        if (!manifest)
                return vd_fail(err, -ENOMEM, "manifest");
        r = vd_file_truncate(img->file, n->start + vd_round_up(size, VD_TAR_BLOCK) + END_BLOCKS, err);
        if (!r)
                r = write_member(img, "-disk1.vmdk", n->start, size, NULL, err);
        if (!r)
                r = write_member(img, ".mf", n->manifest, n->manifest_size, manifest, err);
        return r ? r : write_member(img, ".ovf", VD_TAR_BLOCK, n->descriptor_size, padded, err);
}
