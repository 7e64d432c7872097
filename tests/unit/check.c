// SPDX-License-Identifier: MIT
/* check.c: the shared checker on a format made up for it. */
#include "core/check.h"
#include "unit.h"

#include <errno.h>
#include <zlib.h>

enum { UNIT = 4096, UNITS = 64, LARGE = 3 << 20 };

/* What map() says about a unit. */
enum answer { ANSWER_DATA, ANSWER_ZERO, ANSWER_NONE, ANSWER_PACKED, ANSWER_PAST_END, ANSWER_BROKEN, ANSWER_NO_MEMORY };

static enum answer answers[UNITS];
static uint64_t extent_units;           /* data extents are at most so many units long */
static uint32_t packed_bytes;
static struct vd_error err;
static int walks, checks, walk_result;

static int map(struct vd_image *image, uint64_t offset, uint64_t max, struct vd_extent *extent, struct vd_error *e)
{
        enum answer answer = answers[offset / UNIT % UNITS];

        *extent = (struct vd_extent){ .start = offset, .length = UNIT - offset % UNIT, .file = image->file };
        switch (answer) {
        case ANSWER_DATA:
                extent->kind = VD_DATA;
                extent->length = extent_units * UNIT;
                break;
        case ANSWER_ZERO:
                extent->kind = VD_ZERO;
                break;
        case ANSWER_NONE:
                extent->kind = VD_UNALLOCATED;
                break;
        case ANSWER_PACKED:
                extent->kind = VD_PACKED;
                extent->codec = VD_CODEC_ZLIB;
                extent->unit_start = offset;
                extent->unit_bytes = UNIT;
                extent->packed_bytes = packed_bytes;
                break;
        case ANSWER_PAST_END:
                extent->kind = VD_DATA;
                extent->position = vd_file_size(image->file) - 100;
                break;
        case ANSWER_BROKEN:
                return vd_fail(e, VD_ECORRUPT, "entry of unit %d", (int)(offset / UNIT));
        case ANSWER_NO_MEMORY:
                return vd_fail(e, -ENOMEM, "table");
        }
        if (extent->length > max)
                extent->length = max;
        return 0;
}

static int walk(struct vd_image *image, struct vd_check *check, struct vd_error *e)
{
        struct vd_region region = { .class = VD_CLASS_HEADER, .length = 1000, .guest = VD_NOWHERE, .what = "header" };

        walks++;
        if (walk_result < 0)
                return vd_fail(e, walk_result, "walking");
        NEED(vd_check_begin(check, 512, vd_file_size(image->file), e) == 0);
        return vd_check_region(check, &region, e);
}

static int check_rest(struct vd_image *image, struct vd_check *check, struct vd_error *e)
{
        (void)image;
        (void)e;
        checks++;
        NEED(vd_spacemap_class(check->space, 1) == VD_CLASS_HEADER);
        vd_find(&check->findings, VD_WARNING, "own", VD_NOWHERE, 0, VD_NOWHERE, 0, false, "the driver's");
        return 0;
}

static struct vd_format format = { .name = "fake", .map = map, .walk = walk, .check = check_rest };
static char path[] = "image";
static struct vd_image image = { .path = path, .format = &format, .unit = UNIT, .size = UNITS * UNIT };

static uint64_t progress_last, progress_calls;
static bool progress_odd;

static void progress(void *context, uint64_t done, uint64_t total)
{
        if (context != &progress_calls || total != image.size || done < progress_last || done > total)
                progress_odd = true;
        progress_last = done;
        progress_calls++;
}

static int run(struct vd_check *check, bool data)
{
        struct vd_check_options options = { .data = data, .progress = progress, .context = &progress_calls };

        *check = (struct vd_check){ 0 };
        progress_last = progress_calls = 0;
        return vd_check_image(&image, &options, check, &err);
}

static void structure(void)
{
        struct vd_check check;

        OK("a check walks, then asks the driver", run(&check, false) == 0 && walks == 1 && checks == 1);
        OK("what they found is there", check.findings.count == 1 && check.findings.end_offset == 1000);
        OK("without --data no data is looked at", progress_calls == 0);
        vd_check_free(&check);
        walk_result = VD_ECORRUPT;
        OK("a walk that cannot go on ends the check", run(&check, true) == VD_ECORRUPT && checks == 1);
        vd_check_free(&check);
        walk_result = 0;

        format.walk = NULL;
        format.check = NULL;
        OK("a format without structure has nothing to check", run(&check, false) == VD_EUNSUPPORTED);
        vd_check_free(&check);
        OK("but its data", run(&check, true) == 0 && progress_last == image.size && !progress_odd);
        vd_check_free(&check);
}

static void data(void)
{
        const struct vd_finding *found;
        struct vd_check check;
        int stop = 1;
        struct vd_check_options stopped = { .data = true, .stop = &stop };

        answers[3] = ANSWER_ZERO;
        answers[4] = ANSWER_NONE;
        answers[5] = ANSWER_PACKED;
        OK("good units of all kinds are no findings", run(&check, true) == 0 && check.findings.count == 0);
        vd_check_free(&check);

        answers[7] = ANSWER_PAST_END;
        answers[9] = ANSWER_BROKEN;
        packed_bytes -= 20;
        OK("bad ones are, and the check goes on", run(&check, true) == 0 && check.findings.totals[VD_ERROR] == 3 &&
                                                  progress_last == image.size);
        found = check.findings.items;
        OK("a unit that does not unpack is named with file and guest position",
           strcmp(found[0].code, "packed-data") == 0 && found[0].guest == 5 * UNIT && found[0].position == 0 &&
           found[0].guest_length == UNIT && found[0].length == packed_bytes);
        OK("so is one that the file is too short for",
           strcmp(found[1].code, "unreadable-data") == 0 && found[1].guest == 7 * UNIT &&
           strstr(found[1].text, "ends"));
        OK("and one whose entry is broken", strcmp(found[2].code, "unreadable-data") == 0 &&
                                            found[2].guest == 9 * UNIT && found[2].guest_length == UNIT &&
                                            strstr(found[2].text, "entry of unit 9"));
        vd_check_free(&check);

        answers[20] = ANSWER_NO_MEMORY;
        OK("what is not the image's fault ends the check", run(&check, true) == -ENOMEM);
        vd_check_free(&check);
        check = (struct vd_check){ 0 };
        OK("so does being stopped", vd_check_image(&image, &stopped, &check, &err) == VD_ESTOPPED);
        vd_check_free(&check);
}

static void large(void)
{
        struct vd_check check;

        memset(answers, 0, sizeof(answers));
        extent_units = LARGE / UNIT;
        image.size = LARGE;
        OK("a long extent is read in pieces", run(&check, true) == 0 && check.findings.count == 0 &&
                                              progress_calls >= 3 && !progress_odd);
        vd_check_free(&check);

        for (int i = 0; i < UNITS; i++)
                answers[i] = ANSWER_BROKEN;
        image.size = UINT64_C(1) << 62;
        OK("a disk of exabytes that cannot be read is given up", run(&check, true) == 0 &&
                                                                 check.findings.totals[VD_ERROR] < 20000);
        OK("and says so",
           strcmp(check.findings.items[check.findings.count - 1].code, "data-check-incomplete") == 0);
        vd_check_free(&check);
}

int main(void)
{
        static uint8_t content[LARGE];
        uLongf length = sizeof(content) / 2;
        static uint8_t plain[UNIT];

        for (size_t i = 0; i < sizeof(plain); i++)
                plain[i] = (uint8_t)(i * i >> 3);
        NEED(compress(content, &length, plain, sizeof(plain)) == Z_OK);
        packed_bytes = (uint32_t)length;
        extent_units = 1;
        NEED(vd_file_memory(&image.file, content, sizeof(content), "memory", &err) == 0);
        structure();
        data();
        large();
        vd_file_unref(image.file);
        return unit_done();
}
