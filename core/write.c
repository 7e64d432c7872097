// SPDX-License-Identifier: MIT
/* write.c: batches of places, barriers, and writing at any offset. */
#include "write.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum {
        BATCH_PLACES = 1024,            /* in place: what one pair of syncs pays for */
        BATCH_BYTES = 64 * 1024 * 1024,
        WRITE_STEP = 1024 * 1024,
};

struct vd_writer {
        struct vd_image *image;
        struct vd_codec_context *codec; /* for reading the edges of units; made when needed */
        struct vd_place *places;        /* oldest first; the first `written` have their bytes in the file */
        size_t count, room, written;
        uint64_t written_bytes;
        uint64_t first, end;            /* all places lie inside this guest range */
};

static int in_image(const struct vd_writer *w, struct vd_error *err)
{
        char shown[512];

        return vd_error_prefix(err, "%s", vd_printable(shown, sizeof(shown), w->image->path, strlen(w->image->path)));
}

struct vd_writer *vd_writer_new(struct vd_image *img)
{
        struct vd_writer *w = calloc(1, sizeof(*w));

        if (w)
                w->image = img;
        return w;
}

void vd_writer_free(struct vd_writer *w)
{
        if (!w)
                return;
        vd_codec_context_free(w->codec);
        free(w->places);
        free(w);
}

int vd_image_barrier(struct vd_image *img, struct vd_file *file, struct vd_error *err)
{
        return img->is_new ? 0 : vd_file_sync(file, err);
}

static bool is_pending(const struct vd_writer *w, uint64_t start, uint64_t length)
{
        if (start >= w->end || start + length <= w->first)      /* the way of every copy */
                return false;
        for (size_t i = 0; i < w->count; i++)
                if (w->places[i].start < start + length && start < w->places[i].start + w->places[i].length)
                        return true;
        return false;
}

int vd_writer_place(struct vd_writer *w, const struct vd_request *request, struct vd_place *place,
                    struct vd_error *err)
{
        const struct vd_format *format = w->image->format;
        int r;

        /* The driver still sees the tables as they were: it would write into what is about to be dropped, or leave alone
         * as empty what is about to be filled. */
        if (is_pending(w, request->start, request->length)) {
                r = vd_writer_commit(w, err);
                if (r)
                        return r;
        }
        if (w->count == w->room) {
                size_t room = w->room ? w->room * 2 : 64;
                struct vd_place *places = realloc(w->places, room * sizeof(*places));

                if (!places)
                        return vd_fail(err, -ENOMEM, "%zu places", room);
                w->places = places;
                w->room = room;
        }
        if (!w->image->writable || !format->place) {
                vd_fail(err, VD_EUNSUPPORTED, "%s images cannot be written in place", format->name);
                return in_image(w, err);
        }
        memset(place, 0, sizeof(*place));
        r = format->place(w->image, request, place, err);
        if (!r && (place->start != request->start || !place->length || place->length > request->length))
                r = vd_fail(err, -EINVAL, "%s: placed %" PRIu64 "+%" PRIu64 " for a request of %" PRIu64 "+%" PRIu64,
                            format->name, place->start, place->length, request->start, request->length);
        if (r)
                return in_image(w, err);
        w->places[w->count++] = *place;
        w->first = w->count == 1 ? place->start : vd_min(w->first, place->start);
        w->end = vd_max(w->end, place->start + place->length);
        return 0;
}

int vd_place_write(const struct vd_place *place, const void *bytes, struct vd_error *err)
{
        uint64_t length = place->kind == VD_PACKED ? place->packed_bytes : place->length;
        int r;

        if (place->kind != VD_DATA && place->kind != VD_PACKED)
                return 0;
        r = bytes ? vd_file_write(place->file, bytes, length, place->position, err)
                  : vd_file_zero(place->file, place->position, length, err);
        if (!r && place->pad)
                r = vd_file_zero(place->file, place->position + length, place->pad, err);
        return r;
}

/* Publishes the first `written` places and forgets them. */
static int publish(struct vd_writer *w, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < w->written && !r; i++)
                r = w->image->format->publish(w->image, &w->places[i], err);
        memmove(w->places, w->places + w->written, (w->count - w->written) * sizeof(*w->places));
        w->count -= w->written;
        w->written = 0;
        w->written_bytes = 0;
        if (!w->count)
                w->first = w->end = 0;
        return r;
}

static int sync_data(struct vd_writer *w, struct vd_error *err)
{
        struct vd_file *last = w->image->file;
        int r = vd_image_barrier(w->image, last, err);

        for (size_t i = 0; i < w->written && !r; i++) {
                struct vd_file *file = w->places[i].file;

                if (file && file != last && file != w->image->file) {
                        r = vd_image_barrier(w->image, file, err);
                        last = file;
                }
        }
        return r;
}

int vd_writer_commit(struct vd_writer *w, struct vd_error *err)
{
        const struct vd_format *format = w->image->format;
        int r;

        if (!w->written)
                return 0;
        if (w->image->is_new) {
                r = publish(w, err);
                return r ? in_image(w, err) : 0;
        }
        r = format->settle ? format->settle(w->image, err) : 0;
        if (!r)
                r = sync_data(w, err);
        if (!r)
                r = publish(w, err);
        if (!r && format->flush)
                r = format->flush(w->image, err);
        if (!r)
                r = vd_image_barrier(w->image, w->image->file, err);
        return r ? in_image(w, err) : 0;
}

int vd_writer_written(struct vd_writer *w, size_t count, struct vd_error *err)
{
        for (size_t i = w->written; i < w->written + count; i++)
                w->written_bytes += w->places[i].kind == VD_DATA ? w->places[i].length : w->places[i].packed_bytes;
        w->written += count;
        if (w->image->is_new || w->written >= BATCH_PLACES || w->written_bytes >= BATCH_BYTES)
                return vd_writer_commit(w, err);
        return 0;
}

int vd_writer_finish(struct vd_writer *w, struct vd_error *err)
{
        const struct vd_format *format = w->image->format;
        int r = vd_writer_commit(w, err);

        if (r)
                return r;
        if (format->finish)
                r = format->finish(w->image, err);
        if (!r)
                r = vd_image_barrier(w->image, w->image->file, err);
        if (!r)
                r = vd_file_finish(w->image->file, err);
        return r ? in_image(w, err) : 0;
}

/* Reads the part of a unit that the caller does not write, as the disk has it now. */
static int read_edge(struct vd_writer *w, char *to, uint64_t start, uint64_t end, struct vd_error *err)
{
        int r;

        if (start >= end)
                return 0;
        if (is_pending(w, start, end - start)) {
                r = vd_writer_commit(w, err);
                if (r)
                        return r;
        }
        if (!w->codec && !(w->codec = vd_codec_context_new()))
                return vd_fail(err, -ENOMEM, "reading for a partial write");
        return vd_image_read(w->image, to, end - start, start, w->codec, err);
}

/* One step: [start, end) is aligned to write units and holds [offset, offset + length). */
static int write_units(struct vd_writer *w, const char *bytes, size_t length, uint64_t offset, uint64_t start,
                       uint64_t end, struct vd_error *err)
{
        VD_AUTOFREE char *copy = NULL;
        const char *from = bytes;
        int r;

        if (start < offset || end > offset + length) {
                copy = malloc(end - start);
                if (!copy)
                        return vd_fail(err, -ENOMEM, "a partial write");
                r = read_edge(w, copy, start, offset, err);
                if (!r)
                        r = read_edge(w, copy + (offset + length - start), offset + length, end, err);
                if (r)
                        return r;
                memcpy(copy + (offset - start), bytes, length);
                from = copy;
        }
        while (start < end) {
                struct vd_request request = { .start = start, .length = end - start, .kind = VD_DATA };
                struct vd_place place;

                r = vd_writer_place(w, &request, &place, err);
                if (!r)
                        r = vd_place_write(&place, from, err);
                if (!r)
                        r = vd_writer_written(w, 1, err);
                if (r)
                        return r;
                from += place.length;
                start += place.length;
        }
        return 0;
}

int vd_writer_write(struct vd_writer *w, const void *bytes, size_t length, uint64_t offset, struct vd_error *err)
{
        uint64_t unit = w->image->write_unit, step = vd_max(unit, vd_round_down(WRITE_STEP, unit));
        const char *from = bytes;

        if (!vd_range_fits(offset, length, w->image->size)) {
                vd_fail(err, -ENOSPC, "writing %zu bytes at %" PRIu64 " of a disk of %" PRIu64 " bytes", length, offset,
                        w->image->size);
                return in_image(w, err);
        }
        while (length) {
                uint64_t start = vd_round_down(offset, unit);
                uint64_t end = vd_min(vd_round_up(offset + length, unit), start + step);
                size_t n = vd_min(length, end - offset);
                int r = write_units(w, from, n, offset, start, vd_min(end, w->image->size), err);

                if (r)
                        return r;
                from += n;
                offset += n;
                length -= n;
        }
        return 0;
}
