/* tests/test_data_sieve.c - all filters over a folder of documents: who takes out what, in which
 * order, the same for any threads and on every reading; and `prepare` with filters, which must give
 * what it gives for input without those documents. */
#include "tests/test_data.h"

#include <jansson.h>
#include <math.h>
#include <omp.h>

#include "base/hash.h"
#include "base/log.h"
#include "data/manifest.h"
#include "data/prepare.h"

enum { DOCS = 2600, VOCAB = 400 };

/* The documents, what must become of each, and of which one it is a copy. */
static char *doc[DOCS];
static size_t doc_size[DOCS];
static Filter wanted[DOCS];
static int original[DOCS];

/* Fake bits a byte: what follows the mark '@' in the text, else 1. */
static double bits_of(const char *text, size_t size)
{
    const char *mark = memchr(text, '@', size);
    return mark ? strtod(mark + 1, NULL) : 1;
}

typedef struct Scored {
    int calls, documents;
    int fail; /* at this document; -1: never */
    double value; /* instead of all bits; 0: none */
} Scored;

static int fake_score(void *context, const Document *documents, int n, double *bits, Err *e)
{
    Scored *s = context;
    s->calls++;
    for (int i = 0; i < n; i++, s->documents++) {
        if (s->documents == s->fail) return err_set(e, "the model failed");
        bits[i] = s->value != 0 ? s->value : bits_of(documents[i].text, documents[i].size);
    }
    return 0;
}

static FilterOptions all_filters(Scored *scored)
{
    return (FilterOptions){
        .limit = {[FILTER_WORDS] = {true, 20, INFINITY},
                  [FILTER_SYMBOLS] = {true, -INFINITY, 0.3},
                  [FILTER_LINES] = {true, -INFINITY, 0.6},
                  [FILTER_BITS] = {true, 0.5, 2},
                  [FILTER_EXACT] = {true, 0, 0},
                  [FILTER_NEAR] = {true, -INFINITY, 0.8}},
        .score = fake_score,
        .score_context = scored,
        .score_name = "a model",
    };
}

static void append(int i, const char *text)
{
    size_t n = strlen(text);
    doc[i] = realloc(doc[i], doc_size[i] + n + 1);
    memcpy(doc[i] + doc_size[i], text, n + 1);
    doc_size[i] += n;
}

/* Document i becomes a bad one of a kind, or a copy of an earlier good one. */
static void spoil(Dice *d, int i, int kind)
{
    int j = (int)roll(d, (uint32_t)i);
    while (wanted[j] != FILTERS) j = (j + 1) % i;
    if (kind == 0) {
        doc_size[i] = 0;
        append(i, "too few words");
        wanted[i] = FILTER_WORDS;
    } else if (kind == 1) {
        for (int k = 0; k < 60; k++) append(i, " #$%&*()! ++=!!! ~~~");
        wanted[i] = FILTER_SYMBOLS;
    } else if (kind == 2) {
        for (int k = 0; k < 300; k++) append(i, "\nagain and again");
        wanted[i] = FILTER_LINES;
    } else if (kind == 3) {
        append(i, "\n@ 3.5");
        wanted[i] = FILTER_BITS;
    } else { /* 4: equal but for white space; 5: nearly */
        doc_size[i] = 0;
        append(i, kind == 4 ? "\n  " : "another ");
        append(i, doc[j]);
        wanted[i] = kind == 4 ? FILTER_EXACT : FILTER_NEAR;
        original[i] = j;
    }
}

static void put_json(const char *path, bool kept_only)
{
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < DOCS; i++) {
        if (kept_only && wanted[i] != FILTERS) continue;
        json_t *line = json_pack("{s:s%}", "text", doc[i], doc_size[i]);
        json_dumpf(line, f, JSON_COMPACT);
        json_decref(line);
        fputc('\n', f);
    }
    fclose(f);
}

static int setup(void **state)
{
    if (test_dir_make(state)) return -1;
    Dice d = dice_make(70);
    for (int i = 0; i < DOCS; i++) {
        doc[i] = made_text((uint64_t)(1000 + i), 400 + roll(&d, 1500));
        doc_size[i] = strlen(doc[i]);
        wanted[i] = FILTERS;
        original[i] = -1;
        int kind = (int)roll(&d, 16);
        if (i > 10 && kind < 6) spoil(&d, i, kind);
    }
    put_json(in_dir("all.jsonl"), false);
    put_json(in_dir("kept.jsonl"), true);
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < DOCS; i++) free(doc[i]);
    return test_dir_remove(state);
}

static InputList list_of(const char *path)
{
    Err e = {0};
    InputList list;
    assert_ok(inputs_expand(&path, 1, &list, &e), e);
    return list;
}

/* One reading, which must hand out the documents that are to be kept. */
static void read_kept(Sieve *s, const InputList *list)
{
    Err e = {0};
    Document d;
    int more, i = 0;
    Source *source = source_open(list, NULL, BAD_FAILS, &e);
    sieve_begin(s, source, list);
    while ((more = sieve_next(s, &d, &e)) > 0) {
        while (i < DOCS && wanted[i] != FILTERS) i++;
        if (i == DOCS || d.size != doc_size[i] || memcmp(d.text, doc[i], d.size))
            fail_msg("kept something else where document %d was expected", i);
        i++;
    }
    if (more < 0) fail_msg("%s", e.message);
    for (; i < DOCS; i++)
        if (wanted[i] == FILTERS) fail_msg("document %d was taken out", i);
    source_close(&source);
}

static void test_who_takes_what(void **state)
{
    (void)state;
    Err e = {0};
    InputList list = list_of(in_dir("all.jsonl"));
    int threads = omp_get_max_threads(), counts[] = {1, 2, 3, 4, 8};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        Scored scored = {.fail = -1};
        FilterOptions o = all_filters(&scored);
        int64_t documents = 0, bytes = 0, unscored = 0;
        omp_set_num_threads(counts[k]);
        Sieve *s = sieve_create(&o, &e);
        read_kept(s, &list);
        read_kept(s, &list); /* looked up */
        read_kept(s, &list);
        const SieveResult *r = sieve_result(s);
        for (int f = 0; f < FILTERS; f++) {
            FilterCount sum = {0, 0};
            for (int i = 0; i < DOCS; i++) {
                if (wanted[i] != (Filter)f) continue;
                sum.documents++;
                sum.bytes += (int64_t)doc_size[i];
            }
            assert_int_equal(r->removed[f].documents, sum.documents);
            assert_int_equal(r->removed[f].bytes, sum.bytes);
            assert_true(!o.limit[f].on || sum.documents > 50);
            documents += sum.documents;
            bytes += sum.bytes;
            if (f < FILTERS_TEXT) unscored += sum.documents;
        }
        for (int i = 0; i < DOCS; i++) {
            documents += wanted[i] == FILTERS;
            bytes += wanted[i] == FILTERS ? (int64_t)doc_size[i] : 0;
        }
        assert_true(r->documents == DOCS && documents == DOCS && r->bytes == bytes);
        assert_int_equal(scored.documents, DOCS - unscored); /* once each */
        sieve_destroy(&s);
    }
    omp_set_num_threads(threads);
    inputs_free(&list);
}

static void test_no_filter(void **state)
{
    (void)state;
    Err e = {0};
    FilterOptions none = {0};
    SieveResult zero = {0};
    Document d;
    int64_t n = 0;
    InputList list = list_of(in_dir("all.jsonl"));
    Sieve *s = sieve_create(&none, &e);
    Source *source = source_open(&list, NULL, BAD_FAILS, &e);
    sieve_begin(s, source, &list);
    for (; sieve_next(s, &d, &e) > 0; n++) assert_memory_equal(d.text, doc[n], doc_size[n]);
    assert_int_equal(n, DOCS);
    assert_memory_equal(sieve_result(s), &zero, sizeof zero);
    source_close(&source);
    sieve_destroy(&s);
    inputs_free(&list);
}

static void test_report(void **state)
{
    (void)state;
    Err e = {0};
    Scored scored = {.fail = -1};
    FilterOptions o = all_filters(&scored);
    InputList list = list_of(in_dir("all.jsonl"));
    char text[4096];
    int i = 0;
    o.report = in_dir("report.jsonl");
    Sieve *s = sieve_create(&o, &e);
    read_kept(s, &list);
    read_kept(s, &list); /* writes no line again */
    sieve_destroy(&s);
    FILE *f = fopen(o.report, "r");
    for (; fgets(text, sizeof text, f); i++) {
        while (i < DOCS && wanted[i] == FILTERS) i++;
        json_t *line = json_loads(text, 0, NULL);
        const char *filter, *file;
        json_int_t document, bytes, of = -1;
        double value;
        assert_int_equal(json_unpack(line, "{s:I, s:I, s:s, s:F, s?I, s:s}", "document", &document,
                                     "bytes", &bytes, "filter", &filter, "value", &value, "of", &of,
                                     "file", &file), 0);
        assert_int_equal(document, i);
        assert_int_equal(bytes, doc_size[i]);
        assert_string_equal(filter, filter_name[wanted[i]]);
        assert_string_equal(file, in_dir("all.jsonl"));
        assert_int_equal(of, original[i]);
        if (wanted[i] == FILTER_WORDS) assert_true(value == 3);
        if (wanted[i] == FILTER_BITS) assert_true(value == 3.5);
        if (wanted[i] == FILTER_EXACT) assert_true(value == 1);
        if (wanted[i] == FILTER_NEAR) assert_true(value >= 0.8);
        json_decref(line);
    }
    while (i < DOCS && wanted[i] == FILTERS) i++;
    assert_int_equal(i, DOCS);
    fclose(f);
    o.report = in_dir("none/report");
    assert_null(sieve_create(&o, &e));
    assert_message(e, "none/report", "cannot be written");
    inputs_free(&list);
}

/* A document that another filter takes out is no original: its copy may stay. */
static void test_copies_of_what_is_out(void **state)
{
    (void)state;
    Err e = {0};
    Document d;
    char *text = made_text(71, 900), line[2048];
    Scored scored = {.fail = -1};
    FilterOptions o = {.limit = {[FILTER_BITS] = {true, 0, 2}, [FILTER_NEAR] = {true, 0, 0.5},
                                 [FILTER_EXACT] = {true, 0, 0}},
                       .score = fake_score, .score_context = &scored};
    FILE *f = fopen(in_dir("copies.jsonl"), "wb");
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "%s%s", text, i == 0 ? " @ 9" : "");
        json_t *object = json_pack("{s:s}", "text", line);
        json_dumpf(object, f, JSON_COMPACT);
        fputc('\n', f);
        json_decref(object);
    }
    fclose(f);
    InputList list = list_of(in_dir("copies.jsonl"));
    Source *source = source_open(&list, NULL, BAD_FAILS, &e);
    Sieve *s = sieve_create(&o, &e);
    sieve_begin(s, source, &list);
    assert_int_equal(sieve_next(s, &d, &e), 1);
    assert_int_equal(d.size, strlen(text));
    assert_int_equal(sieve_next(s, &d, &e), 0);
    assert_int_equal(sieve_result(s)->removed[FILTER_BITS].documents, 1);
    assert_int_equal(sieve_result(s)->removed[FILTER_EXACT].documents, 2);
    sieve_destroy(&s);
    source_close(&source);
    inputs_free(&list);
    free(text);
}

/* The verdicts of one reading are not used for other documents. */
static void test_changed_input(void **state)
{
    (void)state;
    Err e = {0};
    Document d;
    Dice dice = dice_make(72);
    FilterOptions o = {.limit[FILTER_WORDS] = {true, 20, INFINITY}};
    for (int change = 0; change < 3; change++) {
        InputList list = list_of(in_dir("all.jsonl"));
        Sieve *s = sieve_create(&o, &e);
        Source *source = source_open(&list, NULL, BAD_FAILS, &e);
        sieve_begin(s, source, &list);
        while (sieve_next(s, &d, &e) > 0) {}
        source_close(&source);
        size_t size;
        char *text;
        assert_ok(io_read_all(in_dir("all.jsonl"), 1 << 30, &text, &size, &e), e);
        if (change == 0) *(strrchr(text, ' ') - 1) ^= 1; /* one letter */
        size_t line = strcspn(text, "\n") + 1;
        put_file(in_dir("changed.jsonl"), change == 1 ? text + line : text,
                 change == 1 ? size - line : size);
        if (change == 2) {
            FILE *f = fopen(in_dir("changed.jsonl"), "a");
            fprintf(f, "{\"text\": \"one more %u\"}\n", roll(&dice, 9));
            fclose(f);
        }
        InputList other = list_of(in_dir("changed.jsonl"));
        source = source_open(&other, NULL, BAD_FAILS, &e);
        sieve_begin(s, source, &other);
        int more;
        while ((more = sieve_next(s, &d, &e)) > 0) {}
        assert_int_equal(more, -1);
        assert_message(e, "the input changed while it was read");
        source_close(&source);
        sieve_destroy(&s);
        inputs_free(&list);
        inputs_free(&other);
        free(text);
    }
}

static void test_failing_model(void **state)
{
    (void)state;
    Err e = {0};
    Document d;
    InputList list = list_of(in_dir("all.jsonl"));
    for (int kind = 0; kind < 2; kind++) {
        Scored scored = {.fail = kind ? -1 : 700, .value = kind ? NAN : 0};
        FilterOptions o = all_filters(&scored);
        Source *source = source_open(&list, NULL, BAD_FAILS, &e);
        Sieve *s = sieve_create(&o, &e);
        int more;
        sieve_begin(s, source, &list);
        while ((more = sieve_next(s, &d, &e)) > 0) {}
        assert_int_equal(more, -1);
        assert_message(e, kind ? "document 0 are not a number" : "the model failed");
        sieve_destroy(&s);
        source_close(&source);
    }
    inputs_free(&list);
}

/* ---- prepare ------------------------------------------------------------------------------- */

static PrepareOptions plan(const char **input, const char *out)
{
    return (PrepareOptions){.inputs = input, .n_inputs = 1, .out = out, .vocab_size = VOCAB,
                            .val_fraction = 0.25, .shard_tokens = 100000};
}

/* Filtered is as never given: tokenizer, split, shards. */
static void test_prepare_what_is_kept(void **state)
{
    (void)state;
    Err e = {0};
    Scored scored = {.fail = -1};
    const char *all = in_dir("all.jsonl"), *kept = in_dir("kept.jsonl");
    PrepareResult filtered, plain, verified;
    PrepareOptions o = plan(&all, in_dir("filtered"));
    o.filter = all_filters(&scored);
    assert_ok(prepare_run(&o, &filtered, &e), e);
    PrepareOptions p = plan(&kept, in_dir("plain"));
    assert_ok(prepare_run(&p, &plain, &e), e);
    Manifest m, n;
    assert_ok(manifest_read(&m, o.out, &e), e);
    assert_ok(manifest_read(&n, p.out, &e), e);
    assert_true(m.tokenizer_hash == n.tokenizer_hash && m.count == n.count && m.count > 2);
    for (int i = 0; i < m.count; i++) {
        assert_true(m.shard[i].tokens_checksum == n.shard[i].tokens_checksum);
        assert_true(m.shard[i].docs_checksum == n.shard[i].docs_checksum);
    }
    json_t *note = json_load_file(in_dir("plain/prepare.json"), 0, NULL);
    assert_true(note && !json_object_get(note, "filters"));
    json_decref(note);
    assert_int_equal(filtered.documents, plain.documents);
    assert_int_equal(filtered.bytes, plain.bytes);
    assert_int_equal(filtered.filter.documents, DOCS);
    int64_t documents = filtered.documents, bytes = filtered.bytes;
    for (int f = 0; f < FILTERS; f++) {
        documents += filtered.filter.removed[f].documents;
        bytes += filtered.filter.removed[f].bytes;
    }
    assert_int_equal(documents, filtered.filter.documents);
    assert_int_equal(bytes, filtered.filter.bytes);
    assert_ok(prepare_verify(o.out, &verified, &e), e);
    assert_int_equal(verified.documents, filtered.documents);
    p.tokenizer = in_dir("plain/tokenizer.model"); /* one reading then */
    p.inputs = &all;
    p.filter = all_filters(&scored);
    p.overwrite = true;
    PrepareResult given;
    assert_ok(prepare_run(&p, &given, &e), e);
    assert_memory_equal(&given, &filtered, sizeof given);
    manifest_free(&m);
    manifest_free(&n);
}

/* prepare.json says what each filter took out. */
static void test_note(void **state)
{
    (void)state;
    Scored scored = {.fail = -1};
    FilterOptions o = all_filters(&scored);
    json_t *note = json_load_file(in_dir("filtered/prepare.json"), 0, NULL), *rows, *row;
    json_t *filters = json_object_get(note, "filters");
    json_int_t documents, bytes, sum = 0;
    size_t i;
    assert_int_equal(json_unpack(filters, "{s:I, s:I, s:o}", "documents", &documents, "bytes",
                                 &bytes, "removed", &rows), 0);
    assert_int_equal(documents, DOCS);
    assert_int_equal(json_array_size(rows), 6);
    int f = 0;
    json_array_foreach(rows, i, row) {
        const char *name, *model = NULL;
        while (!o.limit[f].on) f++;
        assert_int_equal(json_unpack(row, "{s:s, s:I, s:I, s?s}", "filter", &name, "documents",
                                     &documents, "bytes", &bytes, "model", &model), 0);
        assert_string_equal(name, filter_name[f]);
        assert_true(documents > 0 && bytes > 0);
        assert_true((f == FILTER_BITS) == (model && !strcmp(model, "a model")));
        if (f == FILTER_WORDS) {
            assert_true(json_number_value(json_object_get(row, "low")) == 20);
            assert_true(json_is_null(json_object_get(row, "high")));
        }
        if (f == FILTER_NEAR) {
            assert_true(json_number_value(json_object_get(row, "likeness")) == 0.8);
            assert_int_equal(json_integer_value(json_object_get(row, "bands")), DEDUP_BANDS);
        }
        sum += documents;
        f++;
    }
    assert_true(sum > 300 && sum < DOCS);
    json_decref(note);
}

static void test_dry_run(void **state)
{
    (void)state;
    Err e = {0};
    Scored scored = {.fail = -1};
    const char *all = in_dir("all.jsonl");
    PrepareResult dry, real;
    PrepareOptions o = plan(&all, in_dir("dry"));
    o.filter = all_filters(&scored);
    o.dry_run = true;
    assert_ok(prepare_run(&o, &dry, &e), e);
    assert_false(io_exists(in_dir("dry")));
    o.dry_run = false;
    assert_ok(prepare_run(&o, &real, &e), e);
    assert_memory_equal(&dry.filter, &real.filter, sizeof dry.filter);
    assert_int_equal(dry.documents, real.documents);
    assert_int_equal(dry.bytes, real.bytes);
}

static void test_prepare_refuses(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *all = in_dir("all.jsonl");
    PrepareOptions o = plan(&all, in_dir("refused"));
    o.tokenizer = in_dir("plain/tokenizer.model");
    o.filter.limit[FILTER_WORDS] = (FilterLimit){true, 1e9, INFINITY};
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "the filters took out all 2600 documents", "hint:");
    o.filter.limit[FILTER_WORDS] = (FilterLimit){true, 5, 4};
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "filter words: keeps from 5 to 4");
    o.filter = (FilterOptions){.limit[FILTER_NEAR] = {true, 0, 0.8}, .dedup_bytes = 1 << 20};
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "finding duplicates", "hint:");
    assert_false(io_exists(in_dir("refused/prepare.json")));
}

int main(void)
{
    log_set_quiet(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_takes_what),
        cmocka_unit_test(test_no_filter),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_copies_of_what_is_out),
        cmocka_unit_test(test_changed_input),
        cmocka_unit_test(test_failing_model),
        cmocka_unit_test(test_prepare_what_is_kept),
        cmocka_unit_test(test_note),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_prepare_refuses),
    };
    return cmocka_run_group_tests_name("data sieve", tests, setup, teardown);
}
