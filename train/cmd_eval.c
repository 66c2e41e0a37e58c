/* train/cmd_eval.c - `isomoe eval`: loss, perplexity and bits per byte on held-out text; writes
 * <run>/eval.json. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "train/command.h"
#include "train/heldout.h"
#include "train/json_out.h"
#include "train/open_run.h"
#include "train/run_data.h"

enum { OPT_DATA, OPT_SEQUENCES, OPT_XZ, OPT_JSON };

typedef struct Evaluation {
    OpenRun run;
    const char *data;   /* folder with tokenizer and val shards (of several: the first) */
    bool given;         /* by --data; else it is the run's held-out text */
    Loader *loader;
    Tokenizer *tokenizer;
    FILE *text;         /* held-out text for xz; or NULL */
    HeldOut result;
    int64_t xz_bytes;   /* -1: not asked for */
    double seconds;
} Evaluation;

static int open_data(Evaluation *v, Err *e)
{
    LoaderOptions options = run_data_options(&v->run.config, "val");
    if (v->given) {
        options.source[0] = (LoaderSource){v->data, 1};
        options.n_sources = 1;
    }
    v->loader = loader_open(&options, e);
    if (!v->loader) return -1;
    v->tokenizer = open_run_tokenizer(&v->run, v->data, e);
    if (!v->tokenizer) return -1;
    if (tokenizer_hash(v->tokenizer) == loader_tokenizer_hash(v->loader)) return 0;
    return err_set(e, "%s: its shards were not made with its tokenizer.model", v->data);
}

/* How many windows to take: `asked`, 0 = all there are, and never more. */
static int64_t choose_sequences(const Evaluation *v, int64_t asked)
{
    int64_t there = loader_windows(v->loader);
    if (asked > there) log_info("%s has %lld held-out sequences", v->data, (long long)there);
    return asked ? size_min(asked, there) : there;
}

static int evaluate(Evaluation *v, int64_t asked, bool compare_xz, Err *e)
{
    ModelShape shape = run_config_shape(&v->run.config);
    shape.train = false;
    shape.micro_batches = 1;
    if (open_data(v, e)) return -1;
    int64_t sequences = choose_sequences(v, asked);
    if (!sequences) return err_set(e, "%s: too little held-out text for one sequence", v->data);
    shape.B = size_min(shape.B, sequences);
    if (open_run_model(&v->run, &shape, e)) return -1;
    if (compare_xz && !(v->text = tmpfile()))
        return err_errno(e, "a temporary file for the held-out text cannot be made");
    double start = log_seconds();
    if (heldout_measure(&v->result, v->run.model, v->loader, v->tokenizer, sequences,
                        v->run.config.data.mask_documents, v->text, e))
        return -1;
    v->seconds = log_seconds() - start;
    return compare_xz ? xz_size(v->text, &v->xz_bytes, e) : 0;
}

static double xz_bits(const Evaluation *v)
{
    if (v->xz_bytes < 0 || !v->result.bytes) return NAN;
    return 8 * (double)v->xz_bytes / (double)v->result.bytes;
}

static json_t *result_json(const Evaluation *v)
{
    const HeldOut *h = &v->result;
    const char *data = v->data, *from = v->run.checkpoint;
    return json_pack(
        "{s:o, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "checkpoint",
        json_out_text(from, strlen(from)), "step", (json_int_t)v->run.state.step, "data",
        json_out_text(data, strlen(data)), "data_hash",
        json_out_hash(loader_data_hash(v->loader)), "tokenizer_hash",
        json_out_hash(loader_tokenizer_hash(v->loader)), "sequences", (json_int_t)h->sequences,
        "tokens", (json_int_t)h->targets, "bytes", (json_int_t)h->bytes, "loss",
        json_out_real(h->loss), "perplexity", json_out_real(h->perplexity), "bits_per_byte",
        json_out_real(h->bits_per_byte), "xz_bytes",
        v->xz_bytes < 0 ? json_null() : json_integer(v->xz_bytes), "xz_bits_per_byte",
        json_out_real(xz_bits(v)), "seconds", json_out_real(v->seconds));
}

static void print_text(const Evaluation *v)
{
    const HeldOut *h = &v->result;
    printf("%s, held-out text of %s\n", v->run.checkpoint, v->data);
    printf("  %-16s %lld sequences, %lld tokens, %lld bytes\n", "measured on",
           (long long)h->sequences, (long long)h->targets, (long long)h->bytes);
    printf("  %-16s %.4f nats a token\n  %-16s %.3f\n", "loss", h->loss, "perplexity",
           h->perplexity);
    printf("  %-16s %.4f\n", "bits per byte", h->bits_per_byte);
    if (v->xz_bytes >= 0)
        printf("  %-16s %.4f on the same text (%lld bytes)\n", "xz -9", xz_bits(v),
               (long long)v->xz_bytes);
}

static int save(const Evaluation *v, Err *e)
{
    char path[IO_PATH_MAX];
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

static int run(const Arguments *a, Err *e)
{
    Evaluation v = {.xz_bytes = -1};
    int code = EXIT_FAILED;
    if (a->number[OPT_SEQUENCES] < 0 && a->text[OPT_SEQUENCES]) {
        err_set(e, "--sequences %lld: must be 0 (all) or more", a->number[OPT_SEQUENCES]);
        return EXIT_MISUSE;
    }
    if (open_run(&v.run, a->free[0], e)) goto done;
    v.given = a->text[OPT_DATA] != NULL;
    v.data = v.given ? a->text[OPT_DATA] : run_data_path(&v.run.config, "val");
    int64_t asked = a->text[OPT_SEQUENCES] ? a->number[OPT_SEQUENCES]
                                           : v.run.config.train.eval_sequences;
    if (evaluate(&v, asked, a->number[OPT_XZ] != 0, e) || save(&v, e)) goto done;
    if (a->number[OPT_JSON]) {
        code = json_out_print(result_json(&v), e);
    } else {
        print_text(&v);
        code = stdout_finish(e);
    }
done:
    if (v.text) fclose(v.text);
    tokenizer_close(&v.tokenizer);
    loader_close(&v.loader);
    open_run_close(&v.run);
    return code;
}

const CommandRow command_eval = {
    "eval", "RUN|CHECKPOINT", "loss, perplexity and bits per byte on held-out text", 1, 1,
    {{"--data", OPTION_TEXT, NULL, "folder made by `isomoe prepare` (default: the run's)"},
     {"--sequences", OPTION_INT, NULL, "first N held-out sequences; 0: all (default: the run's)"},
     {"--compare-xz", OPTION_FLAG, NULL, "compress the same text with xz -9 beside it"},
     {"--json", OPTION_FLAG, NULL, "print JSON"}},
    run,
};
