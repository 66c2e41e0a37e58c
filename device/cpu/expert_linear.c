/* device/cpu/expert_linear.c - a linear map for each of E experts over its rows of a buffer.
 *
 * y (R, O) = x (R, I) w[e] (O, I)^T for the rows row_begin[e] .. row_begin[e+1]-1 of expert e, and
 * the gradients. The tiles of all experts' products are one list, run by one parallel loop; tile
 * sizes depend on the shapes only, the rows that an expert got decide how many tiles it has.
 * Called through dev_expert_linear_fwd and dev_expert_linear_bwd.
 */
#include "base/size.h"
#include "device/cpu/gemm.h"

/* One product for each expert: how expert e's differs from that of expert 0, and its tasks. */
typedef struct List {
    Gemm g;                    /* of expert 0; pointers NULL where the list is not wanted */
    bool rows_are_k;           /* the rows of the expert are k (weight gradient), else m */
    int64_t a_step, b_step;    /* elements from one row (weights: one expert) to the next */
    int64_t c_step;
    int64_t tile_m, tile_n;
    int64_t *first;            /* (E + 1): first task of expert e */
} List;

/* The tile size, from the shapes: as if all experts had the same number of rows. */
static void list_tiles(const Device *d, List *l, int64_t experts, int64_t rows)
{
    Gemm g = l->g;
    if (!l->rows_are_k) g.m = size_max(rows / experts, 1);
    const GemmPlan p = gemm_tiles(d, &g, experts);
    l->tile_m = p.tile_m;
    l->tile_n = p.tile_n;
}

/* The product of expert e. */
static Gemm list_product(const List *l, const int32_t *row_begin, int64_t e)
{
    const int64_t begin = row_begin[e], rows = row_begin[e + 1] - begin;
    const size_t size = dtype_size(l->g.type);
    const int64_t b = l->rows_are_k ? begin : e, c = l->rows_are_k ? e : begin;
    Gemm g = l->g;
    g.a = (const char *)g.a + (size_t)(begin * l->a_step) * size;
    g.b = (const char *)g.b + (size_t)(b * l->b_step) * size;
    g.c = (char *)g.c + (size_t)(c * l->c_step) * dtype_size(g.c_type);
    if (l->rows_are_k) g.k = rows;
    else g.m = rows;
    return g;
}

static GemmPlan list_plan(const List *l, const Gemm *g)
{
    const bool wanted = l->g.a != NULL && g->m > 0 && (g->k > 0 || !g->add);
    GemmPlan p = {.tile_m = l->tile_m, .tile_n = l->tile_n, .splits = 1};
    p.rows = wanted ? size_ceil_div(g->m, p.tile_m) : 0;
    p.cols = size_ceil_div(g->n, p.tile_n);
    p.tasks = p.rows * p.cols;
    return p;
}

/* Fills l->first from the row counts; returns the number of tasks. */
static int64_t list_fill(List *l, const int32_t *row_begin, int64_t experts)
{
    l->first[0] = 0;
    for (int64_t e = 0; e < experts; e++) {
        const Gemm g = list_product(l, row_begin, e);
        l->first[e + 1] = l->first[e] + list_plan(l, &g).tasks;
    }
    return l->first[experts];
}

static void list_run(const Device *d, const List *l, const int32_t *row_begin, int64_t task)
{
    int64_t e = 0;
    while (l->first[e + 1] <= task) e++;
    const Gemm g = list_product(l, row_begin, e);
    const GemmPlan p = list_plan(l, &g);
    gemm_task(d, &g, &p, NULL, task - l->first[e]);
}

int expert_linear_fwd_cpu(Device *d, Tensor y, Tensor x, Tensor w, Tensor row_begin)
{
    const int64_t experts = w.dim[0], out = w.dim[1], in = w.dim[2];
    const int32_t *begin = row_begin.data;
    List l = {.g = {.n = out, .k = in, .a = x.data, .lda = in, .b = w.data, .ldb = in,
                    .b_trans = true, .c = y.data, .ldc = out, .type = x.type, .c_type = y.type},
              .a_step = in, .b_step = out * in, .c_step = out};
    l.first = cpu_scratch(d, (experts + 1) * (int64_t)sizeof *l.first);
    list_tiles(d, &l, experts, tensor_rows(x));
    const int64_t tasks = list_fill(&l, begin, experts);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) list_run(d, &l, begin, i);
    return 0;
}

/* dx = dy w[e] for the rows of expert e
 * dw[e] += dy^T x over the rows of expert e */
int expert_linear_bwd_cpu(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w,
                          Tensor row_begin)
{
    const int64_t experts = w.dim[0], out = w.dim[1], in = w.dim[2];
    const int32_t *begin = row_begin.data;
    List dx = {.g = {.n = in, .k = out, .lda = out, .b = w.data, .ldb = in, .ldc = in,
                     .type = dy.type, .add = g.dx_add},
               .a_step = out, .b_step = out * in, .c_step = in};
    List dw = {.g = {.m = out, .n = in, .lda = out, .a_trans = true, .b = x.data, .ldb = in,
                     .ldc = in, .type = dy.type, .c_type = DT_F32, .add = true},
               .rows_are_k = true, .a_step = out, .b_step = in, .c_step = out * in};
    if (tensor_given(g.dx)) {
        dx.g.a = dy.data;
        dx.g.c = g.dx.data;
        dx.g.c_type = g.dx.type;
    }
    if (tensor_given(g.dw)) {
        dw.g.a = dy.data;
        dw.g.c = g.dw.data;
    }
    dx.first = cpu_scratch(d, 2 * (experts + 1) * (int64_t)sizeof *dx.first);
    dw.first = dx.first + experts + 1;
    list_tiles(d, &dx, experts, tensor_rows(dy));
    list_tiles(d, &dw, experts, 0);
    const int64_t weights = list_fill(&dw, begin, experts), rows = list_fill(&dx, begin, experts);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int64_t i = 0; i < weights + rows; i++) {
        if (i < weights) list_run(d, &dw, begin, i);
        else list_run(d, &dx, begin, i - weights);
    }
    return 0;
}
