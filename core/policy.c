// SPDX-License-Identifier: MIT
/* policy.c: from a name inside an image to a path that may be opened. */
#include "policy.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "util/cleanup.h"
#include "util/text.h"

static const char *kind_name(enum vd_reference kind)
{
        return kind == VD_REFERENCE_PARENT ? "parent" : kind == VD_REFERENCE_PART ? "part" : "member file";
}

static int refuse(enum vd_reference kind, const char *name, const char *why, struct vd_error *err)
{
        char shown[512];

        return vd_fail(err, VD_EPOLICY, "%s '%s' is not opened: %s", kind_name(kind),
                       vd_printable(shown, sizeof(shown), name, strlen(name)), why);
}

static int missing(enum vd_reference kind, const char *name, int code, struct vd_error *err)
{
        char shown[512];

        return vd_fail(err, code, "%s '%s'", kind_name(kind), vd_printable(shown, sizeof(shown), name, strlen(name)));
}

/* The length of "json:", "nbd:", "https:" ... in front of a name, colon included; 0: none.  As QEMU sees it, a colon
 * before the first slash makes the name something else than a file. */
static size_t protocol_length(const char *name)
{
        size_t length = strcspn(name, ":/");

        return name[length] == ':' ? length + 1 : 0;
}

/* The directory of a path, slash included; "" for a bare name.  NULL when memory is short. */
static char *directory_of(const char *path)
{
        const char *slash = strrchr(path, '/');

        return strndup(path, slash ? (size_t)(slash + 1 - path) : 0);
}

/* Is the file (real path) in the directory of the image, or below? */
static bool is_below(const char *real, const char *directory)
{
        VD_AUTOFREE char *real_directory = realpath(directory[0] ? directory : ".", NULL);
        size_t length;

        if (!real_directory)
                return false;
        length = strlen(real_directory);
        if (length == 1)                /* "/" */
                return true;
        return strncmp(real, real_directory, length) == 0 && real[length] == '/';
}

/* Files there are not data at rest: reading may block, act, or reveal. */
static bool is_kernel_file(const char *real)
{
        struct statfs fs;

        if (strncmp(real, "/proc/", 6) == 0 || strncmp(real, "/sys/", 5) == 0)
                return true;
        return statfs(real, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC);
}

int vd_policy_resolve(const struct vd_policy *policy, enum vd_reference kind, const char *image_path, const char *name,
                      char **path, struct vd_error *err)
{
        enum vd_references references = policy ? policy->references : VD_REFERENCES_DEFAULT;
        VD_AUTOFREE char *directory = directory_of(image_path);
        VD_AUTOFREE char *candidate = NULL;
        VD_AUTOFREE char *real = NULL;
        const char *file = name;
        size_t protocol;
        struct stat st;

        *path = NULL;
        if (!directory)
                return missing(kind, name, -ENOMEM, err);
        if (kind == VD_REFERENCE_PART)
                references = VD_REFERENCES_BELOW;
        if (references == VD_REFERENCES_NONE)
                return refuse(kind, name, "the policy is to open no references", err);
        if (strncmp(file, "file:", 5) == 0)     /* QEMU's way to say that what follows is a path */
                file += 5;
        protocol = file == name ? protocol_length(file) : 0;
        if (protocol == 2 && isalpha((unsigned char)file[0]))   /* C:/images/...: a place on another machine */
                return missing(kind, name, -ENOENT, err);
        if (protocol)
                return refuse(kind, name, "only names of files are followed", err);
        if (!file[0])
                return missing(kind, name, -ENOENT, err);

        candidate = file[0] == '/' ? strdup(file) : vd_asprintf("%s%s", directory, file);
        if (!candidate)
                return missing(kind, name, -ENOMEM, err);
        real = realpath(candidate, NULL);
        if (!real || stat(real, &st) < 0)
                return missing(kind, name, errno == ENOTDIR ? -ENOENT : -errno, err);
        if (!S_ISREG(st.st_mode))
                return refuse(kind, name, "it is not a regular file", err);
        if (is_kernel_file(real))
                return refuse(kind, name, "it belongs to the kernel", err);
        if (kind == VD_REFERENCE_MEMBER && references == VD_REFERENCES_DEFAULT)
                references = VD_REFERENCES_BELOW;
        if (references == VD_REFERENCES_BELOW && !is_below(real, directory))
                return refuse(kind, name, "it lies outside the image's directory; --references=any allows it", err);
        *path = VD_STEAL(candidate);
        return 0;
}
