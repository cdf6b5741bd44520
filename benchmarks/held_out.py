"""Loss on held-out answers, time and memory of training with each preset.

``run VARIANT SEED EXAMPLES DEVICE DIR`` trains the embedded target on the first examples of the shipped data into DIR
and writes ``held_out.json`` there, with the loss on the last 64 answers. ``report DIR...`` combines such files, also
from several machines. Speeds are compared only between two runs made one after the other on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.training_variants import HELD_OUT_EXAMPLES, HELD_OUT_FILE, PRESET_NAMES, VARIANTS, held_out_loss
from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import get_target
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]


def train_and_score(variant: str, seed: int, examples: int, device: str, folder: Path) -> dict[str, Any]:
    """Train one variant with one seed and score the held-out answers."""
    import torch

    from pipeline.training.train import TrainingRequest, train

    preset = VARIANTS[variant]
    training = dataclasses.replace(preset.training, max_examples=examples, seed=seed)
    preset = dataclasses.replace(preset, training=training)
    record = train(TrainingRequest(get_target(DEFAULT_TARGET), preset, TRAINING_DATA, folder, device))
    return {
        "variant": variant,
        "seed": seed,
        "examples": examples,
        "device": torch.cuda.get_device_name(0) if device == "cuda" else device,
        "held_out_examples": HELD_OUT_EXAMPLES,
        "held_out_nats_per_token": held_out_loss(RunFolder(folder)),
        "steps": record["completed_steps"],
        "training_s": record["duration_s"],
        "examples_per_s": record["examples_per_s"],
        "peak_memory": record["peak_memory"],
        "adapter_bytes": record["adapter"]["size_bytes"],
        "data_sha256": record["data"]["sha256"],
        "adapter_sha256": record["adapter"]["sha256"],
        "compute_dtype": record["preset"]["quantization"]["compute_dtype"],
        "provenance": collect(ROOT),
    }


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each preset that was run: loss of each seed, mean, spread (maximum - minimum), in nats per token."""
    rows = []
    for variant in PRESET_NAMES:
        of_seed = {run["seed"]: run["held_out_nats_per_token"] for run in runs if run["variant"] == variant}
        if not of_seed:
            continue
        losses = [of_seed[seed] for seed in sorted(of_seed)]
        rows.append(
            {
                "variant": variant,
                "seeds": sorted(of_seed),
                "held_out_nats_per_token": losses,
                "mean": sum(losses) / len(losses),
                "spread": max(losses) - min(losses),
            }
        )
    return rows


def compare_means(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether lean's mean exceeds golden's by more than the larger spread, as a sentence."""
    golden, lean = ({row["variant"]: row for row in rows}[name] for name in PRESET_NAMES)
    spread, difference = max(golden["spread"], lean["spread"]), lean["mean"] - golden["mean"]
    judged = "no worse than golden's beyond the spread" if difference <= spread else "worse than golden's"
    return (
        f"Lean's mean is {judged}: {abs(difference):.4f} nats per token {'above' if difference > 0 else 'below'} it, "
        f"where the seeds of one preset differ by up to {spread:.4f}."
    )


def in_turn(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table of speed, peak memory of the process and adapter size, for one run of each preset."""
    first, *_ = ordered = [run for variant in PRESET_NAMES for run in runs if run["variant"] == variant]
    cells = [
        (
            run["variant"],
            f"{run['training_s'] / 60:.1f} min",
            f"{run['examples_per_s']:.2f}",
            f"{run['examples_per_s'] / first['examples_per_s']:.2f}",
            f"{run['peak_memory']['rss_gib']:.2f} GiB",
            f"{run['peak_memory']['rss_gib'] / first['peak_memory']['rss_gib']:.2f}",
            f"{run['adapter_bytes'] / 2**20:.1f} MiB",
            f"{run['held_out_nats_per_token']:.3f}",
        )
        for run in ordered
    ]
    headers = ("preset", "training", "examples/s", "x golden", "peak RSS", "x golden", "adapter", "held-out loss")
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def to_markdown(document: Mapping[str, Any]) -> str:
    """The losses as a table, of both presets with their comparison; for one run of each the table of ``in_turn``."""
    if len(document["runs"]) == len(PRESET_NAMES):
        return in_turn(document["runs"])
    cells = [
        (
            row["variant"],
            ", ".join(map(str, row["seeds"])),
            ", ".join(f"{loss:.4f}" for loss in row["held_out_nats_per_token"]),
            f"{row['mean']:.4f}",
            f"{row['spread']:.4f}",
        )
        for row in document["rows"]
    ]
    headers = ("preset", "seeds", "held-out loss of each", "mean", "spread")
    table = tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)
    return "\n\n".join(filter(None, (table, document["verdict"]))) + "\n"


def report(folders: Sequence[Path], output: Path) -> dict[str, Any]:
    """Combine the results of several runs.

    Raises:
        ValueError: They were not trained on the same number of examples of the same data.
    """
    runs = [json.loads((folder / HELD_OUT_FILE).read_text(encoding="utf-8")) for folder in folders]
    if len({(run["examples"], run["data_sha256"]) for run in runs}) != 1:
        raise ValueError(
            "the runs were not trained on the same number of examples of the same data; name runs that were."
        )
    rows = summarise(runs)
    verdict = compare_means(rows) if len(rows) == len(PRESET_NAMES) else ""
    document = {"command": "python -m benchmarks.held_out", "runs": runs, "rows": rows, "verdict": verdict}
    write_text_atomically(output / "held_out.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(output / "held_out.md", to_markdown(document))
    return document


def main() -> int:
    """Train and score one run, or report on several."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train one variant with one seed and score it")
    one.add_argument("variant", choices=PRESET_NAMES)
    one.add_argument("seed", type=int)
    one.add_argument("examples", type=int)
    one.add_argument("device", choices=("cpu", "cuda"))
    one.add_argument("folder", type=Path)
    several = commands.add_parser("report", help="combine the results of several runs")
    several.add_argument("folders", type=Path, nargs="+")
    several.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "report":
        print(to_markdown(report(options.folders, options.output)))
        return 0
    result = train_and_score(options.variant, options.seed, options.examples, options.device, options.folder)
    write_json(options.folder / HELD_OUT_FILE, result)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    apply_environment()  # before torch is imported
    sys.exit(main())
