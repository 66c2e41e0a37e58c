/* tests/test_ops_route.c - router, route_fwd, route_bwd against the oracle; assignments exactly. */
#include <stdlib.h>
#include <math.h>
#include <string.h>

#include "tests/ref/group.h"
#include "tests/ref/route_cases.h"

/* ---- Router -----------------------------------------------------------------------------------*/

typedef struct Size {
    int64_t N, E, D;
} Size;

static const Size sizes[] = {{1, 1, 1},  {3, 5, 7},    {0, 4, 8},    {17, 16, 33}, {64, 8, 64},
                             {131, 3, 16}, {5, 64, 129}, {200, 17, 95}, {33, 128, 256}};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void call_router_fwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_router_fwd(d, rig_get(r, "logits"), rig_get(r, "x"), rig_get(r, "w"));
}

static void call_router_bwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_router_bwd(d, rig_get(r, "dx"), rig_get(r, "dw"), rig_get(r, "dlogits"), rig_get(r, "x"),
                   rig_get(r, "w"));
}

static int router_case(Size s, DType type, bool backward)
{
    Rig *r = rig_new(backward ? "router_bwd" : "router_fwd", "N %d E %d D %d %s", (int)s.N,
                     (int)s.E, (int)s.D, dtype_name(type));
    Tensor logits = tensor_2d(NULL, DT_F32, s.N, s.E), weights = tensor_2d(NULL, DT_F32, s.E, s.D);
    Slot *x = rig_in(r, "x", tensor_2d(NULL, type, s.N, s.D), 1);
    Slot *w = rig_in(r, "w", weights, 0.3);
    RefLinear a = {.N = s.N, .O = s.E, .I = s.D, .x = x->value, .w = w->value}, m = a;
    m.x = slot_abs(x);
    m.w = slot_abs(w);
    if (backward) {
        Slot *dz = rig_in(r, "dlogits", logits, 1);
        Slot *dx = rig_inout(r, "dx", x->shape, 1, tol_dot(s.E));
        Slot *dw = rig_inout(r, "dw", weights, 1, tol_dot(s.N));
        a.dy = dz->value, a.dx = dx->want, a.dw = dw->want;
        m.dy = slot_abs(dz), m.dx = dx->mag, m.dw = dw->mag;
        ref_linear_bwd(&a);
        ref_linear_bwd(&m);
        free(m.dy);
    } else {
        Slot *y = rig_out(r, "logits", logits, tol_dot(s.D));
        a.y = y->want;
        m.y = y->mag;
        ref_linear_fwd(&a);
        ref_linear_fwd(&m);
    }
    free(m.x);
    free(m.w);
    int failures = rig_run(r, backward ? call_router_bwd : call_router_fwd, NULL);
    rig_free(r);
    return failures;
}

static void router(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int t = 0; t < 4; t++)
            failures += router_case(sizes[i], t & 1 ? DT_BF16 : DT_F32, t >= 2);
    failures += router_case((Size){8209, 7, 33}, DT_F32, true);
    failures += router_case((Size){8209, 7, 33}, DT_BF16, true);
    assert_int_equal(failures, 0);
}

/* ---- Routing ----------------------------------------------------------------------------------*/

static const RouteCase cases[] = {
    {1, 1, 1, 1, 1, ROUTE_RECYCLE, false, LOGITS_NORMAL},
    {4, 5, 1, 4, 2, ROUTE_RECYCLE, false, LOGITS_CROWDED},
    {64, 4, 1, 64, 16, ROUTE_RECYCLE, false, LOGITS_NORMAL},
    {64, 4, 1, 16, 4, ROUTE_RECYCLE, false, LOGITS_NORMAL},     /* four groups, no slack */
    {128, 16, 1, 128, 8, ROUTE_RECYCLE, false, LOGITS_TIES},
    {60, 6, 2, 20, 8, ROUTE_RECYCLE, false, LOGITS_NORMAL},
    {60, 6, 2, 20, 7, ROUTE_RECYCLE, true, LOGITS_NORMAL},
    {64, 8, 3, 32, 16, ROUTE_RECYCLE, true, LOGITS_CROWDED},
    {63, 7, 4, 21, 12, ROUTE_RECYCLE, false, LOGITS_ZERO},      /* exactly full */
    {48, 3, 3, 16, 16, ROUTE_RECYCLE, true, LOGITS_NORMAL},     /* every token has every expert */
    {48, 3, 3, 16, 11, ROUTE_RECYCLE, false, LOGITS_NORMAL},    /* some can be placed nowhere */
    {40, 4, 2, 10, 2, ROUTE_RECYCLE, true, LOGITS_NORMAL},      /* less room than choices */
    {40, 4, 1, 40, 3, ROUTE_RECYCLE, true, LOGITS_NORMAL},      /* tokens without any expert */
    {32, 2, 2, 32, 17, ROUTE_RECYCLE, false, LOGITS_CROWDED},
    {256, 32, 6, 128, 24, ROUTE_RECYCLE, true, LOGITS_TIES},
    {100, 10, 2, 50, 100, ROUTE_RECYCLE, false, LOGITS_WIDE},   /* room for all */
    {1024, 16, 1, 1024, 64, ROUTE_RECYCLE, false, LOGITS_NORMAL},
    {64, 4, 1, 16, 4, ROUTE_RECYCLE, false, LOGITS_WIDE},
    {64, 4, 1, 16, 4, ROUTE_RECYCLE, true, LOGITS_WIDE},
    {1, 1, 1, 1, 1, ROUTE_DROPLESS, false, LOGITS_NORMAL},
    {60, 6, 2, 20, 8, ROUTE_DROPLESS, true, LOGITS_NORMAL},
    {60, 6, 2, 60, 8, ROUTE_DROPLESS, false, LOGITS_TIES},
    {64, 8, 1, 32, 8, ROUTE_DROPLESS, false, LOGITS_CROWDED},   /* all tokens on one expert */
    {35, 5, 5, 7, 8, ROUTE_DROPLESS, true, LOGITS_WIDE},
    {256, 64, 8, 64, 8, ROUTE_DROPLESS, true, LOGITS_NORMAL},
};
enum { CASES = sizeof cases / sizeof *cases };

/* Number of indices of the latest run that point outside what they index. */
static int bad_indices(Rig *r, const RefRoute *a)
{
    static const char *const names[] = {"first", "expert", "row", "row_src"};
    const int64_t below[] = {a->E, a->E, ref_route_rows(a), a->N * a->k};
    int bad = 0;
    for (int i = 0; i < 4; i++) {
        const Slot *s = rig_slot(r, names[i]);
        for (int64_t j = 0; j < slot_size(s); j++) {
            double x = slot_number(s, s->got, j);
            if (x >= (i == 0 ? 0 : -1) && x < (double)below[i]) continue;
            if (bad++ == 0) rig_fail(r, "%s[%d] is %g", names[i], (int)j, x);
        }
    }
    return bad;
}

static void route_fwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++) failures += route_fwd_case(&cases[i], NULL);
    assert_int_equal(failures, 0);
}

static void route_bwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++) {
        failures += route_bwd_case(&cases[i], NULL, (RouteLoss){0});
        failures += route_bwd_case(&cases[i], NULL, (RouteLoss){.aux = 0.02, .z = 0.003});
    }
    assert_int_equal(failures, 0);
}

static void route_random(void **state)
{
    (void)state;
    int failures = 0;
    Rig *rng = rig_new("route_fwd", "random sizes");
    for (int i = 0; i < rig_random_cases(15); i++) {
        int64_t E = 1 + rig_below(rng, 20), R = 1 + rig_below(rng, 60);
        int64_t k = 1 + rig_below(rng, E < 6 ? E : 6);
        int64_t C = 1 + rig_below(rng, 2 * R * k / E + 2);
        RouteCase c = {.N = R * (1 + rig_below(rng, 4)), .E = E, .k = k, .R = R, .C = C,
                       .mode = rig_below(rng, 5) ? ROUTE_RECYCLE : ROUTE_DROPLESS,
                       .renorm = rig_below(rng, 2), .kind = rig_below(rng, 5)};
        failures += route_fwd_case(&c, NULL);
        /* placed probabilities that are 0 in f32 have no renormalised gradient */
        if (c.kind == LOGITS_WIDE) c.renorm = false;
        RouteLoss loss = {.aux = rig_uniform(rng), .z = rig_uniform(rng)};
        failures += route_bwd_case(&c, NULL, loss);
    }
    rig_free(rng);
    assert_int_equal(failures, 0);
}

/* Logits that are not finite (a diverged run): any routing, but indices stay inside the tables. */
static void route_not_finite(void **state)
{
    (void)state;
    int failures = 0;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) {
        RouteMode mode = i % 2 ? ROUTE_RECYCLE : ROUTE_DROPLESS;
        RouteCase c = {48, 6, 2, 16, 6, mode, false, LOGITS_NORMAL};
        Rig *r = rig_new("route_fwd", "not finite %d", i);
        RefRoute a = route_make(r, &c, NULL);
        for (int64_t n = 0; n < a.N; n++)
            for (int64_t e = 0; e < a.E; e++)
                if (n % 3 == 0 && (n % 2 || e == 2)) a.logits[n * a.E + e] = bad[i / 2];
        route_option_slots(r, &a);
        rig_in_values(r, "logits", tensor_2d(NULL, DT_F32, a.N, a.E), a.logits);
        route_want(r, &a);
        for (int s = 0; s < r->n_slots; s++)
            for (int64_t j = 0; r->slot[s].want && j < slot_size(&r->slot[s]); j++)
                r->slot[s].want[j] = NAN;
        failures += rig_run(r, route_call_fwd, &a) + bad_indices(r, &a);
        route_free(&a);
        rig_free(r);
    }
    assert_int_equal(failures, 0);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_route"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(router),       cmocka_unit_test(route_fwd), cmocka_unit_test(route_bwd),
        cmocka_unit_test(route_random), cmocka_unit_test(route_not_finite),
        cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_route", tests);
}
