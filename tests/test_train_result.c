/* tests/test_train_result.c - result.json: what the program leaves for those who started it, when
 * it does and when it must not; and a small sweep of real runs. */
#include "tests/train_runs.h"

#include <math.h>

#include "base/hash.h"
#include "base/log.h"
#include "scaling/cell_result.h"
#include "scaling/driver.h"

static json_t *result(const char *run)
{
    json_error_t why;
    json_t *root = json_load_file(at("%s/result.json", run), JSON_REJECT_DUPLICATES, &why);
    if (!root) fail_msg("%s: %s", run, why.text);
    return root;
}

static const char *member(const json_t *root, const char *key)
{
    const char *text = json_string_value(json_object_get(root, key));
    if (!text) fail_msg("no text %s", key);
    return text;
}

/* ---- Ends -------------------------------------------------------------------------------------*/

static void test_done(void **state)
{
    Record r;
    uint64_t hash;
    char hex[HASH_HEX];
    Err e = {0};
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("a"), "optim.expert_lr=auto", "optim.noise=given",
             "optim.noise_tokens=4000", "--cell", "abc@0.5");
    json_t *root = result("a");
    record_read(&r, "a");
    const json_t *final = record_find(&r, "final", 0), *start = record_find(&r, "start", 0);
    assert_string_equal(member(root, "format"), "isomoe-result");
    assert_string_equal(member(root, "status"), "done");
    assert_string_equal(member(root, "cell"), "abc@0.5");
    assert_string_equal(member(root, "code"), member(start, "code"));
    assert_string_equal(member(root, "device"), member(start, "device"));
    assert_string_equal(member(root, "variant"), member(start, "variant"));
    assert_string_equal(member(root, "run"), member(final, "run"));
    assert_int_equal(hash_file(at("a/config.yaml"), &hash, &e), 0);
    hash_hex(hash, hex);
    assert_string_equal(member(root, "config"), hex);
    assert_true(number(root, "version") == 1 && number(root, "steps") == 6);
    assert_true(number(root, "loss") == number(final, "val_loss"));
    assert_true(number(root, "train_loss") == number(final, "loss_ema"));
    assert_true(number(root, "tokens") == 6 * 4 * 32);
    assert_true(number(root, "flops") == number(final, "flops"));
    assert_true(number(root, "seconds") == number(final, "seconds"));
    assert_true(number(root, "b_noise") == 4000);
    assert_null(json_object_get(root, "reason"));
    record_free(&r);
    json_decref(root);
    CellOutcome outcome;
    bool found;
    if (cell_result_read(at("a"), &outcome, &found, &e)) fail_msg("%s", e.message);
    assert_true(found && outcome.status == STATE_DONE && outcome.result.b_noise == 4000);
    assert_string_equal(outcome.label, "abc@0.5");
}

/* A process that died between its last record and its result: the next one makes it up. */
static void test_made_up(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("b"), "--cell", "x");
    char *before = read_file(at("b/result.json"), NULL);
    unlink(at("b/result.json"));
    RUN_CODE(0, "train", at("c.yaml"), out("b"), "--cell", "x");
    assert_has(program_err, "complete at step 6");
    char *after = read_file(at("b/result.json"), NULL);
    assert_string_equal(before, after);
    free(after);
    RUN_CODE(0, "train", at("c.yaml"), out("b")); /* no new label: it stays */
    after = read_file(at("b/result.json"), NULL);
    assert_string_equal(before, after);
    free(after);
    free(before);
}

/* A run that is not at its end has none, not even an old one. */
static void test_not_at_end(void **state)
{
    (void)state;
    RUN_CODE(0, "train", at("c.yaml"), out("c"));
    const char *const words[] = {"train", at("c.yaml"), strdup(out("c")), "train.steps=100000",
                                 "train.eval_every=0", NULL};
    pid_t pid = program_start(words);
    for (int i = 0; i < 3000 && io_exists(at("c/result.json")); i++) usleep(2000);
    assert_false(io_exists(at("c/result.json")));
    kill(pid, SIGTERM);
    assert_int_equal(program_wait(pid), 3);
    assert_false(io_exists(at("c/result.json")));
    free((char *)(uintptr_t)words[2]);
}

static void test_diverged(void **state)
{
    CellOutcome outcome;
    bool found;
    Err e = {0};
    (void)state;
    RUN_CODE(4, "train", at("c.yaml"), out("d"), "train.steps=500", "optim.lr=100",
             "optim.warmup_steps=60", "train.eval_every=0", "train.precision=f32",
             "optim.weight_decay=0", "--cell", "y");
    if (cell_result_read(at("d"), &outcome, &found, &e)) fail_msg("%s", e.message);
    assert_true(found && outcome.status == STATE_DIVERGED);
    assert_string_equal(outcome.label, "y");
    assert_has(outcome.reason, "diverged at step ");
}

/* Too few steps to be stopped on the way: judged by what they come to. Weights that grow until they
 * overflow; no step with a finite gradient, which leaves weights that lose an even guess's nats; a
 * held-out loss above what a model can lose. */
static void test_diverged_at_end(void **state)
{
    static const struct {
        const char *name, *first, *second, *steps, *why;
    } rows[] = {
        {"e0", "optim.lr=100", "optim.weight_decay=100", "train.steps=12",
         "diverged: the held-out loss at step 12 is not finite"},
        {"e1", "model.init_std=0", "model.norm_eps=0", "train.steps=5",
         "diverged: none of 5 steps had a finite gradient"},
        {"e2", "optim.lr=100", "optim.weight_decay=0", "train.steps=1",
         ", above 18.0 (3 ln vocab_size)"},
    };
    (void)state;
    for (int i = 0; i < 3; i++) {
        CellOutcome outcome;
        bool found;
        Err e = {0};
        RUN_CODE(4, "train", at("c.yaml"), out(rows[i].name), rows[i].first, rows[i].second,
                 rows[i].steps, "optim.warmup_steps=0", "optim.decay_steps=0",
                 "train.eval_every=0", "train.precision=f32", "--cell", "z");
        if (cell_result_read(at("%s", rows[i].name), &outcome, &found, &e))
            fail_msg("%s", e.message);
        if (!found || outcome.status != STATE_DIVERGED) fail_msg("%s: no divergence", rows[i].name);
        assert_string_equal(outcome.label, "z");
        assert_has(outcome.reason, rows[i].why);
        assert_has(program_err, "lower optim.lr");
    }
}

/* What is no result is refused with what it lacks; nothing there is no error. */
static void test_refused(void **state)
{
#define HEAD "{\"format\": \"isomoe-result\", \"version\": 1, \"status\": \"done\""
    static const struct { const char *text, *why; } rows[] = {
        {"", "no JSON object"},
        {"[]", "no JSON object"},
        {"{\"version\": 1}", "the member format is missing"},
        {"{\"format\": \"isomoe-result\", \"version\": 2}", "it has another version"},
        {"{\"format\": \"isomoe-result\", \"version\": 1, \"status\": \"so-so\"}", "status is not"},
        {HEAD "}", "steps is missing"},
        {HEAD ", \"steps\": 1.5}", "steps is missing"},
        {HEAD ", \"steps\": 3, \"loss\": null}", "loss is missing"},
        {HEAD ", \"steps\": 3, \"loss\": \"3\"}", "loss is missing"},
        {HEAD ", \"steps\": 3, \"loss\": -1}", "loss is missing"},
        {HEAD ", \"steps\": 3, \"loss\": 3, \"tokens\": 1, \"flops\": 1}", "or seconds is missing"},
        {HEAD ", \"steps\": 3, \"steps\": 4}", "no JSON object"},
    };
    CellOutcome outcome;
    bool found;
    (void)state;
    Err none = {0};
    assert_int_equal(io_make_dirs(at("nan"), NULL), 0);
    write_file(at("nan/result.json"), HEAD ", \"steps\": 3, \"loss\": null, \"targets\": 9}");
    if (cell_result_read(at("nan"), &outcome, &found, &none)) fail_msg("%s", none.message);
    assert_true(found && outcome.status == STATE_DIVERGED);
    assert_int_equal(cell_result_read(at("none"), &outcome, &found, NULL), 0);
    assert_false(found);
    assert_int_equal(io_make_dirs(at("r"), NULL), 0);
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) {
        Err e = {0};
        write_file(at("r/result.json"), rows[i].text);
        assert_int_equal(cell_result_read(at("r"), &outcome, &found, &e), -1);
        assert_has(e.message, "r/result.json: is no result of a run: ");
        assert_has(e.message, rows[i].why);
        assert_false(found);
    }
}

/* ---- A sweep of real runs ---------------------------------------------------------------------*/

static void add_cells(const char *folder)
{
    Cell cells[] = {
        {.id = "00000000000000aa", .name = "trunk", .kind = CELL_TRUNK, .lr = 0.01,
         .overrides = "train.steps=12\noptim.decay_steps=0\ntrain.eval_every=0"},
        {.id = "00000000000000ab", .name = "point", .kind = CELL_POINT, .lr = 0.01,
         .parent = "00000000000000aa",
         .overrides = "train.steps=18\noptim.decay_steps=4\ntrain.eval_every=0"},
        {.id = "00000000000000ac", .name = "alone", .kind = CELL_POINT, .lr = 0.01,
         .overrides = "train.steps=18\noptim.decay_steps=4\ntrain.eval_every=0"},
    };
    Err e = {0};
    CellList list = {cells, 3, 3};
    char *text = read_file(at("c.yaml"), NULL);
    if (io_make_dirs(folder, &e)) fail_msg("%s", e.message);
    write_file(at("sweep/base.yaml"), text);
    free(text);
    Ledger *l = ledger_open(folder, false, &e);
    if (!l || ledger_add(l, &list, NULL, &e)) fail_msg("%s", e.message);
    ledger_close(&l);
}

static pid_t start_driver(const char *folder)
{
    pid_t pid = fork();
    if (pid) return pid;
    Err e = {0};
    DriverOptions o = {.folder = folder, .program = program(), .jobs = 2, .threads = 1};
    Ledger *l = ledger_open(folder, false, &e);
    int end = l ? (int)driver_run(l, &o, NULL, &e) : 1;
    if (e.set) fprintf(stderr, "%s\n", e.message);
    _exit(end);
}

/* Through a driver's death; the branch is the run trained alone. */
static void test_sweep(void **state)
{
    char folder[PATH * 2];
    int status, n;
    Err e = {0};
    (void)state;
    snprintf(folder, sizeof folder, "%s", at("sweep"));
    add_cells(folder);
    pid_t pid = start_driver(folder);
    for (int i = 0; i < 5000 && !io_exists(at("sweep/cells/00000000000000aa/result.json")); i++)
        usleep(2000);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    pid = start_driver(folder);
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    Ledger *l = ledger_open(folder, true, &e);
    LedgerCell *cells;
    if (!l || ledger_cells(l, &cells, &n, &e)) fail_msg("%s", e.message);
    for (int i = 0; i < 3; i++)
        if (cells[i].state != STATE_DONE) fail_msg("%s: %s", cells[i].cell.name, cells[i].reason);
    assert_int_equal(cells[0].result.steps, 12);
    assert_true(cells[1].result.loss == cells[2].result.loss);
    assert_true(cells[1].result.tokens == 18 * 4 * 32 && cells[1].tries == 1);
    free(cells);
    ledger_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_done),     cmocka_unit_test(test_made_up),
        cmocka_unit_test(test_not_at_end), cmocka_unit_test(test_diverged),
        cmocka_unit_test(test_diverged_at_end),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_sweep),
    };
    log_set_quiet(1);
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
