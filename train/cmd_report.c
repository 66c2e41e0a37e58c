/* train/cmd_report.c - `isomoe report`: a run, or a whole study, as one self-contained HTML page. A
 * study also as JSON, and its charts as files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "scaling/ledger.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/report.h"
#include "train/study.h"

enum { OPT_OUT, OPT_BOOTSTRAP, OPT_THREADS };

/* A page: written to `out` from what `self` points at. */
typedef void (*WritePage)(FILE *out, const void *self);

static void run_page(FILE *out, const void *self) { report_html(out, self); }

static void study_page(FILE *out, const void *self) { study_html(out, self); }

/* The page is made in memory and put in place whole. */
static int write_page(WritePage page, const void *self, const char *path, size_t *size, Err *e)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out) return err_errno(e, "%s: out of memory for the page", path);
    page(out, self);
    int failed = ferror(out), rc;
    if (fclose(out) || failed)
        rc = err_set(e, "%s: out of memory for the page", path);
    else
        rc = io_write_atomic(path, text, *size, e);
    free(text);
    return rc;
}

static int report_run(const Arguments *a, const char *folder, Err *e)
{
    Report r;
    char path[IO_PATH_MAX];
    size_t size = 0;
    int rc = -1;
    if (!report_read(&r, folder, e)) {
        rc = a->text[OPT_OUT] ? snprintf(path, sizeof path, "%s", a->text[OPT_OUT]) < 0
                              : io_join(path, folder, "report.html", e);
        if (!rc) rc = write_page(run_page, &r, path, &size, e);
    }
    report_clear(&r);
    if (rc) return EXIT_FAILED;
    printf("%s: %zu KiB\n", path, size / 1024);
    return stdout_finish(e);
}

int study_write(const Study *s, const char *to, Err *e)
{
    char path[IO_PATH_MAX];
    size_t size;
    int charts, images;
    if (io_make_dirs(to, e) || io_join(path, to, "plots", e) ||
        study_files(s, path, &charts, &images, e) || io_join(path, to, "report.json", e))
        return -1;
    json_t *json = study_json(s);
    int rc = json ? json_out_save(path, json, e) : err_set(e, "%s: out of memory", path);
    json_decref(json);
    if (rc || io_join(path, to, "report.html", e) || write_page(study_page, s, path, &size, e))
        return -1;
    printf("%s: %zu KiB; %s/report.json; %d charts as SVG, %d as PNG in %s/plots\n", path,
           size / 1024, to, charts, images, to);
    return 0;
}

static int report_study(const Arguments *a, const char *folder, Err *e)
{
    Study s;
    FitRequest r = fit_request_defaults(folder);
    long long replicates = a->number[OPT_BOOTSTRAP], threads = a->number[OPT_THREADS];
    if (replicates < 0 || replicates == 1 || replicates > 100000 || threads < 0 ||
        threads > 1024) {
        err_set(e, "report: --bootstrap %lld --threads %lld", replicates, threads);
        err_hint(e, "--bootstrap 0 (no intervals) or 2 to 100000, --threads 0 (all) to 1024");
        return EXIT_MISUSE;
    }
    r.replicates = (int)replicates;
    r.threads = (int)threads;
    r.backtest = replicates > 0;
    r.force = true; /* a cost law beyond its range is said, and nothing withheld */
    int rc = study_read(&s, &r, e);
    if (!rc) rc = study_write(&s, a->text[OPT_OUT] ? a->text[OPT_OUT] : folder, e);
    study_clear(&s);
    return rc ? EXIT_FAILED : stdout_finish(e);
}

static int run(const Arguments *a, Err *e)
{
    char folder[IO_PATH_MAX], ledger[IO_PATH_MAX];
    if (ledger_folder(a->free[0], folder, sizeof folder, e) ||
        io_join(ledger, folder, "ledger.sqlite", e))
        return EXIT_FAILED;
    return io_exists(ledger) ? report_study(a, folder, e) : report_run(a, folder, e);
}

const CommandRow command_report = {
    "report", "RUN|SWEEP", "one self-contained HTML page from a run, or from a study", 1, 1,
    {{"--out", OPTION_TEXT, NULL,
      "file to write (default: RUN/report.html); of a study the folder (default: SWEEP)"},
     {"--bootstrap", OPTION_INT, "1000", "of a study: resampled fits for intervals; 0: none"},
     {"--threads", OPTION_INT, "0", "of a study: 0: all; they change no digit"}},
    run,
};
