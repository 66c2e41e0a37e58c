/* train/choices.h - how a model answers multiple-choice questions: the choice whose text is the
 * likeliest behind the context.
 *
 * BOS, context, delimiter and choice are encoded as one text. The tokens that all choices of a
 * question have in common and that end within the context are its context; the log-likelihoods of
 * all tokens behind them are summed: log p(choice | context). Where the tokenizer joins the end of
 * the context with what follows (a token spans the border), or splits it in another way, those
 * bytes of the context are scored with every choice: all choices still follow the same tokens, so
 * their sums stay comparable. Such questions are counted (spanned).
 * A question longer than the model's window loses tokens on the left, BOS first, the same ones for
 * all of its choices, and is counted (cut). Every choice is one row of a batch of the model's
 * shape, padded on the right: scores depend on nothing else in the batch.
 */
#ifndef ISOMOE_TRAIN_CHOICES_H
#define ISOMOE_TRAIN_CHOICES_H

#include "data/tokenizer.h"
#include "model/model.h"
#include "train/tasks.h"

/* By what the answer is chosen; equal values: the lower index. */
typedef enum ChoiceRule {
    CHOICE_SUM,      /* log p: "acc" */
    CHOICE_PER_BYTE, /* log p / bytes of the choice without the delimiter: "acc_per_byte", the
                        acc_norm of lm-evaluation-harness (which counts characters) */
    CHOICE_PER_TOKEN, /* log p / scored tokens: "acc_per_token" */
    CHOICE_RULES
} ChoiceRule;

extern const char *const choice_rule_names[CHOICE_RULES];

typedef struct ChoiceScore {
    double logp;    /* nats */
    int64_t tokens; /* scored */
    int64_t bytes;  /* of the choice's text */
} ChoiceScore;

typedef struct QuestionScore {
    ChoiceScore *choice;     /* (n_choices) */
    int64_t context_tokens;  /* in front of the scored ones, BOS included */
    int64_t cut_tokens;      /* of them left out */
    int64_t border_bytes;    /* of the context, scored with the choices */
    int best[CHOICE_RULES];  /* index of the choice that each rule takes */
} QuestionScore;

typedef struct TaskScore {
    QuestionScore *question; /* (count of the task) */
    ChoiceScore *pool;
    int64_t count, right[CHOICE_RULES], cut, spanned;
    double random; /* expected share right by guessing: mean of 1 / n_choices */
} TaskScore;

/* *s is filled from nothing; task_score_free ends it, always. The model's passes are dropless. A
 * choice that alone is longer than the window, and a likelihood that is no number, are errors that
 * name the question. */
int task_score(TaskScore *s, const Task *t, Model *m, const Tokenizer *tokenizer, Err *e);
void task_score_free(TaskScore *s);

#endif
