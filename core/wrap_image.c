// SPDX-License-Identifier: MIT
/* wrap_image.c: seeing through the wrapper when an image is opened. */
#include "wrap.h"

/* Is the whole file compressed?  Not if some format knows it as it is: those of Apple may begin like this too.  Nor if the
 * user names the format, unless the name of the file says so: a guest may write anything at the beginning of its disk. */
static int find_wrapper(struct vd_image *img, const struct vd_open *how, const struct vd_wrapper **found,
                        struct vd_error *err)
{
        const struct vd_format *format;
        enum vd_match match = VD_MATCH_NO;
        int r = vd_wrapper_by_content(img->file, found, err);

        if (r || !*found)
                return r;
        if (how->format) {
                if (vd_wrapper_by_extension(img->path) != *found)
                        *found = NULL;
                return 0;
        }
        r = vd_format_by_content(img->file, &format, &match, err);
        if (r || match == VD_MATCH_SURE)
                *found = NULL;
        return r;
}

int vd_image_unwrap(struct vd_image *img, const struct vd_open *how, struct vd_error *err)
{
        const struct vd_wrapper *wrapper = NULL;
        struct vd_file *inside;
        bool is_bare = vd_file_is_device(img->file) || (how->write && vd_file_is_remote(img->file));
        int r = img->child || is_bare ? 0 : find_wrapper(img, how, &wrapper, err);

        if (r || !wrapper)
                return r;
        if (how->write)
                return vd_fail(err, VD_EUNSUPPORTED, "is compressed as a whole (%s) and cannot be changed in place",
                               vd_wrapper_name(wrapper));
        r = vd_unwrap(&inside, wrapper, img->file, how->stop, &img->is_spooled, err);
        if (r)
                return r;
        img->wrapper = wrapper;
        vd_file_unref(img->file);
        img->file = inside;
        return 0;
}
