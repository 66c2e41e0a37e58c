/* device/cpu/gate_cv.c - balance of a noisy gate: squared coefficients of variation of importance
 * and smooth load (Shazeer et al. 2017, appendix A), per routing group.
 *
 * Forward: v = importance, load (E) summed over the group's tokens in order, in double;
 *   l = CV2(importance) + CV2(load), CV2(v) = var / (mean^2 + 1e-10), var = sum (v - mean)^2/(E-1).
 * Backward, with m = mean, q = m^2 + 1e-10:
 *   dCV2/dv_e = 2 (v_e - m) / ((E - 1) q) - var 2 m / (E q^2);
 *   importance: g = softmax over the chosen noisy logits, dnoisy_j += g_j (dI_j - sum_i g_i dI_i);
 *   load: u = (clean_e - t_e) / s_e, a = dL_e phi(u) / s_e: dclean_e += a, dnoisy at t_e -= a,
 *   draw_e -= a u sigmoid(raw_e).
 * Called through dev_gate_cv_fwd and dev_gate_cv_bwd beside the routing of the MoE layer.
 */
#pragma GCC optimize("fp-contract=off")

#include <omp.h>

#include "device/cpu/gate.h"
#include "device/cpu/rows.h"

typedef struct Cv {
    const GateCv *t;
    int64_t N, E, k, R, Gr;
    double *importance, *load; /* (Gr, E); backward: then their gradients */
    double *share;             /* (threads, E) a token's g_j at its experts, 0 elsewhere */
    double *dnoisy;            /* (threads, E) */
} Cv;

static Cv cv_begin(Device *d, const GateCv *t, const RouteOpt *opt)
{
    Cv a = {.t = t, .N = tensor_rows(t->noisy), .E = tensor_cols(t->noisy),
            .k = tensor_cols(t->first), .R = opt->group_tokens};
    a.Gr = a.N / a.R;
    int64_t table = a.Gr * a.E, row = d->threads * a.E;
    a.importance = cpu_scratch(d, 2 * (table + row) * (int64_t)sizeof(double));
    a.load = a.importance + table;
    a.share = a.load + table;
    a.dnoisy = a.share + row;
    return a;
}

typedef struct Thresholds {
    int64_t chosen; /* expert whose noisy logit a chosen one must beat: best of the others */
    int64_t other;  /* what the others must beat: the last one chosen */
} Thresholds;

/* share (E) = softmax over the token's chosen noisy logits, 0 elsewhere. */
static Thresholds token_gate(const Cv *a, int64_t n, double *share)
{
    const float *noisy = (const float *)a->t->noisy.data + n * a->E;
    const int32_t *first = (const int32_t *)a->t->first.data + n * a->k;
    Thresholds t = {-1, -1};
    double max = -INFINITY, sum = 0.0;
    for (int64_t e = 0; e < a->E; e++) share[e] = -1.0;
    for (int64_t j = 0; j < a->k; j++) {
        if (first[j] < 0) continue;
        t.other = first[j];
        share[first[j]] = 0.0;
        max = fmax(max, (double)noisy[first[j]]);
    }
    for (int64_t e = 0; e < a->E; e++) {
        bool chosen = share[e] >= 0.0;
        if (!chosen && (t.chosen < 0 || noisy[e] > noisy[t.chosen])) t.chosen = e;
        share[e] = chosen ? exp((double)noisy[e] - max) : 0.0;
        sum += share[e];
    }
    for (int64_t e = 0; e < a->E && t.other >= 0; e++) share[e] /= sum;
    return t;
}

static inline bool is_chosen(const Cv *a, int64_t n, int64_t e)
{
    const int32_t *first = (const int32_t *)a->t->first.data + n * a->k;
    for (int64_t j = 0; j < a->k; j++)
        if (first[j] == e) return true;
    return false;
}

typedef struct Margin {
    int64_t at;    /* expert of the threshold */
    double s, u;   /* scale of the noise; distance to the threshold in it */
} Margin;

static Margin margin_of(const Cv *a, int64_t n, int64_t e, Thresholds t)
{
    const float *noisy = (const float *)a->t->noisy.data + n * a->E;
    double clean = (double)((const float *)a->t->clean.data)[n * a->E + e];
    Margin m = {.at = is_chosen(a, n, e) ? t.chosen : t.other,
                .s = gate_spread((double)((const float *)a->t->raw.data)[n * a->E + e])};
    m.u = (clean - (double)noisy[m.at]) / m.s;
    return m;
}

static void group_sums(const Cv *a, int64_t g)
{
    double *importance = a->importance + g * a->E, *load = a->load + g * a->E;
    double *share = a->share + omp_get_thread_num() * a->E;
    for (int64_t e = 0; e < a->E; e++) importance[e] = load[e] = 0.0;
    for (int64_t n = g * a->R; n < (g + 1) * a->R; n++) {
        Thresholds t = token_gate(a, n, share);
        if (t.other < 0) continue; /* a token without choices */
        for (int64_t e = 0; e < a->E; e++) {
            importance[e] += share[e];
            load[e] += 0.5 * erfc(-margin_of(a, n, e, t).u * 0.70710678118654752);
        }
    }
}

typedef struct Spread {
    double mean, variance, square; /* square = mean^2 + 1e-10 */
} Spread;

static Spread spread_of(const double *v, int64_t E)
{
    Spread s = {0};
    for (int64_t e = 0; e < E; e++) s.mean += v[e];
    s.mean /= (double)E;
    for (int64_t e = 0; e < E; e++) s.variance += (v[e] - s.mean) * (v[e] - s.mean);
    s.variance /= (double)(E - 1);
    s.square = s.mean * s.mean + 1e-10;
    return s;
}

/* v becomes scale dCV2/dv. */
static void spread_bwd(double *v, int64_t E, double scale)
{
    Spread s = spread_of(v, E);
    double common = s.variance * 2.0 * s.mean / ((double)E * s.square * s.square);
    for (int64_t e = 0; e < E; e++)
        v[e] = scale * (2.0 * (v[e] - s.mean) / ((double)(E - 1) * s.square) - common);
}

int gate_cv_fwd_cpu(Device *d, const GateCv *t, const RouteOpt *opt)
{
    Cv a = cv_begin(d, t, opt);
    float *loss = t->loss.data;
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (int64_t g = 0; g < a.Gr; g++) {
        group_sums(&a, g);
        Spread i = spread_of(a.importance + g * a.E, a.E), l = spread_of(a.load + g * a.E, a.E);
        loss[g] = (float)(i.variance / i.square + l.variance / l.square);
    }
    return 0;
}

static inline void add(Tensor to, int64_t i, double x)
{
    float *y = (float *)to.data + i;
    *y = (float)((double)*y + x);
}

static void token_bwd(const Cv *a, int64_t n)
{
    const double *dimportance = a->importance + n / a->R * a->E, *dload = a->load + n / a->R * a->E;
    double *share = a->share + omp_get_thread_num() * a->E, mixed = 0.0;
    double *dnoisy = a->dnoisy + omp_get_thread_num() * a->E;
    Thresholds t = token_gate(a, n, share);
    if (t.other < 0) return;
    for (int64_t e = 0; e < a->E; e++) mixed += share[e] * dimportance[e];
    for (int64_t e = 0; e < a->E; e++) dnoisy[e] = share[e] * (dimportance[e] - mixed);
    for (int64_t e = 0; e < a->E; e++) {
        Margin m = margin_of(a, n, e, t);
        double density = exp(-0.5 * m.u * m.u) * 0.39894228040143268;
        double part = dload[e] * density / m.s;
        double raw = (double)((const float *)a->t->raw.data)[n * a->E + e];
        dnoisy[m.at] -= part;
        add(a->t->dclean, n * a->E + e, part);
        add(a->t->draw, n * a->E + e, -part * m.u * gate_slope(raw));
    }
    for (int64_t e = 0; e < a->E; e++) add(a->t->dnoisy, n * a->E + e, dnoisy[e]);
}

int gate_cv_bwd_cpu(Device *d, const GateCv *t, double scale, const RouteOpt *opt)
{
    Cv a = cv_begin(d, t, opt);
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (int64_t g = 0; g < a.Gr; g++) {
        group_sums(&a, g);
        spread_bwd(a.importance + g * a.E, a.E, scale);
        spread_bwd(a.load + g * a.E, a.E, scale);
    }
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (int64_t n = 0; n < a.N; n++) token_bwd(&a, n);
    return 0;
}
