/* device/cpu/route.c - routing, forward: logits (N, E) -> everything in Routing.
 *
 * Scores and choices of each token (route_score.c); then per group of R tokens who gets a place
 * (device/route_assign.c), or no limit (dropless); weights; statistics. Called by the MoE layer of
 * model/ between dev_router_fwd and dev_dispatch_fwd.
 *
 * This file is compiled without contraction to FMA, as route_score.c: weights and losses have the
 * same bits for every instruction set.
 */
#pragma GCC optimize("fp-contract=off")

#include <omp.h>

#include "device/cpu/route.h"
#include "device/cpu/rows.h"
#include "device/route_assign.h"

/* Shapes, and arrays in scratch memory. */
typedef struct Route {
    const RouteOpt *opt;
    Routing *r;
    const float *logits;
    int64_t N, E, k, R, Gr, C;
    bool compact;       /* no capacity: rows without gaps */
    TokenScores *token; /* (N) */
    double *share_sum;  /* (Gr, E) sum over the group's tokens of score / sum of the scores */
    int32_t *next_row;  /* (Gr, E) row of the group's next choice of the expert */
    int32_t *key;       /* (threads, 2 E) see route_choose */
    char *assign;       /* (threads, assign_bytes) scratch of route_assign.c */
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
    a->token = take(memory, &used, a->N * (int64_t)sizeof *a->token);
    a->share_sum = take(memory, &used, table * (int64_t)sizeof *a->share_sum);
    a->next_row = take(memory, &used, table * (int64_t)sizeof *a->next_row);
    a->key = take(memory, &used, threads * 2 * a->E * (int64_t)sizeof *a->key);
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
    a.compact = route_is_compact(opt);
    if (opt->mode != ROUTE_DROPLESS && opt->mode != ROUTE_REPLAY)
        a.assign_bytes = route_assign_scratch(a.R, a.E, a.k, a.C);
    int64_t bytes = scratch_cut(&a, d->threads, NULL);
    scratch_cut(&a, d->threads, cpu_scratch(d, bytes));
    return a;
}

/* Counts of choices and the statistics that do not depend on capacity, in token order. */
static void group_statistics(const Route *a, int64_t g)
{
    const float *scores = (const float *)a->r->probs.data + g * a->R * a->E;
    const int32_t *first = (const int32_t *)a->r->first.data + g * a->R * a->k;
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    int32_t *count = (int32_t *)a->r->count.data + g * a->E, max_count = 0, choices = 0;
    double *share_sum = a->share_sum + g * a->E, z = 0.0, entropy = 0.0;
    memset(count, 0, (size_t)a->E * sizeof *count);
    memset(share_sum, 0, (size_t)a->E * sizeof *share_sum);
    for (int64_t i = 0; i < a->R * a->k; i++)
        if (first[i] >= 0) count[first[i]]++;
    for (int64_t n = 0; n < a->R; n++) {
        const TokenScores *t = &a->token[g * a->R + n];
        for (int64_t e = 0; e < a->E; e++)
            share_sum[e] += (double)scores[n * a->E + e] * t->to_share;
        z += (double)t->lse * (double)t->lse;
        entropy += (double)t->entropy;
    }
    for (int64_t e = 0; e < a->E; e++) {
        max_count = count[e] > max_count ? count[e] : max_count;
        choices += count[e];
    }
    memset(stats, 0, STAT_COUNT * sizeof *stats);
    stats[STAT_Z] = (float)z;
    stats[STAT_ENTROPY] = (float)entropy;
    stats[STAT_MAX_LOAD] = (float)max_count;
    stats[STAT_CHOICES] = (float)choices;
}

/* l_aux = E sum_e f_e width_e P_e. */
static void group_balance(const Route *a, int64_t g)
{
    const float *given = a->opt->balance_f.data, *width = a->opt->balance_width.data;
    const int32_t *count = (const int32_t *)a->r->count.data + g * a->E;
    double aux = 0.0, R = (double)a->R;
    for (int64_t e = 0; e < a->E; e++) {
        double f = given ? (double)given[e] : (double)count[e] / R;
        if (width) f *= (double)width[e];
        aux += f * (a->share_sum[g * a->E + e] / R);
    }
    ((float *)a->r->stats.data)[g * STAT_COUNT + STAT_AUX] = (float)((double)a->E * aux);
}

static RouteGroup group_of(const Route *a, int64_t g)
{
    const StepVars *vars = a->opt->vars;
    uint64_t position = (uint64_t)vars->step << 32 | (uint64_t)(a->opt->group0 + g);
    return (RouteGroup){
        .tokens = a->R, .experts = a->E, .k = a->k, .capacity = a->C,
        .first = (const int32_t *)a->r->first.data + g * a->R * a->k,
        .scores = (const float *)a->r->probs.data + g * a->R * a->E,
        .key = {vars->seed, RNG_RECYCLE, a->opt->layer, position},
        .expert = (int32_t *)a->r->expert.data + g * a->R * a->k,
        .load = (int32_t *)a->r->load.data + g * a->E,
    };
}

/* Who gets a place in the group under the capacity. */
static void place_group(const Route *a, int64_t g, void *scratch)
{
    RouteGroup group = group_of(a, g);
    switch (a->opt->mode) {
    case ROUTE_RECYCLE: route_recycle(&group, scratch); break;
    case ROUTE_DROP:
        if (a->opt->drop_by_score) route_drop_by_score(&group, scratch);
        else route_drop(&group, scratch);
        break;
    default:
        route_expert_choice(&group, (int32_t *)a->r->first.data + g * a->R * a->k, scratch);
    }
    group_statistics(a, g);
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    stats[STAT_OVERFLOW] = (float)group.overflow;
    stats[STAT_RECYCLED] = (float)group.recycled;
    stats[STAT_UNPLACED] = (float)group.unplaced;
}

/* Choices that were made elsewhere. */
static void replay_group(const Route *a, int64_t g)
{
    const int32_t *first = a->r->first.data, *expert = a->r->expert.data;
    int32_t *load = (int32_t *)a->r->load.data + g * a->E;
    float *stats = (float *)a->r->stats.data + g * STAT_COUNT;
    group_statistics(a, g);
    memset(load, 0, (size_t)a->E * sizeof *load);
    for (int64_t i = g * a->R * a->k; i < (g + 1) * a->R * a->k; i++) {
        const int64_t e = expert[i];
        stats[STAT_OVERFLOW] += first[i] >= 0 && e != first[i];
        stats[STAT_UNPLACED] += first[i] >= 0 && e < 0;
        if (e < 0) continue;
        CHECK(e < a->E && (a->compact || load[e] < a->C),
              "replayed choice %ld: expert %ld of %ld, load %d of %ld", (long)i, (long)e,
              (long)a->E, load[e], (long)a->C);
        load[e]++;
    }
    stats[STAT_RECYCLED] = stats[STAT_OVERFLOW] - stats[STAT_UNPLACED];
}

/* Every choice at its own expert. */
static void dropless_group(const Route *a, int64_t g)
{
    group_statistics(a, g);
    memcpy((int32_t *)a->r->load.data + g * a->E, (int32_t *)a->r->count.data + g * a->E,
           (size_t)a->E * sizeof(int32_t));
    memcpy((int32_t *)a->r->expert.data + g * a->R * a->k,
           (int32_t *)a->r->first.data + g * a->R * a->k,
           (size_t)(a->R * a->k) * sizeof(int32_t));
}

/* row_begin, and the first row of every (expert, group). */
static void begin_rows(const Route *a)
{
    const int32_t *load = a->r->load.data;
    int32_t *row_begin = a->r->row_begin.data, row = 0;
    for (int64_t e = 0; e < a->E; e++) {
        row_begin[e] = row;
        for (int64_t g = 0; g < a->Gr; g++) {
            a->next_row[g * a->E + e] = row;
            row += a->compact ? load[g * a->E + e] : (int32_t)a->C;
        }
    }
    row_begin[a->E] = row;
    for (int64_t i = row; a->compact && i < a->N * a->k; i++)
        ((int32_t *)a->r->row_src.data)[i] = -1;
}

/* Rows of the group's choices in (token, choice) order: they follow from the experts in force
 * alone. What is empty stands behind them. */
static void give_rows(const Route *a, int64_t g)
{
    const int32_t *expert = a->r->expert.data, *load = (int32_t *)a->r->load.data + g * a->E;
    int32_t *row = a->r->row.data, *row_src = a->r->row_src.data;
    int32_t *next_row = a->next_row + g * a->E;
    for (int64_t i = g * a->R * a->k; i < (g + 1) * a->R * a->k; i++) {
        row[i] = expert[i] < 0 ? -1 : next_row[expert[i]]++;
        if (row[i] >= 0) row_src[row[i]] = (int32_t)i;
    }
    for (int64_t e = 0; e < a->E && !a->compact; e++)
        for (int64_t c = load[e]; c < a->C; c++) row_src[(e * a->Gr + g) * a->C + c] = -1;
}

/* weight_j = scale p of the expert in force, or scale p over the sum of the placed ones. Where that
 * sum is 0 (a recycled choice whose probability underflowed) the weights are 0. */
static void weigh_token(const Route *a, int64_t n)
{
    const float *p = (const float *)a->r->probs.data + n * a->E;
    const int32_t *expert = (const int32_t *)a->r->expert.data + n * a->k;
    float *weight = (float *)a->r->weight.data + n * a->k, sum = 0.0f;
    const float scale = (float)a->opt->weight_scale;
    for (int64_t j = 0; j < a->k; j++) {
        weight[j] = expert[j] < 0 ? 0.0f : p[expert[j]];
        sum += weight[j];
    }
    const bool divide = a->opt->renorm && sum != 0.0f;
    for (int64_t j = 0; j < a->k; j++) weight[j] = scale * (divide ? weight[j] / sum : weight[j]);
}

static void score_token(const Route *a, int64_t n)
{
    const float *logits = a->logits + n * a->E;
    float *scores = (float *)a->r->probs.data + n * a->E;
    a->token[n] = route_score(scores, logits, a->E, a->opt->score);
    if (a->opt->mode == ROUTE_EXPERT_CHOICE) return;
    TokenChoice choice = {.opt = a->opt, .E = a->E, .k = a->k, .logits = logits, .scores = scores,
                          .first = (int32_t *)a->r->first.data + n * a->k,
                          .key = a->key + omp_get_thread_num() * 2 * a->E};
    route_choose(&choice);
}

static void route_group(const Route *a, int64_t g)
{
    if (a->opt->mode == ROUTE_DROPLESS) dropless_group(a, g);
    else if (a->opt->mode == ROUTE_REPLAY) replay_group(a, g);
    else place_group(a, g, a->assign + omp_get_thread_num() * a->assign_bytes);
    group_balance(a, g);
}

int route_fwd_cpu(Device *d, Routing *r, Tensor logits, const RouteOpt *opt)
{
    Route a = route_begin(d, r, logits, opt);
    bool parallel = a.N * a.E > ROWS_SERIAL;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t n = 0; n < a.N; n++) score_token(&a, n);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t g = 0; g < a.Gr; g++) route_group(&a, g);
    begin_rows(&a);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (parallel)
    for (int64_t g = 0; g < a.Gr; g++) {
        give_rows(&a, g);
        for (int64_t n = g * a.R; n < (g + 1) * a.R; n++) weigh_token(&a, n);
    }
    return 0;
}
