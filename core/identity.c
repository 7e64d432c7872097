// SPDX-License-Identifier: MIT
/* identity.c: time and identifiers, reproducible when SOURCE_DATE_EPOCH is set.
 *
 * See https://reproducible-builds.org/specs/source-date-epoch/.  A computed identifier is two outputs of splitmix64
 * (public domain, Sebastiano Vigna), whose state took in epoch, seed and purpose; it need not be hard to guess, only
 * different for different inputs.
 */
#include "identity.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum {
        EPOCH_DIGITS = 12,              /* beyond the year 9999 */
        UUID_BYTES = 16,
};

/* 1: set, 0: not set, VD_EUSAGE: set to something else than a decimal number. */
static int source_date_epoch(int64_t *seconds)
{
        const char *text = getenv("SOURCE_DATE_EPOCH");
        int64_t value = 0;
        int digits = 0;

        if (!text)
                return 0;
        for (; text[digits]; digits++) {
                if (text[digits] < '0' || text[digits] > '9' || digits == EPOCH_DIGITS)
                        return VD_EUSAGE;
                value = value * 10 + (text[digits] - '0');
        }
        *seconds = value;
        return digits ? 1 : VD_EUSAGE;
}

static uint64_t splitmix64(uint64_t *state)
{
        uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static void take_in(uint64_t *state, uint64_t value)
{
        *state ^= value;
        *state = splitmix64(state);
}

bool vd_identity_is_fixed(void)
{
        int64_t seconds;

        return source_date_epoch(&seconds) != 0;
}

int64_t vd_identity_time(void)
{
        int64_t seconds;

        return source_date_epoch(&seconds) > 0 ? seconds : (int64_t)time(NULL);
}

int vd_identity_uuid(uint8_t uuid[16], const char *purpose, uint64_t seed, struct vd_error *err)
{
        int64_t epoch;
        int set = source_date_epoch(&epoch);

        if (set < 0)
                return vd_fail(err, set, "SOURCE_DATE_EPOCH is '%s', not a decimal number of seconds of at most %d digits",
                               getenv("SOURCE_DATE_EPOCH"), EPOCH_DIGITS);
        if (set) {
                uint64_t state = 0, bits = 0;

                take_in(&state, (uint64_t)epoch);
                take_in(&state, seed);
                for (const char *c = purpose; *c; c++)
                        take_in(&state, (unsigned char)*c);
                for (int i = 0; i < UUID_BYTES; i++, bits >>= 8) {
                        if (i % 8 == 0)
                                bits = splitmix64(&state);
                        uuid[i] = (uint8_t)bits;
                }
        } else {
                size_t done = 0;

                while (done < UUID_BYTES) {
                        ssize_t got = getrandom(uuid + done, UUID_BYTES - done, 0);

                        if (got < 0 && errno != EINTR)
                                return vd_fail(err, -errno, "random numbers for the %s", purpose);
                        done += got > 0 ? (size_t)got : 0;
                }
        }
        uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);   /* version 4 */
        uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);   /* variant of RFC 9562 */
        return 0;
}
