/* train/importance.h - how much each neuron of a dense model's feed-forward layers matters, for
 * groups of similar texts: what the inner and inter splits of `isomoe upcycle` choose by.
 *
 * Importance of neuron s for a sequence: |sum over tokens t of h_ts dL/dh_ts|, the first-order
 * change of the sequence's mean loss L when the neuron is taken out (h: input of the down
 * projection). With out_t = sum_s W_s h_ts it is |sum over d of W_ds dL/dW_ds|, read off the
 * gradient of the weights. For a group of sequences: the sum.
 */
#ifndef ISOMOE_TRAIN_IMPORTANCE_H
#define ISOMOE_TRAIN_IMPORTANCE_H

#include "data/loader.h"
#include "model/model.h"

typedef struct ImportancePlan {
    int groups;        /* one an expert */
    int64_t sequences; /* the loader's first ones; a multiple of groups */
    bool documents;    /* the model is told where documents begin */
    uint64_t seed;     /* of the grouping */
} ImportancePlan;

/* The model: dense, made for training in f32 with B = 1 and the loader's T. out: (L, groups, S), S
 * the width of its shared expert(s). Sequences are grouped by balanced k-means (train/cluster.h) of
 * the mean embedding of their tokens, divided by its norm. */
int importance_measure(Model *m, Loader *loader, const ImportancePlan *plan, double *out, Err *e);

#endif
