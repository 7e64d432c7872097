// SPDX-License-Identifier: MIT
/* vhdx_journal.c: changing a disk in place: headers, and tables through the log.
 *
 * Tables are changed in an overlay (v->file).  A commit writes its sectors as one log entry, sync; then to their
 * places, sync.  An entry needs no other one, and the next is written behind it: until that is complete the log holds a
 * valid entry, whose replay changes nothing.  The log's GUID goes into the headers after the first entry is on disk,
 * because a header with a GUID promises one, and out of them when the image is finished.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "core/write.h"
#include "util/checked.h"
#include "util/cleanup.h"
#include "vhdx.h"
#include "vhdx_log.h"

int vhdx_new_guid(struct vd_image *img, const char *purpose, uint8_t guid[16], struct vd_error *err)
{
        const struct vhdx_header_disk *h = &((struct vhdx *)img->state)->header;
        uint64_t seed = le64_get(h->sequence);

        for (size_t i = 0; i < 16; i++)
                seed = (seed ^ h->file_write_guid[i] ^ (unsigned)h->data_write_guid[i] << 8) * 0x100000001b3;
        return vd_identity_uuid(guid, purpose, seed, err);
}

int vhdx_write_headers(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_header_disk *h = &v->header;
        int r = vhdx_new_guid(img, "vhdx file write", h->file_write_guid, err);

        /* Never the current one first: a torn write must leave one that is valid. */
        for (unsigned i = 0; i < 2 && !r; i++) {
                v->slot = !v->slot;
                h->sequence = le64_put(le64_get(h->sequence) + 1);
                h->checksum = le32_put(vhdx_checksum(h, sizeof(*h)));
                r = vd_file_write(img->file, h, sizeof(*h), v->slot ? VHDX_HEADER_2 : VHDX_HEADER_1, err);
                if (!r)
                        r = vd_image_barrier(img, img->file, err);
                if (!r)
                        v->headers[v->slot] = VHDX_COPY_GOOD;
        }
        return r;
}

/* Puts a changed sector into an entry: what does not fit between the sequence numbers goes to the descriptor. */
static void add_sector(uint8_t *entry, unsigned i, uint64_t sequence, uint64_t position, const void *sector)
{
        struct vhdx_log_descriptor_disk *desc = (struct vhdx_log_descriptor_disk *)entry + VHDX_LOG_FIRST + i;
        struct vhdx_log_data_disk *data = (struct vhdx_log_data_disk *)entry + 1 + i;

        memcpy(data, sector, sizeof(*data));
        memcpy(desc->signature, "desc", 4);
        memcpy(&desc->leading, data, sizeof(desc->leading));
        memcpy(desc->trailing, &data->sequence_low, sizeof(desc->trailing));
        desc->position = le64_put(position);
        desc->sequence = le64_put(sequence);
        memcpy(data->signature, "data", 4);
        data->sequence_high = le32_put((uint32_t)(sequence >> 32));
        data->sequence_low = le32_put((uint32_t)sequence);
}

/* The overlay's pieces are whole sectors: they come from caches with pages of that length. */
static int build_entry(struct vd_image *img, uint8_t *entry, unsigned count, struct vd_error *err)
{
        struct vhdx *v = img->state;
        struct vhdx_log_header_disk *h = (struct vhdx_log_header_disk *)entry;
        uint64_t size = vd_file_size(img->file);

        for (unsigned i = 0; i < count; i++) {
                uint64_t position, length;
                const void *bytes;

                vd_file_overlay_piece(v->file, i, &position, &length, &bytes);
                if (!bytes || length != VHDX_SECTOR)
                        return vd_fail(err, -EINVAL, "a change of %" PRIu64 " bytes at %" PRIu64 " does not fit the "
                                       "log", length, position);
                add_sector(entry, i, v->log_sequence, position, bytes);
        }
        memcpy(h->signature, "loge", 4);
        h->length = le32_put((count + 1) * VHDX_SECTOR);
        h->tail = le32_put(v->log_at);
        h->sequence = le64_put(v->log_sequence);
        h->count = le32_put(count);
        memcpy(h->log_guid, v->header.log_guid, 16);
        h->flushed = le64_put(vd_round_down(vd_min(v->stable, size), VHDX_MIB));
        h->last = le64_put(vd_round_up(size, VHDX_MIB));
        h->checksum = le32_put(vhdx_checksum(entry, (size_t)(count + 1) * VHDX_SECTOR));
        return 0;
}

static int write_entry(struct vd_image *img, const uint8_t *entry, unsigned count, struct vd_error *err)
{
        struct vhdx *v = img->state;
        uint64_t log = le64_get(v->header.log_offset), ring = le32_get(v->header.log_length);
        uint64_t length = (uint64_t)(count + 1) * VHDX_SECTOR, first = vd_min(length, ring - v->log_at);
        int r = vd_file_write(img->file, entry, first, log + v->log_at, err);

        if (!r && first < length)
                r = vd_file_write(img->file, entry + first, length - first, log, err);
        if (!r)
                r = vd_image_barrier(img, img->file, err);
        v->log_at = (uint32_t)((v->log_at + length) % ring);
        v->log_sequence++;
        return r;
}

int vhdx_commit(struct vd_image *img, struct vd_error *err)
{
        struct vhdx *v = img->state;
        size_t count = vd_file_overlay_count(v->file);
        VD_AUTOFREE uint8_t *entry = NULL;
        bool first = vd_guid_is_zero(v->header.log_guid);
        int r = 0;

        if (!count)
                return 0;
        if (count > VHDX_TRANSACTION)
                return vd_fail(err, -EINVAL, "%zu changes in one transaction", count);
        entry = calloc(count + 1, VHDX_SECTOR);
        if (!entry)
                return vd_fail(err, -ENOMEM, "a log entry");
        if (first) {
                r = vhdx_new_guid(img, "vhdx log", v->header.log_guid, err);
                v->log_sequence = 1;
        }
        if (!r)
                r = build_entry(img, entry, (unsigned)count, err);
        if (!r)
                r = write_entry(img, entry, (unsigned)count, err);
        if (!r && first)
                r = vhdx_write_headers(img, err);
        v->stable = vd_file_size(img->file);
        for (size_t i = 0; i < count && !r; i++) {
                uint64_t position, length;
                const void *bytes;

                vd_file_overlay_piece(v->file, i, &position, &length, &bytes);
                r = vd_file_write(img->file, bytes, length, position, err);
        }
        if (!r)
                r = vd_image_barrier(img, img->file, err);
        if (!r)
                vd_file_overlay_forget(v->file);
        return r;
}
