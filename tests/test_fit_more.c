/* tests/test_fit_more.c - `isomoe fit` of a sweep with variants, of laws that do not read N, with
 * options that would do nothing. */
#include "tests/sweep_help.h"

#include <jansson.h>

#include "tests/boot_study.h"
#include "train/fit_answer.h"

enum { BUDGETS = 5, SIZES = 7, RUNS = BUDGETS * SIZES };

static double budget_of(int i) { return 1e18 * pow(4, i / SIZES); }

static double size_of(int i)
{
    return study_n_opt(budget_of(i)) * pow(3, (i % SIZES - 3 + 0.2) / 3);
}

/* The JSON that the last RUN printed; the caller decrefs it. */
static json_t *answer(void)
{
    json_error_t error;
    json_t *out = json_loads(program_out, 0, &error);
    if (!out) fail_msg("%s: %s", error.text, program_out);
    return out;
}

/* from[section][key]; NaN for null. */
static double number(json_t *from, const char *section, const char *key)
{
    json_t *value = json_object_get(section ? json_object_get(from, section) : from, key);
    if (!value) fail_msg("no key %s", key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Two models at the same sizes and budgets: the second loses 0.2 more, which is no noise. */
static void variants_are_no_repetitions(void **state)
{
    (void)state;
    char folder[PATH * 2];
    snprintf(folder, sizeof folder, "%s", new_sweep("variants"));
    Ledger *l = open_ledger(folder);
    Cell cells[2 * RUNS];
    int first;
    for (int i = 0; i < 2 * RUNS; i++) {
        const char name[] = {(char)('a' + i / SIZES), (char)('a' + i % SIZES), 0};
        cells[i] = make_cell(name, NULL, CELL_POINT, "");
        snprintf(cells[i].name, sizeof cells[i].name, "%s@%s", name, i < RUNS ? "dense" : "moe");
        cells[i].budget = cells[i].C = budget_of(i % RUNS);
        cells[i].N = size_of(i % RUNS);
        cells[i].D = cells[i].C / 6 / cells[i].N;
    }
    add_cells(l, cells, 2 * RUNS);
    OK(ledger_join(l, 2, &first, e));
    for (int i = 0; i < 2 * RUNS; i++) {
        LedgerCell c;
        double factor;
        bool found;
        OK(ledger_take(l, &c, &factor, &found, e));
        int k = (c.cell.name[0] - 'a') * SIZES + c.cell.name[1] - 'a';
        CellResult r = {.loss = study_loss(c.cell.N, c.cell.D) + (k < RUNS ? 0 : 0.2), .steps = 7};
        OK(ledger_finish(l, c.cell.id, 1, &r, e));
    }
    ledger_close(&l);
    RUN_CODE(1, "fit", folder, "--bootstrap", "0");
    assert_has(program_err, "runs of 2 variants");
    assert_has(program_err, "variant=NAME takes those of one: dense, moe");
    RUN_CODE(1, "fit", folder, "--rates", "N");
    assert_has(program_err, "runs of 2 variants");
    RUN_CODE(1, "fit", folder, "--where", "N=1");
    assert_has(program_err, "no condition but the variant");
    RUN_CODE(1, "fit", folder, "--where", "variant=mo");
    assert_has(program_err, "no run of a variant 'mo' is done");
    for (int v = 0; v < 2; v++) {
        RUN_CODE(0, "fit", folder, "--json", "--bootstrap", "0", "--where",
                 v ? "variant=moe" : "variant=dense");
        json_t *a = answer();
        assert_int_equal(number(a, NULL, "runs"), RUNS);
        assert_near(number(a, "parameters", "E"), study_truth[0] + 0.2 * v, 1e-5);
        json_decref(a);
    }
}

/* A law of all parameters, runs without activated ones: a budget is one of 6 N_total D. */
static void costs_without_n(void **state)
{
    (void)state;
    static const double param[] = {1.7, 410, 20, 420, 0.35, 0.3, 0.6};
    const Law *law = law_find("krajewski");
    char *file = strdup(at("total.csv"));
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    fputs("N_total,D,granularity,loss\n", out);
    for (int i = 0; i < 3 * RUNS; i++) {
        LawPoint p = {0};
        p.x[RUN_N_TOTAL] = size_of(i % RUNS);
        p.x[RUN_D] = budget_of(i % RUNS) / 6 / size_of(i % RUNS);
        p.x[RUN_GRANULARITY] = 1 << i / RUNS;
        fprintf(out, "%.17g,%.17g,%.17g,%.17g\n", p.x[RUN_N_TOTAL], p.x[RUN_D],
                p.x[RUN_GRANULARITY], law_loss(law, param, &p));
    }
    assert_int_equal(fclose(out), 0);
    double largest = budget_of(RUNS - 1);
    for (int far = 0; far < 2; far++) {
        char budget[32];
        snprintf(budget, sizeof budget, "%.6g", far ? 100 * largest : 4 * largest);
        RUN_CODE(0, "fit", file, "--form", "krajewski", "--budget", budget, "--bootstrap", "20",
                 "--json");
        json_t *a = answer();
        assert_near(number(a, "forecast", "times_largest_run"), far ? 100 : 4, 1e-3);
        double N = number(a, "forecast", "N_opt"), D = number(a, "forecast", "D_opt");
        assert_near(6 * N * D / strtod(budget, NULL), 1, 1e-6);
        assert_true(json_is_true(json_object_get(json_object_get(a, "forecast"), "of_total")));
        assert_has(program_out, "\"cost_total\"");
        json_decref(a);
    }
    RUN_CODE(0, "fit", file, "--form", "krajewski", "--bootstrap", "0");
    assert_has(program_out, " 1 times the largest run; cost 6ND with N_total for N");
    RUN_CODE(0, "fit", file, "--form", "krajewski", "--bootstrap", "0", "--columns", "N=N_total");
    if (strstr(program_out, "cost_total")) fail_msg("%s", program_out);
    free(file);
}

/* A folder's runs without what a form needs: no advice that a ledger does not take. */
static void ledgers_that_do_not_know(void **state)
{
    (void)state;
    FitAnswer *a = malloc(sizeof *a);
    FitRequest r = fit_request_defaults(".");
    RunTable t;
    Err e = {0};
    assert_int_equal(study_make(&t, &study_small, 1), 0);
    r.law = law_find("joint");
    assert_int_equal(fit_answer_of(a, &r, &t, &e), -1);
    assert_non_null(strstr(e.message, "the ledger does not know the experts of its cells, which "
                                      "the form joint needs"));
    assert_null(strstr(e.message, "--columns"));
    fit_answer_clear(a);
    free(a);
}

/* Runs of Clark's form; D: 0 none, 1 the same for all, 2 not. */
static char *write_clark(const char *name, int tokens)
{
    static const double param[] = {-0.082, -0.108, 0.009, 1.104, 1.847, 314.478};
    FILE *out = fopen(at("%s", name), "w");
    assert_non_null(out);
    fprintf(out, tokens ? "N,experts,loss,D\n" : "N,experts,loss\n");
    for (int i = 0; i < 42; i++) {
        LawPoint p = {0};
        p.x[RUN_N] = 2e7 * pow(2, i % 6);
        p.x[RUN_EXPERTS] = pow(3, i / 6);
        fprintf(out, "%.17g,%.17g,%.17g", p.x[RUN_N], p.x[RUN_EXPERTS],
                law_loss(law_find("clark"), param, &p));
        if (tokens) fprintf(out, ",%.9g", tokens == 1 ? 1.3e11 : 1e11 + 2e9 * i);
        fputc('\n', out);
    }
    assert_int_equal(fclose(out), 0);
    return at("%s", name);
}

/* A form without D: the best N of a budget with the runs' D, or with one that is given; else why
 * there is none. */
static void forms_without_d(void **state)
{
    (void)state;
    char *same = strdup(write_clark("same.csv", 1));
    RUN_CODE(0, "fit", same, "--form", "clark", "--budget", "1e21", "--bootstrap", "20", "--at",
             "experts=64", "--json");
    json_t *a = answer();
    double N = 1e21 / 6 / 1.3e11;
    assert_near(number(a, "forecast", "N_opt") / N, 1, 1e-9);
    assert_near(number(a, "forecast", "D_opt") / 1.3e11, 1, 1e-9);
    assert_near(number(a, "forecast", "N_opt_exponent"), 1, 1e-6);
    double per_e = 1 / (63 + 1 / (1 / 1.847 - 1 / 314.478)) + 1 / 314.478;
    double n = log10(N), x = -log10(per_e);
    double L = pow(10, -0.082 * n - 0.108 * x + 0.009 * n * x + 1.104);
    assert_near(number(a, "forecast", "loss") / L, 1, 1e-6);
    json_t *held = json_object_get(json_object_get(a, "forecast"), "at");
    assert_near(json_number_value(json_object_get(held, "D")) / 1.3e11, 1, 1e-9);
    assert_near(number(a, "forecast", "times_largest_run"), 1e21 / (6 * 6.4e8 * 1.3e11), 1e-3);
    json_decref(a);
    RUN_CODE(0, "fit", same, "--form", "clark", "--bootstrap", "0");
    assert_has(program_out, "clark does not read D: it is held");
    RUN_CODE(0, "fit", same, "--form", "clark", "--bootstrap", "0", "--at", "D=2e11", "--json");
    a = answer();
    assert_near(number(a, "forecast", "D_opt") / 2e11, 1, 1e-9);
    json_decref(a);
    RUN_CODE(0, "fit", write_clark("moves.csv", 2), "--form", "clark", "--bootstrap", "0");
    assert_has(program_out, "no best N and D: clark does not read D, of which the runs have 1e+11 "
                            "to 1.82e+11: its losses are of no one D; --at D=TOKENS holds one");
    RUN_CODE(0, "fit", write_clark("none.csv", 0), "--form", "clark", "--bootstrap", "0");
    assert_has(program_out, "clark does not read D and the runs have none");
    RUN_CODE(0, "fit", at("none.csv"), "--form", "clark", "--bootstrap", "0", "--at", "D=1.3e11");
    assert_has(program_out, "6.4e+08   parameters");
    RUN_CODE(2, "fit", same, "--at", "D=1e9");
    assert_has(program_err, "--at D does nothing with --form chinchilla");
    free(same);
}

/* Runs of all parameters whose C is known: the cost is their line in N_total, and consistent. */
static void costs_of_all_parameters(void **state)
{
    (void)state;
    static const double param[] = {1.7, 410, 20, 420, 0.35, 0.3, 0.6};
    char *file = strdup(at("line.csv"));
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    fputs("N_total,D,granularity,loss,C\n", out);
    for (int i = 0; i < 3 * RUNS; i++) {
        LawPoint p = {0};
        p.x[RUN_N_TOTAL] = size_of(i % RUNS);
        p.x[RUN_D] = budget_of(i % RUNS) / 6 / size_of(i % RUNS);
        p.x[RUN_GRANULARITY] = 1 << i / RUNS;
        fprintf(out, "%.17g,%.17g,%.17g,%.17g,%.17g\n", p.x[RUN_N_TOTAL], p.x[RUN_D],
                p.x[RUN_GRANULARITY], law_loss(law_find("krajewski"), param, &p),
                (1.5 * p.x[RUN_N_TOTAL] + 1e7) * p.x[RUN_D]);
    }
    assert_int_equal(fclose(out), 0);
    RUN_CODE(0, "fit", file, "--form", "krajewski", "--bootstrap", "0", "--budget", "1e19",
             "--json");
    json_t *a = answer();
    double N = number(a, "forecast", "N_opt"), D = number(a, "forecast", "D_opt");
    assert_near((1.5 * N + 1e7) * D / 1e19, 1, 1e-6);
    assert_has(program_out, "the cost is runs with N_total for N; so are N and D");
    assert_null(strstr(program_out, "cost_scale"));
    json_decref(a);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(variants_are_no_repetitions),
                                       cmocka_unit_test(costs_without_n),
                                       cmocka_unit_test(ledgers_that_do_not_know),
                                       cmocka_unit_test(forms_without_d),
                                       cmocka_unit_test(costs_of_all_parameters)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
