/* device/cuda/attention.cu - attention: which kernel runs a call.
 *
 * The library (sdpa.h) has bf16 tensors, aligned, of the whole causal square without documents, and
 * heads that its kernels on every supported GPU take; the backward pass as long as its workspace,
 * which grows with T x T on some of them, stays below what device_limit_attention says, by default
 * an eighth of the GPU's memory (sdpa_bytes.h; train/gpu_memory.h plans by the same). All else goes
 * to the own kernels (attention_fwd.cu, attention_bwd.cu), as does everything where the library is
 * absent, refuses the shape, or ISOMOE_ATTENTION=own says so. The choice follows from shapes,
 * alignment and machine: the same call takes the same way every time.
 */
#include "device/cuda/attention.cuh"

#include <stdlib.h>
#include <string.h>

#include "device/cuda/sdpa.h"

static bool own_only(void)
{
    const char *forced = getenv("ISOMOE_ATTENTION");
    return forced && !strcmp(forced, "own");
}

static bool aligned(Tensor t) { return (uintptr_t)t.data % 16 == 0; }

/* The library's plan for a call, or NULL. */
static const SdpaPlan *plan_of(Device *d, const AttnTensors *a, const AttnOpt *opt, bool backward)
{
    SdpaShape s = {};
    s.B = a->q.dim[0];
    s.T = a->q.dim[1];
    s.H = a->q.dim[2];
    s.K = a->q.dim[3];
    s.G = a->k.dim[2];
    s.scale = opt->scale;
    s.backward = backward;
    s.deterministic = !backward || !opt->any_order;
    bool square = a->k.dim[1] == s.T && opt->q_pos0 == opt->k_pos0;
    if (a->q.type != DT_BF16 || !square || tensor_given(opt->doc_start)) return NULL;
    if (!sdpa_takes(&s) || own_only()) return NULL;
    if (!aligned(a->q) || !aligned(a->k) || !aligned(a->v) || !aligned(a->o) || !aligned(a->lse))
        return NULL;
    const SdpaPlan *plan = sdpa_plan(d, &s, SDPA_CAUSAL);
    if (!plan) return NULL;
    return sdpa_workspace(plan) <= cuda_state(d)->sdpa_room ? plan : NULL;
}

int attention_fwd_cuda(Device *d, AttnTensors a, const AttnOpt *opt)
{
    const SdpaPlan *plan = plan_of(d, &a, opt, false);
    if (!plan) return attn_own_fwd(d, a, opt);
    void *workspace = cuda_scratch(d, sdpa_workspace(plan) + 1);
    return workspace ? sdpa_fwd(d, plan, a, workspace) : -1;
}

int attention_bwd_cuda(Device *d, AttnGrad g, Tensor d_o, AttnTensors a, const AttnOpt *opt)
{
    const SdpaPlan *plan = plan_of(d, &a, opt, true);
    if (!plan || !aligned(d_o) || !aligned(g.dq) || !aligned(g.dk) || !aligned(g.dv))
        return attn_own_bwd(d, g, d_o, a, opt);
    int64_t bytes = (sdpa_workspace(plan) + 255) / 256 * 256;
    char *workspace = (char *)cuda_scratch(d, bytes + (g.dv_add ? tensor_bytes(g.dv) : 0) + 1);
    if (!workspace) return -1;
    if (!g.dv_add) return sdpa_bwd(d, plan, g, d_o, a, workspace);
    /* the library writes dv: into scratch, then added */
    Tensor dv = g.dv;
    g.dv.data = workspace + bytes;
    g.dv_add = false;
    int rc = sdpa_bwd(d, plan, g, d_o, a, workspace);
    return rc ? rc : add_cuda(d, dv, dv, g.dv);
}
