/* tests/train_fixture.h - a small model with an optimizer and known values in all arrays, and its
 * checkpoints in the scratch folder: for the tests of train/checkpoint.h. */
#ifndef ISOMOE_TESTS_TRAIN_FIXTURE_H
#define ISOMOE_TESTS_TRAIN_FIXTURE_H

#include "tests/train_help.h"

#include <hdf5.h>

#include "train/checkpoint.h"

static const char CONFIG[] =
    "model: {vocab_size: 40, d_model: 16, n_layers: %d, n_heads: 2, n_kv_heads: 1, head_dim: 8,\n"
    "  qk_norm: head_after_rope, n_experts: 3, top_k: 1, expert_width: %d, n_shared: 1,\n"
    "  shared_width: 8, routing_group_tokens: 16}\n"
    "data: {train: corpus, seq_len: 16}\n"
    "train: {out: run, steps: 200, batch: 2, precision: f32, keep_checkpoints: 2}\n";

static Device *device;

typedef struct Fixture {
    RunConfig config;
    Model *m;
    Optimizer *o;
} Fixture;

__attribute__((unused)) static void fill(Tensor t, double factor)
{
    void *values = malloc((size_t)tensor_bytes(t));
    for (int64_t i = 0; i < tensor_elements(t); i++) {
        double x = factor * (double)(i + 1);
        if (t.type == DT_F64) ((double *)values)[i] = x;
        else if (t.type == DT_F32) ((float *)values)[i] = (float)x;
        else ((uint16_t *)values)[i] = bf16_from_f32((float)x);
    }
    dev_upload(device, t, values);
    free(values);
}

/* optim: a section of the configuration, or "". */
__attribute__((unused)) static void make_with(Fixture *f, int layers, int width, double factor,
                                              const char *optim)
{
    char text[1024];
    Err e = {0};
    int n = snprintf(text, sizeof text, CONFIG, layers, width);
    snprintf(text + n, sizeof text - (size_t)n, "%s", optim);
    if (run_config_read_text(&f->config, text, "text", &e)) fail_msg("%s", e.message);
    ModelShape shape = run_config_shape(&f->config);
    f->m = model_create(device, &f->config.model, &shape, &e);
    assert_non_null(f->m);
    f->o = optimizer_create(f->m, &f->config.optim, &e);
    assert_non_null(f->o);
    fill(model_master(f->m), factor);
    for (int i = 0; i < model_params(f->m)->count; i++) {
        fill(optimizer_m(f->o, i), factor * (3 + i));
        if (optimizer_v(f->o, i).data) fill(optimizer_v(f->o, i), factor * (70 + i));
    }
    StateTensor state[STATE_MAX];
    for (int i = optimizer_state(f->o, state); i-- > 0;) fill(state[i].tensor, factor * (9 + i));
}

__attribute__((unused)) static void make(Fixture *f, int layers, int width, double factor)
{
    make_with(f, layers, width, factor, "");
}

__attribute__((unused)) static void destroy(Fixture *f)
{
    optimizer_destroy(&f->o);
    model_destroy(&f->m);
}

__attribute__((unused)) static TrainState state_at(int64_t step)
{
    return (TrainState){.step = step, .updates = step - 1, .sequence = 2 * step, .steps_total = 150,
                        .tokens = 32.0 * (double)step, .flops = 1e15 / 3, .seconds = 0.1,
                        .loss_ema = 2.0 / 3, .run_id = 0xfedcba9876543210u, .tokenizer_hash = 1,
                        .data_hash = UINT64_MAX, .val_hash = 3};
}

__attribute__((unused)) static void save(Fixture *f, int64_t step)
{
    TrainState s = state_at(step);
    Err e = {0};
    if (checkpoint_save(scratch, f->m, f->o, &f->config, &s, &e)) fail_msg("%s", e.message);
}

/* A file of step 3. */
__attribute__((unused)) static char *step_file(const char *name)
{
    return at("checkpoints/step-000000003/%s", name);
}

__attribute__((unused)) static int begin_all(void **state)
{
    Err e = {0};
    (void)state;
    device = device_create("cpu", &(DeviceOptions){.threads = 1}, &e);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return device ? 0 : -1;
}

__attribute__((unused)) static int end_all(void **state)
{
    (void)state;
    device_destroy(&device);
    return 0;
}

/* Each test in a scratch folder of its own. */
#define TEST(name) cmocka_unit_test_setup_teardown(name, help_begin, help_end)

#endif
