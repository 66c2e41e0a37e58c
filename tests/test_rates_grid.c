/* tests/test_rates_grid.c - a sweep's grid of checks and variants of the rate, run and fitted. */
#include "tests/sweep_program.h"

/* Real cells: three batches of three rates beside each middle, and a fourth rate of a variant. */
static void test_grid(void **state)
{
    char path[PATH * 2], folder[PATH * 2];
    (void)state;
    char *study = read_file(write_study(), NULL), *file = NULL;
    assert_true(asprintf(&file, "%svariants: [{name: base}, {name: fast, overrides: "
                         "optim.lr=0.03}]\n", study) > 0);
    snprintf(path, sizeof path, "%s", at("grid.yaml"));
    snprintf(folder, sizeof folder, "%s", at("sweep"));
    write_file(path, file);
    free(file);
    free(study);
    RUN_CODE(0, "sweep", path, "sweep.budgets=6.149e8,1.2298e9", "sweep.adaptive=0",
             "sweep.check_rates=0.5 2", "sweep.check_batches=0.5 2"); /* 40 and 80 steps */
    RUN_CODE(0, "fit", folder, "--rates", "N", "--json");
    json_t *a = printed(), *cells = json_object_get(a, "cells");
    assert_string_equal(json_string_value(json_object_get(a, "N_is")), "N_no_embed");
    assert_int_equal(json_array_size(cells), 2); /* one of each budget */
    for (size_t i = 0; i < 2; i++) {
        json_t *c = json_array_get(cells, i);
        assert_int_equal(json_array_size(json_object_get(c, "curves")), 3);
        assert_true(json_integer_value(json_object_get(c, "runs")) >= 3 * 4);
    }
    json_decref(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_grid)};
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
