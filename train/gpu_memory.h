/* train/gpu_memory.h - what a run takes of a GPU's memory beside the tensors of its plan, known
 * before anything runs: the attention library's workspace, the block of scratch memory that all
 * operations share, cuBLASLt's workspace, and, estimated, the recorded step.
 *
 * Which of its ways attention takes is decided here and on the device (device/cuda/attention.cu) by
 * the same functions of device/sdpa_bytes.h.
 */
#ifndef ISOMOE_TRAIN_GPU_MEMORY_H
#define ISOMOE_TRAIN_GPU_MEMORY_H

#include <stdio.h>

#include "model/cost.h"
#include "train/run_config.h"

typedef struct GpuRoom {
    DeviceGpu gpu;
    int64_t room;     /* bytes for tensors and for what is counted here */
    int64_t tensors;  /* bytes of the plan */
    int64_t products; /* cuBLASLt's workspace; 0: taken already */
    double launches;  /* of a step */
} GpuRoom;

typedef struct GpuMemory {
    bool library;       /* attention's library runs every shape that was added, both ways */
    bool ordered;       /* and adds in one order: the same bits every time */
    char why_own[160];  /* else the reason, of the first such shape */
    int64_t attention;  /* its workspace; 0: none */
    int64_t logits;     /* of a chunk of the loss */
    int64_t scratch;    /* upper bound of the one block, which holds either of them */
    int64_t products;   /* cuBLASLt's workspace */
    int64_t graph;      /* an estimate */
    int64_t most;       /* for device_limit_attention: no call of the library takes more */
} GpuMemory;

/* Device memory that a driver keeps for a launch of a recorded step: what drivers before 550 took,
 * by general knowledge and not measured; later ones take less. */
enum { GPU_GRAPH_NODE = 64 << 10 };

/* Begins with no shape; then each shape that runs. `documents`: with documents apart. */
void gpu_memory_begin(GpuMemory *g, const GpuRoom *room);
void gpu_memory_add(GpuMemory *g, const ModelConfig *c, const ModelShape *shape, bool documents,
                    const GpuRoom *room);

/* All stages of a run. */
void gpu_memory_run(GpuMemory *g, const RunConfig *c, const GpuRoom *room);

/* Without the estimate; and with it. */
int64_t gpu_memory_known(const GpuMemory *g);
int64_t gpu_memory_total(const GpuMemory *g);

/* Kernel launches of a step on one GPU. */
double gpu_memory_launches(const Cost *step);

void gpu_memory_print(const GpuMemory *g, const char *gpu, FILE *out);
struct json_t *gpu_memory_json(const GpuMemory *g); /* new reference */

/* What keeps attention's library from calls of this shape on any GPU, into out; "" if nothing. */
enum { GPU_WHY = 160 };
void gpu_attention_fault(char out[GPU_WHY], const ModelConfig *c, const ModelShape *shape,
                         bool documents);

#endif
