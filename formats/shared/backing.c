// SPDX-License-Identifier: MIT
/* backing.c: names of backing files in headers. */
#include "backing.h"

#include <inttypes.h>
#include <string.h>

#include "util/checked.h"

int vd_backing_read(struct vd_image *img, uint64_t offset, uint32_t length, uint64_t limit, struct vd_error *err)
{
        char name[VD_BACKING_NAME_MOST + 1] = "";
        int r;

        if (!length || length > VD_BACKING_NAME_MOST)
                return vd_fail(err, VD_ECORRUPT, "header: backing file name of %" PRIu32 " bytes, allowed are 1 to %d",
                               length, VD_BACKING_NAME_MOST);
        if (!vd_range_fits(offset, length, limit))
                return vd_fail(err, VD_ECORRUPT, "header: backing file name of %" PRIu32 " bytes at %" PRIu64
                               " does not end before %" PRIu64, length, offset, limit);
        r = vd_file_read(img->file, name, length, offset, err);
        if (!r && strlen(name) < length)
                r = vd_fail(err, VD_ECORRUPT, "header: backing file name with a NUL in it");
        return r ? r : vd_image_add_parent_name(img, name, "backing file", err);
}

int vd_backing_write(struct vd_image *img, const char *name, uint64_t offset, uint32_t *length, struct vd_error *err)
{
        size_t bytes = strlen(name);
        int r;

        if (!bytes || bytes > VD_BACKING_NAME_MOST)
                return vd_fail(err, VD_EUSAGE, "a backing file name of %zu bytes, allowed are 1 to %d", bytes,
                               VD_BACKING_NAME_MOST);
        *length = (uint32_t)bytes;
        r = vd_file_write(img->file, name, bytes, offset, err);
        return r ? r : vd_image_add_parent_name(img, name, "backing file", err);
}
