/* tests/test_gpu_memory.c - what a run takes of a GPU beside its tensors (train/gpu_memory.h), by
 * hand; and train.deterministic, which chooses between the library's ways. No GPU is needed. */
#include "tests/train_good.h"

#include "device/scratch_bytes.h"
#include "device/sdpa_bytes.h"
#include "tests/ref/tiny.h"
#include "train/gpu_memory.h"
#include "train/stages.h"

static const int64_t GB = 1000000000;

static GpuRoom roomy(void)
{
    return (GpuRoom){.gpu = {90, 80 * GB, true}, .room = 80 * GB, .tensors = GB,
                     .products = scratch_lt_bytes(80 * GB), .launches = 1000};
}

/* 4 heads of 64 on 2 of keys. */
static ModelConfig small(void)
{
    ModelConfig c = tiny_config();
    c.n_heads = 4, c.n_kv_heads = 2, c.head_dim = 64, c.cla_share = 1, c.vocab_size = 1000;
    return c;
}

static ModelShape shape_of(bool any_order)
{
    return (ModelShape){.type = DT_BF16, .B = 2, .T = 256, .micro_batches = 1, .train = true,
                        .any_order = any_order};
}

/* For B 2, T 256: row sums of 8 heads x 256 x 4 bytes, dk and dv of every query head, and T x T
 * numbers of 2 bytes, or dq in f32 where the order is free; 512 for the library itself. */
enum {
    ROW_SUMS = 8 * 256 * 4, HEADS = 8 * 256 * 64 * 2,
    ORDERED = 512 + ROW_SUMS + 2 * HEADS + 8 * 256 * 256 * 2,
    ANY_ORDER = 512 + ROW_SUMS + 2 * HEADS + 2 * HEADS
};

static GpuMemory memory_of(const ModelConfig *c, const ModelShape *shape, bool documents,
                           const GpuRoom *room)
{
    GpuMemory g;
    gpu_memory_begin(&g, room);
    gpu_memory_add(&g, c, shape, documents, room);
    return g;
}

static void library_by_hand(void **state)
{
    (void)state;
    ModelConfig c = small();
    GpuRoom room = roomy();
    ModelShape s = shape_of(false);
    GpuMemory g = memory_of(&c, &s, false, &room);
    assert_true(g.library && g.ordered && !g.why_own[0]);
    assert_int_equal(g.attention, ORDERED);
    assert_int_equal(g.logits, 512 * 1024 * 4); /* 1000 pieces in lines of 32 */
    assert_true(g.scratch > g.logits && g.scratch < g.logits + (3 << 20));
    assert_int_equal(g.products, 32 << 20);
    assert_int_equal(g.graph, 1000 * 65536);
    assert_int_equal(g.most, 10 * GB);
    assert_int_equal(gpu_memory_total(&g), g.scratch + g.products + g.graph);
    s = shape_of(true);
    g = memory_of(&c, &s, false, &room);
    assert_true(g.library && !g.ordered);
    assert_int_equal(g.attention, ANY_ORDER);
    c.cla_share = 2; /* dv of a layer that adds to it */
    g = memory_of(&c, &s, false, &room);
    assert_int_equal(g.attention, ANY_ORDER + 2 * 256 * 2 * 64 * 2);
    s.train = false;
    g = memory_of(&c, &s, false, &room);
    assert_int_equal(g.attention, 512 + 2 * 256 * 2 * 64 * 2);
}

/* A long sequence: T x T beyond an eighth of the GPU goes to the own kernels; any order fits. */
static void long_sequences(void **state)
{
    (void)state;
    ModelConfig c = small();
    GpuRoom room = roomy();
    ModelShape s = shape_of(false);
    s.B = 1, s.T = 65536;
    GpuMemory g = memory_of(&c, &s, false, &room);
    assert_false(g.library);
    assert_int_equal(g.attention, 0);
    assert_non_null(strstr(g.why_own, "are left for it"));
    s.any_order = true;
    g = memory_of(&c, &s, false, &room);
    assert_true(g.library && g.attention > 0 && g.attention < GB / 2);
    room.gpu.sm = 100; /* an engine in one order without T x T */
    s.any_order = false;
    g = memory_of(&c, &s, false, &room);
    assert_true(g.library && g.ordered);
}

/* What the tensors leave is less than an eighth of the GPU. */
static void tensors_come_first(void **state)
{
    (void)state;
    ModelConfig c = small();
    GpuRoom room = roomy();
    ModelShape s = shape_of(false);
    room.tensors = room.room - room.products - ORDERED;
    GpuMemory g = memory_of(&c, &s, false, &room);
    assert_true(g.library && g.most == ORDERED);
    room.tensors++;
    g = memory_of(&c, &s, false, &room);
    assert_true(!g.library && g.attention == 0);
    s.any_order = true;
    g = memory_of(&c, &s, false, &room);
    assert_true(g.library);
    room.tensors = room.room + 1;
    g = memory_of(&c, &s, false, &room);
    assert_true(!g.library && g.most < 0);
}

static void own_kernels(void **state)
{
    (void)state;
    ModelConfig c = small(), odd = small();
    GpuRoom room = roomy(), bare = roomy();
    ModelShape s = shape_of(false), f32 = shape_of(false);
    odd.head_dim = 60;
    f32.type = DT_F32;
    bare.gpu.library = false;
    const struct {
        GpuMemory g;
        const char *why;
    } cases[] = {
        {memory_of(&c, &f32, false, &room), "f32"},
        {memory_of(&c, &s, true, &room), "data.mask_documents"},
        {memory_of(&odd, &s, false, &room), "heads of 60"},
        {memory_of(&c, &s, false, &bare), "not there"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(cases[i].g.library);
        assert_int_equal(cases[i].g.attention, 0);
        assert_non_null(strstr(cases[i].g.why_own, cases[i].why));
    }
}

/* Chunks of the loss: whole steps of 16 rows of one size, at most what the bytes hold. */
static void chunks_by_hand(void **state)
{
    (void)state;
    int64_t ld;
    assert_int_equal(scratch_loss_rows(1000, 33, 1 << 30, &ld), 1000);
    assert_int_equal(ld, 64);
    assert_int_equal(scratch_loss_rows(1000, 64, 100 * 64 * 4, &ld), 96);  /* 96 a chunk: 11 */
    assert_int_equal(scratch_loss_rows(97, 64, 100 * 64 * 4, &ld), 64);    /* 49 each, rounded */
    assert_int_equal(scratch_loss_rows(5, 64, 1, &ld), 5);
    assert_int_equal(scratch_loss_rows(0, 64, 1 << 20, &ld), 1);
    assert_int_equal(scratch_bias_rows(1000, 64, 8 * 300 * 64 * 4), 256);
    assert_int_equal(scratch_bias_rows(100, 64, 1), 100);
    assert_int_equal(scratch_bias_rows(1000, 64, 1), 128);
    assert_int_equal(scratch_lt_bytes((int64_t)8 << 30), 4 << 20);
    assert_int_equal(scratch_lt_bytes((int64_t)1 << 40), 32 << 20);
}

/* ---- train.deterministic ----------------------------------------------------------------------*/

static void config_reaches_the_shape(void **state)
{
    (void)state;
    RunConfig c;
    const char *any[] = {"train.deterministic=false", "data.mask_documents=false"};
    read_good(&c, NULL, 0);
    Stage stage = stages_get(&c, 0);
    assert_true(c.train.deterministic && !stages_shape(&c, &stage).any_order);
    read_good(&c, any, 2);
    stage = stages_get(&c, 0);
    assert_true(stages_shape(&c, &stage).any_order && run_config_shape(&c).any_order);
}

static void config_refuses_without_effect(void **state)
{
    (void)state;
    static const struct {
        const char *overrides[3];
        const char *why;
    } cases[] = {
        {{"train.deterministic=false", "data.mask_documents=false", "train.device=cpu"},
         "has no effect on train.device cpu"},
        {{"train.deterministic=false", "data.mask_documents=false", "train.precision=f32"},
         "because the library has no f32"},
        {{"train.deterministic=false", "data.mask_documents=true", "train.device=cuda"},
         "because documents in a sequence"},
    };
    write_file(at("c.yaml"), GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RunConfig c;
        Err e = {0};
        assert_int_equal(run_config_read(&c, at("c.yaml"), cases[i].overrides, 3, &e), -1);
        assert_non_null(strstr(e.message, "train.deterministic"));
        if (!strstr(e.message, cases[i].why)) fail_msg("%s", e.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(library_by_hand),   cmocka_unit_test(long_sequences),
        cmocka_unit_test(tensors_come_first), cmocka_unit_test(own_kernels),
        cmocka_unit_test(chunks_by_hand),    cmocka_unit_test(config_reaches_the_shape),
        cmocka_unit_test(config_refuses_without_effect),
    };
    return cmocka_run_group_tests_name("gpu_memory", tests, help_begin, help_end);
}
