/* tests/test_bootstrap.c - whole bootstraps: intervals of a fit's numbers. (Their parts:
 * test_resample.c; coverage: test_coverage.c; intervals of given numbers: test_interval.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <time.h>

#include "scaling/resample.h"
#include "tests/boot_study.h"

static Bootstrap boot(const RunTable *t, const Fit *f, const BootOptions *o)
{
    Err e = {0};
    Bootstrap b;
    if (bootstrap_run(t, NULL, f, o, &b, &e)) fail_msg("%s", e.message);
    return b;
}

/* ---- Whole bootstraps -------------------------------------------------------------------------*/

static void assert_same(const Bootstrap *a, const Bootstrap *b)
{
    assert_int_equal(a->targets, b->targets);
    for (int i = 0; i < a->targets; i++) {
        assert_string_equal(a->target[i].name, b->target[i].name);
        assert_memory_equal(a->target[i].by, b->target[i].by, sizeof a->target[i].by);
        assert_memory_equal(&a->target[i].sd, &b->target[i].sd, sizeof(double));
        assert_int_equal(a->target[i].missing, b->target[i].missing);
    }
    for (int r = 0; r < a->options.replicates; r++)
        assert_memory_equal(a->replicate[r].param, b->replicate[r].param,
                            sizeof a->replicate[r].param);
}

static void reverse(RunTable *t)
{
    for (int c = 0; c < RUN_COLUMNS; c++)
        for (int64_t i = 0; t->column[c] && i < t->rows / 2; i++) {
            double x = t->column[c][i];
            t->column[c][i] = t->column[c][t->rows - 1 - i];
            t->column[c][t->rows - 1 - i] = x;
        }
}

static void test_same_bits(void **state)
{
    StudyPlan plan = study_small;
    Err e = {0};
    double weight[60], turned[60];
    (void)state;
    plan.seeds = 2;
    for (int scheme = 0; scheme < BOOT_SCHEMES; scheme++) {
        RunTable t = study(&plan, 5), other = study(&plan, 5);
        BootOptions o = options((BootScheme)scheme, 40);
        Fit f = fit_of(&t, FIT_VARPRO);
        Bootstrap a, b;
        o.threads = 1;
        o.seed = 9;
        for (int i = 0; i < 60; i++) turned[59 - i] = weight[i] = i == 7 ? 0 : 1 + 0.1 * i;
        reverse(&other);
        assert_int_equal(bootstrap_run(&t, weight, &f, &o, &a, &e), 0);
        for (int threads = 1; threads <= 5; threads += 2) {
            o.threads = threads;
            assert_int_equal(bootstrap_run(&other, turned, &f, &o, &b, &e), 0);
            assert_same(&a, &b);
            bootstrap_clear(&b);
        }
        o.seed = 10;
        b = boot(&t, &f, &o);
        assert_true(a.target[0].sd != b.target[0].sd);
        bootstrap_clear(&a);
        bootstrap_clear(&b);
        run_table_clear(&t);
        run_table_clear(&other);
    }
}

/* Three schemes and the linearised fit agree on the spread, where there are many rows. */
static void test_schemes_agree(void **state)
{
    StudyPlan plan = study_240;
    (void)state;
    plan.sizes = 15;
    plan.seeds = 2;
    plan.noise = 0.001;
    RunTable t = study(&plan, 6);
    Fit f = fit_of(&t, FIT_VARPRO);
    for (int scheme = 0; scheme < BOOT_SCHEMES; scheme++) {
        BootOptions o = options((BootScheme)scheme, fast() ? 100 : 400);
        Bootstrap b = boot(&t, &f, &o);
        assert_int_equal(b.failed, 0);
        assert_int_equal(b.warm_worse, 0);
        assert_int_equal(b.warm_checked, 12);
        assert_int_equal(b.fits, o.replicates + 240 + 24);
        assert_int_equal(b.targets, 10);
        for (int i = 0; i < b.targets; i++) {
            const BootTarget *x = &b.target[i];
            if (fabs(x->sd / x->se - 1) > (fast() ? 0.3 : 0.2))
                fail_msg("%s of %s: sd %g, linearised %g", x->name,
                         boot_scheme_name(o.scheme), x->sd, x->se);
            assert_near(x->mean, x->value, x->sd);
            for (int m = 0; m < INTERVAL_METHODS; m++) {
                double width = (x->by[m].high - x->by[m].low) / (2 * 1.645 * x->sd);
                if (!(width > 0.7 && width < 1.4)) fail_msg("%s: width %g", x->name, width);
                assert_true(x->by[m].low < x->value && x->value < x->by[m].high);
            }
            assert_memory_equal(&x->interval, &x->by[INTERVAL_STUDENT], sizeof x->interval);
        }
        bootstrap_clear(&b);
    }
    run_table_clear(&t);
}

/* alpha/beta and N_opt at the truth's closed form; b = 1 - a for C = 6 N D. */
static void test_targets(void **state)
{
    StudyPlan plan = study_small;
    (void)state;
    plan.noise = 1e-7;
    RunTable t = study(&plan, 8);
    Fit f = fit_of(&t, FIT_VARPRO);
    BootOptions o = options(BOOT_RESIDUALS, 20);
    o.budgets = 2;
    o.budget[0] = 1e20;
    o.budget[1] = 1e22;
    Bootstrap b = boot(&t, &f, &o);
    assert_int_equal(b.targets, 15);
    const double *p = study_truth;
    for (int i = 0; i < 2; i++) {
        const BootTarget *n = bootstrap_target(&b, "N_opt", o.budget[i]);
        const BootTarget *d = bootstrap_target(&b, "D_opt", o.budget[i]);
        const BootTarget *x = bootstrap_target(&b, "a", o.budget[i]);
        double N = study_n_opt(o.budget[i]);
        assert_near(n->value, N, 1e-3 * N);
        assert_near(d->value, o.budget[i] / 6 / n->value, 1e-9 * d->value);
        assert_near(x->value, p[4] / (p[3] + p[4]), 1e-3);
        assert_near(bootstrap_target(&b, "b", o.budget[i])->value, 1 - x->value, 1e-6);
        assert_near(bootstrap_target(&b, "L", o.budget[i])->value,
                    study_loss(N, o.budget[i] / 6 / N), 1e-5);
        assert_true(n->interval.low < n->value && n->value < n->interval.high);
    }
    assert_near(bootstrap_target(&b, "alpha", 0)->value, p[3], 1e-3);
    assert_null(bootstrap_target(&b, "gamma", 0));
    bootstrap_clear(&b);
    run_table_clear(&t);
}

/* The short way to an optimum ends where the long one does; led astray, it takes the long one. */
static void test_optimum_near(void **state)
{
    static const double off[] = {0.7, 0.96, 0.999, 1, 1.0001, 1.02, 1.04, 30};
    RunTable t = study(&study_240, 6);
    Fit f = fit_of(&t, FIT_VARPRO);
    CostLaw cost[] = {cost_law_6nd(), cost_law_hunyuan()};
    LawPoint at = {{0}};
    Err e = {0};
    (void)state;
    for (double C = 1e18; C < 1e26; C *= 37)
        for (int i = 0; i < 16; i++) {
            Optimum want, got;
            assert_int_equal(optimum_find(&f, &cost[i % 2], C, &at, &want, &e), 0);
            assert_int_equal(optimum_near(&f, &cost[i % 2], C, &at, want.N * off[i / 2], &got, &e),
                             0);
            assert_near(got.N, want.N, 1e-11 * want.N);
            assert_near(got.D, want.D, 1e-11 * want.D);
            assert_near(got.loss, want.loss, 1e-14 * want.loss);
            assert_true(got.C == C && got.outside == want.outside);
        }
    run_table_clear(&t);
}

/* ln L = c0 + c1 sin(w ln N): a search for w that begins far off ends far off. */
static void phi_wave(const double *shape, const LawPoint *p, double *phi, double *dphi)
{
    double x = log(p->x[RUN_N]);
    phi[0] = 1;
    phi[1] = sin(shape[0] * x);
    if (!dphi) return;
    dphi[0] = 0;
    dphi[1] = x * cos(shape[0] * x);
}

static const Law wave = {.name = "wave", .kind = LAW_LOG, .columns = 1u << RUN_N | 1u << RUN_LOSS,
                         .n_terms = 2, .n_shape = 1, .term = {"c0", "c1"},
                         .shape = {{"w", 0.5, 12, 6, 8}}, .phi = phi_wave};

typedef struct Heard { /* of the progress */
    int calls;
    double last, seconds;
} Heard;

static void hear(void *self, double share, double seconds)
{
    Heard *h = self;
    assert_true(share >= h->last && share <= 1 && seconds >= 0 && isfinite(seconds));
    h->calls++;
    h->last = share;
    h->seconds = seconds;
}

/* Warm starts that lead to worse answers are noticed, and replicates are fitted from more. */
static void test_warm_is_checked(void **state)
{
    FitOptions o = fit_defaults();
    BootOptions b = options(BOOT_CASES, 30);
    RunTable t;
    Fit f;
    Err e = {0};
    (void)state;
    assert_int_equal(run_table_make(&t, 40, wave.columns, &e), 0);
    for (int i = 0; i < 40; i++) {
        PhiloxKey key = {.seed = 4, .purpose = RNG_TEST};
        double x = i * 0.15, noise = 0.05 * philox_normal(&key, (uint32_t)i);
        t.column[RUN_N][i] = exp(x);
        t.column[RUN_LOSS][i] = exp(1 + 0.3 * sin(7 * x) + noise);
    }
    o.threads = 1;
    assert_int_equal(fit_law(&t, &wave, NULL, &o, &f, &e), 0);
    assert_near(f.param[2], 7, 0.1);
    for (int lost = 0; lost < 2; lost++) {
        Heard heard = {0};
        b.threads = 1;
        b.progress = hear;
        b.progress_self = &heard;
        if (lost) f.param[2] = 2;
        Bootstrap x = boot(&t, &f, &b);
        assert_int_equal(heard.calls, 2 + 30 + 40);
        assert_true(heard.last == 1 && heard.seconds == 0);
        assert_int_equal(x.starts, lost ? 4 : 1);
        assert_int_equal(x.fits, 30 + 40 + (lost ? 36 : 24));
        assert_int_equal(x.warm_checked, 12);
        assert_int_equal(x.warm_worse, lost ? 12 : 0);
        assert_int_equal(x.failed, 0);
        for (int r = 0; r < 30; r++) assert_near(x.replicate[r].param[2], 7, 0.15);
        bootstrap_clear(&x);
    }
    run_table_clear(&t);
}

/* Eight rows: some draws have fewer different ones than the law has parameters. */
static void test_failures_are_counted(void **state)
{
    StudyPlan plan = {.budgets = 2, .sizes = 4, .seeds = 1, .c_first = 1e18, .c_last = 1e20,
                      .spread = 4, .noise = 1e-3};
    RunTable t = study(&plan, 3);
    Fit f = fit_of(&t, FIT_VARPRO);
    BootOptions o = options(BOOT_CASES, 200);
    int few = 0;
    Err e = {0};
    Resample r;
    Linear l;
    (void)state;
    assert_int_equal(resample_make(&t, NULL, &f, &o, &r, &l, &e), 0);
    for (int rep = 0; rep < 200; rep++) {
        double weight[8], loss[8];
        int rows = 0;
        resample_draw(&r, rep, weight, loss);
        for (int i = 0; i < 8; i++) rows += weight[i] > 0;
        few += rows < 5;
    }
    resample_end(&r);
    assert_true(few > 10 && few < 100);
    Bootstrap b = boot(&t, &f, &o);
    assert_int_equal(b.failed, few);
    assert_true(b.target[0].missing >= few);
    /* More than 5 % lack a value: no interval of 90 % is claimed. */
    assert_true(isnan(b.target[3].interval.low) && isnan(b.target[3].by[0].high));
    bootstrap_clear(&b);
    run_table_clear(&t);
}

static void expect_error(const RunTable *t, const Fit *f, const BootOptions *o, const char *words)
{
    Err e = {0};
    Bootstrap b;
    assert_int_equal(bootstrap_run(t, NULL, f, o, &b, &e), -1);
    if (!strstr(e.message, words)) fail_msg("\"%s\" lacks \"%s\"", e.message, words);
    bootstrap_clear(&b);
}

static void test_errors(void **state)
{
    RunTable t = study(&study_small, 3);
    Fit f = fit_of(&t, FIT_VARPRO);
    BootOptions o = options(BOOT_NOISE, 10);
    (void)state;
    expect_error(&t, &f, &o, "no noise is known");
    o = options(BOOT_CASES, 1);
    expect_error(&t, &f, &o, "replicates 1");
    o = options(BOOT_CASES, 10);
    o.level = 1;
    expect_error(&t, &f, &o, "level 1");
    o.level = 0.9;
    o.budgets = 1;
    o.budget[0] = -3;
    expect_error(&t, &f, &o, "budget -3");
    for (int s = 0; s < BOOT_SCHEMES; s++)
        assert_int_equal(boot_scheme_find(boot_scheme_name((BootScheme)s)), s);
    assert_int_equal(boot_scheme_find("jackknife"), -1);
    run_table_clear(&t);
}

/* 1,000 replicates of 240 runs in 10 s of two cores: of processor time, since the machine may be
 * shared, and by the work done. */
static void test_thousand(void **state)
{
    if (fast()) skip();
    RunTable t = study(&study_240, 1);
    Fit f = fit_of(&t, FIT_VARPRO);
    BootOptions o = options(BOOT_RESIDUALS, 1000);
    struct timespec from, to;
    (void)state;
    clock_t cpu = clock();
    clock_gettime(CLOCK_MONOTONIC, &from);
    Bootstrap b = boot(&t, &f, &o);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double s = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    double busy = (double)(clock() - cpu) / CLOCKS_PER_SEC;
    print_message("1,000 replicates of 240 runs on two threads: %.2f s, %.2f s of processor, %ld "
                  "fits\n", s, busy, (long)b.fits);
    assert_int_equal(b.failed, 0);
    assert_int_equal(b.fits, 1000 + 240 + 24);
    assert_true(busy < 20);
    bootstrap_clear(&b);
    run_table_clear(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),       cmocka_unit_test(test_schemes_agree),
        cmocka_unit_test(test_targets),         cmocka_unit_test(test_optimum_near),
        cmocka_unit_test(test_warm_is_checked), cmocka_unit_test(test_failures_are_counted),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_thousand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
