// SPDX-License-Identifier: MIT
/* compare.c: do two disks read the same?
 *
 * Planned in order (what neither side has is skipped however long it is), read and compared on all processors,
 * reported in order.  Offsets are reported as qemu-img does, by sectors of 512 bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/common.h"
#include "core/pipeline.h"
#include "util/checked.h"
#include "util/iszero.h"

enum {
        STATUS_DIFFER = 1, STATUS_CANNOT_OPEN = 2, STATUS_CANNOT_MAP = 3, STATUS_CANNOT_READ = 4,
        CHUNK = 512 * 1024, SECTOR = 512, THREADS_MAX = 16, SLOTS_PER_THREAD = 2,
};

struct compare_args {
        struct vd_source first, second;
        const char *output, *progress, *source_cache;
        bool strict, all, quiet;
};

static const struct vd_opt compare_opts[] = {
        { .letter = 'f', .type = VD_OPT_TEXT, .name = "format",
          .offset = offsetof(struct compare_args, first.format), .argument = "FORMAT", .completes = "format",
          .help = "format of the first image; without it the content tells" },
        { .type = VD_OPT_TEXT, .name = "a-format", .hidden = true,
          .offset = offsetof(struct compare_args, first.format) },
        { .letter = 'F', .type = VD_OPT_TEXT, .name = "b-format",
          .offset = offsetof(struct compare_args, second.format), .argument = "FORMAT", .completes = "format",
          .help = "format of the second image; without it the content tells" },
        { .letter = 's', .type = VD_OPT_FLAG, .name = "strict", .offset = offsetof(struct compare_args, strict),
          .help = "sizes, and what is allocated, must be the same too" },
        { .type = VD_OPT_FLAG, .name = "all", .offset = offsetof(struct compare_args, all),
          .help = "list every range that differs, instead of stopping at the first" },
        VD_COMMON_OUTPUT(compare_args, output),
        VD_COMMON_PROGRESS(compare_args, progress),
        VD_COMMON_QUIET(compare_args, quiet),
        VD_COMMON_REFERENCES(compare_args, first.references),
        VD_COMMON_FORCE_SHARE(compare_args, first.force_share),
        VD_COMMON_NO_LOCK(compare_args, first.no_lock),
        VD_COMMON_SOURCE_CACHE(compare_args, source_cache),
        { .type = VD_OPT_END },
};

/* One side of a chunk: its extents, then its bytes. */
struct side {
        struct vd_extent *extents;
        size_t count, room;
        bool is_hole;
        unsigned char *bytes;
};

struct range {
        uint64_t start, length;
};

struct slot {
        uint64_t start, length;
        struct side sides[2];
        struct range *ranges;           /* that differ */
        size_t range_count, range_room;
        bool status_differs;            /* strict: one side has it allocated, the other not */
};

struct comparison {
        const struct compare_args *args;
        struct vd_session *session;
        struct vd_image *images[2];
        uint64_t end;                   /* of the larger disk */
        uint64_t chunk_bytes;
        struct vd_codec_context **codecs;
        uint64_t cursor;                /* planner */
        struct vd_extent ahead[2];      /* planner: what each side was last found to have; length 0: nothing */

        struct range pending;           /* reporter: the last range found, which may go on */
        uint64_t range_count, different_bytes, first;
        bool status_differs, done;
};

static bool is_hole(const struct vd_extent *ext)
{
        return ext->kind == VD_ZERO || ext->kind == VD_UNALLOCATED;
}

/* Past the end of the smaller disk there are zeros. */
static int look_ahead(struct comparison *c, unsigned which, uint64_t offset, struct vd_error *err)
{
        struct vd_image *image = c->images[which];
        struct vd_extent *ext = &c->ahead[which];
        int ret;

        if (offset >= image->size) {
                *ext = (struct vd_extent){ .start = offset, .length = c->end - offset, .kind = VD_ZERO };
                return 0;
        }
        ret = vd_image_map(image, offset, UINT64_MAX, UINT32_MAX, ext, err);
        if (!ret && ext->kind == VD_UNALLOCATED && vd_image_lacks_parent(image))
                ret = vd_fail(err, VD_EPARENT, "%s: guest offset %" PRIu64 " is in the parent image, which is not open",
                              image->path, offset);
        return ret;
}

/* A long extent is asked for once, and used for all chunks that it covers. */
static int map_side(struct comparison *c, unsigned which, uint64_t offset, uint64_t max, struct vd_extent *ext,
                    struct vd_error *err)
{
        struct vd_extent *ahead = &c->ahead[which];
        uint64_t skip;

        if (offset < ahead->start || offset >= ahead->start + ahead->length) {
                int ret = look_ahead(c, which, offset, err);

                if (ret)
                        return ret;
        }
        *ext = *ahead;
        skip = offset - ahead->start;
        ext->start += skip;
        ext->length = vd_min(ext->length - skip, max);
        if (ext->kind != VD_PACKED)
                ext->position += skip;
        return 0;
}

static int add_extent(struct side *side, const struct vd_extent *ext, struct vd_error *err)
{
        if (side->count == side->room) {
                size_t room = side->room ? side->room * 2 : 16;
                struct vd_extent *extents = reallocarray(side->extents, room, sizeof *extents);

                if (!extents)
                        return vd_fail(err, -ENOMEM, "%zu extents", room);
                side->extents = extents;
                side->room = room;
        }
        side->extents[side->count++] = *ext;
        side->is_hole = side->is_hole && is_hole(ext);
        return 0;
}

static int map_chunk(struct comparison *c, struct slot *slot, unsigned which, struct vd_error *err)
{
        uint64_t at = slot->start, end = slot->start + slot->length;
        struct side *side = &slot->sides[which];

        side->count = 0;
        side->is_hole = true;
        while (at < end) {
                struct vd_extent ext;
                int ret = map_side(c, which, at, end - at, &ext, err);

                if (!ret)
                        ret = add_extent(side, &ext, err);
                if (ret)
                        return ret;
                at += ext.length;
        }
        return 0;
}

/* qemu-img compares the block status of what is mapped in one go; kinds are what two formats can have in common. */
static bool same_status(const struct side *a, const struct side *b)
{
        size_t i = 0, j = 0;

        while (i < a->count && j < b->count) {
                const struct vd_extent *x = &a->extents[i], *y = &b->extents[j];
                uint64_t x_end = x->start + x->length, y_end = y->start + y->length;
                bool x_data = !is_hole(x), y_data = !is_hole(y);

                if (x_data != y_data || (!x_data && x->kind != y->kind))
                        return false;
                i += x_end <= y_end;
                j += y_end <= x_end;
        }
        return true;
}

static int plan(void *context, void *item, unsigned worker, struct vd_error *err)
{
        struct comparison *c = context;
        struct slot *slot = item;
        struct vd_extent a, b;
        int ret = 0;

        (void)worker;
        slot->range_count = 0;
        slot->status_differs = false;
        while (!ret && c->cursor < c->end && !c->done) {
                uint64_t skip;

                ret = vd_session_check_stop(c->session, err);
                if (!ret)
                        ret = map_side(c, 0, c->cursor, c->end - c->cursor, &a, err);
                if (!ret)
                        ret = map_side(c, 1, c->cursor, c->end - c->cursor, &b, err);
                if (ret)
                        break;
                skip = vd_min(a.length, b.length);
                if (is_hole(&a) && is_hole(&b) && !(c->args->strict && !c->args->all && a.kind != b.kind)) {
                        c->cursor += skip;
                        continue;
                }
                slot->start = c->cursor;
                slot->length = vd_min(c->chunk_bytes - c->cursor % c->chunk_bytes, c->end - c->cursor);
                ret = map_chunk(c, slot, 0, err);
                if (!ret)
                        ret = map_chunk(c, slot, 1, err);
                if (ret)
                        break;
                slot->status_differs = c->args->strict && !same_status(&slot->sides[0], &slot->sides[1]);
                c->cursor += slot->length;
                return 0;
        }
        if (ret)
                c->session->failure_status = STATUS_CANNOT_MAP;
        return ret ? ret : 1;
}

static int read_side(struct comparison *c, const struct slot *slot, struct side *side, unsigned worker,
                     struct vd_error *err)
{
        int ret = 0;
        size_t i;

        if (side->is_hole)
                return 0;
        if (!side->bytes && !(side->bytes = malloc(c->chunk_bytes)))
                return vd_fail(err, -ENOMEM, "a buffer of %" PRIu64 " bytes", c->chunk_bytes);
        for (i = 0; i < side->count && !ret; i++)
                ret = vd_extent_read(&side->extents[i], side->bytes + (side->extents[i].start - slot->start),
                                     c->codecs[worker], err);
        return ret;
}

static bool differs(const struct slot *slot, uint64_t at, size_t length)
{
        const struct side *a = &slot->sides[0], *b = &slot->sides[1];

        if (a->is_hole || b->is_hole)
                return !vd_is_zero((a->is_hole ? b : a)->bytes + at, length);
        return memcmp(a->bytes + at, b->bytes + at, length) != 0;
}

static int add_range(struct slot *slot, uint64_t start, uint64_t length, struct vd_error *err)
{
        struct range *last = slot->range_count ? &slot->ranges[slot->range_count - 1] : NULL;

        if (last && last->start + last->length == start) {
                last->length += length;
                return 0;
        }
        if (slot->range_count == slot->range_room) {
                size_t room = slot->range_room ? slot->range_room * 2 : 16;
                struct range *ranges = reallocarray(slot->ranges, room, sizeof *ranges);

                if (!ranges)
                        return vd_fail(err, -ENOMEM, "%zu ranges", room);
                slot->ranges = ranges;
                slot->range_room = room;
        }
        slot->ranges[slot->range_count++] = (struct range){ start, length };
        return 0;
}

static int compare_chunk(void *context, void *item, unsigned worker, struct vd_error *err)
{
        struct comparison *c = context;
        struct slot *slot = item;
        uint64_t at;
        int ret = read_side(c, slot, &slot->sides[0], worker, err);

        if (!ret)
                ret = read_side(c, slot, &slot->sides[1], worker, err);
        if (ret || (slot->sides[0].is_hole && slot->sides[1].is_hole) || !differs(slot, 0, slot->length))
                return ret;
        for (at = 0; at < slot->length && !ret; at += SECTOR) {
                size_t n = vd_min(SECTOR, slot->length - at);

                if (!differs(slot, at, n))
                        continue;
                ret = add_range(slot, slot->start + at, n, err);
                if (!c->args->all)
                        break;
        }
        return ret;
}

static bool is_json(const struct comparison *c)
{
        return vd_output_is_json(c->args->output);
}

static bool says(const struct comparison *c)
{
        return !c->args->quiet && !is_json(c);
}

static uint64_t common_size(const struct comparison *c)
{
        return vd_min(c->images[0]->size, c->images[1]->size);
}

/* Prints the pending range, if there is one. */
static int flush_range(struct comparison *c, struct vd_error *err)
{
        struct range *p = &c->pending;
        int ret = 0;

        if (!p->length)
                return 0;
        if (!c->range_count)
                c->first = p->start;
        c->different_bytes += p->length;
        if (c->args->all && is_json(c)) {
                struct vd_report *r = vd_report_new();

                vd_report_count(r, "start", NULL, p->start);
                vd_report_count(r, "length", NULL, p->length);
                ret = vd_report_print_json_entry(r, &c->range_count, stdout);
                vd_report_free(r);
        } else {
                if (says(c) && c->args->all && printf("%#-16" PRIx64 "%#" PRIx64 "\n", p->start, p->length) < 0)
                        ret = -EIO;
                c->range_count++;
        }
        p->length = 0;
        return ret ? vd_fail(err, ret, "standard output") : 0;
}

static int report(void *context, void *item, unsigned worker, struct vd_error *err)
{
        struct comparison *c = context;
        const struct slot *slot = item;
        int ret = 0;
        size_t i;

        (void)worker;
        if (c->done)
                return 0;
        for (i = 0; i < slot->range_count && !ret; i++) {
                const struct range *range = &slot->ranges[i];

                if (c->pending.length && c->pending.start + c->pending.length == range->start) {
                        c->pending.length += range->length;
                        continue;
                }
                ret = flush_range(c, err);
                if (!c->range_count && !c->pending.length && says(c) && c->args->all)
                        printf("%-16s%s\n", "Offset", "Length");
                c->pending = *range;
        }
        if (slot->status_differs && !slot->range_count && !c->args->all) {
                c->first = slot->start;
                c->status_differs = true;
        }
        c->done = !c->args->all && (c->pending.length || c->status_differs);
        vd_session_progress(c->session, slot->start + slot->length, c->end);
        return ret;
}

static const struct vd_stage stages[] = {
        { "plan", true, plan },
        { "compare", false, compare_chunk },
        { "report", true, report },
};

static void free_slot(struct slot *slot)
{
        unsigned i;

        for (i = 0; slot && i < 2; i++) {
                free(slot->sides[i].extents);
                free(slot->sides[i].bytes);
        }
        if (slot)
                free(slot->ranges);
        free(slot);
}

static int run_stages(struct comparison *c, struct vd_error *err)
{
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        unsigned threads = processors < 1 ? 1 : (unsigned)vd_min((uint64_t)processors, THREADS_MAX), i;
        size_t slot_count = threads == 1 ? 1 : (size_t)threads * SLOTS_PER_THREAD, s;
        void **slots = calloc(slot_count, sizeof *slots);
        int ret = 0;

        c->codecs = calloc(threads, sizeof(struct vd_codec_context *));
        for (i = 0; c->codecs && i < threads && !ret; i++)
                ret = (c->codecs[i] = vd_codec_context_new()) ? 0 : -ENOMEM;
        for (s = 0; slots && s < slot_count && !ret; s++)
                ret = (slots[s] = calloc(1, sizeof(struct slot))) ? 0 : -ENOMEM;
        if (ret || !slots || !c->codecs)
                ret = vd_fail(err, -ENOMEM, "starting the comparison");
        if (!ret)
                ret = vd_pipeline_run(stages, sizeof stages / sizeof *stages, slots, slot_count, threads, c, err);
        if (!ret)
                ret = flush_range(c, err);
        for (s = 0; slots && s < slot_count; s++)
                free_slot(slots[s]);
        for (i = 0; c->codecs && i < threads; i++)
                vd_codec_context_free(c->codecs[i]);
        free(c->codecs);
        free(slots);
        return ret;
}

static int print_json(const struct comparison *c, bool identical, struct vd_error *err)
{
        struct vd_report *r;
        uint64_t count = c->range_count;
        int ret;

        if (c->args->all) {
                ret = vd_report_print_json_entry(NULL, &count, stdout);
                return ret ? vd_fail(err, ret, "standard output") : 0;
        }
        r = vd_report_new();
        vd_report_flag(r, "identical", NULL, identical);
        vd_report_count(r, "first-size", NULL, c->images[0]->size);
        vd_report_count(r, "second-size", NULL, c->images[1]->size);
        if (c->range_count)
                vd_report_count(r, "content-differs-at", NULL, c->first);
        if (c->status_differs)
                vd_report_count(r, "status-differs-at", NULL, c->first);
        ret = vd_print_report(r, "json", err);
        vd_report_free(r);
        return ret;
}

/* The sentences are qemu-img's. */
static int print_result(const struct comparison *c, struct vd_error *err)
{
        bool other_size = c->images[0]->size != c->images[1]->size, strict_size = other_size && c->args->strict;
        bool identical = !strict_size && !c->range_count && !c->status_differs;

        if (is_json(c)) {
                int ret = print_json(c, identical, err);

                if (ret)
                        return ret;
        } else if (says(c)) {
                if (other_size && !strict_size && (!c->range_count || c->first >= common_size(c)))
                        puts("Warning: Image size mismatch!");
                if (strict_size)
                        puts("Strict mode: Image size mismatch!");
                else if (c->args->all && c->range_count)
                        printf("%" PRIu64 " bytes differ, in %" PRIu64 " ranges.\n", c->different_bytes,
                               c->range_count);
                else if (c->range_count)
                        printf("Content mismatch at offset %" PRIu64 "!\n", c->first);
                else if (c->status_differs)
                        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", c->first);
                else
                        puts("Images are identical.");
        }
        return identical ? 0 : STATUS_DIFFER;
}

static int compare(struct comparison *c, struct vd_error *err)
{
        unsigned i;
        int ret = 0;

        vd_session_start_progress(c->session, c->args->progress);
        c->session->failure_status = STATUS_CANNOT_READ;
        c->end = vd_max(c->images[0]->size, c->images[1]->size);
        c->chunk_bytes = CHUNK;
        for (i = 0; i < 2; i++)
                if (c->images[i]->is_packed)
                        c->chunk_bytes = vd_max(c->chunk_bytes, c->images[i]->unit);
        if (!c->args->strict || c->images[0]->size == c->images[1]->size)
                ret = run_stages(c, err);
        vd_session_end_progress(c->session);
        for (i = 0; i < 2 && !ret; i++)
                ret = vd_image_check_unchanged(c->images[i], err);
        return ret ? ret : print_result(c, err);
}

static int compare_run(void *arguments, const struct vd_texts *operands, struct vd_session *session,
                       struct vd_error *err)
{
        struct compare_args *args = arguments;
        struct comparison c = { .args = args, .session = session };
        struct vd_open how = { .lock = VD_LOCK_READ };
        int ret = vd_check_operands(session, operands, 2, 2, err);

        if (ret)
                return ret;
        session->quiet = args->quiet;
        args->second.references = args->first.references;
        args->second.force_share = args->first.force_share;
        args->second.no_lock = args->first.no_lock;
        session->failure_status = STATUS_CANNOT_OPEN;
        ret = vd_source_open(session, &args->first, operands->items[0], how, &c.images[0], err);
        if (!ret)
                ret = vd_source_open(session, &args->second, operands->items[1], how, &c.images[1], err);
        if (!ret)
                ret = compare(&c, err);
        vd_image_close(c.images[0]);
        vd_image_close(c.images[1]);
        return ret;
}

const struct vd_command vd_cmd_compare = {
        .name = "compare", .operands = "FIRST SECOND", .summary = "do two disks read the same?",
        .completes = "file", .streams = true,
        .examples = "  vdtool compare disk.vhd disk.qcow2\n"
                    "  vdtool compare --all before.raw after.vhd\n",
        .opts = compare_opts, .args_size = sizeof(struct compare_args), .run = compare_run,
};
