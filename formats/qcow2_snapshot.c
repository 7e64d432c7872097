// SPDX-License-Identifier: MIT
/* qcow2_snapshot.c: the tables of variable-length entries: internal snapshots, and dirty bitmaps. */
#include "qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { MAX_EXTRA_BYTES = 1024 };        /* QEMU takes no more either */

static char *read_text(struct vd_image *img, uint64_t position, size_t length, struct vd_error *err)
{
        char *text = malloc(length + 1);

        if (!text) {
                vd_fail(err, -ENOMEM, "a name of %zu bytes", length);
                return NULL;
        }
        if (vd_file_read(img->file, text, length, position, err)) {
                free(text);
                return NULL;
        }
        text[length] = 0;
        return text;
}

static int read_extra(struct vd_image *img, uint64_t position, struct qcow2_snapshot *s, struct vd_error *err)
{
        struct qcow2_snapshot_extra_disk extra;
        size_t n = (size_t)vd_min(sizeof(extra), s->extra_bytes);
        int r = n ? vd_file_read(img->file, &extra, n, position, err) : 0;

        if (r)
                return r;
        if (n >= offsetof(struct qcow2_snapshot_extra_disk, disk_bytes))
                s->shown.vm_state_bytes = be64_get(extra.vm_state_bytes);
        s->has_disk_size = n >= offsetof(struct qcow2_snapshot_extra_disk, icount);
        if (s->has_disk_size)
                s->shown.size = be64_get(extra.disk_bytes);
        if (n >= sizeof(extra))
                s->shown.icount = be64_get(extra.icount);
        return 0;
}

void qcow2_snapshot_clear(struct qcow2_snapshot *s)
{
        free((char *)s->shown.id);
        free((char *)s->shown.name);
        s->shown.id = s->shown.name = NULL;
}

int qcow2_snapshot_read(struct vd_image *img, uint64_t position, struct qcow2_snapshot *s, uint64_t *next,
                        struct vd_error *err)
{
        const struct qcow2 *q = img->state;
        struct qcow2_snapshot_disk d;
        uint64_t at = position + sizeof(d), id_bytes, name_bytes;
        int r = vd_file_read(img->file, &d, sizeof(d), position, err);

        memset(s, 0, sizeof(*s));
        if (r)
                return vd_error_prefix(err, "snapshot table entry at %" PRIu64, position);
        s->l1 = (struct qcow2_span){ be64_get(d.l1_position), (uint64_t)be32_get(d.l1_entries) * 8 };
        s->extra_bytes = be32_get(d.extra_bytes);
        s->shown = (struct vd_snapshot){
                .size = img->size, .vm_state_bytes = be32_get(d.vm_state_bytes),
                .date_seconds = be32_get(d.date_seconds), .date_nanoseconds = be32_get(d.date_nanoseconds),
                .vm_clock_nanoseconds = be64_get(d.vm_clock_nanoseconds), .icount = UINT64_MAX,
        };
        if (s->extra_bytes > MAX_EXTRA_BYTES)
                return vd_fail(err, VD_ECORRUPT, "snapshot table entry at %" PRIu64 ": %" PRIu32
                               " bytes of extra data, at most %d are allowed", position, s->extra_bytes,
                               MAX_EXTRA_BYTES);
        r = read_extra(img, at, s, err);
        at += s->extra_bytes;
        id_bytes = be16_get(d.id_bytes);
        name_bytes = be16_get(d.name_bytes);
        if (!r)
                s->shown.id = read_text(img, at, id_bytes, err);
        if (s->shown.id)
                s->shown.name = read_text(img, at + id_bytes, name_bytes, err);
        if (!s->shown.name) {
                qcow2_snapshot_clear(s);
                return vd_error_prefix(err, "snapshot table entry at %" PRIu64, position);
        }
        s->entry = (struct qcow2_span){ position, at + id_bytes + name_bytes - position };
        *next = q->snapshots_position + vd_round_up(position + s->entry.length - q->snapshots_position, 8);
        return 0;
}

/* Entry i of the table; the place of the next one is kept, so that going through in order is cheap. */
static int read_nth(struct vd_image *img, unsigned i, struct qcow2_snapshot *s, struct vd_error *err)
{
        struct qcow2 *q = img->state;

        if (i >= q->snapshot_count)
                return -ENOENT;
        if (q->snapshot_count > QCOW2_MAX_SNAPSHOTS || q->snapshots_position % q->cluster)
                return vd_fail(err, VD_ECORRUPT, "header: %" PRIu32 " snapshots at %" PRIu64 ", at most %d at a "
                               "multiple of the cluster size are allowed", q->snapshot_count, q->snapshots_position,
                               QCOW2_MAX_SNAPSHOTS);
        if (!q->snapshot_at.position || q->snapshot_at.index > i) {
                q->snapshot_at.index = 0;
                q->snapshot_at.position = q->snapshots_position;
        }
        for (;;) {
                int r = qcow2_snapshot_read(img, q->snapshot_at.position, s, &q->snapshot_at.position, err);

                if (r) {
                        q->snapshot_at.position = 0;
                        return r;
                }
                if (q->snapshot_at.index++ == i)
                        return 0;
                qcow2_snapshot_clear(s);
        }
}

int qcow2_snapshot(struct vd_image *img, unsigned i, struct vd_snapshot *out, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        struct qcow2_snapshot s;
        int r = read_nth(img, i, &s, err);

        if (r)
                return r;
        free((char *)q->last_snapshot.id);
        free((char *)q->last_snapshot.name);
        q->last_snapshot = s.shown;
        *out = s.shown;
        return 0;
}

/* Shows the disk as the snapshot has it.  As with QEMU, a disk that has grown since keeps its present size: what the
 * snapshot did not have reads as zeros, never as the state of the machine, which is kept behind the snapshot's disk. */
static int show(struct vd_image *img, const struct qcow2_snapshot *s, struct vd_error *err)
{
        struct qcow2 *q = img->state;

        if (img->writable)
                return vd_fail(err, VD_EUNSUPPORTED, "a snapshot can only be read");
        if (s->l1.position % q->cluster)
                return vd_fail(err, VD_ECORRUPT, "snapshot table entry at %" PRIu64 ": L1 table at %" PRIu64
                               ", not a multiple of the cluster size %" PRIu64, s->entry.position, s->l1.position,
                               q->cluster);
        if (s->shown.size > INT64_MAX)
                return vd_fail(err, VD_ECORRUPT, "snapshot table entry at %" PRIu64 ": disk of %" PRIu64
                               " bytes, at most %" PRId64 " are possible", s->entry.position, s->shown.size,
                               INT64_MAX);
        q->map.top_position = s->l1.position;
        q->map.top_entries = s->l1.length / 8;
        q->shown_size = s->shown.size;
        if (!s->has_disk_size)          /* an old entry: the L1 table knows how far it reaches */
                q->shown_size = vd_min(img->size, q->map.top_entries * q->map.entries * q->cluster);
        img->size = vd_max(img->size, q->shown_size);
        return vd_twolevel_check(&q->map, q->shown_size, err);
}

int qcow2_select(struct vd_image *img, const char *id_or_name, struct vd_error *err)
{
        struct qcow2 *q = img->state;
        char shown[256];

        /* Ids are unique and names need not be: an id wins. */
        for (unsigned pass = 0; pass < 2; pass++) {
                for (unsigned i = 0; i < q->snapshot_count; i++) {
                        struct qcow2_snapshot s;
                        int r = read_nth(img, i, &s, err);

                        if (r)
                                return r;
                        if (!strcmp(pass ? s.shown.name : s.shown.id, id_or_name)) {
                                r = show(img, &s, err);
                                qcow2_snapshot_clear(&s);
                                return r;
                        }
                        qcow2_snapshot_clear(&s);
                }
        }
        return vd_fail(err, VD_EUSAGE, "no snapshot has the id or name '%s'; there are %" PRIu32,
                       vd_printable(shown, sizeof(shown), id_or_name, strlen(id_or_name)), q->snapshot_count);
}

int qcow2_bitmap_read(struct vd_image *img, uint64_t position, struct qcow2_bitmap_disk *d, char **name,
                      uint64_t *next, struct vd_error *err)
{
        uint64_t at = position + sizeof(*d);
        int r = vd_file_read(img->file, d, sizeof(*d), position, err);

        *name = NULL;
        if (!r) {
                at += be32_get(d->extra_bytes);
                *name = read_text(img, at, be16_get(d->name_bytes), err);
        }
        if (!*name)
                return vd_error_prefix(err, "bitmap directory entry at %" PRIu64, position);
        *next = position + vd_round_up(at + be16_get(d->name_bytes) - position, 8);
        return 0;
}
