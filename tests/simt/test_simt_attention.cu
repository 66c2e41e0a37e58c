/* tests/simt/test_simt_attention.cu - which attention calls go to the library's stand-in and which
 * to the own kernels, what both give, and what the stand-in refuses. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "device/cuda/sdpa.h"
#include "tests/simt/simt_expect.h"

extern "C" {
#include "device/device.h"
}

/* ---- A call -----------------------------------------------------------------------------------*/

enum { B = 2, T = 70, H = 4, G = 2, K = 16 };

struct Call {
    Device *d;
    std::vector<void *> memory; /* all of it */
    AttnTensors a;
    AttnGrad g;
    Tensor d_o;
    AttnOpt opt;
};

static float value(int64_t i, int seed) { return (float)((i * 7 + seed * 13) % 31 - 15) / 16; }

/* A tensor of made-up values, `skew` bytes behind an aligned address. */
static Tensor made(Call *c, Tensor t, int seed, int64_t skew)
{
    Device *d = c->d;
    int64_t n = tensor_elements(t), bytes = tensor_bytes(t);
    std::vector<float> x((size_t)n);
    std::vector<uint16_t> half((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        x[(size_t)i] = value(i, seed);
        half[(size_t)i] = bf16_from_f32(x[(size_t)i]);
    }
    Err e = {};
    c->memory.push_back(dev_alloc(d, bytes + skew, "tensor", &e));
    t.data = (char *)c->memory.back() + skew;
    dev_upload(d, t, t.type == DT_F32 ? (void *)x.data() : (void *)half.data());
    return t;
}

static Call new_call(DType type, int64_t skew)
{
    Err e = {};
    Call c = {};
    c.d = device_create("cuda", NULL, &e);
    if (!c.d) fail_msg("no emulated device");
    Tensor queries = tensor_4d(NULL, type, B, T, H, K), keys = tensor_4d(NULL, type, B, T, G, K);
    c.a.q = made(&c, queries, 1, skew);
    c.a.k = made(&c, keys, 2, 0);
    c.a.v = made(&c, keys, 3, 0);
    c.a.o = made(&c, queries, 4, 0);
    c.a.lse = made(&c, tensor_3d(NULL, DT_F32, B, H, T), 5, 0);
    c.d_o = made(&c, queries, 6, 0);
    c.g.dq = made(&c, queries, 7, 0);
    c.g.dk = made(&c, keys, 8, 0);
    c.g.dv = made(&c, keys, 9, 0);
    c.opt.scale = 0.25;
    return c;
}

static void end(Call *c)
{
    for (void *memory : c->memory) dev_free(c->d, memory);
    device_destroy(&c->d);
}

static std::vector<float> values_of(Device *d, Tensor t)
{
    std::vector<float> x((size_t)tensor_elements(t));
    std::vector<uint16_t> half(x.size());
    if (t.type == DT_F32) {
        dev_download(d, x.data(), t);
        return x;
    }
    dev_download(d, half.data(), t);
    for (size_t i = 0; i < x.size(); i++) x[i] = bf16_to_f32(half[i]);
    return x;
}

static void run_both(Call *c)
{
    dev_attention_fwd(c->d, c->a, &c->opt);
    dev_attention_bwd(c->d, c->g, c->d_o, c->a, &c->opt);
    dev_sync(c->d);
}

/* Calls of the library and launches of the own kernels that a forward and a backward pass make. */
static void expect_ways(Call *c, int library, int own)
{
    int64_t before[2] = {sim_launches("sdpa_"), sim_launches("attention_")};
    run_both(c);
    assert_int_equal(sim_launches("sdpa_") - before[0], library);
    assert_int_equal(sim_launches("attention_") - before[1], own);
    end(c);
}

/* ---- Who runs it ------------------------------------------------------------------------------*/

enum { OWN = 3 }; /* forward; dq; dk and dv */

static void dense_goes_to_the_library(void **)
{
    Call c = new_call(DT_BF16, 0);
    assert_string_equal(device_attention(c.d), "stand-in of the emulator");
    expect_ways(&c, 2, 0);
}

static void f32_goes_to_own_kernels(void **)
{
    Call c = new_call(DT_F32, 0);
    expect_ways(&c, 0, OWN);
}

static void unaligned_goes_to_own_kernels(void **)
{
    Call c = new_call(DT_BF16, 2);
    expect_ways(&c, 0, OWN);
}

/* Without one order the library has another graph: only the backward pass differs. */
static void any_order_reaches_the_library(void **)
{
    Call c = new_call(DT_BF16, 0);
    int64_t before = sim_launches("sdpa_bwd_any_order");
    run_both(&c);
    assert_int_equal(sim_launches("sdpa_bwd_any_order"), before);
    c.opt.any_order = true;
    run_both(&c);
    assert_int_equal(sim_launches("sdpa_bwd_any_order"), before + 1);
    end(&c);
}

/* Workspace beyond what is left for it: the backward pass is the own kernels'; one byte more is
 * the library's. */
static void limit_sends_to_own_kernels(void **)
{
    SdpaShape s = {B, T, H, G, K, 0.25, true, true, false};
    for (int more = 0; more < 2; more++) {
        Call c = new_call(DT_BF16, 0);
        device_limit_attention(c.d, sdpa_bytes(&s, device_gpu(c.d).sm) - 1 + more);
        expect_ways(&c, 1 + more, more ? 0 : OWN - 1);
    }
}

static void documents_go_to_own_kernels(void **)
{
    Call c = new_call(DT_BF16, 0);
    std::vector<int32_t> start((size_t)(B * T), 0);
    Err e = {};
    c.memory.push_back(dev_alloc(c.d, B * T * 4, "doc_start", &e));
    c.opt.doc_start = tensor_2d(c.memory.back(), DT_I32, B, T);
    dev_upload(c.d, c.opt.doc_start, start.data());
    expect_ways(&c, 0, OWN);
}

static void offsets_go_to_own_kernels(void **)
{
    Call c = new_call(DT_BF16, 0);
    c.opt.q_pos0 = 3;
    expect_ways(&c, 0, OWN);
}

static void shared_positions_go_to_the_library(void **)
{
    Call c = new_call(DT_BF16, 0);
    c.opt.q_pos0 = c.opt.k_pos0 = 17;
    expect_ways(&c, 2, 0);
}

static void variable_forces_own_kernels(void **)
{
    Call c = new_call(DT_BF16, 0);
    setenv("ISOMOE_ATTENTION", "own", 1);
    int64_t library = sim_launches("sdpa_");
    run_both(&c);
    unsetenv("ISOMOE_ATTENTION");
    assert_int_equal(sim_launches("sdpa_"), library);
    end(&c);
}

/* A value shared by layers: what dv was, plus what the library writes. */
static void added_values(void **)
{
    Call c = new_call(DT_BF16, 0);
    std::vector<float> before = values_of(c.d, c.g.dv);
    run_both(&c);
    std::vector<float> written = values_of(c.d, c.g.dv);
    c.g.dv = made(&c, c.g.dv, 9, 0);
    c.g.dv_add = true;
    run_both(&c);
    std::vector<float> added = values_of(c.d, c.g.dv);
    for (size_t i = 0; i < before.size(); i++)
        assert_true(added[i] == bf16_to_f32(bf16_from_f32(before[i] + written[i])));
    end(&c);
}

/* The library's numbers and the own kernels' differ by roundings to bf16 only. */
static void both_agree(void **)
{
    Call c = new_call(DT_BF16, 0);
    Tensor out[] = {c.a.o, c.a.lse, c.g.dq, c.g.dk, c.g.dv};
    run_both(&c);
    std::vector<std::vector<float>> library;
    for (const Tensor &t : out) library.push_back(values_of(c.d, t));
    setenv("ISOMOE_ATTENTION", "own", 1);
    run_both(&c);
    unsetenv("ISOMOE_ATTENTION");
    for (size_t j = 0; j < library.size(); j++) {
        std::vector<float> own = values_of(c.d, out[j]);
        double error = 0, size = 0;
        for (size_t i = 0; i < own.size(); i++) {
            error += pow(own[i] - library[j][i], 2);
            size += pow(own[i], 2);
        }
        assert_true(size > 0 && sqrt(error / size) < 0.01);
    }
    end(&c);
}

/* ---- What a tile does -------------------------------------------------------------------------*/

/* Numbers behind the mask are read, if at all, by nobody's result: NaN keys and values that no
 * query may see change no bit of a tile of their own. */
static void hidden_tiles_are_skipped(void **)
{
    Call c = new_call(DT_F32, 0);
    c.opt.k_pos0 = -64; /* all queries see the keys 0..63 + t: tile 0 whole, part of tile 1 */
    c.opt.q_pos0 = -64 - 6;
    dev_attention_fwd(c.d, c.a, &c.opt);
    std::vector<float> first = values_of(c.d, c.a.o);
    float nan[6 * G * K];
    for (float &x : nan) x = NAN;
    for (Tensor t : {c.a.k, c.a.v}) { /* keys 64..69 of the last batch: query 69 sees 0..63 */
        Tensor tail = tensor_1d((float *)t.data + (B * T - 6) * G * K, DT_F32, 6 * G * K);
        dev_upload(c.d, tail, nan);
    }
    dev_attention_fwd(c.d, c.a, &c.opt);
    assert_true(values_of(c.d, c.a.o) == first);
    end(&c);
}

/* ---- The stand-in -----------------------------------------------------------------------------*/

static void unaligned_library_call()
{
    Call c = new_call(DT_BF16, 2);
    SdpaShape s = {B, T, H, G, K, 0.25, false, true, false};
    const SdpaPlan *plan = sdpa_plan(c.d, &s, SDPA_CAUSAL);
    sdpa_fwd(c.d, plan, c.a, cuda_scratch(c.d, sdpa_workspace(plan)));
}

static void host_pointer_in_library_call()
{
    Call c = new_call(DT_BF16, 0);
    alignas(16) static uint16_t host[B * T * H * K];
    SdpaShape s = {B, T, H, G, K, 0.25, false, true, false};
    const SdpaPlan *plan = sdpa_plan(c.d, &s, SDPA_CAUSAL);
    c.a.q.data = host;
    sdpa_fwd(c.d, plan, c.a, cuda_scratch(c.d, sdpa_workspace(plan)));
}

static void small_workspace()
{
    Call c = new_call(DT_BF16, 0);
    SdpaShape s = {B, T, H, G, K, 0.25, true, true, false};
    const SdpaPlan *plan = sdpa_plan(c.d, &s, SDPA_CAUSAL);
    void *workspace = NULL;
    cudaMalloc(&workspace, (size_t)sdpa_workspace(plan) - 1);
    sdpa_bwd(c.d, plan, c.g, c.d_o, c.a, workspace);
    dev_sync(c.d);
}

static void odd_head()
{
    Call c = new_call(DT_BF16, 0);
    SdpaShape s = {B, T, H, G, 20, 0.25, false, true, false};
    sdpa_plan(c.d, &s, SDPA_CAUSAL);
}

static void stand_in_refuses(void **)
{
    expect_fault(unaligned_library_call, "not on 16 bytes");
    expect_fault(host_pointer_in_library_call, "sdpa: q");
    expect_fault(small_workspace, "sdpa: workspace");
    expect_fault(odd_head, "heads of 20");
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_goes_to_the_library),
        cmocka_unit_test(f32_goes_to_own_kernels),
        cmocka_unit_test(unaligned_goes_to_own_kernels),
        cmocka_unit_test(any_order_reaches_the_library),
        cmocka_unit_test(limit_sends_to_own_kernels),
        cmocka_unit_test(documents_go_to_own_kernels),
        cmocka_unit_test(offsets_go_to_own_kernels),
        cmocka_unit_test(shared_positions_go_to_the_library),
        cmocka_unit_test(variable_forces_own_kernels),
        cmocka_unit_test(added_values),
        cmocka_unit_test(both_agree),
        cmocka_unit_test(hidden_tiles_are_skipped),
        cmocka_unit_test(stand_in_refuses),
    };
    return cmocka_run_group_tests_name("simt_attention", tests, NULL, NULL);
}
