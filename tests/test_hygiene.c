/* tests/test_hygiene.c - each kind of finding: a table in which it appears, with its rows, and the
 * sound table in which it does not. */
#include "tests/train_help.h"

#include <math.h>

#include "base/philox.h"
#include "scaling/hygiene.h"

enum { BUDGETS = 5, SIZES = 7, RUNS = BUDGETS * SIZES };
static const unsigned law_columns = 1u << RUN_N | 1u << RUN_D | 1u << RUN_LOSS;

static double loss_at(double N, double D)
{
    return 1.69 + 406.4 * pow(N, -0.34) + 410.7 * pow(D, -0.28);
}

static double best_n(double C)
{
    return pow(0.34 * 406.4 / (0.28 * 410.7), 1 / 0.62) * pow(C / 6, 0.28 / 0.62);
}

/* Row of budget b and size s before sorting: their order in the file. */
static int64_t place(int b, int s) { return b * SIZES + s; }

/* BUDGETS isoFLOP curves with a noise of 2e-3 nats, seed by seed another; not sorted: a test
 * damages rows by place(). C counts a little more than 6 N D, as exact counts do. */
static RunTable sound(uint64_t seed)
{
    RunTable t;
    Err e = {0};
    if (run_table_make(&t, RUNS, law_columns | 1u << RUN_C | 1u << RUN_BUDGET, &e))
        fail_msg("%s", e.message);
    PhiloxKey key = {.seed = seed, .purpose = RNG_TEST};
    for (int b = 0; b < BUDGETS; b++)
        for (int s = 0; s < SIZES; s++) {
            int64_t i = place(b, s);
            double C = 1e18 * pow(3, b), N = best_n(C) * pow(1.5, s - SIZES / 2 + 0.2);
            double more = 1 + 0.3 * pow(N / 1e8, -0.3);
            t.column[RUN_N][i] = N;
            t.column[RUN_D][i] = C / 6 / N / more;
            t.column[RUN_C][i] = t.column[RUN_BUDGET][i] = C;
            t.column[RUN_LOSS][i] = loss_at(N, t.column[RUN_D][i]) +
                                    2e-3 * philox_normal(&key, (uint32_t)i);
        }
    return t;
}

static Hygiene check(RunTable *t, double e_limit)
{
    Hygiene h;
    Err e = {0};
    run_table_sort(t);
    if (hygiene_check(t, law_columns, e_limit, &h, &e)) fail_msg("%s", e.message);
    return h;
}

static const Finding *find(const Hygiene *h, HygieneKind kind)
{
    for (int i = 0; i < h->count; i++)
        if (h->finding[i].kind == kind) return &h->finding[i];
    return NULL;
}

/* Some finding of the kind says this. */
static void assert_said(const Hygiene *h, HygieneKind kind, const char *says)
{
    for (int i = 0; i < h->count; i++)
        if (h->finding[i].kind == kind && strstr(h->finding[i].text, says)) return;
    fail_msg("no finding of kind %s says: %s", hygiene_kind_name(kind), says);
}

/* The finding names just the rows of these lines (n, rising), says so, and drops them or not. */
static void assert_finding(const RunTable *t, const Hygiene *h, HygieneKind kind,
                           const int64_t *line, int n, const char *says)
{
    const Finding *f = find(h, kind);
    if (!f) fail_msg("no finding of kind %s", hygiene_kind_name(kind));
    assert_has(f->text, says);
    if (f->rows != n) fail_msg("%lld rows, not %d: %s", (long long)f->rows, n, f->text);
    for (int k = 0; k < n; k++) {
        bool named = false;
        for (int64_t i = 0; i < f->rows; i++) named |= t->line[f->row[i]] == line[k];
        if (!named) fail_msg("line %lld is not named: %s", (long long)line[k], f->text);
        for (int64_t i = 0; i < t->rows; i++)
            if (t->line[i] == line[k]) assert_int_equal(h->clean[i], !f->drops);
    }
}

/* Only findings of this kind. */
static void assert_only(const Hygiene *h, HygieneKind kind)
{
    for (int i = 0; i < h->count; i++)
        if (h->finding[i].kind != kind) fail_msg("also: %s", h->finding[i].text);
}

static void sound_tables_have_no_findings(void **state)
{
    (void)state;
    uint64_t seeds = getenv("ISOMOE_LONG") ? 20000 : 1000, doubted = 0;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        RunTable t = sound(seed);
        Hygiene h = check(&t, 1.69);
        if (seed < 50 && h.count) fail_msg("seed %d: %s", (int)seed, h.finding[0].text);
        assert_int_equal(h.n_usable, RUNS);
        assert_true(h.count || h.n_clean == RUNS);
        doubted += h.count > 0;
        hygiene_clear(&h);
        run_table_clear(&t);
    }
    if (doubted * 100 > seeds) fail_msg("%d of %d are doubted", (int)doubted, (int)seeds);
}

static void missing_values(void **state)
{
    (void)state;
    RunTable t = sound(1);
    t.column[RUN_LOSS][place(1, 2)] = NAN;
    t.column[RUN_LOSS][place(2, 5)] = -1;
    t.column[RUN_D][place(0, 0)] = 0;
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_VALUE);
    assert_int_equal(h.count, 2);
    assert_finding(&t, &h, HYGIENE_VALUE, (int64_t[]){place(0, 0) + 1}, 1,
                   "D is not above 0 for 1 run: not fitted");
    assert_said(&h, HYGIENE_VALUE,
               "loss is not known of 1 run and not above 0 for 1 run: not fitted");
    assert_int_equal(h.n_usable, RUNS - 3);
    hygiene_clear(&h);
    run_table_clear(&t);
    t = sound(1);
    t.column[RUN_BUDGET][4] = NAN; /* not a column of the law */
    t.column[RUN_N][place(4, 6)] = NAN;
    h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_VALUE, (int64_t[]){RUNS}, 1,
                   "N is not known of 1 run: not fitted");
    assert_int_equal(h.n_usable, RUNS - 1);
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void duplicates(void **state)
{
    (void)state;
    RunTable t = sound(2);
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (t.column[c])
            for (int k = 0; k < 2; k++)
                t.column[c][place(3, 2 + k)] = t.column[c][place(3, 1)];
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_DUPLICATE);
    assert_finding(&t, &h, HYGIENE_DUPLICATE,
                   (int64_t[]){place(3, 2) + 1, place(3, 3) + 1}, 2,
                   "2 runs repeat another one in every column");
    assert_int_equal(h.n_usable, RUNS);
    assert_int_equal(h.n_clean, RUNS - 2);
    hygiene_clear(&h);
    run_table_clear(&t);
    t = sound(2); /* the same run with another seed's loss is none */
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (t.column[c] && c != RUN_LOSS) t.column[c][place(3, 2)] = t.column[c][place(3, 1)];
    t.column[RUN_LOSS][place(3, 2)] = t.column[RUN_LOSS][place(3, 1)] + 1e-6;
    h = check(&t, NAN);
    assert_null(find(&h, HYGIENE_DUPLICATE));
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void losses_below_e(void **state)
{
    (void)state;
    RunTable t = sound(3);
    int64_t least = 0;
    for (int64_t i = 0; i < RUNS; i++)
        if (t.column[RUN_LOSS][i] < t.column[RUN_LOSS][least]) least = i;
    double limit = t.column[RUN_LOSS][least];
    int64_t line = least + 1;
    Hygiene h = check(&t, limit);
    assert_only(&h, HYGIENE_BELOW_E);
    assert_finding(&t, &h, HYGIENE_BELOW_E, &line, 1, "1 run has a loss not above E = ");
    hygiene_clear(&h);
    h = check(&t, limit - 1e-9);
    assert_int_equal(h.count, 0);
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void mixed_conventions(void **state)
{
    (void)state;
    RunTable t = sound(4);
    t.column[RUN_C][place(2, 2)] /= 3; /* forward alone */
    t.column[RUN_C][place(2, 3)] /= 3;
    int64_t line[] = {place(2, 2) + 1, place(2, 3) + 1};
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_FLOPS);
    assert_finding(&t, &h, HYGIENE_FLOPS, line, 2,
                   "for 2 runs and 1.23 for most: FLOPs were counted in two ways; a factor of 3");
    assert_int_equal(h.n_clean, RUNS - 2);
    hygiene_clear(&h);
    run_table_clear(&t);
    /* 4/3, too little between sizes, shows between runs of one size. */
    t = sound(4);
    for (int s = 0; s < SIZES; s++)
        for (int b = 0; b < BUDGETS; b++) {
            double *N = t.column[RUN_N], *D = t.column[RUN_D], *C = t.column[RUN_C];
            N[place(b, s)] = 1e8 * (1 + s);
            C[place(b, s)] = 6 * N[place(b, s)] * D[place(b, s)] * (b == 3 && s == 2 ? 4.0 / 3 : 1);
        }
    h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_FLOPS, (int64_t[]){place(3, 2) + 1}, 1,
                   "a factor of 4/3: recomputation counted or not");
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void minima_at_the_edge(void **state)
{
    (void)state;
    RunTable t = sound(5);
    for (int s = 0; s < SIZES; s++) { /* budget 2 tried large sizes only */
        double N = best_n(9e18) * pow(1.5, s + 1), D = 9e18 / 6 / N;
        t.column[RUN_N][place(2, s)] = N;
        t.column[RUN_D][place(2, s)] = D;
        t.column[RUN_LOSS][place(2, s)] = loss_at(N, D);
    }
    int64_t line = place(2, 0) + 1;
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_EDGE);
    assert_finding(&t, &h, HYGIENE_EDGE, &line, 1,
                   "budget 9e+18: the smallest of its 7 sizes, N = ");
    assert_int_equal(h.n_clean, RUNS); /* other fits have use for them */
    hygiene_clear(&h);
    run_table_clear(&t);
    t = sound(5);
    for (int s = 0; s < SIZES; s++) { /* one size below the best one */
        double N = best_n(9e18) * pow(1.5, s - 0.8), D = 9e18 / 6 / N;
        t.column[RUN_N][place(2, s)] = N;
        t.column[RUN_D][place(2, s)] = D;
        t.column[RUN_LOSS][place(2, s)] = loss_at(N, D);
    }
    h = check(&t, NAN);
    assert_int_equal(h.count, 1);
    assert_said(&h, HYGIENE_EDGE, "budget 9e+18: 1 of its sizes below the best one");
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void tokens_tied_to_parameters(void **state)
{
    (void)state;
    RunTable t = sound(6);
    PhiloxKey key = {.seed = 6, .purpose = RNG_TEST, .position = 1};
    for (int64_t i = 0; i < RUNS; i++) {
        double *D = &t.column[RUN_D][i], *N = &t.column[RUN_N][i];
        *D = 20 * *N * exp(0.05 * philox_normal(&key, (uint32_t)i));
        t.column[RUN_LOSS][i] = loss_at(*N, *D);
        t.column[RUN_C][i] = t.column[RUN_BUDGET][i] = 6 * *N * *D;
    }
    Hygiene h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_TIED, NULL, 0, "D follows N (as N^");
    assert_said(&h, HYGIENE_TIED, "alpha and beta are not identified");
    assert_only(&h, HYGIENE_TIED);
    for (int64_t i = 0; i < RUNS; i++) t.column[RUN_N][i] = 1e8;
    hygiene_clear(&h);
    h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_TIED, NULL, 0, "N is the same for all runs: alpha is not");
    for (int64_t i = 0; i < RUNS; i++) t.column[RUN_D][i] = 1e9 * (1.0 + (double)(i % 2));
    for (int64_t i = 0; i < RUNS; i++) t.column[RUN_N][i] = 1e8 * (1.0 + (double)(i % 3));
    hygiene_clear(&h);
    h = check(&t, NAN);
    assert_null(find(&h, HYGIENE_TIED));
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void a_budget_apart(void **state)
{
    (void)state;
    for (int bad = 0; bad < BUDGETS; bad++) {
        RunTable t = sound(7);
        int64_t line[SIZES];
        double C = 1e18 * pow(3, bad);
        for (int s = 0; s < SIZES; s++) { /* its best size is twice that of the surface */
            int64_t i = place(bad, s);
            t.column[RUN_LOSS][i] = loss_at(t.column[RUN_N][i] / 2, t.column[RUN_D][i] * 2);
            t.column[RUN_N][i] = best_n(C) * pow(1.5, s - SIZES / 2 + 0.2) * 2;
            t.column[RUN_D][i] = C / 6 / t.column[RUN_N][i];
            t.column[RUN_LOSS][i] = loss_at(t.column[RUN_N][i] / 2, t.column[RUN_D][i] * 2);
            line[s] = i + 1;
        }
        Hygiene h = check(&t, NAN);
        assert_only(&h, HYGIENE_OUTLIER);
        assert_int_equal(h.count, 1);
        assert_finding(&t, &h, HYGIENE_OUTLIER, line, SIZES,
                       "above the line through the other 4 budgets; without it N_opt goes as C^");
        assert_int_equal(h.n_clean, RUNS - SIZES);
        hygiene_clear(&h);
        run_table_clear(&t);
    }
}

/* All losses of budget `bad` moved by as much: its minimum stays where it is. */
static void level_is_told(int bad, double by)
{
    RunTable t = sound(12);
    int64_t line[SIZES];
    for (int s = 0; s < SIZES; s++) {
        t.column[RUN_LOSS][place(bad, s)] += by;
        line[s] = place(bad, s) + 1;
    }
    Hygiene h = check(&t, NAN);
    if (h.count != 1) fail_msg("budget %d, moved by %g: %d findings", bad, by, h.count);
    assert_finding(&t, &h, HYGIENE_OUTLIER, line, SIZES,
                   by > 0 ? "nats above the law through the other 4 budgets"
                          : "nats below the law through the other 4 budgets");
    double told = strtod(strstr(find(&h, HYGIENE_OUTLIER)->text, "lie ") + 4, NULL);
    double budget = find(&h, HYGIENE_OUTLIER)->budget;
    if (!(fabs(told - fabs(by)) < 0.03)) fail_msg("budget %d: %g, not %g", bad, told, by);
    assert_true(fabs(budget / (1e18 * pow(3, bad)) - 1) < 1e-9);
    assert_int_equal(h.n_clean, RUNS - SIZES);
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void a_level_apart(void **state)
{
    (void)state;
    static const double by[] = {0.1, -0.1, 1};
    for (int bad = 0; bad < BUDGETS; bad++)
        for (int k = 0; k < 3; k++) level_is_told(bad, by[k]);
}

/* Level findings among `studies` sound ones of 4 to 6 budgets. */
static int levels_doubted(int studies, double noise, double wide, double drift)
{
    int doubted = 0;
    for (int study = 0; study < studies; study++) {
        RunTable t;
        Err e = {0};
        int budgets = 4 + study % 3;
        PhiloxKey key = {.seed = (uint64_t)study, .purpose = RNG_TEST, .position = 2};
        assert_int_equal(run_table_make(&t, budgets * SIZES, law_columns, &e), 0);
        for (int i = 0; i < budgets * SIZES; i++) {
            double C = 1e18 * pow(3, i / SIZES), u = (i % SIZES - 3 + 0.2) / 3;
            double N = t.column[RUN_N][i] = best_n(C) * pow(wide, u);
            double D = t.column[RUN_D][i] = C / 6 / N;
            t.column[RUN_LOSS][i] = 1.69 + 406.4 * pow(N, -0.34) +
                                    410.7 * pow(D, -0.28 - drift * log(N / 1e8)) +
                                    noise * philox_normal(&key, (uint32_t)i);
        }
        Hygiene h = check(&t, NAN);
        bool said = false;
        for (int i = 0; i < h.count; i++)
            said |= h.finding[i].kind == HYGIENE_OUTLIER &&
                    strstr(h.finding[i].text, "its losses lie");
        doubted += said;
        hygiene_clear(&h);
        run_table_clear(&t);
    }
    return doubted;
}

/* Whatever the noise, the width of the curves, and a law that is not quite the one fitted. */
static void sound_levels_are_not_doubted(void **state)
{
    (void)state;
    int studies = getenv("ISOMOE_LONG") ? 2000 : 100;
    static const double noise[] = {0, 2e-3, 3e-2};
    for (int k = 0; k < 3; k++)
        for (int wide = 2; wide <= 8; wide *= 4)
            for (int drift = 0; drift < 2; drift++) {
                int doubted = levels_doubted(noise[k] > 0 ? studies : 3, noise[k], wide,
                                             2e-3 * drift);
                if (doubted * 100 > 2 * studies)
                    fail_msg("noise %g, wide %d, drift %d: %d of %d are doubted", noise[k], wide,
                             drift, doubted, studies);
            }
}

static void humps(void **state)
{
    (void)state;
    RunTable t = sound(8);
    t.column[RUN_LOSS][place(1, 4)] += 0.04;
    int64_t line = place(1, 4) + 1;
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_CONVEX);
    assert_finding(&t, &h, HYGIENE_CONVEX, &line, 1, "above the line between its neighbours");
    assert_null(strstr(find(&h, HYGIENE_CONVEX)->text, "too low"));
    hygiene_clear(&h);
    run_table_clear(&t);
    t = sound(8);
    int64_t lines[SIZES];
    for (int s = 0; s < SIZES; s++) {
        t.column[RUN_LOSS][place(3, s)] = 3 - 0.02 * (s - 3) * (s - 3);
        lines[s] = place(3, s) + 1;
    }
    h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_CONVEX, lines, SIZES, "opens downwards");
    hygiene_clear(&h);
    run_table_clear(&t);
}

/* Noise 2e-3: a loss that is too low makes humps of its sound neighbours, in the middle of a curve,
 * beside its end and at it; 20 standard deviations make none of 4. */
static void a_loss_too_low_is_named_itself(void **state)
{
    (void)state;
    static const struct {
        int size;
        double by;
    } low[] = {{1, 0.15}, {3, 0.15}, {3, 0.04}, {4, 0.04}, {5, 0.15}, {0, 0.2}, {6, 0.2}, {3, 2}};
    for (size_t k = 0; k < sizeof low / sizeof *low; k++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            RunTable t = sound(seed);
            int64_t line = place(2, low[k].size) + 1;
            t.column[RUN_LOSS][line - 1] -= low[k].by;
            Hygiene h = check(&t, NAN);
            if (h.count != 1) fail_msg("%d, seed %d: %d findings", (int)k, (int)seed, h.count);
            assert_finding(&t, &h, HYGIENE_CONVEX, &line, 1, "is too low");
            hygiene_clear(&h);
            run_table_clear(&t);
        }
    RunTable t = sound(9); /* one too high in a budget, one too low in another */
    t.column[RUN_LOSS][place(1, 1)] += 0.1;
    t.column[RUN_LOSS][place(3, 3)] -= 0.1;
    Hygiene h = check(&t, NAN);
    assert_only(&h, HYGIENE_CONVEX);
    assert_int_equal(h.n_clean, RUNS - 2);
    for (int64_t i = 0; i < RUNS; i++)
        assert_int_equal(h.clean[i],
                         t.line[i] != place(1, 1) + 1 && t.line[i] != place(3, 3) + 1);
    hygiene_clear(&h);
    run_table_clear(&t);
}

/* Of four sizes any three lie on a parabola. */
static void few_sizes_do_not_tell_which(void **state)
{
    (void)state;
    RunTable t = sound(10);
    int64_t line[] = {place(3, 3) + 1, place(3, 4) + 1, place(3, 5) + 1};
    for (int b = 0; b < BUDGETS; b++)
        for (int s = 0; s < SIZES; s++) {
            int64_t i = place(b, s);
            double N = best_n(1e18 * pow(3, b)) * pow(1.5, s - 4.5), D = 1e18 * pow(3, b) / 6 / N;
            t.column[RUN_N][i] = N;
            t.column[RUN_D][i] = D;
            t.column[RUN_LOSS][i] = s < 3 ? NAN : loss_at(N, D) + (s % 2 ? 1e-4 : -1e-4);
        }
    t.column[RUN_LOSS][place(3, 4)] += 0.015;
    Hygiene h = check(&t, NAN);
    assert_finding(&t, &h, HYGIENE_CONVEX, line, 3, "cannot be told from 4 sizes");
    hygiene_clear(&h);
    run_table_clear(&t);
}

/* Wide curves are no parabolas and have no humps. */
static void wide_curves_are_convex(void **state)
{
    (void)state;
    for (int wide = 2; wide <= 32; wide *= 2) {
        RunTable t = sound(11);
        for (int64_t i = 0; i < RUNS; i++) {
            double C = t.column[RUN_C][i], u = (double)(i % SIZES - 3) / 3;
            double N = t.column[RUN_N][i] = best_n(C) * pow(wide, u);
            double D = t.column[RUN_D][i] = C / 6 / N;
            t.column[RUN_LOSS][i] = loss_at(N, D);
        }
        Hygiene h = check(&t, NAN);
        if (h.count) fail_msg("%d: %s", wide, h.finding[0].text);
        hygiene_clear(&h);
        run_table_clear(&t);
    }
}

/* A grid of N and D has no isoFLOP curves, so nothing is said of their minima. */
static void grids_are_not_judged_as_curves(void **state)
{
    (void)state;
    RunTable t;
    Err e = {0};
    assert_int_equal(run_table_make(&t, 400, law_columns, &e), 0);
    for (int i = 0; i < 400; i++) {
        double N = 1e7 * pow(1.4, i % 10), D = 1e9 * pow(1.06, i / 10);
        t.column[RUN_N][i] = N;
        t.column[RUN_D][i] = D;
        t.column[RUN_LOSS][i] = loss_at(N, D);
    }
    Hygiene h = check(&t, NAN);
    assert_int_equal(h.count, 0);
    hygiene_clear(&h);
    run_table_clear(&t);
}

static void few_and_odd_tables(void **state)
{
    (void)state;
    RunTable t;
    Err e = {0};
    assert_int_equal(run_table_make(&t, 0, law_columns, &e), 0);
    Hygiene h = check(&t, NAN);
    assert_int_equal(h.count, 0);
    hygiene_clear(&h);
    run_table_clear(&t);
    assert_int_equal(run_table_make(&t, 3, 1u << RUN_LOSS, &e), 0);
    for (int i = 0; i < 3; i++) t.column[RUN_LOSS][i] = i + 1;
    h = check(&t, NAN);
    assert_int_equal(h.count, 0);
    assert_int_equal(h.n_clean, 3);
    hygiene_clear(&h);
    run_table_clear(&t);
}

/* Whatever numbers a file holds: masks and rows stay those of the table. */
static void any_numbers_end_well(void **state)
{
    (void)state;
    static const double odd[] = {1, 2, 3, 1e9, 1e18, 1e300, 1e-300, 5e-324, 1.7e308, 0, -1, NAN};
    enum { ODD = sizeof odd / sizeof *odd };
    for (int round = 0; round < 3000; round++) {
        PhiloxKey key = {.seed = 19, .purpose = RNG_TEST, .position = (uint64_t)round};
        uint32_t at = 0;
        int rows = (int)(philox_u32(&key, at++) % 40);
        unsigned columns = law_columns | (philox_u32(&key, at++) & ((1u << RUN_COLUMNS) - 1));
        RunTable t;
        Err e = {0};
        assert_int_equal(run_table_make(&t, rows, columns, &e), 0);
        for (int c = 0; c < RUN_COLUMNS; c++)
            for (int i = 0; t.column[c] && i < rows; i++) {
                uint32_t word = philox_u32(&key, at++);
                t.column[c][i] = odd[round % 2 ? word % ODD : word % 5];
            }
        Hygiene h = check(&t, 1.5);
        int64_t usable = 0, clean = 0;
        for (int i = 0; i < rows; i++) {
            usable += h.usable[i];
            clean += h.clean[i];
            assert_true(h.usable[i] >= h.clean[i]);
        }
        assert_true(usable == h.n_usable && clean == h.n_clean);
        for (int i = 0; i < h.count; i++) {
            assert_true(strlen(h.finding[i].text) > 10);
            for (int64_t k = 0; k < h.finding[i].rows; k++)
                assert_true(h.finding[i].row[k] >= 0 && h.finding[i].row[k] < rows);
        }
        hygiene_clear(&h);
        run_table_clear(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_tables_have_no_findings), cmocka_unit_test(missing_values),
        cmocka_unit_test(duplicates),                    cmocka_unit_test(losses_below_e),
        cmocka_unit_test(mixed_conventions),             cmocka_unit_test(minima_at_the_edge),
        cmocka_unit_test(tokens_tied_to_parameters),     cmocka_unit_test(a_budget_apart),
        cmocka_unit_test(humps),                         cmocka_unit_test(few_and_odd_tables),
        cmocka_unit_test(a_loss_too_low_is_named_itself),
        cmocka_unit_test(a_level_apart),
        cmocka_unit_test(sound_levels_are_not_doubted),
        cmocka_unit_test(few_sizes_do_not_tell_which),
        cmocka_unit_test(wide_curves_are_convex),
        cmocka_unit_test(grids_are_not_judged_as_curves),
        cmocka_unit_test(any_numbers_end_well)};
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
