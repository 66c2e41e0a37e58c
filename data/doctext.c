/* data/doctext.c - see doctext.h. */
#include "data/doctext.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

enum { NONE = -1 };

/* What has begun and not yet ended. */
typedef struct Scan {
    DocText *t;
    const char *text;
    int64_t word, word_chars;       /* where the word begins (NONE: none), its characters so far */
    int64_t run;                    /* the same of the run without white space */
    int64_t line, line_end;         /* the line, from its first to behind its last character */
    int64_t line_chars, line_space; /* characters up to line_end; white space behind it */
    uint32_t last;                  /* the line's last character that is not white space */
    bool bullet, ellipsis;
    int dots;                       /* full stops in a row at line_end */
} Scan;

static int add_part(DocParts *list, const char *bytes, int64_t size, int64_t chars, Err *e)
{
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? list->capacity * 2 : 1024;
        DocPart *grown = realloc(list->part, (size_t)capacity * sizeof *grown);
        if (!grown) return err_set(e, "out of memory for %lld words", (long long)capacity);
        list->part = grown;
        list->capacity = capacity;
    }
    list->part[list->count++] = (DocPart){hash_bytes(bytes, (size_t)size), (uint32_t)chars};
    list->chars += chars;
    return 0;
}

static int end_word(Scan *s, int64_t at, Err *e)
{
    int64_t begin = s->word;
    s->word = NONE;
    if (begin == NONE) return 0;
    return add_part(&s->t->words, s->text + begin, at - begin, s->word_chars, e);
}

static void end_run(Scan *s, int64_t at)
{
    if (s->run != NONE)
        s->t->hash = hash_more(s->t->hash, s->text + s->run, (size_t)(at - s->run));
    s->run = NONE;
}

static int end_line(Scan *s, Err *e)
{
    int64_t begin = s->line;
    s->line = NONE;
    if (begin == NONE) return 0;
    s->t->bullets += s->bullet;
    s->t->ellipses += s->last == 0x2026 || s->dots >= 3;
    return add_part(&s->t->lines, s->text + begin, s->line_end - begin, s->line_chars, e);
}

static bool is_bullet(uint32_t code)
{
    static const uint32_t bullet[] = {'-',    '*',    0x2013, 0x2022, 0x2023, 0x2043, 0x25A0,
                                      0x25A1, 0x25AA, 0x25AB, 0x25B6, 0x25C0, 0x25CB, 0x25CF,
                                      0x25E6};
    for (size_t i = 0; i < sizeof bullet / sizeof *bullet; i++)
        if (bullet[i] == code) return true;
    return false;
}

/* A character that is not white space, in its line. */
static void line_char(Scan *s, uint32_t code, int64_t at, int n)
{
    if (s->line == NONE) {
        s->line = at;
        s->line_chars = s->line_space = 0;
        s->bullet = is_bullet(code);
        s->dots = 0;
    }
    s->dots = code != '.' ? 0 : s->line_space ? 1 : s->dots + 1;
    s->line_chars += s->line_space + 1;
    s->line_space = 0;
    s->line_end = at + n;
    s->last = code;
}

/* A character that is not white space, in its word. */
static int word_char(Scan *s, UnicodeClass class, int64_t at, int n, Err *e)
{
    if (s->run == NONE) s->run = at;
    if (class == U_HAN || class == U_KANA || class == U_THAI)
        return end_word(s, at, e) || add_part(&s->t->words, s->text + at, n, 1, e) ? -1 : 0;
    if (s->word == NONE) {
        s->word = at;
        s->word_chars = 0;
    }
    s->word_chars++;
    return 0;
}

static int scan_char(Scan *s, uint32_t code, int64_t at, int n, Err *e)
{
    UnicodeClass class = unicode_class(code);
    s->t->class_chars[class]++;
    s->t->chars++;
    if (class != U_SPACE) {
        line_char(s, code, at, n);
        return word_char(s, class, at, n, e);
    }
    s->line_space++;
    end_run(s, at);
    if (end_word(s, at, e)) return -1;
    return code == '\n' ? end_line(s, e) : 0;
}

int doctext_read(DocText *t, const char *text, size_t size, Err *e)
{
    Scan s = {.t = t, .text = text, .word = NONE, .run = NONE, .line = NONE};
    int64_t end = (int64_t)size;
    t->bytes = end;
    t->chars = t->bullets = t->ellipses = 0;
    t->hash = 0;
    t->words.count = t->words.chars = t->lines.count = t->lines.chars = 0;
    memset(t->class_chars, 0, sizeof t->class_chars);
    for (int64_t at = 0; at < end;) {
        uint32_t code;
        int n = utf8_decode(text + at, &code);
        if (scan_char(&s, code, at, n, e)) return -1;
        at += n;
    }
    end_run(&s, end);
    return end_word(&s, end, e) || end_line(&s, e) ? -1 : 0;
}

void doctext_free(DocText *t)
{
    free(t->words.part);
    free(t->lines.part);
    free(t->table);
    *t = (DocText){0};
}
