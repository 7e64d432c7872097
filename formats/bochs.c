// SPDX-License-Identifier: MIT
/* bochs.c: Bochs growing disks (redologs) and the older sparse disks (reference: docs/formats.md, "Bochs")
 *
 *      growing   [ header 512 ][ catalog: le32 per extent ][ slot 0 ][ slot 1 ] ...
 *      a slot    [ sector bitmap, padded to 512 ][ data ]
 *      sparse    [ header 256 ][ page table: le32 per page ][ pages, from a multiple of the page size on ]
 *
 * A table entry is a slot's or page's number; all ones: not there.  A sector whose bit is clear reads as zeros.
 * Only read.  Refused: undoable and volatile redologs, whose base image is named nowhere in them.
 * Quirk: catalog and slots follow each other without padding, so that slots may begin at any multiple of four.
 * Cost: pages of the table and of the bitmaps.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/image.h"
#include "formats/shared/bitmap.h"
#include "formats/shared/blocktable.h"
#include "util/checked.h"
#include "util/endian.h"
#include "util/text.h"

enum {
        SECTOR = 512,
        EXTENT_MOST = 64 << 20,
        VERSION1 = 0x10000, VERSION2 = 0x20000,
        SPARSE_VERSION1 = 1, SPARSE_VERSION2 = 2,
};

#define FREE UINT32_MAX
#define SPARSE_MAGIC 0x02468aceu

struct redolog_header_disk {
        char magic[32];                 /* "Bochs Virtual HD Image" */
        char type[16];                  /* "Redolog" */
        char subtype[16];               /* "Growing", "Undoable", "Volatile" */
        le32 version;
        le32 header_bytes;
        le32 extents;                   /* entries of the catalog */
        le32 bitmap_bytes;              /* per extent: a bit per sector */
        le32 extent_bytes;
        union {
                le64 size1;             /* version 1: bytes of the disk */
                struct {
                        le32 timestamp; /* version 2: FAT time of the base image */
                        le64 size;
                } v2;
        };
};
static_assert(sizeof(struct redolog_header_disk) == 96, "redolog header");

struct sparse_header_disk {
        le32 magic, version;
        le32 page_bytes, pages;
        le64 size;                      /* version 2 */
        uint8_t reserved[232];
};
static_assert(sizeof(struct sparse_header_disk) == 256, "sparse header");

struct bochs {
        bool is_sparse;
        char subtype[17];
        uint32_t version, timestamp;
        uint64_t header_bytes, bitmap_bytes;
        uint64_t lead_bytes;            /* of a slot, in front of its data */
        struct vd_blocktable table;
        struct vd_cache *bitmaps;       /* NULL: there are none */
};

static bool is_redolog(const struct redolog_header_disk *h)
{
        return !memcmp(h->magic, "Bochs Virtual HD Image", 23) && !memcmp(h->type, "Redolog", 8);
}

static enum vd_match bochs_probe(const struct vd_probe *probe)
{
        const struct sparse_header_disk *sparse = (const void *)probe->head;

        if (probe->head_bytes >= sizeof(struct redolog_header_disk) && is_redolog((const void *)probe->head))
                return VD_MATCH_SURE;
        if (probe->head_bytes < sizeof(*sparse) || le32_get(sparse->magic) != SPARSE_MAGIC)
                return VD_MATCH_NO;
        return le32_get(sparse->version) - 1 < 2 && vd_is_pow2(le32_get(sparse->page_bytes)) ? VD_MATCH_SURE
                                                                                            : VD_MATCH_WEAK;
}

static int decode_entry(const void *owner, uint64_t block, const void *raw, struct vd_block *out, struct vd_error *err)
{
        const struct bochs *b = owner;
        uint32_t slot = le32_get(*(const le32 *)raw);

        (void)block;
        (void)err;
        if (slot == FREE)
                return 0;
        out->kind = VD_DATA;
        out->partial = !b->is_sparse;
        out->position = b->table.start + b->lead_bytes + slot * (b->lead_bytes + b->table.block_bytes);
        return 0;
}

static const struct vd_blocktable_type table_type = {
        .what = "catalog", .finding = "bochs-catalog-entry", .entry_bytes = sizeof(le32), .decode = decode_entry,
};

static void bochs_close(struct vd_image *img)
{
        struct bochs *b = img->state;

        if (!b)
                return;
        vd_blocktable_close(&b->table);
        vd_cache_free(b->bitmaps);
        free(b);
        img->state = NULL;
}

static int parse_redolog(struct vd_image *img, const struct redolog_header_disk *h, struct vd_error *err)
{
        struct bochs *b = img->state;
        char shown[64];

        memcpy(b->subtype, h->subtype, sizeof(h->subtype));
        b->version = le32_get(h->version);
        if (b->version != VERSION1 && b->version != VERSION2)
                return vd_fail(err, VD_EUNSUPPORTED, "header: version 0x%x, known are 0x%x and 0x%x",
                               (unsigned)b->version, VERSION1, VERSION2);
        if (strcmp(b->subtype, "Growing") != 0)
                return vd_fail(err, VD_EUNSUPPORTED, "header: redologs of type '%s' are not read, since they do not "
                               "name their "
                               "base image", vd_printable(shown, sizeof(shown), b->subtype, strlen(b->subtype)));
        b->header_bytes = le32_get(h->header_bytes);
        b->bitmap_bytes = le32_get(h->bitmap_bytes);
        b->table.count = le32_get(h->extents);
        b->table.block_bytes = le32_get(h->extent_bytes);
        b->timestamp = b->version == VERSION2 ? le32_get(h->v2.timestamp) : 0;
        img->size = le64_get(b->version == VERSION2 ? h->v2.size : h->size1);
        b->lead_bytes = vd_round_up(b->bitmap_bytes, SECTOR);
        if (b->header_bytes < sizeof(*h))
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " bytes long, at least %zu expected",
                               b->header_bytes, sizeof(*h));
        if (b->bitmap_bytes < vd_div_up(b->table.block_bytes, SECTOR * 8))
                return vd_fail(err, VD_ECORRUPT, "header: bitmaps of %" PRIu64 " bytes are too short for extents of %"
                               PRIu64, b->bitmap_bytes, b->table.block_bytes);
        if (b->bitmap_bytes > EXTENT_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: bitmaps of %" PRIu64 " bytes, at most %d supported",
                               b->bitmap_bytes, EXTENT_MOST);
        return 0;
}

static int parse_sparse(struct vd_image *img, const struct sparse_header_disk *h, struct vd_error *err)
{
        struct bochs *b = img->state;

        b->is_sparse = true;
        strcpy(b->subtype, "sparse");
        b->version = le32_get(h->version);
        if (b->version != SPARSE_VERSION1 && b->version != SPARSE_VERSION2)
                return vd_fail(err, VD_EUNSUPPORTED, "sparse header: version %u, known are 1 and 2",
                               (unsigned)b->version);
        b->header_bytes = sizeof(*h);
        b->table.count = le32_get(h->pages);
        b->table.block_bytes = le32_get(h->page_bytes);
        img->size = b->version == SPARSE_VERSION2 ? le64_get(h->size) : b->table.count * b->table.block_bytes;
        return 0;
}

static int check_numbers(const struct vd_image *img, const struct bochs *b, struct vd_error *err)
{
        const struct vd_blocktable *table = &b->table;
        uint64_t end = b->header_bytes + table->count * sizeof(le32);

        if (!vd_is_pow2(table->block_bytes) || table->block_bytes < SECTOR)
                return vd_fail(err, VD_ECORRUPT, "header: extent size %" PRIu64 " is not a power of two of at least %d",
                               table->block_bytes, SECTOR);
        if (table->block_bytes > EXTENT_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: extents of %" PRIu64 " bytes, at most %d supported",
                               table->block_bytes, EXTENT_MOST);
        if (!img->size || img->size > INT64_MAX || img->size % SECTOR)
                return vd_fail(err, VD_ECORRUPT, "header: disk size %" PRIu64 " is not a positive multiple of %d",
                               img->size, SECTOR);
        if (vd_div_up(img->size, table->block_bytes) > table->count)
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " extents of %" PRIu64
                               " bytes do not cover a disk of %"
                               PRIu64 " bytes", table->count, table->block_bytes, img->size);
        if (end > vd_file_size(img->file))
                return vd_fail(err, VD_ECORRUPT, "header: the catalog of %" PRIu64 " extents ends at %" PRIu64
                               ", but the file at %" PRIu64, table->count, end, vd_file_size(img->file));
        return 0;
}

static int read_header(struct vd_image *img, struct vd_error *err)
{
        union {
                struct redolog_header_disk redolog;
                struct sparse_header_disk sparse;
        } h = { 0 };
        size_t got;
        int r = vd_file_read_some(img->file, &h, sizeof(h), 0, &got, err);

        if (r)
                return r;
        if (got >= sizeof(h.redolog) && is_redolog(&h.redolog))
                r = parse_redolog(img, &h.redolog, err);
        else if (got == sizeof(h) && le32_get(h.sparse.magic) == SPARSE_MAGIC)
                r = parse_sparse(img, &h.sparse, err);
        else
                r = vd_fail(err, VD_EFORMAT, "no Bochs magic");
        return r ? r : check_numbers(img, img->state, err);
}

static int open_tables(struct vd_image *img, struct vd_error *err)
{
        enum { CACHE_BYTES = 1 << 20, PAGES = 2048 };
        struct bochs *b = img->state;
        struct vd_blocktable *table = &b->table;
        uint64_t bytes = table->count * sizeof(le32);
        size_t page = vd_blocktable_page(bytes, bytes);

        table->type = &table_type;
        table->owner = b;
        table->file = img->file;
        table->position = b->header_bytes;
        table->disk_bytes = img->size;
        table->lead_bytes = b->lead_bytes;
        table->start = b->header_bytes + bytes;
        if (b->is_sparse)
                table->start = vd_round_up(table->start, table->block_bytes);
        table->limit = vd_file_size(img->file);
        table->align = 1;
        if (!b->is_sparse && !(b->bitmaps = vd_cache_new(img->file, table->start, SECTOR, PAGES, false)))
                return vd_fail(err, -ENOMEM, "cache of the bitmaps");
        return vd_blocktable_open(table, page, CACHE_BYTES / page, err);
}

static int bochs_open(struct vd_image *img, struct vd_error *err)
{
        int r;

        img->state = calloc(1, sizeof(struct bochs));
        if (!img->state)
                return vd_fail(err, -ENOMEM, "Bochs header");
        r = read_header(img, err);
        if (!r && img->writable)
                r = vd_fail(err, VD_EUNSUPPORTED, "bochs images are only read");
        if (!r)
                r = open_tables(img, err);
        if (r)
                bochs_close(img);
        else
                img->unit = ((struct bochs *)img->state)->table.block_bytes;
        return r;
}

/* The part of an extent whose sectors are all there, or all not. */
static int map_sectors(struct bochs *b, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t in_extent = ext->start % b->table.block_bytes, run;
        uint64_t end = vd_div_up(in_extent + ext->length, SECTOR);
        struct vd_bitmap bitmap = { .cache = b->bitmaps, .page = SECTOR, .stored = b->bitmap_bytes,
                                    .position = ext->position - in_extent - b->lead_bytes };
        bool set;
        int r = vd_bitmap_run(&bitmap, in_extent / SECTOR, end, &set, &run, err);

        if (r)
                return r;
        ext->length = vd_min(ext->length, (in_extent / SECTOR + run) * SECTOR - in_extent);
        if (!set)
                *ext = (struct vd_extent){ .start = ext->start, .length = ext->length, .kind = VD_ZERO };
        return 0;
}

static int bochs_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        struct bochs *b = img->state;
        bool partial = false;
        int r = vd_blocktable_scan(&b->table, err);

        if (!r)
                r = vd_blocktable_map(&b->table, offset, max, ext, &partial, err);
        if (!r && partial)
                r = map_sectors(b, ext, err);
        if (!r && ext->kind == VD_UNALLOCATED)
                ext->kind = VD_ZERO;
        return r;
}

static void bochs_describe(struct vd_image *img, struct vd_report *report)
{
        const struct bochs *b = img->state;

        vd_report_text(report, "subformat", "subformat", b->subtype);
        if (b->is_sparse)
                vd_report_count(report, "version", "version", b->version);
        else
                vd_report_textf(report, "version", "version", "%u.%u", b->version >> 16, b->version & 0xffff);
        vd_report_bytes(report, "extent-size", b->is_sparse ? "page size" : "extent size", b->table.block_bytes);
        vd_report_count(report, "extents", b->is_sparse ? "pages" : "extents", b->table.count);
        vd_report_offset(report, "data-offset", "data begins at", b->table.start);
        if (b->timestamp)
                vd_report_textf(report, "timestamp", "timestamp", "0x%08x", (unsigned)b->timestamp);
}

static int bochs_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct bochs *b = img->state;
        struct vd_region header = { .class = VD_CLASS_HEADER, .length = b->header_bytes, .guest = VD_NOWHERE,
                                    .what = "header" };
        struct vd_region table = { .class = VD_CLASS_TABLE, .position = b->header_bytes, .guest = VD_NOWHERE,
                                   .length = b->table.count * sizeof(le32), .what = "catalog" };
        int r = vd_check_begin(check, sizeof(le32), vd_file_size(img->file), err);

        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r)
                r = vd_check_region(check, &table, err);
        return r ? r : vd_blocktable_walk(&b->table, check, err);
}

/* Bits past the disk's end in the bitmap of the extent that it ends in. */
static int check_last_bitmap(struct vd_image *img, struct bochs *b, struct vd_findings *findings, struct vd_error *err)
{
        uint64_t last = (img->size - 1) / b->table.block_bytes, inside = img->size - last * b->table.block_bytes;
        uint64_t first = inside / SECTOR, end = b->table.block_bytes / SECTOR, run = 0;
        struct vd_bitmap bitmap = { .cache = b->bitmaps, .page = SECTOR, .stored = b->bitmap_bytes };
        struct vd_error ignored = VD_ERROR_INIT;
        struct vd_block block;
        bool set = false;
        int r = 0;

        if (!b->bitmaps || vd_blocktable_get(&b->table, last, &block, &ignored) || block.kind != VD_DATA)
                return 0;
        bitmap.position = block.position - b->lead_bytes;
        for (; first < end && !set && !r; first += run)
                r = vd_bitmap_run(&bitmap, first, end, &set, &run, err);
        if (!r && set)
                vd_find(findings, VD_WARNING, "bochs-spare-bits", bitmap.position, b->bitmap_bytes, VD_NOWHERE, 0,
                        false, "bits are set for sectors behind the end of the disk");
        return r;
}

/* Slots that the file has and the catalog does not. */
static void check_slots(const struct vd_image *img, const struct bochs *b, struct vd_findings *findings)
{
        uint64_t size = vd_file_size(img->file), slot = b->lead_bytes + b->table.block_bytes;
        uint64_t slots = size > b->table.start ? (size - b->table.start) / slot : 0;

        if (slots > findings->allocated_units)
                vd_find(findings, VD_LEAK, "bochs-leak", VD_NOWHERE, (slots - findings->allocated_units) * slot,
                        VD_NOWHERE, 0,
                        false, "the file has room for %" PRIu64 " extents, but %" PRIu64 " are used", slots,
                        findings->allocated_units);
}

static int bochs_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct bochs *b = img->state;

        if (!b->is_sparse && b->bitmap_bytes * 8 * SECTOR != b->table.block_bytes)
                vd_find(&check->findings, VD_WARNING, "bochs-bitmap-size", offsetof(struct redolog_header_disk,
                                                                                    bitmap_bytes), 4,
                        VD_NOWHERE, 0, false, "bitmaps of %" PRIu64 " bytes for extents of %" PRIu64 ": Bochs writes %"
                        PRIu64, b->bitmap_bytes, b->table.block_bytes, b->table.block_bytes / SECTOR / 8);
        check_slots(img, b, &check->findings);
        return check_last_bitmap(img, b, &check->findings, err);
}

static const char *const extensions[] = { "bochs", NULL };

const struct vd_format vd_format_bochs = {
        .name = "bochs", .title = "Bochs growing or sparse disk", .extensions = extensions,
        .probe = bochs_probe, .open = bochs_open, .close = bochs_close, .map = bochs_map, .describe = bochs_describe,
        .walk = bochs_walk, .check = bochs_check,
};
