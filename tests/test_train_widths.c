/* tests/test_train_widths.c - the built program on a model of experts of own widths: a run that is
 * cut and goes on, its record, held-out loss, text, plan. */
#include "tests/train_help.h"

#include <jansson.h>

static const char CONFIG[] =
    "model: {vocab_size: 300, d_model: 16, n_layers: 2, n_heads: 2, n_kv_heads: 1,\n"
    "  n_experts: 4, top_k: 2, expert_widths: 6 26 8 16, width_penalty: true, n_shared: 1,\n"
    "  shared_width: 8, routing_group_tokens: 32}\n"
    "data: {train: %s, seq_len: 16}\n"
    "optim: {lr: 0.01, warmup_steps: 2}\n"
    "train: {out: %s, steps: 6, batch: 4, eval_sequences: 4, log_every: 1, threads: 1,\n"
    "  checkpoint_every: 3}\n";

static int begin_all(void **state)
{
    char text[2048];
    if (help_begin(state)) return -1;
    FILE *f = fopen(at("data.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < 6000; i++) {
        static const char *const parts[] = {"ra", "wor", "ten", "mi", "sol", "ke", "dan", "fu"};
        int w = i * 7919 % 512;
        if (i % 100 == 0) fprintf(f, "%s{\"text\": \"", i ? "\"}\n" : "");
        fprintf(f, "%s%s%s ", parts[w % 8], parts[w / 8 % 8], parts[w / 64]);
    }
    fprintf(f, "\"}\n");
    fclose(f);
    RUN_CODE(0, "prepare", at("data.jsonl"), "--out", at("data"), "--vocab-size", "300",
             "--val-fraction", "0.2");
    snprintf(text, sizeof text, CONFIG, at("data"), at("a"));
    write_file(at("c.yaml"), text);
    snprintf(text, sizeof text, CONFIG, at("data"), at("b"));
    write_file(at("b.yaml"), text);
    return 0;
}

static json_t *tensors(const char *run)
{
    json_t *root = json_load_file(at("%s/checkpoints/step-000000006/manifest.json", run), 0, NULL);
    assert_non_null(root);
    json_t *list = json_incref(json_object_get(root, "tensors"));
    json_decref(root);
    return list;
}

/* Six steps straight are three, a loss of what came behind, and three more: all tensors, among them
 * those of each expert, have the same checksums. */
static void test_resume(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"));
    RUN_CODE(0, "train", at("b.yaml"));
    assert_int_equal(io_remove_tree(at("b/checkpoints/step-000000006"), NULL), 0);
    RUN_CODE(0, "train", at("b.yaml"), "train.threads=2");
    assert_has(program_err, "resumed at step 3 from");
    json_t *a = tensors("a"), *b = tensors("b");
    char *names = json_dumps(a, JSON_COMPACT);
    assert_has(names, "layers.1.experts.3.down.weight");
    assert_true(json_equal(a, b));
    free(names);
    json_decref(a);
    json_decref(b);
    RUN_CODE(1, "train", at("b.yaml"), "train.steps=8", "model.expert_widths=26 6 8 16");
    assert_has(program_err, "model.expert_widths: ");
    assert_has(program_err, "\"6 26 8 16\" in the checkpoint, \"26 6 8 16\" now");
}

/* Every step says how wide the experts were that a token went through: two of the four. */
static void test_record(void **state)
{
    (void)state;
    char *text = read_file(at("a/log.jsonl"), NULL), *save = NULL;
    int steps = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *record = json_loads(line, 0, NULL);
        if (!json_object_get(record, "event")) {
            double width = json_number_value(json_object_get(record, "active_width"));
            assert_true(width > 6 && width <= 42);
            steps++;
        }
        json_decref(record);
    }
    assert_int_equal(steps, 6);
    free(text);
}

static void test_eval_and_generate(void **state)
{
    (void)state;
    RUN_CODE(0, "eval", at("a"));
    RUN_CODE(0, "generate", at("a"), "--prompt", "word", "--tokens", "8");
}

static void test_plan(void **state)
{
    (void)state;
    RUN_CODE(0, "plan", at("c.yaml"));
    assert_has(program_out, "experts are 6 26 8 16 wide, 14 on average: activated counts and FLOPs "
                            "are those of a uniform choice");
    RUN_CODE(0, "plan", at("c.yaml"), "--json");
    json_t *plan = json_loads(program_out, 0, NULL);
    const json_t *widths = json_object_get(json_object_get(plan, "parameters"), "expert_widths");
    assert_int_equal(json_array_size(widths), 4);
    assert_int_equal(json_integer_value(json_array_get(widths, 1)), 26);
    json_decref(plan);
    RUN_CODE(0, "plan", at("c.yaml"), "model.expert_widths=", "model.expert_width=14",
             "model.width_penalty=false", "--json");
    plan = json_loads(program_out, 0, NULL);
    assert_null(json_object_get(json_object_get(plan, "parameters"), "expert_widths"));
    json_decref(plan);
    RUN_CODE(1, "plan", at("c.yaml"), "model.n_experts=5");
    assert_has(program_err, "model.expert_widths: 4 widths for model.n_experts 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_eval_and_generate),
        cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
