/* data/source.c - see source.h. */
#include "data/source.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/utf8.h"

enum { READ_SIZE = 1 << 18, WARNINGS_MAX = 20 };
enum { BAD = STREAM_BAD, FAILED = STREAM_FAILED }; /* as in stream.h */

struct Source {
    const InputList *list;
    const char *text_key;
    BadPolicy policy;
    int next_file;
    const InputFile *file; /* the one being read; NULL: none */
    Stream *stream;
    bool ended;         /* the stream has no more bytes */
    bool broken;        /* the stream cannot go on */
    int64_t documents;  /* begun in this file */
    char *data;         /* bytes read and not yet handed out: data[used .. filled) */
    size_t used, filled, capacity;
    int64_t position;   /* in the unpacked file, of data[used] */
    int64_t line;       /* of data[used], from 1 */
    json_t *object;     /* owns the text of the last document of a .jsonl file */
    int64_t skipped;
};

Source *source_open(const InputList *list, const char *text_key, BadPolicy policy, Err *e)
{
    Source *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, "out of memory");
        return NULL;
    }
    s->list = list;
    s->text_key = text_key ? text_key : "text";
    s->policy = policy;
    return s;
}

void source_close(Source **source)
{
    if (!*source) return;
    stream_close(&(*source)->stream);
    json_decref((*source)->object);
    free((*source)->data);
    free(*source);
    *source = NULL;
}

int64_t source_skipped(const Source *source) { return source->skipped; }

int source_file(const Source *source) { return source->next_file - 1; }

static const char *file_name(const Source *s)
{
    return strcmp(s->file->path, "-") ? s->file->path : "standard input";
}

/* Reads more bytes behind data[filled): 0, or BAD or FAILED. */
static int read_more(Source *s, Err *e)
{
    if (s->used) {
        memmove(s->data, s->data + s->used, s->filled - s->used);
        s->filled -= s->used;
        s->used = 0;
    }
    if (s->capacity - s->filled < READ_SIZE) {
        size_t capacity = s->capacity * 2 + READ_SIZE;
        char *grown = realloc(s->data, capacity);
        if (!grown) return err_set(e, "%s: out of memory", file_name(s));
        s->data = grown;
        s->capacity = capacity;
    }
    int64_t n = stream_read(s->stream, s->data + s->filled, READ_SIZE, e);
    s->broken = n < 0;
    if (n < 0) return (int)n;
    s->filled += (size_t)n;
    s->ended = n == 0;
    return 0;
}

/* Hands out n bytes; they stay in place until read_more. */
static const char *take(Source *s, size_t n)
{
    const char *text = s->data + s->used;
    s->used += n;
    s->position += (int64_t)n;
    return text;
}

/* `where` is the position of text[0] in the unpacked file. */
static int check_utf8(const Source *s, const char *text, size_t size, int64_t where, Err *e)
{
    size_t valid = utf8_valid_prefix(text, size);
    if (valid == size) return 0;
    if (s->file->kind == INPUT_JSONL)
        err_set(e, "%s:%lld: byte %lld: not UTF-8 (0x%02x)", file_name(s), (long long)s->line,
                (long long)(where + (int64_t)valid), (unsigned char)text[valid]);
    else
        err_set(e, "%s: byte %lld: not UTF-8 (0x%02x)", file_name(s),
                (long long)(where + (int64_t)valid), (unsigned char)text[valid]);
    return BAD;
}

/* ---- text ---------------------------------------------------------------------------------- */

/* Where to cut size > SOURCE_TEXT_MAX bytes of text: see source.h. */
static size_t find_cut(const char *text)
{
    size_t newline = 0;
    for (size_t i = SOURCE_TEXT_MAX; i > SOURCE_TEXT_MAX / 2; i--) {
        if (text[i - 1] != '\n') continue;
        if (!newline) newline = i;
        if (text[i - 2] == '\n' || (text[i - 2] == '\r' && text[i - 3] == '\n')) return i;
    }
    return newline ? newline : utf8_boundary(text, SOURCE_TEXT_MAX);
}

/* As source_next, and BAD. */
static int next_text(Source *s, Document *out, Err *e)
{
    while (!s->ended && s->filled - s->used <= SOURCE_TEXT_MAX) {
        int rc = read_more(s, e);
        if (rc) return rc;
    }
    size_t left = s->filled - s->used;
    if (left == 0) {
        if (s->documents) return 0;
        s->documents++;
        err_set(e, "%s: empty document", file_name(s));
        return BAD;
    }
    s->documents++;
    size_t size = left > SOURCE_TEXT_MAX ? find_cut(s->data + s->used) : left;
    int64_t where = s->position;
    *out = (Document){take(s, size), size};
    return check_utf8(s, out->text, size, where, e) ? BAD : 1;
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

/* Takes one line, newline and all; 1, 0 at the end, BAD or FAILED. */
static int next_line(Source *s, const char **line, size_t *size, Err *e)
{
    size_t seen = 0; /* bytes known to hold no newline */
    for (;;) {
        size_t left = s->filled - s->used;
        const char *begin = s->data + s->used;
        const char *newline = left > seen ? memchr(begin + seen, '\n', left - seen) : NULL;
        if (newline || (s->ended && left)) {
            *size = newline ? (size_t)(newline - begin) + 1 : left;
            *line = take(s, *size);
            s->line++;
            return 1;
        }
        if (s->ended) return 0;
        seen = left;
        if (left > SOURCE_LINE_MAX) {
            err_set(e, "%s:%lld: a line of more than %d bytes", file_name(s),
                    (long long)s->line + 1, SOURCE_LINE_MAX);
            s->broken = true;
            return BAD;
        }
        int rc = read_more(s, e);
        if (rc) return rc;
    }
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    return true;
}

static int line_fail(const Source *s, Err *e, const char *what)
{
    err_set(e, "%s:%lld: %s", file_name(s), (long long)s->line, what);
    return BAD;
}

static int member_fail(const Source *s, Err *e, const char *what)
{
    err_set(e, "%s:%lld: member \"%s\" %s", file_name(s), (long long)s->line, s->text_key, what);
    return BAD;
}

static int parse_line(Source *s, const char *line, size_t size, Document *out, Err *e)
{
    json_error_t error;
    json_decref(s->object);
    s->object = json_loadb(line, size, JSON_ALLOW_NUL, &error);
    if (!s->object) {
        err_set(e, "%s:%lld: bad JSON at byte %d of the line: %s", file_name(s),
                (long long)s->line, error.position, error.text);
        return BAD;
    }
    if (!json_is_object(s->object)) return line_fail(s, e, "bad JSON: not an object");
    const json_t *text = json_object_get(s->object, s->text_key);
    if (!text) return member_fail(s, e, "is missing");
    if (!json_is_string(text)) return member_fail(s, e, "is not a string");
    *out = (Document){json_string_value(text), json_string_length(text)};
    return out->size ? 1 : line_fail(s, e, "empty document");
}

static int next_json(Source *s, Document *out, Err *e)
{
    for (;;) {
        const char *line = NULL;
        size_t size = 0;
        int64_t where = s->position;
        int rc = next_line(s, &line, &size, e);
        if (rc != 1) return rc;
        if (is_blank(line, size)) continue;
        if (check_utf8(s, line, size, where, e)) return BAD;
        return parse_line(s, line, size, out, e);
    }
}

/* ---- files --------------------------------------------------------------------------------- */

static int open_next(Source *s, Err *e)
{
    s->file = &s->list->file[s->next_file++];
    s->used = s->filled = 0;
    s->ended = s->broken = false;
    s->position = s->line = s->documents = 0;
    s->stream = stream_open(s->file->path, s->file->packing, e);
    return s->stream ? 0 : -1;
}

static void close_file(Source *s)
{
    stream_close(&s->stream);
    s->file = NULL;
}

/* Counts and reports a bad document; a file that cannot go on ends here. */
static void skip(Source *s, const Err *why)
{
    s->skipped++;
    bool warn = s->policy == BAD_WARNS;
    if (warn && s->skipped <= WARNINGS_MAX) log_warn("skipped: %s", why->message);
    if (warn && s->skipped == WARNINGS_MAX) log_warn("further bad documents are only counted");
    if (s->broken) close_file(s);
}

int source_next(Source *source, Document *out, Err *e)
{
    Source *s = source;
    for (;;) {
        if (!s->file) {
            if (s->next_file == s->list->count) return 0;
            if (open_next(s, e)) return -1;
        }
        Err why = {0};
        int rc = s->file->kind == INPUT_TEXT ? next_text(s, out, &why) : next_json(s, out, &why);
        if (rc == 1) return 1;
        if (rc == 0) {
            close_file(s);
        } else if (rc == BAD && s->policy != BAD_FAILS) {
            skip(s, &why);
        } else {
            if (rc == BAD) err_hint(&why, "--skip-bad counts bad documents and goes on");
            if (e) *e = why;
            return -1;
        }
    }
}
