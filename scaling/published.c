/* scaling/published.c - see published.h. */
#include "scaling/published.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const PublishedLaw hunyuan = {
    .name = "hunyuan", .source = "Hunyuan-Large, arXiv 2411.02265, section 2.3.1",
    .n_factor = 5.9e-3, .n_power = 0.5305, .d_factor = 3.2, .d_power = 0.50,
    .cost_a = 9.59, .cost_b = 2.3e8, .n_low = 1e7, .n_high = 1e9, .d_low = 1e10, .d_high = 1e11,
    .c_low = 5e18, .c_high = 9.5e19};

const PublishedLaw *published_find(const char *name)
{
    return strcmp(name, hunyuan.name) ? NULL : &hunyuan;
}

double published_n_opt(const PublishedLaw *p, double c_min)
{
    return p->n_factor * pow(c_min, p->n_power);
}

double published_d_opt(const PublishedLaw *p, double c_min)
{
    return p->d_factor * pow(c_min, p->d_power);
}

double hunyuan_compute(double N, double D) { return hunyuan.cost_a * N * D + hunyuan.cost_b * D; }
double hunyuan_n_opt(double c_min) { return published_n_opt(&hunyuan, c_min); }
double hunyuan_d_opt(double c_min) { return published_d_opt(&hunyuan, c_min); }
double hunyuan_budget(double N) { return pow(N / hunyuan.n_factor, 1 / hunyuan.n_power); }
