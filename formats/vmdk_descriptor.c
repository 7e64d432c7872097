// SPDX-License-Identifier: MIT
/* vmdk_descriptor.c: the text that says what a VMDK is made of.
 *
 *      # Disk DescriptorFile
 *      version=1
 *      CID=1a2b3c4d
 *      createType="twoGbMaxExtentSparse"
 *      RW 4192256 SPARSE "disk-s001.vmdk"
 *      ddb.adapterType = "lsilogic"
 *
 * Writers disagree about case, blanks around "=", quotes, line ends and trailing blanks; all of that is read.  The text
 * ends at its first NUL.  Names may be in the character set that "encoding" names.
 */
#include "vmdk.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "util/checked.h"
#include "util/cleanup.h"
#include "util/text.h"

enum { LINE_LIMIT = 64 * 1024, KEY_LIMIT = 20000 };

static const char *const type_names[] = {
        "FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE", "VMFSRDM", "VMFSRAW", "SESPARSE", "VMFSRDMP", "VSANSPARSE",
                NULL,
};
static const char *const access_names[] = { "RW", "RDONLY", "NOACCESS", NULL };

const char *vmdk_type_name(enum vmdk_type type)
{
        return type_names[type];
}

const char *vmdk_access_name(enum vmdk_access access)
{
        return access_names[access];
}

/* A piece of the descriptor's text. */
struct span { const char *at; size_t bytes; };

static bool is_blank(char c)
{
        return c == ' ' || c == '\t' || c == '\r';
}

static struct span trim(struct span s)
{
        while (s.bytes && is_blank(*s.at)) {
                s.at++;
                s.bytes--;
        }
        while (s.bytes && is_blank(s.at[s.bytes - 1]))
                s.bytes--;
        return s;
}

/* The next line, without blanks at its ends. */
static bool next_line(struct span *rest, struct span *line)
{
        const char *end;

        if (!rest->bytes)
                return false;
        end = memchr(rest->at, '\n', rest->bytes);
        line->at = rest->at;
        line->bytes = end ? (size_t)(end - rest->at) : rest->bytes;
        rest->bytes -= line->bytes + (end != NULL);
        rest->at += line->bytes + (end != NULL);
        *line = trim(*line);
        return true;
}

/* The next word of a line. */
static struct span next_word(struct span *line)
{
        struct span word;

        *line = trim(*line);
        word.at = line->at;
        for (word.bytes = 0; word.bytes < line->bytes && !is_blank(line->at[word.bytes]); word.bytes++)
                ;
        line->at += word.bytes;
        line->bytes -= word.bytes;
        return word;
}

/* Splits "key = value"; the value without quotes. */
static bool split_key(struct span line, struct span *key, struct span *value)
{
        const char *equals = memchr(line.at, '=', line.bytes);

        if (!equals)
                return false;
        key->at = line.at;
        key->bytes = (size_t)(equals - line.at);
        *key = trim(*key);
        value->at = equals + 1;
        value->bytes = (size_t)(line.at + line.bytes - value->at);
        *value = trim(*value);
        if (value->bytes && *value->at == '"') {
                const char *end = memchr(value->at + 1, '"', value->bytes - 1);

                value->at++;
                value->bytes = end ? (size_t)(end - value->at) : value->bytes - 1;
        }
        return key->bytes > 0;
}

static bool span_is(struct span s, const char *word)
{
        return s.bytes == strlen(word) && !strncasecmp(s.at, word, s.bytes);
}

static int find_word(struct span s, const char *const *words)
{
        for (int i = 0; words[i]; i++)
                if (span_is(s, words[i]))
                        return i;
        return -1;
}

enum vd_match vmdk_descriptor_probe(const uint8_t *head, size_t bytes)
{
        static const char first[] = "# Disk DescriptorFile";
        struct span rest = { (const char *)head, strnlen((const char *)head, bytes) }, line, key, value;
        bool titled = false, version = false;

        while (next_line(&rest, &line)) {
                if (!line.bytes)
                        continue;
                if (*line.at == '#') {
                        titled = titled || (line.bytes >= sizeof(first) - 1 && !strncasecmp(line.at, first,
                                                                                            sizeof(first) - 1));
                        continue;
                }
                if (titled)
                        return VD_MATCH_SURE;
                if (!split_key(line, &key, &value))
                        return VD_MATCH_NO;
                if (!version) {
                        if (!span_is(key, "version") || value.bytes != 1 || *value.at < '1' || *value.at > '3')
                                return VD_MATCH_NO;
                        version = true;
                } else if (span_is(key, "CID") || span_is(key, "createType")) {
                        return VD_MATCH_SURE;
                }
        }
        return titled ? VD_MATCH_SURE : VD_MATCH_NO;
}

static char *dup_span(struct span s)
{
        return strndup(s.at, s.bytes);
}

/* ---- character sets ---- */

static bool is_ascii(struct span s)
{
        for (size_t i = 0; i < s.bytes; i++)
                if (s.at[i] & 0x80)
                        return false;
        return true;
}

/* VMware says "windows-949-2000" where iconv says "CP949". */
static const char *iconv_name(const char *encoding, char buffer[32])
{
        unsigned page;

        if (sscanf(encoding, "windows-%u", &page) != 1 || page > 99999)
                return encoding;
        snprintf(buffer, 32, "CP%u", page);
        return buffer;
}

/* Text in this encoding as UTF-8; as it is when that fails.  NULL when memory is short. */
static char *to_utf8(struct span s, const char *encoding)
{
        char buffer[32], *in = (char *)s.at, *out, *at;
        size_t left = s.bytes, room = s.bytes * 4 + 1;
        iconv_t converter;

        if (!encoding || is_ascii(s) || !strcasecmp(encoding, "UTF-8"))
                return dup_span(s);
        converter = iconv_open("UTF-8", iconv_name(encoding, buffer));
        if (converter == (iconv_t)-1)
                return dup_span(s);
        at = out = malloc(room);
        if (out && iconv(converter, &in, &left, &at, &room) == (size_t)-1) {
                free(out);
                out = dup_span(s);
        } else if (out) {
                *at = '\0';
        }
        iconv_close(converter);
        return out;
}

/* ---- parsing ---- */

static int no_memory(struct vd_error *err)
{
        return vd_fail(err, -ENOMEM, "descriptor");
}

static int add_key(struct vmdk_descriptor *d, struct span key, struct span value, struct vd_error *err)
{
        struct vmdk_key *keys, *k;

        if (d->key_count == KEY_LIMIT)
                return vd_fail(err, VD_EUNSUPPORTED, "descriptor: more than %d entries", KEY_LIMIT);
        if (!(d->key_count & (d->key_count - 1))) {     /* room is the next power of two */
                keys = realloc(d->keys, (d->key_count ? d->key_count * 2 : 1) * sizeof(*keys));
                if (!keys)
                        return no_memory(err);
                d->keys = keys;
        }
        k = &d->keys[d->key_count++];
        *k = (struct vmdk_key){ .name = dup_span(key), .value = dup_span(value),
                                .value_at = (size_t)(value.at - d->text), .value_bytes = value.bytes };
        return k->name && k->value ? 0 : no_memory(err);
}

static bool parse_number(struct span s, uint64_t *number)
{
        *number = 0;
        for (size_t i = 0; i < s.bytes; i++)
                if (!isdigit((unsigned char)s.at[i]) || !vd_mul(*number, 10, number) ||
                    !vd_add(*number, (uint64_t)(s.at[i] - '0'), number))
                        return false;
        return s.bytes > 0;
}

/* The file name of an extent, quoted or not. */
static bool take_name(struct span *rest, struct span *name)
{
        const char *end;

        *rest = trim(*rest);
        if (!rest->bytes || *rest->at != '"') {
                *name = next_word(rest);
                return name->bytes > 0;
        }
        end = memchr(rest->at + 1, '"', rest->bytes - 1);
        if (!end)
                return false;
        name->at = rest->at + 1;
        name->bytes = (size_t)(end - name->at);
        rest->bytes -= name->bytes + 2;
        rest->at = end + 1;
        return true;
}

static int bad_line(struct span line, const char *what, struct vd_error *err)
{
        char shown[256];

        return vd_fail(err, VD_ECORRUPT, "descriptor: extent '%s': %s", vd_printable(shown, sizeof(shown), line.at,
                                                                                     line.bytes), what);
}

static int add_extent(struct vmdk_descriptor *d, struct span line, int access, struct span rest, struct vd_error *err)
{
        struct vmdk_line *l;
        struct span word, name = { NULL, 0 };
        int type;

        if (d->line_count == VMDK_EXTENT_LIMIT)
                return vd_fail(err, VD_EUNSUPPORTED, "descriptor: more than %d extents", VMDK_EXTENT_LIMIT);
        if (!(d->line_count & (d->line_count - 1))) {
                l = realloc(d->lines, (d->line_count ? d->line_count * 2 : 1) * sizeof(*l));
                if (!l)
                        return no_memory(err);
                d->lines = l;
        }
        l = &d->lines[d->line_count];
        *l = (struct vmdk_line){ .access = (enum vmdk_access)access };
        if (!parse_number(next_word(&rest), &l->sectors) || !l->sectors || l->sectors > INT64_MAX / VMDK_SECTOR)
                return bad_line(line, "the size is not a number of sectors above 0", err);
        word = next_word(&rest);
        type = find_word(word, type_names);
        if (type < 0)
                return bad_line(line, "unknown type of extent", err);
        l->type = (enum vmdk_type)type;
        if (l->type != VMDK_ZERO && !take_name(&rest, &name))
                return bad_line(line, "the file name is missing", err);
        word = next_word(&rest);
        if (l->type == VMDK_FLAT && word.bytes &&
            (!parse_number(word, &l->offset) || l->offset > INT64_MAX / VMDK_SECTOR - l->sectors))
                return bad_line(line, "the offset is not a number of sectors", err);
        if (l->type == VMDK_VMFS && word.bytes && !span_is(word, "0"))
                return bad_line(line, "VMFS extents have no offset", err);
        if (name.at && !(l->name = dup_span(name)))
                return no_memory(err);
        d->line_count++;
        return 0;
}

/* Names and texts as UTF-8, now that the encoding is known. */
static int convert_names(struct vmdk_descriptor *d, struct vd_error *err)
{
        const char *encoding = vmdk_descriptor_value(d, "encoding");

        if (!encoding)
                encoding = vmdk_descriptor_value(d, "ddb.encoding");
        if (!encoding)
                return 0;
        for (size_t i = 0; i < d->line_count; i++) {
                struct vmdk_line *l = &d->lines[i];
                char *name;

                if (!l->name)
                        continue;
                name = to_utf8((struct span){ l->name, strlen(l->name) }, encoding);
                if (!name)
                        return no_memory(err);
                if (strcmp(name, l->name)) {
                        l->raw_name = l->name;
                        l->name = name;
                } else {
                        free(name);
                }
        }
        for (size_t i = 0; i < d->key_count; i++) {
                struct vmdk_key *k = &d->keys[i];
                char *value;

                if (k->value == encoding)
                        continue;
                value = to_utf8((struct span){ k->value, strlen(k->value) }, encoding);
                if (!value)
                        return no_memory(err);
                free(k->value);
                k->value = value;
        }
        return 0;
}

/* These decide what is read: two different values would mean two different disks. */
static int check_unique(const struct vmdk_descriptor *d, const char *name, struct vd_error *err)
{
        const struct vmdk_key *first = vmdk_descriptor_key(d, name);
        char a[128], b[128];

        for (const struct vmdk_key *k = first; k && k < d->keys + d->key_count; k++)
                if (!strcasecmp(k->name, name) && strcasecmp(k->value, first->value))
                        return vd_fail(err, VD_ECORRUPT, "descriptor: %s is both '%s' and '%s'", name,
                                       vd_printable(a, sizeof(a), first->value, strlen(first->value)),
                                       vd_printable(b, sizeof(b), k->value, strlen(k->value)));
        return 0;
}

static int parse_cid(const struct vmdk_descriptor *d, const char *name, uint32_t missing, uint32_t *cid,
                     struct vd_error *err)
{
        const char *value = vmdk_descriptor_value(d, name);
        char *end, shown[128];
        unsigned long long number;

        *cid = missing;
        if (!value)
                return 0;
        number = strtoull(value, &end, 16);
        if (!isxdigit((unsigned char)*value) || *end || number > UINT32_MAX)
                return vd_fail(err, VD_ECORRUPT, "descriptor: %s is '%s', expected up to 8 hexadecimal digits", name,
                               vd_printable(shown, sizeof(shown), value, strlen(value)));
        *cid = (uint32_t)number;
        return 0;
}

static int parse_lines(struct vmdk_descriptor *d, struct vd_error *err)
{
        struct span rest = { d->text, d->bytes }, line;
        int r = 0;

        while (!r && next_line(&rest, &line)) {
                struct span tail = line, key, value, word = next_word(&tail);
                int access = find_word(word, access_names);

                if (line.bytes > LINE_LIMIT)
                        return vd_fail(err, VD_EUNSUPPORTED, "descriptor: a line of %zu bytes, at most %d are allowed",
                                       line.bytes, LINE_LIMIT);
                if (!line.bytes || *line.at == '#')
                        continue;
                if (access >= 0)
                        r = add_extent(d, line, access, tail, err);
                else if (split_key(line, &key, &value))
                        r = add_key(d, key, value, err);
        }
        return r;
}

int vmdk_descriptor_parse(struct vmdk_descriptor *d, char *text, size_t bytes, struct vd_error *err)
{
        static const char *const deciding[] = { "CID", "parentCID", "createType", "parentFileNameHint" };
        const char *version;
        int r;

        *d = (struct vmdk_descriptor){ .text = text, .bytes = strnlen(text, bytes) };
        text[d->bytes] = '\0';
        r = parse_lines(d, err);
        version = vmdk_descriptor_value(d, "version");
        if (!r && (!version || strlen(version) != 1 || *version < '1' || *version > '3')) {
                char shown[64];

                r = vd_fail(err, VD_EUNSUPPORTED, "descriptor: version '%s', expected 1, 2 or 3",
                            version ? vd_printable(shown, sizeof(shown), version, strlen(version)) : "");
        }
        for (size_t i = 0; i < sizeof(deciding) / sizeof(deciding[0]) && !r; i++)
                r = check_unique(d, deciding[i], err);
        if (!r)
                r = parse_cid(d, "CID", 0, &d->cid, err);
        if (!r)
                r = parse_cid(d, "parentCID", VMDK_NO_CID, &d->parent_cid, err);
        if (!r)
                r = convert_names(d, err);
        if (r)
                vmdk_descriptor_free(d);
        return r;
}

void vmdk_descriptor_free(struct vmdk_descriptor *d)
{
        for (size_t i = 0; i < d->key_count; i++) {
                free(d->keys[i].name);
                free(d->keys[i].value);
        }
        for (size_t i = 0; i < d->line_count; i++) {
                free(d->lines[i].name);
                free(d->lines[i].raw_name);
        }
        free(d->keys);
        free(d->lines);
        free(d->text);
        *d = (struct vmdk_descriptor){ 0 };
}

const struct vmdk_key *vmdk_descriptor_key(const struct vmdk_descriptor *d, const char *name)
{
        for (size_t i = 0; i < d->key_count; i++)
                if (!strcasecmp(d->keys[i].name, name))
                        return &d->keys[i];
        return NULL;
}

const char *vmdk_descriptor_value(const struct vmdk_descriptor *d, const char *name)
{
        const struct vmdk_key *key = vmdk_descriptor_key(d, name);

        return key ? key->value : NULL;
}

/* Hints of other hosts ("C:\VMs\a.vmdk", "/vmfs/volumes/.../vm/a.vmdk") still say how the file is called, and perhaps
 * in which folder beside ours it lies. */
int vmdk_descriptor_parents(struct vd_image *img, const struct vmdk_descriptor *d, struct vd_error *err)
{
        const char *hint = vmdk_descriptor_value(d, "parentFileNameHint"), *base, *folder;
        VD_AUTOFREE char *name = NULL, *beside = NULL;
        int r;

        if (!hint || !*hint)
                return vd_image_add_parent_name(img, "(no name recorded)", "no parentFileNameHint", err);
        name = strdup(hint);
        if (!name)
                return no_memory(err);
        if (!strchr(name, '/'))
                for (char *c = name; *c; c++)
                        if (*c == '\\')
                                *c = '/';
        r = vd_image_add_parent_name(img, name, "parentFileNameHint", err);
        base = strrchr(name, '/');
        if (r || !base || !base[1])
                return r;
        r = vd_image_add_parent_name(img, base + 1, "its last part", err);
        for (folder = base; folder > name && folder[-1] != '/'; folder--)
                ;
        if (r || folder == base || *folder == '.')
                return r;
        beside = vd_asprintf("../%s", folder);
        return beside ? vd_image_add_parent_name(img, beside, "its last two parts", err) : no_memory(err);
}
