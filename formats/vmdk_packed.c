// SPDX-License-Identifier: MIT
/* vmdk_packed.c: compressed grains, and the footer of extents whose directory stands at the end.
 *
 *      with markers     le64 first guest sector, le32 bytes, zlib stream
 *      without          le32 bytes, zlib stream; or the zlib stream alone
 *
 * The specification says RFC 1951, but every writer makes RFC 1950 streams.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"

/* QEMU packs of the last grain only what the disk has, everybody else the whole grain: the stream itself must tell.
 * What is neither is reported when it is read. */
static int find_last_unit(struct vmdk_sparse *s, const struct vd_extent *ext, struct vd_error *err)
{
        uint32_t inside = (uint32_t)(s->capacity - ext->unit_start), bytes = ext->packed_bytes;
        struct vd_codec_context *codec = vd_codec_context_new();
        VD_AUTOFREE char *packed = malloc(bytes), *grain = malloc(s->grain);
        int r = codec && packed && grain ? 0 : vd_fail(err, -ENOMEM, "the last grain");

        if (!r)
                r = vd_file_read(s->file, packed, bytes, ext->position, err);
        if (!r) {
                struct vd_error ignored = VD_ERROR_INIT;

                r = vd_unpack(codec, ext->codec, packed, bytes, grain, inside, &ignored);
                s->last_unit = r ? (uint32_t)s->grain : inside;
                r = r == -ENOMEM ? vd_fail(err, r, "the last grain") : 0;
        }
        vd_codec_context_free(codec);
        return r;
}

static bool is_zlib(const uint8_t *p)
{
        return (p[0] & 0x0f) == 8 && p[0] >> 4 <= 7 && (p[0] << 8 | p[1]) % 31 == 0;
}

/* Where the stream of an entry begins, and how long it is at most. */
static int find_stream(const struct vmdk_sparse *s, uint64_t position, uint64_t guest, uint64_t *start, uint64_t *bytes,
                       struct vd_error *err)
{
        uint64_t end = vd_file_size(s->file);
        struct { le64 sector; le32 size; uint8_t more[4]; } head;
        uint8_t *raw = (uint8_t *)&head;
        int r = vd_file_read(s->file, &head, sizeof(head), position, err);

        if (r)
                return r;
        if (s->flags & VMDK_FLAG_MARKERS) {
                if (le64_get(head.sector) != guest / VMDK_SECTOR)
                        return vd_fail(err, VD_ECORRUPT, "grain at %" PRIu64 " says that it is guest sector %" PRIu64
                                       ", its table says %" PRIu64, position, le64_get(head.sector),
                                       guest / VMDK_SECTOR);
                *start = position + VMDK_MARKER_BYTES;
                *bytes = le32_get(head.size);
        } else if (is_zlib(raw + 4) && !is_zlib(raw)) {
                *start = position + 4;
                *bytes = le32_get(*(const le32 *)(const void *)raw);
        } else {
                *start = position;
                *bytes = vd_min(s->grain * 2 - 1, end - position);
        }
        if (!*bytes || *bytes >= s->grain * 2 || !vd_range_fits(*start, *bytes, end))
                return vd_fail(err, VD_ECORRUPT, "grain at %" PRIu64 " (guest offset %" PRIu64 ") has %" PRIu64
                               " packed bytes, expected 1 to %" PRIu64 " inside the file, which ends at %" PRIu64,
                               position, guest, *bytes, s->grain * 2 - 1, end);
        return 0;
}

int vmdk_packed_entry(struct vmdk_sparse *s, uint64_t position, struct vd_extent *ext, struct vd_error *err)
{
        uint64_t guest = vd_round_down(ext->start, s->grain), start = 0, bytes = 0;
        int r = find_stream(s, position, guest, &start, &bytes, err);

        if (r)
                return r;
        ext->kind = VD_PACKED;
        ext->file = s->file;
        ext->position = start;
        ext->packed_bytes = (uint32_t)bytes;
        ext->codec = VD_CODEC_ZLIB;
        ext->unit_start = guest;
        ext->unit_bytes = (uint32_t)s->grain;
        if (s->capacity - guest >= s->grain)
                return 0;
        if (!s->last_unit)
                r = find_last_unit(s, ext, err);
        ext->unit_bytes = s->last_unit;
        return r;
}

static bool is_footer(const uint8_t sectors[2 * VMDK_SECTOR], const struct vmdk_sparse_disk *header)
{
        struct vmdk_marker_disk marker;
        struct vmdk_sparse_disk footer;

        memcpy(&marker, sectors, sizeof(marker));
        memcpy(&footer, sectors + VMDK_SECTOR, sizeof(footer));
        return le64_get(marker.value) == 1 && le32_get(marker.size) == 0 &&
               le32_get(marker.type) == VMDK_MARKER_FOOTER && !memcmp(footer.magic, "KDMV", 4) &&
               le32_get(footer.version) == le32_get(header->version) &&
               le64_get(footer.capacity) == le64_get(header->capacity) &&
               le64_get(footer.grain) == le64_get(header->grain) &&
               le64_get(footer.directory_offset) != VMDK_GD_AT_END;
}

/* The footer is the last sector but one.  Archives and file systems may have appended a little padding. */
int vmdk_find_footer(struct vd_file *file, const struct vmdk_sparse_disk *header, struct vmdk_sparse_disk *footer,
                     uint64_t *position, struct vd_error *err)
{
        enum { LOOK_BACK = 64 * VMDK_SECTOR };
        uint8_t tail[LOOK_BACK];
        uint64_t end = vd_round_down(vd_file_size(file), VMDK_SECTOR), start = end > LOOK_BACK ? end - LOOK_BACK : 0;
        int r = vd_file_read(file, tail, (size_t)(end - start), start, err);

        if (r)
                return r;
        for (uint64_t at = end; at >= start + 3 * VMDK_SECTOR; at -= VMDK_SECTOR) {
                const uint8_t *p = tail + (at - start) - 3 * VMDK_SECTOR;

                if (is_footer(p, header)) {
                        *position = at - 2 * VMDK_SECTOR;
                        memcpy(footer, p + VMDK_SECTOR, sizeof(*footer));
                        return 0;
                }
        }
        return vd_fail(err, VD_ECORRUPT, "the header refers to a footer, but none is at the end of the file (%" PRIu64
                       " bytes): it is incomplete", vd_file_size(file));
}
