/* data/tokenizer.c - see tokenizer.h.
 *
 * Text is cut into words before SentencePiece sees it, between two characters that stand side by
 * side in no piece: no token can reach across such a cut, so the result is the same, words are
 * short, and how they were encoded can be remembered. Newlines, digits and the starts of words are
 * such places in a model trained by isomoe, but the table of neighbours is made for any model. Two
 * more cuts: U+2581, which the library takes for a space, becomes its three bytes, and a word is at
 * most WORD_MAX bytes long.
 * The bytes of every encoded word are compared with the word; a word that does not come back, by
 * whatever trick of a model, is encoded byte by byte. That is what makes encoding lossless.
 */
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/utf8.h"
#include "data/spm_model.h"
#include "data/tokenizer_cache.h"
#include "data/tokenizer_spm.h"

enum { MODEL_FILE_MAX = 1 << 26, WORD_MAX = 4096 };

static const char SPACE_MARK[3] = "\xE2\x96\x81"; /* U+2581, how SentencePiece writes a space */

struct Tokenizer {
    Spm *spm;
    int vocab, bos, eos;
    int byte_id[256];
    int32_t single[128];   /* the token of an ASCII character that is a word of its own, or -1 */
    bool joined[256][256]; /* may a piece hold these two bytes side by side? */
    uint64_t hash;
    char *text;      /* bytes of all pieces, one after the other */
    uint32_t *start; /* (vocab + 1) where each piece begins in text */
};

/* A growing array of ids. */
typedef struct Ids {
    int32_t *id;
    int64_t count, capacity;
} Ids;

static int ids_reserve(Ids *ids, int64_t more)
{
    if (ids->count + more <= ids->capacity) return 0;
    int64_t capacity = ids->capacity + ids->capacity / 2 + more;
    int32_t *grown = realloc(ids->id, (size_t)capacity * sizeof *grown);
    if (!grown) return -1;
    ids->id = grown;
    ids->capacity = capacity;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Appends what a piece decodes to; returns its bytes. A space mark decodes to a space. */
static size_t decode_piece(const SpmPiece *piece, char *out)
{
    if (piece->type == PIECE_CONTROL) return 0;
    if (piece->type == PIECE_UNKNOWN) {
        memcpy(out, "\xEF\xBF\xBD", 3);
        return 3;
    }
    if (piece->type == PIECE_BYTE) {
        out[0] = (char)piece->byte;
        return 1;
    }
    size_t n = 0;
    for (int i = 0; i < piece->size;) {
        if (piece->size - i >= 3 && !memcmp(piece->text + i, SPACE_MARK, 3)) {
            out[n++] = ' ';
            i += 3;
        } else {
            out[n++] = piece->text[i++];
        }
    }
    return n;
}

static int build_pieces(Tokenizer *t, const SpmModel *model, const char *path, Err *e)
{
    size_t room = 3; /* the unknown piece may be shorter than what it decodes to */
    for (int id = 0; id < model->count; id++) room += (size_t)model->pieces[id].size;
    t->text = malloc(room);
    t->start = malloc(((size_t)model->count + 1) * sizeof *t->start);
    if (!t->text || !t->start) return err_set(e, "%s: out of memory", path);
    uint32_t at = 0;
    for (int id = 0; id < model->count; id++) {
        t->start[id] = at;
        at += (uint32_t)decode_piece(&model->pieces[id], t->text + at);
    }
    t->start[model->count] = at;
    return 0;
}

/* The library must see the same pieces as our reader did. */
static int compare_pieces(const Tokenizer *t, const SpmModel *model, const char *path, Err *e)
{
    if (spm_count(t->spm) != model->count)
        return err_set(e, "%s: %d pieces, but the library reads %d", path, model->count,
                       spm_count(t->spm));
    for (int id = 0; id < model->count; id++) {
        size_t size;
        const char *text = spm_piece(t->spm, id, &size);
        if (size != (size_t)model->pieces[id].size || memcmp(text, model->pieces[id].text, size))
            return err_set(e, "%s: piece %d is read in two ways", path, id);
    }
    return 0;
}

static int encode_word(const Tokenizer *t, const char *word, size_t size, Ids *ids);

/* Finds where text may be cut (see the top of the file), and the tokens of ASCII characters. */
static int find_cuts(Tokenizer *t, const SpmModel *model, const char *path, Err *e)
{
    for (int id = 0; id < model->count; id++) {
        int type = model->pieces[id].type, size;
        if (type == PIECE_BYTE || type == PIECE_CONTROL || type == PIECE_UNKNOWN) continue;
        const unsigned char *text = (const unsigned char *)tokenizer_piece(t, id, &size);
        for (int i = 1; i < size; i++) t->joined[text[i - 1]][text[i]] = true;
    }
    Ids ids = {0};
    int rc = 0;
    for (int c = 0; c < 128 && !rc; c++) {
        char one = (char)c;
        ids.count = 0;
        rc = encode_word(t, &one, 1, &ids);
        t->single[c] = !rc && ids.count == 1 ? ids.id[0] : -1;
    }
    free(ids.id);
    return rc ? err_set(e, "%s: out of memory", path) : 0;
}

Tokenizer *tokenizer_open(const char *path, Err *e)
{
    char *bytes = NULL, why[SPM_WHY] = "";
    size_t size;
    SpmModel model = {0};
    Tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(e, "%s: out of memory", path);
        return NULL;
    }
    if (io_read_all(path, MODEL_FILE_MAX, &bytes, &size, e)) goto fail;
    if (spm_model_read(&model, bytes, size, path, e)) goto fail;
    if (!(t->spm = spm_load(bytes, size, why))) {
        err_set(e, "%s: SentencePiece does not take this model: %s", path, why);
        goto fail;
    }
    t->vocab = model.count;
    t->bos = model.bos;
    t->eos = model.eos;
    t->hash = hash_bytes(bytes, size);
    memcpy(t->byte_id, model.byte_id, sizeof t->byte_id);
    if (compare_pieces(t, &model, path, e) || build_pieces(t, &model, path, e) ||
        find_cuts(t, &model, path, e))
        goto fail;
    spm_model_free(&model);
    free(bytes);
    return t;
fail:
    spm_model_free(&model);
    free(bytes);
    tokenizer_close(&t);
    return NULL;
}

void tokenizer_close(Tokenizer **tokenizer)
{
    Tokenizer *t = *tokenizer;
    if (!t) return;
    spm_free(t->spm);
    free(t->text);
    free(t->start);
    free(t);
    *tokenizer = NULL;
}

int tokenizer_vocab(const Tokenizer *tokenizer) { return tokenizer->vocab; }
int tokenizer_bos(const Tokenizer *tokenizer) { return tokenizer->bos; }
int tokenizer_eos(const Tokenizer *tokenizer) { return tokenizer->eos; }
uint64_t tokenizer_hash(const Tokenizer *tokenizer) { return tokenizer->hash; }

const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id, int *size)
{
    *size = 0;
    if (id < 0 || id >= tokenizer->vocab) return NULL;
    *size = (int)(tokenizer->start[id + 1] - tokenizer->start[id]);
    return tokenizer->text + tokenizer->start[id];
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* Do the ids decode to exactly this word? */
static bool comes_back(const Tokenizer *t, const int32_t *ids, int64_t count, const char *word,
                       size_t size)
{
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        int n;
        const char *piece = tokenizer_piece(t, ids[i], &n);
        if (n <= 0 || (size_t)n > size - at || memcmp(word + at, piece, (size_t)n)) return false;
        at += (size_t)n;
    }
    return at == size;
}

/* Appends the ids of one word; -1 when out of memory. */
static int encode_word(const Tokenizer *t, const char *word, size_t size, Ids *ids)
{
    int64_t room = 3 * (int64_t)size; /* a space that is no piece comes as three bytes */
    if (ids_reserve(ids, room)) return -1;
    int32_t *out = ids->id + ids->count;
    int64_t count = spm_encode(t->spm, word, size, out, room);
    if (count < 0 || count > room || !comes_back(t, out, count, word, size)) {
        for (size_t i = 0; i < size; i++) out[i] = t->byte_id[(unsigned char)word[i]];
        count = (int64_t)size;
    }
    ids->count += count;
    return 0;
}

static int encode_word_cached(const Tokenizer *t, TokenizerCache *cache, const char *word,
                              size_t size, Ids *ids)
{
    CacheSlot *slot = cache_slot(cache, word, size);
    if (slot && cache_holds(slot, word, size)) {
        if (ids_reserve(ids, slot->count)) return -1;
        memcpy(ids->id + ids->count, slot->ids, slot->count * sizeof *slot->ids);
        ids->count += slot->count;
        return 0;
    }
    int64_t before = ids->count;
    if (encode_word(t, word, size, ids)) return -1;
    if (slot) cache_put(slot, word, size, ids->id + before, ids->count - before);
    return 0;
}

static bool is_space_mark(const char *text, size_t left)
{
    return left >= 3 && !memcmp(text, SPACE_MARK, 3);
}

/* Bytes of the word that begins at text, which is not U+2581. */
static size_t word_size(const Tokenizer *t, const char *text, size_t left)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = 1;
    for (; n < left; n++) {
        if ((p[n] & 0xC0) == 0x80) continue; /* inside a character */
        if (!t->joined[p[n - 1]][p[n]]) break;
        if (p[n] == 0xE2 && is_space_mark(text + n, left - n)) break;
        if (n > WORD_MAX - 4) break;
    }
    return n;
}

static int encode_valid(const Tokenizer *t, TokenizerCache *cache, const char *text, size_t size,
                        Ids *ids)
{
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)text[i];
        if (c == 0xE2 && is_space_mark(text + i, size - i)) {
            if (ids_reserve(ids, 3)) return -1;
            for (int k = 0; k < 3; k++)
                ids->id[ids->count++] = t->byte_id[(unsigned char)SPACE_MARK[k]];
            i += 3;
            continue;
        }
        size_t n = word_size(t, text + i, size - i);
        if (n == 1 && c < 128 && t->single[c] >= 0) {
            if (ids_reserve(ids, 1)) return -1;
            ids->id[ids->count++] = t->single[c];
        } else if (encode_word_cached(t, cache, text + i, n, ids)) {
            return -1;
        }
        i += n;
    }
    return 0;
}

int tokenizer_encode_cached(const Tokenizer *tokenizer, TokenizerCache *cache, const char *text,
                            size_t size, int32_t **ids, int64_t *count, Err *e)
{
    *ids = NULL;
    *count = 0;
    size_t valid = utf8_valid_prefix(text, size);
    if (valid < size)
        return err_set(e, "byte %zu: not UTF-8 (0x%02x)", valid, (unsigned char)text[valid]);
    Ids out = {0};
    if (ids_reserve(&out, (int64_t)size / 3 + 16) ||
        encode_valid(tokenizer, cache, text, size, &out)) {
        free(out.id);
        return err_set(e, "out of memory while encoding %zu bytes", size);
    }
    *ids = out.id;
    *count = out.count;
    return 0;
}

int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                     int64_t *count, Err *e)
{
    return tokenizer_encode_cached(tokenizer, NULL, text, size, ids, count, e);
}

TokenizerCache *tokenizer_cache_create(void) { return calloc(1, sizeof(TokenizerCache)); }

void tokenizer_cache_destroy(TokenizerCache **cache)
{
    free(*cache);
    *cache = NULL;
}

/* ---- decoding ------------------------------------------------------------------------------ */

int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, int64_t count, char **text,
                     size_t *size, Err *e)
{
    *text = NULL;
    *size = 0;
    size_t total = 0;
    int n;
    for (int64_t i = 0; i < count; i++) {
        if (!tokenizer_piece(tokenizer, ids[i], &n))
            return err_set(e, "token %lld is %d, outside the vocabulary of %d", (long long)i,
                           (int)ids[i], tokenizer->vocab);
        total += (size_t)n;
    }
    char *out = malloc(total + 1);
    if (!out) return err_set(e, "out of memory while decoding %lld tokens", (long long)count);
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        const char *piece = tokenizer_piece(tokenizer, ids[i], &n);
        memcpy(out + at, piece, (size_t)n);
        at += (size_t)n;
    }
    out[at] = 0;
    *text = out;
    *size = total;
    return 0;
}
