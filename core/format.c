// SPDX-License-Identifier: MIT
/* format.c: looking formats up, by name, by extension and by content. */
#include "format.h"

#include <string.h>
#include <strings.h>

#include "util/checked.h"

static bool in_list(const char *const *list, const char *word, int (*differs)(const char *, const char *))
{
        for (; list && *list; list++)
                if (!differs(*list, word))
                        return true;
        return false;
}

const struct vd_format *vd_format_by_name(const char *name)
{
        for (const struct vd_format *const *f = vd_formats; *f; f++)
                if (!strcmp((*f)->name, name) || in_list((*f)->aliases, name, strcmp))
                        return *f;
        return NULL;
}

const struct vd_format *vd_format_by_extension(const char *path)
{
        const char *base = strrchr(path, '/'), *dot = strrchr(base ? base + 1 : path, '.');

        if (!dot)
                return NULL;
        for (const struct vd_format *const *f = vd_formats; *f; f++)
                if (in_list((*f)->extensions, dot + 1, strcasecmp))
                        return *f;
        return NULL;
}

int vd_format_by_content(struct vd_file *file, const struct vd_format **found, enum vd_match *match,
                         struct vd_error *err)
{
        uint8_t head[VD_PROBE_BYTES], tail[VD_PROBE_BYTES];
        struct vd_probe probe = { .head = head, .tail = tail, .file_size = vd_file_size(file) };
        const struct vd_format *best = NULL, *rival = NULL;
        int r;

        *match = VD_MATCH_NO;
        r = vd_file_read_some(file, head, sizeof(head), 0, &probe.head_bytes, err);
        if (r)
                return r;
        probe.tail_bytes = vd_min(sizeof(tail), probe.file_size);
        r = vd_file_read(file, tail, probe.tail_bytes, probe.file_size - probe.tail_bytes, err);
        if (r)
                return r;
        for (const struct vd_format *const *f = vd_formats; *f; f++) {
                enum vd_match m = (*f)->probe ? (*f)->probe(&probe) : VD_MATCH_NO;

                if (m == VD_MATCH_NO || m < *match)
                        continue;
                rival = m == *match ? best : NULL;
                *match = m;
                best = *f;
        }
        if (rival)
                return vd_fail(err, VD_EFORMAT, "both %s and %s recognise this file: name the format with -f",
                               rival->name, best->name);
        if (!best)
                return vd_fail(err, VD_EFORMAT, "no known image format");
        *found = best;
        return 0;
}
