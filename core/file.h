// SPDX-License-Identifier: MIT
/* file.h: host files, and what can stand in for one.
 *
 * A vd_file is a byte range that can be read, and perhaps written, at any position: a regular file or block device, a
 * window of another vd_file, several joined end to end, or memory.  Reads and writes may come from several threads at
 * once; opening, growing and closing are the business of one.  References are counted.
 */
#ifndef VD_CORE_FILE_H
#define VD_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "util/error.h"

struct vd_file;

enum {
        VD_FILE_READ = 0,
        VD_FILE_WRITE = 1,              /* also writable; the file must exist */
};

/* Opens an existing regular file or block device.  Directories, sockets, FIFOs and character devices are refused. */
int vd_file_open(struct vd_file **, const char *path, unsigned flags, struct vd_error *);

/* Takes over an open descriptor of a regular file or block device; name is what messages call it. */
int vd_file_from_fd(struct vd_file **, int fd, const char *name, bool writable, struct vd_error *);

/* [offset, offset + length) of base as a file of its own.  Takes a reference to base.  length UINT64_MAX: up to the
 * end of base (and then growing with it). */
int vd_file_window(struct vd_file **, struct vd_file *base, uint64_t offset, uint64_t length, struct vd_error *);

/* count files joined end to end by their present lengths; takes a reference to each.  Cannot grow or shrink, except at
 * the end of the last part. */
int vd_file_join(struct vd_file **, struct vd_file *const *parts, size_t count, const char *name, struct vd_error *);
/* One more part at the end; the one before keeps its present length.  Takes a reference.  Not while others use the
 * join. */
int vd_file_join_add(struct vd_file *join, struct vd_file *part, struct vd_error *);

/* A copy of bytes in memory; writable, may grow. */
int vd_file_memory(struct vd_file **, const void *bytes, size_t length, const char *name, struct vd_error *);

/* base with changes kept in memory: the overlay is written, cut and read like a file, base stays as it is.  Takes a
 * reference to base.  At most 32768 pieces of up to 4096 bytes, or of zeros of any length, are kept; more is an error. */
int vd_file_overlay(struct vd_file **, struct vd_file *base, struct vd_error *);
/* The changes of an overlay, lowest position first: bytes of a piece that does not cross a multiple of 4096, or NULL
 * for zeros. */
size_t vd_file_overlay_count(const struct vd_file *);
void vd_file_overlay_piece(const struct vd_file *, size_t i, uint64_t *position, uint64_t *length, const void **bytes);
void vd_file_overlay_forget(struct vd_file *);          /* reads as base again */

/* A file that is only planned: what is written is kept (in memory, in a temporary file when it is much), so that it can
 * be read back; what _grow() says stands there, up to end, only counts for the length and reads as zeros.  Writing is for
 * one thread; reading is then for many. */
int vd_file_record(struct vd_file **, const char *name, struct vd_error *);
void vd_file_record_grow(struct vd_file *, uint64_t end);
bool vd_file_record_allocated(const struct vd_file *);          /* was space asked for with vd_file_allocate()? */

struct vd_file *vd_file_ref(struct vd_file *);
/* Drops a reference, NULL allowed.  For a written file call vd_file_finish() first. */
void vd_file_unref(struct vd_file *);

const char *vd_file_name(const struct vd_file *);
uint64_t vd_file_size(const struct vd_file *);          /* the length now, our own writes included */
uint64_t vd_file_disk_bytes(const struct vd_file *);    /* space used on the host, holes not counted */
bool vd_file_is_writable(const struct vd_file *);
bool vd_file_is_device(const struct vd_file *);
/* Does a request take so long that many should be under way at once? */
bool vd_file_is_remote(const struct vd_file *);
int vd_file_fd(const struct vd_file *);                 /* -1 for memory, windows and joins */
/* Is there a descriptor behind it (windows and joins looked through) with this device and inode? */
bool vd_file_is(const struct vd_file *, const struct stat *);

/* Reads exactly length bytes; a file that ends before is VD_ECORRUPT "ends at N, expected M bytes at P". */
int vd_file_read(struct vd_file *, void *buffer, size_t length, uint64_t position, struct vd_error *);
/* Reads what there is up to length; *got < length only at the end of the file. */
int vd_file_read_some(struct vd_file *, void *buffer, size_t length, uint64_t position, size_t *got,
                      struct vd_error *);

/* Writes all of it; the file grows as needed (gaps are holes). */
int vd_file_write(struct vd_file *, const void *buffer, size_t length, uint64_t position, struct vd_error *);
/* Makes the range read as zeros: a hole where the host can, else zeros written.  The length of the file never shrinks;
 * grows to the end of the range. */
int vd_file_zero(struct vd_file *, uint64_t position, uint64_t length, struct vd_error *);
/* Writes zeros, which take space.  *stop non-zero: gives up with VD_ESTOPPED; stop may be NULL. */
int vd_file_fill(struct vd_file *, uint64_t position, uint64_t length, const volatile int *stop, struct vd_error *);
/* Hint: this range will be written soon, in order: takes its space in one step, which makes ext4 write into it nearly
 * twice as fast.  What is reserved past the end of the file is given back by vd_file_finish(), what is reserved inside
 * and not written reads as zeros.  For one thread.  Never fails, never changes the length. */
void vd_file_reserve(struct vd_file *, uint64_t position, uint64_t length);
/* Allocates space for real (preallocation=falloc); grows the file.  ENOSPC and the like are errors. */
int vd_file_allocate(struct vd_file *, uint64_t position, uint64_t length, struct vd_error *);
int vd_file_truncate(struct vd_file *, uint64_t size, struct vd_error *);
/* fdatasync.  After a failure no later sync of this file succeeds. */
int vd_file_sync(struct vd_file *, struct vd_error *);

/* Nothing more will be written: gives space reserved past the end back and returns write errors that only close() would tell. */
int vd_file_finish(struct vd_file *, struct vd_error *);

/* Is the byte at position data or hole, and up to where?  *end > position; at most the end of the file.  Devices and
 * memory are all data.  position must lie inside the file. */
int vd_file_next(struct vd_file *, uint64_t position, bool *data, uint64_t *end, struct vd_error *);

/* Compares size, mtime, ctime with what they were when the file was opened: VD_ECHANGED when they differ.  Only for
 * files that we did not write. */
int vd_file_check_unchanged(const struct vd_file *, struct vd_error *);

#endif
