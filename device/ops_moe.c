/* device/ops_moe.c - checked wrappers: loss, optimizer, plain operations. Contracts in device.h. */
#include "device/check.h"

static int64_t bytes3(Tensor a, Tensor b, Tensor c)
{
    return tensor_bytes(a) + tensor_bytes(b) + tensor_bytes(c);
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
