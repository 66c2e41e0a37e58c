/* train/cmd_prepare.c - `isomoe prepare`: text to a tokenizer and token shards (data/prepare.h). */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "data/filter_note.h"
#include "data/prepare.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/prepare_filters.h"

enum {
    OPT_OUT, OPT_VOCAB, OPT_TOKENIZER, OPT_VAL, OPT_KEY, OPT_SHARD, OPT_SKIP, OPT_OVERWRITE,
    OPT_JSON, OPT_FILTERS
};

static int check_ranges(const Arguments *a, Err *e)
{
    double share = a->real[OPT_VAL];
    if (!a->text[OPT_OUT] && !a->number[OPT_FILTERS + FILTER_OPT_DRY_RUN])
        return err_set(e, "--out DIR is missing: where the shards go");
    if (a->number[OPT_VOCAB] < 1 || a->number[OPT_VOCAB] > 1 << 20)
        return err_set(e, "--vocab-size %lld: must be from 1 to %d", a->number[OPT_VOCAB],
                       1 << 20);
    if (!(share >= 0 && share < 1))
        return err_set(e, "--val-fraction %g: must be at least 0 and below 1", share);
    if (a->number[OPT_SHARD] < 1)
        return err_set(e, "--shard-tokens %lld: must be positive", a->number[OPT_SHARD]);
    return 0;
}

static json_t *result_json(const PrepareOptions *o, const PrepareResult *r)
{
    json_t *out = o->out ? json_out_text(o->out, strlen(o->out)) : json_null();
    json_t *json = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i}", "out", out,
                             "documents", (json_int_t)r->documents, "skipped",
                             (json_int_t)r->skipped, "bytes", (json_int_t)r->bytes,
                             "train_tokens", (json_int_t)r->train_tokens, "val_tokens",
                             (json_int_t)r->val_tokens, "val_bytes", (json_int_t)r->val_bytes,
                             "train_shards", r->train_shards, "val_shards", r->val_shards);
    if (json && filter_any(&o->filter))
        json_object_set_new(json, "filters", filter_note(&o->filter, &r->filter));
    return json;
}

static void print_text(const PrepareOptions *o, const PrepareResult *r)
{
    const char *out = o->out;
    double tokens = (double)(r->train_tokens + r->val_tokens);
    if (filter_any(&o->filter)) prepare_filters_print(&o->filter, &r->filter);
    if (r->skipped) printf("  %-26s %12lld\n", "bad documents skipped", (long long)r->skipped);
    if (o->dry_run) return;
    printf("%s: %lld documents, %lld bytes, %.2f bytes a token\n", out, (long long)r->documents,
           (long long)r->bytes, tokens > 0 ? (double)r->bytes / tokens : 0);
    printf("  train %12lld tokens in %d shards\n  val   %12lld tokens in %d shards\n",
           (long long)r->train_tokens, r->train_shards, (long long)r->val_tokens, r->val_shards);
}

static int run(const Arguments *a, Err *e)
{
    if (check_ranges(a, e)) return EXIT_MISUSE;
    Bits *bits;
    PrepareOptions options = {
        .inputs = a->free,
        .n_inputs = a->n_free,
        .out = a->text[OPT_OUT],
        .tokenizer = a->text[OPT_TOKENIZER],
        .vocab_size = (int)a->number[OPT_VOCAB],
        .val_fraction = a->real[OPT_VAL],
        .shard_tokens = a->number[OPT_SHARD],
        .text_key = a->text[OPT_KEY],
        .skip_bad = a->number[OPT_SKIP] != 0,
        .overwrite = a->number[OPT_OVERWRITE] != 0,
        .dry_run = a->number[OPT_FILTERS + FILTER_OPT_DRY_RUN] != 0,
    };
    int code = prepare_filters_read(a, OPT_FILTERS, &options.filter, &bits, e);
    PrepareResult result = {0};
    if (code == EXIT_DONE && prepare_run(&options, &result, e)) code = EXIT_FAILED;
    bits_close(&bits);
    if (code != EXIT_DONE) return code;
    if (a->number[OPT_JSON]) return json_out_print(result_json(&options, &result), e);
    print_text(&options, &result);
    return stdout_finish(e);
}

const CommandRow command_prepare = {
    "prepare", "INPUT... --out DIR",
    "text (.txt .jsonl .gz .zst, folders, - for stdin) to a tokenizer and token shards", 1,
    COMMAND_MAX_ARGUMENTS,
    {{"--out", OPTION_TEXT, NULL, "folder for tokenizer.model and the shards"},
     {"--vocab-size", OPTION_INT, "4096", "pieces of the tokenizer that is trained"},
     {"--tokenizer", OPTION_TEXT, NULL, "use this SentencePiece model, train none"},
     {"--val-fraction", OPTION_FLOAT, "0.01", "share of the documents that is held out"},
     {"--text-key", OPTION_TEXT, "text", "member of a .jsonl line that holds the text"},
     {"--shard-tokens", OPTION_INT, "100000000", "tokens after which a new shard begins"},
     {"--skip-bad", OPTION_FLAG, NULL, "count bad documents and go on instead of failing"},
     {"--overwrite", OPTION_FLAG, NULL, "replace what stands in DIR"},
     {"--json", OPTION_FLAG, NULL, "print JSON"},
     PREPARE_FILTER_OPTIONS},
    run,
};
