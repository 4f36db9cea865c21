import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'net'))
# pylint: disable=wrong-import-position,unused-import
from fixtures import lab, pytest_runtest_makereport, udp_rate  # noqa: F401
