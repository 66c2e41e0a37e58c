/* train/domains_out.c - what was measured on held-out text, for people and as JSON. */
#include <string.h>

#include "train/domains.h"
#include "train/json_out.h"

static void add_interval(json_t *out, const char *low, const char *high, Interval i)
{
    json_object_set_new(out, low, json_out_real(i.low));
    json_object_set_new(out, high, json_out_real(i.high));
}

static json_t *domain_json(const Domain *d)
{
    const HeldOut *h = &d->result;
    json_t *out = json_pack(
        "{s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "name",
        json_out_text(d->name, strlen(d->name)), "data", json_out_text(d->path, strlen(d->path)),
        "data_hash", json_out_hash(loader_data_hash(d->loader)), "sequences",
        (json_int_t)h->sequences, "tokens", (json_int_t)h->targets, "bytes", (json_int_t)h->bytes,
        "loss", json_out_real(h->loss), "perplexity", json_out_real(h->perplexity),
        "bits_per_byte", json_out_real(h->bits_per_byte));
    add_interval(out, "loss_low", "loss_high", d->loss);
    add_interval(out, "bits_per_byte_low", "bits_per_byte_high", d->bits_per_byte);
    return out;
}

json_t *domains_json(const Domains *d)
{
    json_t *list = json_array();
    for (int i = 0; i < d->count; i++) json_array_append_new(list, domain_json(&d->domain[i]));
    return list;
}

static void print_one(const Domain *d, FILE *out)
{
    const HeldOut *h = &d->result;
    fprintf(out, "  %-16s %lld sequences, %lld tokens, %lld bytes\n", "measured on",
            (long long)h->sequences, (long long)h->targets, (long long)h->bytes);
    fprintf(out, "  %-16s %.4f nats a token, 95%% %.4f to %.4f\n", "loss", h->loss, d->loss.low,
            d->loss.high);
    fprintf(out, "  %-16s %.3f\n", "perplexity", h->perplexity);
    fprintf(out, "  %-16s %.4f, 95%% %.4f to %.4f\n", "bits per byte", h->bits_per_byte,
            d->bits_per_byte.low, d->bits_per_byte.high);
}

void domains_print(const Domains *d, FILE *out)
{
    if (d->count == 1) {
        print_one(&d->domain[0], out);
        return;
    }
    fprintf(out, "  %-16s %9s %11s %11s %8s %14s   %s\n", "domain", "sequences", "tokens", "bytes",
            "loss", "bits per byte", "95%");
    for (int i = 0; i < d->count; i++) {
        const Domain *one = &d->domain[i];
        const HeldOut *h = &one->result;
        fprintf(out, "  %-16.16s %9lld %11lld %11lld %8.4f %14.4f   %.4f to %.4f\n", one->name,
                (long long)h->sequences, (long long)h->targets, (long long)h->bytes, h->loss,
                h->bits_per_byte, one->bits_per_byte.low, one->bits_per_byte.high);
    }
    fprintf(out, "  %-16s %9lld %11lld %11lld %8.4f %14.4f   (mean of the domains %.4f)\n", "all",
            (long long)d->all.sequences, (long long)d->all.targets, (long long)d->all.bytes,
            d->all.loss, d->all.bits_per_byte, d->mean_bits);
}
