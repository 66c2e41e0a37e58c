/* tests/test_cells.c - the cells of a study: exact FLOPs, shared trunks, laws, limits, identities,
 * variants. What is added to a study: test_cells_more. */
#include "tests/sweep_cells.h"

#include <math.h>

#include "model/count.h"
#include "scaling/cell_build.h"
#include "scaling/cell_law.h"
#include "train/plan.h"

/* Every number of a cell is what `isomoe plan` says of its configuration. */
static void test_numbers(void **state)
{
    SweepConfig s;
    CellList l;
    (void)state;
    CELLS(&s, &l, "sweep.budgets=3e11,9e11");
    for (int i = 0; i < l.count; i++) {
        const Cell *c = &l.cell[i];
        char text[CELL_OVERRIDES];
        const char *words[SWEEP_WORDS];
        static Plan p;
        Err e = {0};
        if (c->left_out[0]) fail_msg("%s: %s", c->name, c->left_out);
        memcpy(text, c->overrides, sizeof text);
        int n = sweep_words(text, words);
        if (plan_make(&p, s.base, words, n, &(PlanOptions){0}, &e)) fail_msg("%s", e.message);
        assert_true(c->C == p.run_flops && c->D == p.run_tokens);
        assert_true(c->N == (double)p.params.active && c->N_total == (double)p.params.total);
        assert_true(c->N_no_embed == (double)p.params.active_no_embed);
        assert_true(c->memory == arena_total(&p.arenas) && c->memory > 0);
        assert_true(c->disk > 12 * p.params.total && c->disk < c->memory);
        assert_true(c->steps == p.config.train.steps && c->batch == p.config.train.batch);
        assert_true(c->lr == p.config.optim.lr && c->lr == 0.003);
        assert_true(isnan(c->seconds));
        if (c->kind == CELL_POINT) {
            assert_true(fabs(c->C / c->budget - 1) <= 0.005);
            assert_int_equal(p.config.optim.decay_steps, lround(0.2 * (double)c->steps));
        } else {
            assert_int_equal(p.config.optim.decay_steps, 0);
        }
        plan_clear(&p);
    }
    cell_list_clear(&l);
}

/* Pieces of a size stand one behind the other, each before what begins from it; what is trained
 * adds up to the longest stable phase and all cooldowns. */
static void test_trunks(void **state)
{
    SweepConfig s;
    CellList l;
    double expected = 0, alone = 0;
    int points = 0;
    (void)state;
    CELLS(&s, &l, "sweep.budgets=2e11,5e11,1.2e12", "sweep.sizes=5");
    for (int i = 0; i < l.count; i++) {
        const Cell *c = &l.cell[i];
        if (c->left_out[0]) continue;
        const Cell *parent = cell_by_id(&l, c->parent);
        double step = c->C / (double)c->steps;
        if (c->parent[0]) {
            assert_non_null(parent);
            assert_true(parent < c && parent->kind == CELL_TRUNK && parent->steps < c->steps);
            assert_true(parent->lr == c->lr && parent->batch == c->batch && parent->N == c->N);
            assert_true(c->own_flops == c->C - parent->C);
        } else {
            assert_true(c->own_flops == c->C && c->kind == CELL_TRUNK);
        }
        if (c->kind == CELL_TRUNK) {
            expected += step * (double)(c->steps - (parent ? parent->steps : 0));
            continue;
        }
        assert_int_equal(parent->steps, c->steps - lround(0.2 * (double)c->steps));
        expected += step * (double)lround(0.2 * (double)c->steps);
        alone += c->C;
        points++;
    }
    SweepTotals t = sweep_totals(&l);
    assert_int_equal(t.points, points);
    assert_true(points >= 14 && t.trunks == points);
    assert_true(fabs(t.flops / expected - 1) < 1e-12 && t.alone == alone);
    assert_true(t.flops < 0.8 * t.alone);
    cell_list_clear(&l);
    CELLS(&s, &l, "sweep.reuse=off");
    t = sweep_totals(&l);
    assert_true(t.trunks == 0 && t.flops == t.alone);
    for (int i = 0; i < l.count; i++) assert_true(!l.cell[i].parent[0]);
    cell_list_clear(&l);
    CELLS(&s, &l, "sweep.budgets=5e11"); /* nothing to share */
    assert_int_equal(sweep_totals(&l).trunks, 0);
    cell_list_clear(&l);
}

/* A law that depends on D is asked once a size, in the geometric middle; without reuse of each cell
 * alone. Beyond limits.ratio a cell is left out, unless forced. */
static void test_laws(void **state)
{
    SweepConfig s;
    CellList l;
    int bent = 0;
    (void)state;
#define FIXED                                                                                      \
    "sweep.budgets=2e11,3.2e12", "centre.prior=power", "centre.factor=6e4", "centre.exponent=0",   \
        "centre.tokens_per_param=20",                                                              \
        "sweep.sizes=1"
#define POWER "rate.law=power", "rate.value=1.0", "rate.exp_d=-0.5"
    CELLS(&s, &l, POWER, FIXED);
    for (int i = 0; i < l.count; i++) assert_has(l.cell[i].left_out, "sweep.force");
    assert_int_equal(sweep_totals(&l).trunks, 0);
    cell_list_clear(&l);
    CELLS(&s, &l, POWER, FIXED,
          "sweep.force=true");
    assert_int_equal(l.count, 4);
    const Cell *low = &l.cell[1], *high = &l.cell[3];
    assert_true(low->N == high->N && low->lr == high->lr);
    double middle = 1 / sqrt(sqrt(low->D * high->D));
    assert_true(fabs(low->lr / middle - 1) < 2e-3);
    assert_true(fabs(low->lr_law_ratio - 0.5) < 5e-3 && fabs(high->lr_law_ratio - 2) < 2e-2);
    cell_list_clear(&l);
    CELLS(&s, &l, POWER, FIXED, "limits.max_tokens=2e6"); /* the larger one takes no part */
    assert_has(l.cell[l.count - 1].left_out, "above limits.max_tokens");
    low = cell_by_name(&l, "C2e11-d68x2-s1");
    assert_true(low && !low->left_out[0] && fabs(low->lr_law_ratio - 1) < 3e-3);
    cell_list_clear(&l);
    CELLS(&s, &l, POWER, "sweep.reuse=off");
    for (int i = 0; i < l.count; i++) bent += fabs(l.cell[i].lr_law_ratio - 1) > 3e-3;
    assert_int_equal(bent, 0);
    cell_list_clear(&l);
    CELLS(&s, &l, "rate.law=surge", "rate.value=0", "rate.eps_max=0.01", "rate.b_noise=512");
    assert_true(fabs(l.cell[0].lr - 0.01) < 1e-12); /* at B = B_noise */
    cell_list_clear(&l);
}

static void test_batches(void **state)
{
    static const struct {
        double wanted;
        int unit, legal;
    } cases[] = {{1, 1, 1}, {2.9, 1, 3}, {5.2, 1, 5}, {9.1, 1, 10}, {11.1, 1, 12}, {8.9, 1, 8},
                 {100, 1, 96}, {1e4, 1, 10240}, {7, 4, 8}, {1, 4, 4}, {25, 4, 24}, {0.01, 2, 2}};
    SweepConfig s;
    CellList l;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(cell_law_legal(cases[i].wanted, cases[i].unit), cases[i].legal);
    CELLS(&s, &l, "batch.value=600"); /* 9.4 sequences; groups of 2 */
    for (int i = 0; i < l.count; i++) {
        assert_int_equal(l.cell[i].batch, 10);
        assert_true(fabs(l.cell[i].batch_law_ratio - 640.0 / 600) < 1e-12);
    }
    cell_list_clear(&l);
    CELLS(&s, &l, "batch.value=32");
    for (int i = 0; i < l.count; i++)
        assert_has(l.cell[i].left_out, "the nearest legal batch has 128 tokens, the law wants 32");
    cell_list_clear(&l);
}

/* What a limit leaves out says why, and takes no part in what its size shares. */
static void test_limits(void **state)
{
    static const struct {
        const char *override, *reason;
    } cases[] = {
        {"limits.min_params=1e9", " parameters, below limits.min_params 1e+09"},
        {"limits.max_params=10", " parameters, above limits.max_params 10"},
        {"limits.min_tokens=1e9", " tokens, below limits.min_tokens 1e+09"},
        {"limits.max_tokens=1e3", " tokens, above limits.max_tokens 1000"},
        {"limits.min_per_param=1e5", " tokens a parameter, below limits.min_per_param 100000"},
        {"limits.max_per_param=0.1", " tokens a parameter, above limits.max_per_param 0.1"},
        {"limits.unique_tokens=1000", "tokens are more than 1 epochs of limits.unique_tokens 1000"},
        {"limits.memory=1000", "of memory, above limits.memory"},
        {"family.width_min=200", "the family has no model within half a spacing of"},
    };
    SweepConfig s;
    CellList l;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CELLS(&s, &l, cases[i].override, "sweep.warmup=0.2");
        assert_int_equal(sweep_totals(&l).trunks, 0);
        assert_int_equal(l.count, 3 * s.n_budgets);
        for (int k = 0; k < l.count; k++) assert_has(l.cell[k].left_out, cases[i].reason);
        cell_list_clear(&l);
    }
    CELLS(&s, &l, "sweep.cooldown=0.88", "sweep.warmup=0.2", "sweep.budgets=2e11");
    for (int k = 0; k < l.count; k++) assert_has(l.cell[k].left_out, "of warm-up is more");
    cell_list_clear(&l);
    CELLS(&s, &l, "batch.value=50000"); /* about twelve steps */
    int missed = 0;
    for (int k = 0; k < l.count; k++) {
        if (l.cell[k].kind == CELL_TRUNK) continue;
        bool off = strstr(l.cell[k].left_out, "miss the budget by") != NULL;
        assert_true(off == (fabs(l.cell[k].C / l.cell[k].budget - 1) > 0.005));
        missed += off;
    }
    assert_true(missed > 0);
    cell_list_clear(&l);
    CELLS(&s, &l, "sweep.warmup=0", "sweep.budgets=5e10,2e11", "sweep.sizes=1",
          "family.layers_min=2", "sweep.spacing=3"); /* 10 of the base, of 45 steps */
    for (int k = 0; k < l.count; k++)
        if (l.cell[k].left_out[0]) fail_msg("%s: %s", l.cell[k].name, l.cell[k].left_out);
    cell_list_clear(&l);
}

/* The base's own refusal is the reason. */
static void test_refused(void **state)
{
    SweepConfig s;
    CellList l;
    char text[4096];
    Err e = {0};
    (void)state;
    snprintf(text, sizeof text, "%svariants: [{name: ok}, {name: bad, overrides: "
             "model.routing_group_tokens=96}]\n", SWEEP_GOOD);
    write_file(at("s.yaml"), text);
    if (sweep_config_read(&s, at("s.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
    plan_cells(&s, &l);
    int bad = 0;
    for (int i = 0; i < l.count; i++) {
        if (!strstr(l.cell[i].name, "@bad")) {
            assert_true(!l.cell[i].left_out[0]);
            continue;
        }
        assert_has(l.cell[i].left_out, "96 tokens neither divide a sequence");
        bad++;
    }
    assert_int_equal(bad, 9);
    cell_list_clear(&l);
    SweepSource source = {.base = "configs/runs/nothing.yaml"};
    CellInspector i = sweep_inspector(&source);
    assert_int_equal(sweep_cells(&s, &i, &l, &e), -1);
    assert_has(e.message, "configs/runs/nothing.yaml");
    source.base = "configs/runs/demo.yaml";
    assert_int_equal(sweep_cells(&s, &i, &l, &e), -1);
    assert_has(e.message, "train.minutes");
}

/* Seeds and checks of the rate beside each budget's middle; variants of all. */
static void test_study(void **state)
{
    SweepConfig s;
    CellList l;
    char text[4096];
    Err e = {0};
    int seeds = 0, checks = 0;
    (void)state;
    snprintf(text, sizeof text, "%svariants: [{name: drop, overrides: model.routing=drop}, "
             "{name: fast, overrides: 'optim.lr=0.03 model.top_k=1'}]\n", SWEEP_GOOD);
    write_file(at("s.yaml"), text);
    const char *const words[] = {"sweep.seeds=3", "sweep.check_rates=0.5 2"};
    if (sweep_config_read(&s, at("s.yaml"), words, 2, &e)) fail_msg("%s", e.message);
    plan_cells(&s, &l);
    for (int i = 0; i < l.count; i++) {
        const Cell *c = &l.cell[i];
        bool fast = strstr(c->name, "@fast") != NULL;
        if (c->left_out[0]) fail_msg("%s: %s", c->name, c->left_out);
        assert_true(fast || strstr(c->name, "@drop"));
        assert_has(c->overrides, fast ? "model.top_k=1\n" : "model.routing=drop\n");
        if (fast) assert_true(c->lr == 0.03);
        if (c->kind != CELL_TRUNK) assert_true(fabs(c->C / c->budget - 1) <= 0.005);
        seeds += c->kind == CELL_POINT && c->seed > 1;
        checks += c->kind == CELL_CHECK;
        if (c->kind == CELL_CHECK || c->seed > 1) assert_true(!c->parent[0]);
        if (c->kind == CELL_CHECK && !fast)
            assert_true(c->lr == 0.0015 || c->lr == 0.006);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(c->name, l.cell[k].name);
            if (!fast || c->kind != CELL_CHECK) assert_string_not_equal(c->id, l.cell[k].id);
        }
    }
    assert_int_equal(seeds, 2 * 3 * 2);
    assert_int_equal(checks, 2 * 3 * 2);
    cell_list_clear(&l);
}

/* A variant's own batch is meant, like its own rate: the same budget in other steps, with the same
 * share of them for warm-up; laws that bend a size still keep it out. */
static void test_batch_variants(void **state)
{
    SweepConfig s;
    CellList l;
    Err e = {0};
    char text[4096];
    int large = 0;
    (void)state;
    snprintf(text, sizeof text, "%svariants: [{name: base}, {name: b64, overrides: "
             "'train.batch=64 optim.lr=0.02'}]\n", SWEEP_GOOD);
    write_file(at("s.yaml"), text);
    if (sweep_config_read(&s, at("s.yaml"), NULL, 0, &e)) fail_msg("%s", e.message);
    plan_cells(&s, &l);
    for (int i = 0; i < l.count; i++) {
        const Cell *c = &l.cell[i];
        char base[CELL_NAME], *mark;
        if (!strstr(c->name, "@b64") || c->kind == CELL_TRUNK) continue;
        if (c->left_out[0]) { /* few steps of a large batch may miss the budget, no more */
            assert_has(c->left_out, "miss the budget by");
            continue;
        }
        snprintf(base, sizeof base, "%s", c->name);
        mark = strstr(base, "@b64");
        memcpy(mark, "@base", 6);
        const Cell *other = cell_by_name(&l, base);
        assert_non_null(other);
        assert_int_equal(c->batch, 64);
        assert_true(fabs((double)other->steps / (8 * (double)c->steps) - 1) < 0.02);
        CellFacts a, b;
        SweepSource source = {.base = s.base};
        CellInspector in = sweep_inspector(&source);
        if (in.inspect(in.self, c->overrides, &a, &e)) fail_msg("%s", e.message);
        if (in.inspect(in.self, other->overrides, &b, &e)) fail_msg("%s", e.message);
        assert_true(labs(8 * a.warmup - b.warmup) <= 4 && a.warmup > 1);
        large++;
    }
    assert_true(large >= 6);
    cell_list_clear(&l);
    const char *const surge[] = {"rate.law=surge", "rate.value=0", "rate.eps_max=0.01",
                                 "rate.b_noise=512"};
    if (sweep_config_read(&s, at("s.yaml"), surge, 4, &e)) fail_msg("%s", e.message);
    plan_cells(&s, &l); /* a rate that follows the batch is that of the law's batch */
    for (int i = 0; i < l.count; i++) assert_null(strstr(l.cell[i].left_out, "limits.ratio"));
    cell_list_clear(&l);
    const char *const bent[] = {"batch.law=power", "batch.value=0.006", "batch.exp_d=0.8",
                                "limits.ratio=1.2", "batch.rounding=3"};
    if (sweep_config_read(&s, at("s.yaml"), bent, 5, &e)) fail_msg("%s", e.message);
    plan_cells(&s, &l);
    int out[2] = {0};
    for (int i = 0; i < l.count; i++)
        if (strstr(l.cell[i].left_out, "beyond limits.ratio"))
            out[strstr(l.cell[i].name, "@b64") != NULL]++;
    assert_true(out[0] > 0 && out[1] > 0);
    cell_list_clear(&l);
}

/* The grid beside each middle: every batch at every rate, the budget's FLOPs in each. */
static void test_check_grid(void **state)
{
    SweepConfig s;
    CellList l;
    (void)state;
    for (int reuse = 0; reuse < 2; reuse++) {
        int seen[3][3] = {{0}}, checks = 0;
        CELLS(&s, &l, "sweep.check_rates=0.5 2", "sweep.check_batches=0.5 2", "sweep.seeds=2",
              reuse ? "sweep.reuse=trunk" : "sweep.reuse=off");
        for (int i = 0; i < l.count; i++) {
            const Cell *c = &l.cell[i];
            if (c->kind != CELL_CHECK) continue;
            if (c->left_out[0]) fail_msg("%s: %s", c->name, c->left_out);
            assert_true(!c->parent[0] && c->seed == 1 && fabs(c->C / c->budget - 1) <= 0.005);
            int b = c->batch == 4 ? 1 : c->batch == 16 ? 2 : 0;
            int r = c->lr == 0.0015 ? 1 : c->lr == 0.006 ? 2 : 0;
            assert_true(b || c->batch == 8);
            assert_true(r || c->lr == 0.003);
            assert_true((strstr(c->name, "-b") != NULL) == (b > 0));
            assert_true((strstr(c->name, "-r") != NULL) == (r > 0));
            seen[b][r]++;
            checks++;
        }
        assert_int_equal(checks, 8 * s.n_budgets);
        for (int i = 1; i < 9; i++) assert_int_equal(seen[i / 3][i % 3], s.n_budgets);
        for (int i = 0; i < l.count; i++)
            for (int k = 0; k < i; k++) assert_string_not_equal(l.cell[i].id, l.cell[k].id);
        cell_list_clear(&l);
    }
    CELLS(&s, &l, "sweep.check_batches=1.05");
    int own = 0;
    for (int i = 0; i < l.count; i++)
        own += strstr(l.cell[i].left_out, "1.05 times the law's is the point's own") != NULL;
    assert_int_equal(own, s.n_budgets);
    cell_list_clear(&l);
}

/* An identity follows from what decides the result, and from nothing else. */
static void test_identity(void **state)
{
    SweepConfig s;
    CellList a, b;
    (void)state;
    CELLS(&s, &a, "sweep.budgets=2e11,5e11");
    CELLS(&s, &b, "sweep.budgets=2e11,5e11", "sweep.jobs=2", "sweep.name=other", "sweep.out=y");
    assert_int_equal(a.count, b.count);
    for (int i = 0; i < a.count; i++) assert_string_equal(a.cell[i].id, b.cell[i].id);
    cell_list_clear(&b);
    CELLS(&s, &b, "sweep.budgets=2e11,5e11", "sweep.seed=2");
    for (int i = 0; i < a.count; i++) assert_null(cell_by_id(&b, a.cell[i].id));
    cell_list_clear(&b);
    char *base = read_file("configs/runs/tiny.yaml", NULL), text[8192], path[PATH * 2];
    static const struct {
        const char *more;
        bool same;
    } cases[] = {{"  threads: 2 # faster\n", true}, {"  micro_batch: 2\n", false},
                 {"  eval_sequences: 17\n", false}};
    snprintf(path, sizeof path, "sweep.base=%s", at("base.yaml"));
    for (int k = 0; k < 3; k++) {
        char *line = strstr(base, "  eval_sequences: 16\n");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(line - base), base,
                 k == 2 ? "" : "  eval_sequences: 16\n", cases[k].more);
        write_file(at("base.yaml"), text);
        CELLS(&s, &b, "sweep.budgets=2e11,5e11", path);
        for (int i = 0; i < a.count; i++)
            assert_true((cell_by_id(&b, a.cell[i].id) != NULL) == cases[k].same);
        cell_list_clear(&b);
    }
    free(base);
    cell_list_clear(&a);
}

/* The check behind the fit: the family's model nearest to the N that is asked for. */
static void test_held_out(void **state)
{
    SweepConfig s;
    CellList l;
    Err e = {0};
    (void)state;
    SweepSource source = {.base = "configs/runs/tiny.yaml"};
    CellInspector i = sweep_inspector(&source);
    read_sweep(&s, (const char *const[]){"sweep.held_out=3", NULL});
    if (sweep_held_out(&s, &i, 200000, &l, &e)) fail_msg("%s", e.message);
    assert_int_equal(l.count, 1);
    assert_true(l.cell[0].kind == CELL_CHECK && !l.cell[0].left_out[0]);
    assert_true(fabs(l.cell[0].C / 3.6e12 - 1) <= 0.005);
    assert_true(fabs(log(l.cell[0].N / 200000)) < 0.05); /* with embedding and head */
    cell_list_clear(&l);
    static const double far[] = {200000, 0}; /* asked for, and of the prior */
    read_sweep(&s, (const char *const[]){"sweep.held_out=3000", "family.width_max=40", NULL});
    for (int k = 0; k < 2; k++) { /* half of 1.4 away is the most */
        if (sweep_held_out(&s, &i, far[k], &l, &e)) fail_msg("%s", e.message);
        assert_has(l.cell[0].left_out, "no model within half a spacing of ");
        cell_list_clear(&l);
    }
    for (double N = 20000; N < 100000; N *= 1.05) {
        if (sweep_held_out(&s, &i, N, &l, &e)) fail_msg("%s", e.message);
        bool near = fabs(log(l.cell[0].N / N)) <= log(1.4) / 2;
        assert_true(near == !l.cell[0].left_out[0]);
        cell_list_clear(&l);
    }
    read_sweep(&s, NULL);
    assert_int_equal(sweep_held_out(&s, &i, 200000, &l, &e), -1);
    assert_has(e.message, "sweep.held_out is 0");
}

/* What laws of mixtures read: of the tiny family (8 experts of d/2, 2 a token, one shared expert of
 * d/2), of a variant with other experts, of a dense one. */
static void test_experts(void **state)
{
    SweepConfig s;
    CellList l;
    (void)state;
    CELLS(&s, &l, "sweep.sizes=1");
    const Cell *c = &l.cell[0];
    CellFacts f;
    Err e = {0};
    SweepSource source = {.base = s.base};
    CellInspector i = sweep_inspector(&source);
    if (i.inspect(i.self, c->overrides, &f, &e)) fail_msg("%s", e.message);
    const ModelConfig *m = &f.model;
    assert_true(m->n_experts > 1 && m->n_shared > 0);
    assert_true(c->experts == (double)m->n_experts && c->top_k == (double)m->top_k);
    double wide = (double)(m->top_k * m->expert_width + m->n_shared * m->shared_width);
    assert_true(c->granularity == wide / (double)m->expert_width);
    assert_true(c->sparsity == (double)(m->n_experts - m->top_k) /
                                   (double)(m->n_experts + m->n_shared));
    assert_true(c->sparsity > 0 && c->sparsity < 1 && c->granularity > 1);
    ModelConfig odd = {.n_experts = 16, .top_k = 1, .expert_width = 24, .n_shared = 2,
                       .shared_width = 36}, dense = {.n_shared = 1, .shared_width = 64};
    Cell x = {.N = 1};
    cell_experts(&odd, &x);
    assert_true(x.experts == 16 && x.top_k == 1 && x.granularity == 4);
    assert_true(x.sparsity == 15.0 / 18);
    cell_experts(&dense, &x);
    assert_true(x.experts == 1 && x.top_k == 1 && x.granularity == 1 && x.sparsity == 0);
    cell_list_clear(&l);
}

typedef struct Recorded { /* a plan that was run */
    LedgerCell cell[256];
    int count;
} Recorded;

static const Cell *in_record(const Recorded *r, const char *id)
{
    for (int i = 0; i < r->count; i++)
        if (!strcmp(r->cell[i].cell.id, id) && !r->cell[i].cell.left_out[0])
            return &r->cell[i].cell;
    return NULL;
}

/* What a plan with the same record says: no name under two ids, no parent from nowhere. */
static void check_beside(const Recorded *r, const CellList *l)
{
    for (int i = 0; i < l->count; i++) {
        const Cell *c = &l->cell[i];
        if (c->left_out[0]) continue;
        for (int k = 0; k < r->count; k++)
            if (!r->cell[k].cell.left_out[0] && !strcmp(r->cell[k].cell.name, c->name))
                assert_string_equal(r->cell[k].cell.id, c->id);
        bool before = !c->parent[0] || in_record(r, c->parent);
        for (int k = 0; k < i; k++) before = before || !strcmp(l->cell[k].id, c->parent);
        if (!before) fail_msg("%s has no parent", c->name);
    }
}

/* A study whose ends bend a law, run in part, then with force, then again without: trunks that were
 * run stand, in pieces that are new the rest begins from them, and points keep where they began. */
static void test_force_on_record(void **state)
{
    static Recorded r;
    SweepConfig s;
    CellList l;
    Err e = {0};
    int left_out = 0, old = 0;
    (void)state;
#define BENT                                                                                       \
    "rate.law=power", "rate.value=1.0", "rate.exp_d=-0.4", "limits.ratio=1.2", "sweep.sizes=7"
    CELLS(&s, &l, BENT);
    for (int i = 0; i < l.count; i++) {
        r.cell[r.count++] = (LedgerCell){.cell = l.cell[i], .state = STATE_DONE};
        left_out += l.cell[i].left_out[0] != 0;
    }
    cell_list_clear(&l);
    assert_true(left_out > 0 && left_out < r.count);
    read_sweep(&s, (const char *const[]){BENT, "sweep.force=true", NULL});
    SweepSource source = {.base = s.base};
    CellInspector i = sweep_inspector(&source);
    CellList alone;
    if (sweep_cells(&s, &i, &alone, &e)) fail_msg("%s", e.message);
    int clashes = 0;
    for (int k = 0; k < alone.count; k++)
        for (int j = 0; j < r.count; j++)
            clashes += !r.cell[j].cell.left_out[0] &&
                       !strcmp(r.cell[j].cell.name, alone.cell[k].name) &&
                       strcmp(r.cell[j].cell.id, alone.cell[k].id) != 0;
    assert_true(clashes > 0); /* the study is one that this is about */
    cell_list_clear(&alone);
    if (sweep_cells_of(&s, &i, r.cell, r.count, &l, &e)) fail_msg("%s", e.message);
    check_beside(&r, &l);
    for (int k = 0; k < l.count; k++) {
        assert_true(!l.cell[k].left_out[0]);
        bool there = in_record(&r, l.cell[k].id) != NULL;
        old += there;
        if (!there) r.cell[r.count++] = (LedgerCell){.cell = l.cell[k], .state = STATE_DONE};
    }
    assert_true(old > 0 && old < l.count);
    cell_list_clear(&l);
    s.force = false; /* what was run is not left out any more */
    if (sweep_cells_of(&s, &i, r.cell, r.count, &l, &e)) fail_msg("%s", e.message);
    check_beside(&r, &l);
    for (int k = 0; k < l.count; k++) assert_true(in_record(&r, l.cell[k].id) != NULL);
    cell_list_clear(&l);
}

static double nearest(void *self, const Cell *c)
{
    const double *wanted = self;
    return fabs(log(c->N / *wanted)) + (c->D > 0 && c->experts > 1 ? 0 : 9);
}

/* The model of the least loss at what the budget buys it. */
static void test_held_out_best(void **state)
{
    SweepConfig s;
    CellList l;
    Err e = {0};
    (void)state;
    read_sweep(&s, (const char *const[]){"sweep.held_out=3", NULL});
    SweepSource source = {.base = s.base};
    CellInspector i = sweep_inspector(&source);
    for (double N = 1e5; N < 5e5; N *= 1.7) {
        const CellLoss law = {nearest, &N};
        if (sweep_held_out_best(&s, &i, &law, &l, &e)) fail_msg("%s", e.message);
        assert_int_equal(l.count, 1);
        const Cell *c = &l.cell[0];
        assert_true(c->kind == CELL_CHECK && !c->left_out[0] && !c->parent[0]);
        if (fabs(log(c->N / N)) > 0.35) fail_msg("%g for %g", c->N, N);
        assert_true(fabs(c->C / (3 * 1.2e12) - 1) <= 0.005);
        cell_list_clear(&l);
    }
    s.held_out = 0;
    const CellLoss law = {nearest, &(double){1e5}};
    assert_int_equal(sweep_held_out_best(&s, &i, &law, &l, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_trunks),
        cmocka_unit_test(test_laws),     cmocka_unit_test(test_batches),
        cmocka_unit_test(test_limits),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_study),    cmocka_unit_test(test_identity),
        cmocka_unit_test(test_batch_variants), cmocka_unit_test(test_check_grid),
        cmocka_unit_test(test_held_out),
        cmocka_unit_test(test_experts), cmocka_unit_test(test_force_on_record),
        cmocka_unit_test(test_held_out_best),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
