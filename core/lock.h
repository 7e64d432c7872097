// SPDX-License-Identifier: MIT
/* lock.h: "in use" as QEMU 2.10 and later says it: OFD locks on single bytes.
 *
 * Byte 100+i locked: permission i is used; byte 200+i locked: permission i is not shared with others
 * (i: 0 consistent read, 1 write, 2 write unchanged, 3 resize).  Locks are always F_RDLCK; conflicts are found by
 * F_OFD_GETLK.  See QEMU block/file-posix.c and docs/architecture.md, "Locks".
 */
#ifndef VD_CORE_LOCK_H
#define VD_CORE_LOCK_H

#include "util/error.h"

enum vd_lock {
        VD_LOCK_NONE,           /* take none (new files, --no-lock) */
        VD_LOCK_SHARE,          /* -U: read although somebody writes */
        VD_LOCK_READ,           /* read; nobody may write */
        VD_LOCK_WRITE,          /* read, write, resize; nobody else may */
};

/* Locks the open file for as long as the descriptor lives.  VD_ELOCKED with a text that names the holder (pid and
 * program where /proc tells) when another process is in the way; then nothing stays locked.
 * File systems without locks: reading goes on, writing is refused. */
int vd_lock_take(int fd, const char *name, enum vd_lock, struct vd_error *);

/* 0 when nobody else holds any QEMU lock on the file, else VD_ELOCKED.  Takes nothing. */
int vd_lock_test_unused(int fd, const char *name, struct vd_error *);

#endif
