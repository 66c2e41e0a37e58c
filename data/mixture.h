/* data/mixture.h - which source gives sequence i, from i alone.
 *
 * Rule: the sources are split into halves, recursively, in their order: [0, n) into [0, n/2) and
 * [n/2, n). Of the first i sequences of a group with total weight W, whose left half has weight A,
 *     left(i) = floor((2 i A + W) / (2 W))
 * come from the left half, so sequence i goes left if left(i + 1) > left(i), and is sequence
 * left(i) of the left or i - left(i) of the right half. That is error diffusion (Bresenham's line)
 * at every split: any index costs O(log n) integer operations, and after any number of sequences no
 * source is more than two sequences away from its share (each of at most four splits adds half a
 * sequence). Weights are integers, shares of 2^32, so all of it is exact. A source of weight 0
 * gives nothing.
 */
#ifndef ISOMOE_DATA_MIXTURE_H
#define ISOMOE_DATA_MIXTURE_H

#include <stdint.h>

#include "base/err.h"

enum { MIXTURE_MAX = 16 };

typedef struct Mixture {
    int n;
    uint64_t weight[MIXTURE_MAX]; /* their sum is near 2^32 */
} Mixture;

/* Weights are finite and >= 0, one of them above 0; only their ratios count. A share above 0 but
 * below 2^-33 is an error. */
int mixture_make(Mixture *mixture, const double *weights, int n, Err *e);

/* The source of sequence i >= 0; *ordinal: how many sequences it gave before. */
int mixture_source(const Mixture *mixture, int64_t i, int64_t *ordinal);

/* How many of the first i sequences come from source s. */
int64_t mixture_count(const Mixture *mixture, int s, int64_t i);

#endif
