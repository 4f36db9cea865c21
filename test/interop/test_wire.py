"""Independent eyes on the wire: tshark with the exported keys."""

import os
import re
import subprocess

import pytest
from capture import Capture
from netlab import Adit

PSK = 'correct horse battery staple'


def ini(number, peer, keylog):
    other = 3 - number
    return (f'[host]\nkeylog = {keylog}\n[peer other]\nendpoint = 192.0.2.{other}\npsk = "{PSK}"\nlocal = 10.{number}.0.0/24\n'
            f'remote = 10.{other}.0.0/24\n{peer}\n')


def captured(lab, peer):
    """A tunnel with some traffic: the capture file and the folder with the keys of the left host."""
    left, right = lab.pair()
    left.address('lo', '10.1.0.1/32')
    right.address('lo', '10.2.0.1/32')
    keys = os.path.join(left.folder, 'keys')
    os.mkdir(keys, 0o700)
    capture = Capture(left)
    other = os.path.join(right.folder, 'keys')
    os.mkdir(other, 0o700)
    Adit(right, ini(2, peer + '\nstart = no', other)).start()
    a = Adit(left, ini(1, peer + '\nstart = no', keys)).start()
    a.up('other')
    left.ping('10.2.0.1', 3, 100, source='10.1.0.1')
    a.command('rekey', 'other/other')
    a.command('rekey', 'other')
    left.ping('10.2.0.1', 3, 1000, source='10.1.0.1')
    return capture.end(), keys


TSHARK = [(ike, esp) for ike in ('aes256gcm16-prfsha384-x25519', 'aes128-sha256-ecp256', 'aes256-sha512-modp2048')
          for esp in ('aes128gcm16', 'aes256gcm16', 'aes128-sha256', 'aes256-sha512')]
TSHARK += [('aes192gcm8-prfaesxcbc-x25519', 'aes192gcm12'), ('aes256ccm8-prfaescmac-x25519', 'aes128ctr-sha1'),
           ('aes128ctr-sha1-x25519', 'aes256gcm8')]


@pytest.mark.parametrize('ike,esp', TSHARK)
def test_tshark_decrypts_and_verifies(lab, ike, esp):
    """Sees the identities inside IKE_AUTH and the pings inside ESP, with the integrity of each packet checked."""
    capture, keys = captured(lab, f'ike = {ike}\nesp = {esp}-noesn')
    home = os.path.join(lab.folder, 'home')
    profile = os.path.join(home, '.config', 'wireshark')
    os.makedirs(profile)
    for table in ('ikev2_decryption_table', 'esp_sa'):
        with open(os.path.join(keys, table)) as f, open(os.path.join(profile, table), 'w') as out:
            out.write(f.read())
    options = ['-o', 'esp.enable_encryption_decode:TRUE', '-o', 'esp.enable_authentication_check:TRUE']
    done = subprocess.run(['tshark', '-r', capture, '-V', *options], env={**os.environ, 'HOME': home, 'XDG_CONFIG_HOME':
                          os.path.join(home, '.config')}, capture_output=True, text=True, check=True)
    text = done.stdout
    assert text.count('Payload: Identification - Initiator (35)') >= 1, text[:4000]
    assert text.count('Payload: Traffic Selector - Initiator (44)') >= 2, 'IKE_AUTH and the rekey opened'
    assert text.count('Echo (ping) request') >= 6, text[-4000:]
    assert 'Malformed' not in text
    for field, least in (('ESP ICV', 12), ('Integrity Checksum Data', 4)):
        found = re.findall(rf'{field}: .*', text)
        assert len(found) >= least and all('[correct]' in line for line in found), f'{field}: {found}'
