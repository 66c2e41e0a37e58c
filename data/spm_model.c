/* data/spm_model.c - see spm_model.h. */
#include "data/spm_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* A part of the file that is being read; `base` is the file's first byte, for positions. */
typedef struct Wire {
    const unsigned char *base, *at, *end;
    const char *path;
    Err *e;
} Wire;

/* One field: a number (wire types 0, 1, 5) or a block of bytes (wire type 2). */
typedef struct Field {
    uint32_t number, type;
    uint64_t value;
    const unsigned char *bytes;
    size_t size;
} Field;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static int wire_fail(const Wire *w, const char *what)
{
    return err_set(w->e, "%s: byte %zu: not a SentencePiece model: %s", w->path,
                   (size_t)(w->at - w->base), what);
}

static int wire_varint(Wire *w, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end) return wire_fail(w, "cut short inside a number");
        unsigned char byte = *w->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            *out = value;
            return 0;
        }
    }
    return wire_fail(w, "a number of more than 64 bits");
}

static int wire_fixed(Wire *w, int bytes, uint64_t *out)
{
    if (w->end - w->at < bytes) return wire_fail(w, "cut short inside a fixed-size number");
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)w->at[i] << (8 * i);
    w->at += bytes;
    *out = value;
    return 0;
}

/* 1: a field was read; 0: the end; -1: error. */
static int wire_next(Wire *w, Field *f)
{
    if (w->at == w->end) return 0;
    uint64_t tag, size;
    if (wire_varint(w, &tag)) return -1;
    *f = (Field){.number = (uint32_t)(tag >> 3), .type = (uint32_t)(tag & 7)};
    if (tag >> 3 == 0 || tag >> 32) return wire_fail(w, "a field number out of range");
    switch (f->type) {
    case WIRE_VARINT: return wire_varint(w, &f->value) ? -1 : 1;
    case WIRE_64: return wire_fixed(w, 8, &f->value) ? -1 : 1;
    case WIRE_32: return wire_fixed(w, 4, &f->value) ? -1 : 1;
    case WIRE_BYTES:
        if (wire_varint(w, &size)) return -1;
        if (size > (uint64_t)(w->end - w->at))
            return wire_fail(w, "cut short: a field is longer than what is left");
        f->bytes = w->at;
        f->size = (size_t)size;
        w->at += size;
        return 1;
    default: return wire_fail(w, "an unknown wire type");
    }
}

static Wire wire_inside(const Wire *w, const Field *f)
{
    return (Wire){w->base, f->bytes, f->bytes + f->size, w->path, w->e};
}

static int read_piece(Wire w, SpmPiece *piece)
{
    *piece = (SpmPiece){.type = PIECE_NORMAL};
    Field f;
    int more;
    while ((more = wire_next(&w, &f)) > 0) {
        if (f.number == 1 && f.type == WIRE_BYTES) {
            if (f.size > SPM_PIECE_MAX) return wire_fail(&w, "a piece of more than 1024 bytes");
            piece->text = (const char *)f.bytes;
            piece->size = (int)f.size;
        } else if (f.number == 2 && f.type == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (f.number == 3 && f.type == WIRE_VARINT) {
            if (f.value < PIECE_NORMAL || f.value > PIECE_BYTE)
                return wire_fail(&w, "a piece of unknown type");
            piece->type = (int)f.value;
        } else if (f.number <= 3) {
            return wire_fail(&w, "a piece's field has the wrong wire type");
        }
    }
    if (more < 0) return -1;
    if (piece->size == 0) return wire_fail(&w, "an empty piece");
    if (!isfinite(piece->score)) return wire_fail(&w, "a piece's score is not finite");
    if (utf8_valid_prefix(piece->text, (size_t)piece->size) != (size_t)piece->size)
        return wire_fail(&w, "a piece is not UTF-8");
    if (memchr(piece->text, 0, (size_t)piece->size)) return wire_fail(&w, "a zero byte in a piece");
    return 0;
}

static int read_trainer_spec(Wire w, SpmModel *model)
{
    Field f;
    int more;
    while ((more = wire_next(&w, &f)) > 0) {
        bool known = f.number == 3 || f.number == 35 || f.number == 41 || f.number == 42;
        if (known && f.type != WIRE_VARINT)
            return wire_fail(&w, "a trainer setting has the wrong wire type");
        switch (f.number) {
        case 3: model->model_type = f.value > 4 ? 0 : (int)f.value; break;
        case 35: model->byte_fallback = f.value != 0; break;
        case 41: model->bos = (int)(int32_t)f.value; break;
        case 42: model->eos = (int)(int32_t)f.value; break;
        default: break;
        }
    }
    return more;
}

static int read_normalizer_spec(Wire w, SpmModel *model)
{
    Field f;
    int more;
    while ((more = wire_next(&w, &f)) > 0) {
        if (f.number >= 3 && f.number <= 5 && f.type != WIRE_VARINT)
            return wire_fail(&w, "a normalizer setting has the wrong wire type");
        switch (f.number) {
        case 2: model->charsmap_size = f.size; break;
        case 3: model->dummy_prefix = f.value != 0; break;
        case 4: model->squeeze_spaces = f.value != 0; break;
        case 5: model->escape_spaces = f.value != 0; break;
        default: break;
        }
    }
    return more;
}

static int add_piece(SpmModel *model, int *capacity, const Wire *w, const Field *f)
{
    if (model->count == SPM_COUNT_MAX) return wire_fail(w, "more than 2^20 pieces");
    if (model->count == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 4096;
        SpmPiece *grown = realloc(model->pieces, (size_t)*capacity * sizeof *grown);
        if (!grown) return err_set(w->e, "%s: out of memory", w->path);
        model->pieces = grown;
    }
    return read_piece(wire_inside(w, f), &model->pieces[model->count++]);
}

static int read_fields(SpmModel *model, Wire *w)
{
    Field f;
    int more, rc = 0, capacity = 0;
    while ((more = wire_next(w, &f)) > 0) {
        if (f.number > 5) continue;
        if (f.type != WIRE_BYTES) return wire_fail(w, "a part has the wrong wire type");
        if (f.number == 1) rc = add_piece(model, &capacity, w, &f);
        if (f.number == 2) rc = read_trainer_spec(wire_inside(w, &f), model);
        if (f.number == 3) rc = read_normalizer_spec(wire_inside(w, &f), model);
        if (f.number == 5 && f.size)
            return wire_fail(w, "it rewrites text when decoding (denormalizer)");
        if (rc) return -1;
    }
    return more;
}

/* The byte that a piece "<0x41>" stands for, or -1. */
static int piece_byte(const SpmPiece *piece)
{
    static const char digits[] = "0123456789ABCDEF";
    if (piece->size != 6 || memcmp(piece->text, "<0x", 3) || piece->text[5] != '>') return -1;
    const char *high = memchr(digits, piece->text[3], 16);
    const char *low = memchr(digits, piece->text[4], 16);
    return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

static int check_pieces(SpmModel *model, const char *path, Err *e)
{
    int unknown = 0, bytes = 0;
    for (int b = 0; b < 256; b++) model->byte_id[b] = -1;
    for (int id = 0; id < model->count; id++) {
        SpmPiece *piece = &model->pieces[id];
        if (piece->type == PIECE_UNKNOWN) unknown++;
        if (piece->type != PIECE_BYTE) continue;
        int byte = piece_byte(piece);
        if (byte < 0 || model->byte_id[byte] >= 0)
            return err_set(e, "%s: piece %d \"%.*s\" is no byte, or one that was there before",
                           path, id, piece->size, piece->text);
        model->byte_id[byte] = id;
        piece->byte = byte;
        bytes++;
    }
    if (unknown != 1) return err_set(e, "%s: %d pieces of type unknown, not 1", path, unknown);
    if (bytes != 256 || !model->byte_fallback) {
        err_set(e, "%s: %d of 256 byte pieces: text could not be encoded without loss", path,
                bytes);
        return err_hint(e, "use a model trained with --byte_fallback=true, or train one here");
    }
    const int ends[2] = {model->bos, model->eos};
    for (int i = 0; i < 2; i++)
        if (ends[i] < 0 || ends[i] >= model->count || ends[0] == ends[1] ||
            model->pieces[ends[i]].type != PIECE_CONTROL)
            return err_set(e, "%s: no usable %s piece (id %d)", path, i ? "EOS" : "BOS", ends[i]);
    return 0;
}

static int check_settings(const SpmModel *model, const char *path, Err *e)
{
    const char *what = NULL;
    if (model->count == 0) return err_set(e, "%s: not a SentencePiece model: no pieces", path);
    if (model->model_type != SPM_UNIGRAM && model->model_type != SPM_BPE)
        what = "its type is neither BPE nor unigram";
    else if (model->charsmap_size)
        what = "it normalizes text (wanted: normalization_rule_name=identity)";
    else if (model->dummy_prefix)
        what = "it puts a space before every text (wanted: add_dummy_prefix=false)";
    else if (model->squeeze_spaces)
        what = "it drops spaces (wanted: remove_extra_whitespaces=false)";
    else if (!model->escape_spaces)
        what = "it does not escape spaces (wanted: escape_whitespaces=true)";
    if (!what) return 0;
    err_set(e, "%s: this model cannot be used: %s", path, what);
    return err_hint(e, "decoding must give the text back byte by byte; let isomoe train a model");
}

int spm_model_read(SpmModel *model, const char *bytes, size_t size, const char *path, Err *e)
{
    const unsigned char *p = (const unsigned char *)bytes;
    Wire w = {p, p, p + size, path, e};
    *model = (SpmModel){.model_type = SPM_UNIGRAM, .bos = 1, .eos = 2, .dummy_prefix = true,
                        .squeeze_spaces = true, .escape_spaces = true}; /* the format's defaults */
    if (read_fields(model, &w) || check_settings(model, path, e) || check_pieces(model, path, e)) {
        spm_model_free(model);
        return -1;
    }
    return 0;
}

void spm_model_free(SpmModel *model)
{
    free(model->pieces);
    *model = (SpmModel){0};
}
