// SPDX-License-Identifier: MIT
/* read.c: the chain as one map, and reading through it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

static int in_image(const struct vd_image *img, struct vd_error *err)
{
        char shown[512];

        return vd_error_prefix(err, "%s", vd_printable(shown, sizeof(shown), img->path, strlen(img->path)));
}

int vd_image_map(struct vd_image *img, uint64_t offset, uint64_t max, unsigned max_depth, struct vd_extent *ext,
                 struct vd_error *err)
{
        uint64_t limit = vd_min(max, img->size - offset);
        unsigned depth = 0;

        for (;; img = img->parent, depth++) {
                int r;

                *ext = (struct vd_extent){ .start = offset, .length = limit, .depth = depth };
                if (offset >= img->size) {      /* past the end of a short parent */
                        ext->kind = VD_ZERO;
                        return 0;
                }
                r = img->format->map(img, offset, vd_min(limit, img->size - offset), ext, err);
                if (r)
                        return in_image(img, err);
                ext->depth = depth;
                limit = vd_min(limit, ext->length);
                if (ext->kind != VD_UNALLOCATED || !img->parent || depth >= max_depth)
                        return 0;
        }
}

static int read_packed(const struct vd_extent *ext, void *buffer, struct vd_codec_context *codec,
                       struct vd_error *err)
{
        bool whole = ext->start == ext->unit_start && ext->length == ext->unit_bytes;
        VD_AUTOFREE char *packed = malloc(ext->packed_bytes);
        VD_AUTOFREE char *unit = whole ? NULL : malloc(ext->unit_bytes);
        int r;

        if (!packed || (!whole && !unit))
                return vd_fail(err, -ENOMEM, "unpacking %" PRIu32 " bytes", ext->unit_bytes);
        r = vd_file_read(ext->file, packed, ext->packed_bytes, ext->position, err);
        if (r)
                return r;
        r = vd_unpack(codec, ext->codec, packed, ext->packed_bytes, whole ? buffer : unit, ext->unit_bytes, err);
        if (r)
                return vd_error_prefix(err, "%s: compressed unit at %" PRIu64 " (guest offset %" PRIu64 ")",
                                       vd_file_name(ext->file), ext->position, ext->unit_start);
        if (!whole)
                memcpy(buffer, unit + (ext->start - ext->unit_start), ext->length);
        return 0;
}

int vd_extent_read(const struct vd_extent *ext, void *buffer, struct vd_codec_context *codec, struct vd_error *err)
{
        switch (ext->kind) {
        case VD_UNALLOCATED:
        case VD_ZERO:
                memset(buffer, 0, ext->length);
                return 0;
        case VD_DATA:
                return vd_file_read(ext->file, buffer, ext->length, ext->position, err);
        case VD_PACKED:
                return read_packed(ext, buffer, codec, err);
        }
        return vd_fail(err, -EINVAL, "extent of unknown kind %d", (int)ext->kind);
}

int vd_image_read(struct vd_image *img, void *buffer, size_t length, uint64_t offset, struct vd_codec_context *codec,
                  struct vd_error *err)
{
        char *to = buffer;

        if (!vd_range_fits(offset, length, img->size)) {
                vd_fail(err, -EINVAL, "reading %zu bytes at %" PRIu64 " of a disk of %" PRIu64 " bytes", length, offset,
                        img->size);
                return in_image(img, err);
        }
        while (length) {
                struct vd_extent ext;
                int r = vd_image_map(img, offset, length, UINT32_MAX, &ext, err);

                if (!r && ext.kind == VD_UNALLOCATED && vd_image_lacks_parent(img)) {
                        vd_fail(err, VD_EPARENT, "guest offset %" PRIu64 " is in the parent image, which is not open",
                                offset);
                        r = in_image(img, err);
                }
                if (!r)
                        r = vd_extent_read(&ext, to, codec, err);
                if (r)
                        return r;
                to += ext.length;
                offset += ext.length;
                length -= ext.length;
        }
        return 0;
}
