/* tests/test_study.c - the report of a study, from ledgers of runs whose law is known: its numbers,
 * its sections, what is not done, hostile names, its files. */
#include "tests/sweep_help.h"

#include "tests/boot_study.h"
#include "train/study.h"

enum { BUDGETS = 5, SIZES = 7, REPLICATES = 50 };
static const double trunk_share = 0.4; /* of the smallest budget: two points share it */
static const double noise = 3e-4;      /* of ln L */
static const char hostile[] = "<script>alert('x')</script> \"&amp;\" \x01";
static const LedgerTries once = {1, 0, 0.5};

static double budget(int i) { return 1e18 * pow(3, i); }

/* A cell with its own id, at N and the budget C; C = 6 N D. */
static Cell cell_at(int number, const char *name, CellKind kind, double C, double N)
{
    Cell c = make_cell("x", NULL, kind, "");
    snprintf(c.id, sizeof c.id, "%016x", 0x1000 + number);
    snprintf(c.name, sizeof c.name, "%s", name);
    c.budget = kind == CELL_TRUNK ? 0 : C;
    c.N = N;
    c.N_no_embed = 0.8 * N;
    c.N_total = 4 * N;
    c.D = C / 6 / N;
    c.C = c.own_flops = C;
    return c;
}

static double noisy_loss(const Cell *c)
{
    uint32_t number = (uint32_t)strtoul(c->id, NULL, 16);
    PhiloxKey key = {.seed = 5, .purpose = RNG_TEST, .stream = 3};
    return study_loss(c->N, c->D) * exp(noise * philox_normal(&key, number));
}

static CellResult result_of(const Cell *c)
{
    return (CellResult){.loss = noisy_loss(c), .train_loss = NAN, .tokens = c->D, .flops = c->C,
                        .seconds = c->C / 1e15, .b_noise = NAN, .steps = 10};
}

/* Runs everything: names with "diverge" and "fail" in them do that. */
static void run_all(Ledger *l)
{
    int first;
    OK(ledger_join(l, 2, &first, e));
    for (;;) {
        LedgerCell c;
        CellState now;
        double factor;
        bool found;
        OK(ledger_take(l, &c, &factor, &found, e));
        if (!found) break;
        CellResult r = result_of(&c.cell);
        if (strstr(c.cell.name, "diverge"))
            OK(ledger_end_try(l, c.cell.id, STATE_DIVERGED, hostile, &once, &now, e));
        else if (strstr(c.cell.name, "fail"))
            OK(ledger_end_try(l, c.cell.id, STATE_FAILED, "out of disk", &once, &now, e));
        else
            OK(ledger_finish(l, c.cell.id, 0, &r, e));
    }
    OK(ledger_leave(l, e));
}

static void add(Ledger *l, const Cell *c)
{
    CellList list = {.cell = (Cell *)(uintptr_t)c, .count = 1, .room = 1};
    OK(ledger_add(l, &list, NULL, e));
}

static void add_grid(Ledger *l, int *number)
{
    char name[CELL_NAME];
    Cell trunk = cell_at((*number)++, "trunk", CELL_TRUNK, trunk_share * budget(0),
                         study_n_opt(budget(0)));
    add(l, &trunk);
    for (int b = 0; b < BUDGETS; b++)
        for (int i = 0; i < SIZES; i++) {
            double N = study_n_opt(budget(b)) * pow(4, (i - SIZES / 2) / 3.0);
            snprintf(name, sizeof name, "C%d-n%d", b, i);
            Cell c = cell_at((*number)++, name, CELL_POINT, budget(b), N);
            if (b < 2 && i == SIZES / 2) { /* both go on from the trunk */
                memcpy(c.parent, trunk.id, sizeof c.parent);
                c.own_flops = c.C - trunk.C;
            }
            add(l, &c);
        }
}

static void add_beside(Ledger *l, int number)
{
    char name[CELL_NAME];
    double N = study_n_opt(budget(1));
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "C1-r%d", i);
        Cell c = cell_at(number++, name, CELL_CHECK, budget(1), N);
        c.lr *= i ? 2 : 0.5;
        c.batch *= i ? 2 : 1;
        add(l, &c);
    }
    double C = 3 * budget(BUDGETS - 1);
    Cell held = cell_at(number++, "check-C", CELL_CHECK, C, study_n_opt(C));
    Cell bad = cell_at(number++, "diverge<b>", CELL_POINT, budget(2), 9 * N);
    Cell failed = cell_at(number++, "fail-1", CELL_POINT, budget(2), 10 * N);
    Cell out = cell_at(number++, "C2-n9 (left out)", CELL_POINT, budget(2), 11 * N);
    snprintf(out.left_out, sizeof out.left_out, "needs <9> GiB");
    add(l, &held);
    add(l, &bad);
    add(l, &failed);
    add(l, &out);
}

/* What a finished run leaves of itself. */
static void write_record(const char *sweep, int number)
{
    char folder[PATH];
    snprintf(folder, sizeof folder, "%s/cells/%016x", sweep, 0x1000 + number);
    OK(io_make_dirs(at("%s", folder), e));
    write_file(at("%s/result.json", folder),
               "{\"code\": \"v9<i>\", \"device\": \"cpu\", \"threads\": 2}\n");
    write_file(at("%s/log.jsonl", folder), "{\"event\": \"start\", \"data\": \"00ff\"}\nrest\n");
}

static char *make_sweep(const char *name)
{
    static char folder[PATH];
    int number = 0;
    snprintf(folder, sizeof folder, "%s", new_sweep(name));
    Ledger *l = open_ledger(folder);
    add_grid(l, &number);
    add_beside(l, number);
    run_all(l);
    ledger_close(&l);
    write_record(name, 1);
    write_record(name, 2);
    return folder;
}

static FitRequest request_of(const char *folder)
{
    FitRequest r = fit_request_defaults(folder);
    r.replicates = fast() ? REPLICATES / 2 : REPLICATES;
    r.threads = 2;
    return r;
}

static Study read_study(const char *folder)
{
    Study s;
    FitRequest r = request_of(folder);
    r.backtest = true;
    OK(study_read(&s, &r, e));
    return s;
}

static char *page_of(const Study *s)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    study_html(out, s);
    fclose(out);
    return text;
}

static double real_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("%s is no number", key);
    return json_number_value(v);
}

static void assert_within(const json_t *pair, double value)
{
    double low = json_number_value(json_array_get(pair, 0));
    double high = json_number_value(json_array_get(pair, 1));
    if (!(low <= value && value <= high)) fail_msg("%g not in %g to %g", value, low, high);
}

/* ---- Numbers ----------------------------------------------------------------------------------*/

static void test_numbers(void **state)
{
    (void)state;
    Study s = read_study(make_sweep("numbers"));
    json_t *o = study_json(&s);
    assert_non_null(o);
    json_t *group = json_array_get(json_object_get(o, "groups"), 0);
    json_t *optimum = json_object_get(group, "optimum"), *fit = json_object_get(group, "fit");
    assert_int_equal(json_array_size(json_object_get(o, "groups")), 1);
    assert_int_equal(json_integer_value(json_object_get(group, "done")), BUDGETS * SIZES);
    int measured = 0;
    for (size_t i = 0; i < json_array_size(optimum); i++) {
        json_t *b = json_array_get(optimum, i);
        double C = real_of(b, "C"), N = study_n_opt(C);
        measured += json_is_true(json_object_get(b, "measured"));
        assert_near(real_of(b, "N") * real_of(b, "D") * 6 / C, 1, 1e-6);
        if (C > 4 * budget(BUDGETS - 1)) continue;
        assert_near(log(real_of(b, "N") / N), 0, 0.08);
        assert_near(real_of(b, "loss"), study_loss(N, C / 6 / N), 0.004);
        assert_within(json_object_get(b, "one_run_loss"), study_loss(N, C / 6 / N));
        assert_near(real_of(b, "hours"), C / 1e15 / 3600, 1e-6 * C / 3.6e18);
    }
    assert_int_equal(measured, BUDGETS);
    json_t *held = json_array_get(json_object_get(group, "held_out"), 0);
    assert_near(real_of(held, "C"), 3 * budget(BUDGETS - 1), 1);
    assert_true(json_is_true(json_object_get(held, "inside")));
    assert_int_equal(json_array_size(json_object_get(group, "residuals")), BUDGETS * SIZES);
    assert_near(real_of(json_object_get(fit, "parameters"), "alpha"), study_truth[3], 0.05);
    json_decref(o);
    study_clear(&s);
}

/* The study's fit is that of `isomoe fit`. */
static void test_same_as_fit(void **state)
{
    (void)state;
    char *folder = make_sweep("same");
    Study s = read_study(folder);
    FitAnswer *a = calloc(1, sizeof *a);
    FitRequest r = request_of(folder);
    assert_non_null(a);
    OK(fit_answer_make(a, &r, e));
    json_t *mine = fit_answer_json(s.group[0].answer), *other = fit_answer_json(a);
    json_object_del(mine, "backtest");
    assert_non_null(mine);
    assert_true(json_equal(mine, other));
    json_decref(mine);
    json_decref(other);
    fit_answer_clear(a);
    free(a);
    study_clear(&s);
}

static void test_ledger_numbers(void **state)
{
    (void)state;
    Study s = read_study(make_sweep("ledger"));
    double points = 0, others = 2 * budget(1) + 3 * budget(BUDGETS - 1);
    for (int b = 0; b < BUDGETS; b++) points += SIZES * budget(b);
    assert_near((points + others) / s.alone, 1, 1e-12);
    assert_near((s.alone - s.spent) / (trunk_share * budget(0)), 1, 1e-9);
    assert_near(s.seconds * 1e15 / s.spent, 1, 1e-9);
    assert_near(s.pace, 1e15, 1);
    assert_int_equal(s.counts[STATE_DONE], BUDGETS * SIZES + 4);
    assert_int_equal(s.counts[STATE_DIVERGED], 1);
    assert_int_equal(s.counts[STATE_FAILED], 1);
    assert_int_equal(s.left_out, 1);
    assert_int_equal(s.n_rates, 1);
    assert_int_equal(s.rates[0].count, 3);
    assert_int_equal(s.rates[0].rates, 3);
    assert_int_equal(s.rates[0].batches, 2);
    assert_int_equal(s.group[0].helds, 1);
    assert_int_equal(s.compares, 0);
    json_t *code = json_object_get(s.origin, "code");
    assert_int_equal(json_integer_value(json_object_get(code, "v9<i>")), 2);
    json_t *data = json_object_get(s.origin, "data");
    assert_int_equal(json_integer_value(json_object_get(data, "00ff")), 2);
    study_clear(&s);
}

/* ---- The page ---------------------------------------------------------------------------------*/

static void test_page(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "<h1>page", "What is doubtful", "<h2>Fit", "isoFLOP curves", "N_opt(C)", "D_opt(C)",
        "Forecast L(C)", "Measured less forecast", "Residuals", "Parameters of",
        "Certificate: gradient", "What to train, and what it costs", "Held-out budget",
        "Minima of the curves", "Methods beside each other", "<h3>Backtest",
        "Learning rate and batch", "Loss over the least, nats: C 3e18", "Cells that are not done",
        "Finished cells",
        "How it was counted", "exact: ", "data hash", "code of this report",
        "runs: code", "v9&lt;i&gt; (2)", "runs: seed", "needs &lt;9&gt; GiB", "out of disk",
        "diverge&lt;b&gt;", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &quot;&amp;amp;"};
    Study s = read_study(make_sweep("page"));
    char *page = page_of(&s);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) assert_has(page, parts[i]);
    const char *lines = strstr(page, "What is doubtful");
    assert_true(lines < strstr(page, "<h2>Fit"));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "http:"));
    assert_null(strstr(page, "https:"));
    assert_null(strstr(page, "src="));
    assert_null(strstr(page, "href="));
    assert_null(strstr(page, "nan"));
    free(page);
    study_clear(&s);
}

static void test_same_bytes(void **state)
{
    (void)state;
    char *folder = make_sweep("bytes");
    Study a = read_study(folder), b = read_study(folder);
    char *first = page_of(&a), *second = page_of(&b);
    json_t *x = study_json(&a), *y = study_json(&b);
    char *one = json_dumps(x, 0), *two = json_dumps(y, 0);
    assert_string_equal(first, second);
    assert_string_equal(one, two);
    free(first);
    free(second);
    free(one);
    free(two);
    json_decref(x);
    json_decref(y);
    study_clear(&a);
    study_clear(&b);
}

/* ---- Other studies ----------------------------------------------------------------------------*/

/* Three variants at one budget, three seeds each: 0, +0.02 with the seeds' own scatter, and one
 * that has other seeds. */
static void test_variants(void **state)
{
    (void)state;
    static const double scatter[3] = {0, 0.004, -0.001};
    char *folder = new_sweep("variants"), name[CELL_NAME];
    Ledger *l = open_ledger(folder);
    int first;
    OK(ledger_join(l, 2, &first, e));
    for (int v = 0; v < 3; v++)
        for (int i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "C1-s%d@%s", i, v == 0 ? "plain" : v == 1 ? "drop" : "<u>");
            Cell c = cell_at(10 * v + i, name, CELL_POINT, 1e18, 1e8);
            c.seed = v == 2 ? 10 + i : i;
            add(l, &c);
            CellResult r = result_of(&c);
            r.loss = 3 + scatter[i] + (v == 1 ? 0.02 + 0.001 * (i - 1) : 0);
            LedgerCell taken;
            double factor;
            bool found;
            OK(ledger_take(l, &taken, &factor, &found, e));
            OK(ledger_finish(l, c.id, 0, &r, e));
        }
    OK(ledger_leave(l, e));
    Cell missing = cell_at(99, "C1-n3 (left out)", CELL_POINT, 1e18, 2e8); /* of no variant */
    snprintf(missing.left_out, sizeof missing.left_out, "no such model");
    add(l, &missing);
    ledger_close(&l);
    Study s = read_study(folder);
    assert_int_equal(s.groups, 4);
    assert_int_equal(s.compares, 3);
    const StudyCompare *c = s.compare;
    assert_near(c[0].mean, 3.001, 1e-12);
    assert_near(c[0].sd, sqrt((1e-6 + 9e-6 + 4e-6) / 2), 1e-12);
    assert_near(c[1].difference, 0.02, 1e-12);
    assert_true(c[1].paired && !c[2].paired);
    /* t(0.95, 2) = 2.919986; the differences' sd is 0.001. */
    assert_near(c[1].interval.high - c[1].difference, 2.919986 * 0.001 / sqrt(3), 1e-8);
    /* Welch with equal variances and numbers: 4 degrees of freedom, t = 2.131847. */
    assert_near(c[2].interval.high, 2.131847 * c[0].sd * sqrt(2.0 / 3), 1e-8);
    char *page = page_of(&s);
    assert_has(page, "<h2>Variants");
    assert_has(page, "runs of one budget do not identify a law");
    assert_has(page, "&lt;u&gt;");
    assert_has(page, "Variants against the first one");
    assert_null(strstr(page, "no point is done"));
    free(page);
    study_clear(&s);
}

/* Nothing is done yet; and no ledger at all. */
static void test_empty(void **state)
{
    (void)state;
    char *folder = new_sweep("empty");
    Ledger *l = open_ledger(folder);
    Cell c = cell_at(1, "C1-n1", CELL_POINT, 1e18, 1e8);
    add(l, &c);
    ledger_close(&l);
    Study s = read_study(folder);
    char *page = page_of(&s);
    assert_has(page, "no point is done");
    assert_has(page, "planned");
    free(page);
    json_t *o = study_json(&s);
    assert_non_null(o);
    json_decref(o);
    study_clear(&s);
    Err e = {0};
    FitRequest r = request_of(at("nothing"));
    assert_int_equal(study_read(&s, &r, &e), -1);
    assert_has(e.message, "nothing");
    study_clear(&s);
}

/* ---- Files ------------------------------------------------------------------------------------*/

static void test_files(void **state)
{
    (void)state;
    static const char *const names[] = {"isoflop", "n-opt", "d-opt", "residuals", "forecast",
                                        "error", "rates", "surface"};
    char *folder = make_sweep("files"), *text;
    Study s = read_study(folder);
    int made, images;
    OK(io_make_dirs(at("files/plots"), e));
    write_file(at("files/plots/isoflop.png"), "old");
    char *path = getenv("PATH"), *kept = path ? strdup(path) : NULL;
    setenv("PATH", "/nowhere", 1);
    OK(study_files(&s, at("files/plots"), &made, &images, e));
    if (kept) setenv("PATH", kept, 1);
    free(kept);
    assert_int_equal(made, 8);
    assert_int_equal(images, 0);
    assert_false(io_exists(at("files/plots/isoflop.png")));
    for (int i = 0; i < 8; i++) {
        text = read_file(at("files/plots/%s.svg", names[i]), NULL);
        assert_has(text, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=");
        assert_null(strstr(text, "var(--"));
        assert_null(strstr(text, "nan"));
        free(text);
    }
    study_clear(&s);
}

static void test_program(void **state)
{
    (void)state;
    char *folder = make_sweep("program");
    RUN_CODE(0, "report", folder, "--bootstrap", "20");
    char *page = read_file(at("program/report.html"), NULL);
    char *json = read_file(at("program/report.json"), NULL);
    assert_has(page, "<h2>Fit");
    assert_has(json, "\"isomoe-report\"");
    assert_true(io_exists(at("program/plots/forecast.svg")));
    free(page);
    free(json);
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (size_t at = 0; text[at]; at++) n += !strncmp(text + at, part, strlen(part));
    return n;
}

/* Every heading of the page is in the text of what is printed. */
static const char *print_loses(const char *page)
{
    static char title[100];
    char *text = read_file(at("browser/page.txt"), NULL);
    const char *lost = NULL;
    for (const char *p = page; !lost && (p = strstr(p, "<h2>")); p++) {
        snprintf(title, sizeof title, "%.*s", (int)strcspn(p + 4, "<&"), p + 4);
        if (!strstr(text, title)) lost = title;
    }
    free(text);
    return lost;
}

/* What a browser loses of a page or invents, on the screen or on paper; NULL: nothing. */
static const char *browser_loses(const char *page)
{
    static const char *const tags[] = {"<svg", "<tr", "<h2", "<p", "<circle"};
    const char *lost = NULL;
    char command[4 * PATH];
    size_t size;
    write_file(at("browser/report.html"), page);
    snprintf(command, sizeof command, "cd %s/browser && chromium --headless --no-sandbox "
             "--disable-gpu --dump-dom file://$PWD/report.html >dom 2>/dev/null && chromium "
             "--headless --no-sandbox --disable-gpu --print-to-pdf=page.pdf "
             "file://$PWD/report.html 2>/dev/null && pdftotext page.pdf page.txt", scratch);
    assert_int_equal(system(command), 0);
    char *dom = read_file(at("browser/dom"), NULL);
    for (size_t i = 0; !lost && i < sizeof tags / sizeof *tags; i++)
        if (count(page, tags[i]) != count(dom, tags[i])) lost = tags[i];
    char *pdf = read_file(at("browser/page.pdf"), &size);
    if (!lost && (size < 20000 || memcmp(pdf, "%PDF", 4))) lost = "the print";
    free(pdf);
    free(dom);
    return lost ? lost : print_loses(page);
}

/* The page with its first `in` as `out`; for the caller to free. */
__attribute__((noinline)) static char *replaced(const char *page, const char *in, const char *out)
{
    const char *where = strstr(page, in);
    assert_non_null(where);
    size_t room = strlen(page) + strlen(out) + 1;
    char *broken = malloc(room);
    assert_non_null(broken);
    snprintf(broken, room, "%.*s%s%s", (int)(where - page), page, out, where + strlen(in));
    return broken;
}

/* A browser reads the page as it was meant: nothing is lost or invented, and it prints. A page with
 * a fault does not pass. */
static void test_browser(void **state)
{
    static const struct { const char *in, *out, *lost; } faults[] = {
        {"<table", "<tabel", "<tr"},          /* rows outside of a table are dropped */
        {"<h2>", "<!--<h2>", NULL},           /* a comment without an end */
        {"</style>", "main{display:none}</style>", NULL}, /* nothing is shown */
        {"</style>", "@media print{h2{display:none}}</style>", NULL}};
    (void)state;
    if (!getenv("ISOMOE_LONG")) skip();
    if (system("command -v chromium >/dev/null && command -v pdftotext >/dev/null")) {
        print_message("no chromium or no pdftotext here: no browser has read the page\n");
        skip();
    }
    Study s = read_study(make_sweep("browser"));
    char *page = page_of(&s);
    assert_true(count(page, "<tr") > 0 && count(page, "<h2>") > 2 && count(page, "<circle") > 0);
    const char *lost = browser_loses(page);
    if (lost) fail_msg("the browser loses %s", lost);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char *broken = replaced(page, faults[i].in, faults[i].out);
        lost = browser_loses(broken);
        if (!lost) fail_msg("%s: the browser loses nothing", faults[i].out);
        if (faults[i].lost) assert_string_equal(lost, faults[i].lost);
        free(broken);
    }
    free(page);
    study_clear(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),        cmocka_unit_test(test_same_as_fit),
        cmocka_unit_test(test_ledger_numbers), cmocka_unit_test(test_page),
        cmocka_unit_test(test_same_bytes),     cmocka_unit_test(test_variants),
        cmocka_unit_test(test_empty),          cmocka_unit_test(test_files),
        cmocka_unit_test(test_program),        cmocka_unit_test(test_browser),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
