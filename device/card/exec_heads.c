/* SPDX-License-Identifier: Apache-2.0 */
/* See exec_heads.h. */
#include "card/exec_heads.h"

static struct tepi_heads heads_of(const struct tepi_tensor *t, uint32_t heads, bool split)
{
    if (!split)
        return (struct tepi_heads){t->n, t->h, t->w, t->c, t->stride_n, t->stride_h, t->stride_w};
    const uint32_t c = t->c / heads;
    const uint64_t bytes = (uint64_t)c * tepi_type_bytes(t->type);
    return (struct tepi_heads){t->n, heads, t->w, c, t->stride_n, bytes, t->stride_w};
}

static bool split_valid(const struct tepi_tensor *t, uint32_t heads, uint8_t split)
{
    return split == 0 || (split == 1 && t->h == 1 && t->c % heads == 0);
}

/* One product for each n and h of out. */
static bool repeats(const struct tepi_heads *t, const struct tepi_heads *out)
{
    return (t->n == 1 || t->n == out->n) && (t->h == 1 || t->h == out->h);
}

bool tepi_products_valid(const struct tepi_products *p, const struct tepi_tensor *a,
                         const struct tepi_tensor *b, const struct tepi_tensor *out,
                         struct tepi_products_heads *heads)
{
    const bool any = p->a_split || p->b_split || p->out_split;
    if ((any ? p->heads == 0 : p->heads != 0) || p->b_transposed > 1 ||
        !split_valid(a, p->heads, p->a_split) || !split_valid(b, p->heads, p->b_split) ||
        !split_valid(out, p->heads, p->out_split))
        return false;
    heads->a = heads_of(a, p->heads, p->a_split);
    heads->b = heads_of(b, p->heads, p->b_split);
    heads->out = heads_of(out, p->heads, p->out_split);
    const uint32_t depth = p->b_transposed ? heads->b.c : heads->b.w;
    const uint32_t columns = p->b_transposed ? heads->b.w : heads->b.c;
    return repeats(&heads->a, &heads->out) && repeats(&heads->b, &heads->out) &&
           heads->a.w == heads->out.w && heads->a.c == depth && heads->out.c == columns &&
           (uint64_t)heads->out.n * heads->out.h <= UINT32_MAX;
}

const uint8_t *tepi_head_at(const uint8_t *base, const struct tepi_heads *t, uint32_t n, uint32_t h)
{
    return base + (t->n == 1 ? 0 : (uint64_t)n * t->stride_n) +
           (t->h == 1 ? 0 : (uint64_t)h * t->stride_h);
}
