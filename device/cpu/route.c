/* device/cpu/route.c - routing, forward: logits (N, E) -> everything in Routing.
 *
 * p = softmax(logits); first = the k largest; then per group of R tokens capacity with recycling
 * (device/route_assign.c), or no limit (dropless); weights; statistics. Called by the MoE layer of
 * model/ between dev_router_fwd and dev_dispatch_fwd.
 *
 * The choices compare logits, not probabilities: both have the same order, but exp rounds, and
 * underflows to ties. So equal logits give equal choices on any device. This file is compiled
 * without contraction to FMA: probabilities and losses, too, have the same bits for every
 * instruction set.
 */
#pragma GCC optimize("fp-contract=off")

#include <omp.h>

#include "device/cpu/rows.h"
#include "device/route_assign.h"

/* Shapes, and arrays in scratch memory. */
typedef struct Route {
    const RouteOpt *opt;
    Routing *r;
    const float *logits;
    int64_t N, E, k, R, Gr, C;
    float *lse;         /* (N) logsumexp of each token's logits */
    double *prob_sum;   /* (Gr, E) sum of probabilities over the group's tokens */
    int32_t *count;     /* (Gr, E) first choices that the expert got in the group */
    int32_t *next_row;  /* (Gr, E) dropless: row of the group's next choice of the expert */
    int32_t *order_key; /* (threads, E) see top_k */
    char *assign;       /* (threads, assign_bytes) scratch of route_assign */
    int64_t assign_bytes;
} Route;

static void *take(char *memory, int64_t *used, int64_t bytes)
{
    int64_t offset = *used;
    *used += size_round_up(bytes, 64);
    return memory ? memory + offset : NULL;
}

/* Cuts the scratch arrays out of `memory` (NULL: only counts); returns the bytes that they need. */
static int64_t scratch_cut(Route *a, int threads, char *memory)
{
    int64_t used = 0, table = a->Gr * a->E;
    a->lse = take(memory, &used, a->N * (int64_t)sizeof *a->lse);
    a->prob_sum = take(memory, &used, table * (int64_t)sizeof *a->prob_sum);
    a->count = take(memory, &used, table * (int64_t)sizeof *a->count);
    a->next_row = take(memory, &used, table * (int64_t)sizeof *a->next_row);
    a->order_key = take(memory, &used, threads * a->E * (int64_t)sizeof *a->order_key);
    a->assign = take(memory, &used, threads * a->assign_bytes);
    return used;
}

static Route route_begin(Device *d, Routing *r, Tensor logits, const RouteOpt *opt)
{
    Route a = {.opt = opt, .r = r, .logits = logits.data, .N = tensor_rows(logits),
               .E = tensor_cols(logits), .k = tensor_cols(r->first), .R = opt->group_tokens,
               .C = opt->capacity};
    CHECK(a.R > 0 && a.N % a.R == 0, "%ld tokens in groups of %ld", (long)a.N, (long)a.R);
    CHECK(a.k >= 1 && a.k <= a.E, "k %ld of %ld experts", (long)a.k, (long)a.E);
    CHECK(tensor_elements(r->row_src) <= INT32_MAX, "%ld rows",
          (long)tensor_elements(r->row_src));
    a.Gr = a.N / a.R;
    if (opt->mode == ROUTE_RECYCLE)
        a.assign_bytes = route_assign_scratch(a.R, a.E, a.k, a.C);
    int64_t bytes = scratch_cut(&a, d->threads, NULL);
    scratch_cut(&a, d->threads, cpu_scratch(d, bytes));
    return a;
}

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

/* An integer with the order of the floats; -0 equals 0, and a NaN is below every number. */
static inline int32_t order_key(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t key = bits < 0 ? bits ^ INT32_MAX : bits;
    key = bits == INT32_MIN ? 0 : key;
    return (bits & INT32_MAX) > 0x7f800000 ? INT32_MIN + 1 : key;
}

/* The k largest of z, largest first; of equal ones the lower index first. */
static void top_k(int32_t *first, const float *z, int32_t *key, int64_t E, int64_t k)
{
    for (int64_t e = 0; e < E; e++) key[e] = order_key(z[e]);
    for (int64_t j = 0; j < k; j++) {
        int32_t best = INT32_MIN;
        for (int64_t e = 0; e < E; e++) best = key[e] > best ? key[e] : best;
        int32_t chosen = 0;
        while (key[chosen] != best) chosen++;
        key[chosen] = INT32_MIN; /* below NaN: not chosen again */
        first[j] = chosen;
    }
}

/* Counts of first choices and the statistics that do not depend on capacity, in token order. */
static void group_statistics(const Route *a, int64_t g)
{
    const float *probs = (const float *)a->r->probs.data + g * a->R * a->E;
    const int32_t *first = (const int32_t *)a->r->first.data + g * a->R * a->k;
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    int32_t *count = a->count + g * a->E;
    double *prob_sum = a->prob_sum + g * a->E;
    memset(count, 0, (size_t)a->E * sizeof *count);
    memset(prob_sum, 0, (size_t)a->E * sizeof *prob_sum);
    for (int64_t i = 0; i < a->R * a->k; i++) count[first[i]]++;
    for (int64_t n = 0; n < a->R; n++)
        for (int64_t e = 0; e < a->E; e++) prob_sum[e] += (double)probs[n * a->E + e];

    double z = 0.0, aux = 0.0, R = (double)a->R;
    for (int64_t n = g * a->R; n < (g + 1) * a->R; n++) z += (double)a->lse[n] * (double)a->lse[n];
    int32_t max_count = 0;
    for (int64_t e = 0; e < a->E; e++) {
        aux += (double)count[e] / R * (prob_sum[e] / R);
        max_count = count[e] > max_count ? count[e] : max_count;
    }
    memset(stats, 0, STAT_COUNT * sizeof *stats);
    stats[STAT_AUX] = (float)((double)a->E * aux);
    stats[STAT_Z] = (float)z;
    stats[STAT_MAX_LOAD] = (float)max_count;
}

/* Places the group's choices under the capacity and turns places into rows. */
static void recycle_group(const Route *a, int64_t g, void *scratch)
{
    const StepVars *vars = a->opt->vars;
    int32_t *row = (int32_t *)a->r->row.data + g * a->R * a->k;
    int32_t *row_src = a->r->row_src.data;
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    uint64_t position = (uint64_t)vars->step << 32 | (uint64_t)(a->opt->group0 + g);
    RouteGroup group = {
        .tokens = a->R, .experts = a->E, .k = a->k, .capacity = a->C,
        .first = (const int32_t *)a->r->first.data + g * a->R * a->k,
        .key = {vars->seed, RNG_RECYCLE, a->opt->layer, position},
        .expert = (int32_t *)a->r->expert.data + g * a->R * a->k,
        .place = row,
        .load = (int32_t *)a->r->load.data + g * a->E,
    };
    route_assign(&group, scratch);
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t c = group.load[e]; c < a->C; c++) row_src[(e * a->Gr + g) * a->C + c] = -1;
    for (int64_t i = 0; i < a->R * a->k; i++) {
        if (group.expert[i] < 0) continue;
        row[i] += (int32_t)((group.expert[i] * a->Gr + g) * a->C);
        row_src[row[i]] = (int32_t)(g * a->R * a->k + i);
    }
    stats[STAT_OVERFLOW] = (float)group.overflow;
    stats[STAT_RECYCLED] = (float)group.recycled;
    stats[STAT_UNPLACED] = (float)group.unplaced;
}

/* Rows for choices that were made elsewhere. */
static void replay_group(const Route *a, int64_t g)
{
    const int32_t *first = a->r->first.data, *expert = a->r->expert.data;
    int32_t *row = a->r->row.data, *row_src = a->r->row_src.data;
    int32_t *load = (int32_t *)a->r->load.data + g * a->E;
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    memset(load, 0, (size_t)a->E * sizeof *load);
    for (int64_t i = g * a->R * a->k; i < (g + 1) * a->R * a->k; i++) {
        const int64_t e = expert[i];
        stats[STAT_OVERFLOW] += e != first[i];
        stats[STAT_UNPLACED] += e < 0;
        row[i] = -1;
        if (e < 0) continue;
        CHECK(e < a->E && load[e] < a->C, "replayed choice %ld: expert %ld of %ld, load %d of %ld",
              (long)i, (long)e, (long)a->E, load[e], (long)a->C);
        row[i] = (int32_t)((e * a->Gr + g) * a->C) + load[e]++;
        row_src[row[i]] = (int32_t)i;
    }
    stats[STAT_RECYCLED] = stats[STAT_OVERFLOW] - stats[STAT_UNPLACED];
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t c = load[e]; c < a->C; c++) row_src[(e * a->Gr + g) * a->C + c] = -1;
}

/* row_begin, and for dropless the first row of every (expert, group) from the counts. */
static void begin_rows(const Route *a)
{
    int32_t *row_begin = a->r->row_begin.data, row = 0;
    for (int64_t e = 0; e < a->E; e++) {
        row_begin[e] = row;
        if (a->opt->mode != ROUTE_DROPLESS) row += (int32_t)(a->Gr * a->C);
        for (int64_t g = 0; g < a->Gr && a->opt->mode == ROUTE_DROPLESS; g++) {
            a->next_row[g * a->E + e] = row;
            row += a->count[g * a->E + e];
        }
    }
    row_begin[a->E] = row;
}

/* Every choice at its own expert, tokens in order. */
static void dropless_group(const Route *a, int64_t g)
{
    const int32_t *first = a->r->first.data;
    int32_t *expert = a->r->expert.data, *row = a->r->row.data, *row_src = a->r->row_src.data;
    int32_t *next_row = a->next_row + g * a->E;
    memcpy((int32_t *)a->r->load.data + g * a->E, a->count + g * a->E,
           (size_t)a->E * sizeof(int32_t));
    for (int64_t i = g * a->R * a->k; i < (g + 1) * a->R * a->k; i++) {
        expert[i] = first[i];
        row[i] = next_row[first[i]]++;
        row_src[row[i]] = (int32_t)i;
    }
}

/* weight_j = p of the expert in force, or that over the sum of the placed ones. Where that sum is 0
 * (a recycled choice whose probability underflowed) the weights are 0. */
static void weigh_token(const Route *a, int64_t n)
{
    const float *p = (const float *)a->r->probs.data + n * a->E;
    const int32_t *expert = (const int32_t *)a->r->expert.data + n * a->k;
    float *weight = (float *)a->r->weight.data + n * a->k, sum = 0.0f;
    for (int64_t j = 0; j < a->k; j++) {
        weight[j] = expert[j] < 0 ? 0.0f : p[expert[j]];
        sum += weight[j];
    }
    if (!a->opt->renorm || sum == 0.0f) return;
    for (int64_t j = 0; j < a->k; j++) weight[j] /= sum;
}

int route_fwd_cpu(Device *d, Routing *r, Tensor logits, const RouteOpt *opt)
{
    Route a = route_begin(d, r, logits, opt);
    bool recycle = opt->mode == ROUTE_RECYCLE, parallel = a.N * a.E > ROWS_SERIAL;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t n = 0; n < a.N; n++) {
        const float *z = a.logits + n * a.E;
        int32_t *key = a.order_key + omp_get_thread_num() * a.E;
        a.lse[n] = softmax_row((float *)r->probs.data + n * a.E, z, a.E);
        top_k((int32_t *)r->first.data + n * a.k, z, key, a.E, a.k);
    }
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t g = 0; g < a.Gr; g++) {
        group_statistics(&a, g);
        if (recycle) recycle_group(&a, g, a.assign + omp_get_thread_num() * a.assign_bytes);
        if (opt->mode == ROUTE_REPLAY) replay_group(&a, g);
    }
    begin_rows(&a);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t g = 0; g < a.Gr; g++) {
        if (opt->mode == ROUTE_DROPLESS) dropless_group(&a, g);
        for (int64_t n = g * a.R; n < (g + 1) * a.R; n++) weigh_token(&a, n);
    }
    return 0;
}
