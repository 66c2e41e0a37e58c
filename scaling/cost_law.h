/* scaling/cost_law.h - what a budget buys: the exact cost of a family, and linear laws C = a N D +
 * b D, summaries of exact counts that are good inside of the range of N that they were made from
 * and refused outside (docs/SCALING.md says why). */
#ifndef ISOMOE_SCALING_COST_LAW_H
#define ISOMOE_SCALING_COST_LAW_H

#include "scaling/flops.h"
#include "scaling/optimum.h"

/* The exact cost of a family, at any size; N as the convention counts it. */
void cost_law_exact(CostLaw *out, const FlopFamily *f, const FlopConvention *c);

/* The same from a table of runs of a family whose shape nobody says: rows that have N, N_no_embed,
 * D and C, C/D counted exactly as isomoe does, so that a = 6. c1, c2 and embed are those with the
 * least squares of relative errors, not below 0; rms and worst say how far the sizes, which are of
 * whole layers and heads, lie from the family's. Err: the table lacks such a column, fewer than
 * COST_LAW_SIZES different N, an N_no_embed above its N. */
enum { COST_LAW_SIZES = 3 };
int cost_law_exact_of_runs(CostLaw *out, const RunTable *t, Err *e);

typedef enum CostWeights { /* of a point's squared error, y = C/D */
    COST_RELATIVE, /* 1 / y^2: least squares of relative errors */
    COST_ROOT,     /* 1 / y */
    COST_PLAIN     /* 1 */
} CostWeights;

/* Fits a and b to points (N, FLOPs a token), n of them; fills range, residuals and the convention's
 * name. Err: fewer than two different N, a number that is not finite and positive. */
int cost_law_fit(CostLaw *out, const double *N, const double *per_token, int64_t n,
                 CostWeights weights, const char *convention, Err *e);

/* The line through the N and C/D of a table's runs, relative errors; rows that lack one of N, D, C
 * are not looked at. In a table without N it is N_total's. Err: as above, or the table has no such
 * columns. */
int cost_law_of_runs(CostLaw *out, const RunTable *t, Err *e);

enum { COST_LAW_SAMPLES = 4096 };

/* Where a family is looked at: `samples` sizes N from low to high, as the convention counts N, by
 * equal ratios or by equal steps. */
typedef struct CostSampling {
    double low, high;
    int samples;      /* 2 .. COST_LAW_SAMPLES */
    bool equal_steps;
    CostWeights weights;
} CostSampling;

int cost_law_of_family(CostLaw *out, const FlopFamily *f, const FlopConvention *c,
                       const CostSampling *s, Err *e);

/* 0 where the law may be used at N: inside of its range, or forced. Else -1, and Err names the law,
 * its range and N. */
int cost_law_check(const CostLaw *law, double N, bool force, Err *e);

enum { COST_LAW_TEXT = 160 };

/* "C = 9.59 N D + 2.3e+08 D, N from 1e+07 to 1e+09": its equation and range. Returns out. */
const char *cost_law_text(const CostLaw *law, char out[COST_LAW_TEXT]);

#endif
