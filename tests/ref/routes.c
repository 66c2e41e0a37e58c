/* tests/ref/routes.c - see routes.h. */
#include "tests/ref/routes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

static void *array(int64_t n, size_t size)
{
    void *x = calloc((size_t)n + 1, size);
    CHECK(x, "%lld elements", (long long)n);
    return x;
}

static double *numbers(int64_t n) { return array(n, sizeof(double)); }

static int32_t *integers(int64_t n) { return array(n, sizeof(int32_t)); }

static void fill_logits(Rig *r, const RouteCase *c, double *logits)
{
    for (int64_t i = 0; i < c->N * c->E; i++) {
        double x = rig_normal(r);
        if (c->kind == LOGITS_TIES) x = floor(x + 0.5);
        if (c->kind == LOGITS_ZERO) x = 0;
        if (c->kind == LOGITS_CROWDED && i % c->E == (c->E > 1)) x += 8;
        if (c->kind == LOGITS_WIDE) x *= 30;
        logits[i] = floor(x * 1024 + 0.5) / 1024;
    }
}

/* Numbers as f32 has them, so that the oracle sees what the device sees. */
static double *vector(Rig *r, int64_t n, double offset, double scale)
{
    double *x = numbers(n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(offset + scale * rig_uniform(r));
    return x;
}

/* Choices to replay: a random expert that the token has not and that has room, or none. */
static void record(Rig *r, const RefRoute *a)
{
    int32_t *load = integers(a->N / a->group_tokens * a->E);
    for (int64_t i = 0; i < a->N * a->k; i++) {
        int32_t e = (int32_t)rig_below(r, a->E), *there = load + i / a->k / a->group_tokens * a->E;
        bool fits = there[e] < a->capacity || a->capacity == 0;
        for (int64_t j = i - i % a->k; j < i; j++) fits &= a->expert[j] != e;
        a->expert[i] = fits ? e : -1;
        there[e] += fits;
    }
    free(load);
}

RefRoute route_make(Rig *r, const RouteCase *c, const RouteMore *more)
{
    RefRoute a = {.N = c->N, .E = c->E, .k = c->k, .mode = c->mode, .renorm = c->renorm,
                  .weight_scale = 1, .group_tokens = c->R, .capacity = c->C,
                  .group0 = rig_below(r, 1000), .layer = (uint32_t)rig_below(r, 64),
                  .step = rig_below(r, 1000000)};
    a.seed = (uint64_t)rig_below(r, 1ll << 50) << 13 | 5;
    int64_t groups = c->N / c->R, rows = ref_route_rows(&a);
    a.logits = numbers(c->N * c->E);
    a.probs = numbers(c->N * c->E);
    a.lse = numbers(c->N);
    a.first = integers(c->N * c->k);
    a.expert = integers(c->N * c->k);
    a.row = integers(c->N * c->k);
    a.row_src = integers(rows);
    a.row_begin = integers(c->E + 1);
    a.load = integers(groups * c->E);
    a.count = integers(groups * c->E);
    a.weight = numbers(c->N * c->k);
    a.stats = numbers(groups * STAT_COUNT);
    fill_logits(r, c, a.logits);
    if (more) {
        a.score = more->score;
        a.drop_by_score = more->by_score;
        a.top_p = more->top_p;
        a.blocks = more->blocks;
        a.blocks_top = more->blocks_top;
        if (more->weight_scale > 0) a.weight_scale = more->weight_scale;
        if (more->bias) a.bias = vector(r, c->E, -0.2, 0.4);
        if (more->balance_f) a.balance_f = vector(r, c->E, 0, 2);
        if (more->balance_width) a.balance_width = vector(r, c->E, 0.5, 1);
    }
    if (a.mode == ROUTE_REPLAY) record(r, &a);
    ref_route_fwd(&a);
    return a;
}

void route_free(RefRoute *a)
{
    double *const reals[] = {a->logits, a->probs, a->lse, a->weight, a->stats, a->bias,
                             a->balance_f, a->balance_width};
    int32_t *const tables[] = {a->first, a->expert, a->row, a->row_src, a->row_begin, a->load,
                               a->count};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) free(reals[i]);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) free(tables[i]);
}

const char *route_text(const RouteCase *c, const RouteMore *more, char out[128])
{
    static const char *const modes[] = {"recycle", "dropless", "drop", "expert choice", "replay"};
    int n = snprintf(out, 128, "N %d E %d k %d R %d C %d %s%s logits %d", (int)c->N, (int)c->E,
                     (int)c->k, (int)c->R, (int)c->C, modes[c->mode], c->renorm ? " renorm" : "",
                     c->kind);
    if (more)
        snprintf(out + n, 128 - (size_t)n, "%s%s%s%s%s p %g blocks %d/%d",
                 more->score == SCORE_SIGMOID ? " sigmoid" : "", more->by_score ? " score" : "",
                 more->bias ? " bias" : "", more->balance_f ? " f" : "",
                 more->balance_width ? " width" : "", more->top_p, (int)more->blocks_top,
                 (int)more->blocks);
    return out;
}

void route_slots(Rig *r, const RefRoute *a, const double *weight)
{
    int64_t groups = a->N / a->group_tokens;
    Tensor choices = tensor_2d(NULL, DT_I32, a->N, a->k);
    Tensor load = tensor_2d(NULL, DT_I32, groups, a->E);
    rig_in_values(r, "probs", tensor_2d(NULL, DT_F32, a->N, a->E), a->probs);
    rig_in_values(r, "weight", tensor_2d(NULL, DT_F32, a->N, a->k), weight ? weight : a->weight);
    rig_in_values(r, "stats", tensor_2d(NULL, DT_F32, groups, STAT_COUNT), a->stats);
    rig_in_i32(r, "first", choices, a->first);
    rig_in_i32(r, "expert", choices, a->expert);
    rig_in_i32(r, "row", choices, a->row);
    rig_in_i32(r, "row_src", tensor_1d(NULL, DT_I32, ref_route_rows(a)), a->row_src);
    rig_in_i32(r, "row_begin", tensor_1d(NULL, DT_I32, a->E + 1), a->row_begin);
    rig_in_i32(r, "load", load, a->load);
    rig_in_i32(r, "count", load, a->count);
}

Routing route_live(const Rig *r)
{
    return (Routing){.probs = rig_get(r, "probs"), .first = rig_get(r, "first"),
                     .expert = rig_get(r, "expert"), .row = rig_get(r, "row"),
                     .weight = rig_get(r, "weight"), .row_src = rig_get(r, "row_src"),
                     .row_begin = rig_get(r, "row_begin"), .load = rig_get(r, "load"),
                     .count = rig_get(r, "count"), .stats = rig_get(r, "stats")};
}

void route_option_slots(Rig *r, const RefRoute *a)
{
    StepVars vars = {.seed = a->seed, .step = a->step};
    Tensor row = tensor_1d(NULL, DT_F32, a->E);
    rig_in_vars(r, "vars", &vars);
    if (a->bias) rig_in_values(r, "bias", row, a->bias);
    if (a->balance_f) rig_in_values(r, "balance_f", row, a->balance_f);
    if (a->balance_width) rig_in_values(r, "balance_width", row, a->balance_width);
}

RouteOpt route_options(const Rig *r, const RefRoute *a)
{
    return (RouteOpt){.mode = a->mode, .score = a->score, .renorm = a->renorm,
                      .weight_scale = a->weight_scale, .drop_by_score = a->drop_by_score,
                      .top_p = a->top_p, .blocks = a->blocks, .blocks_top = a->blocks_top,
                      .bias = rig_get(r, "bias"), .group_tokens = a->group_tokens,
                      .capacity = a->capacity, .group0 = a->group0, .layer = a->layer,
                      .vars = rig_vars(r, "vars"), .aux_scale = a->aux_scale,
                      .z_scale = a->z_scale, .entropy_scale = a->entropy_scale,
                      .balance_f = rig_get(r, "balance_f"),
                      .balance_width = rig_get(r, "balance_width")};
}
