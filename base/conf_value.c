/* base/conf_value.c - see conf_value.h. Numbers are checked by their own grammar before strtoll or
 * strtod see them, so that what these accept besides (hex, inf, blanks, signs) stays refused. */
#include "base/conf_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

const char *conf_show(char out[CONF_SHOWN], const char *text, size_t size)
{
    size_t used = 0;
    out[used++] = '\'';
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (used + 9 > CONF_SHOWN) { /* room for \xNN, "...", the quote and the zero */
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        if (c >= 0x20 && c < 0x7f)
            out[used++] = (char)c;
        else
            used += (size_t)snprintf(out + used, CONF_SHOWN - used, "\\x%02x", c);
    }
    out[used++] = '\'';
    out[used] = 0;
    return out;
}

const char *conf_number(char out[CONF_NUMBER], double value)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, CONF_NUMBER, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    return out;
}

/* "from a to b", "at least a" or "at most b". */
static void range_text(const ConfRow *row, char out[128])
{
    char low[CONF_NUMBER], high[CONF_NUMBER];
    conf_number(low, row->min);
    conf_number(high, row->max);
    if (isfinite(row->min) && isfinite(row->max))
        snprintf(out, 128, "from %s to %s", low, high);
    else if (isfinite(row->min))
        snprintf(out, 128, "at least %s", low);
    else
        snprintf(out, 128, "at most %s", high);
}

static bool in_range(const ConfRow *row, long double value)
{
    return row->min > row->max || (value >= row->min && value <= row->max);
}

/* -?(0|[1-9][0-9]*) into *out; NULL, or what is wrong. */
static const char *read_int(const char *text, int64_t *out)
{
    const char *digits = text + (*text == '-');
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || digits[n]) return "is not an integer; expected digits only (no 1e6, 64k, 4_096)";
    if (n > 1 && *digits == '0') return "has a leading zero; expected a decimal integer";
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno == ERANGE) return "does not fit in a 64-bit integer";
    *out = value;
    return NULL;
}

/* -?digits[.digits][e[+-]digits], digits before or after the point, into *out. */
static const char *read_float(const char *text, double *out)
{
    static const char *const not_finite[] = {".inf", "inf", "infinity", ".nan", "nan", NULL};
    const char *p = text + (*text == '-' || *text == '+');
    for (int i = 0; not_finite[i]; i++)
        if (!strcasecmp(p, not_finite[i])) return "is not finite; expected a finite number";
    p = text + (*text == '-');
    size_t whole = strspn(p, "0123456789");
    p += whole;
    size_t fraction = *p == '.' ? strspn(p + 1, "0123456789") : 0;
    if (*p == '.') p += 1 + fraction;
    bool ok = whole + fraction > 0;
    bool zero = strspn(text, "-0.") == (size_t)(p - text);
    if (ok && (*p == 'e' || *p == 'E')) {
        p++;
        if (*p == '+' || *p == '-') p++;
        size_t exponent = strspn(p, "0123456789");
        ok = exponent > 0;
        p += exponent;
    }
    if (!ok || *p) return "is not a number; expected one such as 0.1, 3e-4 or 2";
    double value = strtod(text, NULL);
    if (!isfinite(value)) return "is too large for a double";
    if (value == 0 && !zero) return "is too small for a double (it would become 0)";
    *out = value;
    return NULL;
}

size_t conf_field_size(const ConfRow *row)
{
    static const size_t size[] = {[CONF_INT] = sizeof(int64_t), [CONF_FLOAT] = sizeof(double),
                                  [CONF_BOOL] = sizeof(bool), [CONF_TEXT] = CONF_STRING,
                                  [CONF_LONG] = CONF_LONG_STRING, [CONF_ENUM] = sizeof(int),
                                  [CONF_SECTIONS] = sizeof(int64_t)};
    return size[row->type];
}

/* Into `room` bytes. */
static const char *read_text(ConfScalar scalar, char *out, size_t room)
{
    if (scalar.form == CONF_PLAIN) {
        if (scalar.size == 0) return "has no value; write \"\" for an empty text";
        if (!strcmp(scalar.text, "~") || !strcasecmp(scalar.text, "null"))
            return "is YAML's null; expected a text (put it in quotes if you mean the word)";
    }
    if (scalar.size >= room)
        return room == CONF_STRING ? "is too long; expected at most 511 bytes"
                                   : "is too long; expected at most 2047 bytes";
    if (utf8_valid_prefix(scalar.text, scalar.size) != scalar.size) return "is not UTF-8";
    if (memchr(scalar.text, 0, scalar.size)) return "contains a zero byte";
    memcpy(out, scalar.text, scalar.size);
    memset(out + scalar.size, 0, room - scalar.size);
    return NULL;
}

static int set_enum(const ConfRow *row, int *out, const char *text, const char *shown,
                    const char *where, Err *e)
{
    char list[512] = "";
    size_t used = 0;
    for (int i = 0; row->names[i]; i++) {
        if (!strcmp(text, row->names[i])) {
            *out = i;
            return 0;
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? " | " : "",
                                     row->names[i]);
    }
    err_set(e, "%s: %s: %s is not one of: %s", where, row->key, shown, list);
    return row->help ? err_hint(e, "%s is: %s", row->key, row->help) : -1;
}

/* The value of a row of any type but ENUM; NULL, or what is wrong. */
static const char *set_plain_type(const ConfRow *row, void *field, ConfScalar scalar)
{
    const char *text = scalar.text;
    if (row->type == CONF_TEXT || row->type == CONF_LONG)
        return read_text(scalar, field, conf_field_size(row));
    if (scalar.form == CONF_PLAIN && scalar.size == 0) return "has no value";
    if (strlen(text) != scalar.size) return "contains a zero byte";
    if (scalar.form == CONF_QUOTED)
        return row->type == CONF_BOOL ? "is a text in quotes; expected true or false"
                                      : "is a text in quotes; expected a number";
    if (row->type == CONF_INT) return read_int(text, field);
    if (row->type == CONF_FLOAT) return read_float(text, field);
    if (strcmp(text, "true") && strcmp(text, "false")) return "is not true or false";
    *(bool *)field = text[0] == 't';
    return NULL;
}

int conf_value_set(const ConfRow *row, void *object, ConfScalar scalar, const char *where, Err *e)
{
    union {
        int64_t i;
        double f;
        bool b;
        int n;
        char text[CONF_LONG_STRING];
    } value = {0}; /* the field changes only when all is well */
    char shown[CONF_SHOWN];
    conf_show(shown, scalar.text, scalar.size);
    if (row->type == CONF_ENUM) {
        if (set_enum(row, &value.n, scalar.text, shown, where, e)) return -1;
    } else {
        const char *wrong = set_plain_type(row, &value, scalar);
        if (wrong) {
            err_set(e, "%s: %s: %s %s", where, row->key, shown, wrong);
            return err_hint(e, "%s is: %s", row->key, row->help ? row->help : "");
        }
    }
    long double number = row->type == CONF_INT ? (long double)value.i : (long double)value.f;
    if ((row->type == CONF_INT || row->type == CONF_FLOAT) && !in_range(row, number)) {
        char range[128];
        range_text(row, range);
        err_set(e, "%s: %s: %s is out of range; allowed: %s", where, row->key, shown, range);
        return err_hint(e, "%s is: %s", row->key, row->help ? row->help : "");
    }
    memcpy((char *)object + row->offset, &value, conf_field_size(row));
    return 0;
}
