// SPDX-License-Identifier: MIT
/* vhdx_log.c: replaying the log of a disk that was not closed.
 *
 *      entry: [ header 64 | descriptors of 32 ... ] [ descriptors ... ] [ data sector ] ...   4 KiB each, in a ring
 *
 * Entries whose sequence numbers follow each other form a run; its last entry (the head) says where the entries that
 * are still needed begin.  The run with the highest head is what counts; all of it is checked before the first byte
 * changes.  The same code writes into the file or into an overlay, so that both give the same disk.
 * Cost: 32 bytes of memory per sector of the log, two passes over what is in it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/write.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "util/crc32c.h"
#include "vhdx.h"
#include "vhdx_log.h"

/* A valid entry of the log, by the index of its first sector. */
struct entry {
        uint32_t sectors;               /* 0: no entry begins here */
        uint32_t tail;                  /* index of the oldest entry needed */
        uint64_t sequence;
        uint32_t previous;              /* index + 1 of the entry before it in its run; 0: none */
        uint32_t next;                  /* the same, after it */
};

struct scan {
        struct vhdx *v;
        uint64_t position;              /* of the log */
        uint32_t sectors;               /* in the log */
        struct entry *entries;
};

/* Sector i of the ring; what the file does not have reads as zeros, which no entry contains. */
static int read_sector(const struct scan *s, uint64_t i, void *sector, struct vd_error *err)
{
        uint64_t position = s->position + i % s->sectors * VHDX_SECTOR;
        size_t got;
        int r = vd_file_read_some(s->v->data, sector, VHDX_SECTOR, position, &got, err);

        if (!r)
                memset((uint8_t *)sector + got, 0, VHDX_SECTOR - got);
        return r;
}

static bool is_entry_header(const struct scan *s, const struct vhdx_log_header_disk *h, uint64_t *descriptor_sectors)
{
        uint64_t length = le32_get(h->length), tail = le32_get(h->tail);

        *descriptor_sectors = vd_div_up((uint64_t)le32_get(h->count) + VHDX_LOG_FIRST, VHDX_LOG_PER_SECTOR);
        return !memcmp(h->signature, "loge", 4) && length % VHDX_SECTOR == 0 &&
               length >= *descriptor_sectors * VHDX_SECTOR && length <= (uint64_t)s->sectors * VHDX_SECTOR &&
               tail % VHDX_SECTOR == 0 && tail < (uint64_t)s->sectors * VHDX_SECTOR && le64_get(h->sequence) &&
               !memcmp(h->log_guid, s->v->header.log_guid, 16);
}

/* Are the descriptors in this sector those of an entry with that sequence number? Counts the data sectors they want. */
static bool are_descriptors(const struct vhdx_log_descriptor_disk *d, uint64_t count, uint64_t sequence,
                            uint64_t *data_sectors)
{
        for (uint64_t i = 0; i < count; i++) {
                bool data = !memcmp(d[i].signature, "desc", 4);

                if ((!data && (memcmp(d[i].signature, "zero", 4) != 0 || le64_get(d[i].leading) % VHDX_SECTOR)) ||
                    le64_get(d[i].position) % VHDX_SECTOR || le64_get(d[i].sequence) != sequence)
                        return false;
                *data_sectors += data;
        }
        return true;
}

static bool is_data_sector(const struct vhdx_log_data_disk *d, uint64_t sequence)
{
        return !memcmp(d->signature, "data", 4) && le32_get(d->sequence_high) == sequence >> 32 &&
               le32_get(d->sequence_low) == (uint32_t)sequence;
}

/* Fills s->entries[first] when a valid entry begins there.  An entry's own sectors never look like the beginning of
 * another, so looking at every sector costs little more than reading the log once. */
static int look_at(struct scan *s, uint32_t first, struct vd_error *err)
{
        _Alignas(8) uint8_t sector[VHDX_SECTOR];
        const struct vhdx_log_header_disk *h = (const struct vhdx_log_header_disk *)sector;
        uint64_t descriptor_sectors, sectors, left, data_sectors = 0, sequence;
        uint32_t crc, wanted, tail;
        int r = read_sector(s, first, sector, err);

        if (r || !is_entry_header(s, h, &descriptor_sectors))
                return r;
        sectors = le32_get(h->length) / VHDX_SECTOR;
        sequence = le64_get(h->sequence);
        wanted = le32_get(h->checksum);
        tail = le32_get(h->tail) / VHDX_SECTOR;
        left = le32_get(h->count);
        crc = vhdx_checksum(sector, VHDX_SECTOR);
        for (uint64_t i = 0; i < sectors; i++) {
                if (i) {
                        r = read_sector(s, first + i, sector, err);
                        if (r)
                                return r;
                        crc = vd_crc32c(crc, sector, VHDX_SECTOR);
                }
                if (i < descriptor_sectors) {
                        unsigned skip = i ? 0 : VHDX_LOG_FIRST;
                        uint64_t here = vd_min(left, VHDX_LOG_PER_SECTOR - skip);

                        if (!are_descriptors((const struct vhdx_log_descriptor_disk *)sector + skip, here, sequence,
                                             &data_sectors))
                                return 0;
                        left -= here;
                        if (i + 1 == descriptor_sectors && descriptor_sectors + data_sectors != sectors)
                                return 0;
                } else if (!is_data_sector((const struct vhdx_log_data_disk *)sector, sequence)) {
                        return 0;
                }
        }
        if (crc == wanted)
                s->entries[first] = (struct entry){ .sectors = (uint32_t)sectors, .tail = tail, .sequence = sequence };
        return 0;
}

/* Links entries that follow each other into runs. */
static void link_runs(struct scan *s)
{
        for (uint32_t i = 0; i < s->sectors; i++) {
                struct entry *e = &s->entries[i];
                uint32_t next = e->sectors ? (uint32_t)(((uint64_t)i + e->sectors) % s->sectors) : 0;

                if (e->sectors && s->entries[next].sectors && s->entries[next].sequence == e->sequence + 1) {
                        e->next = next + 1;
                        s->entries[next].previous = i + 1;
                }
        }
}

/* Does the run that ends with this head hold the entry its tail names, all inside one turn of the ring? */
static bool is_complete(const struct scan *s, uint32_t head)
{
        uint32_t tail = s->entries[head].tail;
        uint64_t sectors = 0;

        for (uint32_t i = head + 1; i; i = s->entries[i - 1].previous) {
                sectors += s->entries[i - 1].sectors;
                if (sectors > s->sectors)
                        return false;
                if (i - 1 == tail)
                        return true;
        }
        return false;
}

/* The head of the run to replay. */
static int find_head(struct scan *s, uint32_t *head, struct vd_error *err)
{
        uint64_t best = 0, size = vd_file_size(s->v->data), end = 0;

        for (uint32_t i = 0; i < s->sectors; i++) {
                uint64_t position = s->position + (uint64_t)i * VHDX_SECTOR;
                bool data = true;
                int r = 0;

                if (position >= size)
                        break;
                /* Most of a log is a hole, and a crafted one may be 4 GiB long. */
                if (position >= end)
                        r = vd_file_next(s->v->data, position, &data, &end, err);
                if (!r && data)
                        r = look_at(s, i, err);
                else if (!r && end - position >= VHDX_SECTOR)
                        i += (uint32_t)(vd_min((end - position) / VHDX_SECTOR, s->sectors - i) - 1);
                if (r)
                        return r;
        }
        link_runs(s);
        for (uint32_t i = 0; i < s->sectors; i++) {
                const struct entry *e = &s->entries[i];

                if (e->sectors && !e->next && e->sequence > best && is_complete(s, i)) {
                        best = e->sequence;
                        *head = i;
                }
        }
        if (!best)
                return vd_fail(err, VD_ECORRUPT, "the log at %" PRIu64 " is in use, but holds no valid entries",
                               s->position);
        return 0;
}

/* A crafted log must not reach the identifier, the headers or itself, nor make the file huge. */
static int check_target(const struct scan *s, uint64_t position, uint64_t length, uint64_t limit, struct vd_error *err)
{
        if (!vd_range_fits(position, length, limit) || position < VHDX_REGIONS_1 ||
            (position < s->position + (uint64_t)s->sectors * VHDX_SECTOR && s->position < position + length))
                return vd_fail(err, VD_ECORRUPT, "the log wants to change %" PRIu64 " bytes at %" PRIu64
                               ": allowed are %d to %" PRIu64 ", without the log itself", length, position,
                               VHDX_REGIONS_1, limit);
        return 0;
}

/* One descriptor; with a file, makes its change in it. */
static int apply_one(const struct scan *s, const struct vhdx_log_descriptor_disk *desc, uint64_t *data_at,
                     uint64_t limit, struct vd_file *to, struct vd_error *err)
{
        bool zero = !memcmp(desc->signature, "zero", 4);
        uint64_t position = le64_get(desc->position), length = zero ? le64_get(desc->leading) : VHDX_SECTOR;
        struct vhdx_log_data_disk data;
        int r = check_target(s, position, length, limit, err);

        if (r || !to)
                return r;
        if (zero)
                return vd_file_zero(to, position, length, err);
        r = read_sector(s, (*data_at)++, &data, err);
        if (r)
                return r;
        memcpy(&data, &desc->leading, sizeof(desc->leading));
        memcpy(&data.sequence_low, desc->trailing, sizeof(desc->trailing));
        return vd_file_write(to, &data, sizeof(data), position, err);
}

/* Checks that an entry changes nothing past limit; with a file, makes the changes in it. */
static int apply_entry(const struct scan *s, uint32_t first, uint64_t limit, struct vd_file *to, struct vd_error *err)
{
        _Alignas(8) uint8_t sector[VHDX_SECTOR];
        uint64_t count, data_at;
        int r = read_sector(s, first, sector, err);

        count = r ? 0 : le32_get(((const struct vhdx_log_header_disk *)sector)->count);
        data_at = first + vd_div_up(count + VHDX_LOG_FIRST, VHDX_LOG_PER_SECTOR);
        for (uint64_t slot = VHDX_LOG_FIRST; slot < count + VHDX_LOG_FIRST && !r; slot++) {
                if (slot % VHDX_LOG_PER_SECTOR == 0)
                        r = read_sector(s, first + slot / VHDX_LOG_PER_SECTOR, sector, err);
                if (!r)
                        r = apply_one(s, (struct vhdx_log_descriptor_disk *)sector + slot % VHDX_LOG_PER_SECTOR,
                                      &data_at, limit, to, err);
        }
        return r;
}

static int apply(struct vhdx *v, const struct scan *s, uint32_t head, struct vd_file *to, struct vd_error *err)
{
        _Alignas(8) uint8_t sector[VHDX_SECTOR];
        const struct vhdx_log_header_disk *h = (const struct vhdx_log_header_disk *)sector;
        uint64_t size = vd_file_size(v->data), flushed, last, limit;
        int r = read_sector(s, head, sector, err);

        if (r)
                return r;
        flushed = le64_get(h->flushed);
        last = le64_get(h->last);
        if (size < flushed)
                return vd_fail(err, VD_ECORRUPT, "the file is cut short: it ends at %" PRIu64 ", the log says that it "
                               "had %" PRIu64 " bytes", size, flushed);
        if (last > VHDX_LAST_MAX)
                return vd_fail(err, VD_ECORRUPT, "the log wants a file of %" PRIu64 " bytes, at most %" PRIu64
                               " make sense", last, (uint64_t)VHDX_LAST_MAX);
        limit = vd_max(size, last);
        for (unsigned pass = 0; pass < 2; pass++) {
                for (uint32_t i = s->entries[head].tail + 1; i; i = s->entries[i - 1].next) {
                        r = apply_entry(s, i - 1, limit, pass ? to : NULL, err);
                        if (r)
                                return r;
                        v->log_entries += pass;
                }
        }
        return vd_file_size(to) < last ? vd_file_truncate(to, last, err) : 0;
}

int vhdx_replay(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct scan s = { v, le64_get(v->header.log_offset), le32_get(v->header.log_length) / VHDX_SECTOR, NULL };
        VD_AUTOFREE struct entry *entries = NULL;
        struct vd_file *overlay;
        uint32_t head = 0;
        int r;

        if (vd_guid_is_zero(v->header.log_guid))
                return 0;
        if (le16_get(v->header.log_version))
                return vd_fail(err, VD_EUNSUPPORTED, "the log has version %u, only 0 is known",
                               le16_get(v->header.log_version));
        v->log_pending = img->is_dirty = true;
        s.entries = entries = calloc(s.sectors, sizeof(*entries));
        if (!entries)
                return vd_fail(err, -ENOMEM, "a log of %" PRIu32 " sectors", s.sectors);
        r = find_head(&s, &head, err);
        if (r)
                return r;
        if (img->writable) {
                r = apply(v, &s, head, img->file, err);
                if (!r)
                        r = vd_image_barrier(img, img->file, err);
                if (r)
                        return r;
                memset(v->header.log_guid, 0, 16);
                v->log_pending = img->is_dirty = false;
                return vhdx_write_headers(img, err);
        }
        r = vd_file_overlay(&overlay, img->file, err);
        if (r)
                return r;
        r = apply(v, &s, head, overlay, err);
        vd_file_unref(v->file);
        vd_file_unref(v->data);
        v->file = overlay;
        v->data = vd_file_ref(overlay);
        return r;
}
