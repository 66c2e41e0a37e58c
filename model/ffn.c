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
    RouteOpt opt = pass_route_opt(p, l);
    dev_router_fwd(d, a.logits, a.ffn_in, w->router);
    dev_route_fwd(d, &a.route, a.logits, &opt);
    if (m->observer && !p->train) m->observer(m->observer_context, l, &a.route);
    dev_dispatch_fwd(d, a.xe, a.ffn_in, &a.route);
    dev_expert_linear_fwd(d, a.gu, a.xe, w->gate_up, a.route.row_begin);
    dev_swiglu_fwd(d, a.h, a.gu);
    dev_expert_linear_fwd(d, a.ye, a.h, w->down, a.route.row_begin);
    dev_combine_fwd(d, branch, base, a.ye, &a.route);
}

/* Experts and router; w.dx is written. The gradients of gate/up take gu's place, those of the rows
 * ye's: both are dead by then. */
static void experts_backward(const Pass *p, int64_t l, const LayerActs *a)
{
    Model *m = p->m;
    Device *d = m->device;
    const LayerParams *w = &m->p.layer[l], *g = &m->g.layer[l];
    Tensor dx = pass_rows(p, m->w.dx), dweight = pass_rows(p, m->w.dweight);
    Tensor dlogits = pass_rows(p, m->w.dlogits);
    Tensor dh = tensor_slice(m->w.dh, 0, a->h.dim[0]);
    RouteOpt opt = pass_route_opt(p, l);
    dev_combine_bwd(d, a->ye, dweight, pass_rows(p, m->w.dres), a->ye, &a->route);
    dev_expert_linear_bwd(d, (LinearGrad){.dx = dh, .dw = g->down}, a->ye, a->h, w->down,
                          a->route.row_begin);
    dev_swiglu_bwd(d, a->gu, dh, a->gu);
    dev_expert_linear_bwd(d, (LinearGrad){.dx = a->ye, .dw = g->gate_up}, a->gu, a->xe, w->gate_up,
                          a->route.row_begin);
    dev_dispatch_bwd(d, dx, a->ye, &a->route);
    dev_route_bwd(d, dlogits, &a->route, dweight, a->logits, &opt);
    dev_router_bwd(d, dx, g->router, dlogits, a->ffn_in, w->router);
}

void ffn_backward(const Pass *p, int64_t l)
{
    Model *m = p->m;
    const LayerParams *w = &m->p.layer[l], *g = &m->g.layer[l];
    LayerActs a = pass_acts(p, l);
    bool experts = tensor_given(w->router);
    if (experts) experts_backward(p, l, &a);
    if (!tensor_given(w->shared_down)) return;
    Tensor dh = pass_rows(p, m->w.dh_shared);
    dev_linear_bwd(m->device, (LinearGrad){.dx = dh, .dw = g->shared_down},
                   pass_rows(p, m->w.dres), a.shared_h, w->shared_down);
    dev_swiglu_bwd(m->device, a.shared_gu, dh, a.shared_gu);
    LinearGrad grad = {.dx = pass_rows(p, m->w.dx), .dx_add = experts, .dw = g->shared_gate_up};
    dev_linear_bwd(m->device, grad, a.shared_gu, a.ffn_in, w->shared_gate_up);
}
