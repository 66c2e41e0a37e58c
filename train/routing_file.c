/* train/routing_file.c - see routing_file.h. A header of 16 numbers of 64 bits, a table of
 * the stages if the run has some, then one record a step, in each stage all of one size; what is
 * read is compared with the run's own numbers before it is used. */
#include "train/routing_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/size.h"
#include "train/stages.h"

/* Places in the header. */
enum {
    HEAD_MAGIC, HEAD_FORMAT, HEAD_LAYERS, HEAD_EXPERTS, HEAD_SLOTS, HEAD_TOKENS, HEAD_GROUP,
    HEAD_CAPACITY, HEAD_ROUTING, HEAD_SEED, HEAD_DATA, HEAD_RUN, HEAD_FIRST, HEAD_SIZE,
    HEAD_STAGES, HEAD_HASH, HEAD_COUNT
};
enum { STAGE_FIRST, STAGE_BATCH, STAGE_TOKENS, STAGE_COUNT }; /* of an entry of the table */
enum { HEAD_BYTES = 8 * HEAD_COUNT, RECORD_HEAD = 16, FORMAT = 1 };
static const char magic[9] = "ISOMOERT";

/* Header numbers that a replay compares, how to call and how to write them. What others follow from
 * stands before them. */
typedef enum FactKind { FACT_NUMBER, FACT_HASH, FACT_ROUTING } FactKind;
static const struct {
    int place;
    const char *name;
    FactKind kind;
} facts[] = {
    {HEAD_LAYERS, "model.n_layers", FACT_NUMBER},
    {HEAD_EXPERTS, "model.n_experts", FACT_NUMBER},
    {HEAD_SLOTS, "experts a token", FACT_NUMBER},
    {HEAD_STAGES, "the number of stages", FACT_NUMBER},
    {HEAD_TOKENS, "tokens of a step", FACT_NUMBER},
    {HEAD_GROUP, "model.routing_group_tokens", FACT_NUMBER},
    {HEAD_ROUTING, "model.routing", FACT_ROUTING},
    {HEAD_CAPACITY, "the experts' capacity", FACT_NUMBER},
    {HEAD_SEED, "train.seed", FACT_NUMBER},
    {HEAD_DATA, "the training data's hash", FACT_HASH},
    {HEAD_SIZE, "bytes of a choice", FACT_NUMBER},
};
enum { FACTS = sizeof facts / sizeof *facts };

struct RoutingFile {
    char path[IO_PATH_MAX];
    uint64_t head[HEAD_COUNT];
    uint64_t table[RUN_STAGES * STAGE_COUNT + 1]; /* of the stages, and its hash */
    int64_t L, E, slots, group, capacity;
    int64_t begin[RUN_STAGES], tokens[RUN_STAGES]; /* of a stage: first step, tokens of a step */
    int n_stages;     /* at least 1 */
    int64_t N, most;  /* tokens of the step in hand, of the largest one */
    int64_t bytes;    /* of the record of the step in hand */
    int64_t steps;    /* whole records in the file */
    char *record;     /* as in the file */
    int32_t *choices; /* (L, N, slots) of a step */
    int32_t *part;    /* (L, n, slots), n at most N */
    int32_t *load;    /* (E) scratch of the check */
    int fd;
};

static uint64_t head_hash(const uint64_t *head) { return hash_bytes(head, 8 * HEAD_HASH); }

/* ---- Sizes by stage ---------------------------------------------------------------------------*/

static int64_t table_numbers(const RoutingFile *f)
{
    int64_t n = (int64_t)f->head[HEAD_STAGES];
    return n ? n * STAGE_COUNT + 1 : 0;
}

static int64_t head_bytes(const RoutingFile *f) { return HEAD_BYTES + 8 * table_numbers(f); }

static int64_t record_bytes(const RoutingFile *f, int stage)
{
    return RECORD_HEAD + f->L * f->tokens[stage] * f->slots * (int64_t)f->head[HEAD_SIZE];
}

/* Of the stages' steps that are recorded from step `first` on and lie before `step`, the bytes. */
static int64_t bytes_between(const RoutingFile *f, int64_t first, int64_t step)
{
    int64_t sum = 0;
    for (int i = 0; i < f->n_stages; i++) {
        int64_t from = size_max(first, f->begin[i]);
        int64_t to = i + 1 < f->n_stages ? size_min(step, f->begin[i + 1]) : step;
        sum += size_max(0, to - from) * record_bytes(f, i);
    }
    return sum;
}

/* Whole records in so many bytes, of steps from `first` on. */
static int64_t steps_in(const RoutingFile *f, int64_t first, int64_t bytes)
{
    int64_t step = first;
    for (int i = 0; i < f->n_stages; i++) {
        bool last = i + 1 == f->n_stages;
        int64_t room = bytes / record_bytes(f, i);
        if (!last && f->begin[i + 1] <= step) continue;
        if (!last) room = size_min(room, f->begin[i + 1] - step);
        step += room;
        bytes -= room * record_bytes(f, i);
        if (!last && step < f->begin[i + 1]) break;
    }
    return step - first;
}

/* Takes this step in hand. */
static void set_step(RoutingFile *f, int64_t step)
{
    int i = f->n_stages - 1;
    while (i > 0 && step < f->begin[i]) i--;
    f->N = f->tokens[i];
    f->bytes = record_bytes(f, i);
}

static void make_table(RoutingFile *f, const RunConfig *c)
{
    f->n_stages = stages_count(c);
    for (int i = 0; i < f->n_stages; i++) {
        Stage s = stages_get(c, i);
        uint64_t *entry = f->table + i * STAGE_COUNT;
        entry[STAGE_FIRST] = (uint64_t)(f->begin[i] = s.first + 1);
        entry[STAGE_BATCH] = (uint64_t)s.batch;
        entry[STAGE_TOKENS] = (uint64_t)s.seq_len;
        f->tokens[i] = s.batch * s.seq_len;
        f->most = size_max(f->most, f->tokens[i]);
    }
    size_t n = (size_t)f->n_stages * STAGE_COUNT;
    f->table[n] = hash_bytes(f->table, 8 * n);
}

/* ---- Header -----------------------------------------------------------------------------------*/

/* The header that this run's record has. */
static void make_head(RoutingFile *f, const RunConfig *c, RoutingOrigin origin, int64_t first)
{
    const ModelConfig *m = &c->model;
    uint64_t *head = f->head;
    memcpy(&head[HEAD_MAGIC], magic, 8);
    head[HEAD_FORMAT] = FORMAT;
    head[HEAD_LAYERS] = (uint64_t)(f->L = m->n_layers);
    head[HEAD_EXPERTS] = (uint64_t)(f->E = m->n_experts);
    head[HEAD_SLOTS] = (uint64_t)(f->slots = model_slots(m));
    make_table(f, c);
    head[HEAD_STAGES] = (uint64_t)c->n_stages;
    head[HEAD_TOKENS] = c->n_stages ? 0 : (uint64_t)f->most; /* else they are in the table */
    head[HEAD_GROUP] = (uint64_t)(f->group = m->routing_group_tokens);
    head[HEAD_CAPACITY] = (uint64_t)(f->capacity = model_has_capacity(m) ? model_capacity(m) : 0);
    head[HEAD_ROUTING] = (uint64_t)m->routing;
    head[HEAD_SEED] = (uint64_t)c->train.seed;
    head[HEAD_DATA] = origin.data_hash;
    head[HEAD_RUN] = origin.run_id;
    head[HEAD_FIRST] = (uint64_t)first;
    head[HEAD_SIZE] = f->E <= INT16_MAX ? 2 : 4;
    head[HEAD_HASH] = head_hash(head);
}

static int64_t choices_of(const RoutingFile *f) { return f->L * f->N * f->slots; }

static RoutingFile *begin(const char *path, const RunConfig *c, RoutingOrigin origin, int64_t first,
                          Err *e)
{
    RoutingFile *f = calloc(1, sizeof *f);
    int64_t n, bytes;
    if (!f) {
        err_set(e, "%s: out of memory", path);
        return NULL;
    }
    f->fd = -1;
    snprintf(f->path, sizeof f->path, "%s", path);
    make_head(f, c, origin, first);
    bool fits = size_mul(f->L, f->most, &n) && size_mul(n, f->slots, &n) && size_mul(n, 4, &bytes);
    if (fits) {
        set_step(f, first);
        f->record = calloc(1, RECORD_HEAD + (size_t)n * (size_t)f->head[HEAD_SIZE]);
        f->choices = malloc((size_t)bytes);
        f->part = malloc((size_t)bytes);
        f->load = malloc((size_t)f->E * sizeof *f->load);
    }
    if (f->record && f->choices && f->part && f->load) return f;
    err_set(e, "%s: out of memory for the choices of a step", path);
    routing_file_close(&f);
    return NULL;
}

void routing_file_close(RoutingFile **f)
{
    if (!*f) return;
    if ((*f)->fd >= 0) close((*f)->fd);
    free((*f)->record);
    free((*f)->choices);
    free((*f)->part);
    free((*f)->load);
    free(*f);
    *f = NULL;
}

/* ---- Opening ----------------------------------------------------------------------------------*/

static int compare_heads(const RoutingFile *f, const uint64_t head[HEAD_COUNT], Err *e);
static int compare_stages(const RoutingFile *f, Err *e);

/* Reads a header, which must be this run's, and the number of records behind it. */
static int read_head(RoutingFile *f, uint64_t head[HEAD_COUNT], Err *e)
{
    struct stat info;
    if (fstat(f->fd, &info)) return err_errno(e, "%s: cannot be read", f->path);
    if (!S_ISREG(info.st_mode) || info.st_size < HEAD_BYTES)
        return err_set(e, "%s: is no routing record", f->path);
    if (io_pread_full(f->fd, head, HEAD_BYTES, 0, f->path, e)) return -1;
    if (memcmp(&head[HEAD_MAGIC], magic, 8))
        return err_set(e, "%s: is no routing record", f->path);
    if (head[HEAD_FORMAT] != FORMAT)
        return err_set(e, "%s: is a routing record of format %" PRIu64 ", this program reads %d",
                       f->path, head[HEAD_FORMAT], FORMAT);
    if (head[HEAD_HASH] != head_hash(head))
        return err_set(e, "%s: damaged: its header has not its checksum", f->path);
    if (!head[HEAD_FIRST] || head[HEAD_FIRST] > INT64_MAX / 2)
        return err_set(e, "%s: damaged: begins at step %" PRIu64, f->path, head[HEAD_FIRST]);
    if (compare_heads(f, head, e)) return -1;
    if (info.st_size < head_bytes(f))
        return err_set(e, "%s: damaged: ends inside its table of stages", f->path);
    if (compare_stages(f, e)) return -1;
    f->steps = steps_in(f, (int64_t)head[HEAD_FIRST], info.st_size - head_bytes(f));
    return 0;
}

/* A fact's number as a message writes it. */
static const char *fact_text(FactKind kind, uint64_t number, char out[HASH_HEX + 8])
{
    if (kind == FACT_HASH) hash_hex(number, out);
    else if (kind == FACT_ROUTING && number <= ROUTE_EXPERT_CHOICE)
        snprintf(out, HASH_HEX + 8, "%s", model_routing_name((int)number));
    else
        snprintf(out, HASH_HEX + 8, "%" PRIu64, number);
    return out;
}

/* The first fact of the run that the header has otherwise. */
static int compare_heads(const RoutingFile *f, const uint64_t head[HEAD_COUNT], Err *e)
{
    for (int i = 0; i < (int)FACTS; i++) {
        uint64_t there = head[facts[i].place], here = f->head[facts[i].place];
        char before[HASH_HEX + 8], now[HASH_HEX + 8];
        if (there != here)
            return err_set(e, "%s: is not for this run: %s is %s in the record, %s here", f->path,
                           facts[i].name, fact_text(facts[i].kind, there, before),
                           fact_text(facts[i].kind, here, now));
    }
    return 0;
}

/* The first stage that has another place or shape. */
static int compare_stages(const RoutingFile *f, Err *e)
{
    static const char *const what[] = {[STAGE_FIRST] = "the first step",
                                       [STAGE_BATCH] = "sequences of a step",
                                       [STAGE_TOKENS] = "tokens of a sequence"};
    uint64_t table[RUN_STAGES * STAGE_COUNT + 1];
    size_t n = (size_t)table_numbers(f);
    if (!n) return 0;
    if (io_pread_full(f->fd, table, 8 * n, HEAD_BYTES, f->path, e)) return -1;
    if (table[n - 1] != hash_bytes(table, 8 * (n - 1)))
        return err_set(e, "%s: damaged: its table of stages has not its checksum", f->path);
    for (size_t i = 0; i + 1 < n; i++)
        if (table[i] != f->table[i])
            return err_set(e, "%s: is not for this run: stages[%zu]: %s is %" PRIu64 " in the "
                           "record, %" PRIu64 " here", f->path, i / STAGE_COUNT,
                           what[i % STAGE_COUNT], table[i], f->table[i]);
    return 0;
}

/* The run's own record is cut behind the last step before `step`. */
static int take_over(RoutingFile *f, int64_t step, Err *e)
{
    uint64_t head[HEAD_COUNT];
    if (read_head(f, head, e)) return -1;
    if (head[HEAD_RUN] != f->head[HEAD_RUN])
        return err_set(e, "%s: is the record of another run", f->path);
    int64_t first = (int64_t)head[HEAD_FIRST];
    if (step < first || step - first > f->steps)
        return err_set(e, "%s: holds the steps %" PRId64 " to %" PRId64 ", the run goes on with "
                       "step %" PRId64, f->path, first, first + f->steps - 1, step);
    memcpy(f->head, head, sizeof head);
    f->steps = step - first;
    if (ftruncate(f->fd, head_bytes(f) + bytes_between(f, first, step)))
        return err_errno(e, "%s: cannot be cut behind step %" PRId64, f->path, step - 1);
    return 0;
}

RoutingFile *routing_file_record(const char *path, const RunConfig *c, RoutingOrigin origin,
                                 int64_t step, Err *e)
{
    RoutingFile *f = begin(path, c, origin, step, e);
    if (!f) return NULL;
    int rc = 0;
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd >= 0) {
        rc = io_write_full(f->fd, f->head, HEAD_BYTES, path, e);
        if (!rc) rc = io_write_full(f->fd, f->table, 8 * (size_t)table_numbers(f), path, e);
    } else if (errno != EEXIST) {
        rc = err_errno(e, "%s: cannot be created", path);
    } else {
        f->fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        rc = f->fd < 0 ? err_errno(e, "%s: cannot be opened", path) : take_over(f, step, e);
        if (rc) err_hint(e, "remove it, or choose another name with train.routing_record=...");
    }
    if (!rc && lseek(f->fd, 0, SEEK_END) < 0) rc = err_errno(e, "%s: cannot be written", path);
    if (rc) routing_file_close(&f);
    return f;
}

/* The steps first .. last of a run are here. */
static int check_steps(const RoutingFile *f, int64_t first, int64_t last, Err *e)
{
    int64_t from = (int64_t)f->head[HEAD_FIRST], to = from + f->steps - 1;
    if (last < first || (from <= first && last <= to)) return 0;
    err_set(e, "%s: holds the steps %" PRId64 " to %" PRId64 ", the run needs %" PRId64 " to %"
            PRId64, f->path, from, to, first, last);
    return err_hint(e, "record as many steps, or end the run with train.steps=%" PRId64, to);
}

RoutingFile *routing_file_replay(const char *path, const RunConfig *c, RoutingOrigin origin,
                                 int64_t first, int64_t last, Err *e)
{
    uint64_t head[HEAD_COUNT];
    RoutingFile *f = begin(path, c, origin, 0, e);
    if (!f) return NULL;
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int rc = f->fd < 0 ? err_errno(e, "%s: cannot be opened", path) : read_head(f, head, e);
    if (!rc) memcpy(f->head, head, sizeof head);
    if (!rc) rc = check_steps(f, first, last, e);
    if (rc) routing_file_close(&f);
    return f;
}

uint64_t routing_file_run(const RoutingFile *f) { return f->head[HEAD_RUN]; }

/* ---- Steps ------------------------------------------------------------------------------------*/

int32_t *routing_file_part(RoutingFile *f) { return f->part; }

/* Copies between the step (L, N, slots) and the part (L, count, slots). */
static void copy_part(RoutingFile *f, int64_t first, int64_t count, bool put)
{
    CHECK(first >= 0 && count >= 0 && count <= f->N - first, "tokens %lld + %lld of %lld",
          (long long)first, (long long)count, (long long)f->N);
    size_t bytes = (size_t)(count * f->slots) * sizeof *f->part;
    for (int64_t l = 0; l < f->L; l++) {
        int32_t *step = f->choices + (l * f->N + first) * f->slots;
        int32_t *part = f->part + l * count * f->slots;
        memcpy(put ? step : part, put ? part : step, bytes);
    }
}

void routing_file_put(RoutingFile *f, int64_t first, int64_t count)
{
    copy_part(f, first, count, true);
}

const int32_t *routing_file_get(RoutingFile *f, int64_t first, int64_t count)
{
    copy_part(f, first, count, false);
    return f->part;
}

/* Of step number and choices. */
static uint64_t record_hash(const RoutingFile *f)
{
    uint64_t hash = hash_bytes(f->record, 8);
    return hash_more(hash, f->record + RECORD_HEAD, (size_t)(f->bytes - RECORD_HEAD));
}

int routing_file_write(RoutingFile *f, int64_t step, Err *e)
{
    int64_t n = choices_of(f);
    CHECK(step == (int64_t)f->head[HEAD_FIRST] + f->steps, "step %lld behind %lld records",
          (long long)step, (long long)f->steps);
    int16_t *narrow = (int16_t *)(f->record + RECORD_HEAD);
    if (f->head[HEAD_SIZE] == 2)
        for (int64_t i = 0; i < n; i++) narrow[i] = (int16_t)f->choices[i];
    else
        memcpy(narrow, f->choices, (size_t)n * sizeof *f->choices);
    memcpy(f->record, &step, 8);
    uint64_t hash = record_hash(f);
    memcpy(f->record + 8, &hash, 8);
    if (io_write_full(f->fd, f->record, (size_t)f->bytes, f->path, e)) return -1;
    f->steps++;
    set_step(f, step + 1);
    return 0;
}

int routing_file_sync(RoutingFile *f, Err *e)
{
    return fsync(f->fd) ? err_errno(e, "%s: cannot be synced", f->path) : 0;
}

/* A token's slots: experts in range, none twice. */
static bool check_token(const RoutingFile *f, const int32_t *slot)
{
    for (int64_t j = 0; j < f->slots; j++) {
        if (slot[j] < -1 || slot[j] >= f->E) return false;
        for (int64_t i = 0; i < j; i++)
            if (slot[i] == slot[j] && slot[j] >= 0) return false;
    }
    return true;
}

/* Choices that the routing could have made: a device takes them on trust. */
static int check_choices(RoutingFile *f, int64_t step, Err *e)
{
    for (int64_t t = 0; t < f->L * f->N; t++) {
        const int32_t *slot = f->choices + t * f->slots;
        if (t % f->N % f->group == 0) memset(f->load, 0, (size_t)f->E * sizeof *f->load);
        bool good = check_token(f, slot);
        for (int64_t j = 0; good && j < f->slots; j++)
            if (slot[j] >= 0 && ++f->load[slot[j]] > f->capacity && f->capacity) good = false;
        if (!good)
            return err_set(e, "%s: step %" PRId64 ", layer %" PRId64 ", token %" PRId64 ": no "
                           "choices that this routing can make", f->path, step, t / f->N, t % f->N);
    }
    return 0;
}

int routing_file_load(RoutingFile *f, int64_t step, Err *e)
{
    int64_t first = (int64_t)f->head[HEAD_FIRST], n, at;
    set_step(f, step);
    n = choices_of(f);
    if (step < first || step - first >= f->steps)
        return err_set(e, "%s: has no step %" PRId64 ": it holds the steps %" PRId64 " to %" PRId64,
                       f->path, step, first, first + f->steps - 1);
    if (io_pread_full(f->fd, f->record, (size_t)f->bytes,
                      head_bytes(f) + bytes_between(f, first, step), f->path, e))
        return -1;
    uint64_t hash;
    memcpy(&at, f->record, 8);
    memcpy(&hash, f->record + 8, 8);
    if (hash != record_hash(f) || at != step)
        return err_set(e, "%s: damaged: step %" PRId64 " has not its checksum", f->path, step);
    const int16_t *narrow = (const int16_t *)(f->record + RECORD_HEAD);
    if (f->head[HEAD_SIZE] == 2)
        for (int64_t i = 0; i < n; i++) f->choices[i] = narrow[i];
    else
        memcpy(f->choices, narrow, (size_t)n * sizeof *f->choices);
    return check_choices(f, step, e);
}
