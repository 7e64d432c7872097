// SPDX-License-Identifier: MIT
/* dmg_lists.c: where the block tables are: in an XML property list, or in a classic resource fork.
 *
 *      plist > dict > "resource-fork" dict > "blkx" array > dict > "Data": base64 of a block table
 */
#include "dmg.h"

#include <errno.h>
#include <inttypes.h>
#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

#include "formats/shared/xml.h"
#include "util/checked.h"
#include "util/cleanup.h"

bool dmg_is_trailer(const void *bytes)
{
        const struct dmg_trailer_disk *t = bytes;

        return !memcmp(t->magic, "koly", 4) && be32_get(t->version) == DMG_VERSION &&
               be32_get(t->header_bytes) == sizeof(*t);
}

/* ---- property list ---- */

/* The value that follows <key>name</key>; NULL when there is none. */
static const struct vd_xml *list_value(const struct vd_xml *dict, const char *name)
{
        const struct vd_xml *e = dict ? dict->child : NULL;

        while (e && (strcmp(e->name, "key") != 0 || strcmp(e->text, name) != 0))
                e = e->next;
        return e ? e->next : NULL;
}

static int add_encoded(struct dmg *dmg, const struct vd_xml *entry, struct vd_error *err)
{
        const struct vd_xml *data = list_value(entry, "Data"), *name = list_value(entry, "Name");
        VD_AUTOFREE uint8_t *table = NULL;
        struct base64_decode_ctx context;
        size_t length;

        if (!data || strcmp(data->name, "data") != 0)
                return vd_fail(err, VD_ECORRUPT, "property list: an entry of blkx has no data");
        length = BASE64_DECODE_LENGTH(data->text_length);
        table = malloc(length + 1);
        if (!table)
                return vd_fail(err, -ENOMEM, "a block table of %zu bytes", length);
        base64_decode_init(&context);
        if (!base64_decode_update(&context, &length, table, data->text_length, data->text) ||
            !base64_decode_final(&context))
                return vd_fail(err, VD_ECORRUPT, "property list: the data of an entry of blkx is not base64");
        return dmg_add_table(dmg, table, length, name ? name->text : NULL, name ? name->text_length : 0, err);
}

static int read_property_list(struct dmg *dmg, const char *bytes, size_t length, struct vd_error *err)
{
        const struct vd_xml *tables;
        struct vd_xml *root;
        int r;

        while (length && !bytes[length - 1])    /* some writers count a NUL */
                length--;
        r = vd_xml_parse(&root, bytes, length, err);
        if (r)
                return vd_error_prefix(err, "property list at %" PRIu64, dmg->list_offset);
        tables = list_value(list_value(root->child, "resource-fork"), "blkx");
        if (!tables || strcmp(tables->name, "array") != 0)
                r = vd_fail(err, VD_ECORRUPT, "property list: no array blkx in resource-fork");
        for (const struct vd_xml *e = r ? NULL : tables->child; e && !r; e = e->next)
                r = add_encoded(dmg, e, err);
        vd_xml_free(root);
        return r;
}

/* ---- resource fork ---- */

struct fork_header_disk {
        be32 data_offset, map_offset, data_bytes, map_bytes;
};
struct fork_map_disk {
        uint8_t reserved[24];
        be16 types_offset, names_offset;        /* in the map */
};
struct fork_type_disk {
        char type[4];
        be16 last;                      /* count - 1 */
        be16 references_offset;         /* from the list of types */
};
struct fork_reference_disk {
        be16 id, name_offset;           /* in the list of names; 0xffff: none */
        be32 data_offset;               /* 8 bits of attributes, 24 of offset in the data */
        be32 reserved;
};
static_assert(sizeof(struct fork_header_disk) == 16 && sizeof(struct fork_map_disk) == 28 &&
              sizeof(struct fork_type_disk) == 8 && sizeof(struct fork_reference_disk) == 12, "resource fork");

struct fork {
        const uint8_t *bytes;
        uint64_t length, data, map, types, names;
};

/* length bytes at position of the fork, copied; false when they are not in it. */
static bool fork_get(const struct fork *fork, uint64_t position, void *to, size_t length)
{
        if (!vd_range_fits(position, length, fork->length))
                return false;
        memcpy(to, fork->bytes + position, length);
        return true;
}

static int broken_fork(struct vd_error *err, const char *what)
{
        return vd_fail(err, VD_ECORRUPT, "resource fork: %s lies outside of it", what);
}

static int add_resource(struct dmg *dmg, const struct fork *fork, const struct fork_reference_disk *ref,
                        struct vd_error *err)
{
        uint64_t data = fork->data + (be32_get(ref->data_offset) & 0xffffff);
        uint64_t name = fork->names + be16_get(ref->name_offset);
        const char *text = NULL;
        uint8_t name_length = 0;
        be32 length;

        if (!fork_get(fork, data, &length, sizeof(length)) ||
            !vd_range_fits(data + sizeof(length), be32_get(length), fork->length))
                return broken_fork(err, "a block table");
        if (be16_get(ref->name_offset) != UINT16_MAX && fork_get(fork, name, &name_length, 1) &&
            vd_range_fits(name + 1, name_length, fork->length))
                text = (const char *)fork->bytes + name + 1;
        return dmg_add_table(dmg, fork->bytes + data + sizeof(length), be32_get(length), text, name_length, err);
}

static int add_resources(struct dmg *dmg, const struct fork *fork, const struct fork_type_disk *type,
                         struct vd_error *err)
{
        unsigned count = (be16_get(type->last) + 1u) & UINT16_MAX;
        int r = 0;

        for (unsigned i = 0; i < count && !r; i++) {
                struct fork_reference_disk ref;

                if (!fork_get(fork, fork->types + be16_get(type->references_offset) + i * sizeof(ref), &ref,
                              sizeof(ref)))
                        return broken_fork(err, "a reference");
                r = add_resource(dmg, fork, &ref, err);
        }
        return r;
}

static int read_resource_fork(struct dmg *dmg, const uint8_t *bytes, size_t length, struct vd_error *err)
{
        struct fork fork = { .bytes = bytes, .length = length };
        struct fork_header_disk head;
        struct fork_map_disk map;
        unsigned count;
        be16 last;
        int r = 0;

        if (!fork_get(&fork, 0, &head, sizeof(head)))
                return broken_fork(err, "the header");
        fork.data = be32_get(head.data_offset);
        fork.map = be32_get(head.map_offset);
        if (!fork_get(&fork, fork.map, &map, sizeof(map)))
                return broken_fork(err, "the map");
        fork.types = fork.map + be16_get(map.types_offset);
        fork.names = fork.map + be16_get(map.names_offset);
        if (!fork_get(&fork, fork.types, &last, sizeof(last)))
                return broken_fork(err, "the list of types");
        count = (be16_get(last) + 1u) & UINT16_MAX;
        for (unsigned i = 0; i < count && !r; i++) {
                struct fork_type_disk type;

                if (!fork_get(&fork, fork.types + sizeof(last) + i * sizeof(type), &type, sizeof(type)))
                        return broken_fork(err, "a type");
                if (!memcmp(type.type, "blkx", 4))
                        r = add_resources(dmg, &fork, &type, err);
        }
        return r;
}

int dmg_read_tables(struct dmg *dmg, struct vd_file *file, struct vd_error *err)
{
        const char *what = dmg->is_resource_fork ? "resource fork" : "property list";
        VD_AUTOFREE uint8_t *bytes = NULL;
        int r;

        if (!vd_range_fits(dmg->list_offset, dmg->list_bytes, vd_file_size(file)))
                return vd_fail(err, VD_ECORRUPT, "trailer: %s of %" PRIu64 " bytes at %" PRIu64
                               ", but the file ends at %"
                               PRIu64, what, dmg->list_bytes, dmg->list_offset, vd_file_size(file));
        if (dmg->list_bytes > DMG_LIST_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "trailer: %s of %" PRIu64 " bytes, at most %" PRIu64 " supported",
                               what, dmg->list_bytes, DMG_LIST_MOST);
        bytes = malloc(dmg->list_bytes);
        if (!bytes)
                return vd_fail(err, -ENOMEM, "%s of %" PRIu64 " bytes", what, dmg->list_bytes);
        r = vd_file_read(file, bytes, dmg->list_bytes, dmg->list_offset, err);
        if (r)
                return r;
        return dmg->is_resource_fork ? read_resource_fork(dmg, bytes, dmg->list_bytes, err)
                                     : read_property_list(dmg, (const char *)bytes, dmg->list_bytes, err);
}
