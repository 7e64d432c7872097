// SPDX-License-Identifier: MIT
/* map.h: the parts of a disk as vdtool map shows them, in words or as a picture. */
#ifndef VD_CMD_MAP_H
#define VD_CMD_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/file.h"

/* Neighbouring extents that are alike, with qemu-img's flags. */
struct vd_map_entry {
        uint64_t start, length;
        unsigned depth;                 /* 0: the image, 1: its parent, ... */
        bool present;                   /* somebody in the chain has it */
        bool zero, data;                /* reads as zeros; is stored (both: in a hole of the file) */
        bool packed;                    /* stored compressed */
        bool has_offset;
        uint64_t offset;                /* in file */
        const struct vd_file *file;
};

/* The disk from start to end, drawn with one character for every few bytes. */
struct vd_picture;

/* columns: of the terminal, at least 40. */
struct vd_picture *vd_picture_new(uint64_t start, uint64_t end, unsigned columns);
void vd_picture_add(struct vd_picture *, const struct vd_map_entry *);
void vd_picture_print(const struct vd_picture *, bool colour, FILE *);
void vd_picture_free(struct vd_picture *);

#endif
