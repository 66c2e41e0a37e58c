/* train/interval.c - see interval.h. */
#include "train/interval.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/philox.h"

#define Z95 1.959963984540054 /* quantile 0.975 of the normal law */
#define TAIL 0.025

static const Interval unknown = {NAN, NAN};

Interval interval_wilson(int64_t good, int64_t n)
{
    if (n < 1) return unknown;
    double p = (double)good / (double)n, z2 = Z95 * Z95 / (double)n;
    double middle = (p + z2 / 2) / (1 + z2);
    double reach = Z95 / (1 + z2) * sqrt((p * (1 - p) + z2 / 4) / (double)n);
    return (Interval){good ? middle - reach : 0, good < n ? middle + reach : 1}; /* no rounding */
}

double interval_share_error(int64_t good, int64_t n)
{
    double p = (double)good / (double)n;
    return n < 2 ? NAN : sqrt(p * (1 - p) / (double)(n - 1));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, double share)
{
    double at = share * (BOOTSTRAP_REPLICATES - 1);
    int i = (int)at;
    return sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]);
}

Interval interval_bootstrap(const double *a, const double *b, int64_t n, uint64_t seed)
{
    double ratio[BOOTSTRAP_REPLICATES];
    CHECK(n <= UINT32_MAX, "%lld units to draw from", (long long)n);
    if (n < 2) return unknown;
    for (uint32_t r = 0; r < BOOTSTRAP_REPLICATES; r++) {
        PhiloxKey key = {.seed = seed, .purpose = RNG_BOOTSTRAP, .stream = r};
        double over = 0, under = 0;
        for (int64_t j = 0; j < n; j++) {
            uint64_t i = (uint64_t)philox_u32(&key, (uint64_t)j) * (uint64_t)n >> 32;
            over += a[i];
            under += b[i];
        }
        if (under == 0) return unknown;
        ratio[r] = over / under;
    }
    qsort(ratio, BOOTSTRAP_REPLICATES, sizeof *ratio, by_size);
    return (Interval){quantile(ratio, TAIL), quantile(ratio, 1 - TAIL)};
}
