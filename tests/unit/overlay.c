// SPDX-License-Identifier: MIT
/* overlay.c: vd_file overlays against a plain array; CRC-32C. */
#include "core/file.h"
#include "unit.h"
#include "util/checked.h"
#include "util/crc32c.h"

enum { BASE = 300000, ROOM = 600000 };

static uint64_t state = 362436069;

static uint64_t random_below(uint64_t limit)
{
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state % limit;
}

static bool same(struct vd_file *overlay, const uint8_t *model, size_t size)
{
        static uint8_t buffer[ROOM];
        struct vd_error err = VD_ERROR_INIT;
        uint64_t from = random_below(size + 1), length = random_below(ROOM - from);
        size_t got;

        return vd_file_size(overlay) == size && !vd_file_read_some(overlay, buffer, length, from, &got, &err) &&
               got == vd_min(length, size - from) && !memcmp(buffer, model + from, got);
}

/* Runs of data and holes cover the file, and holes are zeros. */
static bool runs_are_right(struct vd_file *overlay, const uint8_t *model, size_t size)
{
        struct vd_error err = VD_ERROR_INIT;
        uint64_t at = 0, end;

        for (; at < size; at = end) {
                bool data;

                if (vd_file_next(overlay, at, &data, &end, &err) || end <= at || end > size)
                        return false;
                for (uint64_t i = at; !data && i < end; i++)
                        if (model[i])
                                return false;
        }
        return true;
}

static bool change(struct vd_file *overlay, uint8_t *model, size_t *size)
{
        static uint8_t bytes[20000];
        uint64_t from = random_below(ROOM - sizeof(bytes)), length = 1 + random_below(sizeof(bytes));
        struct vd_error err = VD_ERROR_INIT;

        switch (random_below(8)) {
        case 0:
                *size = random_below(ROOM);
                memset(model + *size, 0, ROOM - *size);
                return !vd_file_truncate(overlay, *size, &err);
        case 1:
        case 2:
                memset(model + from, 0, length);
                *size = vd_max(*size, from + length);
                return !vd_file_zero(overlay, from, length, &err);
        default:
                memset(bytes, 1 + (int)random_below(255), length);
                memcpy(model + from, bytes, length);
                *size = vd_max(*size, from + length);
                return !vd_file_write(overlay, bytes, length, from, &err);
        }
}

int main(void)
{
        static uint8_t base_bytes[BASE], model[ROOM], after[BASE];
        struct vd_error err = VD_ERROR_INIT;
        struct vd_file *base, *overlay;
        uint64_t position, length, last = 0;
        size_t size = BASE, got, pieces;
        const void *bytes;
        bool good = true;

        for (size_t i = 0; i < BASE; i++)
                base_bytes[i] = (uint8_t)(i * 7 + i / 251);
        memcpy(model, base_bytes, BASE);
        NEED(!vd_file_memory(&base, base_bytes, BASE, "base", &err));
        NEED(!vd_file_overlay(&overlay, base, &err));
        OK("a new overlay reads as its base", same(overlay, model, size));
        for (unsigned i = 0; i < 3000 && good; i++)
                good = change(overlay, model, &size) && same(overlay, model, size);
        OK("3000 random writes, zeros and cuts read back", good);
        OK("its runs of data and holes cover the file", runs_are_right(overlay, model, size));
        NEED(!vd_file_read_some(base, after, BASE, 0, &got, &err));
        OK("the base did not change", got == BASE && !memcmp(after, base_bytes, BASE));

        pieces = vd_file_overlay_count(overlay);
        good = pieces > 0;
        for (size_t i = 0; i < pieces && good; i++, last = position + length) {
                vd_file_overlay_piece(overlay, i, &position, &length, &bytes);
                good = position >= last && length && (!bytes || position / 4096 == (position + length - 1) / 4096) &&
                       (!bytes || !memcmp(bytes, model + position, length));
        }
        OK("its pieces are in order and do not cross 4096", good);
        vd_file_overlay_forget(overlay);
        memset(model + BASE, 0, ROOM - BASE);
        memcpy(model, base_bytes, BASE);
        OK("it forgets", same(overlay, model, BASE) && vd_file_overlay_count(overlay) == 0);

        for (position = 0; !vd_file_zero(overlay, position, 1, &err); position += 8192)
                NEED(position < UINT64_C(8192) * 100000);
        OK("the number of changes has a bound", vd_file_overlay_count(overlay) > 30000);
        vd_file_unref(overlay);
        vd_file_unref(base);

        OK("CRC-32C of 123456789", vd_crc32c(0, "123456789", 9) == 0xe3069283);
        OK("CRC-32C in two steps", vd_crc32c(vd_crc32c(0, "1234", 4), "56789", 5) == 0xe3069283);
        OK("CRC-32C of nothing", vd_crc32c(0, NULL, 0) == 0);
        OK("CRC-32C of 64 zeros", vd_crc32c(0, (const uint8_t[64]){ 0 }, 64) == 0x03c8eb67);
        return unit_done();
}
