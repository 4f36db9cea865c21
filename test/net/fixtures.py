"""pytest fixtures that the network and the interoperability tests share."""

import os

import pytest

from netlab import Lab
from traffic import build_udp_rate


LOG_TAIL = 6000


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that failed shows what the programs on its hosts have said: a rare failure must tell its reason at once."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and 'lab' in item.funcargs:
        report.sections += [(f'end of {title}', text[-LOG_TAIL:]) for title, text in item.funcargs['lab'].told()]


@pytest.fixture
def lab():
    if os.geteuid() != 0:
        pytest.skip('network namespaces need root')
    with Lab() as one:
        yield one


@pytest.fixture(scope='session')
def udp_rate():
    """The datagram counter of the benchmark, built."""
    return build_udp_rate()
