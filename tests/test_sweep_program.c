/* tests/test_sweep_program.c - `isomoe sweep`: the dry run of the published study, a small study
 * from the plan to its end, what is asked of it later, measured times, misuse. */
#include "tests/sweep_program.h"

#include <math.h>

#include "scaling/ledger.h"
#include "train/json_out.h"

static const json_t *find_cell(const json_t *plan, const char *name)
{
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(plan, "cells"), i, c)
        if (!strcmp(json_string_value(json_object_get(c, "name")), name)) return c;
    fail_msg("no cell %s", name);
    return NULL;
}

/* Forward FLOPs of a token's products and training FLOPs of a sequence, worked out from the shape
 * (d wide, f the experts' width, K and V of kv_heads; the rest: configs/runs/hunyuan-family.yaml).
 */
static double sequence_flops(double d, double L, double f, double kv_heads)
{
    double T = 4096, V = 32768, E = 16, kv = kv_heads * 64;
    double layer = 2 * d * d + 2 * d * kv / 2 + 2 * 3 * d * f + d * E; /* K, V in every second */
    double products = 2 * T * (L * layer + V * d);
    double pairs = T * (T + 1) / 2, attention = 2 * 2 * d * pairs * L; /* scores, and V's sum */
    return 3 * (products + attention);
}

/* Nine budgets, 10 M to 1 B parameters, 10 to 100 B tokens: counts and exact numbers. */
static void test_hunyuan(void **state)
{
    static const struct {
        const char *name;
        double d, L, f, kv_heads, steps, batch;
    } exact[] = {
        {"C5e18-d512x6-s1", 512, 6, 1472, 1, 106164, 32},
        {"C2.179e19-d1024x12-s1", 1024, 12, 2944, 2, 21126, 128},
        {"C9.5e19-d1600x16-s1", 1600, 16, 4608, 1, 12728, 320},
    };
    (void)state;
    RUN_CODE(0, "sweep", "configs/sweeps/hunyuan-10m-1b.yaml", "--dry-run", "--json");
    json_t *plan = printed();
    const json_t *totals = json_object_get(plan, "totals"), *c;
    assert_true(number(totals, "points") == 54 && number(totals, "trunks") == 54);
    assert_true(number(totals, "left_out") == 27);
    assert_true(fabs(number(totals, "flops") / 9.847e20 - 1) < 1e-3);
    assert_true(fabs(number(totals, "flops_alone") / 1.92371e21 - 1) < 1e-4);
    assert_true(number(totals, "flops_saved") ==
                number(totals, "flops_alone") - number(totals, "flops"));
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++) {
        c = find_cell(plan, exact[i].name);
        double C = exact[i].steps * exact[i].batch *
                   sequence_flops(exact[i].d, exact[i].L, exact[i].f, exact[i].kv_heads);
        assert_true(number(c, "steps") == exact[i].steps && number(c, "batch") == exact[i].batch);
        assert_true(number(c, "D") == exact[i].steps * exact[i].batch * 4096);
        if (number(c, "C") != C) fail_msg("%s: %.17g, not %.17g", exact[i].name, number(c, "C"), C);
        assert_true(fabs(number(c, "deviation")) < 1e-4);
    }
    size_t i;
    int seen = 0;
    double last = 0, low = INFINITY, high = 0;
    json_array_foreach(json_object_get(plan, "cells"), i, c) {
        if (!json_is_null(json_object_get(c, "left_out"))) continue;
        if (json_is_null(json_object_get(c, "budget"))) continue;
        seen += number(c, "budget") != last;
        last = number(c, "budget");
        assert_true(number(c, "D") >= 1e10 && number(c, "D") <= 1e11);
        assert_true(fabs(number(c, "deviation")) <= 0.005 && number(c, "memory") > 1e9);
        assert_true(fabs(log(number(c, "lr_law_ratio"))) <= log(1.5));
        low = fmin(low, number(c, "N"));
        high = fmax(high, number(c, "N"));
    }
    assert_int_equal(seen, 9);
    assert_true(low < 2.5e7 && high > 8e8);
    json_decref(plan);
}

/* Every other study that ships can be planned, and leaves nothing out; a size that is the prior's
 * own is one that can be run. */
static void test_shipped(void **state)
{
    static const struct {
        const char *path;
        int points;
    } shipped[] = {{"configs/sweeps/tiny.yaml", 6},
                   {"configs/sweeps/laptop.yaml", 4 * (5 + 2)},
                   {"configs/sweeps/routing.yaml", 3 * 3},
                   {"configs/sweeps/expert-rates.yaml", 7 * 3}};
    (void)state;
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        RUN_CODE(0, "sweep", shipped[i].path, "--dry-run", "--json");
        json_t *plan = printed();
        const json_t *totals = json_object_get(plan, "totals");
        if (number(totals, "points") != shipped[i].points)
            fail_msg("%s: %g points", shipped[i].path, number(totals, "points"));
        assert_true(number(totals, "left_out") == 0);
        json_decref(plan);
        RUN_CODE(0, "sweep", shipped[i].path, "--dry-run");
        assert_has(program_out, " points, ");
        assert_null(strstr(program_err, "no size can be run"));
    }
}

/* The whole study, with added sizes; once more does nothing; then the check behind the fit. */
static void test_run(void **state)
{
    (void)state;
    const char *study = write_study();
    RUN_CODE(0, "sweep", study);
    assert_has(program_err, "cells added: a least loss is not bracketed yet");
    assert_has(program_err, "it is not bracketed by two on each side");
    RUN_CODE(0, "sweep", "status", at("sweep"), "--json");
    json_t *list = printed();
    assert_int_equal(count_state(list, "C", "done"), 2 * (1 + 1));
    assert_int_equal(count_state(list, "trunk", "done"), 2 * (1 + 1));
    size_t count = json_array_size(list);
    json_decref(list);
    RUN_CODE(0, "sweep", study);
    assert_has(program_err, "cells stand in the record already");
    RUN_CODE(0, "sweep", study, "--held-out", "8000");
    RUN_CODE(0, "sweep", "status", at("sweep"), "--json");
    list = printed();
    assert_true(json_array_size(list) == count + 1);
    assert_int_equal(count_state(list, "check-C2e9", "done"), 1);
    json_decref(list);
    RUN_CODE(0, "sweep", "status", at("sweep"));
    assert_has(program_out, "9 done");
    RUN_CODE(0, "sweep", "retry", at("sweep"));
    assert_has(program_out, "0 cells planned again");
    RUN_CODE(0, "report", at("sweep"), "--bootstrap", "20");
    json_t *report = json_load_file(at("sweep/report.json"), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(report, "name")), "small");
    json_decref(report);
    RUN_CODE(1, "sweep", "cancel", at("sweep"), "nothing");
    assert_has(program_err, "nothing");
    char *base = read_file(at("base.yaml"), NULL), other[4096];
    snprintf(other, sizeof other, "%s# other\n", base);
    write_file(at("base.yaml"), other);
    RUN_CODE(1, "sweep", study);
    assert_has(program_err, "base.yaml, which this sweep was begun with");
    write_file(at("base.yaml"), base);
    free(base);
}

/* Points that bend a law stand in the record as left out beside the checks; with --force they are
 * run after all. */
static void test_force(void **state)
{
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("forced"));
#define BENT                                                                                       \
    folder, "sweep.adaptive=0", "sweep.check_rates=0.5", "rate.law=power", "rate.value=1.0",       \
        "rate.exp_d=-0.4", "limits.ratio=1.01"
    RUN_CODE(1, "sweep", study, BENT);
    assert_has(program_err, "no point is done: all were left out, cancelled or diverged");
    RUN_CODE(0, "sweep", "status", at("forced"), "--json");
    json_t *list = printed();
    assert_int_equal(count_state(list, "C", "cancelled"), 2);
    assert_int_equal(count_state(list, "C", "done"), 2); /* the checks */
    json_decref(list);
    RUN_CODE(0, "sweep", study, BENT, "--force");
    RUN_CODE(0, "sweep", "status", at("forced"), "--json");
    list = printed();
    assert_int_equal(count_state(list, "C", "cancelled"), 2);
    assert_int_equal(count_state(list, "C", "done"), 4);
    json_decref(list);
}

/* Nothing comes of a study whose cells are all left out: an error, and no folder. */
static void test_nothing_to_run(void **state)
{
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("none"));
    RUN_CODE(1, "sweep", study, folder, "limits.max_params=100");
    assert_has(program_err, "small: none of its 2 cells can be run: 2: ");
    assert_has(program_err, " parameters, above limits.max_params 100");
    RUN_CODE(1, "sweep", study, folder, "sweep.budgets=1e3,1e4");
    assert_has(program_err, "none of its 2 cells can be run: 2: ");
    RUN_CODE(1, "sweep", study, folder, "limits.max_params=100", "--held-out", "8000");
    assert_has(program_err, "small: the check check-C2e9-");
    assert_has(program_err, "cannot be run: ");
    assert_false(io_exists(at("none")));
}

/* Sizes on one side of the prior's N alone, or none at all, are told of in the plan. */
static void test_warnings(void **state)
{
    (void)state;
    const char *study = write_study();
#define THREE "--dry-run", "sweep.sizes=3", "sweep.budgets=2.4e9,4e9"
    RUN_CODE(0, "sweep", study, THREE);
    assert_null(strstr(program_err, "warning"));
    RUN_CODE(0, "sweep", study, THREE, "limits.max_params=8000");
    assert_has(program_err, "2.40 G FLOPs: all sizes that can be run lie below the prior's N 9.00");
    RUN_CODE(0, "sweep", study, THREE, "limits.min_params=10000");
    assert_has(program_err, "4.00 G FLOPs: all sizes that can be run lie above the prior's N 9.00");
    RUN_CODE(0, "sweep", study, "--dry-run", "limits.max_params=100");
    assert_has(program_err, "1.00 G FLOPs: no size can be run");
}

/* Data that is not there is found before anything is made, of a variant too. */
static void test_data(void **state)
{
    char folder[PATH * 2], base[PATH * 2], text[4096];
    (void)state;
    const char *study = write_study();
    char *good = read_file(at("base.yaml"), NULL), *end = strstr(good, ", seq_len: 32}");
    assert_non_null(end);
    snprintf(text, sizeof text, "%.*s, val: %s%s", (int)(end - good), good, at("no-text"), end);
    write_file(at("blind.yaml"), text);
    free(good);
    snprintf(folder, sizeof folder, "sweep.out=%s", at("dataless"));
    snprintf(base, sizeof base, "sweep.base=%s", at("blind.yaml"));
    RUN_CODE(1, "sweep", study, folder, base);
    assert_has(program_err, "no-text");
    assert_false(io_exists(at("dataless")));
    char *whole = read_file(study, NULL);
    snprintf(text, sizeof text,
             "%svariants: [{name: a}, {name: b, overrides: data.train=no-data}]\n", whole);
    free(whole);
    write_file(at("varied.yaml"), text);
    RUN_CODE(1, "sweep", at("varied.yaml"), folder);
    assert_has(program_err, "no-data");
    assert_false(io_exists(at("dataless")));
    RUN_CODE(0, "sweep", study, folder, base, "--dry-run");
}

/* All points diverge, alone or with their trunks. Then a cell that only waits is cancelled. */
static void test_diverged(void **state)
{
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
#define WILD                                                                                       \
    "sweep.adaptive=0", "rate.value=100", "sweep.retry_rate=1", "sweep.budgets=2.4e9,4e9"
    snprintf(folder, sizeof folder, "sweep.out=%s", at("wild"));
    RUN_CODE(4, "sweep", study, folder, WILD);
    assert_has(program_err, "no point is done: 2 of 2 diverged");
    snprintf(folder, sizeof folder, "sweep.out=%s", at("wild-alone"));
    RUN_CODE(4, "sweep", study, folder, WILD, "sweep.reuse=off");
    RUN_CODE(0, "sweep", "retry", at("wild-alone"));
    RUN_CODE(0, "sweep", "cancel", at("wild-alone"));
    RUN_CODE(1, "sweep", study, folder, WILD, "sweep.reuse=off");
    assert_has(program_err, "no point is done: all were left out, cancelled or diverged");
}

/* Ten steps of each size; kept for the next time. Times on a loaded machine are not judged here. */
static void test_measure(void **state)
{
    (void)state;
    const char *study = write_study();
    const char *const words[] = {"sweep", study, "sweep.adaptive=0", "--dry-run", "--json",
                                 "--measure", NULL};
    signal(SIGCHLD, SIG_IGN); /* as some parents hand it on */
    pid_t pid = program_start(words);
    signal(SIGCHLD, SIG_DFL);
    if (program_wait(pid)) fail_msg("%s%s", program_out, program_err);
    assert_has(program_err, "s a step");
    json_t *plan = printed();
    size_t i;
    const json_t *c;
    json_array_foreach(json_object_get(plan, "cells"), i, c) {
        double seconds = number(c, "seconds");
        assert_true(seconds > 0 && seconds < 600);
    }
    double sum = number(json_object_get(plan, "totals"), "seconds");
    assert_true(sum > 0);
    json_decref(plan);
    RUN_CODE(0, "sweep", study, "sweep.adaptive=0", "--dry-run", "--json",
             "--measure");
    assert_null(strstr(program_err, "s a step"));
    plan = printed();
    assert_true(number(json_object_get(plan, "totals"), "seconds") == sum);
    json_decref(plan);
    FILE *base = fopen(at("base.yaml"), "a"); /* another base under the same name */
    assert_non_null(base);
    fputs("# another text\n", base);
    assert_int_equal(fclose(base), 0);
    RUN_CODE(0, "sweep", study, "sweep.adaptive=0", "--dry-run", "--json",
             "--measure");
    assert_has(program_err, "s a step");
}

/* A folder without a ledger is refused and gets none. */
static void test_stranger(void **state)
{
    static const char *const words[] = {"status", "retry", "cancel"};
    Err e = {0};
    (void)state;
    if (io_make_dirs(at("other"), &e)) fail_msg("%s", e.message);
    for (int i = 0; i < 3; i++) {
        RUN_CODE(1, "sweep", words[i], at("other"));
        assert_false(io_exists(at("other/ledger.sqlite")));
    }
    assert_has(program_err, "is no sweep's folder: it has no ledger.sqlite");
}

/* A reason of two lines stands in one; one cell is one. */
static void test_table(void **state)
{
    char *folder = at("table");
    Err e = {0};
    (void)state;
    if (io_make_dirs(folder, &e)) fail_msg("%s", e.message);
    Ledger *l = ledger_open(folder, false, &e);
    Cell c = {.id = "0123456789abcdef", .name = "C1e9-d8x1-s1", .kind = CELL_POINT, .budget = 1e9,
              .steps = 10, .batch = 4, .seq_len = 32, .seconds = NAN};
    CellList list = {&c, 1, 1};
    LedgerTries once = {1, 0, 1};
    LedgerCell taken;
    CellState now;
    double factor;
    bool found;
    int others;
    if (!l || ledger_add(l, &list, NULL, &e) || ledger_join(l, 1, &others, &e) ||
        ledger_take(l, &taken, &factor, &found, &e) ||
        ledger_end_try(l, c.id, STATE_DIVERGED, "too fast\nhint: lower it", &once, &now, &e))
        fail_msg("%s", e.message);
    ledger_close(&l);
    RUN_CODE(0, "sweep", "status", folder);
    assert_has(program_out, "too fast hint: lower it\n1 diverged");
    RUN_CODE(0, "sweep", "retry", folder);
    assert_string_equal(program_out, "1 cell planned again\n");
}

/* Options without effect where they stand, and values that mean nothing; nothing is begun. */
static void test_options(void **state)
{
    static const struct {
        const char *words[4], *message;
    } cases[] = {
        {{"status", "x", "--jobs", "3"}, "--jobs has an effect only with a study"},
        {{"status", "x", "--dry-run"}, "--dry-run has an effect only with a study"},
        {{"status", "x", "--force"}, "--force has an effect only with a study"},
        {{"retry", "x", "--json"}, "--json has an effect only with --dry-run and status"},
        {{"cancel", "x", "--launch", "mpi"}, "--launch has an effect only with a study"},
        {{NULL, "--measure"}, "--measure has an effect only with --dry-run"},
        {{NULL, "--json"}, "--json has an effect only with --dry-run and status"},
        {{NULL, "--dry-run", "--launch", "foo"}, "--launch foo is unknown"},
        {{NULL, "--dry-run", "--jobs", "99999"}, "--jobs 99999 is no number from 1 to 4096"},
        {{NULL, "--jobs", "0"}, "--jobs 0 is no number from 1 to 4096"},
        {{NULL, "--held-out", "-5"}, "--held-out -5 is neither fit nor a number of"},
        {{NULL, "--held-out", "0"}, "--held-out 0 is neither fit nor a number of"},
    };
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("options"));
    RUN_CODE(2, "sweep", study, folder, "--held-out", "8e3x");
    RUN_CODE(1, "sweep", study, folder, "--held-out", "fit");
    assert_has(program_err, "options");
    RUN_CODE(1, "sweep", study, "--dry-run", "sweep.check=fit", "sweep.held_out=0");
    assert_has(program_err, "sweep.check");
    RUN_CODE(1, "sweep", study, "--dry-run", "critical.b_star=2e5");
    assert_has(program_err, "have an effect only together");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *w = cases[i].words;
        if (w[0]) RUN_CODE(2, "sweep", w[0], w[1], w[2], w[3]);
        else if (!w[2]) RUN_CODE(2, "sweep", study, folder, w[1]);
        else if (!w[3]) RUN_CODE(2, "sweep", study, folder, w[1], w[2]);
        else RUN_CODE(2, "sweep", study, folder, w[1], w[2], w[3]);
        assert_has(program_err, cases[i].message);
        assert_false(io_exists(at("options")));
    }
    RUN_CODE(1, "sweep", study, "sweep.held_out=0", "--dry-run", "--held-out", "8000");
    assert_has(program_err, "sweep.held_out is 0");
}

static void test_misuse(void **state)
{
    (void)state;
    const char *study = write_study();
    RUN_CODE(2, "sweep", study, "--launch", "rocket");
    assert_has(program_err, "--launch rocket is unknown");
    RUN_CODE(2, "sweep", "status");
    assert_has(program_err, "sweep status: needs FOLDER");
    RUN_CODE(2, "sweep", "status", "a", "b");
    assert_has(program_err, "sweep status: needs FOLDER and nothing else");
    RUN_CODE(0, "sweep", "--help");
    assert_has(program_out, "status FOLDER | retry|cancel FOLDER [CELL]");
    RUN_CODE(2, "sweep", "retry", "a", "b", "c");
    assert_has(program_err, "sweep retry: needs FOLDER [CELL]");
    RUN_CODE(1, "sweep", "status", at("nowhere"));
    RUN_CODE(1, "sweep", at("nowhere.yaml"), "--dry-run");
    RUN_CODE(1, "sweep", study, "--dry-run", "sweep.siezs=3");
    assert_has(program_err, "did you mean 'sweep.sizes'?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hunyuan), cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_run),     cmocka_unit_test(test_force),
        cmocka_unit_test(test_measure), cmocka_unit_test(test_stranger),
        cmocka_unit_test(test_table),   cmocka_unit_test(test_options),
        cmocka_unit_test(test_misuse),  cmocka_unit_test(test_nothing_to_run),
        cmocka_unit_test(test_warnings), cmocka_unit_test(test_data),
        cmocka_unit_test(test_diverged),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
