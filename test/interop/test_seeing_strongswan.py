"""Traffic flow confidentiality with strongSwan: it takes padding and dummies, and what it sends is taken."""

import re

import pytest
from netlab import wait_for
from test_strongswan import pair
from traffic import tcp_transfer


def counters(a):
    return a.status()['counters']


@pytest.mark.parametrize('role', ['initiator', 'responder'])
def test_padding_is_cut_off_by_the_inner_length(lab, role):
    a, s = pair(lab, ours='tfc = 256, 1000, mtu', role=role)
    for size in (1, 100, 500, 1100, 3000):
        a.host.ping('10.2.0.1', 3, size, source='10.1.0.1')
        s.host.ping('10.1.0.1', 3, size, source='10.2.0.1')
    tcp_transfer(a.host, s.host, '10.2.0.1', 2, port=7001)
    assert counters(a)['out_tfc_bytes'] > 5000
    a.command('rekey', 'strong/strong')
    padded = counters(a)['out_tfc_bytes']
    a.host.ping('10.2.0.1', 3, 100, source='10.1.0.1')
    assert counters(a)['out_tfc_bytes'] > padded


def test_dummies_are_taken_without_a_word(lab):
    a, s = pair(lab, ours='dummies = 50\ntfc = 256')
    wait_for('dummies', lambda: counters(a)['out_dummies'] > 100)
    for size in (1, 100, 1000):
        a.host.ping('10.2.0.1', 3, size, source='10.1.0.1')
    assert not re.search('integrity|verification failed|replay', s.log())


def test_what_it_sends_with_padding_configured_is_taken(lab):
    a, s = pair(lab, child='tfc_padding = 1000')
    for size in (1, 100, 1200):
        a.host.ping('10.2.0.1', 3, size, source='10.1.0.1')
        s.host.ping('10.1.0.1', 3, size, source='10.2.0.1')
    assert not [k for k, v in counters(a).items() if k.startswith('drop_in') and v]
