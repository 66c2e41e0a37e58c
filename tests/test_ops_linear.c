/* tests/test_ops_linear.c - linear_fwd, linear_bwd and packed weights against the oracle. */
#include <stdlib.h>
#include <string.h>

#include "tests/ref/group.h"
#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

typedef struct Size {
    int64_t N, O, I;
} Size;

/* Odd, prime, unequal, one, none; multiples of 16 and 64 and one off them. */
static const Size sizes[] = {
    {1, 1, 1},     {1, 3, 7},      {3, 1, 5},     {5, 7, 1},    {0, 5, 3},    {13, 11, 17},
    {16, 32, 64},  {17, 33, 65},   {31, 63, 127}, {64, 16, 32}, {2, 129, 96}, {97, 5, 131},
    {128, 96, 80}, {200, 257, 33}, {37, 64, 300}, {63, 128, 256},
    {9, 17, 4099}, {270, 390, 141},
};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Weight gradients of a long batch: many rows, few outputs and inputs. */
static const Size long_sizes[] = {{8192, 16, 24}, {8209, 37, 101}, {9001, 128, 64}, {8193, 1, 1}};
enum { LONG_SIZES = sizeof long_sizes / sizeof *long_sizes };

typedef struct FwdVariant {
    DType type, y_type;
    bool bias;
} FwdVariant;

static const FwdVariant fwd_variants[] = {{DT_F32, DT_F32, false},
                                          {DT_F32, DT_F32, true},
                                          {DT_BF16, DT_BF16, false},
                                          {DT_BF16, DT_BF16, true},
                                          {DT_BF16, DT_F32, true}};
enum { FWD_VARIANTS = sizeof fwd_variants / sizeof *fwd_variants };

static void call_fwd(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_linear_fwd(d, rig_get(r, "y"), rig_get(r, "x"), rig_get(r, "w"), rig_get(r, "bias"));
}

static Rig *fwd_rig(Size s, FwdVariant v, const char *op)
{
    Rig *r = rig_new(op, "N %lld O %lld I %lld %s to %s%s", (long long)s.N, (long long)s.O,
                     (long long)s.I, dtype_name(v.type), dtype_name(v.y_type),
                     v.bias ? " bias" : "");
    Slot *x = rig_in(r, "x", tensor_2d(NULL, v.type, s.N, s.I), 1);
    Slot *w = rig_in(r, "w", tensor_2d(NULL, v.type, s.O, s.I), 0.5);
    Slot *bias = v.bias ? rig_in(r, "bias", tensor_1d(NULL, DT_F32, s.O), 1) : NULL;
    Slot *y = rig_out(r, "y", tensor_2d(NULL, v.y_type, s.N, s.O), tol_dot(s.I));
    RefLinear a = {.N = s.N, .O = s.O, .I = s.I, .x = x->value, .w = w->value,
                   .bias = bias ? bias->value : NULL, .y = y->want};
    RefLinear m = a;
    ref_linear_fwd(&a);
    m.x = slot_abs(x);
    m.w = slot_abs(w);
    m.bias = slot_abs(bias);
    m.y = y->mag;
    ref_linear_fwd(&m);
    free(m.x);
    free(m.w);
    free(m.bias);
    return r;
}

static int fwd_case(Size s, FwdVariant v)
{
    Rig *r = fwd_rig(s, v, "linear_fwd");
    int failures = rig_run(r, call_fwd, NULL);
    rig_free(r);
    return failures;
}

static void linear_fwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int v = 0; v < FWD_VARIANTS; v++) failures += fwd_case(sizes[i], fwd_variants[v]);
    assert_int_equal(failures, 0);
}

typedef struct BwdVariant {
    DType type;
    bool dx, dx_add, dw, dbias;
} BwdVariant;

static const BwdVariant bwd_variants[] = {
    {DT_F32, true, false, true, true},  {DT_F32, true, true, false, false},
    {DT_F32, false, false, true, false}, {DT_BF16, true, false, true, true},
    {DT_BF16, true, true, true, false}, {DT_BF16, false, false, false, true},
};
enum { BWD_VARIANTS = sizeof bwd_variants / sizeof *bwd_variants };

static void call_bwd(Device *d, const Rig *r, const void *context)
{
    const BwdVariant *v = context;
    LinearGrad g = {.dx = rig_get(r, "dx"), .dx_add = v->dx_add, .dw = rig_get(r, "dw"),
                    .dbias = rig_get(r, "dbias")};
    dev_linear_bwd(d, g, rig_get(r, "dy"), rig_get(r, "x"), rig_get(r, "w"));
}

static Slot *dx_slot(Rig *r, Tensor shape, bool add, double terms)
{
    return add ? rig_inout(r, "dx", shape, 1, terms) : rig_out(r, "dx", shape, terms);
}

static int bwd_case(Size s, BwdVariant v)
{
    Rig *r = rig_new("linear_bwd", "N %lld O %lld I %lld %s%s%s%s%s", (long long)s.N,
                     (long long)s.O, (long long)s.I, dtype_name(v.type), v.dx ? " dx" : "",
                     v.dx_add ? " add" : "", v.dw ? " dw" : "", v.dbias ? " dbias" : "");
    Slot *x = rig_in(r, "x", tensor_2d(NULL, v.type, s.N, s.I), 1);
    Slot *w = rig_in(r, "w", tensor_2d(NULL, v.type, s.O, s.I), 0.5);
    Slot *dy = rig_in(r, "dy", tensor_2d(NULL, v.type, s.N, s.O), 1);
    Slot *dx = v.dx ? dx_slot(r, tensor_2d(NULL, v.type, s.N, s.I), v.dx_add, tol_dot(s.O)) : NULL;
    Slot *dw = v.dw ? rig_inout(r, "dw", tensor_2d(NULL, DT_F32, s.O, s.I), 1, tol_dot(s.N)) : NULL;
    Slot *db = NULL;
    if (v.dbias) db = rig_inout(r, "dbias", tensor_1d(NULL, DT_F32, s.O), 1, tol_dot(s.N));
    RefLinear a = {.N = s.N, .O = s.O, .I = s.I, .x = x->value, .w = w->value, .dy = dy->value,
                   .dx = dx ? dx->want : NULL, .dw = dw ? dw->want : NULL,
                   .dbias = db ? db->want : NULL};
    ref_linear_bwd(&a);
    RefLinear m = {.N = s.N, .O = s.O, .I = s.I, .x = slot_abs(x), .w = slot_abs(w),
                   .dy = slot_abs(dy), .dx = dx ? dx->mag : NULL, .dw = dw ? dw->mag : NULL,
                   .dbias = db ? db->mag : NULL};
    ref_linear_bwd(&m);
    free(m.x);
    free(m.w);
    free(m.dy);
    int failures = rig_run(r, call_bwd, &v);
    rig_free(r);
    return failures;
}

static void linear_bwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int v = 0; v < BWD_VARIANTS; v++) failures += bwd_case(sizes[i], bwd_variants[v]);
    assert_int_equal(failures, 0);
}

static void linear_bwd_long_batch(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < LONG_SIZES; i++) {
        failures += bwd_case(long_sizes[i], (BwdVariant){DT_F32, false, false, true, true});
        failures += bwd_case(long_sizes[i], (BwdVariant){DT_BF16, false, false, true, true});
    }
    assert_int_equal(failures, 0);
}

static void linear_random(void **state)
{
    (void)state;
    int failures = 0;
    Rig *rng = rig_new("linear_fwd", "random sizes");
    for (int i = 0; i < rig_random_cases(10); i++) {
        Size s = {1 + rig_below(rng, 150), 1 + rig_below(rng, 150), 1 + rig_below(rng, 150)};
        failures += fwd_case(s, fwd_variants[i % FWD_VARIANTS]);
        failures += bwd_case(s, bwd_variants[i % BWD_VARIANTS]);
    }
    rig_free(rng);
    assert_int_equal(failures, 0);
}

/* A hinted weight is used as it was when last announced, and anew after dev_weights_changed. */
static void call_hinted(Device *d, const Rig *r, const void *context)
{
    (void)context;
    Tensor w = rig_get(r, "w"), old = rig_get(r, "old");
    int64_t bytes = tensor_bytes(w);
    char *right = malloc((size_t)bytes + 1), *wrong = malloc((size_t)bytes + 1);
    dev_download(d, right, w);
    dev_download(d, wrong, old);
    dev_upload(d, w, wrong);
    dev_weight_hint(d, w);
    dev_weights_changed(d);
    call_fwd(d, r, NULL);
    call_fwd(d, r, NULL);
    dev_upload(d, w, right);
    dev_weights_changed(d);
    call_fwd(d, r, NULL);
    call_fwd(d, r, NULL);
    free(right);
    free(wrong);
}

static void weight_hint(void **state)
{
    (void)state;
    int failures = 0;
    const Size hinted[] = {{5, 7, 3}, {33, 65, 129}, {64, 128, 96}, {1, 256, 64}};
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < FWD_VARIANTS; v++) {
            Rig *r = fwd_rig(hinted[i], fwd_variants[v], "weight_hint");
            rig_in(r, "old", rig_slot(r, "w")->shape, 1);
            failures += rig_run(r, call_hinted, NULL);
            rig_free(r);
        }
    ops_note("weights_changed");
    assert_int_equal(failures, 0);
}

/* One map as a shared weight of several calls, forward and backward, while it is hinted. */
static void call_hinted_bwd(Device *d, const Rig *r, const void *context)
{
    dev_weight_hint(d, rig_get(r, "w"));
    dev_weights_changed(d);
    call_bwd(d, r, context);
}

static void weight_hint_bwd(void **state)
{
    (void)state;
    int failures = 0;
    for (int t = 0; t < 2; t++) {
        DType type = t ? DT_BF16 : DT_F32;
        BwdVariant v = {type, true, false, false, false};
        Rig *r = rig_new("weight_hint", "backward %s", dtype_name(type));
        int64_t N = 33, O = 65, I = 47;
        rig_in(r, "x", tensor_2d(NULL, type, N, I), 1);
        Slot *w = rig_in(r, "w", tensor_2d(NULL, type, O, I), 0.5);
        Slot *dy = rig_in(r, "dy", tensor_2d(NULL, type, N, O), 1);
        Slot *dx = rig_out(r, "dx", tensor_2d(NULL, type, N, I), tol_dot(O));
        RefLinear a = {.N = N, .O = O, .I = I, .w = w->value, .dy = dy->value, .dx = dx->want};
        ref_linear_bwd(&a);
        RefLinear m = {.N = N, .O = O, .I = I, .w = slot_abs(w), .dy = slot_abs(dy),
                       .dx = dx->mag};
        ref_linear_bwd(&m);
        free(m.w);
        free(m.dy);
        failures += rig_run(r, call_hinted_bwd, &v);
        rig_free(r);
    }
    assert_int_equal(failures, 0);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_linear"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_fwd),           cmocka_unit_test(linear_bwd),
        cmocka_unit_test(linear_bwd_long_batch), cmocka_unit_test(linear_random),
        cmocka_unit_test(weight_hint),          cmocka_unit_test(weight_hint_bwd),
        cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_linear", tests);
}
