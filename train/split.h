/* train/split.h - which neurons of a dense feed-forward layer each expert gets: the partitions of
 * LLaMA-MoE (arXiv 2406.16554). A neuron is a row of gate and up and a column of down.
 *
 * Lists of neurons are ascending. Ties of importance go to the lower neuron. */
#ifndef ISOMOE_TRAIN_SPLIT_H
#define ISOMOE_TRAIN_SPLIT_H

#include <stdint.h>

#include "base/err.h"

typedef struct Split {
    int64_t neurons; /* S, of the dense layer */
    int64_t experts, width, shared; /* E, F; neurons of the shared expert(s), 0: none */
    uint64_t seed;
    int layer;
    int32_t *expert; /* (E, F) out */
    int32_t *common; /* (shared) out */
} Split;

/* A random partition: S = E F + shared. Philox (seed, RNG_SPLIT, layer). */
int split_random(const Split *s, Err *e);

/* Balanced k-means of the rows of up (S, D), each divided by its norm: S = E F, shared 0. */
int split_clustered(const Split *s, const float *up, int64_t D, Err *e);

/* Each expert the F most important neurons by its row of importance (E, S); shared 0; F <= S. A
 * neuron may have many experts, or none. */
int split_inner(const Split *s, const double *importance, Err *e);

/* As inner, but the neurons that most experts would take (ties: larger sum of importances) are the
 * shared ones, and experts choose from the rest: F <= S - shared. */
int split_inter(const Split *s, const double *importance, Err *e);

#endif
