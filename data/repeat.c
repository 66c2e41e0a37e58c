/* data/repeat.c - see repeat.h. */
#include "data/repeat.h"

#include <stdlib.h>
#include <string.h>

/* A hash table with open addressing; no more than half of it is filled. */
typedef struct DocCount {
    uint64_t hash;
    uint32_t count; /* 0: free */
    uint32_t first; /* index of the first occurrence */
} DocCount;

static int clear_table(DocText *t, int64_t entries, Err *e)
{
    int64_t size = 64;
    while (size < 2 * entries) size *= 2;
    if (size > t->table_size) {
        DocCount *grown = realloc(t->table, (size_t)size * sizeof *grown);
        if (!grown) return err_set(e, "out of memory for a table of %lld words", (long long)size);
        t->table = grown;
    }
    t->table_size = size;
    memset(t->table, 0, (size_t)size * sizeof *t->table);
    return 0;
}

/* The entry of a hash, with this occurrence counted. */
static DocCount *count_one(DocText *t, uint64_t hash, int64_t index)
{
    uint64_t mask = (uint64_t)t->table_size - 1, at = hash & mask;
    while (t->table[at].count && t->table[at].hash != hash) at = (at + 1) & mask;
    DocCount *row = &t->table[at];
    if (!row->count++) {
        row->hash = hash;
        row->first = (uint32_t)index;
    }
    return row;
}

/* Hash of n words; a run of one is no special case. */
static uint64_t run_hash(const DocPart *word, int n)
{
    uint64_t hash = 0;
    for (int i = 0; i < n; i++) {
        hash = (hash ^ word[i].hash) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return hash;
}

static double share_of(int64_t part, int64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

static int count_lines(DocText *t, int64_t *lines, int64_t *chars, Err *e)
{
    *lines = *chars = 0;
    if (clear_table(t, t->lines.count, e)) return -1;
    for (int64_t i = 0; i < t->lines.count; i++) {
        if (count_one(t, t->lines.part[i].hash, i)->count == 1) continue;
        ++*lines;
        *chars += t->lines.part[i].chars;
    }
    return 0;
}

int repeat_lines(DocText *t, double *share, Err *e)
{
    int64_t lines, chars;
    if (count_lines(t, &lines, &chars, e)) return -1;
    *share = share_of(lines, t->lines.count);
    return 0;
}

int repeat_line_chars(DocText *t, double *share, Err *e)
{
    int64_t lines, chars;
    if (count_lines(t, &lines, &chars, e)) return -1;
    *share = share_of(chars, t->lines.chars);
    return 0;
}

/* Characters of the words from `begin` to before `end`. */
static int64_t chars_of(const DocText *t, int64_t begin, int64_t end)
{
    int64_t sum = 0;
    for (int64_t i = begin; i < end; i++) sum += t->words.part[i].chars;
    return sum;
}

/* Covers the words i .. i+n-1; those before *covered were before. Returns the new characters. */
static int64_t cover(const DocText *t, int64_t i, int n, int64_t *covered)
{
    int64_t begin = i > *covered ? i : *covered;
    *covered = i + n;
    return chars_of(t, begin, i + n);
}

int repeat_runs(DocText *t, int n, double *share, Err *e)
{
    int64_t covered = 0, chars = 0;
    CHECK(n >= 1 && n <= REPEAT_WORDS_MAX, "runs of %d words", n);
    if (clear_table(t, t->words.count, e)) return -1;
    for (int64_t i = 0; i + n <= t->words.count; i++)
        if (count_one(t, run_hash(t->words.part + i, n), i)->count > 1)
            chars += cover(t, i, n, &covered);
    *share = share_of(chars, t->words.chars);
    return 0;
}

/* The most common run, or NULL. */
static const DocCount *most_common(const DocText *t, int n)
{
    const DocCount *best = NULL;
    int64_t best_chars = 0;
    for (int64_t k = 0; k < t->table_size; k++) {
        const DocCount *row = &t->table[k];
        if (row->count < 2 || (best && row->count < best->count)) continue;
        int64_t chars = chars_of(t, row->first, row->first + n);
        if (best && row->count == best->count &&
            (chars < best_chars || (chars == best_chars && row->first > best->first)))
            continue;
        best = row;
        best_chars = chars;
    }
    return best;
}

int repeat_top(DocText *t, int n, double *share, Err *e)
{
    int64_t covered = 0, chars = 0;
    CHECK(n >= 1 && n <= REPEAT_WORDS_MAX, "runs of %d words", n);
    if (clear_table(t, t->words.count, e)) return -1;
    for (int64_t i = 0; i + n <= t->words.count; i++)
        count_one(t, run_hash(t->words.part + i, n), i);
    const DocCount *best = most_common(t, n);
    for (int64_t i = 0; best && i + n <= t->words.count; i++)
        if (run_hash(t->words.part + i, n) == best->hash) chars += cover(t, i, n, &covered);
    *share = share_of(chars, t->words.chars);
    return 0;
}
