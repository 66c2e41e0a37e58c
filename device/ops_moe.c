/* device/ops_moe.c - checked wrappers: routing, loss, optimizer, plain operations.
 * Contracts in device.h. */
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

static void need_route_opt(OpId op, const Routing *r, int64_t N, const RouteOpt *opt)
{
    int64_t E = tensor_cols(r->probs), k = tensor_cols(r->expert);
    CHECK(opt->group_tokens > 0 && N % opt->group_tokens == 0,
          "%lld tokens are no multiple of the routing group of %lld", (long long)N,
          (long long)opt->group_tokens);
    int64_t groups = N / opt->group_tokens;
    int64_t rows = opt->mode == ROUTE_DROPLESS ? N * k : E * groups * opt->capacity;
    need(op, "routing.row_src", r->row_src, DT_I32, SHAPE(rows));
    need(op, "routing.load", r->load, DT_I32, SHAPE(groups, E));
    need(op, "routing.stats", r->stats, DT_F32, SHAPE(groups, STAT_COUNT));
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

/* ---- Loss -------------------------------------------------------------------------------------*/

static void need_ce(OpId op, Tensor lse, Tensor x, Tensor w, Tensor targets)
{
    need_float(op, "x", x, 2);
    int64_t N = x.dim[0], D = x.dim[1];
    need(op, "w", w, x.type, SHAPE(tensor_rows(w), D));
    need(op, "targets", targets, DT_I32, SHAPE(N));
    need(op, "lse", lse, DT_F32, SHAPE(N));
}

void dev_ce_fwd(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
                const CeOpt *opt)
{
    need_ce(OP_ce_fwd, lse, x, w, targets);
    need(OP_ce_fwd, "target_logit", target_logit, DT_F32, SHAPE(x.dim[0]));
    int64_t flops = 2 * x.dim[0] * x.dim[1] * w.dim[0];
    OP_RUN(d, ce_fwd, flops, bytes3(x, w, lse), lse, target_logit, x, w, targets, opt);
}

void dev_ce_bwd(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
                const CeOpt *opt)
{
    need_ce(OP_ce_bwd, lse, x, w, targets);
    need(OP_ce_bwd, "dx", g.dx, x.type, SHAPE(x.dim[0], x.dim[1]));
    need(OP_ce_bwd, "dw", g.dw, DT_F32, SHAPE(w.dim[0], w.dim[1]));
    int64_t flops = 6 * x.dim[0] * x.dim[1] * w.dim[0];
    OP_RUN(d, ce_bwd, flops, bytes3(x, w, g.dx) + 2 * tensor_bytes(g.dw), g, x, w, targets, lse,
           opt);
}

void dev_ce_train(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt)
{
    need_ce(OP_ce_train, out.lse, x, w, targets);
    if (opt->vocab0 != 0) op_refuse(OP_ce_train, "needs the whole vocabulary");
    if (!d->ops->ce_train) {
        LinearGrad g = {.dx = out.dx, .dw = out.dw};
        dev_ce_fwd(d, out.lse, out.target_logit, x, w, targets, opt);
        dev_ce_bwd(d, g, x, w, targets, out.lse, opt);
        return;
    }
    need(OP_ce_train, "target_logit", out.target_logit, DT_F32, SHAPE(x.dim[0]));
    need(OP_ce_train, "dx", out.dx, x.type, SHAPE(x.dim[0], x.dim[1]));
    need(OP_ce_train, "dw", out.dw, DT_F32, SHAPE(w.dim[0], w.dim[1]));
    int64_t flops = 6 * x.dim[0] * x.dim[1] * w.dim[0];
    OP_RUN(d, ce_train, flops, bytes3(x, w, out.dx) + 2 * tensor_bytes(out.dw), out, x, w, targets,
           opt);
}

void dev_nll_sum(Device *d, Tensor sum, Tensor lse, Tensor target_logit, Tensor targets)
{
    need(OP_nll_sum, "sum", sum, DT_F64, SHAPE(2));
    int64_t N = tensor_elements(targets);
    need(OP_nll_sum, "targets", targets, DT_I32, SHAPE(N));
    need(OP_nll_sum, "lse", lse, DT_F32, SHAPE(N));
    need(OP_nll_sum, "target_logit", target_logit, DT_F32, SHAPE(N));
    OP_RUN(d, nll_sum, 0, bytes3(lse, target_logit, targets), sum, lse, target_logit, targets);
}

/* ---- Optimizer and plain operations -----------------------------------------------------------*/

void dev_sqsum(Device *d, Tensor sum, Tensor x)
{
    need(OP_sqsum, "sum", sum, DT_F64, SHAPE(1));
    if (x.type != DT_F32 && x.type != DT_BF16) op_refuse(OP_sqsum, "x must be f32 or bf16");
    OP_RUN(d, sqsum, 0, tensor_bytes(x), sum, x);
}

void dev_sqdiff(Device *d, Tensor sum, Tensor a, Tensor b)
{
    need(OP_sqdiff, "sum", sum, DT_F64, SHAPE(1));
    if (a.type != DT_F32 || b.type != DT_F32 || !tensor_same_shape(a, b))
        op_refuse(OP_sqdiff, "a and b must be f32 of one shape");
    OP_RUN(d, sqdiff, 0, 2 * tensor_bytes(a), sum, a, b);
}

void dev_step_begin(Device *d, StepVars *vars, const StepVars *host)
{
    OP_RUN(d, step_begin, 0, (int64_t)sizeof *host, vars, host);
}

void dev_cast(Device *d, Tensor dst, Tensor src)
{
    bool known = (dst.type == DT_F32 || dst.type == DT_BF16) &&
                 (src.type == DT_F32 || src.type == DT_BF16);
    if (!known || tensor_elements(dst) != tensor_elements(src))
        op_refuse(OP_cast, "f32 and bf16 of one size");
    OP_RUN(d, cast, 0, tensor_bytes(dst) + tensor_bytes(src), dst, src);
}

void dev_fill(Device *d, Tensor t, double value) { OP_RUN(d, fill, 0, tensor_bytes(t), t, value); }

void dev_add(Device *d, Tensor y, Tensor a, Tensor b)
{
    need_float(OP_add, "y", y, y.n_dim);
    bool same = a.type == y.type && b.type == y.type && tensor_elements(a) == tensor_elements(y) &&
                tensor_elements(b) == tensor_elements(y);
    if (!same) op_refuse(OP_add, "y, a, b must have one type and size");
    OP_RUN(d, add, 0, 3 * tensor_bytes(y), y, a, b);
}
