/* device/cpu/route_score.c - routing of one token: scores of its logits, and its choices.
 *
 * The choices compare logits where nothing else enters, not scores: both have the same order, but
 * exp rounds, and underflows to ties. So equal logits give equal choices on any device. This file
 * is compiled without contraction to FMA: scores and losses, too, have the same bits for every
 * instruction set, and so have choices by score + bias. Called by route.c.
 */
#pragma GCC optimize("fp-contract=off")

#include "base/size.h"
#include "device/cpu/route.h"
#include "device/cpu/vec.h"
#include "device/route_assign.h"

static inline V16 load_logits(const float *z, int64_t n)
{
    return n >= LANES ? v_load(z) : v_load_part(z, n, -INFINITY);
}

/* In an order that does not depend on the width of vectors. */
static float ordered_sum(const float *x, int64_t n)
{
    float part[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int lane = 0; lane < 4; lane++) part[lane] += x[i + lane];
    for (; i < n; i++) part[0] += x[i];
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* p = exp(z - max z) / sum; returns logsumexp(z). */
static float softmax_row(float *p, const float *z, int64_t E)
{
    V16 top = v_set(-INFINITY);
    for (int64_t e = 0; e < E; e += LANES) top = v_max(top, load_logits(z + e, E - e));
    float max = v_max_lane(top);
    for (int64_t e = 0; e < E; e += LANES)
        v_put(p, DT_F32, e, E - e, v_exp(load_logits(z + e, E - e) - max));
    float sum = ordered_sum(p, E);
    for (int64_t e = 0; e < E; e += LANES)
        v_put(p, DT_F32, e, E - e, v_get(p, DT_F32, e, E - e) / sum);
    return max + logf(sum);
}

TokenScores route_score(float *scores, const float *logits, int64_t E, int score)
{
    TokenScores t = {.lse = softmax_row(scores, logits, E), .to_share = 1.0};
    double entropy = 0.0;
    if (score == SCORE_SOFTMAX) { /* log p = z - lse */
        for (int64_t e = 0; e < E; e++)
            if (scores[e] > 0.0f)
                entropy += (double)scores[e] * ((double)t.lse - (double)logits[e]);
        t.entropy = (float)entropy;
        return t;
    }
    for (int64_t e = 0; e < E; e += LANES)
        v_put(scores, DT_F32, e, E - e, v_sigmoid(load_logits(logits + e, E - e)));
    float sum = ordered_sum(scores, E);
    t.to_share = sum > 0.0f ? 1.0 / (double)sum : 0.0;
    for (int64_t e = 0; e < E; e++) {
        float share = (float)((double)scores[e] * t.to_share);
        if (share > 0.0f) entropy -= (double)share * (double)logf(share);
    }
    t.entropy = (float)entropy;
    return t;
}

/* Index of the largest of n keys, the lowest of equal ones; marks it as not to be chosen again. */
static int32_t take_best(int32_t *key, int64_t n)
{
    int32_t best = INT32_MIN, chosen = 0;
    for (int64_t i = 0; i < n; i++) best = key[i] > best ? key[i] : best;
    while (key[chosen] != best) chosen++;
    key[chosen] = INT32_MIN;
    return chosen;
}

static inline float selection_key(const TokenChoice *c, int64_t e)
{
    const float *bias = c->opt->bias.data;
    if (bias) return c->scores[e] + bias[e];
    return c->opt->blocks > 0 ? c->scores[e] : c->logits[e];
}

static void put_keys(const TokenChoice *c, int64_t begin, int64_t end)
{
    for (int64_t e = begin; e < end; e++) c->key[e] = route_order_key(selection_key(c, e));
}

/* Keys of the best blocks only. A block's value: the sum, largest first, of its highest keys. */
static void put_block_keys(const TokenChoice *c)
{
    int64_t blocks = c->opt->blocks, size = c->E / blocks, used = c->opt->blocks_top;
    int64_t summed = size_max(1, c->k / used);
    int32_t *value = c->key + c->E;
    put_keys(c, 0, c->E);
    for (int64_t b = 0; b < blocks; b++) {
        float sum = 0.0f;
        for (int64_t i = 0; i < summed; i++)
            sum += selection_key(c, b * size + take_best(c->key + b * size, size));
        value[b] = route_order_key(sum);
    }
    for (int64_t e = 0; e < c->E; e++) c->key[e] = INT32_MIN;
    for (int64_t i = 0; i < used; i++) {
        int64_t b = take_best(value, blocks);
        put_keys(c, b * size, (b + 1) * size);
    }
}

void route_choose(const TokenChoice *c)
{
    const float top_p = (float)c->opt->top_p;
    if (c->opt->blocks > 0) put_block_keys(c);
    else put_keys(c, 0, c->E);
    float sum = 0.0f;
    for (int64_t j = 0; j < c->k; j++) {
        bool enough = top_p > 0.0f && sum > top_p;
        c->first[j] = enough ? -1 : take_best(c->key, c->E);
        if (!enough) sum += c->scores[c->first[j]];
    }
}
