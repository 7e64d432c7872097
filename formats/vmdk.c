// SPDX-License-Identifier: MIT
/* vmdk.c: VMware virtual disks (reference: docs/formats.md, "VMDK"; VMware, "Virtual Disk Format 5.0").
 *
 *      descriptor file  ->  flat and sparse extents beside it
 *      sparse extent with a descriptor inside  ->  itself
 *
 * Not supported: extents that are devices or objects of an ESXi host (fullDevice, partitionedDevice, raw device maps,
 * vSAN), and seSparse extents with a pending journal; all are refused by name.
 * Cost: no table is read at open; 64 KiB pages of them are kept.
 */
#include "vmdk.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

static const char se_head[] = "\xbe\xba\xfe\xca\0\0\0\0\1\0\0\0\2\0\0\0";

static bool begins(const struct vd_probe *p, const void *magic, size_t bytes)
{
        return p->head_bytes >= bytes && !memcmp(p->head, magic, bytes);
}

static enum vd_match vmdk_probe(const struct vd_probe *p)
{
        if (begins(p, "KDMV", 4) || begins(p, "kdmv", 4) || begins(p, "COWD\1\0\0\0", 8) ||
            begins(p, se_head, sizeof(se_head) - 1))
                return VD_MATCH_SURE;
        return vmdk_descriptor_probe(p->head, p->head_bytes);
}

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t offset)
{
        size_t low = 0, high = v->extent_count;

        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (v->extents[middle].start <= offset)
                        low = middle;
                else
                        high = middle;
        }
        return &v->extents[low];
}

static void free_state(struct vmdk *v)
{
        for (size_t i = 0; i < v->extent_count; i++) {
                vmdk_sparse_free(v->extents[i].sparse);
                vd_file_unref(v->extents[i].file);
                if (v->names)
                        free(v->names[i]);
        }
        free(v->names);
        vmdk_descriptor_free(&v->descriptor);
        vmdk_stream_free(v->stream);
        vmdk_new_free(v->fresh);
        free(v->extents);
        free(v);
}

void vmdk_close(struct vd_image *img)
{
        free_state(img->state);
}

/* ---- opening ---- */

static int in_extent(const struct vmdk_extent *e, struct vd_error *err)
{
        char shown[512];

        if (!e->name)
                return err->code;
        return vd_error_prefix(err, "extent '%s'", vd_printable(shown, sizeof(shown), e->name, strlen(e->name)));
}

static int read_descriptor(struct vd_image *img, struct vmdk *v, uint64_t position, uint64_t room, struct vd_error *err)
{
        uint64_t bytes = vd_min(room, VMDK_DESCRIPTOR_LIMIT);
        char *text = malloc(bytes + 1);
        size_t got;
        int r;

        if (!text)
                return vd_fail(err, -ENOMEM, "descriptor");
        r = vd_file_read_some(img->file, text, bytes, position, &got, err);
        if (!r && got == VMDK_DESCRIPTOR_LIMIT && !memchr(text, 0, got))
                r = vd_fail(err, VD_EUNSUPPORTED, "descriptor: longer than %d bytes", VMDK_DESCRIPTOR_LIMIT);
        if (r || !strnlen(text, got)) {         /* QEMU leaves room for a descriptor in every extent of a set */
                free(text);
                return r;
        }
        v->descriptor_position = position;
        v->has_descriptor = true;
        return vmdk_descriptor_parse(&v->descriptor, text, got, err);
}

static enum vmdk_layout layout_of(enum vmdk_type type)
{
        return type == VMDK_VMFS_SPARSE ? VMDK_COWD : type == VMDK_SE_SPARSE ? VMDK_SE : VMDK_HOSTED;
}

static bool is_flat(enum vmdk_type type)
{
        return type == VMDK_FLAT || type == VMDK_VMFS;
}

/* Flat extents may share a file; nothing else may. */
static struct vd_file *already_open(const struct vmdk *v, const struct vmdk_extent *e)
{
        for (const struct vmdk_extent *o = v->extents; o < e; o++)
                if (o->file && o->name && is_flat(o->type) && is_flat(e->type) && !strcmp(o->name, e->name))
                        return o->file;
        return NULL;
}

static int open_file(struct vd_image *img, struct vmdk *v, struct vmdk_extent *e, const struct vmdk_line *l,
                     struct vd_error *err)
{
        struct vd_file *file = already_open(v, e);
        int r = 0;

        if (file) {
                e->file = vd_file_ref(file);
                return 0;
        }
        r = vd_image_open_member(img, l->name, &e->file, err);
        if (r == -ENOENT && l->raw_name) {
                *err = (struct vd_error)VD_ERROR_INIT;
                r = vd_image_open_member(img, l->raw_name, &e->file, err);
        }
        return r;
}

static int open_flat(struct vmdk_extent *e, struct vd_error *err)
{
        if (vd_range_fits(e->position, e->length, vd_file_size(e->file)))
                return 0;
        return vd_fail(err, VD_ECORRUPT, "the file ends at %" PRIu64 ", expected %" PRIu64 " bytes at %" PRIu64,
                       vd_file_size(e->file), e->length, e->position);
}

static int open_sparse(struct vd_image *img, struct vmdk_extent *e, struct vd_error *err)
{
        int r = vmdk_sparse_open(&e->sparse, e->file, layout_of(e->type), img->writable, err);

        if (!r && e->sparse->capacity < e->length)
                r = vd_fail(err, VD_ECORRUPT, "it has %" PRIu64 " bytes, the descriptor says %" PRIu64,
                            e->sparse->capacity, e->length);
        return r;
}

static int open_extent(struct vd_image *img, struct vmdk *v, struct vmdk_extent *e, const struct vmdk_line *l,
                       struct vd_error *err)
{
        int r;

        if (e->type == VMDK_ZERO || e->file || img->no_references || v->refused)
                return 0;
        r = open_file(img, v, e, l, err);
        if (!r)
                r = is_flat(e->type) ? open_flat(e, err) : open_sparse(img, e, err);
        return r ? in_extent(e, err) : 0;
}

/* What cannot be read anywhere but on the machine or host that it belongs to. */
static const char *why_refused(const struct vmdk_descriptor *d)
{
        const char *type = vmdk_descriptor_value(d, "createType");
        const char *native = vmdk_descriptor_value(d, "isNativeSnapshot");

        if (type && !strcasecmp(type, "fullDevice"))
                return "fullDevice: the disk is a device of the machine where this file was made; convert the device";
        if (type && !strcasecmp(type, "partitionedDevice"))
                return "partitionedDevice: the disk is made of partitions of the machine where this file was made; "
                       "convert the device";
        if (native && !strcasecmp(native, "yes"))
                return "native snapshot: its content is kept by the storage array";
        for (size_t i = 0; i < d->line_count; i++)
                switch (d->lines[i].type) {
                case VMDK_VMFS_RDM:
                case VMDK_VMFS_RDMP:
                case VMDK_VMFS_RAW:
                        return "raw device map: the disk is a device of an ESXi host";
                case VMDK_VSAN_SPARSE:
                        return "vsanSparse: the content is an object of a vSAN store";
                default:
                        break;
                }
        return NULL;
}

/* Extents as the descriptor lists them.  hosted: the sparse extent that holds the descriptor, or NULL. */
static int open_extents(struct vd_image *img, struct vmdk *v, struct vmdk_sparse **hosted, struct vd_error *err)
{
        const struct vmdk_descriptor *d = &v->descriptor;
        uint64_t at = 0;
        int r = 0;

        if (!d->line_count)
                return vd_fail(err, VD_ECORRUPT, "descriptor: no extent is listed");
        v->extents = calloc(d->line_count, sizeof(*v->extents));
        if (!v->extents)
                return vd_fail(err, -ENOMEM, "%zu extents", d->line_count);
        v->refused = why_refused(d);
        for (size_t i = 0; i < d->line_count && !r; i++) {
                const struct vmdk_line *l = &d->lines[i];
                struct vmdk_extent *e = &v->extents[v->extent_count++];

                *e = (struct vmdk_extent){
                        .start = at, .length = l->sectors * VMDK_SECTOR, .type = l->type, .access = l->access,
                        .name = l->name, .position = l->offset * VMDK_SECTOR,
                };
                if (*hosted && !i && l->type == VMDK_SPARSE) {  /* whatever name is recorded: files are renamed */
                        e->sparse = VD_STEAL(*hosted);
                        e->file = vd_file_ref(img->file);
                        e->name = NULL;
                        e->access = VMDK_RW;
                        if (d->line_count == 1)
                                e->length = e->sparse->capacity;
                        else if (e->sparse->capacity < e->length)
                                r = vd_fail(err, VD_ECORRUPT, "sparse header: %" PRIu64 " bytes, but the descriptor "
                                            "says %" PRIu64, e->sparse->capacity, e->length);
                }
                if (!vd_add(at, e->length, &at) || at > INT64_MAX)
                        r = vd_fail(err, VD_ECORRUPT, "descriptor: the extents are larger than any disk");
                if (!r)
                        r = open_extent(img, v, e, l, err);
        }
        img->size = at;
        if (!r && v->embedded && d->line_count == 1 && d->lines[0].sectors * VMDK_SECTOR != img->size)
                vd_image_warn(img, "the descriptor says %" PRIu64 " bytes, the sparse header %" PRIu64 ", which is "
                              "used", d->lines[0].sectors * VMDK_SECTOR, img->size);
        return r;
}

/* "disk-s003.vmdk" was given where "disk.vmdk" was meant. */
static char *owner_of(const char *path)
{
        static const char *const endings[] = { "-flat", "-delta", "-sesparse", NULL };
        size_t length = strlen(path), digits = 0;

        if (length < 5 || strcasecmp(path + length - 5, ".vmdk"))
                return NULL;
        length -= 5;
        for (size_t i = 0; endings[i]; i++) {
                size_t n = strlen(endings[i]);

                if (length > n && !strncasecmp(path + length - n, endings[i], n))
                        return vd_asprintf("%.*s.vmdk", (int)(length - n), path);
        }
        while (digits < length && strchr("0123456789abcdefABCDEF", path[length - digits - 1]))
                digits++;
        if (digits < 3 || length < digits + 2 || path[length - digits - 2] != '-' ||
            !strchr("sSfF", path[length - digits - 1]))
                return NULL;
        return vd_asprintf("%.*s.vmdk", (int)(length - digits - 2), path);
}

/* A sparse extent without descriptor: part of a set, or all that is left of one. */
static int open_bare(struct vd_image *img, struct vmdk *v, struct vmdk_sparse **hosted, struct vd_error *err)
{
        VD_AUTOFREE char *owner = owner_of(img->path);
        char shown[512];

        v->extents = calloc(1, sizeof(*v->extents));
        if (!v->extents)
                return vd_fail(err, -ENOMEM, "an extent");
        v->extent_count = 1;
        v->extents[0] = (struct vmdk_extent){ .length = (*hosted)->capacity, .type = VMDK_SPARSE,
                                              .file = vd_file_ref(img->file), .sparse = *hosted };
        *hosted = NULL;
        img->size = v->extents[0].length;
        if (img->writable)
                return vd_fail(err, VD_EUNSUPPORTED, "this is one extent of a disk and has no descriptor: open %s to "
                               "write",
                               owner ? vd_printable(shown, sizeof(shown), owner, strlen(owner)) : "the descriptor");
        vd_image_warn(img, "this is one extent of a disk: it has no descriptor%s%s", owner ? "; the disk may be " : "",
                      owner ? vd_printable(shown, sizeof(shown), owner, strlen(owner)) : "");
        return 0;
}

static int open_parent_reference(struct vd_image *img, struct vmdk *v, struct vd_error *err)
{
        const char *hint = vmdk_descriptor_value(&v->descriptor, "parentFileNameHint");

        if (v->descriptor.parent_cid == VMDK_NO_CID) {
                if (hint && *hint)
                        return vd_fail(err, VD_ECORRUPT, "descriptor: a parent is named, but parentCID says that "
                                       "there is none");
                return 0;
        }
        for (size_t i = 0; i < v->extent_count; i++)
                if (is_flat(v->extents[i].type))
                        return vd_fail(err, VD_ECORRUPT, "descriptor: a disk with a parent has a flat extent");
        /* A content id is something that only VMDK has. */
        img->parent_ref.format = strdup("vmdk");
        if (!img->parent_ref.format)
                return vd_fail(err, -ENOMEM, "parent");
        return vmdk_descriptor_parents(img, &v->descriptor, err);
}

/* Units, flags and permissions that follow from the extents. */
static int settle_image(struct vd_image *img, struct vmdk *v, struct vd_error *err)
{
        for (size_t i = 0; i < v->extent_count; i++) {
                const struct vmdk_extent *e = &v->extents[i];
                const struct vmdk_sparse *s = e->sparse;

                if (!s)
                        continue;
                img->unit = vd_max(img->unit, s->grain);
                img->is_packed |= (s->flags & VMDK_FLAG_PACKED) != 0;
                img->is_dirty |= s->unclean;
                if (!img->writable)
                        continue;
                if (s->layout != VMDK_HOSTED || s->version > 2 || s->flags & VMDK_FLAG_PACKED)
                        return vd_fail(err, VD_EUNSUPPORTED, "%s extents of version %" PRIu32 " are not changed in "
                                       "place; convert the disk", s->flags & VMDK_FLAG_PACKED ? "compressed"
                                       : vmdk_type_name(e->type), s->version);
                if (s->flags & ~(uint32_t)VMDK_FLAGS_KNOWN)
                        return vd_fail(err, VD_EUNSUPPORTED, "sparse header: unknown flags 0x%" PRIx32
                                       " forbid changes in place", s->flags);
        }
        img->write_unit = img->unit ? img->unit : 1;
        for (size_t i = 0; i < v->extent_count && img->writable; i++)
                if (v->extents[i].sparse && v->extents[i].start % img->write_unit)
                        return vd_fail(err, VD_EUNSUPPORTED, "extent %zu begins at %" PRIu64 ", which is no multiple "
                                       "of the grain of %" PRIu64 ": not changed in place", i, v->extents[i].start,
                                       img->write_unit);
        return 0;
}

static int open_by_descriptor(struct vd_image *img, struct vmdk *v, struct vmdk_sparse **hosted, struct vd_error *err)
{
        int r = open_extents(img, v, hosted, err);

        return r ? r : open_parent_reference(img, v, err);
}

/* Is this a KDMV header that holds nothing but the descriptor of other extents? */
static bool is_container(const struct vmdk_sparse_disk *h)
{
        return !memcmp(h->magic, "KDMV", 4) && !le64_get(h->capacity) && le64_get(h->descriptor_offset) &&
               le64_get(h->descriptor_offset) <= INT64_MAX / VMDK_SECTOR &&
               le64_get(h->descriptor_size) <= INT64_MAX / VMDK_SECTOR;
}

static int open_hosted_file(struct vd_image *img, struct vmdk *v, struct vd_error *err)
{
        struct vmdk_sparse_disk h;
        struct vmdk_sparse *hosted = NULL;
        int r = vd_file_read(img->file, &h, sizeof(h), 0, err);

        if (!r && is_container(&h)) {
                r = read_descriptor(img, v, le64_get(h.descriptor_offset) * VMDK_SECTOR,
                                    le64_get(h.descriptor_size) * VMDK_SECTOR, err);
        } else if (!r) {
                r = vmdk_sparse_open(&hosted, img->file, VMDK_HOSTED, img->writable, err);
                if (!r && hosted->descriptor)
                        r = read_descriptor(img, v, hosted->descriptor, hosted->descriptor_room, err);
                v->embedded = true;
        }
        if (!r)
                r = v->has_descriptor ? open_by_descriptor(img, v, &hosted, err)
                    : hosted ? open_bare(img, v, &hosted, err)
                    : vd_fail(err, VD_ECORRUPT, "neither a disk nor a descriptor of one");
        vmdk_sparse_free(hosted);
        return r;
}

/* VMware keeps a disk locked by files in a directory beside it. */
static void warn_locked(struct vd_image *img)
{
        VD_AUTOFREE char *path = vd_asprintf("%s.lck", img->path);
        DIR *directory = path ? opendir(path) : NULL;
        const struct dirent *entry = NULL;
        char shown[512];

        while (directory && (entry = readdir(directory)) && *entry->d_name == '.')
                ;
        if (entry)
                vd_image_warn(img, "%s is not empty: VMware may be using the disk",
                              vd_printable(shown, sizeof(shown), path, strlen(path)));
        if (directory)
                closedir(directory);
}

static int vmdk_open(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = calloc(1, sizeof(*v));
        char head[16] = "";
        size_t got;
        int r;

        if (!v)
                return vd_fail(err, -ENOMEM, "image");
        r = vd_file_read_some(img->file, head, sizeof(head), 0, &got, err);
        if (!r && !strncasecmp(head, "KDMV", 4))
                r = open_hosted_file(img, v, err);
        else if (!r && (!memcmp(head, "COWD", 4) || !memcmp(head, se_head, 8)))
                r = vd_fail(err, VD_EUNSUPPORTED, "this is one extent of a disk: open its descriptor (usually called "
                            "as this without -delta, -sesparse or -s001)");
        else if (!r)
                r = read_descriptor(img, v, 0, vd_file_size(img->file), err);
        if (!r && !v->extents)
                r = v->has_descriptor ? open_by_descriptor(img, v, &(struct vmdk_sparse *){ NULL }, err)
                                      : vd_fail(err, VD_ECORRUPT, "neither a disk nor a descriptor of one");
        if (!r)
                r = settle_image(img, v, err);
        if (r) {
                free_state(v);
                return r;
        }
        img->state = v;
        warn_locked(img);
        return 0;
}

/* ---- reading ---- */

static int vmdk_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct vmdk *v = img->state;
        struct vmdk_extent *e = vmdk_extent_at(v, offset);
        uint64_t local = offset - e->start, length = vd_min(max, e->length - local);
        bool data;
        uint64_t end;
        int r;

        if (v->refused)
                return vd_fail(err, VD_EUNSUPPORTED, "%s", v->refused);
        if (e->access == VMDK_NOACCESS) {
                vd_fail(err, VD_EUNSUPPORTED, "the descriptor forbids access to it");
                return in_extent(e, err);
        }
        if (v->stream)
                return vd_fail(err, VD_EUNSUPPORTED, "a stream-optimized disk cannot be read while it is written");
        ext->length = length;
        if (e->type == VMDK_ZERO) {
                ext->kind = VD_ZERO;
                return 0;
        }
        if (!e->file) {
                vd_fail(err, VD_EPOLICY, "it was not opened");
                return in_extent(e, err);
        }
        if (e->sparse) {
                r = vmdk_sparse_warm(v, e->sparse, err);
                if (!r)
                        r = vd_twolevel_map(&e->sparse->map, local, length, ext, err);
                if (r)
                        return in_extent(e, err);
                ext->start += e->start;
                ext->unit_start += e->start;
                return 0;
        }
        r = vd_file_next(e->file, e->position + local, &data, &end, err);
        if (r)
                return in_extent(e, err);
        ext->length = vd_min(length, end - e->position - local);
        ext->kind = data ? VD_DATA : VD_ZERO;
        ext->file = e->file;
        ext->position = e->position + local;
        return 0;
}

static int vmdk_accept_parent(struct vd_image *child, struct vd_image *parent, struct vd_error *err)
{
        const struct vmdk *c = child->state, *p = parent->state;

        if (parent->format != &vd_format_vmdk)
                return vd_fail(err, VD_EPARENT, "the parent is %s, but a VMDK's parent is a VMDK",
                               parent->format->name);
        if (!p->has_descriptor)
                return vd_fail(err, VD_EPARENT, "the parent has no descriptor, hence no content id");
        if (p->descriptor.cid == c->descriptor.parent_cid)
                return 0;
        return vd_fail(err, VD_EPARENT, "%s has the content id %08" PRIx32 ", expected %08" PRIx32 ": it was changed "
                       "since the child was made, or is another disk", vd_file_name(parent->file), p->descriptor.cid,
                       c->descriptor.parent_cid);
}

static const char *const extensions[] = { "vmdk", NULL };

const struct vd_format vd_format_vmdk = {
        .name = "vmdk", .title = "VMware virtual disk", .extensions = extensions,
        .caps = VD_CAP_BACKING | VD_CAP_PACKED | VD_CAP_SET | VD_CAP_SPREAD,
        .probe = vmdk_probe, .open = vmdk_open, .close = vmdk_close, .map = vmdk_map,
        .accept_parent = vmdk_accept_parent, .describe = vmdk_describe, .walk = vmdk_walk, .check = vmdk_check,
        .params_size = sizeof(struct vmdk_params), .create_opts = vmdk_options, .subformats = vmdk_subformats,
        .create = vmdk_create,
        .place = vmdk_place, .publish = vmdk_publish, .flush = vmdk_flush, .finish = vmdk_finish,
};
