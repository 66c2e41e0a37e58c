/* tests/ref/ref_route_values.c - scores, weights, losses of a routing, their gradient; see ref.h.
 *
 * The gradient goes step by step: weights and losses to scores, scores to logits, each by the
 * quotient rule and the Jacobian of its formula, nothing cancelled by hand.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/ref/ref.h"

void ref_route_scores(const RefRoute *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        const double *z = a->logits + n * a->E;
        double max = z[0], sum = 0, *p = a->probs + n * a->E;
        for (int64_t e = 0; e < a->E; e++) max = fmax(max, z[e]);
        for (int64_t e = 0; e < a->E; e++) sum += exp(z[e] - max);
        a->lse[n] = max + log(sum);
        for (int64_t e = 0; e < a->E; e++)
            p[e] = a->score == SCORE_SIGMOID ? 1 / (1 + exp(-z[e])) : exp(z[e] - a->lse[n]);
    }
}

/* Sum of the scores of a token's placed choices. */
static double placed_sum(const RefRoute *a, int64_t n)
{
    double sum = 0;
    for (int64_t i = n * a->k; i < (n + 1) * a->k; i++)
        if (a->expert[i] >= 0) sum += a->probs[n * a->E + a->expert[i]];
    return sum;
}

static double score_sum(const RefRoute *a, int64_t n)
{
    double sum = 0;
    for (int64_t e = 0; e < a->E; e++) sum += a->probs[n * a->E + e];
    return sum;
}

/* f_e of the balance loss with its factor. */
static double balance(const RefRoute *a, int64_t g, int64_t e)
{
    double f = a->count[g * a->E + e] / (double)a->group_tokens;
    if (a->balance_f) f = a->balance_f[e];
    return a->balance_width ? f * a->balance_width[e] : f;
}

static void losses(const RefRoute *a, int64_t g)
{
    int64_t R = a->group_tokens;
    double *stats = a->stats + g * STAT_COUNT;
    stats[STAT_AUX] = stats[STAT_Z] = stats[STAT_ENTROPY] = 0;
    for (int64_t n = g * R; n < (g + 1) * R; n++) {
        stats[STAT_Z] += a->lse[n] * a->lse[n];
        for (int64_t e = 0; e < a->E; e++) {
            double q = a->probs[n * a->E + e] / score_sum(a, n);
            stats[STAT_AUX] += (double)a->E * balance(a, g, e) * q / (double)R;
            if (q > 0) stats[STAT_ENTROPY] -= q * log(q);
        }
    }
}

void ref_route_values(const RefRoute *a)
{
    ref_route_scores(a);
    for (int64_t n = 0; n < a->N; n++) {
        double sum = placed_sum(a, n);
        for (int64_t i = n * a->k; i < (n + 1) * a->k; i++) {
            int32_t e = a->expert[i];
            double p = e < 0 ? 0 : a->probs[n * a->E + e];
            a->weight[i] = a->weight_scale * (a->renorm && e >= 0 ? p / sum : p);
        }
    }
    for (int64_t g = 0; g < a->N / a->group_tokens; g++) losses(a, g);
}

/* ds (E) of one token by its weights: w_j = c s_j [/ S]; mag: magnitude of the terms. */
static void weights_bwd(const RefRoute *a, int64_t n, double *ds, double *mag)
{
    double sum = placed_sum(a, n), c = a->weight_scale, mixed = 0, mixed_mag = 0;
    for (int64_t i = n * a->k; i < (n + 1) * a->k && a->renorm; i++) {
        if (a->expert[i] < 0) continue;
        double s = a->probs[n * a->E + a->expert[i]];
        mixed += c * a->dweight[i] * s / (sum * sum);
        mixed_mag += c * fabs(a->dweight[i]) * s / (sum * sum);
    }
    for (int64_t i = n * a->k; i < (n + 1) * a->k; i++) {
        if (a->expert[i] < 0) continue;
        double over = a->renorm ? c / sum : c;
        ds[a->expert[i]] += a->dweight[i] * over - mixed;
        mag[a->expert[i]] += fabs(a->dweight[i]) * over + mixed_mag;
    }
}

/* ds (E) by the losses: q = s / sum s, so ds_e = (dq_e - sum_i q_i dq_i) / sum s. */
static void losses_bwd(const RefRoute *a, int64_t n, double *ds, double *mag)
{
    double S = score_sum(a, n), mixed = 0, mixed_mag = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t e = 0; e < a->E; e++) {
            double q = a->probs[n * a->E + e] / S, R = (double)a->group_tokens;
            double aux = a->aux_scale * (double)a->E * balance(a, n / a->group_tokens, e) / R;
            double sharp = q > 0 ? -a->entropy_scale * (log(q) + 1) : 0;
            double size = fabs(aux) + fabs(sharp) + fabs(a->entropy_scale);
            if (pass == 0) {
                mixed += q * (aux + sharp);
                mixed_mag += q * size;
            } else if (S > 0) {
                ds[e] += (aux + sharp - mixed) / S;
                mag[e] += (size + mixed_mag) / S;
            }
        }
}

/* Scores to logits: softmax dz_e = p_e (ds_e - sum_i p_i ds_i), sigmoid dz_e = s_e (1 - s_e) ds_e;
 * and the z-loss, z_scale 2 lse softmax_e. */
static void scores_bwd(const RefRoute *a, int64_t n, const double *ds, const double *ds_mag)
{
    const double *z = a->logits + n * a->E, *s = a->probs + n * a->E;
    double max = -INFINITY, sum = 0, mixed = 0, mixed_mag = 0;
    bool soft = a->score == SCORE_SOFTMAX;
    for (int64_t e = 0; e < a->E; e++) max = fmax(max, z[e]);
    for (int64_t e = 0; e < a->E; e++) {
        sum += exp(z[e] - max);
        mixed += soft ? s[e] * ds[e] : 0;
        mixed_mag += soft ? s[e] * ds_mag[e] : 0;
    }
    double lse = max + log(sum);
    for (int64_t e = 0; e < a->E; e++) {
        double p = exp(z[e] - lse);
        a->dlogits[n * a->E + e] += (soft ? s[e] * (ds[e] - mixed) : s[e] * (1 - s[e]) * ds[e]) +
                                    a->z_scale * 2 * lse * p;
        if (a->dlogits_mag)
            a->dlogits_mag[n * a->E + e] +=
                s[e] * (ds_mag[e] + mixed_mag) +
                p * fabs(a->z_scale) * 2 * (fabs(max) + fabs(lse));
    }
}

void ref_route_bwd(const RefRoute *a)
{
    double *ds = malloc(sizeof *ds * (size_t)(2 * a->E)), *mag = ds + a->E;
    for (int64_t n = 0; n < a->N; n++) {
        for (int64_t i = 0; i < 2 * a->E; i++) ds[i] = 0;
        weights_bwd(a, n, ds, mag);
        losses_bwd(a, n, ds, mag);
        scores_bwd(a, n, ds, mag);
    }
    free(ds);
}
