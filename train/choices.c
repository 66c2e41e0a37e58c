/* train/choices.c - see choices.h. */
#include "train/choices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

const char *const choice_rule_names[CHOICE_RULES] = {"acc", "acc_per_byte", "acc_per_token"};

typedef struct Scorer {
    Model *m;
    const Tokenizer *tokenizer;
    const Task *task;
    int64_t B, T, rows;        /* rows filled so far */
    int32_t *tokens, *targets; /* (B, T) */
    float *nll;                /* (B, T) */
    ChoiceScore **row;         /* (B) where each row's score goes */
    const Question **asked;    /* (B) the row's question */
    Err *e;
} Scorer;

typedef struct Encoded { /* the choices of one question as tokens, without BOS */
    int32_t *ids[TASK_CHOICES];
    int64_t count[TASK_CHOICES];
} Encoded;

static int scorer_alloc(Scorer *s)
{
    size_t n = (size_t)(s->B * s->T);
    s->tokens = malloc(n * sizeof *s->tokens);
    s->targets = malloc(n * sizeof *s->targets);
    s->nll = malloc(n * sizeof *s->nll);
    s->row = malloc((size_t)s->B * sizeof *s->row);
    s->asked = malloc((size_t)s->B * sizeof *s->asked);
    if (s->tokens && s->targets && s->nll && s->row && s->asked) return 0;
    return err_set(s->e, "out of memory for a batch of %zu tokens", n);
}

static void scorer_free(Scorer *s)
{
    free(s->tokens);
    free(s->targets);
    free(s->nll);
    free(s->row);
    free(s->asked);
}

/* Runs the rows filled so far. */
static int flush(Scorer *s)
{
    double sums[2] = {0};
    if (!s->rows) return 0;
    MicroBatch micro = {.B = s->rows, .tokens = s->tokens, .targets = s->targets};
    model_eval_micro(s->m, &micro, sums, s->nll);
    for (int64_t i = 0; i < s->rows; i++) {
        double nll = 0;
        for (int64_t t = i * s->T; t < (i + 1) * s->T; t++)
            if (s->targets[t] >= 0) nll += s->nll[t];
        s->row[i]->logp = -nll;
        if (!isfinite(nll))
            return err_set(s->e, "%s:%lld: the likelihood of a choice is no finite number",
                           s->task->path, (long long)s->asked[i]->line);
    }
    s->rows = 0;
    return 0;
}

/* One row: of BOS and the ids, tokens `begin` .. count are kept; those from `scored` on count. */
static int add_row(Scorer *s, const Question *q, const int32_t *ids, int64_t count, int64_t begin,
                   int64_t scored, ChoiceScore *score)
{
    int32_t *tokens = s->tokens + s->rows * s->T, *targets = s->targets + s->rows * s->T;
    int32_t filler = (int32_t)tokenizer_eos(s->tokenizer);
    for (int64_t t = 0; t < s->T; t++) {
        int64_t at = begin + t; /* of BOS and the ids */
        tokens[t] = at > count ? filler
                    : at ? ids[at - 1] : (int32_t)tokenizer_bos(s->tokenizer);
        targets[t] = at < count && at + 1 >= scored ? ids[at] : -1;
    }
    score->tokens = count + 1 - scored;
    s->row[s->rows] = score;
    s->asked[s->rows++] = q;
    return s->rows == s->B ? flush(s) : 0;
}

static int encode_choice(const Scorer *s, const Question *q, int i, Encoded *out)
{
    const Text part[] = {q->context, q->delimiter, q->choice[i]};
    size_t size = part[0].size + part[1].size + part[2].size, at = 0;
    char *text = malloc(size);
    if (!text) return err_set(s->e, "out of memory for %zu bytes of text", size);
    for (int k = 0; k < 3; k++) {
        memcpy(text + at, part[k].text, part[k].size);
        at += part[k].size;
    }
    int rc = tokenizer_encode(s->tokenizer, text, size, &out->ids[i], &out->count[i], s->e);
    free(text);
    return rc ? err_context(s->e, "%s:%lld", s->task->path, (long long)q->line) : 0;
}

static bool all_have(const Question *q, const Encoded *c, int64_t at)
{
    for (int i = 0; i < q->n_choices; i++)
        if (at >= c->count[i] || c->ids[i][at] != c->ids[0][at]) return false;
    return true;
}

/* Tokens that all choices begin with and that end within the context; *bytes: those of the context
 * behind them. */
static int64_t common_tokens(const Scorer *s, const Question *q, const Encoded *c, int64_t *bytes)
{
    int64_t left = (int64_t)q->context.size, n = 0;
    for (int size; all_have(q, c, n); n++, left -= size) {
        CHECK(tokenizer_piece(s->tokenizer, c->ids[0][n], &size), "token %d", c->ids[0][n]);
        if (size > left) break;
    }
    *bytes = left;
    return n;
}

static int score_question(Scorer *s, const Question *q, QuestionScore *out)
{
    Encoded c = {0};
    int64_t longest = 0;
    int rc = 0, widest = 0;
    for (int i = 0; i < q->n_choices && !rc; i++) rc = encode_choice(s, q, i, &c);
    if (rc) goto done;
    out->context_tokens = 1 + common_tokens(s, q, &c, &out->border_bytes);
    for (int i = 0; i < q->n_choices; i++) {
        int64_t scored = c.count[i] + 1 - out->context_tokens;
        if (scored > longest) widest = i;
        longest = size_max(longest, scored);
    }
    out->cut_tokens = size_max(0, out->context_tokens + longest - 1 - s->T);
    if (out->cut_tokens >= out->context_tokens) {
        rc = err_set(s->e, "%s:%lld: choice %d has %lld tokens; the model's window has %lld",
                     s->task->path, (long long)q->line, widest, (long long)longest,
                     (long long)s->T);
        goto done;
    }
    for (int i = 0; i < q->n_choices && !rc; i++) {
        out->choice[i].bytes = (int64_t)q->choice[i].size;
        rc = add_row(s, q, c.ids[i], c.count[i], out->cut_tokens, out->context_tokens,
                     &out->choice[i]);
    }
done:
    for (int i = 0; i < q->n_choices; i++) free(c.ids[i]);
    return rc;
}

static double value_of(const ChoiceScore *c, ChoiceRule rule)
{
    switch (rule) {
    case CHOICE_PER_BYTE: return c->logp / (double)c->bytes;
    case CHOICE_PER_TOKEN: return c->logp / (double)c->tokens;
    default: return c->logp;
    }
}

static void decide(TaskScore *s, const Task *t)
{
    double random = 0;
    for (int64_t i = 0; i < t->count; i++) {
        const Question *q = &t->question[i];
        QuestionScore *score = &s->question[i];
        for (int rule = 0; rule < CHOICE_RULES; rule++) {
            int best = 0;
            for (int c = 1; c < q->n_choices; c++)
                if (value_of(&score->choice[c], (ChoiceRule)rule) >
                    value_of(&score->choice[best], (ChoiceRule)rule))
                    best = c;
            score->best[rule] = best;
            s->right[rule] += best == q->answer;
        }
        s->cut += score->cut_tokens > 0;
        s->spanned += score->border_bytes > 0;
        random += 1.0 / q->n_choices;
    }
    s->random = random / (double)t->count;
}

static int alloc_scores(TaskScore *s, const Task *t, Err *e)
{
    int64_t choices = 0;
    CHECK(t->count > 0, "%lld questions", (long long)t->count);
    for (int64_t i = 0; i < t->count; i++) choices += t->question[i].n_choices;
    *s = (TaskScore){.count = t->count};
    s->question = calloc((size_t)t->count, sizeof *s->question);
    s->pool = calloc((size_t)choices, sizeof *s->pool);
    if (!s->question || !s->pool)
        return err_set(e, "out of memory for %lld scores", (long long)choices);
    ChoiceScore *next = s->pool;
    for (int64_t i = 0; i < t->count; i++) {
        s->question[i].choice = next;
        next += t->question[i].n_choices;
    }
    return 0;
}

int task_score(TaskScore *s, const Task *t, Model *m, const Tokenizer *tokenizer, Err *e)
{
    Scorer scorer = {.m = m, .tokenizer = tokenizer, .task = t, .B = model_shape(m)->B,
                     .T = model_shape(m)->T, .e = e};
    int rc = alloc_scores(s, t, e) || scorer_alloc(&scorer) ? -1 : 0;
    for (int64_t i = 0; i < t->count && !rc; i++)
        rc = score_question(&scorer, &t->question[i], &s->question[i]);
    if (!rc) rc = flush(&scorer);
    if (!rc) decide(s, t);
    scorer_free(&scorer);
    return rc;
}

void task_score_free(TaskScore *s)
{
    free(s->question);
    free(s->pool);
    *s = (TaskScore){0};
}
