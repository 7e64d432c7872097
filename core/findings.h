// SPDX-License-Identifier: MIT
/* findings.h: what a check found: numbered records, no printing. */
#ifndef VD_CORE_FINDINGS_H
#define VD_CORE_FINDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/error.h"

enum vd_severity {
        VD_NOTE,                /* worth knowing */
        VD_WARNING,             /* breaks a rule of the format, without effect on what is read */
        VD_LEAK,                /* space is lost, nothing else */
        VD_ERROR,               /* data is, or may become, wrong */
        VD_SEVERITIES
};

#define VD_NOWHERE UINT64_MAX           /* no position, no guest offset */

struct vd_finding {
        enum vd_severity severity;
        const char *code;               /* stable: "vhd-footer-checksum"; static; documented in docs/findings.md */
        uint64_t position, length;      /* in the file; VD_NOWHERE, 0 */
        uint64_t guest, guest_length;   /* guest range concerned; VD_NOWHERE, 0 */
        bool repairable;
        char *text;
};

enum { VD_FINDINGS_KEPT = 10000 };      /* records beyond are counted only */

struct vd_findings {
        struct vd_finding *items;
        size_t count, room;
        uint64_t totals[VD_SEVERITIES]; /* also those that were not kept */
        bool failed;                    /* memory ran out: items are incomplete, totals are right */

        /* Allocation statistics as qemu-img prints them; 0: not known. */
        uint64_t total_units, allocated_units, fragmented_units, packed_units;
        uint64_t end_offset;            /* end of the last structure in the file */
};

/* Adds a record; the text says found and allowed. */
void vd_find(struct vd_findings *, enum vd_severity, const char *code, uint64_t position, uint64_t length,
             uint64_t guest, uint64_t guest_length, bool repairable, const char *format, ...) VD_PRINTF(9, 10);
void vd_findings_free(struct vd_findings *);
const char *vd_severity_name(enum vd_severity);

#endif
