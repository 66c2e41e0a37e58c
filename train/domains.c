/* train/domains.c - see domains.h. */
#include "train/domains.h"

#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"

enum { BOOTSTRAP_SEED = 1 };

static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

int domains_add_named(Domains *d, const char *name, const char *path, Err *e)
{
    if (d->count == DOMAINS_MAX) return err_set(e, "--data: more than %d domains", DOMAINS_MAX);
    Domain *new = &d->domain[d->count];
    *new = (Domain){.path = path};
    snprintf(new->name, sizeof new->name, "%.63s", name);
    for (int i = 0; i < d->count; i++)
        if (!strcmp(d->domain[i].name, new->name)) {
            err_set(e, "--data: two domains are called %s", new->name);
            return err_hint(e, "give names: --data NAME=PATH");
        }
    d->count++;
    return 0;
}

int domains_add(Domains *d, const char *text, Err *e)
{
    char copy[IO_PATH_MAX];
    size_t named = strspn(text, name_letters);
    bool given = named && text[named] == '=';
    const char *path = given ? text + named + 1 : text, *name = copy;
    snprintf(copy, sizeof copy, "%s", text);
    if (given) copy[size_min((int64_t)named, IO_PATH_MAX - 1)] = 0;
    else name = basename(copy);
    if (!*path) return err_set(e, "--data %s: names no folder", text);
    return domains_add_named(d, name, path, e);
}

static int open_domain(Domains *all, Domain *d, const OpenRun *run, int64_t asked, Err *e)
{
    LoaderOptions options = {
        .source = {{d->path, 1}}, .n_sources = 1, .split = "val",
        .seq_len = run->config.data.seq_len, .vocab_size = run->config.model.vocab_size,
    };
    d->loader = loader_open(&options, e);
    if (!d->loader) return -1;
    Tokenizer *tokenizer = open_run_tokenizer(run, d->path, e);
    if (!tokenizer) return -1;
    uint64_t hash = tokenizer_hash(tokenizer);
    if (!all->tokenizer) all->tokenizer = tokenizer;
    else tokenizer_close(&tokenizer);
    if (hash != tokenizer_hash(all->tokenizer))
        return err_set(e, "%s: has another tokenizer than %s", d->path, all->domain[0].path);
    if (hash != loader_tokenizer_hash(d->loader))
        return err_set(e, "%s: its shards were not made with its tokenizer.model", d->path);
    int64_t there = loader_windows(d->loader);
    if (!there) return err_set(e, "%s: too little held-out text for one sequence", d->path);
    if (asked > there) log_info("%s has %lld held-out sequences", d->path, (long long)there);
    d->sequences = asked ? size_min(asked, there) : there;
    loader_spread(d->loader, d->sequences);
    return 0;
}

int domains_open(Domains *d, const OpenRun *run, int64_t asked, Err *e)
{
    for (int i = 0; i < d->count; i++)
        if (open_domain(d, &d->domain[i], run, asked, e)) return -1;
    return 0;
}

int64_t domains_longest(const Domains *d)
{
    int64_t most = 0;
    for (int i = 0; i < d->count; i++) most = size_max(most, d->domain[i].sequences);
    return most;
}

/* Intervals of nll / targets and nll / ln 2 / bytes over the n windows. */
static int find_intervals(Domain *d, const SequenceSum *each, int64_t n, Err *e)
{
    double *over = malloc((size_t)(2 * n + 1) * sizeof *over), *under = over + n;
    if (!over) return err_set(e, "out of memory for an interval over %lld sequences", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        over[i] = each[i].nll;
        under[i] = (double)each[i].targets;
    }
    d->loss = interval_bootstrap(over, under, n, BOOTSTRAP_SEED);
    for (int64_t i = 0; i < n; i++) under[i] = log(2) * (double)each[i].bytes;
    d->bits_per_byte = interval_bootstrap(over, under, n, BOOTSTRAP_SEED);
    free(over);
    return 0;
}

static int measure(Domains *all, Domain *d, OpenRun *run, Err *e)
{
    HeldOutOptions options = {.sequences = d->sequences, .text = all->text,
                              .use_documents = run->config.data.mask_documents};
    options.each = malloc((size_t)d->sequences * sizeof *options.each);
    if (!options.each)
        return err_set(e, "out of memory for %lld sequences", (long long)d->sequences);
    int rc = heldout_measure(&d->result, run->model, d->loader, all->tokenizer, &options, e);
    if (!rc) rc = find_intervals(d, options.each, d->result.sequences, e);
    free(options.each);
    return rc;
}

static int measure_routing(Domains *all, int i, OpenRun *run, Err *e)
{
    RoutingSums *sums = all->routing ? &all->routing[i] : NULL;
    if (sums) {
        if (routing_sums_init(sums, run->model, all->domain[i].name, e)) return -1;
        model_observe(run->model, routing_sums_add, sums);
    }
    int rc = measure(all, &all->domain[i], run, e);
    model_observe(run->model, NULL, NULL);
    return rc;
}

int domains_measure(Domains *d, OpenRun *run, bool routing, Err *e)
{
    if (routing && !run->config.model.n_experts)
        return err_set(e, "--routing: the model of %s has no experts", run->checkpoint);
    if (routing && !(d->routing = calloc(DOMAINS_MAX, sizeof *d->routing)))
        return err_set(e, "out of memory for routing statistics");
    for (int i = 0; i < d->count; i++) {
        const HeldOut *h = &d->domain[i].result;
        if (measure_routing(d, i, run, e)) return -1;
        d->all.sequences += h->sequences;
        d->all.targets += h->targets;
        d->all.bytes += h->bytes;
        d->all.nll += h->nll;
        d->mean_bits += h->bits_per_byte / d->count;
    }
    heldout_finish(&d->all);
    return 0;
}

void domains_close(Domains *d)
{
    for (int i = 0; i < d->count; i++) loader_close(&d->domain[i].loader);
    for (int i = 0; d->routing && i < d->count; i++) routing_sums_free(&d->routing[i]);
    free(d->routing);
    tokenizer_close(&d->tokenizer);
    if (d->text) fclose(d->text);
    *d = (Domains){0};
}
