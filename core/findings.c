// SPDX-License-Identifier: MIT
/* findings.c: what a check found. */
#include "findings.h"

#include <stdlib.h>
#include <string.h>


static bool make_room(struct vd_findings *findings)
{
        size_t room = findings->room ? findings->room * 2 : 16;
        struct vd_finding *items;

        if (findings->count < findings->room)
                return true;
        items = reallocarray(findings->items, room, sizeof(*items));
        if (!items)
                return false;
        findings->items = items;
        findings->room = room;
        return true;
}

void vd_find(struct vd_findings *findings, enum vd_severity severity, const char *code, uint64_t position,
             uint64_t length, uint64_t guest, uint64_t guest_length, bool repairable, const char *format, ...)
{
        struct vd_error message;
        va_list arguments;

        findings->totals[severity]++;
        if (findings->count == VD_FINDINGS_KEPT)
                return;
        if (!make_room(findings)) {
                findings->failed = true;
                return;
        }
        va_start(arguments, format);
        vd_vfail(&message, VD_ECORRUPT, format, arguments);     /* also makes it printable */
        va_end(arguments);
        findings->items[findings->count] = (struct vd_finding){
                .severity = severity, .code = code, .position = position, .length = length, .guest = guest,
                .guest_length = guest_length, .repairable = repairable, .text = strdup(message.text),
        };
        if (findings->items[findings->count].text)
                findings->count++;
        else
                findings->failed = true;
}

void vd_findings_free(struct vd_findings *findings)
{
        for (size_t i = 0; i < findings->count; i++)
                free(findings->items[i].text);
        free(findings->items);
        *findings = (struct vd_findings){ 0 };
}

const char *vd_severity_name(enum vd_severity severity)
{
        static const char *const names[VD_SEVERITIES] = {
                [VD_NOTE] = "note", [VD_WARNING] = "warning", [VD_LEAK] = "leak", [VD_ERROR] = "error",
        };

        return names[severity];
}
