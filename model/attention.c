/* model/attention.c - the attention branch of a block, forward and backward.
 *
 * q = qk(x Wq), k = qk(x_own Wk), v = x_own Wv, where x_own is the normed input of the layer that
 * owns K and V: under cross-layer attention (Brandon et al. 2024) the owner projects them and the
 * next cla_share - 1 layers read them, each with its own key norm (Hunyuan-Large). out =
 * attention(q,k,v) Wo.
 */
#include "model/mup.h"
#include "model/pass.h"

static QkOpt qk_opt(const Pass *p)
{
    const ModelConfig *c = &p->m->c;
    return (QkOpt){.norm = (QkNorm)c->qk_norm, .eps = c->norm_eps, .rope = p->m->w.rope,
                   .T = p->T, .pos0 = p->pos0};
}

/* (N, A, K) as (N, A*K). */
static Tensor flat_heads(Tensor t) { return tensor_reshape2(t, t.dim[0], t.dim[1] * t.dim[2]); }

/* (N, A, K) as (B, T, A, K). */
static Tensor by_sequence(const Pass *p, Tensor t)
{
    return tensor_reshape4(t, p->B, t.dim[0] / p->B, t.dim[1], t.dim[2]);
}

/* Where this pass's rotated keys and its values go: the decoder's cache, or the activations. */
static Tensor key_target(const Pass *p, int64_t l, Tensor k)
{
    return p->decoder ? tensor_slice(p->decoder->k[l], p->pos0, p->N) : k;
}

static Tensor value_target(const Pass *p, int64_t own, Tensor v)
{
    return p->decoder ? tensor_slice(p->decoder->v[own], p->pos0, p->N) : v;
}

static AttnTensors attention_tensors(const Pass *p, int64_t l, const LayerActs *a,
                                     const LayerActs *own)
{
    AttnTensors t = {.q = by_sequence(p, a->q), .o = by_sequence(p, a->o), .lse = a->lse};
    Tensor k = a->k, v = own->v;
    if (p->decoder) {
        k = tensor_slice(p->decoder->k[l], 0, p->pos0 + p->N);
        v = tensor_slice(p->decoder->v[model_kv_layer(&p->m->c, l)], 0, p->pos0 + p->N);
    }
    t.k = by_sequence(p, k);
    t.v = by_sequence(p, v);
    return t;
}

static AttnOpt attention_opt(const Pass *p)
{
    AttnOpt opt = {.scale = model_attention_scale(&p->m->c), .q_pos0 = p->pos0,
                   .any_order = p->m->shape.any_order};
    if (p->documents)
        opt.doc_start = tensor_reshape2(pass_rows(p, p->m->w.doc_start), p->B, p->T);
    return opt;
}

void attention_forward(const Pass *p, int64_t l)
{
    Model *m = p->m;
    Device *d = m->device;
    const LayerParams *w = &m->p.layer[l];
    int64_t owner = model_kv_layer(&m->c, l);
    LayerActs a = pass_acts(p, l), own = pass_acts(p, owner);
    QkOpt opt = qk_opt(p);
    if (owner == l) {
        dev_linear_fwd(d, flat_heads(own.k_raw), a.attn_in, w->k, w->k_bias);
        dev_linear_fwd(d, flat_heads(value_target(p, l, own.v)), a.attn_in, w->v, w->v_bias);
    }
    dev_linear_fwd(d, flat_heads(a.q_raw), a.attn_in, w->q, w->q_bias);
    dev_qk_fwd(d, a.q, a.q_rstd, a.q_raw, w->q_norm, &opt);
    dev_qk_fwd(d, key_target(p, l, a.k), a.k_rstd, own.k_raw, w->k_norm, &opt);
    AttnOpt attn = attention_opt(p);
    dev_attention_fwd(d, attention_tensors(p, l, &a, &own), &attn);
    dev_linear_fwd(d, pass_rows(p, m->w.branch), flat_heads(a.o), w->o, tensor_none());
}

void attention_backward(const Pass *p, int64_t l)
{
    Model *m = p->m;
    Device *d = m->device;
    WorkTensors *t = &m->w;
    const LayerParams *w = &m->p.layer[l], *g = &m->g.layer[l];
    int64_t owner = model_kv_layer(&m->c, l);
    /* Backwards the last sharer comes first: it writes the shared gradients, the others add. */
    bool first = l == m->c.n_layers - 1 || model_kv_layer(&m->c, l + 1) == l + 1;
    LayerActs a = pass_acts(p, l), own = pass_acts(p, owner);
    Tensor dx = pass_rows(p, t->dx), d_o = pass_rows(p, t->d_o);
    Tensor dq = pass_rows(p, t->dq), dq_raw = pass_rows(p, t->dq_raw);
    Tensor dk = pass_rows(p, t->dk), dk_raw = pass_rows(p, t->dk_raw), dv = pass_rows(p, t->dv);

    dev_linear_bwd(d, (LinearGrad){.dx = flat_heads(d_o), .dw = g->o}, pass_rows(p, t->dres),
                   flat_heads(a.o), w->o);
    AttnOpt attn = attention_opt(p);
    AttnGrad grad = {.dq = by_sequence(p, dq), .dk = by_sequence(p, dk),
                     .dv = by_sequence(p, dv), .dv_add = !first};
    dev_attention_bwd(d, grad, by_sequence(p, d_o), attention_tensors(p, l, &a, &own), &attn);

    QkOpt opt = qk_opt(p);
    dev_qk_bwd(d, dq_raw, g->q_norm, dq, a.q_raw, w->q_norm, a.q_rstd, &opt);
    opt.dx_add = !first;
    dev_qk_bwd(d, dk_raw, g->k_norm, dk, own.k_raw, w->k_norm, a.k_rstd, &opt);

    dev_linear_bwd(d, (LinearGrad){.dx = dx, .dw = g->q, .dbias = g->q_bias}, flat_heads(dq_raw),
                   a.attn_in, w->q);
    if (owner != l) return;
    dev_linear_bwd(d, (LinearGrad){.dx = dx, .dx_add = true, .dw = g->k, .dbias = g->k_bias},
                   flat_heads(dk_raw), a.attn_in, w->k);
    dev_linear_bwd(d, (LinearGrad){.dx = dx, .dx_add = true, .dw = g->v, .dbias = g->v_bias},
                   flat_heads(dv), a.attn_in, w->v);
}
