/* device/cpu/route_bwd.c - routing, backward: dweight (N, k) -> dlogits (N, E).
 *
 * Through the weights and the scores, plus the balance loss, the z-loss and the entropy of the
 * forward pass. The choices themselves have no gradient. Called by the MoE layer of model/ after
 * combine_bwd.
 *
 * Letters: s scores, q = s / (sum of s) shares (softmax: q = s = p). A function L of the shares has
 *   softmax: dz_e = q_e (L_e - sum_i q_i L_i);  sigmoid: that times (1 - s_e), s' = s (1 - s),
 * with L_e = dL/dq_e. Here L_e = daux_e - entropy_scale log q_e: the balance loss, and dH/dq_e =
 * -(log q_e + 1) but for its constant, which drops out. The weights depend on the scores of the
 * experts in force: with t_j = s_j ds_j of choice j (choice_grad below)
 *   softmax: dz_e = [e = e_j] t_j - p_e sum_i t_i;  sigmoid: dz_e = [e = e_j] t_j (1 - s_e).
 * The z-loss has dz_e = z_scale 2 lse softmax_e for either kind.
 */
#include "device/cpu/rows.h"

typedef struct RouteGrad {
    const Routing *r;
    const RouteOpt *opt;
    const float *logits, *dweight;
    float *dlogits;
    float *daux; /* (Gr, E) d(balance loss) / d(share): aux_scale E f_e width_e / R */
    int64_t N, E, k, R;
} RouteGrad;

static void balance_grad(const RouteGrad *a, int64_t g)
{
    const float *given = a->opt->balance_f.data, *width = a->opt->balance_width.data;
    const int32_t *count = (const int32_t *)a->r->count.data + g * a->E;
    double R = (double)a->R, scale = a->opt->aux_scale * (double)a->E / R;
    for (int64_t e = 0; e < a->E; e++) {
        double f = given ? (double)given[e] : (double)count[e] / R;
        a->daux[g * a->E + e] = (float)(scale * f * (width ? (double)width[e] : 1.0));
    }
}

/* t_j = s_j ds_j, the part of the placed choice j: raw w_j dw_j; renormalised, with w_j = c s_j / S
 * and ds_j = (c dw_j - sum_i dw_i w_i) / S, w_j (dw_j - sum_i dw_i w_i / c), which never divides by
 * S. mean: that sum over c; 0 for raw weights. */
static inline float choice_grad(const RouteGrad *a, int64_t choice, float mean)
{
    const float *weight = a->r->weight.data;
    return weight[choice] * (a->dweight[choice] - mean);
}

static float choice_mean(const RouteGrad *a, int64_t n)
{
    const int32_t *expert = a->r->expert.data;
    const float *weight = a->r->weight.data;
    float mean = 0.0f;
    for (int64_t i = n * a->k; i < (n + 1) * a->k && a->opt->renorm; i++)
        if (expert[i] >= 0) mean += weight[i] * a->dweight[i];
    return mean / (float)a->opt->weight_scale;
}

/* dz (E) = L_e of the token; returns sum_i q_i L_i. share: q = share * s. */
static float share_loss(const RouteGrad *a, int64_t n, float share, float *dz)
{
    const float *s = (const float *)a->r->probs.data + n * a->E;
    const float *daux = a->daux + n / a->R * a->E, scale = (float)a->opt->entropy_scale;
    for (int64_t e = 0; e < a->E; e++) {
        float q = share * s[e];
        dz[e] = daux[e];
        if (scale != 0.0f && q > 0.0f) dz[e] -= scale * logf(q);
    }
    V16 sum = {0};
    for (int64_t e = 0; e < a->E; e += LANES)
        sum += v_get(s, DT_F32, e, a->E - e) * v_get(dz, DT_F32, e, a->E - e);
    return share * v_sum(sum);
}

static float largest(const float *x, int64_t n)
{
    float max = -INFINITY;
    for (int64_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

static void softmax_token(const RouteGrad *a, int64_t n, float *dz)
{
    const float *p = (const float *)a->r->probs.data + n * a->E, mean = choice_mean(a, n);
    const int32_t *expert = (const int32_t *)a->r->expert.data + n * a->k;
    float shift = -share_loss(a, n, 1.0f, dz);
    for (int64_t j = 0; j < a->k; j++)
        if (expert[j] >= 0) shift -= choice_grad(a, n * a->k + j, mean);
    if (a->opt->z_scale != 0.0) { /* lse = z_e - log p_e, exact enough at the largest p_e */
        float lse = largest(a->logits + n * a->E, a->E) - logf(largest(p, a->E));
        shift += (float)(a->opt->z_scale * 2.0) * lse;
    }
    for (int64_t e = 0; e < a->E; e += LANES)
        v_put(dz, DT_F32, e, a->E - e,
              v_get(p, DT_F32, e, a->E - e) * (v_get(dz, DT_F32, e, a->E - e) + shift));
    for (int64_t j = 0; j < a->k; j++)
        if (expert[j] >= 0) dz[expert[j]] += choice_grad(a, n * a->k + j, mean);
}

/* dz_e += z_scale 2 lse exp(z_e - lse). */
static void z_loss(const RouteGrad *a, int64_t n, float *dz)
{
    const float *z = a->logits + n * a->E, max = largest(z, a->E);
    float sum = 0.0f;
    for (int64_t e = 0; e < a->E; e++) sum += expf(z[e] - max);
    float factor = (float)(a->opt->z_scale * 2.0) * (max + logf(sum)) / sum;
    for (int64_t e = 0; e < a->E; e++) dz[e] += factor * expf(z[e] - max);
}

static void sigmoid_token(const RouteGrad *a, int64_t n, float *dz)
{
    const float *s = (const float *)a->r->probs.data + n * a->E, mean = choice_mean(a, n);
    const int32_t *expert = (const int32_t *)a->r->expert.data + n * a->k;
    float sum = 0.0f;
    for (int64_t e = 0; e < a->E; e++) sum += s[e];
    float share = sum > 0.0f ? 1.0f / sum : 0.0f, mixed = share_loss(a, n, share, dz);
    for (int64_t e = 0; e < a->E; e++) dz[e] = share * s[e] * (1.0f - s[e]) * (dz[e] - mixed);
    for (int64_t j = 0; j < a->k; j++)
        if (expert[j] >= 0)
            dz[expert[j]] += choice_grad(a, n * a->k + j, mean) * (1.0f - s[expert[j]]);
    if (a->opt->z_scale != 0.0) z_loss(a, n, dz);
}

int route_bwd_cpu(Device *d, Tensor dlogits, const Routing *r, Tensor dweight, Tensor logits,
                  const RouteOpt *opt)
{
    RouteGrad a = {.r = r, .opt = opt, .logits = logits.data, .dweight = dweight.data,
                   .dlogits = dlogits.data, .N = tensor_rows(logits), .E = tensor_cols(logits),
                   .k = tensor_cols(r->first), .R = opt->group_tokens};
    CHECK(a.R > 0 && a.N % a.R == 0, "%ld tokens in groups of %ld", (long)a.N, (long)a.R);
    int64_t Gr = a.N / a.R;
    a.daux = cpu_scratch(d, Gr * a.E * (int64_t)sizeof *a.daux);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (a.N * a.E > ROWS_SERIAL)
    for (int64_t g = 0; g < Gr; g++) balance_grad(&a, g);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (a.N * a.E > ROWS_SERIAL)
    for (int64_t n = 0; n < a.N; n++) {
        float *dz = a.dlogits + n * a.E;
        if (opt->score == SCORE_SIGMOID) sigmoid_token(&a, n, dz);
        else softmax_token(&a, n, dz);
    }
    return 0;
}
