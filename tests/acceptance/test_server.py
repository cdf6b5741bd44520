"""Our own server starts, in its own process."""

from __future__ import annotations

import pytest

from harness.recorder import Recorder
from tests.support import ServerProcess


@pytest.mark.criterion("deployment.server_starts")
def test_server_starts(measured: Recorder, server_launch: ServerProcess) -> None:
    measured.record(ready=server_launch.url is not None, startup_s=server_launch.startup_s)
