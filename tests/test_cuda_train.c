/* tests/test_cuda_train.c - whole training steps on the CUDA device against the CPU's: every way of
 * routing, 20 steps through warm-up and decay with a skipped one inside, choices replayed; choices
 * made freely; graphs against none. Runs on the emulator of tests/simt, or on a GPU; where there is
 * neither, the tests are skipped. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/cost.h"
#include "model/memory.h"
#include "optim/optim.h"
#include "tests/ref/tiny.h"

enum { STEPS = 20, SKIPPED = 9, MICROS = 2, B = 2, T = 16 };

/* Of weights and draws: ISOMOE_SEED, else 11. */
static uint64_t seed(void)
{
    const char *given = getenv("ISOMOE_SEED");
    return given ? strtoull(given, NULL, 10) : 11;
}

static const OptimConfig adamw = {.lr = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                                  .weight_decay = 0.1, .clip = 1, .lr_ratio = OPTIM_SAME(1),
                                  .decay = OPTIM_MATRICES, .schedule = SCHEDULE_WSD,
                                  .warmup_steps = 4, .decay_steps = 8, .final_lr_ratio = 0.1};

/* The emulator's counters (tests/simt/sim_ops.h); not there on a real GPU. */
__attribute__((weak)) int64_t sim_host_syncs(void);
__attribute__((weak)) int64_t sim_launches(const char *name);

typedef struct Trainer {
    Device *d;
    Model *m;
    Optimizer *o;
    int64_t updates;
    bool graph;
    void *poison; /* 4 f32, added to the first gradients: NaN in the step that is skipped */
    StepVars vars;
    double loss;
    int64_t syncs; /* times that the host waited inside the unit, on the emulator */
} Trainer;

static int scaled_steps(void) { return getenv("ISOMOE_FAST") ? 6 : STEPS; }

/* The CPU's model in the memory of another device. */
static Model *copy_model(Device *d, Model *from, DType type)
{
    Err e = {0};
    StateTensor a[STATE_MAX], b[STATE_MAX];
    ModelShape shape = {.type = type, .B = B, .T = T, .micro_batches = MICROS, .train = true};
    Model *m = model_create(d, model_config(from), &shape, &e);
    if (!m) fail_msg("%s", e.message);
    dev_upload(d, model_master(m), model_master(from).data);
    int n = model_state(from, a);
    assert_int_equal(model_state(m, b), n);
    for (int i = 0; i < n; i++) dev_upload(d, b[i].tensor, a[i].tensor.data);
    model_refresh_weights(m);
    return m;
}

static Device *device(const char *name)
{
    Err e = {0};
    Device *d = device_create(name, &(DeviceOptions){.threads = 1}, &e);
    if (!d) fail_msg("%s", e.message);
    return d;
}

static void *poison_memory(Device *d)
{
    Err e = {0};
    void *memory = dev_alloc(d, 64, "poison", &e);
    if (!memory) fail_msg("%s", e.message);
    return memory;
}

static Optimizer *optimizer(Model *m, const OptimConfig *c)
{
    Err e = {0};
    Optimizer *o = optimizer_create(m, c, &e);
    if (!o) fail_msg("%s", e.message);
    return o;
}

static void begin_cpu(Trainer *t, const ModelConfig *c, const OptimConfig *optim, DType type)
{
    ModelShape shape = {.type = type, .B = B, .T = T, .micro_batches = MICROS, .train = true};
    *t = (Trainer){.d = device("cpu")};
    t->poison = poison_memory(t->d);
    t->m = tiny_model(t->d, c, shape, seed());
    t->o = optimizer(t->m, optim);
}

static void begin_cuda(Trainer *t, Model *from, const OptimConfig *optim, DType type)
{
    *t = (Trainer){.d = device("cuda"), .graph = true};
    t->poison = poison_memory(t->d);
    t->m = copy_model(t->d, from, type);
    t->o = optimizer(t->m, optim);
}

static void end(Trainer *t)
{
    optimizer_destroy(&t->o);
    model_destroy(&t->m);
    dev_free(t->d, t->poison);
    device_destroy(&t->d);
}

/* Choices of a micro-batch, all layers. */
static int64_t routing_size(const ModelConfig *c) { return c->n_layers * B * T * model_slots(c); }

/* One step; `record` receives the choices, or `replay` gives them (both (MICROS, ...) or NULL). */
static void step(Trainer *t, const TinyBatch *batch, int s, int32_t *record, const int32_t *replay)
{
    const ModelConfig *c = model_config(t->m);
    double targets = 0;
    int64_t tokens = (int64_t)MICROS * B * T, R = c->n_experts ? c->routing_group_tokens : tokens;
    for (int64_t i = 0; i < tokens; i++) targets += batch->targets[i] >= 0;
    bool graph = t->graph && !record;
    float bad = s == SKIPPED ? NAN : 0, values[4] = {bad, bad, bad, bad};
    Tensor poison = tensor_1d(t->poison, DT_F32, 4), first = tensor_slice(model_grads(t->m), 0, 4);
    optimizer_begin(t->o, seed(), s, schedule_lr(&adamw, s, STEPS), t->updates, targets);
    int64_t waits = sim_host_syncs ? sim_host_syncs() : 0;
    if (graph) dev_graph_begin(t->d, 1);
    model_zero_grads(t->m);
    for (int i = 0; i < MICROS; i++) {
        int64_t at = (int64_t)i * B * T;
        MicroBatch m = {.B = B, .tokens = batch->tokens + at, .targets = batch->targets + at,
                        .group0 = at / R, .index = i,
                        .routing = replay ? replay + i * routing_size(c) : NULL};
        model_train_micro(t->m, &m, tokens / R, tokens);
        if (record) model_read_routing(t->m, record + i * routing_size(c));
    }
    dev_upload(t->d, poison, values);
    dev_add(t->d, first, first, poison);
    optimizer_step(t->o, NULL);
    if (graph) dev_graph_end(t->d);
    t->syncs = sim_host_syncs ? sim_host_syncs() - waits : 0;
    optimizer_read_vars(t->o, &t->vars);
    model_end_step(t->m, MICROS);
    StepStats stats;
    model_stats(t->m, MICROS, &stats);
    t->loss = tiny_loss(c, &stats);
    t->updates += t->vars.skip == SKIP_NO;
}

/* A sequence does not begin with one token twice: attention's output would be the same at both, and
 * which of them an expert chooses a matter of the last bit. */
static TinyBatch batch_of(const ModelConfig *c, int s)
{
    TinyBatch b = tiny_batch(c, (int64_t)MICROS * B, T, (uint64_t)(100 + s));
    for (int64_t i = 0; i < b.B; i++) {
        int32_t *row = b.tokens + i * T;
        if (row[1] == row[0]) row[1] = (row[0] + 1) % (int32_t)c->vocab_size;
    }
    return b;
}

/* ---- Choices replayed -------------------------------------------------------------------------*/

static const char *const modes[] = {
    "base", "dropless", "drop", "drop by score", "expert choice", "sigmoid", "top-p",
    "top-p recycle", "limited", "global balance", "loss-free bias", "deepseek-v3", "noise cv",
    "llama-moe", "hmoe", "own widths dropless", "own widths, expert choice", "tight capacity",
    "hunyuan-large", "cla 2", "untied", "bias", "qk full", "dense",
};
enum { MODES = sizeof modes / sizeof modes[0] };

static void compare_losses(const char *mode, const OptimConfig *optim, DType type, double bound)
{
    Trainer cpu, cuda;
    ModelConfig c = tiny_case(mode);
    begin_cpu(&cpu, &c, optim, type);
    begin_cuda(&cuda, cpu.m, optim, type);
    /* Experts' own choices cannot be replayed (docs/DESIGN.md): they are made on both devices. */
    bool experts = c.n_experts > 0 && c.routing != ROUTE_EXPERT_CHOICE;
    int32_t *choices = malloc((size_t)(MICROS * (routing_size(&c) + 1)) * sizeof *choices);
    assert_non_null(choices);
    for (int s = 0; s < scaled_steps(); s++) {
        TinyBatch batch = batch_of(&c, s);
        step(&cpu, &batch, s, experts ? choices : NULL, NULL);
        step(&cuda, &batch, s, NULL, experts ? choices : NULL);
        tiny_batch_free(&batch);
        if (cuda.vars.skip != cpu.vars.skip || (s == SKIPPED) != (cpu.vars.skip != SKIP_NO))
            fail_msg("%s, step %d: skip %d, the CPU's %d", mode, s, (int)cuda.vars.skip,
                     (int)cpu.vars.skip);
        if (!(fabs(cuda.loss - cpu.loss) <= bound * fabs(cpu.loss)))
            fail_msg("%s, step %d: loss %.9g, the CPU's %.9g", mode, s, cuda.loss, cpu.loss);
    }
    free(choices);
    end(&cuda);
    end(&cpu);
}

static void every_mode_trains_alike(void **state)
{
    (void)state;
    for (int i = 0; i < MODES; i++) compare_losses(modes[i], &adamw, DT_F32, 1e-5);
}

static void muon_and_small_moments_train_alike(void **state)
{
    (void)state;
    OptimConfig c = adamw;
    c.kind = OPTIM_MUON;
    c.muon_momentum = 0.95;
    compare_losses("base", &c, DT_F32, 1e-4); /* Newton-Schulz's map is not smooth: small singular
                                                 values are blown up, rounding with them */
    c = adamw;
    c.moments = MOMENTS_BF16;
    compare_losses("base", &c, DT_F32, 1e-3); /* a moment on the border rounds the other way */
}

static void bf16_trains_alike(void **state)
{
    (void)state;
    compare_losses("base", &adamw, DT_BF16, 2e-2);
    compare_losses("dropless", &adamw, DT_BF16, 2e-2);
}

/* ---- Choices made freely ----------------------------------------------------------------------*/

/* What lies between the k-th and the next logit of a token: a choice may differ where it is below
 * MARGIN. */
#define MARGIN 1e-4

static double margin_of(const float *logits, int64_t E, int64_t k)
{
    double least = INFINITY;
    int64_t rank[64];
    for (int64_t e = 0; e < E; e++) {
        rank[e] = 0;
        for (int64_t x = 0; x < E; x++)
            rank[e] += logits[x] > logits[e] || (logits[x] == logits[e] && x < e);
    }
    for (int64_t a = 0; a < E; a++)
        for (int64_t b = 0; b < E; b++)
            if (rank[a] < k && rank[b] == rank[a] + 1)
                least = fmin(least, fabs((double)logits[a] - (double)logits[b]));
    return least;
}

/* Counts tokens of the last micro-batch whose choices differ, up to the first layer with one: the
 * layers behind it see other inputs. Fails where the CPU's logits were not that close. */
static int count_flips(Trainer *cpu, Trainer *cuda, int s)
{
    const ModelConfig *c = model_config(cpu->m);
    int64_t n = (int64_t)B * T * c->top_k;
    int32_t first[B * T * 8];
    int flips = 0;
    assert_true(c->top_k <= 8 && c->n_experts <= 64);
    for (int64_t l = 0; l < c->n_layers && !flips; l++) {
        const LayerActs *a = &cpu->m->acts[l];
        const int32_t *want = a->route.first.data;
        dev_download(cuda->d, first, cuda->m->acts[l].route.first);
        for (int64_t i = 0; i < n; i++) {
            if (first[i] == want[i]) continue;
            const float *logits = (const float *)a->logits.data + i / c->top_k * c->n_experts;
            double margin = margin_of(logits, c->n_experts, c->top_k);
            if (!(margin < MARGIN))
                fail_msg("step %d, layer %d, choice %d: expert %d, the CPU's %d, margin %g", s,
                         (int)l, (int)i, first[i], want[i], margin);
            flips++;
        }
    }
    return flips;
}

/* Both devices from the CPU's weights in every step. */
static void free_choices_agree(void **state)
{
    (void)state;
    static const char *const names[] = {"base", "dropless", "drop", "top-p"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Trainer cpu, cuda;
        int flips = 0;
        ModelConfig c = tiny_case(names[i]);
        begin_cpu(&cpu, &c, &adamw, DT_F32);
        begin_cuda(&cuda, cpu.m, &adamw, DT_F32);
        for (int s = 0; s < scaled_steps(); s++) {
            TinyBatch batch = batch_of(&c, s);
            dev_upload(cuda.d, model_master(cuda.m), model_master(cpu.m).data);
            step(&cpu, &batch, s, NULL, NULL);
            step(&cuda, &batch, s, NULL, NULL);
            flips += count_flips(&cpu, &cuda, s);
            tiny_batch_free(&batch);
        }
        printf("%s: %d of %lld choices differ, all with margins below %g\n", names[i], flips,
               (long long)scaled_steps() * B * T * c.top_k * c.n_layers, MARGIN);
        assert_true(flips <= 2);
        end(&cuda);
        end(&cpu);
    }
}

/* ---- Graphs -----------------------------------------------------------------------------------*/

static void graphs_change_no_bit(void **state)
{
    (void)state;
    static const char *const names[] = {"base", "dropless", "loss-free bias", "noise cv"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Trainer cpu, with, without;
        ModelConfig c = tiny_case(names[i]);
        begin_cpu(&cpu, &c, &adamw, DT_F32);
        begin_cuda(&with, cpu.m, &adamw, DT_F32);
        begin_cuda(&without, cpu.m, &adamw, DT_F32);
        without.graph = false;
        size_t bytes = (size_t)tensor_bytes(model_master(cpu.m));
        char *a = malloc(bytes), *b = malloc(bytes);
        assert_true(a && b);
        for (int s = 0; s < scaled_steps(); s++) {
            TinyBatch batch = batch_of(&c, s);
            step(&with, &batch, s, NULL, NULL);
            step(&without, &batch, s, NULL, NULL);
            tiny_batch_free(&batch);
            if (s != SKIPPED) assert_true(with.loss == without.loss);
        }
        dev_download(with.d, a, model_master(with.m));
        dev_download(without.d, b, model_master(without.m));
        assert_memory_equal(a, b, bytes);
        free(a);
        free(b);
        end(&without);
        end(&with);
        end(&cpu);
    }
}

/* ---- What a step asks of the host -------------------------------------------------------------*/

static double estimated_launches(const Device *d)
{
    static const CostLayout alone = {0};
    Cost cost;
    double sum = 0;
    cost_of_step(&cost, d, DT_F32, &alone, cost_gpu("H100"));
    for (int i = 0; i < COST_CLASSES; i++) sum += cost.launches[i];
    return sum;
}

/* A recorded step waits for nothing, and launches about what the cost estimator counts. */
static void a_step_waits_for_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"base", "dropless", "dense", "hunyuan-large"};
    if (!sim_host_syncs || !sim_launches) skip();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        Trainer cpu, cuda;
        ModelConfig c = tiny_case(names[i]);
        TinyBatch batch = batch_of(&c, 0);
        begin_cpu(&cpu, &c, &adamw, DT_F32);
        begin_cuda(&cuda, cpu.m, &adamw, DT_F32);
        for (int s = 0; s < 4; s++) {
            device_reset_accounts(cuda.d);
            cuda.syncs = 0;
            int64_t before = sim_launches(NULL), adamw_before = sim_launches("adamw");
            step(&cuda, &batch, s, NULL, NULL);
            int64_t launches = sim_launches(NULL) - before;
            if (s < 2) continue; /* the first runs, the second is recorded */
            assert_int_equal(cuda.syncs, 0);
            assert_in_range(sim_launches("adamw") - adamw_before, 1, 2); /* all parameters */
            double estimated = estimated_launches(cuda.d);
            printf("%s: %lld launches and copies a step, %.0f estimated\n", names[i],
                   (long long)launches, estimated);
            assert_true(fabs((double)launches / estimated - 1) < 0.25);
        }
        tiny_batch_free(&batch);
        end(&cuda);
        end(&cpu);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mode_trains_alike),
        cmocka_unit_test(muon_and_small_moments_train_alike),
        cmocka_unit_test(bf16_trains_alike),
        cmocka_unit_test(free_choices_agree),
        cmocka_unit_test(graphs_change_no_bit),
        cmocka_unit_test(a_step_waits_for_nothing),
    };
    Err e = {0};
    Device *d = device_create("cuda", NULL, &e);
    if (!d) { /* in cmocka's words, for what reads the log */
        printf("skipped: %s\n[  PASSED  ] 0 test(s).\n[  SKIPPED ] no GPU: %d test(s).\n",
               e.message, (int)(sizeof tests / sizeof tests[0]));
        return 0;
    }
    device_destroy(&d);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
