// SPDX-License-Identifier: MIT
/* vmdk_write.c: placing grains in sparse extents, and announcing changes of old disks.
 *
 * New grains are appended.  In place: before the first write all tables are checked, the header is marked unclean and
 * the content id changes, so that children notice; then data, sync, table entries in both copies, sync.  What a cut
 * leaves behind is grains that nobody uses.
 */
#include "vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/identity.h"
#include "core/write.h"
#include "util/checked.h"
#include "util/text.h"

enum token { TOKEN_NONE, TOKEN_MAP, TOKEN_ZERO, TOKEN_DROP };

/* ---- the content id ---- */

/* Overwrites the value of a key with text of the same length: no byte of the descriptor moves. */
static int patch(struct vd_image *img, const char *name, const char *text, size_t bytes, struct vd_error *err)
{
        struct vmdk *v = img->state;
        const struct vmdk_key *key = vmdk_descriptor_key(&v->descriptor, name);

        if (!key || key->value_bytes != bytes)
                return 0;
        memcpy(key->value, text, bytes);
        return vd_file_write(img->file, text, bytes, v->descriptor_position + key->value_at, err);
}

/* A disk whose content changed is another disk: children that were made for the old one must not accept it. */
static int renew_cid(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = img->state;
        const struct vmdk_key *key = vmdk_descriptor_key(&v->descriptor, "CID");
        uint8_t id[16];
        char text[64];
        int r;

        if (!key)
                return 0;
        r = vd_identity_uuid(id, "vmdk content id", v->descriptor.cid, err);
        if (r)
                return r;
        v->descriptor.cid = vmdk_cid(id);
        if (key->value_bytes < 8)               /* as many digits as there is room for */
                v->descriptor.cid &= (1u << 4 * key->value_bytes) - 1;
        snprintf(text, sizeof(text), "%0*" PRIx32, (int)vd_min(key->value_bytes, 32), v->descriptor.cid);
        r = patch(img, "CID", text, key->value_bytes, err);
        if (!r) {
                vmdk_long_cid(id, v->descriptor.cid, text);
                r = patch(img, "ddb.longContentID", text, 32, err);
        }
        if (!r) {
                snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                         id[15],
                         id[14], id[13], id[12], id[11], id[10], id[9], id[8], id[7], id[6], id[5], id[4], id[3], id[2],
                         id[1], id[0]);
                r = patch(img, "ddb.uuid.modification", text, 36, err);
        }
        return r;
}

/* ---- announcing ---- */

/* An entry that points to the wrong place would let us overwrite something else.  Copies that differ are no danger. */
static int check_tables(struct vd_image *img, struct vd_error *err)
{
        struct vd_check check = { 0 };
        int r = vmdk_walk(img, &check, err);

        for (size_t i = 0; i < check.findings.count && !r; i++) {
                const struct vd_finding *f = &check.findings.items[i];

                if (f->severity == VD_ERROR && strcmp(f->code, VMDK_COPY_FINDING))
                        r = vd_fail(err, VD_ECORRUPT, "not changed in place, because it is damaged: %s", f->text);
        }
        vd_check_free(&check);
        return r;
}

static int mark(struct vmdk_extent *e, bool unclean, struct vd_error *err)
{
        const uint8_t byte = unclean;

        return e->sparse ? vd_file_write(e->file, &byte, 1, offsetof(struct vmdk_sparse_disk, unclean), err) : 0;
}

/* Before the first write into an extent. */
static int touch(struct vd_image *img, struct vmdk_extent *e, struct vd_error *err)
{
        int r;

        if (img->is_new || e->touched)
                return 0;
        r = mark(e, true, err);
        if (!r)
                r = vd_image_barrier(img, e->file, err);
        e->touched = !r;
        return r;
}

/* Before the first write in place. */
static int announce(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = img->state;
        const char *track = vmdk_descriptor_value(&v->descriptor, "changeTrackPath");
        char shown[512];
        int r = check_tables(img, err);

        /* When a child is committed into us, it must find its parent until all of it is here: see finish_old(). */
        if (!r && !img->child)
                r = renew_cid(img, err);
        if (!r)
                r = vd_image_barrier(img, img->file, err);
        for (size_t i = 0; i < v->extent_count && !r; i++) {
                struct vmdk_sparse *s = v->extents[i].sparse;

                if (s)
                        s->next = vd_round_up(vd_max(vd_file_size(s->file), s->overhead), s->grain);
        }
        if (!r && track && *track)
                vd_image_warn(img, "the list of changed blocks in '%s' does not know of our changes",
                              vd_printable(shown, sizeof(shown), track, strlen(track)));
        v->marked = !r;
        return r;
}

/* ---- grains ---- */

/* What the extent has at local, as far as it is the same: kind, position of the first byte, length. */
static int look_up(struct vmdk_sparse *s, uint64_t local, uint64_t max, struct vd_extent *ext, struct vd_error *err)
{
        for (size_t i = 0; i < s->pending_count; i++) {
                const struct vmdk_pending *p = &s->pending[i];

                if (local >= p->start && local < p->start + p->length) {
                        *ext = (struct vd_extent){ .start = local, .kind = VD_DATA, .file = s->file,
                                                   .length = vd_min(max, p->start + p->length - local),
                                                   .position = p->position + (local - p->start) };
                        return 0;
                }
                if (p->start > local)
                        max = vd_min(max, p->start - local);
        }
        return vd_twolevel_map(&s->map, local, max, ext, err);
}

static int set_entry_at(struct vmdk_sparse *s, const struct vd_twolevel *tree, uint64_t local, uint32_t value,
                        struct vd_error *err)
{
        uint64_t position;
        void *entry;
        int r = vd_twolevel_find(tree, local, &position, err);

        if (!r && position)
                r = vd_cache_get(s->map.sub, position, &entry, err);
        if (r || !position)
                return r;
        *(le32 *)entry = le32_put(value);
        vd_cache_dirty(s->map.sub, position);
        return 0;
}

static int set_entry(struct vmdk_sparse *s, uint64_t local, uint32_t value, struct vd_error *err)
{
        int r = set_entry_at(s, &s->map, local, value, err);

        return !r && s->redundant ? set_entry_at(s, &s->copy, local, value, err) : r;
}

/* Takes space at the end of the file. */
static int take_space(struct vmdk_sparse *s, uint64_t bytes, uint64_t *position, struct vd_error *err)
{
        uint64_t next = s->next + vd_round_up(bytes, s->grain);

        if (next / VMDK_SECTOR > UINT32_MAX)
                return vd_fail(err, -EFBIG, "%s: sparse extents address 2 TiB of their file, and those are used",
                               vd_file_name(s->file));
        *position = s->next;
        s->next = next;
        return 0;
}

static int set_directory(struct vmdk_sparse *s, const struct vd_twolevel *tree, uint64_t local, uint64_t table,
                         struct vd_error *err)
{
        uint64_t position = vd_twolevel_top_position(tree, local);
        void *entry;
        int r = vd_cache_get(s->map.top, position, &entry, err);

        if (r)
                return r;
        *(le32 *)entry = le32_put((uint32_t)(table / VMDK_SECTOR));
        vd_cache_dirty(s->map.top, position);
        return 0;
}

/* Some writers leave out tables that would be empty: adds one and its copy, on disk before they are pointed to. */
static int add_table(struct vd_image *img, struct vmdk_sparse *s, uint64_t local, struct vd_error *err)
{
        static const uint8_t zeros[2 * VMDK_TABLE_BYTES];
        uint64_t bytes = vd_round_up(s->map.entries * sizeof(le32), VMDK_SECTOR), position = 0;
        int r = take_space(s, 2 * bytes, &position, err);

        if (!r)
                r = vd_file_write(s->file, zeros, 2 * bytes, position, err);
        if (!r)
                r = vd_image_barrier(img, s->file, err);
        if (!r)
                r = set_directory(s, &s->map, local, position, err);
        if (!r && s->redundant)
                r = set_directory(s, &s->copy, local, position + bytes, err);
        if (!r)
                r = vd_cache_flush(s->map.top, err);
        return r ? r : vd_image_barrier(img, s->file, err);
}

static int add_pending(struct vmdk_sparse *s, uint64_t start, uint64_t length, uint64_t position, struct vd_error *err)
{
        if (s->pending_count == s->pending_room) {
                size_t room = s->pending_room ? s->pending_room * 2 : 64;
                struct vmdk_pending *pending = realloc(s->pending, room * sizeof(*pending));

                if (!pending)
                        return vd_fail(err, -ENOMEM, "%zu places", room);
                s->pending = pending;
                s->pending_room = room;
        }
        s->pending[s->pending_count++] = (struct vmdk_pending){ start, length, position };
        return 0;
}

/* Gives grains to [local, local + place->length), as far as one table goes. */
static int allocate(struct vd_image *img, struct vmdk_sparse *s, uint64_t local, struct vd_place *place,
                    struct vd_error *err)
{
        uint64_t reach = s->map.entries * s->grain, table, space;
        int r = vd_twolevel_find(&s->map, local, &table, err);

        if (!r && !table)
                r = add_table(img, s, local, err);
        if (r)
                return r;
        place->length = vd_min(place->length, reach - local % reach);
        space = vd_round_up(place->length, s->grain);
        r = take_space(s, space, &place->position, err);
        if (!r)
                r = add_pending(s, local, place->length, place->position, err);
        place->kind = VD_DATA;
        place->token = TOKEN_MAP;
        place->pad = space - place->length;
        return r;
}

static int place_sparse(struct vd_image *img, struct vmdk_extent *e, enum vd_kind wanted, struct vd_place *place,
                        struct vd_error *err)
{
        struct vmdk_sparse *s = e->sparse;
        uint64_t local = place->start - e->start;
        bool marks_zeros = s->flags & VMDK_FLAG_ZERO_GRAINS, has_parent = img->parent_ref.count > 0;
        struct vd_extent ext;
        int r = vmdk_sparse_warm(img->state, s, err);

        if (!r)
                r = look_up(s, local, place->length, &ext, err);

        if (r)
                return r;
        place->length = ext.length;
        place->kind = wanted;
        if (wanted == VD_UNALLOCATED) {
                place->token = ext.kind == VD_UNALLOCATED ? TOKEN_NONE : TOKEN_DROP;
                s->dropped |= ext.kind == VD_DATA;
                return 0;
        }
        if (wanted == VD_ZERO && (ext.kind == VD_ZERO || (ext.kind == VD_UNALLOCATED && !has_parent)))
                return 0;
        /* A grain that is there is kept: what is marked instead would be lost space. */
        if (wanted == VD_ZERO && marks_zeros && ext.kind != VD_DATA) {
                uint64_t table;

                place->token = TOKEN_ZERO;
                place->length = vd_min(place->length, s->map.entries * s->grain - local % (s->map.entries * s->grain));
                r = vd_twolevel_find(&s->map, local, &table, err);
                return r || table ? r : add_table(img, s, local, err);
        }
        if (ext.kind != VD_DATA)
                return allocate(img, s, local, place, err);
        place->kind = VD_DATA;
        place->position = ext.position;
        return 0;
}

int vmdk_place(struct vd_image *img, const struct vd_request *request, struct vd_place *place, struct vd_error *err)
{
        struct vmdk *v = img->state;
        struct vmdk_extent *e = vmdk_extent_at(v, request->start);
        uint64_t local = request->start - e->start;
        int r;

        if (v->stream)
                return vmdk_stream_place(v->stream, img->file, request, place, err);
        if (request->kind == VD_PACKED)
                return vd_fail(err, VD_EUNSUPPORTED, "only streamOptimized disks hold compressed grains");
        if (v->refused)
                return vd_fail(err, VD_EUNSUPPORTED, "%s", v->refused);
        *place = (struct vd_place){ .start = request->start, .length = vd_min(request->length, e->length - local),
                                    .kind = request->kind, .file = e->file };
        if (e->type == VMDK_ZERO && request->kind != VD_DATA)
                return 0;
        if (e->type == VMDK_ZERO || e->access != VMDK_RW)
                return vd_fail(err, VD_EUNSUPPORTED, "guest offset %" PRIu64 " is in a %s extent, which is not written",
                               request->start, e->type == VMDK_ZERO ? "ZERO" : vmdk_access_name(e->access));
        if (!e->file)
                return vd_fail(err, VD_EPOLICY, "extent '%s' was not opened", e->name ? e->name : "");
        if (!img->is_new && !v->marked) {
                r = announce(img, err);
                if (r)
                        return r;
        }
        if (e->sparse) {
                r = place_sparse(img, e, request->kind, place, err);
                if (r || (place->kind != VD_DATA && place->token == TOKEN_NONE))
                        return r;
        } else {
                place->kind = VD_DATA;
                place->position = e->position + local;
        }
        return touch(img, e, err);
}

int vmdk_publish(struct vd_image *img, const struct vd_place *place, struct vd_error *err)
{
        struct vmdk *v = img->state;
        struct vmdk_extent *e = vmdk_extent_at(v, place->start);
        struct vmdk_sparse *s = e->sparse;
        uint64_t local = place->start - e->start;
        int r = 0;

        if (!s || place->token == TOKEN_NONE)
                return 0;
        r = vmdk_sparse_warm(v, s, err);
        for (uint64_t at = 0; at < place->length && !r; at += s->grain) {
                uint32_t value = place->token == TOKEN_MAP ? (uint32_t)((place->position + at) / VMDK_SECTOR)
                                 : place->token == TOKEN_ZERO ? 1 : 0;

                r = set_entry(s, local + at, value, err);
        }
        if (place->token != TOKEN_MAP)
                return r;
        for (size_t i = 0; i < s->pending_count; i++)
                if (s->pending[i].start == local) {
                        s->pending[i] = s->pending[--s->pending_count];
                        break;
                }
        return r;
}

int vmdk_flush(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = img->state;
        int r = 0;

        for (size_t i = 0; i < v->extent_count && !r; i++) {
                struct vmdk_sparse *s = v->extents[i].sparse;

                if (!s || !s->map.sub || !vd_cache_is_dirty(s->map.sub))
                        continue;
                r = vd_cache_flush(s->map.sub, err);
                if (!r && s->file != img->file)
                        r = vd_image_barrier(img, s->file, err);
        }
        return r;
}

/* Space at the end of the file that belonged to dropped grains. */
static int give_back(struct vd_image *img, const struct vmdk_extent *e, struct vd_error *err)
{
        uint64_t end;
        int r = vmdk_used_end(img, e, &end, err);

        end = vd_round_up(vd_max(end, e->sparse->overhead), e->sparse->grain);
        return r || end >= vd_file_size(e->file) ? r : vd_file_truncate(e->file, end, err);
}

/* Everything is on disk, or goes there: the extent is clean again. */
static int close_extent(struct vd_image *img, struct vmdk_extent *e, struct vd_error *err)
{
        int r = vd_image_barrier(img, e->file, err);

        if (!r)
                r = mark(e, false, err);
        if (!r && e->sparse && e->sparse->dropped)
                r = give_back(img, e, err);
        if (!r && e->file != img->file) {
                r = vd_image_barrier(img, e->file, err);
                if (!r)
                        r = vd_file_finish(e->file, err);
        }
        e->touched = false;
        return r;
}

static int finish_old(struct vd_image *img, struct vd_error *err)
{
        struct vmdk *v = img->state;
        int r = v->marked && img->child ? renew_cid(img, err) : 0;

        for (size_t i = 0; i < v->extent_count && !r; i++)
                if (v->extents[i].touched)
                        r = close_extent(img, &v->extents[i], err);
        return r;
}

int vmdk_finish(struct vd_image *img, struct vd_error *err)
{
        return img->is_new ? vmdk_create_finish(img, err) : finish_old(img, err);
}
