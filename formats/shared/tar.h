// SPDX-License-Identifier: MIT
/* tar.h: where the members of an uncompressed tar archive lie, and headers for new ones.
 *
 * Archives are read in place, member by member, without their data: POSIX ustar and pax, GNU tar and version 7.
 */
#ifndef VD_SHARED_TAR_H
#define VD_SHARED_TAR_H

#include <stdbool.h>

#include "core/file.h"
#include "util/endian.h"

enum { VD_TAR_BLOCK = 512 };

enum vd_tar_kind {
        VD_TAR_FILE,
        VD_TAR_DIRECTORY,
        VD_TAR_LINK,                    /* hard or symbolic: no data of its own */
        VD_TAR_SPARSE,                  /* GNU tar left holes out: the bytes are not those of the file */
        VD_TAR_OTHER,                   /* devices, pipes, what other programs invented */
};

struct vd_tar_member {
        char *name;                     /* as stored, untrusted */
        enum vd_tar_kind kind;
        uint64_t header;                /* where its first header begins */
        uint64_t position, size;        /* its data; may reach past the end of the file, in the last member only */
};

struct vd_tar {
        struct vd_tar_member *members;
        size_t count, room;
        uint64_t end;                   /* where the end blocks are, or should be */
        bool has_end;
};

/* How much the first block looks like an archive: 0 not, 1 a checksum that fits, 2 POSIX's or GNU's magic as well. */
int vd_tar_recognise(const uint8_t *head, size_t length);
/* The name in the first header that is a member's own (long names may be cut); false when it is not within length. */
bool vd_tar_first_name(const uint8_t *head, size_t length, char name[257]);

int vd_tar_read(struct vd_tar *, struct vd_file *, struct vd_error *);
void vd_tar_free(struct vd_tar *);

/* A ustar header of a regular file owned by nobody in particular; sizes that octal digits cannot hold are written as
 * GNU tar does.  Names of up to 100 bytes. */
void vd_tar_write_header(uint8_t block[VD_TAR_BLOCK], const char *name, uint64_t size, int64_t mtime);

#endif
