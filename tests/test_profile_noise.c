/* tests/test_profile_noise.c - known noise of runs: in the minima of isoFLOP curves, as weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "scaling/profile_noise.h"
#include "tests/boot_study.h"

static const StudyPlan plan = {.budgets = 5, .sizes = 9, .seeds = 1, .c_first = 1e18,
                               .c_last = 3e20, .spread = 4, .noise = 1e-4};

static double *column(RunTable *t, RunColumn c)
{
    t->column[c] = malloc((size_t)t->rows * sizeof(double));
    assert_non_null(t->column[c]);
    return t->column[c];
}

/* The study of a seed, with a column of noise: nats. */
static RunTable noisy(double sd, uint64_t seed)
{
    RunTable t = study(&plan, seed);
    double *noise = column(&t, RUN_NOISE);
    for (int64_t i = 0; i < t.rows; i++) noise[i] = sd;
    return t;
}

static ProfileNoise noise_of(const RunTable *t, ProfileMethod m, int replicates, int threads)
{
    ProfileNoiseOptions o = {.C = 1e21, .replicates = replicates, .level = 0.9, .threads = threads};
    ProfileNoise out;
    Err e = {0};
    if (profile_noise(t, NULL, m, &o, &out, &e)) fail_msg("%s", e.message);
    return out;
}

/* The parabola's minima are nearly linear in small noise, so that widths follow from each budget's
 * gain: of the line's exponent and of its value beyond the budgets. */
static void widths_of_parabolas(void **state)
{
    (void)state;
    RunTable t = noisy(5e-4, 1);
    Profile p;
    Err e = {0};
    double x0 = 0, sxx = 0, slope = 0, value = 0, z = 1.6449;
    assert_int_equal(profile_fit(&t, NULL, PROFILE_PARABOLA, PROFILE_TOLERANCE, &p, &e), 0);
    assert_int_equal(p.used, 5);
    for (int g = 0; g < 5; g++) x0 += log(p.budget[g].C) / 5;
    for (int g = 0; g < 5; g++) sxx += pow(log(p.budget[g].C) - x0, 2);
    for (int g = 0; g < 5; g++) {
        double a = (log(p.budget[g].C) - x0) / sxx, b = 0.2 + a * (log(1e21) - x0);
        slope += pow(a * p.budget[g].gain * 5e-4, 2);
        value += pow(b * p.budget[g].gain * 5e-4, 2);
    }
    ProfileNoise n = noise_of(&t, PROFILE_PARABOLA, 2000, 2);
    assert_int_equal(n.missing, 0);
    assert_near(n.sd, 5e-4, 1e-15);
    assert_near((n.n_exponent.high - n.n_exponent.low) / (2 * z * sqrt(slope)), 1, 0.06);
    assert_near(log(n.n_opt.high / n.n_opt.low) / (2 * z * sqrt(value)), 1, 0.06);
    assert_true(n.n_opt.low < power_law_at(&p.n_opt, 1e21) &&
                power_law_at(&p.n_opt, 1e21) < n.n_opt.high);
    assert_near(n.d_exponent.low, 1 - n.n_exponent.high, 2e-3); /* C = 6 N D */
    run_table_clear(&t);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    RunTable t = noisy(2e-3, 2);
    for (int m = PROFILE_PARABOLA; m <= (int)PROFILE_AKIMA; m++) {
        ProfileNoise one = noise_of(&t, (ProfileMethod)m, 50, 1);
        ProfileNoise three = noise_of(&t, (ProfileMethod)m, 50, 3);
        assert_memory_equal(&one, &three, sizeof one);
        assert_true(one.n_exponent.low < one.n_exponent.high);
    }
    run_table_clear(&t);
}

/* Noise of runs that differ by their seed is of ln L; a known one of a run goes before. */
static void noise_is_found(void **state)
{
    (void)state;
    StudyPlan seeds = plan;
    seeds.seeds = 2;
    seeds.noise = 3e-3;
    RunTable t = study(&seeds, 3);
    RunNoise pooled;
    Err e = {0};
    double sd[90], w[90], sum = 0;
    assert_int_equal(run_noise(&t, NULL, &pooled, &e), 0);
    assert_int_equal(run_noise_sd(&t, sd, &e), 0);
    for (int i = 0; i < 90; i++) assert_near(sd[i], pooled.sd * t.column[RUN_LOSS][i], 1e-15);
    assert_int_equal(run_noise_weights(&t, true, w, &e), 0);
    for (int i = 0; i < 90; i++) assert_near(w[i], 1, 1e-12);
    assert_int_equal(run_noise_weights(&t, false, w, &e), 0);
    for (int i = 0; i < 90; i++) sum += w[i] / 90;
    assert_near(sum, 1, 1e-12);
    assert_near(w[0] / w[89], pow(t.column[RUN_LOSS][89] / t.column[RUN_LOSS][0], 2), 1e-12);
    double *noise = column(&t, RUN_NOISE);
    for (int i = 0; i < 90; i++) noise[i] = i == 4 ? 0.5 : NAN;
    assert_int_equal(run_noise_sd(&t, sd, &e), 0);
    assert_true(sd[4] == 0.5 && sd[5] < 0.02);
    run_table_clear(&t);
    t = study(&plan, 3);
    t.line[7] = 42;
    assert_int_equal(run_noise_sd(&t, sd, &e), -1);
    assert_non_null(strstr(e.message, "no noise is known of the run in line"));
    ProfileNoiseOptions o = {.C = 1e21, .replicates = 10, .level = 0.9};
    ProfileNoise n;
    assert_int_equal(profile_noise(&t, NULL, PROFILE_AKIMA, &o, &n, &e), -1);
    run_table_clear(&t);
}

/* A third of the runs ten times as noisy: weighed by that, laws are nearer to the truth. */
static void weights_help(void **state)
{
    (void)state;
    double plain = 0, weighed = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        RunTable t = study(&plan, seed);
        PhiloxKey key = {.seed = seed, .purpose = RNG_TEST, .stream = 80};
        double *noise = column(&t, RUN_NOISE), w[45];
        Err e = {0};
        Fit a, b;
        FitOptions o = fit_options(FIT_VARPRO);
        for (uint32_t i = 0; i < 45; i++) {
            noise[i] = i % 3 ? 5e-4 : 2e-2;
            t.column[RUN_LOSS][i] = study_loss(t.column[RUN_N][i], t.column[RUN_D][i]) +
                                    noise[i] * philox_normal(&key, i);
        }
        assert_int_equal(run_noise_weights(&t, false, w, &e), 0);
        assert_near(w[1] / w[0], 1600, 1e-9);
        assert_int_equal(fit_law(&t, law_at(0), NULL, &o, &a, &e), 0);
        assert_int_equal(fit_law(&t, law_at(0), w, &o, &b, &e), 0);
        plain += pow(a.param[3] / study_truth[3] - 1, 2);
        weighed += pow(b.param[3] / study_truth[3] - 1, 2);
        run_table_clear(&t);
    }
    print_message("error of alpha: %.3g, weighed %.3g\n", sqrt(plain / 24), sqrt(weighed / 24));
    assert_true(weighed < 0.05 * plain);
}

/* Intervals of weighed fits, by draws of the noise, hold the truth as often as they say. */
static void weighed_intervals_hold(void **state)
{
    (void)state;
    int n = getenv("ISOMOE_LONG") ? 200 : fast() ? 20 : 40, inside[3] = {0};
    for (int k = 0; k < n; k++) {
        RunTable t = study(&plan, (uint64_t)(100 + k));
        PhiloxKey key = {.seed = (uint64_t)k, .purpose = RNG_TEST, .stream = 81};
        double *noise = column(&t, RUN_NOISE), w[45];
        Err e = {0};
        Fit f;
        FitOptions o = fit_options(FIT_VARPRO);
        BootOptions b = options(BOOT_NOISE, 200);
        Bootstrap boot;
        for (uint32_t i = 0; i < 45; i++) {
            noise[i] = i % 3 ? 2e-3 : 1e-2;
            t.column[RUN_LOSS][i] = study_loss(t.column[RUN_N][i], t.column[RUN_D][i]) +
                                    noise[i] * philox_normal(&key, i);
        }
        b.seed = (uint64_t)k;
        assert_int_equal(run_noise_weights(&t, false, w, &e), 0);
        assert_int_equal(fit_law(&t, law_at(0), w, &o, &f, &e), 0);
        if (bootstrap_run(&t, w, &f, &b, &boot, &e)) fail_msg("%s", e.message);
        const struct { const char *name; double truth; } what[] = {
            {"alpha", study_truth[3]}, {"beta", study_truth[4]}, {"E", study_truth[0]}};
        for (int q = 0; q < 3; q++) {
            Interval i = bootstrap_target(&boot, what[q].name, 0)->interval;
            inside[q] += i.low <= what[q].truth && what[q].truth <= i.high;
        }
        bootstrap_clear(&boot);
        run_table_clear(&t);
    }
    print_message("90 %% intervals hold alpha %d, beta %d, E %d of %d\n", inside[0], inside[1],
                  inside[2], n);
    for (int q = 0; q < 3; q++) assert_true(inside[q] >= 0.8 * n && inside[q] <= 0.98 * n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widths_of_parabolas),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(noise_is_found),
        cmocka_unit_test(weights_help),
        cmocka_unit_test(weighed_intervals_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
