/* tests/test_ops_loss.c - linear + cross-entropy, and the sum of the loss, against the oracle. */
#include <stdlib.h>
#include <math.h>

#include "tests/ref/group.h"
#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

/* Which tokens are counted. */
typedef enum Targets { ALL_COUNTED, SOME_COUNTED, NONE_COUNTED } Targets;

typedef struct Case {
    int64_t N, D, V;
    int64_t vocab0, vocab; /* the shard's first id; ids of the whole vocabulary */
    Targets targets;
    double size; /* of x: how peaked the softmax is */
    double logit_scale;
} Case;

static const Case cases[] = {
    {1, 1, 1, 0, 1, ALL_COUNTED, 1, 0},       {0, 4, 7, 0, 7, ALL_COUNTED, 1, 0},
    {3, 5, 7, 0, 7, ALL_COUNTED, 1, 0},       {17, 33, 65, 0, 65, SOME_COUNTED, 1, 0.25},
    {64, 32, 256, 0, 256, SOME_COUNTED, 1, 0}, {5, 16, 1031, 0, 1031, ALL_COUNTED, 1, 3},
    {13, 24, 100, 0, 100, NONE_COUNTED, 1, 0}, {7, 64, 31, 0, 31, ALL_COUNTED, 10, 0},
    {131, 7, 97, 0, 97, SOME_COUNTED, 1, 0},  {523, 9, 67, 0, 67, SOME_COUNTED, 1, 0},
    {19, 130, 300, 0, 300, ALL_COUNTED, 1, 0}, {257, 8, 1025, 0, 1025, SOME_COUNTED, 1, 0.125},
    {530, 6, 2053, 0, 2053, SOME_COUNTED, 1, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

static const Case shards[] = {
    {23, 17, 40, 0, 101, SOME_COUNTED, 1, 0},
    {23, 17, 40, 40, 101, SOME_COUNTED, 1, 0.5},
    {23, 17, 21, 80, 101, ALL_COUNTED, 1, 0},
    {5, 32, 1, 6, 64, ALL_COUNTED, 1, 0},
};
enum { SHARDS = sizeof shards / sizeof *shards };

static const double loss_scale = 1.0 / 77;

static void call_fwd(Device *d, const Rig *r, const void *context)
{
    const Case *c = context;
    CeOpt opt = {.vocab0 = c->vocab0, .logit_scale = c->logit_scale};
    dev_ce_fwd(d, rig_get(r, "lse"), rig_get(r, "target_logit"), rig_get(r, "x"), rig_get(r, "w"),
               rig_get(r, "targets"), &opt);
}

static void call_bwd(Device *d, const Rig *r, const void *context)
{
    const Case *c = context;
    CeOpt opt = {.vocab0 = c->vocab0, .vars = rig_vars(r, "vars"), .logit_scale = c->logit_scale};
    LinearGrad g = {.dx = rig_get(r, "dx"), .dw = rig_get(r, "dw")};
    dev_ce_bwd(d, g, rig_get(r, "x"), rig_get(r, "w"), rig_get(r, "targets"), rig_get(r, "lse"),
               &opt);
}

static void call_train(Device *d, const Rig *r, const void *context)
{
    const Case *c = context;
    CeOpt opt = {.vars = rig_vars(r, "vars"), .logit_scale = c->logit_scale};
    CeTrain out = {.lse = rig_get(r, "lse"), .target_logit = rig_get(r, "target_logit"),
                   .dx = rig_get(r, "dx"), .dw = rig_get(r, "dw")};
    dev_ce_train(d, out, rig_get(r, "x"), rig_get(r, "w"), rig_get(r, "targets"), &opt);
}

static int32_t *make_targets(Rig *r, const Case *c)
{
    int32_t *targets = malloc(sizeof *targets * (size_t)(c->N + 1));
    for (int64_t n = 0; n < c->N; n++) {
        bool counted = c->targets == ALL_COUNTED || (c->targets == SOME_COUNTED && rig_below(r, 3));
        targets[n] = counted ? (int32_t)rig_below(r, c->vocab) : -1;
    }
    return targets;
}

/* Slots x, w, targets, vars. */
static RefCe start(Rig *r, const Case *c, DType type, int32_t *targets)
{
    StepVars vars = {.loss_scale = loss_scale};
    RefCe a = {.N = c->N, .D = c->D, .V = c->V, .vocab0 = c->vocab0, .loss_scale = loss_scale,
               .logit_scale = c->logit_scale, .targets = targets};
    a.x = rig_in(r, "x", tensor_2d(NULL, type, c->N, c->D), c->size)->value;
    a.w = rig_in(r, "w", tensor_2d(NULL, type, c->V, c->D), 1 / sqrt((double)c->D))->value;
    rig_in_i32(r, "targets", tensor_1d(NULL, DT_I32, c->N), targets);
    rig_in_vars(r, "vars", &vars);
    return a;
}

static Rig *new_rig(const char *op, const Case *c, DType type)
{
    return rig_new(op, "N %d D %d V %d from %d of %d, targets %d, size %g, scale %g %s", (int)c->N,
                   (int)c->D, (int)c->V, (int)c->vocab0, (int)c->vocab, c->targets, c->size,
                   c->logit_scale, dtype_name(type));
}

static void want_forward(Rig *r, RefCe *a)
{
    Slot *lse = rig_out(r, "lse", tensor_1d(NULL, DT_F32, a->N), tol_softmax(a->V, a->D));
    Slot *target = rig_out(r, "target_logit", tensor_1d(NULL, DT_F32, a->N), tol_dot(a->D));
    a->lse = lse->want;
    a->lse_mag = lse->mag;
    a->target_logit = target->want;
    a->target_mag = target->mag;
    ref_ce_fwd(a);
}

/* Gradients from a->lse. */
static void want_backward(Rig *r, RefCe *a, DType type)
{
    Slot *dx = rig_out(r, "dx", tensor_2d(NULL, type, a->N, a->D), tol_softmax(a->V, a->D));
    Slot *dw = rig_inout(r, "dw", tensor_2d(NULL, DT_F32, a->V, a->D), 0.01,
                         tol_softmax(a->N, a->D));
    a->dx = dx->want, a->dx_mag = dx->mag, a->dx_half = dx->half;
    a->dw = dw->want, a->dw_mag = dw->mag, a->dw_half = dw->half;
    ref_ce_bwd(a);
    for (int64_t i = 0; type == DT_F32 && i < slot_size(dx); i++) dx->half[i] = 0;
    for (int64_t i = 0; type == DT_F32 && i < slot_size(dw); i++) dw->half[i] = 0;
}

static int finish(Rig *r, RigCall *call, const Case *c, int32_t *targets)
{
    int failures = rig_run(r, call, c);
    free(targets);
    rig_free(r);
    return failures;
}

static int fwd_case(const Case *c, DType type)
{
    Rig *r = new_rig("ce_fwd", c, type);
    int32_t *targets = make_targets(r, c);
    RefCe a = start(r, c, type, targets);
    want_forward(r, &a);
    return finish(r, call_fwd, c, targets);
}

/* lse over the whole vocabulary: the shard's, and 0.7 more where there are others. */
static int bwd_case(const Case *c, DType type)
{
    Rig *r = new_rig("ce_bwd", c, type);
    int32_t *targets = make_targets(r, c);
    RefCe a = start(r, c, type, targets);
    double *lse = malloc(sizeof *lse * (size_t)(2 * c->N + 1));
    a.lse = lse;
    a.target_logit = lse + c->N;
    ref_ce_fwd(&a);
    for (int64_t n = 0; n < c->N && c->V < c->vocab; n++) lse[n] += 0.7;
    a.lse = rig_in_values(r, "lse", tensor_1d(NULL, DT_F32, c->N), lse)->value;
    want_backward(r, &a, type);
    free(lse);
    return finish(r, call_bwd, c, targets);
}

static int train_case(const Case *c, DType type)
{
    Rig *r = new_rig("ce_train", c, type);
    int32_t *targets = make_targets(r, c);
    RefCe a = start(r, c, type, targets);
    want_forward(r, &a);
    want_backward(r, &a, type);
    return finish(r, call_train, c, targets);
}

static void ce(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++)
        for (int t = 0; t < 2; t++) {
            DType type = t ? DT_BF16 : DT_F32;
            failures += fwd_case(&cases[i], type) + bwd_case(&cases[i], type);
        }
    assert_int_equal(failures, 0);
}

static void ce_shards(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SHARDS; i++)
        for (int t = 0; t < 2; t++) {
            DType type = t ? DT_BF16 : DT_F32;
            failures += fwd_case(&shards[i], type) + bwd_case(&shards[i], type);
        }
    assert_int_equal(failures, 0);
}

static void ce_train(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < CASES; i++)
        failures += train_case(&cases[i], DT_F32) + train_case(&cases[i], DT_BF16);
    const Case wide = {300, 3, 70001, 0, 70001, SOME_COUNTED, 1, 0};
    if (rig_random_cases(1) > 1)
        failures += train_case(&wide, DT_F32) + train_case(&wide, DT_BF16);
    assert_int_equal(failures, 0);
}

static void call_nll(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_nll_sum(d, rig_get(r, "sum"), rig_get(r, "lse"), rig_get(r, "target_logit"),
                rig_get(r, "targets"));
}

/* sum is f64, and so is every addition. */
static void nll_sum(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 7, 64, 1000, 8209};
    int failures = 0;
    for (int i = 0; i < 6 * 3; i++) {
        Case c = {.N = sizes[i / 3], .D = 1, .V = 50, .vocab = 50, .targets = i % 3};
        Rig *r = new_rig("nll_sum", &c, DT_F32);
        int32_t *targets = make_targets(r, &c);
        Slot *lse = rig_in(r, "lse", tensor_1d(NULL, DT_F32, c.N), 3);
        Slot *target = rig_in(r, "target_logit", tensor_1d(NULL, DT_F32, c.N), 3);
        rig_in_i32(r, "targets", tensor_1d(NULL, DT_I32, c.N), targets);
        Slot *sum = rig_inout(r, "sum", tensor_1d(NULL, DT_F64, 2), 100, tol_dot(c.N));
        RefCe a = {.N = c.N, .targets = targets, .lse = lse->value, .target_logit = target->value};
        ref_nll_sum(sum->want, &a);
        for (int64_t n = 0; n < c.N; n++)
            if (targets[n] >= 0)
                sum->mag[0] += fabs(lse->value[n]) + fabs(target->value[n]);
        sum->mag[1] += (double)c.N;
        failures += finish(r, call_nll, &c, targets);
    }
    assert_int_equal(failures, 0);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_loss"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ce),      cmocka_unit_test(ce_shards),   cmocka_unit_test(ce_train),
        cmocka_unit_test(nll_sum), cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_loss", tests);
}
