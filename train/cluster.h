/* train/cluster.h - k-means with clusters of equal size, for `isomoe upcycle`. The same points give
 * the same clusters on any number of threads. */
#ifndef ISOMOE_TRAIN_CLUSTER_H
#define ISOMOE_TRAIN_CLUSTER_H

#include <stdint.h>

#include "base/err.h"

enum { CLUSTER_ROUNDS = 100 };

/* label[i] in 0 .. k-1 of each of n points, n / k points of each (k divides n), with the least sum
 * of cost[i * k + label[i]]: an assignment from which no exchange of points around any ring of
 * clusters gains anything. */
int cluster_assign(const double *cost, int64_t n, int k, int32_t *label, Err *e);

/* Points (n, d) to labels as above: the first centre is drawn by Philox (seed, RNG_SPLIT, stream),
 * each next one is the point farthest from those before; then cheapest assignment and means take
 * turns until no label changes, at most CLUSTER_ROUNDS times. Cost: squared distance. */
typedef struct ClusterPoints {
    const double *x; /* (n, d) */
    int64_t n, d;
    int k;
    uint64_t seed;
    uint32_t stream;
} ClusterPoints;

int cluster_balanced(const ClusterPoints *p, int32_t *label, Err *e);

#endif
