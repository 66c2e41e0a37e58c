/* scaling/resample.c - see resample.h; budgets and noise of runs (bootstrap.h). */
#include "scaling/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"

double run_cost(const RunTable *t, const CostLaw *cost, int64_t row)
{
    return cost_law_per_token(cost, run_size(t, row)) * run_value(t, RUN_D, row);
}

/* ---- Groups of rows -------------------------------------------------------------------------- */

static double budget_of(const RunTable *t, int64_t row)
{
    double budget = run_value(t, RUN_BUDGET, row), C = run_value(t, RUN_C, row);
    if (budget > 0) return budget;
    return C > 0 ? C : 6 * run_size(t, row) * run_value(t, RUN_D, row);
}

typedef struct Keyed {
    double key;
    int64_t row;
} Keyed;

/* Rising; NaN last; ties by row. */
static int compare_keyed(const void *a, const void *b)
{
    const Keyed *x = a, *y = b;
    if (isnan(x->key) != isnan(y->key)) return isnan(x->key) ? 1 : -1;
    if (x->key < y->key || x->key > y->key) return x->key < y->key ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

int run_budget_groups(const RunTable *t, int *group)
{
    Keyed *k = malloc((size_t)(t->rows + 1) * sizeof *k);
    int groups = 0;
    if (!k) return -1;
    for (int64_t i = 0; i < t->rows; i++) k[i] = (Keyed){budget_of(t, i), i};
    qsort(k, (size_t)t->rows, sizeof *k, compare_keyed);
    for (int64_t i = 0; i < t->rows; i++) {
        if (i == 0 || k[i].key > 1.05 * k[i - 1].key || isnan(k[i].key) != isnan(k[i - 1].key))
            groups++;
        group[k[i].row] = groups - 1;
    }
    free(k);
    return groups;
}

/* ---- Noise ----------------------------------------------------------------------------------- */

/* Order of rows by everything but what differs between repetitions of a run; then by seed, loss. */
static int compare_runs(const RunTable *t, int64_t a, int64_t b, bool whole)
{
    for (int c = 0; c < RUN_COLUMNS; c++) {
        if (!t->column[c] || c == RUN_LOSS || c == RUN_SEED || c == RUN_NOISE) continue;
        int order = memcmp(&t->column[c][a], &t->column[c][b], sizeof(double));
        if (order) return order;
    }
    if (!whole) return 0;
    int order = t->column[RUN_SEED]
                    ? memcmp(&t->column[RUN_SEED][a], &t->column[RUN_SEED][b], sizeof(double)) : 0;
    return order ? order
                 : memcmp(&t->column[RUN_LOSS][a], &t->column[RUN_LOSS][b], sizeof(double));
}

static int compare_index(const void *a, const void *b, void *t)
{
    return compare_runs(t, *(const int64_t *)a, *(const int64_t *)b, true);
}

/* Adds a group of repetitions, index[0 .. n): sum of squares about its mean, degrees of freedom.
 * Rows equal to the last bit are copies of one run. */
static void add_group(const RunTable *t, const int64_t *index, int64_t n, RunNoise *out)
{
    double mean = 0, square = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i > 0 && !compare_runs(t, index[i - 1], index[i], true)) continue;
        double y = log(t->column[RUN_LOSS][index[i]]), d = y - mean;
        kept++;
        mean += d / (double)kept;
        square += d * (y - mean);
    }
    if (kept < 2) return;
    out->groups++;
    out->df += (double)(kept - 1);
    out->sd += square;
}

int run_noise(const RunTable *t, const double *weight, RunNoise *out, Err *e)
{
    int64_t n = 0, *index = malloc((size_t)(t->rows + 1) * sizeof *index);
    *out = (RunNoise){0};
    if (!index) return err_set(e, "no memory for %ld rows", (long)t->rows);
    for (int64_t i = 0; i < t->rows; i++) {
        double L = run_value(t, RUN_LOSS, i);
        if ((weight && !(weight[i] > 0)) || !(L > 0)) continue;
        index[n++] = i;
        out->known += run_value(t, RUN_NOISE, i) > 0;
    }
    qsort_r(index, (size_t)n, sizeof *index, compare_index, (void *)(uintptr_t)t);
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && !compare_runs(t, index[i], index[end], false);) end++;
        add_group(t, index + i, end - i, out);
    }
    free(index);
    out->sd = out->df > 0 ? sqrt(out->sd / out->df) : NAN;
    return 0;
}

int run_noise_sd(const RunTable *t, double *sd, Err *e)
{
    RunNoise pooled;
    if (run_noise(t, NULL, &pooled, e)) return -1;
    for (int64_t i = 0; i < t->rows; i++) {
        double known = run_value(t, RUN_NOISE, i);
        sd[i] = known > 0 ? known : pooled.sd * run_value(t, RUN_LOSS, i);
        if (sd[i] > 0) continue;
        err_set(e, "%s: no noise is known of the run in line %lld", t->source,
                (long long)t->line[i]);
        return err_hint(e, "give a column noise, or runs that differ by their seed alone");
    }
    return 0;
}

int run_noise_weights(const RunTable *t, bool of_log, double *weight, Err *e)
{
    double sum = 0;
    if (run_noise_sd(t, weight, e)) return -1;
    for (int64_t i = 0; i < t->rows; i++) {
        double sd = of_log ? weight[i] / run_value(t, RUN_LOSS, i) : weight[i];
        weight[i] = 1 / (sd * sd);
        sum += weight[i];
    }
    for (int64_t i = 0; i < t->rows; i++) weight[i] *= (double)t->rows / sum;
    return 0;
}

/* ---- The working copy ------------------------------------------------------------------------ */

/* Rows of positive weight, sorted, and their weights. */
static int copy_rows(const RunTable *t, const double *weight, Resample *r, Err *e)
{
    unsigned char *keep = malloc((size_t)t->rows + 1);
    double *kept = malloc((size_t)(t->rows + 1) * sizeof *kept);
    int rc = keep && kept ? 0 : err_set(e, "no memory for %ld rows", (long)t->rows);
    int64_t n = 0;
    for (int64_t i = 0; !rc && i < t->rows; i++) {
        keep[i] = !weight || weight[i] > 0;
        if (keep[i]) kept[n++] = weight ? weight[i] : 1;
    }
    if (!rc) rc = run_table_select(&r->table, t, keep, e);
    if (!rc) {
        /* Sorting carries a row's line along: for a while it is the row's number. */
        for (int64_t i = 0; i < n; i++) r->table.line[i] = i;
        run_table_sort(&r->table);
        r->weight = malloc((size_t)(n + 1) * sizeof *r->weight);
        if (!r->weight) rc = err_set(e, "no memory for %ld rows", (long)n);
        for (int64_t i = 0; !rc && i < n; i++) r->weight[i] = kept[r->table.line[i]];
    }
    free(keep);
    free(kept);
    return rc;
}

static int group_rows(Resample *r, Err *e)
{
    int n = (int)r->table.rows, at = 0;
    r->groups = run_budget_groups(&r->table, r->group);
    r->start = r->groups < 0 ? NULL : malloc((size_t)(r->groups + 1) * sizeof *r->start);
    if (!r->start) return err_set(e, "no memory for %d rows", n);
    for (int g = 0; g < r->groups; g++) {
        r->start[g] = at;
        for (int i = 0; i < n; i++)
            if (r->group[i] == g) r->order[at++] = i;
    }
    r->start[r->groups] = at;
    return 0;
}

static int compare_size(const void *a, const void *b)
{
    double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
    return (x < y) - (x > y);
}

/* From each row's residual and leverage to those that are drawn from: see resample.h. */
static void make_pool(const Fit *f, const double *leverage, int moved, Resample *r)
{
    int n = (int)r->table.rows;
    double sum = 0, total = 0;
    r->residuals = n;
    if (f->options.method == FIT_HUBER) {
        qsort(r->residual, (size_t)n, sizeof *r->residual, compare_size);
        if (n > 2 * moved) r->residuals = n - moved;
        return;
    }
    for (int i = 0; i < n; i++) {
        r->residual[i] /= sqrt(1 - fmin(leverage[i], 0.99));
        sum += r->weight[i] * r->residual[i];
        total += r->weight[i];
    }
    for (int i = 0; i < n; i++) r->residual[i] -= sum / total;
}

/* Model, residuals and noise of each row. */
static void measure(const Fit *f, const RunNoise *noise, Resample *r, Linear *linear)
{
    int64_t n = r->table.rows;
    double *leverage = r->sd; /* for a while */
    linear_of_rows(&r->table, r->weight, f, n, linear, leverage);
    for (int64_t i = 0; i < n; i++) {
        LawPoint p = law_point(&r->table, i);
        r->model[i] = law_log_gradient(f->law, f->param, &p, NULL);
        r->residual[i] = log(r->table.column[RUN_LOSS][i]) - r->model[i];
    }
    make_pool(f, leverage, isnan(linear->df) ? 0 : (int)(n - (int64_t)linear->df), r);
    for (int64_t i = 0; i < n; i++) {
        double known = run_value(&r->table, RUN_NOISE, i);
        r->sd[i] = known > 0 ? known / exp(r->model[i]) : noise->sd;
    }
}

static int check_noise(const Resample *r, Err *e)
{
    for (int64_t i = 0; i < r->table.rows; i++) {
        if (r->sd[i] > 0) continue;
        err_set(e, "scheme \"noise\": no noise is known of row %ld", (long)i + 1);
        return err_hint(e, "give a column of it, or rows that differ by their seed alone");
    }
    return 0;
}

/* Draws within budgets differ from the runs, and from draws of all of them. */
static int check_strata(const Resample *r, Err *e)
{
    if (r->groups > 1 && r->groups < r->table.rows) return 0;
    if (r->groups > 1) {
        err_set(e, "cases within budgets: each of the %d runs has a budget of its own, and every "
                "draw is the runs as they are", r->groups);
        return err_hint(e, "runs of one budget have one budget or C, within 5 %%; or draw cases");
    }
    err_set(e, "cases within budgets: all runs are of one budget");
    return err_hint(e, "cases are drawn in the same way");
}

int resample_make(const RunTable *t, const double *weight, const Fit *f, const BootOptions *o,
                  Resample *r, Linear *linear, Err *e)
{
    *r = (Resample){.scheme = o->scheme, .stratified = o->stratified, .seed = o->seed};
    if (copy_rows(t, weight, r, e)) return -1;
    size_t n = (size_t)r->table.rows + 1;
    r->model = malloc(n * sizeof *r->model);
    r->residual = malloc(n * sizeof *r->residual);
    r->sd = malloc(n * sizeof *r->sd);
    r->group = malloc(n * sizeof *r->group);
    r->order = malloc(n * sizeof *r->order);
    if (!r->model || !r->residual || !r->sd || !r->group || !r->order)
        return err_set(e, "no memory for %ld rows", (long)r->table.rows);
    if (group_rows(r, e)) return -1;
    RunNoise noise;
    if (run_noise(&r->table, NULL, &noise, e)) return -1;
    measure(f, &noise, r, linear);
    if (o->scheme == BOOT_CASES && o->stratified) return check_strata(r, e);
    return o->scheme == BOOT_NOISE ? check_noise(r, e) : 0;
}

void resample_end(Resample *r)
{
    run_table_clear(&r->table);
    free(r->weight);
    free(r->model);
    free(r->residual);
    free(r->sd);
    free(r->group);
    free(r->order);
    free(r->start);
    *r = (Resample){0};
}

/* ---- Draws ----------------------------------------------------------------------------------- */

/* Draw number i, below n. */
static int draw_below(const PhiloxKey *key, int64_t i, int n)
{
    return (int)((uint64_t)philox_u32(key, (uint64_t)i) * (uint64_t)n >> 32);
}

static void draw_cases(const Resample *r, const PhiloxKey *key, double *weight)
{
    int n = (int)r->table.rows;
    for (int i = 0; i < n; i++) weight[i] = 0;
    for (int g = 0; g < r->groups; g++) {
        int first = r->start[g], size = r->start[g + 1] - first;
        for (int i = first; i < first + size; i++) {
            int row = r->stratified ? r->order[first + draw_below(key, i, size)]
                                    : draw_below(key, i, n);
            weight[row] += r->weight[row];
        }
    }
}

void resample_draw(const Resample *r, int replicate, double *weight, double *loss)
{
    PhiloxKey key = {.seed = r->seed, .purpose = RNG_BOOTSTRAP, .stream = (uint32_t)r->scheme,
                     .position = (uint64_t)replicate};
    int n = (int)r->table.rows;
    memcpy(weight, r->weight, (size_t)n * sizeof *weight);
    memcpy(loss, r->table.column[RUN_LOSS], (size_t)n * sizeof *loss);
    if (r->scheme == BOOT_CASES) draw_cases(r, &key, weight);
    for (int i = 0; i < n && r->scheme == BOOT_RESIDUALS; i++)
        loss[i] = exp(r->model[i] + r->residual[draw_below(&key, i, r->residuals)]);
    for (int i = 0; i < n && r->scheme == BOOT_NOISE; i++)
        loss[i] = exp(r->model[i] + r->sd[i] * philox_normal(&key, (uint32_t)i));
}
