/* tests/test_fit_options.c - what `isomoe fit` may be asked for: which draws and which intervals, a
 * ledger by its file's name, a published law. */
#include "tests/sweep_help.h"

#include <jansson.h>

#include "tests/boot_study.h"
#include "train/fit_answer.h"

enum { REPLICATES = 40 };
static const char noise_column[] = "noise=final_loss*1e-3";

/* A study of 35 runs as a CSV file. */
static const char *write_runs(void)
{
    static const StudyPlan plan = {.budgets = 5, .sizes = 7, .seeds = 1, .c_first = 1e18,
                                   .c_last = 3e20, .spread = 3, .noise = 1e-3};
    static char path[PATH * 2];
    RunTable t = study(&plan, 4);
    snprintf(path, sizeof path, "%s", at("runs.csv"));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "N,D,C,final_loss\n");
    for (int64_t i = 0; i < t.rows; i++)
        fprintf(f, "%.17g,%.17g,%.17g,%.17g\n", t.column[RUN_N][i], t.column[RUN_D][i],
                t.column[RUN_C][i], t.column[RUN_LOSS][i]);
    assert_int_equal(fclose(f), 0);
    run_table_clear(&t);
    return path;
}

/* The JSON that the last RUN printed; the caller decrefs it. */
static json_t *answer(void)
{
    json_error_t error;
    json_t *out = json_loads(program_out, 0, &error);
    if (!out) fail_msg("%s: %s", error.text, program_out);
    return out;
}

/* ---- Draws and intervals ----------------------------------------------------------------------*/

typedef struct Choice {
    const char *name;
    BootScheme scheme;
    bool stratified;
} Choice;

static const Choice choices[] = {{"residuals", BOOT_RESIDUALS, false},
                                 {"cases", BOOT_CASES, false},
                                 {"cases-within-budgets", BOOT_CASES, true},
                                 {"noise", BOOT_NOISE, false}};
static const char *const intervals[] = {"percentile", "bca", "student"}; /* by IntervalMethod */

/* The interval of alpha, by the library alone. */
static Interval alpha_of(const char *file, const Choice *c, int interval)
{
    Err e = {0};
    RunTable t;
    Fit fit;
    FitOptions o = fit_defaults();
    BootOptions b = boot_defaults();
    Bootstrap boot;
    b.scheme = c->scheme;
    b.stratified = c->stratified;
    b.interval = (IntervalMethod)interval;
    b.replicates = REPLICATES;
    if (fit_runs_read(file, noise_column, NULL, &t, &e) ||
        fit_law(&t, law_find("chinchilla"), NULL, &o, &fit, &e) ||
        bootstrap_run(&t, NULL, &fit, &b, &boot, &e))
        fail_msg("%s", e.message);
    Interval out = bootstrap_target(&boot, "alpha", 0)->interval;
    bootstrap_clear(&boot);
    run_table_clear(&t);
    return out;
}

/* What is asked for is what is drawn, and what the answer says; threads change no byte. */
static void draws_are_chosen(void **state)
{
    (void)state;
    const char *file = write_runs();
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        for (int by = 0; by < INTERVAL_METHODS; by++) {
            Interval want = alpha_of(file, &choices[i], by);
            RUN_CODE(0, "fit", file, "--json", "--bootstrap", "40", "--columns", noise_column,
                     "--resample", choices[i].name, "--interval", intervals[by]);
            json_t *a = answer(), *said = json_object_get(a, "intervals");
            assert_string_equal(json_string_value(json_object_get(said, "scheme")),
                                choices[i].name);
            assert_string_equal(json_string_value(json_object_get(said, "method")),
                                intervals[by]);
            json_t *pair = json_object_get(said, "alpha");
            assert_near(json_number_value(json_array_get(pair, 0)) / want.low, 1, 1e-9);
            assert_near(json_number_value(json_array_get(pair, 1)) / want.high, 1, 1e-9);
            json_decref(a);
        }
    char *two = strdup(program_out);
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "40", "--columns", noise_column,
             "--resample", "noise", "--interval", "student", "--threads", "3");
    assert_string_equal(program_out, two);
    free(two);
}

/* Without a choice: studentised intervals of residuals; with weights, of noise. */
static void the_default_stands(void **state)
{
    (void)state;
    const char *file = write_runs();
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "40");
    char *before = strdup(program_out);
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "40", "--resample", "residuals",
             "--interval", "student");
    assert_string_equal(program_out, before);
    free(before);
    RUN_CODE(0, "fit", file, "--bootstrap", "40", "--resample", "cases-within-budgets",
             "--interval", "bca");
    assert_has(program_out, "90 % intervals by 40 resampled fits (cases-within-budgets, bca)\n");
    RUN_CODE(0, "fit", file, "--bootstrap", "40", "--columns", noise_column, "--weights", "noise");
    assert_has(program_out, "by 40 resampled fits (noise, student)\n");
    RUN_CODE(0, "fit", file, "--bootstrap", "40", "--columns", noise_column, "--weights", "noise",
             "--resample", "cases");
    assert_has(program_out, "by 40 resampled fits (cases, student)\n");
}

static void choices_without_effect_are_refused(void **state)
{
    (void)state;
    const char *file = write_runs();
    RUN_CODE(2, "fit", file, "--resample", "rows");
    assert_has(program_err, "--resample 'rows'");
    assert_has(program_err, "residuals, cases, cases-within-budgets, noise");
    RUN_CODE(2, "fit", file, "--interval", "wald");
    assert_has(program_err, "--interval 'wald'");
    static const char *const options[][2] = {{"--resample", "cases"}, {"--interval", "bca"}};
    for (int i = 0; i < 2; i++) {
        char want[64];
        RUN_CODE(2, "fit", file, "--bootstrap", "0", options[i][0], options[i][1]);
        snprintf(want, sizeof want, "%s does nothing with --bootstrap 0", options[i][0]);
        assert_has(program_err, want);
        RUN_CODE(2, "fit", file, "--method", "akima", options[i][0], options[i][1]);
        snprintf(want, sizeof want, "%s does nothing with --method akima", options[i][0]);
        assert_has(program_err, want);
        RUN_CODE(2, "fit", file, "--rates", "N", options[i][0], options[i][1]);
        snprintf(want, sizeof want, "%s does nothing with --rates", options[i][0]);
        assert_has(program_err, want);
    }
    RUN_CODE(2, "fit", file, "--columns", noise_column, "--weights", "noise", "--resample",
             "residuals");
    assert_has(program_err, "no one pool to draw from");
    RUN_CODE(1, "fit", file, "--resample", "noise");
    assert_has(program_err, "no noise is known of the run in line 2");
}

/* Draws within budgets of one run each are the runs themselves, those within one budget all. */
static void strata_that_are_none(void **state)
{
    (void)state;
    char path[PATH * 2];
    for (int one = 0; one < 2; one++) {
        snprintf(path, sizeof path, "%s", at("strata.csv"));
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "N,D,budget,loss\n");
        PhiloxKey key = {.seed = 3, .purpose = RNG_TEST};
        for (uint32_t i = 0; i < 20; i++) {
            double N = 1e7 * pow(2, i % 5), D = 1e9 * pow(2.3, i / 5);
            fprintf(f, "%g,%g,%g,%.9g\n", N, D, one ? 1e18 : 6 * N * D,
                    study_loss(N, D) * exp(1e-3 * philox_normal(&key, i)));
        }
        assert_int_equal(fclose(f), 0);
        RUN_CODE(1, "fit", path, "--bootstrap", "10", "--resample", "cases-within-budgets");
        assert_has(program_err, one ? "all runs are of one budget"
                                    : "each of the 20 runs has a budget of its own");
        RUN_CODE(0, "fit", path, "--bootstrap", "10", "--resample", "cases");
    }
}

/* ---- A ledger by its file ---------------------------------------------------------------------*/

/* A sweep whose 35 points are done. */
static void write_sweep(const char *folder)
{
    enum { RUNS = 35 };
    Ledger *l = open_ledger(folder);
    Cell cells[RUNS];
    int first;
    for (int i = 0; i < RUNS; i++) {
        const char name[] = {(char)('a' + i / 7), (char)('a' + i % 7), 0};
        cells[i] = make_cell(name, NULL, CELL_POINT, "");
        cells[i].budget = cells[i].C = 1e18 * pow(3, i / 7);
        cells[i].N = study_n_opt(cells[i].C) * pow(3, (i % 7 - 3) / 3.0);
        cells[i].D = cells[i].C / 6 / cells[i].N;
    }
    add_cells(l, cells, RUNS);
    OK(ledger_join(l, 2, &first, e));
    for (int i = 0; i < RUNS; i++) {
        LedgerCell c;
        double factor;
        bool found;
        OK(ledger_take(l, &c, &factor, &found, e));
        CellResult r = {.loss = study_loss(c.cell.N, c.cell.D), .steps = 7};
        OK(ledger_finish(l, c.cell.id, 1, &r, e));
    }
    ledger_close(&l);
}

/* fit and report take the ledger's file for its folder; other files stay what they are. */
static void a_ledger_by_its_file(void **state)
{
    (void)state;
    char folder[PATH * 2], file[PATH * 2 + 32], other[PATH * 2 + 32], page[PATH * 2 + 32];
    snprintf(folder, sizeof folder, "%s", new_sweep("by_file"));
    snprintf(file, sizeof file, "%s/ledger.sqlite", folder);
    snprintf(other, sizeof other, "%s/copy.sqlite", folder);
    snprintf(page, sizeof page, "%s/report.html", folder);
    write_sweep(folder);
    RUN_CODE(0, "fit", folder, "--json", "--bootstrap", "0");
    char *want = strdup(program_out);
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "0");
    assert_string_equal(program_out, want);
    free(want);
    RUN_CODE(0, "report", file, "--bootstrap", "0");
    assert_true(io_exists(page));
    size_t size;
    char *bytes = read_file(file, &size);
    Err e = {0};
    if (io_write_atomic(other, bytes, size, &e)) fail_msg("%s", e.message);
    free(bytes);
    static const char *const commands[] = {"fit", "report"};
    for (int i = 0; i < 2; i++) {
        RUN_CODE(1, commands[i], other);
        assert_has(program_err, "copy.sqlite: is an SQLite file, but a sweep's ledger is named");
    }
}

static void folders_of_paths(void **state)
{
    (void)state;
    char here[PATH], made[PATH * 2], out[PATH * 2], file[PATH * 2 + 32];
    Err e = {0};
    snprintf(made, sizeof made, "%s", new_sweep("paths"));
    snprintf(file, sizeof file, "%s/ledger.sqlite", made);
    assert_int_equal(ledger_folder(file, out, sizeof out, &e), 0);
    assert_string_equal(out, file); /* there is no such file */
    write_file(file, "");
    assert_int_equal(ledger_folder(file, out, sizeof out, &e), 0);
    assert_string_equal(out, made);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(made), 0);
    int rc = ledger_folder("ledger.sqlite", out, sizeof out, &e);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(rc, 0);
    assert_string_equal(out, ".");
    assert_int_equal(ledger_folder("a/b//", out, sizeof out, &e), 0);
    assert_string_equal(out, "a/b");
    assert_int_equal(ledger_folder("/", out, sizeof out, &e), 0);
    assert_string_equal(out, "/");
    assert_int_equal(ledger_folder("abcd", out, 4, &e), -1);
    assert_has(e.message, "too long");
}

/* ---- A published law --------------------------------------------------------------------------*/

/* 58.1 B and 5.6 T for Hunyuan-Large's budget, from no run, and how far that is off. */
static void published_laws_need_no_runs(void **state)
{
    (void)state;
    RUN_CODE(0, "fit", "--published", "hunyuan", "--budget", "3.11e24", "--json");
    json_t *a = answer(), *best = json_object_get(a, "forecast");
    double N = json_number_value(json_object_get(best, "N_opt"));
    double D = json_number_value(json_object_get(best, "D_opt"));
    assert_near(N / 58.1e9, 1, 5e-3);
    assert_near(D / 5.64e12, 1, 5e-3);
    assert_has(json_string_value(json_object_get(a, "source")), "2411.02265");
    json_t *cost = json_object_get(a, "cost");
    assert_near(json_number_value(json_object_get(cost, "of_the_answer")) /
                    (9.59 * N * D + 2.3e8 * D), 1, 1e-12);
    json_t *warning = json_array_get(json_object_get(a, "warnings"), 0);
    assert_string_equal(json_string_value(json_object_get(warning, "kind")), "beyond");
    json_decref(a);
    RUN_CODE(0, "fit", "--published", "hunyuan", "--budget", "3.11e24");
    assert_has(program_out, "arXiv 2411.02265, section 2.3.1: as published");
    assert_has(program_out, "N_opt = 0.0059 C^0.5305, D_opt = 3.2 C^0.5");
    assert_has(program_out, "fitted to C 5e+18 to 9.5e+19, N 1e+07 to 1e+09, D 1e+10 to 1e+11");
    assert_has(program_out, "is 3.274e+04 times the largest that the law was fitted to, N 58.");
    RUN_CODE(0, "fit", "--published", "hunyuan", "--budget", "2e19");
    assert_null(strstr(program_out, "beyond"));
    RUN_CODE(0, "fit", "--published", "hunyuan", "--budget", "1e18");
    assert_has(program_out, "the budget is 0.2 times the least");
    static const char *const ends[] = {"5e18", "9.5e19"};
    for (int i = 0; i < 2; i++) {
        RUN_CODE(0, "fit", "--published", "hunyuan", "--budget", ends[i]);
        assert_null(strstr(program_out, "beyond"));
    }
}

static void published_laws_are_strict(void **state)
{
    (void)state;
    RUN_CODE(2, "fit");
    assert_has(program_err, "needs a file or a sweep's folder");
    assert_has(program_err, "fit --published hunyuan --budget C");
    RUN_CODE(2, "fit", "--published", "hunyuan");
    assert_has(program_err, "--published needs --budget");
    RUN_CODE(2, "fit", "--published", "gpt", "--budget", "1e24");
    assert_has(program_err, "--published 'gpt': no such law");
    RUN_CODE(2, "fit", "--published", "hunyuan", "--budget", "0");
    assert_has(program_err, "must be above 0");
    RUN_CODE(2, "fit", write_runs(), "--published", "hunyuan", "--budget", "1e24");
    assert_has(program_err, "--published reads no runs");
    RUN_CODE(2, "fit", "--published", "hunyuan", "--budget", "1e24", "--force");
    assert_has(program_err, "--force does nothing with --published");
    RUN_CODE(2, "fit", "--published", "hunyuan", "--budget", "1e24", "--level", "0.5");
    assert_has(program_err, "--level does nothing with --published");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_are_chosen),
                                       cmocka_unit_test(the_default_stands),
                                       cmocka_unit_test(choices_without_effect_are_refused),
                                       cmocka_unit_test(strata_that_are_none),
                                       cmocka_unit_test(a_ledger_by_its_file),
                                       cmocka_unit_test(folders_of_paths),
                                       cmocka_unit_test(published_laws_need_no_runs),
                                       cmocka_unit_test(published_laws_are_strict)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
