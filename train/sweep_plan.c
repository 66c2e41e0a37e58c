/* train/sweep_plan.c - see sweep_plan.h: the inspector. Measuring is in sweep_measure.c. */
#include "train/sweep_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/size.h"
#include "data/corpus.h"
#include "train/plan.h"
#include "train/run_data.h"
#include "train/runlog.h"

int sweep_words(char *text, const char **words)
{
    int n = 0;
    char *rest;
    for (char *w = strtok_r(text, "\n", &rest); w; w = strtok_r(NULL, "\n", &rest)) {
        if (n == SWEEP_WORDS) return -1;
        words[n++] = w;
    }
    return n;
}

/* What the driver sets itself, or what makes a length unknown before a run begins. */
static int check_base(const RunConfig *c, const char *path, Err *e)
{
    const struct {
        bool wrong;
        const char *what;
    } rows[] = {
        {c->n_stages > 0, "stages: a sweep's runs are of one stage"},
        {c->train.minutes > 0, "train.minutes: a sweep's runs have the steps of their budget"},
        {c->train.from[0] != 0, "train.from: a sweep's trunks begin anew"},
        {c->train.routing_record[0] != 0, "train.routing_record: all cells would write that file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].wrong) return err_set(e, "%s: %s", path, rows[i].what);
    return 0;
}

/* Hash of what lies at a path, 0 if it cannot be read. */
static uint64_t read_content(const char *path, const char *split)
{
    Err ignored = {0};
    Corpus *corpus = corpus_open(path, split, &ignored);
    if (!corpus) return 0;
    uint64_t both[] = {corpus_info(corpus)->tokenizer_hash, corpus_hash(corpus)};
    corpus_close(&corpus);
    uint64_t hash = hash_bytes(both, sizeof both);
    return hash ? hash : 1;
}

static uint64_t content_of(SweepSource *s, const char *path, const char *split)
{
    SweepContent *c = s->content;
    for (; c < s->content + s->contents; c++)
        if (!strcmp(c->path, path) && !strcmp(c->split, split)) return c->hash;
    uint64_t hash = read_content(path, split);
    if (s->contents == SWEEP_CONTENTS || strlen(path) >= sizeof c->path) return hash;
    snprintf(c->path, sizeof c->path, "%s", path);
    snprintf(c->split, sizeof c->split, "%s", split);
    c->hash = hash;
    s->contents++;
    return hash;
}

/* The data's content, as far as it can be read here, goes into the hash. */
static uint64_t hash_data(SweepSource *s, const RunConfig *c, uint64_t h)
{
    static const char *const splits[] = {"train", "val"};
    for (int i = 0; i < 2; i++) {
        LoaderOptions o = run_data_options(c, splits[i]);
        for (int k = 0; k < o.n_sources; k++) {
            uint64_t hash = content_of(s, o.source[k].path, splits[i]);
            if (hash) h = hash_more(h, &hash, sizeof hash);
        }
    }
    return h;
}

/* Of the resolved configuration without what changes no result. */
static int hash_config(SweepSource *s, const RunConfig *config, uint64_t *hash, Err *e)
{
    RunConfig c = *config;
    c.train.out[0] = c.train.device[0] = 0;
    c.train.threads = c.train.checkpoint_every = c.train.keep_checkpoints = c.train.log_every = 0;
    c.train.eval_every = 0;
    char *text = conf_write(run_config_table(), &c);
    if (!text) return err_set(e, "out of memory");
    *hash = hash_data(s, config, hash_bytes(text, strlen(text)));
    free(text);
    return 0;
}

static int fill_facts(SweepSource *s, const Plan *p, CellFacts *f, Err *e)
{
    const RunConfig *c = &p->config;
    ArenaPlan moments = {0};
    *f = (CellFacts){.model = c->model, .seq_len = c->data.seq_len, .batch = c->train.batch,
                     .steps = c->train.steps, .warmup = c->optim.warmup_steps, .lr = c->optim.lr,
                     .memory = arena_total(&p->arenas)};
    int rc = optimizer_plan(&c->model, &c->optim, &moments, e);
    f->disk = (int64_t)sizeof(float) * p->params.total + arena_total(&moments);
    arena_clear(&moments);
    return rc ? rc : hash_config(s, c, &f->hash, e);
}

static int inspect(void *self, const char *overrides, CellFacts *out, Err *e)
{
    SweepSource *source = self;
    const char *path = source->base, *words[SWEEP_WORDS];
    char *text = strdup(overrides);
    Plan *p = malloc(sizeof *p);
    int rc = -1, n = text ? sweep_words(text, words) : 0;
    if (!text || !p)
        err_set(e, "out of memory");
    else if (n < 0)
        err_set(e, "%s: more than %d overrides", path, SWEEP_WORDS);
    else if (!plan_make(p, path, words, n, &(PlanOptions){0}, e)) {
        if (!p->is_run)
            err_set(e, "%s: is no configuration of a run", path);
        else if (!check_base(&p->config, path, e))
            rc = fill_facts(source, p, out, e);
        plan_clear(p);
    } else {
        plan_clear(p);
    }
    free(text);
    free(p);
    return rc;
}

/* The first cell that is run, of a variant (NULL: of a study without them), or NULL. */
static const Cell *first_cell(const CellList *l, const char *variant)
{
    for (int i = 0; i < l->count; i++) {
        const char *mark = strrchr(l->cell[i].name, '@');
        if (l->cell[i].left_out[0]) continue;
        if (!variant || (mark && !strcmp(mark + 1, variant))) return &l->cell[i];
    }
    return NULL;
}

typedef struct DataHash { /* as a run's record has it */
    uint64_t data, val, tokenizer;
} DataHash;

static int open_data(const RunConfig *c, DataHash *hash, Err *e)
{
    static const char *const splits[] = {"train", "val"};
    uint64_t *const into[] = {&hash->data, &hash->val};
    for (int i = 0; i < 2; i++) {
        LoaderOptions options = run_data_options(c, splits[i]);
        options.prefetch = false;
        Loader *loader = loader_open(&options, e);
        if (!loader) return -1;
        *into[i] = loader_data_hash(loader);
        hash->tokenizer = loader_tokenizer_hash(loader);
        loader_close(&loader);
    }
    return 0;
}

/* The record of the first finished cell of a variant (NULL: without) that has one. New reference.
 */
static json_t *find_record(const SweepConfig *s, const LedgerCell *have, int n, const char *variant,
                           char folder[IO_PATH_MAX])
{
    char mine[CELL_NAME], name[32];
    for (int i = 0; i < n; i++) {
        cell_variant(have[i].cell.name, mine);
        if (have[i].state != STATE_DONE || strcmp(mine, variant ? variant : "")) continue;
        snprintf(name, sizeof name, "cells/%s", have[i].cell.id);
        if (io_join(folder, s->out, name, NULL)) continue;
        json_t *record = runlog_last(folder, "start");
        if (record) return record;
    }
    return NULL;
}

static int check_record(const SweepConfig *s, const RunConfig *c, const DataHash *now,
                        const json_t *record, const char *folder, Err *e)
{
    const struct {
        const char *member, *what;
        uint64_t hash;
    } rows[] = {{"tokenizer", "tokenizer", now->tokenizer}, {"data", "training data", now->data},
                {"val", "held-out data", now->val}};
    for (int i = 0; i < (c->data.dynamic ? 2 : 3); i++) { /* dynamic weights: val is of more */
        char hex[HASH_HEX];
        const char *then = json_string_value(json_object_get(record, rows[i].member));
        hash_hex(rows[i].hash, hex);
        if (!then || !strcmp(then, hex)) continue;
        err_set(e, "%s: was begun with other data: %s trained with the %s %s, now it is %s", s->out,
                folder, rows[i].what, then, hex);
        return err_hint(e, "give another sweep.out, or put the old data back: runs on different "
                           "text are no points of one study");
    }
    return 0;
}

int sweep_data(const SweepConfig *s, const CellList *l, const LedgerCell *have, int n_have, Err *e)
{
    RunConfig *c = malloc(sizeof *c);
    int rc = c ? 0 : err_set(e, "out of memory");
    for (int v = 0; v < (int)size_max(1, s->n_variants) && !rc; v++) {
        const char *variant = s->n_variants ? s->variant[v].name : NULL;
        const Cell *cell = first_cell(l, variant);
        char folder[IO_PATH_MAX];
        DataHash hash = {0};
        const char *words[SWEEP_WORDS];
        char text[CELL_OVERRIDES];
        if (!cell) continue;
        memcpy(text, cell->overrides, sizeof text);
        int n = sweep_words(text, words);
        if (n < 0)
            rc = err_set(e, "%s: more than %d overrides", cell->name, SWEEP_WORDS);
        else if (run_config_read(c, s->base, words, n, e) || open_data(c, &hash, e))
            rc = err_context(e, "%s", s->base);
        json_t *record = rc ? NULL : find_record(s, have, n_have, variant, folder);
        if (record) rc = check_record(s, c, &hash, record, folder, e);
        json_decref(record);
    }
    free(c);
    return rc;
}

CellInspector sweep_inspector(SweepSource *source) { return (CellInspector){inspect, source}; }
