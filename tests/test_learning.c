/* tests/test_learning.c - the whole of model and optimizer learns: one batch is overfitted to near
 * zero, and an induction task (copy what followed the same token before) is learned from fresh
 * data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/philox.h"
#include "optim/optim.h"
#include "tests/ref/tiny.h"

static OptimConfig optim = {.lr = 5e-3, .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8,
                                  .weight_decay = 0.01, .clip = 1, .lr_ratio = OPTIM_SAME(1),
                                  .decay = OPTIM_MATRICES, .muon_momentum = 0.95,
                                  .schedule = SCHEDULE_CONSTANT, .warmup_steps = 20,
                                  .final_lr_ratio = 0.1};

/* One optimizer step on the batch as one micro-batch; returns the mean loss before it. */
static double train_step(Model *m, Optimizer *o, const TinyBatch *b, int64_t step)
{
    double targets = 0;
    int64_t tokens = b->B * b->T;
    for (int64_t i = 0; i < tokens; i++) targets += b->targets[i] >= 0;
    optimizer_begin(o, 1, step, schedule_lr(&optim, step, 1 << 20), step, targets);
    model_zero_grads(m);
    MicroBatch micro = tiny_micro(b, false);
    model_train_micro(m, &micro, tokens / model_config(m)->routing_group_tokens, tokens);
    StepVars vars;
    optimizer_step(o, &vars);
    assert_int_equal(vars.skip, 0);
    model_end_step(m, 1);
    StepStats stats;
    model_stats(m, 1, &stats);
    return stats.loss_sum / stats.targets;
}

/* A tiny case in a size that learns. */
static ModelConfig learner_of(const char *name)
{
    ModelConfig c = tiny_case(name);
    c.d_model = 64;
    c.head_dim = 16;
    c.expert_width = 64;
    c.shared_width = 64;
    c.n_layers = 2;
    c.init_std = 0.05;
    c.aux_coef = 0.01;
    c.z_coef = 0.001;
    c.routing_group_tokens = 64;
    c.capacity_multiple = 8;
    return c;
}

static ModelConfig learner(void) { return learner_of("base"); }

static void overfit(ModelConfig c, DType type, int steps, double bar)
{
    Device *d = tiny_device(2);
    ModelShape shape = {.type = type, .B = 4, .T = 32, .micro_batches = 1, .train = true};
    Model *m = tiny_model(d, &c, shape, 1);
    Err e = {0};
    Optimizer *o = optimizer_create(m, &optim, &e);
    assert_non_null(o);
    TinyBatch b = tiny_batch(&c, 4, 32, 2);
    double loss = 0, first = 0;
    for (int step = 0; step < steps; step++) {
        loss = train_step(m, o, &b, step);
        if (!step) first = loss;
    }
    if (!(first > 3 && loss < bar))
        fail_msg("%s: loss went from %g to %g, bar %g", model_routing_name(c.routing), first, loss,
                 bar);
    optimizer_destroy(&o);
    model_destroy(&m);
    tiny_batch_free(&b);
    device_destroy(&d);
}

static void test_overfit_f32(void **state)
{
    (void)state;
    overfit(learner(), DT_F32, 150, 0.02);
}

static void test_overfit_bf16(void **state)
{
    (void)state;
    overfit(learner(), DT_BF16, 150, 0.05);
}

/* Every routing mode learns the batch by heart. */
static void test_overfit_modes(void **state)
{
    static const char *const modes[] = {
        "dropless", "drop", "drop by score", "expert choice", "expert choice raw", "sigmoid raw",
        "top-p", "top-p recycle", "limited", "global balance", "loss-free bias", "deepseek-v3",
        "entropy", "noise cv", "llama-moe"};
    (void)state;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        overfit(learner_of(modes[i]), DT_F32, 80, 0.3);
}

/* Experts of own widths, in both types, with the P-penalty. */
static void test_overfit_own_widths(void **state)
{
    (void)state;
    Err e = {0};
    ModelConfig c = learner();
    snprintf(c.expert_widths, sizeof c.expert_widths, "24 104 40 88");
    if (model_resolve_widths(&c, &e)) fail_msg("%s", e.message);
    c.width_penalty = true;
    overfit(c, DT_F32, 150, 0.02);
    overfit(c, DT_BF16, 150, 0.05);
}

/* Each optimizer in turn, from the same start. */
static void test_overfit_optimizers(void **state)
{
    (void)state;
    OptimConfig kept = optim;
    optim.moments = MOMENTS_BF16;
    overfit(learner(), DT_F32, 150, 0.02);
    optim.kind = OPTIM_MUON;
    overfit(learner(), DT_BF16, 150, 0.05);
    optim.moments = MOMENTS_F32;
    overfit(learner(), DT_F32, 150, 0.02);
    optim = kept;
}

/* Half random tokens, then the same again; targets only in the second half. */
static void induction_batch(TinyBatch *b, int64_t vocab, uint64_t seed)
{
    PhiloxKey key = {seed, RNG_TEST, 7, 0};
    for (int64_t s = 0; s < b->B; s++) {
        int64_t half = b->T / 2;
        for (int64_t t = 0; t < half; t++) {
            uint32_t word = philox_u32(&key, (uint64_t)(s * half + t));
            b->tokens[s * b->T + t] = (int32_t)(word % (uint32_t)vocab);
            b->tokens[s * b->T + half + t] = b->tokens[s * b->T + t];
        }
        for (int64_t t = 0; t < b->T; t++) {
            bool known = t >= half && t + 1 < b->T;
            b->targets[s * b->T + t] = known ? b->tokens[s * b->T + t + 1] : -1;
        }
    }
}

static void test_induction(void **state)
{
    (void)state;
    ModelConfig c = learner();
    Device *d = tiny_device(2);
    ModelShape shape = {.type = DT_BF16, .B = 32, .T = 32, .micro_batches = 1, .train = true};
    Model *m = tiny_model(d, &c, shape, 1);
    Err e = {0};
    Optimizer *o = optimizer_create(m, &optim, &e);
    assert_non_null(o);
    TinyBatch b = tiny_batch(&c, 32, 32, 2);
    double loss = 9;
    int step = 0;
    for (; step < 1500 && loss > 0.1; step++) {
        induction_batch(&b, c.vocab_size, 1000 + (uint64_t)step);
        loss = train_step(m, o, &b, step);
    }
    if (!(loss <= 0.1)) fail_msg("after %d steps the copy loss is %g", step, loss);
    print_message("induction: loss %.3f after %d steps\n", loss, step);
    optimizer_destroy(&o);
    model_destroy(&m);
    tiny_batch_free(&b);
    device_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfit_f32),
        cmocka_unit_test(test_overfit_bf16),
        cmocka_unit_test(test_overfit_modes),
        cmocka_unit_test(test_overfit_own_widths),
        cmocka_unit_test(test_overfit_optimizers),
        cmocka_unit_test(test_induction),
    };
    const struct CMUnitTest fast[] = {cmocka_unit_test(test_overfit_f32)};
    if (getenv("ISOMOE_FAST")) return cmocka_run_group_tests(fast, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
