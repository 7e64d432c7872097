// SPDX-License-Identifier: MIT
/* pipeline.c: order, bounds and errors of the pipeline, with one thread and with several. */
#include "core/pipeline.h"
#include "unit.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

enum { ITEMS = 3000, SLOTS = 7, STAGES = 5 };

struct item {
        uint64_t number, value;
        unsigned passed;                /* stages */
};

struct run {
        uint64_t next, items;           /* to be made by the first stage */
        uint64_t placed, published;     /* how far the ordered stages are */
        uint64_t sum;
        bool disorder;                  /* an ordered stage saw the wrong item, or a stage was left out */
        bool bad_worker;
        atomic_int in_order, under_way, most;
        unsigned threads;
        uint64_t fail_item;             /* UINT64_MAX: none */
        unsigned fail_stage;
        int fail_code;
};

static int fail_here(struct run *run, const struct item *item, unsigned stage, struct vd_error *err)
{
        if (item->number != run->fail_item || stage != run->fail_stage)
                return 0;
        return vd_fail(err, run->fail_code, "item %d in stage %u", (int)item->number, stage);
}

static void enter(struct run *run, struct item *item, unsigned stage, bool ordered, unsigned worker)
{
        if (item->passed++ != stage || (ordered && atomic_fetch_add(&run->in_order, 1) != 0))
                run->disorder = true;
        if (worker >= (run->threads ? run->threads : 1))
                run->bad_worker = true;
}

static int plan(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct run *run = context;
        struct item *item = slot;
        int under_way;

        if (run->next == run->items)
                return 1;
        *item = (struct item){ .number = run->next++ };
        enter(run, item, 0, true, worker);
        under_way = atomic_fetch_add(&run->under_way, 1) + 1;
        if (under_way > atomic_load(&run->most))
                atomic_store(&run->most, under_way);
        atomic_fetch_sub(&run->in_order, 1);
        return fail_here(run, item, 0, err);
}

static int fetch(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct item *item = slot;

        enter(context, item, 1, false, worker);
        if (item->number % 3 == 0)
                sched_yield();          /* lets later items overtake */
        item->value = item->number * item->number;
        return fail_here(context, item, 1, err);
}

static int place(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct run *run = context;
        struct item *item = slot;

        enter(run, item, 2, true, worker);
        if (item->number != run->placed++)
                run->disorder = true;
        atomic_fetch_sub(&run->in_order, 1);
        return fail_here(run, item, 2, err);
}

static int store(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct item *item = slot;

        enter(context, item, 3, false, worker);
        if (item->number % 5 == 0)
                sched_yield();
        return fail_here(context, item, 3, err);
}

static int publish(void *context, void *slot, unsigned worker, struct vd_error *err)
{
        struct run *run = context;
        struct item *item = slot;

        enter(run, item, 4, true, worker);
        if (item->number != run->published++)
                run->disorder = true;
        run->sum += item->value;
        atomic_fetch_sub(&run->under_way, 1);
        atomic_fetch_sub(&run->in_order, 1);
        return fail_here(run, item, 4, err);
}

static const struct vd_stage stages[STAGES] = {
        { "plan", true, plan }, { "fetch", false, fetch }, { "place", true, place }, { "store", false, store },
        { "publish", true, publish },
};

static int go(struct run *run, size_t slot_count, struct vd_error *err)
{
        struct item items[SLOTS];
        void *slots[SLOTS];

        for (size_t i = 0; i < slot_count; i++)
                slots[i] = &items[i];
        return vd_pipeline_run(stages, STAGES, slots, slot_count, run->threads, run, err);
}

static void whole(unsigned threads, size_t slot_count)
{
        struct run run = { .items = ITEMS, .threads = threads, .fail_item = UINT64_MAX };
        struct vd_error err = VD_ERROR_INIT;
        uint64_t sum = 0;
        char name[128];

        for (uint64_t i = 0; i < ITEMS; i++)
                sum += i * i;
        snprintf(name, sizeof(name), "%u threads, %zu slots: all items pass all stages", threads, slot_count);
        OK(name, go(&run, slot_count, &err) == 0 && run.published == ITEMS && run.sum == sum);
        snprintf(name, sizeof(name), "%u threads, %zu slots: ordered stages see them in order, one at a time", threads,
                 slot_count);
        OK(name, !run.disorder);
        snprintf(name, sizeof(name), "%u threads, %zu slots: no more items than slots, no worker too many", threads,
                 slot_count);
        OK(name, atomic_load(&run.most) <= (int)slot_count && !run.bad_worker);
}

static void failing(unsigned threads)
{
        bool reported = true, stopped = true, ordered = true;
        char name[128];

        for (unsigned stage = 0; stage < STAGES; stage++) {
                struct run run = {
                        .items = ITEMS, .threads = threads, .fail_item = 100, .fail_stage = stage, .fail_code = -EIO,
                };
                struct vd_error err = VD_ERROR_INIT;
                char text[64];

                snprintf(text, sizeof(text), "item 100 in stage %u: ", stage);
                reported = reported && go(&run, SLOTS, &err) == -EIO && err.code == -EIO &&
                           strncmp(err.text, text, strlen(text)) == 0;
                stopped = stopped && run.published <= 101 && run.next <= 101 + SLOTS;
                ordered = ordered && !run.disorder;
        }
        snprintf(name, sizeof(name), "%u threads: an error in any stage is the result", threads);
        OK(name, reported);
        snprintf(name, sizeof(name), "%u threads: after it nothing new is begun, nothing later is published", threads);
        OK(name, stopped && ordered);
}

int main(void)
{
        struct run empty = { .threads = 3, .fail_item = UINT64_MAX };
        struct run early = { .items = ITEMS, .threads = 4, .fail_item = 0, .fail_stage = 0, .fail_code = VD_ESTOPPED };
        struct vd_error err = VD_ERROR_INIT;

        whole(1, SLOTS);
        whole(1, 1);
        whole(2, SLOTS);
        whole(4, SLOTS);
        whole(8, 3);
        whole(4, 1);
        failing(1);
        failing(4);
        OK("no items at all is fine", go(&empty, SLOTS, &err) == 0 && empty.published == 0);
        OK("an error at the very first item ends it", go(&early, SLOTS, &err) == VD_ESTOPPED);
        return unit_done();
}
