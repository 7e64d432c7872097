// SPDX-License-Identifier: MIT
/* checked.c: arithmetic on numbers from files, at the edges of 64 bits; and zeros of all lengths. */
#include "util/checked.h"
#include "unit.h"
#include "util/iszero.h"

static void arithmetic(void)
{
        uint64_t v;

        OK("a sum that fits", vd_add(UINT64_MAX - 5, 5, &v) && v == UINT64_MAX);
        OK("a sum that does not", !vd_add(UINT64_MAX - 5, 6, &v));
        OK("a product that fits", vd_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &v) &&
                                  v == UINT64_MAX - UINT32_MAX);
        OK("a product that does not", !vd_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
        OK("a product with zero", vd_mul(UINT64_MAX, 0, &v) && v == 0);

        OK("a range inside fits", vd_range_fits(10, 20, 30));
        OK("one byte more does not", !vd_range_fits(10, 21, 30) && !vd_range_fits(11, 20, 30));
        OK("an empty range fits at the limit and not past it", vd_range_fits(30, 0, 30) && !vd_range_fits(31, 0, 30));
        OK("a range whose end overflows does not fit", !vd_range_fits(UINT64_MAX, 2, UINT64_MAX) &&
                                                       !vd_range_fits(2, UINT64_MAX, UINT64_MAX));
        OK("everything fits everything", vd_range_fits(0, UINT64_MAX, UINT64_MAX));

        OK("powers of two", vd_is_pow2(1) && vd_is_pow2(512) && vd_is_pow2(UINT64_C(1) << 63));
        OK("and what is none", !vd_is_pow2(0) && !vd_is_pow2(3) && !vd_is_pow2(UINT64_MAX));
        OK("rounding down", vd_round_down(1023, 512) == 512 && vd_round_down(UINT64_MAX, 3) == UINT64_MAX &&
                            vd_round_down(0, 7) == 0);
        OK("rounding up", vd_round_up(513, 512) == 1024 && vd_round_up(512, 512) == 512 && vd_round_up(0, 7) == 0);
        OK("rounding up next to the limit", vd_round_up(UINT64_MAX, 3) == UINT64_MAX);
        OK("division rounded up never overflows", vd_div_up(UINT64_MAX, 2) == UINT64_C(1) << 63 &&
                                                  vd_div_up(0, 5) == 0 && vd_div_up(5, 5) == 1 &&
                                                  vd_div_up(6, 5) == 2);
        OK("the smaller and the larger", vd_min(1, UINT64_MAX) == 1 && vd_max(1, UINT64_MAX) == UINT64_MAX);
}

/* Every single bit set in every place of every short length at every alignment. */
static void zeros(void)
{
        static uint8_t bytes[2048];
        bool all = true, none = true;

        for (size_t start = 0; start < 17; start++) {
                for (size_t length = 0; length < 300; length++) {
                        all = all && vd_is_zero(bytes + start, length);
                        for (size_t at = 0; at < length; at++) {
                                bytes[start + at] = (uint8_t)(1 << at % 8);
                                none = none && !vd_is_zero(bytes + start, length);
                                bytes[start + at] = 0;
                        }
                }
        }
        OK("zeros are zeros at every length and alignment", all);
        OK("one bit anywhere is seen", none);
        for (size_t at = 0; at < sizeof(bytes); at++) {
                bytes[at] = 0x80;
                none = none && !vd_is_zero(bytes, sizeof(bytes));
                all = all && vd_is_zero(bytes, at) && vd_is_zero(bytes + at + 1, sizeof(bytes) - at - 1);
                bytes[at] = 0;
        }
        OK("bytes around the range do not count", all && none);
}

int main(void)
{
        arithmetic();
        zeros();
        return unit_done();
}
