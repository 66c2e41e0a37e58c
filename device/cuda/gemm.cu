/* device/cuda/gemm.cu - matrix products: plans of cuBLASLt, own kernels for the rest; see gemm.h.
 *
 * The library is column-major: c^T = op(b)^T op(a)^T, so its A is our b, its B our a, and its rows
 * are our columns. A plan (descriptors and algorithm) is found at a shape's first call and kept in
 * a table of fixed size; when that is full, all are forgotten and found again, the same ones.
 */
#include "device/cuda/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "device/cuda/libs.h"
#include "device/cuda/mma_tile.cuh"
#include "device/cuda/tile.cuh"

enum { GEMM_PLANS = 512, GEMM_SLOTS = 1024, GEMM_ALIGN = 16 };
static constexpr int64_t GEMM_COUNT_MAX = 65535; /* gridDim.y */

/* All that a plan depends on; padding is zero, so that memcmp compares. */
typedef struct PlanKey {
    int64_t m, n, k, count, lda, ldb, ldc, a_step, b_step, c_step;
    int32_t a_trans, b_trans, type, c_type, bias, alone;
} PlanKey;

typedef struct Plan {
    bool used;
    bool single; /* run one by one: the algorithm found for one product does not take many */
    PlanKey key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* of our a, b, c */
    cublasLtMatmulAlgo_t algo;
} Plan;

struct GemmState {
    LtApi lt;
    cublasLtMatmulPreference_t preference;
    int plans;
    Plan plan[GEMM_SLOTS]; /* open addressing */
};

static int lt_failed(Device *d, const char *what, cublasStatus_t status)
{
    if (status == CUBLAS_STATUS_SUCCESS) return 0;
    char text[256];
    const LtApi *lt = &cuda_state(d)->gemm->lt;
    snprintf(text, sizeof text, "cuBLASLt: %s", lt->cublasLtGetStatusString(status));
    return cuda_failed(d, what, text);
}

/* ---- Plans ------------------------------------------------------------------------------------*/

static PlanKey key_of(const CudaGemm *g)
{
    PlanKey k;
    memset(&k, 0, sizeof k);
    k.m = g->m, k.n = g->n, k.k = g->k, k.count = g->count;
    k.lda = g->lda, k.ldb = g->ldb, k.ldc = g->ldc;
    if (g->count > 1) k.a_step = g->a_step, k.b_step = g->b_step, k.c_step = g->c_step;
    k.a_trans = g->a_trans, k.b_trans = g->b_trans;
    k.type = g->type, k.c_type = g->c_type;
    k.bias = g->bias != NULL, k.alone = g->alone;
    return k;
}

static size_t key_slot(const PlanKey *key)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const unsigned char *bytes = (const unsigned char *)key;
    for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return (size_t)(hash >> 20) % GEMM_SLOTS;
}

static cudaDataType lt_type(int32_t type) { return type == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

static void plan_free(const LtApi *lt, Plan *p)
{
    if (p->desc) lt->cublasLtMatmulDescDestroy(p->desc);
    if (p->a) lt->cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) lt->cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) lt->cublasLtMatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

static void plans_forget(GemmState *g)
{
    for (int i = 0; i < GEMM_SLOTS; i++) plan_free(&g->lt, &g->plan[i]);
    g->plans = 0;
}

/* Makes the layout of a row-major matrix (rows, cols). */
static cublasStatus_t layout_make(const LtApi *lt, cublasLtMatrixLayout_t *layout, int32_t type,
                                  int64_t rows, int64_t cols, int64_t ld)
{
    return lt->cublasLtMatrixLayoutCreate(layout, lt_type(type), (uint64_t)cols, (uint64_t)rows,
                                          ld);
}

static cublasStatus_t layout_batch(const LtApi *lt, cublasLtMatrixLayout_t layout, int64_t count,
                                   int64_t step)
{
    int32_t batch = (int32_t)count;
    cublasStatus_t rc = lt->cublasLtMatrixLayoutSetAttribute(
        layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    if (rc != CUBLAS_STATUS_SUCCESS) return rc;
    return lt->cublasLtMatrixLayoutSetAttribute(
        layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
}

static cublasStatus_t plan_batch(const LtApi *lt, Plan *p, const PlanKey *k, int64_t count)
{
    bool many = count > 1;
    cublasStatus_t rc = layout_batch(lt, p->a, count, many ? k->a_step : 0);
    if (rc == CUBLAS_STATUS_SUCCESS) rc = layout_batch(lt, p->b, count, many ? k->b_step : 0);
    if (rc == CUBLAS_STATUS_SUCCESS) rc = layout_batch(lt, p->c, count, many ? k->c_step : 0);
    return rc;
}

/* The plan's descriptors, without batches. */
static cublasStatus_t plan_describe(const LtApi *lt, Plan *p, const PlanKey *k)
{
    const cublasOperation_t op[2] = {CUBLAS_OP_N, CUBLAS_OP_T};
    const cublasLtEpilogue_t biased = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t rc =
        lt->cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = lt->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &op[k->b_trans], sizeof op[0]);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = lt->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB,
                                                &op[k->a_trans], sizeof op[0]);
    if (rc == CUBLAS_STATUS_SUCCESS && k->bias)
        rc = lt->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &biased,
                                                sizeof biased);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = layout_make(lt, &p->a, k->type, k->a_trans ? k->k : k->m, k->a_trans ? k->m : k->k,
                         k->lda);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = layout_make(lt, &p->b, k->type, k->b_trans ? k->n : k->k, k->b_trans ? k->k : k->n,
                         k->ldb);
    if (rc == CUBLAS_STATUS_SUCCESS) rc = layout_make(lt, &p->c, k->c_type, k->m, k->n, k->ldc);
    return rc;
}

/* Finds the algorithm: the library's first proposal; for `alone` the one of a single product, which
 * many then use too if it takes them. */
static cublasStatus_t plan_choose(CudaState *s, Plan *p, const PlanKey *k)
{
    const GemmState *g = s->gemm;
    const LtApi *lt = &g->lt;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t rc = plan_batch(lt, p, k, k->alone ? 1 : k->count);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = lt->cublasLtMatmulAlgoGetHeuristic(s->lt, p->desc, p->b, p->a, p->c, p->c,
                                                g->preference, 1, &found, &count);
    if (rc != CUBLAS_STATUS_SUCCESS) return rc;
    if (count < 1) return CUBLAS_STATUS_NOT_SUPPORTED;
    p->algo = found.algo;
    if (!k->alone || k->count == 1) return rc;
    rc = plan_batch(lt, p, k, k->count);
    if (rc != CUBLAS_STATUS_SUCCESS) return rc;
    p->single = lt->cublasLtMatmulAlgoCheck(s->lt, p->desc, p->b, p->a, p->c, p->c, &p->algo,
                                            &found) != CUBLAS_STATUS_SUCCESS ||
                found.workspaceSize > (size_t)s->lt_workspace_bytes;
    return p->single ? plan_batch(lt, p, k, 1) : rc;
}

/* The shape's plan, made if there is none; NULL if the library has no algorithm for it. */
static Plan *plan_of(CudaState *s, const CudaGemm *g, cublasStatus_t *rc)
{
    GemmState *gemm = s->gemm;
    PlanKey key = key_of(g);
    size_t slot = key_slot(&key);
    *rc = CUBLAS_STATUS_SUCCESS;
    for (; gemm->plan[slot].used; slot = (slot + 1) % GEMM_SLOTS)
        if (!memcmp(&gemm->plan[slot].key, &key, sizeof key)) return &gemm->plan[slot];
    if (gemm->plans == GEMM_PLANS) {
        plans_forget(gemm);
        slot = key_slot(&key);
    }
    Plan *p = &gemm->plan[slot];
    *rc = plan_describe(&gemm->lt, p, &key);
    if (*rc == CUBLAS_STATUS_SUCCESS) *rc = plan_choose(s, p, &key);
    if (*rc != CUBLAS_STATUS_SUCCESS) {
        plan_free(&gemm->lt, p);
        return NULL;
    }
    p->used = true;
    p->key = key;
    gemm->plans++;
    return p;
}

static const char *at(const void *p, int64_t elements, DType type)
{
    return (const char *)p + elements * (int64_t)dtype_size(type);
}

static cublasStatus_t plan_run(CudaState *s, const Plan *p, const CudaGemm *g)
{
    const LtApi *lt = &s->gemm->lt;
    const void *add = g->beta == 0 ? g->c : g->add;
    cublasStatus_t rc = CUBLAS_STATUS_SUCCESS;
    if (g->bias)
        rc = lt->cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                &g->bias, sizeof g->bias);
    int64_t times = p->single ? g->count : 1;
    for (int64_t i = 0; i < times && rc == CUBLAS_STATUS_SUCCESS; i++)
        rc = lt->cublasLtMatmul(s->lt, p->desc, &g->alpha, at(g->b, i * g->b_step, g->type), p->b,
                                at(g->a, i * g->a_step, g->type), p->a, &g->beta,
                                at(add, i * g->c_step, g->c_type), p->c,
                                (void *)at(g->c, i * g->c_step, g->c_type), p->c, &p->algo,
                                s->lt_workspace, (size_t)s->lt_workspace_bytes, s->stream);
    return rc;
}

/* ---- The kernels for the rest -----------------------------------------------------------------*/

/* f32: tile blockIdx.x of product blockIdx.y. */
KERNEL(TILE_BLOCK) gemm_kernel(CudaGemm g)
{
    SHARED(float4, sa, [TILE_K][TILE_ROW]);
    SHARED(float4, sb, [TILE_K][TILE_ROW]);
    float sum[TILE_OWN][TILE_OWN];
    int64_t across = ceil_div(g.n, TILE), i0 = blockIdx.x / across * TILE;
    int64_t j0 = blockIdx.x % across * TILE, product = blockIdx.y;
    int64_t a_row = g.a_trans ? 1 : g.lda, a_col = g.a_trans ? g.lda : 1;
    int64_t b_row = g.b_trans ? g.ldb : 1, b_col = g.b_trans ? 1 : g.ldb;
    TileInput<float> a = {(const float *)g.a + product * g.a_step + i0 * a_row, a_row, a_col,
                          g.m - i0};
    TileInput<float> b = {(const float *)g.b + product * g.b_step + j0 * b_row, b_row, b_col,
                          g.n - j0};
    tile_product(sum, sa, sb, a, b, g.k);
    float *c = (float *)g.c + product * g.c_step + i0 * g.ldc + j0;
    const float *add = (const float *)g.add + product * g.c_step + i0 * g.ldc + j0;
    tile_store(sum, g.m - i0, g.n - j0, [&](int i, int j, float v) {
        int64_t place = i * g.ldc + j;
        v *= g.alpha;
        if (g.beta != 0) v = fmaf(g.beta, add[place], v);
        if (g.bias) v += g.bias[j0 + j];
        c[place] = v;
    });
}

/* A tile's sums into c, whose element (0, 0) of the tile is `first`. */
template <typename C>
static inline __device__ void gemm_put(const CudaGemm &g, const MmaSums &sum, int64_t first,
                                       int64_t i0, int64_t j0)
{
    C *c = (C *)g.c + first;
    const C *add = (const C *)g.add + first;
    mma_store(sum, g.m - i0, g.n - j0, [&](int i, int j, int count, float2 v) {
        int64_t place = i * g.ldc + j;
        v = make_float2(v.x * g.alpha, v.y * g.alpha);
        if (g.beta != 0) {
            float2 old = mma_read(add + place, count);
            v = make_float2(fmaf(g.beta, old.x, v.x), fmaf(g.beta, old.y, v.y));
        }
        if (g.bias) v = mma_plus(v, mma_read(g.bias + j0 + j, count));
        mma_write(c + place, count, v);
    });
}

/* bf16 on tensor cores, c bf16 or f32: tile blockIdx.x of product blockIdx.y. */
template <bool A_TRANS, bool B_TRANS> KERNEL(MMA_BLOCK, 2) gemm_mma_kernel(CudaGemm g)
{
    SHARED(uint4, stages, [MMA_STAGES][2][MMA_PACKS]);
    MmaSums sum;
    int64_t across = ceil_div(g.n, MMA_TILE), i0 = blockIdx.x / across * MMA_TILE;
    int64_t j0 = blockIdx.x % across * MMA_TILE, product = blockIdx.y;
    int64_t first = product * g.c_step + i0 * g.ldc + j0;
    const bf16 *a = (const bf16 *)g.a + product * g.a_step + i0 * (A_TRANS ? 1 : g.lda);
    const bf16 *b = (const bf16 *)g.b + product * g.b_step + j0 * (B_TRANS ? g.ldb : 1);
    mma_product<!A_TRANS, B_TRANS>(sum, stages, mma_input(a, g.lda, g.m - i0, g.k),
                                   mma_input(b, g.ldb, g.n - j0, g.k));
    if (g.c_type == DT_F32) gemm_put<float>(g, sum, first, i0, j0);
    else gemm_put<bf16>(g, sum, first, i0, j0);
}

static int run_kernel(Device *d, const char *what, const CudaGemm *g)
{
    if (g->count > GEMM_COUNT_MAX) return cuda_failed(d, what, "more than 65535 products");
    if (g->k > INT32_MAX) return cuda_failed(d, what, "sums of more than 2^31 products");
    const int64_t tile = g->type == DT_F32 ? (int)TILE : (int)MMA_TILE;
    dim3 grid((unsigned)(ceil_div(g->m, tile) * ceil_div(g->n, tile)), (unsigned)g->count);
    cudaStream_t stream = cuda_stream(d);
    if (g->type == DT_F32) LAUNCH(gemm_kernel, grid, TILE_BLOCK, 0, stream, *g);
    else if (!g->a_trans && !g->b_trans)
        LAUNCH((gemm_mma_kernel<false, false>), grid, MMA_BLOCK, 0, stream, *g);
    else if (!g->a_trans)
        LAUNCH((gemm_mma_kernel<false, true>), grid, MMA_BLOCK, 0, stream, *g);
    else if (!g->b_trans)
        LAUNCH((gemm_mma_kernel<true, false>), grid, MMA_BLOCK, 0, stream, *g);
    else
        LAUNCH((gemm_mma_kernel<true, true>), grid, MMA_BLOCK, 0, stream, *g);
    return cuda_launched(d, what);
}

/* ---- Choice -----------------------------------------------------------------------------------*/

static bool on_16_bytes(const void *p, int64_t ld, int64_t step, DType type)
{
    int64_t size = (int64_t)dtype_size(type);
    return (uintptr_t)p % GEMM_ALIGN == 0 && ld * size % GEMM_ALIGN == 0 &&
           step * size % GEMM_ALIGN == 0;
}

bool gemm_fits_library(const CudaGemm *g)
{
    bool many = g->count > 1;
    if (g->k == 0) return false;
    if (g->bias && (g->c_type != DT_F32 || (uintptr_t)g->bias % GEMM_ALIGN != 0)) return false;
    if (g->beta != 0 && (uintptr_t)g->add % GEMM_ALIGN != 0) return false;
    return on_16_bytes(g->a, g->lda, many ? g->a_step : 0, g->type) &&
           on_16_bytes(g->b, g->ldb, many ? g->b_step : 0, g->type) &&
           on_16_bytes(g->c, g->ldc, many ? g->c_step : 0, g->c_type);
}

int gemm_run(Device *d, const char *what, const CudaGemm *g)
{
    if (g->m == 0 || g->n == 0 || g->count == 0) return 0;
    if (!gemm_fits_library(g)) return run_kernel(d, what, g);
    cublasStatus_t rc;
    const Plan *p = plan_of(cuda_state(d), g, &rc);
    if (p) return lt_failed(d, what, plan_run(cuda_state(d), p, g));
    if (rc == CUBLAS_STATUS_NOT_SUPPORTED) return run_kernel(d, what, g);
    return lt_failed(d, what, rc);
}

/* ---- Life -------------------------------------------------------------------------------------*/

static cublasStatus_t prefer(const LtApi *lt, cublasLtMatmulPreference_t p,
                             cublasLtMatmulPreferenceAttributes_t name, const void *value,
                             size_t bytes)
{
    return lt->cublasLtMatmulPreferenceSetAttribute(p, name, value, bytes);
}

/* What algorithms may do: a workspace; sums split over k put together there, in order; addresses on
 * 16 bytes, so that a choice does not depend on where memory lies. */
static cublasStatus_t make_preference(GemmState *g, int64_t workspace_bytes)
{
    static const cublasLtMatmulPreferenceAttributes_t aligned[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace = (uint64_t)workspace_bytes;
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, align = GEMM_ALIGN;
    cublasStatus_t rc = g->lt.cublasLtMatmulPreferenceCreate(&g->preference);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = prefer(&g->lt, g->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                    sizeof workspace);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = prefer(&g->lt, g->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction,
                    sizeof reduction);
    for (int i = 0; i < 4 && rc == CUBLAS_STATUS_SUCCESS; i++)
        rc = prefer(&g->lt, g->preference, aligned[i], &align, sizeof align);
    return rc;
}

int gemm_open(CudaState *s, Err *e)
{
    s->gemm = (GemmState *)calloc(1, sizeof *s->gemm);
    if (!s->gemm) return err_set(e, "out of memory for the CUDA device");
    if (libs_open_lt(&s->gemm->lt, e)) return err_context(e, "device 'cuda'");
    int64_t bytes = scratch_lt_bytes((int64_t)s->memory);
    s->lt_version = (int64_t)s->gemm->lt.cublasLtGetVersion();
    cublasStatus_t rc = s->gemm->lt.cublasLtCreate(&s->lt);
    if (rc == CUBLAS_STATUS_SUCCESS) rc = make_preference(s->gemm, bytes);
    if (rc != CUBLAS_STATUS_SUCCESS)
        return err_set(e, "device 'cuda': cuBLASLt %lld does not start: %s",
                       (long long)s->lt_version, s->gemm->lt.cublasLtGetStatusString(rc));
    s->lt_workspace_bytes = bytes;
    if (cudaMalloc(&s->lt_workspace, (size_t)bytes) == cudaSuccess) return 0;
    s->lt_workspace_bytes = 0;
    return err_set(e, "device 'cuda': no memory for the workspace of cuBLASLt");
}

void gemm_close(CudaState *s)
{
    if (!s->gemm) return;
    plans_forget(s->gemm);
    if (s->gemm->preference) s->gemm->lt.cublasLtMatmulPreferenceDestroy(s->gemm->preference);
    if (s->lt) s->gemm->lt.cublasLtDestroy(s->lt);
    free(s->gemm);
    s->gemm = NULL;
    s->lt = NULL;
}
