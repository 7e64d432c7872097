// SPDX-License-Identifier: MIT
/* winpath.c: file names as Windows writes them into images. */
#include "winpath.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

static void replace(char *text, char from, char to)
{
        for (; *text; text++)
                if (*text == from)
                        *text = to;
}

static bool is_drive(const char *p)
{
        return ((*p | 32) >= 'a' && (*p | 32) <= 'z') && p[1] == ':';
}

char *vd_winpath_to_local(const char *name)
{
        char *copy = strdup(name), *p = copy, *slash;

        if (!copy)
                return NULL;
        replace(copy, '\\', '/');
        if (!strncmp(p, "//?/", 4) || !strncmp(p, "//./", 4)) {
                p += 4;
                if (!strncmp(p, "UNC/", 4))
                        p = strrchr(p, '/') + 1;
                else if (!is_drive(p) && (slash = strchr(p, '/')))
                        p = slash;      /* the volume, or "GLOBALROOT" */
        } else if (!strncmp(p, "//", 2)) {
                p = strrchr(p, '/') + 1;
        }
        if (is_drive(p))
                p += 2;
        while (p[0] == '.' && p[1] == '/')
                p += 2;
        memmove(copy, p, strlen(p) + 1);
        return copy;
}

char *vd_winpath_from_local(const char *path)
{
        char *name;

        while (path[0] == '.' && path[1] == '/')
                path += 2;
        name = vd_asprintf("%s%s", *path == '/' || !strncmp(path, "../", 3) ? "" : "./", path);
        if (name)
                replace(name, '/', '\\');
        return name;
}
