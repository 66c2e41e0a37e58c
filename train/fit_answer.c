/* train/fit_answer.c - from runs to an answer; see fit_answer.h. */
#include "train/fit_answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "scaling/ledger.h"

#define LINE_RMS 0.1   /* relative: runs whose C lies farther from a line have no cost law */
#define SAME_COST 2e-3 /* relative: a line so near to 6 N D is 6 N D */

static const char *const methods[ANSWER_METHODS] = {"varpro", "huber", "parabola", "akima"};

const char *answer_method_name(AnswerMethod m) { return methods[m]; }

int answer_method_find(const char *name)
{
    for (int i = 0; i < ANSWER_METHODS; i++)
        if (!strcmp(methods[i], name)) return i;
    return -1;
}

FitRequest fit_request_defaults(const char *source)
{
    FitRequest r = {.source = source, .law = law_at(0), .delta = 1e-3, .fixed_e = NAN,
                    .cost = cost_law_6nd(), .cost_of_runs = true, .replicates = 1000,
                    .level = 0.9};
    for (int c = 0; c < RUN_COLUMNS; c++) r.at.x[c] = NAN;
    return r;
}

void fit_answer_clear(FitAnswer *a)
{
    backtest_clear(&a->backtest);
    bootstrap_clear(&a->boot);
    hygiene_clear(&a->hygiene);
    run_table_clear(&a->runs);
    run_table_clear(&a->all);
}

/* ---- The runs ---------------------------------------------------------------------------------*/

/* Names of the table's variants, each once; also whether `variant` is one of them. */
static int count_variants(const RunTable *t, const char *variant, bool *found, char *list,
                          size_t room)
{
    char mine[CELL_NAME], other[CELL_NAME];
    int n = 0;
    size_t used = 0;
    *list = 0;
    *found = false;
    for (int64_t i = 0; i < t->rows; i++) {
        bool old = false;
        cell_variant(t->name[i], mine);
        for (int64_t k = 0; k < i && !old; k++) {
            cell_variant(t->name[k], other);
            old = !strcmp(mine, other);
        }
        if (old) continue;
        *found = *found || (variant && !strcmp(mine, variant));
        if (used < room)
            used += (size_t)snprintf(list + used, room - used, "%s%s", n ? ", " : "",
                                     mine[0] ? mine : "'' (cells without a variant)");
        n++;
    }
    return n;
}

/* Runs of different variants are runs of different models: keeps those of one. variant NULL: the
 * only one. */
static int keep_variant(RunTable *t, const char *variant, Err *e)
{
    char list[ERR_MESSAGE_MAX / 2], mine[CELL_NAME];
    RunTable kept = {0};
    bool found;
    int n = count_variants(t, variant, &found, list, sizeof list);
    if (!variant && n <= 1) return 0;
    if (!found) {
        if (variant)
            err_set(e, "%s: no run of a variant '%.100s' is done", t->source, variant);
        else
            err_set(e, "%s: runs of %d variants, which are no runs of one model", t->source, n);
        return err_hint(e, "--where variant=NAME takes those of one: %s", list);
    }
    unsigned char *keep = malloc((size_t)t->rows);
    if (!keep) return err_set(e, "out of memory");
    for (int64_t i = 0; i < t->rows; i++) {
        cell_variant(t->name[i], mine);
        keep[i] = !strcmp(mine, variant);
    }
    int rc = run_table_select(&kept, t, keep, e);
    free(keep);
    if (rc) return -1;
    run_table_clear(t);
    *t = kept;
    return 0;
}

int fit_runs_read(const char *source, const char *mapping, const char *where, RunTable *out,
                  Err *e)
{
    if (!io_is_dir(source)) return run_table_read_where(out, source, mapping, where, e);
    const char key[] = "variant=";
    const char *variant = where && !strncmp(where, key, strlen(key)) ? where + strlen(key) : NULL;
    if (mapping || (where && !variant)) {
        err_set(e, "%s: a sweep's ledger knows its columns; no mapping is taken, and no condition "
                "but the variant", source);
        return err_hint(e, "--where variant=NAME");
    }
    Ledger *ledger = ledger_open(source, true, e);
    if (!ledger) return -1;
    int rc = ledger_runs(ledger, false, out, e);
    ledger_close(&ledger);
    if (!rc && !out->rows) {
        err_set(e, "%s: no cell of this sweep is done yet", source);
        rc = err_hint(e, "isomoe sweep status says how far it is");
    }
    if (!rc) rc = keep_variant(out, variant, e);
    if (!rc) run_table_sort(out);
    return rc;
}

static bool is_curves(AnswerMethod m) { return m == ANSWER_PARABOLA || m == ANSWER_AKIMA; }

static unsigned needed(const FitRequest *r)
{
    if (!is_curves(r->method)) return r->law->columns;
    return 1u << RUN_N | 1u << RUN_D | 1u << RUN_LOSS;
}

static int check_runs(FitAnswer *a, double e_limit, Err *e)
{
    hygiene_clear(&a->hygiene);
    run_table_clear(&a->runs);
    if (hygiene_check(&a->all, needed(&a->request), e_limit, &a->hygiene, e)) return -1;
    return run_table_select(&a->runs, &a->all, a->hygiene.usable, e);
}

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
        double x = run_value(t, RUN_C, i) / (6 * run_value(t, RUN_N, i) * run_value(t, RUN_D, i));
        if (!isnan(x)) ratio[n++] = x;
    }
    qsort(ratio, (size_t)n, sizeof *ratio, rising);
    if (n) a->c6nd_low = ratio[0], a->c6nd_high = ratio[n - 1], a->c6nd = ratio[n / 2];
    free(ratio);
    return 0;
}

/* What the sound runs' C says about cost; what is so near to 6 N D is 6 N D, at any N. */
static int find_cost(FitAnswer *a, Err *e)
{
    FitRequest *r = &a->request;
    RunTable clean = {0};
    CostLaw line;
    a->own = cost_law_6nd();
    a->c6nd = a->c6nd_low = a->c6nd_high = a->line_rms = NAN;
    bool has_c = a->all.column[RUN_C] && a->all.column[RUN_N] && a->all.column[RUN_D];
    if (has_c && run_table_select(&clean, &a->all, a->hygiene.clean, e)) return -1;
    int rc = has_c ? find_ratios(a, &clean, e) : 0;
    if (!rc && !isnan(a->c6nd)) {
        bool laid = !cost_law_of_runs(&line, &clean, NULL);
        if (laid) a->line_rms = line.rms;
        double by_size = laid ? fabs(line.a / 6 - 1) + fabs(line.b) / (6 * line.low) : 0;
        bool all_6nd = a->c6nd_high - 1 < SAME_COST && 1 - a->c6nd_low < SAME_COST;
        a->no_line = !all_6nd && !(laid && line.rms < LINE_RMS);
        if (!all_6nd && !a->no_line && by_size > SAME_COST) a->own = line;
    }
    run_table_clear(&clean);
    if (!rc && r->cost_needs_runs && (isnan(a->c6nd) || a->no_line)) {
        err_set(e, isnan(a->c6nd) ? "%s: --cost runs: the runs have no C"
                                  : "%s: --cost runs: C is no line in N: %.2g off, C/(6 N D) from "
                                    "%.3g to %.3g", r->source, a->line_rms, a->c6nd_low,
                a->c6nd_high);
        rc = err_hint(e, "--cost 6nd, or A,B for C = A N D + B D");
    }
    if (r->cost_of_runs) r->cost = a->own;
    return rc;
}

/* The budget and the columns of the forecast, where the request leaves them to the runs. */
static void fill_request(FitAnswer *a)
{
    FitRequest *r = &a->request;
    int64_t largest = -1;
    a->n_low = INFINITY;
    a->n_high = 0;
    a->total = !a->runs.column[RUN_N] && a->runs.column[RUN_N_TOTAL];
    for (int64_t i = 0; i < a->runs.rows; i++) {
        double N = run_size(&a->runs, i), D = run_value(&a->runs, RUN_D, i);
        double C = cost_law_per_token(&r->cost, N) * D;
        a->n_low = fmin(a->n_low, N);
        a->n_high = fmax(a->n_high, N);
        if (!(C > a->c_max)) continue;
        a->c_max = C;
        largest = i;
    }
    a->budget = r->budget > 0 ? r->budget : a->c_max;
    for (int c = 0; largest >= 0 && c < RUN_COLUMNS; c++)
        if (isnan(r->at.x[c])) r->at.x[c] = run_value(&a->runs, (RunColumn)c, largest);
}

/* ---- One fit ----------------------------------------------------------------------------------*/

static void law_best(const FitAnswer *a, AnswerFit *f)
{
    const FitRequest *r = &a->request;
    Optimum best;
    Err e = {0};
    f->N = f->D = f->loss = f->a = f->b = NAN;
    if (!(a->budget > 0)) {
        snprintf(f->why, sizeof f->why, "the runs have no D and no C, so no budget");
        return;
    }
    if (optimum_find(&f->fit, &r->cost, a->budget, &r->at, &best, &e) ||
        optimum_exponents(&f->fit, &r->cost, a->budget, &r->at, &f->a, &f->b, &e)) {
        snprintf(f->why, sizeof f->why, "%s", e.message);
        return;
    }
    f->N = best.N;
    f->D = best.D;
    f->loss = best.loss;
    f->outside = best.outside;
    f->best_ok = true;
}

static void curves_best(const FitAnswer *a, AnswerFit *f)
{
    f->a = f->profile.n_opt.exponent;
    f->b = f->profile.d_opt.exponent;
    f->loss = NAN;
    f->N = power_law_at(&f->profile.n_opt, a->budget);
    f->D = power_law_at(&f->profile.d_opt, a->budget);
    f->best_ok = isfinite(f->N) && isfinite(f->D);
    if (!f->best_ok)
        snprintf(f->why, sizeof f->why, "fewer than two budgets have a minimum between their "
                 "sizes");
}

/* Method m on the runs of t; f->ok says whether it stands. */
static int fit_one(const FitAnswer *a, const RunTable *t, AnswerMethod m, AnswerFit *f, Err *e)
{
    const FitRequest *r = &a->request;
    Err mine = {0};
    int rc;
    *f = (AnswerFit){.is_law = !is_curves(m)};
    if (f->is_law) {
        FitOptions o = fit_defaults();
        o.method = m == ANSWER_HUBER ? FIT_HUBER : FIT_VARPRO;
        o.delta = r->delta;
        o.fixed_e = r->fixed_e;
        o.seed = r->seed;
        o.threads = r->threads;
        rc = fit_law(t, r->law, NULL, &o, &f->fit, &mine);
    } else {
        rc = profile_fit(t, NULL, m == ANSWER_AKIMA ? PROFILE_AKIMA : PROFILE_PARABOLA,
                         PROFILE_TOLERANCE, &f->profile, &mine);
    }
    f->ok = !rc;
    if (rc) {
        snprintf(f->why, sizeof f->why, "%s", mine.message);
        if (e) *e = mine;
        return -1;
    }
    if (f->is_law)
        law_best(a, f);
    else
        curves_best(a, f);
    return 0;
}

/* E of a fitted law, as the hygiene's limit; NaN: it has none. */
static double limit_of(const AnswerFit *f)
{
    int term = f->is_law && f->fit.law->kind == LAW_SUM ? law_term_find(f->fit.law, "E") : -1;
    return term < 0 ? NAN : f->fit.param[term];
}

/* E that losses are held to: fixed, or Huber's, since the least squares follow a loss that is too
 * low down to E = 0. */
static double sound_limit(const FitAnswer *a)
{
    AnswerFit huber;
    if (!isnan(limit_of(&a->main)) && isnan(a->request.fixed_e) &&
        a->request.method != ANSWER_HUBER &&
        !fit_one(a, &a->runs, ANSWER_HUBER, &huber, NULL))
        return limit_of(&huber);
    return limit_of(&a->main);
}

static int fit_main(FitAnswer *a, Err *e)
{
    if (fit_one(a, &a->runs, a->request.method, &a->main, e)) return -1;
    if (!a->main.is_law) return 0;
    return check_runs(a, sound_limit(a), e);
}

/* Without doubtful runs, where there are any. */
static int fit_without(FitAnswer *a, Err *e)
{
    RunTable clean = {0};
    if (a->hygiene.n_clean == a->hygiene.n_usable) return 0;
    if (run_table_select(&clean, &a->all, a->hygiene.clean, e)) return -1;
    fit_one(a, &clean, a->request.method, &a->without, NULL);
    run_table_clear(&clean);
    return 0;
}

/* Other methods say something about the dense law where there are isoFLOP curves; what curves say
 * about a budget holds in the runs' own cost alone. */
static void fit_checks(FitAnswer *a)
{
    const AnswerMethod main = a->request.method;
    AnswerFit *parabola = &a->check[ANSWER_PARABOLA];
    if (a->request.law != law_at(0)) return;
    for (int m = 0; m < ANSWER_METHODS; m++)
        if (m != (int)main) fit_one(a, &a->runs, (AnswerMethod)m, &a->check[m], NULL);
    const Profile *p = main == ANSWER_PARABOLA ? &a->main.profile : &parabola->profile;
    bool foreign = strcmp(a->own.name, a->request.cost.name) != 0;
    for (int m = 0; m < ANSWER_METHODS; m++) {
        AnswerFit *f = &a->check[m];
        if (f->is_law || !f->ok) continue;
        if (!p->curves) f->ok = false;
        if (foreign) f->N = f->D = NAN;
        if (foreign) f->best_ok = false;
    }
}

/* ---- Intervals --------------------------------------------------------------------------------*/

static BootOptions boot_options(const FitAnswer *a)
{
    const FitRequest *r = &a->request;
    BootOptions o = boot_defaults();
    o.replicates = r->replicates;
    o.level = r->level;
    o.seed = r->seed;
    o.threads = r->threads;
    o.cost = r->cost;
    o.at = r->at;
    o.budgets = a->budget > 0;
    o.budget[0] = a->budget;
    return o;
}

static int make_intervals(FitAnswer *a, Err *e)
{
    const BootOptions o = boot_options(a);
    Err mine = {0};
    if (!a->main.is_law || !a->request.replicates) return 0;
    if (bootstrap_run(&a->runs, NULL, &a->main.fit, &o, &a->boot, e))
        return err_context(e, "intervals");
    a->has_boot = true;
    a->has_forecast = a->main.best_ok &&
                      !forecast_prepare(&a->runs, NULL, &a->boot, &a->base, &mine) &&
                      !forecast_at_budget(&a->base, a->budget, &a->forecast, &mine);
    snprintf(a->no_forecast, sizeof a->no_forecast, "%s", mine.message);
    if (!a->request.backtest) return 0;
    BootOptions few = o;
    if (few.replicates > 200) few.replicates = 200;
    a->has_backtest = !backtest_run(&a->runs, NULL, a->request.law, &a->main.fit.options, &few, 2,
                                    &a->backtest, &mine);
    if (!a->has_backtest) snprintf(a->no_backtest, sizeof a->no_backtest, "%s", mine.message);
    return 0;
}

/* From all runs, sorted, to the answer. */
static int answer(FitAnswer *out, Err *e)
{
    if (check_runs(out, out->request.fixed_e, e) || find_cost(out, e)) return -1;
    fill_request(out);
    if (fit_main(out, e)) return -1;
    if (out->main.outside &&
        cost_law_check(&out->request.cost, out->main.N, out->request.force, e))
        return -1;
    if (fit_without(out, e)) return -1;
    fit_checks(out);
    if (make_intervals(out, e)) return -1;
    fit_answer_warn(out);
    return 0;
}

int fit_answer_make(FitAnswer *out, const FitRequest *request, Err *e)
{
    memset(out, 0, sizeof *out);
    out->request = *request;
    if (fit_runs_read(request->source, request->mapping, request->where, &out->all, e)) return -1;
    return answer(out, e);
}

int fit_answer_of(FitAnswer *out, const FitRequest *request, RunTable *runs, Err *e)
{
    memset(out, 0, sizeof *out);
    out->request = *request;
    out->all = *runs;
    *runs = (RunTable){0};
    return answer(out, e);
}
