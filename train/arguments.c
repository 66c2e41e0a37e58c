/* train/arguments.c - see arguments.h. */
#include "train/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"

enum { NEAREST_MAX = 64 };

int arguments_options(const CommandRow *row)
{
    int n = 0;
    while (n < COMMAND_MAX_OPTIONS && row->option[n].name) n++;
    return n;
}

static const char *bare(const char *word) { return word + strspn(word, "-"); }

/* A configuration table of nothing but keys lends its search for the nearest one. */
const char *arguments_nearest(const char *const *list, int count, const char *word)
{
    ConfRow rows[NEAREST_MAX] = {{0}};
    CHECK(count <= NEAREST_MAX, "%d words", count);
    for (int i = 0; i < count; i++) rows[i].key = bare(list[i]);
    const char *found = conf_nearest(&(ConfTable){rows, count}, bare(word));
    for (int i = 0; i < count; i++)
        if (found == rows[i].key) return list[i];
    return NULL;
}

/* Option whose name is the first n letters of word, or -1. */
static int find_option(const CommandRow *row, const char *word, size_t n)
{
    for (int i = 0; i < arguments_options(row); i++)
        if (strlen(row->option[i].name) == n && !strncmp(row->option[i].name, word, n)) return i;
    return -1;
}

static int unknown_option(const CommandRow *row, const char *word, size_t n, Err *e)
{
    const char *list[COMMAND_MAX_OPTIONS + 1];
    char shown[128];
    int count = arguments_options(row);
    for (int i = 0; i < count; i++) list[i] = row->option[i].name;
    list[count] = "--help";
    snprintf(shown, sizeof shown, "%.*s", (int)(n < 100 ? n : 100), word);
    const char *nearest = arguments_nearest(list, count + 1, shown);
    err_set(e, "%s: unknown option %s%s%s%s", row->name, shown, nearest ? "; did you mean " : "",
            nearest ? nearest : "", nearest ? "?" : "");
    return err_hint(e, "isomoe %s --help lists the options", row->name);
}

/* Stores the text of option i by its kind. */
static int set_option(const CommandRow *row, int i, const char *text, Arguments *out, Err *e)
{
    const OptionRow *option = &row->option[i];
    char *end;
    errno = 0;
    out->text[i] = text;
    if (option->kind == OPTION_LIST) {
        if (out->n_listed == COMMAND_MAX_ARGUMENTS)
            return err_set(e, "%s: more than %d of %s", row->name, COMMAND_MAX_ARGUMENTS,
                           option->name);
        out->listed[out->n_listed].option = i;
        out->listed[out->n_listed++].text = text;
    } else if (option->kind == OPTION_INT) {
        long long value = strtoll(text, &end, 10);
        if (!*text || *end || errno || strspn(text, "-0123456789") != strlen(text))
            return err_set(e, "%s: %s needs an integer, not '%.100s'", row->name, option->name,
                           text);
        out->number[i] = value;
    } else if (option->kind == OPTION_FLOAT) {
        double value = strtod(text, &end);
        if (!*text || *end || !isfinite(value) || strspn(text, "+-.0123456789eE") != strlen(text))
            return err_set(e, "%s: %s needs a finite number, not '%.100s'", row->name,
                           option->name, text);
        out->real[i] = value;
    }
    return 0;
}

static void set_defaults(const CommandRow *row, Arguments *out)
{
    *out = (Arguments){0};
    for (int i = 0; i < arguments_options(row); i++) {
        const OptionRow *option = &row->option[i];
        Err e = {0};
        if (!option->initial || option->kind == OPTION_FLAG) continue;
        CHECK(!set_option(row, i, option->initial, out, &e), "default of %s", option->name);
    }
}

/* words[*at] begins with "--"; *at moves over the value it takes from the next word. */
static int parse_option(const CommandRow *row, int count, char **words, int *at, Arguments *out,
                        Err *e)
{
    const char *word = words[*at], *value = strchr(word, '=');
    size_t n = value ? (size_t)(value - word) : strlen(word);
    int i = find_option(row, word, n);
    if (i < 0) return unknown_option(row, word, n, e);
    const OptionRow *option = &row->option[i];
    if (option->kind == OPTION_FLAG) {
        if (value)
            return err_set(e, "%s: %s takes no value, but has '%.100s'", row->name, option->name,
                           value + 1);
        out->number[i] = 1;
        return 0;
    }
    if (value) return set_option(row, i, value + 1, out, e);
    if (*at + 1 >= count || !strncmp(words[*at + 1], "--", 2))
        return err_set(e, "%s: %s needs a value", row->name, option->name);
    return set_option(row, i, words[++*at], out, e);
}

static int check_free(const CommandRow *row, const Arguments *a, Err *e)
{
    if (a->n_free >= row->min_free && a->n_free <= row->max_free) return 0;
    if (a->n_free > row->max_free)
        err_set(e, "%s: one argument too many: '%.200s'", row->name, a->free[row->max_free]);
    else
        err_set(e, "%s: needs %s%d argument%s, got %d", row->name,
                row->max_free > row->min_free ? "at least " : "", row->min_free,
                row->min_free == 1 ? "" : "s", a->n_free);
    return err_hint(e, "isomoe %s%s%s", row->name, *row->usage ? " " : "", row->usage);
}

int arguments_parse(const CommandRow *row, int count, char **words, Arguments *out, Err *e)
{
    bool options = true;
    set_defaults(row, out);
    for (int i = 0; i < count && strcmp(words[i], "--"); i++)
        if (!strcmp(words[i], "--help") || !strcmp(words[i], "-h")) return 1;
    for (int i = 0; i < count; i++) {
        if (options && !strcmp(words[i], "--")) {
            options = false;
        } else if (options && words[i][0] == '-' && words[i][1]) { /* a lone "-" is stdin */
            if (words[i][1] != '-') return unknown_option(row, words[i], strlen(words[i]), e);
            if (parse_option(row, count, words, &i, out, e)) return -1;
        } else if (out->n_free == COMMAND_MAX_ARGUMENTS) {
            return err_set(e, "%s: more than %d arguments", row->name, COMMAND_MAX_ARGUMENTS);
        } else {
            out->free[out->n_free++] = words[i];
        }
    }
    return check_free(row, out, e);
}

void arguments_help(const CommandRow *row, FILE *out)
{
    static const char *const value[] = {[OPTION_FLAG] = "", [OPTION_TEXT] = " TEXT",
                                        [OPTION_INT] = " N", [OPTION_FLOAT] = " X",
                                        [OPTION_LIST] = " TEXT"};
    fprintf(out, "usage: isomoe %s%s%s%s\n\n%s\n\noptions:\n", row->name,
            arguments_options(row) ? " [options]" : "", *row->usage ? " " : "", row->usage,
            row->help);
    for (int i = 0; i < arguments_options(row); i++) {
        const OptionRow *option = &row->option[i];
        char left[64];
        snprintf(left, sizeof left, "%s%s", option->name, value[option->kind]);
        fprintf(out, "  %-24s %s", left, option->help);
        if (option->initial && option->kind != OPTION_FLAG)
            fprintf(out, " (default: %s)", option->initial);
        fputc('\n', out);
    }
    fprintf(out, "  %-24s %s\n", "--help", "this text");
}
