"""pytest fixtures that the network and the interoperability tests share."""

import os
import subprocess

import pytest

import netlab
from netlab import Lab


@pytest.fixture
def lab():
    if os.geteuid() != 0:
        pytest.skip('network namespaces need root')
    with Lab() as one:
        yield one


@pytest.fixture(scope='session')
def udp_rate():
    """The datagram counter of the benchmark, built."""
    out = os.path.join(netlab.ROOT, 'build', 'udp_rate')
    source = os.path.join(netlab.ROOT, 'test', 'bench', 'udp_rate.c')
    subprocess.run(['cc', '-std=c11', '-D_GNU_SOURCE', '-O2', '-o', out, source], check=True)
    return out
