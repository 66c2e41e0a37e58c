/* tests/test_ops_combine.c - dispatch and combine, both ways, against the oracle. */
#include <stdlib.h>
#include <math.h>

#include "tests/ref/group.h"
#include "tests/ref/routes.h"

typedef struct Case {
    RouteCase route;
    int64_t D;
} Case;

static const Case cases[] = {
    {{1, 1, 1, 1, 1, ROUTE_RECYCLE, false, LOGITS_NORMAL}, 1},
    {{16, 4, 1, 8, 2, ROUTE_RECYCLE, false, LOGITS_NORMAL}, 7},
    {{64, 4, 1, 64, 16, ROUTE_RECYCLE, false, LOGITS_CROWDED}, 33},
    {{60, 6, 2, 20, 8, ROUTE_RECYCLE, false, LOGITS_NORMAL}, 16},  /* empty rows */
    {{40, 4, 2, 10, 2, ROUTE_RECYCLE, true, LOGITS_NORMAL}, 65},   /* unplaced choices */
    {{40, 4, 1, 40, 3, ROUTE_RECYCLE, true, LOGITS_NORMAL}, 24},   /* tokens without an expert */
    {{256, 32, 6, 128, 24, ROUTE_RECYCLE, true, LOGITS_TIES}, 31},
    {{60, 6, 2, 20, 8, ROUTE_DROPLESS, true, LOGITS_NORMAL}, 17},
    {{64, 8, 1, 32, 8, ROUTE_DROPLESS, false, LOGITS_CROWDED}, 128},
    {{35, 5, 5, 7, 8, ROUTE_DROPLESS, true, LOGITS_NORMAL}, 130},
    {{60, 6, 2, 20, 4, ROUTE_DROP, true, LOGITS_CROWDED}, 19},
    {{60, 6, 6, 20, 3, ROUTE_EXPERT_CHOICE, true, LOGITS_NORMAL}, 33}, /* a slot for each expert */
    {{160, 70, 70, 80, 40, ROUTE_EXPERT_CHOICE, false, LOGITS_NORMAL}, 5},
};
enum { CASES = sizeof cases / sizeof *cases };

static Rig *new_rig(const char *op, const Case *c, DType type, const char *more)
{
    char text[128];
    return rig_new(op, "%s D %d %s%s", route_text(&c->route, NULL, text), (int)c->D,
                   dtype_name(type), more);
}

/* The routing's slots, with any combine weights where there is a place, and the oracle's struct. */
static RefCombine start(Rig *r, const Case *c, RefRoute *route)
{
    *route = route_make(r, &c->route, NULL);
    int64_t n = route->N * route->k;
    double *weight = malloc(sizeof *weight * (size_t)n);
    for (int64_t i = 0; i < n; i++) weight[i] = route->expert[i] < 0 ? 0 : rig_normal(r);
    route_slots(r, route, weight);
    free(weight);
    return (RefCombine){.N = route->N, .D = c->D, .k = route->k, .rows = ref_route_rows(route),
                        .row = route->row, .row_src = route->row_src};
}

static int finish(Rig *r, RefRoute *route, RigCall *call)
{
    int failures = rig_run(r, call, NULL);
    route_free(route);
    rig_free(r);
    return failures;
}

static void call_dispatch_fwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    Routing routing = route_live(r);
    dev_dispatch_fwd(d, rig_get(r, "xe"), rig_get(r, "x"), &routing);
}

static void call_dispatch_bwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    Routing routing = route_live(r);
    dev_dispatch_bwd(d, rig_get(r, "dx"), rig_get(r, "dxe"), &routing);
}

static void call_combine_fwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    Routing routing = route_live(r);
    dev_combine_fwd(d, rig_get(r, "y"), rig_get(r, "base"), rig_get(r, "ye"), &routing);
}

static void call_combine_bwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    Routing routing = route_live(r);
    dev_combine_bwd(d, rig_get(r, "dye"), rig_get(r, "dweight"), rig_get(r, "dy"),
                    rig_get(r, "ye"), &routing);
}

static int dispatch_fwd_case(const Case *c, DType type)
{
    RefRoute route;
    Rig *r = new_rig("dispatch_fwd", c, type, "");
    RefCombine a = start(r, c, &route);
    a.x = rig_in(r, "x", tensor_2d(NULL, type, a.N, a.D), 1)->value;
    a.xe = rig_out(r, "xe", tensor_2d(NULL, type, a.rows, a.D), TOL_EXACT)->want;
    ref_dispatch_fwd(&a);
    return finish(r, &route, call_dispatch_fwd);
}

static int dispatch_bwd_case(const Case *c, DType type)
{
    RefRoute route;
    Rig *r = new_rig("dispatch_bwd", c, type, "");
    RefCombine a = start(r, c, &route);
    Slot *dxe = rig_in(r, "dxe", tensor_2d(NULL, type, a.rows, a.D), 1);
    Slot *dx = rig_out(r, "dx", tensor_2d(NULL, type, a.N, a.D), tol_dot(a.k));
    a.dxe = dxe->value;
    a.dx = dx->want;
    ref_dispatch_bwd(&a);
    a.dxe = slot_abs(dxe);
    a.dx = dx->mag;
    ref_dispatch_bwd(&a);
    free(a.dxe);
    return finish(r, &route, call_dispatch_bwd);
}

/* Where the sum starts. */
typedef enum Base { NO_BASE, BASE_APART, BASE_IS_Y } Base;

static int combine_fwd_case(const Case *c, DType type, Base kind)
{
    static const char *const names[] = {"", " base", " base in place"};
    RefRoute route;
    Rig *r = new_rig("combine_fwd", c, type, names[kind]);
    RefCombine a = start(r, c, &route);
    Tensor shape = tensor_2d(NULL, type, a.N, a.D);
    Slot *ye = rig_in(r, "ye", tensor_2d(NULL, type, a.rows, a.D), 1);
    Slot *weight = rig_slot(r, "weight"), *base = NULL, *y;
    if (kind == BASE_IS_Y) {
        y = base = rig_inout(r, "y", shape, 1, tol_dot(a.k));
        rig_alias(r, "base", y);
    } else {
        y = rig_out(r, "y", shape, tol_dot(a.k));
        if (kind == BASE_APART) base = rig_in(r, "base", shape, 1);
    }
    a.ye = ye->value;
    a.weight = weight->value;
    a.base = base ? base->value : NULL;
    a.y = y->want;
    ref_combine_fwd(&a);
    a.ye = slot_abs(ye);
    a.weight = slot_abs(weight);
    a.base = slot_abs(base);
    a.y = y->mag;
    ref_combine_fwd(&a);
    free(a.ye);
    free(a.weight);
    free(a.base);
    return finish(r, &route, call_combine_fwd);
}

static int combine_bwd_case(const Case *c, DType type, bool in_place)
{
    RefRoute route;
    Rig *r = new_rig("combine_bwd", c, type, in_place ? " in place" : "");
    RefCombine a = start(r, c, &route);
    Tensor rows = tensor_2d(NULL, type, a.rows, a.D);
    Slot *dy = rig_in(r, "dy", tensor_2d(NULL, type, a.N, a.D), 1);
    Slot *weight = rig_slot(r, "weight");
    Slot *ye = in_place ? rig_inout(r, "ye", rows, 1, tol_dot(1)) : rig_in(r, "ye", rows, 1);
    Slot *dye = in_place ? ye : rig_out(r, "dye", rows, tol_dot(1));
    if (in_place) rig_alias(r, "dye", ye);
    for (int64_t i = 0; i < slot_size(dye); i++) dye->want[i] = dye->mag[i] = 0;
    Slot *dweight = rig_out(r, "dweight", tensor_2d(NULL, DT_F32, a.N, a.k), tol_dot(a.D));
    a.dy = dy->value;
    a.weight = weight->value;
    a.ye = ye->value;
    a.dye = dye->want;
    a.dweight = dweight->want;
    ref_combine_bwd(&a);
    a.dy = slot_abs(dy);
    a.weight = slot_abs(weight);
    a.ye = slot_abs(ye);
    a.dye = dye->mag;
    a.dweight = dweight->mag;
    ref_combine_bwd(&a);
    free(a.dy);
    free(a.weight);
    free(a.ye);
    return finish(r, &route, call_combine_bwd);
}

static void dispatch(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++)
        for (int t = 0; t < 2; t++) {
            failures += dispatch_fwd_case(&cases[i], t ? DT_BF16 : DT_F32);
            failures += dispatch_bwd_case(&cases[i], t ? DT_BF16 : DT_F32);
        }
    assert_int_equal(failures, 0);
}

static void combine_fwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++)
        for (int t = 0; t < 2; t++)
            for (int kind = NO_BASE; kind <= BASE_IS_Y; kind++)
                failures += combine_fwd_case(&cases[i], t ? DT_BF16 : DT_F32, kind);
    assert_int_equal(failures, 0);
}

static void combine_bwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++)
        for (int t = 0; t < 2; t++)
            for (int in_place = 0; in_place < 2; in_place++)
                failures += combine_bwd_case(&cases[i], t ? DT_BF16 : DT_F32, in_place);
    assert_int_equal(failures, 0);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_combine"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dispatch),
        cmocka_unit_test(combine_fwd),
        cmocka_unit_test(combine_bwd),
        cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_combine", tests);
}
