// SPDX-License-Identifier: MIT
/* format.h: the driver table: all that core/ and cmd/ know about a format.
 *
 * A driver translates (map), allocates (place), points (publish) and enumerates (walk); core/ does all reading,
 * unpacking, filling, chaining, copying and checking of ranges.  Drivers are called by one thread at a time per copy
 * and never see the others.  NULL methods mean that the format cannot do it.
 */
#ifndef VD_CORE_FORMAT_H
#define VD_CORE_FORMAT_H

#include "extent.h"
#include "file.h"
#include "findings.h"
#include "spacemap.h"
#include "util/opts.h"
#include "util/report.h"

struct vd_image;
struct vd_check;

/* What probing sees: never more. */
struct vd_probe {
        const uint8_t *head;            /* the first head_bytes (up to VD_PROBE_BYTES) of the file */
        const uint8_t *tail;            /* the last tail_bytes of the file */
        size_t head_bytes, tail_bytes;
        uint64_t file_size;
};
enum { VD_PROBE_BYTES = 4096 };

enum vd_match {
        VD_MATCH_NO,
        VD_MATCH_FALLBACK,              /* takes anything: raw */
        VD_MATCH_WEAK,                  /* short magic only */
        VD_MATCH_SURE,                  /* magic, even if the rest is broken: open() then says what */
};

/* What a format can do beyond what its methods show. */
enum {
        VD_CAP_BACKING = 1,             /* parent images */
        VD_CAP_PACKED = 2,              /* compressed units */
        VD_CAP_SNAPSHOTS = 4,
        VD_CAP_SET = 8,                 /* may consist of several files */
        VD_CAP_CONTAINER = 16,          /* holds disks as files: "archive:file" names one, see vd_image.inside */
        VD_CAP_BARE = 64,               /* the file is the disk and nothing else */
        VD_CAP_SPREAD = 32,             /* and all of them have tables: a check opens them */
};

/* A guest range that somebody wants to write.  start and end are multiples of image->write_unit, or the end of the
 * disk; a PACKED request is one image->pack.unit (cut off at the end of the disk, where the unit is packed with zeros
 * behind the disk's bytes). */
struct vd_request {
        uint64_t start, length;
        enum vd_kind kind;              /* VD_DATA, VD_ZERO, VD_PACKED; VD_UNALLOCATED: drop what the image has */
        uint32_t packed_bytes;          /* PACKED */
};

/* Where (the beginning of) a request goes. */
struct vd_place {
        uint64_t start, length;         /* guest range covered: a prefix of the request, > 0 */
        enum vd_kind kind;              /* VD_DATA: write `length` bytes (zeros for a ZERO request) at position;
                                         * VD_PACKED: write packed_bytes there; VD_ZERO, VD_UNALLOCATED: nothing */
        struct vd_file *file;           /* borrowed */
        uint64_t position;
        uint64_t pad;                   /* bytes after `length` that must be made zero: stale space past the disk's end */
        uint32_t packed_bytes;
        uint64_t token;                 /* the driver's: from place() to publish() */
};

/* What to create.  params: the struct that .create_opts fills, .params_size long. */
struct vd_create {
        uint64_t size;                  /* guest bytes; the driver may round up and says so in image->size */
        const void *params;
        const struct vd_image *like;    /* the disk that will be copied into it: a hint for defaults; NULL: none */
        struct vd_image *backing;       /* open parent or NULL */
        const char *backing_name;       /* as to be stored; NULL: no parent */
        const char *backing_format;     /* format name as to be stored; may be NULL */
        const volatile int *stop;       /* non-zero: long work gives up with VD_ESTOPPED; may be NULL */
};

struct vd_snapshot {
        const char *id, *name;          /* as stored, untrusted; valid until the next call for this image */
        uint64_t size, vm_state_bytes;
        int64_t date_seconds;
        uint32_t date_nanoseconds;
        uint64_t vm_clock_nanoseconds;
        uint64_t icount;                /* UINT64_MAX: none */
};

struct vd_format {
        const char *name;               /* option value, completion word, man page heading */
        const char *title;              /* "Virtual PC and Hyper-V disk" */
        const char *qemu_name;          /* as qemu-img's JSON calls it; NULL: the same */
        const char *const *aliases;     /* other accepted option values; NULL-terminated, or NULL */
        const char *const *extensions;  /* of file names, without dot; NULL-terminated */
        unsigned caps;
        const char *directory_file;     /* images may be directories: the file in them that names the others; or NULL */

        enum vd_match (*probe)(const struct vd_probe *);        /* pure */

        /* Reads and checks headers (never whole tables) of image->file; sets state, size, unit, write_unit, pack,
         * parent and warnings.  image->writable says whether writes may follow.  On failure the driver frees its
         * state itself; core does not call close. */
        int (*open)(struct vd_image *, struct vd_error *);
        void (*close)(struct vd_image *);

        /* The extent that begins at offset (< image->size), at most max long, as long as is cheap to find.  Positions
         * are checked against the file here: VD_ECORRUPT names table, index, found and allowed. */
        int (*map)(struct vd_image *, uint64_t offset, uint64_t max, struct vd_extent *, struct vd_error *);

        /* For formats that do not record the parent's name: adds candidates found by looking around.  Called when the
         * parent is about to be opened and the user named none. */
        int (*find_parent)(struct vd_image *, struct vd_error *);
        /* Is this open image the parent that the child was made for?  0, or VD_EPARENT naming both ids. */
        int (*accept_parent)(struct vd_image *child, struct vd_image *parent, struct vd_error *);

        /* Adds everything worth knowing to the format-specific part of info. */
        void (*describe)(struct vd_image *, struct vd_report *);

        /* Snapshots: number i (from 0; -ENOENT past the last), and making one the content that map() shows. */
        int (*snapshot)(struct vd_image *, unsigned i, struct vd_snapshot *, struct vd_error *);
        int (*select)(struct vd_image *, const char *id_or_name, struct vd_error *);

        /* Names every region of the file in use, in any order; structural faults go to check->findings, and the walk
         * goes on.  A negative return value ends the check: it could not be completed. */
        int (*walk)(struct vd_image *, struct vd_check *, struct vd_error *);
        /* What only this format knows: checksums, copies, refcounts against check->space (already filled). */
        int (*check)(struct vd_image *, struct vd_check *, struct vd_error *);
        /* Compares the checksums that the image carries of whole files or disks with what is there; reads all of it.
         * Mismatches go to findings as VD_ERROR.  stop: non-zero gives up with VD_ESTOPPED; may be NULL. */
        int (*verify)(struct vd_image *, struct vd_findings *, const volatile int *stop, struct vd_error *);

        /* Writing.  create() lays out an empty image in image->file (new, empty) and leaves it open as open() would;
         * its tables may stay in memory until finish(). */
        size_t params_size;
        const struct vd_opt *create_opts;               /* into params; zeroed struct = defaults */
        const char *const *subformats;                  /* values of the subformat option, default first; or NULL */
        int (*create)(struct vd_image *, const struct vd_create *, struct vd_error *);

        /* In order of use, see core/write.h: any number of place(), then settle(); core writes data and syncs; then
         * publish() for each place, then flush(); core syncs.  finish() once at the end. */
        int (*place)(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
        int (*settle)(struct vd_image *, struct vd_error *);    /* what place() took is taken on disk; may be NULL */
        int (*publish)(struct vd_image *, const struct vd_place *, struct vd_error *);
        int (*flush)(struct vd_image *, struct vd_error *);     /* what publish() said is in the tables on disk */
        int (*finish)(struct vd_image *, struct vd_error *);    /* new: everything, header last; old: clean marks */
};

/* All formats in probe order; NULL-terminated.  Defined by formats/registry.c. */
extern const struct vd_format *const vd_formats[];

/* By name or alias; NULL when unknown. */
const struct vd_format *vd_format_by_name(const char *name);
/* By the extension of a file name, for new files; NULL when unknown. */
const struct vd_format *vd_format_by_extension(const char *path);
/* By content; *match says how sure.  VD_EFORMAT when two are equally sure (both are named) or none takes it. */
int vd_format_by_content(struct vd_file *, const struct vd_format **, enum vd_match *, struct vd_error *);

#endif
