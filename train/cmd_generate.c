/* train/cmd_generate.c - `isomoe generate`: text from a trained model, token by token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/open_run.h"
#include "train/sample.h"
#include "train/text_stream.h"

enum { OPT_PROMPT, OPT_TOKENS, OPT_TEMPERATURE, OPT_TOP_K, OPT_TOP_P, OPT_SEED, OPT_JSON };
enum { MAX_TOKENS = 1 << 20 };

typedef struct Generation {
    OpenRun run;
    Tokenizer *tokenizer;
    Decoder *decoder;
    SampleOptions sample;
    int32_t *tokens;   /* (n_prompt + wanted) BOS, prompt, then what is generated */
    int64_t n_prompt, n_tokens, wanted;
    float *logits;         /* (V) */
    Candidate *candidates; /* (V) */
    bool ended;            /* EOS was drawn */
    TextStream stream;
} Generation;

/* tokens = BOS and the encoded prompt, with room for `wanted` more. */
static int encode_prompt(Generation *g, const char *prompt, Err *e)
{
    int32_t *ids = NULL;
    int64_t count = 0;
    if (prompt && tokenizer_encode(g->tokenizer, prompt, strlen(prompt), &ids, &count, e))
        return err_context(e, "--prompt");
    g->tokens = calloc((size_t)(1 + count + g->wanted), sizeof *g->tokens);
    if (g->tokens) {
        g->tokens[0] = (int32_t)tokenizer_bos(g->tokenizer);
        if (count) memcpy(g->tokens + 1, ids, (size_t)count * sizeof *ids);
        g->n_prompt = g->n_tokens = 1 + count;
    }
    free(ids);
    return g->tokens ? 0 : err_set(e, "out of memory for %lld tokens", (long long)g->wanted);
}

static int prepare_model(Generation *g, Err *e)
{
    int64_t total = g->n_prompt + g->wanted;
    ModelShape shape = run_config_shape(&g->run.config);
    shape.B = 1;
    shape.micro_batches = 1;
    shape.rope_positions = total > shape.T ? total : shape.T;
    shape.train = false;
    if (open_run_model(&g->run, &shape, e)) return -1;
    g->decoder = decoder_create(g->run.model, total, e);
    if (!g->decoder) return -1;
    size_t V = (size_t)g->run.config.model.vocab_size;
    g->logits = malloc(V * sizeof *g->logits);
    g->candidates = malloc(V * sizeof *g->candidates);
    return g->logits && g->candidates ? 0 : err_set(e, "out of memory for %zu logits", V);
}

/* Tokens from the prompt's end to EOS or to the wanted number; text goes to the stream as it comes.
 * Only ids that the tokenizer has are drawn: a vocabulary may be padded beyond it. */
static int generate(Generation *g, bool live, Err *e)
{
    int64_t V = tokenizer_vocab(g->tokenizer), fed = 0, end = g->n_prompt + g->wanted;
    while (g->n_tokens < end && !g->ended) {
        if (decoder_feed(g->decoder, g->tokens + fed, g->n_tokens - fed, g->logits, e)) return -1;
        fed = g->n_tokens;
        int32_t id = sample_token(g->logits, V, &g->sample, (uint64_t)fed, g->candidates, e);
        if (id < 0) return -1;
        g->tokens[g->n_tokens++] = id;
        g->ended = id == tokenizer_eos(g->tokenizer);
        int size;
        const char *piece = tokenizer_piece(g->tokenizer, id, &size);
        CHECK(piece, "token %d of a vocabulary of %lld", (int)id, (long long)V);
        text_stream_write(&g->stream, piece, (size_t)size);
        if (live) fflush(g->stream.out);
    }
    text_stream_end(&g->stream);
    return 0;
}

static int generate_text(Generation *g, const char *prompt, Err *e)
{
    g->stream.out = stdout;
    if (prompt) fputs(prompt, stdout);
    if (generate(g, true, e)) return EXIT_FAILED;
    putchar('\n');
    return stdout_finish(e);
}

static int generate_json(Generation *g, const char *prompt, Err *e)
{
    char *text = NULL;
    size_t size = 0;
    g->stream.out = open_memstream(&text, &size);
    if (!g->stream.out) {
        err_errno(e, "out of memory for the text");
        return EXIT_FAILED;
    }
    int rc = generate(g, false, e);
    if (fclose(g->stream.out) && !rc) rc = err_set(e, "out of memory for the text");
    json_t *ids = json_array();
    for (int64_t i = g->n_prompt; i < g->n_tokens; i++)
        json_array_append_new(ids, json_integer(g->tokens[i]));
    json_t *answer = json_pack(
        "{s:s, s:o, s:o, s:s, s:I, s:o}", "prompt", prompt ? prompt : "", "text",
        json_stringn(text ? text : "", size), "tokens", ids, "stopped",
        g->ended ? "eos" : "length", "seed", (json_int_t)g->sample.seed, "checkpoint",
        json_out_text(g->run.checkpoint, strlen(g->run.checkpoint)));
    free(text);
    if (!rc) return json_out_print(answer, e);
    json_decref(answer);
    return EXIT_FAILED;
}

static int check_options(Generation *g, const Arguments *a, Err *e)
{
    g->wanted = a->number[OPT_TOKENS];
    g->sample = (SampleOptions){a->real[OPT_TEMPERATURE], a->number[OPT_TOP_K],
                                a->real[OPT_TOP_P], (uint64_t)a->number[OPT_SEED]};
    if (g->wanted < 0 || g->wanted > MAX_TOKENS)
        return err_set(e, "--tokens %lld: must be from 0 to %d", (long long)g->wanted, MAX_TOKENS);
    return sample_check(&g->sample, e);
}

static int run(const Arguments *a, Err *e)
{
    Generation g = {0};
    const char *prompt = a->text[OPT_PROMPT];
    int code = EXIT_FAILED;
    if (check_options(&g, a, e)) return EXIT_MISUSE;
    if (open_run(&g.run, a->free[0], e)) goto done;
    if (model_check_causal(&g.run.config.model, e)) {
        err_context(e, "%s: no text can be generated", g.run.checkpoint);
        goto done;
    }
    g.tokenizer = open_run_tokenizer(&g.run, NULL, e);
    if (!g.tokenizer || encode_prompt(&g, prompt, e) || prepare_model(&g, e)) goto done;
    double start = log_seconds();
    code = a->number[OPT_JSON] ? generate_json(&g, prompt, e) : generate_text(&g, prompt, e);
    double seconds = log_seconds() - start;
    if (code == EXIT_DONE)
        log_info("%lld tokens in %.1f s, stopped by %s", (long long)(g.n_tokens - g.n_prompt),
                 seconds, g.ended ? "the end of the text" : "--tokens");
done:
    free(g.candidates);
    free(g.logits);
    free(g.tokens);
    decoder_destroy(&g.decoder);
    tokenizer_close(&g.tokenizer);
    open_run_close(&g.run);
    return code;
}

const CommandRow command_generate = {
    "generate", "RUN|CHECKPOINT", "text from a trained model", 1, 1,
    {{"--prompt", OPTION_TEXT, NULL, "text to go on from (default: the start of a document)"},
     {"--tokens", OPTION_INT, "200", "tokens to generate at most"},
     {"--temperature", OPTION_FLOAT, "0.8", "0: always the likeliest token"},
     {"--top-k", OPTION_INT, "0", "draw from the K likeliest tokens; 0: from all"},
     {"--top-p", OPTION_FLOAT, "0.95", "draw from the likeliest tokens with this share"},
     {"--seed", OPTION_INT, "1", "the same seed gives the same text"},
     {"--json", OPTION_FLAG, NULL, "print JSON"}},
    run,
};
