// SPDX-License-Identifier: MIT
/* registry.c: formats.def as a table. */
#include "core/format.h"

#define VD_FORMAT(format) extern const struct vd_format vd_format_##format;
#include "formats.def"
#undef VD_FORMAT

#define VD_FORMAT(format) &vd_format_##format,
const struct vd_format *const vd_formats[] = {
#include "formats.def"
        NULL
};
