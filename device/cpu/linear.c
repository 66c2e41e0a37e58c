/* device/cpu/linear.c - y (N, O) = x (N, I) w (O, I)^T + bias, and its gradients.
 *
 * The forward never splits a sum, so that a row of y has the same bits whatever N is. The backward
 * puts the tiles of dx and dw and the column sums of dbias into one parallel loop: the threads meet
 * twice in an operation. Called through dev_linear_fwd and dev_linear_bwd.
 */
#include "base/size.h"
#include "device/cpu/gemm.h"
#include "device/cpu/vec.h"

int linear_fwd_cpu(Device *d, Tensor y, Tensor x, Tensor w, Tensor bias)
{
    const int64_t n = tensor_rows(x), in = tensor_cols(x), out = tensor_cols(y);
    const Gemm g = {.m = n,
                    .n = out,
                    .k = in,
                    .a = x.data,
                    .lda = in,
                    .b = w.data,
                    .ldb = in,
                    .b_trans = true,
                    .c = y.data,
                    .ldc = out,
                    .type = x.type,
                    .c_type = y.type,
                    .bias = bias.data};
    const GemmPlan p = gemm_plan(d, &g, false);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int64_t i = 0; i < p.tasks; i++) gemm_task(d, &g, &p, NULL, i);
    return 0;
}

/* partial (O) = column sums of rows begin..end-1 of dy. */
static void column_sums(float *partial, Tensor dy, int64_t begin, int64_t end)
{
    const int64_t out = tensor_cols(dy);
    for (int64_t j = 0; j < out; j += LANES) {
        V16 sum = v_set(0.0f);
        for (int64_t i = begin; i < end; i++) sum += v_get(dy.data, dy.type, i * out + j, out - j);
        v_put(partial, DT_F32, j, out - j, sum);
    }
}

/* A gradient of linear_bwd that is wanted, its plan and its partial sums. */
typedef struct Part {
    Gemm g;
    GemmPlan p;
    float *partial;
} Part;

static Part part_dx(const Device *d, const LinearGrad *g, Tensor dy, Tensor w)
{
    const int64_t n = tensor_rows(dy), out = tensor_cols(dy), in = tensor_cols(w);
    Part part = {.g = {.m = n, .n = in, .k = out, .type = dy.type}};
    if (!tensor_given(g->dx)) return part;
    part.g.a = dy.data;
    part.g.lda = out;
    part.g.b = w.data;
    part.g.ldb = in;
    part.g.c = g->dx.data;
    part.g.ldc = in;
    part.g.c_type = g->dx.type;
    part.g.add = g->dx_add;
    part.p = gemm_plan(d, &part.g, false);
    return part;
}

static Part part_dw(const Device *d, const LinearGrad *g, Tensor dy, Tensor x)
{
    const int64_t n = tensor_rows(dy), out = tensor_cols(dy), in = tensor_cols(x);
    Part part = {.g = {.m = out, .n = in, .k = n, .type = dy.type}};
    if (!tensor_given(g->dw)) return part;
    part.g.a = dy.data;
    part.g.lda = out;
    part.g.a_trans = true;
    part.g.b = x.data;
    part.g.ldb = in;
    part.g.c = g->dw.data;
    part.g.ldc = in;
    part.g.c_type = DT_F32;
    part.g.add = true;
    part.p = gemm_plan(d, &part.g, true);
    return part;
}

/* dx (+)= dy w
 * dw += dy^T x, dbias += column sums of dy */
int linear_bwd_cpu(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w)
{
    const int64_t n = tensor_rows(dy), out = tensor_cols(dy);
    Part dx = part_dx(d, &g, dy, w), dw = part_dw(d, &g, dy, x);
    const int sums = tensor_given(g.dbias) ? CPU_CHUNKS : 0;
    char *scratch =
        cpu_scratch(d, dw.p.partial_bytes + sums * out * (int64_t)sizeof(float));
    dw.partial = (float *)scratch;
    float *column = (float *)(scratch + dw.p.partial_bytes);
    float *dbias = g.dbias.data;
#pragma omp parallel num_threads(d->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < dw.p.tasks + dx.p.tasks + sums; i++) {
            const int64_t j = i - dw.p.tasks;
            const int c = (int)(j - dx.p.tasks);
            if (j < 0) gemm_task(d, &dw.g, &dw.p, dw.partial, i);
            else if (c < 0) gemm_task(d, &dx.g, &dx.p, NULL, j);
            else
                column_sums(column + c * out, dy, cpu_chunk_begin(n, c), cpu_chunk_begin(n, c + 1));
        }
        if (dw.p.splits > 1) {
#pragma omp for nowait
            for (int64_t i = 0; i < out; i++) gemm_reduce(&dw.g, &dw.p, dw.partial, i);
        }
#pragma omp for nowait
        for (int64_t j = 0; j < (sums ? out : 0); j++) {
            float sum = 0.0f;
            for (int c = 0; c < sums; c++) sum += column[c * out + j];
            dbias[j] += sum;
        }
    }
    return 0;
}

/* No packed copies are kept: what they would save, the copying of panels of w, is about 3% of a
 * product of 512 rows. */
int weight_hint_cpu(Device *d, Tensor w)
{
    (void)d;
    (void)w;
    return 0;
}

int weights_changed_cpu(Device *d)
{
    (void)d;
    return 0;
}
