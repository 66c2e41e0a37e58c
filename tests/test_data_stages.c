/* tests/test_data_stages.c - segments of a run: weights and T that change, sources that go on in
 * their permutations, and that all of it follows from segment and index. */
#include "tests/data_folders.h"

#include <math.h>

enum { SOURCES = 3, BATCH = 5 };

/* Changes of a run: from this sequence on, with this T and these weights. */
typedef struct Change {
    int64_t at, T;
    double weight[SOURCES];
} Change;

static void begin(Loader *l, const Change *change)
{
    Err e = {0};
    LoaderSegment s = loader_segment(l, change->at, change->T);
    memcpy(s.weight, change->weight, sizeof change->weight);
    assert_ok(loader_begin(l, &s, &e), e);
}

/* Inside a segment no source is four sequences or more away from its share (two in the first), and
 * what a segment begins with is the sum of what the ones before it gave. */
static void test_shares_by_segment(void **state)
{
    static const Change change[] = {{0, 16, {0.5, 0.3, 0.2}},
                                    {37, 16, {0.1, 0.9, 0}},
                                    {38, 16, {0, 0, 1}},
                                    {101, 16, {1, 2, 3}},
                                    {500, 16, {0.25, 0, 0.75}}};
    enum { CHANGES = sizeof change / sizeof *change, END = 900 };
    int64_t total[SOURCES] = {0};
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    Loader *l = open_loader(&o);
    for (int c = 0; c < CHANGES; c++) {
        begin(l, &change[c]);
        int64_t count[SOURCES] = {0}, end = c + 1 < CHANGES ? change[c + 1].at : END;
        LoaderSegment now = loader_segment(l, change[c].at, 16);
        assert_memory_equal(now.served, total, sizeof total);
        double sum = change[c].weight[0] + change[c].weight[1] + change[c].weight[2];
        for (int64_t i = change[c].at; i < end; i++) {
            int source;
            loader_where(l, i, &source);
            count[source]++;
            total[source]++;
            for (int s = 0; s < SOURCES; s++) {
                double share = (double)(i + 1 - change[c].at) * change[c].weight[s] / sum;
                assert_true(fabs((double)count[s] - share) < (c ? 4 : 2));
                if (change[c].weight[s] == 0) assert_int_equal(count[s], 0);
            }
        }
    }
    LoaderSegment last = loader_segment(l, END, 16);
    assert_memory_equal(last.served, total, sizeof total);
    loader_close(&l);
}

/* The small source's part of the sequences between two changes is a fifth of one. */
static const Change small = {0, 16, {0.75, 0.2, 0.05}};

/* Segments with one set of weights are one segment, window by window, however short they are. */
static void test_segments_of_one_mixture(void **state)
{
    enum { END = 2000 };
    int64_t count[SOURCES] = {0};
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    Loader *whole = open_loader(&o), *cut = open_loader(&o);
    Dice d = dice_make(7);
    begin(whole, &small);
    for (int64_t i = 0; i < END; i++) {
        Change change = small;
        change.at = i;
        if (i % 4 == 0 || roll(&d, 5) == 0) begin(cut, &change);
        int one, other;
        assert_int_equal(loader_where(whole, i, &one), loader_where(cut, i, &other));
        assert_int_equal(one, other);
        count[one]++;
    }
    for (int s = 0; s < SOURCES; s++)
        assert_true(fabs((double)count[s] - END * small.weight[s]) < 2);
    loader_close(&whole);
    loader_close(&cut);
}

/* Weights that move a little at each change: no source is far from the sum of its shares. */
static void test_no_source_starves(void **state)
{
    enum { BETWEEN = 4, CHANGES = 500 };
    double share[SOURCES] = {0};
    int64_t count[SOURCES] = {0};
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    Loader *l = open_loader(&o);
    Dice d = dice_make(9);
    for (int c = 0; c < CHANGES; c++) {
        Change change = small;
        double sum = 0;
        change.at = (int64_t)c * BETWEEN;
        for (int s = 0; s < SOURCES; s++) {
            change.weight[s] *= 0.8 + 0.1 * (double)roll(&d, 5);
            sum += change.weight[s];
        }
        begin(l, &change);
        for (int64_t i = 0; i < BETWEEN; i++) {
            int source;
            loader_where(l, change.at + i, &source);
            count[source]++;
        }
        for (int s = 0; s < SOURCES; s++) {
            share[s] += BETWEEN * change.weight[s] / sum;
            assert_true(fabs((double)count[s] - share[s]) < 3);
        }
    }
    assert_true(count[2] > 90); /* begun anew 500 times, it would have given none */
    loader_close(&l);
}

/* A held-out set reads no window twice before it has read all, whatever T and the weights; a second
 * round is the first. */
static void test_once(void **state)
{
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    o.shuffle = false;
    o.once = true;
    o.source[1].weight = 5; /* of the small source */
    Loader *l = open_loader(&o);
    Err e = {0};
    for (int64_t T = 16; T >= 8; T -= 8) {
        LoaderSegment segment = loader_segment(l, 0, T);
        assert_ok(loader_begin(l, &segment, &e), e);
        int64_t n = loader_windows(l), mixed = loader_whole_mixture(l);
        char *seen = calloc((size_t)SOURCES, 100000);
        assert_true(mixed > 0 && mixed < n);
        for (int64_t i = 0; i < n; i++) {
            int source, again;
            int64_t at = loader_where(l, i, &source);
            assert_true(at % T == 0 && at / T < 100000);
            assert_false(seen[source * 100000 + at / T]++);
            assert_true(loader_where(l, i + n, &again) == at && again == source);
            if (i >= mixed) assert_true(source != 1);
        }
        free(seen);
    }
    loader_close(&l);
}

/* While T stays, no window of a source comes twice before all have come, whatever the weights. */
static void test_no_window_twice_in_an_epoch(void **state)
{
    enum { T = 16, END = 3000 };
    int64_t windows[SOURCES], served[SOURCES] = {0};
    char *seen[SOURCES];
    (void)state;
    LoaderOptions o = options(SOURCES, T);
    for (int s = 0; s < SOURCES; s++) {
        LoaderOptions one = o;
        one.n_sources = 1;
        one.source[0] = o.source[s];
        Loader *alone = open_loader(&one);
        windows[s] = loader_windows(alone);
        seen[s] = calloc((size_t)windows[s], 1);
        loader_close(&alone);
    }
    Loader *l = open_loader(&o);
    Dice d = dice_make(31);
    for (int64_t i = 0; i < END; i++) {
        if (roll(&d, 40) == 0) {
            Change change = {i, T, {1 + roll(&d, 5), roll(&d, 3), roll(&d, 9)}};
            begin(l, &change);
        }
        int s;
        int64_t window = loader_where(l, i, &s) / T;
        assert_true(window >= 0 && window < windows[s]);
        assert_int_equal(seen[s][window], served[s] / windows[s]);
        seen[s][window]++;
        served[s]++;
        assert_true(loader_epochs(l, s, i + 1) == (double)served[s] / (double)windows[s]);
    }
    for (int s = 0; s < SOURCES; s++) {
        assert_true(served[s] > 2 * windows[s]); /* several epochs of each */
        free(seen[s]);
    }
    loader_close(&l);
}

/* A new T goes on where as many tokens are left of the epoch, in whole windows of it. */
static void test_new_length(void **state)
{
    Err e = {0};
    (void)state;
    LoaderOptions o = options(1, 16);
    Loader *l = open_loader(&o);
    int64_t n = loader_tokens(l), m16 = (n - 1) / 16, m40 = (n - 1) / 40;
    assert_int_equal(loader_segment(l, 0, 40).served[0], 0);
    assert_int_equal(loader_segment(l, 1, 40).served[0], 1);
    assert_int_equal(loader_segment(l, 5, 40).served[0], 2);
    assert_int_equal(loader_segment(l, 6, 40).served[0], 3);
    assert_int_equal(loader_segment(l, m16, 40).served[0], m40); /* a whole epoch stays one */
    assert_int_equal(loader_segment(l, 2 * m16 + 5, 40).served[0], 2 * m40 + 2);
    assert_int_equal(loader_segment(l, m16 - 1, 8).served[0], (m16 - 1) * 2);
    assert_int_equal(loader_segment(l, 7, 16).served[0], 7);
    for (int64_t i = 0; i < m16; i++) /* never beyond the epoch's end */
        assert_true(loader_segment(l, i, 40).served[0] <= m40);
    LoaderSegment s = loader_segment(l, 6, 40);
    assert_ok(loader_begin(l, &s, &e), e);
    assert_int_equal(loader_windows(l), m40);
    int32_t got[3 * 40], *all;
    int64_t *starts = malloc(100000 * sizeof *starts), count;
    all = all_tokens("a", 3, &count, starts);
    char *seen = calloc((size_t)m40, 1);
    for (int64_t i = 6; i < 6 + m40 - 3; i++) { /* the rest of the epoch: windows of the new T */
        int source;
        int64_t first = loader_where(l, i, &source);
        copy_batch(l, i, 1, got);
        assert_memory_equal(got, all + first, 40 * sizeof *got);
        assert_int_equal(first % 40, 0);
        assert_int_equal(seen[first / 40]++, 0);
    }
    free(seen);
    free(starts);
    free(all);
    loader_close(&l);
}

/* The batches of a run of three stages, each batch (3, BATCH, T), from batch `from` on.
 * segment[from - 1]: the one that a checkpoint before batch `from` kept; those of later batches are
 * written. */
static const Change stage[] = {{0, 16, {0.6, 0.4, 0}}, {7 * BATCH, 40, {0.6, 0.4, 0}},
                               {12 * BATCH, 40, {0.2, 0, 0.8}}};
enum { STAGES = 3, BATCHES = 17, ROW = 3 * BATCH * 40 };

static void play(int from, bool prefetch, int32_t *out, LoaderSegment *segment)
{
    Err e = {0};
    LoaderOptions o = options(SOURCES, stage[0].T);
    o.prefetch = prefetch;
    Loader *l = open_loader(&o);
    if (from > 0) assert_ok(loader_begin(l, &segment[from - 1], &e), e);
    for (int b = from; b < BATCHES; b++) {
        for (int s = 0; s < STAGES; s++)
            if (stage[s].at == (int64_t)b * BATCH) begin(l, &stage[s]);
        segment[b] = loader_segment(l, (int64_t)b * BATCH, b < 7 ? 16 : 40);
        memset(out + b * ROW, 0, ROW * sizeof *out);
        copy_batch(l, (int64_t)b * BATCH, BATCH, out + b * ROW);
    }
    loader_close(&l);
}

/* A resume before any batch, inside a stage or at its border, with or without reading ahead, gives
 * the same batches: from the segment that was in force, or from one begun anew at the place. */
static void test_resume_everywhere(void **state)
{
    int32_t *whole = calloc(BATCHES * ROW, sizeof *whole);
    int32_t *again = calloc(BATCHES * ROW, sizeof *again);
    LoaderSegment segment[BATCHES], copy[BATCHES];
    (void)state;
    play(0, false, whole, segment);
    for (int from = 0; from < BATCHES; from++) {
        memcpy(again, whole, (size_t)from * ROW * sizeof *again);
        memcpy(copy, segment, sizeof segment);
        /* what a checkpoint keeps is the segment as it was begun */
        int begun = from <= 7 ? 0 : from <= 12 ? 7 : 12;
        if (from > 0) copy[from - 1] = segment[begun];
        play(from, from % 2, again, copy);
        assert_memory_equal(whole, again, BATCHES * ROW * sizeof *whole);
    }
    free(whole);
    free(again);
}

/* A prefetched batch of the old segment is not taken for one of the new. */
static void test_prefetch_at_a_border(void **state)
{
    int32_t got[2][3 * BATCH * 16];
    Batch b;
    Err e = {0};
    (void)state;
    for (int prefetch = 0; prefetch < 2; prefetch++) {
        LoaderOptions o = options(SOURCES, 16);
        o.prefetch = prefetch;
        Loader *l = open_loader(&o);
        assert_ok(loader_batch(l, 0, BATCH, &b, &e), e);
        usleep(2000);
        Change change = {BATCH, 16, {0, 0, 1}};
        begin(l, &change);
        copy_batch(l, BATCH, BATCH, got[prefetch]);
        loader_close(&l);
    }
    assert_memory_equal(got[0], got[1], sizeof got[0]);
}

/* A segment that cannot be leaves the loader as it was. */
static void test_refusals(void **state)
{
    int32_t before[3 * BATCH * 16], after[3 * BATCH * 16];
    Err e = {0};
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    Loader *l = open_loader(&o);
    copy_batch(l, 0, BATCH, before);
    LoaderSegment s = loader_segment(l, 0, 1 << 20);
    assert_int_equal(loader_begin(l, &s, &e), -1);
    assert_message(e, "/a: ", "not enough for one sequence of 1048576", "hint: choose seq_len");
    s = loader_segment(l, 0, 16);
    memset(s.weight, 0, sizeof s.weight);
    assert_int_equal(loader_begin(l, &s, &e), -1);
    assert_message(e, "no share");
    copy_batch(l, 0, BATCH, after);
    assert_memory_equal(before, after, sizeof before);
    /* a source without a window of T is no obstacle while nothing is taken from it */
    make_folder("short", 5, 1, 1, 12);
    char *path = strdup(in_dir("short"));
    o.source[1].path = path;
    loader_close(&l);
    assert_null(loader_open(&o, &e));
    o.source[1].weight = 0;
    l = open_loader(&o);
    assert_true(loader_epochs(l, 1, 100) == 0);
    loader_close(&l);
    free(path);
}

/* Held-out windows: of n asked, each source gives its share, evenly spread in file order, at every
 * length; all of them are all; a new segment begins with the first ones. */
static void test_spread(void **state)
{
    (void)state;
    LoaderOptions o = options(SOURCES, 16);
    o.shuffle = false;
    o.once = true;
    Loader *l = open_loader(&o);
    Err e = {0};
    int64_t windows = loader_windows(l), mixed = loader_whole_mixture(l);
    const int64_t asked[] = {1, 2, 3, 7, 20, mixed, mixed + 1, windows - 1, windows};
    for (size_t k = 0; k < sizeof asked / sizeof *asked; k++) {
        const int64_t n = asked[k];
        int64_t count[SOURCES] = {0}, seen[SOURCES] = {0}, has[SOURCES] = {0};
        int source;
        loader_spread(l, 0);
        for (int64_t i = 0; i < windows; i++) {
            loader_where(l, i, &source);
            has[source]++;
            count[source] += i < n;
        }
        loader_spread(l, n);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = loader_where(l, i, &source);
            assert_int_equal(at, seen[source] * has[source] / count[source] * 16);
            seen[source]++;
        }
        assert_memory_equal(seen, count, sizeof seen);
    }
    int first, again;
    loader_spread(l, mixed / 2);
    int64_t spread = loader_where(l, mixed / 2 - 1, &first);
    LoaderSegment segment = loader_segment(l, 0, 16);
    assert_ok(loader_begin(l, &segment, &e), e);
    assert_true(loader_where(l, mixed / 2 - 1, &again) < spread && again == first);
    loader_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_spread), cmocka_unit_test(test_shares_by_segment),
        cmocka_unit_test(test_segments_of_one_mixture), cmocka_unit_test(test_no_source_starves),
        cmocka_unit_test(test_no_window_twice_in_an_epoch),
        cmocka_unit_test(test_new_length),
        cmocka_unit_test(test_resume_everywhere),
        cmocka_unit_test(test_prefetch_at_a_border),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("data stages", tests, folders_make, test_dir_remove);
}
