/* scaling/bootstrap.h - how far a fit's numbers are to be believed: the fit is repeated on
 * resampled runs. Deterministic: draws are Philox functions of {seed, RNG_BOOTSTRAP, scheme,
 * replicate}; rows are put into canonical order first; any number of threads gives the same bits.
 */
#ifndef ISOMOE_SCALING_BOOTSTRAP_H
#define ISOMOE_SCALING_BOOTSTRAP_H

#include "scaling/interval.h"
#include "scaling/optimum.h"

typedef enum BootScheme {
    BOOT_CASES,     /* rows are drawn with replacement */
    BOOT_RESIDUALS, /* ln L = ln of the fit + a residual drawn from all rows': each over
                       sqrt(1 - its leverage), less their mean */
    BOOT_NOISE,     /* ln L = ln of the fit + a normal number of the runs' known noise: column
                       RUN_NOISE, or rows that differ by RUN_SEED alone */
    BOOT_SCHEMES
} BootScheme;

enum { BOOT_BUDGETS = 16, BOOT_QUANTITIES = 5, /* N_opt, D_opt, L, a, b */
       BOOT_TARGETS = LAW_PARAMS + BOOT_QUANTITIES * BOOT_BUDGETS };

typedef struct BootOptions {
    BootScheme scheme;
    bool stratified;         /* BOOT_CASES: within budgets; each keeps its number of rows */
    IntervalMethod interval; /* what BootTarget.interval is */
    int replicates;          /* >= 2 */
    double level;            /* in (0, 1) */
    uint64_t seed;
    int threads;             /* 0: all */
    CostLaw cost;            /* of the optimum */
    LawPoint at;             /* other columns (E, G, S) of the optimum, as optimum_find has it */
    int budgets;             /* 0: one, the largest cost of a row */
    double budget[BOOT_BUDGETS];
    /* NULL, or told while replicates are fitted: the share that is done, the seconds that the rest
     * takes as far as is known. At first before any is fitted. One thread calls at a time. */
    void (*progress)(void *self, double share, double seconds);
    void *progress_self;
} BootOptions;

typedef struct BootTarget {
    char name[32];        /* "alpha", "N_opt", "D_opt", "L", "a", "b" */
    double budget;        /* FLOPs; 0: a parameter */
    double value;         /* of the fit itself */
    double mean, sd;      /* of the replicates */
    double se;            /* linearised standard error; NaN where not identified */
    Interval interval;    /* by options.interval */
    Interval by[INTERVAL_METHODS];
    int missing;          /* replicates that have no such value. More than (1 - level) / 2 of all:
                             intervals are not determined */
} BootTarget;

/* How well the linearised fit is known. Parameters that are fixed, at a bound or without effect
 * have rows and columns of 0. */
typedef struct Linear {
    int n;                /* parameters of the law */
    double s, df;         /* scale of the residuals, in the objective's units; rows less parameters
                             that move */
    double cov[LAW_PARAMS * LAW_PARAMS]; /* (n, n) of the parameters */
} Linear;

typedef struct BootFit { /* of one replicate, or one row left out */
    bool good;            /* false: the fit failed */
    bool bound;           /* a parameter is at a bound */
    double param[LAW_PARAMS];
    Linear linear;
} BootFit;

typedef struct RunNoise { /* noise of ln L that the runs themselves show */
    double sd, df;        /* pooled over rows that differ by RUN_SEED alone; NaN, 0: none */
    int groups;           /* with two rows or more */
    int known;            /* rows with a RUN_NOISE */
} RunNoise;

typedef struct Bootstrap {
    BootOptions options;  /* as run: budgets filled in */
    Fit fit;              /* of all rows; its options' first_shape is NULL */
    Linear linear;
    RunNoise noise;
    BootFit *replicate;   /* (options.replicates), owned */
    BootFit *left_out;    /* (n_left_out) jackknife, owned */
    int n_left_out;
    int failed;           /* replicates without a fit */
    int at_bound;         /* replicates with a parameter at a bound */
    int warm_checked;     /* replicates that were fitted from all starts too */
    int warm_worse;       /* of them, warm fits that were worse */
    int starts;           /* of each replicate, the first of them warm: the fewest of 1, 4, 16 that
                             no checked fit was worse from; 0: all starts, as in the whole fit */
    int64_t fits;         /* fits made in all */
    BootTarget target[BOOT_TARGETS]; /* parameters, then each budget's quantities */
    int targets;
} Bootstrap;

/* Residuals, studentised intervals (see docs/SCALING.md for why), 1000 replicates, level 0.9,
 * seed 0, all threads, 6 N D. */
BootOptions boot_defaults(void);

const char *boot_scheme_name(BootScheme s); /* "cases", "residuals", "noise" */
int boot_scheme_find(const char *name);     /* or -1 */

/* fit: of these rows with these weights (NULL: 1 each). bootstrap_clear ends *out, after a failure
 * too. Err: options out of range (named), no known noise for BOOT_NOISE, budgets that are all of
 * one run or only one for stratified, more than half of the replicates failed, no memory. */
int bootstrap_run(const RunTable *t, const double *weight, const Fit *fit, const BootOptions *o,
                  Bootstrap *out, Err *e);
void bootstrap_clear(Bootstrap *b);

/* Numbers that follow from a fit. */
typedef struct BootQuantity {
    /* out (n); NaN: there is none. near: (n) of a fit whose parameters differ by 1e-4, or NULL. */
    void (*value)(const Fit *f, const void *arg, const double *near, double *out);
    const void *arg;
    int n;                       /* 1 .. BOOT_QUANTITIES */
    bool log[BOOT_QUANTITIES];   /* a positive number: linearised and studentised as its ln */
} BootQuantity;

/* Value, spread and intervals of a quantity over the replicates. out: (n); fills all but name and
 * budget. */
int bootstrap_quantity(const Bootstrap *b, const BootQuantity *q, BootTarget *out, Err *e);

/* The target of a name (and budget, if not 0), or NULL. */
const BootTarget *bootstrap_target(const Bootstrap *b, const char *name, double budget);

/* ---- Parts ------------------------------------------------------------------------------------*/

/* ln of the law's loss; gradient (n): of it by the parameters, or NULL. */
double law_log_gradient(const Law *law, const double *param, const LawPoint *p, double *gradient);

/* leverage: (rows) in [0, 1), or NULL. -1: the decomposition failed, or no row is left. */
int linear_make(const RunTable *t, const double *weight, const Fit *f, Linear *out,
                double *leverage);

/* Of rows with weight > 0 (NULL: all). Err: no memory. */
int run_noise(const RunTable *t, const double *weight, RunNoise *out, Err *e);

/* sd: (rows) of each row's loss, nats: its RUN_NOISE, else the pooled one of runs that differ by
 * RUN_SEED alone, which is of ln L. Err: a row of which none is known (named), no memory. */
int run_noise_sd(const RunTable *t, double *sd, Err *e);

/* weight: (rows) 1 / noise^2, of mean 1; of the noise of ln L, or of L. Err: as run_noise_sd. */
int run_noise_weights(const RunTable *t, bool of_log, double *weight, Err *e);

/* Number of each row's budget, rising from 0: by RUN_BUDGET, or RUN_C, or 6 N D; values within 5 %
 * of the one before share a group. Returns the number of groups, or -1 (no memory). */
int run_budget_groups(const RunTable *t, int *group);

#endif
