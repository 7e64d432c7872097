// SPDX-License-Identifier: MIT
/* shared.c: geometry, identifiers, UTF-16 and bitmaps, as several formats store them. */
#include "formats/shared/blocktable.h"
#include "formats/shared/chs.h"
#include "formats/shared/guid.h"
#include "formats/shared/utf16.h"
#include "unit.h"

static bool geometry_is(uint64_t bytes, unsigned cylinders, unsigned heads, unsigned sectors, uint64_t covered)
{
        struct vd_chs chs = vd_chs_of_sectors(bytes / 512);

        return chs.cylinders == cylinders && chs.heads == heads && chs.sectors == sectors && vd_chs_bytes(chs) == covered;
}

static void geometry(void)
{
        bool fits = true;

        OK("geometry of 1 MiB", geometry_is(1 << 20, 30, 4, 17, 1044480));
        OK("geometry of 10 MiB", geometry_is(10 << 20, 301, 4, 17, 10479616));
        OK("geometry of 1 GiB", geometry_is(1 << 30, 2080, 16, 63, 1073479680));
        OK("geometry of 8 GiB", geometry_is(8ull << 30, 16644, 16, 63, 8589901824));
        OK("the first size with 255 sectors a track", geometry_is(33822351360, 16191, 16, 255, 33822351360));
        OK("geometry of 127 GiB", geometry_is(127ull << 30, 65278, 16, 255, 136363130880));
        OK("larger disks have the largest geometry", vd_chs_is_largest(vd_chs_of_sectors(UINT64_MAX)));
        OK("one sector has no geometry", vd_chs_bytes(vd_chs_of_sectors(1)) == 0);
        OK("10 MiB is rounded up as qemu-img does", vd_chs_fitting(20480) * 512 == 10514432);
        OK("1 GiB too", vd_chs_fitting(1 << 21) * 512 == 1073995776);
        OK("what has no geometry stays", vd_chs_fitting(VD_CHS_MAX_SECTORS + 1) == VD_CHS_MAX_SECTORS + 1);
        for (uint64_t sectors = 1; sectors < VD_CHS_MAX_SECTORS; sectors += sectors / 3 + 1) {
                uint64_t fitting = vd_chs_fitting(sectors);

                fits = fits && fitting >= sectors && vd_chs_bytes(vd_chs_of_sectors(fitting)) == fitting * 512;
        }
        OK("a fitting size is covered exactly", fits);
}

static void identifiers(void)
{
        static const char text[] = "fa7b1064-a791-44bb-af3a-12eebbc13766";
        static const uint8_t microsoft[16] = { 0x64, 0x10, 0x7b, 0xfa, 0x91, 0xa7, 0xbb, 0x44,
                                               0xaf, 0x3a, 0x12, 0xee, 0xbb, 0xc1, 0x37, 0x66 };
        char buffer[VD_GUID_TEXT];
        uint8_t guid[16];

        OK("Microsoft order is printed", !strcmp(vd_guid_text(microsoft, VD_GUID_MICROSOFT, buffer), text));
        OK("and read", vd_guid_parse(text, VD_GUID_MICROSOFT, guid) && !memcmp(guid, microsoft, 16));
        OK("upper case and braces are read",
           vd_guid_parse("{FA7B1064-A791-44BB-AF3A-12EEBBC13766}", VD_GUID_RFC, guid) && guid[0] == 0xfa);
        OK("RFC order is printed", !strcmp(vd_guid_text(guid, VD_GUID_RFC, buffer), text));
        OK("a missing digit is refused", !vd_guid_parse("fa7b1064-a791-44bb-af3a-12eebbc1376", VD_GUID_RFC, guid));
        OK("one too many is", !vd_guid_parse("fa7b1064-a791-44bb-af3a-12eebbc137660", VD_GUID_RFC, guid));
        OK("an open brace is", !vd_guid_parse("{fa7b1064-a791-44bb-af3a-12eebbc13766", VD_GUID_RFC, guid));
        OK("no text is", !vd_guid_parse("", VD_GUID_RFC, guid));
        memset(guid, 0, sizeof(guid));
        OK("zero is zero", vd_guid_is_zero(guid) && !vd_guid_is_zero(microsoft));
}

static bool decodes(const char *bytes, size_t length, bool big_endian, const char *expected)
{
        char *text = vd_utf16_to_utf8(bytes, length, big_endian);
        bool same = text && !strcmp(text, expected);

        free(text);
        return same;
}

static bool round_trips(const char *text, bool big_endian)
{
        size_t bytes;
        uint8_t *utf16 = vd_utf16_from_utf8(text, big_endian, &bytes);
        bool same = utf16 && decodes((const char *)utf16, bytes, big_endian, text);

        free(utf16);
        return same;
}

static bool is_refused(const char *text)
{
        size_t bytes;

        return !vd_utf16_from_utf8(text, false, &bytes) && bytes == SIZE_MAX;
}

static void names(void)
{
        OK("little-endian text", decodes("a\0\xe4\0", 4, false, "a\xc3\xa4"));
        OK("big-endian text ends at its NUL", decodes("\0a\0\0\0b", 6, true, "a"));
        OK("half a unit is left out", decodes("a\0b", 3, false, "a"));
        OK("a surrogate without its second half", decodes("\x3d\xd8" "a\0", 4, false, "\xef\xbf\xbd" "a"));
        OK("a second half alone", decodes("\0\xdc", 2, false, "\xef\xbf\xbd"));
        OK("all lengths of UTF-8 survive", round_trips("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe", false));
        OK("in both orders", round_trips("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe", true));
        OK("a cut character is refused", is_refused("a\xe2\x82"));
        OK("an overlong one is", is_refused("\xc0\xaf"));
        OK("a surrogate is", is_refused("\xed\xa0\x80"));
        OK("a byte that never begins one is", is_refused("\xff"));
        OK("what lies past Unicode is", is_refused("\xf4\x90\x80\x80"));
}

/* The slow way. */
static bool bit(const uint8_t *bits, uint64_t i, bool msb_first)
{
        return bits[i / 8] >> (msb_first ? 7 - i % 8 : i % 8) & 1;
}

static void bitmaps(void)
{
        uint64_t seed = 4711;
        bool runs = true, fills = true, reports = true;

        for (int round = 0; round < 2000; round++) {
                uint8_t bits[16], before[16];
                bool msb_first = round & 1, value = round & 2, set, changed = false;

                for (size_t i = 0; i < sizeof(bits); i++) {
                        uint64_t r = unit_random(&seed);

                        bits[i] = r % 3 == 0 ? 0 : r % 3 == 1 ? 0xff : (uint8_t)(r >> 8);
                }

                uint64_t first = unit_random(&seed) % 128, end = first + 1 + unit_random(&seed) % (128 - first), n = first;
                uint64_t run = vd_bits_run(bits, first, end, msb_first, &set);

                while (n < end && bit(bits, n, msb_first) == bit(bits, first, msb_first))
                        n++;
                runs = runs && run == n - first && set == bit(bits, first, msb_first);

                memcpy(before, bits, sizeof(bits));
                bool said = vd_bits_fill(bits, first, end, msb_first, value);

                for (uint64_t i = 0; i < 128; i++) {
                        bool inside = i >= first && i < end;

                        fills = fills && bit(bits, i, msb_first) == (inside ? value : bit(before, i, msb_first));
                        changed = changed || (inside && bit(before, i, msb_first) != value);
                }
                reports = reports && said == changed;
        }
        OK("runs of bits are found", runs);
        OK("ranges of bits are filled", fills);
        OK("and a change is told", reports);
}

int main(void)
{
        geometry();
        identifiers();
        names();
        bitmaps();
        return unit_done();
}
