/* device/ops_optim.c - checked wrappers of the updates and of clipping. Contracts in device.h. */
#include "base/size.h"
#include "device/check.h"

/* Moments of the master's size, f32 or bf16; words of the rounding exist for all elements. */
static void need_moment(OpId op, Tensor m, int64_t n, Rounding rounding)
{
    if (!m.data || tensor_elements(m) != n || (m.type != DT_F32 && m.type != DT_BF16))
        op_refuse(op, "moments must be f32 or bf16 of the master's size");
    if (m.type == DT_BF16 && (rounding.first > 1ull << 34 || n > (1ll << 34) ||
                              rounding.first + (uint64_t)n > 1ull << 34))
        op_refuse(op, "elements beyond 2^34 have no random words");
}

static void need_rates(OpId op, Tensor lr_each, int64_t n, const char *wrong)
{
    if (!tensor_given(lr_each)) return;
    need(op, "lr_each", lr_each, DT_F32, SHAPE(lr_each.dim[0]));
    if (lr_each.dim[0] < 1 || n % lr_each.dim[0]) op_refuse(op, wrong);
}

/* Aborts unless the row is what dev_adamw takes; returns the bytes that must move. */
static int64_t need_adamw(AdamwTensors t, const AdamwOpt *opt)
{
    int64_t n = tensor_elements(t.master);
    Tensor all[] = {t.master, t.grad};
    for (int i = 0; i < 2; i++)
        if (all[i].type != DT_F32 || tensor_elements(all[i]) != n || !all[i].data)
            op_refuse(OP_adamw, "master and grad must be f32 of one size");
    need_moment(OP_adamw, t.m, n, opt->rounding);
    need_moment(OP_adamw, t.v, n, opt->rounding);
    if (t.m.type != t.v.type) op_refuse(OP_adamw, "m and v must have one type");
    if (t.weight.data && (t.weight.type != DT_BF16 || tensor_elements(t.weight) != n))
        op_refuse(OP_adamw, "weight must be bf16 of the master's size");
    need_rates(OP_adamw, opt->lr_each, n, "lr_each must cut the elements into equal runs");
    return n * (12 + 4 * (int64_t)dtype_size(t.m.type) + (t.weight.data ? 2 : 0));
}

void dev_adamw(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars)
{
    OP_RUN(d, adamw, 0, need_adamw(t, opt), t, opt, vars);
}

void dev_adamw_rows(Device *d, const AdamwRow *rows, int n, const StepVars *vars)
{
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        if (rows[i].t.m.type != rows[0].t.m.type)
            op_refuse(OP_adamw_rows, "the moments of all rows must have one type");
        bytes += need_adamw(rows[i].t, &rows[i].opt);
    }
    if (!n) return;
    if (d->ops->adamw_rows) {
        OP_RUN(d, adamw_rows, 0, bytes, rows, n, vars);
        return;
    }
    for (int i = 0; i < n; i++) dev_adamw(d, rows[i].t, &rows[i].opt, vars);
}

int64_t dev_muon_work(int64_t A, int64_t B)
{
    enum { LINE = 16 }; /* elements: each part begins on a cache line */
    int64_t a = size_min(A, B);
    return 2 * size_round_up(A * B, LINE) + 2 * size_round_up(a * a, LINE);
}

void dev_muon(Device *d, MuonTensors t, const MuonOpt *opt, const StepVars *vars)
{
    need_float(OP_muon, "master", t.master, 3);
    int64_t n = t.master.dim[0], A = t.master.dim[1], B = t.master.dim[2], a = size_min(A, B);
    need(OP_muon, "master", t.master, DT_F32, SHAPE(n, A, B));
    need(OP_muon, "grad", t.grad, DT_F32, SHAPE(n, A, B));
    need(OP_muon, "m", t.m, t.m.type, SHAPE(n, A, B));
    need_moment(OP_muon, t.m, n * A * B, opt->rounding);
    need_or_none(OP_muon, "weight", t.weight, DT_BF16, SHAPE(n, A, B));
    need(OP_muon, "work", t.work, DT_F32, SHAPE(t.work.dim[0]));
    if (t.work.dim[0] < dev_muon_work(A, B)) op_refuse(OP_muon, "work is too small");
    need_rates(OP_muon, opt->lr_each, n, "lr_each must cut the matrices into equal runs");
    int64_t bytes = 12 + 2 * (int64_t)dtype_size(t.m.type) + (t.weight.data ? 2 : 0);
    OP_RUN(d, muon, n * 5 * (4 * a * A * B + 2 * a * a * a), n * A * B * bytes, t, opt, vars);
}

void dev_clip(Device *d, StepVars *vars, Tensor sum, const ClipOpt *opt)
{
    need(OP_clip, "sum", sum, DT_F64, SHAPE(1));
    need_or_none(OP_clip, "loss", opt->loss, DT_F64, SHAPE(2));
    if (opt->z_max > 0) {
        if (opt->window < 2) op_refuse(OP_clip, "the window must be 2 steps or more");
        need(OP_clip, "history", opt->history, DT_F64, SHAPE(1 + 2 * opt->window));
    }
    OP_RUN(d, clip, 0, 0, vars, sum, opt);
}
