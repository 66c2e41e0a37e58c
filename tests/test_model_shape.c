/* tests/test_model_shape.c - a model that changes its shape and rotation in the memory it has gives
 * what a model made in that shape gives, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/size.h"
#include "model/memory.h"
#include "tests/ref/tiny.h"

typedef struct Look { /* a shape to go over to, and the base of its rotation */
    int64_t B, T, micro_batches;
    double theta;
} Look;

static const Look looks[] = {{2, 8, 1, 1e4},  {1, 16, 2, 1e4}, {3, 24, 1, 1e6},
                             {4, 8, 3, 1e6},  {1, 8, 1, 5e5},  {2, 8, 1, 1e4}};
enum { LOOKS = sizeof looks / sizeof *looks };

static ModelShape shape_of(const Look *look, DType type, bool train)
{
    return (ModelShape){.type = type, .B = look->B, .T = look->T, .train = train,
                        .micro_batches = look->micro_batches};
}

static int64_t bytes_of(const ModelConfig *c, ModelShape shape)
{
    ArenaPlan plan = {0};
    Err e = {0};
    if (model_plan(c, &shape, &plan, &e)) fail_msg("%s", e.message);
    int64_t bytes = arena_total(&plan);
    arena_clear(&plan);
    return bytes;
}

/* Everything that a model of this look gives: training loss, gradients, held-out sums, logits. */
static void *results(Model *m, const Look *look, size_t *size)
{
    const ModelConfig *c = model_config(m);
    TinyBatch b = tiny_batch(c, look->B, look->T, 9);
    int64_t logits = look->B * look->T * c->vocab_size, grads = tensor_bytes(model_grads(m));
    *size = 3 * sizeof(double) + (size_t)logits * sizeof(float) + (size_t)grads;
    char *out = calloc(1, *size);
    double sums[2] = {0}, loss = model_shape(m)->train ? tiny_train(m, &b, true, 11) : 0;
    MicroBatch micro = tiny_micro(&b, true);
    model_eval_micro(m, &micro, sums, NULL);
    memcpy(out, &loss, sizeof loss);
    memcpy(out + sizeof loss, sums, sizeof sums);
    model_logits(m, &micro, (float *)(void *)(out + 3 * sizeof loss));
    char *flat = out + 3 * sizeof loss + (size_t)logits * sizeof(float);
    if (grads) dev_download(model_device(m), flat, model_grads(m));
    tiny_batch_free(&b);
    return out;
}

/* What training carries from step to step is no longer what it began with. */
static void move_state(Model *m)
{
    StateTensor state[STATE_MAX];
    int n = model_state(m, state);
    for (int i = 0; i < n; i++) {
        int64_t count = tensor_elements(state[i].tensor);
        float *values = malloc((size_t)count * sizeof *values);
        assert_int_equal(state[i].tensor.type, DT_F32);
        for (int64_t j = 0; j < count; j++) values[j] = 0.1f + 0.05f * (float)(j % 7);
        dev_upload(model_device(m), state[i].tensor, values);
        free(values);
    }
}

static void check_case(Device *d, const TinyCase *t, DType type, bool train)
{
    ModelConfig c = tiny_config();
    t->change(&c);
    ModelShape first = shape_of(&looks[0], type, train);
    for (int i = 0; i < LOOKS; i++)
        first.reserve = size_max(first.reserve, bytes_of(&c, shape_of(&looks[i], type, train)));
    Model *m = tiny_model(d, &c, first, 5);
    move_state(m);
    StepVars vars = {.seed = 77, .step = 5, .loss_scale = 0.25};
    for (int i = 0; i < LOOKS; i++) {
        size_t size, fresh_size;
        Err e = {0};
        ModelShape shape = shape_of(&looks[i], type, train);
        dev_step_begin(d, model_vars(m), &vars);
        if (model_reshape(m, &shape, looks[i].theta, &e)) fail_msg("%s: %s", t->name, e.message);
        assert_memory_equal(model_vars(m), &vars, sizeof vars);
        assert_int_equal(model_shape(m)->T, looks[i].T);
        ModelConfig turned = c;
        turned.rope_theta = looks[i].theta;
        Model *fresh = tiny_model(d, &turned, shape, 5);
        move_state(fresh);
        void *got = results(m, &looks[i], &size), *want = results(fresh, &looks[i], &fresh_size);
        assert_int_equal(size, fresh_size);
        if (memcmp(got, want, size))
            fail_msg("%s, look %d: not what a fresh model gives", t->name, i);
        free(got);
        free(want);
        model_destroy(&fresh);
    }
    model_destroy(&m);
}

static void test_like_a_fresh_model(void **state)
{
    (void)state;
    Device *d = tiny_device(2);
    for (const TinyCase *t = tiny_cases; t->name; t++) {
        if (getenv("ISOMOE_FAST") && (t - tiny_cases) % 5) continue;
        check_case(d, t, DT_F32, true);
        check_case(d, t, DT_BF16, (t - tiny_cases) % 2);
    }
    device_destroy(&d);
}

/* What cannot be served leaves the model as it was. */
static void test_refusals(void **state)
{
    static const struct {
        Look look;
        const char *message;
    } cases[] = {
        {{2, 16, 1, 1e4}, "2 x 16 tokens need "},
        {{1, 12, 1, 1e4}, "model.routing_group_tokens is 8, a micro-batch has 1 x 12 = 12 tokens"},
        {{0, 8, 1, 1e4}, "a micro-batch of 0 x 8 tokens"},
        {{1, (int64_t)1 << 40, 1, 1e4}, "a micro-batch of 1 x 1099511627776 tokens"},
    };
    (void)state;
    Device *d = tiny_device(1);
    ModelConfig c = tiny_config();
    Model *m = tiny_model(d, &c, shape_of(&looks[0], DT_F32, true), 5);
    size_t size;
    void *before = results(m, &looks[0], &size);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Err e = {0};
        ModelShape shape = shape_of(&cases[i].look, DT_F32, true);
        assert_int_equal(model_reshape(m, &shape, 2.0, &e), -1);
        if (!strstr(e.message, cases[i].message)) fail_msg("message: %s", e.message);
        assert_true(model_config(m)->rope_theta == 1e4 && model_shape(m)->T == 8);
        void *after = results(m, &looks[0], &size);
        assert_memory_equal(before, after, size);
        free(after);
    }
    free(before);
    model_destroy(&m);
    device_destroy(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_a_fresh_model),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
