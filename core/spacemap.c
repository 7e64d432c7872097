// SPDX-License-Identifier: MIT
/* spacemap.c: a tree over the granules of a file, as deep as differences need.
 *
 *      word (tree) -> node: 512 words -> ... -> leaf: 4096 cells of one byte
 *
 * A word is either a value that holds for all granules below it, or points to what tells them apart.  So a file of
 * any size starts as one word, large regions stay cheap wherever they lie, and a sparse file of 8 EiB costs no more
 * than what stands in it.
 */
#include "spacemap.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

enum {
        CELLS = 4096, CELL_BITS = 12,
        CHILDREN = 512, CHILD_BITS = 9,
        LEVELS = 6,                     /* enough for 2^57 granules: 64-bit offsets in granules of 512 bytes */
};

/* What is known about a granule.  In a cell, as a byte: count 4 bits, shared 1 bit, class 3 bits; a count of 15 means
 * that the leaf's wide[] has the real one. */
struct use {
        enum vd_class class;            /* of its first user */
        bool shared;                    /* all users agree to that */
        uint32_t count;                 /* of users; stays at UINT32_MAX */
};

enum { CELL_COUNT_MAX = 15 };

static_assert(VD_CLASSES <= 8, "a class fits 3 bits of a cell");

struct leaf {
        uint8_t cells[CELLS];
        uint32_t *wide;                 /* CELLS counts; NULL while all are below 15 */
};

struct node {
        uint64_t words[CHILDREN];
};

struct vd_spacemap {
        uint64_t granule, limit;
        uint64_t granules;
        uint64_t root;
        int level;                      /* of root: 0 points to a leaf */
};

/* What one addition changes, and whom it met. */
struct addition {
        enum vd_class class;
        bool shared;
        uint64_t conflicts, conflict_index;     /* granules that somebody else has; the first of them */
        enum vd_class conflict_class;
};

/* ---- words and cells ---- */

static bool is_pointer(uint64_t word)
{
        return !(word & 1);
}

static void *pointer_of(uint64_t word)
{
        return (void *)(uintptr_t)word;
}

static uint64_t word_of(struct use use)
{
        return (uint64_t)use.count << 8 | (uint64_t)use.class << 2 | (uint64_t)use.shared << 1 | 1;
}

static struct use use_of_word(uint64_t word)
{
        return (struct use){ .count = (uint32_t)(word >> 8), .class = word >> 2 & 7, .shared = word >> 1 & 1 };
}

static struct use use_of_cell(const struct leaf *leaf, size_t i)
{
        uint8_t cell = leaf->cells[i];
        struct use use = { .count = cell & 15, .class = cell >> 5, .shared = cell >> 4 & 1 };

        if (use.count == CELL_COUNT_MAX)
                use.count = leaf->wide[i];
        return use;
}

static int set_cell(struct leaf *leaf, size_t i, struct use use)
{
        if (use.count >= CELL_COUNT_MAX) {
                if (!leaf->wide)
                        leaf->wide = calloc(CELLS, sizeof(*leaf->wide));
                if (!leaf->wide)
                        return -ENOMEM;
                leaf->wide[i] = use.count;
        }
        leaf->cells[i] = (uint8_t)(vd_min(use.count, CELL_COUNT_MAX) | (unsigned)use.shared << 4 |
                                   (unsigned)use.class << 5);
        return 0;
}

/* Granules below a word of this level. */
static uint64_t span(int level)
{
        return UINT64_C(1) << (CELL_BITS + CHILD_BITS * level);
}

static void free_word(uint64_t word, int level)
{
        if (!is_pointer(word))
                return;
        if (level == 0) {
                free(((struct leaf *)pointer_of(word))->wide);
        } else {
                for (size_t i = 0; i < CHILDREN; i++)
                        free_word(((struct node *)pointer_of(word))->words[i], level - 1);
        }
        free(pointer_of(word));
}

/* A word that holds for all below it gets the means to tell them apart. */
static int split(uint64_t *word, int level)
{
        struct use use = use_of_word(*word);

        if (level == 0) {
                struct leaf *leaf = calloc(1, sizeof(*leaf));

                if (!leaf)
                        return -ENOMEM;
                for (size_t i = 0; i < CELLS; i++) {
                        if (set_cell(leaf, i, use) < 0) {
                                free(leaf);
                                return -ENOMEM;
                        }
                }
                *word = (uintptr_t)leaf;
        } else {
                struct node *node = malloc(sizeof(*node));

                if (!node)
                        return -ENOMEM;
                for (size_t i = 0; i < CHILDREN; i++)
                        node->words[i] = *word;
                *word = (uintptr_t)node;
        }
        return 0;
}

/* The opposite, when all below are alike again.  The ends are looked at first: mostly they differ. */
static void merge(uint64_t *word, int level)
{
        if (level == 0) {
                struct leaf *leaf = pointer_of(*word);

                if (leaf->wide || leaf->cells[0] != leaf->cells[CELLS - 1] ||
                    memcmp(leaf->cells, leaf->cells + 1, CELLS - 1) != 0)
                        return;
                *word = word_of(use_of_cell(leaf, 0));
                free(leaf);
        } else {
                struct node *node = pointer_of(*word);

                if (is_pointer(node->words[0]) || node->words[0] != node->words[CHILDREN - 1] ||
                    memcmp(node->words, node->words + 1, sizeof(node->words) - sizeof(node->words[0])) != 0)
                        return;
                *word = node->words[0];
                free(node);
        }
}

/* ---- adding ---- */

/* One more user of `count` granules from index on, which are all alike. */
static struct use add_user(struct use use, struct addition *addition, uint64_t index, uint64_t count)
{
        if (use.count == 0)
                return (struct use){ .class = addition->class, .shared = addition->shared, .count = 1 };
        if (!use.shared || !addition->shared || use.class != addition->class) {
                if (!addition->conflicts) {
                        addition->conflict_index = index;
                        addition->conflict_class = use.class;
                }
                addition->conflicts += count;
        }
        use.shared = use.shared && addition->shared;
        use.count += use.count != UINT32_MAX;
        return use;
}

/* first and last (inclusive) are granules of the whole map; base is the word's first. */
static int add_range(uint64_t *word, int level, uint64_t base, uint64_t first, uint64_t last,
                     struct addition *addition)
{
        if (!is_pointer(*word)) {
                if (first == base && last - base == span(level) - 1) {
                        *word = word_of(add_user(use_of_word(*word), addition, first, span(level)));
                        return 0;
                }
                if (split(word, level) < 0)
                        return -ENOMEM;
        }
        if (level == 0) {
                struct leaf *leaf = pointer_of(*word);

                for (uint64_t i = first; i <= last; i++) {
                        size_t cell = (size_t)(i - base);

                        if (set_cell(leaf, cell, add_user(use_of_cell(leaf, cell), addition, i, 1)) < 0)
                                return -ENOMEM;
                }
        } else {
                struct node *node = pointer_of(*word);
                uint64_t child_span = span(level - 1);

                for (uint64_t at = first; at <= last;) {
                        uint64_t child = (at - base) / child_span;
                        uint64_t child_base = base + child * child_span;
                        uint64_t end = vd_min(last, child_base + child_span - 1);

                        if (add_range(&node->words[child], level - 1, child_base, at, end, addition) < 0)
                                return -ENOMEM;
                        at = end + 1;
                }
        }
        merge(word, level);
        return 0;
}

static const char *class_name(enum vd_class class)
{
        static const char *const names[VD_CLASSES] = {
                [VD_CLASS_FREE] = "free space",
                [VD_CLASS_HEADER] = "a header",
                [VD_CLASS_TABLE] = "a table",
                [VD_CLASS_SUBTABLE] = "a second-level table",
                [VD_CLASS_COUNTS] = "reference counts",
                [VD_CLASS_SNAPSHOT] = "a snapshot or bitmap table",
                [VD_CLASS_DATA] = "data",
                [VD_CLASS_PACKED] = "compressed data",
        };

        return names[class];
}

int vd_spacemap_add(struct vd_spacemap *map, const struct vd_region *region, struct vd_findings *findings)
{
        struct addition addition = { .class = region->class, .shared = region->shared };
        uint64_t inside = region->position < map->limit ? vd_min(region->length, map->limit - region->position) : 0;
        uint64_t first, last, overlap, overlap_end;

        if (inside < region->length)
                vd_find(findings, VD_ERROR, "out-of-file", region->position, region->length, region->guest, 0, false,
                        "%s lies at %" PRIu64 ", %" PRIu64 " bytes long, in a file that ends at %" PRIu64,
                        region->what, region->position, region->length, map->limit);
        if (!inside)
                return 0;
        first = region->position / map->granule;
        last = (region->position + (inside - 1)) / map->granule;
        if (add_range(&map->root, map->level, 0, first, last, &addition) < 0)
                return -ENOMEM;
        if (!addition.conflicts)
                return 0;
        overlap = vd_max(addition.conflict_index * map->granule, region->position);
        overlap_end = vd_min((addition.conflict_index + addition.conflicts) * map->granule,
                             region->position + inside);
        vd_find(findings, VD_ERROR, "overlap", overlap, overlap_end - overlap, region->guest, 0, false,
                "%s at %" PRIu64 ", %" PRIu64 " bytes long, overlaps %s at %" PRIu64, region->what, region->position,
                region->length, class_name(addition.conflict_class), overlap);
        return 0;
}

struct vd_spacemap *vd_spacemap_new(uint64_t granule, uint64_t limit)
{
        struct vd_spacemap *map = calloc(1, sizeof(*map));

        assert(vd_is_pow2(granule));
        if (!map)
                return NULL;
        map->granule = granule;
        map->limit = limit;
        map->granules = vd_div_up(limit, granule);
        map->root = word_of((struct use){ .class = VD_CLASS_FREE });
        while (map->level < LEVELS - 1 && span(map->level) < map->granules)
                map->level++;
        assert(span(map->level) >= map->granules);
        return map;
}

void vd_spacemap_free(struct vd_spacemap *map)
{
        if (!map)
                return;
        free_word(map->root, map->level);
        free(map);
}

/* ---- looking ---- */

/* What granule `index` is used for, and up to where the word or the cells that say so hold. */
static struct use look_up(const struct vd_spacemap *map, uint64_t index, uint64_t *end)
{
        uint64_t word = map->root, base = 0;
        int level = map->level;
        struct use use, next;
        struct leaf *leaf;
        size_t cell;

        while (is_pointer(word) && level > 0) {
                uint64_t child = (index - base) / span(level - 1);

                word = ((struct node *)pointer_of(word))->words[child];
                base += child * span(level - 1);
                level--;
        }
        if (!is_pointer(word)) {
                *end = base + span(level);
                return use_of_word(word);
        }
        leaf = pointer_of(word);
        cell = (size_t)(index - base);
        use = use_of_cell(leaf, cell);
        while (++cell < CELLS) {
                next = use_of_cell(leaf, cell);
                if (next.count != use.count || next.class != use.class)
                        break;
        }
        *end = base + cell;
        return use;
}

uint64_t vd_spacemap_count(const struct vd_spacemap *map, uint64_t granule_index)
{
        uint64_t end;

        return granule_index < map->granules ? look_up(map, granule_index, &end).count : 0;
}

enum vd_class vd_spacemap_class(const struct vd_spacemap *map, uint64_t granule_index)
{
        uint64_t end;

        return granule_index < map->granules ? look_up(map, granule_index, &end).class : VD_CLASS_FREE;
}

bool vd_spacemap_next(const struct vd_spacemap *map, uint64_t *index, uint64_t *length, uint64_t *count,
                      enum vd_class *class)
{
        struct use use;
        uint64_t end;

        if (*index >= map->granules)
                return false;
        use = look_up(map, *index, &end);
        while (end < map->granules) {
                uint64_t next_end;
                struct use next = look_up(map, end, &next_end);

                if (next.count != use.count || next.class != use.class)
                        break;
                end = next_end;
        }
        *length = vd_min(end, map->granules) - *index;
        *count = use.count;
        *class = use.class;
        return true;
}
