"""Peers that are hard to find: several addresses, names that change, and the first packet of a tunnel on demand."""

import time

import pytest
from netlab import Adit, wait_for

INI = '''[host]
id = {me}
{host}
[peer other]
endpoint = {endpoint}
id       = {other}
psk      = "correct horse battery staple"
start    = {start}
local    = 10.{number}.0.0/24
remote   = 10.{remote}.0.0/24
'''


def left_ini(endpoint, start='yes', host=''):
    return INI.format(me='left', other='right', endpoint=endpoint, start=start, number=1, remote=2, host=host)


def right_ini():
    return INI.format(me='right', other='left', endpoint='%any', start='no', number=2, remote=1, host='')


def hosts(lab):
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    return left, right


def etc(host, name, text):
    """A file of /etc that only this host sees; written again, it changes under the daemon."""
    path = host.write(name, text, 0o644)
    if not host.run('findmnt', f'/etc/{name}', check=False).stdout:
        host.run('mount', '--bind', path, f'/etc/{name}')


def answers(a, timeout=1):
    return a.host.ping('10.2.0.1', 1, check=False, timeout=timeout, source='10.1.0.1')


@pytest.mark.parametrize('io', ['uring', 'epoll'])
def test_the_first_ping_on_demand_arrives(lab, io):
    left, right = hosts(lab)
    Adit(right, right_ini()).start()
    a = Adit(left, left_ini('192.0.2.2', 'on-demand', f'io = {io}')).start()
    assert answers(a, 15) == 1
    counters = a.status()['counters']
    assert counters['out_held'] == 1 and counters['drop_out_no_sa'] == 0


def test_the_next_address_is_tried(lab):
    left, right = hosts(lab)
    Adit(right, right_ini()).start()
    a = Adit(left, left_ini('192.0.2.77, 192.0.2.2')).start()
    wait_for('the tunnel by the second address', lambda: answers(a), 60)
    peer = a.status()['peers'][0]
    assert peer['endpoints'] == ['192.0.2.77', '192.0.2.2']
    assert '192.0.2.77:500 does not answer' in a.log()


def test_a_name_whose_address_changes(lab):
    left, right = hosts(lab)
    etc(left, 'hosts', '192.0.2.2 gate.example\n')
    b = Adit(right, right_ini()).start()
    a = Adit(left, left_ini('gate.example')).start()
    wait_for('the tunnel', lambda: answers(a), 60)
    assert a.status()['peers'][0]['endpoint'] == '192.0.2.2:500'
    b.stop()
    right.run('ip', 'address', 'del', '192.0.2.2/24', 'dev', 'eth0')
    right.address('eth0', '192.0.2.22/24')
    etc(left, 'hosts', '192.0.2.22 gate.example\n')
    b.start()
    # An attempt for the old address may be out: it ends after 63 s.
    wait_for('the tunnel at the new address', lambda: answers(a), 90)
    assert a.status()['peers'][0]['endpoint'] == '192.0.2.22:500'


def test_nothing_waits_for_a_silent_name_server(lab):
    left, right = hosts(lab)
    etc(left, 'hosts', '')
    etc(left, 'resolv.conf', 'nameserver 192.0.2.99\n')
    Adit(right, right_ini()).start()
    began = time.monotonic()
    a = Adit(left, left_ini('gate.example, 192.0.2.2')).start()
    assert a.status()['peers'][0]['addresses'] == ['192.0.2.2:500']
    assert time.monotonic() - began < 5, 'the resolver gives up later'
    wait_for('the tunnel by the address beside the name', lambda: answers(a), 60)
    began = time.monotonic()
    assert a.stop() == 0
    assert time.monotonic() - began < 5, 'the resolver gives up later'


def test_a_name_that_comes_later(lab):
    left, right = hosts(lab)
    etc(left, 'hosts', '')
    etc(left, 'resolv.conf', 'nameserver 127.0.0.1\n')
    Adit(right, right_ini()).start()
    a = Adit(left, left_ini('gate.example')).start()
    wait_for('the reason', lambda: 'gate.example has no address' in (a.status()['peers'][0]['last_error'] or ''), 60)
    etc(left, 'hosts', '192.0.2.2 gate.example\n')
    wait_for('the tunnel', lambda: answers(a), 60)
    assert a.status()['peers'][0]['last_error'] is None


def test_check_says_what_names_stand_for(lab):
    left, _ = hosts(lab)
    etc(left, 'hosts', '192.0.2.2 gate.example\n')
    etc(left, 'resolv.conf', 'nameserver 127.0.0.1\n')
    a = Adit(left, left_ini('gate.example, nowhere.example'))
    done = a.command('check', a.ini)
    assert 'other: 192.0.2.2' in done.stdout
    assert 'endpoint nowhere.example has no address' in done.stderr


def test_several_clients_of_one_peer(lab):
    """One [peer] with %any, each client with an identity and an address of its own: nobody takes another's traffic."""
    server = lab.host('server')
    server.address('lo', '10.2.0.1/32')
    b = Adit(server, '[host]\nid = right\n[peer road]\nendpoint = %any\nid = %any\npsk = "correct horse battery staple"\n'
             'local = 10.2.0.0/24\nremote = 10.1.0.0/24\nlifetime = 12s\n')
    clients = []
    for i in (1, 2, 3):
        host = lab.host(f'client{i}')
        lab.wire(host, 'eth0', server, f'eth{i}', 1500)
        host.address('eth0', f'192.0.{i}.1/24')
        server.address(f'eth{i}', f'192.0.{i}.2/24')
        host.address('lo', f'10.1.0.{i}/32')
        clients.append(Adit(host, INI.format(me=f'client{i}', other='right', endpoint=f'192.0.{i}.2', start='yes', number=1,
                                             remote=2, host='').replace('10.1.0.0/24', f'10.1.0.{i}/32')))
    b.start()
    for a in clients:
        a.start()
    for i, a in enumerate(clients, 1):
        wait_for('the tunnel', lambda: a.host.ping('10.2.0.1', 1, check=False, timeout=1, source=f'10.1.0.{i}'), 60)
    time.sleep(13)  # each has been rekeyed
    for i, a in enumerate(clients, 1):
        server.ping(f'10.1.0.{i}', 3, source='10.2.0.1')
        a.host.ping('10.2.0.1', 3, source=f'10.1.0.{i}')
    clients[1].stop()
    server.ping('10.1.0.1', 3, source='10.2.0.1')
    server.ping('10.1.0.3', 3, source='10.2.0.1')
    assert server.ping('10.1.0.2', 1, check=False, timeout=1, source='10.2.0.1') == 0
    b.command('reload')
    server.ping('10.1.0.1', 3, source='10.2.0.1')
