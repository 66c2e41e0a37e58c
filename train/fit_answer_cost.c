/* train/fit_answer_cost.c - what the runs' own C says about cost, and which cost law a budget is
 * spent by; see fit_answer.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/fit_answer.h"

#define LINE_RMS 0.1   /* relative: runs whose C lies farther from a line have no cost law */
#define EXACT_RMS 0.05 /* relative: runs that lie farther from a family's cost are of no family */
#define SAME_COST 2e-3 /* relative: a line so near to 6 N D is 6 N D */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* C/(6 N D) of the runs: how far from what nearly everybody counts. */
static int find_ratios(FitAnswer *a, const RunTable *t, Err *e)
{
    double *ratio = malloc(((size_t)t->rows + 1) * sizeof *ratio);
    if (!ratio) return err_set(e, "%s: out of memory", a->request.source);
    int64_t n = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        double x = run_value(t, RUN_C, i) / (6 * run_size(t, i) * run_value(t, RUN_D, i));
        if (!isnan(x)) ratio[n++] = x;
    }
    qsort(ratio, (size_t)n, sizeof *ratio, rising);
    if (n) a->c6nd_low = ratio[0], a->c6nd_high = ratio[n - 1], a->c6nd = ratio[n / 2];
    free(ratio);
    return 0;
}

/* Why the runs have no exact cost; 0: *out is it. */
static int exact_of(const FitAnswer *a, const RunTable *t, CostLaw *out, Err *e)
{
    if (isnan(a->c6nd)) return err_set(e, "%s: the runs have no C", a->request.source);
    if (cost_law_exact_of_runs(out, t, e)) return -1;
    if (out->rms <= EXACT_RMS) return 0;
    return err_set(e, "%s: C is no family's: %.2g off 6 n + c1 n^(2/3) + c2 n^(1/3)",
                   a->request.source, out->rms);
}

/* own, no_line, line_rms; *line: the runs', where there is one (name "runs"). What is so near to
 * 6 N D is 6 N D, at any N. */
static void find_own(FitAnswer *a, const RunTable *t, CostLaw *line)
{
    CostLaw exact;
    bool laid = !cost_law_of_runs(line, t, NULL);
    if (laid) a->line_rms = line->rms;
    double by_size = laid ? fabs(line->a / 6 - 1) + fabs(line->b) / (6 * line->low) : 0;
    bool all_6nd = a->c6nd_high - 1 < SAME_COST && 1 - a->c6nd_low < SAME_COST;
    bool is_line = laid && line->rms < LINE_RMS;
    if (!is_line) *line = (CostLaw){0};
    if (all_6nd) return;
    bool is_exact = !exact_of(a, t, &exact, NULL);
    a->no_line = !is_line && !is_exact;
    if (is_exact)
        a->own = exact;
    else if (is_line && by_size > SAME_COST)
        a->own = *line;
}

/* The cost that was asked for. */
static int choose(FitAnswer *a, const RunTable *t, const CostLaw *line, Err *e)
{
    FitRequest *r = &a->request;
    if (r->cost_from == ANSWER_COST_BEST) r->cost = a->own;
    if (r->cost_from == ANSWER_COST_EXACT && exact_of(a, t, &r->cost, e)) {
        err_context(e, "--cost exact");
        return err_hint(e, "it needs runs with N, N_no_embed, D and C, as a sweep's have");
    }
    if (r->cost_from != ANSWER_COST_RUNS) return 0;
    r->cost = *line;
    if (line->name[0]) {
        bool same = !strcmp(a->own.name, "6ND");
        if (same) r->cost = a->own;
        return 0;
    }
    err_set(e, isnan(a->c6nd) ? "%s: --cost runs: the runs have no C"
                              : "%s: --cost runs: C is no line in N: %.2g off, C/(6 N D) from "
                                "%.3g to %.3g", r->source, a->line_rms, a->c6nd_low, a->c6nd_high);
    return err_hint(e, "--cost 6nd, or A,B for C = A N D + B D");
}

int fit_answer_cost(FitAnswer *a, Err *e)
{
    RunTable clean = {0};
    CostLaw line = {0};
    a->own = cost_law_6nd();
    a->c6nd = a->c6nd_low = a->c6nd_high = a->line_rms = NAN;
    bool has_n = a->all.column[RUN_N] || a->all.column[RUN_N_TOTAL];
    bool has_c = a->all.column[RUN_C] && has_n && a->all.column[RUN_D];
    if (has_c && run_table_select(&clean, &a->all, a->hygiene.clean, e)) return -1;
    int rc = has_c ? find_ratios(a, &clean, e) : 0;
    if (!rc && !isnan(a->c6nd)) find_own(a, &clean, &line);
    if (!rc) rc = choose(a, &clean, &line, e);
    run_table_clear(&clean);
    return rc;
}
