// SPDX-License-Identifier: MIT
/* policy.h: what an image may make us open.
 *
 * Names inside images are untrusted.  Parents: any regular file.  Extents and external data files: only in the image's
 * own directory or below; so are the parts of a split image, whatever the policy says.  Never devices, /proc, /sys,
 * sockets, URLs or "json:" names.
 */
#ifndef VD_CORE_POLICY_H
#define VD_CORE_POLICY_H

#include <stdbool.h>

#include "util/error.h"

enum vd_references {
        VD_REFERENCES_DEFAULT,          /* parents anywhere, extents and data files in the image's directory or below */
        VD_REFERENCES_ANY,              /* both anywhere */
        VD_REFERENCES_BELOW,            /* both only in the image's directory or below */
        VD_REFERENCES_NONE,             /* nothing is opened */
};

enum vd_reference {
        VD_REFERENCE_PARENT,
        VD_REFERENCE_MEMBER,            /* extent, data file */
        VD_REFERENCE_PART,              /* rest of the image itself, named after it and not by its content */
};

struct vd_policy {
        enum vd_references references;
        unsigned max_depth;             /* of a chain of parents; 0 means VD_MAX_DEPTH */
};

enum { VD_MAX_DEPTH = 64 };

/* Turns a name found inside the image at image_path into a path to open: relative names stand beside the image.
 * VD_EPOLICY when the policy forbids it, -errno (ENOENT ...) when nothing usable is there.  *path is malloc'ed. */
int vd_policy_resolve(const struct vd_policy *, enum vd_reference, const char *image_path, const char *name,
                      char **path, struct vd_error *);

#endif
