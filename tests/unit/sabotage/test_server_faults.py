"""Each fault of a server still does what it says: code moves, and a fault without effect would prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sabotage.other_servers import Replicas

ROOT = Path(__file__).resolve().parents[3]


Symptom = Callable[[dict[str, Any]], bool]
SYMPTOMS: dict[str, Symptom] = {
    "mixed-up": lambda found: found["verbose"]["response"] == "terse",
    "served-terse": lambda found: found["verbose"]["tokens"] == 32,
    "latency-in-ms": lambda found: found["terse"]["latency"] > 1e-2,
    "health-lies": lambda found: found["health"]["adapter"] == "0" * 64,
    "health-incomplete": lambda found: "gpu_memory" not in found["health"],
    "errors-are-200": lambda found: found["unknown_style"] == 200,
    "stale-answers": lambda found: found["verbose"]["tokens"] == 32,
    "prompt-counted": lambda found: found["terse"]["tokens"] == 35,
    "counted-before-stripping": lambda found: found["terse"]["tokens"] == 33,
    "capped-by-default": lambda found: found["verbose"]["tokens"] == 16,
    "answers-empty": lambda found: found["verbose"]["response"] == "",
    "older-replica": lambda found: found["verbose"]["text"] == "verbose",
    "long-prompts-cut": lambda found: found["long_prompt"] == 200,
    "unknown-style-accepted": lambda found: found["unknown_style"] == 200,
    "refuses-bluntly": lambda found: found["busy"][0] == 503 and found["busy"][2] is None,
    "still-loading": lambda found: found["health"]["status"] == "loading",
    "memory-as-text": lambda found: found["health"]["gpu_memory"] == "0.0 GiB",
    "prompt-repeated": lambda found: found["terse"]["response"].startswith("What is caching? "),
    "overflow": lambda found: set(found["terse"]["response"]) == {"!"},
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What clients saw, by fault."""
    folder = tmp_path_factory.mktemp("seen")
    command = [sys.executable, "-m", "tests.unit.sabotage.broken_server", str(folder), *SYMPTOMS]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYMPTOMS)
def test_a_client_sees_the_fault_and_not_without_it(name: str, seen: dict[str, dict[str, Any]]) -> None:
    assert SYMPTOMS[name](seen[name])
    try:
        assert not SYMPTOMS[name](seen["healthy"])
    except KeyError:  # a healthy answer has no such field
        return


def test_half_of_the_requests_reach_the_old_replica_and_only_they_show_it() -> None:
    def engine(name: str) -> Any:
        return SimpleNamespace(name=name, weights=f"{name} weights", stats=lambda: name, submit=lambda request: name)

    replicas = Replicas(engine("new"), engine("old"))
    assert [replicas.submit(None) for _ in range(4)] == ["new", "old", "new", "old"]
    assert (replicas.name, replicas.weights, replicas.stats()) == ("new", "new weights", "new")
