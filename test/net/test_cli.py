"""The commands that need no tunnel: their output, exit codes, help, and a daemon that is alone."""

import base64
import json
import os
import re
import signal
import subprocess

import pytest
from netlab import ADIT, ROOT, Adit, copy_example, wait_for

COMMANDS = ['run', 'check', 'status', 'up', 'down', 'rekey', 'reload', 'capture', 'genkey', 'pubkey', 'genpsk', 'pki', 'bench', 'version']
GOOD = '[peer office]\nendpoint = 192.0.2.2\npsk = "secret of the test"\nlocal = 10.1.0.0/24\nremote = 10.2.0.0/24\n'


def adit(*argv, **more):
    return subprocess.run([ADIT, *argv], capture_output=True, text=True, timeout=60, check=False, **more)


def good(*argv, **more):
    done = adit(*argv, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_lists_every_command():
    text = good('--help')
    assert good('help') == text
    for command in COMMANDS:
        assert re.search(rf'^  {command} ', text, re.M), command


@pytest.mark.parametrize('command', COMMANDS)
def test_each_command_has_help(command):
    assert good(command, '--help').startswith(f'usage: adit {command}')
    assert good('--help', command) == good(command, '-h') == good('help', command)


@pytest.mark.parametrize('argv', [[], ['stauts'], ['run'], ['run', 'a', 'b'], ['check'], ['up'], ['genkey', 'x'], ['version', '--json'],
                                  ['--nonsense'], ['status', '-s'], ['bench', '--time', '0'], ['bench', '--time', 'x'],
                                  ['status', '--json', '--watch'], ['pki'],
                                  ['capture', 'a', '--plain', '--wire'], ['capture', 'a', '-c', '0'], ['capture', 'a', '-c', '1x'], ['']])
def test_wrong_usage_exits_2_and_says_so(argv):
    done = adit(*argv)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_unknown_command_names_the_nearest():
    assert 'did you mean "status"' in adit('stauts').stderr
    assert 'did you mean "genkey"' in adit('gen-key').stderr


def test_keys():
    private, public = good('genkey').strip(), ''
    assert len(base64.b64decode(private, validate=True)) == 32
    public = good('pubkey', input=private + '\n').strip()
    assert len(base64.b64decode(public, validate=True)) == 32 and public != private
    assert good('pubkey', input=private).strip() == public, 'without a newline as well'
    assert good('genkey').strip() != private
    psk = good('genpsk').strip()
    assert len(base64.b64decode(psk, validate=True)) == 32 and psk != good('genpsk').strip()


def test_public_key_is_that_of_ed25519():
    """RFC 8032 section 7.1, test 1."""
    seed = bytes.fromhex('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')
    public = bytes.fromhex('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
    assert base64.b64decode(good('pubkey', input=base64.b64encode(seed).decode())) == public


def openssl(*argv, **more):
    return subprocess.run(['openssl', *argv], capture_output=True, text=True, timeout=60, check=True, **more).stdout


@pytest.mark.parametrize('kind', [['rsa', '-pkeyopt', 'rsa_keygen_bits:2048'], ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
                                  ['ec', '-pkeyopt', 'ec_paramgen_curve:P-521'], ['ed25519']])
def test_public_key_of_a_pem_file(kind):
    private = openssl('genpkey', '-algorithm', *kind)
    public = openssl('pkey', '-pubout', input=private)
    assert good('pubkey', '--pem', input=private) == public
    if kind == ['ed25519']:
        der = subprocess.run(['openssl', 'pkey', '-pubin', '-outform', 'DER'], input=public.encode(), capture_output=True, check=True).stdout
        assert base64.b64decode(good('pubkey', input=private)) == der[-32:]
    else:
        assert good('pubkey', input=private) == public


def test_public_key_of_genkey_as_pem():
    private = good('genkey')
    pem = good('pubkey', '--pem', input=private)
    assert 'ED25519 Public-Key' in openssl('pkey', '-pubin', '-noout', '-text', input=pem)


def test_encrypted_private_key_is_said_so():
    done = adit('pubkey', input=openssl('genpkey', '-algorithm', 'ed25519', '-aes256', '-pass', 'pass:x'))
    assert done.returncode == 1 and 'encrypted' in done.stderr and not done.stdout


@pytest.mark.parametrize('text', ['', 'x', 'A' * 43, 'A' * 44, 'A' * 300, '!' * 44])
def test_wrong_private_key_exits_1(text):
    done = adit('pubkey', input=text)
    assert done.returncode == 1 and 'private key' in done.stderr and not done.stdout


def test_secret_into_a_readable_file_warns(tmp_path):
    with open(tmp_path / 'key', 'w') as f:
        os.chmod(tmp_path / 'key', 0o644)
        assert 'umask' in subprocess.run([ADIT, 'genpsk'], stdout=f, stderr=subprocess.PIPE, text=True, check=True).stderr


def test_version_names_libraries_engines_and_io_uring():
    text = good('version')
    for word in ('adit 0.', 'libsodium', 'mbedTLS', 'jansson', 'crypto engines:', 'io_uring:'):
        assert word in text
    assert good('--version') == text


def test_bench_marks_one_engine_for_each_suite():
    text = good('bench', '--time', '1')
    suites = {}
    for line in text.splitlines():
        row = re.match(r'(\S+) +(\S+) +(\d+) +(\d+)( +used)?', line)
        if row:
            suites.setdefault(row.group(1), []).append(bool(row.group(5)))
    assert len(suites) >= 6
    assert all(used.count(True) == 1 for used in suites.values()), text


def test_a_full_disk_is_an_error():
    with open('/dev/full', 'w') as full:
        assert subprocess.run([ADIT, 'version'], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode == 1


# -- pki --

@pytest.mark.parametrize('kind, algorithm', [('ecdsa256', 'P-256'), ('ecdsa384', 'P-384'), ('rsa3072', '3072 bit')])
def test_pki_makes_what_openssl_accepts(tmp_path, kind, algorithm):
    good('pki', 'ca', 'Test, CA', '--key', kind, '--out', str(tmp_path))
    good('pki', 'cert', 'gate.example', '--ca', str(tmp_path / 'ca'), '--key', kind, '--out', str(tmp_path), '--san', '192.0.2.1',
         '--san', '2001:db8::1', '--san', 'me@gate.example')
    for purpose in ('sslserver', 'sslclient'):
        openssl('verify', '-x509_strict', '-purpose', purpose, '-CAfile', tmp_path / 'ca.crt', tmp_path / 'gate.example.crt')
    text = openssl('x509', '-in', tmp_path / 'gate.example.crt', '-noout', '-text')
    assert 'DNS:gate.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1, email:me@gate.example' in text
    assert algorithm in text and 'Digital Signature' in text and 'CN = gate.example' in text
    assert 'CA:TRUE' in openssl('x509', '-in', tmp_path / 'ca.crt', '-noout', '-text')
    pair = [openssl('x509', '-in', tmp_path / 'gate.example.crt', '-noout', '-pubkey'), openssl('pkey', '-in', tmp_path / 'gate.example.key', '-pubout')]
    assert pair[0] == pair[1]
    for key in ('ca.key', 'gate.example.key'):
        assert (tmp_path / key).stat().st_mode & 0o777 == 0o600


def test_pki_issues_under_a_foreign_ca(tmp_path):
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', tmp_path / 'ca.key', '-out', tmp_path / 'ca.crt', '-days', '30', '-subj',
            '/C=CH/O=Example/OU=One/OU=Two/CN=Foreign', '-addext', 'keyUsage=critical,keyCertSign,cRLSign')
    os.chmod(tmp_path / 'ca.key', 0o600)
    text = good('pki', 'cert', '192.0.2.7', '--ca', str(tmp_path / 'ca'), '--out', str(tmp_path))
    assert 'as is the CA' in text, 'it does not outlive the CA'
    openssl('verify', '-x509_strict', '-CAfile', tmp_path / 'ca.crt', tmp_path / '192.0.2.7.crt')
    assert 'IP Address:192.0.2.7' in openssl('x509', '-in', tmp_path / '192.0.2.7.crt', '-noout', '-text')


def test_pki_overwrites_nothing(tmp_path):
    good('pki', 'ca', 'Test', '--out', str(tmp_path))
    good('pki', 'cert', 'a.example', '--ca', str(tmp_path / 'ca'), '--out', str(tmp_path), '--days', '7')
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    for argv in (['ca', 'Test'], ['cert', 'a.example', '--ca', str(tmp_path / 'ca')]):
        done = adit('pki', *argv, '--out', str(tmp_path))
        assert done.returncode == 1 and 'File exists' in done.stderr
    (tmp_path / 'a.example.key').rename(tmp_path / 'kept')
    assert adit('pki', 'cert', 'a.example', '--ca', str(tmp_path / 'ca'), '--out', str(tmp_path)).returncode == 1
    assert not (tmp_path / 'a.example.key').exists(), 'no key without its certificate'
    (tmp_path / 'kept').rename(tmp_path / 'a.example.key')
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_pki_refuses_in_words(tmp_path):
    ca = str(tmp_path / 'ca')
    good('pki', 'ca', 'Test', '--out', str(tmp_path))
    for argv, code, words in ([['ca', 'Test', '--ca', ca], 2, 'neither'], [['cert', 'x.example'], 2, 'needs --ca'], [['crl', 'x'], 2, 'ca NAME'],
                              [['cert', 'a/b', '--ca', ca], 2, 'slash'], [['cert', 'two words', '--ca', ca], 2, 'no name'],
                              [['cert', 'x', '--ca', ca, '--san', 'C=CH'], 2, 'no name'], [['ca', 'x', '--days', '0'], 2, '--days'],
                              [['ca', 'x', '--key', 'dsa'], 2, 'rsa3072'], [['ca', 'x' * 65], 2, '64'], [['ca', 'caf\xe9'], 2, 'ASCII'],
                              [['cert', 'x', '--ca', str(tmp_path / 'no')], 1, 'no.crt']):
        done = adit('pki', *argv, '--out', str(tmp_path / 'out'))
        assert done.returncode == code and words in done.stderr, (argv, done.stderr)
    good('pki', 'ca', 'Other', '--out', str(tmp_path / 'other'))
    os.replace(tmp_path / 'other' / 'ca.key', tmp_path / 'ca.key')
    assert 'not that of its certificate' in adit('pki', 'cert', 'x', '--ca', ca, '--out', str(tmp_path)).stderr
    os.chmod(tmp_path / 'ca.key', 0o644)
    assert 'chmod 600' in adit('pki', 'cert', 'x', '--ca', ca, '--out', str(tmp_path)).stderr


# -- check --

def test_check_prints_the_table(tmp_path):
    (tmp_path / 'good.ini').write_text(GOOD)
    text = good('check', str(tmp_path / 'good.ini'))
    assert 'office' in text and '10.1.0.0/24' in text and '10.2.0.0/24' in text and 'protect' in text
    assert 'secret of the test' not in text


def test_check_reports_all_errors_with_file_and_line(tmp_path):
    file = tmp_path / 'bad.ini'
    file.write_text('[peer office]\nendpoitn = 192.0.2.2\npsk = "x"\nlocal = 10.1.0.0/33\nremote = 10.2.0.0/24\n')
    done = adit('check', str(file))
    assert done.returncode == 1
    assert f'{file}:2: ' in done.stderr and 'endpoint' in done.stderr and f'{file}:4: ' in done.stderr
    assert not done.stdout


def test_check_of_a_missing_file_exits_1(tmp_path):
    done = adit('check', str(tmp_path / 'none.ini'))
    assert done.returncode == 1 and 'none.ini' in done.stderr


def ini_files():
    folder = os.path.join(ROOT, 'examples')
    return sorted(os.path.relpath(os.path.join(where, f), folder) for where, _, files in os.walk(folder) for f in files
                  if f.endswith('.ini'))


@pytest.mark.parametrize('file', ini_files())
def test_examples_are_right(file, tmp_path):
    done = adit('check', os.path.join(copy_example(os.path.dirname(file), tmp_path), os.path.basename(file)))
    assert done.returncode == 0, done.stderr


def examples_of_the_manual():
    with open(os.path.join(ROOT, 'core', 'adit.ini.5')) as f:
        return re.findall(r'^\.Bd -literal.*\n(\[(?:.*\n)+?)\.Ed', f.read(), re.M)


def test_the_manual_has_examples():
    assert len(examples_of_the_manual()) >= 4


@pytest.mark.parametrize('text', examples_of_the_manual())
def test_examples_of_the_manual_are_right(lab, text, tmp_path):
    for name in ('office.psk', 'west.psk', 'host.key'):
        (tmp_path / name).write_text(good('genkey'))
        (tmp_path / name).chmod(0o600)
    good('pki', 'ca', 'Example', '--out', str(tmp_path))
    good('pki', 'cert', 'gate', '--san', 'east.example.org', '--ca', str(tmp_path / 'ca'), '--out', str(tmp_path))
    (tmp_path / 'manual.ini').write_text(text)
    (tmp_path / 'manual.ini').chmod(0o600)
    # On a host without any link names have no address at once; the resolver of this machine may let one wait too long.
    done = lab.host('alone').run(ADIT, 'check', str(tmp_path / 'manual.ini'), check=False)
    assert done.returncode == 0 and not re.sub(r'.*has no address.*\n', '', done.stderr)


# -- a daemon and its control socket --

def test_no_daemon_is_said_so(lab):
    done = lab.host('alone').run(ADIT, 'status', check=False)
    assert done.returncode == 1 and 'no daemon' in done.stderr


def test_status_of_a_lonely_daemon(lab):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    status = daemon.status()
    assert status['ok'] and status['host']['tun'] == 'adit0' and status['host']['routes'] == ['10.2.0.0/24']
    assert status['peers'][0]['name'] == 'office' and status['peers'][0]['state'] == 'down'
    assert status['policies'][0] == {'name': 'office', 'action': 'protect', 'peer': 'office', 'mode': 'tunnel',
                                     'local': ['10.1.0.0/24'], 'remote': ['10.2.0.0/24'],
                                     'in_packets': 0, 'in_bytes': 0, 'out_packets': 0, 'out_bytes': 0, 'drops': {}}
    text = daemon.command('status').stdout
    assert 'peer office' in text and 'MTU' in text
    assert daemon.command('-s', '/run/adit/adit0.sock', 'status').stdout.startswith('adit ')
    assert daemon.command('status', '-s', '/run/adit/none.sock', check=False).returncode == 1
    for command in ('up', 'down', 'rekey'):
        done = daemon.command(command, 'nobody', check=False)
        assert done.returncode == 1 and 'nobody' in done.stderr
    assert daemon.stop() == 0
    assert not host.run('ls', '/run/adit').stdout


def fields(value, names):
    """The names of all fields of an answer, but for the counters, which are documented by themselves."""
    for key, inner in value.items() if isinstance(value, dict) else []:
        names.add(key)
        if key not in ('counters', 'drops'):
            fields(inner, names)
    for item in value if isinstance(value, list) else []:
        fields(item, names)
    return names


def test_every_field_of_the_status_is_documented(lab):
    left, right = lab.pair()
    swapped = GOOD.replace('10.2', '10.9').replace('10.1', '10.2').replace('10.9', '10.1').replace('192.0.2.2', '192.0.2.1')
    Adit(right, swapped + 'start = no\n').start()
    a = Adit(left, GOOD).start()
    a.up('office')
    with open(os.path.join(ROOT, 'core', 'adit.8')) as f:
        page = f.read().partition('.Sh JSON STATUS')[2].partition('.Sh')[0]
    found = fields(a.status(), set()) - {'ok'}
    assert {'spi_in', 'path_mtu', 'turn_max_us'} < found
    assert not [name for name in sorted(found) if not re.search(rf'^\.(It (.* )?|Ql ){name}\b', page, re.M)]


def test_several_daemons_are_listed(lab):
    host, _ = lab.pair()
    first = Adit(host, GOOD + 'start = no\n', 'one').start()
    second = '[host]\ntun = adit1\nport = 1500\nnat-port = 14500\n' + GOOD.replace('10.2', '10.3') + 'start = no\n'
    Adit(host, second, 'two').start()
    done = first.command('status', check=False)
    assert done.returncode == 2 and 'adit0.sock' in done.stderr and 'adit1.sock' in done.stderr
    assert json.loads(first.command('status', '--json', '-s', '/run/adit/adit1.sock').stdout)['host']['tun'] == 'adit1'


def test_second_daemon_on_the_same_socket_is_refused(lab):
    host, _ = lab.pair()
    first = Adit(host, GOOD + 'start = no\n').start()
    done = host.run(ADIT, 'run', first.ini, check=False)
    assert done.returncode == 1 and 'another adit' in done.stderr
    assert first.status()['ok'], 'the first one goes on'


def test_who_is_not_root_is_told_so(lab):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ADIT]
    assert 'for root' in host.run(*nobody, 'status', check=False).stderr
    daemon.stop()
    mine = host.write('mine.ini', GOOD)
    os.chmod(host.lab.folder, 0o755)
    os.chmod(host.folder, 0o755)
    os.chown(mine, 65534, 65534)
    done = host.run(*nobody, 'run', mine, check=False)
    assert done.returncode == 1 and 'needs root' in done.stderr


def test_a_silent_peer_is_told_of(lab):
    """Neither the log nor the status wait a minute for it."""
    host, _ = lab.pair()
    daemon = Adit(host, '[host]\nlog = debug\n' + GOOD + GOOD.replace('office', 'moon').replace('192.0.2.2', '198.51.100.9').replace('10.2', '10.3')).start()
    wait_for('both', lambda: daemon.log().count('has not answered yet') == 2, 15)
    for name, why in (('office', 'is UDP port 500 open on the way?'), ('moon', 'this host has no route to 198.51.100.9')):
        assert re.search(rf'{name} at \S+ has not answered yet: .*{re.escape(why)}', daemon.log())
        assert why in daemon.command('status').stdout
    assert daemon.log().count('debug ike: sent to 192.0.2.2:500: IKE_SA_INIT request 0, ') == 4


def test_failing_start_undoes_everything(lab):
    host, _ = lab.pair()
    taken = host.spawn('/usr/bin/python3', '-c', 'import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
                       's.bind(("", 4500)); print("bound", flush=True); time.sleep(60)')
    taken.wait_text('bound')
    before = host.run('ip', '-4', 'route', 'show', 'table', 'all').stdout
    done = host.run(ADIT, 'run', host.write('adit.ini', GOOD), check=False)
    assert done.returncode == 1 and '4500' in done.stderr
    assert host.run('ip', '-4', 'route', 'show', 'table', 'all').stdout == before
    wait_for('the TUN to be gone', lambda: not host.run('ip', '-o', 'link', 'show', 'type', 'tun').stdout)
    assert not host.run('ls', '/run/adit').stdout


def test_reload_that_needs_a_restart_changes_nothing(lab):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    host.write('adit.ini', '[host]\nport = 1500\ntun = other0\n' + GOOD.replace('10.2', '10.3'))
    done = daemon.command('reload', check=False)
    assert done.returncode == 1 and 'port' in done.stderr and 'tun' in done.stderr and 'restart' in done.stderr
    assert daemon.status()['host']['routes'] == ['10.2.0.0/24']
    host.write('adit.ini', GOOD.replace('10.2', '10.3') + 'start = no\n')
    daemon.command('reload')
    assert daemon.status()['host']['routes'] == ['10.3.0.0/24']
    assert '10.2.0.0' not in host.run('ip', 'route', 'show', 'table', 'all').stdout
    assert daemon.stop(signal.SIGINT) == 0


def test_stale_socket_is_taken_over(lab):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    daemon.stop(signal.SIGKILL)
    assert daemon.command('status', check=False).returncode == 1
    daemon.start()
    wait_for('an answer', lambda: daemon.command('status', check=False).returncode == 0)


ASK = '''
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
s.connect('/run/adit/adit0.sock')
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
got = b''
while True:
    try:
        more = s.recv(65536)
    except ConnectionResetError:
        more = b''
    if not more:
        break
    got += more
sys.stdout.buffer.write(got)
'''


def ask(host, text):
    """What the control socket answers to these bytes."""
    return host.run('/usr/bin/python3', '-c', ASK, input=text).stdout


@pytest.mark.parametrize('text', ['\n', '[]\n', '{"command": 1}\n', '{"command": "nonsense"}\n', '{\n', '{"a": 1, "a": 2}\n',
                                  '[' * 4000 + '\n', 'x' * 5000 + '\n', '{"command": "up"}\n', '{"command": "up", "peer": {}}\n'])
def test_control_socket_answers_nonsense_with_an_error(lab, text):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    answers = ask(host, text).splitlines()
    assert answers and not any(json.loads(a)['ok'] for a in answers)
    assert daemon.status()['ok']


def test_control_socket_bounds_its_clients(lab):
    host, _ = lab.pair()
    daemon = Adit(host, GOOD + 'start = no\n').start()
    crowd = host.spawn('/usr/bin/python3', '-c', 'import socket, time\nv = []\nfor i in range(40):\n s = socket.socket(socket.AF_UNIX)\n'
                       ' s.connect("/run/adit/adit0.sock")\n v.append(s)\nprint("there", flush=True)\ntime.sleep(60)')
    crowd.wait_text('there')
    wait_for('the idle ones to be closed', lambda: daemon.command('status', check=False).returncode == 0, 60)


def test_requests_in_one_go_are_answered_in_order(lab):
    host, _ = lab.pair()
    Adit(host, GOOD + 'start = no\n').start()
    answers = [json.loads(a) for a in ask(host, '{"command": "status"}\n{"command": "x"}\n{"command": "down", "peer": "office"}\n').splitlines()]
    assert [a['ok'] for a in answers][:2] == [True, False] and len(answers) == 3
    assert 'version' in answers[0]
