// SPDX-License-Identifier: MIT
/* pace.c: waiting, where a copy must not take all of a disk or network. */
#include "pace.h"

#include <time.h>

static uint64_t now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void vd_pace_start(struct vd_pace *pace, uint64_t rate, const volatile int *stop)
{
        *pace = (struct vd_pace){ .rate = rate, .stop = stop, .started = now() };
}

/* A stop wakes it up within a tenth of a second. */
void vd_pace_keep(struct vd_pace *pace, uint64_t bytes)
{
        double due;

        if (!pace->rate)
                return;
        pace->moved += bytes;
        due = (double)pace->moved / (double)pace->rate;
        while (!(pace->stop && *pace->stop)) {
                double left = due - (double)(now() - pace->started) / 1e9;
                struct timespec pause = { 0, left < 0.1 ? (long)(left * 1e9) : 100000000 };

                if (left <= 0)
                        break;
                nanosleep(&pause, NULL);
        }
}
