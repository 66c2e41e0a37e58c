/* tests/test_data_reweight.c - dynamic weights: the published examples, their limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/philox.h"
#include "data/mixture.h"
#include "data/reweight.h"

enum { N = 7 }; /* cc, c4, github, wikipedia, book, arxiv, stack */

/* LLaMA-MoE's example: LLaMA's weights, losses of LLaMA-2-7B as references. */
static const double start[N] = {0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02};
static const double ref[N] = {1.691687, 2.074881, 0.698450, 1.589900, 1.925248, 1.240817, 1.497486};
static const double loss[N] = {1.728, 2.117, 0.705, 1.572, 2.071, 1.287, 1.491};

static void check(ReweightRule rule, const double want[N], double room)
{
    double w[N], sum = 0;
    Reweight how = {rule, 1, 1e-4};
    memcpy(w, start, sizeof w);
    reweight(&how, w, loss, ref, N);
    for (int s = 0; s < N; s++) {
        if (!(fabs(w[s] - want[s]) <= room))
            fail_msg("rule %d, source %d: %.8f, expected %.8f", rule, s, w[s], want[s]);
        sum += w[s];
    }
    assert_true(fabs(sum - 1) < 1e-15);
}

/* Six digits as published (the second of the first rule is printed .150602, so that the row's
 * digits add up to 1; the formula gives .15060254). */
static void test_published_examples(void **state)
{
    static const double code[N] = {.668748, .15060254, .043612, .042559, .050124, .025215, .019140};
    static const double paper[N] = {.668204, .150469, .043563, .043279, .050070, .025180, .019235};
    (void)state;
    check(REWEIGHT_SHEARED_LLAMA, code, 0.5e-6);
    check(REWEIGHT_SHEARED_LLAMA_PAPER, paper, 0.5e-6);
}

/* The formula itself, in long double, at random weights and losses. */
static void test_formula(void **state)
{
    PhiloxKey key = {8, RNG_TEST, 3, 0};
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        double w[N], l[N], r[N];
        long double want[N], sum = 0;
        int n = 1 + (int)(i % N), K = 0;
        Reweight how = {i % 2 ? REWEIGHT_SHEARED_LLAMA : REWEIGHT_SHEARED_LLAMA_PAPER,
                        philox_uniform(&key, 100 * i) * 3, philox_uniform(&key, 100 * i + 1) * 0.1};
        for (int s = 0; s < n; s++) {
            uint32_t at = 100 * i + 4 * (uint32_t)s;
            w[s] = s % 2 && i % 5 == 0 ? 0 : 5 * philox_uniform(&key, at + 10);
            l[s] = 4 * philox_uniform(&key, at + 11);
            r[s] = 4 * philox_uniform(&key, at + 12);
            long double d = (long double)l[s] - r[s];
            if (how.rule == REWEIGHT_SHEARED_LLAMA_PAPER && d < 0) d = 0;
            want[s] = w[s] * expl(how.eta * d);
            sum += want[s];
            K += w[s] > 0;
        }
        double c = how.rule == REWEIGHT_SHEARED_LLAMA ? how.smooth : 0;
        for (int s = 0; s < n; s++) want[s] = want[s] > 0 ? (1 - c) * want[s] / sum + c / K : 0;
        reweight(&how, w, l, r, n);
        for (int s = 0; s < n; s++)
            if (!(fabsl(w[s] - want[s]) <= 1e-14L))
                fail_msg("case %u, source %d: %.17g, expected %.17Lg", i, s, w[s], want[s]);
    }
}

/* Losses on their references change nothing; a source without a share gets none, whatever its loss;
 * far losses neither overflow nor leave a share that a mixture cannot give. */
static void test_limits(void **state)
{
    Reweight how = {REWEIGHT_SHEARED_LLAMA, 1, 0};
    double w[3] = {0.5, 0.25, 0.25}, even[3] = {1, 2, 3};
    (void)state;
    reweight(&how, w, even, even, 3);
    assert_true(w[0] == 0.5 && w[1] == 0.25 && w[2] == 0.25);
    double zero[3] = {3, 0, 1}, high[3] = {1, NAN, 1};
    how.smooth = 0.1;
    reweight(&how, zero, high, even, 3);
    assert_true(zero[1] == 0 && zero[0] + zero[2] == 1);
    for (int rule = REWEIGHT_SHEARED_LLAMA; rule <= REWEIGHT_SHEARED_LLAMA_PAPER; rule++) {
        double far[3] = {1, 1, 1}, apart[3] = {1e4, 0, -1e4}, none[3] = {0, 0, 0};
        Reweight strong = {(ReweightRule)rule, 1000, 0};
        Mixture m;
        Err e = {0};
        for (int i = 0; i < 3; i++) reweight(&strong, far, apart, none, 3);
        assert_true(far[0] > 0.99 && far[1] > 0 && far[2] > 0);
        if (mixture_make(&m, far, 3, &e)) fail_msg("%s", e.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_examples),
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
