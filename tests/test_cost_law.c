/* tests/test_cost_law.c - the exact cost of a family from the numbers of its runs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "scaling/cost_law.h"

#define assert_near(got, want, relative)                                                           \
    do {                                                                                           \
        double got_ = (got), want_ = (want);                                                       \
        if (!(fabs(got_ - want_) <= (relative) * fabs(want_)))                                     \
            fail_msg("%s is %.17g, must be %.17g", #got, got_, want_);                             \
    } while (0)

/* Runs of a family, at sizes from 3e5 to 1e8 with their embedding. */
static RunTable family_runs(const FlopFamily *f, int rows)
{
    const FlopConvention *c = flop_convention_at(0);
    RunTable t;
    Err e = {0};
    assert_int_equal(run_table_make(&t, rows, 1u << RUN_N | 1u << RUN_N_BODY | 1u << RUN_D |
                                                  1u << RUN_C, &e), 0);
    for (int i = 0; i < rows; i++) {
        FlopShape s = flop_family_member(f, 1e5 * pow(3, i));
        t.column[RUN_N][i] = s.body + s.embed;
        t.column[RUN_N_BODY][i] = s.body;
        t.column[RUN_D][i] = 1e9 / (i + 1);
        t.column[RUN_C][i] = flop_per_token(c, &s) * t.column[RUN_D][i];
    }
    return t;
}

/* From runs' numbers alone the same law as from the shape, which stands at every other size. */
static void test_exact_of_runs(void **state)
{
    (void)state;
    FlopFamily f = {.kappa = 19.26, .ratio = 24, .vocab = 1024, .context = 256, .head = 8};
    const FlopConvention *c = flop_convention_at(0);
    RunTable t = family_runs(&f, 7);
    CostLaw want, got;
    Err e = {0};
    cost_law_exact(&want, &f, c);
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), 0);
    assert_string_equal(got.name, "exact");
    assert_near(got.c1, want.c1, 1e-9);
    assert_near(got.c2, want.c2, 1e-9);
    assert_near(got.embed, want.embed, 1e-12);
    assert_true(got.a == 6 && got.b == 0 && got.low == 0 && isinf(got.high));
    assert_true(got.worst < 1e-12 && got.rms <= got.worst);
    for (double n = 1e3; n < 1e13; n *= 50) {
        FlopShape s = flop_family_member(&f, n);
        assert_near(cost_law_per_token(&got, s.body + s.embed), flop_per_token(c, &s), 1e-9);
    }
    t.column[RUN_C][2] *= 1.1; /* one of another shape: said, by how much it is off */
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), 0);
    assert_true(got.worst > 0.05 && got.worst < 0.1 && got.rms > 0.02 && got.c2 >= 0);
    t.column[RUN_N_BODY][2] = NAN; /* a row that does not say all is not looked at */
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), 0);
    assert_true(got.worst < 1e-12);
    t.column[RUN_N_BODY][3] = 2 * t.column[RUN_N][3];
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), -1);
    run_table_clear(&t);
    t = family_runs(&f, 2);
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), -1);
    assert_non_null(strstr(e.message, "2 different N"));
    free(t.column[RUN_N_BODY]);
    t.column[RUN_N_BODY] = NULL;
    assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), -1);
    assert_non_null(strstr(e.message, "needs the column N_no_embed"));
    run_table_clear(&t);
}

/* No attention at all, a cost above the family's at large sizes: terms stay at 0 or above. */
static void test_exact_has_no_negative_terms(void **state)
{
    (void)state;
    FlopFamily f = {.kappa = 19.26, .ratio = 24, .vocab = 1024, .context = 256, .head = 8};
    for (int bend = -1; bend <= 1; bend++) {
        RunTable t = family_runs(&f, 6);
        CostLaw got;
        Err e = {0};
        for (int i = 0; i < 6; i++)
            t.column[RUN_C][i] = t.column[RUN_D][i] * 6 * t.column[RUN_N_BODY][i] *
                                 (1 + 0.1 * bend * (i - 2));
        assert_int_equal(cost_law_exact_of_runs(&got, &t, &e), 0);
        assert_true(got.c1 >= 0 && got.c2 >= 0);
        run_table_clear(&t);
    }
}

/* n^(1/3) is the root of x^3 + embed x = N, however small or large the embedding is. */
static void test_third(void **state)
{
    (void)state;
    for (double embed = 1e-30; embed < 1e15; embed *= 30)
        for (double N = 1; N < 1e15; N *= 30) {
            CostLaw law = {.a = 6, .embed = embed};
            double x = cost_law_third(&law, N);
            assert_near(x * x * x + embed * x, N, 1e-14);
        }
}

static void test_cost_text(void **state)
{
    (void)state;
    CostLaw law = cost_law_hunyuan();
    char text[COST_LAW_TEXT];
    assert_string_equal(cost_law_text(&law, text), "C = 9.59 N D + 2.3e+08 D, N from 1e+07 to "
                                                   "1e+09");
    law.b = -2e8;
    assert_non_null(strstr(cost_law_text(&law, text), "N D - 2e+08 D"));
    law = cost_law_6nd();
    assert_string_equal(cost_law_text(&law, text), "C = 6 N D, any N");
    law = (CostLaw){.a = 6, .c1 = 50, .c2 = 9000, .embed = 1100, .high = INFINITY};
    assert_string_equal(cost_law_text(&law, text), "C/D = 6 n + 50 n^(2/3) + 9000 n^(1/3), N = n + "
                                                   "1100 n^(1/3), any N");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_of_runs),
        cmocka_unit_test(test_exact_has_no_negative_terms),
        cmocka_unit_test(test_third),
        cmocka_unit_test(test_cost_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
