/* tests/test_sweep_answer.c - what `isomoe sweep` says when a study has ended, and the same in the
 * report: the model to train, why a least loss is not bracketed, refusals. The cells are the
 * program's own, their losses those of a known law. */
#include "tests/sweep_program.h"

#include <math.h>

#include "base/hash.h"
#include "base/philox.h"
#include "tests/sweep_help.h"
#include "train/sweep_plan.h"

/* No cell is trained. */
static const char *const plan[] = {"sweep.adaptive=0", "sweep.sizes=5", "sweep.spacing=2",
                                   "sweep.budgets=3e8,9e8,2.7e9,8.1e9", "batch.value=64",
                                   "family.width_max=128", "sweep.held_out=0",
                                   "centre.exponent=0.5", "centre.factor=0.3"};
enum { PLAN = sizeof plan / sizeof *plan };

static double truth(double N, double D)
{
    return 1.5 + 40 * pow(N, -0.4) + 60 * pow(D, -0.4);
}

/* FLAT: neither N nor D matters. BROKEN: the first point fails. */
typedef enum Kind { KNOWN, FLAT, BROKEN } Kind;

static double loss_at(const Cell *c, Kind kind)
{
    uint32_t number = (uint32_t)hash_bytes(c->name, strlen(c->name));
    PhiloxKey key = {.seed = 5, .purpose = RNG_TEST, .stream = 3};
    return (kind == FLAT ? 2 : truth(c->N, c->D)) * exp(1e-4 * philox_normal(&key, number));
}

/* The study's ledger, in which all cells are done. */
static void run_without_training(const char *folder, const char *study, Kind kind)
{
    static SweepConfig s;
    static SweepSource source;
    char out[PATH * 2];
    const char *words[PLAN + 1];
    CellList list;
    const LedgerTries once = {1, 0, 0.5};
    bool failed = kind != BROKEN;
    int first;
    snprintf(out, sizeof out, "sweep.out=%s", at("%s", folder));
    memcpy(words, plan, sizeof plan);
    words[PLAN] = out;
    OK(sweep_config_read(&s, study, words, PLAN + 1, e));
    source = (SweepSource){.base = s.base};
    CellInspector i = sweep_inspector(&source);
    OK(sweep_cells(&s, &i, &list, e));
    for (int k = 0; k < list.count; k++)
        if (list.cell[k].left_out[0]) cell_leave_out(&list.cell[k]);
    OK(io_make_dirs(at("%s", folder), e));
    Ledger *l = open_ledger(at("%s", folder));
    OK(ledger_add(l, &list, NULL, e));
    OK(ledger_join(l, 1, &first, e));
    for (;;) {
        LedgerCell c;
        CellState now;
        double factor;
        bool found;
        OK(ledger_take(l, &c, &factor, &found, e));
        if (!found) break;
        if (!failed && c.cell.kind == CELL_POINT) {
            OK(ledger_end_try(l, c.cell.id, STATE_FAILED, "no luck", &once, &now, e));
            failed = true;
            continue;
        }
        CellResult r = {.loss = loss_at(&c.cell, kind), .train_loss = NAN, .tokens = c.cell.D,
                        .flops = c.cell.C, .seconds = 1, .b_noise = NAN, .steps = c.cell.steps};
        OK(ledger_finish(l, c.cell.id, 0, &r, e));
    }
    OK(ledger_leave(l, e));
    ledger_close(&l);
    cell_list_clear(&list);
}

static const char *out_of(const char *folder)
{
    static char word[PATH * 2];
    snprintf(word, sizeof word, "sweep.out=%s", at("%s", folder));
    return word;
}

#define SWEEP(code, folder, ...)                                                                   \
    RUN_CODE(code, "sweep", study, plan[0], plan[1], plan[2], plan[3], plan[4], plan[5], plan[6],  \
             plan[7], plan[8], out_of(folder), ##__VA_ARGS__)

static json_t *report_of(const char *folder)
{
    json_t *o = json_load_file(at("%s/report.json", folder), 0, NULL);
    assert_non_null(o);
    return o;
}

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%g, expected %g +- %g", got, want, tolerance);
}

/* ---- The model to train -----------------------------------------------------------------------*/

static double truth_of(void *self, const Cell *c)
{
    (void)self;
    return truth(c->N, c->D);
}

/* The family's best model of 10 times the largest budget, were the law known. */
static Cell best_model(const char *study)
{
    static SweepConfig s;
    static SweepSource source;
    const CellLoss law = {truth_of, NULL};
    CellList list;
    OK(sweep_config_read(&s, study, plan, PLAN, e));
    s.held_out = 10;
    source = (SweepSource){.base = s.base};
    CellInspector i = sweep_inspector(&source);
    OK(sweep_held_out_best(&s, &i, &law, &list, e));
    Cell c = list.cell[0];
    cell_list_clear(&list);
    return c;
}

static int64_t whole(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    if (!json_is_integer(value)) fail_msg("%s is no integer", key);
    return json_integer_value(value);
}

static bool has_word(const json_t *list, const char *format, int64_t value)
{
    char word[64];
    size_t i;
    json_t *w;
    snprintf(word, sizeof word, format, (long long)value);
    json_array_foreach(list, i, w)
        if (!strcmp(json_string_value(w), word)) return true;
    return false;
}

static void check_model(const json_t *train, const char *study)
{
    const json_t *m = json_object_get(train, "model"), *optimum = json_object_get(train, "optimum");
    const json_t *range = json_object_get(m, "one_run_loss");
    const json_t *words = json_object_get(m, "overrides");
    const double C = 8.1e10, N = number(m, "N"), D = number(m, "D");
    Cell best = best_model(study);
    assert_near(number(train, "C") / C, 1, 0.005);
    assert_near(number(m, "C") / C, 1, 0.005);
    assert_true(number(train, "over_largest") == 10);
    assert_near(truth(N, D), truth(best.N, best.D), 1e-3);
    assert_near(number(m, "loss"), truth(N, D), 2e-3);
    assert_true(number(m, "loss") > json_real_value(json_array_get(range, 0)));
    assert_true(number(m, "loss") < json_real_value(json_array_get(range, 1)));
    assert_true(whole(m, "steps") * whole(m, "batch") * whole(m, "seq_len") == (int64_t)D);
    assert_true(has_word(words, "model.d_model=%lld", whole(m, "d_model")));
    assert_true(has_word(words, "model.n_layers=%lld", whole(m, "n_layers")));
    assert_true(has_word(words, "train.steps=%lld", whole(m, "steps")));
    assert_true(whole(m, "n_experts") == 4 && whole(m, "top_k") == 2 && whole(m, "n_shared") == 1);
    assert_true(whole(m, "expert_width") == whole(m, "d_model") / 2);
    range = json_object_get(optimum, "N_interval");
    assert_true(number(optimum, "N") > json_real_value(json_array_get(range, 0)));
    assert_true(number(optimum, "N") < json_real_value(json_array_get(range, 1)));
    assert_near(log(number(optimum, "N") / N), 0, 0.3);
}

/* A study that has ended says what to train, in words, in JSON and on the page, and again what it
 * said when nothing was left to run. */
static void test_model(void **state)
{
    (void)state;
    char line[256];
    const char *study = write_study();
    run_without_training("known", study, KNOWN);
    SWEEP(0, "known");
    char *said = strdup(program_out);
    json_t *report = report_of("known");
    const json_t *train = json_object_get(report, "to_train"), *m = json_object_get(train, "model");
    check_model(train, study);
    snprintf(line, sizeof line, "model to train: d_model %lld, n_layers %lld, n_heads %lld (",
             (long long)whole(m, "d_model"), (long long)whole(m, "n_layers"),
             (long long)whole(m, "n_heads"));
    assert_has(said, line);
    snprintf(line, sizeof line,
             "tokens: %lld steps of %lld sequences of %lld, rate %.4g; loss %.4f",
             (long long)whole(m, "steps"), (long long)whole(m, "batch"),
             (long long)whole(m, "seq_len"), number(m, "lr"), number(m, "loss"));
    assert_has(said, line);
    assert_has(said, "at 81.00 G FLOPs, 10 times the largest budget, by the fit of ");
    assert_has(said, "warnings: edge");
    assert_has(said, "/report.html");
    char *page = read_file(at("known/report.html"), NULL);
    assert_has(page, "<h2>Model to train</h2>");
    assert_has(page, line);
    free(page);
    json_decref(report);
    SWEEP(0, "known");
    assert_string_equal(program_out, said);
    free(said);
}

/* ---- Brackets ---------------------------------------------------------------------------------*/

static void test_brackets(void **state)
{
    (void)state;
    const char *study = write_study();
    run_without_training("edges", study, KNOWN);
    SWEEP(0, "edges");
    json_t *report = report_of("edges"), *b;
    json_t *list = json_object_get(report, "brackets");
    size_t i;
    int said = 0;
    char *page = read_file(at("edges/report.html"), NULL);
    json_array_foreach(list, i, b) {
        assert_true(whole(b, "below") < 2 || whole(b, "above") < 2);
        assert_string_equal(json_string_value(json_object_get(b, "why")), "sweep.adaptive is 0");
    }
    for (const char *p = program_err; (p = strstr(p, "is not bracketed by two")); p++) said++;
    assert_true(said > 0);
    assert_int_equal(json_array_size(list), said);
    assert_has(page, "not bracketed");
    assert_has(page, "above: sweep.adaptive is 0");
    free(page);
    json_decref(report);
}

/* ---- What is refused --------------------------------------------------------------------------*/

static void change(const char *folder, const char *sql)
{
    Ledger *l = open_ledger(at("%s", folder));
    assert_int_equal(sqlite3_exec(l->db, sql, NULL, NULL, NULL), SQLITE_OK);
    ledger_close(&l);
}

/* A law that cannot be told is one line, and no error; a cell that failed stays one, and what could
 * be fitted is. */
static void test_refused(void **state)
{
    (void)state;
    const char *study = write_study();
    run_without_training("flat", study, FLAT);
    SWEEP(0, "flat");
    assert_has(program_out, "no model to train: ");
    assert_null(strstr(program_out, "model to train: d_model"));
    json_t *report = report_of("flat");
    const json_t *train = json_object_get(report, "to_train");
    assert_null(json_object_get(train, "model"));
    assert_true(json_is_string(json_object_get(train, "why")));
    json_decref(report);
    run_without_training("broken", study, BROKEN);
    SWEEP(1, "broken");
    assert_has(program_err, "1 cell failed");
    assert_has(program_out, "model to train: d_model");
}

/* An answer is of the points that it was made from, and of no others. */
static void test_stale(void **state)
{
    (void)state;
    const char *study = write_study();
    run_without_training("moved", study, KNOWN);
    SWEEP(0, "moved");
    change("moved", "UPDATE cell SET loss = loss * 1.001 WHERE id = (SELECT id FROM cell WHERE kind"
                    " = 'point' AND state = 'done' ORDER BY D LIMIT 1)");
    RUN_CODE(0, "report", at("moved"), "--bootstrap", "20");
    json_t *report = report_of("moved");
    assert_true(json_is_null(json_object_get(report, "to_train")));
    assert_true(json_is_null(json_object_get(report, "brackets")));
    json_decref(report);
    SWEEP(0, "moved");
    report = report_of("moved");
    assert_true(json_is_object(json_object_get(report, "to_train")));
    json_decref(report);
}

/* ---- Times at the start -----------------------------------------------------------------------*/

static Cell cell_of(double C, int64_t steps)
{
    return (Cell){.kind = CELL_POINT, .C = C, .own_flops = C, .steps = steps, .batch = 4};
}

static void test_short(void **state)
{
    (void)state;
    Cell two[] = {cell_of(1e12, 1000), cell_of(2e12, 1000)};
    CellList list = {.cell = two, .count = 2, .room = 2};
    assert_true(sweep_measure_is_short(&list)); /* 1.2 % */
    two[0].steps = two[1].steps = 200;          /* 6 % */
    assert_false(sweep_measure_is_short(&list));
    two[1] = cell_of(2e12, 400);                /* one size of 5e9 FLOPs a step: 2 % */
    assert_true(sweep_measure_is_short(&list));
    snprintf(two[0].left_out, sizeof two[0].left_out, "no");
    assert_true(sweep_measure_is_short(&list)); /* 3 % of what is run */
    two[0] = cell_of(1e20, 100000);             /* a study for GPUs */
    assert_false(sweep_measure_is_short(&list));
}

/* A study that begins knows its times before its first cell has run; not where they are not wanted,
 * and one that goes on measures nothing. */
static void test_measured(void **state)
{
    (void)state;
    const char *study = write_study();
#define LONGER "sweep.adaptive=0", "batch.value=64", "sweep.budgets=5e9"
    RUN_CODE(0, "sweep", study, LONGER, out_of("timed"));
    assert_has(program_err, "s a step");
    assert_true(io_exists(at("timed/measured.json")));
    Ledger *l = open_ledger(at("timed"));
    assert_true(ask(l, "SELECT count(*) FROM cell WHERE estimate > 0") > 0);
    ledger_close(&l);
    assert_int_equal(remove(at("timed/measured.json")), 0);
    RUN_CODE(0, "sweep", study, LONGER, out_of("timed"));
    assert_false(io_exists(at("timed/measured.json")));
    RUN_CODE(0, "sweep", study, LONGER, out_of("untimed"), "--no-measure");
    assert_false(io_exists(at("untimed/measured.json")));
    RUN_CODE(0, "sweep", study, LONGER, out_of("unwanted"), "sweep.measure=false");
    assert_false(io_exists(at("unwanted/measured.json")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model), cmocka_unit_test(test_brackets),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_stale),
        cmocka_unit_test(test_short), cmocka_unit_test(test_measured),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
