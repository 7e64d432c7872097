// SPDX-License-Identifier: MIT
/* layout.c: a copy that goes nowhere. */
#include "layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copy_job.h"
#include "output.h"
#include "util/checked.h"

enum { RUNS_MOST = 1024 * 1024 };       /* 24 MiB; an image in more pieces is streamed by way of a temporary file */

struct vd_layout {
        enum vd_layout_purpose purpose;
        bool pretends;
        struct vd_output *output;
        struct vd_image *target;
        enum vd_layout_shape shape;
        struct vd_layout_run *runs;
        size_t run_count, run_room;
};

/* ---- disks without a file: all zeros, or all data ---- */

static int even_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        const enum vd_kind *kind = img->state;

        (void)offset;
        (void)err;
        ext->kind = *kind;
        ext->length = max;
        return 0;
}

static const struct vd_format even_format = {
        .name = "even", .title = "zeros, or data that nobody reads", .map = even_map,
};

/* ---- notes ---- */

enum vd_layout_purpose vd_layout_purpose(const struct vd_layout *layout)
{
        return layout->purpose;
}

bool vd_layout_pretends(const struct vd_layout *layout)
{
        return layout->pretends;
}

static int add_run(struct vd_layout *layout, const struct vd_place *place, struct vd_error *err)
{
        struct vd_layout_run *last = layout->run_count ? &layout->runs[layout->run_count - 1] : NULL;
        bool packed = place->kind == VD_PACKED;
        uint64_t length = packed ? place->packed_bytes : place->length;
        int r;

        if (last && !packed && !last->is_packed && last->position + last->length == place->position &&
            last->guest + last->length == place->start) {
                last->length += length;
                return 0;
        }
        if (layout->run_count == RUNS_MOST) {
                layout->shape = VD_SHAPE_SCATTERED;
                return 0;
        }
        r = vd_copy_grow(&layout->runs, layout->run_count, &layout->run_room, sizeof(*layout->runs), err);
        if (!r)
                layout->runs[layout->run_count++] = (struct vd_layout_run){
                        .position = place->position, .guest = place->start, .length = length, .is_packed = packed,
                };
        return r;
}

int vd_layout_note(struct vd_layout *layout, const struct vd_place *place, bool is_zero, struct vd_error *err)
{
        uint64_t length = place->kind == VD_PACKED ? place->packed_bytes : place->length;

        if (place->kind != VD_DATA && place->kind != VD_PACKED)
                return 0;
        vd_file_record_grow(place->file, place->position + length + place->pad);
        if (is_zero || layout->purpose != VD_LAYOUT_STREAM || place->file != vd_output_file(layout->output))
                return 0;
        return add_run(layout, place, err);
}

/* ---- making one ---- */

static int compare_runs(const void *a, const void *b)
{
        const struct vd_layout_run *x = a, *y = b;

        return x->position < y->position ? -1 : x->position > y->position;
}

/* Formats hand out space in ascending order, except where the rest of an old cluster is used up. */
static void sort_runs(struct vd_layout *layout)
{
        for (size_t i = 1; i < layout->run_count; i++) {
                if (layout->runs[i - 1].position > layout->runs[i].position) {
                        qsort(layout->runs, layout->run_count, sizeof(*layout->runs), compare_runs);
                        return;
                }
        }
}

/* What cannot be read is listed when it is written. */
static void ignore_unreadable(void *context, uint64_t start, uint64_t length, const struct vd_error *why)
{
        (void)context;
        (void)start;
        (void)length;
        (void)why;
}

static int copy(struct vd_layout *layout, struct vd_image *source, struct vd_image *target,
                const struct vd_copy_options *options, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_copy_options planning = *options;
        enum vd_kind kind = layout->purpose == VD_LAYOUT_FULL_SIZE ? VD_DATA : VD_ZERO;
        struct vd_image disk = { .format = &even_format, .path = "", .file = target->file, .state = &kind,
                                 .size = target->size };
        struct vd_writer *writer;
        int r;

        planning.layout = layout;
        planning.progress = NULL;
        if (planning.unreadable)
                planning.unreadable = ignore_unreadable;
        if (layout->pretends)
                planning.skip = NULL;
        r = vd_copy(layout->pretends ? &disk : source, &target, 1, &planning, stats, err);
        if (r)
                return r;
        writer = vd_writer_new(target);
        r = writer ? vd_writer_finish(writer, err) : vd_fail(err, -ENOMEM, "finishing the image");
        vd_writer_free(writer);
        return r;
}

static int make_record(struct vd_file **file, const char *name, struct vd_error *err)
{
        return vd_file_record(file, name, err);
}

int vd_layout_new(struct vd_layout **out, const struct vd_format *format, const char *path,
                  const struct vd_create *create, struct vd_image *source, const struct vd_copy_options *options,
                  enum vd_layout_purpose purpose, struct vd_copy_stats *stats, struct vd_error *err)
{
        struct vd_layout *layout = calloc(1, sizeof(*layout));
        int r;

        if (!layout)
                return vd_fail(err, -ENOMEM, "layout");
        layout->purpose = purpose;
        layout->pretends = !source || purpose == VD_LAYOUT_FULL_SIZE;
        r = vd_output_new_unnamed(&layout->output, path, make_record, err);
        if (!r)
                r = vd_image_create(&layout->target, format, layout->output, create, err);
        if (!r && purpose == VD_LAYOUT_STREAM && (options->compress || layout->target->pack.always))
                layout->shape = VD_SHAPE_PACKS;
        else if (!r)
                r = copy(layout, source, layout->target, options, stats, err);
        if (!r && vd_output_count(layout->output) > 1)
                layout->shape = VD_SHAPE_SEVERAL_FILES;
        else if (!r && vd_file_record_allocated(vd_output_file(layout->output)))
                layout->shape = VD_SHAPE_RESERVES;
        if (r) {
                vd_layout_free(layout);
                return r;
        }
        sort_runs(layout);
        *out = layout;
        return 0;
}

void vd_layout_free(struct vd_layout *layout)
{
        if (!layout)
                return;
        vd_image_close(layout->target);
        vd_output_free(layout->output);
        free(layout->runs);
        free(layout);
}

uint64_t vd_layout_bytes(const struct vd_layout *layout)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < vd_output_count(layout->output); i++)
                sum += vd_file_size(vd_output_file_at(layout->output, i));
        return sum;
}

enum vd_layout_shape vd_layout_shape(const struct vd_layout *layout)
{
        return layout->shape;
}

struct vd_image *vd_layout_target(const struct vd_layout *layout)
{
        return layout->target;
}

struct vd_file *vd_layout_file(const struct vd_layout *layout)
{
        return vd_output_file(layout->output);
}

const struct vd_layout_run *vd_layout_runs(const struct vd_layout *layout, size_t *count)
{
        *count = layout->run_count;
        return layout->runs;
}
