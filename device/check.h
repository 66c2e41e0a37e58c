/* device/check.h - what the checked wrappers share; only device/ includes this.
 *
 * A wrapper: need(...) each tensor's shape and type, OP_RUN(...) the entry. Shapes are given as
 * dimensions; a mismatch prints the operation, the tensor's name, what it is and what it must be.
 */
#ifndef ISOMOE_DEVICE_CHECK_H
#define ISOMOE_DEVICE_CHECK_H

#include "base/err.h"
#include "device/device_ops.h"

/* One row an operation: its account. */
#define DEVICE_OPS_LIST(X)                                                                         \
    X(linear_fwd) X(linear_bwd) X(expert_linear_fwd) X(expert_linear_bwd) X(embed_fwd)             \
    X(embed_bwd) X(rmsnorm_fwd) X(rmsnorm_bwd) X(swiglu_fwd) X(swiglu_bwd) X(qk_fwd) X(qk_bwd)     \
    X(attention_fwd) X(attention_bwd) X(router_fwd) X(router_bwd) X(route_fwd) X(route_bwd)        \
    X(gate_noise_fwd) X(gate_noise_bwd) X(gate_cv_fwd) X(gate_cv_bwd) X(count_sum)                 \
    X(balance_update)                                                                              \
    X(dispatch_fwd) X(dispatch_bwd) X(combine_fwd) X(combine_bwd) X(ce_fwd) X(ce_bwd) X(ce_train)  \
    X(nll_sum) X(adamw) X(muon) X(sqsum) X(clip) X(step_begin) X(cast) X(fill) X(add) X(copy)      \
    X(upload) X(download) X(expert_each_fwd) X(expert_each_bwd) X(expert_swiglu_fwd)               \
    X(expert_swiglu_bwd) X(sqdiff) X(tanh_fwd) X(tanh_bwd) X(adamw_rows)

typedef enum OpId {
#define OP_ENUM(name) OP_##name,
    DEVICE_OPS_LIST(OP_ENUM)
#undef OP_ENUM
    OP_COUNT
} OpId;

/* A shape of up to 4 dimensions to compare with. */
typedef struct Shape {
    int n;
    int64_t dim[TENSOR_MAX_DIM];
} Shape;

#define SHAPE(...)                                                                                 \
    ((Shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})

/* Aborts unless t is given and has this type and shape. */
void need(OpId op, const char *name, Tensor t, DType type, Shape shape);

/* The same, or t is none. */
void need_or_none(OpId op, const char *name, Tensor t, DType type, Shape shape);

/* Aborts unless t is given, f32 or bf16, with n dimensions. */
void need_float(OpId op, const char *name, Tensor t, int n_dim);

/* Aborts unless row_begin is (E + 1) i32 of E >= 1 experts, or rows_equal with R a multiple of E.
 * Returns E. */
int64_t need_begin(OpId op, Tensor row_begin, int64_t R);

/* Aborts with the message "operation: what". */
_Noreturn void op_refuse(OpId op, const char *what);

/* Books the operation with the unit of operations in force, if there is one; true: it must not be
 * run, a graph will (graph.c). */
bool graph_holds(Device *d, OpId op, int64_t flops, int64_t bytes);

/* In a replay: stages the upload and returns true. */
bool graph_upload(Device *d, Tensor dst, const void *host);

/* Aborts inside a unit of operations. */
void graph_forbids(const Device *d, OpId op);
void graph_forbids_wait(const Device *d);

/* Start and end of one operation: aborts with its name if rc is not 0. */
double op_begin(void);
void op_end(Device *d, OpId op, double start, int rc, int64_t flops, int64_t bytes);

/* Runs entry `name` of the table and books it. flops, bytes: int64_t. */
#define OP_RUN(d, name, flops, bytes, ...)                                                         \
    do {                                                                                           \
        double op_start = op_begin();                                                              \
        int64_t op_flops = flops, op_bytes = bytes;                                                \
        bool op_held = graph_holds(d, OP_##name, op_flops, op_bytes);                              \
        int op_rc = op_held ? 0 : (d)->ops->name(d, __VA_ARGS__);                                  \
        op_end(d, OP_##name, op_start, op_rc, op_flops, op_bytes);                                 \
    } while (0)

#endif
