// SPDX-License-Identifier: MIT
/* size.c: sizes as people write and read them. */
#include "util/size.h"
#include "unit.h"

static bool parses(const char *text, uint64_t expected)
{
        struct vd_error err = VD_ERROR_INIT;
        uint64_t bytes = 0;

        return vd_size_parse(text, &bytes, &err) == 0 && bytes == expected;
}

static bool refused(const char *text)
{
        struct vd_error err = VD_ERROR_INIT;
        uint64_t bytes = 0;

        return vd_size_parse(text, &bytes, &err) == VD_EUSAGE && *err.text;
}

static bool shown(uint64_t bytes, const char *expected)
{
        char buffer[32];

        return !strcmp(vd_size_text(bytes, buffer), expected);
}

int main(void)
{
        OK("plain numbers and bytes", parses("0", 0) && parses("512", 512) && parses("512b", 512));
        OK("sectors", parses("3s", 1536) && parses("2880s", 1474560));
        OK("powers of 1024, in either case of k", parses("1k", 1024) && parses("1K", 1024) && parses("1M", 1048576) &&
           parses("10G", UINT64_C(10737418240)) && parses("1T", UINT64_C(1) << 40) && parses("1P", UINT64_C(1) << 50) &&
           parses("1E", UINT64_C(1) << 60));
        OK("fractions, rounded up to a byte", parses("1.5M", 1572864) && parses("0.3", 1) && parses("0.001k", 2));
        OK("more digits than matter", parses("1.00000000000000000000000k", 1024) &&
           parses("0.00000000000000000000001k", 1) && parses("000000000000000000000000000001", 1));
        OK("the largest size", parses("9223372036854775807", INT64_MAX));
        OK("too large", refused("9223372036854775808") && refused("8E") && refused("99999999999999999999999E"));
        OK("not a size", refused("") && refused("k") && refused("-1") && refused("+1") && refused("1.") &&
           refused(".5") && refused("1x") && refused("1kk") && refused("1 k") && refused("1.2.3M") && refused("0x10"));
        OK("printed with three digits", shown(0, "0 B") && shown(512, "512 B") && shown(1024, "1 KiB") &&
           shown(1610612736, "1.5 GiB") && shown(1048576000, "0.977 GiB") && shown(UINT64_MAX, "16 EiB"));
        return unit_done();
}
