/* tests/test_fit_noise.c - `isomoe fit` where the noise of runs is known. */
#include "tests/train_help.h"

#include <jansson.h>

#include "tests/boot_study.h"

/* A study of 35 runs as a CSV file. */
static char *write_study(void)
{
    static const StudyPlan plan = {.budgets = 5, .sizes = 7, .seeds = 1, .c_first = 1e18,
                                   .c_last = 3e20, .spread = 3, .noise = 1e-3};
    RunTable t = study(&plan, 4);
    FILE *f = fopen(at("noise.csv"), "w");
    assert_non_null(f);
    fprintf(f, "N,D,C,final_loss\n");
    for (int64_t i = 0; i < t.rows; i++)
        fprintf(f, "%.17g,%.17g,%.17g,%.17g\n", t.column[RUN_N][i], t.column[RUN_D][i],
                t.column[RUN_C][i], t.column[RUN_LOSS][i]);
    assert_int_equal(fclose(f), 0);
    run_table_clear(&t);
    return at("noise.csv");
}

/* The JSON that the last RUN printed; the caller decrefs it. */
static json_t *answer(void)
{
    json_error_t error;
    json_t *out = json_loads(program_out, 0, &error);
    if (!out) fail_msg("%s: %s", error.text, program_out);
    return out;
}

static double number(json_t *from, const char *section, const char *key)
{
    return json_number_value(json_object_get(json_object_get(from, section), key));
}

/* Known noise of runs: weights, what is resampled, intervals of curves. */
static void noise_is_used(void **state)
{
    (void)state;
    char *file = strdup(write_study());
    RUN_CODE(2, "fit", file, "--weights", "x");
    assert_has(program_err, "--weights 'x'");
    RUN_CODE(1, "fit", file, "--weights", "noise", "--bootstrap", "0");
    assert_has(program_err, "no noise is known of the run in line 2");
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "60", "--columns", "noise=final_loss*1e-3",
             "--weights", "noise");
    json_t *a = answer();
    json_t *options = json_object_get(a, "options"), *intervals = json_object_get(a, "intervals");
    assert_string_equal(json_string_value(json_object_get(options, "weights")), "noise");
    assert_string_equal(json_string_value(json_object_get(intervals, "scheme")), "noise");
    double weighed = number(a, "parameters", "alpha");
    json_decref(a);
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "60", "--columns", "noise=final_loss*1e-3");
    a = answer();
    intervals = json_object_get(a, "intervals");
    assert_string_equal(json_string_value(json_object_get(intervals, "scheme")), "residuals");
    assert_true(number(a, "parameters", "alpha") != weighed);
    json_decref(a);
    double width[2];
    for (int i = 0; i < 2; i++) {
        RUN_CODE(0, "fit", file, "--json", "--bootstrap", "200", "--method", "parabola",
                 "--columns", i ? "noise=final_loss*1e-3" : "noise=final_loss*1e-4");
        a = answer();
        intervals = json_object_get(a, "intervals");
        assert_string_equal(json_string_value(json_object_get(intervals, "method")),
                            "noise of the runs, drawn anew");
        json_t *pair = json_object_get(intervals, "N_opt_exponent");
        width[i] = json_number_value(json_array_get(pair, 1)) -
                   json_number_value(json_array_get(pair, 0));
        assert_non_null(json_object_get(json_object_get(intervals, "by_budgets"), "at_budget"));
            json_decref(a);
    }
    assert_near(width[1] / width[0], 10, 1);
    RUN_CODE(0, "fit", file, "--bootstrap", "50", "--method", "parabola", "--columns",
             "noise=final_loss*1e-3");
    assert_has(program_out, "90 % intervals: the runs' noise drawn anew");
    RUN_CODE(0, "fit", file, "--method", "parabola");
    assert_has(program_out, "90 % intervals: scatter of the budgets");
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(noise_is_used)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
