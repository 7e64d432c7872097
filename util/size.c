// SPDX-License-Identifier: MIT
/* size.c: sizes as people write and read them. */
#include "size.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

static const char units[] = "kMGTPE";
static const char allowed[] = "a number with one of b s k M G T P E behind it";

/* The factor that a suffix stands for; 0 when it is none. */
static uint64_t suffix_factor(const char *suffix)
{
        const char *unit;

        if (!*suffix)
                return 1;
        if (suffix[1])
                return 0;
        if (*suffix == 'b' || *suffix == 'B')
                return 1;
        if (*suffix == 's')
                return 512;
        unit = strchr(units, *suffix == 'K' ? 'k' : *suffix);
        if (!unit && islower((unsigned char)*suffix))
                unit = strchr(units, toupper((unsigned char)*suffix));
        return unit ? UINT64_C(1) << (10 * (unit - units + 1)) : 0;
}

int vd_size_parse(const char *text, uint64_t *bytes, struct vd_error *err)
{
        enum { FRACTION_DIGITS = 18 };          /* more cannot change a result of 63 bits other than by rounding */
        unsigned __int128 whole = 0, fraction = 0, scale = 1, total;
        const char *p = text;
        bool rest = false;
        uint64_t factor;
        char shown[64];

        vd_printable(shown, sizeof shown, text, strlen(text));
        if (*p == '-')
                return vd_fail(err, VD_EUSAGE, "size \"%s\" is negative", shown);
        if (!isdigit((unsigned char)*p))
                return vd_fail(err, VD_EUSAGE, "size \"%s\" is not %s", shown, allowed);
        for (; isdigit((unsigned char)*p); p++) {
                whole = whole * 10 + (unsigned)(*p - '0');
                if (whole > INT64_MAX)
                        return vd_fail(err, VD_EUSAGE, "size \"%s\" is more than %lld bytes", shown,
                                       (long long)INT64_MAX);
        }
        if (*p == '.') {
                unsigned digits = 0;

                p++;
                if (!isdigit((unsigned char)*p))
                        return vd_fail(err, VD_EUSAGE, "size \"%s\" is not %s", shown, allowed);
                for (; isdigit((unsigned char)*p); p++) {
                        if (digits++ < FRACTION_DIGITS) {
                                fraction = fraction * 10 + (unsigned)(*p - '0');
                                scale *= 10;
                        } else if (*p != '0') {
                                rest = true;
                        }
                }
        }
        factor = suffix_factor(p);
        if (!factor)
                return vd_fail(err, VD_EUSAGE, "size \"%s\" is not %s", shown, allowed);
        total = whole * factor + (fraction * factor + scale - 1) / scale;
        if (rest && fraction * factor % scale == 0)
                total++;
        if (total > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "size \"%s\" is more than %lld bytes", shown, (long long)INT64_MAX);
        *bytes = (uint64_t)total;
        return 0;
}

char *vd_size_text(uint64_t bytes, char buffer[32])
{
        static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double value = (double)bytes;
        unsigned unit = 0;

        /* From 1000 on the next unit is used, so that three digits are always enough: 1000 MiB is 0.977 GiB. */
        while (value >= 999.5 && unit < sizeof names / sizeof *names - 1) {
                value /= 1024;
                unit++;
        }
        snprintf(buffer, 32, "%.3g %s", value, names[unit]);
        return buffer;
}
