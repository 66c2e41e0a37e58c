/* tests/test_cells_more.c - what an adaptive study adds: until the least loss of each budget has
 * two sizes on each side, from the same trunks, within the limit. */
#include "tests/sweep_cells.h"

#include <math.h>

enum { RECORD = 256 };

typedef struct Ended { /* a record whose cells have all ended */
    LedgerCell cell[RECORD];
    int count;
} Ended;

/* Losses with their least at N = best (C / 1e10)^0.5. */
static double loss_of(const Cell *c, double best)
{
    double x = log(c->N_no_embed / (best * sqrt(c->budget / 1e10)));
    return 3 + 0.1 * x * x + 1e10 / c->budget;
}

static void take(Ended *r, const CellList *l, double best)
{
    for (int i = 0; i < l->count; i++) {
        assert_true(r->count < RECORD);
        LedgerCell *c = &r->cell[r->count++];
        *c = (LedgerCell){.cell = l->cell[i], .state = STATE_DONE, .lr_factor = 1};
        if (l->cell[i].left_out[0]) c->state = STATE_CANCELLED;
        c->result.loss = c->cell.kind == CELL_TRUNK ? 9 : loss_of(&c->cell, best);
    }
}

static void ask(const SweepConfig *s, const Ended *r, CellList *more)
{
    Err e = {0};
    SweepSource source = {.base = s->base};
    CellInspector i = sweep_inspector(&source);
    if (sweep_more(s, &i, r->cell, r->count, more, &e)) fail_msg("%s", e.message);
}

/* Sizes below and above the least loss of a budget. */
static int bracket(const Ended *r, double budget, int *below, int *above)
{
    double N = 0, least = INFINITY;
    int n = 0;
    *below = *above = 0;
    for (int i = 0; i < r->count; i++) {
        const LedgerCell *c = &r->cell[i];
        if (c->cell.kind != CELL_POINT || c->cell.budget != budget || c->state != STATE_DONE)
            continue;
        n++;
        if (c->result.loss < least) {
            least = c->result.loss;
            N = c->cell.N;
        }
    }
    for (int i = 0; i < r->count; i++) {
        const LedgerCell *c = &r->cell[i];
        if (c->cell.kind != CELL_POINT || c->cell.budget != budget || c->state != STATE_DONE)
            continue;
        *below += c->cell.N < N;
        *above += c->cell.N > N;
    }
    return n;
}

/* The same by sweep_brackets. */
static void check_brackets(const SweepConfig *s, const Ended *r)
{
    static SweepBracket b[SWEEP_BUDGETS * SWEEP_VARIANTS];
    SweepSource source = {.base = s->base};
    CellInspector i = sweep_inspector(&source);
    Err e = {0};
    int n, below, above;
    if (sweep_brackets(s, &i, r->cell, r->count, b, &n, &e)) fail_msg("%s", e.message);
    assert_int_equal(n, s->n_budgets);
    for (int j = 0; j < n; j++) {
        bracket(r, s->budget[j], &below, &above);
        assert_true(b[j].budget == s->budget[j] && b[j].any && !b[j].variant);
        assert_true(b[j].below == below && b[j].above == above);
    }
}

/* What was added is new, and begins from a trunk of its size with the same rate and batch. */
static void check_added(const Ended *r, const CellList *more)
{
    for (int i = 0; i < more->count; i++) {
        const Cell *c = &more->cell[i], *parent = NULL, *other;
        for (int k = 0; k < r->count; k++) {
            other = &r->cell[k].cell;
            assert_string_not_equal(c->name, other->name);
            assert_string_not_equal(c->id, other->id);
            if (!strcmp(other->id, c->parent)) parent = other;
            if (other->N == c->N) assert_true(other->lr == c->lr && other->batch == c->batch);
        }
        for (int k = 0; k < i; k++)
            if (!strcmp(more->cell[k].id, c->parent)) parent = &more->cell[k];
        assert_true(!c->left_out[0]);
        assert_true((parent != NULL) == (c->parent[0] != 0));
        if (c->kind == CELL_POINT) assert_non_null(parent);
        if (parent) {
            assert_true(parent->kind == CELL_TRUNK && parent->N == c->N);
            assert_true(parent->steps < c->steps && parent->lr == c->lr);
            assert_true(c->own_flops == c->C - parent->C);
        }
        for (int k = 0; k < i; k++) assert_string_not_equal(c->name, more->cell[k].name);
    }
}

/* However far off the prior is, on either side; with a law that depends on D. */
static void test_bracketed(void **state)
{
    static const double best[] = {6000, 10000, 14000, 20000, 35000};
    (void)state;
    for (int b = 0; b < 5; b++) {
        static Ended r;
        SweepConfig s;
        CellList l;
        int rounds = 0;
        r.count = 0;
        CELLS(&s, &l, "sweep.adaptive=12", "rate.law=power", "rate.value=0.02", "rate.exp_d=-0.1");
        take(&r, &l, best[b]);
        cell_list_clear(&l);
        for (;;) {
            ask(&s, &r, &l);
            if (!l.count) break;
            check_added(&r, &l);
            take(&r, &l, best[b]);
            cell_list_clear(&l);
            assert_true(++rounds < 12);
        }
        check_brackets(&s, &r);
        for (int j = 0; j < s.n_budgets; j++) {
            int below, above, n = bracket(&r, s.budget[j], &below, &above);
            if (below < 2 || above < 2)
                fail_msg("best %g, budget %d: %d below, %d above", best[b], j, below, above);
            assert_true(n <= 15);
        }
    }
}

/* The limit holds; none means none. */
static void test_limit(void **state)
{
    static Ended r;
    SweepConfig s;
    CellList l;
    (void)state;
    for (int limit = 0; limit < 4; limit++) {
        char word[64];
        snprintf(word, sizeof word, "sweep.adaptive=%d", limit);
        r.count = 0;
        CELLS(&s, &l, word);
        take(&r, &l, 1e6);
        cell_list_clear(&l);
        for (int i = 0; i < 9; i++) {
            ask(&s, &r, &l);
            take(&r, &l, 1e6);
            cell_list_clear(&l);
        }
        check_brackets(&s, &r);
        for (int j = 0; j < s.n_budgets; j++) {
            int below, above;
            assert_int_equal(bracket(&r, s.budget[j], &below, &above), 3 + limit);
        }
    }
}

/* Nothing at a budget that still has cells to run; a diverged size is gone past; seeds count by
 * their mean. */
static void test_states(void **state)
{
    static Ended r;
    SweepConfig s;
    CellList l;
    (void)state;
    r.count = 0;
    CELLS(&s, &l, "sweep.seeds=2", "sweep.budgets=5e11", "sweep.sizes=5");
    take(&r, &l, 1);
    cell_list_clear(&l);
    assert_int_equal(r.count, 6);
    for (int i = 0; i < 6; i++) /* 5 sizes, the third one twice */
        r.cell[i].result.loss = (double[]){3.2, 3.1, 3.32, 2.9, 3.12, 3.3}[i];
    ask(&s, &r, &l); /* mean of the middle one 3.11 */
    assert_int_equal(l.count, 1);
    assert_true(l.cell[0].N < r.cell[0].cell.N);
    cell_list_clear(&l);
    r.cell[3].result.loss = 2.7;
    ask(&s, &r, &l);
    assert_int_equal(l.count, 0);
    r.cell[0].state = STATE_DIVERGED;
    r.cell[0].result.loss = NAN;
    ask(&s, &r, &l);
    assert_int_equal(l.count, 1);
    assert_true(l.cell[0].N < r.cell[0].cell.N);
    cell_list_clear(&l);
    static const CellState waiting[] = {STATE_PLANNED, STATE_RUNNING, STATE_PREEMPTED};
    for (int i = 0; i < 3; i++) {
        r.cell[5].state = waiting[i];
        ask(&s, &r, &l);
        assert_int_equal(l.count, 0);
    }
}

/* A cancelled run stops its budget, and no other, until it is tried again; what was left out from
 * the start stops nothing. */
static void test_cancelled(void **state)
{
    static Ended r;
    SweepConfig s;
    CellList l;
    int at[2] = {0, 0};
    (void)state;
    r.count = 0;
    CELLS(&s, &l, "sweep.budgets=2e11, 5e11");
    take(&r, &l, 1e6);
    cell_list_clear(&l);
    int stopped = -1;
    for (int i = 0; i < r.count && stopped < 0; i++)
        if (r.cell[i].cell.kind == CELL_POINT && r.cell[i].cell.budget == s.budget[1]) stopped = i;
    assert_true(stopped >= 0);
    for (int round = 0; round < 3; round++) { /* cancelled, left out, done */
        LedgerCell *c = &r.cell[stopped];
        c->state = round < 2 ? STATE_CANCELLED : STATE_DONE;
        snprintf(c->cell.left_out, sizeof c->cell.left_out, "%s", round == 1 ? "too large" : "");
        at[0] = at[1] = 0;
        ask(&s, &r, &l);
        for (int i = 0; i < l.count; i++)
            for (int j = 0; j < 2; j++)
                at[j] += l.cell[i].kind == CELL_POINT && l.cell[i].budget == s.budget[j];
        cell_list_clear(&l);
        assert_true(at[0] > 0);
        assert_int_equal(at[1] > 0, round > 0);
    }
}

/* Without trunks each cell is on the laws, also a size that several budgets want in one round. */
static void test_alone_on_the_laws(void **state)
{
    static Ended r;
    SweepConfig s;
    CellList l;
    int twice = 0;
    (void)state;
    r.count = 0;
    CELLS(&s, &l, "sweep.reuse=off", "rate.law=power", "rate.value=0.02", "rate.exp_d=-0.3",
          "sweep.budgets=2e11, 2.6e11");
    take(&r, &l, 1e6);
    cell_list_clear(&l);
    ask(&s, &r, &l);
    assert_true(l.count > 1);
    for (int i = 0; i < l.count; i++) {
        const Cell *c = &l.cell[i];
        assert_true(c->kind == CELL_POINT && !c->parent[0]);
        if (fabs(c->lr_law_ratio - 1) > 0.02)
            fail_msg("%s: %g of its law", c->name, c->lr_law_ratio);
        for (int k = 0; k < i; k++) twice += l.cell[k].N == c->N;
    }
    assert_true(twice > 0);
    cell_list_clear(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bracketed), cmocka_unit_test(test_limit),
        cmocka_unit_test(test_states), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_alone_on_the_laws),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
