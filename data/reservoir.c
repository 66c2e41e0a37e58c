/* data/reservoir.c - see sample.h. Between twice max_bytes and max_bytes are held: when more come,
 * the chunks of highest rank are dropped, and none above the highest kept rank is taken later. */
#include "data/reservoir.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

typedef struct Chunk {
    uint64_t rank;
    uint64_t number; /* in the stream */
    char *text;      /* owned */
    size_t size;
} Chunk;

struct Sample {
    int64_t max_bytes, bytes;
    uint64_t highest; /* rank */
    uint64_t seen;    /* chunks offered */
    Chunk *chunk;
    int count, capacity;
};

Sample *sample_create(int64_t max_bytes)
{
    Sample *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->max_bytes = max_bytes;
    s->highest = UINT64_MAX;
    return s;
}

void sample_destroy(Sample **sample)
{
    Sample *s = *sample;
    if (!s) return;
    for (int i = 0; i < s->count; i++) free(s->chunk[i].text);
    free(s->chunk);
    free(s);
    *sample = NULL;
}

static int by_rank(const void *a, const void *b)
{
    const Chunk *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int by_number(const void *a, const void *b)
{
    const Chunk *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Drops the chunks of highest rank until max_bytes are kept. */
static void trim(Sample *s)
{
    if (s->bytes <= s->max_bytes) return;
    qsort(s->chunk, (size_t)s->count, sizeof *s->chunk, by_rank);
    int keep = 0;
    int64_t bytes = 0;
    while (keep < s->count && bytes + (int64_t)s->chunk[keep].size <= s->max_bytes)
        bytes += (int64_t)s->chunk[keep++].size;
    for (int i = keep; i < s->count; i++) free(s->chunk[i].text);
    s->count = keep;
    s->bytes = bytes;
    s->highest = keep ? s->chunk[keep - 1].rank : 0;
}

static int add_chunk(Sample *s, const char *text, size_t size, Err *e)
{
    uint64_t number = s->seen++, rank = hash_bytes(&number, sizeof number);
    if (rank > s->highest) return 0;
    if (s->count == s->capacity) {
        int capacity = s->capacity ? s->capacity * 2 : 256;
        Chunk *grown = realloc(s->chunk, (size_t)capacity * sizeof *grown);
        if (!grown) return err_set(e, "out of memory while sampling text");
        s->chunk = grown;
        s->capacity = capacity;
    }
    char *copy = malloc(size);
    if (!copy) return err_set(e, "out of memory while sampling text");
    memcpy(copy, text, size);
    s->chunk[s->count++] = (Chunk){rank, number, copy, size};
    s->bytes += (int64_t)size;
    if (s->bytes > 2 * s->max_bytes) trim(s);
    return 0;
}

int sample_add(Sample *sample, const char *text, size_t size, Err *e)
{
    while (size > 0) {
        size_t n = size > SAMPLE_CHUNK ? utf8_boundary(text, SAMPLE_CHUNK) : size;
        if (add_chunk(sample, text, n, e)) return -1;
        text += n;
        size -= n;
    }
    return 0;
}

int sample_texts(Sample *sample, TrainText **texts, int *n, Err *e)
{
    Sample *s = sample;
    trim(s);
    if (s->count) qsort(s->chunk, (size_t)s->count, sizeof *s->chunk, by_number);
    *n = s->count;
    *texts = malloc(((size_t)s->count + 1) * sizeof **texts);
    if (!*texts) return err_set(e, "out of memory while sampling text");
    for (int i = 0; i < s->count; i++)
        (*texts)[i] = (TrainText){s->chunk[i].text, s->chunk[i].size};
    return 0;
}
