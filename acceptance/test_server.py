"""Our own server starts, in its own process."""

from __future__ import annotations

import pytest

from acceptance.processes import ServerProcess
from harness.machine import MachineUse
from harness.recorder import Recorder


@pytest.mark.criterion("deployment.server_starts")
def test_server_starts(measured: Recorder, server_launch: ServerProcess, machine_uses: dict[str, MachineUse]) -> None:
    measured.record(ready=server_launch.url is not None, startup_s=server_launch.startup_s)
    use = machine_uses["start"]
    ended_early = server_launch.url is None and use.wall_s < server_launch.start_limit_s
    measured.taken_during(use, *(() if ended_early else ("ready", "startup_s")))
