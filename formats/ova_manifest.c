// SPDX-License-Identifier: MIT
/* ova_manifest.c: digests of the files of an appliance, a line each: "SHA256(disk.vmdk)= 0123456789abcdef..." */
#include "ova.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { STEP = 1024 * 1024, LINES_MOST = 10000 };

const struct nettle_hash *ova_hash(const char *algorithm)
{
        static const struct { const char *name; const struct nettle_hash *hash; } known[] = {
                { "SHA1", &nettle_sha1 }, { "SHA224", &nettle_sha224 }, { "SHA256", &nettle_sha256 },
                { "SHA384", &nettle_sha384 }, { "SHA512", &nettle_sha512 },
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
                if (!strcasecmp(known[i].name, algorithm))
                        return known[i].hash;
        return NULL;
}

static char *skip_blanks(char *at)
{
        while (*at == ' ' || *at == '\t')
                at++;
        return at;
}

static bool read_hex(const char *text, uint8_t *bytes, size_t count)
{
        for (size_t i = 0; i < count; i++) {
                char pair[3] = { text[0], text[0] ? text[1] : '\0' };

                if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1]))
                        return false;
                bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
                text += 2;
        }
        return !*skip_blanks((char *)text);
}

/* Blanks may stand anywhere between the parts: some producers put them there.  The name goes up to the last ')'. */
static bool read_line(struct ova_digest *d, char *line)
{
        char *open = strchr(line, '('), *close = strrchr(line, ')'), *at;
        size_t length = open ? strcspn(line, " \t(") : 0;

        if (!open || !close || close < open || !length || length >= sizeof(d->algorithm) ||
            skip_blanks(line + length) != open)
                return false;
        memcpy(d->algorithm, line, length);
        d->hash = ova_hash(d->algorithm);
        at = skip_blanks(close + 1);
        if (*at != '=')
                return false;
        *close = '\0';
        d->name = open + 1;
        return !d->hash || read_hex(skip_blanks(at + 1), d->bytes, d->hash->digest_size);
}

int ova_manifest_parse(struct ova_manifest *m, char *text, struct vd_error *err)
{
        size_t lines = 1;
        unsigned number = 0;

        m->exists = true;
        for (const char *c = text; *c; c++)
                lines += *c == '\n';
        if (lines > LINES_MOST)
                return vd_fail(err, VD_EUNSUPPORTED, "manifests of more than %d lines", (int)LINES_MOST);
        m->digests = calloc(lines, sizeof(*m->digests));
        if (!m->digests)
                return vd_fail(err, -ENOMEM, "manifest");
        for (char *line = text, *next; line; line = next) {
                struct ova_digest d = { .line = ++number };
                size_t length;

                next = strchr(line, '\n');
                if (next)
                        *next++ = '\0';
                length = strlen(line);
                while (length && isspace((unsigned char)line[length - 1]))
                        line[--length] = '\0';
                line = skip_blanks(line);
                if (!*line)
                        continue;
                if (!read_line(&d, line)) {
                        m->bad_line = m->bad_line ? m->bad_line : number;
                        continue;
                }
                d.name = strdup(d.name);
                if (!d.name)
                        return vd_fail(err, -ENOMEM, "manifest");
                m->digests[m->count++] = d;
        }
        return 0;
}

void ova_manifest_free(struct ova_manifest *m)
{
        for (size_t i = 0; i < m->count; i++)
                free(m->digests[i].name);
        free(m->digests);
}

int ova_hash_file(const struct nettle_hash *hash, struct vd_file *file, uint64_t position, uint64_t length,
                  const volatile int *stop, uint8_t digest[OVA_DIGEST_MOST], struct vd_error *err)
{
        VD_AUTOFREE void *context = malloc(hash->context_size);
        VD_AUTOFREE uint8_t *buffer = malloc(STEP);

        if (!context || !buffer)
                return vd_fail(err, -ENOMEM, "computing a digest");
        hash->init(context);
        while (length) {
                size_t n = vd_min(length, STEP);
                int r = vd_file_read(file, buffer, n, position, err);

                if (!r && stop && *stop)
                        r = vd_fail(err, VD_ESTOPPED, "stopped");
                if (r)
                        return r;
                hash->update(context, n, buffer);
                position += n;
                length -= n;
        }
        hash->digest(context, hash->digest_size, digest);
        return 0;
}

/* ---- verifying ---- */

/* Of the file that the user named, only that and the descriptor are read. */
static bool matters(const struct vd_image *img, size_t member)
{
        const struct ova *a = img->state;

        if (!img->inside || member == a->descriptor)
                return true;
        for (size_t i = 0; i < a->disk_count; i++)
                if (member >= a->disks[i].member && member - a->disks[i].member < a->disks[i].members)
                        return true;
        return false;
}

static uint32_t first_bytes(const uint8_t *digest)
{
        return be32_get((be32){ { digest[0], digest[1], digest[2], digest[3] } });
}

static int verify_one(struct vd_image *img, const struct ova_digest *d, bool *seen, struct vd_findings *findings,
                      const volatile int *stop, struct vd_error *err)
{
        const struct ova *a = img->state;
        uint8_t digest[OVA_DIGEST_MOST];
        const struct vd_tar_member *m;
        struct vd_error why = VD_ERROR_INIT;
        char name[256];
        size_t count, i = ova_find_member(a, d->name, &count);
        int r;

        vd_printable(name, sizeof(name), d->name, strlen(d->name));
        if (count != 1 || a->tar.members[i].kind != VD_TAR_FILE) {
                if (count || !img->inside)
                        vd_find(findings, VD_ERROR, "ova-manifest-file", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                                "line %u of the manifest is about '%s', found %zu such files, allowed is one", d->line,
                                name, count);
                return 0;
        }
        if (seen[i])
                vd_find(findings, VD_ERROR, "ova-manifest-file", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "line %u of the manifest is about '%s' once more", d->line, name);
        if (seen[i] || !matters(img, i))
                return 0;
        seen[i] = true;
        m = &a->tar.members[i];
        if (!d->hash) {
                vd_find(findings, VD_ERROR, "ova-manifest-algorithm", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "the digest of '%s' cannot be verified: algorithm %s is unknown", name, d->algorithm);
                return 0;
        }
        r = ova_hash_file(d->hash, img->file, m->position, m->size, stop, digest, &why);
        if (r == VD_ECORRUPT || r == -EIO) {
                vd_find(findings, VD_ERROR, "ova-unreadable", m->position, m->size, VD_NOWHERE, 0, false,
                        "'%s' cannot be read: %s", name, why.text);
                return 0;
        }
        if (r) {
                *err = why;
                return r;
        }
        if (memcmp(digest, d->bytes, d->hash->digest_size))
                vd_find(findings, VD_ERROR, "ova-digest", m->position, m->size, VD_NOWHERE, 0, false,
                        "'%s' is not what the manifest says: %s found %08" PRIx32 "..., expected %08" PRIx32 "...",
                        name, d->algorithm, first_bytes(digest), first_bytes(d->bytes));
        return 0;
}

int ova_verify(struct vd_image *img, struct vd_findings *findings, const volatile int *stop, struct vd_error *err)
{
        const struct ova *a = img->state;
        const struct ova_manifest *m = &a->manifest;
        VD_AUTOFREE bool *seen = calloc(a->tar.count, sizeof(*seen));
        int r = seen ? 0 : vd_fail(err, -ENOMEM, "verifying the manifest");

        if (m->bad_line)
                vd_find(findings, VD_ERROR, "ova-manifest-line", VD_NOWHERE, 0, VD_NOWHERE, 0, false,
                        "line %u of the manifest is not of the form SHA256(file)= digits", m->bad_line);
        for (size_t i = 0; i < m->count && !r; i++)
                r = verify_one(img, &m->digests[i], seen, findings, stop, err);
        return r;
}
