/* scaling/published.h - scaling laws as published, to compare with; not what isomoe computes with.
 * In scaling/ N, D and C are activated parameters, tokens and FLOPs. */
#ifndef ISOMOE_SCALING_PUBLISHED_H
#define ISOMOE_SCALING_PUBLISHED_H

/* What a paper says is best for a budget: N = n_factor C^n_power, D = d_factor C^d_power, C being
 * C_min = C/(1 + B/B_crit(L)), the cost at a small batch. Low and high: what it trained. */
typedef struct PublishedLaw {
    const char *name, *source;
    double n_factor, n_power, d_factor, d_power;
    double cost_a, cost_b;             /* its cost: C = cost_a N D + cost_b D */
    double n_low, n_high;
    double d_low, d_high;
    double c_low, c_high;
} PublishedLaw;

const PublishedLaw *published_find(const char *name); /* "hunyuan"; or NULL */
double published_n_opt(const PublishedLaw *p, double c_min);
double published_d_opt(const PublishedLaw *p, double c_min);

/* Hunyuan-Large (arXiv 2411.02265), equation 2: C = 9.59 N D + 2.3e8 D. It encodes one way to count
 * FLOPs at one context length on small models (docs/SCALING.md) and must not be extrapolated. */
double hunyuan_compute(double N, double D);

/* Section 2.3.1: N_opt = 5.9e-3 C_min^0.5305, D_opt = 3.2 C_min^0.50. */
double hunyuan_n_opt(double c_min);
double hunyuan_d_opt(double c_min);

/* The budget whose N_opt is N. */
double hunyuan_budget(double N);

#endif
