// SPDX-License-Identifier: MIT
/* unit.h: the little that unit programs share: "ok 3 - name" lines, exit status 1 when anything failed. */
#ifndef VD_TESTS_UNIT_H
#define VD_TESTS_UNIT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int unit_count, unit_failures;

static inline void unit_result(bool passed, const char *name, const char *file, int line, const char *condition)
{
        unit_count++;
        printf("%sok %d - %s\n", passed ? "" : "not ", unit_count, name);
        if (!passed) {
                unit_failures++;
                printf("# %s:%d: %s\n", file, line, condition);
        }
        fflush(stdout);                 /* a crash later must not lose it */
}

/* One test: a sentence and what must hold. */
#define OK(name, condition) unit_result((condition), (name), __FILE__, __LINE__, #condition)

/* A step that other tests need; ends the program when it fails. */
#define NEED(condition) \
        do { \
                if (!(condition)) { \
                        printf("Bail out! %s:%d: %s\n", __FILE__, __LINE__, #condition); \
                        exit(1); \
                } \
        } while (0)

static inline int unit_done(void)
{
        printf("1..%d\n", unit_count);
        return unit_failures ? 1 : 0;
}

/* A generator with a fixed seed (xorshift64): the same numbers in every run. */
static inline uint64_t unit_random(uint64_t *state)
{
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

#endif
