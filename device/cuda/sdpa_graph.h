/* device/cuda/sdpa_graph.h - attention as graphs of cuDNN's backend interface, without a GPU.
 *
 * The library is opened at run time. A graph is made from a shape; what a GPU can do with it is
 * asked for a description of that GPU (SdpaTarget), so that a machine without one can ask too.
 * Failures are sticky: the first one is kept as text in graph->error and later calls do nothing.
 *
 * Traps: where the driver is missing, the library finds 0 engines and calls that a success; a last
 * stride that is not 1 crashes it. So the count is looked at, and every operand passes
 * sdpa_layout_fault first. Only whole graphs of small operations have a causal mask in 9.19, and
 * they must be spelled exactly as here to be recognised.
 */
#ifndef ISOMOE_DEVICE_CUDA_SDPA_GRAPH_H
#define ISOMOE_DEVICE_CUDA_SDPA_GRAPH_H

/* SDPA_BUILT: the library's header is there and new enough; else these files are empty. */
#if __has_include(<cudnn_graph.h>) && __has_include(<cudnn_version.h>)
#include <cudnn_version.h>
#if CUDNN_VERSION >= 91900
#define SDPA_BUILT
#endif
#endif

#ifdef SDPA_BUILT
#include <cudnn_graph.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "device/sdpa_bytes.h"

enum { /* cudnnGetVersion */
    SDPA_OLDEST = 91900,     /* older ones were never tried */
    SDPA_OTHER_KNOBS = 92300 /* from here on the engine that by_hand chooses has other knobs */
};

/* The library's functions. */
typedef struct SdpaLib {
    void *so;
    size_t (*version)(void);
    const char *(*status_text)(cudnnStatus_t status);
    void (*last_error)(char *text, size_t size);
    cudnnStatus_t (*handle_create)(cudnnHandle_t *handle);
    cudnnStatus_t (*handle_destroy)(cudnnHandle_t handle);
    cudnnStatus_t (*handle_stream)(cudnnHandle_t handle, cudaStream_t stream);
    cudnnStatus_t (*create)(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out);
    cudnnStatus_t (*destroy)(cudnnBackendDescriptor_t descriptor);
    cudnnStatus_t (*finalize)(cudnnBackendDescriptor_t descriptor);
    cudnnStatus_t (*set)(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values);
    cudnnStatus_t (*get)(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t room, int64_t *count,
                         void *values);
    cudnnStatus_t (*execute)(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack);
} SdpaLib;

/* Opens the library; false with the reason in why[0 .. size-1]. Never closed. */
bool sdpa_lib_open(SdpaLib *lib, char *why, size_t size);

/* Names of the tensors that a call binds (SdpaGraph.uses). */
enum {
    SDPA_Q = 1, SDPA_K, SDPA_V, SDPA_O, SDPA_LSE, SDPA_DO, SDPA_DQ, SDPA_DK, SDPA_DV,
    SDPA_SCALE, /* by value, as are the next two: a pointer to a float of the host */
    SDPA_HIDDEN, SDPA_ONE,
    SDPA_DQ_SUM, /* f32, dense (B, H, T, K): scratch of the backward pass that adds atomically */
    SDPA_PAST, /* by value: as SDPA_HIDDEN, for what lies behind a document's end */
    SDPA_LEN_Q, SDPA_LEN_K, /* (B) i32 tokens of each document; the same numbers */
    SDPA_AT_Q, SDPA_AT_K, SDPA_AT_LSE, /* (B + 1) i64: number where each document begins: its first
                                          row times H K, G K, H; last: where the last one ends */
    SDPA_NAMES
};

enum { SDPA_OPS = 40, SDPA_DESCRIPTORS = 200 };

typedef struct SdpaGraph {
    const SdpaLib *lib;
    SdpaShape shape;
    cudnnBackendDescriptor_t graph;
    cudnnBackendDescriptor_t op[SDPA_OPS];
    cudnnBackendDescriptor_t owned[SDPA_DESCRIPTORS]; /* all that must be destroyed */
    int n_ops, n_owned;
    int64_t virtual_names;
    cudnnBackendDescriptor_t shared[SDPA_NAMES]; /* of tensors that several operations name */
    char error[256]; /* empty: no failure */
} SdpaGraph;

/* NULL, or what is wrong with the layout of an operand of `bytes` an element, dimensions (batch,
 * head, token, width): the stride of axis `width_axis` must be 1, the others multiples of 16
 * bytes, all positive. */
const char *sdpa_layout_fault(const int64_t dim[4], const int64_t stride[4], int width_axis,
                              int bytes);

/* Builds and finalizes the graph of a shape. Free it whether it failed or not. */
void sdpa_graph_make(SdpaGraph *g, const SdpaLib *lib, const SdpaShape *shape);
void sdpa_graph_free(SdpaGraph *g);

/* A GPU: by its number, or by a description in JSON; NULL on failure, with text in error. */
cudnnBackendDescriptor_t sdpa_target_gpu(const SdpaLib *lib, int ordinal, char error[256]);
cudnnBackendDescriptor_t sdpa_target_json(const SdpaLib *lib, const char *json, char error[256]);

/* Engine configurations that the library offers for the graph on the target, best first, at most
 * `room`: how many, 0 with the reason in g->error if none. The caller destroys them. */
int sdpa_graph_engines(SdpaGraph *g, cudnnBackendDescriptor_t target, int sm,
                       cudnnBackendDescriptor_t *out, int room);

/* The first of those configurations that makes a plan (compiles); NULL with the reason in g->error.
 * The caller destroys it. *workspace: bytes that its calls need. */
cudnnBackendDescriptor_t sdpa_graph_plan(SdpaGraph *g, cudnnBackendDescriptor_t target, int sm,
                                         int64_t *workspace);

#ifdef __cplusplus
}
#endif
#endif /* SDPA_BUILT */

#endif
