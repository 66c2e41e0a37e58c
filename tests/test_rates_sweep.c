/* tests/test_rates_sweep.c - `isomoe fit FOLDER --rates`: laws from a sweep's own points and
 * checks, in the N that its laws read, as lines that a sweep's file takes; variants of rate and
 * batch. */
#include "tests/sweep_help.h"

#include <jansson.h>

#include "scaling/cell_law.h"
#include "tests/sweep_cells.h"

enum { SIZES = 6, RATES = 3, BATCHES = 3, MOST = SIZES * RATES * BATCHES };

static const double embedding = 3e5;  /* of N and N_total; larger than the small models */
static const RatePower truth = {1.79, -0.4, 0, 0}, batch_truth = {0.58, 0, 0.571, 0};

static double body_of(int size) { return 1e5 * pow(1.9, size); }

/* Unless all D are tied to N. */
static double tokens_of(int size, bool tied)
{
    return 20 * body_of(size) * (tied ? 1 : pow(3, size % 3));
}

/* Loss of a run, least at both laws. */
static double loss_of(const Cell *c, bool tied, double D)
{
    double tokens = (double)c->batch * (double)c->seq_len;
    double best = rate_power(&truth, c->N_no_embed, D, NAN), B = rate_power(&batch_truth, 1, D, 1);
    double x = log(c->lr / best), y = tied ? 0 : log(tokens / B);
    return 3 + 0.04 * x * x + 0.02 * y * y;
}

static void done(Ledger *l, Cell *cells, int n, bool tied)
{
    int first;
    add_cells(l, cells, n);
    OK(ledger_join(l, 2, &first, e));
    for (int i = 0; i < n; i++) {
        LedgerCell c;
        double factor;
        bool found;
        OK(ledger_take(l, &c, &factor, &found, e));
        assert_true(found);
        CellResult r = {.loss = loss_of(&c.cell, tied, c.cell.D), .steps = 7};
        OK(ledger_finish(l, c.cell.id, 1, &r, e));
    }
    ledger_close(&l);
}

/* A point of a size, or a check of its rate beside it. */
static Cell run_of(int size, int rate, int batch, bool tied)
{
    static const double factor[] = {1, 0.5, 2};
    const char name[] = {(char)('a' + size), (char)('a' + rate), (char)('a' + batch), 0};
    Cell c = make_cell(name, NULL, rate ? CELL_CHECK : CELL_POINT, "");
    c.N_no_embed = body_of(size);
    c.N = c.N_no_embed + embedding;
    c.N_total = 5 * c.N_no_embed + embedding;
    c.D = tokens_of(size, tied);
    c.C = c.budget = 6 * c.N * c.D;
    c.lr = 1.2 * factor[rate] * rate_power(&truth, c.N_no_embed, c.D, NAN);
    snprintf(c.overrides, sizeof c.overrides, "model.d_model=64\ntrain.seed=1\n");
    return c;
}

/* A study of one size a budget, each with two checks of its rate. */
static char *checked_study(const char *name)
{
    static char folder[PATH * 2];
    Cell cells[SIZES * RATES];
    snprintf(folder, sizeof folder, "%s", new_sweep(name));
    for (int i = 0; i < SIZES * RATES; i++) cells[i] = run_of(i / RATES, i % RATES, 0, true);
    done(open_ledger(folder), cells, SIZES * RATES, true);
    return folder;
}

static json_t *answer(void)
{
    json_error_t error;
    json_t *out = json_loads(program_out, 0, &error);
    if (!out) fail_msg("%s: %s", error.text, program_out);
    return out;
}

static double number(json_t *from, const char *section, const char *key)
{
    json_t *value = json_object_get(section ? json_object_get(from, section) : from, key);
    if (!json_is_number(value)) fail_msg("%s is no number: %s", key, program_out);
    return json_number_value(value);
}

static const char *text(json_t *from, const char *section, const char *key)
{
    json_t *value = json_object_get(section ? json_object_get(from, section) : from, key);
    if (!json_is_string(value)) fail_msg("%s is no text: %s", key, program_out);
    return json_string_value(value);
}

static void near(double got, double want, double relative)
{
    if (!(fabs(got / want - 1) <= relative)) fail_msg("%.17g, expected %.17g", got, want);
}

/* N and D of the budgets' middles are tied: the law is one of N. */
static void checks_bracket_the_rate(void **state)
{
    (void)state;
    char *folder = checked_study("checked");
    RUN_CODE(0, "fit", folder, "--rates", "N", "--json");
    json_t *a = answer();
    assert_int_equal(number(a, NULL, "runs"), SIZES * RATES);
    assert_int_equal(number(a, "lr", "cells"), SIZES);
    near(number(a, "lr", "N_exponent"), truth.n, 1e-8);
    near(number(a, "lr", "factor"), truth.factor, 1e-7);
    assert_true(number(a, "lr", "D_exponent") == 0);
    assert_has(text(a, NULL, "why_lr_of_one"), "vary together");
    json_decref(a);
    RUN_CODE(0, "fit", folder, "--rates", "N");
    assert_has(program_out, "over N alone: the rate's law: N and D vary together");
    assert_has(program_out, "no law of the batch: ");
}

/* What `sweep` makes of a printed line is the law that was fitted, at the N of its own cells. */
static void lines_are_pasted(void **state)
{
    (void)state;
    char *folder = checked_study("pasted"), file[4096], line[256];
    for (int total = 0; total < 2; total++) {
        SweepConfig s;
        Err e = {0};
        RUN_CODE(0, "fit", folder, "--rates", total ? "N_total" : "N", "--json");
        json_t *a = answer();
        assert_string_equal(text(a, NULL, "N_is"), total ? "N_total_no_embed" : "N_no_embed");
        snprintf(line, sizeof line, "%s\n", text(a, "lr", "yaml"));
        assert_has(line, ", exp_n: -0.4"); /* not one of D, which is tied to this N alone */
        json_decref(a);
        snprintf(file, sizeof file, "%s", SWEEP_GOOD);
        char *old = strstr(file, "rate: {law: constant, value: 0.003}\n");
        assert_non_null(old);
        memmove(old, old + strcspn(old, "\n") + 1, strlen(old + strcspn(old, "\n")));
        memmove(file + strlen(line), file, strlen(file) + 1);
        memcpy(file, line, strlen(line));
        write_file(at("pasted.yaml"), file);
        if (sweep_config_read(&s, at("pasted.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
        for (int i = 0; i < SIZES; i++) {
            double N = body_of(i), D = tokens_of(i, true);
            ParamCount n = {.active = (int64_t)(N + embedding), .active_no_embed = (int64_t)N,
                            .total = (int64_t)(5 * N + embedding),
                            .total_no_embed = (int64_t)(5 * N)};
            RatePoint p = cell_law_point(&n, D, NAN, NAN);
            near(cell_law_rate(&s, &p), rate_power(&truth, N, D, NAN), 1e-4);
        }
        RUN_CODE(0, "fit", folder, "--rates", total ? "N_total" : "N");
        line[strlen(line) - 1] = 0;
        assert_has(program_out, line);
        assert_has(program_out, "parameters but embedding and head\n");
    }
    write_file(at("n.csv"), "N,D,lr,loss\n1e8,1e9,1e-3,3.1\n1e8,1e9,2e-3,3\n1e8,1e9,4e-3,3.2\n"
               "2e8,2e9,1e-3,3.1\n2e8,2e9,2e-3,3\n2e8,2e9,4e-3,3.1\n"
               "4e8,4e9,1e-3,3.1\n4e8,4e9,2e-3,3\n4e8,4e9,4e-3,3.1\n");
    RUN_CODE(0, "fit", at("n.csv"), "--rates", "N");
    assert_has(program_out, "N is activated parameters\n");
    assert_has(program_out, "whose laws read N without embedding and head");
}

/* Batches as variants, with checks of the rate in each: one grid, since the model is one. */
static void variants_of_the_batch_are_one_grid(void **state)
{
    (void)state;
    char folder[PATH * 2];
    static Cell cells[MOST + 1];
    int n = 0;
    snprintf(folder, sizeof folder, "%s", new_sweep("batches"));
    for (int i = 0; i < MOST; i++) {
        static const char *const mark[] = {"base", "half", "more"};
        int size = i / 9, batch = i % 3;
        Cell *c = &cells[n++];
        *c = run_of(size, i / 3 % 3, batch, false);
        double B = rate_power(&batch_truth, 1, c->D, 1) * 1.1 * pow(1.8, batch - 1);
        c->seq_len = 1;
        c->batch = llround(B);
        char words[96] = "";
        if (batch) snprintf(words, sizeof words, "train.batch=%d\noptim.lr=0.5\n", batch);
        snprintf(c->overrides + strlen(c->overrides), 96, "%s", words);
        snprintf(c->name + strlen(c->name), 8, "@%s", mark[batch]);
    }
    done(open_ledger(folder), cells, n, false);
    RUN_CODE(0, "fit", folder, "--rates", "N", "--json");
    json_t *a = answer();
    assert_int_equal(number(a, NULL, "runs"), MOST);
    near(number(a, "lr", "N_exponent"), truth.n, 1e-6);
    near(number(a, "batch", "D_exponent"), batch_truth.d, 1e-2); /* batches are integers */
    assert_has(text(a, "batch", "yaml"), "batch: {law: power, value: ");
    json_decref(a);
    RUN_CODE(0, "fit", folder, "--rates", "N", "--json", "--where", "variant=half");
    a = answer();
    assert_int_equal(number(a, NULL, "runs"), MOST / 3);
    json_decref(a);
    RUN_CODE(1, "fit", folder); /* losses of other batches are no repetitions */
    assert_has(program_err, "runs of 3 variants");
}

/* Another model stays another one. */
static void variants_of_the_model_are_not(void **state)
{
    (void)state;
    char folder[PATH * 2];
    Cell cells[SIZES * RATES];
    snprintf(folder, sizeof folder, "%s", new_sweep("models"));
    for (int i = 0; i < SIZES * RATES; i++) {
        Cell *c = &cells[i];
        *c = run_of(i / RATES, i % RATES, 0, true);
        snprintf(c->overrides + strlen(c->overrides), 64, "train.batch=8\n%s",
                 i < 9 ? "" : "model.top_k=1\n");
        snprintf(c->name + strlen(c->name), 8, "@%s", i < 9 ? "b8" : "k1");
    }
    done(open_ledger(folder), cells, SIZES * RATES, true);
    RUN_CODE(1, "fit", folder, "--rates", "N");
    assert_has(program_err, "'' (cells without a variant), k1");
    RUN_CODE(0, "fit", folder, "--rates", "N", "--where", "variant=", "--json");
    json_t *a = answer();
    assert_int_equal(number(a, NULL, "runs"), 9);
    json_decref(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_bracket_the_rate),
        cmocka_unit_test(lines_are_pasted),
        cmocka_unit_test(variants_of_the_batch_are_one_grid),
        cmocka_unit_test(variants_of_the_model_are_not),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
