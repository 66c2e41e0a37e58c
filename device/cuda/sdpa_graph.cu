/* device/cuda/sdpa_graph.cu - the attention graphs and their engines; see sdpa_graph.h.
 *
 * B, H, T, K as in SdpaShape; dimensions are (batch, head, token, width) whatever lies in memory;
 * scores (B, H, T, T) and all that is virtual exist only inside the library's kernel.
 */
#include "device/cuda/sdpa_graph.h"

#ifdef SDPA_BUILT
#include <stdio.h>
#include <string.h>

typedef cudnnBackendDescriptor_t Desc;

/* ---- Descriptors ------------------------------------------------------------------------------*/

static void fail(SdpaGraph *g, const char *what, cudnnStatus_t status)
{
    if (g->error[0]) return;
    char detail[160] = "";
    g->lib->last_error(detail, sizeof detail);
    snprintf(g->error, sizeof g->error, "%s: %s %s", what, g->lib->status_text(status), detail);
}

static Desc create(SdpaGraph *g, cudnnBackendDescriptorType_t type)
{
    Desc d = NULL;
    if (g->error[0]) return NULL;
    if (g->n_owned == SDPA_DESCRIPTORS) {
        snprintf(g->error, sizeof g->error, "too many descriptors");
        return NULL;
    }
    cudnnStatus_t status = g->lib->create(type, &d);
    if (status != CUDNN_STATUS_SUCCESS) fail(g, "create", status);
    else g->owned[g->n_owned++] = d;
    return d;
}

static void set(SdpaGraph *g, Desc d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (g->error[0]) return;
    cudnnStatus_t status = g->lib->set(d, name, type, count, values);
    char what[32];
    snprintf(what, sizeof what, "attribute %d", (int)name);
    if (status != CUDNN_STATUS_SUCCESS) fail(g, what, status);
}

static void set_desc(SdpaGraph *g, Desc d, cudnnBackendAttributeName_t name, Desc value)
{
    set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_i64(SdpaGraph *g, Desc d, cudnnBackendAttributeName_t name, int64_t value)
{
    set(g, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_type(SdpaGraph *g, Desc d, cudnnBackendAttributeName_t name, cudnnDataType_t value)
{
    set(g, d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static Desc finish(SdpaGraph *g, Desc d, const char *what)
{
    if (g->error[0]) return NULL;
    cudnnStatus_t status = g->lib->finalize(d);
    if (status != CUDNN_STATUS_SUCCESS) fail(g, what, status);
    return d;
}

/* ---- Tensors ----------------------------------------------------------------------------------*/

typedef struct Layout {
    int64_t dim[4], stride[4];
    int width_axis; /* of operands: which axis has the head's width; -1: not an operand */
} Layout;

const char *sdpa_layout_fault(const int64_t dim[4], const int64_t stride[4], int width_axis,
                              int bytes)
{
    for (int i = 0; i < 4; i++) {
        if (dim[i] < 1 || stride[i] < 1) return "a dimension or stride below 1";
        if (i == width_axis && stride[i] != 1) return "the head's width is not contiguous";
        if (i != width_axis && stride[i] * bytes % 16) return "a line does not start on 16 bytes";
    }
    return NULL;
}

/* Lines of K numbers, token after token, n heads side by side. */
static Layout lines(const SdpaShape *s, int64_t n)
{
    return {{s->B, n, s->T, s->K}, {s->T * n * s->K, s->K, n * s->K, 1}, 3};
}

static Layout lines_t(const SdpaShape *s, int64_t n)
{
    return {{s->B, n, s->K, s->T}, {s->T * n * s->K, s->K, 1, n * s->K}, 2};
}

/* The same, head after head: for what has no place of ours. */
static Layout packed(const SdpaShape *s)
{
    return {{s->B, s->H, s->T, s->K}, {s->H * s->T * s->K, s->T * s->K, s->K, 1}, 3};
}

static Layout scores(const SdpaShape *s)
{
    return {{s->B, s->H, s->T, s->T}, {s->H * s->T * s->T, s->T * s->T, s->T, 1}, -1};
}

static Layout scores_t(const SdpaShape *s)
{
    return {{s->B, s->H, s->T, s->T}, {s->H * s->T * s->T, s->T * s->T, 1, s->T}, -1};
}

static Layout row_values(const SdpaShape *s) /* a number a query */
{
    return {{s->B, s->H, s->T, 1}, {s->H * s->T, s->T, 1, 1}, -1};
}

static Layout lse_values(const SdpaShape *s)
{
    if (s->documents) return {{s->B, s->H, s->T, 1}, {s->H * s->T, 1, s->H, 1}, -1};
    return row_values(s);
}

static Layout single(void) { return {{1, 1, 1, 1}, {1, 1, 1, 1}, -1}; }

static bool is_by_value(int64_t name)
{
    return name == SDPA_SCALE || name == SDPA_HIDDEN || name == SDPA_ONE || name == SDPA_PAST;
}

static Desc tensor(SdpaGraph *g, int64_t name, cudnnDataType_t type, Layout l);

/* A tensor of n numbers that several operations name: made once. */
static Desc shared(SdpaGraph *g, int64_t name, cudnnDataType_t type, int64_t n)
{
    if (!g->shared[name]) g->shared[name] = tensor(g, name, type, {{n, 1, 1, 1}, {1, 1, 1, 1}, -1});
    return g->shared[name];
}

/* Where the documents of a tensor begin; NULL: it lies as its strides say. */
static Desc offsets_of(SdpaGraph *g, int64_t name)
{
    static const char table[SDPA_NAMES] = {
        0, SDPA_AT_Q, SDPA_AT_K, SDPA_AT_K, SDPA_AT_Q, SDPA_AT_LSE, SDPA_AT_Q, SDPA_AT_Q,
        SDPA_AT_K, SDPA_AT_K, 0, 0, 0, SDPA_AT_Q,
    };
    if (!g->shape.documents || !table[name]) return NULL;
    return shared(g, table[name], CUDNN_DATA_INT64, g->shape.B + 1);
}

/* name 0: virtual. */
static Desc tensor(SdpaGraph *g, int64_t name, cudnnDataType_t type, Layout l)
{
    const char *fault = NULL;
    if (l.width_axis >= 0)
        fault = sdpa_layout_fault(l.dim, l.stride, l.width_axis,
                                  type == CUDNN_DATA_BFLOAT16 ? 2 : 4);
    if (fault && !g->error[0])
        snprintf(g->error, sizeof g->error, "tensor %d: %s", (int)name, fault);
    Desc offsets = offsets_of(g, name);
    Desc d = create(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    bool virtual_one = name == 0, by_value = is_by_value(name);
    set_type(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, l.dim);
    set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, l.stride);
    set_i64(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, name ? name : 100 + g->virtual_names++);
    set_i64(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
    if (virtual_one) set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &virtual_one);
    if (by_value) set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    if (offsets) set_desc(g, d, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets);
    return finish(g, d, "tensor");
}

static Desc operand(SdpaGraph *g, int64_t name, Layout l)
{
    return tensor(g, name, CUDNN_DATA_BFLOAT16, l);
}

/* ---- Operations -------------------------------------------------------------------------------*/

static void add_op(SdpaGraph *g, Desc op, const char *what)
{
    finish(g, op, what);
    if (g->error[0]) return;
    if (g->n_ops == SDPA_OPS) snprintf(g->error, sizeof g->error, "too many operations");
    else g->op[g->n_ops++] = op;
}

/* Which sizes of a product are a document's: rows and columns of the result, terms of its sums. */
typedef struct Ends {
    Desc rows, columns, terms; /* SDPA_LEN_Q or _K; NULL: the tensor's own */
    bool zeros;                /* what lies behind the end is written as 0 */
} Ends;

/* c = a b */
static Desc matmul(SdpaGraph *g, Desc a, Desc b, Desc c, Ends ends)
{
    const double zero = 0;
    Desc kind = create(g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set_type(g, kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    if (ends.zeros) set(g, kind, CUDNN_ATTR_MATMUL_PADDING_VALUE, CUDNN_TYPE_DOUBLE, 1, &zero);
    finish(g, kind, "matmul");
    Desc op = create(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    if (ends.rows) set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, ends.rows);
    if (ends.columns)
        set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, ends.columns);
    if (ends.terms) set_desc(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, ends.terms);
    add_op(g, op, "matmul");
    return c;
}

/* y = mode(x, b, t); b and t may be NULL. axis: of CUDNN_POINTWISE_GEN_INDEX. */
static Desc pointwise(SdpaGraph *g, cudnnPointwiseMode_t mode, Desc x, Desc b, Desc t, Desc y,
                      int64_t axis)
{
    bool index = mode == CUDNN_POINTWISE_GEN_INDEX;
    bool logic = mode == CUDNN_POINTWISE_CMP_GE || mode == CUDNN_POINTWISE_CMP_LT ||
                 mode == CUDNN_POINTWISE_LOGICAL_AND;
    Desc kind = create(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(g, kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set_type(g, kind, CUDNN_ATTR_POINTWISE_MATH_PREC,
             index ? CUDNN_DATA_INT32 : logic ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT);
    if (index) set_i64(g, kind, CUDNN_ATTR_POINTWISE_AXIS, axis);
    finish(g, kind, "pointwise");
    Desc op = create(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    if (t) set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_op(g, op, "pointwise");
    return y;
}

static Desc reduce(SdpaGraph *g, cudnnReduceTensorOp_t mode, Desc x, Desc y)
{
    Desc kind = create(g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(g, kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode);
    set_type(g, kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    finish(g, kind, "reduction");
    Desc op = create(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_desc(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_op(g, op, "reduction");
    return y;
}

static Desc reshape(SdpaGraph *g, Desc x, Desc y)
{
    Desc op = create(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_desc(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_op(g, op, "reshape");
    return y;
}

static Desc virtual_scores(SdpaGraph *g, cudnnDataType_t type)
{
    return tensor(g, 0, type, scores(&g->shape));
}

static Desc virtual_rows(SdpaGraph *g)
{
    return tensor(g, 0, CUDNN_DATA_FLOAT, row_values(&g->shape));
}

/* f32 scores = mode(x, b), b may be NULL. */
static Desc on_scores(SdpaGraph *g, cudnnPointwiseMode_t mode, Desc x, Desc b)
{
    return pointwise(g, mode, x, b, NULL, virtual_scores(g, CUDNN_DATA_FLOAT), 0);
}

/* Numbers of the scores along an axis: 2 rows (queries), 3 columns (keys). */
static Desc index_of(SdpaGraph *g, Desc s, int64_t axis)
{
    return pointwise(g, CUDNN_POINTWISE_GEN_INDEX, s, NULL, NULL,
                     virtual_scores(g, CUDNN_DATA_INT32), axis);
}

static Desc mask_of(SdpaGraph *g, cudnnPointwiseMode_t mode, Desc x, Desc y)
{
    return pointwise(g, mode, x, y, NULL, virtual_scores(g, CUDNN_DATA_BOOLEAN), 0);
}

static Desc lengths(SdpaGraph *g, int64_t name)
{
    return g->shape.documents ? shared(g, name, CUDNN_DATA_INT32, g->shape.B) : NULL;
}

/* s inside the document, else minus infinity; as it is where there are none. */
static Desc inside(SdpaGraph *g, Desc s)
{
    if (!g->shape.documents) return s;
    Desc row = index_of(g, s, 2), column = index_of(g, s, 3);
    Desc by_row = mask_of(g, CUDNN_POINTWISE_CMP_LT, row, lengths(g, SDPA_LEN_Q));
    Desc by_column = mask_of(g, CUDNN_POINTWISE_CMP_LT, column, lengths(g, SDPA_LEN_K));
    Desc mask = mask_of(g, CUDNN_POINTWISE_LOGICAL_AND, by_row, by_column);
    Desc past = tensor(g, SDPA_PAST, CUDNN_DATA_FLOAT, single());
    return pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, s, past, mask,
                     virtual_scores(g, CUDNN_DATA_FLOAT), 0);
}

/* Sizes of products with scores (queries, keys), their transpose, and of queries summed over keys;
 * in the forward pass with zeros behind the end. */
static Ends score_ends(SdpaGraph *g)
{
    return {lengths(g, SDPA_LEN_Q), lengths(g, SDPA_LEN_K), NULL,
            g->shape.documents && !g->shape.backward};
}

static Ends key_ends(SdpaGraph *g)
{
    return {lengths(g, SDPA_LEN_K), NULL, lengths(g, SDPA_LEN_Q), false};
}

static Ends query_ends(SdpaGraph *g)
{
    return {lengths(g, SDPA_LEN_Q), NULL, lengths(g, SDPA_LEN_K), false};
}

/* s where row >= column, else minus infinity. The library knows CMP_GE only. */
static Desc causal(SdpaGraph *g, Desc s)
{
    Desc mask = mask_of(g, CUDNN_POINTWISE_CMP_GE, index_of(g, s, 2), index_of(g, s, 3));
    Desc hidden = tensor(g, SDPA_HIDDEN, CUDNN_DATA_FLOAT, single());
    return pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, s, hidden, mask,
                     virtual_scores(g, CUDNN_DATA_FLOAT), 0);
}

/* ---- Graphs -----------------------------------------------------------------------------------*/

static void forward(SdpaGraph *g)
{
    const SdpaShape *sh = &g->shape;
    Desc q = operand(g, SDPA_Q, lines(sh, sh->H)), kt = operand(g, SDPA_K, lines_t(sh, sh->G));
    Desc v = operand(g, SDPA_V, lines(sh, sh->G)), o = operand(g, SDPA_O, lines(sh, sh->H));
    Desc lse = tensor(g, SDPA_LSE, CUDNN_DATA_FLOAT, lse_values(sh));
    Desc scale = tensor(g, SDPA_SCALE, CUDNN_DATA_FLOAT, single());
    Desc s = matmul(g, q, kt, virtual_scores(g, CUDNN_DATA_FLOAT), score_ends(g));
    s = causal(g, inside(g, on_scores(g, CUDNN_POINTWISE_MUL, s, scale)));
    Desc max = reduce(g, CUDNN_REDUCE_TENSOR_MAX, s, virtual_rows(g));
    Desc p = on_scores(g, CUDNN_POINTWISE_EXP, on_scores(g, CUDNN_POINTWISE_SUB, s, max), NULL);
    Desc sum = reduce(g, CUDNN_REDUCE_TENSOR_ADD, p, virtual_rows(g));
    Desc log = pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, NULL, virtual_rows(g), 0);
    pointwise(g, CUDNN_POINTWISE_ADD, max, log, NULL, lse, 0);
    p = pointwise(g, CUDNN_POINTWISE_DIV, p, sum, NULL, virtual_scores(g, CUDNN_DATA_BFLOAT16), 0);
    matmul(g, p, v, o, query_ends(g));
}

/* Gradient of keys or values: p^T x, summed over the query heads of a key head. */
static void key_grad(SdpaGraph *g, Desc p, Desc x, int64_t name)
{
    const SdpaShape *sh = &g->shape;
    Desc out = operand(g, name, lines(sh, sh->G));
    Desc p_t = reshape(g, p, tensor(g, 0, CUDNN_DATA_BFLOAT16, scores_t(sh)));
    if (sh->H == sh->G) {
        matmul(g, p_t, x, out, key_ends(g));
        return;
    }
    Desc all = matmul(g, p_t, x, operand(g, 0, packed(sh)), key_ends(g));
    reduce(g, CUDNN_REDUCE_TENSOR_ADD, all, out);
}

static void backward(SdpaGraph *g)
{
    const SdpaShape *sh = &g->shape;
    Desc q = operand(g, SDPA_Q, lines(sh, sh->H)), kt = operand(g, SDPA_K, lines_t(sh, sh->G));
    Desc vt = operand(g, SDPA_V, lines_t(sh, sh->G)), o = operand(g, SDPA_O, lines(sh, sh->H));
    Desc d_o = operand(g, SDPA_DO, lines(sh, sh->H)), dq = operand(g, SDPA_DQ, lines(sh, sh->H));
    Desc lse = tensor(g, SDPA_LSE, CUDNN_DATA_FLOAT, lse_values(sh));
    Desc scale = tensor(g, SDPA_SCALE, CUDNN_DATA_FLOAT, single());
    Desc one = tensor(g, SDPA_ONE, CUDNN_DATA_FLOAT, single());
    /* d = rowsum(do o); times 1, or the library takes half a gigabyte more */
    Desc d = pointwise(g, CUDNN_POINTWISE_MUL, d_o, o, NULL,
                       tensor(g, 0, CUDNN_DATA_FLOAT, packed(sh)), 0);
    d = reduce(g, CUDNN_REDUCE_TENSOR_ADD, d, virtual_rows(g));
    d = pointwise(g, CUDNN_POINTWISE_MUL, d, one, NULL, virtual_rows(g), 0);
    /* P = exp(scale q k^T - lse), masked; dv = P^T do */
    Desc s = matmul(g, q, kt, virtual_scores(g, CUDNN_DATA_FLOAT), score_ends(g));
    s = inside(g, on_scores(g, CUDNN_POINTWISE_MUL, s, scale));
    s = on_scores(g, CUDNN_POINTWISE_SUB, s, lse);
    Desc p = on_scores(g, CUDNN_POINTWISE_EXP, causal(g, s), NULL);
    key_grad(g, p, d_o, SDPA_DV);
    /* dS = scale P (do v^T - d); dk = dS^T q; dq = dS k */
    Desc ds = matmul(g, d_o, vt, virtual_scores(g, CUDNN_DATA_FLOAT), score_ends(g));
    ds = on_scores(g, CUDNN_POINTWISE_MUL, on_scores(g, CUDNN_POINTWISE_SUB, ds, d), p);
    ds = on_scores(g, CUDNN_POINTWISE_MUL, ds, scale);
    key_grad(g, ds, q, SDPA_DK);
    Desc k = reshape(g, kt, operand(g, 0, lines(sh, sh->G)));
    if (sh->deterministic) {
        matmul(g, ds, k, dq, query_ends(g));
        return;
    }
    Layout sums = sh->documents ? lines(sh, sh->H) : packed(sh);
    Desc sum = matmul(g, ds, k, tensor(g, SDPA_DQ_SUM, CUDNN_DATA_FLOAT, sums), query_ends(g));
    pointwise(g, CUDNN_POINTWISE_IDENTITY, sum, NULL, NULL, dq, 0);
}

void sdpa_graph_make(SdpaGraph *g, const SdpaLib *lib, const SdpaShape *shape)
{
    memset(g, 0, sizeof *g);
    g->lib = lib;
    g->shape = *shape;
    if (shape->backward) backward(g);
    else forward(g);
    Desc graph = create(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_ops, g->op);
    g->graph = finish(g, graph, "graph");
}

void sdpa_graph_free(SdpaGraph *g)
{
    while (g->n_owned) g->lib->destroy(g->owned[--g->n_owned]);
    g->graph = NULL;
}

/* ---- Engines ----------------------------------------------------------------------------------*/

/* A descriptor of its own, made through a graph that owns nothing else. */
static Desc keep(SdpaGraph *g, Desc d, char error[256])
{
    if (!g->error[0]) return d;
    memcpy(error, g->error, sizeof g->error);
    sdpa_graph_free(g);
    return NULL;
}

Desc sdpa_target_gpu(const SdpaLib *lib, int ordinal, char error[256])
{
    SdpaGraph g = {};
    int32_t id = ordinal;
    g.lib = lib;
    Desc d = create(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(&g, d, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &id);
    return keep(&g, finish(&g, d, "GPU"), error);
}

Desc sdpa_target_json(const SdpaLib *lib, const char *json, char error[256])
{
    SdpaGraph g = {};
    g.lib = lib;
    Desc d = create(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    set(&g, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json),
        json);
    return keep(&g, finish(&g, d, "GPU description"), error);
}

/* What the library calls good for the graph. */
static int offered(SdpaGraph *g, Desc target, Desc *out, int room)
{
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int owned = g->n_owned;
    int64_t count = 0;
    Desc heuristics = create(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
    set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target);
    finish(g, heuristics, "heuristics");
    for (int i = 0; i < room; i++) out[i] = create(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!g->error[0]) {
        cudnnStatus_t status = g->lib->get(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                           CUDNN_TYPE_BACKEND_DESCRIPTOR, room, &count, out);
        if (status != CUDNN_STATUS_SUCCESS) fail(g, "heuristics", status);
    }
    int used = g->error[0] ? 0 : (int)(count < room ? count : room);
    if (!g->error[0] && used == 0)
        snprintf(g->error, sizeof g->error, "the library has no engine for this graph and GPU");
    /* `out` is the caller's; the rest ends here */
    while (g->n_owned > owned) {
        Desc d = g->owned[--g->n_owned];
        bool kept = false;
        for (int i = 0; i < used; i++) kept |= out[i] == d;
        if (!kept) g->lib->destroy(d);
    }
    return used;
}

/* The deterministic backward engine of compute capability 10.0, which the library never offers: its
 * engine 5 with these knobs works, and needs no T x T workspace. NULL if it is refused. */
static Desc by_hand(SdpaGraph *g, Desc target)
{
    static const struct {
        cudnnBackendKnobType_t type;
        int64_t value;
    } knobs[] = {{CUDNN_KNOB_TYPE_KERNEL_CFG, 31}, {CUDNN_KNOB_TYPE_STAGES, 2}};
    int owned = g->n_owned;
    Desc choice[2];
    Desc engine = create(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    set_desc(g, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, g->graph);
    set_i64(g, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 5);
    set_desc(g, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, target);
    finish(g, engine, "engine 5");
    for (int i = 0; i < 2; i++) {
        choice[i] = create(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        set(g, choice[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
            &knobs[i].type);
        set_i64(g, choice[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, knobs[i].value);
        finish(g, choice[i], "knob");
    }
    Desc made = create(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_desc(g, made, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    set(g, made, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, 2, choice);
    finish(g, made, "engine 5");
    bool ok = !g->error[0];
    g->error[0] = 0;
    while (g->n_owned > owned) {
        Desc d = g->owned[--g->n_owned];
        if (!ok || d != made) g->lib->destroy(d);
    }
    return ok ? made : NULL;
}

int sdpa_graph_engines(SdpaGraph *g, Desc target, int sm, Desc *out, int room)
{
    if (g->error[0] || room < 1) return 0;
    int n = 0;
    if (g->shape.backward && g->shape.deterministic && sm >= 100 && sm < 120) {
        /* what the library offers by itself may add in any order: then the own kernels run */
        Desc made = g->lib->version() < SDPA_OTHER_KNOBS ? by_hand(g, target) : NULL;
        if (!made) return 0;
        out[n++] = made;
    }
    if (n < room) n += offered(g, target, out + n, room - n);
    if (n) g->error[0] = 0;
    return n;
}

Desc sdpa_graph_plan(SdpaGraph *g, Desc target, int sm, int64_t *workspace)
{
    enum { ENGINES = 8 };
    Desc engine[ENGINES], plan = NULL;
    int n = sdpa_graph_engines(g, target, sm, engine, ENGINES);
    for (int i = 0; i < n && !plan; i++) {
        int owned = g->n_owned;
        g->error[0] = 0;
        plan = create(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        set_desc(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine[i]);
        finish(g, plan, "plan");
        int64_t count = 0;
        if (!g->error[0]) {
            cudnnStatus_t status =
                g->lib->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                            &count, workspace);
            if (status != CUDNN_STATUS_SUCCESS) fail(g, "workspace", status);
        }
        bool failed = g->error[0];
        if (failed && g->n_owned > owned) g->lib->destroy(plan);
        if (failed) plan = NULL;
        g->n_owned = owned;
    }
    for (int i = 0; i < n; i++) g->lib->destroy(engine[i]);
    return plan;
}
#endif
