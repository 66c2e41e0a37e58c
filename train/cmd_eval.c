/* train/cmd_eval.c - `isomoe eval`: loss and bits per byte on held-out text of one or more domains,
 * multiple-choice tasks, routing statistics; writes <run>/eval.json. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "train/choices_out.h"
#include "train/command.h"
#include "train/domains.h"
#include "train/json_out.h"
#include "train/run_data.h"

enum {
    OPT_DATA, OPT_SEQUENCES, OPT_TASKS, OPT_PER_EXAMPLE, OPT_ROUTING, OPT_XZ, OPT_JSON
};

typedef struct Evaluation {
    OpenRun run;
    Domains heldout;
    Task *task;          /* (tasks) */
    TaskScore *score;
    int tasks;
    int64_t xz_bytes;    /* -1: not asked for */
    double seconds;
} Evaluation;

/* The run's held-out text: data.val, or a domain for each source that has a weight. */
static int add_own(Evaluation *v, Err *e)
{
    const DataConfig *data = &v->run.config.data;
    if (data->val[0]) return domains_add(&v->heldout, data->val, e);
    for (int64_t s = 0; s < data->n_sources; s++)
        if (data->source[s].weight > 0 &&
            domains_add_named(&v->heldout, data->source[s].name, data->source[s].path, e))
            return -1;
    return 0;
}

static int add_domains(Evaluation *v, const Arguments *a, Err *e)
{
    for (int i = 0; i < a->n_listed; i++)
        if (a->listed[i].option == OPT_DATA && domains_add(&v->heldout, a->listed[i].text, e))
            return -1;
    return v->heldout.count ? 0 : add_own(v, e);
}

static int read_tasks(Evaluation *v, const Arguments *a, Err *e)
{
    v->task = calloc(COMMAND_MAX_ARGUMENTS, sizeof *v->task);
    v->score = calloc(COMMAND_MAX_ARGUMENTS, sizeof *v->score);
    if (!v->task || !v->score) return err_set(e, "out of memory for tasks");
    for (int i = 0; i < a->n_listed; i++)
        if (a->listed[i].option == OPT_TASKS &&
            task_read(&v->task[v->tasks++], a->listed[i].text, e))
            return -1;
    return 0;
}

static int open_model(Evaluation *v, Err *e)
{
    ModelShape shape = run_config_shape(&v->run.config);
    shape.train = false;
    shape.micro_batches = 1;
    if (!v->tasks) shape.B = size_min(shape.B, domains_longest(&v->heldout));
    return open_run_model(&v->run, &shape, e);
}

/* Everything is read before the model is opened, so that mistakes show at once. */
static int evaluate(Evaluation *v, const Arguments *a, Err *e)
{
    int64_t asked = a->text[OPT_SEQUENCES] ? a->number[OPT_SEQUENCES]
                                           : v->run.config.train.eval_sequences;
    if (add_domains(v, a, e) || read_tasks(v, a, e)) return -1;
    if (domains_open(&v->heldout, &v->run, asked, e) || open_model(v, e)) return -1;
    if (a->number[OPT_XZ] && !(v->heldout.text = tmpfile()))
        return err_errno(e, "a temporary file for the held-out text cannot be made");
    double start = log_seconds();
    if (domains_measure(&v->heldout, &v->run, a->number[OPT_ROUTING] != 0, e)) return -1;
    for (int i = 0; i < v->tasks; i++)
        if (task_score(&v->score[i], &v->task[i], v->run.model, v->heldout.tokenizer, e))
            return -1;
    v->seconds = log_seconds() - start;
    return v->heldout.text ? xz_size(v->heldout.text, &v->xz_bytes, e) : 0;
}

static double xz_bits(const Evaluation *v)
{
    if (v->xz_bytes < 0 || !v->heldout.all.bytes) return NAN;
    return 8 * (double)v->xz_bytes / (double)v->heldout.all.bytes;
}

static void add_details(json_t *out, const Evaluation *v)
{
    const Domains *d = &v->heldout;
    json_object_set_new(out, "domains", domains_json(d));
    if (v->tasks) {
        json_t *list = json_array();
        for (int i = 0; i < v->tasks; i++)
            json_array_append_new(list, task_score_json(&v->task[i], &v->score[i]));
        json_object_set_new(out, "tasks", list);
    }
    if (d->routing) json_object_set_new(out, "routing", routing_json(d->routing, d->count));
}

/* data and data_hash are null where there are several domains. */
static json_t *result_json(const Evaluation *v)
{
    const HeldOut *h = &v->heldout.all;
    const Domain *only = v->heldout.count == 1 ? &v->heldout.domain[0] : NULL;
    const char *from = v->run.checkpoint;
    json_t *out = json_pack(
        "{s:o, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "checkpoint", json_out_text(from, strlen(from)), "step", (json_int_t)v->run.state.step,
        "data", only ? json_out_text(only->path, strlen(only->path)) : json_null(), "data_hash",
        only ? json_out_hash(loader_data_hash(only->loader)) : json_null(), "tokenizer_hash",
        json_out_hash(tokenizer_hash(v->heldout.tokenizer)), "sequences",
        (json_int_t)h->sequences, "tokens", (json_int_t)h->targets, "bytes", (json_int_t)h->bytes,
        "loss", json_out_real(h->loss), "perplexity", json_out_real(h->perplexity),
        "bits_per_byte", json_out_real(h->bits_per_byte), "mean_bits_per_byte",
        json_out_real(v->heldout.mean_bits), "xz_bytes",
        v->xz_bytes < 0 ? json_null() : json_integer(v->xz_bytes), "xz_bits_per_byte",
        json_out_real(xz_bits(v)), "seconds", json_out_real(v->seconds));
    const ModelConfig *m = &v->run.config.model;
    char with[64];
    snprintf(with, sizeof with, "dropless top-%lld, in training expert choice",
             (long long)m->top_k);
    if (out && model_check_causal(m, NULL))
        json_object_set_new(out, "measured_with", json_string(with));
    if (out) add_details(out, v);
    return out;
}

static void print_text(const Evaluation *v)
{
    const Domains *d = &v->heldout;
    printf("%s, held-out text of %s\n", v->run.checkpoint,
           d->count == 1 ? d->domain[0].path : "the domains");
    domains_print(d, stdout);
    if (model_check_causal(&v->run.config.model, NULL))
        printf("  %-16s dropless top-%lld: expert choice would look at later tokens\n", "routing",
               (long long)v->run.config.model.top_k);
    if (v->xz_bytes >= 0)
        printf("  %-16s %.4f on the same text (%lld bytes)\n", "xz -9", xz_bits(v),
               (long long)v->xz_bytes);
    for (int i = 0; i < v->tasks; i++) {
        putchar('\n');
        task_score_print(&v->task[i], &v->score[i], stdout);
    }
    if (!d->routing) return;
    putchar('\n');
    routing_print(d->routing, d->count, stdout);
}

static int save(const Evaluation *v, const char *per_example, Err *e)
{
    char path[IO_PATH_MAX];
    if (per_example && choices_save(per_example, v->task, v->score, v->tasks, e)) return -1;
    if (!v->run.run[0]) {
        log_info("%s lies in no run folder: eval.json is not written", v->run.checkpoint);
        return 0;
    }
    json_t *record = result_json(v);
    int rc = io_join(path, v->run.run, "eval.json", e);
    if (!rc) rc = json_out_save(path, record, e);
    json_decref(record);
    return rc;
}

static int check_options(const Arguments *a, Err *e)
{
    if (a->number[OPT_SEQUENCES] < 0 && a->text[OPT_SEQUENCES])
        return err_set(e, "--sequences %lld: must be 0 (all) or more", a->number[OPT_SEQUENCES]);
    if (a->text[OPT_PER_EXAMPLE] && !a->text[OPT_TASKS])
        return err_set(e, "--per-example needs --tasks");
    return 0;
}

static void finish(Evaluation *v)
{
    for (int i = 0; i < v->tasks; i++) {
        task_score_free(&v->score[i]);
        task_free(&v->task[i]);
    }
    free(v->task);
    free(v->score);
    domains_close(&v->heldout);
    open_run_close(&v->run);
}

static int run(const Arguments *a, Err *e)
{
    Evaluation v = {.xz_bytes = -1};
    int code = EXIT_FAILED;
    if (check_options(a, e)) return EXIT_MISUSE;
    if (open_run(&v.run, a->free[0], e) || evaluate(&v, a, e) ||
        save(&v, a->text[OPT_PER_EXAMPLE], e))
        goto done;
    if (a->number[OPT_JSON]) {
        code = json_out_print(result_json(&v), e);
    } else {
        print_text(&v);
        code = stdout_finish(e);
    }
done:
    finish(&v);
    return code;
}

const CommandRow command_eval = {
    "eval", "RUN|CHECKPOINT", "bits per byte on held-out text, multiple-choice tasks, routing", 1,
    1,
    {{"--data", OPTION_LIST, NULL, "folder made by `isomoe prepare`, or NAME=FOLDER, of each domain"
      " (default: the run's)"},
     {"--sequences", OPTION_INT, NULL,
      "N held-out sequences, evenly spread; 0: all (default: the run's)"},
     {"--tasks", OPTION_LIST, NULL, "multiple-choice questions, JSON lines; may be repeated"},
     {"--per-example", OPTION_TEXT, NULL, "write every question's scores to this file"},
     {"--routing", OPTION_FLAG, NULL, "load, entropy and specialization by layer and domain"},
     {"--compare-xz", OPTION_FLAG, NULL, "compress the same text with xz -9 beside it"},
     {"--json", OPTION_FLAG, NULL, "print JSON"}},
    run,
};
