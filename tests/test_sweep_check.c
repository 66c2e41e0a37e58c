/* tests/test_sweep_check.c - `isomoe sweep` on a record that was begun: data that was prepared
 * anew, ledgers of older programs, sweeps that were cancelled as a whole; and the check behind the
 * fit. */
#include "tests/sweep_program.h"

#include <math.h>

#include "scaling/ledger.h"

/* ---- The data's content -----------------------------------------------------------------------*/

static char *first_id(void)
{
    json_t *plan = printed();
    const json_t *c = json_array_get(json_object_get(plan, "cells"), 0);
    char *id = strdup(json_string_value(json_object_get(c, "id")));
    json_decref(plan);
    return id;
}

/* Text that was prepared anew under the same path makes other cells, and a sweep that was begun on
 * the old one is refused, whether one of its runs is done or none; with the old text it goes on. */
static void test_content(void **state)
{
    char base[PATH * 2], folder[PATH * 2], text[4096], command[PATH * 5];
    (void)state;
    const char *study = write_study();
    prepare("text", 5);
    char *old = read_file(at("base.yaml"), NULL), *data = strstr(old, at("data"));
    assert_non_null(data);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(data - old), old, at("text"),
             data + strlen(at("data")));
    free(old);
    write_file(at("texts.yaml"), text);
    snprintf(base, sizeof base, "sweep.base=%s", at("texts.yaml"));
    snprintf(folder, sizeof folder, "sweep.out=%s", at("content"));
#define TEXTS base, folder, "sweep.adaptive=0"
    RUN_CODE(0, "sweep", study, TEXTS);
    RUN_CODE(0, "sweep", "status", at("content"), "--json");
    char *before = strdup(program_out);
    RUN_CODE(0, "sweep", study, base, "--dry-run", "--json");
    char *id = first_id();
    RUN_CODE(0, "sweep", study, base, "--dry-run", "--json");
    char *again = first_id();
    assert_string_equal(id, again);
    free(again);
    snprintf(command, sizeof command, "mv %s %s", at("text"), at("text-old"));
    assert_int_equal(system(command), 0);
    prepare("text", 6);
    RUN_CODE(0, "sweep", study, base, "--dry-run", "--json");
    again = first_id();
    assert_string_not_equal(id, again);
    free(again);
    free(id);
    RUN_CODE(1, "sweep", study, TEXTS);
    assert_has(program_err, "was begun with other data: ");
    assert_has(program_err, "give another sweep.out, or put the old data back");
    RUN_CODE(1, "sweep", study, TEXTS, "--held-out", "8000");
    assert_has(program_err, "was begun with other data: ");
    snprintf(command, sizeof command, "mv %s %s", at("content/cells"), at("content/aside"));
    assert_int_equal(system(command), 0); /* no record of a run tells */
    RUN_CODE(1, "sweep", study, TEXTS);
    assert_has(program_err, "(train) holds other data than when this sweep was begun: ");
    snprintf(command, sizeof command, "rm -r %s && mv %s %s && mv %s %s",
             at("text"), at("content/aside"), at("content/cells"), at("text-old"), at("text"));
    assert_int_equal(system(command), 0);
    RUN_CODE(0, "sweep", "status", at("content"), "--json");
    assert_string_equal(program_out, before);
    RUN_CODE(0, "sweep", study, TEXTS);
    assert_has(program_err, "cells stand in the record already");
    free(before);
}

/* A ledger of an older program, whose ids did not cover the content, and which kept no hash of it:
 * it goes on as it is, and on other text it is refused all the same. */
static void test_older_ledger(void **state)
{
    char folder[PATH * 2], variant[PATH * 3], text[4096], study2[PATH * 2];
    Err e = {0};
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("older"));
    RUN_CODE(0, "sweep", study, folder, "sweep.adaptive=1");
    Ledger *l = ledger_open(at("older"), false, &e);
    LedgerCell *cells;
    int n;
    if (!l || ledger_cells(l, &cells, &n, &e)) fail_msg("%s", e.message);
    ledger_close(&l);
    snprintf(variant, sizeof variant,
             "cd %s && sqlite3 ledger.sqlite \"DELETE FROM note WHERE key LIKE 'data %%'; PRAGMA "
             "user_version=1; ALTER TABLE cell DROP COLUMN experts; ALTER TABLE cell DROP COLUMN "
             "top_k; ALTER TABLE cell DROP COLUMN granularity; ALTER TABLE cell DROP COLUMN "
             "sparsity; UPDATE cell SET id = 'f' || substr(id, 2), parent = CASE parent WHEN '' "
             "THEN '' ELSE 'f' || substr(parent, 2) END\" && for f in cells/*; do mv $f $(echo $f "
             "| sed 's,cells/.,cells/f,') 2>/dev/null || true; done", at("older"));
    free(cells);
    if (system("sqlite3 -version >/dev/null 2>&1")) skip();
    assert_int_equal(system(variant), 0);
    RUN_CODE(0, "sweep", study, folder, "sweep.adaptive=2");
    assert_has(program_err, "cells stand in the record already");
    assert_has(program_err, "cells added");
    RUN_CODE(0, "sweep", "status", at("older"), "--json");
    json_t *list = printed();
    assert_true(count_state(list, "C", "done") > 2 * (1 + 1));
    assert_int_equal(count_state(list, "", "failed"), 0);
    size_t i;
    const json_t *c;
    json_array_foreach(list, i, c) { /* filled in, where they were added too */
        assert_true(number(c, "experts") == 4 && number(c, "top_k") == 2);
        assert_true(number(c, "granularity") > 2 && number(c, "sparsity") == 0.4);
    }
    json_decref(list);
    prepare("new", 9);
    char *old = read_file(at("base.yaml"), NULL), *data = strstr(old, at("data"));
    snprintf(text, sizeof text, "%.*s%s%s", (int)(data - old), old, at("new"),
             data + strlen(at("data")));
    free(old);
    write_file(at("older/base.yaml"), text); /* as if it had stood under that path */
    write_file(at("new.yaml"), text);
    snprintf(study2, sizeof study2, "sweep.base=%s", at("new.yaml"));
    RUN_CODE(1, "sweep", study, folder, study2);
    assert_has(program_err, "was begun with other data: ");
}

/* ---- The check behind the fit -----------------------------------------------------------------*/

/* One command: the study, its fit, the run at the best model, and both beside each other, printed,
 * in the ledger and in the report. Asked for again it says the same and runs nothing. */
static void test_check(void **state)
{
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("checked"));
#define FITTED                                                                                     \
    folder, "sweep.adaptive=0", "sweep.sizes=4", "sweep.spacing=2", "batch.value=64",              \
        "sweep.budgets=3e8,9e8,2.7e9", "family.width_max=64", "critical.b_star=1e5",               \
        "critical.alpha=0.25"
    RUN_CODE(1, "sweep", study, FITTED, "--held-out", "fit"); /* nothing is done yet */
    RUN_CODE(0, "sweep", study, FITTED, "sweep.check=fit");
    assert_has(program_out, "held-out budget: 5.40 G FLOPs, 2 times");
    assert_has(program_out, "to train: check-C5.4e9-");
    assert_has(program_out, "at 90 %, made without this run\n  measured ");
    assert_true(strstr(program_out, ": inside\n") || strstr(program_out, ": outside\n"));
    char *said = strdup(program_out);
    RUN_CODE(0, "sweep", "status", at("checked"), "--json");
    json_t *list = printed();
    assert_int_equal(count_state(list, "check-C5.4e9", "done"), 1);
    size_t i, cells = json_array_size(list);
    const json_t *c;
    json_array_foreach(list, i, c) {
        bool trunk = !strncmp(json_string_value(json_object_get(c, "name")), "trunk", 5);
        if (strcmp(json_string_value(json_object_get(c, "state")), "done") || trunk) continue;
        double crit = 1e5 / pow(number(c, "loss"), 4);
        double least = number(c, "C") / (1 + 64 / crit);
        assert_true(fabs(number(c, "C_min") / least - 1) < 1e-12);
    }
    json_decref(list);
    RUN_CODE(0, "sweep", study, FITTED, "--held-out", "fit");
    assert_string_equal(program_out, said);
    RUN_CODE(0, "sweep", study, FITTED, "sweep.check=fit");
    assert_string_equal(program_out, said);
    RUN_CODE(0, "sweep", "status", at("checked"), "--json");
    list = printed();
    assert_true(json_array_size(list) == cells);
    json_decref(list);
    RUN_CODE(0, "sweep", study, FITTED, "--held-out", "fit", "--dry-run");
    assert_has(program_out, "check-C5.4e9-");
    RUN_CODE(0, "report", at("checked"), "--bootstrap", "20");
    json_t *report = json_load_file(at("checked/report.json"), 0, NULL);
    const json_t *group = json_array_get(json_object_get(report, "groups"), 0);
    const json_t *held = json_array_get(json_object_get(group, "held_out"), 0);
    const json_t *before = json_object_get(held, "forecast_before");
    char line[128];
    assert_true(json_is_boolean(json_object_get(held, "inside")));
    assert_true(fabs(number(before, "predicted") / number(held, "predicted") - 1) < 1e-12);
    assert_true(json_array_size(json_object_get(before, "one_run_loss")) == 2);
    snprintf(line, sizeof line, "  forecast %.4f, one run within %.4f to %.4f",
             number(before, "predicted"),
             json_real_value(json_array_get(json_object_get(before, "one_run_loss"), 0)),
             json_real_value(json_array_get(json_object_get(before, "one_run_loss"), 1)));
    assert_has(said, line);
    snprintf(line, sizeof line, "  measured %.4f: ", number(held, "loss"));
    assert_has(said, line);
    json_decref(report);
    free(said);
}

/* A whole sweep that is cancelled gets no sizes, though all of it had ended; until it is tried
 * again. */
static void test_cancel_all(void **state)
{
    char folder[PATH * 2];
    (void)state;
    const char *study = write_study();
    snprintf(folder, sizeof folder, "sweep.out=%s", at("halted"));
    RUN_CODE(0, "sweep", study, folder, "sweep.adaptive=0");
    RUN_CODE(0, "sweep", "cancel", at("halted"));
    assert_has(program_out, "0 cells cancelled or asked to stop");
    RUN_CODE(0, "sweep", study, folder);
    assert_has(program_err, "no sizes are added until isomoe sweep retry");
    assert_null(strstr(program_err, "cells added"));
    RUN_CODE(0, "sweep", "retry", at("halted"));
    RUN_CODE(0, "sweep", study, folder);
    assert_has(program_err, "cells added");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content), cmocka_unit_test(test_older_ledger),
        cmocka_unit_test(test_check),   cmocka_unit_test(test_cancel_all),
    };
    return cmocka_run_group_tests(tests, begin_all, help_end);
}
