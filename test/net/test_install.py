"""make install, and the daemon as systemd starts it."""

import configparser
import os
import signal
import subprocess

from netlab import ROOT, Adit, wait_for

INI = '[peer other]\nendpoint = 192.0.2.{1}\npsk = "secret of the test"\nlocal = 10.{0}.0.0/24\nremote = 10.{1}.0.0/24\n'


def make(target, folder):
    subprocess.run(['make', '--no-print-directory', target, f'DESTDIR={folder}', 'PREFIX=/opt/adit'], cwd=ROOT, check=True, timeout=600)


def files(folder):
    return {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}


def test_what_is_installed_runs_as_a_service(lab, tmp_path):
    """With no more rights than the unit gives it."""
    make('install', tmp_path)
    assert files(tmp_path / 'opt/adit') == {'sbin/adit', 'share/man/man8/adit.8', 'share/man/man5/adit.ini.5',
                                            'lib/systemd/system/adit@.service'}
    unit = configparser.RawConfigParser()
    unit.optionxform = str
    unit.read(tmp_path / 'opt/adit/lib/systemd/system/adit@.service')
    service = unit['Service']
    assert service['ExecStart'] == '/opt/adit/sbin/adit run /etc/adit/%i.ini' and service['NoNewPrivileges'] == 'yes'
    rights = ','.join('+' + name.removeprefix('CAP_').lower() for name in service['CapabilityBoundingSet'].split())
    left, right = lab.pair()
    for n, host in (1, left), (2, right):
        host.address('lo', f'10.{n}.0.1/32')
    a, b = Adit(left, INI.format(1, 2)), Adit(right, INI.format(2, 1)).start()
    left.run('sysctl', '-qw', 'net.ipv4.conf.all.rp_filter=1')
    a.process = left.spawn('setpriv', '--bounding-set', f'-all,{rights}', '--no-new-privs', f'{tmp_path}/opt/adit/sbin/adit', 'run',
                           a.ini, log='adit.log')
    a.process.wait_text('child-up')
    left.ping('10.2.0.1', source='10.1.0.1')
    assert a.status()['host']['firewall'] == 'nftables' and a.status()['host']['raw_esp']
    assert left.run('sysctl', '-n', 'net.ipv4.conf.all.rp_filter').stdout == '2\n'
    assert service['ExecReload'] == '/bin/kill -HUP $MAINPID'
    a.process.popen.send_signal(signal.SIGHUP)
    wait_for('the reload', lambda: 'adit.ini loaded' in a.log(), 10)
    assert 'warn' not in a.log() and 'error' not in a.log()
    assert (a.stop(), b.stop()) == (0, 0)
    make('uninstall', tmp_path)
    assert not files(tmp_path)
