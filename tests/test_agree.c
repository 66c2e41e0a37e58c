/* tests/test_agree.c - methods that disagree: sound studies are left alone but for chance, biased
 * ones are not. ISOMOE_LONG=1: hundreds of studies, the rates printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/boot_study.h"
#include "train/fit_answer.h"

typedef struct Case {
    const char *name;
    StudyPlan plan;
    double off, power; /* sizes: the best one times off (C / first C)^power, within the spread */
    double bend;       /* added to beta: makes the surface less symmetric */
} Case;

static double best_n(const Case *c, double C)
{
    const double *p = study_truth, beta = p[4] + c->bend;
    double g = pow(p[3] * p[1] / (beta * p[2]), 1 / (p[3] + beta));
    return g * pow(C / 6, beta / (p[3] + beta));
}

/* study_row's table, with the case's sizes and surface. */
static RunTable made_up(const Case *c, uint64_t seed)
{
    const StudyPlan *s = &c->plan;
    const double *p = study_truth;
    RunTable t = study(s, seed);
    PhiloxKey key = {.seed = seed, .purpose = RNG_TEST, .stream = 79};
    for (int64_t i = 0; i < t.rows; i++) {
        int size = (int)(i / s->seeds % s->sizes), b = (int)(i / s->seeds / s->sizes);
        double C = study_budget(s, b), share = 2.0 * size / (s->sizes - 1) - 1;
        double N = best_n(c, C) * c->off * pow(C / s->c_first, c->power) * pow(s->spread, share);
        double D = C / 6 / N, z = s->noise * philox_normal(&key, (uint32_t)i);
        t.column[RUN_N][i] = N;
        t.column[RUN_D][i] = D;
        t.column[RUN_C][i] = t.column[RUN_BUDGET][i] = C;
        t.column[RUN_LOSS][i] =
            (p[0] + p[1] * pow(N, -p[3]) + p[2] * pow(D, -p[4] - c->bend)) * exp(z);
    }
    run_table_sort(&t);
    return t;
}

/* Which methods the fit of one study warns of: bits of AnswerMethod. */
static int disagree(const Case *c, AnswerMethod method, uint64_t seed)
{
    static FitAnswer a;
    FitRequest r = fit_request_defaults("made up");
    RunTable t = made_up(c, seed);
    Err e = {0};
    int out = 0;
    r.replicates = 0;
    r.threads = 2;
    r.method = method;
    r.seed = seed;
    if (fit_answer_of(&a, &r, &t, &e)) fail_msg("%s", e.message);
    for (int i = 0; i < a.warnings; i++)
        for (int m = 0; m < ANSWER_METHODS; m++) {
            char says[32];
            snprintf(says, sizeof says, ", %s says", answer_method_name((AnswerMethod)m));
            if (a.warning[i].kind == ANSWER_DISAGREE && strstr(a.warning[i].text, says))
                out |= 1 << m;
        }
    fit_answer_clear(&a);
    return out;
}

/* Of n studies: with a warning, and of which method. */
static int count(const Case *c, AnswerMethod method, int n, int of[ANSWER_METHODS])
{
    int any = 0;
    memset(of, 0, ANSWER_METHODS * sizeof *of);
    for (int i = 0; i < n; i++) {
        int bits = disagree(c, method, (uint64_t)(5000 + i));
        any += bits != 0;
        for (int m = 0; m < ANSWER_METHODS; m++) of[m] += bits >> m & 1;
    }
    print_message("%-34s %-8s %d of %d: huber %d, parabola %d, akima %d\n", c->name,
                  answer_method_name(method), any, n, of[ANSWER_HUBER], of[ANSWER_PARABOLA],
                  of[ANSWER_AKIMA]);
    return any;
}

#define PLAN(b, s, k, x) {.budgets = b, .sizes = s, .seeds = 1, .c_first = 1e18, .c_last = 3e20,  \
                          .spread = k, .noise = x}

static const Case sound[] = {
    {"5 x 6, factor 4, noise 0.002", PLAN(5, 6, 4, 0.002), 1, 0, 0},
    {"4 x 5, factor 3, noise 0.005", PLAN(4, 5, 3, 0.005), 1, 0, 0},
    {"5 x 7, factor 3, noise 0.001", PLAN(5, 7, 3, 0.001), 1.1, 0, 0},
    {"4 x 5, factor 2.5, noise 0.002", PLAN(4, 5, 2.5, 0.002), 1, 0, 0},
    {"6 x 9, factor 4, noise 0.004", PLAN(6, 9, 4, 0.004), 1.2, 0, 0},
};

static const Case biased[] = {
    {"off centre by 3", PLAN(5, 15, 4, 2e-4), 3, 0, 0},
    {"centres that drift", PLAN(5, 15, 4, 2e-4), 0.8, 0.25, 0},
    {"asymmetric, factor 8", PLAN(5, 15, 8, 5e-4), 1, 0, -0.2},
};

enum { SOUND = sizeof sound / sizeof *sound, BIASED = sizeof biased / sizeof *biased };

static void sound_studies_are_left_alone(void **state)
{
    (void)state;
    bool whole = getenv("ISOMOE_LONG") != NULL;
    int n = whole ? 200 : 8, of[ANSWER_METHODS], all = 0;
    for (int i = 0; i < SOUND; i++) {
        int any = count(&sound[i], ANSWER_VARPRO, n, of);
        all += any;
        if (whole && any > 0.08 * n) fail_msg("%s: %d of %d", sound[i].name, any, n);
    }
    print_message("in all %d of %d\n", all, SOUND * n);
    if (all > 0.05 * SOUND * n) fail_msg("%d false alarms of %d", all, SOUND * n);
}

static void biased_studies_are_not(void **state)
{
    (void)state;
    int n = getenv("ISOMOE_LONG") ? 100 : 4, of[ANSWER_METHODS];
    for (int i = 0; i < BIASED; i++) {
        count(&biased[i], ANSWER_VARPRO, n, of);
        if (of[ANSWER_PARABOLA] < 0.9 * n) fail_msg("%s: %d of %d", biased[i].name, of[2], n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sound_studies_are_left_alone),
                                       cmocka_unit_test(biased_studies_are_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
