/* tests/test_routing_record.c - the file of the router's choices by itself: damaged and forged
 * records, stages, the steps that a replay asks for. */
#include "tests/train_help.h"

#include "base/hash.h"
#include "train/routing_file.h"

enum { HEAD = 128 };

typedef struct Small {
    RunConfig c;
    RoutingOrigin origin;
    char path[PATH * 2];
} Small;

/* A record of two steps of 2 layers, 8 tokens, top-2 of 3 experts, groups of 4, capacity 3. */
static Small small(const char *name, const char *routing)
{
    Small s = {.origin = {7, 8}};
    Err e = {0};
    char text[1024];
    snprintf(text, sizeof text,
             "model: {vocab_size: 40, d_model: 16, n_layers: 2, n_heads: 2, n_kv_heads: 1,\n"
             "  n_experts: 3, top_k: 2, expert_width: 8, routing_group_tokens: 4, routing: %s%s}\n"
             "data: {train: x, seq_len: 4}\n"
             "optim: {warmup_steps: 0}\n"
             "train: {out: x, steps: 9, batch: 2}\n", routing,
             strcmp(routing, "dropless") ? ", capacity_multiple: 1" : "");
    if (run_config_read_text(&s.c, text, "text", &e)) fail_msg("%s", e.message);
    snprintf(s.path, sizeof s.path, "%s", at("%s", name));
    unlink(s.path);
    RoutingFile *f = routing_file_record(s.path, &s.c, s.origin, 1, &e);
    if (!f) fail_msg("%s", e.message);
    for (int64_t step = 1; step <= 2; step++) {
        for (int64_t first = 0; first < 8; first += 4) {
            int32_t *part = routing_file_part(f);
            for (int i = 0; i < 2 * 4 * 2; i++) part[i] = (i + (int)step) % 3;
            part[3] = -1;
            routing_file_put(f, first, 4);
        }
        assert_int_equal(routing_file_write(f, step, &e), 0);
    }
    assert_int_equal(routing_file_sync(f, &e), 0);
    routing_file_close(&f);
    return s;
}

/* Opens it for replay and loads both steps. */
static int load(const Small *s, Err *e)
{
    *e = (Err){0};
    RoutingFile *f = routing_file_replay(s->path, &s->c, s->origin, 1, 0, e);
    if (!f) return -1;
    int rc = routing_file_load(f, 1, e) || routing_file_load(f, 2, e) ? -1 : 0;
    if (!rc) {
        const int32_t *part = routing_file_get(f, 4, 4);
        for (int i = 0; i < 16; i++) assert_int_equal(part[i], i == 3 ? -1 : (i + 2) % 3);
    }
    routing_file_close(&f);
    return rc;
}

static void test_any_byte(void **state)
{
    (void)state;
    Small s = small("bytes", "recycle");
    Err e;
    size_t size;
    if (load(&s, &e)) fail_msg("%s", e.message);
    char *text = read_file(s.path, &size);
    assert_int_equal(size, HEAD + 2 * (16 + 64));
    for (size_t i = 0; i < size; i++) {
        int fd = open(s.path, O_WRONLY);
        char wrong = (char)(text[i] ^ (1 << i % 8));
        assert_int_equal(pwrite(fd, &wrong, 1, (off_t)i), 1);
        if (!load(&s, &e)) fail_msg("byte %zu: not seen", i);
        assert_has(e.message, "bytes: ");
        assert_int_equal(pwrite(fd, text + i, 1, (off_t)i), 1);
        close(fd);
    }
    for (size_t n = 0; n < size; n++) {
        assert_int_equal(truncate(s.path, 0), 0);
        int fd = open(s.path, O_WRONLY);
        assert_int_equal(write(fd, text, n), n);
        close(fd);
        if (!load(&s, &e)) fail_msg("%zu bytes: not seen", n);
        assert_has(e.message, n < HEAD ? "is no routing record" : "has no step ");
    }
    free(text);
}

/* Steps of a stage of 8 tokens and of one of 16, from step 2 on. */
static RunConfig staged(void)
{
    static const char text[] =
        "model: {vocab_size: 40, d_model: 16, n_layers: 2, n_heads: 2, n_kv_heads: 1,\n"
        "  n_experts: 3, top_k: 2, expert_width: 8, routing_group_tokens: 4}\n"
        "data: {train: x, seq_len: 4}\n"
        "stages: [{name: a, steps: 2}, {name: b, steps: 1, seq_len: 8}, {name: c, steps: 0}]\n"
        "optim: {warmup_steps: 0}\n"
        "train: {out: x, steps: 9, batch: 2}\n";
    RunConfig c;
    Err e = {0};
    if (run_config_read_text(&c, text, "text", &e)) fail_msg("%s", e.message);
    return c;
}

static int64_t staged_tokens(int64_t step) { return step == 3 ? 16 : 8; }

/* Records steps first .. last; token t of step s has expert (s + t + slot) mod 3. */
static void record_staged(const char *path, const RunConfig *c, int64_t first, int64_t last)
{
    Err e = {0};
    RoutingFile *f = routing_file_record(path, c, (RoutingOrigin){7, 8}, first, &e);
    if (!f) fail_msg("%s", e.message);
    for (int64_t step = first; step <= last; step++) {
        for (int64_t at = 0; at < staged_tokens(step); at += 4) {
            int32_t *part = routing_file_part(f);
            for (int64_t i = 0; i < 2 * 4 * 2; i++)
                part[i] = (int32_t)((step + at + i % 8 / 2 + i % 2) % 3);
            routing_file_put(f, at, 4);
        }
        if (routing_file_write(f, step, &e)) fail_msg("%s", e.message);
    }
    routing_file_close(&f);
}

static int load_staged(const char *path, const RunConfig *c, int64_t first, int64_t last, Err *e)
{
    int rc = 0;
    *e = (Err){0};
    RoutingFile *f = routing_file_replay(path, c, (RoutingOrigin){7, 9}, 1, 0, e);
    if (!f) return -1;
    for (int64_t step = first; step <= last && !rc; step++) {
        rc = routing_file_load(f, step, e);
        for (int64_t at = 0; at < staged_tokens(step) && !rc; at += 4) {
            const int32_t *part = routing_file_get(f, at, 4);
            for (int64_t i = 0; i < 2 * 4 * 2; i++)
                assert_int_equal(part[i], (step + at + i % 8 / 2 + i % 2) % 3);
        }
    }
    routing_file_close(&f);
    return rc;
}

/* Steps of other sizes by stage are found again, whatever the first step; every byte of the stages'
 * table counts; a record that ends anywhere is no more than its whole steps. */
static void test_staged_record(void **state)
{
    enum { TABLE = 8 * (3 * 3 + 1), SMALL_STEP = 16 + 2 * 8 * 2 * 2 };
    enum { BIG_STEP = 16 + 2 * 16 * 2 * 2 };
    RunConfig c = staged();
    Err e;
    size_t size;
    char path[PATH * 2];
    (void)state;
    snprintf(path, sizeof path, "%s", at("staged"));
    for (int first = 1; first <= 6; first++) {
        unlink(path);
        record_staged(path, &c, first, 6);
        if (load_staged(path, &c, first, 6, &e)) fail_msg("%s", e.message);
        assert_int_equal(load_staged(path, &c, first, 7, &e), -1);
        assert_has(e.message, "has no step 7: it holds the steps ");
    }
    unlink(path);
    record_staged(path, &c, 1, 6);
    char *text = read_file(path, &size);
    assert_int_equal(size, HEAD + TABLE + 5 * SMALL_STEP + BIG_STEP);
    record_staged(path, &c, 4, 5); /* a resume behind step 3 cuts the rest */
    free(read_file(path, &size));
    assert_int_equal(size, HEAD + TABLE + 4 * SMALL_STEP + BIG_STEP);
    if (load_staged(path, &c, 1, 5, &e)) fail_msg("%s", e.message);
    for (size_t i = 0; i < size; i++) {
        int fd = open(path, O_WRONLY);
        char wrong = (char)(text[i] ^ (1 << i % 8));
        assert_int_equal(pwrite(fd, &wrong, 1, (off_t)i), 1);
        if (!load_staged(path, &c, 1, 5, &e)) fail_msg("byte %zu: not seen", i);
        assert_int_equal(pwrite(fd, text + i, 1, (off_t)i), 1);
        close(fd);
    }
    for (size_t n = size; n-- > HEAD;) {
        assert_int_equal(truncate(path, (off_t)n), 0);
        assert_int_equal(load_staged(path, &c, 1, 5, &e), -1);
        assert_has(e.message, n < HEAD + TABLE ? "ends inside its table" : "has no step ");
    }
    free(text);
}

/* The steps that a replay asks for at opening: the first must be there as well as the last. */
static void test_steps_asked(void **state)
{
    RunConfig c = staged();
    char path[PATH * 2];
    (void)state;
    snprintf(path, sizeof path, "%s", at("asked"));
    record_staged(path, &c, 2, 5);
    for (int64_t first = 1; first <= 7; first++)
        for (int64_t last = 1; last <= 7; last++) {
            Err e = {0};
            RoutingFile *f = routing_file_replay(path, &c, (RoutingOrigin){7, 9}, first, last, &e);
            assert_true(!!f == (last < first || (first >= 2 && last <= 5)));
            if (!f) assert_has(e.message, "asked: holds the steps 2 to 5, the run needs ");
            routing_file_close(&f);
        }
}

/* Puts `choice` at layer 1, token 2, slot 0 of step 2, with a checksum that fits. */
static void forge(const Small *s, int16_t choice)
{
    size_t size;
    char *text = read_file(s->path, &size), *record = text + HEAD + 16 + 64;
    memcpy(record + 16 + 2 * (8 * 2 + 2 * 2), &choice, 2);
    uint64_t hash = hash_more(hash_bytes(record, 8), record + 16, 64);
    memcpy(record + 8, &hash, 8);
    int fd = open(s->path, O_WRONLY);
    assert_int_equal(write(fd, text, size), size);
    close(fd);
    free(text);
}

/* Choices with a right checksum that no routing makes (a fourth one at an expert of capacity 3, an
 * expert twice): the device is never asked. */
static void test_forged(void **state)
{
    static const struct {
        const char *routing;
        int16_t choice;
        bool good;
    } cases[] = {{"recycle", -1, true},  {"recycle", 3, false},      {"recycle", -2, false},
                 {"recycle", 32767, false}, {"recycle", 1, false},   {"dropless", 3, false},
                 {"recycle", 0, false},  {"dropless", 0, false},     {"dropless", -32768, false},
                 {"dropless", 1, true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Small s = small("forged", cases[i].routing);
        Err e = {0};
        forge(&s, cases[i].choice);
        RoutingFile *f = routing_file_replay(s.path, &s.c, s.origin, 1, 0, &e);
        if (!f) fail_msg("%s", e.message);
        int rc = routing_file_load(f, 2, &e);
        if (rc != (cases[i].good ? 0 : -1)) fail_msg("case %zu: %d", i, rc);
        if (rc) assert_has(e.message, "step 2, layer 1, token ");
        routing_file_close(&f);
    }
}

/* Where a record is not this run's: what others follow from is said first, and names and hashes are
 * written as such. */
static void test_facts(void **state)
{
    (void)state;
    Small s = small("facts", "recycle"), other = s;
    Err e = {0};
    other.c.model.routing = ROUTE_DROPLESS; /* has no capacity either */
    assert_null(routing_file_replay(s.path, &other.c, s.origin, 1, 2, &e));
    assert_has(e.message, "model.routing is recycle in the record, dropless here");
    other = s;
    other.origin.data_hash = 0xabc;
    assert_null(routing_file_replay(s.path, &other.c, other.origin, 1, 2, &e));
    assert_has(e.message, "hash is 0000000000000007 in the record, 0000000000000abc here");
    other = s;
    other.c.train.seed = 77;
    assert_null(routing_file_replay(s.path, &other.c, s.origin, 1, 2, &e));
    assert_has(e.message, "train.seed is 1 in the record, 77 here");
}

/* More choices at an expert than it has room for. */
static void test_overfull(void **state)
{
    (void)state;
    Small s = small("full", "recycle");
    Err e = {0};
    s.c.model.capacity_factor = 0.5; /* C = 2: the same choices, but the header is another's */
    RoutingFile *f = routing_file_replay(s.path, &s.c, s.origin, 1, 0, &e);
    assert_null(f);
    assert_has(e.message, "the experts' capacity is 3 in the record, 2 here");
    unlink(s.path);
    f = routing_file_record(s.path, &s.c, s.origin, 1, &e);
    for (int i = 0; i < 2 * 8 * 2; i++) routing_file_part(f)[i] = i % 2 ? -1 : 1;
    routing_file_put(f, 0, 8);
    assert_int_equal(routing_file_write(f, 1, &e), 0);
    routing_file_close(&f);
    f = routing_file_replay(s.path, &s.c, s.origin, 1, 0, &e);
    assert_non_null(f);
    assert_int_equal(routing_file_load(f, 1, &e), -1);
    assert_has(e.message, "step 1, layer 0, token 2: no choices that this routing can make");
    routing_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_byte), cmocka_unit_test(test_staged_record),
        cmocka_unit_test(test_steps_asked), cmocka_unit_test(test_forged),
        cmocka_unit_test(test_facts), cmocka_unit_test(test_overfull),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
