#!/usr/bin/env python3
"""Prints data/unicode_table.h: every code point's class, as ranges, from Python's Unicode database.

A letter or mark belongs to the script that its name begins with; marks that combine with any
script are MARK; numbers are NUMBER; white space is SPACE; all else is SYMBOL, unassigned too.

usage: make_unicode.py > data/unicode_table.h
"""
import sys
import unicodedata

SCRIPTS = {'LATIN': 'LATIN', 'CYRILLIC': 'CYRILLIC', 'GREEK': 'GREEK', 'CJK': 'HAN',
           'IDEOGRAPHIC': 'HAN', 'HIRAGANA': 'KANA', 'KATAKANA': 'KANA', 'HANGUL': 'HANGUL',
           'ARABIC': 'ARABIC', 'HEBREW': 'HEBREW', 'DEVANAGARI': 'DEVANAGARI', 'THAI': 'THAI'}
WIDTHS = ('FULLWIDTH', 'HALFWIDTH')


def class_of(code):
    char = chr(code)
    kind = unicodedata.category(char)
    if kind in ('Zs', 'Zl', 'Zp') or 0x09 <= code <= 0x0D or code == 0x85:
        return 'SPACE'
    if kind[0] == 'N' and not unicodedata.name(char, '').startswith(('CJK', 'IDEOGRAPHIC')):
        return 'NUMBER'
    if kind[0] not in 'LMN':
        return 'SYMBOL'
    words = [w for w in unicodedata.name(char, '').replace('-', ' ').split() if w not in WIDTHS]
    if words and words[0] in SCRIPTS:
        return SCRIPTS[words[0]]
    if kind[0] == 'M' and words and words[0] in ('COMBINING', 'VARIATION'):
        return 'MARK'
    return {'FEMININE': 'LATIN', 'MASCULINE': 'LATIN'}.get(words[0] if words else '', 'OTHER')


def main():
    rows, last = [], None
    for code in range(0x110000):
        here = class_of(code) if not 0xD800 <= code <= 0xDFFF else 'SYMBOL'
        if here != last:
            rows.append((code, here))
            last = here
    print('/* data/unicode_table.h - made by tools/make_unicode.py from Unicode '
          f'{unicodedata.unidata_version}: where each run of\n'
          ' * code points of one class begins. */')
    print('static const struct { uint32_t first; uint8_t class; } unicode_run[] = {')
    line = '   '
    for code, name in rows:
        item = f' {{0x{code:X}, U_{name}}},'
        if len(line) + len(item) > 100:
            print(line)
            line = '   '
        line += item
    print(line + '\n};')


if __name__ == '__main__':
    sys.exit(main())
