"""Traffic for the tests: what goes in must come out, counted or hashed."""

import json
import os
import subprocess
import time

from netlab import ROOT, Failed, wait_for

PYTHON = '/usr/bin/python3'
TRANSFER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'transfer.py')


def build_udp_rate():
    """The datagram counter of the benchmark; another session may be running it just now."""
    out = os.path.join(ROOT, 'build', 'udp_rate')
    made = f'{out}.{os.getpid()}'
    source = os.path.join(ROOT, 'test', 'bench', 'udp_rate.c')
    subprocess.run(['cc', '-std=c11', '-D_GNU_SOURCE', '-O2', '-o', made, source], check=True)
    os.replace(made, out)
    return out


def tcp_transfer(source, sink, address, megabytes, port=7000):
    """Moves that much over TCP, and compares the hashes of both ends."""
    server = sink.spawn(PYTHON, TRANSFER, 'recv', address, str(port), log=f'recv-{port}-{len(sink.processes)}.log')
    server.wait_text('ready')
    sent = source.run(PYTHON, TRANSFER, 'send', address, str(port), str(megabytes), timeout=120).stdout.split()
    got = server.wait_text(r'\d+ [0-9a-f]{64}', 30).group(0).split()
    if sent != got:
        raise Failed(f'sent {sent}, received {got}')


class Transfer:
    """A TCP transfer in the background; done() compares the hashes."""

    def __init__(self, source, sink, address, megabytes, port=7001):
        self.server = sink.spawn(PYTHON, TRANSFER, 'recv', address, str(port), log=f'recv-{port}-{len(sink.processes)}.log')
        self.server.wait_text('ready')
        self.client = source.spawn(PYTHON, TRANSFER, 'send', address, str(port), str(megabytes),
                                   log=f'send-{port}-{len(source.processes)}.log')

    def done(self, seconds=120):
        sent = self.client.wait_text(r'\d+ [0-9a-f]{64}', seconds).group(0)
        got = self.server.wait_text(r'\d+ [0-9a-f]{64}', 30).group(0)
        if sent != got:
            raise Failed(f'sent {sent}, received {got}')


class Stream:
    """Datagrams at a steady rate, counted at both ends: for what must not lose a single one."""

    def __init__(self, tool, source, sink, address, rate=2000, seconds=5, size=200, port=7777):
        self.receiver = subprocess.Popen(sink.enter + [tool, 'recv', str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True)
        assert self.receiver.stdout.readline() == 'ready\n'
        self.sender = subprocess.Popen(source.enter + [tool, 'send', address, str(port), str(size), str(rate), str(seconds)],
                                       stdout=subprocess.PIPE, text=True)

    def done(self):
        """(sent, received)"""
        sent = int(self.sender.communicate()[0])
        time.sleep(1)  # what is on its way
        return sent, int(self.receiver.communicate('\n')[0])


def lost_at(s):
    """Datagrams that the kernel dropped because charon came too late for them: adit has no part in that."""
    tun = json.loads(s.host.run('ip -j -s link show ipsec0').stdout)[0]['stats64']['tx']['dropped']
    names, values = (line.split() for line in s.host.run('cat', '/proc/net/snmp').stdout.splitlines() if line.startswith('Udp:'))
    return int(tun) + int(dict(zip(names, values))['RcvbufErrors'])


def nothing_lost(flows, s):
    """Ends the flows: every datagram of each has arrived. Returns how many there were."""
    counts = [flow.done() for flow in flows]
    sent, got = (sum(c[i] for c in counts) for i in (0, 1))
    assert got <= sent <= got + lost_at(s), f'{counts}, {lost_at(s)} of them lost in front of charon'
    return sent


def iperf(source, sink, address, bind, *more, seconds=1):
    server = sink.spawn('iperf3', '-s', '-1', '-B', address, log=f'iperf-{len(sink.processes)}.log')
    wait_for('iperf3', lambda: ':5201' in sink.run('ss -ltn').stdout)
    out = source.run('iperf3', '-c', address, '-B', bind, '-t', str(seconds), *more, timeout=seconds + 30).stdout
    server.popen.wait(40)
    return out
