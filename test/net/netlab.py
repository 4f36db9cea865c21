"""Hosts on one machine for the network tests, the demo and the benchmark.

A host is a process that holds a network and a mount namespace of its own (with a /run of its own), entered by nsenter.
Everything is tied to the life of this process by parent-death signals: nothing is left behind, also after kill -9.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ADIT = os.environ.get('ADIT', os.path.join(ROOT, 'build/release/adit'))
ECHO = os.path.join(ROOT, 'test/net/echo.py')
LEFT, RIGHT = ('192.0.2.1', '198.51.100.1'), ('203.0.113.1', '203.0.114.1')  # of the two hosts of Lab.crossing
TIED = ['setpriv', '--pdeathsig', 'KILL']


class Failed(Exception):
    """A command or a wait that did not end as it had to; the text holds what was printed."""


def wait_for(what, condition, seconds=40, every=0.05):
    """Calls condition until it gives something true; returns that."""
    end = time.monotonic() + seconds
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f'waited {seconds} s in vain for {what}')
        time.sleep(every)


class Process:
    """A program running in a host, its output in a file."""

    def __init__(self, host, argv, log, env=None):
        self.host, self.argv, self.log = host, argv, log
        self.file = open(log, 'ab')
        self.began = self.file.tell()  # what stands before is of an earlier run
        self.popen = subprocess.Popen(TIED + host.enter + argv, stdin=subprocess.DEVNULL, stdout=self.file,
                                      stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        self.pid = self.popen.pid

    def text(self, begin=0):
        """What it has printed from an offset on; while it runs only whole lines, as it may be in the midst of the next."""
        writing = self.running()
        with open(self.log, 'rb') as f:
            f.seek(begin)
            printed = f.read()
        if writing:
            printed = printed[:printed.rfind(b'\n') + 1]
        return printed.decode(errors='replace')

    def running(self):
        return self.popen.poll() is None

    def cpu(self):
        """CPU seconds used so far, with all threads."""
        with open(f'/proc/{self.pid}/stat') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def wait_text(self, pattern, seconds=40):
        def found():
            running = self.running()  # asked first: its last words come before its end
            match = re.search(pattern, self.text(self.began))
            if not match and not running:
                raise Failed(f'{self.argv[0]} ended with {self.popen.returncode}:\n{self.text()}')
            return match
        return wait_for(f'"{pattern}" from {self.argv[0]}:\n{self.text()}', found, seconds)

    def stop(self, sig=signal.SIGTERM, seconds=40):
        if self.running():
            self.popen.send_signal(sig)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise Failed(f'{self.argv} did not end on signal {sig}:\n{self.text()}') from None
        self.file.close()
        return self.popen.returncode


def copy_example(name, folder):
    """An example in a folder of its own, with the certificates that its comments tell to make; returns the folder."""
    folder = shutil.copytree(os.path.join(ROOT, 'examples', name), str(folder), dirs_exist_ok=True)
    if name == 'certificates':
        for made in (['ca', 'example'], ['cert', 'left.example', '--ca', 'ca'], ['cert', 'right.example', '--ca', 'ca']):
            subprocess.run([ADIT, 'pki', *made], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


class Host:
    def __init__(self, lab, name):
        self.lab, self.name = lab, name
        self.folder = os.path.join(lab.folder, name)
        os.mkdir(self.folder)
        # Without duplicate address detection no address changes its state a second or two later, while a test runs.
        hold = 'sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 && ' \
               'mount -t tmpfs tmpfs /run && mkdir -p /run/adit && ip link set lo up && echo ready && exec sleep infinity'
        self.holder = subprocess.Popen(TIED + ['unshare', '--mount', '--net', 'sh', '-c', hold], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE)
        if self.holder.stdout.readline() != b'ready\n':
            raise Failed(f'cannot make host {name}: namespaces need root')
        self.enter = ['nsenter', '-t', str(self.holder.pid), '-m', '-n', '--']
        self.processes = []

    def run(self, *argv, check=True, timeout=60, **more):
        """Runs a command to its end: its result, with output as text."""
        argv = argv[0].split() if len(argv) == 1 else list(argv)
        done = subprocess.run(self.enter + argv, stdin=more.pop('stdin', subprocess.DEVNULL) if 'input' not in more else None,
                              capture_output=True, text=True, timeout=timeout, check=False, **more)
        if check and done.returncode:
            raise Failed(f'{self.name}: {" ".join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}')
        return done

    def spawn(self, *argv, log=None, env=None):
        argv = argv[0].split() if len(argv) == 1 else list(argv)
        name = log or f'{os.path.basename(argv[0])}-{len(self.processes)}.log'
        process = Process(self, argv, os.path.join(self.folder, name), env)
        self.processes.append(process)
        return process

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.folder, name)
        with open(path, 'w') as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def address(self, dev, *addresses):
        for a in addresses:
            self.run('ip', 'addr', 'add', a, 'dev', dev, *(['nodad'] if ':' in a else []))

    def ping(self, to, count=3, size=56, interval=0.05, check=True, timeout=15, source=None):
        """Pings; returns how many answers came until that many seconds after the last request. With check, all must."""
        argv = ['/usr/bin/python3', ECHO, to, str(count), str(interval), str(size), str(timeout)]
        done = self.run(*argv, *([source] if source else []), check=False, timeout=count * interval + timeout + 60)
        got = re.search(r'(\d+) received', done.stdout)
        answers = int(got.group(1)) if got else 0
        if check and answers != count:
            raise Failed(f'{self.name}: ping {to} size {size}: {answers} of {count} answers\n{done.stdout}{done.stderr}')
        return answers

    def close(self):
        for p in self.processes:
            try:
                p.stop(signal.SIGKILL)
            except Failed:
                pass
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


def end_cleanly():
    """Whoever ends this program interrupts it, so that it takes down what it made. A second signal doesn't disturb that."""
    signals = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]

    def interrupt(_number, _frame):
        for s in signals:
            signal.signal(s, signal.SIG_IGN)
        raise KeyboardInterrupt

    for s in signals:
        signal.signal(s, interrupt)


class Lab:
    """Some hosts and the wires between them. Use as a context."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='adit-lab-')
        self.hosts = []
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.close()

    def told(self):
        """(title, text) of every log on the hosts, and the status of the daemons that run: for who has to find out why."""
        for h in self.hosts:
            for p in h.processes:
                if p.argv[0] == ADIT and p.running():
                    try:
                        yield f'adit status of {h.name}', h.run(ADIT, 'status', '--json', check=False, timeout=10).stdout
                    except subprocess.TimeoutExpired:
                        yield f'adit status of {h.name}', 'it does not answer'
            for name in sorted(n for n in os.listdir(h.folder) if n.endswith(('.log', '.out'))):
                with open(os.path.join(h.folder, name), errors='replace') as f:
                    yield f'{name} of {h.name}', f.read()

    def close(self):
        for h in self.hosts:
            h.close()
        reports = [p.text()[-6000:] for h in self.hosts for p in h.processes if 'Sanitizer' in p.text()]
        self.hosts = []
        shutil.rmtree(self.folder, ignore_errors=True)
        if reports:
            raise Failed('a sanitizer complained:\n' + '\n'.join(reports))

    def host(self, name):
        h = Host(self, name)
        self.hosts.append(h)
        return h

    def wire(self, a, dev_a, b, dev_b, mtu=1500):
        """A cable: a veth pair with one end in each host."""
        self.count += 1
        one, two = (f'lab{os.getpid() % 100000}{x}{self.count}' for x in 'ab')
        subprocess.run(['ip', 'link', 'add', one, 'mtu', str(mtu), 'type', 'veth', 'peer', 'name', two, 'mtu', str(mtu)],
                       check=True)
        for end, host, dev in ((one, a, dev_a), (two, b, dev_b)):
            subprocess.run(['ip', 'link', 'set', end, 'netns', str(host.holder.pid)], check=True)
            host.run('ip', 'link', 'set', end, 'name', dev)
            host.run('ip', 'link', 'set', dev, 'up')

    def pair(self, mtu=1500):
        """Two hosts on one cable: left 192.0.2.1 and 2001:db8::1, right .2 and ::2, both on eth0."""
        left, right = self.host('left'), self.host('right')
        self.wire(left, 'eth0', right, 'eth0', mtu)
        left.address('eth0', '192.0.2.1/24', '2001:db8::1/64')
        right.address('eth0', '192.0.2.2/24', '2001:db8::2/64')
        return left, right


    def crossing(self):
        """
        Two hosts with two links each to a router between them, the first link preferred: left 192.0.2.1 and
        198.51.100.1, right 203.0.113.1 and 203.0.114.1, the router .254 everywhere; 10.1.0.1 and 10.2.0.1 inside.
        """
        left, middle, right = self.host('left'), self.host('middle'), self.host('right')
        middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=1')
        for number, (host, addresses) in enumerate(((left, LEFT), (right, RIGHT)), 1):
            # As a network manager sees to it: no packets to a link without a carrier.
            host.run('sysctl', '-qw', 'net.ipv4.conf.all.ignore_routes_with_linkdown=1')
            for link, address in enumerate(addresses):
                net = address.rsplit('.', 1)[0]
                self.wire(host, f'eth{link}', middle, f'm{number}{link}')
                middle.address(f'm{number}{link}', f'{net}.254/24')
                host.address(f'eth{link}', f'{address}/24')
                host.run('ip', 'route', 'add', 'default', 'via', f'{net}.254', 'metric', str(100 + link))
            host.address('lo', f'10.{number}.0.1/32')
        return left, middle, right


class Adit:
    """A real daemon in a host."""

    def __init__(self, host, ini, name='adit', binary=None):
        self.host, self.name, self.binary = host, name, binary or ADIT
        self.ini = ini if os.path.exists(ini) else host.write(f'{name}.ini', ini)
        self.process = None

    def start(self, wait=True):
        self.process = self.host.spawn(self.binary, 'run', self.ini, log=f'{self.name}.log')
        if wait:
            self.process.wait_text('ready')
        return self

    def command(self, *argv, check=True, timeout=90):
        return self.host.run(self.binary, *argv, check=check, timeout=timeout)

    def status(self):
        return json.loads(self.command('status', '--json').stdout)

    def log(self):
        return self.process.text()

    def up(self, peer):
        return self.command('up', peer)

    def stop(self, sig=signal.SIGTERM):
        return self.process.stop(sig)


# Everything a peer of today has by default, and the userspace data plane instead of the kernel's.
STRONGSWAN_PLUGINS = ('random nonce openssl aes sha1 sha2 hmac xcbc cmac kdf gcm ccm ctr chapoly curve25519 gmp pem pkcs1 '
                      'pkcs8 x509 pubkey revocation constraints kernel-libipsec kernel-netlink socket-default vici')


class StrongSwan:
    """charon with kernel-libipsec in a host, driven by swanctl.

    files: what lies beside its swanctl.conf, such as {'x509/right.crt': PEM}; keys in private/, raw keys of peers in pubkey/.
    """

    def __init__(self, host, swanctl_conf, settings='', files=None):
        self.host = host
        self.conf = swanctl_conf if os.path.exists(swanctl_conf) else host.write('swanctl.conf', swanctl_conf)
        for name, text in (files or {}).items():
            os.makedirs(os.path.join(host.folder, os.path.dirname(name)), exist_ok=True)
            host.write(name, text)
        self.settings = host.write('strongswan.conf', f'''
            charon-systemd {{
                load = {STRONGSWAN_PLUGINS}
                retransmit_tries = 3
                {settings}
                journal {{
                    default = -1
                }}
                filelog {{
                    out {{
                        path = {host.folder}/charon.log
                        time_format = %T
                        time_add_ms = yes
                        default = 1
                        ike = 2
                        cfg = 2
                        flush_line = yes
                    }}
                }}
                plugins {{
                    vici {{
                        socket = unix://{host.folder}/vici
                    }}
                }}
            }}
            ''')
        self.process = None

    def start(self):
        env = {'STRONGSWAN_CONF': self.settings}
        self.process = self.host.spawn('/usr/sbin/charon-systemd', log='charon.out', env=env)
        wait_for('charon', lambda: os.path.exists(f'{self.host.folder}/vici') or self.check_alive())
        self.swanctl('--load-all', '--file', self.conf)
        return self

    def check_alive(self):
        if not self.process.running():
            raise Failed(f'charon ended:\n{self.process.text()}\n{self.log()}')

    def swanctl(self, *argv, check=True, timeout=60):
        return self.host.run('swanctl', *argv, '--uri', f'unix://{self.host.folder}/vici', check=check, timeout=timeout)

    def initiate(self, child, check=True):
        return self.swanctl('--initiate', '--child', child, '--timeout', '20', check=check)

    def log(self):
        try:
            with open(f'{self.host.folder}/charon.log', errors='replace') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def stop(self):
        return self.process.stop()
