"""Our own server starts, in a process of its own."""

from __future__ import annotations

import pytest

from harness.recorder import Measured
from tests.support import ServerProcess


@pytest.mark.criterion("deployment.server_starts")
def test_server_starts(measured: Measured, server_launch: ServerProcess) -> None:
    measured.record(ready=server_launch.url is not None, startup_s=server_launch.startup_s)
