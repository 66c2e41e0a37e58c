/* model/decode.c - decoding one sequence with caches of keys and values.
 *
 * Every layer caches its own rotated and normed keys; values are cached by the layer that owns
 * them. A pass over `count` new tokens writes their keys and values behind the cached ones and
 * attends to all. Routing is dropless, so a token's result does not depend on what is fed with it.
 */
#include <stdlib.h>

#include "base/size.h"
#include "model/mup.h"
#include "model/pass.h"

static void layout_cache(Decoder *d, ArenaPlan *plan, char *base)
{
    const ModelConfig *c = &d->m->c;
    DType type = d->m->shape.type;
    int64_t G = c->n_kv_heads, K = c->head_dim, n = d->max_tokens;
    int64_t bytes = n * G * K * (int64_t)dtype_size(type);
    for (int64_t l = 0; l < c->n_layers; l++) {
        uintptr_t k = (uintptr_t)base + (uintptr_t)arena_reserve(plan, "cache/keys", bytes);
        d->k[l] = tensor_3d((void *)k, type, n, G, K);
        if (model_kv_layer(c, l) != l) continue;
        uintptr_t v = (uintptr_t)base + (uintptr_t)arena_reserve(plan, "cache/values", bytes);
        d->v[l] = tensor_3d((void *)v, type, n, G, K);
    }
    uintptr_t logits = (uintptr_t)arena_reserve(plan, "cache/logits", c->vocab_size * 4);
    d->logits = tensor_2d((void *)((uintptr_t)base + logits), DT_F32, 1, c->vocab_size);
}

Decoder *decoder_create(Model *m, int64_t max_tokens, Err *e)
{
    ArenaPlan rehearsal = {0}, plan = {0};
    Decoder *d = NULL;
    if (model_check_causal(&m->c, e)) return NULL;
    if (max_tokens < 1 || max_tokens > m->w.rope.dim[0]) {
        err_set(e, "%lld tokens to decode, but the model was made for %lld positions",
                (long long)max_tokens, (long long)m->w.rope.dim[0]);
        return NULL;
    }
    d = calloc(1, sizeof *d);
    if (!d) goto memory;
    d->m = m;
    d->max_tokens = max_tokens;
    d->k = calloc((size_t)m->c.n_layers, sizeof *d->k);
    d->v = calloc((size_t)m->c.n_layers, sizeof *d->v);
    if (!d->k || !d->v) goto memory;
    layout_cache(d, &rehearsal, NULL);
    if (arena_check(&rehearsal, e)) goto fail;
    d->block = dev_alloc(m->device, arena_total(&rehearsal), "the decoder's cache", e);
    if (!d->block) goto fail;
    layout_cache(d, &plan, d->block);
    arena_clear(&rehearsal);
    arena_clear(&plan);
    return d;
memory:
    err_set(e, "out of memory for a decoder");
fail:
    arena_clear(&rehearsal);
    arena_clear(&plan);
    decoder_destroy(&d);
    return NULL;
}

void decoder_destroy(Decoder **d)
{
    if (!*d) return;
    dev_free((*d)->m->device, (*d)->block);
    free((*d)->k);
    free((*d)->v);
    free(*d);
    *d = NULL;
}

int decoder_feed(Decoder *d, const int32_t *tokens, int64_t count, float *logits, Err *e)
{
    Model *m = d->m;
    if (count < 1 || count > d->max_tokens - d->used) {
        err_set(e, "%lld more tokens do not fit behind %lld in a context of %lld",
                (long long)count, (long long)d->used, (long long)d->max_tokens);
        return err_hint(e, "ask for fewer tokens, or a longer context");
    }
    int64_t most = m->shape.B * m->shape.T;
    while (count > 0) {
        int64_t n = size_min(count, size_min(most, m->shape.T));
        Pass p = {.m = m, .B = 1, .T = n, .N = n, .decoder = d, .pos0 = d->used};
        dev_upload(m->device, pass_rows(&p, m->w.tokens), tokens);
        blocks_forward(&p);
        d->used += n;
        tokens += n;
        count -= n;
        if (count > 0) continue;
        dev_linear_fwd(m->device, d->logits, tensor_slice(m->w.final_in, n - 1, 1), m->p.head,
                       tensor_none());
        dev_download(m->device, logits, d->logits);
        model_scale_logits(&m->c, logits, m->c.vocab_size);
    }
    return 0;
}
