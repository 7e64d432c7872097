// SPDX-License-Identifier: MIT
/* dmg_tables.c: block tables and their chunks.
 *
 * Every table covers a part of the disk, chunk after chunk.  What a table leaves out inside its part is not known; what
 * no table covers (gaps between partitions) reads as zeros.
 */
#include "dmg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/text.h"

static const struct dmg_type_info types[] = {
        { DMG_ZERO, VD_CODEC_NONE, "zero", NULL },
        { DMG_IGNORE, VD_CODEC_NONE, "ignore", NULL },
        { DMG_RAW, VD_CODEC_NONE, "raw", "UDRO" },
        { DMG_ADC, VD_CODEC_ADC, "adc", "UDCO" },
        { DMG_ZLIB, VD_CODEC_ZLIB, "zlib", "UDZO" },
        { DMG_BZIP2, VD_CODEC_BZIP2, "bzip2", "UDBZ" },
        { DMG_LZFSE, VD_CODEC_LZFSE, "lzfse", "ULFO" },
        { DMG_XZ, VD_CODEC_XZ, "lzma", "ULMO" },
};

const struct dmg_type_info *dmg_type_info(enum dmg_type type)
{
        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
                if (types[i].type == type)
                        return &types[i];
        return NULL;
}

void dmg_free(struct dmg *dmg)
{
        if (!dmg)
                return;
        for (size_t i = 0; i < dmg->table_count; i++)
                free(dmg->tables[i].name);
        free(dmg->tables);
        free(dmg->chunks);
        free(dmg->order);
        free(dmg);
}

/* ---- reading ---- */

static int grow(void *array, size_t count, size_t *room, size_t item_bytes, struct vd_error *err)
{
        size_t more = *room ? *room * 2 : 16;
        void *grown;

        if (count < *room)
                return 0;
        grown = reallocarray(*(void **)array, more, item_bytes);
        if (!grown)
                return vd_fail(err, -ENOMEM, "block tables");
        *(void **)array = grown;
        *room = more;
        return 0;
}

static int add_chunk(struct dmg *dmg, const struct dmg_chunk *chunk, struct vd_error *err)
{
        int r;

        if (dmg->chunk_count == DMG_CHUNKS_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "more than %" PRIu64 " chunks", DMG_CHUNKS_MOST);
        r = grow(&dmg->chunks, dmg->chunk_count, &dmg->chunk_room, sizeof(*dmg->chunks), err);
        if (!r) {
                dmg->chunks[dmg->chunk_count++] = *chunk;
                dmg->tables[dmg->table_count - 1].count++;
        }
        return r;
}

/* [start, end) of the table's part was not described. */
static int add_missing(struct dmg *dmg, uint64_t start, uint64_t end, struct vd_error *err)
{
        struct dmg_chunk chunk = { .start = start, .end = end, .type = DMG_COMMENT, .is_missing = true,
                                   .table = (uint32_t)dmg->table_count - 1 };

        return start < end ? add_chunk(dmg, &chunk, err) : 0;
}

/* first * 512 and (first + sectors) * 512, from base on; false when that leaves [0, 2^63). */
static bool sector_range(uint64_t base, be64 first, be64 sectors, uint64_t *start, uint64_t *end)
{
        uint64_t from, length;

        return vd_mul(be64_get(first), DMG_SECTOR, &from) && vd_mul(be64_get(sectors), DMG_SECTOR, &length) &&
               vd_add(base, from, start) && vd_add(*start, length, end) && *end <= INT64_MAX;
}

static int read_chunk(struct dmg *dmg, const struct dmg_chunk_disk *raw, uint64_t data_offset, uint64_t number,
                      uint64_t *expected, struct vd_error *err)
{
        struct dmg_table *table = &dmg->tables[dmg->table_count - 1];
        struct dmg_chunk chunk = { .type = (enum dmg_type)be32_get(raw->type), .table = (uint32_t)dmg->table_count - 1,
                                   .bytes = be64_get(raw->bytes) };
        int r = 0;

        if (chunk.type == DMG_COMMENT)
                return 0;
        if (!sector_range(table->start, raw->first, raw->sectors, &chunk.start, &chunk.end) || chunk.end > table->end)
                return vd_fail(err, VD_ECORRUPT, "chunk %" PRIu64 ": %" PRIu64 " sectors at %" PRIu64
                               ", but the table has %"
                               PRIu64 " sectors", number, be64_get(raw->sectors), be64_get(raw->first),
                               (table->end - table->start) / DMG_SECTOR);
        if (!vd_add(dmg->fork_offset, data_offset, &chunk.position) ||
            !vd_add(chunk.position, be64_get(raw->position), &chunk.position))
                chunk.position = UINT64_MAX;
        if (chunk.start == chunk.end)
                return 0;
        table->ordered = table->ordered && chunk.start == *expected;
        if (chunk.start > *expected)
                r = add_missing(dmg, *expected, chunk.start, err);
        *expected = vd_max(*expected, chunk.end);
        return r ? r : add_chunk(dmg, &chunk, err);
}

static int read_table(struct dmg *dmg, const uint8_t *bytes, size_t length, struct vd_error *err)
{
        struct dmg_table *table = &dmg->tables[dmg->table_count - 1];
        struct dmg_table_disk head;
        uint64_t count, expected;

        if (length < sizeof(head))
                return vd_fail(err, VD_ECORRUPT, "%zu bytes long, at least %zu expected", length, sizeof(head));
        memcpy(&head, bytes, sizeof(head));
        if (memcmp(head.magic, "mish", 4) != 0)
                return vd_fail(err, VD_ECORRUPT, "no 'mish' magic");
        if (be32_get(head.version) != DMG_TABLE_VERSION)
                return vd_fail(err, VD_EUNSUPPORTED, "version %u, known is %d", (unsigned)be32_get(head.version),
                               DMG_TABLE_VERSION);
        count = be32_get(head.chunks);
        if (count > (length - sizeof(head)) / sizeof(struct dmg_chunk_disk))
                return vd_fail(err, VD_ECORRUPT, "%" PRIu64 " chunks do not fit its %zu bytes", count, length);
        if (!sector_range(0, head.start, head.sectors, &table->start, &table->end))
                return vd_fail(err, VD_ECORRUPT, "%" PRIu64 " sectors at %" PRIu64 " are more than a disk can have",
                               be64_get(head.sectors), be64_get(head.start));
        table->checksum_type = be32_get(head.checksum.type);
        table->checksum = be32_get(*(const be32 *)(const void *)head.checksum.value);
        table->first = dmg->chunk_count;
        table->ordered = true;
        expected = table->start;
        for (uint64_t i = 0; i < count && !table->terminated; i++) {
                struct dmg_chunk_disk raw;
                int r;

                memcpy(&raw, bytes + sizeof(head) + i * sizeof(raw), sizeof(raw));
                if ((enum dmg_type)be32_get(raw.type) == DMG_END) {
                        table->terminated = true;
                        continue;
                }
                r = read_chunk(dmg, &raw, be64_get(head.data_offset), i, &expected, err);
                if (r)
                        return r;
        }
        return add_missing(dmg, expected, table->end, err);
}

int dmg_add_table(struct dmg *dmg, const uint8_t *bytes, size_t length, const char *name, size_t name_length,
                  struct vd_error *err)
{
        int r = grow(&dmg->tables, dmg->table_count, &dmg->table_room, sizeof(*dmg->tables), err);

        if (r)
                return r;
        dmg->tables[dmg->table_count++] = (struct dmg_table){ .name = name ? strndup(name, name_length) : NULL };
        if (name && !dmg->tables[dmg->table_count - 1].name)
                return vd_fail(err, -ENOMEM, "block tables");
        r = read_table(dmg, bytes, length, err);
        return r ? vd_error_prefix(err, "block table %zu", dmg->table_count - 1) : 0;
}

/* ---- all together ---- */

static int by_start(const void *a, const void *b, void *context)
{
        const struct dmg_chunk *chunks = context, *p = &chunks[*(const uint32_t *)a],
        *q = &chunks[*(const uint32_t *)b];

        if (p->start != q->start)
                return p->start < q->start ? -1 : 1;
        return p < q ? -1 : p > q;
}

int dmg_sort_chunks(struct dmg *dmg, struct vd_error *err)
{
        struct dmg_chunk *furthest = NULL;
        bool sorted = true;

        dmg->order = reallocarray(NULL, dmg->chunk_count + 1, sizeof(*dmg->order));
        if (!dmg->order)
                return vd_fail(err, -ENOMEM, "%zu chunks", dmg->chunk_count);
        for (size_t i = 0; i < dmg->chunk_count; i++) {
                dmg->order[i] = (uint32_t)i;
                sorted = sorted && (!i || dmg->chunks[i - 1].start <= dmg->chunks[i].start);
        }
        if (!sorted)
                qsort_r(dmg->order, dmg->chunk_count, sizeof(*dmg->order), by_start, dmg->chunks);
        for (size_t i = 0; i < dmg->chunk_count; i++) {
                struct dmg_chunk *chunk = &dmg->chunks[dmg->order[i]];

                if (furthest && chunk->start < furthest->end)
                        chunk->overlaps = furthest->overlaps = true;
                if (!furthest || chunk->end > furthest->end)
                        furthest = chunk;
                chunk->reach = furthest->end;
        }
        return 0;
}

int dmg_chunk_fault(const struct dmg *dmg, const struct vd_file *file, const struct dmg_chunk *chunk,
                    struct vd_error *err)
{
        const struct dmg_type_info *info = dmg_type_info(chunk->type);
        uint64_t start = chunk->start, length = chunk->end - start, end;

        if (chunk->is_missing)
                return vd_fail(err, VD_ECORRUPT, "block table %u has no chunk for %" PRIu64 " bytes at guest offset %"
                               PRIu64, (unsigned)chunk->table, length, start);
        if (chunk->overlaps)
                return vd_fail(err, VD_ECORRUPT, "chunk of block table %u at guest offset %" PRIu64
                               " shares it with others", (unsigned)chunk->table, start);
        if (!info)
                return vd_fail(err, VD_EUNSUPPORTED, "chunk of block table %u at guest offset %" PRIu64
                               " has unknown type 0x%08x", (unsigned)chunk->table, start, (unsigned)chunk->type);
        if (!info->subformat)
                return 0;
        if (info->codec ? !chunk->bytes || chunk->bytes > DMG_PACKED_MOST || length > DMG_UNIT_MOST
                        : chunk->bytes != length)
                return vd_fail(err, VD_ECORRUPT, "%s chunk at guest offset %" PRIu64 ": %" PRIu64 " bytes stored for %"
                               PRIu64 "; %s", info->name, start, chunk->bytes, length,
                               info->codec ? "at most 128 MiB for 64 MiB are allowed" : "they must be as many");
        if (!vd_range_fits(chunk->position, chunk->bytes, vd_file_size(file)))
                return vd_fail(err, VD_ECORRUPT, "%s chunk at guest offset %" PRIu64 ": %" PRIu64 " bytes at %" PRIu64
                               ", but the file ends at %" PRIu64, info->name, start, chunk->bytes, chunk->position,
                               vd_file_size(file));
        if (dmg->fork_bytes && vd_add(dmg->fork_offset, dmg->fork_bytes, &end) &&
            (chunk->position < dmg->fork_offset || !vd_range_fits(chunk->position, chunk->bytes, end)))
                return vd_fail(err, VD_ECORRUPT, "%s chunk at guest offset %" PRIu64 ": %" PRIu64 " bytes at %" PRIu64
                               " lie outside the data fork (%" PRIu64 " to %" PRIu64 ")", info->name, start,
                               chunk->bytes, chunk->position, dmg->fork_offset, end);
        return 0;
}

void dmg_chunk_extent(const struct dmg_chunk *chunk, struct vd_file *file, uint64_t offset, uint64_t max,
                      struct vd_extent *ext)
{
        const struct dmg_type_info *info = dmg_type_info(chunk->type);

        *ext = (struct vd_extent){ .start = offset, .length = vd_min(max, chunk->end - offset), .kind = VD_ZERO };
        if (!info->subformat)
                return;
        ext->file = file;
        ext->position = chunk->position;
        if (!info->codec) {
                ext->kind = VD_DATA;
                ext->position += offset - chunk->start;
                return;
        }
        ext->kind = VD_PACKED;
        ext->codec = info->codec;
        ext->unit_start = chunk->start;
        ext->unit_bytes = (uint32_t)(chunk->end - chunk->start);
        ext->packed_bytes = (uint32_t)chunk->bytes;
}
