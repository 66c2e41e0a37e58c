/* device/cuda/cuda.h - what the files of the CUDA device share on the host's side.
 *
 * All work goes to one stream; nothing waits for the host but dev_download, dev_sync and the growth
 * of scratch memory. Entries return 0, or a code whose text cuda_error gives: `return
 * cuda_launched(d, "rmsnorm_fwd")` after the launches. Everything is built by nvcc, or, in tests,
 * by a C++ compiler with the emulator of tests/simt (see launch.cuh).
 */
#ifndef ISOMOE_DEVICE_CUDA_CUDA_H
#define ISOMOE_DEVICE_CUDA_CUDA_H

#include <cuda_runtime.h>

#include <cublasLt.h>

extern "C" {
#include "device/device_ops.h"
#include "device/scratch_bytes.h"
}

enum { CUDA_CHUNKS = SCRATCH_CHUNKS }; /* partial sums of a reduction over rows, at most */

typedef struct GemmState GemmState;

typedef struct CudaState {
    cudaStream_t stream;
    int ordinal;              /* which GPU */
    int sms;                  /* multiprocessors; grids follow shapes, never this number */
    size_t memory;            /* bytes of the GPU */
    char name[128];           /* "NVIDIA H100 80GB HBM3 (sm_90)": the variant */
    void *scratch;            /* cuda_scratch; grows outside of capture only */
    int64_t scratch_bytes;
    void *pinned;             /* staging of uploads and downloads */
    int64_t pinned_bytes;
    cudaEvent_t staged;       /* the staged bytes have left */
    bool capturing;           /* operations are being recorded into a graph */
    int64_t scratch_moves;    /* how often memory that graphs read has moved */
    struct CudaGraph *graph;  /* the recorded unit of operations (graph.cu), or NULL */
    cublasLtHandle_t lt;
    int64_t lt_version;       /* of cuBLASLt: 130100 */
    void *lt_workspace;
    int64_t lt_workspace_bytes; /* scratch_lt_bytes of the memory */
    GemmState *gemm;          /* table and plans of cuBLASLt (gemm.cu) */
    int64_t chunk_bytes;      /* f32 rows that the loss (linear maps with a bias: an eighth) holds
                                 at a time: SCRATCH_CHUNK_BYTES but in tests */
    void *sdpa;               /* plans of the attention library (sdpa.h), or NULL */
    char error[512];          /* text of the last failure */
    int sm;                   /* compute capability: 90 */
    int64_t sdpa_room;        /* workspace that the attention library may take */
    struct AdamwTable *adamw; /* rows of the last dev_adamw_rows (adamw.cu), or NULL */
} CudaState;

static inline CudaState *cuda_state(const Device *d) { return (CudaState *)d->impl; }
static inline cudaStream_t cuda_stream(const Device *d) { return cuda_state(d)->stream; }

extern "C" {

/* Code of a failed launch since the last call, its text kept with `what`; 0: none. */
int cuda_launched(Device *d, const char *what);

/* Keeps the text "what: detail" and returns a nonzero code: for libraries' failures. */
int cuda_failed(Device *d, const char *what, const char *detail);

/* At least `bytes` of device memory, 256-byte aligned, for one operation at a time: valid until the
 * next call. NULL, with the error kept, when there is no memory or when it would have to grow while
 * a graph is recorded (a first step outside of the graph makes it large enough). */
void *cuda_scratch(Device *d, int64_t bytes);

/* Life and memory (state.cu). */
void cuda_destroy(Device *d);
void *cuda_alloc(Device *d, int64_t bytes);
void cuda_free(Device *d, void *memory);
int cuda_upload(Device *d, Tensor dst, const void *host);
int cuda_download(Device *d, void *host, Tensor src);
int cuda_copy(Device *d, Tensor dst, Tensor src);
int cuda_sync(Device *d);
const char *cuda_error(Device *d, int code);
int64_t cuda_scratch_bytes(const Device *d);
int64_t cuda_memory_room(const Device *d);
DeviceGpu cuda_gpu(Device *d);
void cuda_limit_attention(Device *d, int64_t bytes);
int cuda_reserve_scratch(Device *d, int64_t bytes);
const void *cuda_some_kernel(void); /* one of the program's kernels, whichever (basic.cu) */
int cuda_step_begin(Device *d, StepVars *vars, const StepVars *host);

/* Graphs (graph.cu): see device_ops.h. graph_captured is an upload while one is recorded. */
int cuda_graph_record(Device *d, int64_t upload_bytes);
int cuda_graph_captured(Device *d, Tensor dst, const void *host);
int cuda_graph_finish(Device *d);
int cuda_graph_stage(Device *d, Tensor dst, const void *host, int64_t at);
int cuda_graph_launch(Device *d);
bool cuda_graph_usable(const Device *d);
void cuda_graph_free(Device *d);

/* Operations: arguments and contracts of the dev_* wrappers of device.h. */
int linear_fwd_cuda(Device *d, Tensor y, Tensor x, Tensor w, Tensor bias);
int linear_bwd_cuda(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w);
int expert_linear_fwd_cuda(Device *d, Tensor y, Tensor x, Tensor w, Tensor row_begin);
int expert_linear_bwd_cuda(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w,
                           Tensor row_begin);
int embed_fwd_cuda(Device *d, Tensor x, Tensor tokens, Tensor w);
int embed_bwd_cuda(Device *d, Tensor dw, Tensor dx, Tensor tokens);
int rmsnorm_fwd_cuda(Device *d, NormFwd a, double eps);
int rmsnorm_bwd_cuda(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd);
int swiglu_fwd_cuda(Device *d, Tensor h, Tensor gu);
int swiglu_bwd_cuda(Device *d, Tensor dgu, Tensor dh, Tensor gu);
int expert_each_fwd_cuda(Device *d, Tensor y, Tensor x, const Tensor *w, Tensor row_begin);
int expert_each_bwd_cuda(Device *d, EachGrad g, Tensor dy, Tensor x, const Tensor *w,
                         Tensor row_begin);
int expert_swiglu_fwd_cuda(Device *d, Tensor h, Tensor gu, const int32_t *widths, Tensor row_begin);
int expert_swiglu_bwd_cuda(Device *d, Tensor dgu, Tensor dh, Tensor gu, const int32_t *widths,
                           Tensor row_begin);
int qk_fwd_cuda(Device *d, Tensor y, Tensor rstd, Tensor x, Tensor w, const QkOpt *opt);
int qk_bwd_cuda(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd,
                const QkOpt *opt);
int attention_fwd_cuda(Device *d, AttnTensors a, const AttnOpt *opt);
int attention_bwd_cuda(Device *d, AttnGrad g, Tensor d_o, AttnTensors a, const AttnOpt *opt);
int router_fwd_cuda(Device *d, Tensor logits, Tensor x, Tensor w);
int router_bwd_cuda(Device *d, Tensor dx, Tensor dw, Tensor dlogits, Tensor x, Tensor w);
int route_fwd_cuda(Device *d, Routing *r, Tensor logits, const RouteOpt *opt);
int route_bwd_cuda(Device *d, Tensor dlogits, const Routing *r, Tensor dweight, Tensor logits,
                   const RouteOpt *opt);
int gate_noise_fwd_cuda(Device *d, Tensor noisy, Tensor clean, Tensor raw, const RouteOpt *opt);
int gate_noise_bwd_cuda(Device *d, Tensor draw, Tensor dnoisy, Tensor raw, const RouteOpt *opt);
int tanh_fwd_cuda(Device *d, Tensor y, Tensor x);
int tanh_bwd_cuda(Device *d, Tensor dx, Tensor dy, Tensor y);
int gate_cv_fwd_cuda(Device *d, const GateCv *t, const RouteOpt *opt);
int gate_cv_bwd_cuda(Device *d, const GateCv *t, double scale, const RouteOpt *opt);
int count_sum_cuda(Device *d, Tensor total, Tensor counts);
int balance_update_cuda(Device *d, Tensor f, Tensor bias, Tensor total, double tokens, double rate);
int dispatch_fwd_cuda(Device *d, Tensor xe, Tensor x, const Routing *r);
int dispatch_bwd_cuda(Device *d, Tensor dx, Tensor dxe, const Routing *r);
int combine_fwd_cuda(Device *d, Tensor y, Tensor base, Tensor ye, const Routing *r);
int combine_bwd_cuda(Device *d, Tensor dye, Tensor dweight, Tensor dy, Tensor ye, const Routing *r);
int ce_fwd_cuda(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
                const CeOpt *opt);
int ce_bwd_cuda(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
                const CeOpt *opt);
int ce_train_cuda(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt);
int nll_sum_cuda(Device *d, Tensor sum, Tensor lse, Tensor target_logit, Tensor targets);
int adamw_cuda(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars);
int adamw_rows_cuda(Device *d, const AdamwRow *rows, int n, const StepVars *vars);
void adamw_free(Device *d); /* the table of rows */
int muon_cuda(Device *d, MuonTensors t, const MuonOpt *opt, const StepVars *vars);
int clip_cuda(Device *d, StepVars *vars, Tensor sum, const ClipOpt *opt);
int sqsum_cuda(Device *d, Tensor sum, Tensor x);
int sqdiff_cuda(Device *d, Tensor sum, Tensor a, Tensor b);
int cast_cuda(Device *d, Tensor dst, Tensor src);
int fill_cuda(Device *d, Tensor t, double value);
int add_cuda(Device *d, Tensor y, Tensor a, Tensor b);

/* Measured peaks (peaks.cu): see device.h. */
double cuda_peaks_matrix(Device *d, DType type, double seconds);
double cuda_peaks_memory(Device *d, double seconds);

} /* extern "C" */

#endif
