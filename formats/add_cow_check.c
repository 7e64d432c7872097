// SPDX-License-Identifier: MIT
/* add_cow_check.c: header and bitmap of an add-cow. */
#include <errno.h>
#include <inttypes.h>

#include "add_cow.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/iszero.h"

/* Bytes of the bitmap that mean something, and where they should end when padded. */
static uint64_t bitmap_bytes(const struct add_cow *a)
{
        return vd_div_up(a->clusters, 8);
}

static uint64_t expected_end(const struct add_cow *a)
{
        return a->header_bytes + vd_round_up(bitmap_bytes(a), a->cluster);
}

int add_cow_walk(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct add_cow *a = img->state;
        uint64_t size = vd_file_size(img->file);
        struct vd_region header = { .class = VD_CLASS_HEADER, .length = a->header_bytes, .guest = VD_NOWHERE,
                                    .what = "header" };
        struct vd_region bitmap = { .class = VD_CLASS_TABLE, .position = a->header_bytes, .guest = VD_NOWHERE,
                                    .length = vd_min(bitmap_bytes(a), size > a->header_bytes ? size - a->header_bytes
                                                     : 0),
                                    .what = "bitmap" };
        int r = vd_check_begin(check, 1u << ADD_COW_BITS_LEAST, size, err);

        if (!r)
                r = vd_check_region(check, &header, err);
        if (!r && bitmap.length)
                r = vd_check_region(check, &bitmap, err);
        return r;
}

static int check_header(struct vd_image *img, const struct add_cow *a, struct vd_findings *findings,
                        struct vd_error *err)
{
        const struct add_cow_header_disk *h = &a->header;
        uint64_t image_end = le32_get(h->image_offset) + (uint64_t)le32_get(h->image_length);
        uint64_t backing_end = le32_get(h->backing_offset) + (uint64_t)le32_get(h->backing_length);
        uint64_t end = vd_max(vd_max(image_end, backing_end), sizeof(*h));
        uint64_t rest = vd_min(a->header_bytes, vd_file_size(img->file));
        VD_AUTOFREE uint8_t *bytes = NULL;
        int r;

        if (le32_get(h->cluster_bits) < ADD_COW_BITS_NEW)
                vd_find(findings, VD_WARNING, "add-cow-cluster-bits", offsetof(struct add_cow_header_disk,
                                                                               cluster_bits), 4,
                        VD_NOWHERE, 0, false, "cluster bits %u: later revisions of the format want at least %d",
                        (unsigned)le32_get(h->cluster_bits), ADD_COW_BITS_NEW);
        if (a->backing_name && le32_get(h->image_offset) < backing_end && le32_get(h->backing_offset) < image_end)
                vd_find(findings, VD_WARNING, "add-cow-names", offsetof(struct add_cow_header_disk, backing_offset), 16,
                        VD_NOWHERE, 0, false, "the names of backing file and image file overlap");
        if (a->all_allocated && a->backing_name)
                vd_find(findings, VD_NOTE, "add-cow-backing-ignored", le32_get(h->backing_offset),
                        le32_get(h->backing_length),
                        VD_NOWHERE, 0, false, "everything is allocated: the backing file is not used");
        if (rest <= end)
                return 0;
        bytes = malloc(rest - end);
        if (!bytes)
                return vd_fail(err, -ENOMEM, "header");
        r = vd_file_read(img->file, bytes, rest - end, end, err);
        if (!r && !vd_is_zero(bytes, rest - end))
                vd_find(findings, VD_WARNING, "add-cow-reserved", end, rest - end, VD_NOWHERE, 0, false,
                        "the header has bytes other than zero behind the names");
        return r;
}

/* The bits past the last cluster, up to the end of what is stored. */
static int check_spare_bits(struct vd_image *img, const struct add_cow *a, struct vd_findings *findings,
                            struct vd_error *err)
{
        uint64_t stored = vd_min(vd_file_size(img->file), expected_end(a));
        uint64_t last = a->header_bytes + a->clusters / 8;
        bool clear = true;

        for (uint64_t at = last; at < stored && clear;) {
                uint8_t bytes[4096];
                size_t n = vd_min(sizeof(bytes), stored - at);
                int r = vd_file_read(img->file, bytes, n, at, err);

                if (r)
                        return r;
                if (at == last)
                        bytes[0] &= (uint8_t)(0xff << a->clusters % 8);
                clear = vd_is_zero(bytes, n);
                at += n;
        }
        if (!clear)
                vd_find(findings, VD_WARNING, "add-cow-spare-bits", last, stored - last, VD_NOWHERE, 0, true,
                        "bits are set behind the last cluster (%" PRIu64 ")", a->clusters - 1);
        return 0;
}

static int count_bits(const struct add_cow *a, struct vd_findings *findings, struct vd_error *err)
{
        uint64_t end = a->clusters / 8 < a->bitmap.stored ? a->clusters : a->bitmap.stored * 8;

        for (uint64_t at = 0; at < end;) {
                uint64_t run;
                bool set;
                int r = vd_bitmap_run(&a->bitmap, at, end, &set, &run, err);

                if (r)
                        return r;
                findings->allocated_units += set ? run : 0;
                at += run;
        }
        if (a->clusters && findings->allocated_units == a->clusters)
                vd_find(findings, VD_NOTE, "add-cow-complete", VD_NOWHERE, 0, VD_NOWHERE, 0, true,
                        "all clusters are allocated, but the header does not say so");
        return 0;
}

int add_cow_check(struct vd_image *img, struct vd_check *check, struct vd_error *err)
{
        const struct add_cow *a = img->state;
        struct vd_findings *findings = &check->findings;
        uint64_t size = vd_file_size(img->file), least = a->header_bytes + bitmap_bytes(a);
        int r = check_header(img, a, findings, err);

        findings->total_units = a->clusters;
        if (r)
                return r;
        if (size > expected_end(a))
                vd_find(findings, VD_NOTE, "add-cow-trailing", expected_end(a), size - expected_end(a), VD_NOWHERE, 0,
                        true, "the file goes on for %" PRIu64 " bytes behind the bitmap", size - expected_end(a));
        if (a->all_allocated) {
                findings->allocated_units = a->clusters;
                return 0;
        }
        if (size < least) {
                uint64_t known = size > a->header_bytes ? (size - a->header_bytes) * 8 * a->cluster : 0;

                vd_find(findings, VD_ERROR, "add-cow-truncated", size, least - size, known, img->size - known, false,
                        "the file ends at %" PRIu64 ", inside the bitmap of %" PRIu64 " bytes at %" PRIu64, size,
                        bitmap_bytes(a), a->header_bytes);
        }
        if (size <= a->header_bytes)
                return 0;
        r = check_spare_bits(img, a, findings, err);
        return r ? r : count_bits(a, findings, err);
}
