/* train/tasks.c - see tasks.h. */
#include "train/tasks.h"

#include <jansson.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"

typedef struct Reader {
    Task *task;
    int64_t line, capacity;
    Err *e;
} Reader;

__attribute__((format(printf, 2, 3))) static int fail_at(const Reader *r, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(r->e, "%s:%lld: %s", r->task->path, (long long)r->line, what);
}

static int copy_text(const Reader *r, Text *out, const char *text, size_t size)
{
    out->text = malloc(size + 1);
    if (!out->text) return fail_at(r, "out of memory for %zu bytes of text", size);
    memcpy(out->text, text, size);
    out->text[size] = 0;
    out->size = size;
    return 0;
}

static int copy_string(const Reader *r, Text *out, const json_t *string)
{
    return copy_text(r, out, json_string_value(string), json_string_length(string));
}

static int read_context(const Reader *r, Question *q, const json_t *line)
{
    const json_t *context = json_object_get(line, "context");
    const json_t *question = json_object_get(line, "question");
    if (!context == !question)
        return fail_at(r, "needs \"context\" or \"question\", one of them");
    if (!context) context = question;
    if (!json_is_string(context)) return fail_at(r, "the context is no text");
    return copy_string(r, &q->context, context);
}

static int read_choices(const Reader *r, Question *q, const json_t *line)
{
    const json_t *choices = json_object_get(line, "choices");
    size_t n = json_array_size(choices); /* 0 for what is no array */
    if (n < 2 || n > TASK_CHOICES)
        return fail_at(r, "\"choices\" must be a list of 2 to %d texts", TASK_CHOICES);
    q->choice = calloc(n, sizeof *q->choice);
    if (!q->choice) return fail_at(r, "out of memory for %zu choices", n);
    q->n_choices = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *choice = json_array_get(choices, i);
        if (json_string_length(choice) == 0)
            return fail_at(r, "choice %zu is no text, or empty", i);
        if (copy_string(r, &q->choice[i], choice)) return -1;
    }
    return 0;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Without a word about it: a space, unless there already is white space, or no context. */
static int read_delimiter(const Reader *r, Question *q, const json_t *line)
{
    const json_t *given = json_object_get(line, "delimiter");
    if (given && !json_is_string(given)) return fail_at(r, "\"delimiter\" is no text");
    if (given) return copy_string(r, &q->delimiter, given);
    bool spaced = q->context.size == 0 || is_space(q->context.text[q->context.size - 1]);
    for (int i = 0; i < q->n_choices; i++) spaced = spaced || is_space(q->choice[i].text[0]);
    return copy_text(r, &q->delimiter, " ", spaced ? 0 : 1);
}

/* The choice that this text is, or -1; -2: several. */
static int choice_with_text(const Question *q, const char *text, size_t size)
{
    int found = -1;
    for (int i = 0; i < q->n_choices; i++) {
        if (q->choice[i].size != size || memcmp(q->choice[i].text, text, size)) continue;
        if (found >= 0) return -2;
        found = i;
    }
    return found;
}

static int read_answer_text(const Reader *r, Question *q, const char *text, size_t size)
{
    int named = choice_with_text(q, text, size), lettered = -1;
    if (size == 1 && *text >= 'A' && *text < 'A' + q->n_choices && *text <= 'Z')
        lettered = *text - 'A';
    if (named == -2) return fail_at(r, "the answer is the text of more than one choice");
    if (named >= 0 && lettered >= 0 && named != lettered)
        return fail_at(r, "the answer '%s' is the letter of choice %d and the text of choice %d: "
                       "give its index", text, lettered, named);
    if (named < 0 && lettered < 0)
        return fail_at(r, "the answer '%.60s' is neither a choice nor the letter of one", text);
    q->answer = named >= 0 ? named : lettered;
    return 0;
}

static int read_answer(const Reader *r, Question *q, const json_t *line)
{
    const json_t *answer = json_object_get(line, "answer");
    if (json_is_string(answer))
        return read_answer_text(r, q, json_string_value(answer), json_string_length(answer));
    if (!json_is_integer(answer))
        return fail_at(r, "\"answer\" must be the index, the letter or the text of a choice");
    json_int_t index = json_integer_value(answer);
    if (index < 0 || index >= q->n_choices)
        return fail_at(r, "the answer is choice %lld; there are choices 0 to %d", (long long)index,
                    q->n_choices - 1);
    q->answer = (int)index;
    return 0;
}

static int read_id(const Reader *r, Question *q, const json_t *line)
{
    const json_t *id = json_object_get(line, "id");
    char number[32];
    if (!id || json_is_null(id)) return 0;
    if (json_is_integer(id))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(id));
    else if (!json_is_string(id))
        return fail_at(r, "\"id\" is neither a text nor an integer");
    q->id = strdup(json_is_string(id) ? json_string_value(id) : number);
    return q->id ? 0 : fail_at(r, "out of memory");
}

static int read_question(const Reader *r, Question *q, const json_t *line)
{
    q->line = r->line;
    if (!json_is_object(line)) return fail_at(r, "is no JSON object");
    if (read_id(r, q, line) || read_context(r, q, line) || read_choices(r, q, line)) return -1;
    return read_delimiter(r, q, line) || read_answer(r, q, line) ? -1 : 0;
}

/* A fresh question behind the others, or NULL. */
static Question *add_question(Reader *r)
{
    Task *t = r->task;
    if (t->count == r->capacity) {
        int64_t wanted = r->capacity ? 2 * r->capacity : 64;
        Question *grown = realloc(t->question, (size_t)wanted * sizeof *grown);
        if (!grown) {
            fail_at(r, "out of memory for %lld questions", (long long)wanted);
            return NULL;
        }
        t->question = grown;
        r->capacity = wanted;
    }
    Question *q = &t->question[t->count++];
    *q = (Question){0};
    return q;
}

static int read_line(Reader *r, const char *text, size_t size)
{
    json_error_t where;
    size_t blank = 0;
    while (blank < size && is_space(text[blank])) blank++;
    if (blank == size) return 0;
    json_t *line = json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (!line) return fail_at(r, "is no JSON: %s (byte %d)", where.text, where.position);
    Question *q = add_question(r);
    int rc = q ? read_question(r, q, line) : -1;
    json_decref(line);
    return rc;
}

static void name_task(Task *t)
{
    char copy[IO_PATH_MAX];
    snprintf(copy, sizeof copy, "%s", t->path);
    snprintf(t->name, sizeof t->name, "%s", basename(copy));
    size_t n = strlen(t->name);
    if (n > 6 && !strcmp(t->name + n - 6, ".jsonl")) t->name[n - 6] = 0;
}

int task_read(Task *t, const char *path, Err *e)
{
    char *text;
    size_t size;
    *t = (Task){.path = path};
    Reader r = {.task = t, .e = e};
    if (io_read_all(path, TASK_FILE_MAX, &text, &size, e)) return -1;
    t->hash = hash_bytes(text, size);
    name_task(t);
    int rc = 0;
    for (size_t at = 0; at < size && !rc;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        r.line++;
        rc = read_line(&r, text + at, n);
        at += n + 1;
    }
    free(text);
    if (!rc && !t->count) rc = err_set(e, "%s: has no question", path);
    return rc;
}

void task_free(Task *t)
{
    for (int64_t i = 0; i < t->count; i++) {
        Question *q = &t->question[i];
        free(q->id);
        free(q->context.text);
        free(q->delimiter.text);
        for (int c = 0; c < q->n_choices; c++) free(q->choice[c].text);
        free(q->choice);
    }
    free(t->question);
    *t = (Task){0};
}
