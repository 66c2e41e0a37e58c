/* device/cpu/ce.c - linear map to the vocabulary, cross-entropy, and their gradients.
 *
 * z (N, V) = s x (N, D) w (V, D)^T exists only for one chunk of rows at a time, as blocks
 * [block][row] [column] of BLOCK columns. For each chunk, in parallel over blocks: the products,
 * and from them maximum and sum of exponentials of each row and block; then in parallel over rows:
 * lse, from the blocks in order. Gradients: dz overwrites the stored block in the type of x,
 *   training: as e^(z - maximum) times a factor of row and block (one exponential for each logit);
 *             the target's element is made anew from its f32 logit, because p - 1 cancels;
 *   ce_bwd:   from z and the given lse;
 * and is multiplied with x into dw, block by block, and with w into dx, a tile at a time over all
 * blocks in order. Called through dev_ce_fwd, dev_ce_bwd, dev_ce_train and dev_nll_sum.
 */
#include "base/size.h"
#include "device/cpu/gemm.h"
#include "device/cpu/vec.h"
#include "device/cpu_dnnl.h"

/* Rows of a chunk, halved while its stored blocks exceed STORE_BYTES. */
enum { CHUNK = 512, CHUNK_MIN = 64, STORE_BYTES = 64 << 20 };
enum { BLOCKS_WANTED = 16, SLOT_Z = 3 };

typedef enum Mode { CE_FWD, CE_BWD, CE_TRAIN } Mode;

typedef struct Job {
    Mode mode;
    Tensor x, w, targets, lse, target_logit;
    Tensor dx, dw;        /* or none */
    int64_t vocab0;
    float logit_scale;    /* s */
    float scale;          /* s loss_scale: of the gradient of x w^T */
    int64_t block;        /* columns of a block, the last may have fewer */
    int64_t blocks;
    int64_t chunk;        /* rows of a chunk, the last may have fewer */
    int64_t row0, rows;   /* the chunk at hand */
    char *store;          /* blocks x (rows, block) of x's type; fwd: none */
    float *top, *total;   /* (blocks, chunk): maximum; sum of exp(z - maximum) */
    float *sums;          /* (chunk, D) f32 */
} Job;

static int64_t block_cols(const Job *j, int64_t b)
{
    return size_min(j->w.dim[0] - b * j->block, j->block);
}

static void *block_store(const Job *j, int64_t b)
{
    return j->store + (size_t)(b * j->chunk * j->block) * dtype_size(j->x.type);
}

static const void *element_at(Tensor t, int64_t at)
{
    return (const char *)t.data + (size_t)at * dtype_size(t.type);
}

/* Column of the row's target within this shard of the vocabulary, or -1. */
static int64_t target_column(const Job *j, int64_t row)
{
    const int64_t target = ((const int32_t *)j->targets.data)[row];
    const int64_t column = target - j->vocab0;
    return target >= 0 && column >= 0 && column < j->w.dim[0] ? column : -1;
}

/* Columns i.. of a row of z; the lanes from `cols` on are -inf. */
static inline V16 lanes(const float *z, int64_t i, int64_t cols)
{
    return i + LANES <= cols ? v_load(z + i) : v_load_part(z + i, cols - i, -INFINITY);
}

/* Maximum of a row and sum of its exponentials, which are stored if `store`. A NaN in z makes the
 * sum NaN. */
static void row_stats(const float *z, int64_t cols, float *top, float *total, void *store,
                      DType type)
{
    V16 most = v_set(-INFINITY), sum = v_set(0.0f);
    for (int64_t i = 0; i < cols; i += LANES) most = v_max(lanes(z, i, cols), most);
    *top = v_max_lane(most);
    for (int64_t i = 0; i < cols; i += LANES) {
        const V16 e = v_exp(lanes(z, i, cols) - *top);
        sum += e;
        if (store != NULL) v_put(store, type, i, cols - i, e);
    }
    *total = v_sum(sum);
}

/* dz = scale exp(z - lse) of a row of a block. */
static void row_dz(const Job *j, const float *z, int64_t cols, float lse, void *dz)
{
    for (int64_t i = 0; i < cols; i += LANES)
        v_put(dz, j->x.type, i, cols - i, v_exp(lanes(z, i, cols) - lse) * j->scale);
}

static void scale_logits(float *z, int64_t count, float scale)
{
    for (int64_t i = 0; i < count; i += LANES)
        v_put(z, DT_F32, i, count - i, v_get(z, DT_F32, i, count - i) * scale);
}

/* The logits of block b and what becomes of them at once. */
static void block_logits(const Device *d, const Job *j, int64_t b)
{
    const int64_t width = tensor_cols(j->x), cols = block_cols(j, b);
    float *z = cpu_thread_scratch(SLOT_Z, j->chunk * j->block * (int64_t)sizeof *z);
    const Gemm g = {.m = j->rows,
                    .n = cols,
                    .k = width,
                    .a = element_at(j->x, j->row0 * width),
                    .lda = width,
                    .b = element_at(j->w, b * j->block * width),
                    .ldb = width,
                    .b_trans = true,
                    .c = z,
                    .ldc = cols,
                    .type = j->x.type,
                    .c_type = DT_F32};
    gemm_serial(d, &g);
    if (j->logit_scale != 1.0f) scale_logits(z, j->rows * cols, j->logit_scale);
    const float *lse = j->lse.data;
    float *target_logit = j->target_logit.data;
    for (int64_t r = 0; r < j->rows; r++, z += cols) {
        const int64_t row = j->row0 + r, column = target_column(j, row) - b * j->block;
        char *out = j->mode == CE_FWD ? NULL : block_store(j, b);
        if (out != NULL) out += (size_t)(r * cols) * dtype_size(j->x.type);
        if (j->mode == CE_BWD) row_dz(j, z, cols, lse[row], out);
        else
            row_stats(z, cols, &j->top[b * j->chunk + r], &j->total[b * j->chunk + r], out,
                      j->x.type);
        if (column < 0 || column >= cols) continue;
        if (j->mode != CE_BWD) target_logit[row] = z[column];
        else {
            const V16 p = v_exp(v_set(z[column] - lse[row]));
            v_put(out, j->x.type, column, 1, (p - 1.0f) * j->scale);
        }
    }
}

/* lse of a row of the chunk from its blocks. */
static void row_lse(const Job *j, int64_t r)
{
    float top = -INFINITY, total = 0.0f;
    for (int64_t b = 0; b < j->blocks; b++) top = fmaxf(top, j->top[b * j->chunk + r]);
    for (int64_t b = 0; b < j->blocks; b++)
        total += j->total[b * j->chunk + r] * expf(j->top[b * j->chunk + r] - top);
    ((float *)j->lse.data)[j->row0 + r] = top + logf(total);
    if (target_column(j, j->row0 + r) < 0) ((float *)j->target_logit.data)[j->row0 + r] = 0.0f;
}

/* Block b of the store: exponentials become dz; rows that are not counted become zeros. */
static void block_dz(const Job *j, int64_t b)
{
    const int64_t cols = block_cols(j, b);
    const float *lse = j->lse.data, *target_logit = j->target_logit.data;
    const DType type = j->x.type;
    char *dz = block_store(j, b);
    for (int64_t r = 0; r < j->rows; r++, dz += (size_t)cols * dtype_size(type)) {
        const int64_t row = j->row0 + r, column = target_column(j, row) - b * j->block;
        if (((const int32_t *)j->targets.data)[row] < 0) {
            memset(dz, 0, (size_t)cols * dtype_size(type));
            continue;
        }
        if (j->mode == CE_BWD) continue;
        const float factor = j->scale * expf(j->top[b * j->chunk + r] - lse[row]);
        for (int64_t i = 0; i < cols; i += LANES)
            v_put(dz, type, i, cols - i, v_get(dz, type, i, cols - i) * factor);
        if (column < 0 || column >= cols) continue;
        const V16 p = v_exp(v_set(target_logit[row] - lse[row]));
        v_put(dz, type, column, 1, (p - 1.0f) * j->scale);
    }
}

/* dw += dz^T x for the rows of block b of w. */
static void block_dw(const Device *d, const Job *j, int64_t b)
{
    const int64_t width = tensor_cols(j->x), cols = block_cols(j, b);
    const Gemm g = {.m = cols,
                    .n = width,
                    .k = j->rows,
                    .a = block_store(j, b),
                    .lda = cols,
                    .a_trans = true,
                    .b = element_at(j->x, j->row0 * width),
                    .ldb = width,
                    .c = (float *)j->dw.data + b * j->block * width,
                    .ldc = width,
                    .type = j->x.type,
                    .c_type = DT_F32,
                    .add = true};
    gemm_serial(d, &g);
}

/* Tile `index` of dx = dz w: the sums of all blocks in order, then dx's type. */
static void tile_dx(const Device *d, const Job *j, const GemmPlan *p, int64_t index)
{
    const int64_t width = tensor_cols(j->x);
    const int64_t r0 = index / p->cols * p->tile_m, c0 = index % p->cols * p->tile_n;
    Gemm g = {.m = size_min(j->rows - r0, p->tile_m),
              .n = size_min(width - c0, p->tile_n),
              .ldb = width,
              .c = j->sums + r0 * width + c0,
              .ldc = width,
              .type = j->x.type,
              .c_type = DT_F32};
    for (int64_t b = 0; b < j->blocks; b++) {
        g.k = g.lda = block_cols(j, b);
        g.a = (const char *)block_store(j, b) + (size_t)(r0 * g.lda) * dtype_size(g.type);
        g.b = element_at(j->w, b * j->block * width + c0);
        g.add = b > 0;
        gemm_serial(d, &g);
    }
    for (int64_t r = r0; r < r0 + g.m; r++)
        for (int64_t c = c0; c < c0 + g.n; c += LANES)
            v_put(j->dx.data, j->dx.type, (j->row0 + r) * width + c, c0 + g.n - c,
                  v_get(j->sums, DT_F32, r * width + c, c0 + g.n - c));
}

/* One chunk, by all threads. */
static void chunk_run(Device *d, const Job *j)
{
    const bool grads = j->mode != CE_FWD;
    const bool dw = grads && tensor_given(j->dw), dx = grads && tensor_given(j->dx);
    const Gemm shape = {.m = j->rows, .n = tensor_cols(j->x), .k = j->w.dim[0],
                        .type = j->x.type};
    const GemmPlan p = gemm_plan(d, &shape, false);
#pragma omp parallel num_threads(d->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < j->blocks; b++) block_logits(d, j, b);
        if (j->mode != CE_BWD) {
#pragma omp for
            for (int64_t r = 0; r < j->rows; r++) row_lse(j, r);
        }
        if (grads) {
#pragma omp for schedule(dynamic)
            for (int64_t b = 0; b < j->blocks; b++) {
                block_dz(j, b);
                if (dw) block_dw(d, j, b);
            }
        }
        if (dx) {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < p.tasks; i++) tile_dx(d, j, &p, i);
        }
    }
}

/* Block and chunk sizes: of the shapes and the instruction set only. Wide blocks suit AMX. */
static void job_sizes(const Device *d, Job *j)
{
    const int64_t vocab = j->w.dim[0], size = (int64_t)dtype_size(j->x.type);
    const bool native = j->x.type == DT_BF16 && cpu_state(d)->native_bf16;
    j->block = native ? 1024 : 256;
    while (j->block > 64 && size_ceil_div(vocab, j->block) < BLOCKS_WANTED) j->block /= 2;
    j->blocks = size_ceil_div(vocab, j->block);
    j->chunk = CHUNK;
    while (j->chunk > CHUNK_MIN && j->blocks * j->block * j->chunk * size > STORE_BYTES)
        j->chunk /= 2;
}

static int job_run(Device *d, Job *j)
{
    const int64_t n = tensor_rows(j->x), width = tensor_cols(j->x);
    job_sizes(d, j);
    const int64_t stats = size_round_up(j->blocks * j->chunk, LANES);
    const int64_t sums = j->mode == CE_FWD ? 0 : size_round_up(j->chunk * width, LANES);
    const int64_t store = j->mode == CE_FWD ? 0 : j->blocks * j->block * j->chunk;
    j->top = cpu_scratch(d, (2 * stats + sums) * (int64_t)sizeof(float) +
                                store * (int64_t)dtype_size(j->x.type));
    j->total = j->top + stats;
    j->sums = j->total + stats;
    j->store = (char *)(j->sums + sums);
    for (j->row0 = 0; j->row0 < n; j->row0 += j->chunk) {
        j->rows = size_min(n - j->row0, j->chunk);
        chunk_run(d, j);
    }
    return 0;
}

static float logit_scale(const CeOpt *opt)
{
    return opt->logit_scale == 0 ? 1.0f : (float)opt->logit_scale;
}

int ce_fwd_cpu(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
               const CeOpt *opt)
{
    Job j = {.mode = CE_FWD, .x = x, .w = w, .targets = targets, .lse = lse,
             .target_logit = target_logit, .vocab0 = opt->vocab0,
             .logit_scale = logit_scale(opt)};
    return job_run(d, &j);
}

/* dz = s loss_scale (exp(z - lse) - onehot(target)), 0 where not counted
 * dx = dz w; dw += dz^T x */
int ce_bwd_cpu(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
               const CeOpt *opt)
{
    Job j = {.mode = CE_BWD, .x = x, .w = w, .targets = targets, .lse = lse, .dx = g.dx,
             .dw = g.dw, .vocab0 = opt->vocab0, .logit_scale = logit_scale(opt),
             .scale = (float)opt->vars->loss_scale * logit_scale(opt)};
    return job_run(d, &j);
}

/* The formulas of ce_fwd and ce_bwd, logits made once. */
int ce_train_cpu(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt)
{
    Job j = {.mode = CE_TRAIN, .x = x, .w = w, .targets = targets, .lse = out.lse,
             .target_logit = out.target_logit, .dx = out.dx, .dw = out.dw,
             .vocab0 = opt->vocab0, .logit_scale = logit_scale(opt),
             .scale = (float)opt->vars->loss_scale * logit_scale(opt)};
    return job_run(d, &j);
}

int nll_sum_cpu(Device *d, Tensor sum, Tensor lse, Tensor target_logit, Tensor targets)
{
    (void)d;
    double *out = sum.data;
    double total = 0.0, count = 0.0;
    for (int64_t i = 0; i < tensor_elements(targets); i++) {
        if (((const int32_t *)targets.data)[i] < 0) continue;
        total += (double)((const float *)lse.data)[i] - ((const float *)target_logit.data)[i];
        count += 1.0;
    }
    out[0] += total;
    out[1] += count;
    return 0;
}
