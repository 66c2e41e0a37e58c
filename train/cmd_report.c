/* train/cmd_report.c - `isomoe report`: a run as one self-contained HTML page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "train/command.h"
#include "train/report.h"

enum { OPT_OUT };

/* The page is made in memory and put in place whole. */
static int write_page(const Report *r, const char *path, size_t *size, Err *e)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    if (!out) return err_errno(e, "%s: out of memory for the page", path);
    report_html(out, r);
    int failed = ferror(out), rc;
    if (fclose(out) || failed)
        rc = err_set(e, "%s: out of memory for the page", path);
    else
        rc = io_write_atomic(path, text, *size, e);
    free(text);
    return rc;
}

static int run(const Arguments *a, Err *e)
{
    Report r;
    char folder[IO_PATH_MAX], path[IO_PATH_MAX];
    size_t size = 0;
    int rc = -1;
    snprintf(folder, sizeof folder, "%s", a->free[0]);
    for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--) folder[n - 1] = 0;
    if (!report_read(&r, folder, e)) {
        rc = a->text[OPT_OUT] ? snprintf(path, sizeof path, "%s", a->text[OPT_OUT]) < 0
                              : io_join(path, folder, "report.html", e);
        if (!rc) rc = write_page(&r, path, &size, e);
    }
    report_clear(&r);
    if (rc) return EXIT_FAILED;
    printf("%s: %zu KiB\n", path, size / 1024);
    return EXIT_DONE;
}

const CommandRow command_report = {
    "report", "RUN", "one self-contained HTML page from a run", 1, 1,
    {{"--out", OPTION_TEXT, NULL, "file to write (default: RUN/report.html)"}},
    run,
};
