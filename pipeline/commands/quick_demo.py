"""``verbosity demo --quick``: the gate judges recorded answers of a healthy and of a broken model; nothing is trained.

Each is served by the project's own server and judged from outside, as any endpoint is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.commands import DEFAULT_TARGET
from pipeline.config import get_target
from pipeline.files import RECORDED_ANSWERS
from pipeline.model.base_models import base_model_folder

EXPECTED = {"healthy": "ACCEPTED", "untuned": "REJECTED"}
"""The verdict on each recording."""


def run_quick_demo(output: Path) -> int:
    """Judge each recording; returns 0 if every verdict is the expected one."""
    started = time.perf_counter()
    base_model_folder(get_target(DEFAULT_TARGET))  # its tokenizer counts the answers' tokens
    decisions = {}
    for number, name in enumerate(EXPECTED, start=1):
        file, folder = RECORDED_ANSWERS / f"{name}.json", output.resolve() / "quick" / name
        recording = json.loads(file.read_text(encoding="utf-8"))
        place = f"[{number}/{len(EXPECTED)}]"
        print(f"{place} judge recorded answers of {recording['what']}", flush=True)
        (folder / "acceptance.json").unlink(missing_ok=True)  # no earlier verdict may stand for this one
        decisions[name] = _judge(recording, folder)
        print(
            f"[{number}/{len(EXPECTED)}] {decisions[name]}; report: {os.path.relpath(folder)}/report.html", flush=True
        )
    print(f"{' and '.join(decisions.values())} in {time.perf_counter() - started:.0f} s")
    print("  next: make demo trains the model whose answers these were, and judges it by every criterion")
    return 0 if decisions == EXPECTED else 1


def _judge(recording: dict[str, Any], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with _served(recording) as url:
        # In a process of its own: the pipeline does not know the gate.
        command = [sys.executable, "-m", "pipeline.cli", "accept", "--endpoint", url]
        command += ["--target", recording["target"], "--output", str(folder)]
        judged = subprocess.run(command, check=False, capture_output=True, text=True)
    (folder / "pytest.log").write_text(judged.stdout + judged.stderr, encoding="utf-8")
    written = folder / "acceptance.json"
    if not written.is_file():
        return f"no verdict, see {os.path.relpath(folder)}/pytest.log"
    (subject,) = json.loads(written.read_text(encoding="utf-8"))["subjects"]
    for criterion in subject["criteria"]:
        reason = f": {criterion['reason']}" if criterion["reason"] else ""
        print(f"  {criterion['outcome']} {criterion['id']}{reason}", flush=True)
    return str(subject["decision"])


@contextmanager
def _served(recording: dict[str, Any]) -> Iterator[str]:
    """The address of a server that gives the recorded answers."""
    from pipeline.service.app import create_app
    from pipeline.service.lifecycle import Service, Settings
    from pipeline.service.loading import load_recorded
    from pipeline.service.server import SPARE_THREADS, Listener

    service = Service(Settings())
    service.ready(*load_recorded(recording))
    listener = Listener(create_app(service), "127.0.0.1", 0, SPARE_THREADS, lambda: None)
    try:
        yield listener.url
    finally:
        listener.close()
