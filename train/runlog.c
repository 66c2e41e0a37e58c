/* train/runlog.c - see runlog.h. */
#include "train/runlog.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static const int64_t LOG_MAX = (int64_t)16 << 30;

static int open_log(RunLog *log, const char *folder, int flags, Err *e)
{
    log->fd = -1;
    log->last_eval = -1;
    if (io_join(log->path, folder, "log.jsonl", e)) return -1;
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666);
    if (log->fd < 0) return err_errno(e, "%s: cannot be opened", log->path);
    return 0;
}

int runlog_create(RunLog *log, const char *folder, Err *e)
{
    return open_log(log, folder, O_TRUNC, e);
}

static int64_t int_member(const json_t *record, const char *key, int64_t missing)
{
    const json_t *value = json_object_get(record, key);
    return json_is_integer(value) ? json_integer_value(value) : missing;
}

static bool is_event(const json_t *record, const char *event)
{
    const char *name = json_string_value(json_object_get(record, "event"));
    return name && !strcmp(name, event);
}

/* Does this line stay in a record that goes on at `step`? A line that is no JSON does not, with a
 * warning; nor does a line without its end. */
static bool keep_line(const char *line, size_t size, int64_t step, int64_t *last_eval,
                      const char *where)
{
    json_t *record = json_loadb(line, size, 0, NULL);
    if (!record && line[size - 1] == '\n') log_warn("%s: not a JSON record; dropped", where);
    if (!record || line[size - 1] != '\n') {
        json_decref(record);
        return false;
    }
    int64_t at = int_member(record, "step", 0);
    bool keep = at <= step && !is_event(record, "final");
    if (keep && is_event(record, "eval")) *last_eval = at;
    json_decref(record);
    return keep;
}

int runlog_resume(RunLog *log, const char *folder, int64_t step, Err *e)
{
    char path[IO_PATH_MAX], where[IO_PATH_MAX + 16], *text;
    size_t size, kept = 0;
    int64_t last_eval = -1;
    if (io_join(path, folder, "log.jsonl", e)) return -1;
    if (!io_exists(path)) {
        log_warn("%s: missing; the record begins anew at step %" PRId64, path, step);
        return runlog_create(log, folder, e);
    }
    if (io_read_all(path, LOG_MAX, &text, &size, e)) return -1;
    int line = 1;
    for (size_t at = 0; at < size; line++) { /* text[0..kept) is what stays of text[0..at) */
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at + 1 : size - at;
        snprintf(where, sizeof where, "%s:%d", path, line);
        if (keep_line(text + at, length, step, &last_eval, where)) {
            memmove(text + kept, text + at, length);
            kept += length;
        }
        at += length;
    }
    int rc = io_write_atomic(path, text, kept, e);
    free(text);
    if (rc || open_log(log, folder, 0, e)) return -1;
    log->last_eval = last_eval;
    return 0;
}

int runlog_write(RunLog *log, json_t *record, Err *e)
{
    char *text = record ? json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    if (record && is_event(record, "eval")) log->last_eval = int_member(record, "step", -1);
    json_decref(record);
    if (!text) return err_set(e, "%s: out of memory", log->path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the terminating zero */
    int rc = io_write_full(log->fd, text, n + 1, log->path, e);
    free(text);
    return rc;
}

int runlog_sync(RunLog *log, Err *e)
{
    return fsync(log->fd) ? err_errno(e, "%s: cannot be synced", log->path) : 0;
}

void runlog_close(RunLog *log)
{
    if (log->fd >= 0) close(log->fd);
    log->fd = -1;
}

json_t *runlog_last(const char *folder, const char *event)
{
    char path[IO_PATH_MAX], *text;
    size_t size;
    json_t *found = NULL;
    if (io_join(path, folder, "log.jsonl", NULL) || io_read_all(path, LOG_MAX, &text, &size, NULL))
        return NULL;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at + 1 : size - at;
        json_t *record = json_loadb(text + at, length, 0, NULL);
        if (record && is_event(record, event)) {
            json_decref(found);
            found = json_incref(record);
        }
        json_decref(record);
        at += length;
    }
    free(text);
    return found;
}
