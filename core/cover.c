#include "core/cover.h"

#include "core/worker_impl.h"
#include "crypto/random.h"
#include "esp/tfc.h"

#define BURST 4 /* most dummies of one policy at once: after a pause, what was missed is not made up for */

void cover_init(struct cover *c)
{
    *c = (struct cover){.next = NS_NEVER};
    random_bytes(c->key, sizeof c->key);
}

static uint64_t chance(const struct cover *c, uint32_t policy_id, uint64_t n)
{
    uint8_t bytes[12];
    put_be32(bytes, policy_id);
    put_be64(bytes + 4, n);
    return siphash(c->key, span_of(bytes, sizeof bytes));
}

ns_t cover_due(const struct cover *c, uint32_t policy_id, unsigned rate, uint64_t n)
{
    ns_t part = NS_PER_S / rate;
    return n * part + chance(c, policy_id, n) % part;
}

/* Sends what one policy has due, and returns when the next one is. */
static ns_t cover_policy(struct worker *w, const struct spd_entry *entry, struct sa *sa, ns_t now)
{
    const struct cover *c = &w->cover;
    unsigned rate = entry->policy->dummies, sent = 0;
    uint32_t mtu = frame_largest(w, sa);
    ns_t from = now - c->last > NS_PER_S ? now : c->last;
    for (uint64_t n = from / (NS_PER_S / rate);; n++) {
        ns_t due = cover_due(c, entry->id, rate, n);
        if (due > now)
            return due;
        if (due <= from || sent == BURST)
            continue;
        if (!frame_dummy(w, sa, tfc_dummy(&sa->params.tfc, chance(c, entry->id, ~n), mtu)))
            worker_sa_drop(w, STAT_DROP_OUT_NO_BUFFER, 1, sa);
        sent++;
    }
}

void cover_send(struct worker *w)
{
    struct cover *c = &w->cover;
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    if (w->p.index != 0 || !spd || !spd_dummies(spd, 0))
        return;
    ns_t now = worker_now(w);
    bool changed = atomic_exchange(&w->called, false) || spd != c->spd;
    if (now < c->next && !changed)
        return;
    c->spd = spd;
    c->next = NS_NEVER;
    const struct spd_entry *entry;
    for (unsigned i = 0; (entry = spd_dummies(spd, i)); i++) {
        struct sa *sa = worker_sa_out(w, entry);
        ns_t next = sa ? cover_policy(w, entry, sa, now) : NS_NEVER;
        if (policy_shared(entry->policy) && next > now + NS_PER_S)
            next = now + NS_PER_S; /* a client's entry may come later than its SA, and nobody says so */
        c->next = next < c->next ? next : c->next;
    }
    c->last = now;
    wire_flush(w);
}
