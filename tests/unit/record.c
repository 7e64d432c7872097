// SPDX-License-Identifier: MIT
/* record.c: vd_file_record() against a plain array, small and with more than it keeps in memory. */
#include "core/file.h"
#include "unit.h"
#include "util/checked.h"

enum { ROOM = 600000, LARGE = 40 * 1024 * 1024 };

static uint64_t seed = 88172645463325252u;

static uint64_t below(uint64_t limit)
{
        return unit_random(&seed) % limit;
}

static bool same(struct vd_file *record, const uint8_t *model, size_t size)
{
        static uint8_t buffer[ROOM];
        struct vd_error err = VD_ERROR_INIT;
        uint64_t from = below(size + 1), length = below(ROOM - from);
        size_t got;

        return vd_file_size(record) == size && !vd_file_read_some(record, buffer, length, from, &got, &err) &&
               got == vd_min(length, size - from) && !memcmp(buffer, model + from, got);
}

static bool change(struct vd_file *record, uint8_t *model, size_t *size)
{
        static uint8_t bytes[20000];
        uint64_t from = below(ROOM - sizeof(bytes)), length = 1 + below(below(2) ? sizeof(bytes) : 700);
        struct vd_error err = VD_ERROR_INIT;

        switch (below(8)) {
        case 0:
                *size = below(ROOM);
                memset(model + *size, 0, ROOM - *size);
                return !vd_file_truncate(record, *size, &err);
        case 1:
                memset(model + from, 0, length);
                *size = vd_max(*size, from + length);
                return !vd_file_zero(record, from, length, &err);
        case 2:
                vd_file_record_grow(record, from + length);
                *size = vd_max(*size, from + length);
                return true;
        case 3:
                memset(bytes, (int)below(3) * 0x7f, length);    /* pages of one byte over and over */
                break;
        default:
                for (size_t i = 0; i < length; i++)
                        bytes[i] = (uint8_t)below(256);
        }
        memcpy(model + from, bytes, length);
        *size = vd_max(*size, from + length);
        return !vd_file_write(record, bytes, length, from, &err);
}

static void test_random(void)
{
        static uint8_t model[ROOM];
        struct vd_error err = VD_ERROR_INIT;
        struct vd_file *record;
        size_t size = 0;
        bool good = true;

        NEED(!vd_file_record(&record, "record", &err));
        for (int i = 0; i < 3000 && good; i++)
                good = change(record, model, &size) && same(record, model, size);
        OK("reads what was written, over and over", good);
        OK("nobody asked for space", !vd_file_record_allocated(record));
        NEED(!vd_file_allocate(record, 0, ROOM, &err));
        OK("somebody did", vd_file_record_allocated(record) && vd_file_size(record) >= ROOM);
        vd_file_unref(record);
}

/* Every page differs, so that none is kept as one byte. */
static uint64_t word_at(uint64_t position)
{
        return position * 0x9E3779B97F4A7C15u + 1;
}

static void test_large(void)
{
        struct vd_error err = VD_ERROR_INIT;
        uint64_t far = UINT64_C(1) << 62, words[512], read[512];
        struct vd_file *record;
        bool good = true;

        NEED(!vd_file_record(&record, "record", &err));
        for (uint64_t at = 0; at < LARGE && good; at += sizeof(words)) {
                for (size_t i = 0; i < 512; i++)
                        words[i] = word_at(at + i * 8);
                good = !vd_file_write(record, words, sizeof(words), far + at, &err);
        }
        OK("more than the memory's share is written", good);
        for (uint64_t at = 0; at < LARGE && good; at += sizeof(words)) {
                good = !vd_file_read(record, read, sizeof(read), far + at, &err);
                for (size_t i = 0; i < 512; i++)
                        good = good && read[i] == word_at(at + i * 8);
        }
        OK("and read back", good);
        OK("the length is exact", vd_file_size(record) == far + LARGE);
        vd_file_unref(record);
}

int main(void)
{
        test_random();
        test_large();
        return unit_done();
}
