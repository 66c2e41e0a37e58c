/* device/ops_route.c - checked wrappers: routing, and what moves rows by it.
 * Contracts in device.h. */
#include <math.h>

#include "device/check.h"

static int64_t bytes3(Tensor a, Tensor b, Tensor c)
{
    return tensor_bytes(a) + tensor_bytes(b) + tensor_bytes(c);
}

void dev_router_fwd(Device *d, Tensor logits, Tensor x, Tensor w)
{
    need_float(OP_router_fwd, "x", x, 2);
    int64_t N = x.dim[0], D = x.dim[1], E = tensor_rows(w);
    need(OP_router_fwd, "w", w, DT_F32, SHAPE(E, D));
    need(OP_router_fwd, "logits", logits, DT_F32, SHAPE(N, E));
    OP_RUN(d, router_fwd, 2 * N * D * E, bytes3(x, w, logits), logits, x, w);
}

void dev_router_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogits, Tensor x, Tensor w)
{
    need_float(OP_router_bwd, "x", x, 2);
    int64_t N = x.dim[0], D = x.dim[1], E = tensor_rows(w);
    need(OP_router_bwd, "w", w, DT_F32, SHAPE(E, D));
    need(OP_router_bwd, "dw", dw, DT_F32, SHAPE(E, D));
    need(OP_router_bwd, "dx", dx, x.type, SHAPE(N, D));
    need(OP_router_bwd, "dlogits", dlogits, DT_F32, SHAPE(N, E));
    OP_RUN(d, router_bwd, 4 * N * D * E, bytes3(x, dx, dx) + bytes3(dlogits, w, dw), dx, dw,
           dlogits, x, w);
}

/* The routing tensors agree with each other and with N tokens, E experts. */
static void need_routing(OpId op, const Routing *r, int64_t N)
{
    int64_t E = tensor_cols(r->probs), k = tensor_cols(r->expert);
    need(op, "routing.probs", r->probs, DT_F32, SHAPE(N, E));
    need(op, "routing.first", r->first, DT_I32, SHAPE(N, k));
    need(op, "routing.expert", r->expert, DT_I32, SHAPE(N, k));
    need(op, "routing.row", r->row, DT_I32, SHAPE(N, k));
    need(op, "routing.weight", r->weight, DT_F32, SHAPE(N, k));
    need(op, "routing.row_src", r->row_src, DT_I32, SHAPE(tensor_elements(r->row_src)));
    need(op, "routing.row_begin", r->row_begin, DT_I32, SHAPE(E + 1));
    if (k < 1 || k > E) op_refuse(op, "choices a token must be 1 .. experts");
}

/* Choices that the options allow; what could do nothing, or could not be done, is a mistake. */
static void need_choices(OpId op, int64_t E, int64_t k, const RouteOpt *opt)
{
    bool by_token = opt->mode != ROUTE_EXPERT_CHOICE;
    need_or_none(op, "bias", opt->bias, DT_F32, SHAPE(E));
    if (opt->score != SCORE_SOFTMAX && opt->score != SCORE_SIGMOID) op_refuse(op, "unknown score");
    if (!by_token && k != E) op_refuse(op, "expert choice needs a slot for every expert: k = E");
    if (!by_token && (opt->blocks || opt->top_p != 0 || tensor_given(opt->bias)))
        op_refuse(op, "expert choice has no blocks, top_p or bias: tokens do not choose");
    if (!(opt->top_p >= 0 && opt->top_p < 1)) op_refuse(op, "top_p must be 0 (off) .. below 1");
    if (opt->top_p > 0 && opt->score != SCORE_SOFTMAX)
        op_refuse(op, "top_p needs softmax scores, which have the sum 1");
    if (opt->blocks < 0 || (opt->blocks > 0 && E % opt->blocks))
        op_refuse(op, "blocks must divide the experts");
    if (opt->blocks > 0 && (opt->blocks_top < 1 || opt->blocks_top > opt->blocks))
        op_refuse(op, "blocks_top must be 1 .. blocks");
    if (opt->blocks > 0 && k > opt->blocks_top * (E / opt->blocks))
        op_refuse(op, "the blocks of a token have fewer experts than it has choices");
}

static void need_route_opt(OpId op, const Routing *r, int64_t N, const RouteOpt *opt)
{
    int64_t E = tensor_cols(r->probs), k = tensor_cols(r->expert);
    CHECK(opt->group_tokens > 0 && N % opt->group_tokens == 0,
          "%lld tokens are no multiple of the routing group of %lld", (long long)N,
          (long long)opt->group_tokens);
    int64_t groups = N / opt->group_tokens;
    int64_t rows = route_is_compact(opt) ? N * k : E * groups * opt->capacity;
    need(op, "routing.row_src", r->row_src, DT_I32, SHAPE(rows));
    need(op, "routing.load", r->load, DT_I32, SHAPE(groups, E));
    need(op, "routing.count", r->count, DT_I32, SHAPE(groups, E));
    need(op, "routing.stats", r->stats, DT_F32, SHAPE(groups, STAT_COUNT));
    need_or_none(op, "balance_f", opt->balance_f, DT_F32, SHAPE(E));
    need_or_none(op, "balance_width", opt->balance_width, DT_F32, SHAPE(E));
    if (!(opt->weight_scale > 0 && isfinite(opt->weight_scale)))
        op_refuse(op, "weight_scale must be above 0; 1 for none");
    need_choices(op, E, k, opt);
}

void dev_route_fwd(Device *d, Routing *r, Tensor logits, const RouteOpt *opt)
{
    int64_t N = tensor_rows(logits);
    need(OP_route_fwd, "logits", logits, DT_F32, SHAPE(N, tensor_cols(r->probs)));
    need_routing(OP_route_fwd, r, N);
    need_route_opt(OP_route_fwd, r, N, opt);
    OP_RUN(d, route_fwd, 0, bytes3(logits, r->probs, r->weight), r, logits, opt);
}

void dev_route_bwd(Device *d, Tensor dlogits, const Routing *r, Tensor dweight, Tensor logits,
                   const RouteOpt *opt)
{
    int64_t N = tensor_rows(logits), E = tensor_cols(r->probs);
    need(OP_route_bwd, "logits", logits, DT_F32, SHAPE(N, E));
    need(OP_route_bwd, "dlogits", dlogits, DT_F32, SHAPE(N, E));
    need(OP_route_bwd, "dweight", dweight, DT_F32, SHAPE(N, tensor_cols(r->expert)));
    need_routing(OP_route_bwd, r, N);
    need_route_opt(OP_route_bwd, r, N, opt);
    OP_RUN(d, route_bwd, 0, bytes3(dlogits, r->probs, dweight), dlogits, r, dweight, logits, opt);
}

void dev_dispatch_fwd(Device *d, Tensor xe, Tensor x, const Routing *r)
{
    need_float(OP_dispatch_fwd, "x", x, 2);
    need_routing(OP_dispatch_fwd, r, x.dim[0]);
    need(OP_dispatch_fwd, "xe", xe, x.type, SHAPE(tensor_elements(r->row_src), x.dim[1]));
    OP_RUN(d, dispatch_fwd, 0, tensor_bytes(x) + tensor_bytes(xe), xe, x, r);
}

void dev_dispatch_bwd(Device *d, Tensor dx, Tensor dxe, const Routing *r)
{
    need_float(OP_dispatch_bwd, "dx", dx, 2);
    need_routing(OP_dispatch_bwd, r, dx.dim[0]);
    need(OP_dispatch_bwd, "dxe", dxe, dx.type, SHAPE(tensor_elements(r->row_src), dx.dim[1]));
    OP_RUN(d, dispatch_bwd, 0, tensor_bytes(dx) + tensor_bytes(dxe), dx, dxe, r);
}

void dev_combine_fwd(Device *d, Tensor y, Tensor base, Tensor ye, const Routing *r)
{
    need_float(OP_combine_fwd, "y", y, 2);
    need_routing(OP_combine_fwd, r, y.dim[0]);
    need_or_none(OP_combine_fwd, "base", base, y.type, SHAPE(y.dim[0], y.dim[1]));
    need(OP_combine_fwd, "ye", ye, y.type, SHAPE(tensor_elements(r->row_src), y.dim[1]));
    OP_RUN(d, combine_fwd, 0, bytes3(y, base, ye), y, base, ye, r);
}

void dev_combine_bwd(Device *d, Tensor dye, Tensor dweight, Tensor dy, Tensor ye, const Routing *r)
{
    need_float(OP_combine_bwd, "dy", dy, 2);
    need_routing(OP_combine_bwd, r, dy.dim[0]);
    need(OP_combine_bwd, "ye", ye, dy.type, SHAPE(tensor_elements(r->row_src), dy.dim[1]));
    need(OP_combine_bwd, "dye", dye, dy.type, SHAPE(tensor_elements(r->row_src), dy.dim[1]));
    need(OP_combine_bwd, "dweight", dweight, DT_F32, SHAPE(dy.dim[0], tensor_cols(r->expert)));
    OP_RUN(d, combine_bwd, 0, bytes3(dye, dy, ye), dye, dweight, dy, ye, r);
}
