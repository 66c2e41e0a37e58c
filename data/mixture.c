/* data/mixture.c - see mixture.h. */
#include "data/mixture.h"

#include <math.h>

int mixture_make(Mixture *mixture, const double *weights, int n, Err *e)
{
    CHECK(n >= 1 && n <= MIXTURE_MAX, "%d sources", n);
    double sum = 0;
    for (int s = 0; s < n; s++) {
        if (!isfinite(weights[s]) || weights[s] < 0)
            return err_set(e, "source %d: weight %g must be a number from 0 up", s, weights[s]);
        sum += weights[s];
    }
    if (!(sum > 0) || !isfinite(sum)) return err_set(e, "the weights' sum %g is no share", sum);
    mixture->n = n;
    for (int s = 0; s < n; s++) {
        mixture->weight[s] = (uint64_t)llround(weights[s] / sum * 0x1p32);
        if (mixture->weight[s] == 0 && weights[s] > 0)
            return err_set(e, "source %d: weight %g is too small beside %g", s, weights[s], sum);
    }
    return 0;
}

static uint64_t sum_of(const Mixture *m, int from, int to)
{
    uint64_t sum = 0;
    for (int s = from; s < to; s++) sum += m->weight[s];
    return sum;
}

/* How many of a group's first i sequences go to its left half; a group without weight gets none. */
static int64_t left_of(int64_t i, uint64_t left, uint64_t total)
{
    if (total == 0) return 0;
    return (int64_t)((2 * (unsigned __int128)i * left + total) / (2 * (unsigned __int128)total));
}

int mixture_source(const Mixture *mixture, int64_t i, int64_t *ordinal)
{
    int from = 0, to = mixture->n;
    while (to - from > 1) {
        int half = from + (to - from) / 2;
        uint64_t left = sum_of(mixture, from, half), total = sum_of(mixture, from, to);
        int64_t before = left_of(i, left, total);
        if (left_of(i + 1, left, total) > before) {
            i = before;
            to = half;
        } else {
            i -= before;
            from = half;
        }
    }
    *ordinal = i;
    return from;
}

int64_t mixture_count(const Mixture *mixture, int s, int64_t i)
{
    int from = 0, to = mixture->n;
    while (to - from > 1) {
        int half = from + (to - from) / 2;
        int64_t before = left_of(i, sum_of(mixture, from, half), sum_of(mixture, from, to));
        if (s < half) {
            i = before;
            to = half;
        } else {
            i -= before;
            from = half;
        }
    }
    return i;
}
