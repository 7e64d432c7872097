// SPDX-License-Identifier: MIT
/* join.c: several disks, one after the other, as one: the sources of a conversion. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "util/checked.h"

struct join {
        size_t count;
        struct {
                struct vd_image *image;
                uint64_t start;
        } parts[];
};

static int join_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct join *j = img->state;
        size_t i = j->count - 1;
        uint64_t start;
        int r;

        while (j->parts[i].start > offset)
                i--;
        start = j->parts[i].start;
        r = vd_image_map(j->parts[i].image, offset - start, max, UINT32_MAX, ext, err);
        if (!r && ext->kind == VD_UNALLOCATED && vd_image_lacks_parent(j->parts[i].image))
                r = vd_fail(err, VD_EPARENT, "the parent image is not open");
        ext->start += start;
        ext->unit_start += start;
        return r;
}

static void join_close(struct vd_image *img)
{
        struct join *j = img->state;

        for (size_t i = 0; i < j->count; i++)
                vd_image_close(j->parts[i].image);
        free(j);
}

static const struct vd_format join_format = {
        .name = "join", .title = "several images joined", .map = join_map, .close = join_close,
};

int vd_image_join(struct vd_image **out, struct vd_image **parts, size_t count, struct vd_error *err)
{
        struct vd_image *img = calloc(1, sizeof(*img));
        struct join *j = calloc(1, sizeof(*j) + count * sizeof(j->parts[0]));
        int r = 0;

        if (!img || !j || !(img->path = strdup(parts[0]->path))) {
                r = vd_fail(err, -ENOMEM, "joining %zu images", count);
                goto fail;
        }
        img->format = &join_format;
        img->state = j;
        img->policy = parts[0]->policy;
        img->file = vd_file_ref(parts[0]->file);
        img->write_unit = 1;
        for (size_t i = 0; i < count; i++) {
                j->parts[i].image = parts[i];
                j->parts[i].start = img->size;
                img->is_packed = img->is_packed || vd_image_may_be_packed(parts[i]);
                img->unit = vd_max(img->unit, parts[i]->unit);
                if (!vd_add(img->size, parts[i]->size, &img->size)) {
                        r = vd_fail(err, VD_EUSAGE, "the joined images are too large");
                        goto fail;
                }
        }
        j->count = count;
        *out = img;
        return 0;
fail:
        if (img)
                vd_file_unref(img->file);
        if (img)
                free(img->path);
        free(img);
        free(j);
        for (size_t i = 0; i < count; i++)
                vd_image_close(parts[i]);
        return r;
}
