// SPDX-License-Identifier: MIT
/* tar.c: tar headers (reference: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual,
 * "Basic Tar Format").
 *
 *      [ header 512 ][ data, padded to 512 ] ...  [ two blocks of zeros ]
 *
 * Before a member's own header may come others that hold its long name (GNU 'L', 'K') or records that replace its
 * fields (pax 'x', 'g').
 */
#include "tar.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/iszero.h"
#include "util/text.h"

enum {
        MEMBERS_MOST = 100000,
        EXTENSION_MOST = 1024 * 1024,   /* bytes of one long name or block of pax records */
};

struct header {
        char name[100], mode[8], uid[8], gid[8];
        char size[12];                  /* octal, or base 256 when the first byte has its highest bit set (GNU) */
        char mtime[12];
        char checksum[8];               /* sum of all bytes, these taken as blanks */
        char type;
        char link[100];
        char magic[6];                  /* "ustar" and NUL (POSIX) or a blank (GNU); ovftool puts a blank in version */
        char version[2];
        char user[32], group[32], major[8], minor[8];
        char prefix[155];               /* POSIX: goes before the name.  GNU uses it otherwise */
        char pad[12];
};
static_assert(sizeof(struct header) == VD_TAR_BLOCK, "tar header");

/* GNU 'S': in the place of prefix; further blocks of the map follow while this says so. */
enum { SPARSE_MORE_AT = 482, SPARSE_BLOCK_MORE_AT = 504 };

/* What the headers before a member say about it. */
struct extension {
        char *name;
        uint64_t size;
        bool has_size, sparse;
};

static bool read_octal(const char *field, size_t length, uint64_t *value)
{
        size_t i = 0;

        *value = 0;
        while (i < length && field[i] == ' ')
                i++;
        for (; i < length && field[i] >= '0' && field[i] <= '7'; i++)
                *value = *value << 3 | (uint64_t)(field[i] - '0');      /* at most 12 digits */
        return i == length || field[i] == ' ' || field[i] == '\0';
}

static bool read_size(const char field[12], uint64_t *value)
{
        if (!(field[0] & 0x80))
                return read_octal(field, 12, value);
        *value = field[0] & 0x3f;
        for (size_t i = 1; i < 12; i++) {
                if (*value >> 55)
                        return false;
                *value = *value << 8 | (uint8_t)field[i];
        }
        return !(field[0] & 0x40);      /* negative */
}

static bool checksum_fits(const struct header *h)
{
        const uint8_t *bytes = (const uint8_t *)h;
        uint64_t stored, sum = 0;
        int64_t signed_sum = 0;         /* by some old programs */

        for (size_t i = 0; i < sizeof(*h); i++) {
                bool blank = i >= offsetof(struct header, checksum) && i < offsetof(struct header, type);

                sum += blank ? ' ' : bytes[i];
                signed_sum += blank ? ' ' : (int8_t)bytes[i];
        }
        return read_octal(h->checksum, sizeof(h->checksum), &stored) &&
               (stored == sum || (int64_t)stored == signed_sum);
}

static bool is_posix(const struct header *h)
{
        return !memcmp(h->magic, "ustar", 6);
}

static void join_name(const struct header *h, char name[257])
{
        int length = (int)strnlen(h->name, sizeof(h->name));
        int prefix = is_posix(h) ? (int)strnlen(h->prefix, sizeof(h->prefix)) : 0;

        snprintf(name, 257, "%.*s%s%.*s", prefix, h->prefix, prefix ? "/" : "", length, h->name);
}

int vd_tar_recognise(const uint8_t *head, size_t length)
{
        const struct header *h = (const struct header *)head;

        if (length < sizeof(*h) || !h->name[0] || !checksum_fits(h))
                return 0;
        return memcmp(h->magic, "ustar", 5) ? 1 : 2;
}

bool vd_tar_first_name(const uint8_t *head, size_t length, char name[257])
{
        uint64_t size, at = 0;

        while (at <= length && length - at >= sizeof(struct header)) {
                const struct header *h = (const struct header *)(head + at);

                if (!checksum_fits(h))
                        return false;
                if (!memchr("xgLK", h->type, 4)) {
                        join_name(h, name);
                        return true;
                }
                if (!read_size(h->size, &size) || size > length)
                        return false;
                at += sizeof(*h) + vd_round_up(size, VD_TAR_BLOCK);
        }
        return false;
}

/* ---- what comes before a member ---- */

static int bad_header(uint64_t position, const char *what, struct vd_error *err)
{
        return vd_fail(err, VD_ECORRUPT, "tar header at %" PRIu64 ": %s", position, what);
}

/* One record, "LENGTH KEY=VALUE\n"; value is NUL-terminated already. */
static int take_record(struct extension *e, const char *key, const char *value, struct vd_error *err)
{
        if (!strcmp(key, "path") || !strcmp(key, "GNU.sparse.name")) {
                free(e->name);
                e->name = strdup(value);
                if (!e->name)
                        return vd_fail(err, -ENOMEM, "name of a member");
        } else if (!strcmp(key, "size")) {
                char *end;

                errno = 0;
                e->size = strtoull(value, &end, 10);
                e->has_size = true;
                if (errno || *end || *value < '0' || *value > '9')
                        return vd_fail(err, VD_ECORRUPT, "the size in a pax record is no number");
        }
        if (!strncmp(key, "GNU.sparse.", 11))
                e->sparse = true;
        return 0;
}

static int take_records(struct extension *e, char *text, size_t length, uint64_t position, struct vd_error *err)
{
        size_t at = 0;
        int r = 0;

        while (at < length && text[at] && !r) {
                size_t digits = strspn(text + at, "0123456789"), bytes = 0;
                char *key, *value;

                for (size_t i = 0; i < digits && bytes <= length; i++)
                        bytes = bytes * 10 + (size_t)(text[at + i] - '0');
                if (!digits || text[at + digits] != ' ' || bytes < digits + 3 || bytes > length - at ||
                    text[at + bytes - 1] != '\n')
                        return bad_header(position, "a pax record does not have the length that it says", err);
                text[at + bytes - 1] = '\0';
                key = text + at + digits + 1;
                value = strchr(key, '=');
                if (!value)
                        return bad_header(position, "a pax record without '='", err);
                *value = '\0';
                r = take_record(e, key, value + 1, err);
                at += bytes;
        }
        return r;
}

static int take_extension(struct extension *e, const struct header *h, struct vd_file *file, uint64_t position,
                          uint64_t size, struct vd_error *err)
{
        VD_AUTOFREE char *text = NULL;
        int r;

        if (size > EXTENSION_MOST)
                return vd_fail(err, VD_ECORRUPT, "tar header at %" PRIu64 ": an extension of %" PRIu64
                               " bytes, allowed are %d", position, size, (int)EXTENSION_MOST);
        text = calloc(1, size + 1);
        if (!text)
                return vd_fail(err, -ENOMEM, "tar header");
        r = vd_file_read(file, text, size, position + VD_TAR_BLOCK, err);
        if (r)
                return r;
        if (h->type == 'x')
                return take_records(e, text, size, position, err);
        if (h->type == 'L') {
                free(e->name);
                e->name = VD_STEAL(text);
        }
        return 0;                       /* what 'g' says of all members, and where links point, is of no use here */
}

/* ---- members ---- */

static enum vd_tar_kind kind_of(const struct header *h, const char *name, const struct extension *e)
{
        size_t length = strlen(name);

        switch (h->type) {
        case '0':
        case '7':
                return e->sparse ? VD_TAR_SPARSE : VD_TAR_FILE;
        case '\0':                      /* version 7 had no type for directories */
                return length && name[length - 1] == '/' ? VD_TAR_DIRECTORY : e->sparse ? VD_TAR_SPARSE : VD_TAR_FILE;
        case '1':
        case '2':
                return VD_TAR_LINK;
        case '5':
                return VD_TAR_DIRECTORY;
        case 'S':
                return VD_TAR_SPARSE;
        default:
                return VD_TAR_OTHER;
        }
}

/* The rest of the map of a GNU sparse member stands between header and data. */
static int skip_sparse_map(const struct header *h, struct vd_file *file, uint64_t *position, struct vd_error *err)
{
        uint8_t block[VD_TAR_BLOCK];
        bool more = ((const char *)h)[SPARSE_MORE_AT];
        int r = 0;

        while (more && !r) {
                r = vd_file_read(file, block, sizeof(block), *position, err);
                more = block[SPARSE_BLOCK_MORE_AT];
                *position += sizeof(block);
        }
        return r;
}

static int add_member(struct vd_tar *tar, const struct header *h, struct extension *e, struct vd_tar_member *m,
                      struct vd_error *err)
{
        char name[257];

        if (tar->count == MEMBERS_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "archives of more than %d members", (int)MEMBERS_MOST);
        if (tar->count == tar->room) {
                size_t room = tar->room ? tar->room * 2 : 16;
                struct vd_tar_member *members = reallocarray(tar->members, room, sizeof(*members));

                if (!members)
                        return vd_fail(err, -ENOMEM, "members of an archive");
                tar->members = members;
                tar->room = room;
        }
        join_name(h, name);
        m->name = e->name ? VD_STEAL(e->name) : strdup(name);
        if (!m->name)
                return vd_fail(err, -ENOMEM, "name of a member");
        m->kind = kind_of(h, m->name, e);
        if (m->kind == VD_TAR_DIRECTORY || m->kind == VD_TAR_LINK)
                m->size = 0;
        tar->members[tar->count++] = *m;
        return 0;
}

/* Reads on from the header at *at, over a member with all its headers, to the next one.  *done at the end. */
static int read_member(struct vd_tar *tar, struct vd_file *file, struct extension *e, uint64_t *at, bool *done,
                       struct vd_error *err)
{
        struct vd_tar_member m = { .header = *at };
        uint64_t position = *at, end = 0;
        struct header h;
        bool extends = true;

        while (extends) {
                size_t got;
                int r = vd_file_read_some(file, &h, sizeof(h), position, &got, err);

                if (r)
                        return r;
                *done = position == *at && (!got || (got == sizeof(h) && vd_is_zero(&h, sizeof(h))));
                if (*done) {
                        tar->has_end = got;
                        return 0;
                }
                if (got < sizeof(h))
                        return bad_header(position, "the file ends here", err);
                if (!checksum_fits(&h))
                        return bad_header(position, "the checksum does not fit", err);
                if (!read_size(h.size, &m.size))
                        return bad_header(position, "the size is no number", err);
                extends = memchr("xgLK", h.type, 4);
                m.position = position + VD_TAR_BLOCK;
                if (extends) {
                        r = take_extension(e, &h, file, position, m.size, err);
                        position = m.position + vd_round_up(m.size, VD_TAR_BLOCK);
                } else if (h.type == 'S') {
                        r = skip_sparse_map(&h, file, &m.position, err);
                }
                if (r)
                        return r;
        }
        if (e->has_size)
                m.size = e->size;
        if (m.size > INT64_MAX - VD_TAR_BLOCK || !vd_add(m.position, m.size, &end) || end > INT64_MAX - VD_TAR_BLOCK)
                return bad_header(position, "the size is larger than any file", err);
        if (add_member(tar, &h, e, &m, err))
                return err->code;
        *at = vd_round_up(m.position + tar->members[tar->count - 1].size, VD_TAR_BLOCK);
        return 0;
}

int vd_tar_read(struct vd_tar *tar, struct vd_file *file, struct vd_error *err)
{
        bool done = false;
        int r = 0;

        while (!done && !r && tar->end <= vd_file_size(file)) {
                struct extension e = { 0 };

                r = read_member(tar, file, &e, &tar->end, &done, err);
                free(e.name);
        }
        return r;
}

void vd_tar_free(struct vd_tar *tar)
{
        for (size_t i = 0; i < tar->count; i++)
                free(tar->members[i].name);
        free(tar->members);
        *tar = (struct vd_tar){ 0 };
}

void vd_tar_write_header(uint8_t block[VD_TAR_BLOCK], const char *name, uint64_t size, int64_t mtime)
{
        struct header *h = (struct header *)block;
        unsigned sum = 0;

        memset(h, 0, sizeof(*h));
        memcpy(h->name, name, strnlen(name, sizeof(h->name)));
        memcpy(h->mode, "0000644", 7);
        memcpy(h->uid, "0000000", 7);
        memcpy(h->gid, "0000000", 7);
        if (size < UINT64_C(1) << 33) {
                snprintf(h->size, sizeof(h->size), "%011" PRIo64, size);
        } else {
                be64 number = be64_put(size);

                h->size[0] = (char)0x80;
                memcpy(h->size + 4, &number, sizeof(number));
        }
        mtime = mtime < 0 ? 0 : mtime;
        snprintf(h->mtime, sizeof(h->mtime), "%011" PRIo64, (uint64_t)mtime & 077777777777);
        memset(h->checksum, ' ', sizeof(h->checksum));
        h->type = '0';
        memcpy(h->magic, "ustar", 6);
        memcpy(h->version, "00", 2);
        for (size_t i = 0; i < VD_TAR_BLOCK; i++)
                sum += block[i];
        snprintf(h->checksum, sizeof(h->checksum), "%06o", sum);
}
