// SPDX-License-Identifier: MIT
/* file_parts.c: windows, joins and memory as files. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "file_ops.h"
#include "util/checked.h"

/* A join of parts; a window is a join of one part with an offset. */
struct part {
        struct vd_file *file;
        uint64_t start;                 /* in the joined file */
        uint64_t offset;                /* of the part's first byte in file */
        uint64_t length;                /* UINT64_MAX: whatever the file has; only in the last part */
};

struct join_file {
        struct vd_file file;
        size_t count;
        struct part *parts;
};

static const struct join_file *join(const struct vd_file *f)
{
        return (const struct join_file *)f;
}

static uint64_t part_length(const struct part *p)
{
        uint64_t size;

        if (p->length != UINT64_MAX)
                return p->length;
        size = vd_file_size(p->file);
        return size > p->offset ? size - p->offset : 0;
}

static uint64_t join_size(const struct vd_file *f)
{
        const struct part *last = &join(f)->parts[join(f)->count - 1];

        return last->start + part_length(last);
}

static uint64_t join_disk_bytes(const struct vd_file *f)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < join(f)->count; i++)
                sum += vd_file_disk_bytes(join(f)->parts[i].file);
        return sum;
}

/* The part that holds position; the last one for positions past the end.  *inside: bytes from position to its end. */
static const struct part *find_part(const struct vd_file *f, uint64_t position, uint64_t *inside)
{
        const struct part *p = join(f)->parts, *last = p + join(f)->count - 1;

        while (p < last && position - p->start >= p->length)
                p++;
        *inside = p->length == UINT64_MAX ? UINT64_MAX : p->start + p->length - vd_min(position, p->start + p->length);
        return p;
}

static int join_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                     struct vd_error *err)
{
        size_t done = 0;

        while (done < length) {
                uint64_t inside;
                const struct part *p = find_part(f, position + done, &inside);
                size_t want = vd_min(length - done, inside), n;
                int r;

                if (!want)
                        break;
                r = vd_file_read_some(p->file, (char *)buffer + done, want, position + done - p->start + p->offset,
                                      &n, err);
                if (r)
                        return r;
                done += n;
                if (n < want)
                        break;
        }
        *got = done;
        return 0;
}

enum change { CHANGE_WRITE, CHANGE_ZERO, CHANGE_ALLOCATE };

/* The three ways to change a range differ only in the call at the bottom. */
static int join_change(struct vd_file *f, enum change change, const void *buffer, uint64_t length, uint64_t position,
                       struct vd_error *err)
{
        while (length) {
                uint64_t inside;
                const struct part *p = find_part(f, position, &inside);
                uint64_t n = vd_min(length, inside), at = position - p->start + p->offset;
                int r;

                if (!n)
                        return vd_fail(err, -ENOSPC, "%s: writing at %" PRIu64 ", the window ends at %" PRIu64,
                                       f->name, position, join_size(f));
                r = change == CHANGE_WRITE ? vd_file_write(p->file, buffer, n, at, err)
                    : change == CHANGE_ZERO ? vd_file_zero(p->file, at, n, err)
                    : vd_file_allocate(p->file, at, n, err);
                if (r)
                        return r;
                if (buffer)
                        buffer = (const char *)buffer + n;
                position += n;
                length -= n;
        }
        return 0;
}

static int join_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        return join_change(f, CHANGE_WRITE, buffer, length, position, err);
}

static int join_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return join_change(f, CHANGE_ZERO, NULL, length, position, err);
}

static int join_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return join_change(f, CHANGE_ALLOCATE, NULL, length, position, err);
}

static int join_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        const struct part *last = &join(f)->parts[join(f)->count - 1];

        if (last->length != UINT64_MAX) {
                if (size <= join_size(f))
                        return 0;
                return vd_fail(err, -ENOSPC, "%s: a window of %" PRIu64 " bytes cannot grow to %" PRIu64, f->name,
                               join_size(f), size);
        }
        if (size < last->start)
                return vd_fail(err, VD_EUNSUPPORTED, "%s: cannot shrink to %" PRIu64 ", into an earlier part",
                               f->name, size);
        return vd_file_truncate(last->file, size - last->start + last->offset, err);
}

static int join_sync(struct vd_file *f, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < join(f)->count && !r; i++)
                r = vd_file_sync(join(f)->parts[i].file, err);
        return r;
}

static int join_finish(struct vd_file *f, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < join(f)->count && !r; i++)
                r = vd_file_finish(join(f)->parts[i].file, err);
        return r;
}

static int join_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        uint64_t inside;
        const struct part *p = find_part(f, position, &inside);
        uint64_t at = position - p->start + p->offset, stop;
        int r;

        if (at >= vd_file_size(p->file)) {      /* the window is longer than its file: reading will say so */
                *data = true;
                *end = position + vd_min(inside, part_length(p));
                return 0;
        }
        r = vd_file_next(p->file, at, data, &stop, err);
        if (!r)
                *end = position + vd_min(inside, stop - at);
        return r;
}

static int join_check_unchanged(const struct vd_file *f, struct vd_error *err)
{
        int r = 0;

        for (size_t i = 0; i < join(f)->count && !r; i++)
                r = vd_file_check_unchanged(join(f)->parts[i].file, err);
        return r;
}

static bool join_is(const struct vd_file *f, const struct stat *st)
{
        for (size_t i = 0; i < join(f)->count; i++)
                if (vd_file_is(join(f)->parts[i].file, st))
                        return true;
        return false;
}

static bool join_is_remote(const struct vd_file *f)
{
        for (size_t i = 0; i < join(f)->count; i++)
                if (vd_file_is_remote(join(f)->parts[i].file))
                        return true;
        return false;
}

static void join_close(struct vd_file *f)
{
        for (size_t i = 0; i < join(f)->count; i++)
                vd_file_unref(join(f)->parts[i].file);
        free(join(f)->parts);
        free(f);
}

static const struct vd_file_ops join_ops = {
        .size = join_size, .disk_bytes = join_disk_bytes, .read = join_read, .write = join_write, .zero = join_zero,
        .allocate = join_allocate, .truncate = join_truncate, .sync = join_sync, .next = join_next,
        .finish = join_finish, .check_unchanged = join_check_unchanged, .is = join_is,
        .is_remote = join_is_remote, .close = join_close,
};

static struct join_file *join_new(size_t count, const char *name, bool writable, struct vd_error *err)
{
        struct join_file *j = calloc(1, sizeof(*j));

        if (j)
                j->parts = calloc(count, sizeof(*j->parts));
        if (!j || !j->parts) {
                free(j);
                vd_fail(err, -ENOMEM, "%s", name);
                return NULL;
        }
        j->count = count;
        if (vd_file_init(&j->file, &join_ops, name, writable, err)) {
                free(j->parts);
                free(j);
                return NULL;
        }
        return j;
}

int vd_file_window(struct vd_file **out, struct vd_file *base, uint64_t offset, uint64_t length, struct vd_error *err)
{
        struct join_file *j;
        uint64_t end;

        if (length == UINT64_MAX ? offset > vd_file_size(base) : !vd_add(offset, length, &end) || end > INT64_MAX)
                return vd_fail(err, VD_EUSAGE, "%s: a window at %" PRIu64 " does not fit a file of %" PRIu64 " bytes",
                               vd_file_name(base), offset, vd_file_size(base));
        j = join_new(1, vd_file_name(base), vd_file_is_writable(base), err);
        if (!j)
                return -ENOMEM;
        j->parts[0] = (struct part){ vd_file_ref(base), 0, offset, length };
        *out = &j->file;
        return 0;
}

int vd_file_join(struct vd_file **out, struct vd_file *const *parts, size_t count, const char *name,
                 struct vd_error *err)
{
        bool writable = true;
        struct join_file *j;
        uint64_t start = 0;

        for (size_t i = 0; i < count; i++)
                writable = writable && vd_file_is_writable(parts[i]);
        j = join_new(count, name, writable, err);
        if (!j)
                return -ENOMEM;
        for (size_t i = 0; i < count; i++) {
                uint64_t length = vd_file_size(parts[i]);

                j->parts[i] = (struct part){ vd_file_ref(parts[i]), start, 0, i + 1 < count ? length : UINT64_MAX };
                start += length;
        }
        *out = &j->file;
        return 0;
}

int vd_file_join_add(struct vd_file *f, struct vd_file *file, struct vd_error *err)
{
        struct join_file *j = (struct join_file *)f;
        struct part *parts = reallocarray(j->parts, j->count + 1, sizeof(*parts)), *last;

        if (!parts)
                return vd_fail(err, -ENOMEM, "%s", f->name);
        j->parts = parts;
        last = &parts[j->count - 1];
        last->length = part_length(last);
        parts[j->count++] = (struct part){ vd_file_ref(file), last->start + last->length, 0, UINT64_MAX };
        f->writable = f->writable && file->writable;
        return 0;
}

/* Memory. */

struct memory_file {
        struct vd_file file;
        pthread_mutex_t lock;           /* protects all below */
        char *bytes;
        uint64_t size, room;
};

static struct memory_file *memory(const struct vd_file *f)
{
        return (struct memory_file *)(uintptr_t)f;
}

static uint64_t memory_size(const struct vd_file *f)
{
        struct memory_file *m = memory(f);
        uint64_t size;

        pthread_mutex_lock(&m->lock);
        size = m->size;
        pthread_mutex_unlock(&m->lock);
        return size;
}

static int memory_read(struct vd_file *f, void *buffer, size_t length, uint64_t position, size_t *got,
                       struct vd_error *err)
{
        struct memory_file *m = memory(f);

        (void)err;
        pthread_mutex_lock(&m->lock);
        *got = position < m->size ? vd_min(length, m->size - position) : 0;
        if (*got)
                memcpy(buffer, m->bytes + position, *got);
        pthread_mutex_unlock(&m->lock);
        return 0;
}

/* Under the lock: makes the file size bytes long; new bytes are zero. */
static int memory_resize(struct memory_file *m, uint64_t size, struct vd_error *err)
{
        if (size > m->room) {
                uint64_t room = vd_max(size, m->room * 2);
                char *bytes = realloc(m->bytes, room);

                if (!bytes)
                        return vd_fail(err, -ENOMEM, "%s: %" PRIu64 " bytes", m->file.name, size);
                m->bytes = bytes;
                m->room = room;
        }
        if (size > m->size)
                memset(m->bytes + m->size, 0, size - m->size);
        m->size = size;
        return 0;
}

static int memory_write(struct vd_file *f, const void *buffer, size_t length, uint64_t position, struct vd_error *err)
{
        struct memory_file *m = memory(f);
        int r;

        pthread_mutex_lock(&m->lock);
        r = position + length > m->size ? memory_resize(m, position + length, err) : 0;
        if (!r && length)
                memcpy(m->bytes + position, buffer, length);
        pthread_mutex_unlock(&m->lock);
        return r;
}

static int memory_zero(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        struct memory_file *m = memory(f);
        int r;

        pthread_mutex_lock(&m->lock);
        r = position + length > m->size ? memory_resize(m, position + length, err) : 0;
        if (!r)
                memset(m->bytes + position, 0, length);
        pthread_mutex_unlock(&m->lock);
        return r;
}

static int memory_truncate(struct vd_file *f, uint64_t size, struct vd_error *err)
{
        struct memory_file *m = memory(f);
        int r;

        pthread_mutex_lock(&m->lock);
        r = memory_resize(m, size, err);
        pthread_mutex_unlock(&m->lock);
        return r;
}

static int memory_allocate(struct vd_file *f, uint64_t position, uint64_t length, struct vd_error *err)
{
        return position + length > memory_size(f) ? memory_truncate(f, position + length, err) : 0;
}

static int memory_sync(struct vd_file *f, struct vd_error *err)
{
        (void)f;
        (void)err;
        return 0;
}

static int memory_next(struct vd_file *f, uint64_t position, bool *data, uint64_t *end, struct vd_error *err)
{
        (void)position;
        (void)err;
        *data = true;
        *end = memory_size(f);
        return 0;
}

static bool memory_is(const struct vd_file *f, const struct stat *st)
{
        (void)f;
        (void)st;
        return false;
}

static void memory_close(struct vd_file *f)
{
        pthread_mutex_destroy(&memory(f)->lock);
        free(memory(f)->bytes);
        free(f);
}

static const struct vd_file_ops memory_ops = {
        .size = memory_size, .disk_bytes = memory_size, .read = memory_read, .write = memory_write,
        .zero = memory_zero, .allocate = memory_allocate, .truncate = memory_truncate, .sync = memory_sync,
        .next = memory_next, .is = memory_is, .close = memory_close,
};

int vd_file_memory(struct vd_file **out, const void *bytes, size_t length, const char *name, struct vd_error *err)
{
        struct memory_file *m = calloc(1, sizeof(*m));
        int r;

        if (!m)
                return vd_fail(err, -ENOMEM, "%s", name);
        r = vd_file_init(&m->file, &memory_ops, name, true, err);
        if (r) {
                free(m);
                return r;
        }
        pthread_mutex_init(&m->lock, NULL);
        *out = &m->file;
        r = vd_file_write(*out, bytes, length, 0, err);
        if (r)
                vd_file_unref(*out);
        return r;
}
