// SPDX-License-Identifier: MIT
/* add_cow_write.c: new add-cows, and writing into old ones.
 *
 * Data goes to the image file, at the guest's offsets; then, after a sync, the bits of its clusters are set.  A cut in
 * between leaves the old content, since data under clear bits is never read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "add_cow.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

#define FIELD(field) .offset = offsetof(struct add_cow_params, field)

const struct vd_opt add_cow_create_opts[] = {
        { .name = "image_file", .type = VD_OPT_TEXT, FIELD(image_file), .argument = "NAME",
          .help = "the raw file that takes what is written; create takes one that exists as it is; NAME-image.raw "
          "when not given" },
        { .name = "image_fmt", .type = VD_OPT_TEXT, FIELD(image_format), .argument = "FORMAT", .help =
         "its format: raw" },
        { .name = "cluster_size", .type = VD_OPT_SIZE, FIELD(cluster_bytes), .argument = "SIZE",
          .help = "bytes per bit of the bitmap: a power of two from 4096 to 2M; 64k when not given" },
        { .type = VD_OPT_END },
};

/* "disk.add-cow" -> "disk-image.raw": disk.raw is often what the disk is made from. */
static char *default_name(const char *path)
{
        const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');

        return vd_asprintf("%.*s-image.raw", (int)(dot && dot != base ? dot - base : (ptrdiff_t)strlen(base)), base);
}

/* Would the policy open it later? */
static bool leaves_directory(const char *name)
{
        if (name[0] == '/')
                return true;
        for (const char *part = name; part; part = strchr(part, '/')) {
                part += *part == '/';
                if (!strncmp(part, "..", 2) && (!part[2] || part[2] == '/'))
                        return true;
        }
        return false;
}

static int choose_layout(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct add_cow_params *params = create->params;
        uint64_t cluster = params->cluster_bytes ? params->cluster_bytes : ADD_COW_CLUSTER_DEFAULT;
        const char *format = create->backing_format ? create->backing_format : "";
        struct add_cow *a = img->state;

        if (!vd_is_pow2(cluster) || cluster < 1u << ADD_COW_BITS_NEW || cluster > 1u << ADD_COW_BITS_MOST)
                return vd_fail(err, VD_EUSAGE, "cluster_size %" PRIu64 " is not a power of two from %u to %u", cluster,
                               1u << ADD_COW_BITS_NEW, 1u << ADD_COW_BITS_MOST);
        if (params->image_format && strcmp(params->image_format, "raw") != 0)
                return vd_fail(err, VD_EUNSUPPORTED, "image_fmt=%s: only raw image files are supported",
                               params->image_format);
        if (params->image_file && (!*params->image_file || leaves_directory(params->image_file)))
                return vd_fail(err, VD_EUSAGE, "image_file=%s: the image file must be in the directory of the new "
                               "image or below", params->image_file);
        if (create->size > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes are more than a file can have", create->size);
        if (strlen(format) >= sizeof(a->header.backing_format))
                return vd_fail(err, VD_EUNSUPPORTED, "format '%s' of the backing file is longer than 15 bytes", format);
        a->cluster = cluster;
        a->header_bytes = cluster;
        a->all_allocated = !create->backing_name;
        img->size = vd_round_up(create->size, ADD_COW_SECTOR);
        strcpy(a->image_format, "raw");
        strcpy(a->backing_format, format);
        a->image_name = params->image_file ? strdup(params->image_file) : default_name(img->path);
        a->backing_name = create->backing_name ? strdup(create->backing_name) : NULL;
        if (!a->image_name || (create->backing_name && !a->backing_name))
                return vd_fail(err, -ENOMEM, "names of the files");
        if (strlen(a->image_name) + (a->backing_name ? strlen(a->backing_name) : 0) >
            a->header_bytes - sizeof(a->header))
                return vd_fail(err, VD_EUNSUPPORTED, "the names of the files do not fit a header of %" PRIu64 " bytes",
                               a->header_bytes);
        return 0;
}

/* The image file: what is asked for by name and there already, or a new one of this transaction. */
static int take_image_file(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct add_cow_params *params = create->params;
        struct vd_error why = VD_ERROR_INIT;
        struct add_cow *a = img->state;
        struct vd_file *file;
        int r;

        if (params->image_file && !create->like) {
                r = vd_image_open_member(img, a->image_name, &a->image, &why);
                if (!r && vd_file_size(a->image) != img->size)
                        return vd_fail(err, VD_EUSAGE, "image file '%s' has %" PRIu64 " bytes, asked for are %" PRIu64,
                                       a->image_name, vd_file_size(a->image), img->size);
                if (r != -ENOENT) {
                        if (r)
                                *err = why;
                        return r;
                }
        }
        r = vd_output_add(img->output, a->image_name, &file, err);
        if (!r)
                a->image = vd_file_ref(file);
        return r;
}

int add_cow_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        static const struct add_cow_params defaults;
        struct vd_create request = *create;
        int r;

        if (!request.params)
                request.params = &defaults;
        img->state = calloc(1, sizeof(struct add_cow));
        if (!img->state)
                return vd_fail(err, -ENOMEM, "add-cow header");
        r = choose_layout(img, &request, err);
        if (!r)
                r = take_image_file(img, &request, err);
        if (!r && create->backing_name)
                r = vd_image_add_parent_name(img, create->backing_name, "header", err);
        if (!r)
                r = add_cow_open_bitmap(img, err);
        if (r)
                add_cow_close(img);
        return r;
}

int add_cow_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        struct add_cow *a = img->state;
        uint64_t first = request->start / a->cluster, run;
        bool set = true;

        *place = (struct vd_place){ .start = request->start, .length = request->length, .kind = VD_DATA,
                                    .file = a->image, .position = request->start };
        if (a->all_allocated || request->kind == VD_DATA)
                return 0;
        int r = vd_bitmap_run(&a->bitmap, first, vd_div_up(request->start + request->length, a->cluster), &set, &run,
                              err);

        if (r)
                return r;
        place->length = vd_min(place->length, (first + run) * a->cluster - request->start);
        if (request->kind == VD_UNALLOCATED || (!set && !a->backing_name))
                place->kind = VD_UNALLOCATED;   /* clear bits: the parent's, or zeros */
        return 0;
}

int add_cow_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        const struct add_cow *a = img->state;

        if (a->all_allocated)
                return 0;
        return vd_bitmap_fill(&a->bitmap, place->start / a->cluster, vd_div_up(place->start + place->length,
                                                                               a->cluster),
                              place->kind == VD_DATA, err);
}

int add_cow_flush(struct vd_image *img, struct vd_error *err)
{
        struct add_cow *a = img->state;

        return vd_cache_flush(a->bitmap.cache, err);
}

static int write_header(struct vd_image *img, struct vd_error *err)
{
        struct add_cow *a = img->state;
        struct add_cow_header_disk *h = &a->header;
        size_t image = strlen(a->image_name), backing = a->backing_name ? strlen(a->backing_name) : 0;
        VD_AUTOFREE uint8_t *bytes = calloc(1, a->header_bytes);

        if (!bytes)
                return vd_fail(err, -ENOMEM, "add-cow header");
        memcpy(h->magic, "ACOW", 4);
        h->backing_offset = le32_put(backing ? sizeof(*h) : 0);
        h->backing_length = le32_put((uint32_t)backing);
        h->image_offset = le32_put((uint32_t)(sizeof(*h) + backing));
        h->image_length = le32_put((uint32_t)image);
        h->cluster_bits = le32_put((uint32_t)__builtin_ctzll(a->cluster));
        h->compatible = le64_put(a->all_allocated ? ADD_COW_ALL_ALLOCATED : 0);
        h->header_bytes = le32_put((uint32_t)a->header_bytes);
        memcpy(h->backing_format, a->backing_format, sizeof(h->backing_format));
        memcpy(h->image_format, a->image_format, sizeof(h->image_format));
        memcpy(bytes, h, sizeof(*h));
        if (backing)
                memcpy(bytes + sizeof(*h), a->backing_name, backing);
        memcpy(bytes + sizeof(*h) + backing, a->image_name, image);
        return vd_file_write(img->file, bytes, a->header_bytes, 0, err);
}

int add_cow_finish(struct vd_image *img, struct vd_error *err)
{
        struct add_cow *a = img->state;
        uint64_t end = a->header_bytes + vd_round_up(vd_div_up(a->clusters, 8), a->cluster);
        int r = vd_cache_flush(a->bitmap.cache, err);

        if (r || !img->is_new)
                return r;
        if (vd_file_size(a->image) < img->size)
                r = vd_file_truncate(a->image, img->size, err);
        if (!r && vd_file_size(img->file) < end)
                r = vd_file_truncate(img->file, end, err);
        return r ? r : write_header(img, err);
}
