// SPDX-License-Identifier: MIT
/* dmg.c: Apple disk images, UDIF (reference: docs/formats.md, "DMG")
 *
 *      [ chunks: the data fork ][ XML property list with the block tables ][ trailer 512 ]
 *
 * A block table per partition lists chunks: plain, packed in one of five ways, or nothing at all.  A chunk has a length
 * of its own and may begin at any sector.
 * Only read.  Refused: encrypted and segmented images, sparse images; an image without trailer is a raw disk.
 * Quirk: where a writer leaves the number of sectors 0 in the trailer, the tables tell the size.
 * Cost: 60 bytes of memory per chunk.
 */
#include "dmg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shared/guid.h"
#include "util/checked.h"

enum { SIGNATURE_BYTES = 8 };

static const struct {
        char magic[SIGNATURE_BYTES + 1];
        uint8_t length;
        bool at_end;
        const char *what;
} strangers[] = {
        { "encrcdsa", 8, false, "encrypted disk images" },
        { "cdsaencr", 8, true, "encrypted disk images (version 1)" },
        { "sprs", 4, false, "sparse disk images (.sparseimage)" },
};

/* Images that are called .dmg, too, but are something else; NULL: not among these. */
static const char *stranger(const uint8_t *head, size_t head_bytes, const uint8_t *tail, size_t tail_bytes)
{
        for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
                size_t length = strangers[i].length;

                if (strangers[i].at_end ? tail_bytes >= length && !memcmp(tail + tail_bytes - length,
                                                                          strangers[i].magic, length)
                                        : head_bytes >= length && !memcmp(head, strangers[i].magic, length))
                        return strangers[i].what;
        }
        return NULL;
}

/* Where in these last bytes of the file the trailer begins: mostly at the end, else there is something behind. */
static bool find_trailer(const uint8_t *tail, size_t bytes, size_t *at)
{
        size_t size = sizeof(struct dmg_trailer_disk);

        if (bytes < size)
                return false;
        if (!memcmp(tail + bytes - size, "koly", 4)) {
                *at = bytes - size;
                return true;
        }
        for (*at = bytes - size; *at; (*at)--)
                if (dmg_is_trailer(tail + *at))
                        return true;
        return dmg_is_trailer(tail);
}

static enum vd_match dmg_probe(const struct vd_probe *probe)
{
        size_t at, size = sizeof(struct dmg_trailer_disk);
        bool found = find_trailer(probe->tail, probe->tail_bytes, &at);

        if (found && at == probe->tail_bytes - size)
                return VD_MATCH_SURE;
        if (probe->head_bytes >= size && dmg_is_trailer(probe->head))
                return VD_MATCH_SURE;
        if (found || stranger(probe->head, probe->head_bytes, probe->tail, probe->tail_bytes))
                return VD_MATCH_WEAK;
        return VD_MATCH_NO;
}

static int read_trailer(struct dmg *dmg, struct vd_file *file, struct vd_error *err)
{
        uint64_t size = vd_file_size(file), tail_bytes = vd_min(size, VD_PROBE_BYTES);
        uint8_t head[sizeof(struct dmg_trailer_disk)], tail[VD_PROBE_BYTES];
        size_t head_bytes, at;
        const char *what;
        int r = vd_file_read_some(file, head, sizeof(head), 0, &head_bytes, err);

        if (!r)
                r = vd_file_read(file, tail, tail_bytes, size - tail_bytes, err);
        if (r)
                return r;
        what = stranger(head, head_bytes, tail, tail_bytes);
        if (find_trailer(tail, tail_bytes, &at)) {
                memcpy(&dmg->trailer, tail + at, sizeof(dmg->trailer));
                dmg->trailer_offset = size - tail_bytes + at;
        } else if (head_bytes == sizeof(head) && dmg_is_trailer(head)) {
                memcpy(&dmg->trailer, head, sizeof(dmg->trailer));
        } else if (what) {
                return vd_fail(err, VD_EUNSUPPORTED, "%s are not read", what);
        } else {
                return vd_fail(err, VD_EFORMAT, "no 'koly' trailer at the end of the file");
        }
        if (!dmg_is_trailer(&dmg->trailer))
                return vd_fail(err, VD_EUNSUPPORTED, "trailer: version %u of %u bytes, known is 4 of 512",
                               (unsigned)be32_get(dmg->trailer.version), (unsigned)be32_get(dmg->trailer.header_bytes));
        return 0;
}

static int parse_trailer(struct dmg *dmg, struct vd_error *err)
{
        const struct dmg_trailer_disk *t = &dmg->trailer;
        uint64_t end;

        if (be32_get(t->segments) > 1 || be32_get(t->segment) > 1 || be64_get(t->running_offset))
                return vd_fail(err, VD_EUNSUPPORTED, "segment %u of %u: segmented images are not read",
                               (unsigned)be32_get(t->segment), (unsigned)be32_get(t->segments));
        dmg->fork_offset = be64_get(t->fork_offset);
        dmg->fork_bytes = be64_get(t->fork_bytes);
        if (!vd_add(dmg->fork_offset, dmg->fork_bytes, &end))
                return vd_fail(err, VD_ECORRUPT, "trailer: data fork of %" PRIu64 " bytes at %" PRIu64, dmg->fork_bytes,
                               dmg->fork_offset);
        dmg->is_resource_fork = !be64_get(t->list_bytes) && be64_get(t->resource_bytes);
        dmg->list_offset = be64_get(dmg->is_resource_fork ? t->resource_offset : t->list_offset);
        dmg->list_bytes = be64_get(dmg->is_resource_fork ? t->resource_bytes : t->list_bytes);
        if (!dmg->list_bytes)
                return vd_fail(err, VD_ECORRUPT, "trailer: neither property list nor resource fork");
        return 0;
}

/* The size of the disk is what the trailer says; tables that reach further are broken. */
static int find_size(struct dmg *dmg, struct vd_error *err)
{
        uint64_t sectors = be64_get(dmg->trailer.sectors), reach = 0;

        for (size_t i = 0; i < dmg->table_count; i++)
                reach = vd_max(reach, dmg->tables[i].end);
        if (!vd_mul(sectors, DMG_SECTOR, &dmg->size) || dmg->size > INT64_MAX)
                return vd_fail(err, VD_ECORRUPT, "trailer: %" PRIu64 " sectors are more than a disk can have", sectors);
        if (!dmg->size)
                dmg->size = reach;
        if (!dmg->size)
                return vd_fail(err, VD_ECORRUPT, "neither trailer nor block tables have any sectors");
        if (reach > dmg->size)
                return vd_fail(err, VD_ECORRUPT, "block tables reach to %" PRIu64 ", but the disk has %" PRIu64
                               " bytes", reach, dmg->size);
        return 0;
}

static int load(struct dmg *dmg, struct vd_file *file, struct vd_error *err)
{
        int r = read_trailer(dmg, file, err);

        if (!r)
                r = parse_trailer(dmg, err);
        if (!r)
                r = dmg_read_tables(dmg, file, err);
        if (!r)
                r = find_size(dmg, err);
        return r ? r : dmg_sort_chunks(dmg, err);
}

static int dmg_open(struct vd_image *img, struct vd_error *err)
{
        struct dmg *dmg = calloc(1, sizeof(*dmg));
        int r;

        if (!dmg)
                return vd_fail(err, -ENOMEM, "UDIF trailer");
        r = load(dmg, img->file, err);
        if (!r && img->writable)
                r = vd_fail(err, VD_EUNSUPPORTED, "dmg images are only read");
        if (r) {
                dmg_free(dmg);
                return r;
        }
        img->state = dmg;
        img->size = dmg->size;
        for (size_t i = 0; i < dmg->chunk_count; i++) {
                const struct dmg_type_info *info = dmg_type_info(dmg->chunks[i].type);

                if (!info || !info->codec)
                        continue;
                img->is_packed = true;
                img->unit = vd_max(img->unit, vd_min(dmg->chunks[i].end - dmg->chunks[i].start, DMG_UNIT_MOST));
        }
        return 0;
}

static void dmg_close(struct vd_image *img)
{
        dmg_free(img->state);
        img->state = NULL;
}

/* How many chunks begin at offset or before. */
static size_t chunks_up_to(const struct dmg *dmg, uint64_t offset)
{
        size_t low = 0, high = dmg->chunk_count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (dmg->chunks[dmg->order[middle]].start <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static int dmg_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct dmg *dmg = img->state;
        size_t i = chunks_up_to(dmg, offset);
        const struct dmg_chunk *chunk = i ? &dmg->chunks[dmg->order[i - 1]] : NULL;
        int r;

        if (!chunk || offset >= chunk->reach) {         /* between tables, or after the last */
                uint64_t end = i < dmg->chunk_count ? dmg->chunks[dmg->order[i]].start : img->size;

                *ext = (struct vd_extent){ .start = offset, .length = vd_min(max, end - offset), .kind = VD_ZERO };
                return 0;
        }
        r = dmg_chunk_fault(dmg, img->file, chunk, err);
        if (!r)
                dmg_chunk_extent(chunk, img->file, offset, max, ext);
        return r;
}

/* ---- info ---- */

static const char *variant_name(uint32_t variant)
{
        return variant == DMG_VARIANT_DEVICE ? "device" : variant == DMG_VARIANT_PARTITION ? "partition" : "unknown";
}

/* "UDZO", or several joined when chunks are of several kinds. */
static void describe_kinds(const struct dmg *dmg, struct vd_report *report)
{
        static const enum dmg_type kinds[] = { DMG_RAW, DMG_ADC, DMG_ZLIB, DMG_BZIP2, DMG_LZFSE, DMG_XZ };
        char names[64] = "", codecs[64] = "";

        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
                const struct dmg_type_info *info = dmg_type_info(kinds[k]);
                size_t i = 0;

                while (i < dmg->chunk_count && dmg->chunks[i].type != kinds[k])
                        i++;
                if (i == dmg->chunk_count)
                        continue;
                strcat(strcat(names, names[0] ? "+" : ""), info->subformat);
                if (info->codec)
                        strcat(strcat(codecs, codecs[0] ? "+" : ""), info->name);
        }
        if (names[0])
                vd_report_text(report, "subformat", "subformat", names);
        if (codecs[0])
                vd_report_text(report, "compression-type", "compression type", codecs);
}

static void describe_checksum(struct vd_report *report, const char *key, const char *label, uint32_t type,
                              uint32_t value)
{
        if (type == DMG_CRC32)
                vd_report_textf(report, key, label, "%08x (CRC-32)", (unsigned)value);
        else if (type)
                vd_report_textf(report, key, label, "type %u", (unsigned)type);
}

static uint32_t checksum_value(const struct dmg_checksum_disk *checksum)
{
        return be32_get(*(const be32 *)(const void *)checksum->value);
}

static void describe_table(const struct dmg_table *table, struct vd_report *list)
{
        struct vd_report *item = vd_report_item(list);

        vd_report_text(item, "name", "name", table->name ? table->name : "");
        vd_report_count(item, "start", "start", table->start);
        vd_report_count(item, "length", "length", table->end - table->start);
        vd_report_count(item, "chunks", "chunks", table->count);
        if (table->checksum_type == DMG_CRC32)
                vd_report_textf(item, "crc32", "CRC-32", "%08x", (unsigned)table->checksum);
}

static void dmg_describe(struct vd_image *img, struct vd_report *report)
{
        const struct dmg *dmg = img->state;
        const struct dmg_trailer_disk *t = &dmg->trailer;
        char id[VD_GUID_TEXT];
        struct vd_report *list;

        describe_kinds(dmg, report);
        vd_report_text(report, "variant", "variant", variant_name(be32_get(t->variant)));
        vd_report_count(report, "version", "version", be32_get(t->version));
        vd_report_textf(report, "flags", "flags", "0x%x", (unsigned)be32_get(t->flags));
        if (!vd_guid_is_zero(t->segment_id))
                vd_report_text(report, "segment-uuid", "UUID of segment", vd_guid_text(t->segment_id, VD_GUID_RFC, id));
        vd_report_offset(report, "data-offset", "data fork at", dmg->fork_offset);
        vd_report_bytes(report, "data-size", "data fork size", dmg->fork_bytes);
        vd_report_text(report, "tables-in", "tables in", dmg->is_resource_fork ? "resource fork" : "property list");
        vd_report_offset(report, "tables-offset", "tables at", dmg->list_offset);
        describe_checksum(report, "checksum", "checksum of tables", be32_get(t->checksum.type),
                          checksum_value(&t->checksum));
        describe_checksum(report, "data-checksum", "checksum of data fork", be32_get(t->fork_checksum.type),
                          checksum_value(&t->fork_checksum));
        if (!be64_get(t->sectors))
                vd_report_text(report, "size-from", "size taken from", "block tables");
        vd_report_count(report, "chunks", "chunks", dmg->chunk_count);
        list = vd_report_table(report, "tables", "block tables");
        for (size_t i = 0; i < dmg->table_count; i++)
                describe_table(&dmg->tables[i], list);
}

static const char *const extensions[] = { "dmg", NULL };

const struct vd_format vd_format_dmg = {
        .name = "dmg", .title = "Apple disk image (UDIF)", .extensions = extensions, .caps = VD_CAP_PACKED,
        .probe = dmg_probe, .open = dmg_open, .close = dmg_close, .map = dmg_map, .describe = dmg_describe,
        .walk = dmg_walk, .check = dmg_check,
};
