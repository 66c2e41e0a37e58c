/* tests/test_noise.c - the gradient noise scale: moving averages, the value from the loss, known
 * noise found again from the norms of units, and which estimates are believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "base/philox.h"
#include "optim/noise.h"

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%.17g, expected %.17g", got, want);
}

/* A moving average that is free of its start: sum d^(t-i) v_i / sum d^(t-i); a constant is kept to
 * the last bit. */
static void test_average(void **state)
{
    static const double decays[] = {0, 0.5, 0.9, 0.99, 0.999999};
    (void)state;
    for (int k = 0; k < 5; k++) {
        double average = 0, constant = 0, above = 0, below = 0;
        for (int t = 1; t <= 300; t++) {
            double v = 1 + sin(t), weight = average_weight(decays[k], t);
            average += weight * (v - average);
            constant += weight * (1.0 / 3 - constant);
            above = decays[k] * above + v;
            below = decays[k] * below + 1;
            assert_near(average, above / below, 1e-9);
            assert_true(constant == 1.0 / 3);
        }
    }
}

static void test_noise_from_loss(void **state)
{
    (void)state;
    assert_near(noise_from_loss(2.1e8, 0.21, 1), 2.1e8, 1);
    assert_near(noise_from_loss(2.1e8, 0.21, 3), 2.1e8 / exp(log(3.0) / 0.21), 1e-3);
    assert_near(noise_from_loss(2.1e8, 0.21, 2) / noise_from_loss(2.1e8, 0.21, 4),
                pow(2, 1 / 0.21), 1e-9);
    assert_true(noise_from_loss(2.1e8, 0.21, 0) == 0);
    assert_true(noise_from_loss(2.1e8, 0.21, NAN) == 0);
    assert_true(noise_from_loss(2.1e8, 0.21, INFINITY) == 0);
    assert_true(noise_from_loss(2.1e8, 0.01, 1e-300) == 0); /* no number any more */
}

/* Gradients of `dims` numbers, a target's being `mean` plus normal noise of size `sigma`, in units
 * of these many targets. */
typedef struct Sample {
    int units, dims;
    double targets[8], mean, sigma;
    uint64_t draw;
} Sample;

static void sample_step(Sample *s, NoiseStep *step, double square[8])
{
    PhiloxKey key = {11, RNG_TEST, 0, 0};
    double all = 0;
    for (int j = 0; j < s->units; j++) all += s->targets[j];
    *step = (NoiseStep){.units = s->units, .square = square, .targets = s->targets, .tokens = all};
    memset(square, 0, 8 * sizeof *square);
    for (int i = 0; i < s->dims; i++) {
        double whole = 0;
        for (int j = 0; j < s->units; j++) { /* the unit's sum of targets / all of them */
            double m = s->targets[j];
            double noise = philox_normal(&key, (uint32_t)s->draw++);
            double part = (m * s->mean + sqrt(m) * s->sigma * noise) / all;
            square[j] += part * part;
            whole += part;
        }
        step->big += whole * whole;
    }
}

/* Known noise is found again, in equal and in unequal units. */
static void test_noise_found(void **state)
{
    Sample samples[] = {{.units = 2, .dims = 20, .targets = {50, 50}, .mean = 1, .sigma = 10},
                        {.units = 4, .dims = 10, .targets = {10, 90, 30, 70}, .mean = 0.5,
                         .sigma = 8},
                        {.units = 8, .dims = 30, .targets = {1, 1, 1, 1, 1, 1, 1, 1}, .mean = 1,
                         .sigma = 1}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        Sample *s = &samples[i];
        NoiseState n = {0};
        NoiseStep step;
        double square[8], want = s->sigma * s->sigma / (s->mean * s->mean);
        for (int t = 0; t < 4000; t++) {
            sample_step(s, &step, square);
            assert_true(noise_observe(&n, &step, 0.9999));
        }
        assert_near(n.tokens, want, 0.04 * want);
        assert_near(n.g2, s->dims * s->mean * s->mean, 0.04 * n.g2);
        assert_near(n.s, s->dims * s->sigma * s->sigma, 0.04 * n.s);
    }
}

/* Believed after NOISE_WARM steps, and only where signal and noise are positive: else the last good
 * estimate stays. A step that says nothing changes nothing. */
static void test_noise_usable(void **state)
{
    double square[] = {1, 1}, targets[] = {8, 8};
    NoiseStep good = {.units = 2, .square = square, .targets = targets, .big = 3, .tokens = 16};
    NoiseState n = {0}, before;
    (void)state;
    /* |G_small|^2 = 4: |G|^2 = 2 3 - 4 = 2, S = 16 (4 - 3) = 16 */
    for (int t = 1; t <= NOISE_WARM; t++) {
        assert_true(n.tokens == 0);
        assert_true(noise_observe(&n, &good, 0.9));
    }
    assert_true(n.g2 == 2 && n.s == 16 && n.tokens == 8 && n.steps == NOISE_WARM);
    before = n;
    NoiseStep bad = good;
    bad.big = NAN;
    assert_false(noise_observe(&n, &bad, 0.9));
    bad.big = INFINITY;
    assert_false(noise_observe(&n, &bad, 0.9));
    bad = good;
    bad.targets = (double[]){16, 0};
    assert_false(noise_observe(&n, &bad, 0.9));
    assert_memory_equal(&n, &before, sizeof n);
    bad = good;
    bad.big = 0; /* |G|^2 = -4: no signal */
    while (n.g2 > 0) assert_true(noise_observe(&n, &bad, 0.9));
    assert_true(n.s > 0 && n.tokens > 8);
    double held = n.tokens;
    assert_true(noise_observe(&n, &bad, 0.9) && n.tokens == held);
    bad.big = 9; /* units that agree better than their mean: S = -80 */
    while (n.s > 0) assert_true(noise_observe(&n, &bad, 0.9));
    held = n.tokens;
    assert_true(noise_observe(&n, &bad, 0.5) && n.tokens == held && n.g2 > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_average),        cmocka_unit_test(test_noise_from_loss),
        cmocka_unit_test(test_noise_found),    cmocka_unit_test(test_noise_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
