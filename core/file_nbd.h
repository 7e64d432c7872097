// SPDX-License-Identifier: MIT
/* file_nbd.h: the export of an NBD server as a file, through libnbd.
 *
 * Only names that the user gives are URIs; a name found inside an image never is.
 */
#ifndef VD_CORE_FILE_NBD_H
#define VD_CORE_FILE_NBD_H

#include "file.h"

/* nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, nbds://...: see the NBD project's URI specification. */
bool vd_file_is_nbd_uri(const char *name);

/* Connects.  flags as for vd_file_open(); writing needs an export that allows it.  While a request is under way, stop
 * (may be NULL) is looked at five times a second: not zero breaks the connection.  VD_EUNSUPPORTED without libnbd. */
int vd_file_open_nbd(struct vd_file **, const char *uri, unsigned flags, const volatile int *stop, struct vd_error *);

#endif
