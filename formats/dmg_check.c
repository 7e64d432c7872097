// SPDX-License-Identifier: MIT
/* dmg_check.c: the tables of an image, and the checksums over what they describe.
 *
 * There are three kinds: of the content of each table (zeros count, "ignore" chunks do not), of the data fork as it is
 * stored, and of the tables' checksums.  The last costs nothing; the others are part of a check of the data.
 */
#include "dmg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "util/checked.h"
#include "util/cleanup.h"

enum { PIECE_BYTES = 1 << 20 };

int dmg_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct dmg *dmg = img->state;
        struct vd_region regions[] = {
                { .class = VD_CLASS_HEADER, .position = dmg->trailer_offset, .length = sizeof(dmg->trailer),
                  .what = "trailer" },
                { .class = VD_CLASS_TABLE, .position = dmg->list_offset, .length = dmg->list_bytes,
                  .what = dmg->is_resource_fork ? "resource fork" : "property list" },
                { .class = VD_CLASS_PACKED, .position = dmg->fork_offset, .length = dmg->fork_bytes, .what =
                 "data fork" },
        };
        int r = vd_check_begin(check, 1, vd_file_size(img->file), err);

        for (size_t i = 0; i < sizeof(regions) / sizeof(regions[0]) && !r; i++) {
                regions[i].guest = VD_NOWHERE;
                if (regions[i].length)
                        r = vd_check_region(check, &regions[i], err);
        }
        return r;
}

/* ---- CRC-32 ---- */

/* Of what crc covers, followed by `length` zeros, however many: by doubling. */
static uint32_t crc_zeros(uint32_t crc, uint64_t length)
{
        uLong block = crc32(0, (const Bytef *)"", 1);

        for (uint64_t size = 1; length; length >>= 1, size <<= 1) {
                if (length & 1)
                        crc = (uint32_t)crc32_combine(crc, block, (z_off_t)size);
                block = crc32_combine(block, block, (z_off_t)size);
        }
        return crc;
}

struct summer {
        struct vd_image *image;
        struct vd_codec_context *codec;
        const struct vd_check_options *options;
        uint8_t *buffer;
        uint64_t room;
};

static int need_room(struct summer *s, uint64_t bytes, struct vd_error *err)
{
        if (bytes <= s->room)
                return 0;
        free(s->buffer);
        s->buffer = malloc(bytes);
        s->room = s->buffer ? bytes : 0;
        return s->buffer ? 0 : vd_fail(err, -ENOMEM, "checksum over %" PRIu64 " bytes", bytes);
}

static int stop_asked(const struct summer *s, struct vd_error *err)
{
        return s->options->stop && *s->options->stop ? vd_fail(err, VD_ESTOPPED, "stopped") : 0;
}

/* Adds the content of a chunk.  *readable false: what is wrong with it is said elsewhere. */
static int add_chunk(struct summer *s, const struct dmg_chunk *chunk, uint32_t *crc, bool *readable,
                     struct vd_error *err)
{
        struct vd_error ignored = VD_ERROR_INIT;
        uint64_t at = chunk->start;

        if (chunk->type == DMG_IGNORE)
                return 0;
        if (chunk->type == DMG_ZERO) {
                *crc = crc_zeros(*crc, chunk->end - chunk->start);
                return 0;
        }
        while (at < chunk->end && *readable) {
                struct vd_extent ext;
                int r;

                dmg_chunk_extent(chunk, s->image->file, at, UINT64_MAX, &ext);
                if (ext.kind == VD_DATA)
                        ext.length = vd_min(ext.length, PIECE_BYTES);
                r = stop_asked(s, err);
                if (!r)
                        r = need_room(s, ext.length, err);
                if (r)
                        return r;
                r = vd_extent_read(&ext, s->buffer, s->codec, &ignored);
                if (r == -ENOMEM) {
                        *err = ignored;
                        return r;
                }
                *readable = r == 0;
                *crc = (uint32_t)crc32_z(*crc, s->buffer, ext.length);
                at += ext.length;
        }
        return 0;
}

static int sum_table(struct summer *s, const struct dmg *dmg, size_t index, struct vd_findings *findings,
                     struct vd_error *err)
{
        const struct dmg_table *table = &dmg->tables[index];
        bool readable = true;
        uint32_t crc = 0;

        if (table->checksum_type != DMG_CRC32)
                return 0;
        for (size_t i = 0; i < table->count && readable; i++) {
                const struct dmg_chunk *chunk = &dmg->chunks[table->first + i];
                struct vd_error ignored = VD_ERROR_INIT;
                int r = 0;

                readable = dmg_chunk_fault(dmg, s->image->file, chunk, &ignored) == 0;
                if (readable)
                        r = add_chunk(s, chunk, &crc, &readable, err);
                if (r)
                        return r;
        }
        if (readable && crc != table->checksum)
                vd_find(findings, VD_ERROR, "dmg-table-checksum", dmg->list_offset, dmg->list_bytes, table->start,
                        table->end - table->start, false, "content of block table %zu ('%s') has CRC-32 %08x, stored "
                        "is %08x", index, table->name ? table->name : "", (unsigned)crc, (unsigned)table->checksum);
        return 0;
}

static int sum_fork(struct summer *s, const struct dmg *dmg, struct vd_findings *findings, struct vd_error *err)
{
        const struct dmg_checksum_disk *stored = &dmg->trailer.fork_checksum;
        uint32_t crc = 0, expected = be32_get(*(const be32 *)(const void *)stored->value);

        if (be32_get(stored->type) != DMG_CRC32 ||
            !vd_range_fits(dmg->fork_offset, dmg->fork_bytes, vd_file_size(s->image->file)))
                return 0;
        for (uint64_t at = 0; at < dmg->fork_bytes;) {
                size_t n = vd_min(PIECE_BYTES, dmg->fork_bytes - at);
                int r = stop_asked(s, err);

                if (!r)
                        r = need_room(s, PIECE_BYTES, err);
                if (!r)
                        r = vd_file_read(s->image->file, s->buffer, n, dmg->fork_offset + at, err);
                if (r)
                        return r;
                crc = (uint32_t)crc32_z(crc, s->buffer, n);
                at += n;
        }
        if (crc != expected)
                vd_find(findings, VD_ERROR, "dmg-data-checksum", dmg->fork_offset, dmg->fork_bytes, VD_NOWHERE, 0,
                        false, "data fork has CRC-32 %08x, stored is %08x", (unsigned)crc, (unsigned)expected);
        return 0;
}

static int sum_data(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct dmg *dmg = img->state;
        struct summer s = { .image = img, .codec = vd_codec_context_new(), .options = check->options };
        int r = s.codec ? 0 : vd_fail(err, -ENOMEM, "checksums");

        for (size_t i = 0; i < dmg->table_count && !r; i++)
                r = sum_table(&s, dmg, i, &check->findings, err);
        if (!r)
                r = sum_fork(&s, dmg, &check->findings, err);
        free(s.buffer);
        vd_codec_context_free(s.codec);
        return r;
}

/* The checksum of checksums, in the order of the tables. */
static void sum_tables(const struct dmg *dmg, struct vd_findings *findings)
{
        const struct dmg_checksum_disk *stored = &dmg->trailer.checksum;
        uint32_t crc = 0, expected = be32_get(*(const be32 *)(const void *)stored->value);

        if (be32_get(stored->type) != DMG_CRC32)
                return;
        for (size_t i = 0; i < dmg->table_count; i++) {
                be32 one = be32_put(dmg->tables[i].checksum);

                if (dmg->tables[i].checksum_type != DMG_CRC32)
                        return;
                crc = (uint32_t)crc32_z(crc, one.b, sizeof(one));
        }
        if (crc != expected)
                vd_find(findings, VD_ERROR, "dmg-checksum", dmg->trailer_offset + offsetof(struct dmg_trailer_disk,
                                                                                           checksum),
                        sizeof(*stored), VD_NOWHERE, 0, false, "checksums of all block tables have CRC-32 %08x, "
                        "stored is %08x", (unsigned)crc, (unsigned)expected);
}

/* ---- tables ---- */

static void check_table(const struct dmg *dmg, size_t index, struct vd_findings *findings)
{
        const struct dmg_table *table = &dmg->tables[index];

        if (!table->ordered)
                vd_find(findings, VD_WARNING, "dmg-chunk-order", dmg->list_offset, dmg->list_bytes, table->start,
                        table->end - table->start, false, "chunks of block table %zu do not follow each other", index);
        if (!table->terminated)
                vd_find(findings, VD_WARNING, "dmg-no-terminator", dmg->list_offset, dmg->list_bytes, table->start,
                        table->end - table->start, false, "block table %zu has no terminator: it may be cut", index);
}

static void check_chunks(const struct vd_image *img, const struct dmg *dmg, struct vd_findings *findings)
{
        for (size_t i = 0; i < dmg->chunk_count; i++) {
                const struct dmg_chunk *chunk = &dmg->chunks[i];
                const struct dmg_type_info *info = dmg_type_info(chunk->type);
                struct vd_error why = VD_ERROR_INIT;

                findings->total_units++;
                findings->allocated_units += info && info->subformat;
                findings->packed_units += info && info->codec;
                if (dmg_chunk_fault(dmg, img->file, chunk, &why))
                        vd_find(findings, VD_ERROR, chunk->is_missing ? "dmg-chunk-missing" : chunk->overlaps ?
                                "dmg-chunk-overlap" : info ? "dmg-chunk" : "dmg-chunk-type",
                                chunk->position < UINT64_MAX ? chunk->position : VD_NOWHERE, chunk->bytes, chunk->start,
                                chunk->end - chunk->start, false, "%s", why.text);
        }
}

/* Parts of the disk that no table has. */
static void check_gaps(const struct vd_image *img, const struct dmg *dmg, struct vd_findings *findings)
{
        uint64_t reach = 0;

        for (size_t i = 0; i <= dmg->chunk_count; i++) {
                const struct dmg_chunk *chunk = i < dmg->chunk_count ? &dmg->chunks[dmg->order[i]] : NULL;
                uint64_t next = chunk ? chunk->start : img->size;

                if (next > reach)
                        vd_find(findings, VD_NOTE, "dmg-gap", VD_NOWHERE, 0, reach, next - reach, false,
                                "no block table has the %" PRIu64 " bytes at guest offset %" PRIu64
                                ": they read as zeros", next - reach, reach);
                reach = chunk ? vd_max(reach, chunk->reach) : reach;
        }
}

int dmg_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct dmg *dmg = img->state;
        uint64_t end = vd_max(dmg->trailer_offset + sizeof(dmg->trailer), check->findings.end_offset);

        for (size_t i = 0; i < dmg->table_count; i++)
                check_table(dmg, i, &check->findings);
        check_chunks(img, dmg, &check->findings);
        check_gaps(img, dmg, &check->findings);
        sum_tables(dmg, &check->findings);
        if (end < vd_file_size(img->file))
                vd_find(&check->findings, VD_NOTE, "dmg-trailing", end, vd_file_size(img->file) - end, VD_NOWHERE, 0,
                        false,
                        "the file goes on for %" PRIu64 " bytes behind the trailer", vd_file_size(img->file) - end);
        return check->options->data ? sum_data(img, check, err) : 0;
}
