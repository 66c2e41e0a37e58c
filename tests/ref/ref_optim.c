/* tests/ref/ref_optim.c - AdamW, Muon, rounding, norm and clipping; see ref.h. */
#include <math.h>
#include <stdlib.h>

#include "tests/ref/ref.h"

void ref_adamw(const RefAdamw *a)
{
    const AdamwOpt *o = &a->opt;
    const StepVars *s = &a->vars;
    for (int64_t i = 0; i < a->n; i++) {
        double g = a->grad[i] * s->grad_scale, lr = s->lr * o->lr_ratio;
        if (a->runs) lr *= a->each[i * a->runs / a->n];
        if (a->w_mag) {
            a->m_mag[i] = fabs(o->beta1 * a->m[i]) + fabs((1 - o->beta1) * g);
            a->v_mag[i] = fabs(o->beta2 * a->v[i]) + fabs((1 - o->beta2) * g * g);
            a->w_mag[i] = fabs(a->w[i]);
        }
        if (s->skip) continue;
        a->m[i] = o->beta1 * a->m[i] + (1 - o->beta1) * g;
        a->v[i] = o->beta2 * a->v[i] + (1 - o->beta2) * g * g;
        double below = sqrt(a->v[i] / s->bias2) + o->eps;
        if (a->w_mag)
            a->w_mag[i] += fabs(lr) * (a->m_mag[i] / s->bias1 / below +
                                       o->weight_decay * fabs(a->w[i]));
        a->w[i] -= lr * (a->m[i] / s->bias1 / below + o->weight_decay * a->w[i]);
    }
}

double ref_sqsum(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

/* How many standard deviations x lies above the mean of the last W values. */
static double z_of(const double *values, int64_t taken, int64_t W, double x)
{
    double mean = 0, variance = 0;
    for (int64_t i = taken - W; i < taken; i++) mean += values[i] / (double)W;
    for (int64_t i = taken - W; i < taken; i++)
        variance += (values[i] - mean) * (values[i] - mean) / (double)W;
    return variance > 0 ? (x - mean) / sqrt(variance) : x > mean ? INFINITY : 0;
}

bool ref_clip(StepVars *vars, double sum, const ClipOpt *opt, const double *loss,
              const double *norms, const double *losses, int64_t taken)
{
    double norm = sqrt(sum), mean = loss && loss[1] != 0 ? loss[0] / loss[1] : 0;
    vars->grad_norm = norm;
    vars->grad_scale = opt->max_norm > 0 && norm > opt->max_norm ? opt->max_norm / norm : 1;
    vars->z_norm = vars->z_loss = 0;
    vars->skip = isfinite(norm) && isfinite(mean) ? 0 : 1;
    if (vars->skip || opt->z_max == 0 || (loss && loss[1] == 0)) return false;
    if (taken >= opt->window) {
        vars->z_norm = z_of(norms, taken, opt->window, norm);
        vars->z_loss = z_of(losses, taken, opt->window, mean);
        vars->skip = vars->z_norm > opt->z_max ? 2 : vars->z_loss > opt->z_max ? 3 : 0;
    }
    return true;
}

/* ---- Rounding ---------------------------------------------------------------------------------*/

double ref_round_random(double x, uint32_t bits)
{
    if (x == 0 || !isfinite(x)) return x;
    int exponent;
    frexp(x, &exponent); /* |x| = f 2^exponent, f in [0.5, 1) */
    if (exponent < -125) exponent = -125; /* below, steps of bf16 are as at 2^-126 */
    double step = ldexp(1, exponent - 8), steps = floor(fabs(x) / step + bits / 65536.0);
    return copysign(steps * step, x);
}

bool ref_rounds_to(double got, double x, double error, uint32_t bits)
{
    double low = ref_round_random(x - error, bits), high = ref_round_random(x + error, bits);
    return isnan(x) ? isnan(got) : low <= got && got <= high; /* the rounding is monotone */
}

/* ---- Muon -------------------------------------------------------------------------------------*/

/* c (m, n) = a (m, k) b (k, n), b stored (n, k) if trans. */
static void product(double *c, const double *a, const double *b, int64_t m, int64_t n, int64_t k,
                    bool trans)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a[i * k + l] * (trans ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = sum;
        }
}

/* x (A, B) becomes a x + (b G + c G^2) x, five times, from x / (|x| + 1e-7). */
static void newton_schulz(double *x, int64_t A, int64_t B)
{
    double *G = malloc((size_t)(A * A) * sizeof *G), *GG = malloc((size_t)(A * A) * sizeof *G);
    double *y = malloc((size_t)(A * B) * sizeof *y), norm = 0;
    for (int64_t i = 0; i < A * B; i++) norm += x[i] * x[i];
    for (int64_t i = 0; i < A * B; i++) x[i] /= sqrt(norm) + 1e-7;
    for (int step = 0; step < 5; step++) {
        product(G, x, x, A, A, B, true);
        product(GG, G, G, A, A, A, false);
        for (int64_t i = 0; i < A * A; i++) GG[i] = -4.7750 * G[i] + 2.0315 * GG[i];
        product(y, GG, x, A, B, A, false);
        for (int64_t i = 0; i < A * B; i++) x[i] = 3.4445 * x[i] + y[i];
    }
    free(G);
    free(GG);
    free(y);
}

static void muon_matrix(const RefMuon *a, int64_t matrix)
{
    int64_t size = a->A * a->B, first = matrix * size;
    double *o = a->o + first, *m = a->m + first, *w = a->w + first, rms = 0;
    double lr = a->vars.lr * a->opt.lr_ratio, mu = a->opt.momentum;
    if (a->runs) lr *= a->each[matrix * a->runs / a->n];
    for (int64_t i = 0; i < size; i++) {
        double g = a->grad[first + i] * a->vars.grad_scale;
        if (a->m_mag) a->m_mag[first + i] = fabs(mu * m[i]) + fabs(g);
        m[i] = mu * m[i] + g;
        o[i] = g + mu * m[i];
    }
    newton_schulz(o, a->A, a->B);
    for (int64_t i = 0; i < size; i++) rms += o[i] * o[i] / (double)size;
    double scale = 0.2 * sqrt((double)(a->A > a->B ? a->A : a->B));
    for (int64_t i = 0; i < size; i++) {
        double decay = a->opt.weight_decay;
        if (a->w_mag)
            a->w_mag[first + i] = fabs(w[i]) + fabs(lr) * (scale * fmax(fabs(o[i]), sqrt(rms)) +
                                                           decay * fabs(w[i]));
        w[i] -= lr * (scale * o[i] + decay * w[i]);
    }
}

void ref_muon(const RefMuon *a)
{
    for (int64_t i = 0; i < a->n && !a->vars.skip; i++) muon_matrix(a, i);
}
