// SPDX-License-Identifier: MIT
/* asif.c: Apple Sparse Image Format of macOS 26 (reference: docs/formats.md, "ASIF")
 *
 *      [ header 512 ][ directory A ][ directory B ] ...        everything else in chunks of, mostly, 1 MiB
 *
 *      directory       a sequence number, then a chunk number per table; the higher sequence number rules
 *      table           groups of 4 x block size entries for data chunks and one for their bitmap
 *      bitmap          2 bits per sector of the group, for chunks that are there in part
 *
 * Apple has not published the format; this follows what others found out, and everything they do not know is refused.
 * Only read.
 * Cost: pages of directory, tables and bitmaps.
 */
#include "asif.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

static enum vd_match asif_probe(const struct vd_probe *probe)
{
        const struct asif_header_disk *h = (const void *)probe->head;

        if (probe->head_bytes < sizeof(*h) || memcmp(h->magic, "shdw", 4) != 0)
                return VD_MATCH_NO;
        return be32_get(h->header_bytes) == ASIF_HEADER_BYTES ? VD_MATCH_SURE : VD_MATCH_WEAK;
}

static void asif_close(struct vd_image *img)
{
        struct asif *a = img->state;

        if (a)
                vd_cache_free(a->tables);
        free(a);
        img->state = NULL;
}

/* ---- header ---- */

static int check_sizes(const struct asif *a, struct vd_error *err)
{
        if (a->block != 512 && a->block != 4096)
                return vd_fail(err, VD_EUNSUPPORTED, "header: blocks of %" PRIu64 " bytes, known are 512 and 4096",
                               a->block);
        if (!vd_is_pow2(a->chunk) || a->chunk < ASIF_CHUNK_LEAST || a->chunk > ASIF_CHUNK_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: chunks of %" PRIu64 " bytes, supported are powers of "
                               "two from %d to %d", a->chunk, ASIF_CHUNK_LEAST, ASIF_CHUNK_MOST);
        return 0;
}

/* What follows from the numbers of the header. */
static int derive(struct vd_image *img, struct asif *a, struct vd_error *err)
{
        uint64_t sectors = be64_get(a->header.sectors), most = be64_get(a->header.most_sectors), most_bytes;
        uint64_t group_bytes;

        a->group = 4 * a->block;
        group_bytes = (a->group + 1) * sizeof(be64);
        a->groups = a->chunk / group_bytes;
        if (!a->groups)
                return vd_fail(err, VD_ECORRUPT, "header: chunks of %" PRIu64 " bytes have no room for a group of %"
                               PRIu64 " entries", a->chunk, a->group + 1);
        if (!vd_mul(most, a->block, &most_bytes) || most_bytes > INT64_MAX || sectors > most || !sectors)
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu64 " sectors of at most %" PRIu64 ", blocks of %"
                               PRIu64 " bytes", sectors, most, a->block);
        img->size = sectors * a->block;
        a->most_bytes = most_bytes;
        a->table_covers = a->groups * a->group * a->chunk;
        a->table_count = vd_div_up(most_bytes, a->table_covers);
        if (a->table_count > ASIF_TABLES_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: a directory of %" PRIu64 " tables, at most %d supported",
                               a->table_count, ASIF_TABLES_MOST);
        return 0;
}

static int parse_header(struct vd_image *img, struct asif *a, struct vd_error *err)
{
        const struct asif_header_disk *h = &a->header;
        int r;

        if (memcmp(h->magic, "shdw", 4) != 0)
                return vd_fail(err, VD_EFORMAT, "no 'shdw' magic");
        if (be32_get(h->version) != 1 || be32_get(h->header_bytes) != ASIF_HEADER_BYTES || be32_get(h->flags))
                return vd_fail(err, VD_EUNSUPPORTED, "header: version %u of %u bytes with flags 0x%x, known is "
                               "version 1 of %d bytes without flags", (unsigned)be32_get(h->version),
                               (unsigned)be32_get(h->header_bytes), (unsigned)be32_get(h->flags), ASIF_HEADER_BYTES);
        a->chunk = be32_get(h->chunk_bytes);
        a->block = be16_get(h->block_bytes);
        r = check_sizes(a, err);
        return r ? r : derive(img, a, err);
}

/* The directory with the higher sequence number. */
static int choose_directory(struct vd_image *img, struct asif *a, struct vd_error *err)
{
        uint64_t bytes = sizeof(be64) * (1 + a->table_count), size = vd_file_size(img->file);

        for (int i = 0; i < 2; i++) {
                uint64_t offset = be64_get(a->header.directories[i]);
                be64 sequence;
                int r;

                if (offset < ASIF_HEADER_BYTES || offset % sizeof(be64) || !vd_range_fits(offset, bytes, size))
                        return vd_fail(err, VD_ECORRUPT, "header: directory %c of %" PRIu64 " bytes at %" PRIu64
                                       ", allowed are multiples of 8 from %d to the end of the file at %" PRIu64,
                                       'A' + i, bytes, offset, ASIF_HEADER_BYTES, size);
                r = vd_file_read(img->file, &sequence, sizeof(sequence), offset, err);
                if (r)
                        return r;
                a->directories[i] = offset;
                a->sequence[i] = be64_get(sequence);
        }
        if (a->sequence[0] == a->sequence[1])
                return vd_fail(err, VD_ECORRUPT, "both directories have sequence number %" PRIu64, a->sequence[0]);
        a->active = a->sequence[1] > a->sequence[0];
        return 0;
}

static int asif_open(struct vd_image *img, struct vd_error *err)
{
        enum { PAGES = 512 };
        struct asif *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return vd_fail(err, -ENOMEM, "ASIF header");
        img->state = a;
        r = vd_file_read(img->file, &a->header, sizeof(a->header), 0, err);
        if (!r)
                r = parse_header(img, a, err);
        if (!r && img->writable)
                r = vd_fail(err, VD_EUNSUPPORTED, "asif images are only read");
        if (!r)
                r = choose_directory(img, a, err);
        if (!r && !(a->tables = vd_cache_new(img->file, 0, ASIF_PAGE, PAGES, false)))
                r = vd_fail(err, -ENOMEM, "cache of the tables");
        if (r) {
                asif_close(img);
                return r;
        }
        vd_cache_allow_short(a->tables, 0);
        img->unit = a->chunk;
        return 0;
}

/* ---- map ---- */

static int get_entry(struct asif *a, uint64_t position, uint64_t *value, struct vd_error *err)
{
        void *raw;
        int r = vd_cache_get(a->tables, position, &raw, err);

        if (!r)
                *value = be64_get(*(const be64 *)raw);
        return r;
}

/* A chunk that an entry points to, as position in the file. */
static int chunk_position(const struct vd_image *img, uint64_t index, uint64_t needed, const char *what,
                          uint64_t *position, struct vd_error *err)
{
        const struct asif *a = img->state;

        if (!index || !vd_mul(index, a->chunk, position) || !vd_range_fits(*position, needed, vd_file_size(img->file)))
                return vd_fail(err, VD_ECORRUPT, "%s is chunk %" PRIu64 ", allowed are those from 1 to the end of the "
                               "file at %" PRIu64, what, index, vd_file_size(img->file));
        return 0;
}

int asif_find_table(struct vd_image *img, uint64_t table, uint64_t *position, struct vd_error *err)
{
        struct asif *a = img->state;
        uint64_t index;
        char what[48];
        int r = get_entry(a, a->directories[a->active] + sizeof(be64) * (1 + table), &index, err);

        if (r)
                return r;
        *position = 0;
        snprintf(what, sizeof(what), "table %" PRIu64, table);
        return index ? chunk_position(img, index, a->chunk, what, position, err) : 0;
}

uint64_t asif_entry_position(const struct asif *a, uint64_t table, uint64_t chunk)
{
        return table + sizeof(be64) * (chunk + chunk / a->group);       /* a bitmap's entry behind each group */
}

int asif_decode(struct vd_image *img, uint64_t entry, uint64_t guest, struct asif_entry *out, struct vd_error *err)
{
        const struct asif *a = img->state;
        uint64_t index = entry & ASIF_INDEX_MASK;
        char what[64];

        out->state = (enum asif_state)(entry >> 62);
        out->position = 0;
        snprintf(what, sizeof(what), "data at guest offset %" PRIu64, guest);
        if (entry & ASIF_RESERVED_MASK || out->state == ASIF_UNKNOWN || (out->state == ASIF_EMPTY && index))
                return vd_fail(err, VD_EUNSUPPORTED, "%s has entry 0x%016" PRIx64 ", whose meaning is not known", what,
                               entry);
        if (out->state == ASIF_EMPTY)
                return 0;
        /* The disk may end inside its last chunk. */
        return chunk_position(img, index, guest < img->size ? vd_min(a->chunk, img->size - guest) : a->chunk, what,
                              &out->position, err);
}

/* Where the bitmap of a group is. */
int asif_find_bitmap(struct vd_image *img, uint64_t table, uint64_t group, uint64_t *position, struct vd_error *err)
{
        struct asif *a = img->state;
        uint64_t entry;
        char what[64];
        int r = get_entry(a, table + sizeof(be64) * (group * (a->group + 1) + a->group), &entry, err);

        if (r)
                return r;
        *position = 0;
        if (entry & ~ASIF_INDEX_MASK)
                return vd_fail(err, VD_EUNSUPPORTED, "the bitmap of group %" PRIu64 " has entry 0x%016" PRIx64
                               ", whose meaning is not known", group, entry);
        snprintf(what, sizeof(what), "bitmap of group %" PRIu64, group);
        return entry ? chunk_position(img, entry, a->chunk, what, position, err) : 0;
}

/* The part of a chunk that is alike, as its bitmap says. */
static int map_partial(struct vd_image *img, uint64_t table, uint64_t chunk, struct vd_extent *ext,
                       struct vd_error *err)
{
        struct asif *a = img->state;
        uint64_t bitmap, sector = ext->start % (a->group * a->chunk) / a->block, first = sector, at;
        uint64_t end = sector + vd_div_up(ext->start % a->block + ext->length, a->block);
        unsigned state = 0;
        int r = asif_find_bitmap(img, table, chunk / a->group, &bitmap, err);

        if (!r && !bitmap)
                r = vd_fail(err, VD_ECORRUPT, "data at guest offset %" PRIu64 " is there in part, but without a bitmap",
                            ext->start);
        for (at = sector; at < end && !r; at++) {
                void *byte;
                unsigned now;

                r = vd_cache_get(a->tables, bitmap + at / 4, &byte, err);
                if (r)
                        break;
                now = *(const uint8_t *)byte >> at % 4 * 2 & 3;
                if (at == first)
                        state = now;
                else if (now != state)
                        break;
        }
        if (r)
                return r;
        if (state > 1)
                return vd_fail(err, VD_EUNSUPPORTED, "the bitmap has state %u for guest offset %" PRIu64
                               ", known are 0 and 1", state, ext->start);
        ext->length = vd_min(ext->length, (at - first) * a->block - ext->start % a->block);
        if (!state)
                *ext = (struct vd_extent){ .start = ext->start, .length = ext->length, .kind = VD_ZERO };
        return 0;
}

/* The extent at offset, in the part of the disk that one table covers.  limit: where the disk ends, or more for what
 * lies behind it. */
static int map_in_table(struct vd_image *img, uint64_t offset, uint64_t end, uint64_t table, struct vd_extent *ext,
                        struct vd_error *err)
{
        struct asif *a = img->state;
        uint64_t in_table = offset % a->table_covers, chunk = in_table / a->chunk, value;
        uint64_t base = offset - in_table, stop = vd_min(end, base + (chunk + 1) * a->chunk);
        struct asif_entry entry;
        int r = get_entry(a, asif_entry_position(a, table, chunk), &value, err);

        if (!r)
                r = asif_decode(img, value, base + chunk * a->chunk, &entry, err);
        if (r)
                return r;
        *ext = (struct vd_extent){ .start = offset, .length = stop - offset, .kind = VD_ZERO };
        if (entry.state != ASIF_EMPTY) {
                ext->kind = VD_DATA;
                ext->file = img->file;
                ext->position = entry.position + in_table % a->chunk;
        }
        if (entry.state == ASIF_PARTIAL)
                return map_partial(img, table, chunk, ext, err);
        /* Chunks that continue this one, up to the end of the group. */
        while (stop < end && ++chunk % a->group) {
                struct vd_error later = VD_ERROR_INIT;  /* reported when that chunk is asked for */
                struct asif_entry next;

                if (get_entry(a, asif_entry_position(a, table, chunk), &value, &later) ||
                    asif_decode(img, value, base + chunk * a->chunk, &next, &later) || next.state != entry.state ||
                    (next.state == ASIF_WHOLE && next.position != ext->position + (stop - offset)))
                        break;
                stop = vd_min(end, base + (chunk + 1) * a->chunk);
        }
        ext->length = stop - offset;
        return 0;
}

int asif_map_within(struct vd_image *img, uint64_t offset, uint64_t end, struct vd_extent *ext, struct vd_error *err)
{
        struct asif *a = img->state;
        uint64_t table = offset / a->table_covers, position, stop;
        int r = asif_find_table(img, table, &position, err);

        if (r)
                return r;
        stop = vd_min(end, (table + 1) * a->table_covers);
        if (position)
                return map_in_table(img, offset, stop, position, ext, err);
        *ext = (struct vd_extent){ .start = offset, .length = stop - offset, .kind = VD_ZERO };
        return 0;
}

static int asif_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        return asif_map_within(img, offset, offset + vd_min(max, img->size - offset), ext, err);
}

static const char *const extensions[] = { "asif", NULL };

const struct vd_format vd_format_asif = {
        .name = "asif", .title = "Apple Sparse Image Format (macOS 26)", .extensions = extensions,
        .probe = asif_probe, .open = asif_open, .close = asif_close, .map = asif_map, .describe = asif_describe,
        .walk = asif_walk, .check = asif_check,
};
