// SPDX-License-Identifier: MIT
/* extent.h: where the bytes of a guest range live: the answer to every map question. */
#ifndef VD_CORE_EXTENT_H
#define VD_CORE_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "codec.h"

struct vd_file;

enum vd_kind {
        VD_UNALLOCATED,         /* this image says nothing: ask the parent; zeros when the format has none */
        VD_ZERO,                /* reads as zeros, whatever a parent says */
        VD_DATA,                /* plain bytes in a file */
        VD_PACKED,              /* inside a compressed unit in a file */
};

struct vd_extent {
        uint64_t start, length;         /* guest bytes */
        enum vd_kind kind;
        bool is_hole;                   /* ZERO: allocated like data, but the host file has a hole there */
        unsigned depth;                 /* 0: the image asked, 1: its parent, ... (set by core) */

        struct vd_file *file;           /* DATA, PACKED, and others with host space; borrowed from the image */
        uint64_t position;              /* of byte `start`; PACKED: of the unit's first packed byte */

        uint64_t unit_start;            /* PACKED: guest offset where the unit begins */
        uint32_t unit_bytes;            /* PACKED: its unpacked length */
        uint32_t packed_bytes;          /* PACKED: bytes that may belong to it; trailing ones are ignored */
        enum vd_codec codec;            /* PACKED */
};

#endif
