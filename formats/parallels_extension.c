// SPDX-License-Identifier: MIT
/* parallels_extension.c: the format extension, a cluster of optional features: dirty bitmaps.
 *
 * Somebody who writes without keeping it up to date leaves it where it is and closes the image with 0 instead of
 * PRL_CLOSED; then readers ignore it.  That is what we do.
 */
#include <errno.h>
#include <inttypes.h>
#include <nettle/md5.h>
#include <stdlib.h>
#include <string.h>

#include "parallels.h"
#include "util/checked.h"
#include "util/cleanup.h"

static int read_bitmap(const struct prl_layer *layer, uint64_t position, uint32_t bytes, struct prl_bitmap *bitmap,
                       struct vd_error *err)
{
        struct prl_bitmap_disk disk;
        int r;

        if (bytes < sizeof(disk))
                return vd_fail(err, VD_ECORRUPT, "format extension: dirty bitmap at %" PRIu64 " of %" PRIu32
                               " bytes, at least %zu expected", position, bytes, sizeof(disk));
        r = vd_file_read(layer->file, &disk, sizeof(disk), position, err);
        if (r)
                return r;
        *bitmap = (struct prl_bitmap){
                .sectors = le64_get(disk.sectors), .entries = le32_get(disk.entries), .table = position + sizeof(disk),
                .granule_bytes = (uint64_t)le32_get(disk.granule_sectors) * PRL_SECTOR,
        };
        memcpy(bitmap->id, disk.id, 16);
        if (!vd_is_pow2(bitmap->granule_bytes) || bitmap->entries > (bytes - sizeof(disk)) / sizeof(le64))
                return vd_fail(err, VD_ECORRUPT, "format extension: dirty bitmap at %" PRIu64 " with a granularity of %"
                               PRIu64 " bytes and %" PRIu64 " entries in %" PRIu32 " bytes", position,
                               bitmap->granule_bytes, bitmap->entries, bytes);
        return 0;
}

int prl_extension_read(const struct prl_layer *layer,
                       int (*visit)(void *context, const struct prl_bitmap *, struct vd_error *), void *context,
                       struct vd_error *err)
{
        uint64_t at = layer->extension, end = at + layer->cluster_bytes;
        struct prl_extension_disk extension;
        int r;

        if (at < layer->table_end || !vd_range_fits(at, layer->cluster_bytes, vd_file_size(layer->file)))
                return vd_fail(err, VD_ECORRUPT, "header: format extension of %" PRIu64 " bytes at %" PRIu64
                               " does not lie between the BAT and the file's end at %" PRIu64, layer->cluster_bytes, at,
                               vd_file_size(layer->file));
        r = vd_file_read(layer->file, &extension, sizeof(extension), at, err);
        if (r)
                return r;
        if (le64_get(extension.magic) != PRL_EXTENSION)
                return vd_fail(err, VD_ECORRUPT, "format extension at %" PRIu64 ": magic 0x%" PRIx64 ", expected 0x%"
                               PRIx64, at, le64_get(extension.magic), (uint64_t)PRL_EXTENSION);
        for (at += sizeof(extension); end - at >= sizeof(struct prl_feature_disk);) {
                struct prl_feature_disk feature;
                struct prl_bitmap bitmap;
                uint64_t data = at + sizeof(feature), next;

                r = vd_file_read(layer->file, &feature, sizeof(feature), at, err);
                if (r || !le64_get(feature.magic))
                        return r;
                next = vd_round_up(data + le32_get(feature.data_bytes), 8);
                if (next > end)
                        return vd_fail(err, VD_ECORRUPT, "format extension: feature at %" PRIu64 " of %" PRIu32
                                       " bytes does not end before %" PRIu64, at, le32_get(feature.data_bytes), end);
                if (le64_get(feature.magic) == PRL_BITMAP) {
                        r = read_bitmap(layer, data, le32_get(feature.data_bytes), &bitmap, err);
                        if (!r && visit)
                                r = visit(context, &bitmap, err);
                        if (r)
                                return r;
                } else if (le64_get(feature.flags) & PRL_NECESSARY) {
                        return vd_fail(err, VD_EUNSUPPORTED, "format extension: unknown feature 0x%" PRIx64
                                       ", which must be known", le64_get(feature.magic));
                }
                at = next;
        }
        return 0;
}

int prl_extension_verify(const struct prl_layer *layer, struct vd_error *err)
{
        uint64_t rest = layer->cluster_bytes - sizeof(struct prl_extension_disk);
        VD_AUTOFREE uint8_t *bytes = NULL;
        struct prl_extension_disk extension;
        uint8_t digest[MD5_DIGEST_SIZE];
        struct md5_ctx md5;
        int r;

        if (layer->cluster_bytes > PRL_EXTENSION_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "format extension of %" PRIu64 " bytes, at most %d are checked",
                               layer->cluster_bytes, PRL_EXTENSION_MOST);
        bytes = malloc(rest);
        if (!bytes)
                return vd_fail(err, -ENOMEM, "format extension");
        r = vd_file_read(layer->file, &extension, sizeof(extension), layer->extension, err);
        if (!r)
                r = vd_file_read(layer->file, bytes, rest, layer->extension + sizeof(extension), err);
        if (r)
                return r;
        md5_init(&md5);
        md5_update(&md5, rest, bytes);
        md5_digest(&md5, sizeof(digest), digest);
        if (memcmp(digest, extension.md5, sizeof(digest)))
                return vd_fail(err, VD_ECORRUPT, "format extension at %" PRIu64 ": its checksum is wrong",
                               layer->extension);
        return 0;
}
