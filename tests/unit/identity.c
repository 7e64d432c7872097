// SPDX-License-Identifier: MIT
/* identity.c: times and identifiers, reproducible when asked for. */
#include "core/identity.h"
#include "unit.h"

#include <time.h>

static struct vd_error err;

static bool made(uint8_t uuid[16], const char *purpose, uint64_t seed)
{
        memset(uuid, 0, 16);
        return vd_identity_uuid(uuid, purpose, seed, &err) == 0 && uuid[6] >> 4 == 4 && uuid[8] >> 6 == 2;
}

int main(void)
{
        static const char *const malformed[] = { "", "now", "-1", " 1", "1 ", "0x10", "1.5", "99999999999999999999" };
        uint8_t a[16], b[16];
        bool all = true;

        NEED(unsetenv("SOURCE_DATE_EPOCH") == 0);
        OK("an identifier is a version 4 UUID", made(a, "disk", 1));
        OK("no two are alike", made(b, "disk", 1) && memcmp(a, b, 16) != 0);
        OK("the time is the clock's", llabs(vd_identity_time() - (int64_t)time(NULL)) < 60);
        OK("nothing is fixed", !vd_identity_is_fixed());

        NEED(setenv("SOURCE_DATE_EPOCH", "1700000000", 1) == 0);
        OK("with SOURCE_DATE_EPOCH the time is that", vd_identity_time() == 1700000000 && vd_identity_is_fixed());
        OK("the same input gives the same identifier",
           made(a, "disk", 1) && made(b, "disk", 1) && memcmp(a, b, 16) == 0);
        OK("another seed another one", made(b, "disk", 2) && memcmp(a, b, 16) != 0);
        OK("another purpose another one", made(b, "disj", 1) && memcmp(a, b, 16) != 0);
        NEED(setenv("SOURCE_DATE_EPOCH", "1700000001", 1) == 0);
        OK("another time another one", made(b, "disk", 1) && memcmp(a, b, 16) != 0);

        for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
                NEED(setenv("SOURCE_DATE_EPOCH", malformed[i], 1) == 0);
                all = all && vd_identity_uuid(a, "disk", 1, &err) == VD_EUSAGE &&
                      llabs(vd_identity_time() - (int64_t)time(NULL)) < 60;
        }
        OK("what is not a decimal number is refused", all);
        return unit_done();
}
