/* scaling/optimum.h - the best N and D for a budget under a fitted law and a cost C = a N D + b D,
 * or the exact one of a family (cost_law.h). */
#ifndef ISOMOE_SCALING_OPTIMUM_H
#define ISOMOE_SCALING_OPTIMUM_H

#include <math.h>

#include "scaling/fit.h"

typedef struct CostLaw {
    char name[64];    /* "6ND", "hunyuan", or the family's */
    double a, b;      /* C = a N D + b D */
    double low, high; /* range of N that it stands for; 0, INFINITY: any */
    double worst, rms; /* relative residuals of what it was fitted to; 0: not fitted here */
    char convention[64]; /* FlopConvention's name; "": not said */
    double c1, c2;       /* exact cost of a family: C/D = a n + b + c1 n^(2/3) + c2 n^(1/3); of a
                            line 0 */
    double embed;        /* N = n + embed n^(1/3): n is without the embedding; 0: N is n */
} CostLaw;

static inline bool cost_law_is_line(const CostLaw *c)
{
    return c->c1 == 0 && c->c2 == 0 && c->embed == 0;
}

/* n^(1/3) for N: x^3 + embed x = N by its closed form, and one step of Newton's. */
static inline double cost_law_third(const CostLaw *c, double N)
{
    double e = c->embed / 3, root = sqrt(e), x = cbrt(N);
    if (!(e > 1e-12 * x * x)) return e > 0 ? x - e / x : x;
    x = 2 * root * sinh(asinh(N / (2 * e * root)) / 3);
    return x - (x * x * x + 3 * e * x - N) / (3 * (x * x + e));
}

/* C/D. */
static inline double cost_law_per_token(const CostLaw *c, double N)
{
    if (cost_law_is_line(c)) return c->a * N + c->b;
    double x = cost_law_third(c, N);
    return ((c->a * x + c->c1) * x + c->c2) * x + c->b;
}

CostLaw cost_law_6nd(void);
CostLaw cost_law_hunyuan(void); /* range: what the paper trained, 10 M to 1 B */

typedef struct Optimum {
    double C, N, D, loss;
    bool outside; /* N is outside of the cost's range */
} Optimum;

/* Minimises the law over N at cost C; other columns (E, G, S) are those of `at`. Of its N and
 * N_total only the ratio is read, which stays (1 where one is not known); C is not, and D only for
 * a law without D, which is held: N then is what C buys with it. N is right to about 1e-12.
 * Searched from one parameter (b < 0: from twice the N that costs nothing) to as many as leave one
 * token. Err: the law does not fall in N or in D there (no inner minimum), named; a cost that is
 * not above 0; a law without D and no D to hold, or one that C does not pay. */
int optimum_find(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, Optimum *out,
                 Err *e);

/* As optimum_find, without its search over all N: for an optimum that is known to lie within 5 % of
 * N. If it does not, optimum_find is called. */
int optimum_near(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, double N,
                 Optimum *out, Err *e);

/* Exponents of N_opt ~ C^a and D_opt ~ C^b at C: d ln N_opt / d ln C by central difference of
 * fourth order over +-10 % of C. */
int optimum_exponents(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, double *a,
                      double *b, Err *e);

#endif
