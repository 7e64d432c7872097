// SPDX-License-Identifier: MIT
/* policy.c: which names from inside an image may be opened. */
#include "core/policy.h"
#include "unit.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vd_error err;

static void touch(const char *path)
{
        FILE *f = fopen(path, "w");

        NEED(f && fclose(f) == 0);
}

/* The code, and the path in *path until the next call. */
static int resolve(enum vd_references references, enum vd_reference kind, const char *name, const char **path)
{
        struct vd_policy policy = { .references = references };
        static char *kept;
        int r;

        free(kept);
        r = vd_policy_resolve(&policy, kind, "images/top", name, &kept, &err);
        if (path)
                *path = kept ? kept : "";
        return r;
}

static int parent(const char *name)
{
        return resolve(VD_REFERENCES_DEFAULT, VD_REFERENCE_PARENT, name, NULL);
}

static int member(const char *name)
{
        return resolve(VD_REFERENCES_DEFAULT, VD_REFERENCE_MEMBER, name, NULL);
}

static void names(const char *directory)
{
        char absolute[128];
        const char *path;

        OK("a relative name stands beside the image",
           resolve(VD_REFERENCES_DEFAULT, VD_REFERENCE_PARENT, "base", &path) == 0 && strcmp(path, "images/base") == 0);
        OK("or above it, for a parent", parent("../outside") == 0);
        snprintf(absolute, sizeof(absolute), "%s/outside", directory);
        OK("an absolute name is one",
           resolve(VD_REFERENCES_DEFAULT, VD_REFERENCE_PARENT, absolute, &path) == 0 && strcmp(path, absolute) == 0);
        OK("file: in front of a path is QEMU's",
           resolve(VD_REFERENCES_DEFAULT, VD_REFERENCE_PARENT, "file:base", &path) == 0 &&
           strcmp(path, "images/base") == 0);
        OK("a missing file is just missing", parent("nothing") == -ENOENT && parent("base/nothing") == -ENOENT);
        OK("so is a place on a Windows machine", parent("C:/images/base") == -ENOENT);
        OK("and no name at all", parent("") == -ENOENT && parent("file:") == -ENOENT);
}

static void never(void)
{
        static const char *const protocols[] = {
                "json:{\"driver\":\"file\"}", "nbd://localhost/x", "http://localhost/x", "ssh:x", "fat:rw:/tmp",
                "nbd+unix:///x", "host_device:base",
        };
        bool all = true;

        for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++)
                all = all && parent(protocols[i]) == VD_EPOLICY && member(protocols[i]) == VD_EPOLICY &&
                      resolve(VD_REFERENCES_ANY, VD_REFERENCE_PARENT, protocols[i], NULL) == VD_EPOLICY;
        OK("URLs, json: and the like are never opened", all);
        OK("a colon after a slash is part of a name", parent("./with:colon") == 0);
        OK("devices are not, not even under any",
           parent("/dev/zero") == VD_EPOLICY &&
           resolve(VD_REFERENCES_ANY, VD_REFERENCE_PARENT, "/dev/zero", NULL) == VD_EPOLICY);
        OK("nor /proc and /sys",
           parent("/proc/self/maps") == VD_EPOLICY &&
           parent("/sys/kernel/mm/transparent_hugepage/enabled") != 0);
        OK("nor what leads there", parent("to-proc") == VD_EPOLICY && parent("to-null") == VD_EPOLICY);
        OK("directories and FIFOs are refused without waiting", parent("../images") == VD_EPOLICY &&
                                                                parent("fifo") == VD_EPOLICY);
        OK("the message names what was refused", parent("fifo") == VD_EPOLICY && strstr(err.text, "'fifo'"));
        OK("and is printable", parent("nbd:\033[31m") == VD_EPOLICY && !strchr(err.text, '\033'));
}

static void below(const char *directory)
{
        char absolute[128];

        snprintf(absolute, sizeof(absolute), "%s/images/sub/extent", directory);
        OK("members beside the image or below it are opened", member("base") == 0 && member("sub/extent") == 0);
        OK("also by absolute name", member(absolute) == 0);
        OK("and by a way round", member("../images/base") == 0);
        OK("others are not", member("../outside") == VD_EPOLICY && member("../images-2/base") == VD_EPOLICY);
        OK("nor through a link that leads out", member("to-outside") == VD_EPOLICY);
        OK("a parent may lie behind such a link", parent("to-outside") == 0);
        OK("any allows members elsewhere",
           resolve(VD_REFERENCES_ANY, VD_REFERENCE_MEMBER, "../outside", NULL) == 0);
        OK("below forbids parents elsewhere",
           resolve(VD_REFERENCES_BELOW, VD_REFERENCE_PARENT, "../outside", NULL) == VD_EPOLICY &&
           resolve(VD_REFERENCES_BELOW, VD_REFERENCE_PARENT, "base", NULL) == 0);
        OK("none forbids all",
           resolve(VD_REFERENCES_NONE, VD_REFERENCE_PARENT, "base", NULL) == VD_EPOLICY &&
           resolve(VD_REFERENCES_NONE, VD_REFERENCE_MEMBER, "base", NULL) == VD_EPOLICY);
}

int main(void)
{
        char directory[] = "/tmp/vdtool-unit-XXXXXX", command[64];
        char *path;

        NEED(mkdtemp(directory) && chdir(directory) == 0);
        NEED(mkdir("images", 0777) == 0 && mkdir("images/sub", 0777) == 0 && mkdir("images-2", 0777) == 0);
        touch("outside");
        touch("images/top");
        touch("images/base");
        touch("images/with:colon");
        touch("images/sub/extent");
        touch("images-2/base");
        NEED(mkfifo("images/fifo", 0666) == 0 && symlink("../outside", "images/to-outside") == 0);
        NEED(symlink("/proc/self/maps", "images/to-proc") == 0 && symlink("/dev/null", "images/to-null") == 0);
        names(directory);
        never();
        below(directory);
        OK("an image without directory has its names in the current one",
           vd_policy_resolve(NULL, VD_REFERENCE_MEMBER, "top", "outside", &path, &err) == 0 &&
           strcmp(path, "outside") == 0);
        free(path);
        snprintf(command, sizeof(command), "rm -rf %s", directory);
        NEED(chdir("/") == 0 && system(command) == 0);
        return unit_done();
}
