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

RefRoute route_make(Rig *r, const RouteCase *c)
{
    RefRoute a = {.N = c->N, .E = c->E, .k = c->k, .mode = c->mode, .renorm = c->renorm,
                  .group_tokens = c->R, .capacity = c->C, .group0 = rig_below(r, 1000),
                  .layer = (uint32_t)rig_below(r, 64), .step = rig_below(r, 1000000)};
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
    a.weight = numbers(c->N * c->k);
    a.stats = numbers(groups * STAT_COUNT);
    fill_logits(r, c, a.logits);
    ref_route_fwd(&a);
    return a;
}

void route_free(RefRoute *a)
{
    double *const reals[] = {a->logits, a->probs, a->lse, a->weight, a->stats};
    int32_t *const tables[] = {a->first, a->expert, a->row, a->row_src, a->row_begin, a->load};
    for (int i = 0; i < 5; i++) free(reals[i]);
    for (int i = 0; i < 6; i++) free(tables[i]);
}

const char *route_text(const RouteCase *c, char out[128])
{
    snprintf(out, 128, "N %d E %d k %d R %d C %d %s%s logits %d", (int)c->N, (int)c->E, (int)c->k,
             (int)c->R, (int)c->C, c->mode == ROUTE_RECYCLE ? "recycle" : "dropless",
             c->renorm ? " renorm" : "", c->kind);
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
}

Routing route_live(const Rig *r)
{
    return (Routing){.probs = rig_get(r, "probs"), .first = rig_get(r, "first"),
                     .expert = rig_get(r, "expert"), .row = rig_get(r, "row"),
                     .weight = rig_get(r, "weight"), .row_src = rig_get(r, "row_src"),
                     .row_begin = rig_get(r, "row_begin"), .load = rig_get(r, "load"),
                     .stats = rig_get(r, "stats")};
}
