/* tests/test_fit_doubt.c - `isomoe fit` of runs that mislead it: what it says of them, and of the
 * fit without them. */
#include "tests/sweep_help.h"

#include <jansson.h>

#include "base/philox.h"
#include "tests/boot_study.h"
#include "train/fit_answer.h"

enum { BUDGETS = 5, SIZES = 7, RUNS = BUDGETS * SIZES };

typedef struct Row {
    double N, D, loss;
} Row;

/* isoFLOP curves of the study's law, noise 3e-3 nats. */
static void make_rows(Row *row)
{
    PhiloxKey key = {.seed = 31, .purpose = RNG_TEST};
    for (int i = 0; i < RUNS; i++) {
        double C = 1e18 * pow(3, i / SIZES);
        double N = study_n_opt(C) * pow(3, (i % SIZES - 3 + 0.2) / 3), D = C / 6 / N;
        row[i] = (Row){N, D, study_loss(N, D) + 3e-3 * philox_normal(&key, (uint32_t)i)};
    }
}

/* What `isomoe fit --json` says of the rows, N and D in units of `unit`; the caller decrefs it. */
static json_t *fitted(const Row *row, int n, double unit)
{
    json_error_t error;
    char file[PATH * 2];
    snprintf(file, sizeof file, "%s", at("doubt.csv"));
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    fputs("N,D,loss\n", out);
    for (int i = 0; i < n; i++)
        fprintf(out, "%.17g,%.17g,%.17g\n", row[i].N / unit, row[i].D / unit, row[i].loss);
    assert_int_equal(fclose(out), 0);
    RUN_CODE(0, "fit", file, "--json", "--bootstrap", "0");
    json_t *a = json_loads(program_out, 0, &error);
    if (!a) fail_msg("%s: %s", error.text, program_out);
    return a;
}

/* The i-th warning of the kind, or NULL. */
static json_t *warning_of(json_t *from, const char *kind, int i)
{
    size_t k;
    json_t *w;
    json_array_foreach(json_object_get(from, "warnings"), k, w)
        if (!strcmp(json_string_value(json_object_get(w, "kind")), kind) && !i--) return w;
    return NULL;
}

static const char *text_of(json_t *from, const char *kind, int i)
{
    json_t *w = warning_of(from, kind, i);
    if (!w) fail_msg("no warning %s: %s", kind, program_out);
    return json_string_value(json_object_get(w, "text"));
}

/* The least squares follow a loss of 0.2 down to E = 0, below which no loss lies. */
static void a_loss_below_e_is_seen(void **state)
{
    (void)state;
    Row row[RUNS];
    make_rows(row);
    row[5].loss = 0.2;
    json_t *a = fitted(row, RUNS, 1);
    assert_has(text_of(a, "below_e", 0), "1 run has a loss not above E = 1.8");
    json_t *rows = json_object_get(warning_of(a, "below_e", 0), "rows");
    assert_int_equal(json_array_size(rows), 1);
    assert_true(json_number_value(json_object_get(json_array_get(rows, 0), "loss")) == 0.2);
    assert_null(warning_of(a, "not_convex", 0));
    json_t *without = json_object_get(a, "without_doubtful_runs");
    json_t *certificate = json_object_get(without, "certificate");
    double E = json_number_value(json_object_get(json_object_get(without, "parameters"), "E"));
    assert_int_equal(json_integer_value(json_object_get(without, "runs")), RUNS - 1);
    assert_true(fabs(E - 1.8172) < 0.1);
    assert_true(json_is_true(json_object_get(certificate, "identified")));
    assert_int_equal(json_array_size(json_object_get(without, "warnings")), 0);
    assert_non_null(warning_of(a, "not_identified", 0)); /* of the fit with it */
    json_decref(a);
}

/* D = 20 N, and a run that was written twice: neither fit says what alpha and beta are. */
static void the_fit_without_is_doubted_too(void **state)
{
    (void)state;
    Row row[RUNS + 1];
    make_rows(row);
    for (int i = 0; i < RUNS; i++) {
        double noise = row[i].loss - study_loss(row[i].N, row[i].D);
        row[i].D = 20 * row[i].N;
        row[i].loss = study_loss(row[i].N, row[i].D) + 2 * noise;
    }
    row[RUNS] = row[0];
    json_t *a = fitted(row, RUNS + 1, 1);
    json_t *without = json_object_get(a, "without_doubtful_runs");
    assert_non_null(warning_of(a, "tied", 0));
    assert_non_null(warning_of(a, "not_identified", 0));
    assert_null(warning_of(a, "not_identified", 1));
    assert_non_null(warning_of(without, "not_identified", 0));
    json_decref(a);
}

static void units_are_doubted(void **state)
{
    (void)state;
    Row row[RUNS];
    make_rows(row);
    json_t *a = fitted(row, RUNS, 1e9);
    assert_has(text_of(a, "cost_scale", 0), "the largest N is ");
    assert_has(text_of(a, "cost_scale", 1), "the largest D is ");
    const char *why = json_string_value(json_object_get(json_object_get(a, "forecast"), "why"));
    assert_non_null(why);
    assert_has(why, "lies below 1 parameters");
    json_decref(a);
    a = fitted(row, RUNS, 1);
    assert_null(warning_of(a, "cost_scale", 0));
    assert_null(warning_of(a, "beyond", 0));
    json_decref(a);
}

/* An answer by hand, of which nothing is doubtful. */
static FitAnswer *sound_answer(void)
{
    FitAnswer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->request = fit_request_defaults("x");
    a->main.is_law = a->main.ok = a->has_forecast = true;
    a->main.fit.law = law_at(0);
    a->main.fit.certificate = (FitCertificate){.starts = 16, .agree = 16, .identified = true};
    a->base.lack_of_fit = a->c6nd = NAN;
    return a;
}

/* Where D is tied to N the best N may lie among the sizes and its D be a hundred times too many. */
static void tokens_that_no_run_had(void **state)
{
    (void)state;
    FitAnswer *a = sound_answer();
    Err e = {0};
    assert_int_equal(run_table_make(&a->runs, 2, 1u << RUN_D, &e), 0);
    a->runs.column[RUN_D][0] = 2e9;
    a->runs.column[RUN_D][1] = 6e10;
    a->n_low = 1e8;
    a->n_high = 3e9;
    a->main.best_ok = true;
    a->main.N = 2e8;
    static const double D[] = {1e9, 1.7e11, 5.4e12, 5e8};
    for (int i = 0; i < 4; i++) {
        a->main.D = D[i];
        fit_answer_warn(a);
        assert_int_equal(a->warnings, i >= 2);
        if (i < 2) continue;
        assert_string_equal(answer_kind_name(a->warning[0].kind), "beyond");
        assert_has(a->warning[0].text, "far outside of the tokens that runs had, 2e+09 to 6e+10");
    }
    fit_answer_clear(a);
    free(a);
}

/* Forms that describe the runs better, by how much. */
static void better_forms_are_told(void **state)
{
    (void)state;
    FitAnswer *a = sound_answer();
    a->forecast.forms = 3;
    a->forecast.form_of[0] = (ForecastForm){.name = "tied", .d_aicc = -9};
    a->forecast.form_of[1] = (ForecastForm){.name = "drift", .d_aicc = NAN};
    fit_answer_warn(a);
    assert_int_equal(a->warnings, 0);
    a->forecast.form_of[0].d_aicc = -11;
    a->forecast.form_of[2] = (ForecastForm){.name = "drift", .d_aicc = -55};
    fit_answer_warn(a);
    assert_int_equal(a->warnings, 1);
    assert_string_equal(answer_kind_name(a->warning[0].kind), "other_form");
    assert_has(a->warning[0].text, "the form drift describes the runs better by 55 of AICc");
    a->forecast.unjudged = true;
    fit_answer_warn(a);
    assert_int_equal(a->warnings, 0);
    fit_answer_clear(a);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_loss_below_e_is_seen),
                                       cmocka_unit_test(the_fit_without_is_doubted_too),
                                       cmocka_unit_test(units_are_doubted),
                                       cmocka_unit_test(tokens_that_no_run_had),
                                       cmocka_unit_test(better_forms_are_told)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
