"""make bench, `test/bench/run --what ike`: thousands of IKE SAs between two daemons on this machine.

One daemon has a [peer] for each client, all at one address; the other answers them with one peer of any address and
identity. Measured are handshakes a second, how long each took from its first packet on, how long the control thread of
each daemon left a client of its control socket waiting meanwhile, and the memory of an idle tunnel. strongSwan in the
place of the second daemon is held against it.
"""

import atexit
import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'net'))
# pylint: disable=wrong-import-position
import netlab
from netlab import Lab, wait_for

SECRET = '"a secret of the load test"'
HUB, SPOKES = '192.0.2.2', '192.0.2.1'


def spokes_ini(n, auth):
    """One [peer] for each client; auth says how both ends prove themselves."""
    lines = ['[host]', 'routes = no', 'log = warn']
    for i in range(n):
        lines += [f'[peer p{i}]', f'endpoint = {HUB}', 'id = hub.test', f'local-id = p{i}.test', *auth.spoke(i),
                  f'local = 10.{32 + (i >> 16)}.{i >> 8 & 255}.{i & 255}', 'remote = 10.1.0.1']
    return '\n'.join(lines) + '\n'


def hub_ini(auth, cookies):
    # There is room for all at once, so that no threshold asks for cookies.
    demand = ['half-open = 1000000', 'cookies = always' if cookies else 'cookies = auto']
    return '\n'.join(['[host]', 'routes = no', 'log = warn', *demand, '[peer spokes]', 'endpoint = %any', 'id = %any',
                      'local-id = hub.test', *auth.hub(), 'local = 10.1.0.1', 'remote = 10.32.0.0-10.47.255.255', ''])


class Psk:
    """How both ends prove themselves: what stands in [peer] at each, and in strongSwan's configuration and its files."""
    files = {}

    def __init__(self, n):
        pass

    def spoke(self, i):
        return [f'psk = {SECRET}']

    def hub(self):
        return [f'psk = {SECRET}']

    def swan(self):
        return 'local { auth = psk\n id = hub.test }\n remote { auth = psk }', f'ike-load {{ secret = {SECRET} }}'


class Ecdsa:
    """A certificate over P-256 for each client and one for the hub, all of one CA."""

    def __init__(self, n):
        self.folder = tempfile.mkdtemp(prefix='adit-load-')
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.pki('ca', 'ca')
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda name: self.pki('cert', name, '--ca', 'ca'), ['hub.test', *(f'p{i}.test' for i in range(n))]))
        self.files = {'x509ca/ca.crt': self.read('ca.crt'), 'x509/hub.crt': self.read('hub.test.crt'),
                      'private/hub.key': self.read('hub.test.key')}

    def pki(self, *argv):
        subprocess.run([netlab.ADIT, 'pki', *argv], cwd=self.folder, check=True, capture_output=True)

    def read(self, name):
        with open(os.path.join(self.folder, name)) as f:
            return f.read()

    def by(self, name):
        path = os.path.join(self.folder, name)
        return [f'key = file:{path}.key', f'cert = {path}.crt', f'ca = {self.folder}/ca.crt']

    def spoke(self, i):
        return self.by(f'p{i}.test')

    def hub(self):
        return self.by('hub.test')

    def swan(self):
        return 'local { auth = pubkey\n id = hub.test\n certs = hub.crt }\n remote { auth = pubkey\n cacerts = ca.crt }', ''


AUTH = {'psk': Psk, 'ecdsa': Ecdsa}


def resident(pid):
    with open(f'/proc/{pid}/status') as f:
        return next(int(line.split()[1]) for line in f if line.startswith('VmRSS'))


class Daemon:
    def __init__(self, host, text):
        self.host = host
        self.process = host.spawn(netlab.ADIT, 'run', host.write('load.ini', text), log='adit.log')
        self.socket = f'/proc/{host.holder.pid}/root/run/adit/adit0.sock'
        self.waits = []
        self.ending = False

    def ask(self, **request):
        """The answer, and how long it took: a turn of the control thread, and the way there."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.socket)
            start = time.monotonic()
            s.sendall(json.dumps(request).encode() + b'\n')
            parts = []
            while not parts or not parts[-1].endswith(b'\n'):
                parts.append(s.recv(1 << 20))
                if not parts[-1]:
                    raise netlab.Failed(f'the daemon closed the connection:\n{self.process.text()[-2000:]}')
            took = time.monotonic() - start
        return json.loads(b''.join(parts)), took

    def brief(self):
        return self.ask(command='status', brief=True)[0]

    def watch(self):
        """Asks every 10 ms until told to end."""
        def loop():
            while not self.ending:
                self.waits.append(self.ask(command='status', brief=True)[1])
                time.sleep(0.01)
        self.thread = threading.Thread(target=loop)
        self.thread.start()

    def watched(self):
        self.ending = True
        self.thread.join()
        return sorted(self.waits)

    def memory(self):
        """Resident KB."""
        return resident(self.process.pid)

    def setup_us(self):
        status = self.ask(command='status')[0]
        return sorted(sa['setup_us'] for p in status['peers'] for sa in p['ike_sas'] if sa['setup_us'] is not None)


def percentile(values, p):
    return values[min(len(values) - 1, int(len(values) * p))] if values else float('nan')


def two_hosts(lab):
    left, right = lab.host('spokes'), lab.host('hub')
    lab.wire(left, 'eth0', right, 'eth0')
    left.address('eth0', SPOKES + '/24')
    right.address('eth0', HUB + '/24')
    right.address('lo', '10.1.0.1/32')  # strongSwan wants to be one of those it serves
    return left, right


def start(host, text):
    daemon = Daemon(host, text)
    wait_for('a daemon', lambda: os.path.exists(daemon.socket) or not daemon.process.running(), 30)
    if not daemon.process.running():
        raise netlab.Failed(daemon.process.text()[-2000:])
    daemon.brief()
    return daemon


def bring_up(spokes, n, patience):
    """Starts the clients and waits until n are up: the daemon, its memory at the beginning, seconds, how many are."""
    host, text = spokes
    daemon = start(host, text)
    before, began, up = daemon.memory(), time.monotonic(), 0
    daemon.watch()
    while up < n and time.monotonic() - began < patience:
        time.sleep(0.05)
        up = daemon.brief()['child_sa_count']
    return daemon, before, time.monotonic() - began, up


def summary(daemon, before, took, up):
    memory = daemon.memory() - before  # before the long status is made
    setup = daemon.setup_us()
    return {'up': up, 'seconds': took, 'rate': up / took, 'p50': percentile(setup, 0.5) / 1000,
            'p99': percentile(setup, 0.99) / 1000, 'spoke_kb': memory / max(up, 1)}


def against_adit(n, auth, cookies, patience):
    lab = Lab()
    try:
        left, right = two_hosts(lab)
        hub = start(right, hub_ini(auth, cookies))
        hub_before = hub.memory()
        hub.watch()
        spokes, before, took, up = bring_up((left, spokes_ini(n, auth)), n, patience)
        waits = sorted(hub.watched() + spokes.watched())
        brief = hub.brief()
        turn = max(brief['turn_max_us'], spokes.brief()['turn_max_us'])
        hub_cpu, hub_kb = hub.process.cpu(), hub.memory() - hub_before
        time.sleep(5)
        idle = (hub.process.cpu() - hub_cpu) / 5
        return {**summary(spokes, before, took, up), 'hub_kb': hub_kb / max(up, 1), 'hub_us': hub_cpu / max(up, 1) * 1e6,
                'wait_p99': percentile(waits, 0.99) * 1000, 'wait_max': waits[-1] * 1000,
                'turn': turn / 1000,
                'refused': brief['counters']['drop_ike_limit'], 'again': brief['counters']['ike_replayed'], 'idle': idle * 100}
    finally:
        lab.close()


def against_strongswan(n, auth, patience):
    """Its defaults refuse so many half-open SAs of one address: they are switched off, as is its log."""
    lab = Lab()
    try:
        left, right = two_hosts(lab)
        proof, secret = auth.swan()
        swan = netlab.StrongSwan(right, f'''connections {{ load {{ remote_addrs = %any
            {proof}
            children {{ load {{ local_ts = 10.1.0.1/32
            remote_ts = 10.32.0.0/12 }} }} }} }}
            secrets {{ {secret} }}''', 'block_threshold = 0\ncookie_threshold = 0\nhalf_open_timeout = 60\n'
            'ikesa_table_size = 8192\nikesa_table_segments = 64\nthreads = 32', auth.files)
        with open(swan.settings) as f:
            text = f.read().replace('default = 1', 'default = -1').replace('ike = 2', 'ike = -1').replace('cfg = 2', 'cfg = -1')
        with open(swan.settings, 'w') as f:
            f.write(text)
        swan.start()
        before_kb = resident(swan.process.pid)
        spokes, before, took, up = bring_up((left, spokes_ini(n, auth)), n, patience)
        cpu = swan.process.cpu()
        spokes.watched()
        return {**summary(spokes, before, took, up), 'hub_kb': (resident(swan.process.pid) - before_kb) / max(up, 1),
                'hub_us': cpu / max(up, 1) * 1e6}
    finally:
        lab.close()


ROWS = (('up', 'IKE SAs up, each with a Child SA', '{:.0f}'), ('seconds', 'seconds', '{:.1f}'),
        ('rate', 'handshakes a second, both ends on this machine', '{:.0f}'), ('hub_us', 'CPU of the hub, us a handshake', '{:.0f}'),
        ('p50', 'first packet to up, ms, p50', '{:.2f}'), ('p99', 'p99', '{:.2f}'),
        ('wait_p99', 'wait of a status request meanwhile, ms, p99', '{:.2f}'), ('wait_max', 'longest', '{:.2f}'),
        ('turn', 'longest turn of a control thread, ms of CPU', '{:.2f}'),
        ('hub_kb', 'resident KB a tunnel at the hub', '{:.1f}'), ('spoke_kb', 'at the clients', '{:.1f}'),
        ('refused', 'first messages refused for a limit', '{:.0f}'), ('again', 'answers sent again', '{:.0f}'),
        ('idle', 'CPU of the hub with all of them idle, %', '{:.1f}'))


def micro(name):
    """Builds a benchmark of one engine in memory; what it prints."""
    program = f'build/release/bench/{name}'
    subprocess.run(['make', '--no-print-directory', '-s', '-C', netlab.ROOT, program], check=True)
    return subprocess.run([os.path.join(netlab.ROOT, program)], capture_output=True, text=True, check=True).stdout


def run(n, auth_name, patience=300):
    print('Microseconds of CPU in an engine, by how many SAs it has\n')
    print(micro('micro_ike'))
    auth = AUTH[auth_name](n)
    columns = {'adit': against_adit(n, auth, False, patience), 'with cookies': against_adit(n, auth, True, patience),
               'strongSwan hub': against_strongswan(n, auth, patience)}
    print(f'{n} clients, {auth_name}, {os.cpu_count()} cores\n')
    print(f'{"":50}' + ''.join(f'{name:>16}' for name in columns))
    for key, title, form in ROWS:
        print(f'{title:50}' + ''.join(f'{form.format(c[key]) if key in c else "-":>16}' for c in columns.values()))
