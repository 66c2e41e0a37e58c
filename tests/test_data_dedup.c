/* tests/test_data_dedup.c - equal and near-equal documents: the estimate against Jaccard's index of
 * the shingles themselves, the rate of found pairs against the formula of the bands. */
#include "tests/test_data.h"

#include <math.h>

#include "data/dedup.h"

enum { HASHES = DEDUP_BANDS * DEDUP_ROWS, PAIR_WORDS = 400 };

static Dedup *open_dedup(int exact, double near)
{
    Err e = {0};
    DedupOptions o = {exact, near, DEDUP_BANDS, DEDUP_ROWS, DEDUP_BYTES};
    Dedup *d = dedup_create(&o, &e);
    if (!d) fail_msg("%s", e.message);
    return d;
}

static void sign(const Dedup *d, const char *text, uint32_t *signature)
{
    Err e = {0};
    DocText t = {0};
    assert_ok(doctext_read(&t, text, strlen(text), &e), e);
    dedup_sign(d, &t, signature);
    doctext_free(&t);
}

/* ---- pairs of documents of known likeness -------------------------------------------------- */

/* Two documents as words by number: a changed word is one that is nowhere else. */
typedef struct Pair {
    int n[2];
    int word[2][PAIR_WORDS];
} Pair;

/* `words` fresh words; the second document is the first with about `changes` of them changed. */
static Pair make_pair(Dice *dice, int *fresh, int words, int changes)
{
    Pair p = {.n = {words, words}};
    for (int i = 0; i < words; i++) {
        p.word[0][i] = (*fresh)++;
        p.word[1][i] = (int)roll(dice, (uint32_t)words) < changes ? (*fresh)++ : p.word[0][i];
    }
    return p;
}

static void write_words(const Pair *p, int side, char *out)
{
    out[0] = 0;
    for (int i = 0; i < p->n[side]; i++)
        out += snprintf(out, 16, "%s%d", i ? i % 7 ? " " : "\n " : "", p->word[side][i]);
}

/* Jaccard's index of the sets of shingles: all words of a document differ, so every shingle of one
 * side is equal to at most one of the other. */
static double jaccard(const Pair *p)
{
    int a = p->n[0] - DEDUP_SHINGLE + 1, b = p->n[1] - DEDUP_SHINGLE + 1, both = 0;
    for (int i = 0; i < a; i++)
        for (int j = 0; j < b; j++)
            both += !memcmp(p->word[0] + i, p->word[1] + j, DEDUP_SHINGLE * sizeof(int));
    return (double)both / (a + b - both);
}

/* Each of the hashes agrees with probability s, independently: the number that does is binomial. */
static void test_estimate_is_binomial(void **state)
{
    (void)state;
    enum { PAIRS = 1500 };
    Dice dice = dice_make(60);
    Dedup *d = open_dedup(0, 0.8);
    static char text[2][PAIR_WORDS * 16];
    double sum = 0, variance = 0, chi = 0;
    int fresh = 0, used = 0;
    for (int i = 0; i < PAIRS; i++) {
        int words = 20 + (int)roll(&dice, PAIR_WORDS - 20);
        Pair p = make_pair(&dice, &fresh, words, (int)roll(&dice, (uint32_t)(words / 5)));
        uint32_t signature[2][HASHES];
        for (int side = 0; side < 2; side++) {
            write_words(&p, side, text[side]);
            sign(d, text[side], signature[side]);
        }
        double s = jaccard(&p), k = HASHES * dedup_likeness(signature[0], signature[1], HASHES);
        double v = HASHES * s * (1 - s);
        if (v < 1) { /* nearly all or none: no normal law, but all or none is exact */
            if (s == 0 || s == 1) assert_true(k == HASHES * s);
            continue;
        }
        if (fabs(k - HASHES * s) > 6 * sqrt(v) + 1)
            fail_msg("likeness %.4f, estimated %.4f", s, k / HASHES);
        sum += k - HASHES * s;
        variance += v;
        chi += (k - HASHES * s) * (k - HASHES * s) / v;
        used++;
    }
    assert_true(used > PAIRS / 2);
    if (fabs(sum) > 5 * sqrt(variance)) fail_msg("bias: %.1f sigma", sum / sqrt(variance));
    if (fabs(chi - used) > 5 * sqrt(2.0 * used))
        fail_msg("spread: chi^2 %.1f of %d", chi, used);
    dedup_destroy(&d);
}

/* Of pairs of likeness s, 1 - (1 - s^rows)^bands are compared; those whose estimate reaches the
 * threshold are found, and no others. */
static void test_rate_of_the_bands(void **state)
{
    (void)state;
    enum { PAIRS = 400 };
    static const double share[] = {0.005, 0.02, 0.03, 0.045, 0.06, 0.09}; /* words changed */
    static char text[PAIR_WORDS * 16];
    static Pair pair[PAIRS];
    static uint32_t signature[PAIRS][2][HASHES];
    Dice dice = dice_make(61);
    int fresh = 0;
    for (size_t k = 0; k < sizeof share / sizeof *share; k++) {
        Dedup *any = open_dedup(0, 1e-9), *near = open_dedup(0, 0.8);
        Err e = {0};
        double expected = 0, variance = 0;
        int compared = 0;
        for (int i = 0; i < PAIRS; i++) {
            pair[i] = make_pair(&dice, &fresh, PAIR_WORDS, (int)(share[k] * PAIR_WORDS));
            for (int side = 0; side < 2; side++) {
                write_words(&pair[i], side, text);
                sign(any, text, signature[i][side]);
            }
            assert_ok(dedup_add(any, 0, signature[i][0], i, &e), e);
            assert_ok(dedup_add(near, 0, signature[i][0], i, &e), e);
        }
        for (int i = 0; i < PAIRS; i++) {
            DedupMatch match = {-1, 0};
            double s = jaccard(&pair[i]), p = 1 - pow(1 - pow(s, DEDUP_ROWS), DEDUP_BANDS);
            double likeness = dedup_likeness(signature[i][0], signature[i][1], HASHES);
            bool seen = dedup_find_near(any, signature[i][1], &match);
            if (seen) assert_true(match.document == i && match.likeness == likeness);
            compared += seen;
            expected += p;
            variance += p * (1 - p);
            match.document = -1;
            bool found = dedup_find_near(near, signature[i][1], &match);
            assert_true(found == (seen && likeness >= 0.8));
            if (found) assert_true(match.document == i && match.likeness == likeness);
        }
        if (fabs(compared - expected) > 5 * sqrt(variance) + 1)
            fail_msg("%g of the words changed: %d of %d pairs compared, expected %.1f", share[k],
                     compared, PAIRS, expected);
        dedup_destroy(&any);
        dedup_destroy(&near);
    }
}

static void test_short_documents(void **state)
{
    (void)state;
    Err e = {0};
    Dedup *d = open_dedup(0, 0.8);
    DedupMatch match;
    uint32_t none[HASHES], few[HASHES], other[HASHES];
    sign(d, " \n\t ", none);
    sign(d, "three small words", few);
    assert_ok(dedup_add(d, 0, none, 1, &e), e);
    assert_ok(dedup_add(d, 0, few, 2, &e), e);
    assert_int_equal(dedup_find_near(d, none, &match), 0);
    assert_int_equal(dedup_find_near(d, few, &match), 1);
    assert_true(match.document == 2 && match.likeness == 1);
    sign(d, "three  small\nwords", other);
    assert_memory_equal(few, other, sizeof few);
    sign(d, "three small words more", other);
    assert_int_equal(dedup_find_near(d, other, &match), 0);
    sign(d, "three words small", other);
    assert_int_equal(dedup_find_near(d, other, &match), 0);
    dedup_destroy(&d);
}

/* The signature of a document is a set's: order and number of shingles are nothing. */
static void test_signature_of_a_set(void **state)
{
    (void)state;
    Dedup *d = open_dedup(0, 0.8);
    uint32_t once[HASHES], twice[HASHES];
    sign(d, "a b c d e f g a b c d", once);
    sign(d, "a b c d e f g a b c d e f g a b c d", twice);
    assert_memory_equal(once, twice, sizeof once);
    dedup_destroy(&d);
}

/* ---- tables -------------------------------------------------------------------------------- */

static void test_equal(void **state)
{
    (void)state;
    enum { N = 30000 };
    Err e = {0};
    DedupMatch match;
    Dedup *d = open_dedup(1, 0);
    assert_int_equal(dedup_find_equal(d, 0, &match), 0);
    for (uint64_t i = 0; i < N; i++) /* hashes that fall on few places of the table */
        assert_ok(dedup_add(d, i << 20 | i % 3, NULL, (int64_t)i, &e), e);
    assert_ok(dedup_add(d, 0, NULL, 12345, &e), e); /* the first one stays */
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(dedup_find_equal(d, i << 20 | i % 3, &match), 1);
        assert_int_equal(match.document, i);
        assert_int_equal(dedup_find_equal(d, i << 20 | 5, &match), 0);
    }
    assert_int_equal(dedup_costs(d).documents, N + 1);
    dedup_destroy(&d);
}

/* A signature with one band of its own choice and the rest at random. */
static void craft(Dice *dice, uint32_t *signature, int band, uint32_t value)
{
    for (int i = 0; i < HASHES; i++) signature[i] = roll(dice, UINT32_MAX);
    for (int i = 0; i < DEDUP_ROWS; i++) signature[band * DEDUP_ROWS + i] = value;
}

/* However many agree in a band, one document is compared with so many and no more. */
static void test_comparisons_are_bounded(void **state)
{
    (void)state;
    Err e = {0};
    Dice dice = dice_make(62);
    Dedup *d = open_dedup(0, 0.8);
    DedupMatch match;
    uint32_t first[HASHES], s[HASHES];
    craft(&dice, first, 3, 77);
    assert_ok(dedup_add(d, 0, first, 0, &e), e);
    craft(&dice, s, 3, 77);
    memcpy(s + 4 * DEDUP_ROWS, first + 4 * DEDUP_ROWS, (HASHES - 4 * DEDUP_ROWS) * sizeof *s);
    memcpy(s, first, 2 * DEDUP_ROWS * sizeof *s);
    s[0]++; /* in band 3 first, and the oldest there: at the chain's end */
    s[DEDUP_ROWS]++;
    uint32_t other[HASHES];
    for (int i = 1; i < DEDUP_COMPARE_MAX; i++) {
        craft(&dice, other, 3, 77);
        assert_ok(dedup_add(d, 0, other, i, &e), e);
    }
    assert_int_equal(dedup_find_near(d, s, &match), 1);
    assert_int_equal(match.document, 0);
    assert_int_equal(dedup_costs(d).cut_short, 0);
    craft(&dice, other, 3, 77);
    assert_ok(dedup_add(d, 0, other, DEDUP_COMPARE_MAX, &e), e);
    assert_int_equal(dedup_find_near(d, s, &match), 0);
    assert_int_equal(dedup_costs(d).cut_short, 1);
    dedup_destroy(&d);
}

/* Memory per document as docs/FORMATS.md says; at the limit an error, and not one byte more. */
static void test_memory(void **state)
{
    (void)state;
    enum { N = 40000 };
    Err e = {0};
    Dice dice = dice_make(63);
    uint32_t s[HASHES];
    Dedup *d = open_dedup(1, 0.8);
    for (int i = 0; i < N; i++) {
        craft(&dice, s, 0, (uint32_t)i);
        assert_ok(dedup_add(d, (uint64_t)i * 0x9E3779B97F4A7C15u, s, i, &e), e);
    }
    assert_in_range(dedup_costs(d).bytes / N, 584 + 24 + 96, 584 + 48 + 192);
    dedup_destroy(&d);
    DedupOptions o = {1, 0.8, DEDUP_BANDS, DEDUP_ROWS, 4 << 20};
    d = dedup_create(&o, &e);
    assert_non_null(d);
    int added = 0;
    for (; added < N; added++) {
        craft(&dice, s, 0, (uint32_t)added);
        if (dedup_add(d, (uint64_t)added * 0x9E3779B97F4A7C15u, s, added, &e)) break;
    }
    assert_message(e, "needs more than the 4 MiB it may have", "--dedup-memory");
    assert_true(added > 2000 && dedup_costs(d).bytes <= o.bytes);
    dedup_destroy(&d);
    o.bytes = 1;
    assert_null(dedup_create(&o, &e));
    assert_message(e, "0 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_estimate_is_binomial),
        cmocka_unit_test(test_rate_of_the_bands),
        cmocka_unit_test(test_short_documents),
        cmocka_unit_test(test_signature_of_a_set),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_comparisons_are_bounded),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("data dedup", tests, NULL, NULL);
}
