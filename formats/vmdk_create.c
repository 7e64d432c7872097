// SPDX-License-Identifier: MIT
/* vmdk_create.c: new disks of every kind that Workstation and ESXi exchange.
 *
 *      monolithicSparse      one KDMV extent with the descriptor inside
 *      monolithicFlat        descriptor, NAME-flat.vmdk
 *      twoGbMaxExtentSparse  descriptor, NAME-s001.vmdk ... of 2047 MiB
 *      twoGbMaxExtentFlat    descriptor, NAME-f001.vmdk ...
 *      streamOptimized       one extent for transport: see vmdk_stream.c
 *
 * Sparse extents have all their tables from the beginning, as holes; headers and descriptors are written last.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "core/identity.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { NUMBER_ROOM = 11 };
#define SPLIT_BYTES (UINT64_C(2047) << 20)
#define DISK_LIMIT (UINT64_C(64) << 40)         /* what any VMware product takes */

struct vmdk_new {
        const char *subformat;
        bool sparse, split, stream;
        int level;                              /* of compression */
        const char *adapter;
        char hwversion[NUMBER_ROOM], toolsversion[NUMBER_ROOM];
        char *base;                             /* file name without directory and extension */
        char *hint;                             /* name of the parent; NULL: none */
        uint32_t parent_cid;
};

const char *const vmdk_subformats[] = { "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                                        "twoGbMaxExtentFlat", "streamOptimized", NULL };
static const char *const adapters[] = { "ide", "buslogic", "lsilogic", "legacyESX", NULL };

#define FIELD(field) .offset = offsetof(struct vmdk_params, field)

const struct vd_opt vmdk_options[] = {
        { .name = "subformat", .type = VD_OPT_CHOICE, FIELD(subformat), .argument = "TYPE", .choices = vmdk_subformats,
          .help = "monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat or streamOptimized" },
        { .name = "adapter_type", .type = VD_OPT_CHOICE, FIELD(adapter), .argument = "TYPE", .choices = adapters,
          .help = "ide (the default), buslogic, lsilogic (the default for streamOptimized) or legacyESX" },
        { .name = "hwversion", .type = VD_OPT_TEXT, FIELD(hwversion), .argument = "NUMBER",
          .help = "version of the virtual hardware; 4 when not given" },
        { .name = "compat6", .type = VD_OPT_FLAG, FIELD(compat6), .help = "hwversion=6" },
        { .name = "toolsversion", .type = VD_OPT_TEXT, FIELD(toolsversion), .argument = "NUMBER",
          .help = "version of the guest tools; 2147483647 (managed by the guest) when not given" },
        { .name = "zeroed_grain", .type = VD_OPT_FLAG, FIELD(zeroed_grain),
          .help = "mark zeros in the tables of sparse extents (header version 2; VirtualBox does not take it)" },
        { .name = "compression_level", .type = VD_OPT_COUNT, FIELD(compression_level), .argument = "LEVEL",
          .help = "1 (fastest) to 9 (smallest); streamOptimized only" },
        { .type = VD_OPT_END },
};

uint32_t vmdk_cid(const uint8_t id[16])
{
        uint32_t cid = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];

        return cid >= VMDK_NEW_CID ? cid ^ 0x10000 : cid;
}

void vmdk_long_cid(const uint8_t id[16], uint32_t cid, char text[33])
{
        for (int i = 0; i < 12; i++)
                snprintf(text + 2 * i, 3, "%02x", id[4 + i]);
        snprintf(text + 24, 9, "%08" PRIx32, cid);
}

void vmdk_new_free(struct vmdk_new *n)
{
        if (!n)
                return;
        free(n->base);
        free(n->hint);
        free(n);
}

/* ---- what is asked for ---- */

/* Descriptors have no way to write these. */
static int check_text(const char *text, const char *what, struct vd_error *err)
{
        char shown[512];

        if (!strpbrk(text, "\"\r\n"))
                return 0;
        return vd_fail(err, VD_EUSAGE, "%s '%s' has a quote or a line end, which a VMDK descriptor cannot hold", what,
                       vd_printable(shown, sizeof(shown), text, strlen(text)));
}

static bool is_number(const char *text)
{
        return text && *text && strspn(text, "0123456789") == strlen(text) && strlen(text) < NUMBER_ROOM;
}

/* The option, or what the VMDK says that is to be copied, or the usual. */
static int take_number(char number[NUMBER_ROOM], const char *option, const char *what, const char *copied,
                       const char *usual, struct vd_error *err)
{
        if (option && !is_number(option))
                return vd_fail(err, VD_EUSAGE, "%s '%s' is not a number of at most %d digits", what, option,
                               NUMBER_ROOM - 1);
        strcpy(number, option ? option : is_number(copied) ? copied : usual);
        return 0;
}

static const char *known_adapter(const char *name)
{
        for (size_t i = 0; name && adapters[i]; i++)
                if (!strcasecmp(name, adapters[i]))
                        return adapters[i];
        return NULL;
}

static int take_options(struct vmdk_new *n, const struct vmdk_params *p, const struct vd_image *like,
                        struct vd_error *err)
{
        static const struct vmdk_descriptor none;
        const struct vmdk_descriptor *copied = like && like->format == &vd_format_vmdk
                                               ? &((const struct vmdk *)like->state)->descriptor : &none;
        int r = 0;

        n->subformat = p->subformat ? p->subformat : vmdk_subformats[0];
        n->stream = !strcmp(n->subformat, "streamOptimized");
        n->sparse = n->stream || strstr(n->subformat, "Sparse");
        n->split = !strncmp(n->subformat, "twoGb", 5);
        n->adapter = p->adapter ? p->adapter : known_adapter(vmdk_descriptor_value(copied, "ddb.adapterType"));
        if (!n->adapter)
                n->adapter = n->stream ? "lsilogic" : "ide";
        if (p->hwversion && p->compat6)
                r = vd_fail(err, VD_EUSAGE, "compat6 means hwversion=6, found hwversion=%s as well", p->hwversion);
        if (!r && p->zeroed_grain && (!n->sparse || n->stream))
                r = vd_fail(err, VD_EUSAGE, "zeroed_grain is for monolithicSparse and twoGbMaxExtentSparse, found %s",
                            n->subformat);
        if (!r && p->compression_level && (!n->stream || p->compression_level > 9))
                r = vd_fail(err, VD_EUSAGE, "compression_level is 1 to 9 and for streamOptimized, found %" PRIu64
                            " for %s", p->compression_level, n->subformat);
        n->level = (int)p->compression_level;
        if (!r)
                r = take_number(n->hwversion, p->compat6 ? "6" : p->hwversion, "hwversion",
                                vmdk_descriptor_value(copied, "ddb.virtualHWVersion"), "4", err);
        return r ? r : take_number(n->toolsversion, p->toolsversion, "toolsversion",
                                   vmdk_descriptor_value(copied, "ddb.toolsVersion"), "2147483647", err);
}

static int take_parent(struct vd_image *img, struct vmdk_new *n, const struct vd_create *create, struct vd_error *err)
{
        const struct vmdk *parent;
        int r;

        n->parent_cid = VMDK_NO_CID;
        if (!create->backing_name)
                return 0;
        if (!n->sparse || n->stream)
                return vd_fail(err, VD_EUSAGE, "%s disks cannot have a backing file", n->subformat);
        if (!create->backing)
                return vd_fail(err, VD_EUSAGE, "the backing file must be opened, since its content id is recorded");
        if (create->backing->format != &vd_format_vmdk)
                return vd_fail(err, VD_EUNSUPPORTED, "the backing file of a VMDK is a VMDK, found a %s image",
                               create->backing->format->name);
        parent = create->backing->state;
        if (!parent->has_descriptor)
                return vd_fail(err, VD_EUNSUPPORTED, "the backing file has no descriptor, hence no content id");
        n->parent_cid = parent->descriptor.cid;
        n->hint = strdup(create->backing_name);
        r = n->hint ? check_text(n->hint, "the name of the backing file", err) : vd_fail(err, -ENOMEM, "parent");
        if (!r && !(img->parent_ref.format = strdup("vmdk")))
                r = vd_fail(err, -ENOMEM, "parent");
        return r ? r : vd_image_add_parent_name(img, n->hint, "parentFileNameHint", err);
}

/* NAME of NAME.vmdk. */
static int take_name(struct vd_image *img, struct vmdk_new *n, struct vd_error *err)
{
        const char *slash = strrchr(img->path, '/'), *name = slash ? slash + 1 : img->path;
        size_t length = strlen(name);

        if (length > 5 && !strcasecmp(name + length - 5, ".vmdk"))
                length -= 5;
        n->base = strndup(name, length);
        return n->base ? check_text(name, "the file name", err) : vd_fail(err, -ENOMEM, "name");
}

/* ---- the descriptor ---- */

/* VMware's identifiers: "60 00 C2 9x xx xx xx xx-xx ..." */
static int append_identity(FILE *out, uint32_t cid, const uint8_t id[16], struct vd_error *err)
{
        char long_cid[33];
        uint8_t uuid[16];
        int r = vd_identity_uuid(uuid, "vmdk disk uuid", cid, err);

        if (r)
                return r;
        memcpy(uuid, "\x60\x00\xc2", 3);
        uuid[3] = (uint8_t)(0x90 | (uuid[3] & 0x0f));
        vmdk_long_cid(id, cid, long_cid);
        fprintf(out, "ddb.longContentID = \"%s\"\nddb.uuid = \"", long_cid);
        for (int i = 0; i < 16; i++)
                fprintf(out, "%02x%s", uuid[i], i == 7 ? "-" : i == 15 ? "\"\n" : " ");
        return 0;
}

static void append_extents(FILE *out, const struct vd_image *img)
{
        const struct vmdk *v = img->state;
        const struct vmdk_new *n = v->fresh;

        for (size_t i = 0; i < v->extent_count; i++) {
                const struct vmdk_extent *e = &v->extents[i];

                fprintf(out, "RW %" PRIu64 " %s \"", e->length / VMDK_SECTOR, vmdk_type_name(e->type));
                if (e->name)
                        fprintf(out, "%s\"%s\n", e->name, e->sparse ? "" : " 0");
                else
                        fprintf(out, "%s.vmdk\"\n", n->base);
        }
}

/* Exactly the lines, blanks and quotes that VMware writes: some readers take nothing else. */
static int write_text(FILE *out, const struct vd_image *img, struct vd_error *err)
{
        const struct vmdk *v = img->state;
        const struct vmdk_new *n = v->fresh;
        unsigned heads = strcmp(n->adapter, "ide") ? 255 : 16;
        uint8_t id[16];
        int r = vd_identity_uuid(id, "vmdk content id", img->digest, err);

        if (r)
                return r;
        fprintf(out, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08" PRIx32 "\nparentCID=%08" PRIx32
                "\ncreateType=\"%s\"\n", vmdk_cid(id), n->parent_cid, n->subformat);
        if (n->hint)
                fprintf(out, "parentFileNameHint=\"%s\"\n", n->hint);
        fprintf(out, "\n# Extent description\n");
        append_extents(out, img);
        fprintf(out, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%s\"\n", n->hwversion);
        fprintf(out, "ddb.geometry.cylinders = \"%" PRIu64 "\"\nddb.geometry.heads = \"%u\"\nddb.geometry.sectors = "
                "\"63\"\n"
                "ddb.adapterType = \"%s\"\nddb.toolsVersion = \"%s\"\n", img->size / VMDK_SECTOR / (63 * heads), heads,
                n->adapter, n->toolsversion);
        return n->stream ? append_identity(out, vmdk_cid(id), id, err) : 0;
}

/* room: pad with NULs up to there; 0: the text alone. */
static int write_descriptor(struct vd_image *img, uint64_t position, size_t room, struct vd_error *err)
{
        VD_AUTOFREE char *text = NULL;
        VD_AUTOFREE char *padded = room ? calloc(1, room) : NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        int r = 0;

        if (!out || (room && !padded)) {
                if (out)
                        fclose(out);
                return vd_fail(err, -ENOMEM, "descriptor");
        }
        r = write_text(out, img, err);
        if (fclose(out) && !r)
                r = vd_fail(err, -ENOMEM, "descriptor");
        if (!r && room && bytes > room)
                r = vd_fail(err, VD_EUSAGE, "the descriptor needs %zu bytes, a sparse extent has room for %zu", bytes,
                            room);
        if (!r && room)
                memcpy(padded, text, bytes);
        return r ? r : vd_file_write(img->file, room ? padded : text, room ? room : bytes, position, err);
}

/* ---- extents ---- */

static void fill_header(struct vmdk_sparse_disk *h, const struct vmdk_sparse *s)
{
        *h = (struct vmdk_sparse_disk){
                .magic = "KDMV", .version = le32_put(s->version), .flags = le32_put(s->flags),
                .capacity = le64_put(s->capacity / VMDK_SECTOR), .grain = le64_put(s->grain / VMDK_SECTOR),
                .descriptor_offset = le64_put(s->descriptor / VMDK_SECTOR),
                .descriptor_size = le64_put(s->descriptor_room / VMDK_SECTOR),
                .table_entries = le32_put(VMDK_TABLE_ENTRIES),
                .redundant_offset = le64_put(s->redundant / VMDK_SECTOR),
                .directory_offset = le64_put(s->directory ? s->directory / VMDK_SECTOR : VMDK_GD_AT_END),
                .overhead = le64_put(s->overhead / VMDK_SECTOR), .line_ends = "\n \r\n",
                .compression = le16_put(s->flags & VMDK_FLAG_PACKED ? 1 : 0),
        };
}

/* A directory whose tables follow it, one after the other. */
static int write_directory(struct vmdk_sparse *s, uint64_t position, uint64_t tables, struct vd_error *err)
{
        le32 entries[1024];
        uint64_t per_write = sizeof(entries) / sizeof(entries[0]);
        int r = 0;

        for (uint64_t first = 0; first < s->map.top_entries && !r; first += per_write) {
                uint64_t n = vd_min(per_write, s->map.top_entries - first);

                for (uint64_t i = 0; i < n; i++)
                        entries[i] = le32_put((uint32_t)((tables + (first + i) * VMDK_TABLE_BYTES) / VMDK_SECTOR));
                r = vd_file_write(s->file, entries, n * sizeof(entries[0]), position + first * sizeof(entries[0]), err);
        }
        return r;
}

static struct vmdk_sparse *new_sparse(struct vmdk_extent *e, struct vd_error *err)
{
        struct vmdk_sparse *s = calloc(1, sizeof(*s));

        if (!s) {
                vd_fail(err, -ENOMEM, "an extent");
                return NULL;
        }
        e->sparse = s;
        s->file = e->file;
        s->capacity = e->length;
        s->grain = VMDK_GRAIN;
        s->map.entries = VMDK_TABLE_ENTRIES;
        s->map.top_entries = vd_div_up(s->capacity, (uint64_t)VMDK_GRAIN * VMDK_TABLE_ENTRIES);
        return s;
}

/* [ header ][ descriptor ][ redundant directory ][ its tables ][ directory ][ tables ][ pad ] grains ... */
static int create_sparse(struct vmdk_extent *e, bool embedded, bool zeroed_grain, struct vd_error *err)
{
        struct vmdk_sparse *s = new_sparse(e, err);
        uint64_t directory, tables;
        int r;

        if (!s)
                return err->code;
        directory = vd_round_up(s->map.top_entries * sizeof(le32), VMDK_SECTOR);
        tables = s->map.top_entries * VMDK_TABLE_BYTES;
        s->version = zeroed_grain ? 2 : 1;
        s->flags = VMDK_FLAG_LINE_ENDS | VMDK_FLAG_REDUNDANT | (zeroed_grain ? VMDK_FLAG_ZERO_GRAINS : 0);
        s->descriptor = embedded ? VMDK_SECTOR : 0;
        s->descriptor_room = embedded ? VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR : 0;
        s->redundant = VMDK_SECTOR + s->descriptor_room;
        s->directory = s->redundant + directory + tables;
        s->overhead = s->next = vd_round_up(s->directory + directory + tables, VMDK_GRAIN);
        r = vd_file_truncate(s->file, s->overhead, err);
        if (!r)
                r = write_directory(s, s->redundant, s->redundant + directory, err);
        if (!r)
                r = write_directory(s, s->directory, s->directory + directory, err);
        return r ? r : vmdk_sparse_start(s, true, true, err);
}

static int create_stream(struct vd_image *img, struct vmdk_extent *e, struct vd_error *err)
{
        struct vmdk *v = img->state;
        struct vmdk_sparse *s = new_sparse(e, err);
        struct vmdk_sparse_disk header;
        int r;

        if (!s)
                return err->code;
        s->version = 3;
        s->flags = VMDK_FLAG_LINE_ENDS | VMDK_FLAG_PACKED | VMDK_FLAG_MARKERS;
        s->descriptor = VMDK_SECTOR;
        s->descriptor_room = VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR;
        s->overhead = VMDK_GRAIN;
        fill_header(&header, s);
        r = vd_file_truncate(img->file, s->overhead, err);
        if (!r)
                r = vd_file_write(img->file, &header, sizeof(header), 0, err);
        if (!r)
                r = vmdk_stream_start(&v->stream, &header, img->size, err);
        img->is_packed = true;
        img->pack.codec = VD_CODEC_ZLIB;
        img->pack.unit = VMDK_GRAIN;
        img->pack.max_packed = VMDK_GRAIN + VMDK_GRAIN / 512 + 64;     /* deflate never needs more */
        img->pack.settings.window_bits = 15;
        img->pack.settings.level = v->fresh->level;
        img->pack.always = true;
        return r;
}

static int add_file(struct vd_image *img, struct vmdk_extent *e, size_t number, struct vd_error *err)
{
        struct vmdk *v = img->state;
        const struct vmdk_new *n = v->fresh;
        char *name = n->split ? vd_asprintf("%s-%c%03zu.vmdk", n->base, n->sparse ? 's' : 'f', number)
                              : vd_asprintf("%s-flat.vmdk", n->base);
        struct vd_file *file;
        int r;

        if (!name)
                return vd_fail(err, -ENOMEM, "an extent");
        e->name = v->names[number - 1] = name;
        r = vd_output_add(img->output, name, &file, err);
        if (!r)
                e->file = vd_file_ref(file);
        return r;
}

static int create_extents(struct vd_image *img, bool zeroed_grain, struct vd_error *err)
{
        struct vmdk *v = img->state;
        const struct vmdk_new *n = v->fresh;
        uint64_t piece = n->split ? SPLIT_BYTES : img->size;
        size_t count = vd_div_up(img->size, piece);
        bool embedded = n->sparse && !n->split;
        int r = 0;

        v->extents = calloc(count, sizeof(*v->extents));
        v->names = calloc(count, sizeof(*v->names));
        if (!v->extents || !v->names)
                return vd_fail(err, -ENOMEM, "%zu extents", count);
        for (size_t i = 0; i < count && !r; i++) {
                struct vmdk_extent *e = &v->extents[v->extent_count++];

                e->start = i * piece;
                e->length = vd_min(piece, img->size - e->start);
                e->type = n->sparse ? VMDK_SPARSE : VMDK_FLAT;
                if (embedded)
                        e->file = vd_file_ref(img->file);
                else
                        r = add_file(img, e, i + 1, err);
                if (!r)
                        r = n->stream ? create_stream(img, e, err)
                            : n->sparse ? create_sparse(e, embedded, zeroed_grain, err)
                            : vd_file_truncate(e->file, e->length, err);
        }
        return r;
}

int vmdk_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct vmdk_params defaults;
        const struct vmdk_params *params = create->params ? create->params : &defaults;
        struct vmdk *v = calloc(1, sizeof(*v));
        int r;

        if (v)
                v->fresh = calloc(1, sizeof(*v->fresh));
        if (!v || !v->fresh) {
                free(v);
                return vd_fail(err, -ENOMEM, "image");
        }
        img->state = v;
        v->embedded = true;
        r = take_options(v->fresh, params, create->like, err);
        if (!r && (!create->size || create->size > DISK_LIMIT))
                r = vd_fail(err, VD_EUNSUPPORTED, "a disk of %" PRIu64 " bytes: a VMDK has 1 sector to 64 TiB",
                            create->size);
        if (!r)
                r = take_name(img, v->fresh, err);
        if (!r)
                r = take_parent(img, v->fresh, create, err);
        img->size = vd_round_up(create->size, VMDK_SECTOR);
        if (!r)
                r = create_extents(img, params->zeroed_grain, err);
        img->unit = img->write_unit = v->fresh->sparse ? VMDK_GRAIN : 1;
        if (!v->fresh->sparse)
                img->unit = 0;
        if (r)
                vmdk_close(img);
        return r;
}

static int finish_sparse(struct vmdk_sparse *s, struct vd_error *err)
{
        struct vmdk_sparse_disk header;
        int r = s->map.sub ? vd_cache_flush(s->map.sub, err) : 0;

        if (!r && vd_file_size(s->file) < s->next)
                r = vd_file_truncate(s->file, s->next, err);
        fill_header(&header, s);
        return r ? r : vd_file_write(s->file, &header, sizeof(header), 0, err);
}

int vmdk_create_finish(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = img->state;
        size_t room = v->fresh->sparse && !v->fresh->split ? VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR : 0;
        int r = v->stream ? vmdk_stream_finish(v->stream, img->file, err) : 0;

        for (size_t i = 0; i < v->extent_count && !r; i++) {
                struct vmdk_extent *e = &v->extents[i];

                if (e->sparse && !v->stream)
                        r = finish_sparse(e->sparse, err);
                if (!r && e->file != img->file)
                        r = vd_file_finish(e->file, err);
        }
        return r ? r : write_descriptor(img, room ? VMDK_SECTOR : 0, room, err);
}
