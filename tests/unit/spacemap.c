// SPDX-License-Identifier: MIT
/* spacemap.c: the map of a file against a plain array that says the same. */
#include "core/spacemap.h"
#include "unit.h"

enum { GRANULE = 512, SMALL = 40000 };

static struct vd_findings findings;
static uint64_t model_count[SMALL];
static enum vd_class model_class[SMALL];

static int add(struct vd_spacemap *map, enum vd_class class, uint64_t position, uint64_t length, bool shared)
{
        struct vd_region region = {
                .class = class, .position = position, .length = length, .guest = VD_NOWHERE, .what = "region",
                .shared = shared,
        };

        return vd_spacemap_add(map, &region, &findings);
}

static const struct vd_finding *last_finding(void)
{
        static const struct vd_finding none = { .code = "none", .text = "" };

        return findings.count ? &findings.items[findings.count - 1] : &none;
}

static void overlaps(void)
{
        struct vd_spacemap *map = vd_spacemap_new(GRANULE, 1 << 20);

        NEED(map);
        NEED(add(map, VD_CLASS_HEADER, 0, 512, false) == 0 && add(map, VD_CLASS_DATA, 4096, 8192, false) == 0);
        OK("regions side by side are fine", findings.count == 0);
        NEED(add(map, VD_CLASS_DATA, 8192, 8192, false) == 0);
        OK("data on data is an overlap", findings.count == 1 && strcmp(last_finding()->code, "overlap") == 0 &&
                                         last_finding()->severity == VD_ERROR);
        OK("that names its place", last_finding()->position == 8192 && last_finding()->length == 4096);
        OK("and says what was there", strstr(last_finding()->text, "overlaps data at 8192"));
        OK("both are counted", vd_spacemap_count(map, 16) == 2 && vd_spacemap_count(map, 8) == 1 &&
                               vd_spacemap_count(map, 24) == 1 && vd_spacemap_count(map, 32) == 0);
        NEED(add(map, VD_CLASS_DATA, 65536, 4096, true) == 0 && add(map, VD_CLASS_DATA, 65536, 4096, true) == 0);
        OK("shared data may be shared", findings.count == 1 && vd_spacemap_count(map, 128) == 2);
        NEED(add(map, VD_CLASS_DATA, 65536, 512, false) == 0);
        OK("but not with somebody who does not share", findings.count == 2);
        NEED(add(map, VD_CLASS_DATA, 65536, 512, true) == 0);
        OK("nor after that", findings.count == 3);
        NEED(add(map, VD_CLASS_TABLE, 131072, 4096, true) == 0 && add(map, VD_CLASS_DATA, 131072, 4096, true) == 0);
        OK("data on a table is an overlap even if both share", findings.count == 4);
        OK("the class is that of the first", vd_spacemap_class(map, 256) == VD_CLASS_TABLE);
        NEED(add(map, VD_CLASS_PACKED, 200000, 777, true) == 0 && add(map, VD_CLASS_PACKED, 200777, 99, true) == 0);
        OK("packed units share granules", findings.count == 4);
        vd_spacemap_free(map);
        vd_findings_free(&findings);
}

static void limits(void)
{
        struct vd_spacemap *map = vd_spacemap_new(GRANULE, 100000);
        uint64_t index = 0, length, count;
        enum vd_class class;

        NEED(map);
        NEED(add(map, VD_CLASS_DATA, 99999, 1, false) == 0);
        OK("the last byte is inside", findings.count == 0 && vd_spacemap_count(map, 195) == 1);
        NEED(add(map, VD_CLASS_DATA, 98304, 4096, false) == 0);
        OK("a region over the end is out of the file", strcmp(findings.items[0].code, "out-of-file") == 0);
        OK("what is inside is counted", vd_spacemap_count(map, 192) == 1 && vd_spacemap_count(map, 195) == 2);
        vd_findings_free(&findings);
        NEED(add(map, VD_CLASS_DATA, 100000, 1, false) == 0 &&
             add(map, VD_CLASS_DATA, UINT64_MAX - 5, 100, false) == 0 &&
             add(map, VD_CLASS_DATA, 5, UINT64_MAX, false) == 0);
        OK("regions far outside or far too long are, too", findings.totals[VD_ERROR] >= 3);
        NEED(add(map, VD_CLASS_DATA, UINT64_MAX, 0, false) == 0);
        OK("an empty region is nothing", findings.totals[VD_ERROR] <= 4);
        OK("past the end nothing is used", vd_spacemap_count(map, 196) == 0 &&
                                           vd_spacemap_class(map, UINT64_MAX) == VD_CLASS_FREE);
        vd_spacemap_free(map);
        vd_findings_free(&findings);

        map = vd_spacemap_new(GRANULE, 0);
        NEED(map && add(map, VD_CLASS_DATA, 0, 1, false) == 0);
        OK("an empty file has room for nothing", findings.count == 1 &&
                                                 !vd_spacemap_next(map, &index, &length, &count, &class));
        vd_spacemap_free(map);
        vd_findings_free(&findings);
}

/* A sparse file of 2^63 - 1 bytes, with much and little in it. */
static void huge(void)
{
        struct vd_spacemap *map = vd_spacemap_new(GRANULE, INT64_MAX);
        uint64_t index = 0, length, count, runs = 0, far = UINT64_C(1) << 62;
        enum vd_class class;

        NEED(map);
        NEED(add(map, VD_CLASS_DATA, 0, far, false) == 0 && add(map, VD_CLASS_TABLE, far, 512, false) == 0 &&
             add(map, VD_CLASS_DATA, far + 512, 512, false) == 0);
        OK("regions of exabytes cost nothing", vd_spacemap_count(map, 1) == 1 &&
                                               vd_spacemap_count(map, far / GRANULE - 1) == 1);
        OK("and end where they end", vd_spacemap_class(map, far / GRANULE) == VD_CLASS_TABLE &&
                                     vd_spacemap_count(map, far / GRANULE + 2) == 0);
        for (; vd_spacemap_next(map, &index, &length, &count, &class); index += length)
                runs++;
        OK("there are four runs, walked in four steps", runs == 4 && index == (uint64_t)INT64_MAX / GRANULE + 1);
        vd_spacemap_free(map);

        map = vd_spacemap_new(1, UINT64_C(1) << 40);
        NEED(map && add(map, VD_CLASS_DATA, 3, 1, false) == 0);
        OK("a granule may be a byte", vd_spacemap_count(map, 3) == 1 && vd_spacemap_count(map, 4) == 0);
        vd_spacemap_free(map);
        vd_findings_free(&findings);
}

static bool agrees(const struct vd_spacemap *map)
{
        uint64_t index = 0, length, count, previous_count = UINT64_MAX;
        enum vd_class class, previous_class = VD_CLASS_FREE;

        for (; vd_spacemap_next(map, &index, &length, &count, &class); index += length) {
                if (!length || (count == previous_count && class == previous_class))
                        return false;
                for (uint64_t i = index; i < index + length; i++) {
                        if (i >= SMALL || model_count[i] != count || model_class[i] != class ||
                            vd_spacemap_count(map, i) != count || vd_spacemap_class(map, i) != class)
                                return false;
                }
                previous_count = count;
                previous_class = class;
        }
        return index == SMALL;
}

static void random_regions(void)
{
        struct vd_spacemap *map = vd_spacemap_new(GRANULE, SMALL * GRANULE);
        uint64_t seed = 4711;
        bool same = true;

        NEED(map);
        for (int round = 0; round < 600; round++) {
                uint64_t first = unit_random(&seed) % SMALL, most = round % 3 ? 50 : SMALL;
                uint64_t length = 1 + unit_random(&seed) % (SMALL - first < most ? SMALL - first : most);
                enum vd_class class = VD_CLASS_HEADER + unit_random(&seed) % (VD_CLASSES - 1);

                /* Hammer one place, for counts above 15. */
                if (round % 10 == 9) {
                        first = 5000;
                        length = 3;
                }
                NEED(add(map, class, first * GRANULE, length * GRANULE, true) == 0);
                for (uint64_t i = first; i < first + length; i++) {
                        if (model_count[i]++ == 0)
                                model_class[i] = class;
                }
                if (round % 50 == 0)
                        same = same && agrees(map);
        }
        OK("after 600 random regions the map says what an array says", same && agrees(map));
        OK("counts above 15 are exact", vd_spacemap_count(map, 5001) == model_count[5001] && model_count[5001] > 60);
        OK("no more than so many findings are kept, all are counted",
           findings.count <= VD_FINDINGS_KEPT && findings.totals[VD_ERROR] >= findings.count);
        vd_spacemap_free(map);
        vd_findings_free(&findings);
}

/* Granule by granule, forwards and from both ends: neighbours that become alike again share their memory. */
static void filled(void)
{
        struct vd_spacemap *map = vd_spacemap_new(GRANULE, UINT64_C(4096) * 600 * GRANULE);
        uint64_t index = 0, length, count, all = 4096 * 600;
        enum vd_class class;

        NEED(map);
        for (uint64_t i = 0; i < all; i++)
                NEED(add(map, VD_CLASS_DATA, (i % 2 ? all - 1 - i / 2 : i / 2) * GRANULE, GRANULE, false) == 0);
        OK("a file full of data is one run", vd_spacemap_next(map, &index, &length, &count, &class) &&
                                             length == all && count == 1 && class == VD_CLASS_DATA);
        OK("and nothing overlapped", findings.count == 0);
        for (int i = 0; i < 20; i++)
                NEED(add(map, VD_CLASS_DATA, 0, all * GRANULE, true) == 0);
        NEED(add(map, VD_CLASS_DATA, 77 * GRANULE, GRANULE, true) == 0);
        OK("a count above 15 survives being told apart",
           vd_spacemap_count(map, 76) == 21 && vd_spacemap_count(map, 77) == 22 && vd_spacemap_count(map, 78) == 21);
        vd_spacemap_free(map);
        vd_findings_free(&findings);
}

int main(void)
{
        overlaps();
        limits();
        huge();
        random_regions();
        filled();
        vd_spacemap_free(NULL);
        return unit_done();
}
