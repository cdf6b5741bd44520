"""``make curve``: style shares and training time of the embedded target by number of training examples.

Trains one adapter for each number of examples, answers all held-out questions greedily with a cap of 256 tokens, which
does not matter, and writes ``curve.json``, ``curve.md`` and ``curve.svg``. An interrupted run is resumed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harness.files import write_text_atomically
from harness.provenance import collect
from harness.statistics import median, median_interval, share, share_interval
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import UNCONSTRAINED, Style, get_target, resolve_preset
from pipeline.data.formats import read_questions
from pipeline.data.style import length_fits
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.plotting import TERSE_COLOUR, VERBOSE_COLOUR, to_svg
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

EXAMPLE_COUNTS = (160, 320, 640, 1600)
GOALS = {Style.TERSE: 0.95, Style.VERBOSE: 0.90}
"""Target shares for the shipped data."""
ACCEPTED_SHARE = 0.90
"""The bound of ``style.token_separation`` for each style; an interval above it makes a false rejection unlikely."""
QUESTIONS_AT_ONCE = 24


def measure(work: Path, counts: Sequence[int]) -> dict[str, Any]:
    """Measure each number of examples, and the base without an adapter; finished points are read from ``work``."""
    points = [_kept(work / "0.json", lambda: {"examples": 0, "answers": _ask(_without_adapter())})]
    for count in counts:
        points.append(_kept(work / f"{count}.json", partial(_point, work, count)))
    summarised = [{**point, **summarise(point["answers"])} for point in points]
    return {
        "command": "make curve",
        "provenance": collect(Path(__file__).resolve().parents[1]),
        "target": DEFAULT_TARGET,
        "preset": resolve_preset("lean", get_target(DEFAULT_TARGET)).describe(),
        "goals": {style.value: goal for style, goal in GOALS.items()},
        "points": summarised,
        "chosen_examples": choose(summarised),
    }


def choose(points: Sequence[dict[str, Any]]) -> int | None:
    """The fewest examples whose shares reach the goals with intervals above the acceptance's bound; None if none do."""
    enough = [
        point["examples"]
        for point in points
        if all(
            point[style.value]["in_bound_share"] >= goal
            and point[style.value]["in_bound_interval"][0] >= ACCEPTED_SHARE
            for style, goal in GOALS.items()
        )
    ]
    return min(enough, default=None)


def summarise(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Shares and medians with 95 % intervals; in bound means ended by EOS, terse below 50 tokens, verbose above 80."""
    summary = {}
    for style, rows in answers.items():
        lengths = [row["tokens"] for row in rows]
        fits = [length_fits(Style(style), tokens) for tokens in lengths]
        ended = [row["finish_reason"] == "eos" for row in rows]
        in_bound = [fit and end for fit, end in zip(fits, ended, strict=True)]
        summary[style] = {
            "in_bound_share": share(in_bound),
            "in_bound_interval": share_interval(in_bound),
            "ended_by_itself_share": share(ended),
            "length_fits_share": share(fits),
            "median_tokens": median(lengths),
            "median_interval_tokens": median_interval(lengths),
        }
    return summary


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(make()) + "\n")
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def _point(work: Path, count: int) -> dict[str, Any]:
    run = RunFolder(work / f"run-{count}")
    command = [sys.executable, "-m", "pipeline.cli", "train", "--target", DEFAULT_TARGET, "--max-examples", str(count)]
    subprocess.run([*command, "--output", str(run.path)], check=True)
    from pipeline.model.loading import load_trained

    record = run.read_record()
    trained = load_trained(run)
    return {
        "examples": count,
        "steps": record["completed_steps"],
        "training_s": record["duration_s"],
        "examples_per_s": record["examples_per_s"],
        "peak_rss_gib": record["peak_memory"]["rss_gib"],
        "data_sha256": record["data"]["sha256"],
        "adapter_sha256": record["adapter"]["sha256"],
        "compute_dtype": record["preset"]["quantization"]["compute_dtype"],
        "answers": _ask((trained.model, trained.tokenizer)),
    }


def _without_adapter() -> tuple[Any, Any]:
    """The 4-bit base with initial style rows and a new adapter, which has no effect (its B is 0)."""
    from pipeline.model.adapter import attach_adapter
    from pipeline.model.base_models import open_base_model
    from pipeline.model.dequantize import for_inference
    from pipeline.model.loading import hardware_preset, load_base
    from pipeline.model.style_embeddings import add_style_rows

    target = get_target(DEFAULT_TARGET)
    files = open_base_model(target)
    preset = hardware_preset(resolve_preset("lean", target), target.device)
    base = load_base(files.folder, preset.quantization, target.device)
    add_style_rows(base, files.tokenizer)
    return for_inference(attach_adapter(base, files.tokenizer, preset).eval()), files.tokenizer


def _ask(model_and_tokenizer: tuple[Any, Any]) -> dict[str, list[dict[str, Any]]]:
    from pipeline.generation.generate import generate_batch

    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)]
    answers: dict[str, list[dict[str, Any]]] = {}
    for style in Style:
        rows = []
        for start in tqdm(range(0, len(questions), QUESTIONS_AT_ONCE), desc=f"asking, {style}"):
            batch = [(text, style) for text in questions[start : start + QUESTIONS_AT_ONCE]]
            rows += generate_batch(*model_and_tokenizer, batch, UNCONSTRAINED)
        answers[style.value] = [{"tokens": row.token_count, "finish_reason": row.finish_reason} for row in rows]
    return answers


def to_markdown(document: dict[str, Any]) -> str:
    """The curve as a table, one row per number of examples."""
    head = [
        "examples",
        "training",
        "TERSE in bound",
        "VERBOSE in bound",
        "TERSE median",
        "VERBOSE median",
        "ended by itself (TERSE, VERBOSE)",
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *_rows(document["points"])))


def _rows(points: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for point in points:
        terse, verbose = point["terse"], point["verbose"]
        yield [
            str(point["examples"]) if point["examples"] else "no adapter",
            f"{point['training_s'] / 60:.1f} min" if point["examples"] else "",
            *(
                f"{s['in_bound_share']:.1%} ({s['in_bound_interval'][0]:.1%} to {s['in_bound_interval'][1]:.1%})"
                for s in (terse, verbose)
            ),
            *(
                f"{s['median_tokens']:g} ({s['median_interval_tokens'][0]:g} to {s['median_interval_tokens'][1]:g})"
                for s in (terse, verbose)
            ),
            f"{terse['ended_by_itself_share']:.1%}, {verbose['ended_by_itself_share']:.1%}",
        ]


def draw(document: dict[str, Any]) -> str:
    """Plot shares with intervals and training time over the number of examples, as SVG."""
    points = [point for point in document["points"] if point["examples"]]
    title = "Style shares and training time against the number of examples"
    return to_svg(partial(_draw_points, points), title=title, salt="curve", size=(7.0, 3.6))


def _draw_points(points: Sequence[dict[str, Any]], figure: Any) -> None:
    counts = [point["examples"] for point in points]
    axes = figure.subplots()
    for style, colour, marker in (("terse", TERSE_COLOUR, "o"), ("verbose", VERBOSE_COLOUR, "s")):
        shares = [point[style]["in_bound_share"] for point in points]
        bounds = [point[style]["in_bound_interval"] for point in points]
        below = [value - low for value, (low, _) in zip(shares, bounds, strict=True)]
        above = [high - value for value, (_, high) in zip(shares, bounds, strict=True)]
        axes.errorbar(counts, shares, (below, above), color=colour, marker=marker, capsize=3, label=style)
        axes.axhline(GOALS[Style(style)], color=colour, linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="training examples", ylabel="share of held-out questions in bound", ylim=(0, 1.02))
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    time_axes = axes.twinx()
    minutes = [point["training_s"] / 60 for point in points]
    time_axes.plot(counts, minutes, color="#444444", linestyle="--", marker=".", label="training time")
    time_axes.set(ylabel="training time in minutes", ylim=(0, None))
    handles = [*axes.get_legend_handles_labels()[0], *time_axes.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="lower right")


def main() -> None:
    """Measure and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of curve.json, curve.md and curve.svg")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of the runs; an interrupted curve in it is resumed"
    )
    options = parser.parse_args()
    started = time.perf_counter()
    document = measure(options.work, EXAMPLE_COUNTS)
    options.output.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.output / "curve.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(options.output / "curve.md", to_markdown(document))
    write_text_atomically(options.output / "curve.svg", draw(document))
    print(
        to_markdown(document), f"chosen: {document['chosen_examples']}; {time.perf_counter() - started:.0f} s", sep="\n"
    )


if __name__ == "__main__":
    main()
