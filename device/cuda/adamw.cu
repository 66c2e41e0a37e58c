/* device/cuda/adamw.cu - AdamW updates (Loshchilov & Hutter 2019) of one parameter, or of many at
 * once.
 *
 * g = grad grad_scale; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
 * w -= lr lr_ratio lr_each ((m / bias1) / (sqrt(v / bias2) + eps) + weight_decay w).
 * A bf16 copy of w is written if the tensor is given; moments in bf16 are rounded stochastically.
 * Moves 12 + 4 b bytes an element (b of a moment), 2 more with a copy: what it must. A thread has
 * ADAMW_EACH elements, or one where the tensors do not allow packs.
 *
 * Many rows: a table of them lies in device memory, first those in packs, then the others; two
 * launches whose blocks each have a chunk of one row, of a fixed number of elements. A block finds
 * its row by its number: the rows' first blocks rise. Nothing depends on the grid: the same bits as
 * row by row.
 */
#include "device/cuda/philox.cuh"
#include "device/cuda/rounding.cuh"
#include "device/cuda/rows.cuh"

#include <stdlib.h>
#include <string.h>

enum {
    ADAMW_BLOCK = 256, ADAMW_EACH = 8,
    ADAMW_ROUNDS = 8 /* of a block in a chunk of a row */
};

template <typename M> struct AdamwArgs { /* M: float, or uint16_t for the bits of a bf16 */
    float *master;
    bf16 *weight; /* or NULL */
    const float *grad;
    M *m, *v;
    const float *lr_each; /* or NULL: one rate */
    const StepVars *vars;
    int64_t n, run;       /* elements; of a run of one rate */
    double lr_ratio;
    float beta1, one_minus_beta1, beta2, one_minus_beta2, eps, weight_decay;
    uint32_t stream;      /* of the rounding */
    uint64_t first;
    int64_t block0;       /* of many rows: the first block of this one */
};

/* Factors that the device knows, worked out in double once a thread. */
struct AdamwFactors {
    float grad_scale, inv_bias1, inv_bias2, lr;
};

template <typename M>
static inline __device__ AdamwFactors factors_at(const AdamwArgs<M> &a, int64_t i)
{
    const StepVars *vars = a.vars;
    double each = a.lr_each ? (double)a.lr_each[i / a.run] : 1.0;
    AdamwFactors f;
    f.grad_scale = (float)vars->grad_scale;
    f.inv_bias1 = (float)(1.0 / vars->bias1);
    f.inv_bias2 = (float)(1.0 / vars->bias2);
    f.lr = (float)(vars->lr * a.lr_ratio * each);
    return f;
}

/* One element: w, m and v are updated. Which products are fused into sums is written out, so that
 * both kernels give the same bits. */
template <typename M>
static inline __device__ void update(const AdamwArgs<M> &a, const AdamwFactors &f, float grad,
                                     float *w, float *m, float *v)
{
    float g = grad * f.grad_scale;
    *m = fmaf(a.one_minus_beta1, g, a.beta1 * *m);
    *v = fmaf(a.one_minus_beta2, g * g, a.beta2 * *v);
    float step = *m * f.inv_bias1 / (sqrtf(*v * f.inv_bias2) + a.eps);
    *w = fmaf(-f.lr, fmaf(a.weight_decay, *w, step), *w);
}

static inline __device__ PhiloxKey rounding_key(const StepVars *vars, uint32_t stream)
{
    return {vars->seed, RNG_ROUND, stream, (uint64_t)vars->step};
}

static inline __device__ Wide<ADAMW_EACH> moments_load(const float *from)
{
    return wide_floats<ADAMW_EACH>(from);
}

static inline __device__ Wide<ADAMW_EACH> moments_load(const uint16_t *from)
{
    Pack<uint16_t> p = pack_load(from);
    Wide<ADAMW_EACH> w;
#pragma unroll
    for (int j = 0; j < ADAMW_EACH; j++) w.x[j] = bits_to_f32(p.x[j]);
    return w;
}

/* Stores the moments of the elements from i on, which is a multiple of ADAMW_EACH. */
static inline __device__ void moments_store(const AdamwArgs<float> &a, int64_t i,
                                            const Wide<ADAMW_EACH> &m, const Wide<ADAMW_EACH> &v)
{
    wide_put_floats(a.m + i, m);
    wide_put_floats(a.v + i, v);
}

static inline __device__ void moments_store(const AdamwArgs<uint16_t> &a, int64_t i,
                                            const Wide<ADAMW_EACH> &m, const Wide<ADAMW_EACH> &v)
{
    const PhiloxKey key = rounding_key(a.vars, a.stream);
    Pack<uint16_t> first, second;
#pragma unroll
    for (int j = 0; j < ADAMW_EACH; j += 4) {
        uint4 word = cuda_philox_block(key, (uint32_t)((a.first + (uint64_t)i + j) / 4));
        first.x[j] = round_random(m.x[j], word.x), second.x[j] = round_random(v.x[j], word.x >> 16);
        first.x[j + 1] = round_random(m.x[j + 1], word.y);
        second.x[j + 1] = round_random(v.x[j + 1], word.y >> 16);
        first.x[j + 2] = round_random(m.x[j + 2], word.z);
        second.x[j + 2] = round_random(v.x[j + 2], word.z >> 16);
        first.x[j + 3] = round_random(m.x[j + 3], word.w);
        second.x[j + 3] = round_random(v.x[j + 3], word.w >> 16);
    }
    pack_store(a.m + i, first);
    pack_store(a.v + i, second);
}

/* The ADAMW_EACH elements from i on, of one run. */
template <typename M> static inline __device__ void update_pack(const AdamwArgs<M> &a, int64_t i)
{
    const AdamwFactors f = factors_at(a, i);
    const Wide<ADAMW_EACH> grad = wide_floats<ADAMW_EACH>(a.grad + i);
    Wide<ADAMW_EACH> w = wide_floats<ADAMW_EACH>(a.master + i);
    Wide<ADAMW_EACH> m = moments_load(a.m + i), v = moments_load(a.v + i);
#pragma unroll
    for (int j = 0; j < ADAMW_EACH; j++) update(a, f, grad.x[j], &w.x[j], &m.x[j], &v.x[j]);
    moments_store(a, i, m, v);
    wide_put_floats(a.master + i, w);
    if (a.weight) wide_store(a.weight + i, w);
}

static inline __device__ float moment_read(float x) { return x; }
static inline __device__ float moment_read(uint16_t x) { return bits_to_f32(x); }

static inline __device__ void moment_write(float *to, float x, uint32_t) { *to = x; }
static inline __device__ void moment_write(uint16_t *to, float x, uint32_t random)
{
    *to = round_random(x, random);
}

template <typename M> static inline __device__ void update_one(const AdamwArgs<M> &a, int64_t i)
{
    const AdamwFactors f = factors_at(a, i);
    float w = a.master[i], m = moment_read(a.m[i]), v = moment_read(a.v[i]);
    update(a, f, a.grad[i], &w, &m, &v);
    uint32_t word = 0;
    if (sizeof(M) == 2)
        word = cuda_philox_u32(rounding_key(a.vars, a.stream), a.first + (uint64_t)i);
    moment_write(a.m + i, m, word);
    moment_write(a.v + i, v, word >> 16);
    a.master[i] = w;
    if (a.weight) a.weight[i] = from_f32<bf16>(w);
}

/* ---- One row ----------------------------------------------------------------------------------*/

template <typename M> KERNEL(ADAMW_BLOCK) adamw_packs_kernel(AdamwArgs<M> a)
{
    const int64_t i = ((int64_t)blockIdx.x * ADAMW_BLOCK + threadIdx.x) * ADAMW_EACH;
    if (i < a.n && !a.vars->skip) update_pack(a, i);
}

template <typename M> KERNEL(ADAMW_BLOCK) adamw_any_kernel(AdamwArgs<M> a)
{
    const int64_t i = (int64_t)blockIdx.x * ADAMW_BLOCK + threadIdx.x;
    if (i < a.n && !a.vars->skip) update_one(a, i);
}

/* Fills *a, whose bytes are all 0: tables of rows are compared as bytes. */
template <typename M>
static void set_args(AdamwArgs<M> *a, const AdamwTensors &t, const AdamwOpt *opt,
                     const StepVars *vars)
{
    a->master = (float *)t.master.data;
    a->weight = (bf16 *)t.weight.data;
    a->grad = (const float *)t.grad.data;
    a->m = (M *)t.m.data;
    a->v = (M *)t.v.data;
    a->lr_each = (const float *)opt->lr_each.data;
    a->vars = vars;
    a->n = tensor_elements(t.master);
    a->run = a->lr_each ? a->n / tensor_elements(opt->lr_each) : a->n;
    a->lr_ratio = opt->lr_ratio;
    a->beta1 = (float)opt->beta1;
    a->one_minus_beta1 = (float)(1.0 - opt->beta1);
    a->beta2 = (float)opt->beta2;
    a->one_minus_beta2 = (float)(1.0 - opt->beta2);
    a->eps = (float)opt->eps;
    a->weight_decay = (float)opt->weight_decay;
    a->stream = opt->rounding.stream;
    a->first = opt->rounding.first;
}

template <typename M> static bool fits_packs(const AdamwArgs<M> &a)
{
    return pack_fits<float>(a.master, 0) && pack_fits<float>(a.grad, 0) && pack_fits<M>(a.m, 0) &&
           pack_fits<M>(a.v, 0) && pack_fits<bf16>(a.weight, 0) && a.run % ADAMW_EACH == 0 &&
           a.first % 4 == 0;
}

template <typename M>
static void adamw(Device *d, const AdamwTensors &t, const AdamwOpt *opt, const StepVars *vars)
{
    AdamwArgs<M> a = {};
    set_args(&a, t, opt, vars);
    if (fits_packs(a))
        LAUNCH(adamw_packs_kernel<M>, dim3((unsigned)ceil_div(a.n, ADAMW_BLOCK * ADAMW_EACH)),
               ADAMW_BLOCK, 0, cuda_stream(d), a);
    else
        LAUNCH(adamw_any_kernel<M>, dim3((unsigned)ceil_div(a.n, ADAMW_BLOCK)), ADAMW_BLOCK, 0,
               cuda_stream(d), a);
}

int adamw_cuda(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars)
{
    if (tensor_elements(t.master) == 0) return 0;
    if (t.m.type == DT_F32) adamw<float>(d, t, opt, vars);
    else adamw<uint16_t>(d, t, opt, vars);
    return cuda_launched(d, "adamw");
}

/* ---- Many rows --------------------------------------------------------------------------------*/

/* A chunk of a row of the table rows[0 .. n-1]; the row is the last that begins at or before the
 * block. */
template <typename M, bool PACKS>
KERNEL(ADAMW_BLOCK) adamw_rows_kernel(const AdamwArgs<M> *rows, int n)
{
    constexpr int EACH = PACKS ? ADAMW_EACH : 1;
    const int64_t block = blockIdx.x;
    if (rows[0].vars->skip) return;
    int low = 0, high = n;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (rows[middle].block0 <= block) low = middle;
        else high = middle;
    }
    const AdamwArgs<M> &a = rows[low]; /* a copy would be half of the registers */
    int64_t i = ((block - a.block0) * ADAMW_ROUNDS * ADAMW_BLOCK + threadIdx.x) * EACH;
    for (int round = 0; round < ADAMW_ROUNDS && i < a.n; round++) {
        if (PACKS) update_pack(a, i);
        else update_one(a, i);
        i += ADAMW_BLOCK * EACH;
    }
}

enum { ADAMW_PACKS, ADAMW_SINGLE, ADAMW_KINDS };

struct AdamwTable {
    void *host, *memory;       /* the rows, here and on the device; `bytes` of them */
    int64_t bytes;
    int n[ADAMW_KINDS];
    int64_t blocks[ADAMW_KINDS];
};

static void table_free(AdamwTable *t)
{
    cudaFree(t->memory);
    free(t->host);
    free(t);
}

void adamw_free(Device *d)
{
    CudaState *s = cuda_state(d);
    if (s->adamw) table_free(s->adamw);
    s->adamw = NULL;
}

/* The rows that are not empty, packs first; NULL without memory. Nothing on the device yet. */
template <typename M>
static AdamwTable *table_of(const AdamwRow *rows, int n, const StepVars *vars)
{
    AdamwTable *t = (AdamwTable *)calloc(1, sizeof *t);
    AdamwArgs<M> *to = (AdamwArgs<M> *)calloc((size_t)n, sizeof *to);
    if (!t || !to) {
        free(t);
        free(to);
        return NULL;
    }
    t->host = to;
    for (int kind = 0; kind < ADAMW_KINDS; kind++) {
        const int64_t chunk = ADAMW_ROUNDS * ADAMW_BLOCK * (kind == ADAMW_PACKS ? ADAMW_EACH : 1);
        for (int i = 0; i < n; i++) {
            AdamwArgs<M> a = {};
            set_args(&a, rows[i].t, &rows[i].opt, vars);
            if (!a.n || fits_packs(a) != (kind == ADAMW_PACKS)) continue;
            set_args(to, rows[i].t, &rows[i].opt, vars);
            to->block0 = t->blocks[kind];
            t->blocks[kind] += ceil_div(a.n, chunk);
            t->n[kind]++;
            to++;
        }
    }
    t->bytes = (char *)to - (char *)t->host;
    return t;
}

/* Makes `t` the device's table; the one that is there stays where it says the same. Nonzero where
 * it cannot be made: while a graph is recorded, or without memory. Owns t. */
static int keep_table(Device *d, AdamwTable *t)
{
    CudaState *s = cuda_state(d);
    const AdamwTable *old = s->adamw;
    if (old && old->bytes == t->bytes && !memcmp(old->host, t->host, (size_t)t->bytes)) {
        table_free(t);
        return 0;
    }
    if (s->capturing || cudaStreamSynchronize(s->stream) != cudaSuccess ||
        !(t->memory = cuda_alloc(d, t->bytes))) {
        table_free(t);
        return -1;
    }
    adamw_free(d);
    s->adamw = t;
    s->scratch_moves++; /* a recorded graph reads the old one */
    return cuda_upload(d, tensor_1d(t->memory, DT_I32, t->bytes / 4), t->host);
}

template <typename M>
static int adamw_rows(Device *d, const AdamwRow *rows, int n, const StepVars *vars)
{
    AdamwTable *t = table_of<M>(rows, n, vars);
    if (t && !t->bytes) {
        table_free(t);
        return 0;
    }
    if (!t || keep_table(d, t)) {
        for (int i = 0; i < n; i++)
            if (adamw_cuda(d, rows[i].t, &rows[i].opt, vars)) return -1;
        return 0;
    }
    t = cuda_state(d)->adamw;
    const AdamwArgs<M> *packs = (const AdamwArgs<M> *)t->memory;
    const AdamwArgs<M> *single = packs + t->n[ADAMW_PACKS];
    if (t->n[ADAMW_PACKS])
        LAUNCH((adamw_rows_kernel<M, true>), dim3((unsigned)t->blocks[ADAMW_PACKS]), ADAMW_BLOCK,
               0, cuda_stream(d), packs, t->n[ADAMW_PACKS]);
    if (t->n[ADAMW_SINGLE])
        LAUNCH((adamw_rows_kernel<M, false>), dim3((unsigned)t->blocks[ADAMW_SINGLE]),
               ADAMW_BLOCK, 0, cuda_stream(d), single, t->n[ADAMW_SINGLE]);
    return cuda_launched(d, "adamw_rows");
}

int adamw_rows_cuda(Device *d, const AdamwRow *rows, int n, const StepVars *vars)
{
    return rows[0].t.m.type == DT_F32 ? adamw_rows<float>(d, rows, n, vars)
                                      : adamw_rows<uint16_t>(d, rows, n, vars);
}
