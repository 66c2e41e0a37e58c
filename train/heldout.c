/* train/heldout.c - see heldout.h. */
#include "train/heldout.h"

#include <math.h>
#include <stdlib.h>

#include "base/size.h"
#include "train/run_folder.h"
#include "train/signals.h"

typedef struct Measure { /* one call of heldout_measure */
    HeldOut *out;
    const Tokenizer *tokenizer;
    const HeldOutOptions *options;
    float *token_nll; /* (B, T), when each window's sum is asked for */
} Measure;

/* Adds the text bytes of the counted targets, in all and by window; writes them if asked to. */
static int count_bytes(const Measure *q, const Batch *b, Err *e)
{
    HeldOut *out = q->out;
    for (int64_t i = 0; i < b->B * b->T; i++) {
        int64_t window = out->sequences + i / b->T;
        if (b->targets[i] < 0) continue;
        int size;
        const char *piece = tokenizer_piece(q->tokenizer, b->targets[i], &size);
        if (!piece)
            return err_set(e, "held-out sequence %lld has token %d; the tokenizer has %d",
                           (long long)window, (int)b->targets[i], tokenizer_vocab(q->tokenizer));
        out->bytes += size;
        if (q->options->each) q->options->each[window].bytes += size;
        FILE *text = q->options->text;
        if (text && fwrite(piece, 1, (size_t)size, text) != (size_t)size)
            return err_errno(e, "the held-out text cannot be written to a temporary file");
    }
    return 0;
}

static void sum_windows(const Measure *q, const Batch *b)
{
    SequenceSum *each = q->options->each;
    for (int64_t s = 0; each && s < b->B; s++) {
        SequenceSum *sum = &each[q->out->sequences + s];
        *sum = (SequenceSum){0};
        for (int64_t i = s * b->T; i < (s + 1) * b->T; i++) {
            sum->nll += q->token_nll[i];
            sum->targets += b->targets[i] >= 0;
        }
    }
}

void heldout_finish(HeldOut *h)
{
    h->loss = h->targets ? h->nll / (double)h->targets : NAN;
    h->perplexity = exp(h->loss);
    h->bits_per_byte = h->bytes ? h->nll / log(2) / (double)h->bytes : NAN;
}

static int measure(const Measure *q, Model *m, Loader *loader, Err *e)
{
    double sums[2] = {0};
    HeldOut *out = q->out;
    int64_t sequences = q->options->sequences;
    while (out->sequences < sequences && !signals_stop()) {
        Batch b;
        int64_t B = size_min(model_shape(m)->B, sequences - out->sequences);
        if (loader_batch(loader, out->sequences, B, &b, e)) return -1;
        MicroBatch micro = {.B = B, .tokens = b.tokens, .targets = b.targets,
                            .doc_start = q->options->use_documents ? b.doc_start : NULL};
        model_eval_micro(m, &micro, sums, q->token_nll);
        if (q->options->sign > 0) run_folder_sign(q->options->sign);
        sum_windows(q, &b);
        if (q->tokenizer && count_bytes(q, &b, e)) return -1;
        out->sequences += B;
    }
    out->nll = sums[0];
    out->targets = (int64_t)sums[1];
    heldout_finish(out);
    return 0;
}

int heldout_measure(HeldOut *out, Model *m, Loader *loader, const Tokenizer *tokenizer,
                    const HeldOutOptions *options, Err *e)
{
    Measure q = {.out = out, .tokenizer = tokenizer, .options = options};
    const ModelShape *shape = model_shape(m);
    *out = (HeldOut){0};
    if (options->each) {
        q.token_nll = malloc((size_t)(shape->B * shape->T) * sizeof *q.token_nll);
        if (!q.token_nll) return err_set(e, "out of memory for the losses of tokens");
    }
    int rc = measure(&q, m, loader, e);
    free(q.token_nll);
    return rc;
}
