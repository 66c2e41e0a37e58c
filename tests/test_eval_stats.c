/* tests/test_eval_stats.c - intervals and routing statistics on numbers made by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/philox.h"
#include "tests/ref/tiny.h"
#include "train/interval.h"
#include "train/routing_stats.h"

static void assert_near(double got, double want, double room)
{
    if (!(fabs(got - want) <= room)) fail_msg("%.12g, expected %.12g within %g", got, want, room);
}

/* ---- Intervals --------------------------------------------------------------------------------*/

/* The bounds are the p at which the observed share lies 1.96 standard errors of p away. */
static void wilson_inverts_the_normal_test(void **state)
{
    (void)state;
    static const int64_t cases[][2] = {{0, 10}, {1, 10}, {5, 10}, {10, 10}, {37, 200}, {1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double n = (double)cases[i][1], p = (double)cases[i][0] / n;
        Interval w = interval_wilson(cases[i][0], cases[i][1]);
        assert_true(w.low <= p && p <= w.high && w.low < w.high);
        double ends[] = {w.low, w.high};
        for (int k = 0; k < 2; k++) {
            double gap = fabs(p - ends[k]), error = sqrt(ends[k] * (1 - ends[k]) / n);
            if (ends[k] > 0 && ends[k] < 1) assert_near(gap / error, 1.959964, 1e-5);
        }
    }
    /* Brown, Cai, DasGupta 2001 use this form; 0 of 10: z^2 / (n + z^2). */
    assert_near(interval_wilson(0, 10).high, 0.277533, 1e-6);
    assert_near(interval_wilson(0, 10).low, 0, 0);
    assert_true(isnan(interval_wilson(0, 0).low));
    assert_near(interval_share_error(5, 10), sqrt(0.25 / 9), 1e-15);
    assert_true(isnan(interval_share_error(1, 1)));
}

/* A ratio of sums whose terms have a known spread: the interval is the normal one. */
static void bootstrap_has_the_width_of_the_normal_law(void **state)
{
    (void)state;
    enum { N = 400 };
    double a[N], b[N], mean = 0, square = 0;
    PhiloxKey key = {.seed = 4, .purpose = RNG_TEST};
    for (int i = 0; i < N; i++) {
        b[i] = 2;
        a[i] = 6 + philox_normal(&key, (uint32_t)i);
        mean += a[i] / 2 / N;
    }
    for (int i = 0; i < N; i++) square += pow(a[i] / 2 - mean, 2) / N;
    double reach = 1.96 * sqrt(square / N);
    Interval got = interval_bootstrap(a, b, N, 1), again = interval_bootstrap(a, b, N, 1);
    assert_near(got.low, mean - reach, 0.15 * reach);
    assert_near(got.high, mean + reach, 0.15 * reach);
    assert_memory_equal(&got, &again, sizeof got);
    assert_true(interval_bootstrap(a, b, N, 2).low != got.low);
}

/* Units weigh by their b: two units, ratios 1 and 3, the second ten times the first. */
static void bootstrap_of_two_units(void **state)
{
    (void)state;
    double a[] = {1, 30}, b[] = {1, 10}, none[] = {0, 0};
    Interval got = interval_bootstrap(a, b, 2, 1);
    assert_near(got.low, 1, 1e-12);
    assert_near(got.high, 3, 1e-12);
    assert_true(isnan(interval_bootstrap(a, b, 1, 1).low));
    assert_true(isnan(interval_bootstrap(a, none, 2, 1).low));
}

/* ---- Routing ----------------------------------------------------------------------------------*/

/* Sums of one layer of E experts with these counts. */
static RoutingSums with_counts(int64_t E, int64_t *counts)
{
    return (RoutingSums){.L = 1, .E = E, .choices = counts};
}

static void loads_are_measured(void **state)
{
    (void)state;
    int64_t counts[] = {5, 3, 0, 2}, tokens = 5;
    double score[] = {2.5, 1.25, 0.625, 0.625}, entropy = 7.5;
    RoutingSums s = with_counts(4, counts);
    s.score = score;
    s.entropy = &entropy;
    s.tokens = &tokens;
    LayerRouting r = routing_layer(&s, 0);
    assert_near(routing_share(&s, 0, 1), 0.3, 1e-15);
    assert_near(r.max_load, 2, 1e-15);
    assert_near(r.cv, sqrt((1 + 0.04 + 1 + 0.04) / 4), 1e-12);
    assert_near(r.mean_entropy, 0.5 + 0.5 + 2 * 3 / 8.0, 1e-15);
    assert_near(r.token_entropy, 1.5, 1e-15);
}

static void specialization_of_known_tables(void **state)
{
    (void)state;
    int64_t same[] = {5, 3, 2}, left[] = {10, 0, 0}, right[] = {0, 4, 4}, mixed[] = {2, 2, 0};
    /* Equal loads tell nothing, however many tokens each domain has. */
    int64_t many[] = {50, 30, 20};
    RoutingSums equal[] = {with_counts(3, same), with_counts(3, many)};
    Specialization s = routing_specialization(equal, 2, 0);
    assert_near(s.information, 0, 1e-15);
    assert_near(s.chance, 2 * 0.5 * (0.1 + 0.01) / 2 / (2 * log(2)), 1e-15);
    assert_near(routing_distance(&equal[0], &equal[1], 0), 0, 1e-8);
    /* Separate experts tell all: one bit of two domains. */
    RoutingSums apart[] = {with_counts(3, left), with_counts(3, right)};
    s = routing_specialization(apart, 2, 0);
    assert_near(s.information, 1, 1e-12);
    assert_near(s.share, 1, 1e-12);
    assert_near(routing_distance(&apart[0], &apart[1], 0), 1, 1e-12);
    /* (1, 0, 0) and (1/2, 1/2, 0): mean (3/4, 1/4): H = 0.811278, less half of 1 bit. */
    RoutingSums part[] = {with_counts(3, left), with_counts(3, mixed)};
    s = routing_specialization(part, 2, 0);
    assert_near(s.information, 0.3112781245, 1e-9);
    assert_near(routing_distance(&part[0], &part[1], 0), sqrt(0.3112781245), 1e-9);
    assert_near(routing_domain_bits(part, 2, 0, 0), log2(4 / 3.0), 1e-12);
    assert_near(routing_domain_bits(part, 2, 1, 0), log2(2 / 3.0) / 2 + 0.5, 1e-12);
    /* Three domains over three experts: the largest possible is log2 3. */
    int64_t middle[] = {0, 8, 0}, last[] = {0, 0, 1};
    RoutingSums three[] = {with_counts(3, left), with_counts(3, middle), with_counts(3, last)};
    s = routing_specialization(three, 3, 0);
    assert_near(s.information, log2(3), 1e-12);
    assert_near(s.share, 1, 1e-12);
    assert_true(isnan(routing_specialization(three, 1, 0).information));
    assert_true(isnan(routing_domain_bits(three, 1, 0, 0)));
}

/* The "chance" term is what independent draws from one law show on average. */
static void chance_is_what_noise_shows(void **state)
{
    (void)state;
    enum { E = 6, TRIES = 400 };
    static const double law[E] = {0.3, 0.2, 0.2, 0.1, 0.1, 0.1};
    static const int drawn[] = {300, 500, 900};
    double mean = 0, said = 0;
    PhiloxKey key = {.seed = 6, .purpose = RNG_TEST};
    uint64_t at = 0;
    for (int t = 0; t < TRIES; t++) {
        int64_t counts[3][E] = {{0}};
        RoutingSums domain[3];
        for (int d = 0; d < 3; d++) {
            for (int i = 0; i < drawn[d]; i++) {
                double u = philox_uniform(&key, at++);
                int e = 0;
                while (e < E - 1 && u > law[e]) u -= law[e++];
                counts[d][e]++;
            }
            domain[d] = with_counts(E, counts[d]);
        }
        Specialization s = routing_specialization(domain, 3, 0);
        mean += s.information / TRIES;
        said = s.chance;
    }
    assert_near(mean, said, 0.06 * said);
}

/* ---- The observer on a model ------------------------------------------------------------------*/

/* A model whose layers add nothing to the residual, with one-hot embeddings: layer l sends token u
 * to expert (u + l) % E with a margin of `margin`, then to the next one. */
static Model *sorting_model(Device *d, ModelConfig *c, ModelShape shape, double margin)
{
    *c = tiny_config();
    c->vocab_size = c->d_model = 20;
    c->router_weight = WEIGHT_RAW;
    c->n_layers = 2;
    Model *m = tiny_model(d, c, shape, 3);
    float *flat = model_master(m).data;
    for (int i = 0; i < model_params(m)->count; i++) {
        const ParamRow *row = &model_params(m)->row[i];
        float *w = flat + row->offset;
        for (int64_t k = 0; k < row->elements; k++) w[k] = row->kind == PARAM_NORM;
        for (int64_t u = 0; u < 20 && row->kind == PARAM_EMBED; u++) w[u * 20 + u] = 1000;
        for (int64_t u = 0; u < 20 && row->kind == PARAM_ROUTER; u++) {
            int64_t e = (u + row->layer) % 4;
            w[e * 20 + u] = (float)(margin / sqrt(20));
            w[(e + 1) % 4 * 20 + u] = (float)(margin / 2 / sqrt(20));
        }
    }
    model_refresh_weights(m);
    return m;
}

static void a_constructed_router_is_seen(void **state)
{
    (void)state;
    Device *d = tiny_device(2);
    ModelConfig c;
    ModelShape shape = {.type = DT_F32, .B = 3, .T = 7};
    Model *m = sorting_model(d, &c, shape, 2);
    RoutingSums s;
    Err e = {0};
    assert_int_equal(routing_sums_init(&s, m, "x", &e), 0);
    int32_t tokens[21], targets[21];
    double count[2][4] = {{0}};
    for (int i = 0; i < 21; i++) {
        tokens[i] = (i * i + 3 * (i > 9)) % 20;
        targets[i] = 1;
        for (int l = 0; l < 2; l++) {
            count[l][(tokens[i] + l) % 4]++;
            count[l][(tokens[i] + l + 1) % 4]++;
        }
    }
    double sums[2] = {0};
    model_observe(m, routing_sums_add, &s);
    for (int64_t b = 0; b < 3; b += 2) { /* passes of two sequences, then of one */
        MicroBatch micro = {.B = b ? 1 : 2, .tokens = tokens + 7 * b, .targets = targets + 7 * b};
        model_eval_micro(m, &micro, sums, NULL);
    }
    model_observe(m, NULL, NULL);
    model_eval_micro(m, &(MicroBatch){.B = 3, .tokens = tokens, .targets = targets}, sums, NULL);
    /* p of a token: exp 2, exp 1, 1, 1 over their sum */
    double z = exp(2) + exp(1) + 2, p[] = {exp(2) / z, exp(1) / z, 1 / z, 1 / z}, H = 0;
    for (int i = 0; i < 4; i++) H -= p[i] * log2(p[i]);
    for (int64_t l = 0; l < 2; l++) {
        double mean = 0;
        assert_int_equal(s.tokens[l], 21);
        assert_near(routing_layer(&s, l).token_entropy, H, 1e-5);
        for (int64_t e2 = 0; e2 < 4; e2++) {
            double score = 0;
            assert_near(routing_share(&s, l, e2), count[l][e2] / 42, 1e-15);
            for (int i = 0; i < 21; i++) score += p[(e2 + 8 - tokens[i] - l % 4 + 40) % 4];
            assert_near(s.score[l * 4 + e2], score, 1e-4);
            mean -= score / 21 * log2(score / 21);
        }
        assert_near(routing_layer(&s, l).mean_entropy, mean, 1e-5);
    }
    routing_sums_free(&s);
    model_destroy(&m);
    device_destroy(&d);
}

/* Sums do not depend on how sequences are put into passes, nor on threads: bit for bit. */
static void sums_are_the_same_in_any_batches(void **state)
{
    (void)state;
    ModelConfig c = tiny_config();
    TinyBatch b = tiny_batch(&c, 5, 9, 3);
    double first[3 * 4];
    for (int run = 0; run < 4; run++) {
        Device *d = tiny_device(1 + run);
        ModelShape shape = {.type = DT_F32, .B = 5, .T = 9};
        Model *m = tiny_model(d, &c, shape, 3);
        RoutingSums s;
        Err e = {0};
        double sums[2] = {0};
        assert_int_equal(routing_sums_init(&s, m, "x", &e), 0);
        model_observe(m, routing_sums_add, &s);
        for (int64_t at = 0, step = run + 1; at < 5; at += step) {
            MicroBatch micro = {.B = at + step > 5 ? 5 - at : step, .tokens = b.tokens + 9 * at,
                                .targets = b.targets + 9 * at};
            model_eval_micro(m, &micro, sums, NULL);
        }
        if (!run) memcpy(first, s.score, sizeof first);
        assert_memory_equal(first, s.score, sizeof first);
        assert_int_equal(s.tokens[2], 45);
        routing_sums_free(&s);
        model_destroy(&m);
        device_destroy(&d);
    }
    tiny_batch_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson_inverts_the_normal_test),
        cmocka_unit_test(bootstrap_has_the_width_of_the_normal_law),
        cmocka_unit_test(bootstrap_of_two_units),
        cmocka_unit_test(loads_are_measured),
        cmocka_unit_test(specialization_of_known_tables),
        cmocka_unit_test(chance_is_what_noise_shows),
        cmocka_unit_test(a_constructed_router_is_seen),
        cmocka_unit_test(sums_are_the_same_in_any_batches),
    };
    return cmocka_run_group_tests_name("evaluation statistics", tests, NULL, NULL);
}
