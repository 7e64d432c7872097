// SPDX-License-Identifier: MIT
/* image.h: an open image, its chain of parents, and reading through the map. */
#ifndef VD_CORE_IMAGE_H
#define VD_CORE_IMAGE_H

#include "format.h"
#include "lock.h"
#include "output.h"
#include "policy.h"

/* How an image names its parent: candidates, most trusted first. */
struct vd_parent_name {
        char *name;                     /* relative to the image's directory, or absolute; '/' separates */
        const char *origin;             /* "relative locator W2ru": for messages and info; static storage */
};

enum { VD_PARENT_NAMES = 12 };

struct vd_wrapper;

struct vd_image {
        const struct vd_format *format;
        char *path;                     /* as the user or the child named it */
        struct vd_file *file;
        const struct vd_policy *policy;
        void *state;                    /* the driver's */

        uint64_t size;                  /* guest bytes */
        uint64_t unit;                  /* allocation unit ("cluster size"); 0: none */
        uint64_t write_unit;            /* what place() wants to be aligned to; >= 1 */
        struct {
                enum vd_codec codec;    /* of units that place() takes packed; NONE: it takes none */
                uint32_t unit;          /* their unpacked length */
                uint32_t max_packed;    /* longer results are stored plain */
                struct vd_pack_settings settings;
                bool always;            /* it takes no others: max_packed must suffice for anything */
        } pack;

        bool writable;                  /* place() may be called */
        bool is_new;                    /* created by us, not published yet: no barriers */
        bool identity;                  /* guest offsets are file positions: raw, fixed disks */
        bool is_packed;                 /* info: "compressed"; may contain packed units */
        bool is_dirty;                  /* info: "dirty-flag": was not closed cleanly */
        bool is_encrypted;              /* info: "encrypted": the guest data cannot be read; map() says so */
        struct vd_output *output;       /* new images: where further files are added */
        uint64_t digest;                /* new images: of the content written so far; seeds identifiers */

        struct {
                struct vd_parent_name names[VD_PARENT_NAMES];
                size_t count;           /* 0: the image has no parent */
                char *format;           /* recorded format name, or NULL: probe */
        } parent_ref;
        struct vd_image *parent;        /* NULL: none, or references were not to be opened */
        struct vd_image *child;         /* whose parent this is; NULL for the image that the user named */
        unsigned depth;                 /* 0: the image that the user named */

        struct vd_file **members;       /* further files, for vd_image_uses() and locks */
        size_t member_count;
        enum vd_lock lock;              /* as it was opened, for further files */
        bool lock_warn, no_references;
        bool whole_set;                 /* all that the file holds is looked at, not one disk (info, check) */
        char *inside;                   /* which file of a container the user named ("archive:file"); NULL: none */
        const struct vd_wrapper *wrapper;       /* what the whole file is compressed with; NULL: nothing.  See wrap.h */
        bool is_spooled;                /* and so it was unpacked into a temporary file */
        bool is_inside;                 /* lies inside another file: leads to no further files */

        char **extras;                  /* what it has beside the disk that a copy leaves behind: "2 snapshots" */
        size_t extra_count;
        char **warnings;                /* worth telling the user; printed by cmd/ */
        size_t warning_count;
};

struct vd_open {
        const char *format;             /* NULL: by content */
        const struct vd_policy *policy; /* NULL: the default */
        enum vd_lock lock;              /* of the image; its parents are locked for reading at most */
        bool lock_warn;                 /* a conflict becomes a warning (info, map) */
        bool write;
        bool no_parent;                 /* open no parent */
        bool no_references;             /* info, check: open neither parents nor extents nor data files */
        struct vd_file *file;           /* for containers: the image is in here; path only names it, nothing is locked */
        bool whole_set;                 /* check: with no_references, but the files of a VD_CAP_SPREAD format */
        const char *parent_path;        /* --parent: instead of the recorded names (identity is still checked) */
        const char *snapshot;           /* id or name of the snapshot to show */
        struct vd_file *opened;         /* the file, open for reading: path is only what it is called; NULL: open path */
        const volatile int *stop;       /* non-zero: give up with VD_ESTOPPED */
        bool path_is_foreign;           /* some image names it: it is a file, and never an NBD export */
        uint64_t window_offset, window_size;    /* part of the file to take as the image; size 0: all */
        struct vd_output *unpublished;  /* read a finished image that has no name yet from its transaction */
};

/* Opens the image at path and, unless told otherwise, its chain of parents.  Errors begin with the path concerned.
 * When there is no file of this name, "archive:file" is a file inside an archive. */
int vd_image_open(struct vd_image **, const char *path, const struct vd_open *, struct vd_error *);
void vd_image_close(struct vd_image *);         /* and its parents; NULL allowed */

/* Lays out a new image of this format in the transaction's main file; see vd_create. */
int vd_image_create(struct vd_image **, const struct vd_format *, struct vd_output *, const struct vd_create *,
                    struct vd_error *);

/* The same in a part of a file, for formats that hold other images; path: what messages call it. */
int vd_image_create_inside(struct vd_image **, const struct vd_format *, struct vd_file *, const char *path,
                           const struct vd_create *, struct vd_error *);

/* A disk made of several, one after the other.  Takes the images over, also on failure. */
int vd_image_join(struct vd_image **, struct vd_image **parts, size_t count, struct vd_error *);

/* [from, from + length) of source as a disk that begins with `at` other bytes: zeros, or those of `under`, whose size and
 * whose bytes behind the part it then has too, as of a parent.  Takes source over if it succeeds; under is borrowed and may
 * be what the slice is copied into. */
int vd_image_slice(struct vd_image **, struct vd_image *source, uint64_t from, uint64_t length, uint64_t at,
                   struct vd_image *under, struct vd_error *);

/* For drivers: a warning for the user; a further name of the parent (copied, most trusted first). */
void vd_image_warn(struct vd_image *, const char *format, ...) VD_PRINTF(2, 3);
/* For drivers: something that a copy of the disk does not have; named by convert. */
void vd_image_add_extra(struct vd_image *, const char *format, ...) VD_PRINTF(2, 3);
int vd_image_add_parent_name(struct vd_image *, const char *name, const char *origin, struct vd_error *);

/* For drivers: opens a further file of the image (extent, data file, part) under the policy, with the image's lock and
 * mode.  VD_EPOLICY also when no references are to be opened (then the driver opens without it and map() fails). */
int vd_image_open_member(struct vd_image *, const char *name, struct vd_file **, struct vd_error *);
/* How long such a file is, without opening it: also when no references are to be opened. */
int vd_image_member_size(struct vd_image *, const char *name, uint64_t *size, struct vd_error *);
/* As vd_image_open_member for a part of the image whose name follows from the image's own ("disk.v01"): always opened. */
int vd_image_open_part(struct vd_image *, const char *name, struct vd_file **, struct vd_error *);

/* The extent at offset through at most max_depth parents; kinds as in extent.h, plus depth.  UNALLOCATED means that
 * nobody in the chain down to max_depth has it.  Never longer than max; ends at the end of the disk. */
int vd_image_map(struct vd_image *, uint64_t offset, uint64_t max, unsigned max_depth, struct vd_extent *,
                 struct vd_error *);

/* May map() give packed units, here or further down the chain? */
bool vd_image_may_be_packed(const struct vd_image *);

/* Somewhere in the chain is a parent that was not opened: then UNALLOCATED does not mean zeros. */
bool vd_image_lacks_parent(const struct vd_image *);

/* Is some of the chain behind a network, see vd_file_is_remote()? */
bool vd_image_is_remote(const struct vd_image *);

/* The bytes of a mapped extent: zeros for ZERO and UNALLOCATED (the caller has asked vd_image_lacks_parent()). */
int vd_extent_read(const struct vd_extent *, void *buffer, struct vd_codec_context *, struct vd_error *);

/* Bytes of the disk, through the whole chain.  Fails rather than invent: truncated files, missing parents. */
int vd_image_read(struct vd_image *, void *buffer, size_t length, uint64_t offset, struct vd_codec_context *,
                  struct vd_error *);

/* Does image or a parent of it read or write this file? */
bool vd_image_uses(const struct vd_image *, const struct stat *);
/* Would writing to an image (not to its parents) change a file that the other one or a parent of it reads? */
bool vd_image_would_change(const struct vd_image *, const struct vd_image *read);
/* None of the files of the chain changed since they were opened. */
int vd_image_check_unchanged(const struct vd_image *, struct vd_error *);

#endif
