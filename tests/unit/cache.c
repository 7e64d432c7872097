// SPDX-License-Identifier: MIT
/* cache.c: table pages, read late and written together. */
#include "core/cache.h"
#include "unit.h"

enum { PAGE = 64, ORIGIN = 100, PAGES = 50, FILE_BYTES = ORIGIN + PAGES * PAGE };

static struct vd_error err;
static uint8_t content[FILE_BYTES];

static struct vd_file *new_file(size_t length)
{
        struct vd_file *file;

        for (size_t i = 0; i < sizeof(content); i++)
                content[i] = (uint8_t)(i * 7 + i / 256);
        NEED(vd_file_memory(&file, content, length, "memory", &err) == 0);
        return file;
}

static uint8_t *get(struct vd_cache *cache, uint64_t position)
{
        void *bytes = NULL;

        return vd_cache_get(cache, position, &bytes, &err) == 0 ? bytes : NULL;
}

static uint8_t stored(struct vd_file *file, uint64_t position)
{
        uint8_t byte = 0;

        NEED(vd_file_read(file, &byte, 1, position, &err) == 0);
        return byte;
}

static void reading(void)
{
        struct vd_file *file = new_file(FILE_BYTES);
        struct vd_cache *cache = vd_cache_new(file, ORIGIN, PAGE, 4, false);
        uint64_t seed = 99;
        bool same = true;

        NEED(cache);
        for (int i = 0; i < 2000; i++) {
                uint64_t position = ORIGIN + unit_random(&seed) % (PAGES * PAGE);
                const uint8_t *bytes = get(cache, position);
                size_t left = PAGE - (position - ORIGIN) % PAGE;

                same = same && bytes && memcmp(bytes, content + position, left) == 0;
        }
        OK("any byte, with the rest of its page, is what the file has", same);
        OK("a page past the end is corrupt", !get(cache, FILE_BYTES) && err.code == VD_ECORRUPT);
        OK("reading makes nothing dirty", !vd_cache_is_dirty(cache));
        vd_cache_free(cache);
        vd_file_unref(file);

        file = new_file(FILE_BYTES - 10);
        cache = vd_cache_new(file, ORIGIN, PAGE, 4, false);
        NEED(cache);
        OK("a page cut by the end of the file is corrupt",
           !get(cache, FILE_BYTES - PAGE) && err.code == VD_ECORRUPT);
        OK("the page before it is not", get(cache, FILE_BYTES - 2 * PAGE) != NULL);
        vd_cache_allow_short(cache, 0xee);
        OK("if allowed, what is missing reads as the fill",
           get(cache, FILE_BYTES - 11) && get(cache, FILE_BYTES - 11)[0] == content[FILE_BYTES - 11] &&
           get(cache, FILE_BYTES - 11)[1] == 0xee && get(cache, FILE_BYTES + 5 * PAGE)[0] == 0xee);
        vd_cache_free(cache);
        vd_file_unref(file);
}

static void writing(void)
{
        struct vd_file *file = new_file(FILE_BYTES);
        struct vd_cache *cache = vd_cache_new(file, ORIGIN, PAGE, 4, true);
        uint64_t third = ORIGIN + 3 * PAGE;
        void *bytes;
        bool kept = true;

        NEED(cache && get(cache, third));
        get(cache, third)[5] = 0xd1;
        vd_cache_dirty(cache, third + 9);
        OK("a changed page is dirty", vd_cache_is_dirty(cache) && stored(file, third + 5) == content[third + 5]);
        for (uint64_t i = 0; i < PAGES; i++)
                NEED(get(cache, ORIGIN + i * PAGE));
        OK("pinned pages are not written to make room", stored(file, third + 5) == content[third + 5] &&
                                                        get(cache, third)[5] == 0xd1);
        OK("a flush writes", vd_cache_flush(cache, &err) == 0 && stored(file, third + 5) == 0xd1 &&
                             !vd_cache_is_dirty(cache));

        for (uint64_t i = 0; i < 20; i++) {
                NEED(vd_cache_get_new(cache, ORIGIN + i * PAGE, (uint8_t)i, &bytes, &err) == 0);
                kept = kept && ((uint8_t *)bytes)[PAGE - 1] == (uint8_t)i;
        }
        for (uint64_t i = 0; i < 20; i++)
                kept = kept && get(cache, ORIGIN + i * PAGE)[0] == (uint8_t)i;
        OK("more dirty pages than the bound are kept while pinned", kept);
        vd_cache_drop(cache, ORIGIN + 2 * PAGE + 1, PAGE);
        OK("dropped pages are forgotten: the file's bytes are back",
           get(cache, ORIGIN + 2 * PAGE)[0] == content[ORIGIN + 2 * PAGE] && get(cache, third)[0] == content[third] &&
           get(cache, ORIGIN + PAGE)[0] == 1 && get(cache, ORIGIN + 4 * PAGE)[0] == 4);
        OK("a flush writes the others only", vd_cache_flush(cache, &err) == 0 && stored(file, ORIGIN + 4 * PAGE) == 4 &&
                                             stored(file, ORIGIN + 2 * PAGE) == content[ORIGIN + 2 * PAGE]);
        get(cache, ORIGIN)[0] = 0x77;
        vd_cache_dirty(cache, ORIGIN);
        vd_cache_free(cache);
        OK("what was not flushed is lost with the cache", stored(file, ORIGIN) == 0);
        vd_file_unref(file);
}

/* Random reads and changes through a small cache against a plain copy. */
static void random_work(bool pin_dirty)
{
        struct vd_file *file = new_file(FILE_BYTES);
        struct vd_cache *cache = vd_cache_new(file, ORIGIN, PAGE, 5, pin_dirty);
        static uint8_t model[FILE_BYTES];
        uint64_t seed = 12345;
        bool same = true;

        NEED(cache);
        memcpy(model, content, sizeof(model));
        for (int i = 0; i < 20000; i++) {
                uint64_t position = ORIGIN + unit_random(&seed) % (PAGES * PAGE);
                uint8_t *byte = get(cache, position);

                same = same && byte && *byte == model[position];
                if (byte && i % 3 == 0) {
                        *byte = model[position] = (uint8_t)unit_random(&seed);
                        vd_cache_dirty(cache, position);
                }
                if (i % 1000 == 999)
                        NEED(vd_cache_flush(cache, &err) == 0);
        }
        NEED(vd_cache_flush(cache, &err) == 0);
        for (uint64_t i = 0; i < FILE_BYTES; i++)
                same = same && stored(file, i) == model[i];
        OK(pin_dirty ? "random work, pinned: cache and file agree with a copy"
                     : "random work, written as needed: cache and file agree with a copy", same);
        vd_cache_free(cache);
        vd_file_unref(file);
}

int main(void)
{
        reading();
        writing();
        random_work(false);
        random_work(true);
        vd_cache_free(NULL);
        return unit_done();
}
