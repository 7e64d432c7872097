// SPDX-License-Identifier: MIT
/* error.c: a code and a message that the caller owns. */
#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

static const struct {
        int code;
        const char *symbol;
} symbols[] = {
        { VD_EFORMAT, "format" },
        { VD_ECORRUPT, "corrupt" },
        { VD_EUNSUPPORTED, "unsupported" },
        { VD_EUSAGE, "usage" },
        { VD_EPOLICY, "policy" },
        { VD_EPARENT, "parent" },
        { VD_ELOCKED, "locked" },
        { VD_ESTOPPED, "stopped" },
        { VD_ECHANGED, "changed" },
        { -ENOSPC, "no-space" },
        { -EDQUOT, "no-space" },
        { -EFBIG, "too-large" },
        { -ENOMEM, "no-memory" },
        { -ENOENT, "not-found" },
        { -ENOTDIR, "not-found" },
        { -EEXIST, "exists" },
        { -EACCES, "permission" },
        { -EPERM, "permission" },
        { -EROFS, "read-only" },
        { -EIO, "io" },
};

/* Everything that is shown to people passes here: whatever the arguments held, the result is one printable line.
 * The arguments may point into err->text. */
static void set_text(struct vd_error *err, const char *text)
{
        vd_printable(err->text, sizeof(err->text), text, strlen(text));
}

int vd_vfail(struct vd_error *err, int code, const char *format, va_list arguments)
{
        char text[sizeof(err->text)];
        int length = vsnprintf(text, sizeof(text), format, arguments);

        if (length < 0)
                length = snprintf(text, sizeof(text), "%s", format);
        if (code < 0 && code > VD_EFORMAT && (size_t)length < sizeof(text)) {
                char buffer[128];

                snprintf(text + length, sizeof(text) - (size_t)length, ": %s",
                         strerror_r(-code, buffer, sizeof(buffer)));
        }
        set_text(err, text);
        err->code = code;
        return code;
}

int vd_fail(struct vd_error *err, int code, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        vd_vfail(err, code, format, arguments);
        va_end(arguments);
        return code;
}

int vd_error_prefix(struct vd_error *err, const char *format, ...)
{
        char prefix[sizeof(err->text)] = "";
        char text[2 * sizeof(err->text) + 2];
        va_list arguments;
        size_t length;

        va_start(arguments, format);
        vsnprintf(prefix, sizeof(prefix), format, arguments);
        va_end(arguments);
        length = strlen(prefix);
        if (!strncmp(err->text, prefix, length) && err->text[length] == ':')
                return err->code;
        snprintf(text, sizeof(text), "%s: %s", prefix, err->text);
        set_text(err, text);
        return err->code;
}

const char *vd_error_symbol(int code)
{
        for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
                if (symbols[i].code == code)
                        return symbols[i].symbol;
        }
        return code == 0 ? "none" : "system";
}
