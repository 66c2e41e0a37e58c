/* tests/test_upcycle.c - `isomoe upcycle` on a small dense model that this program trains: where
 * the new model must be the old one it is, the rest is copied bit by bit, and training goes on. */
#include "tests/train_help.h"

#include <math.h>

#include "base/hash.h"
#include "base/philox.h"
#include "train/importance.h"
#include "train/json_out.h"
#include "train/open_run.h"
#include "train/report.h"
#include "train/split.h"

enum { DOCUMENTS = 200, SEQ_LEN = 64, NEURONS = 96, MAX_WORDS = 16 };

static void write_corpus(const char *path)
{
    static const char *const words[] = {"the ", "router ", "sends ", "a ", "token ", "to ",
                                        "an ", "expert ", "and ", "adds ", "what ", "it ",
                                        "gives. "};
    FILE *f = fopen(path, "w");
    PhiloxKey key = {.seed = 5, .purpose = RNG_TEST};
    uint64_t at_word = 0;
    for (int i = 0; i < DOCUMENTS; i++) {
        fputs("{\"text\": \"", f);
        for (int j = 0; j < 60; j++) fputs(words[philox_u32(&key, at_word++) % 13], f);
        fputs("\"}\n", f);
    }
    assert_int_equal(fclose(f), 0);
}

static char data_key[PATH * 2]; /* data.train=... */

static int set_up(void **state)
{
    char out[PATH * 2];
    if (help_begin(state)) return -1;
    write_corpus(at("text.jsonl"));
    RUN_CODE(0, "prepare", at("text.jsonl"), "--out", at("data"), "--vocab-size", "300",
             "--val-fraction", "0.1");
    RUN_CODE(0, "prepare", at("text.jsonl"), "--out", at("other"), "--vocab-size", "290",
             "--val-fraction", "0.1");
    snprintf(data_key, sizeof data_key, "data.train=%s", at("data"));
    snprintf(out, sizeof out, "train.out=%s", at("dense"));
    RUN_CODE(0, "train", "configs/runs/tiny.yaml", data_key, out, "model.n_experts=0",
             "model.top_k=0", "model.expert_width=0", "model.shared_width=96",
             "model.routing_group_tokens=1024", "model.router_weight=renorm", "train.steps=30",
             "optim.decay_steps=10", "train.eval_every=0", "train.precision=f32",
             "train.checkpoint_every=0", "train.threads=1");
    return 0;
}

/* Runs `upcycle dense --out name --method ...` with more words; the exit code. */
static int upcycle(const char *name, const char *method, const char *const *more)
{
    const char *words[MAX_WORDS + 16] = {
        "upcycle", at("dense"), "--config", "configs/runs/tiny.yaml", "--method", method, "--out",
        at("%s", name), data_key, "train.precision=f32", "train.threads=1", "train.steps=6",
        "optim.warmup_steps=1", "optim.decay_steps=2"};
    int n = 14;
    for (int i = 0; more[i]; i++) words[n++] = more[i];
    return program_wait(program_start(words));
}
#define UPCYCLE(name, method, ...) upcycle(name, method, (const char *const[]){__VA_ARGS__, NULL})

/* Opens a run's newest checkpoint for one sequence. */
static void open_for(OpenRun *r, const char *folder, bool train)
{
    Err e = {0};
    if (open_run(r, folder, &e)) fail_msg("%s", e.message);
    ModelShape shape = {.type = DT_F32, .B = 1, .T = SEQ_LEN, .micro_batches = 1, .train = train};
    if (open_run_model(r, &shape, &e)) fail_msg("%s", e.message);
}

/* A host copy of the masters. */
static float *masters(const OpenRun *r)
{
    Tensor flat = model_master(r->model);
    float *out = malloc((size_t)flat.dim[0] * sizeof *out);
    dev_download(r->device, out, flat);
    return out;
}

static void set_masters(const OpenRun *r, const float *values)
{
    dev_upload(r->device, model_master(r->model), values);
    model_refresh_weights(r->model);
}

/* Routers that like all experts alike. */
static void zero_routers(const OpenRun *r)
{
    const ParamTable *t = model_params(r->model);
    float *values = masters(r);
    for (int i = 0; i < t->count; i++)
        if (t->row[i].kind == PARAM_ROUTER)
            memset(values + t->row[i].offset, 0, (size_t)t->row[i].elements * sizeof *values);
    set_masters(r, values);
    free(values);
}

static float *logits_of(const OpenRun *r)
{
    int32_t tokens[SEQ_LEN];
    PhiloxKey key = {.seed = 6, .purpose = RNG_TEST};
    int64_t V = r->config.model.vocab_size;
    for (int i = 0; i < SEQ_LEN; i++) tokens[i] = (int32_t)(philox_u32(&key, (uint64_t)i) % 300);
    float *out = malloc((size_t)(SEQ_LEN * V) * sizeof *out);
    model_logits(r->model, &(MicroBatch){.B = 1, .tokens = tokens}, out);
    return out;
}

/* The largest difference of the logits of two runs, in units of the largest logit. */
static double difference(const char *name, bool zero)
{
    OpenRun dense, made;
    open_for(&dense, at("dense"), false);
    open_for(&made, at("%s", name), false);
    if (zero) zero_routers(&made);
    float *a = logits_of(&dense), *b = logits_of(&made);
    double most = 0, worst = 0;
    for (int64_t i = 0; i < SEQ_LEN * dense.config.model.vocab_size; i++) {
        most = fmax(most, fabs(a[i]));
        worst = fmax(worst, fabs((double)a[i] - b[i]));
    }
    free(a);
    free(b);
    open_run_close(&dense);
    open_run_close(&made);
    return worst / most;
}

/* All parameters that both have, but for the feed-forward's, are equal to the bit. */
static void check_copied(const char *name)
{
    OpenRun dense, made;
    int copied = 0;
    open_for(&dense, at("dense"), false);
    open_for(&made, at("%s", name), false);
    float *a = masters(&dense), *b = masters(&made);
    const ParamTable *from = model_params(dense.model), *to = model_params(made.model);
    for (int i = 0; i < to->count; i++) {
        const ParamRow *row = &to->row[i], *old = params_find(from, row->name);
        if (!old || row->kind == PARAM_SHARED) continue;
        assert_memory_equal(a + old->offset, b + row->offset,
                            (size_t)row->elements * sizeof *a);
        copied++;
    }
    assert_int_equal(copied, 2 + 2 * 8); /* embedding, last norm; norms, q k v o, two of QK */
    free(a);
    free(b);
    open_run_close(&dense);
    open_run_close(&made);
}

/* ---- the same model -------------------------------------------------------------------------- */

/* Every way of splitting or copying that leaves out nothing, with weights that make up for it, is
 * the dense model. equal: only with a router that likes all experts alike. */
static const struct Same {
    const char *name, *method;
    bool equal;
    const char *more[10];
} same[] = {
    {"random", "random", true,
     {"model.n_experts=4", "model.expert_width=24", "model.top_k=4", "model.n_shared=0",
      "model.shared_width=0", "--rescale=4"}},
    {"random-shared", "random", true,
     {"model.n_experts=3", "model.expert_width=20", "model.top_k=3", "model.n_shared=2",
      "model.shared_width=18", "model.routed_scale=3"}},
    {"random-gated", "random", true, /* g = 1/2: both scales twice those without the gate */
     {"model.n_experts=3", "model.expert_width=20", "model.top_k=3", "model.shared_width=36",
      "model.shared_gate=true", "model.shared_scale=2", "model.router_network=mlp",
      "--rescale=6"}},
    {"clustered", "clustered", true,
     {"model.n_experts=8", "model.expert_width=12", "model.top_k=8", "model.n_shared=0",
      "model.shared_width=0", "model.routed_scale=8"}},
    {"copy", "copy", false,
     {"model.n_experts=3", "model.expert_width=96", "model.top_k=2", "model.n_shared=0",
      "model.shared_width=0"}},
    {"copy-raw", "copy", true,
     {"model.n_experts=3", "model.expert_width=96", "model.top_k=2", "model.n_shared=0",
      "model.shared_width=0", "model.router_weight=raw"}},
    {"copy-sigmoid", "copy", true,
     {"model.n_experts=5", "model.expert_width=96", "model.top_k=1", "model.n_shared=0",
      "model.shared_width=0", "model.router_weight=raw", "model.router_score=sigmoid"}},
    {"copy-one", "copy", false,
     {"model.n_experts=4", "model.expert_width=96", "model.top_k=1", "model.n_shared=0",
      "model.shared_width=0"}},
    {"inner-all", "inner", false,
     {"model.n_experts=2", "model.expert_width=96", "model.top_k=1", "model.n_shared=0",
      "model.shared_width=0", "--sequences=2"}},
    {"inter-rest", "inter", false,
     {"model.n_experts=3", "model.expert_width=60", "model.top_k=2", "model.n_shared=1",
      "model.shared_width=36", "--sequences=2"}},
};
enum { SAME = sizeof same / sizeof *same };

static void nothing_is_lost(void **state)
{
    (void)state;
    for (int i = 0; i < SAME; i++) {
        if (upcycle(same[i].name, same[i].method, same[i].more))
            fail_msg("%s: %s", same[i].name, program_err);
        double off = difference(same[i].name, same[i].equal);
        if (!(off < 2e-5)) fail_msg("%s: logits differ by %g", same[i].name, off);
        check_copied(same[i].name);
    }
}

/* Rows of gate and up of neuron `i` of n, from a parameter (2n, D), are those of neuron s of S. */
static bool same_neuron(const float *made, int64_t i, int64_t n, const float *dense, int64_t s,
                        int64_t S, int64_t D)
{
    size_t bytes = (size_t)D * sizeof *made;
    return !memcmp(made + i * D, dense + s * D, bytes) &&
           !memcmp(made + (n + i) * D, dense + (S + s) * D, bytes);
}

/* Experts are the clusters of the rows of up, not of gate. */
static void clusters_of_up(void **state)
{
    enum { E = 8, F = NEURONS / E };
    OpenRun dense, made;
    Err e = {0};
    int32_t by_up[NEURONS], by_gate[NEURONS], none[1];
    (void)state;
    if (UPCYCLE("clusters", "clustered", "model.n_experts=8", "model.expert_width=12",
                "model.n_shared=0", "model.shared_width=0"))
        fail_msg("%s", program_err);
    open_for(&dense, at("dense"), false);
    open_for(&made, at("clusters"), false);
    float *a = masters(&dense), *b = masters(&made);
    int64_t D = dense.config.model.d_model;
    for (int l = 0; l < (int)dense.config.model.n_layers; l++) {
        char name[PARAM_NAME];
        snprintf(name, sizeof name, "layers.%d.shared.gate_up.weight", l);
        const float *old = a + params_find(model_params(dense.model), name)->offset;
        snprintf(name, sizeof name, "layers.%d.experts.gate_up.weight", l);
        const float *new = b + params_find(model_params(made.model), name)->offset;
        Split s = {.neurons = NEURONS, .experts = E, .width = F, .layer = l, .expert = by_up,
                   .common = none, .seed = (uint64_t)made.config.train.seed};
        if (split_clustered(&s, old + NEURONS * D, D, &e)) fail_msg("%s", e.message);
        s.expert = by_gate;
        if (split_clustered(&s, old, D, &e)) fail_msg("%s", e.message);
        assert_memory_not_equal(by_up, by_gate, sizeof by_up);
        for (int i = 0; i < NEURONS; i++)
            assert_true(same_neuron(new + i / F * 2 * F * D, i % F, F, old, by_up[i], NEURONS, D));
    }
    free(a);
    free(b);
    open_run_close(&dense);
    open_run_close(&made);
}

/* What the scale is for: without it, or with a real choice, it is another model. */
static void a_part_is_not_the_whole(void **state)
{
    (void)state;
    if (UPCYCLE("unscaled", "random", "model.n_experts=4", "model.expert_width=24", "model.top_k=4",
                "model.n_shared=0", "model.shared_width=0"))
        fail_msg("%s", program_err);
    assert_has(program_out, "model.routed_scale is 1\n"); /* 4 / 4 */
    assert_true(difference("unscaled", true) > 1e-3);
}

/* The scale is part of the run: in the model that its checkpoint opens, in config.yaml and in the
 * record. What the configuration says stays, and is named. */
static const struct Scale {
    const char *name, *method;
    double scale;
    const char *says, *more[8];
} scales[] = {
    {"scale-auto", "random", 2, "model.routed_scale is 2\n",
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0"}},
    {"scale-asked", "clustered", 4, "model.routed_scale is 4\n",
     {"model.n_experts=8", "model.expert_width=12", "model.n_shared=0", "model.shared_width=0",
      "--rescale=auto"}},
    {"scale-shared", "random", 1.5, "model.routed_scale is 1.5\n",
     {"model.n_experts=4", "model.expert_width=16"}},
    {"scale-inter", "inter", 4, "model.routed_scale is 4\n", /* 7 + 1, one chosen: 8 / 2 */
     {"model.n_experts=7", "model.expert_width=12", "model.top_k=1", "model.shared_width=12",
      "--sequences=2"}},
    {"scale-copy", "copy", 1, "model.routed_scale is 1\n",
     {"model.expert_width=96", "model.n_shared=0", "model.shared_width=0"}},
    {"scale-raw", "random", 4, "model.routed_scale is 4\n", /* 2, of weights that sum to 2/4 */
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0",
      "model.router_weight=raw"}},
    {"scale-none", "random", 1, "model.routed_scale is 1 (--rescale auto: 2)",
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0",
      "--rescale=none"}},
    {"scale-number", "random", 3.5, "model.routed_scale is 3.5 (--rescale auto: 2)",
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0",
      "--rescale=3.5"}},
    {"scale-kept", "random", 2.5,
     "model.routed_scale is 2.5, as the configuration says: not the 2 that --rescale auto takes",
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0",
      "model.routed_scale=2.5"}},
    {"scale-one", "random", 1, /* given, though it is the default */
     "model.routed_scale is 1, as the configuration says: not the 2 that --rescale auto takes",
     {"model.n_experts=4", "model.expert_width=24", "model.n_shared=0", "model.shared_width=0",
      "model.routed_scale=1"}},
};

static void the_scale(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        const struct Scale *s = &scales[i];
        OpenRun made;
        char wanted[64];
        if (upcycle(s->name, s->method, s->more)) fail_msg("%s: %s", s->name, program_err);
        assert_has(program_out, s->says);
        open_for(&made, at("%s", s->name), false);
        double got = model_config(made.model)->routed_scale;
        if (got != s->scale) fail_msg("%s: the model has %g", s->name, got);
        open_run_close(&made);
        char *config = read_file(at("%s/config.yaml", s->name), NULL);
        char *log = read_file(at("%s/log.jsonl", s->name), NULL);
        const char *line = strstr(config, "routed_scale: ");
        assert_non_null(line);
        assert_true(strtod(line + strlen("routed_scale: "), NULL) == s->scale);
        snprintf(wanted, sizeof wanted, "\"routed_scale\":%.1f}", s->scale);
        assert_has(log, wanted);
        free(config);
        free(log);
    }
}

/* Training goes on with the file that upcycle leaves, and with the scale in it. */
static void the_scale_trains(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("scale-auto/config.yaml"), "--resume", "required");
    assert_has(program_err, "resumed at step 0");
}

static void what_it_says(void **state)
{
    (void)state;
    if (UPCYCLE("advice", "random", "model.n_experts=4", "model.expert_width=24", "model.top_k=2",
                "model.n_shared=0", "model.shared_width=0", "--rescale=3", "--json"))
        fail_msg("%s", program_err);
    json_t *said = json_loads(program_out, 0, NULL);
    assert_true(report_number(said, "routed_scale") == 3);
    assert_true(report_number(said, "routed_scale_auto") == 2);
    OpenRun dense, made;
    open_for(&dense, at("dense"), false);
    open_for(&made, at("advice"), false);
    assert_true(report_number(said, "params_dense") == (double)model_params(dense.model)->params);
    assert_true(report_number(said, "params") == (double)model_params(made.model)->params);
    open_run_close(&dense);
    open_run_close(&made);
    json_decref(said);
}

/* ---- importance ------------------------------------------------------------------------------ */

static Loader *open_loader(const OpenRun *r)
{
    Err e = {0};
    LoaderOptions o = {.source = {{at("data"), 1}}, .n_sources = 1, .split = "train",
                       .seq_len = SEQ_LEN, .vocab_size = r->config.model.vocab_size};
    Loader *loader = loader_open(&o, &e);
    if (!loader) fail_msg("%s", e.message);
    return loader;
}

/* Mean loss of the loader's first sequence with neuron s of a layer at `factor`. */
static double loss_with(OpenRun *r, Loader *loader, const float *plain, int layer, int s,
                        double factor)
{
    Err e = {0};
    Batch b;
    double sums[2] = {0};
    const ParamRow *row =
        params_find(model_params(r->model), layer ? "layers.1.shared.down.weight"
                                                  : "layers.0.shared.down.weight");
    int64_t D = row->dim[0], n = model_master(r->model).dim[0];
    float *values = malloc((size_t)n * sizeof *values);
    memcpy(values, plain, (size_t)n * sizeof *values);
    for (int64_t d = 0; d < D; d++)
        values[row->offset + d * NEURONS + s] *= (float)factor;
    set_masters(r, values);
    free(values);
    if (loader_batch(loader, 0, 1, &b, &e)) fail_msg("%s", e.message);
    model_eval_micro(r->model, &(MicroBatch){.B = 1, .tokens = b.tokens, .targets = b.targets,
                                             .doc_start = b.doc_start}, sums, NULL);
    return sums[0] / sums[1];
}

/* |dL/da| at a = 1 where a is a factor on the neuron's output. */
static void importance_is_the_slope(void **state)
{
    (void)state;
    Err e = {0};
    OpenRun r;
    double v[2 * NEURONS];
    int large = 0;
    open_for(&r, at("dense"), true);
    Loader *loader = open_loader(&r);
    ImportancePlan plan = {.groups = 1, .sequences = 1, .documents = true, .seed = 1};
    assert_int_equal(importance_measure(r.model, loader, &plan, v, &e), 0);
    float *plain = masters(&r);
    for (int layer = 0; layer < 2; layer++) {
        for (int s = 0; s < NEURONS; s += 5) {
            double h = 0.25, up = loss_with(&r, loader, plain, layer, s, 1 + h);
            double slope = (up - loss_with(&r, loader, plain, layer, s, 1 - h)) / (2 * h);
            double wanted = fabs(slope), got = v[layer * NEURONS + s];
            if (!(fabs(got - wanted) <= 0.02 * wanted + 3e-6))
                fail_msg("layer %d, neuron %d: %.6g, expected %.6g", layer, s, got, wanted);
            large += wanted > 1e-4;
        }
    }
    assert_true(large >= 5);
    free(plain);
    loader_close(&loader);
    open_run_close(&r);
}

/* Whatever the groups, together they are all sequences; each sequence is in one. */
static void importance_adds_up(void **state)
{
    (void)state;
    enum { GROUPS = 3, SEQUENCES = 6, N = 2 * NEURONS };
    Err e = {0};
    OpenRun r;
    static double whole[N], parts[2 * GROUPS * NEURONS];
    open_for(&r, at("dense"), true);
    Loader *loader = open_loader(&r);
    ImportancePlan plan = {.groups = 1, .sequences = SEQUENCES, .documents = true, .seed = 1};
    assert_int_equal(importance_measure(r.model, loader, &plan, whole, &e), 0);
    plan.groups = GROUPS;
    assert_int_equal(importance_measure(r.model, loader, &plan, parts, &e), 0);
    for (int layer = 0; layer < 2; layer++) {
        for (int s = 0; s < NEURONS; s++) {
            double sum = 0;
            for (int g = 0; g < GROUPS; g++) sum += parts[(layer * GROUPS + g) * NEURONS + s];
            assert_true(fabs(sum - whole[layer * NEURONS + s]) <= 1e-12 * sum);
        }
        for (int g = 0; g < GROUPS; g++) {
            double *here = parts + (layer * GROUPS + g) * NEURONS, sum = 0;
            for (int s = 0; s < NEURONS; s++) sum += here[s];
            assert_true(sum > 0);
            if (g) assert_memory_not_equal(here, here - NEURONS, NEURONS * sizeof *here);
        }
    }
    loader_close(&loader);
    open_run_close(&r);
}

/* ---- training goes on ------------------------------------------------------------------------ */

static void training_goes_on(void **state)
{
    (void)state;
    char out[PATH * 2];
    snprintf(out, sizeof out, "train.out=%s", at("copy"));
    RUN_CODE(0, "train", "configs/runs/tiny.yaml", data_key, out, "train.precision=f32",
             "train.threads=2", "train.steps=6", "optim.warmup_steps=1", "optim.decay_steps=2",
             "model.n_experts=3", "model.expert_width=96", "model.top_k=2", "model.n_shared=0",
             "model.shared_width=0", "--resume", "required", "--json");
    assert_has(program_err, "resumed at step 0");
    json_t *last = json_loads(program_out, 0, NULL);
    assert_true(report_number(last, "step") == 6);
    json_decref(last);
    char *log = read_file(at("copy/log.jsonl"), NULL);
    assert_has(log, "{\"event\":\"upcycle\",\"step\":0,\"method\":\"copy\"");
    const char *first = strstr(log, "{\"step\":1,");
    assert_non_null(first);
    json_t *line = json_loadb(first, strcspn(first, "\n"), 0, NULL);
    char *dense = read_file(at("dense/log.jsonl"), NULL);
    double begin = report_number(line, "loss");
    const char *old = strstr(dense, "{\"step\":1,");
    json_t *fresh = json_loadb(old, strcspn(old, "\n"), 0, NULL);
    if (!(begin < 0.8 * report_number(fresh, "loss")))
        fail_msg("first loss %g, a fresh model's is %g", begin, report_number(fresh, "loss"));
    json_decref(line);
    json_decref(fresh);
    free(log);
    free(dense);
}

/* The same bits again, on other threads too. */
static void same_bits(void **state)
{
    (void)state;
    static const char *const method[] = {"random", "clustered", "inner", "inter"};
    static const char *const threads[] = {"train.threads=1", "train.threads=3"};
    for (int i = 0; i < 4; i++) {
        bool inter = i == 3;
        uint64_t hash[2];
        Err e = {0};
        for (int k = 0; k < 2; k++) {
            const char *name = k ? "bits1" : "bits0";
            assert_int_equal(io_remove_tree(at("%s", name), &e), 0);
            if (UPCYCLE(name, method[i], "model.n_experts=4", "model.top_k=2",
                        inter ? "model.expert_width=18" : "model.expert_width=24",
                        inter ? "model.n_shared=1" : "model.n_shared=0",
                        inter ? "model.shared_width=24" : "model.shared_width=0", threads[k]))
                fail_msg("%s", program_err);
            assert_int_equal(hash_file(at("%s/checkpoints/step-000000000/rank-0000.h5", name),
                                       &hash[k], &e), 0);
        }
        assert_true(hash[0] == hash[1]);
    }
}

static void refusals(void **state)
{
    (void)state;
    char other[PATH * 2];
    snprintf(other, sizeof other, "data.train=%s", at("other"));
#define SPLIT "model.n_experts=4", "model.expert_width=24", "model.n_shared=0", \
              "model.shared_width=0"
    static const struct {
        int code;
        const char *method, *more[8], *says;
    } bad[] = {
        {2, "thirds", {SPLIT}, "none of random, clustered, inner, inter, copy"},
        {2, "random", {SPLIT, "--sequences=4"}, "only inner and inter look at text"},
        {2, "inner", {SPLIT, "--sequences=0"}, "--sequences 0"},
        {1, "inner", {SPLIT, "--sequences=99999"}, "99999 for each of 4 experts are wanted"},
        {1, "random", {SPLIT, "model.n_experts=3"}, "3 experts of 24 and 0 shared neurons"},
        {1, "clustered", {"model.shared_width=0", "model.n_shared=0"}, "are not the 96"},
        {1, "inter", {SPLIT}, "inter: needs shared neurons"},
        {1, "inter", {"model.expert_width=90", "model.shared_width=10"}, "no more than 96"},
        {1, "inner", {"model.expert_width=97", "model.n_shared=0", "model.shared_width=0"},
         "at most 96"},
        {1, "copy", {SPLIT}, "exactly 96"},
        {1, "random", {SPLIT, "model.d_model=32"}, "model.d_model is not that of the dense"},
        {1, "random", {SPLIT, "model.rope_theta=20000"}, "model.rope_theta is not that"},
        {1, "random", {SPLIT, "model.qk_norm=none"}, "model.qk_norm is not that"},
        {2, "random", {SPLIT, "--rescale=twice"}, "--rescale twice: must be auto, none or a num"},
        {2, "random", {SPLIT, "--rescale=0"}, "--rescale 0: must be auto, none or a number"},
        {2, "random", {SPLIT, "--rescale=nan"}, "--rescale nan: must be auto, none or a number"},
        {1, "random", {SPLIT, "model.routed_scale=3", "--rescale=auto"},
         "model.routed_scale is 3, but --rescale auto asks for 2"},
        {1, "random", {SPLIT, "model.routed_scale=3", "--rescale=4"},
         "model.routed_scale is 3, but --rescale with a number asks for 4"},
        {1, "random", {"model.n_experts=0", "model.top_k=0", "model.expert_width=0",
                       "model.router_weight=renorm", "model.routing_group_tokens=1024"},
         "model.n_experts is 0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int code = upcycle("refused", bad[i].method, bad[i].more);
        if (code != bad[i].code) fail_msg("case %zu: exit %d\n%s", i, code, program_err);
        assert_has(program_err, bad[i].says);
        assert_false(io_exists(at("refused/checkpoints")));
    }
    assert_int_equal(UPCYCLE("refused", "random", SPLIT, other), 1);
    assert_has(program_err, "not made with the tokenizer that");
    assert_int_equal(UPCYCLE("refused", "inner", SPLIT, "--data", at("other")), 1);
    assert_has(program_err, "not made with the tokenizer that");
    assert_int_equal(UPCYCLE("copy", "random", SPLIT), 1); /* holds a run */
    assert_has(program_err, "is not empty");
    RUN_CODE(1, "upcycle", at("copy"), "--config", "configs/runs/tiny.yaml", "--method", "random",
             data_key);
    assert_has(program_err, "has experts already");
    RUN_CODE(2, "upcycle", at("dense"), "--method", "random");
    RUN_CODE(1, "upcycle", at("nothing"), "--config", "configs/runs/tiny.yaml", "--method",
             "random");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(clusters_of_up),
        cmocka_unit_test(a_part_is_not_the_whole),
        cmocka_unit_test(the_scale),
        cmocka_unit_test(the_scale_trains),
        cmocka_unit_test(what_it_says),
        cmocka_unit_test(importance_is_the_slope),
        cmocka_unit_test(importance_adds_up),
        cmocka_unit_test(training_goes_on),
        cmocka_unit_test(same_bits),
        cmocka_unit_test(refusals),
    };
    int failed = cmocka_run_group_tests_name("upcycle", tests, set_up, help_end);
    free(program_out);
    free(program_err);
    return failed;
}
