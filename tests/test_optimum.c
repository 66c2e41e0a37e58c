/* tests/test_optimum.c - the best N and D of a budget: against the closed form, against the way's
 * neighbours, exponents, published numbers, what has no optimum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "scaling/optimum.h"
#include "scaling/published.h"
#include "tests/fit_tables.h"

/* A fit with these parameters, as if made. */
static Fit fit_of(const Surface *s)
{
    Fit f = {.law = law_find("chinchilla"),
             .param = {s->E, s->A, s->B, s->alpha, s->beta}};
    return f;
}

static const LawPoint nowhere = {{NAN, NAN, NAN}};

static Optimum best_of(const Fit *f, const CostLaw *cost, double C, const LawPoint *at)
{
    Optimum o;
    Err e = {0};
    if (optimum_find(f, cost, C, at, &o, &e)) fail_msg("%s", e.message);
    return o;
}

static void test_closed_form(void **state)
{
    (void)state;
    static const Surface *const surfaces[] = {&surface_published, &surface_symmetric,
                                              &surface_asymmetric};
    CostLaw cost = cost_law_6nd();
    for (int s = 0; s < 3; s++)
        for (double C = 1e16; C < 1e28; C *= 31) {
            Fit f = fit_of(surfaces[s]);
            Optimum o = best_of(&f, &cost, C, &nowhere);
            double N = surface_n_opt(surfaces[s], C), a, b;
            Err e = {0};
            near("N_opt", o.N, N, 1e-11);
            near("D_opt", o.D, C / (6 * N), 1e-11);
            near("loss", o.loss, surface_loss(surfaces[s], N, C / (6 * N)), 1e-13);
            assert_true(o.C == C && !o.outside);
            assert_int_equal(optimum_exponents(&f, &cost, C, &nowhere, &a, &b, &e), 0);
            double sum = surfaces[s]->alpha + surfaces[s]->beta;
            near("a", a, surfaces[s]->beta / sum, 1e-9);
            near("b", b, surfaces[s]->alpha / sum, 1e-9);
        }
}

/* Along a cost C = D g(N) the terms' derivatives by ln N are -alpha A/N^alpha and beta B/D^beta
 * d ln g / d ln N: equal in size at the optimum. */
static void test_other_costs(void **state)
{
    (void)state;
    static const CostLaw costs[] = {
        {.name = "hunyuan", .a = 9.59, .b = 2.3e8, .low = 1e7, .high = 1e9},
        {.name = "steep", .a = 6, .b = 1e12, .high = INFINITY},
        {.name = "embeddings", .a = 6, .b = -1e8, .high = INFINITY},
        {.name = "exact", .a = 6, .b = 1e8, .c1 = 3e4, .c2 = 2e6, .low = 1e8, .high = 1e10}};
    const Surface *s = &surface_published;
    for (int c = 0; c < 4; c++)
        for (double C = 1e18; C < 1e26; C *= 100) {
            Fit f = fit_of(s);
            Optimum o = best_of(&f, &costs[c], C, &nowhere);
            double third = cbrt(o.N), aN = costs[c].a * o.N, c1 = costs[c].c1 * third * third;
            double c2 = costs[c].c2 * third, g = aN + costs[c].b + c1 + c2;
            near("cost", g * o.D, C, 1e-12);
            near("slopes", s->alpha * s->A / pow(o.N, s->alpha),
                 s->beta * s->B / pow(o.D, s->beta) * (aN + c1 * 2 / 3 + c2 / 3) / g, 1e-11);
            assert_int_equal(o.outside, o.N < costs[c].low || o.N > costs[c].high);
        }
}

/* From near by, and from far off, the same optimum. */
static void test_near(void **state)
{
    (void)state;
    Fit dense = fit_of(&surface_asymmetric);
    Fit all = {.law = law_find("krajewski"), .param = {0.5, 18.1, 2, 30.8, 0.115, 0.147, 0.58}};
    LawPoint at = nowhere;
    at.x[RUN_GRANULARITY] = 4;
    at.x[RUN_N] = 1e8;
    at.x[RUN_N_TOTAL] = 5e8;
    CostLaw cost = cost_law_hunyuan();
    for (int law = 0; law < 2; law++)
        for (double far = -1; far < 1.05; far += 0.0625) {
            const Fit *f = law ? &all : &dense;
            Optimum want = best_of(f, &cost, 1e22, &at), got;
            Err e = {0};
            double N = want.N * exp(far * 0.1);
            assert_int_equal(optimum_near(f, &cost, 1e22, &at, N, &got, &e), 0);
            near("N", got.N, want.N, 1e-11);
            near("D", got.D, want.D, 1e-11);
            near("loss", got.loss, want.loss, 1e-13);
            assert_int_equal(got.outside, want.outside);
        }
}

/* Exponents where the cost isn't a power: from optima at C e^+-1e-4. */
static void test_exponents(void **state)
{
    (void)state;
    Fit f = fit_of(&surface_published);
    CostLaw cost = cost_law_hunyuan();
    for (double C = 1e17; C < 1e24; C *= 100) {
        double a, b;
        Err e = {0};
        Optimum up = best_of(&f, &cost, C * exp(1e-4), &nowhere);
        Optimum down = best_of(&f, &cost, C * exp(-1e-4), &nowhere);
        assert_int_equal(optimum_exponents(&f, &cost, C, &nowhere, &a, &b, &e), 0);
        near("a", a, log(up.N / down.N) / 2e-4, 1e-6);
        near("b", b, log(up.D / down.D) / 2e-4, 1e-6);
    }
}

static void test_outside(void **state)
{
    (void)state;
    Fit f = fit_of(&surface_published);
    CostLaw cost = cost_law_hunyuan();
    near("a", cost.a, 9.59, 0);
    near("b", cost.b, 2.3e8, 0);
    assert_false(best_of(&f, &cost, 1e20, &nowhere).outside);
    assert_true(best_of(&f, &cost, 1e24, &nowhere).outside);
    assert_true(best_of(&f, &cost, 1e12, &nowhere).outside);
}

/* Laws that count all parameters: N is what costs, N_total / N stays as given. */
static void test_total(void **state)
{
    (void)state;
    const Law *law = law_find("krajewski");
    assert_non_null(law);
    Fit f = {.law = law, .param = {0.5, 18.1, 0, 30.8, 0.115, 0.147, 0.58}};
    CostLaw cost = cost_law_6nd();
    LawPoint at = nowhere;
    at.x[RUN_GRANULARITY] = 4;
    Surface s = {0.5, 18.1, 30.8, 0.115, 0.147};
    near("N", best_of(&f, &cost, 1e22, &at).N, surface_n_opt(&s, 1e22), 1e-11);
    at.x[RUN_N] = 1e8;
    at.x[RUN_N_TOTAL] = 5e8;
    s.A *= pow(5, -s.alpha);
    near("N of a fifth", best_of(&f, &cost, 1e22, &at).N, surface_n_opt(&s, 1e22), 1e-11);
}

/* A law without D: N is what the budget buys with the D that is held, under any cost. */
static void test_held(void **state)
{
    (void)state;
    Fit f = {.law = law_find("clark"), .param = {-0.082, -0.108, 0.009, 1.104, 1.847, 314.478}};
    static const CostLaw costs[] = {
        {.name = "6ND", .a = 6, .high = INFINITY},
        {.name = "hunyuan", .a = 9.59, .b = 2.3e8, .low = 1e7, .high = 1e9},
        {.name = "exact", .a = 6, .c1 = 3e4, .c2 = 2e6, .embed = 1e5, .high = INFINITY}};
    LawPoint at = nowhere;
    Optimum o;
    Err e = {0};
    at.x[RUN_EXPERTS] = 64;
    assert_int_equal(optimum_find(&f, &costs[0], 1e21, &at, &o, &e), -1);
    assert_non_null(strstr(e.message, "clark does not read D"));
    at.x[RUN_D] = 1.3e11;
    for (int c = 0; c < 3; c++)
        for (double C = 1e20; C < 1e26; C *= 31) {
            double a, b, g;
            assert_int_equal(optimum_find(&f, &costs[c], C, &at, &o, &e), 0);
            assert_true(o.D == 1.3e11);
            near("cost", cost_law_per_token(&costs[c], o.N) * o.D, C, 1e-12);
            assert_int_equal(o.outside, o.N < costs[c].low || o.N > costs[c].high);
            LawPoint p = at;
            p.x[RUN_N] = o.N;
            near("loss", o.loss, fit_loss(&f, &p), 0);
            Optimum n;
            assert_int_equal(optimum_near(&f, &costs[c], C, &at, 3 * o.N, &n, &e), 0);
            near("N", n.N, o.N, 0);
            g = cost_law_per_token(&costs[c], o.N);
            double slope = (cost_law_per_token(&costs[c], o.N * 1.0001) / g - 1) / 1e-4;
            assert_int_equal(optimum_exponents(&f, &costs[c], C, &at, &a, &b, &e), 0);
            near("a", a, 1 / slope, 1e-3);
            near("b + 1", b + 1, 1, 1e-12);
        }
    assert_int_equal(optimum_find(&f, &costs[1], 1e19, &at, &o, &e), -1);
    assert_non_null(strstr(e.message, "do not buy one parameter"));
}

static void refused(const Surface *s, double C, const char *words)
{
    Fit f = fit_of(s);
    CostLaw cost = cost_law_6nd();
    Optimum o;
    double a, b;
    Err e = {0};
    assert_int_equal(optimum_find(&f, &cost, C, &nowhere, &o, &e), -1);
    if (!strstr(e.message, words)) fail_msg("\"%s\" lacks \"%s\"", e.message, words);
    assert_int_equal(optimum_exponents(&f, &cost, C, &nowhere, &a, &b, &e), -1);
}

static void test_refusals(void **state)
{
    (void)state;
    refused(&(Surface){1.7, 0, 400, 0.3, 0.3}, 1e20, "doesn't fall in N");
    refused(&(Surface){1.7, 400, 0, 0.3, 0.3}, 1e20, "doesn't fall in D");
    /* Billions taken for parameters: the law falls in both, but the best N is no parameter. */
    refused(&(Surface){1.7, 0.3, 0.9, 0.35, 0.37}, 100,
            "best N for a budget of 100 FLOPs lies below 1 parameters");
    refused(&(Surface){1.7, 4e5, 0.01, 0.34, 0.28}, 1e6, "best D for a budget of 1e+06 FLOPs lies");
    refused(&surface_published, 0, "budget of 0");
    refused(&surface_published, NAN, "budget of nan");
    refused(&(Surface){NAN, 400, 400, 0.3, 0.3}, 1e20, "no finite loss");
}

/* Hunyuan-Large: 58.1 B activated parameters and 5.6 T tokens, at C_min = 3.11e24; the cost law
 * with both gives that budget back. */
static void test_hunyuan(void **state)
{
    (void)state;
    double C = hunyuan_budget(58.1e9);
    near("C_min", C, 3.109e24, 1e-3);
    near("N_opt", hunyuan_n_opt(C), 58.1e9, 1e-12);
    near("D_opt", hunyuan_d_opt(C), 5.642e12, 1e-3);
    near("N_opt at 5e18", hunyuan_n_opt(5e18), 49.05e6, 1e-3);
    near("D_opt at 9.5e19", hunyuan_d_opt(9.5e19), 31.19e9, 1e-3);
    near("cost of 52 B, 7 T", hunyuan_compute(52e9, 7e12), 3.4924e24, 1e-4);
    CostLaw cost = cost_law_hunyuan();
    near("cost law", cost.a * 52e9 * 7e12 + cost.b * 7e12, hunyuan_compute(52e9, 7e12), 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_form), cmocka_unit_test(test_other_costs),
        cmocka_unit_test(test_exponents),   cmocka_unit_test(test_outside),
        cmocka_unit_test(test_total),
        cmocka_unit_test(test_held),       cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hunyuan),     cmocka_unit_test(test_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
