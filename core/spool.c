// SPDX-License-Identifier: MIT
/* spool.c: unnamed temporary files. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/text.h"

const char *vd_spool_directory(void)
{
        const char *directory = getenv("TMPDIR");

        return directory && *directory ? directory : "/var/tmp";
}

/* For file systems without unnamed files. */
static int open_named(const char *directory)
{
        VD_AUTOFREE char *path = vd_asprintf("%s/.vdtool-XXXXXX", directory);
        int fd = path ? mkostemp(path, O_CLOEXEC) : -1;

        if (!path)
                errno = ENOMEM;
        if (fd >= 0)
                unlink(path);
        return fd;
}

int vd_spool_new(struct vd_file **out, const char *name, struct vd_error *err)
{
        const char *directory = vd_spool_directory();
        int fd = open(directory, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);

        if (fd < 0)
                fd = open_named(directory);
        if (fd < 0)
                return vd_fail(err, -errno, "a temporary file in %s (TMPDIR names another directory)", directory);
        return vd_file_from_fd(out, fd, name, true, err);
}
