/* data/tokenizer_train.c - see tokenizer_train.h.
 *
 * The trainer gets sentences that it can take without loss: the text is cut at newlines and at
 * every character that no piece may contain. These are the rare ones (which are encoded as bytes
 * anyway), control characters (the trainer uses tab and zero itself), U+2581 (its mark of a space)
 * and U+2585 (its mark of the unknown; it would skip the whole line). So no line is skipped, and
 * the number of single characters in the vocabulary is ours to choose, which the library's
 * character_coverage (at least 0.98) is not: Chinese text with a small vocabulary would fail.
 */
#include "data/tokenizer_train.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/utf8.h"
#include "data/spm_model.h"
#include "data/tokenizer_spm.h"

/* A sentence is cut at the last space before so many bytes: time grows with the square of a word,
 * and the trainer's positions overflow at 32768 characters. */
enum { SENTENCE_MAX = 2048 };

static const double COVERAGE = 0.9995; /* share of the characters that become pieces */

typedef struct CharCount {
    uint32_t code;
    int64_t count;
} CharCount;

/* What is left of the texts to hand out as sentences. */
typedef struct Sentences {
    const TrainText *texts;
    int n, text;
    size_t at;
    const uint8_t *allowed; /* (UTF8_CODES) */
} Sentences;

static bool never_in_piece(uint32_t code)
{
    return code < 0x20 || code == 0x7F || code == 0x2581 || code == 0x2585;
}

/* Most frequent first, then by code. */
static int by_count(const void *a, const void *b)
{
    const CharCount *x = a, *y = b;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    return x->code < y->code ? -1 : x->code > y->code;
}

/* Lists the characters that occur; *total is their number with repeats. */
static CharCount *count_chars(const TrainText *texts, int n, int *kinds, int64_t *total)
{
    int64_t *count = calloc(UTF8_CODES, sizeof *count);
    CharCount *list = NULL;
    *kinds = 0;
    *total = 0;
    if (!count) return NULL;
    for (int i = 0; i < n; i++) {
        for (size_t at = 0; at < texts[i].size;) {
            uint32_t code;
            at += (size_t)utf8_decode(texts[i].text + at, &code);
            count[code]++;
        }
    }
    for (uint32_t c = 0; c < UTF8_CODES; c++)
        if (count[c] && !never_in_piece(c)) ++*kinds;
    list = malloc(((size_t)*kinds + 1) * sizeof *list);
    int at = 0;
    for (uint32_t c = 0; list && c < UTF8_CODES; c++) {
        if (!count[c] || never_in_piece(c)) continue;
        list[at++] = (CharCount){c, count[c]};
        *total += count[c];
    }
    free(count);
    if (list) qsort(list, (size_t)*kinds, sizeof *list, by_count);
    return list;
}

/* Marks the characters that may be in pieces: the most frequent ones up to COVERAGE, at most half
 * of what the vocabulary has room for. */
static int choose_chars(const TrainText *texts, int n, int vocab_size, uint8_t *allowed, Err *e)
{
    int kinds;
    int64_t total, covered = 0;
    CharCount *list = count_chars(texts, n, &kinds, &total);
    if (!list) return err_set(e, "out of memory while counting characters");
    int limit = (vocab_size - TOKENIZER_META) / 2;
    for (int i = 0; i < kinds && i < limit; i++) {
        if ((double)covered >= COVERAGE * (double)total) break;
        allowed[list[i].code] = 1;
        covered += list[i].count;
    }
    free(list);
    if (!covered) return err_set(e, "no text to train a tokenizer on");
    return 0;
}

/* Bytes of the allowed characters from `at` on, up to SENTENCE_MAX; a longer run ends before its
 * last space. */
static size_t sentence_size(const Sentences *s, const TrainText *t, size_t at)
{
    size_t n = 0, space = 0;
    while (at + n < t->size) {
        uint32_t code;
        size_t bytes = (size_t)utf8_decode(t->text + at + n, &code);
        if (!s->allowed[code]) return n;
        if (n + bytes > SENTENCE_MAX) return space ? space : n;
        if (code == ' ' && n) space = n;
        n += bytes;
    }
    return n;
}

static int next_sentence(void *context, const char **text, size_t *size)
{
    Sentences *s = context;
    for (; s->text < s->n; s->text++, s->at = 0) {
        const TrainText *t = &s->texts[s->text];
        while (s->at < t->size) {
            size_t n = sentence_size(s, t, s->at);
            if (n) {
                *text = t->text + s->at;
                *size = n;
                s->at += n;
                return 1;
            }
            uint32_t code;
            s->at += (size_t)utf8_decode(t->text + s->at, &code);
        }
    }
    return 0;
}

/* The library's vocabulary may be smaller than asked when the text has too few pairs. */
static int check_size(const char *bytes, size_t size, int vocab_size, const char *path, Err *e)
{
    SpmModel model;
    if (spm_model_read(&model, bytes, size, path, e)) return -1;
    int count = model.count;
    spm_model_free(&model);
    if (count == vocab_size) return 0;
    err_set(e, "the text is too small for a vocabulary of %d: only %d pieces were found",
            vocab_size, count);
    return err_hint(e, "ask for at most %d, or give more text", count);
}

int tokenizer_check_vocab(int vocab_size, Err *e)
{
    if (vocab_size >= TOKENIZER_VOCAB_MIN && vocab_size <= TOKENIZER_VOCAB_MAX) return 0;
    return err_set(e, "vocab_size %d: must be from %d to %d", vocab_size, TOKENIZER_VOCAB_MIN,
                   TOKENIZER_VOCAB_MAX);
}

int tokenizer_train(const TrainText *texts, int n, int vocab_size, const char *path, Err *e)
{
    if (tokenizer_check_vocab(vocab_size, e)) return -1;
    uint8_t *allowed = calloc(UTF8_CODES, 1);
    char *bytes = NULL, why[SPM_WHY] = "";
    size_t size = 0;
    int rc = -1;
    if (!allowed) {
        err_set(e, "out of memory while training a tokenizer");
        goto done;
    }
    if (choose_chars(texts, n, vocab_size, allowed, e)) goto done;
    Sentences sentences = {.texts = texts, .n = n, .allowed = allowed};
    if (spm_train(vocab_size, next_sentence, &sentences, &bytes, &size, why)) {
        err_set(e, "SentencePiece could not train a tokenizer: %s", why);
        goto done;
    }
    if (check_size(bytes, size, vocab_size, path, e)) goto done;
    rc = io_write_atomic(path, bytes, size, e);
done:
    free(bytes);
    free(allowed);
    return rc;
}
