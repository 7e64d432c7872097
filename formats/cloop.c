// SPDX-License-Identifier: MIT
/* cloop.c: compressed loop images of Knoppix, versions 1 and 2 (reference: docs/formats.md, "cloop")
 *
 *      [ shell script, padded to 128 ][ be32 block size, be32 blocks ][ be64 offset per block, and one more ][ blocks ]
 *
 * Each block is a zlib stream that unpacks to the block size; it ends where the next one begins.  The disk is a whole
 * number of blocks.
 * Only read.  Refused: version 4, whose entries have a compressor in their top bits.
 * Cost: pages of the index.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/cache.h"
#include "core/check.h"
#include "core/image.h"
#include "util/checked.h"
#include "util/endian.h"
#include "util/text.h"

enum {
        SCRIPT_BYTES = 128,
        SECTOR = 512,
        BLOCK_MOST = 64 << 20,
        PAGE = 4096,
};

struct cloop_header_disk {
        char script[SCRIPT_BYTES];      /* "#!/bin/sh\n#V2.0 Format\nmodprobe cloop ..." */
        be32 block_bytes, blocks;
};
static_assert(sizeof(struct cloop_header_disk) == 136, "cloop header");

struct cloop {
        struct cloop_header_disk header;
        uint64_t block_bytes, blocks;
        uint64_t index_end;             /* of the file: blocks may begin here */
        struct vd_cache *index;
};

/* The version's digit, or 0 when this is no cloop. */
static char version_of(const char script[SCRIPT_BYTES])
{
        static const char start[] = "#!/bin/sh\n#V", end[] = " Format\n";
        const char *version = script + sizeof(start) - 1;

        if (memcmp(script, start, sizeof(start) - 1) != 0 || version[0] < '0' || version[0] > '9' ||
            version[1] != '.' || version[2] < '0' || version[2] > '9' || memcmp(version + 3, end, sizeof(end) - 1) != 0)
                return 0;
        return version[0];
}

static enum vd_match cloop_probe(const struct vd_probe *probe)
{
        return probe->head_bytes >= SCRIPT_BYTES && version_of((const char *)probe->head) ? VD_MATCH_SURE : VD_MATCH_NO;
}

static void cloop_close(struct vd_image *img)
{
        struct cloop *c = img->state;

        if (c)
                vd_cache_free(c->index);
        free(c);
        img->state = NULL;
}

static int get_offset(struct cloop *c, uint64_t i, uint64_t *offset, struct vd_error *err)
{
        void *entry;
        int r = vd_cache_get(c->index, sizeof(c->header) + i * sizeof(be64), &entry, err);

        if (!r)
                *offset = be64_get(*(const be64 *)entry);
        return r;
}

/* Where the packed bytes of a block are, checked. */
static int find_block(struct vd_image *img, uint64_t block, uint64_t *start, uint64_t *bytes, struct vd_error *err)
{
        struct cloop *c = img->state;
        uint64_t size = vd_file_size(img->file), end;
        int r = get_offset(c, block, start, err);

        if (!r)
                r = get_offset(c, block + 1, &end, err);
        if (r)
                return vd_error_prefix(err, "index");
        if (*start < c->index_end || end <= *start || end > size)
                return vd_fail(err, VD_ECORRUPT, "index: block %" PRIu64 " is at %" PRIu64 " to %" PRIu64
                               ", allowed are ascending offsets from %" PRIu64 " to the end of the file at %" PRIu64,
                               block,
                               *start, end, c->index_end, size);
        *bytes = end - *start;
        if (*bytes > 2 * c->block_bytes)
                return vd_fail(err, VD_ECORRUPT, "index: block %" PRIu64 " at %" PRIu64 " has %" PRIu64
                               " packed bytes, at most "
                               "%" PRIu64 " make sense", block, *start, *bytes, 2 * c->block_bytes);
        return 0;
}

static int check_numbers(struct vd_image *img, const struct cloop *c, struct vd_error *err)
{
        uint64_t size = vd_file_size(img->file);

        if (!c->block_bytes || c->block_bytes % SECTOR)
                return vd_fail(err, VD_ECORRUPT, "header: block size %" PRIu64 " is not a multiple of %d",
                               c->block_bytes, SECTOR);
        if (c->block_bytes > BLOCK_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "header: blocks of %" PRIu64 " bytes, at most %d supported",
                               c->block_bytes, BLOCK_MOST);
        if (!c->blocks)
                return vd_fail(err, VD_ECORRUPT, "header: no blocks");
        if (c->index_end > size)
                return vd_fail(err, VD_ECORRUPT, "header: the index of %" PRIu64 " blocks ends at %" PRIu64
                               ", but the file at %" PRIu64, c->blocks, c->index_end, size);
        return 0;
}

/* Versions from 3 on have other indexes; when this one makes no sense, that is why. */
static int explain_version(const struct cloop *c, struct vd_error *err)
{
        char version = version_of(c->header.script);

        if (version < '3')
                return err->code;
        return vd_fail(err, VD_EUNSUPPORTED, "cloop version %c is not supported", version);
}

static int cloop_open(struct vd_image *img, struct vd_error *err)
{
        enum { PAGES = 256 };
        struct cloop *c = calloc(1, sizeof(*c));
        uint64_t start, bytes;
        int r;

        if (!c)
                return vd_fail(err, -ENOMEM, "cloop header");
        img->state = c;
        r = vd_file_read(img->file, &c->header, sizeof(c->header), 0, err);
        if (!r && !version_of(c->header.script))
                r = vd_fail(err, VD_EFORMAT, "no cloop script at the beginning");
        if (!r && img->writable)
                r = vd_fail(err, VD_EUNSUPPORTED, "cloop images are only read");
        if (!r) {
                c->block_bytes = be32_get(c->header.block_bytes);
                c->blocks = be32_get(c->header.blocks);
                c->index_end = sizeof(c->header) + (c->blocks + 1) * sizeof(be64);
                r = check_numbers(img, c, err);
        }
        if (!r && !(c->index = vd_cache_new(img->file, sizeof(c->header), PAGE, PAGES, false)))
                r = vd_fail(err, -ENOMEM, "cache of the index");
        if (!r) {
                vd_cache_allow_short(c->index, 0);
                img->size = c->blocks * c->block_bytes;
                img->unit = c->block_bytes;
                img->is_packed = true;
                r = find_block(img, 0, &start, &bytes, err);
        }
        if (r) {
                r = explain_version(c, err);
                cloop_close(img);
        }
        return r;
}

static int cloop_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const struct cloop *c = img->state;
        uint64_t block = offset / c->block_bytes, start, bytes;
        int r = find_block(img, block, &start, &bytes, err);

        if (r)
                return r;
        *ext = (struct vd_extent){
                .start = offset, .length = vd_min(max, (block + 1) * c->block_bytes - offset), .kind = VD_PACKED,
                .file = img->file, .position = start, .unit_start = block * c->block_bytes,
                .unit_bytes = (uint32_t)c->block_bytes, .packed_bytes = (uint32_t)bytes, .codec = VD_CODEC_ZLIB,
        };
        return 0;
}

static void cloop_describe(struct vd_image *img, struct vd_report *report)
{
        const struct cloop *c = img->state;
        char text[SCRIPT_BYTES + 1] = "";

        vd_report_textf(report, "version", "version", "%.3s", c->header.script + strlen("#!/bin/sh\n#V"));
        vd_report_bytes(report, "block-size", "block size", c->block_bytes);
        vd_report_count(report, "blocks", "blocks", c->blocks);
        vd_report_text(report, "compression-type", "compression type", "zlib");
        memcpy(text, c->header.script, SCRIPT_BYTES);
        vd_report_text(report, "script", NULL, text);
}

static int cloop_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct cloop *c = img->state;
        struct vd_region index = { .class = VD_CLASS_TABLE, .length = c->index_end, .guest = VD_NOWHERE,
                                   .what = "header and index" };
        struct vd_region data = { .class = VD_CLASS_PACKED, .position = c->index_end, .guest = 0, .what = "blocks" };
        uint64_t size = vd_file_size(img->file), end;
        int r = vd_check_begin(check, 1, size, err);

        if (!r)
                r = vd_check_region(check, &index, err);
        if (!r)
                r = get_offset(c, c->blocks, &end, err);
        if (r)
                return r;
        end = vd_min(end, size);        /* an offset too large is found entry by entry */
        data.length = end > data.position ? end - data.position : 0;
        return data.length ? vd_check_region(check, &data, err) : 0;
}

static int cloop_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        struct cloop *c = img->state;
        struct vd_findings *findings = &check->findings;
        uint64_t size = vd_file_size(img->file), start, bytes, end;
        int r;

        findings->total_units = findings->allocated_units = findings->packed_units = c->blocks;
        for (uint64_t i = 0; i < c->blocks; i++) {
                struct vd_error why = VD_ERROR_INIT;

                if (find_block(img, i, &start, &bytes, &why) == 0)
                        continue;
                if (why.code != VD_ECORRUPT) {
                        *err = why;
                        return why.code;
                }
                vd_find(findings, VD_ERROR, "cloop-index-entry", sizeof(c->header) + i * sizeof(be64), 2 * sizeof(be64),
                        i * c->block_bytes, c->block_bytes, false, "%s", why.text);
        }
        r = get_offset(c, c->blocks, &end, err);
        if (!r && end < size)
                vd_find(findings, VD_NOTE, "cloop-trailing", end, size - end, VD_NOWHERE, 0, false,
                        "the file goes on for %" PRIu64 " bytes behind the last block", size - end);
        return r;
}

static const char *const extensions[] = { "cloop", NULL };

const struct vd_format vd_format_cloop = {
        .name = "cloop", .title = "compressed loop image (Knoppix)", .extensions = extensions, .caps = VD_CAP_PACKED,
        .probe = cloop_probe, .open = cloop_open, .close = cloop_close, .map = cloop_map, .describe = cloop_describe,
        .walk = cloop_walk, .check = cloop_check,
};
