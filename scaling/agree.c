/* scaling/agree.c - see agree.h. */
#include "scaling/agree.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/resample.h"

typedef struct Agreement {
    const AgreeOptions *o;
    const Resample *rows;
    double near[AGREE_METHODS]; /* best N of a law on the runs themselves; NaN: none */
} Agreement;

/* ln of a law's best N on t; NaN: none. */
static double by_law(const Agreement *a, const RunTable *t, int m)
{
    const AgreeOptions *o = a->o;
    const Fit *whole = o->law[m];
    FitOptions warm = whole->options;
    Optimum best;
    Err ignored = {0};
    Fit f;
    warm.threads = warm.starts = 1;
    warm.first_shape = whole->param + whole->law->n_terms;
    if (fit_law(t, whole->law, o->weight[m], &warm, &f, &ignored) ||
        optimum_near(&f, &o->cost, o->C, &o->at, a->near[m], &best, &ignored))
        return NAN;
    return log(best.N);
}

static double by_curves(const Agreement *a, const RunTable *t, int m)
{
    Profile p;
    Err ignored = {0};
    ProfileMethod method = m == AGREE_AKIMA ? PROFILE_AKIMA : PROFILE_PARABOLA;
    if (profile_fit(t, a->o->weight[m], method, PROFILE_TOLERANCE, &p, &ignored)) return NAN;
    return log(power_law_at(&p.n_opt, a->o->C));
}

static double answer_of(const Agreement *a, const RunTable *t, int m)
{
    return m <= AGREE_HUBER ? by_law(a, t, m) : by_curves(a, t, m);
}

/* Distances of one made-up table: (AGREE_METHODS). loss: (rows) room. */
static void one(const Agreement *a, int replicate, double *loss, double *weight, double *out)
{
    const AgreeOptions *o = a->o;
    RunTable t = a->rows->table; /* its other columns, shared */
    resample_draw(a->rows, replicate, weight, loss);
    t.column[RUN_LOSS] = loss;
    double first = answer_of(a, &t, o->first);
    for (int m = 0; m < AGREE_METHODS; m++)
        out[m] = o->asked[m] && m != (int)o->first ? answer_of(a, &t, m) - first : NAN;
}

static void find_near(Agreement *a)
{
    const AgreeOptions *o = a->o;
    for (int m = 0; m < AGREE_METHODS; m++) {
        Optimum best;
        Err ignored = {0};
        bool found = m <= AGREE_HUBER && o->law[m] &&
                     !optimum_find(o->law[m], &o->cost, o->C, &o->at, &best, &ignored);
        a->near[m] = found ? best.N : NAN;
    }
}

/* Half width about the median; distances that are not there count as infinite. x: (n), spent. */
static double half_width(double *x, int n, double level)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(x[i])) x[kept++] = x[i];
    if (kept < n * level) return INFINITY;
    sort_doubles(x, kept);
    double middle = quantile_sorted(x, kept, 0.5);
    for (int i = 0; i < kept; i++) x[i] = fabs(x[i] - middle);
    for (int i = kept; i < n; i++) x[i] = INFINITY;
    sort_doubles(x, n);
    return quantile_sorted(x, n, level);
}

static int run(const Agreement *a, double *noise, Err *e)
{
    const AgreeOptions *o = a->o;
    size_t n = (size_t)a->rows->table.rows + 1, R = AGREE_REPLICATES;
    int threads = o->threads > 0 ? o->threads : omp_get_max_threads();
    double *far = malloc((R * (AGREE_METHODS + 1) + 2 * n * (size_t)threads) * sizeof *far);
    if (!far) return err_set(e, "no memory for %d made-up tables", AGREE_REPLICATES);
    double *work = far + R * AGREE_METHODS, *rows = work + R;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int r = 0; r < AGREE_REPLICATES; r++) {
        double *mine = rows + 2 * n * (size_t)omp_get_thread_num();
        one(a, r, mine, mine + n, far + (size_t)r * AGREE_METHODS);
    }
    for (int m = 0; m < AGREE_METHODS; m++) {
        noise[m] = NAN;
        if (!o->asked[m] || m == (int)o->first) continue;
        for (size_t r = 0; r < R; r++) work[r] = far[r * AGREE_METHODS + (size_t)m];
        noise[m] = half_width(work, AGREE_REPLICATES, o->level);
    }
    free(far);
    return 0;
}

int methods_agree(const RunTable *t, const AgreeOptions *o, double *noise, Err *e)
{
    const Fit *law = o->first <= AGREE_HUBER ? o->law[o->first] : NULL;
    int by = law ? (int)o->first : o->law[AGREE_VARPRO] ? AGREE_VARPRO : AGREE_HUBER;
    BootOptions b = boot_defaults();
    Resample rows;
    Linear linear;
    for (int m = 0; m <= AGREE_HUBER; m++)
        CHECK(!(o->asked[m] || m == (int)o->first) || o->law[m], "method %d has no fit", m);
    if (!o->law[by]) return err_set(e, "no law is there to make runs from");
    b.scheme = o->scheme;
    b.seed = o->seed;
    int rc = resample_make(t, o->weight[by], o->law[by], &b, &rows, &linear, e);
    Agreement a = {.o = o, .rows = &rows};
    find_near(&a);
    if (!rc) rc = run(&a, noise, e);
    resample_end(&rows);
    return rc;
}
