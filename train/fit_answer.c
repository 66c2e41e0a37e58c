/* train/fit_answer.c - from runs to an answer; see fit_answer.h. */
#include "train/fit_answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "scaling/ledger.h"

static const char *const methods[ANSWER_METHODS] = {"varpro", "huber", "parabola", "akima"};

const char *answer_method_name(AnswerMethod m) { return methods[m]; }

int answer_method_find(const char *name)
{
    for (int i = 0; i < ANSWER_METHODS; i++)
        if (!strcmp(methods[i], name)) return i;
    return -1;
}

static const struct {
    const char *name;
    BootScheme scheme;
    bool stratified;
} resamples[ANSWER_RESAMPLES] = {[ANSWER_RESIDUALS] = {"residuals", BOOT_RESIDUALS, false},
                                 [ANSWER_CASES] = {"cases", BOOT_CASES, false},
                                 [ANSWER_CASES_WITHIN] = {"cases-within-budgets", BOOT_CASES, true},
                                 [ANSWER_NOISE] = {"noise", BOOT_NOISE, false}};

const char *answer_resample_name(AnswerResample r) { return resamples[r].name; }

int answer_resample_find(const char *name)
{
    for (int i = 0; i < ANSWER_RESAMPLES; i++)
        if (!strcmp(resamples[i].name, name)) return i;
    return -1;
}

FitRequest fit_request_defaults(const char *source)
{
    FitRequest r = {.source = source, .law = law_at(0), .delta = 1e-3, .fixed_e = NAN,
                    .cost = cost_law_6nd(), .replicates = 1000,
                    .resample = ANSWER_RESIDUALS, .interval = INTERVAL_STUDENT, .level = 0.9};
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

/* rates: for laws of the rate; runs that differ in rate and batch alone are of one model, unless a
 * variant is named. */
static int read_runs(const char *source, const char *mapping, const char *where, bool rates,
                     RunTable *out, Err *e)
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
    int rc = rates ? ledger_rate_runs(ledger, !variant || !*variant, out, e)
                   : ledger_runs(ledger, false, out, e);
    ledger_close(&ledger);
    if (!rc && !out->rows) {
        err_set(e, "%s: no cell of this sweep is done yet", source);
        rc = err_hint(e, "isomoe sweep status says how far it is");
    }
    if (!rc) rc = keep_variant(out, variant, e);
    if (!rc) run_table_sort(out);
    return rc;
}

int fit_runs_read(const char *source, const char *mapping, const char *where, RunTable *out,
                  Err *e)
{
    return read_runs(source, mapping, where, false, out, e);
}

int fit_rate_runs_read(const char *source, const char *mapping, const char *where, RunTable *out,
                       Err *e)
{
    return read_runs(source, mapping, where, true, out, e);
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

#define SAME_D 1.02 /* runs whose D differ by less have one D */

/* Sizes and tokens that were run; D of a law without it, where all runs have the same. */
static void find_ranges(FitAnswer *a)
{
    FitRequest *r = &a->request;
    a->n_low = a->d_low = INFINITY;
    a->n_high = a->d_high = 0;
    for (int64_t i = 0; i < a->runs.rows; i++) {
        double N = run_size(&a->runs, i), D = run_value(&a->runs, RUN_D, i);
        a->n_low = fmin(a->n_low, N);
        a->n_high = fmax(a->n_high, N);
        a->d_low = fmin(a->d_low, D);
        a->d_high = fmax(a->d_high, D);
    }
    if (!(a->d_high > 0)) a->d_low = a->d_high = NAN;
    a->total = !a->runs.column[RUN_N] && a->runs.column[RUN_N_TOTAL];
    a->held = !is_curves(r->method) && !(r->law->columns >> RUN_D & 1);
    if (a->held && isnan(r->at.x[RUN_D]) && a->d_high <= SAME_D * a->d_low)
        r->at.x[RUN_D] = sqrt(a->d_low) * sqrt(a->d_high);
}

/* The budget and the columns of the forecast, where the request leaves them to the runs. */
static void fill_request(FitAnswer *a)
{
    FitRequest *r = &a->request;
    int64_t largest = -1;
    find_ranges(a);
    for (int64_t i = 0; i < a->runs.rows; i++) {
        double D = run_value(&a->runs, RUN_D, i);
        if (isnan(D) && a->held) D = r->at.x[RUN_D];
        double C = cost_law_per_token(&r->cost, run_size(&a->runs, i)) * D;
        if (!(C > a->c_max)) continue;
        a->c_max = C;
        largest = i;
    }
    a->budget = r->budget > 0 ? r->budget : a->c_max;
    for (int c = 0; largest >= 0 && c < RUN_COLUMNS; c++)
        if (isnan(r->at.x[c]) && !(a->held && c == RUN_D))
            r->at.x[c] = run_value(&a->runs, (RunColumn)c, largest);
}

/* ---- One fit ----------------------------------------------------------------------------------*/

/* Why a law without D has no best N. */
static void say_no_tokens(const FitAnswer *a, AnswerFit *f)
{
    const char *name = f->fit.law->name;
    if (isnan(a->d_low))
        snprintf(f->why, sizeof f->why, "%s does not read D and the runs have none: what a budget "
                 "buys depends on it; --at D=TOKENS says it", name);
    else
        snprintf(f->why, sizeof f->why, "%s does not read D, of which the runs have %.4g to %.4g: "
                 "its losses are of no one D; --at D=TOKENS holds one", name, a->d_low, a->d_high);
}

static void law_best(const FitAnswer *a, AnswerFit *f)
{
    const FitRequest *r = &a->request;
    Optimum best;
    Err e = {0};
    f->N = f->D = f->loss = f->a = f->b = NAN;
    if (a->held && isnan(r->at.x[RUN_D])) {
        say_no_tokens(a, f);
        return;
    }
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

int fit_answer_weights(const FitAnswer *a, const RunTable *t, AnswerMethod m, double **out, Err *e)
{
    bool of_log = m == ANSWER_HUBER || (!is_curves(m) && a->request.law->kind == LAW_LOG);
    *out = NULL;
    if (!a->request.noise_weights) return 0;
    *out = malloc(((size_t)t->rows + 1) * sizeof **out);
    if (!*out) return err_set(e, "out of memory for %lld runs", (long long)t->rows);
    if (!run_noise_weights(t, of_log, *out, e)) return 0;
    free(*out);
    *out = NULL;
    return -1;
}

static int fit_weighted(const FitAnswer *a, const RunTable *t, const double *weight,
                        AnswerMethod m, AnswerFit *f, Err *e)
{
    const FitRequest *r = &a->request;
    if (!f->is_law)
        return profile_fit(t, weight, m == ANSWER_AKIMA ? PROFILE_AKIMA : PROFILE_PARABOLA,
                           PROFILE_TOLERANCE, &f->profile, e);
    FitOptions o = fit_defaults();
    o.method = m == ANSWER_HUBER ? FIT_HUBER : FIT_VARPRO;
    o.delta = r->delta;
    o.fixed_e = r->fixed_e;
    o.seed = r->seed;
    o.threads = r->threads;
    return fit_law(t, r->law, weight, &o, &f->fit, e);
}

/* Method m on the runs of t; f->ok says whether it stands. */
static int fit_one(const FitAnswer *a, const RunTable *t, AnswerMethod m, AnswerFit *f, Err *e)
{
    Err mine = {0};
    double *weight;
    *f = (AnswerFit){.is_law = !is_curves(m)};
    int rc = fit_answer_weights(a, t, m, &weight, &mine);
    if (!rc) rc = fit_weighted(a, t, weight, m, f, &mine);
    free(weight);
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

/* What a ledger does not know cannot be told by --columns. */
static int check_ledger(const FitAnswer *a, Err *e)
{
    unsigned lacks = 0;
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (!a->all.column[c]) lacks |= 1u << c;
    lacks &= needed(&a->request);
    if (!lacks || !io_is_dir(a->request.source)) return 0;
    err_set(e, "%s: the ledger does not know the %s of its cells, which the form %s needs",
            a->request.source, run_column_name((RunColumn)__builtin_ctz(lacks)),
            a->request.law->name);
    return err_hint(e, "an older version made it: the same `isomoe sweep` once more fills it in");
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
    if (check_ledger(a, e)) return -1;
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
    bool foreign = a->request.cost_from == ANSWER_COST_NAMED &&
                   strcmp(a->own.name, a->request.cost.name);
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
    o.scheme = resamples[r->resample].scheme;
    o.stratified = resamples[r->resample].stratified;
    o.interval = r->interval;
    o.progress = r->progress;
    o.progress_self = r->progress_self;
    o.budgets = a->budget > 0;
    o.budget[0] = a->budget;
    return o;
}

/* Of curves: by the runs' noise, where it is known. */
static int curve_intervals(FitAnswer *a, const double *weight)
{
    const FitRequest *r = &a->request;
    ProfileNoiseOptions o = {.C = a->budget, .replicates = r->replicates, .level = r->level,
                             .seed = r->seed, .threads = r->threads};
    Err unknown = {0};
    if (!(a->budget > 0)) return 0;
    a->has_noise = !profile_noise(&a->runs, weight, a->main.profile.method, &o, &a->by_noise,
                                  &unknown);
    return 0;
}

static int law_intervals(FitAnswer *a, const double *weight, Err *e)
{
    const BootOptions o = boot_options(a);
    Err mine = {0};
    if (bootstrap_run(&a->runs, weight, &a->main.fit, &o, &a->boot, e))
        return err_context(e, "intervals");
    a->has_boot = true;
    a->has_forecast = a->main.best_ok &&
                      !forecast_prepare(&a->runs, weight, &a->boot, &a->base, &mine) &&
                      !forecast_at_budget(&a->base, a->budget, &a->forecast, &mine);
    snprintf(a->no_forecast, sizeof a->no_forecast, "%s", mine.message);
    if (!a->request.backtest) return 0;
    BootOptions few = o;
    if (few.replicates > 200) few.replicates = 200;
    a->has_backtest = !backtest_run(&a->runs, weight, a->request.law, &a->main.fit.options, &few,
                                    2, &a->backtest, &mine);
    if (!a->has_backtest) snprintf(a->no_backtest, sizeof a->no_backtest, "%s", mine.message);
    return 0;
}

static int make_intervals(FitAnswer *a, Err *e)
{
    double *weight;
    if (!a->request.replicates) return 0;
    if (fit_answer_weights(a, &a->runs, a->request.method, &weight, e)) return -1;
    int rc = a->main.is_law ? law_intervals(a, weight, e) : curve_intervals(a, weight);
    free(weight);
    return rc;
}

/* What is resampled, where that depends on the runs; before any fit. Err: noise is not known. */
static int check_resample(FitAnswer *a, Err *e)
{
    FitRequest *r = &a->request;
    /* residuals of unequal noise are no one pool */
    if (r->noise_weights && r->resample == ANSWER_RESIDUALS) r->resample = ANSWER_NOISE;
    if (r->resample != ANSWER_NOISE || !r->replicates || is_curves(r->method)) return 0;
    double *sd = malloc(((size_t)a->runs.rows + 1) * sizeof *sd);
    int rc = sd ? run_noise_sd(&a->runs, sd, e) : err_set(e, "out of memory");
    free(sd);
    return rc;
}

/* From all runs, sorted, to the answer. */
static int answer(FitAnswer *out, Err *e)
{
    if (check_runs(out, out->request.fixed_e, e) || check_resample(out, e) ||
        fit_answer_cost(out, e))
        return -1;
    fill_request(out);
    if (fit_main(out, e)) return -1;
    if (out->main.outside &&
        cost_law_check(&out->request.cost, out->main.N, out->request.force, e))
        return -1;
    if (fit_without(out, e)) return -1;
    fit_checks(out);
    if (fit_answer_agree(out, e)) return -1;
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
