// SPDX-License-Identifier: MIT
/* output.c: new files appear complete or not at all, whatever stands in the way. */
#include "core/output.h"
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct vd_error err;

static void put(const char *path, const char *text)
{
        FILE *f = fopen(path, "w");

        NEED(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static bool has(const char *path, const char *text)
{
        char bytes[64] = "";
        FILE *f = fopen(path, "r");

        if (!f)
                return false;
        bytes[fread(bytes, 1, sizeof(bytes) - 1, f)] = 0;
        fclose(f);
        return strcmp(bytes, text) == 0;
}

/* How many names the directory has; removes them all if asked. */
static int names(const char *directory, bool clear)
{
        DIR *d = opendir(directory);
        struct dirent *entry;
        int count = 0;

        NEED(d);
        while ((entry = readdir(d))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                count++;
                if (clear)
                        NEED(unlinkat(dirfd(d), entry->d_name, 0) == 0 ||
                             unlinkat(dirfd(d), entry->d_name, AT_REMOVEDIR) == 0);
        }
        closedir(d);
        return count;
}

/* Makes path with this content through a transaction; 0 or the code it failed with. */
static int make(const char *path, unsigned flags, const char *text)
{
        struct vd_output *output;
        int r = vd_output_new(&output, path, flags, &err);

        if (r < 0)
                return r;
        r = vd_file_write(vd_output_file(output), text, strlen(text), 0, &err);
        if (r == 0)
                r = vd_output_commit(output, &err);
        vd_output_free(output);
        return r;
}

static unsigned mode_of(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void single(void)
{
        struct vd_output *output;
        struct vd_file *input;

        umask(027);
        OK("a new file appears with its content", make("new", 0, "text") == 0 && has("new", "text"));
        OK("its mode is what umask leaves of 0666", mode_of("new") == 0640);
        OK("nothing else is left", names(".", false) == 1);
        OK("an existing file is refused", make("new", 0, "other") == -EEXIST && has("new", "text"));
        NEED(chmod("new", 0604) == 0);
        OK("with REPLACE it is replaced", make("new", VD_OUTPUT_REPLACE, "other") == 0 && has("new", "other"));
        OK("and keeps its mode", mode_of("new") == 0604 && names(".", false) == 1);
        OK("REPLACE does not need a file to replace", make("fresh", VD_OUTPUT_REPLACE, "x") == 0 && has("fresh", "x"));
        OK("SYNC works", make("synced", VD_OUTPUT_SYNC, "x") == 0 && has("synced", "x"));
        names(".", true);

        NEED(vd_output_new(&output, "new", 0, &err) == 0);
        NEED(vd_file_write(vd_output_file(output), "text", 4, 0, &err) == 0);
        OK("before the commit the name does not exist", access("new", F_OK) < 0);
        vd_output_free(output);
        OK("without commit nothing is left", names(".", true) == 0);

        put("old", "old");
        NEED(vd_output_new(&output, "old", VD_OUTPUT_REPLACE, &err) == 0);
        NEED(vd_file_write(vd_output_file(output), "text", 4, 0, &err) == 0);
        OK("until the commit the old file stays", has("old", "old"));
        NEED(vd_file_open(&input, "old", VD_FILE_READ, &err) == 0);
        OK("an input that would be replaced is recognised", vd_output_replaces(output, input));
        vd_file_unref(input);
        NEED(link("old", "other") == 0);
        NEED(vd_file_open(&input, "other", VD_FILE_READ, &err) == 0);
        OK("by whatever name", vd_output_replaces(output, input));
        vd_file_unref(input);
        vd_output_free(output);
        OK("and without it after all", has("old", "old") && names(".", true) == 2);

        NEED(vd_output_new(&output, "late", 0, &err) == 0);
        put("late", "somebody else's");
        OK("a file that appears meanwhile is not replaced", vd_output_commit(output, &err) == -EEXIST);
        vd_output_free(output);
        OK("and stays as it is", has("late", "somebody else's") && names(".", true) == 1);

        NEED(vd_output_new(&output, "late", VD_OUTPUT_REPLACE, &err) == 0);
        NEED(mkdir("late", 0777) == 0);
        OK("nor is a directory that appears, even with REPLACE", vd_output_commit(output, &err) == VD_EUSAGE);
        vd_output_free(output);
        OK("and nothing else is left", names(".", true) == 1);
}

static void special(void)
{
        int pipes[2];
        char path[64];

        NEED(mkdir("directory", 0777) == 0 && mkfifo("fifo", 0666) == 0);
        OK("a directory is refused", make("directory", VD_OUTPUT_REPLACE, "x") == VD_EUSAGE);
        OK("with a slash too", make("directory/", VD_OUTPUT_REPLACE, "x") == VD_EUSAGE);
        OK("and one that does not exist", make("nothing/", VD_OUTPUT_REPLACE, "x") == VD_EUSAGE);
        OK("a FIFO is refused without waiting for it", make("fifo", VD_OUTPUT_REPLACE, "x") == VD_EUSAGE);
        OK("a character device is refused", make("/dev/full", VD_OUTPUT_REPLACE, "x") == VD_EUSAGE &&
                                            access("/dev/full", F_OK) == 0);
        NEED(pipe(pipes) == 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", pipes[1]);
        OK("a pipe behind /proc is refused", make(path, VD_OUTPUT_REPLACE, "x") == VD_EUSAGE);
        close(pipes[0]);
        close(pipes[1]);
        OK("an empty name is refused", make("", 0, "x") == VD_EUSAGE);
        OK("a missing directory is an error", make("nowhere/new", 0, "x") == -ENOENT);
        OK("none of them left anything", names(".", true) == 2);
}

static void links(void)
{
        NEED(mkdir("elsewhere", 0777) == 0);
        NEED(symlink("elsewhere/new", "dangling") == 0 && symlink("dangling", "chain") == 0);
        OK("through a dangling link its target is created",
           make("chain", 0, "text") == 0 && has("elsewhere/new", "text") && has("chain", "text"));
        OK("a link to a file is refused as the file is", make("chain", 0, "other") == -EEXIST);
        OK("and replaced as it is, the links stay",
           make("chain", VD_OUTPUT_REPLACE, "other") == 0 && has("elsewhere/new", "other") &&
           readlink("dangling", (char[16]){ 0 }, 15) > 0);
        OK("the temporary file was beside the target", names("elsewhere", false) == 1);
        NEED(symlink("loop", "loop") == 0);
        OK("a loop of links is an error", make("loop", VD_OUTPUT_REPLACE, "x") == -ELOOP);
        names("elsewhere", true);
        names(".", true);
}

static void locked(void)
{
        struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1 };
        struct vd_output *output;
        int fd;

        put("used", "used");
        fd = open("used", O_RDONLY);
        NEED(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
        OK("a file in use is not replaced", make("used", VD_OUTPUT_REPLACE, "x") == VD_ELOCKED && has("used", "used"));
        lock.l_type = F_UNLCK;
        NEED(fcntl(fd, F_OFD_SETLK, &lock) == 0 && vd_output_new(&output, "used", VD_OUTPUT_REPLACE, &err) == 0);
        lock.l_type = F_RDLCK;
        NEED(fcntl(fd, F_OFD_SETLK, &lock) == 0);
        OK("nor one that is in use when we are done",
           vd_output_commit(output, &err) == VD_ELOCKED && has("used", "used"));
        vd_output_free(output);
        close(fd);
        OK("and nothing is left beside it", names(".", true) == 1);
}

static void sets(void)
{
        struct vd_output *output;
        struct vd_file *part, *again;

        NEED(mkdir("sub", 0777) == 0);
        NEED(vd_output_new(&output, "sub/set", 0, &err) == 0 && vd_output_add(output, "set.v01", &part, &err) == 0);
        NEED(vd_file_write(part, "part", 4, 0, &err) == 0);
        NEED(vd_file_write(vd_output_file(output), "main", 4, 0, &err) == 0);
        OK("a name cannot be used twice in a set", vd_output_add(output, "../sub/set", &again, &err) == VD_EUSAGE);
        OK("messages name the directory", strstr(vd_file_name(part), "sub/set.v01") != NULL);
        OK("a set appears together", vd_output_commit(output, &err) == 0 && has("sub/set", "main") &&
                                     has("sub/set.v01", "part"));
        vd_output_free(output);

        NEED(vd_output_new(&output, "sub/set", VD_OUTPUT_REPLACE, &err) == 0 &&
             vd_output_add(output, "set.v01", &part, &err) == 0 &&
             vd_output_add(output, "set.v02", &part, &err) == 0);
        OK("a set replaces a set", vd_output_commit(output, &err) == 0 && has("sub/set", "") &&
                                   has("sub/set.v01", "") && has("sub/set.v02", ""));
        vd_output_free(output);
        OK("and leaves nothing beside it", names("sub", true) == 3);

        put("sub/set.v01", "old");
        NEED(vd_output_new(&output, "sub/set", VD_OUTPUT_REPLACE, &err) == 0 &&
             vd_output_add(output, "set.v01", &part, &err) == 0 &&
             vd_output_add(output, "set.v02", &part, &err) == 0);
        NEED(mkdir("sub/set", 0777) == 0);
        OK("a set that cannot be complete does not appear", vd_output_commit(output, &err) == VD_EUSAGE);
        vd_output_free(output);
        OK("and leaves what was there", has("sub/set.v01", "old") && names("sub", true) == 2);
        names(".", true);
}

/* The directory of the main file vanishes, so that only giving the very last name fails. */
static void withdrawn(void)
{
        struct vd_output *output;
        struct vd_file *part;

        put("old", "old");
        NEED(mkdir("gone", 0777) == 0 && vd_output_new(&output, "gone/main", VD_OUTPUT_REPLACE, &err) == 0);
        NEED(vd_output_add(output, "../old", &part, &err) == 0 && vd_output_add(output, "../new", &part, &err) == 0);
        names("gone", true);
        NEED(rmdir("gone") == 0);
        OK("a set whose last name fails is withdrawn", vd_output_commit(output, &err) == -ENOENT);
        vd_output_free(output);
        OK("what was replaced is back, what was new is gone", has("old", "old") && names(".", true) == 1);
}

/* A directory that is renamed while we work: the file goes with it. */
static void moved_directory(void)
{
        struct vd_output *output;

        NEED(mkdir("here", 0777) == 0 && vd_output_new(&output, "here/new", 0, &err) == 0);
        NEED(rename("here", "there") == 0 && mkdir("here", 0777) == 0);
        OK("the directory is held, not its name", vd_output_commit(output, &err) == 0 &&
                                                  access("there/new", F_OK) == 0 && access("here/new", F_OK) < 0);
        vd_output_free(output);
        names("there", true);
        names(".", true);
}

int main(void)
{
        char directory[] = "/tmp/vdtool-unit-XXXXXX";
        char long_name[256];

        NEED(mkdtemp(directory) && chdir(directory) == 0);
        for (int named = 0; named < 2; named++) {
                NEED(setenv("VDTOOL_NO_TMPFILE", named ? "1" : "0", 1) == 0);
                printf("# %s temporary files\n", named ? "named" : "unnamed, where there are such,");
                single();
                special();
                links();
                locked();
                sets();
                withdrawn();
                moved_directory();
                memset(long_name, 'n', 255);
                long_name[255] = 0;
                OK("a name as long as names may be works",
                   make(long_name, 0, "x") == 0 && make(long_name, VD_OUTPUT_REPLACE, "y") == 0);
                names(".", true);
        }
        NEED(chdir("/") == 0 && rmdir(directory) == 0);
        return unit_done();
}
