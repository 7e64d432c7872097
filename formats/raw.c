// SPDX-License-Identifier: MIT
/* raw.c: a disk's bytes as they are; holes of the host file are zeros.
 *
 * Takes any content, so probing falls back to it.  Windows (--offset, --size) are made by core/file before we see the
 * file.  Cost: nothing is kept.
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "core/check.h"
#include "util/checked.h"

struct raw_params {
        const char *preallocation;
};

static const char *const preallocations[] = { "off", "falloc", "full", NULL };

static const struct vd_opt raw_options[] = {
        { .name = "preallocation", .type = VD_OPT_CHOICE, .offset = offsetof(struct raw_params, preallocation),
          .argument = "MODE", .choices = preallocations,
          .help = "off, falloc (space taken by the file system) or full (zeros written)" },
        { .type = VD_OPT_END },
};

static enum vd_match raw_probe(const struct vd_probe *probe)
{
        (void)probe;
        return VD_MATCH_FALLBACK;
}

static int raw_open(struct vd_image *img, struct vd_error *err)
{
        (void)err;
        img->size = vd_file_size(img->file);
        img->identity = true;
        return 0;
}

static int raw_map(struct vd_image *img, uint64_t offset, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t end;
        bool data;
        int r = vd_file_next(img->file, offset, &data, &end, err);

        if (r)
                return r;
        ext->length = vd_min(max, end - offset);
        ext->kind = data ? VD_DATA : VD_ZERO;
        ext->file = img->file;
        ext->position = offset;
        return 0;
}

static void raw_describe(struct vd_image *img, struct vd_report *report)
{
        vd_report_flag(report, "block-device", vd_file_is_device(img->file) ? "block device" : NULL,
                       vd_file_is_device(img->file));
}

static int raw_create(struct vd_image *img, const struct vd_create *create, struct vd_error *err)
{
        const struct raw_params *params = create->params;
        const char *mode = params && params->preallocation ? params->preallocation : "off";

        if (create->backing_name)
                return vd_fail(err, VD_EUNSUPPORTED, "raw images cannot have a backing file");
        if (create->size > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%" PRIu64 " bytes are more than a file can have", create->size);
        img->size = create->size;
        img->identity = true;
        if (!strcmp(mode, "falloc"))
                return vd_file_allocate(img->file, 0, create->size, err);
        return strcmp(mode, "full") ? 0 : vd_file_fill(img->file, 0, create->size, create->stop, err);
}

static int raw_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place,
                     struct vd_error *err)
{
        (void)err;
        *place = (struct vd_place){
                .start = request->start, .length = request->length, .kind = VD_DATA, .file = img->file,
                .position = request->start,
        };
        return 0;
}

static int raw_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        (void)img;
        (void)place;
        (void)err;
        return 0;
}

static int raw_finish(struct vd_image *img, struct vd_error *err)
{
        return vd_file_size(img->file) < img->size ? vd_file_truncate(img->file, img->size, err) : 0;
}

/* All of the file is data; the only rule of a raw disk is that it has whole sectors. */
static int raw_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        enum { SECTOR = 512 };
        uint64_t size = vd_file_size(img->file);
        struct vd_region disk = { .class = VD_CLASS_DATA, .length = size, .guest = 0, .what = "the disk" };
        int r = vd_check_begin(check, SECTOR, vd_round_up(size, SECTOR), err);

        if (r)
                return r;
        check->findings.end_offset = size;
        if (size % SECTOR)
                vd_find(&check->findings, VD_WARNING, "raw-length", vd_round_down(size, SECTOR), size % SECTOR,
                        vd_round_down(size, SECTOR), size % SECTOR, false,
                        "the file has %" PRIu64 " bytes, which is no multiple of %d: its last sector is not whole",
                        size, (int)SECTOR);
        return size ? vd_check_region(check, &disk, err) : 0;
}

static const char *const extensions[] = { "raw", "img", "iso", "bin", "dd", "dsk", NULL };

const struct vd_format vd_format_raw = {
        .name = "raw", .title = "raw disk, bytes as they are", .extensions = extensions,
        .caps = VD_CAP_BARE,
        .probe = raw_probe, .open = raw_open, .map = raw_map, .walk = raw_walk, .describe = raw_describe,
        .params_size = sizeof(struct raw_params), .create_opts = raw_options,
        .create = raw_create, .place = raw_place, .publish = raw_publish, .finish = raw_finish,
};
