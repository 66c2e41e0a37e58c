/* train/heldout.c - see heldout.h. */
#include "train/heldout.h"

#include <math.h>

#include "base/size.h"
#include "train/signals.h"

/* Adds the text bytes of the counted targets; writes them to `text` if given. */
static int count_bytes(HeldOut *out, const Batch *b, const Tokenizer *tokenizer, FILE *text, Err *e)
{
    for (int64_t i = 0; i < b->B * b->T; i++) {
        if (b->targets[i] < 0) continue;
        int size;
        const char *piece = tokenizer_piece(tokenizer, b->targets[i], &size);
        if (!piece)
            return err_set(e, "held-out sequence %lld has token %d; the tokenizer has %d",
                           (long long)(out->sequences + i / b->T), (int)b->targets[i],
                           tokenizer_vocab(tokenizer));
        out->bytes += size;
        if (text && fwrite(piece, 1, (size_t)size, text) != (size_t)size)
            return err_errno(e, "the held-out text cannot be written to a temporary file");
    }
    return 0;
}

void heldout_finish(HeldOut *h)
{
    h->loss = h->targets ? h->nll / (double)h->targets : NAN;
    h->perplexity = exp(h->loss);
    h->bits_per_byte = h->bytes ? h->nll / log(2) / (double)h->bytes : NAN;
}

int heldout_measure(HeldOut *out, Model *m, Loader *loader, const Tokenizer *tokenizer,
                    int64_t sequences, bool use_documents, FILE *text, Err *e)
{
    double sums[2] = {0};
    *out = (HeldOut){0};
    while (out->sequences < sequences && !signals_stop()) {
        Batch b;
        int64_t B = size_min(model_shape(m)->B, sequences - out->sequences);
        if (loader_batch(loader, out->sequences, B, &b, e)) return -1;
        MicroBatch micro = {.B = B, .tokens = b.tokens, .targets = b.targets,
                            .doc_start = use_documents ? b.doc_start : NULL};
        model_eval_micro(m, &micro, sums, NULL);
        if (tokenizer && count_bytes(out, &b, tokenizer, text, e)) return -1;
        out->sequences += B;
    }
    out->nll = sums[0];
    out->targets = (int64_t)sums[1];
    heldout_finish(out);
    return 0;
}
