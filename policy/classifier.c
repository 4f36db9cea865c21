#include "policy/classifier.h"

#include <stdlib.h>

#define WIDTH 7 /* children of a node: what fits in two cache lines */
#define LEAF 7  /* boxes of a leaf: what fits in the three bits of a reference */
#define REGIONS_MAX (1u << 28)
#define LATER_MAX 1024   /* children to come back to: up to 6 of each level, of which 2^28 boxes make at most 128 */
#define RELATE_MAX 256   /* nodes and boxes looked at before a question about a box is given up */
#define INSERTION_MAX 48 /* items that insertion sorts faster than radix does */

/* A reference to a child: a node's number, or a leaf's first box << 3 | how many it has, and this bit. */
#define LEAF_BIT (1u << 31)

struct node {
    _Alignas(64) uint8_t axis;
    uint8_t n;
    uint16_t narrower;                  /* axes on which the bounds say more than the way here: a bit each */
    uint32_t first[WIDTH], span[WIDTH]; /* last - first, on the axis */
    uint32_t lowest[WIDTH];             /* entry; children are in this order */
    uint32_t child[WIDTH];
};
_Static_assert(sizeof(struct node) == 128, "two cache lines");

struct classifier {
    unsigned axes;
    uint32_t root, lowest;
    struct node *nodes;
    uint32_t *bounds; /* of each node: first and span on each axis */
    uint32_t *boxes;  /* of each box: the same, then entry << 1 | whether it is not exact */
    size_t node_count, node_cap, box_count;
};

/* -- making -- */

struct item {
    uint64_t key; /* first << 32 | last */
    uint32_t region;
};

/* Boxes that become one child; first and last on the axis in question. */
struct group {
    uint32_t first, last;
    size_t n;
};

enum way { WAY_SLABS, WAY_RANK };

struct split {
    unsigned axis;
    enum way way;
    uint64_t cost;
};

struct builder {
    struct classifier *c;
    const struct region *in;
    uint32_t *order; /* of all boxes; a subtree has a run of it */
    struct item *items, *spare;
    uint8_t *group; /* of each item */
};

static uint32_t key_first(const struct item *i)
{
    return (uint32_t)(i->key >> 32);
}

static uint32_t key_last(const struct item *i)
{
    return (uint32_t)i->key;
}

static void insertion_sort(struct item *v, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct item x = v[i];
        size_t k = i;
        for (; k > 0 && v[k - 1].key > x.key; k--)
            v[k] = v[k - 1];
        v[k] = x;
    }
}

/* By bytes, from the lowest on; those that all keys share are skipped. Leaves the result in b->items. */
static void sort_items(struct builder *b, size_t n)
{
    uint64_t differ = 0;
    if (n <= INSERTION_MAX) {
        insertion_sort(b->items, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        differ |= b->items[i].key ^ b->items[0].key;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t start[256] = {0}, at = 0;
        if ((differ >> shift & 255) == 0)
            continue;
        for (size_t i = 0; i < n; i++)
            start[b->items[i].key >> shift & 255]++;
        for (unsigned k = 0; k < 256; k++) {
            size_t count = start[k];
            start[k] = at;
            at += count;
        }
        for (size_t i = 0; i < n; i++)
            b->spare[start[b->items[i].key >> shift & 255]++] = b->items[i];
        struct item *sorted = b->spare;
        b->spare = b->items;
        b->items = sorted;
    }
}

/* Sorts a run along an axis. False: all are alike there. */
static bool sort_along(struct builder *b, const uint32_t *run, size_t n, unsigned axis)
{
    bool differ = false;
    for (size_t i = 0; i < n; i++) {
        const struct region *r = &b->in[run[i]];
        b->items[i] = (struct item){(uint64_t)r->first[axis] << 32 | r->last[axis], run[i]};
        differ |= b->items[i].key != b->items[0].key;
    }
    if (differ)
        sort_items(b, n);
    return differ;
}

/* Children for n boxes: rather fewer of them than leaves that are nearly empty. */
static unsigned ways(size_t n)
{
    return n / LEAF + 1 < WIDTH ? (unsigned)(n / LEAF + 1) : WIDTH;
}

/*
 * Slabs along the axis, with borders at quantiles of where boxes begin, but for those that are as long as all together;
 * and one more group for the boxes that have a border inside. Returns how many groups.
 */
static unsigned assign_slabs(struct builder *b, size_t n)
{
    uint32_t low = key_first(&b->items[0]), high = 0, border[WIDTH];
    unsigned slabs = ways(n) < WIDTH ? ways(n) : WIDTH - 1, borders = 0;
    size_t narrow = 0, seen = 0, quantile = 0;
    for (size_t i = 0; i < n; i++)
        high = key_last(&b->items[i]) > high ? key_last(&b->items[i]) : high;
    uint64_t whole = (uint64_t)low << 32 | high;
    for (size_t i = 0; i < n; i++)
        narrow += b->items[i].key != whole;
    for (size_t i = 0; i < n; i++) {
        uint32_t first = key_first(&b->items[i]);
        if (b->items[i].key == whole)
            continue;
        size_t in = seen++ * slabs / narrow;
        if (in > quantile && first > (borders ? border[borders - 1] : low)) {
            border[borders++] = first;
            quantile = in;
        }
    }
    for (size_t i = 0, slab = 0; i < n; i++) {
        while (slab < borders && border[slab] <= key_first(&b->items[i]))
            slab++;
        b->group[i] = (uint8_t)(slab < borders && border[slab] <= key_last(&b->items[i]) ? borders + 1 : slab);
    }
    return borders + 2;
}

static unsigned assign(struct builder *b, size_t n, enum way way)
{
    if (way == WAY_SLABS)
        return assign_slabs(b, n);
    for (size_t i = 0; i < n; i++)
        b->group[i] = (uint8_t)(i * ways(n) / n);
    return ways(n);
}

static void measure_groups(const struct builder *b, size_t n, struct group g[WIDTH])
{
    for (unsigned k = 0; k < WIDTH; k++)
        g[k] = (struct group){.first = UINT32_MAX};
    for (size_t i = 0; i < n; i++) {
        struct group *of = &g[b->group[i]];
        uint32_t first = key_first(&b->items[i]), last = key_last(&b->items[i]);
        of->first = first < of->first ? first : of->first;
        of->last = last > of->last ? last : of->last;
        of->n++;
    }
}

/* How many items begin below the value. */
static size_t rank(const struct builder *b, size_t n, uint64_t value)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (key_first(&b->items[middle]) < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * Boxes left to look at after this step, summed over packets that fall where boxes begin; nothing, where a group has
 * so much of them that little is gained.
 */
static uint64_t cost_of(const struct builder *b, size_t n, enum way way, const struct group *g)
{
    uint64_t cost = 0;
    for (unsigned k = 0; k < WIDTH; k++) {
        if (g[k].n == 0)
            continue;
        if (way == WAY_SLABS && g[k].n > n - (n + 7) / 8)
            return UINT64_MAX;
        cost += g[k].n * (rank(b, n, (uint64_t)g[k].last + 1) - rank(b, n, g[k].first));
    }
    return cost;
}

static struct split choose(struct builder *b, const uint32_t *run, size_t n)
{
    struct split best = {.way = WAY_RANK, .cost = UINT64_MAX};
    for (unsigned axis = 0; axis < b->c->axes; axis++) {
        if (!sort_along(b, run, n, axis))
            continue;
        for (enum way way = WAY_SLABS; way <= WAY_RANK; way++) {
            struct group g[WIDTH];
            (void)assign(b, n, way);
            measure_groups(b, n, g);
            uint64_t cost = cost_of(b, n, way, g);
            if (cost < best.cost)
                best = (struct split){axis, way, cost};
        }
    }
    return best;
}

/* Puts the run into the order of its groups. */
static void part(struct builder *b, uint32_t *run, size_t n, const struct split *s, struct group g[WIDTH])
{
    size_t start[WIDTH], at = 0;
    (void)sort_along(b, run, n, s->axis);
    (void)assign(b, n, s->way);
    measure_groups(b, n, g);
    for (unsigned k = 0; k < WIDTH; k++) {
        start[k] = at;
        at += g[k].n;
    }
    for (size_t i = 0; i < n; i++)
        run[start[b->group[i]]++] = b->items[i].region;
}

static void bound(const struct builder *b, const uint32_t *run, size_t n, struct region *out)
{
    *out = b->in[run[0]];
    for (size_t i = 1; i < n; i++) {
        const struct region *r = &b->in[run[i]];
        for (unsigned a = 0; a < b->c->axes; a++) {
            out->first[a] = r->first[a] < out->first[a] ? r->first[a] : out->first[a];
            out->last[a] = r->last[a] > out->last[a] ? r->last[a] : out->last[a];
        }
        out->entry = r->entry < out->entry ? r->entry : out->entry;
    }
}

static void store(uint32_t *words, const struct region *r, unsigned axes)
{
    for (unsigned a = 0; a < axes; a++) {
        words[2 * a] = r->first[a];
        words[2 * a + 1] = r->last[a] - r->first[a];
    }
}

static uint32_t add_leaf(struct builder *b, uint32_t *run, size_t n)
{
    struct classifier *c = b->c;
    size_t stride = 2 * c->axes + 1;
    uint32_t ref = LEAF_BIT | (uint32_t)c->box_count << 3 | (uint32_t)n;
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && b->in[run[k - 1]].entry > b->in[run[k]].entry; k--) {
            uint32_t lower = run[k];
            run[k] = run[k - 1];
            run[k - 1] = lower;
        }
    for (size_t i = 0; i < n; i++) {
        uint32_t *words = c->boxes + stride * c->box_count++;
        store(words, &b->in[run[i]], c->axes);
        words[stride - 1] = b->in[run[i]].entry << 1 | !b->in[run[i]].exact;
    }
    return ref;
}

static enum err add_node(struct classifier *c, const struct region *known, const struct region *bounds, uint32_t *ref)
{
    if (c->node_count == c->node_cap) {
        size_t cap = c->node_cap ? c->node_cap * 2 : 16;
        struct node *nodes = aligned_alloc(64, cap * sizeof(*nodes));
        uint32_t *words = realloc(c->bounds, cap * 2 * c->axes * sizeof(*words));
        c->bounds = words ? words : c->bounds;
        if (!nodes || !words) {
            free(nodes);
            return ERR_NOMEM;
        }
        if (c->node_count)
            memcpy(nodes, c->nodes, c->node_count * sizeof(*nodes));
        free(c->nodes);
        c->nodes = nodes;
        c->node_cap = cap;
    }
    struct node *node = &c->nodes[c->node_count];
    *node = (struct node){0};
    for (unsigned a = 0; a < c->axes; a++)
        if (known->first[a] != bounds->first[a] || known->last[a] != bounds->last[a])
            node->narrower = (uint16_t)(node->narrower | 1u << a);
    store(c->bounds + c->node_count * 2 * c->axes, bounds, c->axes);
    *ref = (uint32_t)c->node_count++;
    return OK;
}

/* Keeps the children in the order of their lowest entries. */
static void add_child(struct node *node, const struct group *g, uint32_t lowest, uint32_t ref)
{
    unsigned i = node->n++;
    for (; i > 0 && node->lowest[i - 1] > lowest; i--) {
        node->first[i] = node->first[i - 1];
        node->span[i] = node->span[i - 1];
        node->lowest[i] = node->lowest[i - 1];
        node->child[i] = node->child[i - 1];
    }
    node->first[i] = g->first;
    node->span[i] = g->last - g->first;
    node->lowest[i] = lowest;
    node->child[i] = ref;
}

/* What points that come here are known to lie in is `known`. */
static enum err build(struct builder *b, uint32_t *run, size_t n, const struct region *known, uint32_t *ref,
                      uint32_t *lowest)
{
    struct region bounds;
    struct group g[WIDTH];
    uint32_t self;
    bound(b, run, n, &bounds);
    *lowest = bounds.entry;
    if (n <= LEAF) {
        *ref = add_leaf(b, run, n);
        return OK;
    }
    struct split s = choose(b, run, n);
    part(b, run, n, &s, g);
    TRY(add_node(b->c, known, &bounds, &self));
    b->c->nodes[self].axis = (uint8_t)s.axis;
    for (unsigned k = 0; k < WIDTH; k++) {
        struct region inside = bounds;
        uint32_t child, child_lowest;
        if (g[k].n == 0)
            continue;
        inside.first[s.axis] = g[k].first;
        inside.last[s.axis] = g[k].last;
        TRY(build(b, run, g[k].n, &inside, &child, &child_lowest));
        add_child(&b->c->nodes[self], &g[k], child_lowest, child);
        run += g[k].n;
    }
    *ref = self;
    return OK;
}

static enum err build_all(struct classifier *c, const struct regions *in)
{
    struct builder b = {.c = c, .in = in->v};
    struct region everything = {.entry = 0};
    enum err e = ERR_NOMEM;
    memset(everything.last, 0xff, sizeof(everything.last));
    b.order = calloc(in->n, sizeof(*b.order));
    b.items = calloc(in->n, sizeof(*b.items));
    b.spare = calloc(in->n, sizeof(*b.spare));
    b.group = calloc(in->n, sizeof(*b.group));
    c->boxes = calloc(in->n, (2 * c->axes + 1) * sizeof(*c->boxes));
    if (b.order && b.items && b.spare && b.group && c->boxes) {
        for (size_t i = 0; i < in->n; i++)
            b.order[i] = (uint32_t)i;
        e = build(&b, b.order, in->n, &everything, &c->root, &c->lowest);
    }
    free(b.order);
    free(b.items);
    free(b.spare);
    free(b.group);
    return e;
}

enum err classifier_new(struct classifier **out, unsigned axes, const struct regions *in)
{
    struct classifier *c = calloc(1, sizeof(*c));
    if (!c || in->n > REGIONS_MAX) {
        free(c);
        return ERR_NOMEM;
    }
    c->axes = axes;
    c->root = LEAF_BIT; /* of no boxes */
    c->lowest = CLASSIFIER_NONE;
    if (in->n > 0 && build_all(c, in) != OK) {
        classifier_free(c);
        return ERR_NOMEM;
    }
    *out = c;
    return OK;
}

void classifier_free(struct classifier *c)
{
    if (!c)
        return;
    free(c->nodes);
    free(c->bounds);
    free(c->boxes);
    free(c);
}

size_t classifier_size(const struct classifier *c)
{
    return sizeof(*c) + c->node_cap * (sizeof(struct node) + 2 * c->axes * sizeof(uint32_t)) +
           c->box_count * (2 * c->axes + 1) * sizeof(uint32_t);
}

/* -- looking up -- */

struct search {
    const struct classifier *c;
    const uint32_t *x;
    classifier_confirm confirm;
    const void *ctx;
};

static inline bool holds(const uint32_t *box, const uint32_t *x, unsigned axes)
{
    unsigned outside = 0;
    for (unsigned a = 0; a < axes; a++)
        outside |= x[a] - box[2 * a] > box[2 * a + 1]; /* below first: wraps, and is more than any span */
    return !outside;
}

/* The first of a leaf's entries that has the point, if it comes before `best`; else that. */
static inline uint32_t search_leaf(const struct search *s, uint32_t ref, unsigned axes, uint32_t best)
{
    size_t stride = 2 * axes + 1;
    const uint32_t *box = s->c->boxes + stride * ((ref & ~LEAF_BIT) >> 3), *end = box + stride * (ref & 7);
    for (; box < end && box[stride - 1] >> 1 < best; box += stride)
        if (holds(box, s->x, axes) && (!(box[stride - 1] & 1) || s->confirm(s->ctx, box[stride - 1] >> 1)))
            return box[stride - 1] >> 1;
    return best;
}

/* The children that the point may be in, a bit each. */
static inline unsigned search_node(const struct search *s, uint32_t ref, unsigned axes)
{
    const struct node *node = &s->c->nodes[ref];
    const uint32_t *bounds = s->c->bounds + (size_t)ref * 2 * axes;
    unsigned found = 0;
    for (unsigned left = node->narrower; left; left &= left - 1) {
        unsigned a = (unsigned)__builtin_ctz(left);
        if (s->x[a] - bounds[2 * a] > bounds[2 * a + 1])
            return 0;
    }
    uint32_t x = s->x[node->axis];
    for (unsigned i = 0; i < WIDTH; i++)
        found |= (unsigned)(x - node->first[i] <= node->span[i]) << i;
    return found & ((1u << node->n) - 1);
}

static inline uint32_t search(const struct search *s, unsigned axes)
{
    struct {
        uint32_t ref, lowest;
    } later[LATER_MAX];
    uint32_t best = CLASSIFIER_NONE, ref = s->c->root;
    for (unsigned n = 0;;) {
        unsigned in = 0;
        if (ref & LEAF_BIT)
            best = search_leaf(s, ref, axes, best);
        else
            in = search_node(s, ref, axes);
        /* The first child goes on top: it has the lowest entry of them. */
        for (unsigned i; in; in ^= 1u << i) {
            i = 31 - (unsigned)__builtin_clz(in);
            later[n].ref = s->c->nodes[ref].child[i];
            later[n++].lowest = s->c->nodes[ref].lowest[i];
        }
        do {
            if (n == 0)
                return best;
        } while (later[--n].lowest >= best);
        ref = later[n].ref;
    }
}

uint32_t classifier_find(const struct classifier *c, const uint32_t *x, classifier_confirm confirm, const void *ctx)
{
    struct search s = {.c = c, .x = x, .confirm = confirm, .ctx = ctx};
    if (c->box_count == 0)
        return CLASSIFIER_NONE;
    return c->axes == region_axes(4) ? search(&s, region_axes(4)) : search(&s, REGION_AXES);
}

/* -- boxes and boxes -- */

struct relating {
    const struct classifier *c;
    const struct region *r;
    bool covering; /* look for boxes that have all of r; else for those that have some of it, and any will do */
    classifier_confirm confirm;
    const void *ctx;
    uint32_t best; /* lowest entry found, or what it must be below */
    unsigned left; /* nodes and boxes that may still be looked at */
};

static bool related(const struct relating *q, unsigned axis, uint32_t first, uint32_t span)
{
    uint32_t low = q->r->first[axis], high = q->r->last[axis], last = first + span;
    return q->covering ? first <= low && high <= last : first <= high && low <= last;
}

static bool related_box(const struct relating *q, const uint32_t *box)
{
    for (unsigned a = 0; a < q->c->axes; a++)
        if (!related(q, a, box[2 * a], box[2 * a + 1]))
            return false;
    return true;
}

static void relate_leaf(struct relating *q, uint32_t ref)
{
    size_t stride = 2 * q->c->axes + 1;
    const uint32_t *box = q->c->boxes + stride * ((ref & ~LEAF_BIT) >> 3);
    for (unsigned n = ref & 7; n > 0 && box[stride - 1] >> 1 < q->best; n--, box += stride) {
        uint32_t entry = box[stride - 1] >> 1;
        if (!related_box(q, box) || q->left == 0)
            continue;
        q->left--;
        if (!q->confirm || q->confirm(q->ctx, entry))
            q->best = q->covering ? entry : 0;
    }
}

static void relate(struct relating *q, uint32_t ref)
{
    const struct node *node = &q->c->nodes[ref];
    if (q->left == 0)
        return;
    q->left--;
    if (ref & LEAF_BIT) {
        relate_leaf(q, ref);
        return;
    }
    if (node->narrower && !related_box(q, q->c->bounds + (size_t)ref * 2 * q->c->axes))
        return;
    for (unsigned i = 0; i < node->n && node->lowest[i] < q->best; i++)
        if (related(q, node->axis, node->first[i], node->span[i]))
            relate(q, node->child[i]);
}

bool classifier_meets(const struct classifier *c, const struct region *r, uint32_t before)
{
    struct relating q = {.c = c, .r = r, .best = before, .left = RELATE_MAX};
    if (c->box_count > 0)
        relate(&q, c->root);
    return q.best < before || q.left == 0;
}

uint32_t classifier_covering(const struct classifier *c, const struct region *r, uint32_t before,
                             classifier_confirm confirm, const void *ctx)
{
    struct relating q = {
        .c = c, .r = r, .covering = true, .confirm = confirm, .ctx = ctx, .best = before, .left = RELATE_MAX};
    if (c->box_count > 0)
        relate(&q, c->root);
    return q.best < before ? q.best : CLASSIFIER_NONE;
}
