/* tests/test_ops_memory.c - memory, plain operations, making a device, its account. */
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

#include "device/device_ops.h"
#include "tests/ref/group.h"
#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

static const int64_t sizes[] = {0, 1, 7, 16, 33, 1000, 70001};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* ---- Copies, casts, fills, additions ----------------------------------------------------------*/

static void call_copy(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_copy(d, rig_get(r, "dst"), rig_get(r, "src"));
}

static void call_cast(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_cast(d, rig_get(r, "dst"), rig_get(r, "src"));
}

static void call_fill(Device *d, const Rig *r, const void *context)
{
    dev_fill(d, rig_get(r, "dst"), *(const double *)context);
}

static void call_add(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_add(d, rig_get(r, "y"), rig_get(r, "a"), rig_get(r, "b"));
}

/* What is left of a number in a type. */
static double rounded(DType type, double x)
{
    if (type == DT_F32) return (float)x;
    if (type == DT_BF16) return bf16_to_f32(bf16_from_f32((float)x));
    return type == DT_I32 ? (double)(int32_t)x : x;
}

static int run_and_free(Rig *r, RigCall *call, const void *context)
{
    int failures = rig_run(r, call, context);
    rig_free(r);
    return failures;
}

static void copy(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int type = 0; type < DT_COUNT; type++) {
            Rig *r = rig_new("copy", "n %d %s", (int)sizes[i], dtype_name(type));
            Tensor shape = tensor_1d(NULL, type, sizes[i]);
            Slot *src = rig_in(r, "src", shape, 1000);
            memcpy(rig_out(r, "dst", shape, TOL_EXACT)->want, src->value,
                   sizeof(double) * (size_t)sizes[i]);
            failures += run_and_free(r, call_copy, NULL);
        }
    assert_int_equal(failures, 0);
}

/* Numbers that show how a rounding is made: ties both ways, overflow, infinities, signed zero. */
static const float edges[] = {0.0f,         -0.0f,     1.00390625f, 1.01171875f, 1.0039063f,
                              -1.00390625f, 3.4e38f,   -3.4e38f,    INFINITY,    -INFINITY,
                              3.3895314e38f, 1e-30f,    1e-37f,     65504.0f,    0.1f};
enum { EDGES = sizeof edges / sizeof *edges };

static void cast(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int down = 0; down < 2; down++) {
            DType from = down ? DT_F32 : DT_BF16, to = down ? DT_BF16 : DT_F32;
            Rig *r = rig_new("cast", "n %d to %s", (int)sizes[i], dtype_name(to));
            double *values = malloc(sizeof *values * (size_t)(sizes[i] + 1));
            for (int64_t j = 0; j < sizes[i]; j++)
                values[j] = j < EDGES ? (double)edges[j] : rig_normal(r);
            Slot *src = rig_in_values(r, "src", tensor_1d(NULL, from, sizes[i]), values);
            Slot *dst = rig_out(r, "dst", tensor_1d(NULL, to, sizes[i]), TOL_EXACT);
            for (int64_t j = 0; j < sizes[i]; j++) dst->want[j] = rounded(to, src->value[j]);
            free(values);
            failures += run_and_free(r, call_cast, NULL);
        }
    assert_int_equal(failures, 0);
}

/* NaN stays NaN whatever its payload: rounding up must not turn it into an infinity or a zero. */
static void cast_nan(void **state)
{
    (void)state;
    const uint32_t bits[] = {0x7fc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff,
                             0x7f80ffff, 0x7fbfffff};
    enum { COUNT = sizeof bits / sizeof *bits, N = 40 };
    uint32_t from[N];
    uint16_t to[N];
    for (int i = 0; i < N; i++) from[i] = bits[i % COUNT];
    Err e = {0};
    Device *d = rig_device(1);
    Tensor src = tensor_1d(dev_alloc(d, sizeof from, "src", &e), DT_F32, N);
    Tensor dst = tensor_1d(dev_alloc(d, sizeof to, "dst", &e), DT_BF16, N);
    dev_upload(d, src, from);
    dev_cast(d, dst, src);
    dev_download(d, to, dst);
    for (int i = 0; i < N; i++) assert_true((to[i] & 0x7fff) > 0x7f80);
    dev_free(d, src.data);
    dev_free(d, dst.data);
}

static void fill(void **state)
{
    (void)state;
    int failures = 0;
    const double values[] = {0, 1, -3, 0.1, 1e20};
    for (int i = 0; i < SIZES; i++)
        for (int type = 0; type < DT_COUNT; type++)
            for (int v = 0; v < 5; v++) {
                if (type == DT_I32 && v >= 3) continue;
                Rig *r = rig_new("fill", "n %d %s %g", (int)sizes[i], dtype_name(type), values[v]);
                Slot *dst = rig_out(r, "dst", tensor_1d(NULL, type, sizes[i]), TOL_EXACT);
                for (int64_t j = 0; j < sizes[i]; j++) dst->want[j] = rounded(type, values[v]);
                failures += run_and_free(r, call_fill, &values[v]);
            }
    assert_int_equal(failures, 0);
}

/* kind 0: y apart, 1: y is a, 2: y is b, 3: a is b. */
static int add_case(int64_t n, DType type, int kind)
{
    Rig *r = rig_new("add", "n %d %s kind %d", (int)n, dtype_name(type), kind);
    Tensor shape = tensor_1d(NULL, type, n);
    Slot *a = kind == 1 ? rig_inout(r, "a", shape, 1, TOL_EXACT) : rig_in(r, "a", shape, 1), *b = a;
    if (kind == 3) rig_alias(r, "b", a);
    else if (kind == 2) b = rig_inout(r, "b", shape, 1, TOL_EXACT);
    else b = rig_in(r, "b", shape, 1);
    Slot *y = kind == 1 ? a : kind == 2 ? b : rig_out(r, "y", shape, TOL_EXACT);
    if (kind == 1 || kind == 2) rig_alias(r, "y", y);
    for (int64_t i = 0; i < n; i++)
        y->want[i] = rounded(type, (float)a->value[i] + (float)b->value[i]);
    return run_and_free(r, call_add, NULL);
}

static void add(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < SIZES; i++)
        for (int kind = 0; kind < 4; kind++)
            failures += add_case(sizes[i], DT_F32, kind) + add_case(sizes[i], DT_BF16, kind);
    assert_int_equal(failures, 0);
}

/* ---- Memory -----------------------------------------------------------------------------------*/

static void memory(void **state)
{
    (void)state;
    Device *d = rig_device(0);
    for (int64_t words = 1; words < 1 << 20; words = words * 3 + 1) {
        Err e = {0};
        char *host = malloc((size_t)words * 4), *back = malloc((size_t)words * 4);
        Tensor t = tensor_1d(dev_alloc(d, words * 4, "some", &e), DT_I32, words);
        assert_non_null(t.data);
        assert_false(e.set);
        assert_int_equal((uintptr_t)t.data % 64, 0);
        for (int64_t i = 0; i < words * 4; i++) host[i] = (char)(i * 7 + words);
        dev_upload(d, t, host);
        dev_sync(d);
        dev_download(d, back, t);
        assert_memory_equal(host, back, (size_t)words * 4);
        dev_free(d, t.data);
        free(host);
        free(back);
    }
    dev_free(d, NULL);
    assert_true(device_scratch_bytes(d) >= 0);
    const char *noted[] = {"alloc", "free", "upload", "download", "sync", "scratch_bytes"};
    for (int i = 0; i < 6; i++) ops_note(noted[i]);
}

static void memory_runs_out(void **state)
{
    (void)state;
    Err e = {0};
    assert_null(dev_alloc(rig_device(0), 1ll << 60, "the impossible", &e));
    assert_true(e.set);
    assert_non_null(strstr(e.message, "the impossible"));
}

/* ---- Devices ----------------------------------------------------------------------------------*/

static void create_and_destroy(void **state)
{
    (void)state;
    Err e = {0};
    rig_device(0);
    assert_null(device_create("abacus", &(DeviceOptions){0}, &e));
    assert_true(e.set);
    assert_non_null(strstr(e.message, "abacus"));
    e = (Err){0};
    unsetenv("ISOMOE_ISA");
    Device *d = device_create("auto", &(DeviceOptions){.threads = 3}, &e);
    assert_non_null(d);
    assert_int_equal(device_threads(d), strcmp(device_name(d), "cpu") ? 1 : 3);
    assert_true(strlen(device_name(d)) > 0 && strlen(device_variant(d)) > 0);
    device_destroy(&d);
    assert_null(d);
    d = device_create("cpu", &(DeviceOptions){.threads = 0}, &e);
    assert_non_null(d);
    assert_string_equal(device_name(d), "cpu");
    assert_true(device_threads(d) >= 1);
    device_destroy(&d);
    setenv("ISOMOE_ISA", "mmx", 1);
    assert_null(device_create("cpu", &(DeviceOptions){.threads = 1}, &e));
    assert_true(e.set);
    unsetenv("ISOMOE_ISA");
    ops_note("name");
    ops_note("destroy");
}

static void error_texts(void **state)
{
    (void)state;
    Device *d = rig_device(0);
    const char *text = d->ops->error(d, 1);
    assert_non_null(text);
    assert_true(strlen(text) > 0);
    ops_note("error");
}

static void memory_room(void **state)
{
    (void)state;
    Device *d = rig_device(0);
    Err e = {0};
    const int64_t bytes = 64 << 20;
    int64_t before = device_memory_room(d);
    assert_true(before > bytes && before < (int64_t)1 << 50);
    void *some = dev_alloc(d, bytes, "some", &e);
    assert_non_null(some);
    int64_t taken = before - device_memory_room(d);
    if (strcmp(device_name(d), "cpu")) assert_true(taken >= bytes && taken < 2 * bytes);
    else assert_int_equal(taken, 0); /* the whole machine's */
    dev_free(d, some);
    ops_note("memory_room");
}

/* A GPU has a capability and memory, and takes scratch when it is told to; the CPU has neither. */
static void gpu(void **state)
{
    (void)state;
    Device *d = rig_device(0);
    Err e = {0};
    DeviceGpu g = device_gpu(d);
    bool is_gpu = strcmp(device_name(d), "cpu") != 0;
    device_limit_attention(d, 1 << 20);
    assert_true(is_gpu ? g.sm >= 80 && g.memory >= 1 << 30 : g.sm == 0 && !g.library);
    int64_t before = device_scratch_bytes(d), more = before + (5 << 20);
    assert_int_equal(device_reserve_scratch(d, more, &e), 0);
    assert_true(!is_gpu || device_scratch_bytes(d) >= more);
    assert_int_equal(device_reserve_scratch(d, (int64_t)1 << 60, &e), is_gpu ? -1 : 0);
    if (is_gpu) {
        assert_non_null(strstr(e.message, "not enough memory for scratch"));
        assert_int_equal(device_reserve_scratch(d, 1 << 20, &e), 0); /* and the device goes on */
    }
    const char *noted[] = {"gpu", "limit_attention", "reserve_scratch"};
    for (int i = 0; i < 3; i++) ops_note(noted[i]);
}

static void peaks(void **state)
{
    (void)state;
    Device *d = rig_device(0);
    double f32 = device_matrix_peak(d, DT_F32, 0.02);
    double bf16 = device_matrix_peak(d, DT_BF16, 0.02);
    double bytes = device_memory_peak(d, 0.02);
    /* an emulated GPU takes its time: rates of no meaning, but rates */
    double least = strstr(device_variant(d), "emulated") ? 1e4 : 1e8;
    assert_true(f32 > least && f32 < 1e15);
    assert_true(bf16 > least && bf16 < 1e16);
    assert_true(bytes > least && bytes < 1e14);
    ops_note("matrix_peak");
    ops_note("memory_peak");
}

static const DeviceAccount *account_of(const Device *d, const char *name)
{
    const DeviceAccount *accounts;
    int n = device_accounts(d, &accounts);
    for (int i = 0; i < n; i++)
        if (!strcmp(accounts[i].name, name)) return &accounts[i];
    return NULL;
}

/* FLOPs of the matrix products: 2 per multiply-add, counted from the shapes. */
static void accounts(void **state)
{
    (void)state;
    Err e = {0};
    Device *d = rig_device(0);
    int64_t N = 3, O = 5, I = 7;
    Tensor y = tensor_2d(dev_alloc(d, N * O * 4, "y", &e), DT_F32, N, O);
    Tensor x = tensor_2d(dev_alloc(d, N * I * 4, "x", &e), DT_F32, N, I);
    Tensor w = tensor_2d(dev_alloc(d, O * I * 4, "w", &e), DT_F32, O, I);
    dev_fill(d, x, 1);
    dev_fill(d, w, 2);
    device_reset_accounts(d);
    dev_linear_fwd(d, y, x, w, tensor_none());
    dev_linear_fwd(d, y, x, w, tensor_none());
    const DeviceAccount *a = account_of(d, "linear_fwd");
    assert_non_null(a);
    assert_int_equal(a->calls, 2);
    assert_int_equal(a->flops, 2 * 2 * N * O * I);
    assert_true(a->bytes >= 2 * 4 * (N * O + N * I + O * I) && a->seconds > 0);
    LinearGrad g = {.dx = x};
    dev_linear_bwd(d, g, y, x, w);
    a = account_of(d, "linear_bwd");
    assert_non_null(a);
    assert_int_equal(a->calls, 1);
    assert_int_equal(a->flops, 2 * N * O * I);
    device_reset_accounts(d);
    a = account_of(d, "linear_fwd");
    assert_true(!a || (a->calls == 0 && a->flops == 0 && a->bytes == 0 && a->seconds == 0));
    dev_free(d, y.data);
    dev_free(d, x.data);
    dev_free(d, w.data);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_memory"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy),          cmocka_unit_test(cast),
        cmocka_unit_test(cast_nan),      cmocka_unit_test(fill),
        cmocka_unit_test(add),           cmocka_unit_test(memory),
        cmocka_unit_test(memory_runs_out), cmocka_unit_test(memory_room),
        cmocka_unit_test(create_and_destroy),
        cmocka_unit_test(gpu),
        cmocka_unit_test(error_texts),   cmocka_unit_test(peaks),
        cmocka_unit_test(accounts),      cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_memory", tests);
}
