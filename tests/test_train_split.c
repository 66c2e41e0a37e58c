/* tests/test_train_split.c - clusters of equal size against every possible assignment, and the
 * partitions of neurons against their definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "train/cluster.h"
#include "train/split.h"

static PhiloxKey key = {.seed = 80, .purpose = RNG_TEST};
static uint64_t draw;

static double uniform(void) { return philox_uniform(&key, draw++); }

/* ---- clusters ------------------------------------------------------------------------------ */

enum { POINTS = 12 };

/* The least cost of giving points i.. their clusters, of which room[c] places are left. */
static double least(const double *cost, int n, int k, int i, int *room)
{
    double best = INFINITY;
    if (i == n) return 0;
    for (int c = 0; c < k; c++) {
        if (!room[c]) continue;
        room[c]--;
        best = fmin(best, cost[i * k + c] + least(cost, n, k, i + 1, room));
        room[c]++;
    }
    return best;
}

static void check_sizes(const int32_t *label, int64_t n, int k)
{
    for (int c = 0; c < k; c++) {
        int64_t size = 0;
        for (int64_t i = 0; i < n; i++) size += label[i] == c;
        assert_int_equal(size, n / k);
    }
}

static void test_assignment_is_the_cheapest(void **state)
{
    (void)state;
    static const int shape[][2] = {{12, 2}, {12, 3}, {12, 4}, {8, 8}, {7, 1}, {6, 6}, {10, 5}};
    Err e = {0};
    for (int round = 0; round < 40; round++) {
        for (size_t s = 0; s < sizeof shape / sizeof *shape; s++) {
            int n = shape[s][0], k = shape[s][1], room[POINTS];
            double cost[POINTS * POINTS], sum = 0;
            int32_t label[POINTS];
            for (int i = 0; i < n * k; i++) /* every other time with many ties */
                cost[i] = round % 2 ? floor(4 * uniform()) : uniform();
            for (int c = 0; c < k; c++) room[c] = n / k;
            double wanted = least(cost, n, k, 0, room);
            assert_int_equal(cluster_assign(cost, n, k, label, &e), 0);
            check_sizes(label, n, k);
            for (int i = 0; i < n; i++) sum += cost[i * k + label[i]];
            if (fabs(sum - wanted) > 1e-9)
                fail_msg("%d points, %d clusters: %.9g, the least is %.9g", n, k, sum, wanted);
        }
    }
}

/* Points around far centres come back as those groups, whatever their order. */
static void test_clusters_are_found(void **state)
{
    (void)state;
    enum { K = 5, EACH = 30, N = K * EACH, D = 7 };
    Err e = {0};
    double x[N * D];
    int32_t label[N], again[N];
    for (int i = 0; i < N; i++)
        for (int d = 0; d < D; d++)
            x[i * D + d] = (d == i % K ? 10 : 0) + 2 * uniform() - 1;
    ClusterPoints p = {x, N, D, K, 3, 4};
    assert_int_equal(cluster_balanced(&p, label, &e), 0);
    check_sizes(label, N, K);
    for (int i = 0; i < N; i++) assert_int_equal(label[i], label[i % K]);
    int threads = omp_get_max_threads();
    static const int counts[] = {1, 2, 3, 4, 8};
    for (int i = 0; i < N * D; i++) x[i] = uniform(); /* no clear groups: same bits matter */
    assert_int_equal(cluster_balanced(&p, label, &e), 0);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        omp_set_num_threads(counts[i]);
        assert_int_equal(cluster_balanced(&p, again, &e), 0);
        assert_memory_equal(label, again, sizeof label);
    }
    omp_set_num_threads(threads);
    for (int i = 0; i < N * D; i++) x[i] = 1; /* all the same */
    assert_int_equal(cluster_balanced(&p, label, &e), 0);
    check_sizes(label, N, K);
}

/* ---- splits -------------------------------------------------------------------------------- */

static Split split_of(int64_t S, int64_t E, int64_t F, int64_t shared)
{
    Split s = {.neurons = S, .experts = E, .width = F, .shared = shared, .seed = 9, .layer = 2};
    s.expert = malloc((size_t)(E * F + 1) * sizeof *s.expert);
    s.common = malloc((size_t)(shared + 1) * sizeof *s.common);
    return s;
}

static void split_free(Split *s)
{
    free(s->expert);
    free(s->common);
}

/* Lists ascend; counts[n] (S): in how many experts neuron n is, + 1000 if it is shared. */
static void count_neurons(const Split *s, int *counts)
{
    memset(counts, 0, (size_t)s->neurons * sizeof *counts);
    for (int64_t e = 0; e < s->experts; e++)
        for (int64_t i = 0; i < s->width; i++) {
            int32_t n = s->expert[e * s->width + i];
            assert_in_range(n, 0, s->neurons - 1);
            assert_true(!i || n > s->expert[e * s->width + i - 1]);
            counts[n]++;
        }
    for (int64_t i = 0; i < s->shared; i++) {
        assert_true(!i || s->common[i] > s->common[i - 1]);
        counts[s->common[i]] += 1000;
    }
}

static void test_random_is_a_partition(void **state)
{
    (void)state;
    static const int shape[][4] = {{24, 4, 6, 0}, {29, 3, 7, 8}, {5, 5, 1, 0}, {6, 1, 6, 0}};
    Err e = {0};
    int counts[64];
    for (size_t i = 0; i < 4; i++) {
        const int *n = shape[i];
        Split s = split_of(n[0], n[1], n[2], n[3]), other = split_of(n[0], n[1], n[2], n[3]);
        int shared = 0, same = 1;
        assert_int_equal(split_random(&s, &e), 0);
        count_neurons(&s, counts);
        for (int k = 0; k < n[0]; k++) {
            assert_true(counts[k] == 1 || counts[k] == 1000);
            shared += counts[k] == 1000;
        }
        assert_int_equal(shared, n[3]);
        other.layer = 3;
        assert_int_equal(split_random(&other, &e), 0);
        same = !memcmp(s.expert, other.expert, (size_t)(n[1] * n[2]) * sizeof *s.expert);
        assert_int_equal(same, n[1] == 1); /* each layer has its own */
        split_free(&s);
        split_free(&other);
    }
}

/* A neuron is as likely in one expert as in another. */
static void test_random_is_even(void **state)
{
    (void)state;
    enum { S = 12, E = 3, F = 4, DRAWS = 3000 };
    Err e = {0};
    int hits[S][E] = {{0}};
    Split s = split_of(S, E, F, 0);
    for (int i = 0; i < DRAWS; i++) {
        s.seed = (uint64_t)i;
        assert_int_equal(split_random(&s, &e), 0);
        for (int k = 0; k < E * F; k++) hits[s.expert[k]][k / F]++;
    }
    for (int n = 0; n < S; n++) /* mean 1000, 5 sigma = 129 */
        for (int k = 0; k < E; k++) assert_in_range(hits[n][k], 871, 1129);
    split_free(&s);
}

/* Rows that differ in length alone belong together. */
static void test_clustered_by_direction(void **state)
{
    (void)state;
    enum { E = 4, F = 6, S = E * F, D = 5 };
    Err e = {0};
    float up[S * D];
    int counts[S];
    for (int i = 0; i < S; i++) {
        float length = (float)exp(6 * uniform() - 3);
        for (int d = 0; d < D; d++)
            up[i * D + d] = length * (float)((d == i % E ? 1 : 0) + 0.05 * uniform());
    }
    Split s = split_of(S, E, F, 0);
    assert_int_equal(split_clustered(&s, up, D, &e), 0);
    count_neurons(&s, counts);
    for (int i = 0; i < S; i++) {
        assert_int_equal(counts[i], 1);
        assert_int_equal(s.expert[i] % E, s.expert[i / F * F] % E);
    }
    memset(up, 0, sizeof up); /* nothing to divide by */
    assert_int_equal(split_clustered(&s, up, D, &e), 0);
    count_neurons(&s, counts);
    for (int i = 0; i < S; i++) assert_int_equal(counts[i], 1);
    split_free(&s);
    s = split_of(S, 2, S / 2, 0); /* two directions near to each other, long and short rows */
    for (int i = 0; i < S; i++) {
        float length = i / 2 % 2 ? 100 : 1;
        for (int d = 0; d < D; d++) up[i * D + d] = 0;
        up[i * D] = length;
        up[i * D + 1] = length * (i % 2 ? 0.3f : -0.3f);
    }
    assert_int_equal(split_clustered(&s, up, D, &e), 0);
    for (int i = 0; i < S; i++)
        assert_int_equal(s.expert[i] % 2, s.expert[i / (S / 2) * (S / 2)] % 2);
    split_free(&s);
}

static void expect_list(const int32_t *list, const int *wanted, int n)
{
    for (int i = 0; i < n; i++)
        if (list[i] != wanted[i])
            fail_msg("place %d: neuron %d, expected %d", i, list[i], wanted[i]);
}

static void test_inner_takes_the_best(void **state)
{
    (void)state;
    Err e = {0};
    static const double v[] = {5, 1, 4, 1, 0, 3, /* expert 0: 0, 2, 5 */
                               1, 1, 1, 1, 1, 1, /* ties: 0, 1, 2 */
                               0, 9, 5, 7, 0, 8}; /* 1, 3, 5 */
    static const int wanted[] = {0, 2, 5, 0, 1, 2, 1, 3, 5};
    Split s = split_of(6, 3, 3, 0);
    assert_int_equal(split_inner(&s, v, &e), 0);
    expect_list(s.expert, wanted, 9);
    split_free(&s);
}

static void test_inter_shares_what_most_take(void **state)
{
    (void)state;
    Err e = {0};
    /* With a width of 2 the experts would take {0, 2}, {2, 4}, {2, 0}: neuron 2 three times, 0
     * twice, 4 once. Shared: 0 and 2. Of 1, 3, 4, 5 then: {5, 3}, {4, 1}, {1, 5}. */
    static const double v[] = {5, 1, 9, 2, 0, 3,
                               0, 2, 8, 1, 7, 0,
                               6, 5, 7, 1, 0, 4};
    static const int shared[] = {0, 2}, wanted[] = {3, 5, 1, 4, 1, 5};
    Split s = split_of(6, 3, 2, 2);
    assert_int_equal(split_inter(&s, v, &e), 0);
    expect_list(s.common, shared, 2);
    expect_list(s.expert, wanted, 6);
    split_free(&s);
    /* 1 and 3 are each taken once, as are 0 and 2: the larger sums are shared. */
    static const double w[] = {5, 0, 4, 0,
                               0, 9, 0, 8};
    s = split_of(4, 2, 2, 2);
    assert_int_equal(split_inter(&s, w, &e), 0);
    expect_list(s.common, (const int[]){1, 3}, 2);
    expect_list(s.expert, (const int[]){0, 2, 0, 2}, 4);
    split_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assignment_is_the_cheapest),
        cmocka_unit_test(test_clusters_are_found),
        cmocka_unit_test(test_random_is_a_partition),
        cmocka_unit_test(test_random_is_even),
        cmocka_unit_test(test_clustered_by_direction),
        cmocka_unit_test(test_inner_takes_the_best),
        cmocka_unit_test(test_inter_shares_what_most_take),
    };
    return cmocka_run_group_tests_name("train split", tests, NULL, NULL);
}
