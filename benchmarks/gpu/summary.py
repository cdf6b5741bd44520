"""The table of a GPU run, from the files that its steps left: ``python -m benchmarks.gpu.summary FOLDER``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.gpu.memory import CASES
from harness.files import write_text_atomically
from harness.verdict import EXIT_CODES, Decision
from pipeline.config import PRESETS

Row = tuple[str, ...]
MEASURES = (
    ("trained on", "training.completes", "example_count", "{:,} examples"),
    ("4-bit linear layers", "training.loads_in_4bit", "nf4_double_quant_linear_share", "{:.0%}"),
    ("bits per parameter", "training.loads_in_4bit", "linear_bits_per_parameter", "{:.3f}"),
    ("peak memory allocated", "training.gpu_memory", "cuda_allocated_gib", "{:.2f} GiB"),
    ("peak memory reserved", "training.gpu_memory", "cuda_reserved_gib", "{:.2f} GiB"),
    ("training", "training.duration", "examples_per_s", "{:.2f} examples/s"),
    ("1600 examples at that rate", "training.duration", "duration_of_1600_examples_s", "{:.0f} s"),
    ("adapter file", "training.adapter_saves", "adapter_size_mib", "{:.0f} MiB"),
    ("TERSE answer, median", "style.generation_speed", "terse_latency_p50_s", "{:.2f} s"),
    ("VERBOSE answer, median", "style.generation_speed", "verbose_latency_p50_s", "{:.2f} s"),
    ("one answer at a time", "style.generation_speed", "tokens_per_s", "{:.1f} tokens/s"),
    ("server ready", "deployment.server_starts", "startup_s", "{:.1f} s"),
    ("four requests at once, slowest", "deployment.generate_endpoint", "at_once_latency_max_s", "{:.2f} s"),
)
"""Row, criterion, measurement and how it is written."""
COMPARED = {"GiB", "MiB", "examples/s", "tokens/s"}
"""Units of which a ratio means something; how long random weights answer is chance."""
REJECTED = EXIT_CODES[Decision.REJECTED]


def read_folder(folder: Path) -> dict[str, Any]:
    """Everything that the steps of one target left, by step; what is not there is left out."""
    found: dict[str, Any] = {}
    for preset in PRESETS:
        if (judged := folder / preset / "acceptance.json").exists():
            found[f"accept-{preset}"] = json.loads(judged.read_text(encoding="utf-8"))
    names = ["weights", "generation", *(f"memory-{preset}-{case}" for preset in PRESETS for case in CASES)]
    for name in names:
        if (file := folder / f"{name}.json").exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def measured_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row for each resource figure, a column for each preset, and the ratio of lean to golden."""
    columns = {preset: _measurements(found.get(f"accept-{preset}")) for preset in PRESETS}
    rows: list[Row] = []
    for label, criterion, name, form in MEASURES:
        values = [columns[preset].get(criterion, {}).get(name) for preset in PRESETS]
        if any(value is not None for value in values):
            cells = ["" if value is None else form.format(value) for value in values]
            rows.append((label, *cells, _ratio(values) if form.rpartition(" ")[2] in COMPARED else ""))
    return rows


def verdict_rows(found: Mapping[str, Any]) -> list[Row]:
    """The outcome of each criterion, a column for each preset."""
    columns = {
        preset: {c["id"]: c["outcome"] for s in found[f"accept-{preset}"]["subjects"] for c in s["criteria"]}
        for preset in PRESETS
        if f"accept-{preset}" in found
    }
    ids = list(dict.fromkeys(name for column in columns.values() for name in column))
    return [(name, *(str(columns.get(preset, {}).get(name, "")) for preset in PRESETS)) for name in ids]


def memory_rows(found: Mapping[str, Any]) -> list[Row]:
    """Planned and measured peak of each case, and how far the plan is off."""
    rows: list[Row] = []
    for preset in PRESETS:
        for case in CASES:
            peak = found.get(f"memory-{preset}-{case}")
            if peak is None or "allocated_gib" not in peak["measured"]:
                continue
            batch, real = peak["micro_batch"], peak["measured"]["peak_memory"]["cuda_driver_gib"]
            rows.append(
                (
                    f"{preset}, {batch['examples']} x {batch['longest_tokens']} tokens",
                    f"{peak['measured']['allocated_gib']:.2f} GiB",
                    f"{real:.2f} GiB",
                    f"{peak['planned']['peak_gib']:.2f} GiB",
                    f"{peak['planned']['peak_gib'] / real - 1:+.1%}",
                )
            )
    return rows


def component_rows(found: Mapping[str, Any]) -> list[Row]:
    """What each peak was made of, measured and planned, in GiB."""
    peaks = [found[n] for n in found if n.startswith("memory-") and "components_gib" in found[n]["measured"]]
    names = list(dict.fromkeys(name for peak in peaks for name in peak["measured"]["components_gib"]))
    rows: list[Row] = []
    for name in names:
        cells = []
        for peak in peaks:
            planned = peak["planned"]["components_gib"].get(name)
            plan = "" if planned is None else f" ({planned:.2f})"
            cells.append(f"{peak['measured']['components_gib'].get(name, 0):.2f}{plan}")
        rows.append((name, *cells))
    return rows


def generation_rows(found: Mapping[str, Any]) -> list[Row]:
    """Tokens per second of each way."""
    generation = found.get("generation")
    if generation is None:
        return []
    limit = generation["limit_tokens_per_s"]
    rows: list[Row] = []
    for name, way in generation["ways"].items():
        if "error" in way:
            rows.append((name, "failed", "", ""))
        else:
            share = way["tokens_per_s"] / limit
            rows.append((name, f"{way['tokens_per_s']:.1f}", f"{way['ratio']:.2f}", f"{share:.1%}"))
    return [*rows, ("bandwidth limit", f"{limit:.0f}", "", "100%")]


def _measurements(document: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    subjects: Sequence[Mapping[str, Any]] = document["subjects"] if document else []
    return {c["id"]: c["measurements"] for subject in subjects for c in subject["criteria"]}


def _ratio(values: Sequence[float | None]) -> str:
    golden, lean = values
    return f"{lean / golden:.2f}" if golden and lean else ""


def to_markdown(found: Mapping[str, Any]) -> str:
    """All tables, each left out if none of its steps was run."""
    presets = list(PRESETS)
    peaks = [found[n] for n in found if n.startswith("memory-") and "components_gib" in found[n]["measured"]]
    columns = [f"{peak['preset']}, {peak['case']}" for peak in peaks]
    tables = (
        ("Resources", ["", *presets, "lean / golden"], measured_rows(found)),
        ("Verdicts", ["criterion", *presets], verdict_rows(found)),
        ("Peak of training", ["", "allocated", "driver", "planned", "plan is off by"], memory_rows(found)),
        ("What the peak is made of, GiB (planned)", ["", *columns], component_rows(found)),
        ("Generation", ["", "tokens/s", "x documented", "of the limit"], generation_rows(found)),
    )
    parts = [
        f"## {title}\n\n{tabulate(rows, headers=headers, tablefmt='github', disable_numparse=True)}\n"
        for title, headers, rows in tables
        if rows
    ]
    return "\n".join(parts)


def main() -> int:
    """Write ``gpu.md`` into the folder and print it; the exit status is the gate's if a run was rejected."""
    folder = Path(sys.argv[1])
    found = read_folder(folder)
    write_text_atomically(folder / "gpu.md", to_markdown(found))
    print(to_markdown(found))
    rejected = any(found[name]["decision"] == "REJECTED" for name in found if name.startswith("accept-"))
    return REJECTED if rejected else 0


if __name__ == "__main__":
    sys.exit(main())
