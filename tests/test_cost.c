/* tests/test_cost.c - the cost estimator (model/cost.h) against published measurements of other
 * systems, and its own bookkeeping. The error of every row is printed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/io.h"
#include "tests/ref/tiny.h"
#include "train/estimate.h"

static const OptimConfig adamw = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                                  .weight_decay = 0.1, .clip = 1, .lr_ratio = OPTIM_SAME(1),
                                  .decay = OPTIM_MATRICES};

typedef struct Published {
    const char *name, *gpu;
    double tokens_per_s; /* of one GPU, as measured */
    int64_t D, L, H, G, F, V, E, k; /* F: a SwiGLU of the FLOPs of the published feed-forward */
    int64_t B, T, micros;           /* of one GPU; where it was not published, what fits */
    CostLayout layout;
} Published;

/* llm.c: 524,288 tokens a step in 300 ms (8 A100), 10 B tokens in 45 min and 1,048,576 in 2.75 s (8
 * H100). LLM.Q: 149k and 59k tokens/s on one H100. Megatron Core 0.9: 468 TFLOP/s a GPU, of 82.9
 * GFLOP a token by its own count (attention not causal). Megatron Bridge: 8,942 tokens/s (its
 * products in FP8). */
static const Published rows[] = {
    {"llm.c GPT-2 124M", "A100", 218450, 768, 12, 12, 12, 2048, 50304, 0, 0, 64, 1024, 1,
     {.data = 8, .node = 8}},
    {"llm.c GPT-2 124M", "H100", 462960, 768, 12, 12, 12, 2048, 50304, 0, 0, 64, 1024, 1,
     {.data = 8, .node = 8}},
    {"llm.c GPT-2 1558M", "H100", 47660, 1600, 48, 25, 25, 4267, 50304, 0, 0, 16, 1024, 8,
     {.data = 8, .node = 8}},
    {"LLM.Q Qwen2.5 0.5B", "H100", 149000, 896, 24, 14, 2, 4864, 151936, 0, 0, 16, 1024, 8, {0}},
    {"LLM.Q Qwen2.5 1.5B", "H100", 59000, 1536, 28, 12, 2, 8960, 151936, 0, 0, 16, 1024, 8, {0}},
    {"Megatron Mixtral 8x7B", "H100", 5645, 4096, 32, 32, 8, 14336, 32000, 8, 2, 1, 4096, 8,
     {.data = 32, .expert = 8, .node = 8}},
    {"Megatron Qwen3 30B-A3B", "H100", 8942, 2048, 48, 32, 4, 768, 151936, 128, 8, 2, 4096, 8,
     {.data = 16, .expert = 8, .node = 8}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static ModelConfig config_of(const Published *p)
{
    ModelConfig c = tiny_config();
    c.vocab_size = p->V, c.d_model = p->D, c.n_layers = p->L;
    c.n_heads = p->H, c.n_kv_heads = p->G, c.head_dim = p->E == 128 ? 128 : p->D / p->H;
    c.n_experts = p->E, c.top_k = p->k, c.expert_width = p->F;
    c.n_shared = p->E ? 0 : 1, c.shared_width = p->E ? 0 : p->F;
    c.routing = ROUTE_DROPLESS;
    c.routing_group_tokens = p->T;
    c.capacity_factor = 1;
    c.cla_share = 1;
    return c;
}

static Estimate estimate_of(const Published *p)
{
    Err e = {0};
    Estimate out;
    ModelConfig c = config_of(p);
    ModelShape shape = {.type = DT_BF16, .B = p->B, .T = p->T, .micro_batches = p->micros,
                        .train = true};
    if (estimate_step(&out, &c, &adamw, &shape, cost_gpu(p->gpu), &p->layout, &e))
        fail_msg("%s: %s", p->name, e.message);
    return out;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void published_measurements(void **state)
{
    (void)state;
    double errors[ROWS];
    for (int i = 0; i < ROWS; i++) {
        Estimate e = estimate_of(&rows[i]);
        double got = e.tokens / e.cost.total, error = got / rows[i].tokens_per_s - 1;
        errors[i] = fabs(error);
        printf("%-24s %-5s %9.0f tokens/s measured %9.0f estimated  %+5.1f %%  MFU %4.1f %%\n",
               rows[i].name, rows[i].gpu, rows[i].tokens_per_s, got, 100 * error, 100 * e.mfu);
        for (int k = 0; k < COST_CLASSES; k++)
            printf("    %-16s %9.3f ms  %8.0f launches\n", cost_class_name(k),
                   1e3 * e.cost.seconds[k], e.cost.launches[k]);
    }
    qsort(errors, ROWS, sizeof errors[0], by_value);
    printf("median error %.1f %%\n", 100 * errors[ROWS / 2]);
    assert_true(errors[ROWS / 2] <= 0.20);
}

/* Each operation of the table has its row: none is free by mistake. */
static void every_operation_has_a_cost(void **state)
{
    (void)state;
    Err e = {0};
    const DeviceAccount *a;
    Device *d = device_create("dry", NULL, &e);
    assert_non_null(d);
    int n = device_accounts(d, &a);
    for (int i = 0; i < n; i++)
        if (!cost_knows(a[i].name)) fail_msg("%s has no row in model/cost.c", a[i].name);
    device_destroy(&d);
}

/* The accounts of a dry step are those of a real one: operations, FLOPs, bytes. */
static void dry_accounts_are_real(void **state)
{
    (void)state;
    static const char *const cases[] = {"base", "dropless", "own widths", "noise cv"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Err e = {0};
        ModelConfig c = tiny_case(cases[i]);
        ModelShape shape = {.type = DT_F32, .B = 2, .T = 16, .micro_batches = 1, .train = true};
        TinyBatch batch = tiny_batch(&c, 2, 16, 5);
        const DeviceAccount *a[2];
        Device *d[2] = {device_create("cpu", NULL, &e), device_create("dry", NULL, &e)};
        int n = 0;
        for (int k = 0; k < 2; k++) {
            Model *m = model_create(d[k], &c, &shape, &e);
            assert_non_null(m);
            model_init(m, 1);
            device_reset_accounts(d[k]);
            MicroBatch b = tiny_micro(&batch, false);
            model_zero_grads(m);
            model_train_micro(m, &b, 1, 32);
            n = device_accounts(d[k], &a[k]);
            model_destroy(&m);
        }
        for (int op = 0; op < n; op++)
            if (a[0][op].calls != a[1][op].calls || a[0][op].flops != a[1][op].flops ||
                a[0][op].bytes != a[1][op].bytes)
                fail_msg("%s, %s: %lld calls of %lld FLOPs and %lld bytes, dry %lld, %lld, %lld",
                         cases[i], a[0][op].name, (long long)a[0][op].calls,
                         (long long)a[0][op].flops, (long long)a[0][op].bytes,
                         (long long)a[1][op].calls, (long long)a[1][op].flops,
                         (long long)a[1][op].bytes);
        for (int k = 0; k < 2; k++) device_destroy(&d[k]);
        tiny_batch_free(&batch);
    }
}

/* The row of docs/GPU.md's table of bytes that names the operation, or NULL. */
static const char *row_of_bytes(const char *page, const char *operation)
{
    char name[64];
    const char *table = strstr(page, "## Bytes");
    snprintf(name, sizeof name, "`%s`", operation);
    for (const char *line = table; line; line = strchr(line + 1, '\n')) {
        const char *at = line[1] == '|' && line[2] == ' ' ? strstr(line, name) : NULL;
        if (at && at < strstr(line + 2, " | ")) return line + 1;
    }
    return NULL;
}

/* MB that the example of a row says. */
static double example_of(const char *row)
{
    const char *end = strchr(row, '\n');
    while (*end != '|' || end[1] == '\n') end--;
    return strtod(end + 1 + strcspn(end + 1, "0123456789"), NULL);
}

/* The page's example: N tokens, D wide, experts F wide. */
static void run_example(Device *d)
{
    enum { N = 32768, D = 1024, F = 2816, E = 16, V = 32768 };
    Err e = {0};
    char *at = dev_alloc(d, 1 << 20, "example", &e); /* nothing is read or written */
    Tensor x = tensor_2d(at, DT_BF16, N, D), gu = tensor_2d(at, DT_BF16, N, 2 * F);
    Tensor h = tensor_2d(at, DT_BF16, N, F), table = tensor_2d(at, DT_BF16, V, D);
    assert_non_null(at);
    device_reset_accounts(d);
    dev_linear_fwd(d, x, x, tensor_2d(at, DT_BF16, D, D), tensor_none());
    dev_swiglu_fwd(d, h, gu);
    dev_swiglu_bwd(d, gu, h, gu);
    dev_embed_fwd(d, x, tensor_1d(at, DT_I32, N), table);
    dev_router_fwd(d, tensor_2d(at, DT_F32, N, E), x, tensor_2d(at, DT_F32, E, D));
}

/* Every operation has its row in the table of bytes; examples are what a dry device books. */
static void every_operation_has_its_bytes(void **state)
{
    (void)state;
    Err e = {0};
    char *page;
    size_t size;
    int compared = 0;
    const DeviceAccount *a;
    Device *d = device_create("dry", NULL, &e);
    if (!d || io_read_all("docs/GPU.md", 1 << 20, &page, &size, &e)) fail_msg("%s", e.message);
    run_example(d);
    int n = device_accounts(d, &a);
    for (int i = 0; i < n; i++) {
        const char *row = row_of_bytes(page, a[i].name);
        if (!row) fail_msg("%s has no row in docs/GPU.md's table of bytes", a[i].name);
        if (!a[i].calls) continue;
        double told = example_of(row), booked = (double)a[i].bytes / 1e6;
        if (fabs(told - booked) > 0.51) fail_msg("%s: %g MB, told %g", a[i].name, booked, told);
        compared++;
    }
    assert_int_equal(compared, 5);
    free(page);
    device_destroy(&d);
}

/* By hand: no GPU is faster than its peaks, twice the work takes longer, exchange only adds. */
static void estimates_have_bounds(void **state)
{
    (void)state;
    Published p = rows[4];
    Estimate one = estimate_of(&p), h200, more;
    double executed = 0, bytes = 0;
    for (int i = 0; i < COST_CLASSES; i++) {
        executed += one.cost.flops[i];
        bytes += one.cost.bytes[i];
    }
    assert_true(one.cost.total > executed / one.gpu->bf16);
    assert_true(one.cost.total > bytes / one.gpu->bandwidth / 2);
    assert_true(one.cost.seconds[COST_EXCHANGE] == 0);
    p.gpu = "h200";
    h200 = estimate_of(&p);
    assert_true(h200.cost.total < one.cost.total);
    p.gpu = "H100";
    p.B *= 2;
    more = estimate_of(&p);
    assert_true(more.cost.total > 1.7 * one.cost.total && more.cost.total < 2 * one.cost.total);
    assert_null(cost_gpu("H1000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_measurements),
        cmocka_unit_test(every_operation_has_a_cost),
        cmocka_unit_test(every_operation_has_its_bytes),
        cmocka_unit_test(dry_accounts_are_real),
        cmocka_unit_test(estimates_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
