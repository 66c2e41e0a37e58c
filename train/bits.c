/* train/bits.c - see bits.h. */
#include "train/bits.h"

#include <math.h>
#include <stdlib.h>

#include "train/open_run.h"

struct Bits {
    OpenRun run;
    Tokenizer *tokenizer;
    TokenizerCache *cache;
    int64_t B, T;
    int32_t *tokens, *targets; /* (B, T) */
    float *nll;                /* (B, T) */
    int *document;             /* (B) whose window a row is */
    int64_t rows;              /* filled */
};

static int open_all(Bits *b, const char *checkpoint, const char *data, Err *e)
{
    if (open_run(&b->run, checkpoint, e)) return -1;
    b->tokenizer = open_run_tokenizer(&b->run, data, e);
    if (!b->tokenizer) return -1;
    ModelShape shape = run_config_shape(&b->run.config);
    shape.train = false;
    shape.micro_batches = 1;
    if (open_run_model(&b->run, &shape, e)) return -1;
    b->B = shape.B;
    b->T = shape.T;
    size_t n = (size_t)(shape.B * shape.T);
    b->cache = tokenizer_cache_create();
    b->tokens = malloc(n * sizeof *b->tokens);
    b->targets = malloc(n * sizeof *b->targets);
    b->nll = malloc(n * sizeof *b->nll);
    b->document = malloc((size_t)shape.B * sizeof *b->document);
    if (b->cache && b->tokens && b->targets && b->nll && b->document) return 0;
    return err_set(e, "out of memory");
}

Bits *bits_open(const char *checkpoint, const char *data, Err *e)
{
    Bits *b = calloc(1, sizeof *b);
    if (!b) {
        err_set(e, "out of memory");
        return NULL;
    }
    if (open_all(b, checkpoint, data, e)) bits_close(&b);
    return b;
}

void bits_close(Bits **bits)
{
    Bits *b = *bits;
    if (!b) return;
    open_run_close(&b->run);
    tokenizer_close(&b->tokenizer);
    if (b->cache) tokenizer_cache_destroy(&b->cache);
    free(b->tokens);
    free(b->targets);
    free(b->nll);
    free(b->document);
    free(b);
    *bits = NULL;
}

/* Runs the filled rows and adds each row's nats to its document. */
static void flush(Bits *b, double *nats)
{
    double sums[2] = {0};
    if (!b->rows) return;
    model_eval_micro(b->run.model,
                     &(MicroBatch){.B = b->rows, .tokens = b->tokens, .targets = b->targets}, sums,
                     b->nll);
    for (int64_t row = 0; row < b->rows; row++)
        for (int64_t t = 0; t < b->T; t++)
            if (b->targets[row * b->T + t] >= 0)
                nats[b->document[row]] += (double)b->nll[row * b->T + t];
    b->rows = 0;
}

/* A row for the window whose targets begin with ids[begin]. */
static void add_window(Bits *b, int document, const int32_t *ids, int64_t count, int64_t begin)
{
    int32_t *tokens = b->tokens + b->rows * b->T, *targets = b->targets + b->rows * b->T;
    for (int64_t t = 0; t < b->T; t++) {
        int64_t i = begin + t;
        bool there = i < count;
        targets[t] = there ? ids[i] : -1;
        tokens[t] = there && i > 0 ? ids[i - 1] : (int32_t)tokenizer_bos(b->tokenizer);
    }
    b->document[b->rows++] = document;
}

static int add_document(Bits *b, int index, const Document *d, double *nats, Err *e)
{
    int32_t *ids;
    int64_t count;
    if (tokenizer_encode_cached(b->tokenizer, b->cache, d->text, d->size, &ids, &count, e))
        return -1;
    for (int64_t begin = 0; begin < count; begin += b->T) {
        add_window(b, index, ids, count, begin);
        if (b->rows == b->B) flush(b, nats);
    }
    free(ids);
    return 0;
}

int bits_score(void *bits, const Document *documents, int n, double *out, Err *e)
{
    Bits *b = bits;
    for (int i = 0; i < n; i++) out[i] = 0;
    for (int i = 0; i < n; i++)
        if (add_document(b, i, &documents[i], out, e)) return -1;
    flush(b, out);
    for (int i = 0; i < n; i++) out[i] /= log(2) * (double)documents[i].size;
    return 0;
}
