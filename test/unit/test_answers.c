/* Answers of a peer that refuse what was asked of it, on an IKE SA that is up (RFC 7296 section 2.21.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "test/unit/scripted.h"

#define B (&p->s->node[1])
#define NONE span_of(NULL, 0)

enum asked { CHILD_REKEY, IKE_REKEY, CHILD_DELETE, LIVENESS, ASKED };

/* The engine has asked that of us, and waits. */
static struct scripted *asked(uint64_t seed, enum asked what)
{
    struct scripted *p = scripted_connected(seed);
    assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
    scripted_request(p, EXCHANGE_INFORMATIONAL); /* proves the SA to the engine */
    scripted_send(p);
    unsigned before = p->request.n;
    if (what == CHILD_REKEY || what == IKE_REKEY)
        ike_rekey(B->e, &B->peers[0], what == IKE_REKEY ? NULL : &B->policies[0], 5, p->s->now);
    else if (what == CHILD_DELETE)
        ike_down(B->e, &B->peers[0], &B->policies[0], 5, p->s->now);
    else
        liveness_queue(B->e->sas);
    sim_for(p->s, 30 * NS_PER_MS);
    assert_int_equal(p->request.n, before + 1);
    return p;
}

static void reply(struct scripted *p, uint16_t notify)
{
    scripted_reply(p);
    ike_put_notify(&p->b, PROTOCOL_NONE, NONE, notify, NONE);
    scripted_send(p);
}

/* "This error notification is considered fatal in both peers": who stayed would talk to an SA that the peer has deleted. */
static void what_the_peer_finds_malformed_ends_the_sa(void **state)
{
    (void)state;
    for (unsigned what = 0; what < ASKED; what++) {
        struct scripted *p = asked(1 + what, what);
        unsigned before = p->request.n;
        reply(p, NOTIFY_INVALID_SYNTAX);
        assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 0);
        assert_int_equal(scripted_sas(p, IKE_REKEYING), 0);
        assert_int_equal(sim_children(B), 0);
        assert_int_equal(p->request.n, before); /* and no Delete, either */
        assert_non_null(sim_find(B, IKE_EVENT_IKE_DOWN, "INVALID_SYNTAX"));
        sim_for(p->s, 10 * NS_PER_S); /* what is kept up begins anew */
        scripted_free(p);
    }
}

static void any_other_error_leaves_the_sa(void **state)
{
    (void)state;
    static const uint16_t errors[] = {NOTIFY_UNSUPPORTED_CRITICAL_PAYLOAD, NOTIFY_NO_PROPOSAL_CHOSEN, 8000};
    for (unsigned what = 0; what < ASKED; what++)
        for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
            struct scripted *p = asked(10 + what, what);
            reply(p, errors[i]);
            assert_int_equal(scripted_sas(p, IKE_ESTABLISHED), 1);
            assert_int_equal(sim_count(B, IKE_EVENT_IKE_DOWN), 0);
            scripted_free(p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_peer_finds_malformed_ends_the_sa),
        cmocka_unit_test(any_other_error_leaves_the_sa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
