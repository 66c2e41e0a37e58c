/* train/sample.h - the next token of a text, drawn from logits (V). Used by `isomoe generate`.
 *
 * p = softmax(logits / temperature) in double, cut to the top_k likeliest tokens, then to the
 * fewest of those whose share reaches top_p; one uniform number of Philox {seed, RNG_SAMPLE,
 * position} picks. A pure function of its arguments. Equal logits stand in the order of their ids.
 */
#ifndef ISOMOE_TRAIN_SAMPLE_H
#define ISOMOE_TRAIN_SAMPLE_H

#include <stdint.h>

#include "base/err.h"

typedef struct SampleOptions {
    double temperature; /* 0: always the likeliest */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 1: all */
    uint64_t seed;
} SampleOptions;

typedef struct Candidate {
    float logit;
    int32_t id;
    double p;
} Candidate;

/* Checks ranges; the message names the option. */
int sample_check(const SampleOptions *o, Err *e);

/* scratch: (V). -1 with e when a logit is NaN or no logit is finite. */
int32_t sample_token(const float *logits, int64_t V, const SampleOptions *o, uint64_t position,
                     Candidate *scratch, Err *e);

#endif
