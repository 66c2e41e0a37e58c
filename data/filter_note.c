/* data/filter_note.c - see filter_note.h. */
#include "data/filter_note.h"

#include <math.h>

static json_t *limit_json(double limit) { return isfinite(limit) ? json_real(limit) : json_null(); }

/* One filter that is on. */
static json_t *row_json(const FilterOptions *o, const SieveResult *r, int f)
{
    const FilterLimit *limit = &o->limit[f];
    json_t *row = json_pack("{s:s, s:I, s:I}", "filter", filter_name[f], "documents",
                            (json_int_t)r->removed[f].documents, "bytes",
                            (json_int_t)r->removed[f].bytes);
    if (f == FILTER_NEAR) {
        json_object_set_new(row, "likeness", json_real(limit->high));
        json_object_set_new(row, "bands", json_integer(o->bands ? o->bands : DEDUP_BANDS));
        json_object_set_new(row, "rows", json_integer(o->rows ? o->rows : DEDUP_ROWS));
        json_object_set_new(row, "cut_short", json_integer(r->dedup.cut_short));
    } else if (f != FILTER_EXACT) {
        json_object_set_new(row, "low", limit_json(limit->low));
        json_object_set_new(row, "high", limit_json(limit->high));
    }
    if (f == FILTER_BITS && o->score_name) {
        json_t *name = json_string(o->score_name); /* a name that is not UTF-8 is left out */
        if (name) json_object_set_new(row, "model", name);
    }
    return row;
}

static json_t *scripts_json(const FilterOptions *o)
{
    json_t *list = json_array();
    for (int s = 0; s < U_SCRIPTS; s++)
        if (o->scripts >> s & 1) json_array_append_new(list, json_string(unicode_script_name[s]));
    return list;
}

json_t *filter_note(const FilterOptions *o, const SieveResult *r)
{
    json_t *rows = json_array();
    for (int f = 0; f < FILTERS; f++) {
        if (!o->limit[f].on) continue;
        json_t *row = row_json(o, r, f);
        if (f == FILTER_SCRIPTS) json_object_set_new(row, "scripts", scripts_json(o));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:I, s:I, s:o}", "documents", (json_int_t)r->documents, "bytes",
                     (json_int_t)r->bytes, "removed", rows);
}
