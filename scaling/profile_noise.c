/* scaling/profile_noise.c - see profile_noise.h. */
#include "scaling/profile_noise.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "base/philox.h"
#include "scaling/bootstrap.h"

enum { QUANTITIES = 4 }; /* ln N_opt, ln D_opt, their exponents */

typedef struct Draw {
    const RunTable *t;
    const double *weight, *sd;
    ProfileMethod method;
    const ProfileNoiseOptions *o;
} Draw;

/* out: (QUANTITIES); NaN: no power law. loss: (rows) room. */
static void one(const Draw *d, int replicate, double *loss, double *out)
{
    PhiloxKey key = {.seed = d->o->seed, .purpose = RNG_BOOTSTRAP,
                     .stream = (uint32_t)(BOOT_SCHEMES + d->method),
                     .position = (uint64_t)replicate};
    RunTable t = *d->t; /* its other columns, shared */
    Profile p;
    Err ignored = {0};
    for (int64_t i = 0; i < t.rows; i++)
        loss[i] = run_value(d->t, RUN_LOSS, i) + d->sd[i] * philox_normal(&key, (uint32_t)i);
    t.column[RUN_LOSS] = loss;
    for (int k = 0; k < QUANTITIES; k++) out[k] = NAN;
    if (profile_fit(&t, d->weight, d->method, PROFILE_TOLERANCE, &p, &ignored)) return;
    out[0] = log(power_law_at(&p.n_opt, d->o->C));
    out[1] = log(power_law_at(&p.d_opt, d->o->C));
    out[2] = p.n_opt.exponent;
    out[3] = p.d_opt.exponent;
}

static Interval percentiles(double *x, int n, double level)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(x[i])) x[kept++] = x[i];
    if (kept < 2 || n - kept > (1 - level) / 2 * n) return (Interval){NAN, NAN};
    sort_doubles(x, kept);
    return interval_percentile(x, kept, level);
}

static int draw_all(const Draw *d, ProfileNoise *out, Err *e)
{
    size_t R = (size_t)d->o->replicates, rows = (size_t)d->t->rows + 1;
    int threads = d->o->threads > 0 ? d->o->threads : omp_get_max_threads();
    double *value = malloc((R * (QUANTITIES + 1) + rows * (size_t)threads) * sizeof *value);
    if (!value) return err_set(e, "no memory for %d replicates", d->o->replicates);
    double *work = value + R * QUANTITIES, *loss = work + R;
    Interval i[QUANTITIES];
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int r = 0; r < d->o->replicates; r++)
        one(d, r, loss + rows * (size_t)omp_get_thread_num(), value + (size_t)r * QUANTITIES);
    for (size_t k = 0; k < QUANTITIES; k++) {
        for (size_t r = 0; r < R; r++) work[r] = value[r * QUANTITIES + k];
        i[k] = percentiles(work, d->o->replicates, d->o->level);
    }
    for (size_t r = 0; r < R; r++) out->missing += !isfinite(value[r * QUANTITIES]);
    out->n_opt = (Interval){exp(i[0].low), exp(i[0].high)};
    out->d_opt = (Interval){exp(i[1].low), exp(i[1].high)};
    out->n_exponent = i[2];
    out->d_exponent = i[3];
    free(value);
    return 0;
}

int profile_noise(const RunTable *t, const double *weight, ProfileMethod method,
                  const ProfileNoiseOptions *o, ProfileNoise *out, Err *e)
{
    double *sd = malloc(((size_t)t->rows + 1) * sizeof *sd);
    *out = (ProfileNoise){0};
    if (!sd) return err_set(e, "no memory for %lld runs", (long long)t->rows);
    int rc = run_noise_sd(t, sd, e);
    for (int64_t i = 0; !rc && i < t->rows; i++) out->sd += sd[i] * sd[i] / (double)t->rows;
    out->sd = sqrt(out->sd);
    Draw d = {t, weight, sd, method, o};
    if (!rc) rc = draw_all(&d, out, e);
    free(sd);
    return rc;
}
