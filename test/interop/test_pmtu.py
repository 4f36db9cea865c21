"""Path MTU probes with strongSwan as the peer: padded IKE requests, answered, or asked again without the padding."""

import pytest
from netlab import wait_for
from test_strongswan import pair
from traffic import tcp_transfer


def child(adit):
    return next(c for sa in adit.status()['peers'][0]['ike_sas'] for c in sa['children'] if c['sending'])


@pytest.mark.parametrize('ike', ['aes128gcm16-prfsha256-x25519', 'aes256-sha256-x25519'])
@pytest.mark.parametrize('path', [1500, 1400])
def test_strongswan_answers_probes(lab, path, ike):
    a, s = pair(lab, ours=f'ike = {ike}', ike=f'proposals = {ike}')
    # A cable loses without a word what is longer than its other end takes; but for segmented sends, which stay whole.
    s.host.run('ip', 'link', 'set', 'eth0', 'mtu', str(path))
    tcp_transfer(a.host, s.host, '10.2.0.1', 2, port=7001)
    tcp_transfer(s.host, a.host, '10.1.0.1', 2, port=7002)
    wait_for('the size of the path', lambda: child(a)['path_mtu_probed'], 30)
    assert path - 16 < child(a)['path_mtu'] <= path  # CBC has blocks of 16 bytes
    assert len(a.status()['peers'][0]['ike_sas']) == 1
    a.command('rekey', 'strong')  # its message IDs are where they should be
    a.host.ping('10.2.0.1', 2, 1200, source='10.1.0.1')
