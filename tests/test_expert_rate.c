/* tests/test_expert_rate.c - the experts' rates: the formula, the gradients of units, loads, and
 * what reaches the parameters. (The noise scale's arithmetic: test_noise.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "optim/optim.h"
#include "tests/ref/tiny.h"

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%.17g, expected %.17g", got, want);
}

/* ---- The formula ------------------------------------------------------------------------------*/

/* Equation (1) of arXiv 2411.02265 with e_max = 1/2. */
static double best_rate(double B, double noise) { return 1 / (sqrt(noise / B) + sqrt(B / noise)); }

static void test_formula(void **state)
{
    static const double n[] = {1, 1.5, 2, 4, 8, 16, 1e3, 1e6};
    (void)state;
    for (int i = 0; i < 8; i++) {
        for (double x = 1e-6; x < 1e7; x *= 7) {
            double want = best_rate(x / n[i], 1) / best_rate(x, 1);
            assert_near(expert_rate_ratio(n[i], x), want, 1e-12 * want);
        }
        assert_near(expert_rate_ratio(n[i], 0), 1 / sqrt(n[i]), 1e-15);
        assert_near(expert_rate_ratio(n[i], sqrt(n[i])), 1, 1e-12);
        assert_near(expert_rate_ratio(n[i], 1e18), sqrt(n[i]), 1e-6 * sqrt(n[i]));
    }
    for (double x = 0; x < 100; x += 9) /* falls like (1 + x) / sqrt(n) */
        assert_near(expert_rate_ratio(1e12, x) * 1e6, 1 + x, 1e-9 * (1 + x));
}

/* n = E/k; R/C where each expert takes C tokens of a group of R. */
static void test_split(void **state)
{
    ModelConfig c = tiny_config();
    (void)state;
    c.n_experts = 16;
    c.top_k = 3;
    assert_true(expert_rate_split(&c) == 16.0 / 3);
    c.routing = ROUTE_EXPERT_CHOICE;
    c.routing_group_tokens = 64;
    c.capacity_factor = 1.5; /* C = 18 */
    assert_true(expert_rate_split(&c) == 64.0 / 18);
    c.capacity_factor = 1000; /* C = R */
    assert_true(expert_rate_split(&c) == 1);
}

/* ---- Units of a model's step ------------------------------------------------------------------*/

enum { BATCH = 8, T = 8 };

typedef struct Bench {
    Device *d;
    Model *m;
    TinyBatch b;
    int64_t micro;
    double targets; /* in all */
    Tensor factors; /* (L, E) */
} Bench;

static void bench_open(Bench *x, const ModelConfig *c, DType type, int threads, int64_t micro)
{
    ModelShape shape = {.type = type, .B = micro, .T = T, .micro_batches = BATCH / micro,
                        .train = true};
    Err e = {0};
    *x = (Bench){.d = tiny_device(threads), .micro = micro, .b = tiny_batch(c, BATCH, T, 5)};
    x->m = tiny_model(x->d, c, shape, 3);
    for (int i = 0; i < BATCH * T; i++) x->targets += x->b.targets[i] >= 0;
    void *memory = dev_alloc(x->d, 4 * c->n_layers * c->n_experts, "factors", &e);
    assert_non_null(memory);
    x->factors = tensor_2d(memory, DT_F32, c->n_layers, c->n_experts);
}

static void bench_close(Bench *x)
{
    dev_free(x->d, x->factors.data);
    model_destroy(&x->m);
    tiny_batch_free(&x->b);
    device_destroy(&x->d);
}

/* Micro-batch i of the step, as the training loop cuts it. */
static void bench_micro(const Bench *x, int64_t i)
{
    int64_t at = i * x->micro * T, R = model_config(x->m)->routing_group_tokens;
    MicroBatch micro = {.B = x->micro, .tokens = x->b.tokens + at, .targets = x->b.targets + at,
                        .doc_start = x->b.doc_start + at, .group0 = at / R, .index = (int)i};
    model_train_micro(x->m, &micro, BATCH * T / R, BATCH * T);
}

static void bench_begin(const Bench *x)
{
    StepVars vars = {.seed = 9, .step = 4, .loss_scale = 1 / x->targets};
    dev_step_begin(x->d, model_vars(x->m), &vars);
    model_zero_grads(x->m);
}

static float *download(const Bench *x, Tensor t)
{
    float *out = malloc((size_t)tensor_bytes(t));
    dev_download(x->d, out, t);
    return out;
}

static double grad_square(const Bench *x)
{
    float *g = download(x, model_grads(x->m));
    double sum = 0;
    for (int64_t i = 0; i < model_params(x->m)->elements; i++) sum += (double)g[i] * g[i];
    free(g);
    return sum;
}

/* A whole step, measured if r is not NULL. */
static void bench_step(const Bench *x, ExpertRates *r)
{
    if (r) expert_rates_begin(r, x->factors, BATCH, T, 3);
    bench_begin(x);
    for (int64_t i = 0; i < BATCH / x->micro; i++) {
        bench_micro(x, i);
        if (r) expert_rates_micro(r, (i + 1) * x->micro);
    }
    if (r) expert_rates_end(r, BATCH / (int)x->micro, sqrt(grad_square(x)), x->b.targets);
}

/* |G|^2, S and the larger of the two squared norms, from units trained one by one, in the form of
 * appendix A.1 of McCandlish et al. */
typedef struct Wanted {
    double g2, s, size;
} Wanted;

static Wanted expected_noise(const Bench *x, int64_t unit)
{
    double small = 0, inverse = 0, B = BATCH * T, units = (double)BATCH / (double)unit;
    for (int64_t j = 0; j < BATCH / unit; j++) {
        double mine = 0;
        for (int64_t i = 0; i < unit * T; i++) mine += x->b.targets[j * unit * T + i] >= 0;
        bench_begin(x);
        for (int64_t i = 0; i < unit / x->micro; i++) bench_micro(x, j * unit / x->micro + i);
        small += pow(x->targets / mine, 2) * grad_square(x) / units; /* mean over its own targets */
        inverse += x->targets / mine / B / units;
    }
    bench_step(x, NULL);
    double big = grad_square(x), b = 1 / inverse;
    return (Wanted){.g2 = (B * big - b * small) / (B - b), .s = (small - big) / (1 / b - 1 / B),
                    .size = fmax(small, big)};
}

enum { NUMBERS = 6 }; /* steps of the loads; steps, |G|^2, S, B_noise; tokens of the loads */

static void numbers(const Bench *x, ExpertRates *r, double out[NUMBERS])
{
    StateTensor state[STATE_MAX];
    assert_in_range(expert_rates_state(r, state), 1, 2);
    assert_string_equal(state[0].name, "expert_rates");
    assert_int_equal(tensor_elements(state[0].tensor), NUMBERS);
    dev_download(x->d, out, state[0].tensor);
}

static ExpertRates *rates_of(const Bench *x, ExpertRateConfig c)
{
    ExpertRates *r;
    Err e = {0};
    if (expert_rates_create(&r, x->m, &c, &e)) fail_msg("%s", e.message);
    return r;
}

static ExpertRateConfig measured(int64_t unit)
{
    return (ExpertRateConfig){.mode = EXPERT_LR_AUTO, .noise = NOISE_MEASURED, .noise_unit = unit,
                              .noise_decay = 0.99, .load_decay = 0.9};
}

static void check_units(const ModelConfig *c, DType type, int64_t micro, int64_t unit)
{
    Bench x;
    double got[NUMBERS];
    bench_open(&x, c, type, 2, micro);
    Wanted want = expected_noise(&x, unit);
    float *plain = download(&x, model_grads(x.m));
    ExpertRates *r = rates_of(&x, measured(unit));
    bench_step(&x, r);
    float *with = download(&x, model_grads(x.m));
    assert_memory_equal(plain, with, (size_t)tensor_bytes(model_grads(x.m)));
    numbers(&x, r, got);
    assert_true(got[1] == 1 && got[4] == 0);
    assert_near(got[2], want.g2, 1e-4 * want.size);
    assert_near(got[3], want.s, 1e-4 * want.size * BATCH * T);
    free(plain);
    free(with);
    expert_rates_destroy(&r);
    bench_close(&x);
}

/* Each unit's own gradient, the total's bits untouched; units of one and of several micro-batches,
 * with unequal numbers of targets, with documents, groups of one and of two sequences. */
static void test_units(void **state)
{
    static const struct {
        int64_t micro, unit, group;
        DType type;
    } cases[] = {{1, 1, 8, DT_F32}, {1, 2, 8, DT_F32}, {2, 2, 16, DT_F32}, {2, 4, 8, DT_F32},
                 {4, 4, 4, DT_F32}, {1, 4, 8, DT_BF16}, {2, 2, 8, DT_BF16}};
    (void)state;
    for (int i = 0; i < 7; i++) {
        ModelConfig c = tiny_config();
        c.routing_group_tokens = cases[i].group;
        if (i % 2) c.routing = ROUTE_DROPLESS;
        check_units(&c, cases[i].type, cases[i].micro, cases[i].unit);
    }
}

static void test_threads(void **state)
{
    static const int threads[] = {1, 2, 3, 4, 8};
    ModelConfig c = tiny_config();
    double first[NUMBERS], got[NUMBERS];
    (void)state;
    for (int i = 0; i < 5; i++) {
        Bench x;
        bench_open(&x, &c, DT_BF16, threads[i], 1);
        ExpertRates *r = rates_of(&x, measured(2));
        for (int t = 0; t < 3; t++) bench_step(&x, r);
        numbers(&x, r, i ? got : first);
        if (i) assert_memory_equal(got, first, sizeof got);
        expert_rates_destroy(&r);
        bench_close(&x);
    }
    assert_true(first[1] == 3);
}

/* Rates follow B_noise from the first step on at which it is known, and a unit without targets
 * spoils no estimate. */
static void test_measured_rates(void **state)
{
    ModelConfig c = tiny_config();
    Bench x;
    double n[NUMBERS], half = (float)expert_rate_ratio(2, 0);
    (void)state;
    bench_open(&x, &c, DT_F32, 2, 2);
    ExpertRates *r = rates_of(&x, measured(4));
    for (int t = 0; t < NOISE_WARM; t++) {
        bench_step(&x, r);
        ExpertRateView v = expert_rates_view(r);
        assert_true(v.noise_tokens == 0 && v.factor[0] == (float)half);
    }
    numbers(&x, r, n);
    assert_true(n[4] == n[3] / n[2] && n[4] > 0);
    expert_rates_begin(r, x.factors, BATCH, T, 3);
    ExpertRateView v = expert_rates_view(r);
    assert_true(v.noise_tokens == n[4]);
    float *live = download(&x, x.factors);
    for (int64_t i = 0; i < v.layers * v.experts; i++)
        assert_true(live[i] == (float)expert_rate_ratio(2, BATCH * T / n[4]) &&
                    live[i] == v.factor[i]);
    free(live);
    for (int i = 4 * T; i < BATCH * T; i++) x.b.targets[i] = -1;
    bench_step(&x, r);
    double after[NUMBERS];
    numbers(&x, r, after);
    assert_memory_equal(n, after, sizeof n);
    expert_rates_destroy(&r);
    bench_close(&x);
}

/* ---- Loads ------------------------------------------------------------------------------------*/

static ExpertRateConfig by_load(double noise)
{
    return (ExpertRateConfig){.mode = EXPERT_LR_LOAD, .noise = NOISE_GIVEN, .noise_tokens = noise,
                              .load_decay = 0.9};
}

static void other_batch(Bench *x, uint64_t seed)
{
    tiny_batch_free(&x->b);
    x->b = tiny_batch(model_config(x->m), BATCH, T, seed);
}

/* Factors of a step: g_n with n = B over the moving average of the steps before it; of the first
 * step: those of `auto`. */
static void test_load(void **state)
{
    enum { STEPS = 4, ALL = 12 };
    ModelConfig c = tiny_config();
    double loads[STEPS][ALL], x = BATCH * T / 50.0;
    Bench b;
    (void)state;
    c.routing = ROUTE_DROPLESS;
    bench_open(&b, &c, DT_F32, 2, 2);
    ExpertRates *r = rates_of(&b, by_load(50));
    for (int t = 0; t < STEPS; t++) {
        other_batch(&b, (uint64_t)t + 20);
        bench_step(&b, r);
        model_loads(b.m, BATCH / 2, loads[t]);
        ExpertRateView v = expert_rates_view(r);
        float *live = download(&b, b.factors);
        for (int i = 0; i < ALL; i++) {
            double above = 0, below = 0, choices = 0;
            for (int k = 0; k < t; k++) above += pow(0.9, t - 1 - k) * loads[k][i];
            for (int k = 0; k < t; k++) below += pow(0.9, t - 1 - k);
            double n = t ? BATCH * T / fmax(1, above / below) : 2;
            assert_near(v.factor[i], expert_rate_ratio(n, x), 1e-6);
            assert_true(live[i] == v.factor[i]);
            for (int k = 0; k < 4; k++) choices += loads[t][i / 4 * 4 + k];
            assert_true(choices == 2 * BATCH * T); /* of a layer: none is lost */
        }
        free(live);
    }
    assert_true(expert_rates_view(r).factor[0] != expert_rates_view(r).factor[1]);
    expert_rates_begin(r, b.factors, BATCH / 2, T, 3); /* a step of half the size: half the loads */
    for (int i = 0; i < ALL; i++) {
        double above = 0, below = 0;
        for (int k = 0; k < STEPS; k++) above += pow(0.9, STEPS - 1 - k) * loads[k][i] / 2;
        for (int k = 0; k < STEPS; k++) below += pow(0.9, STEPS - 1 - k);
        double n = BATCH * T / 2 / fmax(1, above / below);
        assert_near(expert_rates_view(r).factor[i], expert_rate_ratio(n, x / 2), 1e-6);
    }
    expert_rates_destroy(&r);
    bench_close(&b);
}

/* Capacity cuts the loads: only what was placed counts. Of the micro-batches named, no others. */
static void test_loads_placed(void **state)
{
    ModelConfig c = tiny_config();
    double loads[12], half[12];
    Bench b;
    (void)state;
    c.capacity_factor = 0.5; /* C = 2 of R = 8: at most 2 in each of the 8 groups */
    c.top_k = 1;
    bench_open(&b, &c, DT_F32, 2, 2);
    bench_step(&b, NULL);
    model_loads(b.m, 4, loads);
    model_loads(b.m, 2, half);
    for (int i = 0; i < 12; i++) assert_true(loads[i] <= 8 && half[i] <= 4 && half[i] <= loads[i]);
    assert_true(loads[0] + loads[1] + loads[2] + loads[3] == 8 * 4);
    bench_close(&b);
}

/* Capacity that is full everywhere: equal loads, and then the bits of `auto`. */
static void test_load_equal(void **state)
{
    static const int64_t experts[] = {4, 8, 2, 1};
    (void)state;
    for (int i = 0; i < 4; i++) {
        ModelConfig c = tiny_config();
        Bench b;
        c.top_k = 1;
        c.n_experts = experts[i];
        bench_open(&b, &c, DT_F32, 2, 2);
        ExpertRateConfig plain = by_load(7);
        plain.mode = EXPERT_LR_AUTO;
        ExpertRates *load = rates_of(&b, by_load(7)), *even = rates_of(&b, plain);
        for (int t = 0; t < 5; t++) {
            other_batch(&b, (uint64_t)t + 40);
            bench_step(&b, load);
            bench_step(&b, even);
            ExpertRateView v = expert_rates_view(load), w = expert_rates_view(even);
            assert_int_equal(v.layers * v.experts, 3 * experts[i]);
            assert_memory_equal(v.factor, w.factor, (size_t)(v.layers * v.experts) * 4);
        }
        expert_rates_destroy(&load);
        expert_rates_destroy(&even);
        bench_close(&b);
    }
}

/* All tokens at one expert: it has the whole batch, its rate is the others' parameters'; the idle
 * ones count as if they had one token. */
static void test_load_idle(void **state)
{
    ModelConfig c = tiny_config();
    Bench b;
    (void)state;
    c.routing = ROUTE_DROPLESS;
    c.top_k = 1;
    bench_open(&b, &c, DT_F32, 2, 4);
    for (int i = 0; i < model_params(b.m)->count; i++) /* equal logits: the lowest expert */
        if (model_params(b.m)->row[i].kind == PARAM_ROUTER)
            dev_fill(b.d, params_view(&model_params(b.m)->row[i], model_master(b.m).data, DT_F32),
                     0);
    model_refresh_weights(b.m);
    ExpertRates *r = rates_of(&b, by_load(16));
    for (int t = 0; t < 2; t++) bench_step(&b, r);
    ExpertRateView v = expert_rates_view(r);
    float one = (float)expert_rate_ratio(BATCH * T, 4);
    assert_true(one > 0 && one < 1);
    for (int64_t i = 0; i < v.layers * v.experts; i++)
        assert_true(v.factor[i] == (i % v.experts ? one : 1));
    expert_rates_destroy(&r);
    bench_close(&b);
}

/* ---- What reaches the parameters --------------------------------------------------------------*/

/* Three steps of the optimizer; the masters. */
static float *trained(const ModelConfig *c, OptimConfig optim, int64_t *elements)
{
    Bench b;
    Err e = {0};
    StepVars vars;
    bench_open(&b, c, DT_F32, 2, 2);
    Optimizer *o = optimizer_create(b.m, &optim, &e);
    assert_non_null(o);
    ExpertRates *r = optimizer_rates(o);
    assert_true((r != NULL) == (optim.expert.mode != EXPERT_LR_RATIO));
    for (int t = 0; t < 3; t++) {
        if (r) expert_rates_begin(r, optimizer_expert_rates(o), BATCH, T, 3);
        optimizer_begin(o, 1, t, 1e-2, t, b.targets);
        model_zero_grads(b.m);
        for (int i = 0; i < 4; i++) bench_micro(&b, i);
        optimizer_step(o, &vars);
        if (r) expert_rates_end(r, 4, vars.grad_norm, b.b.targets);
    }
    float *out = download(&b, model_master(b.m));
    *elements = model_params(b.m)->elements;
    optimizer_destroy(&o);
    bench_close(&b);
    return out;
}

/* `auto` with a known noise scale is `ratio` with the factor that follows from it, bit by bit; it
 * moves nothing but experts in the first step, so a run without it differs. */
static void test_applied(void **state)
{
    ModelConfig c = tiny_config();
    OptimConfig ratio = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .weight_decay = 0.1,
                         .lr_ratio = OPTIM_SAME(1), .decay = OPTIM_MATRICES};
    OptimConfig automatic = ratio, none = ratio;
    int64_t n;
    (void)state;
    ratio.lr_ratio[PARAM_EXPERT] = (float)expert_rate_ratio(2, BATCH * T / 9.0);
    automatic.expert = by_load(9);
    automatic.expert.mode = EXPERT_LR_AUTO;
    float *x = trained(&c, ratio, &n), *y = trained(&c, automatic, &n), *z = trained(&c, none, &n);
    assert_memory_equal(x, y, (size_t)n * sizeof *x);
    assert_memory_not_equal(x, z, (size_t)n * sizeof *x);
    free(x);
    free(y);
    free(z);
}

/* Nothing for a fixed ratio; the state; the loads; and for a measured noise scale one more array of
 * the parameters' size. Each row is a multiple of 64 bytes. */
static void test_plan(void **state)
{
    static const ExpertRateConfig configs[] = {
        {.mode = EXPERT_LR_RATIO, .noise = NOISE_MEASURED},
        {.mode = EXPERT_LR_AUTO, .noise = NOISE_LOSS},
        {.mode = EXPERT_LR_LOAD, .noise = NOISE_GIVEN},
        {.mode = EXPERT_LR_LOAD, .noise = NOISE_MEASURED},
    };
    ModelConfig c = tiny_config();
    ParamTable table;
    Err e = {0};
    (void)state;
    assert_int_equal(params_build(&table, &c, &e), 0);
    int64_t loads = 128, units = table.elements * 4 + NOISE_UNITS_MAX * 8; /* 3 x 4 f64 */
    const int64_t want[] = {0, 64, 64 + loads, 64 + loads + units};
    for (int i = 0; i < 4; i++) {
        ArenaPlan plan = {0};
        assert_int_equal(expert_rates_plan(&c, &configs[i], &plan, &e), 0);
        assert_int_equal(arena_total(&plan), want[i]);
        arena_clear(&plan);
    }
    params_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),        cmocka_unit_test(test_split),
        cmocka_unit_test(test_units),          cmocka_unit_test(test_threads),
        cmocka_unit_test(test_measured_rates), cmocka_unit_test(test_load),
        cmocka_unit_test(test_loads_placed),   cmocka_unit_test(test_load_equal),
        cmocka_unit_test(test_load_idle),      cmocka_unit_test(test_applied),
        cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
