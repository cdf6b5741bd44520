"""The tables of ``make gpu-peers``, from what its steps left: ``python -m benchmarks.gpu.peer_report FOLDER``.

``training.json`` holds them all, ``training.md`` is made from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.files import write_text_atomically
from pipeline.files import write_json

RUNS = {"lean": "lean", "padded": "lean, padded micro-batches (4 x 4)", "golden": "golden"}
PEERS = {"trl": "trl", "unsloth-first": "unsloth, first", "unsloth-last": "unsloth, last"}
Row = tuple[str, ...]


def read_folder(folder: Path) -> dict[str, Any]:
    """What the steps left, by step; what is not there is left out."""
    found: dict[str, Any] = {"command": "make gpu-peers"}
    for name in (*RUNS, *PEERS, "levers"):
        if (file := folder / f"{name}.json").exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    if steps := [step for name, step in found.items() if name != "command"]:
        found |= {"provenance": steps[0]["provenance"], "gpu": steps[0]["gpu"]}
    return found


def speed_rows(found: Mapping[str, Any]) -> list[Row]:
    """Rate and memory of each trainer; the ratio is to unsloth's faster run."""
    fastest = max(
        (found[name]["examples_per_s"] for name in PEERS if name.startswith("unsloth") and name in found), default=None
    )
    rows: list[Row] = []
    for name, label in RUNS.items():
        if name in found:
            run = found[name]["run"]
            rate = run["examples_per_s"]
            memory = run["peak_memory"].get("cuda_driver_gib")
            rows.append((label, *_rate(rate, fastest), _gib(memory), f"{run['mfu']:.2f}"))
    for name, label in PEERS.items():
        if name in found:
            peer = found[name]
            rate = peer["examples_per_s"]
            rows.append((f"{label} ({peer['version']})", *_rate(rate, fastest), _gib(peer["driver_gib"]), ""))
    return rows


def _rate(rate: float, fastest: float | None) -> tuple[str, str]:
    return f"{rate:.1f}", "" if fastest is None else f"{rate / fastest:.2f}"


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} GiB"


def profile_rows(found: Mapping[str, Any]) -> list[Row]:
    """Launches and busy share of one step of each preset."""
    rows: list[Row] = []
    for name, label in RUNS.items():
        if name in found and (profile := found[name]["run"].get("profile")):
            step_s = found[name]["run"]["step_s"]
            cells = (f"{profile['launches']:,.0f}", f"{profile['kernels']:,.0f}", f"{step_s:.3f} s")
            rows.append((label, *cells, f"{profile['busy_s']:.3f} s", f"{profile['busy_s'] / step_s:.0%}"))
    return rows


def lever_rows(found: Mapping[str, Any]) -> list[Row]:
    """The way from padded micro-batches to recorded rows."""
    rows: list[Row] = []
    for lever in found.get("levers", {}).get("levers", []):
        if "error" in lever:
            rows.append((lever["variant"], "failed", "", "", ""))
            continue
        difference = lever.get("gradient_difference")
        rows.append(
            (
                lever["variant"],
                f"{lever['examples_per_s']:.1f}",
                _gib(lever.get("driver_gib")),
                f"{lever['loss']:.4f}",
                "" if difference is None else f"{difference:.3f}",
            )
        )
    return rows


def agreement(found: Mapping[str, Any]) -> str:
    """How far the losses of packed and of padded steps on the same examples are apart, as a sentence."""
    if not {"lean", "padded"} <= found.keys():
        return ""
    packed, padded = (found[name]["run"]["losses"] for name in ("lean", "padded"))
    if len(packed) != len(padded):  # of other numbers of examples: shuffled differently, at other learning rates
        return ""
    steps, apart = len(packed), [abs(a - b) for a, b in zip(packed, padded, strict=True)]
    return (
        f"Packed and padded lean on the same examples, {steps} steps: their losses differ by {sum(apart) / steps:.4f}"
        f" on average and by {max(apart):.4f} at most, while the loss goes from {padded[0]:.3f} to"
        f" {padded[steps - 1]:.3f}."
    )


def to_markdown(found: Mapping[str, Any]) -> str:
    """All tables, each left out if none of its steps was run."""
    tables = (
        (["trainer", "examples/s", "x unsloth", "memory, driver", "MFU"], speed_rows(found)),
        (["a step", "launches", "kernels", "step", "GPU busy", "share"], profile_rows(found)),
        (["lever", "examples/s", "memory, driver", "first loss", "gradient's distance"], lever_rows(found)),
    )
    parts = [
        tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"
        for headers, rows in tables
        if rows
    ]
    products = [found[name]["matrix_product_tflops"] for name in (*RUNS, "levers") if name in found]
    if products:
        parts.append(
            f"MFU is 4 operations per parameter and token, of a matrix product's rate in the same process"
            f" ({min(products):.0f} to {max(products):.0f} TFLOP/s).\n"
        )
    if sentence := agreement(found):
        parts.append(sentence + "\n")
    return "\n".join(parts)


def main() -> int:
    """Write ``training.json`` and ``training.md`` beside the folder and print the tables."""
    folder = Path(sys.argv[1])
    found = read_folder(folder)
    write_json(folder.parent / "training.json", found)
    write_text_atomically(folder.parent / "training.md", to_markdown(found))
    print(to_markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
