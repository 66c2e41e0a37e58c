/* tests/test_routing_losses.c - the losses on routing: known values, the P-penalty, losses within a
 * sequence, the sign of the entropy. Gradients are held against the oracle in test_ops_route*.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <math.h>

#include "tests/ref/harness.h"
#include "tests/routing.h"

static Device *device(void) { return rig_device(0); }

/* Uniform routing: l_aux = k with the group's own f, with a given one, for either kind of scores;
 * all tokens at one expert: E. */
static void balance_of_uniform_routing(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        Trial t = trial_new(64, 16, 2, 64, 64);
        float f[16];
        for (int e = 0; e < 16; e++) f[e] = 2.0f / 16;
        for (int64_t n = 0; n < 64; n++)
            for (int64_t j = 0; j < 2; j++) t.logits[n * 16 + (n + j * 5) % 16] = 3;
        t.more.score = kind & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
        if (kind & 2) t.balance_f = f;
        trial_run(device(), &t);
        assert_float_equal(t.stats[STAT_AUX], 2.0f, 1e-5);
        trial_free(&t);
    }
    Trial t = trial_new(64, 16, 1, 64, 4);
    for (int64_t i = 0; i < t.N * t.E; i++) t.logits[i] = i % 16 == 11 ? 40 : -40;
    t.more.score = SCORE_SIGMOID;
    trial_run(device(), &t);
    assert_float_equal(t.stats[STAT_AUX], 16.0f, 1e-4);
    trial_free(&t);
}

/* Experts of equal width: the P-penalty is the balance loss, bit by bit; unequal: E sum f w P. */
static void penalty_by_width(void **state)
{
    (void)state;
    Trial a = trial_busy(ROUTE_RECYCLE, 18, 18), b = trial_busy(ROUTE_RECYCLE, 18, 18);
    Trial c = trial_busy(ROUTE_RECYCLE, 18, 18);
    float even[12], uneven[12];
    for (int e = 0; e < 12; e++) even[e] = 1, uneven[e] = (float)(2 * e + 1) / 12;
    a.aux_scale = b.aux_scale = c.aux_scale = 0.3;
    b.balance_width = even;
    c.balance_width = uneven;
    trial_run_both(device(), &a, true);
    trial_run_both(device(), &b, true);
    trial_run_both(device(), &c, true);
    assert_null(trial_difference(&a, &b));
    for (int64_t g = 0; g < trial_groups(&c); g++) {
        double want = 0;
        for (int64_t e = 0; e < c.E; e++) {
            double P = 0;
            for (int64_t n = g * c.R; n < (g + 1) * c.R; n++) P += c.probs[n * c.E + e] / 80.0;
            want += 12 * c.count[g * c.E + e] / 80.0 * uneven[e] * P;
        }
        NEED(&c, fabs(c.stats[g * STAT_COUNT + STAT_AUX] - want) < 1e-5 * want);
    }
    trial_free(&a);
    trial_free(&b);
    trial_free(&c);
}

/* Groups as long as a sequence: every sequence has the loss that it has alone. */
static void loss_within_one_sequence(void **state)
{
    (void)state;
    Trial all = trial_busy(ROUTE_DROPLESS, 19, 18);
    all.more.score = SCORE_SIGMOID;
    trial_run(device(), &all);
    for (int64_t g = 0; g < trial_groups(&all); g++) {
        Trial one = trial_new(80, 12, 3, 80, 18);
        one.mode = ROUTE_DROPLESS;
        one.more.score = SCORE_SIGMOID;
        memcpy(one.logits, all.logits + g * 80 * 12, 80 * 12 * sizeof(float));
        trial_run(device(), &one);
        assert_true(one.stats[STAT_AUX] == all.stats[g * STAT_COUNT + STAT_AUX]);
        trial_free(&one);
    }
    trial_free(&all);
}

/* A step against the gradient of the entropy sharpens the router, and makes top-p take fewer. */
static void entropy_loss_sharpens(void **state)
{
    (void)state;
    for (int score = 0; score < 2; score++) {
        Trial t = trial_busy(ROUTE_DROPLESS, 20, 18);
        t.more.score = score;
        t.more.entropy_scale = 1;
        if (score == SCORE_SOFTMAX) t.more.top_p = 0.6;
        memset(t.dweight, 0, (size_t)(t.N * t.k) * sizeof(float));
        double before = 0, choices = 0;
        for (int step = 0; step < 4; step++) {
            trial_run_both(device(), &t, true);
            double H = trial_stat(&t, STAT_ENTROPY), made = trial_stat(&t, STAT_CHOICES);
            if (step) assert_true(H < before);
            if (step && score == SCORE_SOFTMAX) assert_true(made < choices);
            before = H;
            choices = made;
            for (int64_t i = 0; i < t.N * t.E; i++) t.logits[i] -= t.dlogits[i];
        }
        trial_free(&t);
    }
}

static void entropy_extremes(void **state)
{
    (void)state;
    for (int score = 0; score < 2; score++) {
        Trial t = trial_new(8, 16, 1, 8, 8);
        t.more.score = score;
        trial_run(device(), &t); /* uniform: log E */
        assert_float_equal(t.stats[STAT_ENTROPY], 8 * logf(16), 1e-4);
        for (int64_t i = 0; i < 8 * 16; i++) t.logits[i] = i % 16 == 3 ? 60 : -60;
        trial_run(device(), &t);
        assert_float_equal(t.stats[STAT_ENTROPY], 0, 1e-6);
        trial_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(balance_of_uniform_routing),
        cmocka_unit_test(penalty_by_width),
        cmocka_unit_test(loss_within_one_sequence),
        cmocka_unit_test(entropy_loss_sharpens),
        cmocka_unit_test(entropy_extremes),
    };
    return cmocka_run_group_tests_name("routing_losses", tests, NULL, NULL);
}
