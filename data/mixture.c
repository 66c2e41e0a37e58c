/* data/mixture.c - see mixture.h. */
#include "data/mixture.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/size.h"

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
    *mixture = (Mixture){.n = n};
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

/* A split: of sources [from, to) the first [from, half) are its left side. */
typedef struct Split {
    int half;
    uint64_t left, total; /* weights */
} Split;

static Split split_of(const Mixture *m, int from, int to)
{
    int half = from + (to - from) / 2;
    return (Split){half, sum_of(m, from, half), sum_of(m, from, to)};
}

/* R: a phase in units of 1 / 2W, below 2W. */
static uint64_t start_of(const Mixture *m, const Split *s)
{
    uint64_t most = 2 * s->total - 1;
    uint64_t p = ((uint64_t)m->phase[s->half] + (1ULL << 61)) % (uint64_t)MIXTURE_PHASES;
    uint64_t start = (uint64_t)(((unsigned __int128)p * 2 * s->total + (1ULL << 61)) >> 62);
    return start < most ? start : most;
}

/* 2 i A + R of a split with a weight. */
static unsigned __int128 line_of(const Mixture *m, const Split *s, int64_t i)
{
    return 2 * (unsigned __int128)i * s->left + start_of(m, s);
}

/* How many of a group's first i sequences go to its left half; a group without weight gets none. */
static int64_t left_of(const Mixture *m, const Split *s, int64_t i)
{
    if (s->total == 0) return 0;
    return (int64_t)(line_of(m, s, i) / (2 * (unsigned __int128)s->total));
}

int mixture_source(const Mixture *mixture, int64_t i, int64_t *ordinal)
{
    int from = 0, to = mixture->n;
    while (to - from > 1) {
        Split s = split_of(mixture, from, to);
        int64_t before = left_of(mixture, &s, i);
        if (left_of(mixture, &s, i + 1) > before) {
            i = before;
            to = s.half;
        } else {
            i -= before;
            from = s.half;
        }
    }
    *ordinal = i;
    return from;
}

int64_t mixture_count(const Mixture *mixture, int s, int64_t i)
{
    int from = 0, to = mixture->n;
    while (to - from > 1) {
        Split split = split_of(mixture, from, to);
        int64_t before = left_of(mixture, &split, i);
        if (s < split.half) {
            i = before;
            to = split.half;
        } else {
            i -= before;
            from = split.half;
        }
    }
    return i;
}

/* Of the splits among [from, to), whose group has given i sequences. */
static void carry(const Mixture *m, int from, int to, int64_t i, int64_t *phase)
{
    if (to - from < 2) return;
    Split s = split_of(m, from, to);
    int64_t left = left_of(m, &s, i);
    if (s.total) {
        uint64_t units = 2 * s.total, rest = (uint64_t)(line_of(m, &s, i) % units);
        uint64_t p = (uint64_t)(((unsigned __int128)rest << 62) / units);
        phase[s.half] = (int64_t)((p + (1ULL << 61)) % (uint64_t)MIXTURE_PHASES);
    }
    carry(m, from, s.half, left, phase);
    carry(m, s.half, to, i - left, phase);
}

void mixture_phase(const Mixture *mixture, int64_t i, int64_t phase[MIXTURE_MAX])
{
    memcpy(phase, mixture->phase, sizeof mixture->phase);
    carry(mixture, 0, mixture->n, i, phase);
}

/* ---- Each at most once ------------------------------------------------------------------------*/

/* After i sequences of the mixture some source has given all it has left. */
static bool uses_up(const Mixture *m, const int64_t *left, int64_t i)
{
    for (int s = 0; s < m->n; s++)
        if (m->weight[s] && mixture_count(m, s, i) >= left[s]) return true;
    return false;
}

/* The least such i. */
static int64_t round_length(const Mixture *m, const int64_t *left)
{
    int64_t low = 0, high = 1; /* not after low; after high */
    for (; !uses_up(m, left, high); high *= 2) low = high;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (uses_up(m, left, middle)) high = middle;
        else low = middle;
    }
    return high;
}

int mixture_once_make(MixtureOnce *once, const double *weights, const int64_t *has, int n, Err *e)
{
    double weight[MIXTURE_MAX] = {0};
    int64_t left[MIXTURE_MAX], given[MIXTURE_MAX] = {0}, end = 0, most = 0;
    CHECK(n >= 1 && n <= MIXTURE_MAX, "%d sources", n);
    *once = (MixtureOnce){.n = n};
    for (int s = 0; s < n; s++) {
        weight[s] = weights[s];
        left[s] = has[s];
        if (weights[s] > 0) end += has[s];
    }
    do {
        CHECK(once->rounds < n, "round %d of %d sources", once->rounds, n);
        int r = once->rounds++;
        Mixture *m = &once->round[r].mixture;
        if (mixture_make(m, weight, n, e)) return -1;
        once->round[r].first = once->total;
        memcpy(once->round[r].given, given, sizeof given);
        int64_t length = round_length(m, left);
        once->total += length;
        most = 0;
        for (int s = 0; s < n; s++) {
            int64_t gives = m->weight[s] ? mixture_count(m, s, length) : 0;
            given[s] += gives;
            left[s] -= gives;
            if (left[s] == 0) weight[s] = 0;
            if (weight[s] > 0) most = size_max(most, left[s]);
        }
    } while (most > 0);
    CHECK(once->total == end, "%lld of %lld sequences", (long long)once->total, (long long)end);
    return 0;
}

int mixture_once_source(const MixtureOnce *once, int64_t i, int64_t *ordinal)
{
    int r = once->rounds - 1;
    CHECK(i >= 0 && i < once->total, "sequence %lld of %lld", (long long)i, (long long)once->total);
    while (i < once->round[r].first) r--;
    int s = mixture_source(&once->round[r].mixture, i - once->round[r].first, ordinal);
    *ordinal += once->round[r].given[s];
    return s;
}
