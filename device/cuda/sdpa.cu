/* device/cuda/sdpa.cu - attention by cuDNN; see sdpa.h. The graphs are sdpa_graph.cu's. */
#include "device/cuda/sdpa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cuda/sdpa_graph.h"

#ifdef SDPA_BUILT
struct SdpaPlan {
    SdpaShape shape;
    cudnnBackendDescriptor_t plan; /* NULL: refused */
    SdpaGraph graph;
    int64_t library_bytes; /* of the workspace; SDPA_DQ_SUM follows where there is one */
    int64_t bytes;
    SdpaPlan *next;
};

typedef struct SdpaState {
    bool usable; /* library and handle are there */
    SdpaLib lib;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t gpu;
    int sm;
    SdpaPlan *plans;
    char about[400];
} SdpaState;

/* ---- Life -------------------------------------------------------------------------------------*/

static void start(Device *d, SdpaState *s)
{
    char why[256] = "";
    int ordinal = cuda_state(d)->ordinal;
    snprintf(s->about, sizeof s->about, "own kernels: out of memory");
    s->sm = cuda_state(d)->sm;
    bool ok = sdpa_lib_open(&s->lib, why, sizeof why);
    if (ok && s->lib.handle_create(&s->handle) != CUDNN_STATUS_SUCCESS) {
        s->lib.last_error(why, sizeof why);
        s->handle = NULL;
        ok = false;
    }
    if (ok) s->gpu = sdpa_target_gpu(&s->lib, ordinal, why);
    s->usable = ok && s->gpu &&
                s->lib.handle_stream(s->handle, cuda_stream(d)) == CUDNN_STATUS_SUCCESS;
    size_t v = s->lib.version ? s->lib.version() : 0;
    if (s->usable)
        snprintf(s->about, sizeof s->about, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    else
        snprintf(s->about, sizeof s->about, "own kernels: %s", why);
}

/* The device's state, made on first use; NULL without memory. */
static SdpaState *state_of(Device *d)
{
    CudaState *c = cuda_state(d);
    if (c->sdpa) return (SdpaState *)c->sdpa;
    SdpaState *s = (SdpaState *)calloc(1, sizeof *s);
    if (!s) return NULL;
    c->sdpa = s;
    start(d, s);
    return s;
}

void sdpa_free(Device *d)
{
    SdpaState *s = (SdpaState *)cuda_state(d)->sdpa;
    if (!s) return;
    while (s->plans) {
        SdpaPlan *p = s->plans;
        s->plans = p->next;
        if (p->plan) s->lib.destroy(p->plan);
        sdpa_graph_free(&p->graph);
        free(p);
    }
    if (s->gpu) s->lib.destroy(s->gpu);
    if (s->handle) s->lib.handle_destroy(s->handle);
    free(s);
    cuda_state(d)->sdpa = NULL;
}

bool sdpa_usable(Device *d)
{
    const SdpaState *s = state_of(d);
    return s && s->usable;
}

const char *sdpa_about(Device *d)
{
    const SdpaState *s = state_of(d);
    return s ? s->about : "own kernels: out of memory";
}

/* ---- Plans ------------------------------------------------------------------------------------*/

static bool same_shape(const SdpaShape *a, const SdpaShape *b)
{
    return a->B == b->B && a->T == b->T && a->H == b->H && a->G == b->G && a->K == b->K &&
           a->scale == b->scale && a->backward == b->backward &&
           a->deterministic == b->deterministic;
}

static int64_t dq_sum_bytes(const SdpaShape *s)
{
    return s->backward && !s->deterministic ? s->B * s->H * s->T * s->K * 4 : 0;
}

/* A refused shape is kept too, so that it is asked once, and said with its reason. */
static SdpaPlan *new_plan(SdpaState *s, const SdpaShape *shape)
{
    SdpaPlan *p = (SdpaPlan *)calloc(1, sizeof *p);
    if (!p) return NULL;
    p->shape = *shape;
    sdpa_graph_make(&p->graph, &s->lib, shape);
    p->plan = sdpa_graph_plan(&p->graph, s->gpu, s->sm, &p->library_bytes);
    p->library_bytes = (p->library_bytes + 255) / 256 * 256;
    p->bytes = p->library_bytes + dq_sum_bytes(shape);
    if (!p->plan) {
        size_t used = strlen(s->about);
        if (!strchr(s->about, ';'))
            snprintf(s->about + used, sizeof s->about - used, "; not every shape: %s",
                     p->graph.error);
    }
    p->next = s->plans;
    s->plans = p;
    return p;
}

const SdpaPlan *sdpa_plan(Device *d, const SdpaShape *shape, SdpaMask mask)
{
    (void)mask; /* there is one */
    SdpaState *s = state_of(d);
    if (!s || !s->usable) return NULL;
    SdpaPlan *p = s->plans;
    while (p && !same_shape(&p->shape, shape)) p = p->next;
    if (!p && !cuda_state(d)->capturing) p = new_plan(s, shape);
    return p && p->plan ? p : NULL;
}

int64_t sdpa_workspace(const SdpaPlan *plan) { return plan->bytes; }

/* ---- Calls ------------------------------------------------------------------------------------*/

/* Tensors by name (SDPA_Q..); NULL: not bound. */
typedef struct Binding {
    void *at[SDPA_NAMES];
} Binding;

static int execute(Device *d, const SdpaPlan *p, const Binding *b, void *workspace)
{
    SdpaState *s = (SdpaState *)cuda_state(d)->sdpa;
    int64_t name[SDPA_NAMES];
    void *pointer[SDPA_NAMES];
    int n = 0;
    for (int i = 0; i < SDPA_NAMES; i++) {
        if (!b->at[i]) continue;
        name[n] = i;
        pointer[n++] = b->at[i];
    }
    const SdpaLib *lib = &s->lib;
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t rc = lib->create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (rc == CUDNN_STATUS_SUCCESS)
        rc = lib->set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, name);
    if (rc == CUDNN_STATUS_SUCCESS)
        rc = lib->set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n,
                      pointer);
    if (rc == CUDNN_STATUS_SUCCESS)
        rc = lib->set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (rc == CUDNN_STATUS_SUCCESS) rc = lib->finalize(pack);
    if (rc == CUDNN_STATUS_SUCCESS) rc = lib->execute(s->handle, p->plan, pack);
    if (pack) lib->destroy(pack);
    if (rc == CUDNN_STATUS_SUCCESS) return 0;
    char detail[200] = "", text[300];
    lib->last_error(detail, sizeof detail);
    snprintf(text, sizeof text, "%s %s", lib->status_text(rc), detail);
    return cuda_failed(d, "cuDNN attention", text);
}

static void bind_inputs(Binding *b, const AttnTensors *a)
{
    b->at[SDPA_Q] = a->q.data;
    b->at[SDPA_K] = a->k.data;
    b->at[SDPA_V] = a->v.data;
    b->at[SDPA_O] = a->o.data;
    b->at[SDPA_LSE] = a->lse.data;
}

int sdpa_fwd(Device *d, const SdpaPlan *plan, AttnTensors a, void *workspace)
{
    float scale = (float)plan->shape.scale, hidden = -INFINITY;
    Binding b = {};
    bind_inputs(&b, &a);
    b.at[SDPA_SCALE] = &scale;
    b.at[SDPA_HIDDEN] = &hidden;
    return execute(d, plan, &b, workspace);
}

int sdpa_bwd(Device *d, const SdpaPlan *plan, AttnGrad g, Tensor d_o, AttnTensors a,
             void *workspace)
{
    float scale = (float)plan->shape.scale, hidden = -INFINITY, one = 1.0f;
    Binding b = {};
    bind_inputs(&b, &a);
    b.at[SDPA_DO] = d_o.data;
    b.at[SDPA_DQ] = g.dq.data;
    b.at[SDPA_DK] = g.dk.data;
    b.at[SDPA_DV] = g.dv.data;
    b.at[SDPA_SCALE] = &scale;
    b.at[SDPA_HIDDEN] = &hidden;
    b.at[SDPA_ONE] = &one;
    if (dq_sum_bytes(&plan->shape)) b.at[SDPA_DQ_SUM] = (char *)workspace + plan->library_bytes;
    return execute(d, plan, &b, workspace);
}

#else

struct SdpaPlan {
    int none;
};

const SdpaPlan *sdpa_plan(Device *d, const SdpaShape *shape, SdpaMask mask)
{
    (void)d;
    (void)shape;
    (void)mask;
    return NULL;
}

int64_t sdpa_workspace(const SdpaPlan *plan)
{
    (void)plan;
    return 0;
}

int sdpa_fwd(Device *d, const SdpaPlan *plan, AttnTensors a, void *workspace)
{
    (void)plan;
    (void)a;
    (void)workspace;
    return cuda_failed(d, "cuDNN attention", "not built");
}

int sdpa_bwd(Device *d, const SdpaPlan *plan, AttnGrad g, Tensor d_o, AttnTensors a,
             void *workspace)
{
    (void)g;
    (void)d_o;
    return sdpa_fwd(d, plan, a, workspace);
}

void sdpa_free(Device *d) { (void)d; }

bool sdpa_usable(Device *d)
{
    (void)d;
    return false;
}

const char *sdpa_about(Device *d)
{
    (void)d;
    return "own kernels: built without cuDNN's headers (9.19 or later)";
}
#endif
