// SPDX-License-Identifier: MIT
/* pipeline.h: an ordered, bounded pipeline of stages; knows nothing about disks.
 *
 * Items pass through all stages.  An ordered stage sees them in order, and no two ordered stages run at the same time;
 * parallel stages run on any thread.  With one thread everything runs inline in the caller, in the same order.
 */
#ifndef VD_CORE_PIPELINE_H
#define VD_CORE_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>

#include "util/error.h"

struct vd_stage {
        const char *name;
        bool ordered;
        /* Works on a slot.  context is the run's, worker the calling thread's number (0 ..).  The first stage is
         * ordered and returns 1 for "no more items" (the slot is then unused).  Negative: error, everything ends. */
        int (*run)(void *context, void *slot, unsigned worker, struct vd_error *);
};

/* slots: an array of pointers to the caller's reusable items, slot_count >= 1.  Runs until the first stage has no more
 * and all items are through, or until the first error, which is the one that *err reports. */
int vd_pipeline_run(const struct vd_stage *, size_t stage_count, void **slots, size_t slot_count, unsigned threads,
                    void *context, struct vd_error *);

#endif
