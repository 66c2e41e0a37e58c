/* device/cuda/state.cu - the CUDA device's life: which GPU, its stream, memory, copies, errors. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "device/cuda/cuda.h"
#include "device/cuda/gemm.h"
#include "device/cuda/sdpa.h"

extern "C" {
#include "base/size.h"

extern const DeviceOps cuda_ops;
}

/* ---- Errors -----------------------------------------------------------------------------------*/

int cuda_failed(Device *d, const char *what, const char *detail)
{
    CudaState *s = cuda_state(d);
    snprintf(s->error, sizeof s->error, "%s: %s", what, detail);
    return -1;
}

static int failed_if(Device *d, const char *what, cudaError_t code)
{
    return code == cudaSuccess ? 0 : cuda_failed(d, what, cudaGetErrorString(code));
}

int cuda_launched(Device *d, const char *what) { return failed_if(d, what, cudaGetLastError()); }

const char *cuda_error(Device *d, int code)
{
    const char *text = cuda_state(d)->error;
    (void)code;
    return text[0] ? text : "no failure is known";
}

/* ---- Memory -----------------------------------------------------------------------------------*/

void *cuda_alloc(Device *d, int64_t bytes)
{
    (void)d;
    void *memory = NULL;
    if (cudaMalloc(&memory, (size_t)bytes) == cudaSuccess) return memory;
    (void)cudaGetLastError(); /* the failure is told by NULL */
    return NULL;
}

void cuda_free(Device *d, void *memory)
{
    (void)d;
    cudaFree(memory);
}

void *cuda_scratch(Device *d, int64_t bytes)
{
    CudaState *s = cuda_state(d);
    if (bytes <= s->scratch_bytes) return s->scratch;
    if (s->capturing) {
        cuda_failed(d, "scratch memory", "would grow while a graph is recorded");
        return NULL;
    }
    int64_t wanted = size_round_up(bytes, 1 << 20);
    if (failed_if(d, "scratch memory", cudaStreamSynchronize(s->stream))) return NULL;
    cudaFree(s->scratch);
    s->scratch_bytes = 0;
    s->scratch = cuda_alloc(d, wanted);
    if (!s->scratch) {
        cuda_failed(d, "scratch memory", "out of memory");
        return NULL;
    }
    s->scratch_bytes = wanted;
    s->scratch_moves++;
    return s->scratch;
}

int64_t cuda_scratch_bytes(const Device *d)
{
    const CudaState *s = cuda_state(d);
    return s->scratch_bytes + s->lt_workspace_bytes;
}

int64_t cuda_memory_room(const Device *d)
{
    size_t unused = 0, total = 0;
    (void)d;
    if (cudaMemGetInfo(&unused, &total) == cudaSuccess) return (int64_t)unused;
    (void)cudaGetLastError();
    return -1;
}

DeviceGpu cuda_gpu(Device *d)
{
    const CudaState *s = cuda_state(d);
    return DeviceGpu{s->sm, (int64_t)s->memory, sdpa_usable(d)};
}

int cuda_reserve_scratch(Device *d, int64_t bytes)
{
    return cuda_scratch(d, bytes) ? 0 : -1;
}

void cuda_limit_attention(Device *d, int64_t bytes) { cuda_state(d)->sdpa_room = bytes; }

/* Staging memory of at least `bytes`, whose earlier contents have left. */
static void *staging(Device *d, int64_t bytes)
{
    CudaState *s = cuda_state(d);
    if (failed_if(d, "staging memory", cudaEventSynchronize(s->staged))) return NULL;
    if (bytes <= s->pinned_bytes) return s->pinned;
    cudaFreeHost(s->pinned);
    s->pinned = NULL;
    s->pinned_bytes = 0;
    int64_t wanted = size_round_up(bytes, 1 << 20);
    if (failed_if(d, "staging memory", cudaMallocHost(&s->pinned, (size_t)wanted))) return NULL;
    s->pinned_bytes = wanted;
    return s->pinned;
}

static int upload_bytes(Device *d, void *dst, const void *host, int64_t bytes)
{
    CudaState *s = cuda_state(d);
    void *from = bytes ? staging(d, bytes) : NULL;
    if (!bytes) return 0;
    if (!from) return -1;
    memcpy(from, host, (size_t)bytes);
    cudaMemcpyAsync(dst, from, (size_t)bytes, cudaMemcpyHostToDevice, s->stream);
    cudaEventRecord(s->staged, s->stream);
    return cuda_launched(d, "upload");
}

int cuda_upload(Device *d, Tensor dst, const void *host)
{
    if (cuda_state(d)->capturing) return cuda_graph_captured(d, dst, host);
    return upload_bytes(d, dst.data, host, tensor_bytes(dst));
}

int cuda_step_begin(Device *d, StepVars *vars, const StepVars *host)
{
    return upload_bytes(d, vars, host, sizeof *vars);
}

int cuda_download(Device *d, void *host, Tensor src)
{
    CudaState *s = cuda_state(d);
    size_t bytes = (size_t)tensor_bytes(src);
    if (!bytes) return 0;
    cudaError_t rc = cudaMemcpyAsync(host, src.data, bytes, cudaMemcpyDeviceToHost, s->stream);
    return failed_if(d, "download", rc != cudaSuccess ? rc : cudaStreamSynchronize(s->stream));
}

int cuda_copy(Device *d, Tensor dst, Tensor src)
{
    size_t bytes = (size_t)tensor_bytes(src);
    if (!bytes || dst.data == src.data) return 0;
    cudaMemcpyAsync(dst.data, src.data, bytes, cudaMemcpyDeviceToDevice, cuda_stream(d));
    return cuda_launched(d, "copy");
}

int cuda_sync(Device *d)
{
    return failed_if(d, "sync", cudaStreamSynchronize(cuda_stream(d)));
}

/* ---- Life -------------------------------------------------------------------------------------*/

void cuda_destroy(Device *d)
{
    CudaState *s = cuda_state(d);
    if (s->stream) cudaStreamSynchronize(s->stream);
    cuda_graph_free(d);
    adamw_free(d);
    gemm_close(s);
    sdpa_free(d);
    cudaFree(s->scratch);
    cudaFree(s->lt_workspace);
    cudaFreeHost(s->pinned);
    if (s->staged) cudaEventDestroy(s->staged);
    if (s->stream) cudaStreamDestroy(s->stream);
    free(s);
    d->impl = NULL;
}

/* Everything that the device holds from its first to its last operation. */
static int make_state(Device *d, Err *e)
{
    CudaState *s = cuda_state(d);
    cudaDeviceProp p;
    cudaError_t rc = cudaSetDevice(s->ordinal);
    if (rc == cudaSuccess) rc = cudaGetDeviceProperties(&p, s->ordinal);
    if (rc == cudaSuccess) rc = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (rc == cudaSuccess) rc = cudaEventCreateWithFlags(&s->staged, cudaEventDisableTiming);
    if (rc != cudaSuccess) return err_set(e, "device 'cuda': %s", cudaGetErrorString(rc));
    s->sms = p.multiProcessorCount;
    s->memory = p.totalGlobalMem;
    s->sm = p.major * 10 + p.minor;
    s->sdpa_room = sdpa_most((int64_t)s->memory);
    snprintf(s->name, sizeof s->name, "%.100s (sm_%d%d)", p.name, p.major, p.minor);
    s->chunk_bytes = SCRATCH_CHUNK_BYTES;
    if (p.major < 8) {
        err_set(e, "device 'cuda': %s is too old", s->name);
        return err_hint(e, "compute capability 8.0 (A100) or later is needed; device: cpu works");
    }
    cudaFuncAttributes code;
    rc = cudaFuncGetAttributes(&code, cuda_some_kernel());
    if (rc == cudaSuccess) return gemm_open(s, e);
    (void)cudaGetLastError();
    err_set(e, "device 'cuda': this program has no code that %s runs: %s", s->name,
            cudaGetErrorString(rc));
    return err_hint(e, "build with `make CUDA_ARCHS=%d%d`, or update the driver; device: cpu works",
                    p.major, p.minor);
}

extern const bool cuda_device_built = true;

int cuda_device_init(Device *d, const DeviceOptions *options, Err *e)
{
    (void)options;
    int count = 0;
    cudaError_t rc = cudaGetDeviceCount(&count);
    if (rc != cudaSuccess || count == 0) {
        err_set(e, "device 'cuda': no GPU that can be used: %s",
                rc != cudaSuccess ? cudaGetErrorString(rc) : "none found");
        return err_hint(e, "use device: cpu (or auto); `nvidia-smi` shows what the driver sees");
    }
    CudaState *s = (CudaState *)calloc(1, sizeof *s);
    if (!s) return err_set(e, "out of memory for the CUDA device");
    d->impl = s;
    d->ops = &cuda_ops;
    d->variant = s->name;
    d->threads = 1;
    if (!make_state(d, e)) return 0;
    cuda_destroy(d);
    return -1;
}
