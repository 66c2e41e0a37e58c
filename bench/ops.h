/* bench/ops.h - every operation of the device table at the shapes of one layer of a config. */
#ifndef ISOMOE_BENCH_OPS_H
#define ISOMOE_BENCH_OPS_H

#include "bench/harness.h"
#include "model/config.h"

typedef struct Ops Ops;

/* Tensors of one layer for N = B T tokens in `type`, filled with numbers of the usual size; adds a
 * row for each operation. NULL on error. Lives until ops_destroy, after bench_run. */
Ops *ops_create(Bench *b, const ModelConfig *c, DType type, int64_t B, int64_t T, Err *e);
void ops_destroy(Ops **ops);

#endif
