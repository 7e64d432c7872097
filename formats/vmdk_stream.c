// SPDX-License-Identifier: MIT
/* vmdk_stream.c: writing stream-optimized extents, front to back.
 *
 *      [ header, directory: "at the end" ][ descriptor ][ pad to 64 KiB ]
 *      [ grain record ]...  after the last grain of a table: [ marker ][ grain table ]   ...
 *      [ marker ][ grain directory ][ marker ][ footer: header with the directory's place ][ end of stream ]
 *
 * This is what ESXi and ovftool take: version 3, ascending grains, each of them whole (the last one padded with zeros),
 * every table behind a marker, nothing after the end of stream.  Kept in memory: one table and the directory.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/checked.h"

struct vmdk_stream {
        struct vmdk_sparse_disk header;
        uint64_t next;                          /* where the next record goes, in bytes */
        uint64_t expected;                      /* guest offset of the first grain that may come */
        le32 *directory;
        uint64_t tables;
        uint64_t open_table;                    /* whose entries are in `table`; `tables`: none */
        le32 table[VMDK_TABLE_ENTRIES];
};

enum { REACH = VMDK_GRAIN * VMDK_TABLE_ENTRIES };

int vmdk_stream_start(struct vmdk_stream **out, const struct vmdk_sparse_disk *header, uint64_t size,
                      struct vd_error *err)
{
        struct vmdk_stream *st = calloc(1, sizeof(*st));

        if (!st)
                return vd_fail(err, -ENOMEM, "stream");
        *out = st;
        st->header = *header;
        st->tables = st->open_table = vd_div_up(size, REACH);
        st->next = le64_get(header->overhead) * VMDK_SECTOR;
        st->directory = calloc(st->tables, sizeof(*st->directory));
        return st->directory ? 0 : vd_fail(err, -ENOMEM, "grain directory of %" PRIu64 " entries", st->tables);
}

void vmdk_stream_free(struct vmdk_stream *st)
{
        if (!st)
                return;
        free(st->directory);
        free(st);
}

/* A marker and what it announces, which is padded to whole sectors.  *at: where that begins. */
static int write_marked(struct vmdk_stream *st, struct vd_file *file, enum vmdk_marker type, const void *bytes,
                        size_t length, uint64_t *at, struct vd_error *err)
{
        uint64_t sectors = vd_div_up(length, VMDK_SECTOR);
        struct vmdk_marker_disk marker = { .value = le64_put(sectors), .type = le32_put(type) };
        int r = vd_file_write(file, &marker, sizeof(marker), st->next, err);

        st->next += sizeof(marker);
        *at = st->next;
        if (!r && length)
                r = vd_file_write(file, bytes, length, st->next, err);
        if (!r && length % VMDK_SECTOR)
                r = vd_file_zero(file, st->next + length, VMDK_SECTOR - length % VMDK_SECTOR, err);
        st->next += sectors * VMDK_SECTOR;
        return r;
}

static int close_table(struct vmdk_stream *st, struct vd_file *file, struct vd_error *err)
{
        uint64_t at;
        int r;

        if (st->open_table == st->tables)
                return 0;
        r = write_marked(st, file, VMDK_MARKER_TABLE, st->table, sizeof(st->table), &at, err);
        st->directory[st->open_table] = le32_put((uint32_t)(at / VMDK_SECTOR));
        st->open_table = st->tables;
        memset(st->table, 0, sizeof(st->table));
        return r;
}

int vmdk_stream_place(struct vmdk_stream *st, struct vd_file *file, const struct vd_request *request,
                      struct vd_place *place, struct vd_error *err)
{
        struct { le64 sector; le32 bytes; } head;
        uint64_t record = vd_round_up(VMDK_MARKER_BYTES + (uint64_t)request->packed_bytes, VMDK_SECTOR);
        int r = 0;

        static_assert(sizeof(head) == VMDK_MARKER_BYTES, "head of a grain record");
        *place = (struct vd_place){ .start = request->start, .length = request->length, .kind = request->kind };
        if (request->kind == VD_ZERO || request->kind == VD_UNALLOCATED)
                return 0;
        if (request->kind != VD_PACKED || request->start % VMDK_GRAIN || request->start < st->expected)
                return vd_fail(err, VD_EUNSUPPORTED, "streamOptimized disks are written once, from front to back, in "
                               "compressed grains of %d bytes", VMDK_GRAIN);
        if (st->open_table != request->start / REACH)
                r = close_table(st, file, err);
        /* What follows: this record, a table, the directory and the footer. */
        if (!r && (st->next + record + REACH) / VMDK_SECTOR + st->tables > UINT32_MAX)
                r = vd_fail(err, -EFBIG, "a streamOptimized disk cannot be longer than 2 TiB");
        if (r)
                return r;
        st->open_table = request->start / REACH;
        st->table[request->start % REACH / VMDK_GRAIN] = le32_put((uint32_t)(st->next / VMDK_SECTOR));
        head.sector = le64_put(request->start / VMDK_SECTOR);
        head.bytes = le32_put(request->packed_bytes);
        r = vd_file_write(file, &head, sizeof(head), st->next, err);
        place->file = file;
        place->position = st->next + sizeof(head);
        place->packed_bytes = request->packed_bytes;
        place->pad = record - sizeof(head) - request->packed_bytes;
        st->next += record;
        st->expected = request->start + VMDK_GRAIN;
        return r;
}

int vmdk_stream_finish(struct vmdk_stream *st, struct vd_file *file, struct vd_error *err)
{
        uint64_t at;
        int r = close_table(st, file, err);

        if (!r)
                r = write_marked(st, file, VMDK_MARKER_DIRECTORY, st->directory, st->tables * sizeof(*st->directory),
                                 &at, err);
        if (r)
                return r;
        st->header.directory_offset = le64_put(at / VMDK_SECTOR);
        r = write_marked(st, file, VMDK_MARKER_FOOTER, &st->header, sizeof(st->header), &at, err);
        return r ? r : write_marked(st, file, VMDK_MARKER_END, NULL, 0, &at, err);
}
