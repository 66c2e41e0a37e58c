/* tests/test_fit_cost.c - what `isomoe fit` makes of the runs' own C: a line in N, none, none at
 * all, in other units; the published law beside ours. */
#include "tests/train_help.h"

#include <jansson.h>
#include <math.h>

#include "scaling/cost_law.h"

enum { SIZES = 7, BUDGETS = 4 };

/* isoFLOP curves under C = 6 N D (1 + bend (1e8/N)^(1/3)) scale; no column C without scale. */
static char *write_curves(const char *name, double bend, double scale)
{
    FILE *f = fopen(at("%s", name), "w");
    assert_non_null(f);
    fprintf(f, scale > 0 ? "N,D,loss,C\n" : "N,D,loss\n");
    for (int b = 0; b < BUDGETS; b++)
        for (int i = 0; i < SIZES; i++) {
            double C = 1e18 * pow(4, b), N = 2e7 * pow(2, b) * pow(1.6, i);
            double per_nd = 6 * (1 + bend * cbrt(1e8 / N)), D = C / (per_nd * N);
            fprintf(f, "%.9g,%.9g,%.9g", N, D, 1.8 + 400 / pow(N, 0.34) + 1200 / pow(D, 0.36));
            if (scale > 0) fprintf(f, ",%.9g", C * scale);
            fprintf(f, "\n");
        }
    fclose(f);
    return at("%s", name);
}

static void no_line(void **state)
{
    (void)state;
    char *file = strdup(write_curves("bent.csv", 3, 1));
    RUN_CODE(0, "fit", file, "--bootstrap", "0");
    assert_has(program_out, "no_cost_line: the runs' C is no line in N (0.1");
    assert_has(program_out, "best N and D, and what is called their FLOPs, are by 6 N D");
    RUN_CODE(1, "fit", file, "--bootstrap", "0", "--cost", "runs");
    assert_has(program_err, "bent.csv: --cost runs: C is no line in N: 0.1");
    assert_has(program_err, "hint: --cost 6nd, or A,B for C = A N D + B D");
    RUN_CODE(0, "fit", file, "--bootstrap", "0", "--cost", "6nd");
    assert_null(strstr(program_out, "no_cost_line"));
    RUN_CODE(0, "fit", write_curves("line.csv", 0.1, 1), "--bootstrap", "0", "--cost", "runs");
    assert_null(strstr(program_out, "no_cost_line"));
    assert_has(program_out, "cost runs");
    RUN_CODE(1, "fit", write_curves("without.csv", 0, 0), "--bootstrap", "0", "--cost", "runs");
    assert_has(program_err, "without.csv: --cost runs: the runs have no C");
    RUN_CODE(0, "fit", at("without.csv"), "--bootstrap", "0");
    assert_null(strstr(program_out, "cost_"));
    free(file);
}

/* Runs of a family of 1,024 words and 256 tokens, C as the model's count has it, as in a sweep's
 * ledger: N_no_embed beside N. */
static char *write_family(const char *name)
{
    FlopFamily family = {.kappa = 19.26, .ratio = 24, .vocab = 1024, .context = 256, .head = 8};
    FILE *f = fopen(at("%s", name), "w");
    assert_non_null(f);
    fprintf(f, "N,N_no_embed,D,loss,C,budget\n");
    for (int b = 0; b < BUDGETS; b++)
        for (int i = 0; i < SIZES; i++) {
            double C = 1e13 * pow(4, b), n = 3e4 * pow(2, b) * pow(1.6, i);
            FlopShape s = flop_family_member(&family, n);
            double N = s.body + s.embed, D = C / flop_per_token(flop_convention_at(0), &s);
            fprintf(f, "%.17g,%.17g,%.17g,%.17g,%.17g,%.9g\n", N, n, D,
                    1.8 + 100 / pow(N, 0.34) + 300 / pow(D, 0.36), C, C);
        }
    fclose(f);
    return at("%s", name);
}

/* The answer's number at section.key or section.key[i]. */
static double number(json_t *a, const char *section, const char *key, int i)
{
    json_t *x = json_object_get(json_object_get(a, section), key);
    if (i >= 0) x = json_array_get(x, (size_t)i);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

/* The exact cost is what is used where runs allow it, at any size; lines are refused out there. */
static void exact(void **state)
{
    (void)state;
    FlopFamily family = {.kappa = 19.26, .ratio = 24, .vocab = 1024, .context = 256, .head = 8};
    CostLaw want;
    char *file = strdup(write_family("family.csv"));
    cost_law_exact(&want, &family, flop_convention_at(0));
    RUN_CODE(0, "fit", file, "--bootstrap", "0", "--budget", "1e24", "--json");
    json_t *a = json_loads(program_out, 0, NULL), *cost;
    assert_non_null(a);
    cost = json_object_get(json_object_get(a, "options"), "cost");
    assert_string_equal(json_string_value(json_object_get(cost, "name")), "exact");
    assert_string_equal(json_string_value(json_object_get(cost, "convention")), "exact");
    json_t *range = json_object_get(cost, "range");
    assert_true(json_number_value(json_array_get(range, 0)) == 0);
    assert_true(json_is_null(json_array_get(range, 1)));
    assert_true(json_number_value(json_object_get(cost, "residual_worst")) < 1e-9);
    double N = number(a, "forecast", "N_opt", -1), D = number(a, "forecast", "D_opt", -1);
    assert_true(fabs(cost_law_per_token(&want, N) * D / 1e24 - 1) < 1e-9);
    assert_true(fabs(6 * N * D / 1e24 - 1) > 1e-4);
    json_decref(a);
    RUN_CODE(0, "fit", file, "--bootstrap", "20", "--budget", "1e16");
    assert_has(program_out, "best for 1e+16 FLOPs, 15.6 times the largest run; cost exact");
    assert_has(program_out, "C/D = 6 n + ");
    assert_has(program_out, ", any N; ");
    assert_null(strstr(program_out, "disagree"));
    RUN_CODE(1, "fit", file, "--bootstrap", "0", "--budget", "1e24", "--cost", "runs");
    assert_has(program_err, "cost law 'runs', C = ");
    assert_has(program_err, "--force takes the law nevertheless");
    RUN_CODE(0, "fit", file, "--bootstrap", "0", "--budget", "1e24", "--cost", "runs", "--force");
    assert_has(program_out, "cost_range: N = ");
    assert_has(program_out, "cost runs\n  C = ");
    RUN_CODE(0, "fit", file, "--bootstrap", "0", "--budget", "1e24", "--cost", "6nd");
    assert_has(program_out, "cost 6ND\n  C = 6 N D, any N\n");
    RUN_CODE(1, "fit", file, "--bootstrap", "0", "--budget", "1e24", "--cost", "hunyuan");
    assert_has(program_err, "cost law 'hunyuan'");
    RUN_CODE(0, "fit", file, "--bootstrap", "0", "--cost", "exact");
    RUN_CODE(1, "fit", write_curves("line.csv", 0.1, 1), "--bootstrap", "0", "--cost", "exact");
    assert_has(program_err, "the exact cost needs the column N_no_embed");
    assert_has(program_err, "hint: it needs runs with N, N_no_embed, D and C");
    RUN_CODE(1, "fit", write_curves("bent.csv", 3, 1), "--bootstrap", "0", "--cost", "exact",
             "--columns", "N_no_embed=N*0.1");
    assert_has(program_err, "C is no family's");
    free(file);
}

static void scale(void **state)
{
    (void)state;
    RUN_CODE(0, "fit", write_curves("tera.csv", 0, 1e-12), "--bootstrap", "0");
    assert_has(program_out, "cost_scale: C is 1e-12 times 6 N D (median)");
    RUN_CODE(0, "fit", write_curves("much.csv", 0, 1000), "--bootstrap", "0");
    assert_has(program_out, "cost_scale: C is 1e+03 times 6 N D (median)");
    RUN_CODE(0, "fit", write_curves("sound.csv", 0, 1), "--bootstrap", "0");
    assert_null(strstr(program_out, "cost_scale"));
}

static void published(void **state)
{
    (void)state;
    RUN_CODE(0, "fit", write_curves("sound.csv", 0, 1), "--bootstrap", "0", "--cost", "hunyuan",
             "--budget", "3.11e24", "--force");
    assert_has(program_out, "published for Hunyuan-Large: N 5.81");
    RUN_CODE(0, "fit", at("sound.csv"), "--bootstrap", "0");
    assert_null(strstr(program_out, "published"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_line),
        cmocka_unit_test(exact),
        cmocka_unit_test(scale),
        cmocka_unit_test(published),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
