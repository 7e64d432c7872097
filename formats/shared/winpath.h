// SPDX-License-Identifier: MIT
/* winpath.h: file names as Windows writes them into images, and as this system needs them. */
#ifndef VD_SHARED_WINPATH_H
#define VD_SHARED_WINPATH_H

/* "..\a\b", "C:\a", "\\?\C:\a", "\\?\Volume{...}\a" with '/' and without drive and volume; leading ".\" is dropped.
 * Of a name on another machine ("\\server\share\a") only the last component is left.  malloc'ed; NULL when memory is
 * short, empty when the name is of no use here. */
char *vd_winpath_to_local(const char *name);

/* The reverse for a relative name ("a/b" becomes ".\a\b") or an absolute one ("/a/b" becomes "\a\b").  malloc'ed; NULL
 * when memory is short. */
char *vd_winpath_from_local(const char *path);

#endif
