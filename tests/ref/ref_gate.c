/* tests/ref/ref_gate.c - the noisy gate and its balance; see ref.h.
 *
 * The backward writes every derivative out by the chain rule from CV2 = V / (m^2 + 1e-10) down.
 */
#include <math.h>
#include <stdlib.h>

#include "base/philox.h"
#include "tests/ref/ref.h"

static double softplus(double x) { return x > 30 ? x : log(1 + exp(x)); }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double spread(const RefGate *a, int64_t i) { return softplus(a->raw[i]) + 0.01; }

static double eps(const RefGate *a, int64_t n, int64_t e)
{
    PhiloxKey key = {.seed = a->seed, .purpose = RNG_GATE, .stream = a->layer};
    int64_t g = a->group0 + n / a->group_tokens;
    key.position = (uint64_t)a->step << 32 | (uint64_t)g;
    return philox_normal(&key, (uint32_t)(n % a->group_tokens * a->E + e));
}

void ref_gate_noise_fwd(const RefGate *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t e = 0; e < a->E; e++)
            a->noisy[n * a->E + e] =
                a->clean[n * a->E + e] + eps(a, n, e) * spread(a, n * a->E + e);
}

void ref_gate_noise_bwd(const RefGate *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t e = 0; e < a->E; e++) {
            int64_t i = n * a->E + e;
            a->draw[i] += a->dnoisy[i] * eps(a, n, e) * sigmoid(a->raw[i]);
        }
}

static bool chosen(const RefGate *a, int64_t n, int64_t e)
{
    for (int64_t i = n * a->k; i < (n + 1) * a->k; i++)
        if (a->first[i] == e) return true;
    return false;
}

/* Expert with the rank-th largest noisy logit of the token (0: the largest), lower index first. */
static int64_t ranked(const RefGate *a, int64_t n, int64_t rank)
{
    const double *z = a->noisy + n * a->E;
    for (int64_t e = 0; e < a->E; e++) {
        int64_t before = 0;
        for (int64_t i = 0; i < a->E; i++) before += z[i] > z[e] || (z[i] == z[e] && i < e);
        if (before == rank) return e;
    }
    return -1;
}

/* Expert whose noisy logit is t_e. */
static int64_t threshold(const RefGate *a, int64_t n, int64_t e)
{
    return ranked(a, n, chosen(a, n, e) ? a->k : a->k - 1);
}

static double margin(const RefGate *a, int64_t n, int64_t e)
{
    int64_t i = n * a->E + e;
    return (a->clean[i] - a->noisy[n * a->E + threshold(a, n, e)]) / spread(a, i);
}

/* Softmax over the chosen noisy logits. */
static double share(const RefGate *a, int64_t n, int64_t e)
{
    const double *z = a->noisy + n * a->E;
    double sum = 0;
    if (!chosen(a, n, e)) return 0;
    for (int64_t i = 0; i < a->E; i++)
        if (chosen(a, n, i)) sum += exp(z[i] - z[e]);
    return 1 / sum;
}

static double importance(const RefGate *a, int64_t g, int64_t e)
{
    double sum = 0;
    for (int64_t n = g * a->group_tokens; n < (g + 1) * a->group_tokens; n++)
        sum += share(a, n, e);
    return sum;
}

static double load(const RefGate *a, int64_t g, int64_t e)
{
    double sum = 0;
    for (int64_t n = g * a->group_tokens; n < (g + 1) * a->group_tokens; n++)
        sum += (1 + erf(margin(a, n, e) / sqrt(2))) / 2;
    return sum;
}

static double mean_of(const double *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += v[i] / (double)n;
    return sum;
}

static double variance_of(const double *v, int64_t n)
{
    double sum = 0, m = mean_of(v, n);
    for (int64_t i = 0; i < n; i++) sum += (v[i] - m) * (v[i] - m) / (double)(n - 1);
    return sum;
}

static double cv2(const double *v, int64_t n)
{
    return variance_of(v, n) / (mean_of(v, n) * mean_of(v, n) + 1e-10);
}

/* d cv2 / d v[e]: d variance = 2 (v_e - m) / (n - 1), d m = 1 / n. */
static double cv2_slope(const double *v, int64_t n, int64_t e)
{
    double m = mean_of(v, n), q = m * m + 1e-10;
    return 2 * (v[e] - m) / (double)(n - 1) / q -
           variance_of(v, n) / (q * q) * 2 * m / (double)n;
}

static double *table(const RefGate *a, double (*of)(const RefGate *, int64_t, int64_t))
{
    int64_t groups = a->N / a->group_tokens;
    double *x = malloc(sizeof *x * (size_t)(groups * a->E + 1));
    for (int64_t i = 0; i < groups * a->E; i++) x[i] = of(a, i / a->E, i % a->E);
    return x;
}

void ref_gate_cv_fwd(const RefGate *a)
{
    double *i = table(a, importance), *l = table(a, load);
    for (int64_t g = 0; g < a->N / a->group_tokens; g++)
        a->loss[g] = cv2(i + g * a->E, a->E) + cv2(l + g * a->E, a->E);
    free(i);
    free(l);
}

void ref_gate_cv_bwd(const RefGate *a)
{
    double *sums = table(a, importance), *loads = table(a, load);
    for (int64_t n = 0; n < a->N; n++) {
        int64_t g = n / a->group_tokens, row = n * a->E;
        for (int64_t e = 0; e < a->E; e++) {
            double slope = a->scale * cv2_slope(loads + g * a->E, a->E, e);
            double u = margin(a, n, e), s = spread(a, row + e);
            double du = slope * exp(-u * u / 2) / sqrt(2 * acos(-1));
            a->dclean[row + e] += du / s;
            a->dnoisy[row + threshold(a, n, e)] -= du / s;
            a->draw[row + e] -= du * u / s * sigmoid(a->raw[row + e]);
            for (int64_t i = 0; i < a->E; i++) { /* d share_i / d z_e = share_i (delta - share_e) */
                double jacobian = share(a, n, i) * ((i == e) - share(a, n, e));
                a->dnoisy[row + e] += a->scale * cv2_slope(sums + g * a->E, a->E, i) * jacobian;
            }
        }
    }
    free(sums);
    free(loads);
}
