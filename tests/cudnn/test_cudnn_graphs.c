/* tests/cudnn/test_cudnn_graphs.c - the real cuDNN takes our attention graphs, on a machine without
 * a GPU: for descriptions of an A100, H100, B200 it offers engines for a grid of shapes, and
 * compiles plans for a few. It says nothing about numbers or speed.
 *
 * The process starts itself again with the stand-in driver library (fake_cuda.c) first in the
 * loader's path. Skipped where this build or machine has no cuDNN.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/cuda/sdpa_graph.h"
#include "device/sdpa_bytes.h"

#ifdef SDPA_BUILT
#include <math.h>

#include "tests/cudnn/graph_eval.h"
#include "tests/cudnn/gpus.h"
#include "tests/ref/ref.h"

#pragma weak sdpa_lib_open
#pragma weak sdpa_layout_fault
#pragma weak sdpa_graph_make
#pragma weak sdpa_graph_free
#pragma weak sdpa_target_json
#pragma weak sdpa_graph_engines
#pragma weak sdpa_graph_plan

enum { ENGINES = 8 };

static SdpaLib lib;
static char why[256] = "this build has no CUDA device";
static bool ready;
static cudnnBackendDescriptor_t target[GPUS];

static int open_library(void **state)
{
    (void)state;
    ready = sdpa_lib_open && sdpa_lib_open(&lib, why, sizeof why);
    for (int i = 0; ready && i < GPUS; i++) {
        char json[GPU_TEXT];
        gpu_json(&gpus[i], json);
        target[i] = sdpa_target_json(&lib, json, why);
        if (!target[i]) return -1;
    }
    if (!ready) printf("cuDNN: %s: skipped\n", why);
    return 0;
}

static void need_library(void)
{
    if (!ready) skip();
}

static bool long_run(void) { return getenv("ISOMOE_LONG") != NULL; }

static const char *shape_text(const SdpaShape *s, const Gpu *gpu)
{
    static char text[160];
    snprintf(text, sizeof text, "sm_%d B %d T %d H %d G %d K %d %s%s%s", gpu->sm, (int)s->B,
             (int)s->T, (int)s->H, (int)s->G, (int)s->K, s->backward ? "backward" : "forward",
             s->backward && s->deterministic ? " deterministic" : "",
             s->documents ? " documents" : "");
    return text;
}

/* What is wrong with the library's workspace for a shape, or NULL: where the pass is deterministic
 * the closed form is a kilobyte at most above it (21 and one each with documents), else at least as
 * much. */
static const char *workspace_fault(const SdpaShape *s, int gpu, int64_t bytes)
{
    int64_t told = sdpa_bytes(s, gpus[gpu].sm);
    int64_t slack = s->documents ? (21 << 10) + s->B * 1024 : 1024;
    if (!s->deterministic && !s->documents)
        told -= s->B * s->H * s->T * s->K * 4; /* SDPA_DQ_SUM, which is ours */
    if (bytes < 0 || bytes > told) return "more workspace than sdpa_bytes says";
    if (s->deterministic && bytes + slack < told) return "less workspace than sdpa_bytes says";
    return NULL;
}

/* At least one engine is offered for a shape, with the workspace that we count on. */
static int shape_offered(const SdpaShape *s, int gpu)
{
    cudnnBackendDescriptor_t engine[ENGINES];
    SdpaGraph g;
    sdpa_graph_make(&g, &lib, s);
    int n = sdpa_graph_engines(&g, target[gpu], gpus[gpu].sm, engine, ENGINES);
    int64_t bytes = -1, count = 0;
    if (n)
        lib.get(engine[0], CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                &bytes);
    const char *fault = n ? workspace_fault(s, gpu, bytes) : g.error;
    if (fault)
        print_error("%s: %d engines: %s (workspace %lld, told %lld)\n",
                    shape_text(s, &gpus[gpu]), n, fault, (long long)bytes,
                    (long long)sdpa_bytes(s, gpus[gpu].sm));
    for (int i = 0; i < n; i++) lib.destroy(engine[i]);
    sdpa_graph_free(&g);
    return fault != NULL;
}

static bool shape_refused(const SdpaShape *s, int gpu)
{
    cudnnBackendDescriptor_t engine[ENGINES];
    SdpaGraph g;
    sdpa_graph_make(&g, &lib, s);
    int n = sdpa_graph_engines(&g, target[gpu], gpus[gpu].sm, engine, ENGINES);
    for (int i = 0; i < n; i++) lib.destroy(engine[i]);
    if (n) print_error("%s: %d engines where none should be\n", shape_text(s, &gpus[gpu]), n);
    sdpa_graph_free(&g);
    return n == 0;
}

static const int widths[] = {64, 80, 96, 128}, lengths[] = {128, 2048, 4096};
static const int heads[][2] = {{16, 16}, {16, 4}, {20, 2}};

static void engines_for_every_shape(void **state)
{
    (void)state;
    need_library();
    int failures = 0, shapes = 0;
    for (int i = 0; i < GPUS * 4 * 3 * 3 * 3; i++) {
        int gpu = i % GPUS, kind = i / GPUS % 3;
        int w = i / GPUS / 3 % 4, h = i / GPUS / 12 % 3, t = i / GPUS / 36;
        if (!long_run() && t == 2) continue;
        SdpaShape s = {.B = 2, .T = lengths[t], .H = heads[h][0], .G = heads[h][1],
                       .K = widths[w], .scale = 0.1, .backward = kind > 0,
                       .deterministic = kind != 1};
        failures += shape_offered(&s, gpu);
        shapes++;
    }
    printf("%d shapes\n", shapes);
    assert_int_equal(failures, 0);
}

/* Odd lengths, one head, a long sequence. */
static void engines_for_odd_shapes(void **state)
{
    (void)state;
    need_library();
    static const SdpaShape odd[] = {
        {1, 100, 1, 1, 64, 0.1, false, true, false},  {3, 2047, 6, 2, 128, 0.1, false, true, false},
        {1, 131072, 8, 8, 64, 0.1, false, true, false}, {1, 100, 1, 1, 64, 0.1, true, true, false},
        {3, 2047, 6, 2, 128, 0.1, true, true, false}, {5, 2, 4, 1, 32, 0.1, true, true, false},
        {1, 192, 3, 3, 8, 0.1, true, true, false},
    };
    int failures = 0;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int gpu = 0; gpu < GPUS; gpu++) failures += shape_offered(&odd[i], gpu);
    assert_int_equal(failures, 0);
}

/* Documents one behind the other. On capability 8.0 there is no deterministic backward engine: it
 * must be refused, so that the own kernels run. */
static void engines_for_documents(void **state)
{
    (void)state;
    need_library();
    int failures = 0, shapes = 0;
    for (int i = 0; i < GPUS * 4 * 3 * 2 * 3; i++) {
        int gpu = i % GPUS, kind = i / GPUS % 3;
        int w = i / GPUS / 3 % 4, h = i / GPUS / 12 % 3, t = i / GPUS / 36;
        SdpaShape s = {.B = t ? 65 : 2, .T = lengths[t], .H = heads[h][0], .G = heads[h][1],
                       .K = widths[w], .scale = 0.1, .backward = kind > 0,
                       .deterministic = kind != 1, .documents = true};
        if (!long_run() && w != 3 && t) continue;
        if (sdpa_takes_on(&s, gpus[gpu].sm)) failures += shape_offered(&s, gpu);
        else failures += !shape_refused(&s, gpu);
        shapes++;
    }
    printf("%d shapes\n", shapes);
    assert_int_equal(failures, 0);
}

/* ---- Plans: compiled, and their graphs worked out ---------------------------------------------*/

/* The plan's own description of itself. */
static char *plan_json(cudnnBackendDescriptor_t plan)
{
    int64_t size = 0;
    lib.get(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &size, NULL);
    char *text = calloc((size_t)size + 1, 1);
    lib.get(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, size, &size,
            text);
    return text;
}

/* n made-up numbers, from -1 to 1; seed 0: zeros. */
static double *numbers(int64_t n, int seed)
{
    double *x = calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; seed && i < n; i++)
        x[i] = (double)((i * 7919 + seed * 104729) % 2003 - 1001) / 1001;
    return x;
}

static double worst(const double *x, const double *y, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fabs(x[i] - y[i]) > most ? fabs(x[i] - y[i]) : most;
    return most;
}

/* The graph as the library describes it computes attention, or its gradients: NULL, or the fault.
 * In double, so that nothing but rounding at 1e-16 differs. */
static const char *eval_fault(const SdpaShape *s, const char *json)
{
    int64_t queries = s->B * s->T * s->H * s->K, keys = s->B * s->T * s->G * s->K;
    int64_t rows = s->B * s->H * s->T;
    double scale = s->scale, hidden = -INFINITY, one = 1, *memory[SDPA_NAMES] = {NULL};
    RefAttention a = {.B = s->B, .Tq = s->T, .Tk = s->T, .H = s->H, .G = s->G, .K = s->K,
                      .scale = s->scale, .q = numbers(queries, 1), .k = numbers(keys, 2),
                      .v = numbers(keys, 3), .o = numbers(queries, 0), .lse = numbers(rows, 0),
                      .d_o = numbers(queries, 4), .dq = numbers(queries, 0),
                      .dk = numbers(keys, 0), .dv = numbers(keys, 0)};
    ref_attention_fwd(&a);
    ref_attention_bwd(&a);
    double *o = numbers(queries, 5), *lse = numbers(rows, 6), *dq = numbers(queries, 7);
    double *dk = numbers(keys, 8), *dv = numbers(keys, 9), *dq_sum = numbers(queries, 10);
    memory[SDPA_Q] = a.q, memory[SDPA_K] = a.k, memory[SDPA_V] = a.v, memory[SDPA_DO] = a.d_o;
    memory[SDPA_O] = s->backward ? a.o : o;
    memory[SDPA_LSE] = s->backward ? a.lse : lse;
    memory[SDPA_DQ] = dq, memory[SDPA_DK] = dk, memory[SDPA_DV] = dv;
    memory[SDPA_SCALE] = &scale, memory[SDPA_HIDDEN] = &hidden, memory[SDPA_ONE] = &one;
    memory[SDPA_DQ_SUM] = dq_sum;
    const char *fault = graph_eval(json, memory, SDPA_NAMES);
    double error = s->backward ? fmax(worst(dq, a.dq, queries),
                                      fmax(worst(dk, a.dk, keys), worst(dv, a.dv, keys)))
                               : fmax(worst(o, a.o, queries), worst(lse, a.lse, rows));
    if (!fault && !(error < 1e-12)) fault = "the graph computes something else";
    double *const all[] = {a.q, a.k, a.v, a.o, a.lse, a.d_o, a.dq, a.dk, a.dv, o, lse, dq, dk, dv,
                           dq_sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return fault;
}

/* Documents of falling length, each in a room of T rows. */
static int64_t document_length(const SdpaShape *s, int64_t b) { return s->T - 5 * b; }

/* The oracle on each document by itself. The graph's lse is (B T, H), the oracle's (H, length). */
static void documents_apart(const SdpaShape *s, const RefAttention *all)
{
    double *lse = numbers(s->H * s->T, 0);
    for (int64_t b = 0; b < s->B; b++) {
        RefAttention a = *all;
        int64_t q = b * s->T * s->H * s->K, k = b * s->T * s->G * s->K, n = document_length(s, b);
        a.B = 1, a.Tq = a.Tk = n, a.lse = lse;
        a.q += q, a.o += q, a.d_o += q, a.dq += q;
        a.k += k, a.v += k, a.dk += k, a.dv += k;
        ref_attention_fwd(&a);
        ref_attention_bwd(&a);
        for (int64_t i = 0; i < n * s->H; i++)
            all->lse[b * s->T * s->H + i] = lse[i % s->H * n + i / s->H];
    }
    free(lse);
}

/* Largest difference inside the documents; n numbers a row. */
static double worst_inside(const SdpaShape *s, const double *x, const double *y, int64_t n)
{
    double most = 0;
    for (int64_t b = 0; b < s->B; b++) {
        double error = worst(x + b * s->T * n, y + b * s->T * n, document_length(s, b) * n);
        most = error > most ? error : most;
    }
    return most;
}

/* As eval_fault. Offsets that are those of the strides, so that the description alone tells where
 * numbers lie: what is looked at is what each document sees. */
static const char *eval_documents(const SdpaShape *s, const char *json)
{
    int64_t rows = s->B * s->T, q = s->H * s->K, k = s->G * s->K;
    double scale = s->scale, hidden = -INFINITY, one = 1, *memory[SDPA_NAMES] = {NULL};
    RefAttention a = {.H = s->H, .G = s->G, .K = s->K, .scale = s->scale,
                      .q = numbers(rows * q, 1), .k = numbers(rows * k, 2),
                      .v = numbers(rows * k, 3), .o = numbers(rows * q, 0),
                      .lse = numbers(rows * s->H, 0), .d_o = numbers(rows * q, 4),
                      .dq = numbers(rows * q, 0), .dk = numbers(rows * k, 0),
                      .dv = numbers(rows * k, 0)};
    documents_apart(s, &a);
    double *o = numbers(rows * q, 5), *lse = numbers(rows * s->H, 6), *dq = numbers(rows * q, 7);
    double *dk = numbers(rows * k, 8), *dv = numbers(rows * k, 9), *sum = numbers(rows * q, 10);
    double *length = numbers(s->B, 0), *at = numbers(s->B + 1, 0);
    for (int64_t b = 0; b < s->B; b++) length[b] = (double)document_length(s, b);
    memory[SDPA_Q] = a.q, memory[SDPA_K] = a.k, memory[SDPA_V] = a.v, memory[SDPA_DO] = a.d_o;
    memory[SDPA_O] = s->backward ? a.o : o;
    memory[SDPA_LSE] = s->backward ? a.lse : lse;
    memory[SDPA_DQ] = dq, memory[SDPA_DK] = dk, memory[SDPA_DV] = dv, memory[SDPA_DQ_SUM] = sum;
    memory[SDPA_SCALE] = &scale, memory[SDPA_HIDDEN] = memory[SDPA_PAST] = &hidden;
    memory[SDPA_ONE] = &one, memory[SDPA_LEN_Q] = memory[SDPA_LEN_K] = length;
    memory[SDPA_AT_Q] = memory[SDPA_AT_K] = memory[SDPA_AT_LSE] = at;
    const char *fault = graph_eval(json, memory, SDPA_NAMES);
    double error = s->backward
                       ? fmax(worst_inside(s, dq, a.dq, q),
                              fmax(worst_inside(s, dk, a.dk, k), worst_inside(s, dv, a.dv, k)))
                       : fmax(worst_inside(s, o, a.o, q), worst_inside(s, lse, a.lse, s->H));
    if (!fault && !(error < 1e-12)) fault = "the graph computes something else";
    double *const all[] = {a.q, a.k, a.v, a.o, a.lse, a.d_o, a.dq, a.dk, a.dv, o, lse, dq, dk, dv,
                           sum, length, at};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return fault;
}

static int shape_planned(const SdpaShape *s, int gpu)
{
    SdpaGraph g;
    int64_t workspace = -1;
    sdpa_graph_make(&g, &lib, s);
    cudnnBackendDescriptor_t plan = sdpa_graph_plan(&g, target[gpu], gpus[gpu].sm, &workspace);
    const char *mode = s->backward ? "SDPA_BWD" : "SDPA_FWD", *fault = NULL;
    char *json = plan ? plan_json(plan) : NULL;
    if (!plan) fault = g.error;
    else if (!strstr(json, mode)) fault = "not recognised as attention";
    else fault = workspace_fault(s, gpu, workspace);
    if (!fault) fault = s->documents ? eval_documents(s, json) : eval_fault(s, json);
    if (fault)
        print_error("%s: %s (workspace %lld)\n", shape_text(s, &gpus[gpu]), fault,
                    (long long)workspace);
    free(json);
    if (plan) lib.destroy(plan);
    sdpa_graph_free(&g);
    return fault != NULL;
}

static void plans_compile(void **state)
{
    (void)state;
    need_library();
    int failures = 0;
    for (int gpu = 0; gpu < GPUS; gpu++) {
        SdpaShape s = {.B = 2, .T = 12, .H = 4, .G = 2, .K = 64, .scale = 0.3,
                       .deterministic = true};
        failures += shape_planned(&s, gpu);
        s.backward = true;
        failures += shape_planned(&s, gpu);
        s.T = 130; /* no multiple of a tile */
        s.deterministic = false;
        failures += shape_planned(&s, gpu);
        for (int i = 0; long_run() && i < 3 * 4 * 3; i++) {
            s.backward = i % 3 > 0;
            s.deterministic = i % 3 != 1;
            s.T = 130;
            s.K = widths[i / 3 % 4];
            s.H = heads[i / 12][0];
            s.G = heads[i / 12][1];
            failures += shape_planned(&s, gpu);
        }
    }
    assert_int_equal(failures, 0);
}

/* Documents of 12 and 7 tokens. The short run has the one GPU where all three ways exist. */
static void documents_compile(void **state)
{
    (void)state;
    need_library();
    int failures = 0;
    for (int gpu = 0; gpu < GPUS; gpu++) {
        for (int kind = 0; kind < 3; kind++) {
            SdpaShape s = {.B = 2, .T = 12, .H = 4, .G = 2, .K = 64, .scale = 0.3,
                           .backward = kind > 0, .deterministic = kind != 1, .documents = true};
            if (!sdpa_takes_on(&s, gpus[gpu].sm)) continue;
            if (long_run() || gpus[gpu].sm == 90) failures += shape_planned(&s, gpu);
        }
    }
    assert_int_equal(failures, 0);
}

/* ---- Refusals ---------------------------------------------------------------------------------*/

/* The library crashes or goes wrong on these; we ask it nothing. */
static void wrong_strides_refused(void **state)
{
    (void)state;
    need_library();
    const int64_t dim[4] = {2, 4, 128, 64}, good[4] = {128 * 4 * 64, 64, 4 * 64, 1};
    assert_null(sdpa_layout_fault(dim, good, 3, 2));
    const int64_t apart[4] = {128 * 4 * 64 * 2, 128, 4 * 64 * 2, 2};
    assert_non_null(sdpa_layout_fault(dim, apart, 3, 2));
    const int64_t uneven[4] = {128 * (4 * 64 + 4), 64, 4 * 64 + 4, 1};
    assert_non_null(sdpa_layout_fault(dim, uneven, 3, 2));
    assert_null(sdpa_layout_fault(dim, uneven, 3, 4));
    const int64_t none[4] = {0, 64, 4 * 64, 1};
    assert_non_null(sdpa_layout_fault(dim, none, 3, 2));
    const int64_t empty[4] = {2, 4, 0, 64};
    assert_non_null(sdpa_layout_fault(empty, good, 3, 2));
}

/* A head of 20 numbers has lines that do not start on 16 bytes: refused before the library. */
static void odd_widths_refused(void **state)
{
    (void)state;
    need_library();
    for (int backward = 0; backward < 2; backward++) {
        SdpaShape s = {.B = 1, .T = 64, .H = 2, .G = 1, .K = 20, .scale = 1,
                       .backward = backward, .deterministic = true};
        cudnnBackendDescriptor_t engine[ENGINES];
        SdpaGraph g;
        sdpa_graph_make(&g, &lib, &s);
        assert_non_null(strstr(g.error, "16 bytes"));
        assert_int_equal(sdpa_graph_engines(&g, target[0], 80, engine, ENGINES), 0);
        sdpa_graph_free(&g);
    }
}

/* No engine is no success: heads that do not divide, a head too wide for the GPU. */
static void no_engine_is_a_failure(void **state)
{
    (void)state;
    need_library();
    static const SdpaShape wrong[] = {{1, 128, 5, 2, 64, 1, false, true, false},
                                      {1, 128, 2, 2, 256, 1, true, true, false}};
    for (int i = 0; i < 2; i++) {
        cudnnBackendDescriptor_t engine[ENGINES];
        SdpaGraph g;
        sdpa_graph_make(&g, &lib, &wrong[i]);
        assert_int_equal(sdpa_graph_engines(&g, target[0], 80, engine, ENGINES), 0);
        assert_true(g.error[0] != 0);
        sdpa_graph_free(&g);
    }
}

/* A description that lacks a key is refused. */
static void half_a_gpu_refused(void **state)
{
    (void)state;
    need_library();
    char json[GPU_TEXT], error[256] = "";
    gpu_json(&gpus[1], json);
    char *end = strstr(json, ",\"l2CacheSize\"");
    assert_non_null(end);
    memcpy(end, "}", 2);
    assert_null(sdpa_target_json(&lib, json, error));
    assert_true(error[0] != 0);
}

static int run_group(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_for_every_shape), cmocka_unit_test(engines_for_odd_shapes),
        cmocka_unit_test(engines_for_documents),   cmocka_unit_test(plans_compile),
        cmocka_unit_test(documents_compile),       cmocka_unit_test(wrong_strides_refused),
        cmocka_unit_test(odd_widths_refused),      cmocka_unit_test(no_engine_is_a_failure),
        cmocka_unit_test(half_a_gpu_refused),
    };
    return cmocka_run_group_tests_name("cudnn_graphs", tests, open_library, NULL);
}
#else

static void no_cudnn(void **state)
{
    (void)state;
    printf("this build found no cuDNN header (9.19 or later): skipped\n");
    skip();
}

static int run_group(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_cudnn)};
    return cmocka_run_group_tests_name("cudnn_graphs", tests, NULL, NULL);
}
#endif

/* Starts this program again with the stand-in driver library, which lies beside it. */
static void start_with_driver(char **argv)
{
    char folder[3800], path[8000];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (n < 0 || getenv("ISOMOE_FAKE_CUDA")) return;
    folder[n] = 0;
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    const char *old = getenv("LD_LIBRARY_PATH");
    snprintf(path, sizeof path, "%s/fake_cuda%s%.4000s", folder, old ? ":" : "", old ? old : "");
    setenv("LD_LIBRARY_PATH", path, 1);
    setenv("ISOMOE_FAKE_CUDA", "1", 1);
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    (void)argc;
    start_with_driver(argv);
    return run_group();
}
