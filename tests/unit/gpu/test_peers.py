"""The steps of ``make gpu-peers`` and the tables made from what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu.peer_report import agreement, read_folder, to_markdown
from benchmarks.gpu.peer_steps import make_steps


def run(rate: float, losses: list[float], step_s: float = 0.5) -> dict[str, Any]:
    profile = {"launches": 200.0, "kernels": 9000.0, "busy_s": 0.4, "longest": []}
    figures = {"examples_per_s": rate, "mfu": 0.4, "step_s": step_s, "losses": losses, "profile": profile}
    return {"matrix_product_tflops": 700.0, "run": {**figures, "peak_memory": {"cuda_driver_gib": 11.5}}}


def peer(rate: float) -> dict[str, Any]:
    return {"version": "1.0", "examples_per_s": rate, "driver_gib": 6.5}


def test_the_peers_run_on_a_gpu_and_only_where_their_packages_are(tmp_path: Path) -> None:
    def names(device: str, peers: Path | None) -> list[str]:
        return [step.name for step in make_steps("tiny-mistral", device, tmp_path, "weights", peers)]

    own = ["lean", "padded", "levers", "golden", "report"]
    assert names("cpu", tmp_path) == names("cuda", None) == own
    everything = names("cuda", tmp_path / "peers")
    assert (everything[0], everything[-2]) == ("unsloth-first", "unsloth-last")
    assert set(everything) == {*own, "trl", "unsloth-first", "unsloth-last"}


def test_a_peers_packages_come_before_the_projects(tmp_path: Path) -> None:
    steps = {step.name: step for step in make_steps("tiny-mistral", "cuda", tmp_path, "weights", Path("/peers"))}
    assert steps["trl"].environment["PYTHONPATH"].startswith("/peers:")
    assert not steps["lean"].environment


def test_rates_are_given_as_multiples_of_unsloths_faster_run() -> None:
    found = {"lean": run(90.0, [2.0]), "unsloth-first": peer(40.0), "unsloth-last": peer(45.0)}
    lines = to_markdown(found).splitlines()
    assert "| 90.0         | 2.00        | 11.50 GiB        | 0.40  |" in lines[2]
    assert "| 40.0         | 0.89        |" in next(line for line in lines if "first" in line)
    assert any("| 200        | 9,000     | 0.500 s | 0.400 s    | 80%     |" in line for line in lines)


def test_losses_are_compared_where_both_took_the_same_steps() -> None:
    sentence = agreement({"lean": run(1, [3.0, 2.0]), "padded": run(1, [3.01, 1.99])})
    assert "2 steps: their losses differ by 0.0100 on average and by 0.0100 at most" in sentence
    assert agreement({"lean": run(1, [3.0])}) == ""
    assert agreement({"lean": run(1, [3.0]), "padded": run(1, [3.0, 2.0])}) == ""


def test_a_lever_that_failed_says_so_and_a_step_that_did_not_run_is_left_out(tmp_path: Path) -> None:
    origin: dict[str, Any] = {"provenance": {"git_commit": "c"}, "gpu": None}
    levers = {**origin, "matrix_product_tflops": 1.0, "levers": [{"variant": "packed", "error": "out of memory"}]}
    (tmp_path / "levers.json").write_text(json.dumps(levers))
    found = read_folder(tmp_path)
    assert found.items() >= origin.items()
    text = to_markdown(found)
    assert "| packed  | failed" in text
    assert "unsloth" not in text
