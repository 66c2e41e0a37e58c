/* device/cuda/ce.cu - linear + cross-entropy; contracts of dev_ce_* in device.h.
 *
 * Logits z = s x w^T exist for a chunk of rows at a time, f32 in scratch memory: as many rows as
 * SCRATCH_CHUNK_BYTES hold, the chunks of one size. A block has a row: it takes maximum and sum in
 * one pass over z, and writes the gradient over it in x's type; then dx = dz w and dw += dz^T x.
 * Bytes an element of z: 4 written by the product, 4 read for lse, and for the gradient 4 read, 2
 * or 4 written, twice 2 or 4 read by products (all beyond what must move, which is x, w, dx, dw; dw
 * moves twice a chunk).
 */
#include "device/cuda/common.cuh"
#include "device/cuda/gemm.h"

enum { CE_BLOCK = 256, CE_WIDE = 4, CE_TILE = CE_BLOCK * CE_WIDE };

typedef enum CeMode { CE_FWD, CE_BWD, CE_TRAIN } CeMode;

/* The rows of a chunk. */
typedef struct CeRows {
    float *z;             /* (rows, cols) f32, rows ld apart; receives dz */
    int64_t cols, ld;
    const int32_t *targets;
    int64_t vocab0;
    float *lse, *target_logit;
    float logit_scale;
    const StepVars *vars;
} CeRows;

/* ---- Kernels ----------------------------------------------------------------------------------*/

/* Up to 4 logits from column j on; those behind the end are -inf. */
static inline __device__ void load_logits(float (&v)[CE_WIDE], const float *z, int64_t j,
                                          int64_t cols)
{
    if (j + CE_WIDE <= cols) {
        float4 p = *(const float4 *)(z + j);
        v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w;
        return;
    }
#pragma unroll
    for (int c = 0; c < CE_WIDE; c++) v[c] = j + c < cols ? z[j + c] : -INFINITY;
}

/* log sum exp of the row, the same in every thread: each thread takes maximum and sum over its
 * columns at once, then the block puts them together. A NaN makes the sum NaN. */
static inline __device__ float row_lse(const float *z, int64_t cols, float *slots)
{
    float top = -INFINITY, total = 0, v[CE_WIDE];
    for (int64_t j = (int64_t)threadIdx.x * CE_WIDE; j < cols; j += CE_TILE) {
        load_logits(v, z, j, cols);
        float most = fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3]));
        if (most > top) {
            total *= expf(top - most);
            top = most;
        }
        total += expf(v[0] - top) + expf(v[1] - top) + (expf(v[2] - top) + expf(v[3] - top));
    }
    float most = warp_max(top);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    if (lane == 0) slots[warp] = most;
    __syncthreads();
    most = warp_max(lane < CE_BLOCK / WARP ? slots[lane] : -INFINITY);
    if (top > -INFINITY) total *= expf(top - most);
    return most + logf(block_sum(total, slots + WARP));
}

/* dz = scale (exp(z - lse) - onehot(column)) over z, in T. A tile of the row is read before it is
 * written, so that elements of half the size overwrite nothing that is still wanted. */
template <typename T>
static inline __device__ void row_gradient(float *z, int64_t cols, int64_t column, float lse,
                                           float scale)
{
    T *dz = (T *)z;
    float v[CE_WIDE];
    for (int64_t tile = 0; tile < cols; tile += CE_TILE) {
        int64_t j = tile + (int64_t)threadIdx.x * CE_WIDE;
        if (j < cols) load_logits(v, z, j, cols);
        if constexpr (sizeof(T) < sizeof(float)) {
            __syncthreads();
        }
#pragma unroll
        for (int c = 0; c < CE_WIDE; c++) {
            if (j + c >= cols) continue;
            float p = expf(v[c] - lse);
            dz[j + c] = from_f32<T>(scale * (j + c == column ? p - 1 : p));
        }
    }
}

/* Row blockIdx.x of the chunk. */
template <typename T, CeMode MODE> KERNEL(CE_BLOCK) ce_kernel(CeRows r)
{
    SHARED(float, slots, [2 * WARP]);
    int64_t row = blockIdx.x, target = r.targets[row];
    float *z = r.z + row * r.ld, lse = 0;
    int64_t column = target < 0 ? -1 : target - r.vocab0;
    if (column >= r.cols) column = -1;
    if (MODE == CE_BWD) lse = r.lse[row];
    else {
        lse = row_lse(z, r.cols, slots);
        if (threadIdx.x == 0) {
            r.lse[row] = lse;
            r.target_logit[row] = column < 0 ? 0.0f : z[column];
        }
    }
    if (MODE == CE_FWD) return;
    __syncthreads(); /* the target's logit has been read */
    if (target >= 0) {
        row_gradient<T>(z, r.cols, column, lse, (float)r.vars->loss_scale * r.logit_scale);
        return;
    }
    for (int64_t j = threadIdx.x; j < r.cols; j += CE_BLOCK) ((T *)z)[j] = from_f32<T>(0);
}

/* ---- Chunks -----------------------------------------------------------------------------------*/

typedef struct CeJob {
    const char *what;
    CeMode mode;
    Tensor x, w, targets, lse, target_logit, dx, dw;
    const CeOpt *opt;
} CeJob;

template <typename T> static void launch_rows(Device *d, CeMode mode, int64_t rows, CeRows r)
{
    dim3 grid((unsigned)rows);
    cudaStream_t stream = cuda_stream(d);
    if (mode == CE_FWD) LAUNCH((ce_kernel<T, CE_FWD>), grid, CE_BLOCK, 0, stream, r);
    else if (mode == CE_BWD) LAUNCH((ce_kernel<T, CE_BWD>), grid, CE_BLOCK, 0, stream, r);
    else
        LAUNCH((ce_kernel<T, CE_TRAIN>), grid, CE_BLOCK, 0, stream, r);
}

static char *row_at(Tensor t, int64_t row)
{
    return (char *)t.data + row * tensor_cols(t) * (int64_t)dtype_size(t.type);
}

static float *number_at(Tensor t, int64_t i)
{
    return tensor_given(t) ? (float *)t.data + i : NULL;
}

/* Rows row0 .. row0 + rows - 1; z has room for them. */
static int run_chunk(Device *d, const CeJob *j, float *z, int64_t ld, int64_t row0, int64_t rows)
{
    const int64_t width = tensor_cols(j->x), vocab = j->w.dim[0];
    const DType type = j->x.type;
    const float scale = j->opt->logit_scale == 0 ? 1.0f : (float)j->opt->logit_scale;
    const int64_t ld_dz = ld * (int64_t)(sizeof(float) / dtype_size(type));
    const CudaGemm logits = {.m = rows, .n = vocab, .k = width, .a = row_at(j->x, row0),
                             .lda = width, .b = j->w.data, .ldb = width, .b_trans = true, .c = z,
                             .ldc = ld, .alpha = scale, .type = type, .c_type = DT_F32};
    int rc = gemm_run(d, j->what, &logits);
    if (rc) return rc;
    CeRows r = {z, vocab, ld, (const int32_t *)j->targets.data + row0, j->opt->vocab0,
                number_at(j->lse, row0), number_at(j->target_logit, row0), scale, j->opt->vars};
    if (type == DT_F32) launch_rows<float>(d, j->mode, rows, r);
    else launch_rows<bf16>(d, j->mode, rows, r);
    rc = cuda_launched(d, j->what);
    if (rc || j->mode == CE_FWD) return rc;
    const CudaGemm dx = {.m = rows, .n = width, .k = vocab, .a = z, .lda = ld_dz, .b = j->w.data,
                         .ldb = width, .c = row_at(j->dx, row0), .ldc = width, .type = type,
                         .c_type = type};
    const CudaGemm dw = {.m = vocab, .n = width, .k = rows, .a = z, .lda = ld_dz, .a_trans = true,
                         .b = row_at(j->x, row0), .ldb = width, .c = j->dw.data, .ldc = width,
                         .add = j->dw.data, .beta = 1, .type = type, .c_type = DT_F32};
    if (tensor_given(j->dx)) rc = gemm_run(d, j->what, &dx);
    return rc || !tensor_given(j->dw) ? rc : gemm_run(d, j->what, &dw);
}

/* All rows, in chunks whose size follows from the shapes. */
static int run_job(Device *d, const CeJob *j)
{
    const int64_t n = tensor_rows(j->x);
    int64_t ld, chunk = scratch_loss_rows(n, j->w.dim[0], cuda_state(d)->chunk_bytes, &ld);
    if (n == 0) return 0;
    float *z = (float *)cuda_scratch(d, chunk * ld * (int64_t)sizeof(float));
    if (!z) return -1;
    int rc = 0;
    for (int64_t row = 0; row < n && !rc; row += chunk)
        rc = run_chunk(d, j, z, ld, row, row + chunk < n ? chunk : n - row);
    return rc;
}

int ce_fwd_cuda(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
                const CeOpt *opt)
{
    const CeJob j = {"ce_fwd", CE_FWD, x, w, targets, lse, target_logit, tensor_none(),
                     tensor_none(), opt};
    return run_job(d, &j);
}

/* dz = s loss_scale (exp(z - lse) - onehot(target)), 0 where not counted
 * dx = dz w; dw += dz^T x */
int ce_bwd_cuda(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
                const CeOpt *opt)
{
    const CeJob j = {"ce_bwd", CE_BWD, x, w, targets, lse, tensor_none(), g.dx, g.dw, opt};
    return run_job(d, &j);
}

/* The formulas of ce_fwd and ce_bwd, logits made once. */
int ce_train_cuda(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt)
{
    const CeJob j = {"ce_train", CE_TRAIN, x, w, targets, out.lse, out.target_logit, out.dx,
                     out.dw, opt};
    return run_job(d, &j);
}
