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
 *
 * When weights change, what each split owes goes on: with R, 0 <= R < 2W, in place of W above,
 * left(i) rounds as if the sequences before belonged to it (R = W: a beginning). Else a source
 * whose share of the sequences between two changes is less than half of one would never give any.
 */
#ifndef ISOMOE_DATA_MIXTURE_H
#define ISOMOE_DATA_MIXTURE_H

#include <stdint.h>

#include "base/err.h"

enum { MIXTURE_MAX = 16 };

typedef struct Mixture {
    int n;
    uint64_t weight[MIXTURE_MAX]; /* their sum is near 2^32 */
    int64_t phase[MIXTURE_MAX];   /* of the split whose right half begins with this source: R / 2W
                                     - 1/2 modulo 1, in 2^-62, so 0 is a beginning */
} Mixture;

static const int64_t MIXTURE_PHASES = (int64_t)1 << 62; /* a phase is 0 or more and below */

/* Of phase 0. Weights are finite and >= 0, one of them above 0; only their ratios count. A share
 * above 0 but below 2^-33 is an error. */
int mixture_make(Mixture *mixture, const double *weights, int n, Err *e);

/* The phases with which a mixture goes on behind the first i sequences of this one; with the same
 * weights it then gives what this one would. A group without weight keeps its phase. */
void mixture_phase(const Mixture *mixture, int64_t i, int64_t phase[MIXTURE_MAX]);

/* The source of sequence i >= 0; *ordinal: how many sequences it gave before. */
int mixture_source(const Mixture *mixture, int64_t i, int64_t *ordinal);

/* How many of the first i sequences come from source s. */
int64_t mixture_count(const Mixture *mixture, int s, int64_t i);

/* The same where no source gives more than it has (held-out sets). The sequences are cut into at
 * most MIXTURE_MAX rounds: a round is a mixture of the sources that have something left, with their
 * weights, and ends with the sequence that uses the first of them up. */
typedef struct MixtureOnce {
    int n, rounds;
    int64_t total; /* sequences of all rounds: all that the sources with a weight have */
    struct {
        int64_t first;              /* its first sequence */
        int64_t given[MIXTURE_MAX]; /* by each source before it */
        Mixture mixture;
    } round[MIXTURE_MAX];
} MixtureOnce;

/* has: sequences of each source, above 0 where its weight is, in all at most 2^58. */
int mixture_once_make(MixtureOnce *once, const double *weights, const int64_t *has, int n, Err *e);

/* The source of sequence i, 0 <= i < total; *ordinal: how many it gave before. */
int mixture_once_source(const MixtureOnce *once, int64_t i, int64_t *ordinal);

#endif
