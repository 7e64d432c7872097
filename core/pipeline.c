// SPDX-License-Identifier: MIT
/* pipeline.c: a ring of slots; every thread takes the most advanced work that may run.
 *
 * A slot belongs to one item (numbered 0, 1, ...) from the first stage to the last and is then reused, so that at most
 * slot_count items are under way.  Work on late stages goes first: it frees slots.
 */
#include "pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct slot {
        uint64_t item;
        size_t stage;                   /* the next one to run */
        bool busy;
};

struct pipeline {
        const struct vd_stage *stages;
        size_t stage_count, slot_count;
        void **items;
        void *context;

        pthread_mutex_t lock;           /* protects all below */
        pthread_cond_t changed;
        struct slot *slots;
        uint64_t *next;                 /* per ordered stage: the item whose turn it is */
        uint64_t finished;              /* items that are through */
        bool ordered_running;           /* ordered stages never overlap */
        bool drained;                   /* the first stage has no more */
        int status;                     /* the first error; everybody stops when it is set */
        struct vd_error error;
};

struct worker {
        struct pipeline *pipeline;
        unsigned number;
        pthread_t thread;
};

static bool may_run(const struct pipeline *p, size_t stage, const struct slot *s)
{
        if (s->busy || s->stage != stage)
                return false;
        if (!p->stages[stage].ordered)
                return true;
        return !p->ordered_running && s->item == p->next[stage] && !(stage == 0 && p->drained);
}

/* Under the lock: the slot whose work should go next, or slot_count. */
static size_t choose(const struct pipeline *p)
{
        for (size_t stage = p->stage_count; stage-- > 0;) {
                size_t best = p->slot_count;

                for (size_t i = 0; i < p->slot_count; i++)
                        if (may_run(p, stage, &p->slots[i]) &&
                            (best == p->slot_count || p->slots[i].item < p->slots[best].item))
                                best = i;
                if (best < p->slot_count)
                        return best;
        }
        return p->slot_count;
}

static bool all_done(const struct pipeline *p)
{
        return p->status || (p->drained && p->finished == p->next[0]);
}

/* Under the lock: books the result of a stage. */
static void book(struct pipeline *p, struct slot *s, int result, const struct vd_error *err)
{
        size_t stage = s->stage;

        s->busy = false;
        if (p->stages[stage].ordered)
                p->ordered_running = false;
        if (result < 0) {
                if (!p->status) {
                        p->status = result;
                        p->error = *err;
                }
                return;
        }
        if (stage == 0 && result > 0) {
                p->drained = true;
                return;
        }
        if (p->stages[stage].ordered)
                p->next[stage]++;
        if (++s->stage == p->stage_count) {
                s->stage = 0;
                s->item += p->slot_count;
                p->finished++;
        }
}

static void *work(void *argument)
{
        struct worker *w = argument;
        struct pipeline *p = w->pipeline;

        pthread_mutex_lock(&p->lock);
        while (!all_done(p)) {
                size_t i = choose(p);
                struct vd_error err = VD_ERROR_INIT;
                struct slot *s = &p->slots[i];
                int r;

                if (i == p->slot_count) {
                        pthread_cond_wait(&p->changed, &p->lock);
                        continue;
                }
                s->busy = true;
                if (p->stages[s->stage].ordered)
                        p->ordered_running = true;
                pthread_mutex_unlock(&p->lock);
                r = p->stages[s->stage].run(p->context, p->items[i], w->number, &err);
                pthread_mutex_lock(&p->lock);
                book(p, s, r, &err);
                pthread_cond_broadcast(&p->changed);
        }
        pthread_mutex_unlock(&p->lock);
        return NULL;
}

int vd_pipeline_run(const struct vd_stage *stages, size_t stage_count, void **slots, size_t slot_count,
                    unsigned threads, void *context, struct vd_error *err)
{
        struct pipeline p = {
                .stages = stages, .stage_count = stage_count, .items = slots, .slot_count = slot_count,
                .context = context, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
        };
        struct worker *workers = calloc(threads ? threads : 1, sizeof(*workers));
        unsigned started = 0;
        bool ready;

        p.slots = calloc(slot_count, sizeof(*p.slots));
        p.next = calloc(stage_count, sizeof(*p.next));
        ready = p.slots && p.next && workers;
        if (!ready) {
                p.status = vd_fail(&p.error, -ENOMEM, "starting the pipeline");
                threads = 0;
        }
        for (size_t i = 0; i < slot_count && p.slots; i++)
                p.slots[i].item = i;
        /* The caller is worker 0.  When the system gives fewer threads, the work is done by those there are. */
        for (unsigned n = 1; n < threads; n++) {
                workers[n] = (struct worker){ .pipeline = &p, .number = n };
                if (pthread_create(&workers[n].thread, NULL, work, &workers[n]))
                        break;
                started = n;
        }
        if (ready) {
                workers[0] = (struct worker){ .pipeline = &p };
                work(&workers[0]);
        }
        for (unsigned n = 1; n <= started; n++)
                pthread_join(workers[n].thread, NULL);
        if (p.status)
                *err = p.error;
        free(p.slots);
        free(p.next);
        free(workers);
        pthread_mutex_destroy(&p.lock);
        pthread_cond_destroy(&p.changed);
        return p.status;
}
