/* tests/test_train_config.c - a run's configuration: defaults, what is derived, combinations that
 * cannot be, what may change on a resume, how a limit of minutes changes length and schedule. */
#include "tests/train_good.h"

#include <jansson.h>

#include "model/count.h"
#include "train/length.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/stages.h"

static void test_defaults(void **state)
{
    RunConfig c;
    (void)state;
    read_good(&c, NULL, 0);
    assert_string_equal(c.data.val, "corpus");
    assert_true(c.data.mask_documents);
    assert_int_equal(c.train.micro_batch, 16);
    assert_int_equal(c.train.precision, 0);
    assert_true(c.optim.beta2 == 0.95 && c.optim.weight_decay == 0.1 && c.optim.clip == 1);
    assert_int_equal(c.optim.schedule, SCHEDULE_WSD);
    static const bool decay[] = OPTIM_MATRICES;
    for (int i = 0; i < OPTIM_GROUPS; i++)
        assert_true(c.optim.lr_ratio[i] == 1 && c.optim.decay[i] == decay[i]);
    assert_true(c.optim.kind == OPTIM_ADAMW && c.optim.moments == MOMENTS_F32);
    ModelShape s = run_config_shape(&c);
    assert_int_equal(s.type, DT_BF16);
    assert_int_equal(s.B, 16);
    assert_int_equal(s.T, 64);
    assert_int_equal(s.micro_batches, 1);
    assert_true(s.train);
}

/* Groups of 128 tokens are two sequences; 8192 tokens are 128 of them. */
static void test_micro_batch(void **state)
{
    static const struct {
        const char *overrides[4];
        int n, micro;
    } cases[] = {
        {{"train.batch=256"}, 1, 128},
        {{"train.batch=300"}, 1, 100},
        {{"train.batch=254"}, 1, 2},
        {{"train.batch=8", "data.seq_len=16384", "model.routing_group_tokens=16384"}, 3, 1},
        {{"train.batch=6", "data.seq_len=8192", "model.routing_group_tokens=16384"}, 3, 2},
        {{"train.batch=16", "train.micro_batch=4"}, 2, 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RunConfig c;
        read_good(&c, cases[i].overrides, cases[i].n);
        assert_int_equal(c.train.micro_batch, cases[i].micro);
        assert_int_equal(run_config_shape(&c).micro_batches, c.train.batch / cases[i].micro);
    }
}

static void test_refuses(void **state)
{
    static const struct {
        const char *override, *message;
    } cases[] = {
        {"train.batch=3", "train.batch: 3 sequences of 64 tokens are not whole routing groups of "
                          "128 tokens\nhint: use a multiple of 2"},
        {"train.micro_batch=5", "train.micro_batch: 5 does not divide train.batch 16"},
        {"train.micro_batch=1", "train.micro_batch: 1 sequences of 64 tokens are not whole routing "
                                "groups of 128 tokens\nhint: use a multiple of 2"},
        {"model.routing_group_tokens=96", "model.routing_group_tokens: 96 tokens neither divide a "
                                          "sequence (data.seq_len 64) nor are a multiple of it"},
        {"optim.warmup_steps=201", "optim.warmup_steps: 201 is more than train.steps 200"},
        {"optim.decay_steps=101", "optim.decay_steps: 101 behind 100 of warm-up is more than "
                                  "train.steps 200"},
        {"train.device=gpu", "train.device: 'gpu' is none of auto, cpu, cuda"},
        {"train.out=", "train.out: is empty"},
        {"train.steps=0", "train.steps"},
        {"train.log_every=0", "train.log_every"},
        {"train.precision=fp16", "train.precision"},
        {"optim.schedule=linear", "optim.schedule"},
        {"train.stepz=3", "unknown key 'train.stepz'; did you mean 'train.steps'?"},
        {"model.top_k=9", "model.top_k"},
        {"data.dynamic=sheared_llama", "data.dynamic: needs at least two data.sources to weigh"},
        {"optim.muon_momentum=0.9", "optim.muon_momentum: is for optim.kind muon"},
        {"optim.skip_window=64", "optim.skip_window: is for optim.skip_zscore above 0"},
        {"optim.skip_window=1", "optim.skip_window"},
        {"optim.lr_ratio.head=0.5", "optim.lr_ratio.head: the model has no such parameters"},
        {"optim.decay.bias=true", "optim.decay.bias: the model has no such parameters"},
        {"optim.lr_ratio.norm=-1", "optim.lr_ratio.norm"},
        {"optim.expert_lr_ratio=0.31", "unknown key 'optim.expert_lr_ratio'"},
    };
    (void)state;
    write_file(at("c.yaml"), GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RunConfig c;
        Err e = {0};
        assert_int_equal(run_config_read(&c, at("c.yaml"), &cases[i].override, 1, &e), -1);
        assert_has(e.message, cases[i].message);
    }
}

/* Weight decay by row: what the lists may say, and what is refused with the nearest name. */
static void test_decay_rows(void **state)
{
    static const struct {
        const char *rows, *message; /* NULL: taken */
    } cases[] = {
        {"[{rows: layers.*.attn.q.weight, decay: 0}]", NULL},
        {"[{rows: '*', decay: 0.5}, {rows: layers.1.router.weight, decay: 0}]", NULL},
        {"[{rows: layers.*.atn.q.weight, decay: 0}]",
         "c.yaml:8: optim.decay_rows[0].rows: the model has no parameter 'layers.*.atn.q.weight'; "
         "did you mean 'layers.*.attn.q.weight'?"},
        {"[{rows: layers.7.router.weight, decay: 0}]", "did you mean 'layers.*.router.weight'?"},
        {"[{rows: rooter.weight, decay: 0}]", "did you mean 'layers.*.router.weight'?"},
        {"[{rows: final_nrom.weight, decay: 0}]", "did you mean 'final_norm.weight'?"},
        {"[{rows: zzzzzzzzzzzzzzzzz, decay: 0}]", "no parameter 'zzzzzzzzzzzzzzzzz'\n"},
        {"[{rows: head.weight, decay: 0}]", "the model has no parameter 'head.weight'; did"},
        {"[{rows: embed.weight, decay: 0}, {rows: '*', decay: 1}]",
         "optim.decay_rows[0].rows: 'embed.weight' has no effect: later elements take all"},
        {"[{rows: embed.weight}]", "optim.decay_rows[0].decay: required, but missing"},
        {"[{rows: embed.weight, decay: -1}]", "optim.decay_rows[0].decay"},
        {"[{row: embed.weight, decay: 1}]", "did you mean 'optim.decay_rows[0].rows'?"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        RunConfig c;
        Err e = {0};
        snprintf(text, sizeof text, "%soptim:\n  warmup_steps: 10\n  decay_rows: %s\n", GOOD,
                 cases[i].rows);
        write_file(at("c.yaml"), text);
        int rc = run_config_read(&c, at("c.yaml"), NULL, 0, &e);
        if (!cases[i].message && rc) fail_msg("%s", e.message);
        if (!cases[i].message) {
            RunConfig again; /* '*' is no alias in the resolved text */
            char *resolved = conf_write(run_config_table(), &c);
            if (run_config_read_text(&again, resolved, "text", &e)) fail_msg("%s", e.message);
            assert_true(again.optim.n_decay_rows > 0);
            assert_memory_equal(&again.optim, &c.optim, sizeof c.optim);
            free(resolved);
            continue;
        }
        assert_int_equal(rc, -1);
        assert_has(e.message, cases[i].message);
    }
}

static void expect_decay(const json_t *list, const char *rows, double decay)
{
    size_t i;
    json_t *row;
    json_array_foreach(list, i, row)
        if (!strcmp(json_string_value(json_object_get(row, "rows")), rows)) {
            assert_true(json_real_value(json_object_get(row, "decay")) == decay);
            return;
        }
    fail_msg("no %s", rows);
}

/* `plan` says what every parameter has: layers are told apart where they differ. */
static void test_decay_shown(void **state)
{
    (void)state;
    write_file(at("c.yaml"), GOOD "optim:\n  decay_rows:\n"
                                  "    - {rows: '*.attn.q.weight', decay: 0}\n"
                                  "    - {rows: layers.1.router.weight, decay: 0.25}\n");
    RUN_CODE(0, "plan", at("c.yaml"), "--json");
    json_t *said = json_loads(program_out, 0, NULL);
    const json_t *list = json_object_get(json_object_get(said, "run"), "weight_decay");
    expect_decay(list, "layers.*.attn.q.weight", 0);
    expect_decay(list, "layers.*.attn.k.weight", 0.1);
    expect_decay(list, "layers.*.attn_norm.weight", 0);
    expect_decay(list, "layers.0.router.weight", 0.1);
    expect_decay(list, "layers.1.router.weight", 0.25);
    expect_decay(list, "embed.weight", 0.1);
    assert_int_equal(json_array_size(list), 14); /* 13 names of parameters, one of them twice */
    json_decref(said);
    RUN_CODE(0, "plan", at("c.yaml"));
    assert_has(program_out, "weight decay, times the rate\n");
    assert_has(program_out, "  layers.1.router.weight                     0.25\n");
}

#define SOURCES                                                                                    \
    "data:\n  seq_len: 64\n  sources:\n  - {name: web, path: a, weight: 3}\n"                      \
    "  - {name: code, path: b, weight: 1}\n  - {name: best, path: c, weight: 0}\n"

static void test_sources(void **state)
{
    static const struct {
        const char *overrides[3];
        int n;
        const char *message;
    } cases[] = {
        {{"data.train=x"}, 1, "command line: data.train: is given beside data.sources: give one"},
        {{"data.sources[1].name=web"}, 1, "command line: data.sources[1].name: 'web' is the name "
                                          "of data.sources[0] too"},
        {{"data.sources[1].name="}, 1, "command line: data.sources[1].name: is empty"},
        {{"data.sources[1].name=a123456789b123456789c123456789d123456789e123456789f123456789xyzw"},
         1, "data.sources[1].name: 'a123456789b123456789...' is longer than 63 letters"},
        {{"data.sources[1].name=a b"}, 1, "data.sources[1].name: 'a b' has more than letters"},
        {{"data.sources[2].path="}, 1, "command line: data.sources[2].path: is empty"},
        {{"data.sources[0].weight=0", "data.sources[1].weight=0"}, 2, "command line: data.sources"
                                          "[0].weight: no source has a weight above 0"},
        {{"data.sources[1].weight=-1"}, 1, "data.sources[1].weight: '-1' is out of range"},
        {{"data.dynamic=sheared_llama"}, 1, "data.sources[0].ref_loss (default): is needed by"},
        {{"data.sources[1].ref_loss=2"}, 1, "command line: data.sources[1].ref_loss: has no use"},
        {{"data.sources[3].weight=1"}, 1, "data.sources has 3 elements"},
    };
    RunConfig c;
    (void)state;
    write_file(at("s.yaml"), MODEL SOURCES "train: {out: run, steps: 200, batch: 16}\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Err e = {0};
        assert_int_equal(run_config_read(&c, at("s.yaml"), cases[i].overrides, cases[i].n, &e), -1);
        assert_has(e.message, cases[i].message);
    }
    Err e = {0};
    if (run_config_read(&c, at("s.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
    LoaderOptions o = run_data_options(&c, "train");
    assert_true(o.n_sources == 3 && o.shuffle);
    assert_true(o.source[0].weight == 3 && o.source[2].weight == 0);
    o = run_data_options(&c, "val"); /* the weights of data.sources; not those of weight 0 */
    assert_true(o.n_sources == 2 && o.source[0].weight == 3 && o.source[1].weight == 1);
    assert_string_equal(o.source[1].path, "b");
    assert_false(o.shuffle);
    const char *held = "data.val=held";
    assert_int_equal(run_config_read(&c, at("s.yaml"), &held, 1, &e), 0);
    o = run_data_options(&c, "val");
    assert_true(o.n_sources == 1 && o.source[0].weight == 1);
    assert_string_equal(o.source[0].path, "held");
    write_file(at("s.yaml"), MODEL "data: {seq_len: 64}\ntrain: {out: run, steps: 9, batch: 16}\n");
    assert_int_equal(run_config_read(&c, at("s.yaml"), NULL, 0, &e), -1);
    assert_has(e.message, "data.train (default): is empty, and there are no data.sources");
}

#define STAGES                                                                                     \
    "stages:\n  - {name: first, steps: 50, weights: web=1}\n  - {name: long, steps: 90, "          \
    "seq_len: 256, batch: 4,\n     rope_theta: 1e6}\n  - {name: anneal, steps: 0, "                \
    "weights: best=1 web=1, batch: 12}\n"

static void read_stages(RunConfig *c)
{
    Err e = {0};
    write_file(at("s.yaml"), MODEL SOURCES STAGES "train: {out: run, steps: 200, batch: 16}\n");
    if (run_config_read(c, at("s.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
}

static void test_stages(void **state)
{
    RunConfig c;
    double tokens, flops;
    (void)state;
    read_stages(&c);
    assert_int_equal(stages_count(&c), 3);
    Stage s = stages_get(&c, 0);
    assert_true(s.first == 0 && s.steps == 50 && s.seq_len == 64 && s.batch == 16);
    assert_true(s.weight[0] == 1 && s.weight[1] == 0 && s.weight[2] == 0);
    assert_true(s.rope_theta == 10000 && s.micro_batch == 16 && s.own_weights);
    s = stages_get(&c, 1);
    assert_true(s.first == 50 && s.steps == 90 && s.seq_len == 256 && s.batch == 4);
    assert_true(s.weight[0] == 3 && s.weight[1] == 1 && s.weight[2] == 0 && !s.own_weights);
    assert_true(s.rope_theta == 1e6 && s.micro_batch == 4);
    s = stages_get(&c, 2);
    assert_true(s.first == 140 && s.steps == 60 && s.batch == 12 && s.micro_batch == 12);
    assert_true(s.weight[0] == 1 && s.weight[1] == 0 && s.weight[2] == 1);
    assert_string_equal(s.name, "anneal");
    static const int at_step[][2] = {{0, 0},   {49, 0},  {50, 1}, {139, 1},
                                     {140, 2}, {199, 2}, {900, 2}};
    for (size_t i = 0; i < sizeof at_step / sizeof *at_step; i++)
        assert_int_equal(stages_at(&c, at_step[i][0]), at_step[i][1]);
    stages_totals(&c, &tokens, &flops);
    assert_true(tokens == 50 * 16 * 64 + 90 * 4 * 256 + 60 * 12 * 64);
    assert_true(flops == 50.0 * 16 * (double)count_flops_train(&c.model, 64) +
                         90.0 * 4 * (double)count_flops_train(&c.model, 256) +
                         60.0 * 12 * (double)count_flops_train(&c.model, 64));
    stages_settle(&c, 1);
    assert_true(c.data.seq_len == 256 && c.train.batch == 4 && c.model.rope_theta == 1e6);
    RunConfig plain; /* no list: one stage that is the run */
    read_good(&plain, NULL, 0);
    s = stages_get(&plain, 0);
    assert_true(stages_count(&plain) == 1 && s.steps == 200 && s.weight[0] == 1 && s.batch == 16);
}

static void test_stages_refused(void **state)
{
    static const struct {
        const char *overrides[3];
        int n;
        const char *message;
    } cases[] = {
        {{"stages[2].steps=61"}, 1, "command line: stages[2].steps: the stages have 201 steps, "
                                    "train.steps is 200\nhint: steps: 0 gives the last stage"},
        {{"stages[1].steps=0"}, 1, "command line: stages[1].steps: is 0: only the last stage"},
        {{"stages[1].steps=150"}, 1, "stages[1].steps: stage 'long' ends at step 200 of "
                                     "train.steps 200: nothing is left"},
        {{"stages[1].name=first"}, 1, "stages[1].name: 'first' is the name of stages[0] too"},
        {{"stages[1].name="}, 1, "stages[1].name: is empty"},
        {{"stages[1].weights=webb=1"}, 1, "command line: stages[1].weights: 'webb' is the name of "
                                          "none of the data.sources"},
        {{"stages[1].seq_len=96"}, 1, "command line: stages[1].seq_len: stage 'long': model."
                                      "routing_group_tokens, 128, neither divides a sequence of"},
        {{"stages[0].batch=3"}, 1, "command line: stages[0].batch: stage 'first': 3 sequences of "
                                   "64 tokens are not whole routing groups of 128 tokens\nhint: "
                                   "use a multiple of 2"},
        {{"stages[0].micro_batch=3"}, 1, "stages[0].micro_batch: stage 'first': 3 does not divide "
                                         "its batch 16"},
        {{"stages[0].micro_batch=1"}, 1, "stages[0].micro_batch: stage 'first': 1 sequences of 64 "
                                         "tokens are not whole routing groups of 128"},
        {{"train.minutes=3"}, 1, "command line: train.minutes: cuts the run to a length that is "
                                 "not known before"},
    };
    RunConfig c;
    (void)state;
    read_stages(&c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Err e = {0};
        assert_int_equal(run_config_read(&c, at("s.yaml"), cases[i].overrides, cases[i].n, &e), -1);
        assert_has(e.message, cases[i].message);
    }
    Err e = {0};
    write_file(at("w.yaml"), GOOD "stages: [{name: a, steps: 0, weights: web=1}]\n");
    assert_int_equal(run_config_read(&c, at("w.yaml"), NULL, 0, &e), -1);
    assert_has(e.message, ":6: stages[0].weights: there are no data.sources to weigh");
    write_file(at("w.yaml"), GOOD "stages: [{name: a, steps: 200}]\n");
    const char *minutes = "train.minutes=1"; /* one stage has no border that could move */
    if (run_config_read(&c, at("w.yaml"), &minutes, 1, &e)) fail_msg("%s", e.message);
}

static void test_weights_text(void **state)
{
    static const char *const bad[][2] = {
        {"web", "'web' is not of the form source=weight"},
        {"web=1 codes=2", "'codes' is the name of none of the data.sources"},
        {"we=1", "'we' is the name of none"},
        {"=1", "'' is the name of none"},
        {"web=", "'web=': the weight must be a number"},
        {"web=x", "'web=x': the weight must be a number"},
        {"web=0x1", "'web=0x1': the weight must be a number"},
        {"web=1e400", "must be a number from 0"},
        {"web=-1", "must be a number from 0"},
        {"web=nan", "must be a number from 0"},
        {"web=1,code=2", "'web=1,code=2': the weight must be a number"},
        {"web=1 web=2", "names source 'web' twice"},
        {"web=0 code=0", "gives no source a weight above 0"},
        {"", "gives no source a weight above 0"},
    };
    RunConfig c;
    double w[LOADER_MAX_SOURCES];
    Err e = {0};
    (void)state;
    write_file(at("s.yaml"), MODEL SOURCES "train: {out: run, steps: 200, batch: 16}\n");
    if (run_config_read(&c, at("s.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
    RunCheck k = {NULL, "p", &e};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(run_data_weights(&c, bad[i][0], "train.out", k, w), -1);
        assert_has(e.message, bad[i][1]);
        assert_has(e.message, "p: train.out: ");
    }
    assert_int_equal(run_data_weights(&c, "  best=0.25\tweb=1e-1 ", "train.out", k, w), 0);
    assert_true(w[0] == 0.1 && w[1] == 0 && w[2] == 0.25 && w[3] == 0);
}

/* A combination names file and line of the key that is to blame. */
static void test_names_line(void **state)
{
    RunConfig c;
    Err e = {0};
    char expected[PATH * 2 + 64];
    (void)state;
    write_file(at("bad.yaml"), MODEL DATA "train:\n  out: run\n  steps: 50\n  batch: 16\n"
                                          "optim:\n  warmup_steps: 60\n");
    assert_int_equal(run_config_read(&c, at("bad.yaml"), NULL, 0, &e), -1);
    snprintf(expected, sizeof expected, "%s:10: optim.warmup_steps: 60 is more", at("bad.yaml"));
    assert_has(e.message, expected);
    write_file(at("bad.yaml"), MODEL DATA "train: {out: run, steps: 50}\n");
    assert_int_equal(run_config_read(&c, at("bad.yaml"), NULL, 0, &e), -1);
    assert_has(e.message, "train.batch: required, but missing");
}

/* The resolved text reads back to the same bytes, and resolving again changes nothing. */
static void test_resolved_text(void **state)
{
    static const char *const odd[] = {"optim.lr=0.0012345678901234567", "train.minutes=0.1",
                                      "optim.lr_ratio.expert=0.31", "optim.decay.norm=true"};
    RunConfig c, again;
    Err e = {0};
    (void)state;
    read_good(&c, odd, 4);
    char *text = conf_write(run_config_table(), &c);
    assert_int_equal(run_config_read_text(&again, text, "text", &e), 0);
    char *text2 = conf_write(run_config_table(), &again);
    assert_string_equal(text, text2);
    assert_true(again.optim.lr == c.optim.lr);
    assert_true(again.optim.lr_ratio[PARAM_EXPERT] == 0.31 && again.optim.decay[PARAM_NORM]);
    free(text);
    free(text2);
}

static void test_resume(void **state)
{
    static const char *const fine[] = {"train.steps=900", "train.out=else", "train.threads=3",
                                       "train.micro_batch=2", "train.device=cpu", "train.minutes=3",
                                       "train.eval_every=7", "train.checkpoint_every=3",
                                       "train.log_every=2", "train.keep_checkpoints=9",
                                       "data.train=moved", "data.val=moved"};
    static const char *const bad[] = {"model.d_model=64", "optim.lr=0.5", "train.seed=2",
                                      "train.steps=900"};
    RunConfig saved, now;
    Err e = {0};
    (void)state;
    read_good(&saved, NULL, 0);
    read_good(&now, fine, 12);
    assert_int_equal(resume_check(&saved, &now, "runs/x", &e), 0);
    read_good(&now, bad, 4);
    assert_int_equal(resume_check(&saved, &now, "runs/x", &e), -1);
    assert_has(e.message, "runs/x: cannot be resumed with another configuration:\n");
    assert_has(e.message, "\n  model.d_model: 32 in the checkpoint, 64 now");
    assert_has(e.message, "\n  optim.lr: 0.001 in the checkpoint, 0.5 now");
    assert_has(e.message, "\n  train.seed: 1 in the checkpoint, 2 now");
    assert_has(e.message, "only these may change: data.train,");
    assert_has(e.message, "hint: the configuration that it goes on with is runs/x/config.yaml; ");
    assert_null(strstr(e.message, "train.steps:"));
    const ConfTable *table = run_config_table();
    int may = 0;
    for (int i = 0; i < table->count; i++) may += resume_may_change(table->rows[i].key);
    assert_int_equal(may, 15 + RUN_SOURCES + RUN_STAGES); /* each key of the list exists */
}

static void test_length(void **state)
{
    TrainConfig t = {.steps = 1000};
    (void)state;
    assert_int_equal(length_fit(&t, 10, (Pace){1.0, 0.0, 100.0}), 110);
    assert_int_equal(length_fit(&t, 10, (Pace){1.0, 20.0, 100.0}), 90);
    t.eval_every = 10; /* 2 s a step and 10 s / 10 of evaluation, and one evaluation at the end */
    assert_int_equal(length_fit(&t, 10, (Pace){2.0, 10.0, 100.0}), 40);
    assert_int_equal(length_fit(&t, 10, (Pace){1e-3, 0.0, 100.0}), 1000);
    assert_int_equal(length_fit(&t, 10, (Pace){1.0, 0.0, -5.0}), 11);
    assert_int_equal(length_fit(&t, 1000, (Pace){1.0, 0.0, -5.0}), 1000);
}

static void test_schedule(void **state)
{
    OptimConfig c = {.lr = 1, .warmup_steps = 50, .decay_steps = 200, .final_lr_ratio = 0.1};
    (void)state;
    assert_int_equal(length_schedule(&c, 1000, 1000).decay_steps, 200);
    OptimConfig half = length_schedule(&c, 1000, 500);
    assert_int_equal(half.decay_steps, 100);
    assert_int_equal(half.warmup_steps, 50);
    assert_true(schedule_lr(&half, 399, 500) == 1);
    assert_true(schedule_lr(&half, 400, 500) < 1);
    assert_true(schedule_lr(&half, 499, 500) < 0.12);
    OptimConfig tiny = length_schedule(&c, 1000, 52);
    assert_int_equal(tiny.decay_steps, 10);
    assert_int_equal(tiny.warmup_steps, 42);
}

/* The configurations that come with the program are read, and say what they claim. */
static void test_shipped(void **state)
{
    static const char *const runs[] = {"configs/runs/demo.yaml", "configs/runs/tiny.yaml",
                                       "configs/runs/hunyuan-large-long.yaml"};
    RunConfig c;
    ParamCount n;
    Err e = {0};
    (void)state;
    for (int i = 0; i < 3; i++)
        if (run_config_read(&c, runs[i], NULL, 0, &e)) fail_msg("%s", e.message);
    assert_int_equal(run_config_read(&c, runs[0], NULL, 0, &e), 0);
    assert_int_equal(count_params(&c.model, &n, &e), 0);
    assert_in_range(n.active_no_embed, 3000000, 4000000);
    assert_true(c.train.minutes == 5 && c.model.n_experts == 8 && c.model.top_k == 2);
    assert_true(c.model.n_shared == 1 && c.model.cla_share == 1);
    assert_int_equal(c.model.qk_norm, QK_HEAD_AFTER_ROPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_micro_batch),
        cmocka_unit_test(test_decay_rows),    cmocka_unit_test(test_decay_shown),
        cmocka_unit_test(test_refuses),       cmocka_unit_test(test_names_line),
        cmocka_unit_test(test_resolved_text), cmocka_unit_test(test_resume),
        cmocka_unit_test(test_length),        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_shipped),       cmocka_unit_test(test_sources),
        cmocka_unit_test(test_weights_text),  cmocka_unit_test(test_stages),
        cmocka_unit_test(test_stages_refused),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
