/* data/unicode.h - what kind of character a code point is: script, number, white space, symbol. */
#ifndef ISOMOE_DATA_UNICODE_H
#define ISOMOE_DATA_UNICODE_H

#include <stdint.h>

/* Letters, and marks of one script alone, have their script's class; U_OTHER: a script that is not
 * listed, or letters of none. U_MARK: marks that combine with any letter. U_NUMBER: every kind of
 * digit and number. U_SPACE: white space, line ends and tab among it. U_SYMBOL: the rest:
 * punctuation, signs, pictures, control and unassigned codes, zero. */
typedef enum UnicodeClass {
    U_LATIN, U_CYRILLIC, U_GREEK, U_HAN, U_KANA, U_HANGUL, U_ARABIC, U_HEBREW, U_DEVANAGARI, U_THAI,
    U_OTHER, U_SCRIPTS, /* the number of scripts */
    U_MARK = U_SCRIPTS, U_NUMBER, U_SPACE, U_SYMBOL, U_CLASSES
} UnicodeClass;

extern const char *const unicode_script_name[U_SCRIPTS]; /* "latin" */

UnicodeClass unicode_class(uint32_t code); /* any code */

#endif
