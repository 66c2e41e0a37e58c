/* base/conf_key.h - finding a key or a section in a ConfTable, and what to say when there is none.
 *
 * Internal to conf.c and conf_key.c. A section is a dotted name that is followed by more: "model"
 * in "model.d_model".
 */
#ifndef ISOMOE_BASE_CONF_KEY_H
#define ISOMOE_BASE_CONF_KEY_H

#include "base/conf.h"

enum { CONF_KEY = 128, CONF_DEPTH = 4, CONF_LIST = 512 };

/* Row with this key, or -1. */
int conf_find_row(const ConfTable *table, const char *key);

/* First row of the section with this name, or -1. */
int conf_find_section(const ConfTable *table, const char *section);

/* Number of dots in a key. */
int conf_depth(const char *key);

/* The list that `key` ("data.sources[1].name") has an element of: its row in *list, the element's
 * number in *element. False if there is no such list, or the number is none. */
bool conf_find_list(const ConfTable *table, const char *key, int *list, int64_t *element);

/* Elements of the list whose row is `list`. */
int64_t conf_list_count(const ConfTable *table, int list, const void *object);

/* False for a row of an element that the list does not have, and for the list itself. */
bool conf_row_given(const ConfTable *table, int i, const void *object);

/* Names of the keys directly in a section (the first n letters of `section`; n = 0: at the top). */
void conf_list_section(const ConfTable *table, const char *section, size_t n, char out[CONF_LIST]);

/* Error for a key, or a section, that the table does not have. */
int conf_unknown(const ConfTable *table, const char *where, const char *key, bool section, Err *e);

#endif
