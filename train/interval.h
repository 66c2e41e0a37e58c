/* train/interval.h - how sure a measured number is: 95 % intervals and standard errors. */
#ifndef ISOMOE_TRAIN_INTERVAL_H
#define ISOMOE_TRAIN_INTERVAL_H

#include <stdint.h>

#include "scaling/interval.h"

/* Wilson's score interval (1927) of the share good / n; n 0: NaN. */
Interval interval_wilson(int64_t good, int64_t n);

/* Standard error of the share good / n: sqrt(p (1 - p) / (n - 1)), as lm-evaluation-harness has it;
 * NaN for n < 2. */
double interval_share_error(int64_t good, int64_t n);

enum { BOOTSTRAP_REPLICATES = 1000 };

/* Of the ratio sum(a) / sum(b) over n units that are drawn anew with replacement, n at a time
 * (Efron's percentile bootstrap): quantiles 0.025 and 0.975 of BOOTSTRAP_REPLICATES ratios, linear
 * between neighbours. Draw j of replicate r is word j of Philox {seed, RNG_BOOTSTRAP, r}. NaN for
 * n < 2, or when a replicate's sum(b) is 0. */
Interval interval_bootstrap(const double *a, const double *b, int64_t n, uint64_t seed);

#endif
