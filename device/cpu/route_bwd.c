/* device/cpu/route_bwd.c - routing, backward: dweight (N, k) -> dlogits (N, E).
 *
 * Through the weights and the softmax, plus the balance loss and the z-loss of the forward pass.
 * The choices themselves have no gradient. Called by the MoE layer of model/ after combine_bwd.
 */
#include "device/cpu/rows.h"

typedef struct RouteGrad {
    const Routing *r;
    const RouteOpt *opt;
    const float *logits, *dweight;
    float *dlogits;
    float *daux; /* (Gr, E) d(balance loss) / d(probability): aux_scale E f_e / R */
    int64_t N, E, k, R;
} RouteGrad;

/* f_e = share of the group's tokens that have e among their first choices. */
static void balance_grad(const RouteGrad *a, int64_t g)
{
    const int32_t *first = (const int32_t *)a->r->first.data + g * a->R * a->k;
    float *daux = a->daux + g * a->E;
    double R = (double)a->R, scale = a->opt->aux_scale * (double)a->E / (R * R);
    memset(daux, 0, (size_t)a->E * sizeof *daux);
    for (int64_t i = 0; i < a->R * a->k; i++) daux[first[i]] += 1.0f; /* exact below 2^24 */
    for (int64_t e = 0; e < a->E; e++) daux[e] = (float)(scale * (double)daux[e]);
}

/* t_j = p_j dp_j, the part of the placed choice j: raw w_j dw_j; renormalised, with w_j = p_j / S
 * and dp_j = (dw_j - sum_i dw_i w_i) / S, w_j (dw_j - sum_i dw_i w_i), which never divides by S. */
static inline float choice_grad(const RouteGrad *a, int64_t choice, float mean)
{
    const float *weight = a->r->weight.data;
    return weight[choice] * (a->dweight[choice] - mean);
}

/* dlogits_e = p_e (dp_e - sum_i p_i dp_i) + z_scale 2 lse p_e,
 * dp_e = daux_e + the parts of the choices at e. */
static void grad_token(const RouteGrad *a, int64_t n)
{
    const float *p = (const float *)a->r->probs.data + n * a->E;
    const float *daux = a->daux + n / a->R * a->E;
    const int32_t *expert = (const int32_t *)a->r->expert.data + n * a->k;
    float *dlogits = a->dlogits + n * a->E, mean = 0.0f, sum = 0.0f;
    for (int64_t j = 0; j < a->k && a->opt->renorm; j++)
        if (expert[j] >= 0)
            mean += ((const float *)a->r->weight.data)[n * a->k + j] * a->dweight[n * a->k + j];
    for (int64_t j = 0; j < a->k; j++)
        if (expert[j] >= 0) sum += choice_grad(a, n * a->k + j, mean);

    V16 aux_sum = {0};
    for (int64_t e = 0; e < a->E; e += LANES)
        aux_sum += v_get(p, DT_F32, e, a->E - e) * v_get(daux, DT_F32, e, a->E - e);
    float shift = -(sum + v_sum(aux_sum));
    if (a->opt->z_scale != 0.0) { /* lse = z_e - log p_e, exact enough at the largest p_e */
        int64_t top = ((const int32_t *)a->r->first.data)[n * a->k];
        float lse = a->logits[n * a->E + top] - logf(p[top]);
        shift += (float)(a->opt->z_scale * 2.0) * lse;
    }
    for (int64_t e = 0; e < a->E; e += LANES)
        v_put(dlogits, DT_F32, e, a->E - e,
              v_get(p, DT_F32, e, a->E - e) * (v_get(daux, DT_F32, e, a->E - e) + shift));
    for (int64_t j = 0; j < a->k; j++)
        if (expert[j] >= 0) dlogits[expert[j]] += choice_grad(a, n * a->k + j, mean);
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
    for (int64_t n = 0; n < a.N; n++) grad_token(&a, n);
    return 0;
}
