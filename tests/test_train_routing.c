/* tests/test_train_routing.c - the routing modes in whole runs: the record of choices and its
 * replay, foreign records, resumes with everything that the router carries, commands that an
 * expert-choice model is refused. */
#include "tests/train_help.h"

#include <jansson.h>

#include "base/hash.h"
#include "train/routing_file.h"

enum { HEAD = 128, STEPS = 6 };

#define CONFIG                                                                                     \
    "model: {vocab_size: 300, d_model: 16, n_layers: 2, n_heads: 2, n_kv_heads: 1,\n"              \
    "  qk_norm: head_after_rope, n_experts: 4, top_k: 2, expert_width: 16, n_shared: 1,\n"         \
    "  shared_width: 16, routing_group_tokens: 32}\n"                                              \
    "data: {train: %s, seq_len: 32}\n"                                                             \
    "optim: {lr: 0.01, warmup_steps: 1, schedule: constant}\n"                                     \
    "train: {out: run, steps: 6, batch: 4, eval_sequences: 2, threads: 1, precision: f32}\n"

static int begin_all(void **state)
{
    static const char *const words[] = {"the ", "router ", "sends ", "each ", "token ", "to ",
                                        "an ", "expert ", "and ", "waits "};
    char text[2048];
    unsigned seed = 1;
    if (help_begin(state)) return -1;
    FILE *f = fopen(at("text.jsonl"), "w");
    for (int doc = 0; doc < 120; doc++) {
        fprintf(f, "{\"text\": \"");
        for (int i = 0; i < 50; i++) {
            seed = seed * 1664525u + 1013904223u;
            fputs(words[(seed >> 16) % 10], f);
        }
        fprintf(f, "\"}\n");
    }
    fclose(f);
    RUN_CODE(0, "prepare", at("text.jsonl"), "--out", at("data"), "--vocab-size", "290",
             "--val-fraction", "0.2");
    snprintf(text, sizeof text, CONFIG, at("data"));
    write_file(at("c.yaml"), text);
    return 0;
}

/* "key=<scratch>/name"; a few buffers in turn. */
static const char *set(const char *key, const char *name)
{
    static char buffer[8][PATH * 2];
    static int next;
    char *text = buffer[next++ % 8];
    snprintf(text, sizeof buffer[0], "%s=%s/%s", key, scratch, name);
    return text;
}

#define OUT(name) set("train.out", name)
#define RECORD(name) set("train.routing_record", name)
#define REPLAY(name) set("train.routing_replay", name)

/* The tensors of two checkpoints have the same checksums. */
static json_t *tensors(const char *run, int step)
{
    json_t *root = json_load_file(at("%s/checkpoints/step-%09d/manifest.json", run, step), 0, NULL);
    if (!root) fail_msg("%s: no checkpoint at step %d", run, step);
    json_t *list = json_incref(json_object_get(root, "tensors"));
    json_decref(root);
    return list;
}

static bool same_end(const char *a, const char *b, int step)
{
    json_t *x = tensors(a, step), *y = tensors(b, step);
    bool same = json_equal(x, y);
    assert_true(json_object_size(x) > 20);
    json_decref(x);
    json_decref(y);
    return same;
}

/* The records' steps from..to-1 (0 is the first) have the same bytes. */
static bool same_records(const char *a, const char *b, int from, int to)
{
    size_t n, m, step;
    char *x = read_file(at("%s", a), &n), *y = read_file(at("%s", b), &m);
    step = 16 + 2 * 2 * 128 * 2; /* L 2, 128 tokens, 2 slots of 2 bytes */
    assert_true(n >= HEAD + step * (size_t)to && m >= HEAD + step * (size_t)to);
    bool same = !memcmp(x + HEAD + step * (size_t)from, y + HEAD + step * (size_t)from,
                        step * (size_t)(to - from));
    free(x);
    free(y);
    return same;
}

/* ---- Record and replay ------------------------------------------------------------------------*/

/* A recorded run is the run without a record; its replay has its bits; the record does not depend
 * on threads, nor, while the weights are the same, on micro-batches. */
static void check_mode(const char *mode, const char *top_p)
{
    const char *all[] = {mode, top_p};
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("plain"));
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("one"), RECORD("one.routing"));
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("two"), RECORD("two.routing"),
             "train.threads=3");
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("three"), RECORD("three.routing"),
             "train.micro_batch=1");
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("again"), REPLAY("one.routing"),
             RECORD("again.routing"));
    RUN_CODE(0, "train", at("c.yaml"), all[0], all[1], OUT("micro"), REPLAY("one.routing"),
             RECORD("micro.routing"), "train.micro_batch=2");
    assert_true(same_end("plain", "one", STEPS));
    assert_true(same_end("one", "again", STEPS));
    assert_true(same_records("one.routing", "two.routing", 0, STEPS));
    assert_true(same_records("one.routing", "three.routing", 0, 1));
    assert_true(same_records("one.routing", "again.routing", 0, STEPS));
    assert_true(same_records("one.routing", "micro.routing", 0, STEPS));
    static const char *const runs[] = {"plain", "one", "two", "three", "again", "micro"};
    for (int i = 0; i < 6; i++) {
        io_remove_tree(at("%s", runs[i]), NULL);
        if (i) io_remove_tree(at("%s.routing", runs[i]), NULL);
    }
}

static void test_record_and_replay(void **state)
{
    (void)state;
    check_mode("model.routing=recycle", "model.top_p=0");
    check_mode("model.routing=dropless", "model.top_p=0.4");
    check_mode("model.routing=drop", "model.top_p=0");
}

/* Another run's choices are taken: other routing, and the record says so. */
static void test_foreign_choices(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), OUT("f1"), RECORD("f1.routing"), "model.init_std=0.1");
    RUN_CODE(0, "train", at("c.yaml"), OUT("f2"), RECORD("f2.routing"));
    RUN_CODE(0, "train", at("c.yaml"), OUT("f3"), REPLAY("f1.routing"), RECORD("f3.routing"));
    assert_true(same_records("f1.routing", "f3.routing", 0, STEPS));
    assert_false(same_records("f1.routing", "f2.routing", 0, 1));
    assert_false(same_end("f2", "f3", STEPS));
}

static void test_refused(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), OUT("r1"), RECORD("r1.routing"), "train.steps=3");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r2"), REPLAY("r1.routing"));
    assert_has(program_err, "r1.routing: holds the steps 1 to 3, the run needs 1 to 6");
    assert_has(program_err, "hint: record as many steps, or end the run with train.steps=3");
    assert_int_equal(access(at("r2/config.yaml"), F_OK), -1); /* refused before anything is done */
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("r1.routing"), "train.seed=2");
    assert_has(program_err, "r1.routing: is not for this run: train.seed is 1 in the record, 2");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("r1.routing"), "train.batch=8");
    assert_has(program_err, "tokens of a step is 128 in the record, 256 here");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("r1.routing"), "model.routing=drop");
    assert_has(program_err, "model.routing is recycle in the record, drop here");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("r1.routing"), "model.routing=dropless");
    assert_has(program_err, "model.routing is recycle in the record, dropless here");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("c.yaml"));
    assert_has(program_err, "c.yaml: is no routing record");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("none"));
    assert_has(program_err, "none: cannot be opened: No such file");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("data"));
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), RECORD("c.yaml"));
    assert_has(program_err, "c.yaml: is no routing record\nhint: remove it, or choose another");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), RECORD("r1.routing"));
    assert_has(program_err, "r1.routing: is the record of another run");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), RECORD("x"), REPLAY("x"));
    assert_has(program_err, "train.routing_replay: train.routing_record is the same file");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), RECORD("x"), "model.routing=expert_choice");
    assert_has(program_err, "train.routing_record: is for tokens that choose experts");
    RUN_CODE(1, "train", at("c.yaml"), OUT("r3"), REPLAY("x"), "model.n_experts=0",
             "model.top_k=0", "model.expert_width=0", "model.routing_group_tokens=1024");
    assert_has(program_err, "train.routing_replay: there is nothing to choose");
    RUN_CODE(0, "train", at("c.yaml"), OUT("r2"), REPLAY("r1.routing"), "train.steps=3");
    assert_true(same_end("r1", "r2", 3));
}

/* A resumed run goes on with its record, cutting what a checkpoint had not seen; a record that
 * lacks steps is refused, a missing one begins where the run goes on. */
static void test_resumed_record(void **state)
{
    (void)state;
    size_t size;
    RUN_CODE(0, "train", at("c.yaml"), OUT("s1"), RECORD("s1.routing"));
    RUN_CODE(0, "train", at("c.yaml"), OUT("s2"), RECORD("s2.routing"), "train.steps=3");
    char *three = read_file(at("s2.routing"), &size);
    FILE *f = fopen(at("s2.routing"), "a"); /* a torn fourth step */
    fwrite(three, 1, 700, f);
    fclose(f);
    RUN_CODE(0, "train", at("c.yaml"), OUT("s2"), RECORD("s2.routing"));
    assert_true(same_records("s1.routing", "s2.routing", 0, STEPS));
    assert_true(same_end("s1", "s2", STEPS));
    free(read_file(at("s2.routing"), &size));
    assert_int_equal(size, HEAD + STEPS * (16 + 1024));
    RUN_CODE(0, "train", at("c.yaml"), OUT("s2"), RECORD("s3.routing"), "train.steps=8");
    free(read_file(at("s3.routing"), &size));
    assert_int_equal(size, HEAD + 2 * (16 + 1024));
    assert_int_equal(truncate(at("s3.routing"), HEAD + 1040), 0);
    RUN_CODE(1, "train", at("c.yaml"), OUT("s2"), RECORD("s3.routing"), "train.steps=9");
    assert_has(program_err, "s3.routing: holds the steps 7 to 7, the run goes on with step 9");
    free(three);
}

/* A run of so many minutes does not know its last step: where the record ends, what was trained is
 * kept, and a record that goes on takes it further. */
static void test_short_record(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), OUT("h1"), RECORD("h1.routing"), "train.steps=3");
    RUN_CODE(1, "train", at("c.yaml"), OUT("h2"), REPLAY("h1.routing"), "train.minutes=30");
    assert_has(program_err, "h1.routing: has no step 4: it holds the steps 1 to 3");
    assert_has(program_err, "a checkpoint of step 3 is written");
    assert_true(same_end("h1", "h2", 3));
    RUN_CODE(0, "train", at("c.yaml"), OUT("h1"), RECORD("h1.routing"));
    RUN_CODE(0, "train", at("c.yaml"), OUT("h2"), REPLAY("h1.routing"), "train.minutes=30");
    assert_has(program_err, "resumed at step 3");
    assert_true(same_end("h1", "h2", STEPS));
}

/* A replaying run goes on with its record under another name, or without it; never with another
 * run's, nor does one that had none begin in the middle. */
static void test_resumed_replay(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), OUT("i1"), RECORD("i1.routing"), "model.init_std=0.1");
    RUN_CODE(0, "train", at("c.yaml"), OUT("i2"), RECORD("i2.routing"));
    RUN_CODE(0, "train", at("c.yaml"), OUT("i3"), REPLAY("i1.routing"));
    RUN_CODE(0, "train", at("c.yaml"), OUT("i4"), REPLAY("i1.routing"), "train.steps=3");
    RUN_CODE(0, "train", at("c.yaml"), OUT("i5"), REPLAY("i1.routing"), "train.steps=3");
    assert_int_equal(rename(at("i1.routing"), at("moved.routing")), 0);
    RUN_CODE(1, "train", at("c.yaml"), OUT("i4"), REPLAY("i2.routing"));
    assert_has(program_err, "i2.routing: is the record of run ");
    assert_has(program_err, ", but the steps up to 3 replayed that of run ");
    RUN_CODE(0, "train", at("c.yaml"), OUT("i4"), REPLAY("moved.routing"));
    assert_true(same_end("i3", "i4", STEPS));
    RUN_CODE(0, "train", at("c.yaml"), OUT("i5"));
    assert_has(program_err, "without train.routing_replay the router decides from here on");
    assert_false(same_end("i3", "i5", STEPS));
    RUN_CODE(0, "train", at("c.yaml"), OUT("i6"), "train.steps=3");
    RUN_CODE(1, "train", at("c.yaml"), OUT("i6"), REPLAY("i2.routing"));
    assert_has(program_err, "i2.routing: the steps up to 3 replayed no record");
    assert_has(program_err, "hint: a branch may replay another: train.from=");
    RUN_CODE(0, "train", at("c.yaml"), OUT("i7"), REPLAY("i2.routing"), set("train.from", "i6"));
    assert_true(same_end("i2", "i7", STEPS));
}

/* ---- Resumes, commands ------------------------------------------------------------------------*/

/* Three steps and three more are six, with all that the router carries; so are other threads. */
static void check_resume(const char *const keys[6], const char *tensor)
{
    char whole[16], parts[16];
    static int count;
    snprintf(whole, sizeof whole, "w%d", ++count);
    snprintf(parts, sizeof parts, "p%d", count);
    RUN_CODE(0, "train", at("c.yaml"), OUT(whole), keys[0], keys[1], keys[2], keys[3], keys[4],
             keys[5]);
    RUN_CODE(0, "train", at("c.yaml"), OUT(parts), keys[0], keys[1], keys[2], keys[3], keys[4],
             keys[5], "train.steps=3");
    RUN_CODE(0, "train", at("c.yaml"), OUT(parts), keys[0], keys[1], keys[2], keys[3], keys[4],
             keys[5], "train.threads=3");
    assert_has(program_err, "resumed at step 3");
    assert_true(same_end(whole, parts, STEPS));
    json_t *list = tensors(whole, STEPS);
    if (tensor && !json_object_get(list, tensor)) fail_msg("no tensor %s", tensor);
    json_decref(list);
    RUN_CODE(0, "eval", at("%s", whole), "--json");
    RUN_CODE(0, "generate", at("%s", whole), "--tokens", "5");
}

static void test_resume(void **state)
{
    static const char *const deepseek[6] = {"model.bias_rate=0.01", "model.balance=global",
                                            "model.gate_noise=true", "model.routing=dropless",
                                            "model.router_score=sigmoid", "model.routed_scale=2"};
    static const char *const llama[6] = {"model.gate_noise=true", "model.cv_coef=0.01",
                                         "model.routing=drop", "model.drop_policy=score",
                                         "model.balance=global", "model.entropy_coef=0.01"};
    static const char *const gates[6] = {"model.router_network=mlp", "model.shared_gate=true",
                                         "model.shared_scale=2", "model.gate_noise=true",
                                         "model.routing=dropless", "model.routed_scale=2"};
    (void)state;
    check_resume(gates, "master/layers.1.router_out.weight");
    check_resume(gates, "v/layers.0.shared_gate.weight");
    check_resume(deepseek, "model/route_bias");
    check_resume(deepseek, "model/route_f");
    check_resume(llama, "model/route_f");
}

static void test_expert_choice(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), OUT("ec"), "model.routing=expert_choice");
    assert_has(program_err, "held-out losses are those of dropless top-2 routing");
    RUN_CODE(0, "eval", at("ec"));
    assert_has(program_out, "dropless top-2: expert choice would look at later tokens");
    char *json = read_file(at("ec/eval.json"), NULL);
    assert_has(json, "\"measured_with\": \"dropless top-2, in training expert choice\"");
    free(json);
    RUN_CODE(0, "report", at("ec"));
    char *page = read_file(at("ec/report.html"), NULL);
    assert_has(page, "<th>measured with</th><td>dropless top-2, in training expert choice</td>");
    assert_has(page, "sequences of 32 tokens, 4 a step.");
    assert_null(strstr(page, "<h2>Stages</h2>"));
    free(page);
    RUN_CODE(1, "generate", at("ec"));
    assert_has(program_err, "no text can be generated: this model was trained with model.routing "
                            "expert_choice");
    RUN_CODE(0, "plan", at("c.yaml"), "model.routing=expert_choice");
    assert_has(program_out, "every expert takes the 16 tokens of a group that score it highest: 2 "
                            "experts a token on average, at most 4; 0.00% of the rows are empty");
    double flops[2];
    for (int i = 0; i < 2; i++) { /* C = 16, then 24, of groups of 32: 2 and 3 rows a token */
        RUN_CODE(0, "plan", at("c.yaml"), "model.routing=expert_choice", "--json",
                 i ? "model.capacity_factor=1.5" : "model.capacity_factor=1");
        json_t *plan = json_loads(program_out, 0, NULL);
        assert_true(json_number_value(json_object_get(json_object_get(plan, "routing"),
                                                      "rows_per_token")) == 2 + i);
        json_t *parts = json_object_get(json_object_get(plan, "flops_per_token"), "forward_parts");
        flops[i] = json_number_value(json_object_get(parts, "experts"));
        json_decref(plan);
    }
    assert_true(flops[0] > 0 && flops[1] == 1.5 * flops[0]);
    RUN_CODE(0, "plan", at("c.yaml"), "model.routing=drop");
    assert_has(program_out, "they are dropped");
    RUN_CODE(0, "plan", at("c.yaml"), "model.routing=dropless", "model.top_p=0.6");
    assert_has(program_out, "until their probabilities sum to 0.6");
    assert_has(program_out, "sized for the worst case: 2 rows a token");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_and_replay), cmocka_unit_test(test_foreign_choices),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_resumed_record),
        cmocka_unit_test(test_short_record), cmocka_unit_test(test_resumed_replay),
        cmocka_unit_test(test_resume), cmocka_unit_test(test_expert_choice),
    };
    int failed = cmocka_run_group_tests(tests, begin_all, help_end);
    free(program_out);
    free(program_err);
    return failed;
}
