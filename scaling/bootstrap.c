/* scaling/bootstrap.c - see bootstrap.h: the replicates' fits. What follows from them:
 * boot_quantity.c. */
#include "scaling/bootstrap.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "scaling/boot_targets.h"
#include "scaling/resample.h"

/* Replicates that are fitted from all starts too; a warm fit may be worse by this much; how many
 * rows are left out one by one, before groups of rows are. */
enum { WARM_CHECKS = 12, LEFT_OUT = 300 };
static const double warm_slack = 1e-6;
static const int few_starts[] = {1, 4, 16};

static const char *const scheme_names[BOOT_SCHEMES] = {"cases", "residuals", "noise"};

const char *boot_scheme_name(BootScheme s) { return scheme_names[s]; }

int boot_scheme_find(const char *name)
{
    for (int s = 0; s < BOOT_SCHEMES; s++)
        if (!strcmp(name, scheme_names[s])) return s;
    return -1;
}

BootOptions boot_defaults(void)
{
    return (BootOptions){.scheme = BOOT_RESIDUALS, .interval = INTERVAL_STUDENT,
                         .replicates = 1000, .level = 0.9, .cost = cost_law_6nd()};
}

static int check_options(const BootOptions *o, Err *e)
{
    if (o->replicates < 2 || o->replicates > 10000000)
        return err_set(e, "replicates %d: between 2 and 10000000", o->replicates);
    if (!(o->level > 0 && o->level < 1))
        return err_set(e, "level %g: between 0 and 1, both excluded", o->level);
    if (o->budgets < 0 || o->budgets > BOOT_BUDGETS)
        return err_set(e, "%d budgets: at most %d", o->budgets, BOOT_BUDGETS);
    for (int i = 0; i < o->budgets; i++)
        if (!(o->budget[i] > 0 && isfinite(o->budget[i])))
            return err_set(e, "budget %g: positive and finite", o->budget[i]);
    return 0;
}

/* ---- One fit --------------------------------------------------------------------------------- */

typedef struct Work {
    const Resample *rows;
    const Fit *fit;     /* of all rows: where warm fits start */
    int n_left_out;
} Work;

/* One thread's rows: weights, losses. */
typedef struct Scratch {
    double *weight, *loss;
} Scratch;

/* Fits the scratch's rows from so many starts, the first of them warm; 0: all. Returns whether
 * there is an answer. */
static bool fit_rows(const Work *w, const Scratch *s, int starts, Fit *out)
{
    RunTable t = w->rows->table; /* its other columns, shared */
    FitOptions o = w->fit->options;
    Err ignored = {0};
    t.column[RUN_LOSS] = s->loss;
    o.threads = 1;
    if (starts) {
        o.first_shape = w->fit->param + w->fit->law->n_terms;
        o.starts = starts;
    }
    if (fit_law(&t, w->fit->law, s->weight, &o, out, &ignored)) return false;
    out->options = w->fit->options;
    for (int i = 0; i < out->law->n_terms + out->law->n_shape; i++)
        if (!isfinite(out->param[i])) return false;
    return true;
}

static void keep(const Work *w, const Scratch *s, bool good, const Fit *f, BootFit *out)
{
    RunTable t = w->rows->table;
    t.column[RUN_LOSS] = s->loss;
    *out = (BootFit){.good = good};
    if (!good) return;
    memcpy(out->param, f->param, sizeof out->param);
    out->bound = f->certificate.at_bound != 0;
    linear_of_rows(&t, s->weight, f, t.rows, &out->linear, NULL);
}

/* Every n_left_out-th row is left out, beginning with row i. */
static void leave_out(const Work *w, int i, const Scratch *s)
{
    const RunTable *t = &w->rows->table;
    for (int64_t row = 0; row < t->rows; row++) {
        s->weight[row] = row % w->n_left_out == i ? 0 : w->rows->weight[row];
        s->loss[row] = t->column[RUN_LOSS][row];
    }
}

/* ---- All fits -------------------------------------------------------------------------------- */

static int threads_of(const BootOptions *o)
{
    return o->threads > 0 ? o->threads : omp_get_max_threads();
}

/* Rows for each of n threads: 2 n rows doubles, or NULL. */
static double *scratch_make(const Work *w, int n, Err *e)
{
    double *s = malloc((size_t)n * 2 * (size_t)(w->rows->table.rows + 1) * sizeof *s);
    if (!s) err_set(e, "no memory for the rows of %d threads", n);
    return s;
}

static Scratch scratch_of(const Work *w, double *all)
{
    double *mine = all + omp_get_thread_num() * 2 * (w->rows->table.rows + 1);
    return (Scratch){mine, mine + w->rows->table.rows + 1};
}

static void tell(const Bootstrap *b, double share, double seconds)
{
    const BootOptions *o = &b->options;
    if (o->progress) o->progress(o->progress_self, share, seconds);
}

/* Objectives of n replicates, spread over all of them, from so many starts; infinite: no fit. */
static void fit_checks(const Work *w, double *scratch, int starts, int n, Bootstrap *b,
                       double *objective)
{
    int64_t all = b->options.replicates;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_of(&b->options))
    for (int k = 0; k < n; k++) {
        Scratch s = scratch_of(w, scratch);
        Fit f;
        resample_draw(w->rows, (int)(k * all / n), s.weight, s.loss);
        objective[k] = fit_rows(w, &s, starts, &f) ? f.objective : INFINITY;
    }
    b->fits += n;
}

static int count_worse(const double *objective, const double *full, int n)
{
    int worse = 0;
    for (int k = 0; k < n; k++)
        worse += isfinite(full[k]) && !(objective[k] <= full[k] * (1 + warm_slack));
    return worse;
}

/* From how few starts some replicates end as well as from all. */
static void choose_starts(const Work *w, double *scratch, Bootstrap *b)
{
    double few[WARM_CHECKS], full[WARM_CHECKS], began = log_seconds();
    int n = b->options.replicates < WARM_CHECKS ? b->options.replicates : WARM_CHECKS;
    int all = w->fit->certificate.starts, rungs = sizeof few_starts / sizeof *few_starts;
    fit_checks(w, scratch, 1, n, b, few);
    double one = (log_seconds() - began) / n;
    tell(b, 0, one * (n * all + b->options.replicates + b->n_left_out));
    fit_checks(w, scratch, 0, n, b, full);
    b->warm_checked = n;
    b->warm_worse = count_worse(few, full, n);
    b->starts = b->warm_worse ? 0 : 1;
    for (int i = 1; i < rungs && !b->starts && few_starts[i] < all; i++) {
        fit_checks(w, scratch, few_starts[i], n, b, few);
        if (!count_worse(few, full, n)) b->starts = few_starts[i];
    }
    tell(b, 0, one * (b->starts ? b->starts : all) * (b->options.replicates + b->n_left_out));
}

static void fit_replicates(const Work *w, double *scratch, Bootstrap *b)
{
    int n = b->options.replicates, all = n + b->n_left_out, done = 0;
    double began = log_seconds();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads_of(&b->options))
    for (int r = 0; r < all; r++) {
        Scratch s = scratch_of(w, scratch);
        Fit f;
        int now;
        if (r < n) resample_draw(w->rows, r, s.weight, s.loss);
        else leave_out(w, r - n, &s);
        bool good = fit_rows(w, &s, b->starts, &f);
        keep(w, &s, good, &f, r < n ? &b->replicate[r] : &b->left_out[r - n]);
#pragma omp atomic capture
        now = ++done;
        if (omp_get_thread_num() == 0)
            tell(b, (double)now / all, (log_seconds() - began) / now * (all - now));
    }
    for (int r = 0; r < n; r++) {
        b->failed += !b->replicate[r].good;
        b->at_bound += b->replicate[r].good && b->replicate[r].bound;
    }
    b->fits += all;
}

static int run(const Resample *rows, Bootstrap *b, Err *e)
{
    const BootOptions *o = &b->options;
    int threads = threads_of(o);
    b->n_left_out = rows->table.rows < LEFT_OUT ? (int)rows->table.rows : LEFT_OUT;
    b->replicate = calloc((size_t)o->replicates, sizeof *b->replicate);
    b->left_out = calloc((size_t)b->n_left_out, sizeof *b->left_out);
    if (!b->replicate || !b->left_out)
        return err_set(e, "no memory for %d replicates", o->replicates);
    Work w = {rows, &b->fit, b->n_left_out};
    double *scratch = scratch_make(&w, threads, e);
    if (!scratch) return -1;
    choose_starts(&w, scratch, b);
    fit_replicates(&w, scratch, b);
    free(scratch);
    if (2 * b->failed <= o->replicates) return 0;
    err_set(e, "%d of %d replicates could not be fitted", b->failed, o->replicates);
    return err_hint(e, "%s", o->scheme == BOOT_CASES
                                 ? "few rows: resample residuals, or stratify"
                                 : "the law has more parameters than the rows can tell");
}

/* Without budgets: the largest cost of a row. */
static void fill_budgets(const Resample *r, BootOptions *o)
{
    double largest = 0;
    for (int64_t i = 0; i < r->table.rows; i++)
        largest = fmax(largest, run_cost(&r->table, &o->cost, i));
    if (o->budgets || !(largest > 0)) return;
    o->budget[0] = largest;
    o->budgets = 1;
}

int bootstrap_run(const RunTable *t, const double *weight, const Fit *fit, const BootOptions *o,
                  Bootstrap *b, Err *e)
{
    Resample rows = {0};
    *b = (Bootstrap){.options = *o, .fit = *fit};
    b->fit.options.first_shape = NULL;
    int rc = check_options(o, e);
    if (!rc) rc = resample_make(t, weight, fit, o, &rows, &b->linear, e);
    if (!rc) rc = run_noise(&rows.table, NULL, &b->noise, e);
    if (!rc) fill_budgets(&rows, &b->options);
    if (!rc) rc = run(&rows, b, e);
    if (!rc) rc = boot_targets(b, e);
    resample_end(&rows);
    return rc ? err_context(e, "bootstrap") : 0;
}

void bootstrap_clear(Bootstrap *b)
{
    free(b->replicate);
    free(b->left_out);
    b->replicate = b->left_out = NULL;
    b->n_left_out = 0;
}
