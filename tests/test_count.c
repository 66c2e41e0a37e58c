/* tests/test_count.c - exact counts and published constants (methods.md, section 0: T1 .. T10). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/count.h"
#include "optim/expert_rate.h"
#include "optim/optim.h"
#include "scaling/published.h"
#include "tests/ref/tiny.h"

#define assert_near(got, want, relative)                                                           \
    do {                                                                                           \
        double got_ = (got), want_ = (want);                                                       \
        if (!(fabs(got_ - want_) <= (relative) * fabs(want_)))                                     \
            fail_msg("%s is %.9g, must be %.9g", #got, got_, want_);                               \
    } while (0)

static ModelConfig read_model(const char *path)
{
    ModelConfig c;
    Err e = {0};
    int lines[64];
    const ConfTable *table = model_config_table();
    if (conf_read(table, &c, path, NULL, 0, lines, &e) ||
        model_config_check(&c, table, lines, path, &e))
        fail_msg("%s", e.message);
    return c;
}

/* T2, T3: 388.698 B parameters, 51.319 B activated with the embedding, 50.50 B without. */
static void test_hunyuan_large(void **state)
{
    (void)state;
    ModelConfig c = read_model("configs/models/hunyuan-large.yaml");
    ParamCount n;
    Err e = {0};
    assert_int_equal(count_params(&c, &n, &e), 0);
    assert_near((double)n.total, 388.698e9, 2e-6);
    assert_near((double)n.active, 51.319e9, 1e-5);
    assert_near((double)n.active_no_embed, 50.4963e9, 1e-6); /* 51.3188 - 0.8225 */
    assert_int_equal(n.total - n.total_no_embed, 128512LL * 6400);
}

/* T4, T5: bytes of keys and values a token in bf16, and 20 GiB at 256K. */
static void test_kv_bytes(void **state)
{
    (void)state;
    ModelConfig c = read_model("configs/models/hunyuan-large.yaml"), mha = c, gqa = c, mqa = c,
                cla = c;
    mha.n_kv_heads = 80, mha.cla_share = 1;
    gqa.cla_share = 1;
    mqa.n_kv_heads = 1, mqa.cla_share = 1;
    cla.n_kv_heads = 80;
    assert_int_equal(count_kv_bytes(&mha, 2), 1638400);
    assert_int_equal(count_kv_bytes(&gqa, 2), 163840);
    assert_int_equal(count_kv_bytes(&mqa, 2), 20480);
    assert_int_equal(count_kv_bytes(&cla, 2), 819200);
    assert_int_equal(count_kv_bytes(&c, 2), 81920);
    assert_near((double)count_kv_bytes(&c, 2) * 262144 / 1073741824.0, 20.0, 1e-12);
}

/* T10: effective base of the rotation. */
static void test_rope_base(void **state)
{
    (void)state;
    ModelConfig c = tiny_config();
    c.head_dim = 80;
    c.rope_alpha = 1000;
    assert_near(model_rope_base(&c), 1.1938e7, 1e-4);
    c.rope_alpha = 1e5;
    assert_near(model_rope_base(&c), 1.3434e9, 1e-4);
    c.rope_alpha = 74989;
    assert_near(model_rope_base(&c), 1e9, 1e-5);
}

/* T1: rate of specialized experts / shared one, 16 experts top-1. */
static void test_expert_rate(void **state)
{
    (void)state;
    static const double x[] = {0.26016, 1, 4, 16, 61.5};
    static const double want[] = {0.3100, 0.4706, 1.0, 2.125, 3.2258};
    for (int i = 0; i < 5; i++) assert_near(expert_rate_ratio(16, x[i]), want[i], 1e-4);
}

/* T6 .. T9: the published law. */
static void test_published_law(void **state)
{
    (void)state;
    double budget = hunyuan_budget(58.1e9);
    assert_near(budget, 3.109e24, 3e-4);
    assert_near(hunyuan_d_opt(budget), 5.642e12, 3e-4);
    assert_near(hunyuan_compute(52e9, 7e12), 3.4924e24, 3e-5);
    static const double c[] = {5e18, 9.5e19}, n[] = {49.05e6, 233.9e6}, d[] = {7.155e9, 31.19e9};
    static const double law[] = {5.012e18, 7.714e19}, share[] = {0.328, 0.093};
    for (int i = 0; i < 2; i++) {
        double N = hunyuan_n_opt(c[i]), D = hunyuan_d_opt(c[i]);
        assert_near(N, n[i], 5e-4);
        assert_near(D, d[i], 5e-4);
        assert_near(hunyuan_compute(N, D), law[i], 5e-4);
        assert_near(2.3e8 * D / hunyuan_compute(N, D), share[i], 5e-3);
    }
}

/* The closed form of the executed FLOPs equals the device's account, for every switch. */
static void test_flops_counted(void **state)
{
    (void)state;
    Device *d = tiny_device(1);
    for (const TinyCase *t = tiny_cases; t->name; t++) {
        ModelConfig c = tiny_config();
        t->change(&c);
        ModelShape shape = {.type = DT_F32, .B = 2, .T = 8, .micro_batches = 1, .train = true};
        Model *m = tiny_model(d, &c, shape, 1);
        TinyBatch b = tiny_batch(&c, 2, 8, 1);
        device_reset_accounts(d);
        tiny_train(m, &b, false, 1);
        const DeviceAccount *account;
        int64_t flops = 0;
        int n = device_accounts(d, &account);
        for (int i = 0; i < n; i++) flops += account[i].flops;
        if (flops != count_flops_executed(&c, 2, 8))
            fail_msg("%s: counted %lld, closed form %lld", t->name, (long long)flops,
                     (long long)count_flops_executed(&c, 2, 8));
        tiny_batch_free(&b);
        model_destroy(&m);
    }
    device_destroy(&d);
}

/* Expert choice fills E min(C, R) rows of every group: model FLOPs of training are what the device
 * executes less the scores recomputed, where no row is padding; else the padding comes on top. */
static void test_flops_of_expert_choice(void **state)
{
    static const struct {
        double factor;
        int64_t multiple, group, taken, held; /* of R = group: by an expert; its rows */
    } cases[] = {{1, 1, 8, 4, 4}, {1.5, 1, 8, 6, 6}, {0.5, 1, 16, 4, 4}, {1.25, 1, 16, 10, 10},
                 {9, 1, 8, 8, 8}, {1, 12, 8, 8, 12}};
    Device *d = tiny_device(1);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ModelConfig c = tiny_config();
        c.n_experts = 4;
        c.top_k = 2;
        c.routing = ROUTE_EXPERT_CHOICE;
        c.capacity_factor = cases[i].factor;
        c.capacity_multiple = cases[i].multiple;
        c.routing_group_tokens = cases[i].group;
        int64_t part[FLOP_PARTS], row = 6 * c.n_layers * c.d_model * c.expert_width, flops = 0;
        assert_int_equal(count_group_rows(&c), 4 * cases[i].taken);
        count_flops_forward(&c, 8, part);
        assert_int_equal(part[FLOP_EXPERTS] * 2, 16 / cases[i].group * 4 * cases[i].taken * row);
        ModelShape shape = {.type = DT_F32, .B = 2, .T = 8, .micro_batches = 1, .train = true};
        Model *m = tiny_model(d, &c, shape, 1);
        TinyBatch b = tiny_batch(&c, 2, 8, 1);
        device_reset_accounts(d);
        tiny_train(m, &b, false, 1);
        const DeviceAccount *account;
        int n = device_accounts(d, &account);
        for (int k = 0; k < n; k++) flops += account[k].flops;
        int64_t padding = 3 * 16 / cases[i].group * 4 * (cases[i].held - cases[i].taken) * row;
        assert_int_equal(flops, 2 * count_flops_train(&c, 8) + part[FLOP_ATTENTION] + padding);
        tiny_batch_free(&b);
        model_destroy(&m);
    }
    device_destroy(&d);
}

/* Parameters by part add up, and the activated ones are what remains without the idle experts. */
static void test_parts(void **state)
{
    (void)state;
    for (const TinyCase *t = tiny_cases; t->name; t++) {
        ModelConfig c = tiny_config();
        t->change(&c);
        ParamCount n;
        Err e = {0};
        assert_int_equal(count_params(&c, &n, &e), 0);
        assert_int_equal(n.total, n.embed + n.head + n.attention + n.router + n.shared + n.experts +
                                      n.norms);
        int64_t routers = c.gate_noise ? 2 : 1, E = c.n_experts;
        int64_t each = routers * E * c.d_model + 2 * c.shared_gate * c.d_model;
        if (c.router_network == ROUTER_MLP) each += E * E;
        assert_int_equal(n.router, c.n_layers * each);
        int64_t one = 3 * c.n_layers * c.expert_width * c.d_model;
        assert_int_equal(n.experts, one * c.n_experts);
        assert_int_equal(n.total - n.active, one * (c.n_experts - c.top_k));
    }
}

static void test_capacity(void **state)
{
    (void)state;
    ModelConfig c = tiny_config();
    c.routing_group_tokens = 1000;
    c.n_experts = 16;
    c.top_k = 1;
    c.capacity_multiple = 8;
    assert_int_equal(model_capacity(&c), 64); /* ceil(62.5 / 8) 8 */
    c.capacity_factor = 1.25;
    assert_int_equal(model_capacity(&c), 80); /* 78.125 */
    c.capacity_factor = 1000;
    assert_int_equal(model_capacity(&c), 1000); /* never more than the group */
}

static void test_schedule(void **state)
{
    (void)state;
    OptimConfig c = {.lr = 2, .schedule = SCHEDULE_WSD, .warmup_steps = 4, .decay_steps = 10,
                     .final_lr_ratio = 0.1};
    assert_near(schedule_lr(&c, 0, 100), 0.5, 1e-12);
    assert_near(schedule_lr(&c, 3, 100), 2, 1e-12);
    assert_near(schedule_lr(&c, 89, 100), 2, 1e-12);
    assert_near(schedule_lr(&c, 94, 100), 1.1, 1e-12); /* half way down */
    assert_near(schedule_lr(&c, 99, 100), 0.2, 1e-12);
    c.schedule = SCHEDULE_WSD_SQRT;
    assert_near(schedule_lr(&c, 94, 100), 0.2 + 1.8 * (1 - sqrt(0.5)), 1e-12);
    assert_near(schedule_lr(&c, 99, 100), 0.2, 1e-12);
    c.schedule = SCHEDULE_COSINE;
    assert_near(schedule_lr(&c, 27, 100), 0.2 + 0.9 * (1 + sqrt(0.5)), 1e-12); /* a quarter */
    assert_near(schedule_lr(&c, 51, 100), 1.1, 1e-12);
    assert_near(schedule_lr(&c, 99, 100), 0.2, 1e-12);
    c.schedule = SCHEDULE_CONSTANT;
    assert_near(schedule_lr(&c, 99, 100), 2, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hunyuan_large), cmocka_unit_test(test_kv_bytes),
        cmocka_unit_test(test_rope_base),     cmocka_unit_test(test_expert_rate),
        cmocka_unit_test(test_published_law), cmocka_unit_test(test_flops_counted),
        cmocka_unit_test(test_flops_of_expert_choice),
        cmocka_unit_test(test_parts),         cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
