/* tests/test_sweep_config.c - SWEEP.yaml: defaults, lists, laws by name, what is refused. */
#include "tests/sweep_cells.h"

#include <math.h>

static void test_good(void **state)
{
    SweepConfig s;
    (void)state;
    read_sweep(&s, NULL);
    assert_string_equal(s.base, "configs/runs/tiny.yaml");
    assert_int_equal(s.n_budgets, 3);
    assert_true(s.budget[0] == 2e11 && s.budget[1] == 5e11 && s.budget[2] == 1.2e12);
    assert_int_equal(s.n_checks, 0);
    assert_int_equal(s.reuse, REUSE_TRUNK);
    assert_int_equal(s.seeds, 1);
    assert_int_equal(s.jobs, 1);
    assert_true(s.rate.law.lr.factor == 0.003 && s.batch.law.batch.factor == 512);
    assert_true(s.limits.ratio == 1.5 && s.rounding == 1.3 && s.retry_rate == 0.5);
    assert_int_equal(s.n_variants, 0);
}

/* Laws with the constants of their table, or of the file. */
static void test_laws(void **state)
{
    static const char *const step[] = {"rate.law=step_law", "rate.value=0", "batch.law=step_law",
                                       "batch.value=0", "rate.factor=0.5", NULL};
    static const char *const surge[] = {"rate.law=surge", "rate.value=0", "rate.eps_max=0.01",
                                        "rate.b_noise=1024", NULL};
    static const char *const power[] = {"rate.law=power", "rate.exp_n=-0.5", "rate.exp_d=0.25",
                                        "rate.total=true", NULL};
    SweepConfig s;
    (void)state;
    read_sweep(&s, step);
    assert_true(s.rate.law.lr.n == -0.713 && s.batch.law.batch.d == 0.571);
    assert_true(s.rate.law.total && s.rate.factor == 0.5);
    read_sweep(&s, surge);
    assert_true(s.rate.law.eps_max == 0.01 && s.rate.law.b_noise == 1024);
    read_sweep(&s, power);
    assert_true(s.rate.law.lr.factor == 0.003 && s.rate.law.lr.n == -0.5);
    assert_true(s.rate.law.lr.d == 0.25 && s.rate.law.total);
}

/* Hunyuan's published law at its own compute gives its 58.1 B. */
static void test_centre(void **state)
{
    static const char *const power[] = {"centre.prior=power", "centre.factor=3",
                                        "centre.exponent=0.5", "centre.tokens_per_param=20", NULL};
    static const char *const hunyuan[] = {"centre.prior=hunyuan", "centre.tokens_per_param=20",
                                          NULL};
    SweepConfig s;
    (void)state;
    read_sweep(&s, NULL);
    assert_true(fabs(sweep_centre(&s, 6e12) - sqrt(6e12 / 60)) < 1e-6);
    read_sweep(&s, power);
    assert_true(fabs(sweep_centre(&s, 1e12) - 3e6) < 1e-3);
    read_sweep(&s, hunyuan);
    assert_true(fabs(sweep_centre(&s, 3.11e24) / 58.1e9 - 1) < 1e-3);
}

static void test_refuses(void **state)
{
    static const struct {
        const char *words[4], *message;
    } cases[] = {
        {{"sweep.budgts=1"}, "unknown key 'sweep.budgts'; did you mean 'sweep.budgets'?"},
        {{"sweep.budgets=1e10 x"}, "sweep.budgets: 'x' is no number above 0"},
        {{"sweep.budgets=1e10,-1"}, "sweep.budgets: '-1' is no number above 0"},
        {{"sweep.budgets=1e10,inf"}, "sweep.budgets: 'inf' is no number above 0"},
        {{"sweep.budgets=1e10,1e10"}, "sweep.budgets: 1e+10 stands behind 1e+10: they must rise"},
        {{"sweep.budgets=, "}, "sweep.budgets: is empty"},
        {{"sweep.budgets=1e31"}, "sweep.budgets: 1e+31 is above 1e30"},
        {{"sweep.check_rates=1 2 3 4 5 6 7 8 9"}, "sweep.check_rates: more than 8 numbers"},
        {{"sweep.check_batches=0.5 x"}, "sweep.check_batches: 'x' is no number above 0"},
        {{"rate.law=fitted"}, "--rates N prints the section to paste: rate: {law: power, "},
        {{"batch.law=fitted"}, "batch.law: a fitted law is one of power"},
        {{"sweep.held_out=1"}, "sweep.held_out: 1 times the largest budget is not beyond it"},
        {{"sweep.base="}, "sweep.base: is empty"},
        {{"sweep.sizes=0"}, "sweep.sizes"},
        {{"sweep.cooldown=0"}, "sweep.cooldown: is 0"},
        {{"sweep.reuse=yes"}, "sweep.reuse"},
        {{"family.head_dim=5"}, "family.head_dim: 5 is odd"},
        {{"family.head_dim=6"}, "family.width_step: 4 is no multiple of family.head_dim 6"},
        {{"family.width_min=300"}, "family.width_min: 300 is above family.width_max 256"},
        {{"family.width_min=17", "family.width_max=19"}, "family.width_step: no multiple of 4"},
        {{"family.layers_min=200"}, "200 is above family.layers_max 128"},
        {{"centre.prior=power"}, "centre.factor (default): is needed with centre.prior power"},
        {{"centre.factor=2"}, "centre.factor: has an effect only with centre.prior power"},
        {{"centre.exponent=0.4"}, "centre.exponent: has an effect only with centre.prior power"},
        {{"centre.prior=hunyuan"}, "tokens_per_param: has an effect only with centre.prior ratio"},
        {{"centre.prior=power", "centre.factor=2"}, "only with centre.prior ratio"},
        {{"limits.epochs=2"}, "limits.epochs: has an effect only with limits.unique_tokens"},
        {{"limits.min_params=5", "limits.max_params=1"},
         "limits.min_params: 5 is above limits.max_params 1"},
        {{"limits.min_tokens=5", "limits.max_tokens=1"},
         "limits.min_tokens: 5 is above limits.max_tokens 1"},
        {{"limits.min_per_param=5", "limits.max_per_param=1"},
         "limits.min_per_param: 5 is above limits.max_per_param 1"},
        {{"rate.law=step"}, "rate.law: 'step' is none of constant, power, step_law, deepseek, "},
        {{"rate.law=step_law"}, "rate.value: has an effect only with rate.law constant or power"},
        {{"rate.exp_n=1"}, "rate.exp_n: has an effect only with rate.law power"},
        {{"rate.total=true"}, "rate.total: has an effect only with rate.law power"},
        {{"rate.value=0"}, "the law \"constant\" says nothing of the rate"},
        {{"rate.law=surge", "rate.value=0"}, "rate.law: the law \"surge\": eps_max is 0"},
        {{"rate.law=surge", "rate.value=0", "rate.eps_max=0.1"}, "b_noise is 0"},
        {{"rate.eps_max=0.1"}, "rate.eps_max: has an effect only with rate.law surge"},
        {{"batch.law=surge", "batch.value=0"}, "batch.law: the law \"surge\" says nothing of"},
        {{"batch.rounding=0.5"}, "batch.rounding"},
    };
    (void)state;
    write_file(at("sweep.yaml"), SWEEP_GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SweepConfig s;
        Err e = {0};
        int n = 0;
        while (n < 4 && cases[i].words[n]) n++;
        if (!sweep_config_read(&s, at("sweep.yaml"), cases[i].words, n, &e))
            fail_msg("case %zu is taken", i);
        assert_has(e.message, cases[i].message);
    }
}

/* The file's line is named; variants have names of their own. */
static void test_lines(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"variants: [{name: a}, {name: b}, {name: a}]\n",
         "sweep.yaml:9: variants[2].name: 'a' is the name of variant 0 too"},
        {"variants:\n  - {name: a b}\n", "sweep.yaml:10: variants[0].name: 'a b' is no name of"},
        {"variants:\n  - {name: a, override: x=1}\n", "did you mean 'variants[0].overrides'?"},
        {"limits: {ratio: 0.5}\n", "sweep.yaml:9: limits.ratio"},
        {"limits:\n  memory: 4G\n", "sweep.yaml:10: limits.memory"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SweepConfig s;
        Err e = {0};
        char text[4096];
        snprintf(text, sizeof text, "%s%s", SWEEP_GOOD, cases[i].text);
        write_file(at("sweep.yaml"), text);
        if (!sweep_config_read(&s, at("sweep.yaml"), NULL, 0, &e))
            fail_msg("case %zu is taken", i);
        assert_has(e.message, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_laws), cmocka_unit_test(test_centre),
        cmocka_unit_test(test_refuses), cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
