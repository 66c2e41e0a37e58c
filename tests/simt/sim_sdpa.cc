/* tests/simt/sim_sdpa.cc - stand-in for the attention library behind device/cuda/sdpa.h.
 *
 * Plain loops over bf16 tensors, sums in f64 in one order, P and dS rounded to bf16 as the library
 * rounds them before a product. It checks what the library would go wrong on (shapes, alignment,
 * addresses of live device memory, workspace) and tells the emulator what it reads and writes; the
 * workspace is overwritten, so that nothing else can live there.
 */
#include <math.h>
#include <string.h>

#include <vector>

#include "device/cuda/sdpa.h"
#include "tests/simt/sim.h"
#include "tests/simt/sim_stream.h"

enum { SIM_SM = 90 }; /* whose workspace it asks for */

struct SdpaPlan {
    SdpaShape shape;
    SdpaPlan *next;
};

/* ---- Plans ------------------------------------------------------------------------------------*/

const SdpaPlan *sdpa_plan(Device *d, const SdpaShape *shape, SdpaMask mask)
{
    CudaState *c = cuda_state(d);
    if (mask != SDPA_CAUSAL) sim_fault(NULL, "sdpa_plan: unknown mask %d", (int)mask);
    if (shape->B < 1 || shape->T < 1 || shape->G < 1 || shape->H % shape->G != 0)
        sim_fault(NULL, "sdpa_plan: no such shape");
    if (shape->K < 8 || shape->K > 128 || shape->K % 8 != 0)
        sim_fault(NULL, "sdpa_plan: heads of %lld numbers", (long long)shape->K);
    for (SdpaPlan *p = (SdpaPlan *)c->sdpa; p; p = p->next) {
        const SdpaShape *s = &p->shape;
        if (s->B == shape->B && s->T == shape->T && s->H == shape->H && s->G == shape->G &&
            s->K == shape->K && s->scale == shape->scale && s->backward == shape->backward &&
            s->deterministic == shape->deterministic)
            return p;
    }
    if (c->capturing) return NULL;
    SdpaPlan *p = new SdpaPlan{*shape, (SdpaPlan *)c->sdpa};
    c->sdpa = p;
    return p;
}

int64_t sdpa_workspace(const SdpaPlan *plan) { return sdpa_bytes(&plan->shape, SIM_SM); }

void sdpa_free(Device *d)
{
    CudaState *c = cuda_state(d);
    while (c->sdpa) {
        SdpaPlan *p = (SdpaPlan *)c->sdpa;
        c->sdpa = p->next;
        delete p;
    }
}

bool sdpa_usable(Device *) { return true; }

const char *sdpa_about(Device *d)
{
    (void)d;
    return "stand-in of the emulator";
}

/* ---- Calls ------------------------------------------------------------------------------------*/

namespace {

/* One call; the scalars are those of the time of the call. */
struct Call {
    SdpaShape s;
    const uint16_t *q, *k, *v, *d_o;
    uint16_t *o, *dq, *dk, *dv; /* o, lse: read by the backward pass */
    float *lse;
    char *workspace;
    int64_t bytes;
};

float number(uint16_t bits) { return bf16_to_f32(bits); }
double rounded(double x) { return bf16_to_f32(bf16_from_f32((float)x)); }

int64_t query_bytes(const SdpaShape &s) { return s.B * s.T * s.H * s.K * 2; }
int64_t key_bytes(const SdpaShape &s) { return s.B * s.T * s.G * s.K * 2; }
int64_t lse_bytes(const SdpaShape &s) { return s.B * s.H * s.T * 4; }

void need(const void *at, int64_t bytes, const char *what)
{
    if ((uintptr_t)at % 16 != 0) sim_fault(NULL, "%s: %p is not on 16 bytes", what, at);
    sim_need_device(at, (size_t)bytes, what);
}

void read(const void *at, int64_t bytes, const char *what) { sim_op_read(at, (size_t)bytes, what); }
void write(void *at, int64_t bytes, const char *what) { sim_op_write(at, (size_t)bytes, what); }

/* First element of query t or key t of head h. */
int64_t at(const SdpaShape &s, int64_t heads, int64_t b, int64_t t, int64_t h)
{
    return ((b * s.T + t) * heads + h) * s.K;
}

double dot(const uint16_t *x, const uint16_t *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)number(x[i]) * number(y[i]);
    return sum;
}

void forward_query(const Call &c, int64_t b, int64_t t, int64_t h)
{
    const SdpaShape &s = c.s;
    int64_t g = h / (s.H / s.G), row = at(s, s.H, b, t, h);
    std::vector<double> p(t + 1), out(s.K);
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= t; j++) {
        p[j] = s.scale * dot(c.q + row, c.k + at(s, s.G, b, j, g), s.K);
        max = fmax(max, p[j]);
    }
    for (int64_t j = 0; j <= t; j++) sum += p[j] = exp(p[j] - max);
    for (int64_t j = 0; j <= t; j++) {
        const uint16_t *v = c.v + at(s, s.G, b, j, g);
        for (int64_t i = 0; i < s.K; i++) out[i] += rounded(p[j] / sum) * number(v[i]);
    }
    for (int64_t i = 0; i < s.K; i++) c.o[row + i] = bf16_from_f32((float)out[i]);
    c.lse[(b * s.H + h) * s.T + t] = (float)(max + log(sum));
}

void run_forward(const Call &c)
{
    read(c.q, query_bytes(c.s), "sdpa_fwd: q");
    read(c.k, key_bytes(c.s), "sdpa_fwd: k");
    read(c.v, key_bytes(c.s), "sdpa_fwd: v");
    write(c.o, query_bytes(c.s), "sdpa_fwd: o");
    write(c.lse, lse_bytes(c.s), "sdpa_fwd: lse");
    write(c.workspace, c.bytes, "sdpa_fwd: workspace");
    memset(c.workspace, 0xff, (size_t)c.bytes);
    for (int64_t b = 0; b < c.s.B; b++)
        for (int64_t t = 0; t < c.s.T; t++)
            for (int64_t h = 0; h < c.s.H; h++) forward_query(c, b, t, h);
}

/* Sums of a (batch, key head): (T, K) each. */
struct KeySums {
    std::vector<double> dk, dv;
};

void backward_query(const Call &c, KeySums *sums, int64_t b, int64_t t, int64_t h)
{
    const SdpaShape &s = c.s;
    int64_t g = h / (s.H / s.G), row = at(s, s.H, b, t, h);
    const uint16_t *q = c.q + row, *d_o = c.d_o + row;
    double lse = c.lse[(b * s.H + h) * s.T + t], d = dot(d_o, c.o + row, s.K);
    std::vector<double> dq(s.K);
    for (int64_t j = 0; j <= t; j++) {
        const uint16_t *k = c.k + at(s, s.G, b, j, g), *v = c.v + at(s, s.G, b, j, g);
        double p = exp(s.scale * dot(q, k, s.K) - lse);
        double ds = rounded(s.scale * p * (dot(d_o, v, s.K) - d));
        p = rounded(p);
        for (int64_t i = 0; i < s.K; i++) {
            dq[i] += ds * number(k[i]);
            sums->dk[j * s.K + i] += ds * number(q[i]);
            sums->dv[j * s.K + i] += p * number(d_o[i]);
        }
    }
    for (int64_t i = 0; i < s.K; i++) c.dq[row + i] = bf16_from_f32((float)dq[i]);
}

void backward_pair(const Call &c, int64_t b, int64_t g)
{
    const SdpaShape &s = c.s;
    int64_t group = s.H / s.G;
    KeySums sums = {std::vector<double>(s.T * s.K), std::vector<double>(s.T * s.K)};
    for (int64_t h = g * group; h < (g + 1) * group; h++)
        for (int64_t t = 0; t < s.T; t++) backward_query(c, &sums, b, t, h);
    for (int64_t t = 0; t < s.T; t++) {
        for (int64_t i = 0; i < s.K; i++) {
            c.dk[at(s, s.G, b, t, g) + i] = bf16_from_f32((float)sums.dk[t * s.K + i]);
            c.dv[at(s, s.G, b, t, g) + i] = bf16_from_f32((float)sums.dv[t * s.K + i]);
        }
    }
}

void run_backward(const Call &c)
{
    read(c.q, query_bytes(c.s), "sdpa_bwd: q");
    read(c.k, key_bytes(c.s), "sdpa_bwd: k");
    read(c.v, key_bytes(c.s), "sdpa_bwd: v");
    read(c.o, query_bytes(c.s), "sdpa_bwd: o");
    read(c.lse, lse_bytes(c.s), "sdpa_bwd: lse");
    read(c.d_o, query_bytes(c.s), "sdpa_bwd: do");
    write(c.dq, query_bytes(c.s), "sdpa_bwd: dq");
    write(c.dk, key_bytes(c.s), "sdpa_bwd: dk");
    write(c.dv, key_bytes(c.s), "sdpa_bwd: dv");
    write(c.workspace, c.bytes, "sdpa_bwd: workspace");
    memset(c.workspace, 0xff, (size_t)c.bytes);
    for (int64_t b = 0; b < c.s.B; b++)
        for (int64_t g = 0; g < c.s.G; g++) backward_pair(c, b, g);
}

Call call_of(const SdpaPlan *plan, const AttnTensors &a, void *workspace)
{
    Call c = {};
    c.s = plan->shape;
    c.q = (const uint16_t *)a.q.data;
    c.k = (const uint16_t *)a.k.data;
    c.v = (const uint16_t *)a.v.data;
    c.o = (uint16_t *)a.o.data;
    c.lse = (float *)a.lse.data;
    c.workspace = (char *)workspace;
    c.bytes = sdpa_workspace(plan);
    need(c.q, query_bytes(c.s), "sdpa: q");
    need(c.k, key_bytes(c.s), "sdpa: k");
    need(c.v, key_bytes(c.s), "sdpa: v");
    need(c.o, query_bytes(c.s), "sdpa: o");
    need(c.lse, lse_bytes(c.s), "sdpa: lse");
    if ((uintptr_t)workspace % 256 != 0) sim_fault(NULL, "sdpa: workspace is not on 256 bytes");
    need(c.workspace, c.bytes, "sdpa: workspace");
    return c;
}

} // namespace

int sdpa_fwd(Device *d, const SdpaPlan *plan, AttnTensors a, void *workspace)
{
    if (plan->shape.backward) sim_fault(NULL, "sdpa_fwd: the plan is a backward one");
    Call c = call_of(plan, a, workspace);
    auto body = [=] { run_forward(c); };
    sim_enqueue_work("sdpa_fwd", cuda_stream(d), SimWork{"sdpa_fwd", 0, body, nullptr});
    return 0;
}

int sdpa_bwd(Device *d, const SdpaPlan *plan, AttnGrad g, Tensor d_o, AttnTensors a,
             void *workspace)
{
    if (!plan->shape.backward) sim_fault(NULL, "sdpa_bwd: the plan is a forward one");
    if (g.dv_add) sim_fault(NULL, "sdpa_bwd: adds nothing");
    Call c = call_of(plan, a, workspace);
    c.d_o = (const uint16_t *)d_o.data;
    c.dq = (uint16_t *)g.dq.data;
    c.dk = (uint16_t *)g.dk.data;
    c.dv = (uint16_t *)g.dv.data;
    need(c.d_o, query_bytes(c.s), "sdpa: do");
    need(c.dq, query_bytes(c.s), "sdpa: dq");
    need(c.dk, key_bytes(c.s), "sdpa: dk");
    need(c.dv, key_bytes(c.s), "sdpa: dv");
    auto body = [=] { run_backward(c); };
    const char *name = plan->shape.deterministic ? "sdpa_bwd" : "sdpa_bwd_any_order";
    sim_enqueue_work(name, cuda_stream(d), SimWork{name, 0, body, nullptr});
    return 0;
}
