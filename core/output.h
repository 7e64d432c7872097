// SPDX-License-Identifier: MIT
/* output.h: every new file is created here: all of it appears, or nothing.
 *
 * A transaction holds one or several new files.  Each is an unnamed file (O_TMPFILE) in the directory of its final
 * name, or a temporary one ".NAME.vdtool-XXXXXX" where the file system has no unnamed files.  vd_output_commit() gives
 * them their names, last added first, so that the file which names the others (added first) comes last.
 */
#ifndef VD_CORE_OUTPUT_H
#define VD_CORE_OUTPUT_H

#include <stdbool.h>

#include "file.h"

struct vd_output;

enum {
        VD_OUTPUT_REPLACE = 1,          /* --force: an existing regular file is replaced, atomically */
        VD_OUTPUT_SYNC = 2,             /* --fsync: files and directories are on disk when commit returns */
};

/* A transaction whose main file will be called path.  Symbolic links are followed to what they name.  Refuses an
 * existing path (-EEXIST) unless VD_OUTPUT_REPLACE; refuses directories, devices, FIFOs and sockets, and an existing
 * file that another process uses (VD_ELOCKED). */
int vd_output_new(struct vd_output **, const char *path, unsigned flags, struct vd_error *);

/* Files that will have no names: make() supplies each of them, empty and writable.  path is only what the image takes
 * itself to be called.  Not to be committed. */
int vd_output_new_unnamed(struct vd_output **, const char *path,
                          int (*make)(struct vd_file **, const char *name, struct vd_error *), struct vd_error *);

/* The main file, empty and writable; borrowed. */
struct vd_file *vd_output_file(const struct vd_output *);
const char *vd_output_path(const struct vd_output *);

/* All files; number 0 is the main one. */
size_t vd_output_count(const struct vd_output *);
struct vd_file *vd_output_file_at(const struct vd_output *, size_t i);

/* One more file: name is relative to the main file's directory (or absolute).  *file is borrowed. */
int vd_output_add(struct vd_output *, const char *name, struct vd_file **file, struct vd_error *);

/* What appears at path is a new directory, with the main file in it under this name, and all files added after this.  For
 * images that are directories; to be called before any file is added. */
int vd_output_directory(struct vd_output *, const char *main_name, struct vd_error *);

/* The file of the transaction that will be called name (relative to the main file's directory); borrowed, NULL: none. */
struct vd_file *vd_output_member(const struct vd_output *, const char *name);

/* Would commit replace this file? For refusing an output that is one of the inputs. */
bool vd_output_replaces(const struct vd_output *, const struct vd_file *input);

/* Would a file of one get the place of a file of the other? */
bool vd_output_collides(const struct vd_output *, const struct vd_output *other);

/* Publishes all files.  On failure those that already have their names and did not replace anything are removed. */
int vd_output_commit(struct vd_output *, struct vd_error *);

/* Frees it; without a successful commit nothing is left behind. */
void vd_output_free(struct vd_output *);

#endif
