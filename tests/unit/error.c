// SPDX-License-Identifier: MIT
/* error.c: messages and findings say what they must and nothing that hurts a terminal. */
#include "util/error.h"
#include "core/findings.h"
#include "unit.h"

#include <errno.h>

static void messages(void)
{
        struct vd_error err = VD_ERROR_INIT;
        char longer[3000];

        OK("our own codes stand alone", vd_fail(&err, VD_ECORRUPT, "block %d", 7) == VD_ECORRUPT &&
                                        err.code == VD_ECORRUPT && strcmp(err.text, "block 7") == 0);
        OK("the system's get its text", vd_fail(&err, -ENOSPC, "disk.img") == -ENOSPC &&
                                        strcmp(err.text, "disk.img: No space left on device") == 0);
        OK("context goes in front", vd_error_prefix(&err, "copy %d", 2) == -ENOSPC &&
                                    strncmp(err.text, "copy 2: disk.img: ", 18) == 0);
        vd_fail(&err, VD_EUSAGE, "inner");
        OK("a message may be made from itself", vd_fail(&err, VD_EUSAGE, "outer: %s", err.text) == VD_EUSAGE &&
                                                strcmp(err.text, "outer: inner") == 0);
        vd_fail(&err, VD_EUSAGE, "a\033[2Jb\nc\x7f");
        OK("control characters do not survive", strcmp(err.text, "a\\x1b[2Jb\\x0ac\\x7f") == 0);
        memset(longer, 'x', sizeof(longer) - 1);
        longer[sizeof(longer) - 1] = 0;
        vd_fail(&err, -EIO, "%s", longer);
        OK("a long message is cut", strlen(err.text) < sizeof(err.text) && strncmp(err.text, longer, 900) == 0);
        vd_error_prefix(&err, "%s", longer);
        OK("with long context too", strlen(err.text) < sizeof(err.text) && err.code == -EIO);
}

static void symbols(void)
{
        OK("codes have symbols", strcmp(vd_error_symbol(VD_ECORRUPT), "corrupt") == 0 &&
                                 strcmp(vd_error_symbol(-ENOSPC), "no-space") == 0 &&
                                 strcmp(vd_error_symbol(VD_ELOCKED), "locked") == 0);
        OK("codes that we do not know have one too", vd_error_symbol(-12345) && vd_error_symbol(-EXDEV) &&
                                                     vd_error_symbol(0));
}

static void findings(void)
{
        struct vd_findings f = { 0 };

        for (int i = 0; i < VD_FINDINGS_KEPT + 5; i++)
                vd_find(&f, i % 2 ? VD_LEAK : VD_ERROR, "code", 1, 2, 3, 4, true, "number %d\n", i);
        OK("findings are kept with all they say",
           f.items[1].severity == VD_LEAK && strcmp(f.items[1].code, "code") == 0 && f.items[1].position == 1 &&
           f.items[1].length == 2 && f.items[1].guest == 3 && f.items[1].guest_length == 4 && f.items[1].repairable &&
           strcmp(f.items[1].text, "number 1\\x0a") == 0);
        OK("up to a number", f.count == VD_FINDINGS_KEPT && !f.failed);
        OK("all are counted", f.totals[VD_LEAK] + f.totals[VD_ERROR] == VD_FINDINGS_KEPT + 5);
        OK("severities have names", strcmp(vd_severity_name(VD_ERROR), "error") == 0 &&
                                    strcmp(vd_severity_name(VD_LEAK), "leak") == 0);
        vd_findings_free(&f);
        OK("and are gone when freed", f.count == 0 && !f.items && f.totals[VD_ERROR] == 0);
}

int main(void)
{
        messages();
        symbols();
        findings();
        return unit_done();
}
