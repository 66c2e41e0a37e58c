/* device/cpu/adamw.c - one AdamW update (Loshchilov & Hutter 2019) of a parameter or a flat range.
 *
 * g = grad grad_scale; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
 * w -= lr lr_ratio lr_each ((m / bias1) / (sqrt(v / bias2) + eps) + weight_decay w).
 * All f32 and of one size; a bf16 copy of w is written if the tensor is given. Called by optim/.
 */
#include "device/cpu/rows.h"

/* The factors of one update, worked out in double once. */
typedef struct AdamwFactors {
    float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
    float inv_bias1, inv_bias2, eps, lr, weight_decay;
} AdamwFactors;

/* Of run `run`, if the rate differs by run. */
static AdamwFactors adamw_factors(const AdamwOpt *opt, const StepVars *vars, int64_t run)
{
    double each = tensor_given(opt->lr_each) ? ((const float *)opt->lr_each.data)[run] : 1.0;
    return (AdamwFactors){
        .grad_scale = (float)vars->grad_scale,
        .beta1 = (float)opt->beta1, .one_minus_beta1 = (float)(1.0 - opt->beta1),
        .beta2 = (float)opt->beta2, .one_minus_beta2 = (float)(1.0 - opt->beta2),
        .inv_bias1 = (float)(1.0 / vars->bias1), .inv_bias2 = (float)(1.0 / vars->bias2),
        .eps = (float)opt->eps, .lr = (float)(vars->lr * opt->lr_ratio * each),
        .weight_decay = (float)opt->weight_decay,
    };
}

/* The compiler makes a vector instruction of this (the files are built with -fno-math-errno). */
static inline V16 v_sqrt(V16 x)
{
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}

ROW_KERNEL void adamw_vector(AdamwTensors t, const AdamwFactors *f, bool copy, int64_t i, int64_t n)
{
    V16 g = v_get(t.grad.data, DT_F32, i, n) * f->grad_scale;
    V16 m = f->beta1 * v_get(t.m.data, DT_F32, i, n) + f->one_minus_beta1 * g;
    V16 v = f->beta2 * v_get(t.v.data, DT_F32, i, n) + f->one_minus_beta2 * (g * g);
    V16 w = v_get(t.master.data, DT_F32, i, n);
    V16 step = m * f->inv_bias1 / (v_sqrt(v * f->inv_bias2) + f->eps);
    w -= f->lr * (step + f->weight_decay * w);
    v_put(t.m.data, DT_F32, i, n, m);
    v_put(t.v.data, DT_F32, i, n, v);
    v_put(t.master.data, DT_F32, i, n, w);
    if (copy) v_put(t.weight.data, DT_BF16, i, n, w);
}

ROW_KERNEL void adamw_block(AdamwTensors t, const AdamwFactors *f, bool copy, int64_t begin,
                            int64_t end)
{
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) adamw_vector(t, f, copy, i, LANES);
    if (i < end) adamw_vector(t, f, copy, i, end - i);
}

int adamw_cpu(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars)
{
    if (vars->skip) return 0;
    int64_t n = tensor_elements(t.master);
    int64_t runs = tensor_given(opt->lr_each) ? tensor_elements(opt->lr_each) : 1;
    int64_t run_size = n / runs, per_run = size_ceil_div(run_size, ROWS_BLOCK);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int64_t i = 0; i < runs * per_run; i++) {
        AdamwFactors f = adamw_factors(opt, vars, i / per_run);
        int64_t end = (i / per_run + 1) * run_size;
        int64_t begin = end - run_size + i % per_run * ROWS_BLOCK;
        if (end - begin > ROWS_BLOCK) end = begin + ROWS_BLOCK;
        if (tensor_given(t.weight)) adamw_block(t, &f, true, begin, end);
        else adamw_block(t, &f, false, begin, end);
    }
    return 0;
}
