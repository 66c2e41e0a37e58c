/* train/fit_answer.h - what `isomoe fit` answers: the law or the curves fitted to a table of runs,
 * what is doubtful about either, and what follows for a budget. */
#ifndef ISOMOE_TRAIN_FIT_ANSWER_H
#define ISOMOE_TRAIN_FIT_ANSWER_H

#include <jansson.h>
#include <stdio.h>

#include "scaling/agree.h"
#include "scaling/backtest.h"
#include "scaling/cost_law.h"
#include "scaling/hygiene.h"
#include "scaling/profile_noise.h"

typedef enum AnswerMethod {
    ANSWER_VARPRO, ANSWER_HUBER, ANSWER_PARABOLA, ANSWER_AKIMA, ANSWER_METHODS
} AnswerMethod;

typedef enum AnswerCost {
    ANSWER_COST_BEST,  /* exact where the runs allow it, else their line, else 6 N D */
    ANSWER_COST_EXACT, /* the family's; an error where the runs do not allow it */
    ANSWER_COST_RUNS,  /* the line through the runs' C; an error where it is none */
    ANSWER_COST_NAMED  /* FitRequest.cost as it is */
} AnswerCost;

/* What resampled fits are of: the schemes of bootstrap.h. */
typedef enum AnswerResample {
    ANSWER_RESIDUALS,    /* of runs that weigh 1 / noise^2: ANSWER_NOISE */
    ANSWER_CASES,
    ANSWER_CASES_WITHIN, /* cases, within budgets */
    ANSWER_NOISE,
    ANSWER_RESAMPLES
} AnswerResample;

typedef struct FitRequest {
    const char *source;   /* a CSV file, or a sweep's folder */
    const char *mapping;  /* of a file's columns, or NULL */
    const char *where;    /* which of a file's rows, "variant=NAME" of a sweep's; NULL: all */
    AnswerMethod method;
    const Law *law;
    double delta;         /* of huber, in ln L */
    double fixed_e;       /* NaN: free */
    bool noise_weights;   /* runs weigh 1 / noise^2; else all the same */
    double budget;        /* FLOPs; 0: the largest cost of a run */
    AnswerCost cost_from;
    CostLaw cost;         /* what a budget buys; filled unless it is ANSWER_COST_NAMED */
    bool force;           /* use the cost law outside of its range */
    LawPoint at;          /* experts, granularity, sparsity of the forecast, D of a law without it;
                             NaN: those of the largest run */
    int replicates;       /* of the bootstrap; 0: no intervals */
    AnswerResample resample; /* of laws; curves have their own intervals */
    IntervalMethod interval; /* from the replicates, of laws */
    double level;         /* of intervals, in (0, 1) */
    uint64_t seed;
    int threads;          /* 0: all */
    bool backtest;        /* predict large budgets from small ones */
    void (*progress)(void *self, double share, double seconds); /* as BootOptions has it, or NULL */
    void *progress_self;
} FitRequest;

/* Varpro, chinchilla, delta 1e-3, E free, cost of the runs, 1000 replicates at 0.9 of residuals,
 * studentised, seed 0. */
FitRequest fit_request_defaults(const char *source);

typedef struct AnswerFit { /* one method on one set of rows */
    bool ok;               /* the fit stands; else why says what failed */
    bool best_ok;          /* N, D, a, b are there; else why */
    bool is_law;           /* fit is filled; else profile */
    Fit fit;
    Profile profile;
    double N, D, loss;     /* best for the budget; loss NaN for curves */
    double a, b;           /* exponents of N_opt and D_opt there */
    bool outside;          /* N is outside of the cost law's range */
    char why[ERR_MESSAGE_MAX];
} AnswerFit;

/* Findings about the fit; those about the runs are the hygiene's. */
typedef enum AnswerKind {
    ANSWER_NOT_IDENTIFIED, ANSWER_RETURNED_START, ANSWER_STARTS, ANSWER_DISAGREE,
    ANSWER_COST_RANGE, ANSWER_BEYOND, ANSWER_BOOTSTRAP, ANSWER_LACK_OF_FIT, ANSWER_NO_LINE,
    ANSWER_SCALE, ANSWER_UNJUDGED, ANSWER_COST_TOTAL, ANSWER_FORM, ANSWER_KINDS
} AnswerKind;

/* What methods are apart by construction, in ln N: laws by less than this, a parabola on a grid of
 * a factor 4 about the optimum by less than that (docs/SCALING.md), Akima by a third of a step of
 * sizes (Porian et al. 2024). Beyond these and the noise they disagree. */
#define ANSWER_LAW_MARGIN 0.01
#define ANSWER_PARABOLA_MARGIN 0.02
#define ANSWER_ALARMS 0.05    /* share of sound studies in which noise may pass for it */
#define ANSWER_FAR 10.0       /* a budget so many times the largest run is said to be far */
#define ANSWER_SIZES 1.5      /* a best N so far outside of the sizes that were run, too */

#define ANSWER_TOKENS 3.0     /* a best D so far outside of those that runs had, too */
#define ANSWER_AICC (-10.0)   /* another form's AICc less the law's: the law is doubted */
#define ANSWER_SMALL 1e3      /* a largest N or D below it is doubted */

/* Median C/(6 N D) beyond which units are doubted: forward alone is 1/3, tiny models with their
 * head and long sequences reach 5. */
#define ANSWER_SCALE_LOW 0.25
#define ANSWER_SCALE_HIGH 8.0

enum { ANSWER_WARNINGS = 24 };

typedef struct AnswerWarning {
    AnswerKind kind;
    bool without;            /* of the fit without doubtful runs; those are the last ones */
    char text[HYGIENE_TEXT];
} AnswerWarning;

typedef struct FitAnswer {
    FitRequest request;
    RunTable all;          /* as read, sorted; the hygiene's rows are its rows */
    RunTable runs;         /* the usable ones: what is fitted */
    Hygiene hygiene;
    CostLaw own;           /* how the sound runs' C follows from N and D: the exact cost of their
                              family, or a line; 6 N D if there is none */
    bool no_line;          /* the runs have a C, but it is neither: own is 6 N D */
    double line_rms;       /* its distance from a line, relative; NaN: none could be laid */
    double c6nd_low, c6nd_high, c6nd; /* C/(6 N D) of the sound runs: least, largest, median; NaN:
                              they have no C */
    double budget, c_max;  /* FLOPs: of the forecast; the largest cost of a run, by the cost law */
    double n_low, n_high;  /* sizes that were run */
    bool total;            /* runs without N: sizes and costs are of N_total */
    bool held;             /* the law has no D: the forecast is of the request's at.x[RUN_D] */
    double d_low, d_high;  /* tokens of the runs; NaN: not known */
    AnswerFit main, without; /* without: without doubtful runs; not ok where there are none */
    AnswerFit check[ANSWER_METHODS]; /* other methods beside it; not ok where they say nothing */
    Bootstrap boot;
    ForecastBase base;     /* borrows boot */
    Forecast forecast;
    Backtest backtest;
    ProfileNoise by_noise; /* of main, where it is curves and the runs' noise is known */
    bool has_boot, has_forecast, has_backtest, has_noise;
    double agree_at;       /* FLOPs at which methods are compared; 0, NaN: nowhere */
    double agree_n[ANSWER_METHODS];     /* best N there; NaN: it says nothing */
    double agree_margin[ANSWER_METHODS]; /* by construction, of it and the main method: ln N */
    double agree_noise[ANSWER_METHODS]; /* methods_agree's, of those beyond the margin, else NaN */
    char no_forecast[ERR_MESSAGE_MAX], no_backtest[ERR_MESSAGE_MAX];
    AnswerWarning warning[ANSWER_WARNINGS];
    int warnings;
} FitAnswer;

const char *answer_method_name(AnswerMethod m);
int answer_method_find(const char *name);        /* or -1 */
const char *answer_resample_name(AnswerResample r); /* "residuals", "cases-within-budgets", .. */
int answer_resample_find(const char *name);      /* or -1 */
const char *answer_kind_name(AnswerKind kind);   /* "not_identified", .. */

/* The runs of a CSV file (mapping, where: as runs.h has them), or of a sweep's folder (mapping
 * NULL; where NULL or "variant=NAME"; Err: runs of several variants and none named), sorted.
 * run_table_clear ends *out, after a failure too. */
int fit_runs_read(const char *source, const char *mapping, const char *where, RunTable *out,
                  Err *e);

/* The same for laws of rate and batch: with a sweep's checks, and variants that override optim.lr
 * and train.batch alone as runs of one model. */
int fit_rate_runs_read(const char *source, const char *mapping, const char *where, RunTable *out,
                       Err *e);

/* Err: what reading, fitting or a cost law outside of its range says. fit_answer_clear ends it,
 * after a failure too. */
int fit_answer_make(FitAnswer *out, const FitRequest *request, Err *e);
void fit_answer_clear(FitAnswer *a);

/* As fit_answer_make, of sorted runs that are there already; they are taken. The request's source
 * is only their name. */
int fit_answer_of(FitAnswer *out, const FitRequest *request, RunTable *runs, Err *e);

/* (rows of t) weights of the method's fit in *out, the caller's to free; NULL: 1 each. Err: as
 * run_noise_weights. */
int fit_answer_weights(const FitAnswer *a, const RunTable *t, AnswerMethod m, double **out, Err *e);

/* Fills agree_at, agree_n, agree_noise from main and check: fit_answer_agree.c. */
int fit_answer_agree(FitAnswer *a, Err *e);

/* Fills own, no_line, c6nd and the request's cost from the sound runs: fit_answer_cost.c. */
int fit_answer_cost(FitAnswer *a, Err *e);

/* Fills warning from everything else in *a: fit_answer_warn.c. */
void fit_answer_warn(FitAnswer *a);

/* Nothing in it depends on threads or on the order of rows. New reference. */
json_t *fit_answer_json(const FitAnswer *a);

void fit_answer_print(const FitAnswer *a, FILE *out);

#endif
