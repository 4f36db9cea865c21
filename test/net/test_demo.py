"""make demo: it goes through, and whoever ends it in the middle finds nothing of it afterwards."""

import os
import signal
import subprocess
import time

import pytest

from netlab import ADIT, ROOT


ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def heed_signals():
    """Also where this test itself was told to ignore them, as a shell does with what runs in the background."""
    for sig in ENDING:
        signal.signal(sig, signal.SIG_DFL)


def start(folder):
    return subprocess.Popen([os.path.join(ROOT, 'test', 'demo'), ADIT], env=os.environ | {'TMPDIR': str(folder)},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            preexec_fn=heed_signals)


def left(folder, demo):
    """Files, processes that have something of this folder in their arguments, and ends of cables."""
    processes = subprocess.run(['pgrep', '-f', str(folder)], capture_output=True, text=True).stdout.split()
    cables = tuple(f'lab{demo.pid % 100000}{end}' for end in 'ab')
    return os.listdir(folder) + processes + [link for link in os.listdir('/sys/class/net') if link.startswith(cables)]


def test_it_goes_through(tmp_path):
    demo = start(tmp_path)
    text = demo.communicate(timeout=120)[0]
    assert demo.returncode == 0, text
    assert 'plaintext marker found 0 times' in text
    assert left(tmp_path, demo) == []


@pytest.mark.parametrize('sig', ENDING)
@pytest.mark.parametrize('everybody', [False, True])
def test_who_ends_it_finds_nothing_left(tmp_path, sig, everybody):
    """A terminal tells all its processes, a supervisor just the first."""
    demo = start(tmp_path)
    while '200 MB' not in (line := demo.stdout.readline()):
        assert line
    time.sleep(0.2)
    assert left(tmp_path, demo)
    (os.killpg if everybody else os.kill)(demo.pid, sig)
    text = demo.communicate(timeout=60)[0]
    assert demo.returncode == 130 and 'everything was taken down' in text, text
    assert left(tmp_path, demo) == []
