// SPDX-License-Identifier: MIT
/* qcow2.h: what the qcow2 files share: structures on disk, and the checked values of an open image.
 *
 * Reference: QEMU docs/interop/qcow2, and docs/formats.md, "qcow2".  All integers are big-endian.  "Cluster" is the
 * unit of the file and of the disk; positions are bytes of the image file (or of the external data file).
 */
#ifndef VD_FORMATS_QCOW2_H
#define VD_FORMATS_QCOW2_H

#include <assert.h>
#include <stddef.h>

#include "core/check.h"
#include "core/image.h"
#include "core/write.h"
#include "shared/twolevel.h"
#include "util/endian.h"

#define QCOW2_MAGIC 0x514649fbu                 /* "QFI\xfb" */

struct qcow2_header_disk {
        be32 magic;
        be32 version;                   /* 2 or 3 */
        be64 backing_position;          /* of the name; 0: no backing file.  In the first cluster */
        be32 backing_bytes;             /* not terminated; at most 1023 */
        be32 cluster_bits;              /* 9 .. 21 */
        be64 size;                      /* of the disk, bytes */
        be32 crypt_method;              /* 0 none, 1 AES, 2 LUKS */
        be32 l1_entries;
        be64 l1_position;
        be64 reftable_position;
        be32 reftable_clusters;
        be32 snapshot_count;
        be64 snapshots_position;
        /* version 2 ends here */
        be64 incompatible;              /* an unknown bit: hands off */
        be64 compatible;
        be64 autoclear;                 /* a writer clears the bits it does not know */
        be32 refcount_order;            /* counts are 1 << order bits wide; version 2: 4 */
        be32 header_bytes;              /* >= 104; version 2: 72 */
        uint8_t compression_type;       /* 0 deflate, 1 zstd; present when header_bytes > 104 */
        uint8_t padding[7];
};
static_assert(sizeof(struct qcow2_header_disk) == 112, "qcow2 header");
static_assert(offsetof(struct qcow2_header_disk, incompatible) == 72, "qcow2 version 2 header");

enum {
        QCOW2_V2_HEADER_BYTES = 72,
        QCOW2_V3_HEADER_BYTES = 104,            /* the least */
        QCOW2_NAME_BYTES = 1023,                /* longest backing file name */
        QCOW2_MIN_CLUSTER_BITS = 9,
        QCOW2_MAX_CLUSTER_BITS = 21,
        QCOW2_EXTENDED_CLUSTER_BITS = 14,       /* least with extended L2 entries */
        QCOW2_SUBCLUSTERS = 32,
        QCOW2_MAX_SNAPSHOTS = 65536,
        QCOW2_MAX_BITMAPS = 65535,
        QCOW2_MAX_REFTABLE_BYTES = 8 << 20,     /* what QEMU opens */
        QCOW2_MAX_L1_BYTES = 32 << 20,
};

enum { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };

/* incompatible */
#define QCOW2_DIRTY             UINT64_C(0x01)  /* refcounts may be wrong */
#define QCOW2_CORRUPT           UINT64_C(0x02)  /* somebody found damage */
#define QCOW2_DATA_FILE         UINT64_C(0x04)  /* guest data is in another file */
#define QCOW2_COMPRESSION       UINT64_C(0x08)  /* compression_type is not 0 */
#define QCOW2_EXTENDED_L2       UINT64_C(0x10)  /* L2 entries of 16 bytes with subclusters */
#define QCOW2_INCOMPATIBLE_KNOWN UINT64_C(0x1f)
/* compatible */
#define QCOW2_LAZY_REFCOUNTS    UINT64_C(0x01)
/* autoclear */
#define QCOW2_BITMAPS_VALID     UINT64_C(0x01)
#define QCOW2_RAW_DATA_FILE     UINT64_C(0x02)  /* the data file alone is the disk */

/* Header extensions: type, length, data, padded to 8 bytes. */
struct qcow2_extension_disk {
        be32 type;
        be32 length;
};
static_assert(sizeof(struct qcow2_extension_disk) == 8, "qcow2 header extension");
#define QCOW2_EXT_END           0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURES      0x6803f857u
#define QCOW2_EXT_BITMAPS       0x23852875u
#define QCOW2_EXT_CRYPTO        0x0537be77u
#define QCOW2_EXT_DATA_FILE     0x44415441u

struct qcow2_feature_disk {             /* a row of the feature name table */
        uint8_t kind;                   /* 0 incompatible, 1 compatible, 2 autoclear */
        uint8_t bit;
        char name[46];
};
static_assert(sizeof(struct qcow2_feature_disk) == 48, "qcow2 feature name");

struct qcow2_crypto_disk {              /* crypto header pointer */
        be64 position, length;
};
static_assert(sizeof(struct qcow2_crypto_disk) == 16, "qcow2 crypto header pointer");

struct qcow2_bitmaps_disk {             /* bitmaps extension */
        be32 count;
        be32 reserved;
        be64 directory_bytes;
        be64 directory_position;
};
static_assert(sizeof(struct qcow2_bitmaps_disk) == 24, "qcow2 bitmaps extension");

struct qcow2_bitmap_disk {              /* bitmap directory entry; extra data, name, padding to 8 follow */
        be64 table_position;
        be32 table_entries;
        be32 flags;
        uint8_t type;                   /* 1: dirty tracking */
        uint8_t granularity_bits;
        be16 name_bytes;
        be32 extra_bytes;
};
static_assert(sizeof(struct qcow2_bitmap_disk) == 24, "qcow2 bitmap directory entry");
enum { QCOW2_BITMAP_IN_USE = 1, QCOW2_BITMAP_AUTO = 2 };

struct qcow2_snapshot_disk {            /* extra data, id, name, padding to 8 follow */
        be64 l1_position;
        be32 l1_entries;
        be16 id_bytes;
        be16 name_bytes;
        be32 date_seconds;
        be32 date_nanoseconds;
        be64 vm_clock_nanoseconds;
        be32 vm_state_bytes;            /* unless the extra data says it in 64 bits */
        be32 extra_bytes;
};
static_assert(sizeof(struct qcow2_snapshot_disk) == 40, "qcow2 snapshot");
struct qcow2_snapshot_extra_disk {
        be64 vm_state_bytes;
        be64 disk_bytes;
        be64 icount;                    /* all ones: none */
};
static_assert(sizeof(struct qcow2_snapshot_extra_disk) == 24, "qcow2 snapshot extra data");

/* Entries of L1 and L2 tables. */
#define QCOW2_COPIED            (UINT64_C(1) << 63)     /* refcount is exactly 1 */
#define QCOW2_COMPRESSED        (UINT64_C(1) << 62)     /* L2 */
#define QCOW2_ZERO              UINT64_C(1)             /* L2, version 3, not extended */
#define QCOW2_POSITION          UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED       UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED       UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_RESERVED UINT64_C(0x1ff)
/* Subclusters of an extended entry. */
#define QCOW2_ALL_ALLOCATED     UINT64_C(0x00000000ffffffff)
#define QCOW2_ALL_ZERO          UINT64_C(0xffffffff00000000)

/* A piece of the header area, kept for messages and reports. */
struct qcow2_span {
        uint64_t position, length;      /* 0, 0: not there */
};

struct qcow2_freed {                    /* clusters whose count goes down when the tables are on disk */
        uint64_t first, count;
};

struct qcow2 {
        unsigned version, cluster_bits, refcount_order, crypt_method;
        uint64_t cluster;               /* bytes */
        uint64_t header_bytes;
        uint64_t incompatible, compatible, autoclear;
        bool extended;                  /* L2 entries of 16 bytes */
        enum vd_codec codec;
        unsigned compressed_shift;      /* where the sector count begins in a compressed descriptor */

        uint64_t l1_position, l1_entries;       /* of the active state */
        uint64_t reftable_position, reftable_entries;
        uint64_t snapshots_position;
        uint32_t snapshot_count;
        struct qcow2_bitmaps_disk bitmaps;
        bool has_bitmaps;
        struct qcow2_span crypto;
        struct qcow2_span extensions;   /* the whole area, up to the end mark */
        char *data_name;                /* of the external data file, as stored; NULL: none recorded */

        struct vd_file *data;           /* holds guest data: the image or its external data file; NULL: not open */
        char *no_data;                  /* why the data file is not open */
        char *damage;                   /* what is wrong with refcount or snapshot table; NULL: nothing so far */
        uint32_t extension_twice;       /* type of a header extension that is there more than once; 0: none */

        struct vd_twolevel map;
        struct vd_cache *l1, *l2, *reftable, *blocks;
        uint64_t shown_size;            /* of a selected snapshot; otherwise the disk's: beyond are zeros */

        bool hollow_known, has_hollow;  /* data clusters may lie in holes of the file */
        struct vd_extent ahead;         /* has_hollow: the run that the map was last asked about */

        struct {                        /* where the next snapshot entry begins: listing in order is linear */
                uint64_t index, position;
        } snapshot_at;

        struct vd_snapshot last_snapshot;       /* owns the strings given out last */

        /* Writing. */
        bool started;                   /* autoclear bits are dealt with */
        bool reads_zero;                /* no backing file: what is not allocated is zeros */
        bool keep_allocated;            /* preallocated: zeros do not give clusters back */
        bool hollow;                    /* while preallocating: clusters get a place, subclusters stay unallocated */
        uint64_t per_block;             /* counts in a refcount block */
        uint64_t max_count;
        uint64_t cursor;                /* cluster where the search for free ones goes on */
        uint64_t packed_end;            /* where the next packed unit may go; 0: in a new cluster */
        struct qcow2_freed *freed;
        size_t freed_count, freed_room;
        uint64_t reusable, reusable_first;      /* clusters freed behind the cursor, and the lowest of them */
};

static inline uint64_t qcow2_entry_bytes(const struct qcow2 *q) { return q->extended ? 16 : 8; }
static inline bool qcow2_has_data_file(const struct qcow2 *q) { return q->incompatible & QCOW2_DATA_FILE; }

/* Bytes of the file that a compressed descriptor names. */
struct qcow2_packed {
        uint64_t position, length;
};
static inline struct qcow2_packed qcow2_packed_of(const struct qcow2 *q, uint64_t descriptor)
{
        uint64_t position = descriptor & ((UINT64_C(1) << q->compressed_shift) - 1);
        uint64_t sectors = (descriptor & (QCOW2_COMPRESSED - 1)) >> q->compressed_shift;

        return (struct qcow2_packed){ position, (sectors + 1) * 512 - position % 512 };
}

/* qcow2.c */
/* The caches and the map, once geometry and positions are known. */
int qcow2_start(struct vd_image *, struct vd_error *);
void qcow2_close(struct vd_image *);

/* qcow2_map.c */
extern const struct vd_twolevel_ops qcow2_map_ops;
int qcow2_map(struct vd_image *, uint64_t offset, uint64_t max, struct vd_extent *, struct vd_error *);

/* qcow2_snapshot.c */
struct qcow2_snapshot {
        struct qcow2_span entry, l1;    /* l1.length in bytes */
        struct vd_snapshot shown;       /* strings belong to the caller: free() id and name */
        uint32_t extra_bytes;
        bool has_disk_size;
};
/* Reads the entry at position; next: where the following one begins. */
int qcow2_snapshot_read(struct vd_image *, uint64_t position, struct qcow2_snapshot *, uint64_t *next,
                        struct vd_error *);
void qcow2_snapshot_clear(struct qcow2_snapshot *);
int qcow2_snapshot(struct vd_image *, unsigned i, struct vd_snapshot *, struct vd_error *);
int qcow2_select(struct vd_image *, const char *id_or_name, struct vd_error *);
/* Bitmap directory entry at position: header checked, name (free it) and end of the entry. */
int qcow2_bitmap_read(struct vd_image *, uint64_t position, struct qcow2_bitmap_disk *, char **name, uint64_t *next,
                      struct vd_error *);

/* qcow2_describe.c */
void qcow2_describe(struct vd_image *, struct vd_report *);

/* qcow2_alloc.c: reference counts and free clusters */
uint64_t qcow2_count_at(const void *block, uint64_t i, unsigned order);
/* The count of cluster i; 0 where no block exists. */
int qcow2_count(struct qcow2 *, uint64_t i, uint64_t *count, struct vd_error *);
/* Position of the refcount block for index; 0: absent. */
int qcow2_block_position(struct qcow2 *, uint64_t index, uint64_t *position, struct vd_error *);
int qcow2_count_change(struct qcow2 *, uint64_t first, uint64_t count, int by, struct vd_error *);
/* Takes up to `want` free clusters in a row, at least `least`: their counts become 1. */
int qcow2_take(struct vd_image *, uint64_t want, uint64_t least, uint64_t *position, uint64_t *got, struct vd_error *);
/* These bytes are no longer used: counts of the clusters they touch go down once the tables are on disk. */
int qcow2_release(struct qcow2 *, uint64_t position, uint64_t length, struct vd_error *);
/* The tables are on disk: does what qcow2_release() promised. */
int qcow2_apply_released(struct qcow2 *, struct vd_error *);
int qcow2_settle(struct vd_image *, struct vd_error *);

/* qcow2_write.c */
int qcow2_place(struct vd_image *, const struct vd_request *, struct vd_place *, struct vd_error *);
int qcow2_publish(struct vd_image *, const struct vd_place *, struct vd_error *);
int qcow2_flush(struct vd_image *, struct vd_error *);
int qcow2_finish(struct vd_image *, struct vd_error *);

/* qcow2_create.c */
struct qcow2_params {
        uint64_t cluster_size;          /* 0: 64 KiB */
        uint64_t refcount_bits;         /* 0: 16 */
        uint64_t compression_level;     /* 0: default */
        const char *compat, *compression_type, *deflate_window, *data_file, *preallocation;
        bool lazy_refcounts, extended_l2, data_file_raw;
};
extern const struct vd_opt qcow2_create_options[];
int qcow2_create(struct vd_image *, const struct vd_create *, struct vd_error *);
/* Writes the header and its extensions of a new image. */
int qcow2_write_header(struct vd_image *, struct vd_error *);

/* qcow2_check.c */
int qcow2_walk(struct vd_image *, struct vd_check *, struct vd_error *);
int qcow2_check(struct vd_image *, struct vd_check *, struct vd_error *);

#endif
