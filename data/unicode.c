/* data/unicode.c - see unicode.h. */
#include "data/unicode.h"

#include "data/unicode_table.h"

enum { RUNS = sizeof unicode_run / sizeof *unicode_run };

const char *const unicode_script_name[U_SCRIPTS] = {
    [U_LATIN] = "latin",   [U_CYRILLIC] = "cyrillic",     [U_GREEK] = "greek", [U_HAN] = "han",
    [U_KANA] = "kana",     [U_HANGUL] = "hangul",         [U_ARABIC] = "arabic",
    [U_HEBREW] = "hebrew", [U_DEVANAGARI] = "devanagari", [U_THAI] = "thai", [U_OTHER] = "other",
};

UnicodeClass unicode_class(uint32_t code)
{
    int low = 0, high = RUNS - 1; /* the last run that begins at or before the code */
    if (code < 0x80) {
        uint32_t letter = code | 0x20;
        if (letter >= 'a' && letter <= 'z') return U_LATIN;
        if (code >= '0' && code <= '9') return U_NUMBER;
        return code == ' ' || (code >= '\t' && code <= '\r') ? U_SPACE : U_SYMBOL;
    }
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (unicode_run[middle].first <= code) low = middle;
        else high = middle - 1;
    }
    return (UnicodeClass)unicode_run[low].class;
}
