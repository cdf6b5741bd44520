"""``python -m benchmarks.training_report BENCH.json DIR``: the table and the figure of ``make bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.training_variants import PRESET_NAMES
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.statistics import median
from pipeline.plotting import TERSE_COLOUR, to_svg

DECODER_LINEAR_PARAMETERS = 106_168_320
"""Of SmolLM2-135M: 30 layers of 2 x 576 x 576, 2 x 576 x 192 and 3 x 576 x 1536."""
FLOP_PER_TOKEN = 4 * DECODER_LINEAR_PARAMETERS
"""Forward, and backward to the activations. Frozen weights have no gradient, and recomputation by checkpointing is not
counted (as in model FLOP utilisation, Chowdhery et al. 2022). Embeddings, head, attention and LoRA are not counted."""


def summarise(benchmarks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each variant and number of examples: medians of the runs, and ratios to golden."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for entry in benchmarks:
        info = entry["extra_info"]
        groups.setdefault((info["variant"], info["examples"]), []).append(info)
    rows = []
    for (variant, examples), runs in groups.items():
        names = ("examples_per_s", "tokens_per_s", "peak_rss_gib", "adapter_mib", "matmul_gflop_per_s")
        row: dict[str, Any] = {"variant": variant, "examples": examples, "runs": len(runs)}
        row |= {name: median([run[name] for run in runs]) for name in names}
        losses = [run["held_out_nats_per_token"] for run in runs if run["held_out_nats_per_token"] is not None]
        row["held_out_nats_per_token"] = median(losses) if losses else None
        row["gflop_per_s"] = row["tokens_per_s"] * FLOP_PER_TOKEN / 1e9
        rows.append(row)
    golden = {row["examples"]: row for row in rows if row["variant"] == "golden"}
    for row in rows:
        base = golden[row["examples"]]
        row["speed_ratio"] = row["examples_per_s"] / base["examples_per_s"]
        row["memory_ratio"] = row["peak_rss_gib"] / base["peak_rss_gib"]
        row["adapter_ratio"] = row["adapter_mib"] / base["adapter_mib"]
    return rows


def to_markdown(document: Mapping[str, Any]) -> str:
    """The rows as a table."""
    headers = (
        "variant",
        "examples",
        "examples/s",
        "x golden",
        "peak RSS",
        "x golden",
        "adapter",
        "held-out loss",
        "GFLOP/s",
    )
    cells = [
        (
            row["variant"],
            f"{row['examples']}" + (f" (median of {row['runs']})" if row["runs"] > 1 else ""),
            f"{row['examples_per_s']:.2f}",
            f"{row['speed_ratio']:.2f}",
            f"{row['peak_rss_gib']:.2f} GiB",
            f"{row['memory_ratio']:.2f}",
            f"{row['adapter_mib']:.1f} MiB",
            "" if (loss := row["held_out_nats_per_token"]) is None else f"{loss:.3f}",
            f"{row['gflop_per_s']:.0f} of {row['matmul_gflop_per_s']:.0f}",
        )
        for row in document["rows"]
    ]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def draw(document: Mapping[str, Any]) -> str:
    """Plot speed and peak memory relative to golden, one bar per variant, as SVG."""
    rows = [row for row in document["rows"] if row["runs"] > 1 or row["variant"] not in PRESET_NAMES]
    return to_svg(partial(_draw, rows), title="Training speed and memory", salt="bench", size=(8.5, 3.6))


def _draw(rows: Sequence[Mapping[str, Any]], figure: Any) -> None:
    labels = [f"{row['variant']} ({row['examples']})" for row in rows]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, label in zip(panels, ("speed_ratio", "memory_ratio"), ("examples/s", "peak RSS"), strict=True):
        bars = axes.barh(labels, [row[name] for row in rows], color=TERSE_COLOUR)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.axvline(1, color="black", linewidth=0.8)
        axes.margins(x=0.2)
        axes.set_xlabel(f"{label}, golden = 1")
    panels[0].invert_yaxis()


def main() -> None:
    """Write bench.json, bench.md and bench.svg."""
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    benchmarks = json.loads(source.read_text(encoding="utf-8"))["benchmarks"]
    document = {
        "command": "make bench",
        "provenance": collect(Path(__file__).resolve().parents[1]),
        "runs": [entry["extra_info"] for entry in benchmarks],
        "rows": summarise(benchmarks),
    }
    write_text_atomically(folder / "bench.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(folder / "bench.md", to_markdown(document))
    write_text_atomically(folder / "bench.svg", draw(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
