/* device/cpu/adamw.c - one AdamW update (Loshchilov & Hutter 2019) of a parameter or a flat range.
 *
 * g = grad grad_scale; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
 * w -= lr lr_ratio lr_each ((m / bias1) / (sqrt(v / bias2) + eps) + weight_decay w).
 * All of one size and f32, but for moments in bf16, which are rounded stochastically when they are
 * stored; a bf16 copy of w is written if the tensor is given. Called by optim/.
 */
#include "device/cpu/random.h"
#include "device/cpu/rows.h"

/* Elements whose random words are made at once. */
enum { PIECE = 512 };

/* The factors of one update, worked out in double once. */
typedef struct AdamwFactors {
    float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
    float inv_bias1, inv_bias2, eps, lr, weight_decay;
    PhiloxKey key;  /* of the rounding */
    uint64_t first; /* word of element 0 */
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
        .key = {vars->seed, RNG_ROUND, opt->rounding.stream, (uint64_t)vars->step},
        .first = opt->rounding.first,
    };
}

/* The compiler makes a vector instruction of this (the files are built with -fno-math-errno). */
static inline V16 v_sqrt(V16 x)
{
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}

/* words: of the elements i.., for bf16 moments. */
ROW_KERNEL void adamw_vector(AdamwTensors t, const AdamwFactors *f, DType moments, bool copy,
                             const uint32_t *words, int64_t i, int64_t n)
{
    V16 g = v_get(t.grad.data, DT_F32, i, n) * f->grad_scale;
    V16 m = f->beta1 * v_get(t.m.data, moments, i, n) + f->one_minus_beta1 * g;
    V16 v = f->beta2 * v_get(t.v.data, moments, i, n) + f->one_minus_beta2 * (g * g);
    V16 w = v_get(t.master.data, DT_F32, i, n);
    V16 step = m * f->inv_bias1 / (v_sqrt(v * f->inv_bias2) + f->eps);
    w -= f->lr * (step + f->weight_decay * w);
    if (moments == DT_F32) {
        v_put(t.m.data, DT_F32, i, n, m);
        v_put(t.v.data, DT_F32, i, n, v);
    } else {
        U16 random = random_get(words, n);
        v_put_random((uint16_t *)t.m.data + i, n, m, random & 0xffffu);
        v_put_random((uint16_t *)t.v.data + i, n, v, random >> 16);
    }
    v_put(t.master.data, DT_F32, i, n, w);
    if (copy) v_put(t.weight.data, DT_BF16, i, n, w);
}

ROW_KERNEL void adamw_block(AdamwTensors t, const AdamwFactors *f, DType moments, bool copy,
                            int64_t begin, int64_t end)
{
    uint32_t buffer[RANDOM_ROOM(PIECE)];
    const uint32_t *words = buffer;
    for (int64_t at = begin; at < end; at += PIECE) {
        int64_t stop = size_min(at + PIECE, end), i = at;
        if (moments == DT_BF16)
            words = random_words(&f->key, f->first + (uint64_t)at, stop - at, buffer);
        for (; i + LANES <= stop; i += LANES)
            adamw_vector(t, f, moments, copy, words + (i - at), i, LANES);
        if (i < stop) adamw_vector(t, f, moments, copy, words + (i - at), i, stop - i);
    }
}

int adamw_cpu(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars)
{
    if (vars->skip) return 0;
    int64_t n = tensor_elements(t.master);
    int64_t runs = tensor_given(opt->lr_each) ? tensor_elements(opt->lr_each) : 1;
    int64_t run_size = n / runs, per_run = size_ceil_div(run_size, ROWS_BLOCK);
    bool copy = tensor_given(t.weight);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int64_t i = 0; i < runs * per_run; i++) {
        AdamwFactors f = adamw_factors(opt, vars, i / per_run);
        int64_t end = (i / per_run + 1) * run_size;
        int64_t begin = end - run_size + i % per_run * ROWS_BLOCK;
        if (end - begin > ROWS_BLOCK) end = begin + ROWS_BLOCK;
        if (t.m.type == DT_F32 && copy) adamw_block(t, &f, DT_F32, true, begin, end);
        else if (t.m.type == DT_F32) adamw_block(t, &f, DT_F32, false, begin, end);
        else if (copy) adamw_block(t, &f, DT_BF16, true, begin, end);
        else adamw_block(t, &f, DT_BF16, false, begin, end);
    }
    return 0;
}
