/* scaling/agree.h - how far the best N of two methods may lie apart by noise alone: runs are made
 * again from a fitted law with its residuals, and every method answers for the same made-up runs,
 * so that what moves them together does not count. */
#ifndef ISOMOE_SCALING_AGREE_H
#define ISOMOE_SCALING_AGREE_H

#include "scaling/bootstrap.h"
#include "scaling/profile.h"

typedef enum AgreeMethod {
    AGREE_VARPRO, AGREE_HUBER, AGREE_PARABOLA, AGREE_AKIMA, AGREE_METHODS
} AgreeMethod;

enum { AGREE_REPLICATES = 200 };

typedef struct AgreeOptions {
    const Fit *law[AGREE_METHODS]; /* of AGREE_VARPRO and AGREE_HUBER; NULL: not fitted */
    const double *weight[AGREE_METHODS]; /* (rows) of each method's fit; NULL: 1 each */
    bool asked[AGREE_METHODS]; /* besides the first one */
    AgreeMethod first;         /* what the others are held against */
    double C;                  /* FLOPs at which their best N is compared */
    CostLaw cost;
    LawPoint at;               /* as optimum_find has it */
    BootScheme scheme;
    double level;              /* in (0, 1): of one comparison */
    uint64_t seed;
    int threads;               /* 0: all */
} AgreeOptions;

/* noise: (AGREE_METHODS) half width at the level of ln(N of the method / N of the first one) about
 * its median; NaN: not asked; infinite: too many made-up runs without an answer. t: sorted. Any
 * number of threads gives the same bits. Err: no law is there to make runs from, no memory, what
 * bootstrap_run says of the scheme. */
int methods_agree(const RunTable *t, const AgreeOptions *o, double *noise, Err *e);

#endif
