// SPDX-License-Identifier: MIT
/* vmdk_sparse.c: the three kinds of sparse extents: headers, and what the entries of their tables mean.
 *
 *                  header   directory     table            grain            entry
 *      KDMV        512      le32          <= 512 x le32    usually 64 KiB   sector of the grain; 1: zeros
 *      COWD        2048     le32          4096 x le32      512 and more     sector of the grain
 *      seSparse    512      le64          4096 x le64      4 KiB            kind, number of the grain
 *
 * Tables are read through formats/shared/twolevel.h; none is read at open.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/checked.h"

enum {
        GRAIN_MAX = 16 * 1024 * 1024,
        PACKED_GRAIN_MAX = 4 * 1024 * 1024,
        DIRECTORY_MAX = 32 * 1024 * 1024,       /* entries, as QEMU has it */
        COWD_TABLE_ENTRIES = 4096,
        SE_TABLE_ENTRIES = 4096,
        SE_GRAIN = 4096,
        READ_PAGE = 64 * 1024, READ_PAGES = 8,
        WRITE_PAGES = 4096,                     /* of a sector: tables may stand beside anything */
        WARM_EXTENTS = 8,
};
#define SE_MAGIC 0xcafebabeu
#define SE_VOLATILE_MAGIC 0xcafecafeu
#define SE_VERSION 0x0000000200000001u

/* ---- entries ---- */

static struct vmdk_sparse *owner(const struct vd_twolevel *t)
{
        return t->context;
}

static int sector_table(const struct vd_twolevel *t, uint64_t index, const void *entry, uint64_t *position,
                        struct vd_error *err)
{
        uint32_t sector = le32_get(*(const le32 *)entry);
        uint64_t header = owner(t)->layout == VMDK_COWD ? sizeof(struct vmdk_cowd_disk) : VMDK_SECTOR;

        *position = (uint64_t)sector * VMDK_SECTOR;
        if (*position < header)
                return vd_fail(err, VD_ECORRUPT, "%s entry %" PRIu64 ": a table at sector %" PRIu32
                               " would lie in the header", t->top_name, index, sector);
        return 0;
}

static int sector_entry(const struct vd_twolevel *t, uint64_t entry_position, const void *entry, struct vd_extent *ext,
                        struct vd_error *err)
{
        struct vmdk_sparse *s = owner(t);
        uint32_t sector = le32_get(*(const le32 *)entry);
        uint64_t position = (uint64_t)sector * VMDK_SECTOR;

        if (sector == 1 && s->flags & VMDK_FLAG_ZERO_GRAINS) {
                ext->kind = VD_ZERO;
                return 0;
        }
        if (position < s->overhead)
                return vd_fail(err, VD_ECORRUPT, "entry at %" PRIu64 " (guest offset %" PRIu64 "): a grain at sector %"
                               PRIu32 " would lie in the header and tables, which end at sector %" PRIu64,
                               entry_position, ext->start, sector, s->overhead / VMDK_SECTOR);
        if (s->flags & VMDK_FLAG_PACKED)
                return vmdk_packed_entry(s, position, ext, err);
        ext->kind = VD_DATA;
        ext->file = s->file;
        ext->position = position + ext->start % s->grain;
        return 0;
}

static int se_table(const struct vd_twolevel *t, uint64_t index, const void *entry, uint64_t *position,
                    struct vd_error *err)
{
        const struct vmdk_sparse *s = owner(t);
        uint64_t e = le64_get(*(const le64 *)entry), number = e & UINT32_MAX;

        if (e >> 32 != 0x10000000 || number >= s->table_count)
                return vd_fail(err, VD_ECORRUPT, "%s entry %" PRIu64 " is 0x%016" PRIx64 ", expected 0x10000000 and "
                               "the number of one of %" PRIu64 " tables", t->top_name, index, e, s->table_count);
        *position = s->tables + number * SE_TABLE_ENTRIES * sizeof(le64);
        return 0;
}

enum { SE_NONE, SE_UNMAPPED, SE_ZERO, SE_ALLOCATED };

static int se_entry(const struct vd_twolevel *t, uint64_t entry_position, const void *entry, struct vd_extent *ext,
                    struct vd_error *err)
{
        const struct vmdk_sparse *s = owner(t);
        uint64_t e = le64_get(*(const le64 *)entry);
        uint64_t number = (e >> 48 & 0xfff) | (e & 0x0000ffffffffffffu) << 12;

        switch (e >> 60) {
        case SE_UNMAPPED:
        case SE_ZERO:
                ext->kind = VD_ZERO;
                return 0;
        case SE_ALLOCATED:
                if (number >= s->grain_count)
                        return vd_fail(err, VD_ECORRUPT, "entry at %" PRIu64 " (guest offset %" PRIu64 "): grain %"
                                       PRIu64 ", but there are %" PRIu64, entry_position, ext->start, number,
                                       s->grain_count);
                ext->kind = VD_DATA;
                ext->file = s->file;
                ext->position = s->grains + number * SE_GRAIN + ext->start % SE_GRAIN;
                return 0;
        }
        return vd_fail(err, VD_ECORRUPT, "entry at %" PRIu64 " (guest offset %" PRIu64 ") is 0x%016" PRIx64
                       ", which is no known kind", entry_position, ext->start, e);
}

static const struct vd_twolevel_ops sector_ops = { .table = sector_table, .entry = sector_entry };
static const struct vd_twolevel_ops se_ops = { .table = se_table, .entry = se_entry };

/* ---- headers ---- */

/* A position in sectors as bytes. */
static int to_bytes(uint64_t sectors, const char *what, uint64_t *bytes, struct vd_error *err)
{
        if (sectors <= INT64_MAX / VMDK_SECTOR) {
                *bytes = sectors * VMDK_SECTOR;
                return 0;
        }
        return vd_fail(err, VD_ECORRUPT, "sparse header: %s of %" PRIu64 " sectors does not fit any file", what,
                       sectors);
}

static int check_hosted(const struct vmdk_sparse_disk *h, struct vd_error *err)
{
        uint32_t version = le32_get(h->version), flags = le32_get(h->flags), entries = le32_get(h->table_entries);
        uint64_t grain = le64_get(h->grain);
        bool packed = flags & VMDK_FLAG_PACKED;

        if (!memcmp(h->magic, "kdmv", 4))
                return vd_fail(err, VD_ECORRUPT, "sparse header: the program that wrote this extent did not finish it");
        if (memcmp(h->magic, "KDMV", 4))
                return vd_fail(err, VD_ECORRUPT, "not a sparse extent: it does not begin with KDMV");
        if (version < 1 || version > 3)
                return vd_fail(err, VD_EUNSUPPORTED, "sparse header: version %" PRIu32 ", known are 1 to 3", version);
        if (flags & VMDK_FLAG_LINE_ENDS && memcmp(h->line_ends, "\n \r\n", 4))
                return vd_fail(err, VD_ECORRUPT, "sparse header: line ends were changed: the file was transferred as "
                               "text and is ruined");
        if (flags & ~(uint32_t)VMDK_FLAGS_KNOWN & 0xffff0000u)
                return vd_fail(err, VD_EUNSUPPORTED, "sparse header: unknown flags 0x%" PRIx32, flags);
        if (flags & VMDK_FLAG_MARKERS && !packed)
                return vd_fail(err, VD_ECORRUPT, "sparse header: flags 0x%" PRIx32 ": markers without compression",
                               flags);
        if (packed && le16_get(h->compression) != 1)
                return vd_fail(err, VD_EUNSUPPORTED, "sparse header: compression algorithm %u, known is 1 (deflate)",
                               le16_get(h->compression));
        if (!vd_is_pow2(grain) || grain > (packed ? PACKED_GRAIN_MAX : GRAIN_MAX) / VMDK_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "sparse header: grains of %" PRIu64 " sectors, allowed are powers of "
                               "two up to %d", grain, (packed ? PACKED_GRAIN_MAX : GRAIN_MAX) / VMDK_SECTOR);
        if (!vd_is_pow2(entries) || entries > VMDK_TABLE_ENTRIES)
                return vd_fail(err, VD_ECORRUPT, "sparse header: grain tables of %" PRIu32 " entries, allowed are "
                               "powers of two up to %d", entries, VMDK_TABLE_ENTRIES);
        if (!le64_get(h->capacity))
                return vd_fail(err, VD_ECORRUPT, "sparse header: an extent of 0 sectors");
        return 0;
}

static int take_hosted(struct vmdk_sparse *s, const struct vmdk_sparse_disk *h, struct vd_error *err)
{
        uint64_t descriptor = le64_get(h->descriptor_offset);
        uint32_t entries = le32_get(h->table_entries);
        int r;

        s->version = le32_get(h->version);
        s->flags = le32_get(h->flags);
        s->unclean = h->unclean != 0;
        s->grain = le64_get(h->grain) * VMDK_SECTOR;
        r = to_bytes(le64_get(h->capacity), "a capacity", &s->capacity, err);
        if (!r)
                r = to_bytes(le64_get(h->overhead), "an overhead", &s->overhead, err);
        if (!r)
                r = to_bytes(le64_get(h->directory_offset), "a grain directory", &s->directory, err);
        if (!r && s->flags & VMDK_FLAG_REDUNDANT)
                r = to_bytes(le64_get(h->redundant_offset), "a redundant grain directory", &s->redundant, err);
        if (!r && descriptor)
                r = to_bytes(descriptor, "a descriptor", &s->descriptor, err);
        if (!r && descriptor)
                r = to_bytes(le64_get(h->descriptor_size), "a descriptor", &s->descriptor_room, err);
        if (r)
                return r;
        if (s->overhead < VMDK_SECTOR || s->overhead > vd_file_size(s->file))
                return vd_fail(err, VD_ECORRUPT, "sparse header: grains begin at %" PRIu64 ", but the file ends at "
                               "%" PRIu64, s->overhead, vd_file_size(s->file));
        s->map.top_entries = vd_div_up(s->capacity, s->grain * entries);
        s->map.entries = entries;
        return 0;
}

static int open_hosted(struct vmdk_sparse *s, struct vd_error *err)
{
        struct vmdk_sparse_disk h, footer;
        int r = vd_file_read(s->file, &h, sizeof(h), 0, err);

        if (!r)
                r = check_hosted(&h, err);
        if (!r && le64_get(h.directory_offset) == VMDK_GD_AT_END) {
                r = vmdk_find_footer(s->file, &h, &footer, &s->footer, err);
                if (!r)
                        r = check_hosted(&footer, err);
                if (!r)
                        h.directory_offset = footer.directory_offset;
        }
        return r ? r : take_hosted(s, &h, err);
}

static int open_cowd(struct vmdk_sparse *s, struct vd_error *err)
{
        struct vmdk_cowd_disk h;
        uint64_t grain, entries;
        int r = vd_file_read(s->file, &h, sizeof(h), 0, err);

        if (r)
                return r;
        grain = le32_get(h.grain);
        if (memcmp(h.magic, "COWD", 4) || le32_get(h.version) != 1)
                return vd_fail(err, VD_ECORRUPT, "not an ESX sparse extent: it does not begin with COWD, version 1");
        if (!vd_is_pow2(grain) || grain > GRAIN_MAX / VMDK_SECTOR)
                return vd_fail(err, VD_ECORRUPT, "COWD header: grains of %" PRIu64 " sectors, allowed are powers of "
                               "two up to %d", grain, GRAIN_MAX / VMDK_SECTOR);
        s->capacity = (uint64_t)le32_get(h.capacity) * VMDK_SECTOR;
        s->grain = grain * VMDK_SECTOR;
        s->directory = (uint64_t)le32_get(h.directory_offset) * VMDK_SECTOR;
        s->overhead = sizeof(h);
        s->free_sector = le32_get(h.free_sector);
        s->unclean = le32_get(h.unclean) != 0;
        s->map.entries = COWD_TABLE_ENTRIES;
        entries = vd_div_up(s->capacity, s->grain * COWD_TABLE_ENTRIES);
        s->map.top_entries = le32_get(h.directory_entries);
        if (!s->capacity || s->directory < sizeof(h) || s->map.top_entries < entries)
                return vd_fail(err, VD_ECORRUPT, "COWD header: %" PRIu32 " directory entries at sector %" PRIu32
                               " for a disk of %" PRIu64 " bytes, which needs %" PRIu64 " from sector 4 on",
                               le32_get(h.directory_entries), le32_get(h.directory_offset), s->capacity, entries);
        s->map.top_entries = entries;
        return 0;
}

static int take_area(const struct vmdk_sparse *s, const struct vmdk_se_area *area, const char *what, uint64_t *position,
                     uint64_t *length, struct vd_error *err)
{
        uint64_t offset = le64_get(area->offset), size = le64_get(area->size);

        if (offset < 1 || offset > INT64_MAX / VMDK_SECTOR || size > INT64_MAX / VMDK_SECTOR - offset)
                return vd_fail(err, VD_ECORRUPT, "seSparse header: %s has %" PRIu64 " sectors at sector %" PRIu64
                               " of a file of %" PRIu64 " bytes", what, size, offset, vd_file_size(s->file));
        *position = offset * VMDK_SECTOR;
        *length = size * VMDK_SECTOR;
        return 0;
}

static int check_volatile(struct vmdk_sparse *s, const struct vmdk_se_disk *h, struct vd_error *err)
{
        struct vmdk_se_volatile_disk v;
        uint64_t position, length;
        int r = take_area(s, &h->volatile_header, "the volatile header", &position, &length, err);

        if (!r)
                r = vd_file_read(s->file, &v, sizeof(v), position, err);
        if (r)
                return r;
        if (le64_get(v.magic) != SE_VOLATILE_MAGIC)
                return vd_fail(err, VD_ECORRUPT, "seSparse volatile header at %" PRIu64 ": magic 0x%" PRIx64
                               ", expected 0x%x", position, le64_get(v.magic), SE_VOLATILE_MAGIC);
        s->unclean = le64_get(v.replay_journal) != 0;
        if (s->unclean)
                return vd_fail(err, VD_EUNSUPPORTED, "seSparse extent was not closed: its journal must be replayed "
                               "first, which ESXi does when it opens the disk");
        return 0;
}

static int open_se(struct vmdk_sparse *s, struct vd_error *err)
{
        struct vmdk_se_disk h;
        uint64_t length;
        int r = vd_file_read(s->file, &h, sizeof(h), 0, err);

        if (r)
                return r;
        if (le64_get(h.magic) != SE_MAGIC)
                return vd_fail(err, VD_ECORRUPT, "not an seSparse extent: magic 0x%" PRIx64 ", expected 0x%x",
                               le64_get(h.magic), SE_MAGIC);
        if (le64_get(h.version) != SE_VERSION || le64_get(h.grain) != SE_GRAIN / VMDK_SECTOR ||
            le64_get(h.table_size) * VMDK_SECTOR != SE_TABLE_ENTRIES * sizeof(le64) || le64_get(h.flags))
                return vd_fail(err, VD_EUNSUPPORTED, "seSparse header: version 0x%" PRIx64 ", grains of %" PRIu64
                               " and tables of %" PRIu64 " sectors, flags 0x%" PRIx64 "; known are 0x%" PRIx64
                               ", 8, 64, 0", le64_get(h.version), le64_get(h.grain), le64_get(h.table_size),
                               le64_get(h.flags), (uint64_t)SE_VERSION);
        s->grain = SE_GRAIN;
        s->map.entries = SE_TABLE_ENTRIES;
        r = to_bytes(le64_get(h.capacity), "a capacity", &s->capacity, err);
        if (!r)
                r = take_area(s, &h.directory, "the grain directory", &s->directory, &length, err);
        if (!r) {
                s->map.top_entries = vd_div_up(s->capacity, (uint64_t)SE_GRAIN * SE_TABLE_ENTRIES);
                if (!s->capacity || length / sizeof(le64) < s->map.top_entries)
                        return vd_fail(err, VD_ECORRUPT, "seSparse header: a directory of %" PRIu64 " bytes for a "
                                       "disk of %" PRIu64, length, s->capacity);
                r = take_area(s, &h.tables, "the table area", &s->tables, &length, err);
        }
        if (!r) {
                s->table_count = length / (SE_TABLE_ENTRIES * sizeof(le64));
                r = take_area(s, &h.grains, "the grain area", &s->grains, &length, err);
        }
        s->grain_count = r ? 0 : length / SE_GRAIN;
        s->overhead = s->grains;
        return r ? r : check_volatile(s, &h, err);
}

/* ---- opening and mapping ---- */

int vmdk_sparse_start(struct vmdk_sparse *s, bool writable, bool unwritten, struct vd_error *err)
{
        struct vd_twolevel *t = &s->map;

        s->writable = writable;
        t->ops = s->layout == VMDK_SE ? &se_ops : &sector_ops;
        t->context = s;
        t->top_name = "grain directory";
        t->sub_name = "grain table";
        t->file = s->file;
        t->top_position = s->directory;
        t->top_entry_bytes = t->entry_bytes = s->layout == VMDK_SE ? 8 : 4;
        t->unit = s->grain;
        t->sub_page_bytes = writable ? VMDK_SECTOR : READ_PAGE;
        t->unwritten = unwritten;
        if (t->top_entries > DIRECTORY_MAX)
                return vd_fail(err, VD_ECORRUPT, "sparse header: a grain directory of %" PRIu64 " entries, at most %d "
                               "are allowed", t->top_entries, DIRECTORY_MAX);
        s->copy = s->map;
        s->copy.top_position = s->redundant;
        s->copy.top_name = "redundant grain directory";
        return vd_twolevel_check(&s->map, s->capacity, err);
}

int vmdk_sparse_open(struct vmdk_sparse **out, struct vd_file *file, enum vmdk_layout layout, bool writable,
                     struct vd_error *err)
{
        struct vmdk_sparse *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return vd_fail(err, -ENOMEM, "an extent");
        s->layout = layout;
        s->file = file;
        r = layout == VMDK_HOSTED ? open_hosted(s, err) : layout == VMDK_COWD ? open_cowd(s, err) : open_se(s, err);
        if (!r)
                r = vmdk_sparse_start(s, writable, false, err);
        if (r) {
                vmdk_sparse_free(s);
                return r;
        }
        *out = s;
        return 0;
}

static void cool(struct vmdk_sparse *s)
{
        vd_cache_free(s->map.top);
        vd_cache_free(s->map.sub);
        s->map.top = s->map.sub = s->copy.top = s->copy.sub = NULL;
}

/* Takes the caches of all extents away, except where changes wait for their turn to be written. */
static int cool_all(struct vmdk *v, struct vd_error *err)
{
        v->warm = 0;
        for (size_t i = 0; i < v->extent_count; i++) {
                struct vmdk_sparse *s = v->extents[i].sparse;
                int r = 0;

                if (!s || !s->map.sub)
                        continue;
                if (s->map.unwritten)
                        r = vd_cache_flush(s->map.sub, err);
                if (r)
                        return r;
                if (vd_cache_is_dirty(s->map.sub))
                        v->warm++;
                else
                        cool(s);
        }
        return 0;
}

/* A large disk may be split into a thousand extents: few of them have caches at a time. */
int vmdk_sparse_warm(struct vmdk *v, struct vmdk_sparse *s, struct vd_error *err)
{
        size_t pages = s->writable ? WRITE_PAGES : READ_PAGES;
        bool pin = s->writable && !s->map.unwritten;
        int r = 0;

        if (s->map.sub)
                return 0;
        if (v->warm >= WARM_EXTENTS)
                r = cool_all(v, err);
        if (r)
                return r;
        s->map.top = s->copy.top = vd_cache_new(s->file, 0, VD_TWOLEVEL_TOP_PAGE, pages, pin);
        s->map.sub = s->copy.sub = vd_cache_new(s->file, 0, s->map.sub_page_bytes, pages, pin);
        if (!s->map.top || !s->map.sub) {
                cool(s);
                return vd_fail(err, -ENOMEM, "tables of an extent");
        }
        vd_cache_allow_short(s->map.top, 0);
        vd_cache_allow_short(s->map.sub, 0);
        v->warm++;
        return 0;
}

void vmdk_sparse_free(struct vmdk_sparse *s)
{
        if (!s)
                return;
        cool(s);
        free(s->pending);
        free(s);
}
