/* tests/test_train_checkpoint.c - checkpoints: what is written comes back bit for bit, old ones go
 * and foreign ones stay, another model is refused, a failed save costs nothing. */
#include "tests/train_fixture.h"

#include <sys/resource.h>

#include "train/checkpoint_folder.h"

static bool same_rows(const ParamTable *table, Tensor a, Tensor b)
{
    for (int i = 0; i < table->count; i++) {
        const ParamRow *row = &table->row[i];
        if (memcmp((float *)a.data + row->offset, (float *)b.data + row->offset,
                   (size_t)row->elements * sizeof(float)))
            return false;
    }
    return true;
}

/* All moments and the other state of two optimizers. */
static bool same_optimizer(Fixture *a, Fixture *b)
{
    StateTensor x[STATE_MAX], y[STATE_MAX];
    int n = optimizer_state(a->o, x);
    bool same = n == optimizer_state(b->o, y);
    for (int i = 0; same && i < n; i++)
        same = !strcmp(x[i].name, y[i].name) && tensor_same_shape(x[i].tensor, y[i].tensor) &&
               !memcmp(x[i].tensor.data, y[i].tensor.data, (size_t)tensor_bytes(x[i].tensor));
    for (int i = 0; same && i < model_params(a->m)->count; i++) {
        Tensor p[] = {optimizer_m(a->o, i), optimizer_v(a->o, i)};
        Tensor q[] = {optimizer_m(b->o, i), optimizer_v(b->o, i)};
        for (int k = 0; same && k < 2; k++)
            same = p[k].type == q[k].type && tensor_given(p[k]) == tensor_given(q[k]) &&
                   (!tensor_given(p[k]) ||
                    !memcmp(p[k].data, q[k].data, (size_t)tensor_bytes(p[k])));
    }
    return same;
}

/* How many datasets a group of the file of step 7 has, and how many of 16-bit numbers. */
static void count_sets(const char *group_name, int *sets, int *half)
{
    const char *path = at("checkpoints/step-000000007/rank-0000.h5");
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t group = H5Gopen2(file, group_name, H5P_DEFAULT);
    H5G_info_t info;
    assert_true(group >= 0 && H5Gget_info(group, &info) >= 0);
    *sets = (int)info.nlinks;
    *half = 0;
    for (hsize_t i = 0; i < info.nlinks; i++) {
        hid_t set = H5Oopen_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT);
        hid_t type = H5Dget_type(set);
        *half += H5Tequal(type, H5T_STD_U16LE) > 0;
        H5Tclose(type);
        H5Oclose(set);
    }
    H5Gclose(group);
    H5Fclose(file);
}

/* Moments in bf16, none of second order for Muon's matrices, the window of the outliers; another
 * optimizer's checkpoint is refused, its weights alone can be read. */
static void test_optimizers(void **state)
{
    static const char *const muon = "optim: {kind: muon, moments: bf16, skip_zscore: 4,\n"
                                    "  skip_window: 5}\n";
    Fixture a, b, other[3];
    static const char *const others[] = {"", "optim: {moments: bf16}\n", "optim: {kind: muon}\n"};
    int sets, half, matrices = 0;
    Err e = {0};
    (void)state;
    make_with(&a, 2, 8, 0.1, muon);
    make_with(&b, 2, 8, -5, muon);
    save(&a, 7);
    assert_false(same_optimizer(&a, &b));
    if (checkpoint_load(at("checkpoints/step-000000007"), b.m, b.o, &e)) fail_msg("%s", e.message);
    assert_true(same_optimizer(&a, &b));
    const ParamTable *table = model_params(a.m);
    for (int i = 0; i < table->count; i++) {
        ParamKind kind = table->row[i].kind;
        matrices += kind == PARAM_ATTN || kind == PARAM_SHARED || kind == PARAM_EXPERT;
    }
    count_sets("m", &sets, &half);
    assert_true(sets == table->count && half == sets);
    count_sets("v", &sets, &half);
    assert_true(matrices == 16 && sets == table->count - matrices && half == sets);
    count_sets("optim", &sets, &half);
    assert_true(sets == 1 && half == 0);
    for (int i = 0; i < 3; i++) {
        make_with(&other[i], 2, 8, 1, others[i]);
        assert_int_equal(checkpoint_load(at("checkpoints/step-000000007"), other[i].m, other[i].o,
                                         &e), -1);
        assert_has(e.message, "step-000000007: ");
        assert_int_equal(checkpoint_load(at("checkpoints/step-000000007"), other[i].m, NULL, &e),
                         0);
        assert_true(same_rows(table, model_master(a.m), model_master(other[i].m)));
        destroy(&other[i]);
    }
    destroy(&a);
    destroy(&b);
}

static void test_round_trip(void **state)
{
    Fixture a, b;
    RunConfig config;
    TrainState s, expected = state_at(7);
    char found[IO_PATH_MAX];
    Err e = {0};
    (void)state;
    make(&a, 2, 8, 0.1);
    make(&b, 2, 8, -5);
    save(&a, 7);
    assert_int_equal(checkpoint_open(scratch, &config, &s, found, &e), 0);
    assert_string_equal(found, at("checkpoints/step-000000007"));
    snprintf(expected.variant, sizeof expected.variant, "%s", device_variant(device));
    assert_memory_equal(&s, &expected, sizeof s);
    char *before = conf_write(run_config_table(), &a.config);
    char *after = conf_write(run_config_table(), &config);
    assert_string_equal(before, after);
    free(before);
    free(after);
    assert_int_equal(checkpoint_load(found, b.m, NULL, &e), 0); /* the weights alone */
    assert_true(same_rows(model_params(a.m), model_master(a.m), model_master(b.m)));
    assert_false(same_optimizer(&a, &b));
    if (checkpoint_load(found, b.m, b.o, &e)) fail_msg("%s", e.message);
    assert_true(same_optimizer(&a, &b));
    assert_int_equal(checkpoint_open(at("checkpoints/step-000000007"), NULL, NULL, found, &e), 0);
    destroy(&a);
    destroy(&b);
}

static void test_pruning(void **state)
{
    static const char *const stay[] = {"notes.txt", "step-000000001.keep", "step-1", "old.tmp.1",
                                       "step-000000003", "step-000000004", "step-000000009"};
    Fixture f;
    char found[IO_PATH_MAX], **names;
    int count;
    Err e = {0};
    (void)state;
    make(&f, 1, 8, 1);
    f.config.train.keep_checkpoints = 0;
    save(&f, 1);
    save(&f, 2);
    f.config.train.keep_checkpoints = 2;
    save(&f, 9);
    for (int i = 0; i < 4; i++) write_file(at("checkpoints/%s", stay[i]), "mine");
    assert_int_equal(io_make_dirs(at("checkpoints/step-000000005.tmp.99"), &e), 0);
    assert_int_equal(io_make_dirs(at("checkpoints/step-000000006.old.99"), &e), 0);
    f.config.train.keep_checkpoints = 3; /* newest: 9, then 3 and the one behind it */
    save(&f, 3);
    save(&f, 4);
    assert_int_equal(io_list_dir(at("checkpoints"), &names, &count, &e), 0);
    for (int i = 0; i < count; i++) {
        int known = 0;
        for (int j = 0; j < 7; j++) known |= !strcmp(names[i], stay[j]);
        if (!known) fail_msg("%s should be gone", names[i]);
    }
    assert_int_equal(count, 7);
    io_free_names(names, count);
    f.config.train.keep_checkpoints = 1; /* never the one just written, never a newer one */
    save(&f, 2);
    assert_true(io_exists(at("checkpoints/step-000000002/manifest.json")));
    assert_true(io_exists(at("checkpoints/step-000000004/manifest.json")));
    assert_true(io_exists(at("checkpoints/step-000000009/manifest.json")));
    assert_int_equal(checkpoint_newest(scratch, found, &e), 0);
    assert_string_equal(found, at("checkpoints/step-000000009"));
    destroy(&f);
}

/* A second save at one step replaces the first; a folder without a manifest is passed over. */
static void test_same_step(void **state)
{
    Fixture a, b;
    char found[IO_PATH_MAX];
    Err e = {0};
    (void)state;
    make(&a, 1, 8, 1);
    make(&b, 1, 8, 2);
    save(&a, 5);
    save(&b, 5);
    assert_int_equal(checkpoint_load(at("checkpoints/step-000000005"), a.m, a.o, &e), 0);
    assert_true(same_rows(model_params(a.m), model_master(a.m), model_master(b.m)));
    save(&a, 6);
    unlink(at("checkpoints/step-000000006/manifest.json"));
    assert_int_equal(checkpoint_newest(scratch, found, &e), 0);
    assert_string_equal(found, at("checkpoints/step-000000005"));
    save(&b, 6); /* over what is left of the other */
    assert_int_equal(checkpoint_newest(scratch, found, &e), 0);
    assert_string_equal(found, at("checkpoints/step-000000006"));
    destroy(&a);
    destroy(&b);
}

/* ---- Other mistakes ---------------------------------------------------------------------------*/

static void test_other_model(void **state)
{
    Fixture f, more, fewer, wider;
    Err e = {0};
    (void)state;
    make(&f, 2, 8, 1);
    make(&more, 3, 8, 1);
    make(&fewer, 1, 8, 1);
    make(&wider, 2, 16, 1);
    save(&f, 3);
    const char *folder = at("checkpoints/step-000000003");
    assert_int_equal(checkpoint_load(folder, more.m, more.o, &e), -1);
    assert_has(e.message, "step-000000003: the model's tensor master/layers.2.");
    assert_int_equal(checkpoint_load(folder, fewer.m, NULL, &e), -1);
    assert_has(e.message, "layers.1.");
    assert_has(e.message, "of the checkpoint is not in the model");
    assert_int_equal(checkpoint_load(folder, wider.m, wider.o, &e), -1);
    assert_has(e.message, "has not the model's shape");
    destroy(&f);
    destroy(&more);
    destroy(&fewer);
    destroy(&wider);
}

static void test_nothing_there(void **state)
{
    char found[IO_PATH_MAX];
    Err e = {0};
    (void)state;
    assert_int_equal(checkpoint_newest(scratch, found, &e), 0);
    assert_string_equal(found, "");
    assert_int_equal(checkpoint_open(at("none"), NULL, NULL, found, &e), -1);
    assert_has(e.message, "none: no such folder");
    assert_int_equal(checkpoint_open(scratch, NULL, NULL, found, &e), -1);
    assert_has(e.message, ": holds no checkpoint\nhint: expected a run folder");
    assert_int_equal(checkpoint_name_step("step-000000012"), 12);
    assert_int_equal(checkpoint_name_step("step-1234567890"), 1234567890);
    assert_int_equal(checkpoint_name_step("step-12"), -1);
    assert_int_equal(checkpoint_name_step("step-0000000012"), -1);
    assert_int_equal(checkpoint_name_step("step-000000012x"), -1);
    assert_int_equal(checkpoint_name_step("step-99999999999999999999"), -1);
}

/* A disk that takes no more, wherever in the file it ends: an error in words, no trace of the new
 * checkpoint, the old one whole. A limit on the size of files plays the disk. */
static void test_failed_save(void **state)
{
    Fixture f;
    struct rlimit old, limit;
    struct stat info;
    char found[IO_PATH_MAX], **names;
    int count;
    TrainState s = state_at(4);
    Err e = {0};
    (void)state;
    make(&f, 1, 8, 1);
    save(&f, 3);
    stat(step_file("rank-0000.h5"), &info);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (int i = 0; i < 6; i++) {
        limit = old;
        limit.rlim_cur = (rlim_t)(info.st_size * i / 6);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        int rc = checkpoint_save(scratch, f.m, f.o, &f.config, &s, &e);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(rc, -1);
        assert_has(e.message, "step-000000004.tmp.");
        assert_has(e.message, "rank-0000.h5: no space for its 0.1 MB: File too large\nhint: free");
        assert_int_equal(io_list_dir(at("checkpoints"), &names, &count, &e), 0);
        assert_int_equal(count, 1);
        io_free_names(names, count);
        assert_int_equal(checkpoint_newest(scratch, found, &e), 0);
        assert_int_equal(checkpoint_load(found, f.m, f.o, &e), 0);
    }
    save(&f, 4);
    destroy(&f);
}

static void test_no_folder(void **state)
{
    Fixture f;
    TrainState s = state_at(4);
    Err e = {0};
    (void)state;
    make(&f, 1, 8, 1);
    write_file(at("checkpoints"), "a file");
    assert_int_equal(checkpoint_save(scratch, f.m, f.o, &f.config, &s, &e), -1);
    assert_has(e.message, "/checkpoints: exists and is not a folder");
    destroy(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),    TEST(test_pruning),     TEST(test_same_step),
        TEST(test_other_model),   TEST(test_nothing_there), TEST(test_failed_save),
        TEST(test_no_folder),     TEST(test_optimizers),
    };
    return cmocka_run_group_tests(tests, begin_all, end_all);
}
