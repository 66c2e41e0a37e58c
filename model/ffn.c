/* model/ffn.c - the feed-forward branch: shared expert(s) for all tokens plus top-k specialized
 * ones.
 *
 * out = shared(x) + sum over j of weight_j expert_{e_j}(x), a plain sum (Hunyuan-Large). Several
 * shared experts are one of their total width. A dense model is a shared expert alone.
 */
#include "model/pass.h"

static void shared_forward(const Pass *p, int64_t l, const LayerActs *a)
{
    Model *m = p->m;
    const LayerParams *w = &m->p.layer[l];
    dev_linear_fwd(m->device, a->shared_gu, a->ffn_in, w->shared_gate_up, tensor_none());
    dev_swiglu_fwd(m->device, a->shared_h, a->shared_gu);
    dev_linear_fwd(m->device, pass_rows(p, m->w.branch), a->shared_h, w->shared_down,
                   tensor_none());
}

void ffn_forward(const Pass *p, int64_t l)
{
    Model *m = p->m;
    Device *d = m->device;
    const LayerParams *w = &m->p.layer[l];
    LayerActs a = pass_acts(p, l);
    Tensor branch = pass_rows(p, m->w.branch), base = tensor_none();
    if (tensor_given(w->shared_down)) {
        shared_forward(p, l, &a);
        base = branch;
    }
    if (!tensor_given(w->router)) return;
    router_forward(p, l, &a);
    if (m->observer && !p->train) m->observer(m->observer_context, l, &a.route);
    dev_dispatch_fwd(d, a.xe, a.ffn_in, &a.route);
    experts_forward(p, l, &a);
    dev_combine_fwd(d, branch, base, a.ye, &a.route);
}

/* Routing, experts and router; w.dx is written. The gradients of gate/up take gu's place, those of
 * the rows ye's: both are dead by then. */
static void routed_backward(const Pass *p, int64_t l, const LayerActs *a)
{
    Model *m = p->m;
    Device *d = m->device;
    Tensor dx = pass_rows(p, m->w.dx), dweight = pass_rows(p, m->w.dweight);
    dev_combine_bwd(d, a->ye, dweight, pass_rows(p, m->w.dres), a->ye, &a->route);
    experts_backward(p, l, a);
    dev_dispatch_bwd(d, dx, a->ye, &a->route);
    router_backward(p, l, a);
}

void ffn_backward(const Pass *p, int64_t l)
{
    Model *m = p->m;
    const LayerParams *w = &m->p.layer[l], *g = &m->g.layer[l];
    LayerActs a = pass_acts(p, l);
    bool experts = tensor_given(w->router);
    if (experts) routed_backward(p, l, &a);
    if (!tensor_given(w->shared_down)) return;
    Tensor dh = pass_rows(p, m->w.dh_shared);
    dev_linear_bwd(m->device, (LinearGrad){.dx = dh, .dw = g->shared_down},
                   pass_rows(p, m->w.dres), a.shared_h, w->shared_down);
    dev_swiglu_bwd(m->device, a.shared_gu, dh, a.shared_gu);
    LinearGrad grad = {.dx = pass_rows(p, m->w.dx), .dx_add = experts, .dw = g->shared_gate_up};
    dev_linear_bwd(m->device, grad, a.shared_gu, a.ffn_in, w->shared_gate_up);
}
