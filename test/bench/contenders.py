"""What the benchmark compares: each builds two hosts on one cable, and a tunnel of its kind between them, pinned to
AES-128-GCM where there is a choice (wireguard-go has none: ChaCha20-Poly1305)."""

import hashlib
import os
import re
import subprocess

from netlab import Adit, Failed, Host, Process, StrongSwan, wait_for

PSK = 'a secret for the benchmark only'


class Contender:
    name = ''

    def __init__(self, lab):
        self.lab = lab
        self.processes: list[Process] = []
        self.left: Host
        self.right: Host
        self.left, self.right = lab.pair()
        self.target = '10.2.0.1'  # of the right host, through the tunnel
        self.source = '10.1.0.1'  # of the left host
        self.build()
        wait_for(f'{self.name} to pass a ping', lambda: self.left.ping(self.target, 1, check=False, timeout=1, source=self.source),
                 20)

    def build(self):
        raise NotImplementedError

    def lans(self):
        self.left.address('lo', '10.1.0.1/32')
        self.right.address('lo', '10.2.0.1/32')


class Veth(Contender):
    name = 'plain veth'

    def build(self):
        self.target, self.source = '192.0.2.2', '192.0.2.1'


class AditTunnel(Contender):
    io = 'auto'
    binary: str | None = None

    def ini(self, me, you, local, remote):
        return (f'[host]\nio = {self.io}\n[peer other]\nendpoint = {you}\npsk = "{PSK}"\nlocal = {local}\nremote = {remote}\n'
                'esp = aes128gcm16\n')

    def build(self):
        self.lans()
        a = Adit(self.left, self.ini('192.0.2.1', '192.0.2.2', '10.1.0.0/24', '10.2.0.0/24'), binary=self.binary).start()
        b = Adit(self.right, self.ini('192.0.2.2', '192.0.2.1', '10.2.0.0/24', '10.1.0.0/24'), binary=self.binary).start()
        a.up('other')
        self.processes = [a.process, b.process]


class AditUring(AditTunnel):
    name, io = 'adit, io_uring', 'uring'


class AditBefore(AditTunnel):
    name, io = 'before, io_uring', 'uring'


class AditEpoll(AditTunnel):
    name, io = 'adit, epoll', 'epoll'


class Libipsec(Contender):
    name = 'strongSwan kernel-libipsec'

    def conf(self, me, you, local, remote):
        return f'''
            connections {{ peer {{
                version = 2
                local_addrs = {me}
                remote_addrs = {you}
                local {{ auth = psk
                    id = {me} }}
                remote {{ auth = psk
                    id = {you} }}
                children {{ net {{ local_ts = {local}
                    remote_ts = {remote}
                    esp_proposals = aes128gcm16 }} }} }} }}
            secrets {{ ike-1 {{ secret = "{PSK}" }} }}
            '''

    def build(self):
        self.lans()
        a = StrongSwan(self.left, self.conf('192.0.2.1', '192.0.2.2', '10.1.0.0/24', '10.2.0.0/24')).start()
        b = StrongSwan(self.right, self.conf('192.0.2.2', '192.0.2.1', '10.2.0.0/24', '10.1.0.0/24')).start()
        a.initiate('net')
        self.processes = [a.process, b.process]


class WireguardGo(Contender):
    name = 'wireguard-go'

    def build(self):
        keys = {}
        for h in (self.left, self.right):
            private = subprocess.run(['wg', 'genkey'], capture_output=True, text=True, check=True).stdout
            keys[h] = (private, subprocess.run(['wg', 'pubkey'], input=private, capture_output=True, text=True, check=True).stdout)
        for me, other, inner, there, at in ((self.left, self.right, '10.1.0.1', '10.2.0.1', '192.0.2.2'),
                                            (self.right, self.left, '10.2.0.1', '10.1.0.1', '192.0.2.1')):
            # The daemon's sockets are in /var/run, which is /run of the host.
            p = me.spawn('wireguard-go', '-f', 'wg0', env={'WG_PROCESS_FOREGROUND': '1'})
            self.processes.append(p)
            wait_for('wireguard-go', lambda h=me: h.run('wg', 'show', 'wg0', check=False).returncode == 0)
            private = me.write('wg.key', keys[me][0])
            me.run('wg', 'set', 'wg0', 'private-key', private, 'listen-port', '51820', 'peer', keys[other][1].strip(),
                   'allowed-ips', f'{there}/32', 'endpoint', f'{at}:51820')
            me.run('ip', 'addr', 'add', f'{inner}/32', 'dev', 'wg0')
            me.run('ip', 'link', 'set', 'wg0', 'mtu', '1420', 'up')
            me.run('ip', 'route', 'add', f'{there}/32', 'dev', 'wg0', 'src', inner)


class OpenVPN(Contender):
    name = 'OpenVPN'

    def build(self):
        prints = {}
        for h in (self.left, self.right):
            cert, key = os.path.join(h.folder, 'cert.pem'), os.path.join(h.folder, 'key.pem')
            subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days',
                            '30', '-subj', f'/CN={h.name}', '-keyout', key, '-out', cert], check=True, capture_output=True)
            der = subprocess.run(['openssl', 'x509', '-in', cert, '-outform', 'DER'], capture_output=True, check=True).stdout
            prints[h] = ':'.join(re.findall('..', hashlib.sha256(der).hexdigest().upper()))
        for me, other, role, mine, his, at in ((self.right, self.left, 'server', '10.2.0.1', '10.1.0.1', '192.0.2.1'),
                                               (self.left, self.right, 'client', '10.1.0.1', '10.2.0.1', '192.0.2.2')):
            tls = ['--tls-server', '--dh', 'none'] if role == 'server' else ['--tls-client']
            p = me.spawn('openvpn', '--dev', 'tun0', '--dev-type', 'tun', '--proto', 'udp', '--remote', at, '--port', '1194',
                         '--ifconfig', mine, his, *tls, '--cert', f'{me.folder}/cert.pem', '--key', f'{me.folder}/key.pem',
                         '--peer-fingerprint', prints[other], '--data-ciphers', 'AES-128-GCM', '--disable-dco',
                         '--sndbuf', '4194304', '--rcvbuf', '4194304', '--verb', '3')
            self.processes.append(p)
        for p in self.processes:
            p.wait_text('Initialization Sequence Completed', 30)


ALL = [Veth, AditUring, AditEpoll, Libipsec, WireguardGo, OpenVPN]
__all__ = ['ALL', 'Contender', 'Failed']
