/* train/cmd_train.c - `isomoe train`: pretrain, or go on from the newest checkpoint. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/loop.h"
#include "train/signals.h"

enum { OPT_FRESH, OPT_RESUME, OPT_JSON, OPT_QUIET };

/* The run was complete before: say so, and what its last record says. */
static int print_complete(const Run *r, bool json, Err *e)
{
    log_info("%s: complete at step %" PRId64 "; nothing to do", r->folder, r->state.step);
    return json ? json_out_print(runlog_last(r->folder, "final"), e) : EXIT_DONE;
}

static int run(const Arguments *a, Err *e)
{
    Run *r = malloc(sizeof *r);
    json_t *last = NULL;
    int code = EXIT_FAILED;
    const char *resume = a->text[OPT_RESUME];
    RunOptions options = {.path = a->free[0],
                          .overrides = a->free + 1,
                          .n_overrides = a->n_free - 1,
                          .fresh = a->number[OPT_FRESH] != 0,
                          .must_resume = !strcmp(resume, "required")};
    if (!r) {
        err_set(e, "out of memory");
        return EXIT_FAILED;
    }
    *r = (Run){.lock = -1, .log.fd = -1};
    if (strcmp(resume, "auto") && !options.must_resume) {
        err_set(e, "train: --resume is auto or required, not '%.60s'", resume);
        code = EXIT_MISUSE;
        goto done;
    }
    if (options.fresh && options.must_resume) {
        err_set(e, "train: --fresh and --resume required exclude each other");
        code = EXIT_MISUSE;
        goto done;
    }
    log_set_quiet(a->number[OPT_QUIET] != 0);
    signals_install();
    if (run_open(r, &options, e)) goto done;
    if (r->complete) {
        code = print_complete(r, a->number[OPT_JSON] != 0, e);
        goto done;
    }
    code = loop_train(r, &last, e);
    if (a->number[OPT_JSON] && last && code != EXIT_FAILED) {
        int printed = json_out_print(json_incref(last), e);
        if (printed != EXIT_DONE) code = printed;
    }
done:
    json_decref(last);
    run_close(r);
    free(r);
    return code;
}

const CommandRow command_train = {
    .name = "train",
    .usage = "CONFIG [key=value ...]",
    .help = "pretrain a model, or resume it from its newest checkpoint",
    .min_free = 1,
    .max_free = COMMAND_MAX_ARGUMENTS,
    .option = {{"--fresh", OPTION_FLAG, NULL, "refuse a run folder that is not empty"},
               {"--resume", OPTION_TEXT, "auto",
                "auto: from the newest checkpoint if there is one; required: fail without one"},
               {"--json", OPTION_FLAG, NULL, "print the last record on standard output"},
               {"--quiet", OPTION_FLAG, NULL, "no progress lines"}},
    .run = run,
};
