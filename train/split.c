/* train/split.c - see split.h. */
#include "train/split.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "train/cluster.h"

/* A neuron with what it is sorted by. */
typedef struct Ranked {
    double first, second;
    int32_t neuron;
} Ranked;

static int falling(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    if (x->first != y->first) return x->first > y->first ? -1 : 1;
    if (x->second != y->second) return x->second > y->second ? -1 : 1;
    return (x->neuron > y->neuron) - (x->neuron < y->neuron);
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The first `count` of the sorted list, in ascending order. */
static void take(const Ranked *list, int64_t count, int32_t *out)
{
    for (int64_t i = 0; i < count; i++) out[i] = list[i].neuron;
    qsort(out, (size_t)count, sizeof *out, ascending);
}

static Ranked *open_list(const Split *s, Err *e)
{
    Ranked *list = malloc((size_t)s->neurons * sizeof *list);
    if (!list) err_set(e, "out of memory for %lld neurons", (long long)s->neurons);
    return list;
}

int split_random(const Split *s, Err *e)
{
    CHECK(s->neurons == s->experts * s->width + s->shared, "%lld neurons for %lld x %lld + %lld",
          (long long)s->neurons, (long long)s->experts, (long long)s->width, (long long)s->shared);
    Ranked *list = open_list(s, e);
    if (!list) return -1;
    PhiloxKey key = {s->seed, RNG_SPLIT, (uint32_t)s->layer, 0};
    for (int64_t i = 0; i < s->neurons; i++)
        list[i] = (Ranked){philox_u32(&key, (uint64_t)i), 0, (int32_t)i};
    qsort(list, (size_t)s->neurons, sizeof *list, falling);
    for (int64_t x = 0; x < s->experts; x++)
        take(list + x * s->width, s->width, s->expert + x * s->width);
    take(list + s->experts * s->width, s->shared, s->common);
    free(list);
    return 0;
}

int split_clustered(const Split *s, const float *up, int64_t D, Err *e)
{
    int64_t S = s->neurons;
    CHECK(S == s->experts * s->width && !s->shared, "%lld neurons", (long long)S);
    double *x = malloc((size_t)(S * D) * sizeof *x);
    int32_t *label = malloc((size_t)S * sizeof *label);
    int64_t *used = calloc((size_t)s->experts, sizeof *used);
    int rc = x && label && used ? 0 : err_set(e, "out of memory for %lld neurons", (long long)S);
    for (int64_t i = 0; i < S && !rc; i++) {
        double norm = 0;
        for (int64_t j = 0; j < D; j++) norm += (double)up[i * D + j] * up[i * D + j];
        norm = norm > 0 ? sqrt(norm) : 1;
        for (int64_t j = 0; j < D; j++) x[i * D + j] = up[i * D + j] / norm;
    }
    ClusterPoints points = {x, S, D, (int)s->experts, s->seed, (uint32_t)s->layer};
    if (!rc) rc = cluster_balanced(&points, label, e);
    for (int64_t i = 0; i < S && !rc; i++)
        s->expert[label[i] * s->width + used[label[i]]++] = (int32_t)i;
    free(x);
    free(label);
    free(used);
    return rc;
}

/* Each expert's F most important neurons of those with out[neuron] false (NULL: all). */
static void take_best(const Split *s, const double *importance, const bool *out, Ranked *list)
{
    for (int64_t x = 0; x < s->experts; x++) {
        int64_t n = 0;
        for (int64_t i = 0; i < s->neurons; i++)
            if (!out || !out[i])
                list[n++] = (Ranked){importance[x * s->neurons + i], 0, (int32_t)i};
        CHECK(n >= s->width, "%lld neurons for a width of %lld", (long long)n,
              (long long)s->width);
        qsort(list, (size_t)n, sizeof *list, falling);
        take(list, s->width, s->expert + x * s->width);
    }
}

int split_inner(const Split *s, const double *importance, Err *e)
{
    CHECK(!s->shared, "%lld shared neurons", (long long)s->shared);
    Ranked *list = open_list(s, e);
    if (!list) return -1;
    take_best(s, importance, NULL, list);
    free(list);
    return 0;
}

int split_inter(const Split *s, const double *importance, Err *e)
{
    int64_t S = s->neurons;
    Ranked *list = open_list(s, e);
    bool *out = calloc((size_t)S, sizeof *out);
    if (!list || !out) {
        free(list);
        free(out);
        return err_set(e, "out of memory for %lld neurons", (long long)S);
    }
    take_best(s, importance, NULL, list);
    for (int64_t i = 0; i < S; i++) {
        double sum = 0;
        for (int64_t x = 0; x < s->experts; x++) sum += importance[x * S + i];
        list[i] = (Ranked){0, sum, (int32_t)i};
    }
    for (int64_t i = 0; i < s->experts * s->width; i++) list[s->expert[i]].first++;
    qsort(list, (size_t)S, sizeof *list, falling);
    take(list, s->shared, s->common);
    for (int64_t i = 0; i < s->shared; i++) out[s->common[i]] = true;
    take_best(s, importance, out, list);
    free(list);
    free(out);
    return 0;
}
