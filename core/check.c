// SPDX-License-Identifier: MIT
/* check.c: the checker that every format shares: walk, space map, the driver's own check, and the data. */
#include "check.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "util/checked.h"

#define PIECE_BYTES (UINT64_C(1) << 20)

enum { FAILURES_MOST = VD_FINDINGS_KEPT / 2 };  /* unreadable units before the rest is given up */

int vd_check_begin(struct vd_check *check, uint64_t granule, uint64_t limit, struct vd_error *err)
{
        assert(!check->space);
        check->space = vd_spacemap_new(granule, limit);
        return check->space ? 0 : vd_fail(err, -ENOMEM, "map of the space in use");
}

int vd_check_region(struct vd_check *check, const struct vd_region *region, struct vd_error *err)
{
        uint64_t end;

        if (vd_spacemap_add(check->space, region, &check->findings) < 0)
                return vd_fail(err, -ENOMEM, "map of the space in use");
        if (vd_add(region->position, region->length, &end))
                check->findings.end_offset = vd_max(check->findings.end_offset, end);
        return 0;
}

void vd_check_free(struct vd_check *check)
{
        vd_findings_free(&check->findings);
        vd_spacemap_free(check->space);
        check->space = NULL;
}

/* ---- reading everything ---- */

struct reader {
        struct vd_image *image;
        const struct vd_check_options *options;
        struct vd_findings *findings;
        struct vd_codec_context *codec;
        uint8_t *buffer;
        uint64_t room;
        uint64_t failures;
};

/* Faults of the image and of the disk below it are what a check is for; anything else (encrypted data, no memory) is a
 * failure to check. */
static bool is_finding(int code)
{
        return code == VD_ECORRUPT || code == -EIO;
}

static int read_piece(struct reader *reader, const struct vd_extent *extent, struct vd_error *err)
{
        bool packed = extent->kind == VD_PACKED;
        struct vd_error why = VD_ERROR_INIT;

        if (extent->length > reader->room) {
                free(reader->buffer);
                reader->room = 0;
                reader->buffer = malloc(extent->length);
                if (!reader->buffer)
                        return vd_fail(err, -ENOMEM, "reading %" PRIu64 " bytes", extent->length);
                reader->room = extent->length;
        }
        if (vd_extent_read(extent, reader->buffer, reader->codec, &why) == 0)
                return 0;
        if (!is_finding(why.code)) {
                *err = why;
                return why.code;
        }
        reader->failures++;
        vd_find(reader->findings, VD_ERROR, packed ? "packed-data" : "unreadable-data", extent->position,
                packed ? extent->packed_bytes : extent->length, extent->start, extent->length, false,
                "guest data cannot be read: %s", why.text);
        return 0;
}

/* One extent, piece by piece; an extent that cannot be mapped counts up to the end of its unit.  *end: where the next
 * one begins. */
static int read_extent(struct reader *reader, uint64_t offset, uint64_t *end, struct vd_error *err)
{
        struct vd_image *image = reader->image;
        struct vd_extent extent = { .start = offset }, piece;
        struct vd_error why = VD_ERROR_INIT;

        if (image->format->map(image, offset, image->size - offset, &extent, &why) < 0) {
                uint64_t unit = image->unit ? image->unit : PIECE_BYTES;
                uint64_t left = unit - offset % unit;

                if (!is_finding(why.code)) {
                        *err = why;
                        return why.code;
                }
                *end = offset + vd_min(left, image->size - offset);
                reader->failures++;
                vd_find(reader->findings, VD_ERROR, "unreadable-data", VD_NOWHERE, 0, offset, *end - offset, false,
                        "guest data cannot be found: %s", why.text);
                return 0;
        }
        *end = offset + extent.length;
        if (extent.kind != VD_DATA && extent.kind != VD_PACKED)
                return 0;
        piece = extent;
        for (uint64_t done = 0; done < extent.length; done += piece.length) {
                if (reader->options->stop && *reader->options->stop)
                        return vd_fail(err, VD_ESTOPPED, "stopped");
                piece.start = extent.start + done;
                piece.length = extent.length - done;
                if (extent.kind == VD_DATA) {
                        piece.length = vd_min(piece.length, PIECE_BYTES);
                        piece.position = extent.position + done;
                }
                if (read_piece(reader, &piece, err) < 0)
                        return err->code;
                if (reader->options->progress)
                        reader->options->progress(reader->options->context, piece.start + piece.length,
                                                  image->size);
        }
        return 0;
}

static int read_all(struct vd_image *image, const struct vd_check_options *options, struct vd_findings *findings,
                    struct vd_error *err)
{
        struct reader reader = {
                .image = image, .options = options, .findings = findings, .codec = vd_codec_context_new(),
        };
        int r = reader.codec ? 0 : vd_fail(err, -ENOMEM, "reading the data");

        for (uint64_t offset = 0; offset < image->size && r == 0;) {
                if (options->stop && *options->stop) {
                        r = vd_fail(err, VD_ESTOPPED, "stopped");
                        break;
                }
                /* A small hostile image may claim 2^63 bytes of which it can show none. */
                if (reader.failures == FAILURES_MOST) {
                        vd_find(findings, VD_ERROR, "data-check-incomplete", VD_NOWHERE, 0, offset,
                                image->size - offset, false, "too many unreadable units: nothing after guest offset %"
                                PRIu64 " was read", offset);
                        break;
                }
                r = read_extent(&reader, offset, &offset, err);
                if (r == 0 && options->progress)
                        options->progress(options->context, offset, image->size);
        }
        free(reader.buffer);
        vd_codec_context_free(reader.codec);
        return r;
}

int vd_check_image(struct vd_image *image, const struct vd_check_options *options, struct vd_check *check,
                   struct vd_error *err)
{
        const struct vd_format *format = image->format;
        int r = 0;

        if (!format->walk && !options->data)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: %s images have no structure to check, only data (--data)",
                               image->path, format->name);
        check->options = options;
        if (format->walk)
                r = format->walk(image, check, err);
        if (r == 0 && format->check)
                r = format->check(image, check, err);
        if (r == 0 && options->data && format->verify)
                r = format->verify(image, &check->findings, options->stop, err);
        if (r == 0 && options->data)
                r = read_all(image, options, &check->findings, err);
        if (r == 0 && check->findings.failed)
                r = vd_fail(err, -ENOMEM, "keeping what was found");
        return r < 0 && r != VD_ESTOPPED ? vd_error_prefix(err, "%s", image->path) : r;
}

int vd_image_verify(struct vd_image *image, const volatile int *stop, struct vd_error *err)
{
        int r = 0;

        for (; image && r == 0; image = image->parent) {
                struct vd_findings findings = { 0 };

                if (!image->format->verify)
                        continue;
                r = image->format->verify(image, &findings, stop, err);
                for (size_t i = 0; i < findings.count && r == 0; i++)
                        if (findings.items[i].severity == VD_ERROR)
                                r = vd_fail(err, VD_ECORRUPT, "%s", findings.items[i].text);
                if (r == 0 && findings.failed)
                        r = vd_fail(err, -ENOMEM, "keeping what was found");
                vd_findings_free(&findings);
                if (r < 0 && r != VD_ESTOPPED)
                        vd_error_prefix(err, "%s", image->path);
        }
        return r;
}
