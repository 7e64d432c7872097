// SPDX-License-Identifier: MIT
/* slice.c: a part of a disk, at some place of another: what dd copies. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "util/checked.h"

struct slice {
        struct vd_image *image;
        uint64_t from, at, length;      /* [from, from + length) of image is shown at `at` */
};

static int slice_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct slice *s = img->state;
        uint64_t shift = s->from - s->at;       /* modulo 2^64, as all of this arithmetic */
        int r;

        if (offset < s->at || offset >= s->at + s->length) {
                ext->kind = img->parent ? VD_UNALLOCATED : VD_ZERO;
                ext->length = vd_min(max, (offset < s->at ? s->at : img->size) - offset);
                return 0;
        }
        r = vd_image_map(s->image, offset + shift, vd_min(max, s->at + s->length - offset), UINT32_MAX, ext, err);
        if (r)
                return r;
        if (ext->kind == VD_UNALLOCATED && vd_image_lacks_parent(s->image))
                return vd_fail(err, VD_EPARENT, "the parent image is not open");
        if (ext->kind == VD_UNALLOCATED)
                ext->kind = VD_ZERO;
        ext->start -= shift;
        ext->unit_start -= shift;
        return 0;
}

static void slice_close(struct vd_image *img)
{
        struct slice *s = img->state;

        img->parent = NULL;             /* borrowed */
        vd_image_close(s->image);
        free(s);
}

static const struct vd_format slice_format = {
        .name = "slice", .title = "a part of a disk", .map = slice_map, .close = slice_close,
};

int vd_image_slice(struct vd_image **out, struct vd_image *source, uint64_t from, uint64_t length, uint64_t at,
                   struct vd_image *under, struct vd_error *err)
{
        struct vd_image *img = calloc(1, sizeof(*img));
        struct slice *s = calloc(1, sizeof(*s));
        int r = 0;

        if (!img || !s || !(img->path = strdup(source->path)))
                r = vd_fail(err, -ENOMEM, "%s", source->path);
        else if (!vd_range_fits(from, length, source->size) || !vd_add(at, length, &img->size) ||
                 (under && img->size > under->size))
                r = vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes at %" PRIu64 " do not fit", length, at);
        if (r) {
                if (img)
                        free(img->path);
                free(img);
                free(s);
                return r;
        }
        *s = (struct slice){ source, from, at, length };
        img->format = &slice_format;
        img->state = s;
        img->policy = source->policy;
        img->file = vd_file_ref(source->file);
        img->write_unit = 1;
        img->unit = source->unit;
        img->is_packed = vd_image_may_be_packed(source);
        if (under) {
                img->size = under->size;
                img->parent = under;
                under->depth = 1;
        }
        *out = img;
        return 0;
}
