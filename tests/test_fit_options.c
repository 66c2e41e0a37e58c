/* tests/test_fit_options.c - what `isomoe fit` may be asked for: which draws and which intervals, a
 * ledger by its file's name. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(draws_are_chosen),
                                       cmocka_unit_test(the_default_stands),
                                       cmocka_unit_test(choices_without_effect_are_refused),
                                       cmocka_unit_test(strata_that_are_none)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
