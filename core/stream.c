// SPDX-License-Identifier: MIT
/* stream.c: writing a planned image from front to back.
 *
 *      plan  (ordered)   the next piece of the file: which parts of it are tables, which are data, and from where
 *      fetch (parallel)  read, unpack, pack again where the plan had to pack
 *      write (ordered)
 */
#include "stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "copy_job.h"
#include "pipeline.h"
#include "sink.h"
#include "util/checked.h"

enum {
        ITEM_BYTES = 512 * 1024,
        SLOTS_PER_THREAD = 3,
};

enum source { RECORDED, DATA, PACKED };

struct segment {
        enum source from;
        size_t at, length;              /* in the item's buffer */
        size_t first_extent, extent_count;
};

/* One item of the pipeline. */
struct item {
        uint64_t position;
        size_t length;
        char *buffer;
        struct segment *segments;
        size_t segment_count, segment_room;
        struct vd_extent *extents;
        size_t extent_count, extent_room;
        struct chunk *unit;             /* for packed units: what the copy engine fetches at once */
};

struct stream {
        const struct vd_copy_options *options;
        struct vd_file *record;
        const struct vd_layout_run *runs;
        size_t run_count, run;          /* the run that holds or follows the cursor */
        uint64_t size, cursor;
        size_t item_bytes;
        struct copy_job job;            /* as the plan had it */
        struct vd_sink sink;
};

static int add_segment(struct item *it, enum source from, size_t length, struct vd_error *err)
{
        int r = vd_copy_grow(&it->segments, it->segment_count, &it->segment_room, sizeof(*it->segments), err);

        if (!r)
                it->segments[it->segment_count++] = (struct segment){ from, it->length, length, it->extent_count, 0 };
        return r;
}

/* Where the source has [guest, guest + *length).  A packed extent that would be cut by the end of the item ends it
 * instead, so that nothing is unpacked twice: *length gets shorter. */
static int map_data(struct stream *s, struct item *it, uint64_t guest, uint64_t *length, struct vd_error *err)
{
        uint64_t done = 0;

        while (done < *length) {
                struct vd_extent ext;
                bool cut;
                int r = vd_copy_look_ahead(&s->job, guest + done, &ext, err);

                if (r)
                        return r;
                cut = ext.kind == VD_PACKED && ext.length > *length - done && (done || it->length);
                if (cut)
                        break;
                ext.length = vd_min(ext.length, *length - done);
                r = vd_copy_grow(&it->extents, it->extent_count, &it->extent_room, sizeof(*it->extents), err);
                if (r)
                        return r;
                it->extents[it->extent_count++] = ext;
                done += ext.length;
        }
        *length = done;
        return 0;
}

/* Guest bytes of the packed unit there. */
static uint64_t unit_length(const struct stream *s, uint64_t guest)
{
        const struct vd_image *target = s->job.targets->image;

        return vd_min(target->pack.unit, target->size - guest);
}

/* Adds what follows the cursor inside this run.  *full: it does not fit any more. */
static int plan_run(struct stream *s, struct item *it, const struct vd_layout_run *run, bool *full,
                    struct vd_error *err)
{
        uint64_t inside = s->cursor - run->position, length, room = s->item_bytes - it->length;
        int r;

        if (run->is_packed) {
                length = unit_length(s, run->guest);
                *full = run->length > room;
                if (*full)
                        return 0;
                r = add_segment(it, PACKED, run->length, err);
                if (!r)
                        r = map_data(s, it, run->guest, &length, err);
                length = run->length;
        } else {
                length = vd_min(run->length - inside, room);
                r = add_segment(it, DATA, length, err);
                if (!r)
                        r = map_data(s, it, run->guest + inside, &length, err);
                *full = length < vd_min(run->length - inside, room);
        }
        if (r)
                return r;
        if (!length) {
                it->segment_count--;
                return 0;
        }
        it->segments[it->segment_count - 1].length = length;
        it->segments[it->segment_count - 1].extent_count = it->extent_count -
                                                           it->segments[it->segment_count - 1].first_extent;
        it->length += length;
        s->cursor += length;
        if (s->cursor == run->position + run->length)
                s->run++;
        return 0;
}

static int plan(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct stream *s = context;
        struct item *it = slot;
        bool full = false;

        (void)worker;
        it->position = s->cursor;
        it->length = 0;
        it->segment_count = it->extent_count = 0;
        if (!it->buffer && !(it->buffer = malloc(s->item_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %zu bytes", s->item_bytes);
        while (s->cursor < s->size && it->length < s->item_bytes && !full) {
                const struct vd_layout_run *run = s->run < s->run_count ? &s->runs[s->run] : NULL;
                uint64_t length;
                int r;

                if (run && s->cursor >= run->position) {
                        r = plan_run(s, it, run, &full, err);
                } else {
                        length = vd_min((run ? run->position : s->size) - s->cursor, s->item_bytes - it->length);
                        r = add_segment(it, RECORDED, length, err);
                        it->length += length;
                        s->cursor += length;
                }
                if (r)
                        return r;
        }
        return it->length ? 0 : 1;
}

/* One unit through the fetch stage of the copy engine, which did the same with it when the image was laid out. */
static int fetch_packed(struct stream *s, struct item *it, const struct segment *g, unsigned worker,
                        struct vd_error *err)
{
        struct chunk *c = it->unit;
        struct portion *p;
        int r;

        if (!c && !(c = it->unit = vd_copy_new_chunk(&s->job)))
                return vd_fail(err, -ENOMEM, "a packed unit");
        if (!c->buffer && !(c->buffer = malloc(s->job.chunk_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", s->job.chunk_bytes);
        c->start = it->extents[g->first_extent].start;
        c->length = unit_length(s, c->start);
        c->extent_count = 0;
        for (size_t i = 0; i < g->extent_count; i++) {
                r = vd_copy_grow(&c->extents, c->extent_count, &c->extent_room, sizeof(*c->extents), err);
                if (r)
                        return r;
                c->extents[c->extent_count++] = it->extents[g->first_extent + i];
        }
        p = c->portions;
        p->piece_count = 0;
        r = vd_copy_fetch(&s->job, c, worker, err);
        if (r)
                return r;
        if (p->piece_count != 1 || p->pieces[0].kind != VD_PACKED || p->pieces[0].packed_bytes != g->length)
                return vd_fail(err, VD_ECHANGED, "%s: guest offset %" PRIu64 " was changed while it was read",
                               s->job.source->path, c->start);
        memcpy(it->buffer + g->at, p->pieces[0].bytes, g->length);
        return 0;
}

static int fetch(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct stream *s = context;
        struct item *it = slot;
        int r = 0;

        for (size_t i = 0; i < it->segment_count && !r; i++) {
                const struct segment *g = &it->segments[i];
                const struct vd_extent *ext = &it->extents[g->first_extent];
                char *to = it->buffer + g->at;

                switch (g->from) {
                case RECORDED:
                        r = vd_file_read(s->record, to, g->length, it->position + g->at, err);
                        break;
                case DATA:
                        for (size_t n = 0; n < g->extent_count && !r; n++) {
                                r = vd_copy_read(&s->job, &ext[n], to, s->job.codecs[worker], err);
                                to += ext[n].length;
                        }
                        break;
                case PACKED:
                        r = fetch_packed(s, it, g, worker, err);
                        break;
                }
        }
        return r;
}

static int write_item(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct stream *s = context;
        struct item *it = slot;
        int r = vd_sink_write(&s->sink, it->buffer, it->length, err);

        (void)worker;
        if (!r && s->options->progress)
                s->options->progress(s->options->context, it->position + it->length, s->size);
        vd_pace_keep(&s->job.pace, it->length);
        return r;
}

static const struct vd_stage stages[] = {
        { "plan", true, plan },
        { "fetch", false, fetch },
        { "write", true, write_item },
};

static void free_item(const struct stream *s, struct item *it)
{
        if (!it)
                return;
        free(it->buffer);
        free(it->segments);
        free(it->extents);
        vd_copy_free_chunk(&s->job, it->unit);
        free(it);
}

static int run(struct stream *s, unsigned threads, struct vd_error *err)
{
        size_t slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD;
        void **slots = calloc(slot_count, sizeof(*slots));
        int r = 0;

        s->job.codecs = calloc(threads, sizeof(struct vd_codec_context *));
        for (unsigned i = 0; i < threads && s->job.codecs && !r; i++)
                r = (s->job.codecs[i] = vd_codec_context_new()) ? 0 : -ENOMEM;
        for (size_t i = 0; i < slot_count && slots && !r; i++)
                r = (slots[i] = calloc(1, sizeof(struct item))) ? 0 : -ENOMEM;
        if (r || !slots || !s->job.codecs)
                r = vd_fail(err, -ENOMEM, "starting the stream");
        if (!r)
                r = vd_pipeline_run(stages, sizeof(stages) / sizeof(stages[0]), slots, slot_count, threads, s, err);
        for (size_t i = 0; i < slot_count && slots; i++)
                free_item(s, slots[i]);
        for (unsigned i = 0; i < threads && s->job.codecs; i++)
                vd_codec_context_free(s->job.codecs[i]);
        free(s->job.codecs);
        free(slots);
        return r;
}

int vd_stream_image(struct vd_layout *layout, struct vd_image *source, const struct vd_copy_options *options,
                    int fd, const char *name, struct vd_error *err)
{
        struct vd_copy_options planned = *options;
        struct stream s = {
                .options = options, .record = vd_layout_file(layout),
                .job = { .source = source, .options = &planned },
        };
        struct vd_image *target = vd_layout_target(layout);
        int r;

        planned.layout = layout;
        planned.skip = NULL;            /* what has a place is to be read, wherever it comes from */
        r = vd_copy_set_up(&s.job, &target, 1, err);
        if (r)
                goto done;
        s.runs = vd_layout_runs(layout, &s.run_count);
        s.size = vd_file_size(s.record);
        s.item_bytes = vd_max(ITEM_BYTES, vd_max(s.job.may_be_packed ? source->unit : 0, s.job.targets->packed_stride));
        vd_sink_init(&s.sink, fd, name, options->stop);
        r = run(&s, vd_copy_threads(options), err);
        if (!r)
                r = vd_sink_finish(&s.sink, err);
done:
        vd_copy_tear_down(&s.job);
        return r;
}

int vd_stream_file(struct vd_file *file, const struct vd_copy_options *options, int fd, const char *name,
                   struct vd_error *err)
{
        char *buffer = malloc(ITEM_BYTES);
        uint64_t size = vd_file_size(file);
        struct vd_sink sink;
        int r = buffer ? 0 : vd_fail(err, -ENOMEM, "a buffer of %d bytes", (int)ITEM_BYTES);

        vd_sink_init(&sink, fd, name, options->stop);
        for (uint64_t at = 0; at < size && !r; ) {
                size_t n = vd_min(ITEM_BYTES, size - at);

                r = vd_file_read(file, buffer, n, at, err);
                if (!r)
                        r = vd_sink_write(&sink, buffer, n, err);
                at += n;
        }
        if (!r)
                r = vd_sink_finish(&sink, err);
        free(buffer);
        return r;
}
