/* tests/train_runs.h - what the tests that run the program share: a small corpus and configuration,
 * and run records read back. */
#ifndef ISOMOE_TESTS_TRAIN_RUNS_H
#define ISOMOE_TESTS_TRAIN_RUNS_H

#include "tests/train_help.h"

#include <jansson.h>

enum { VOCAB = 400 };

#define MODEL                                                                                      \
    "model: {vocab_size: 400, d_model: 32, n_layers: 2, n_heads: 2, n_kv_heads: 1,\n"              \
    "  qk_norm: head_after_rope, n_experts: 4, top_k: 2, expert_width: 16, n_shared: 1,\n"         \
    "  shared_width: 16, routing_group_tokens: 64}\n"
#define OPTIM "optim: {lr: 0.01, warmup_steps: 2, decay_steps: 2}\n"
#define TRAIN                                                                                      \
    "train: {out: run, steps: 6, batch: 4, eval_every: 2, eval_sequences: 5, log_every: 1,\n"      \
    "  threads: 1}\n"

/* Sentences of a few words in an order that a model can learn. */
__attribute__((unused)) static void write_corpus(const char *path, unsigned seed)
{
    static const char *const words[] = {"the", "router", "sends", "each", "token", "to", "an",
                                        "expert", "and", "keeps", "what", "it", "finds", "there",
                                        "again", "while", "others", "wait", "for", "room"};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int doc = 0; doc < 150; doc++) {
        fprintf(f, "{\"text\": \"");
        for (int i = 0; i < 60; i++) {
            seed = seed * 1664525u + 1013904223u;
            fprintf(f, "%s%s", i ? " " : "", words[(seed >> 16) % 20]);
            if (seed >> 28 == 0) fprintf(f, " %u.", seed % 1000);
        }
        fprintf(f, "\"}\n");
    }
    fclose(f);
}

__attribute__((unused)) static void prepare(const char *name, unsigned seed)
{
    write_corpus(at("%s.jsonl", name), seed);
    RUN_CODE(0, "prepare", at("%s.jsonl", name), "--out", at("%s", name), "--vocab-size", "400",
             "--val-fraction", "0.1");
}

__attribute__((unused)) static int begin_all(void **state)
{
    char text[2048];
    if (help_begin(state)) return -1;
    prepare("data", 1);
    snprintf(text, sizeof text, "%sdata: {train: %s, seq_len: 32}\n%s%s", MODEL, at("data"), OPTIM,
             TRAIN);
    write_file(at("c.yaml"), text);
    return 0;
}

/* "train.out=<scratch>/name" */
__attribute__((unused)) static const char *out(const char *name)
{
    char *path = strdup(at("%s", name)), *text = at("%s", "");
    snprintf(text, PATH * 2, "train.out=%s", path);
    free(path);
    return text;
}

/* ---- Records ----------------------------------------------------------------------------------*/

enum { LINES = 4096 };

typedef struct Record {
    json_t *line[LINES];
    int count;
} Record;

__attribute__((unused)) static void record_read(Record *r, const char *run)
{
    json_error_t why;
    char *text = read_file(at("%s/log.jsonl", run), NULL), *save = NULL;
    r->count = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_true(r->count < LINES);
        json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, &why);
        if (!value) fail_msg("%s: line %d: %s", run, r->count + 1, why.text);
        r->line[r->count++] = value;
    }
    free(text);
}

__attribute__((unused)) static void record_free(Record *r)
{
    for (int i = 0; i < r->count; i++) json_decref(r->line[i]);
}

/* The n-th line of an event (n = 0 is the first), or of the steps if event is NULL. */
__attribute__((unused)) static const json_t *record_find(const Record *r, const char *event, int n)
{
    for (int i = 0; i < r->count; i++) {
        const char *name = json_string_value(json_object_get(r->line[i], "event"));
        bool match = event ? name && !strcmp(name, event) : !name;
        if (match && n-- == 0) return r->line[i];
    }
    return NULL;
}

__attribute__((unused)) static double number(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

/* Everything in a step's line but what a clock says. */
__attribute__((unused)) static void same_steps(const char *a, const char *b, int steps)
{
    static const char *const exact[] = {"step", "loss", "aux", "z", "lr", "grad_norm", "skipped",
                                        "tokens", "flops", "load_max", "recycled", "unplaced",
                                        "overflow", NULL};
    Record x, y;
    record_read(&x, a);
    record_read(&y, b);
    for (int i = 0; i < steps; i++) {
        const json_t *p = record_find(&x, NULL, i), *q = record_find(&y, NULL, i);
        assert_non_null(p);
        assert_non_null(q);
        assert_int_equal(number(p, "step"), i + 1);
        for (int k = 0; exact[k]; k++)
            if (number(p, exact[k]) != number(q, exact[k]))
                fail_msg("step %d: %s is %.17g in %s, %.17g in %s", i + 1, exact[k],
                         number(p, exact[k]), a, number(q, exact[k]), b);
    }
    assert_null(record_find(&x, NULL, steps));
    assert_null(record_find(&y, NULL, steps));
    record_free(&x);
    record_free(&y);
}

__attribute__((unused)) static json_t *manifest(const char *run, int step)
{
    json_t *root = json_load_file(at("%s/checkpoints/step-%09d/manifest.json", run, step), 0, NULL);
    if (!root) fail_msg("%s: no checkpoint at step %d", run, step);
    return root;
}

/* Checksums of all masters and moments. */
__attribute__((unused)) static void same_tensors(const char *a, const char *b, int step)
{
    json_t *x = manifest(a, step), *y = manifest(b, step);
    assert_true(json_object_size(json_object_get(x, "tensors")) > 30);
    assert_true(json_equal(json_object_get(x, "tensors"), json_object_get(y, "tensors")));
    json_decref(x);
    json_decref(y);
}

#endif
