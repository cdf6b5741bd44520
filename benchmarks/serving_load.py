"""``make serving-load``: throughput and latency of the engines under load, relative to serial generation.

Writes ``serving.json``, ``serving.md`` and ``serving.svg``. Every cell is measured in each round, in this process and
serial next to continuous, so that their ratio depends little on other load.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from benchmarks.load import Ask, measure_load, summarise_answers
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.statistics import median
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.plotting import TERSE_COLOUR, VERBOSE_COLOUR, to_svg
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

ENGINES = ("serial", "continuous")
BASE = "serial"
PATIENCE_S = 3600.0
"""Long enough that no answer times out before the end of the measurement: queueing shows as latency."""
Reading = Callable[[Mapping[str, Any]], float | None]
READINGS: dict[str, Reading] = {
    "answers_per_minute": lambda cell: cell["answers_per_minute"],
    "tokens_per_s": lambda cell: cell["tokens_per_s"],
    "terse_p95_s": lambda cell: cell["terse"]["latency_p95_s"],
    "verbose_p95_s": lambda cell: cell["verbose"]["latency_p95_s"],
    "first_token_p50_s": lambda cell: cell["verbose"]["first_token_p50_s"],
}


def measure(run: RunFolder, clients: Sequence[int], rounds: int, warmup_s: float, measured_s: float) -> dict[str, Any]:
    """Measure every engine with every number of clients, in each round."""
    from pipeline.model.loading import load_trained

    trained = load_trained(run)
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)]
    cells = []
    for number, at_once, name in tqdm([(r, c, e) for r in range(rounds) for c in clients for e in ENGINES]):
        ask, close = open_ask(name, trained, at_once)
        answers = measure_load(ask, questions, clients=at_once, warmup_s=warmup_s, measured_s=measured_s)
        close()
        cells.append({"round": number, "engine": name, "clients": at_once, **summarise_answers(answers, measured_s)})
        tqdm.write(json.dumps(cells[-1]))  # keeps finished cells if a later one fails
    return {
        "provenance": collect(Path(__file__).resolve().parents[1]),
        "target": trained.target.name,
        "limits": {style.value: GENERATION_PRESETS[style].max_new_tokens for style in Style},
        "cells": cells,
        "rows": summarise(cells),
    }


def open_ask(name: str, trained: Any, clients: int) -> tuple[Ask, Any]:
    """Start an engine; returns a function that asks it and one that closes it."""
    from pipeline.engines.interface import AnswerCancelledError, AnswerRequest
    from pipeline.engines.selection import open_local

    engine = open_local(name, trained.model, trained.tokenizer, max_in_flight=clients)  # type: ignore[arg-type]

    def ask(prompt: str, style: Style, patience_s: float) -> tuple[int, float | None] | None:
        ticket = engine.submit(AnswerRequest(prompt, style, PATIENCE_S))
        over = threading.Timer(patience_s, ticket.cancel)
        over.start()
        try:
            generation = ticket.result()
        except AnswerCancelledError:
            return None
        finally:
            over.cancel()
        return generation.token_count, generation.first_token_s

    return ask, engine.close


def summarise(
    cells: Sequence[Mapping[str, Any]],
    *,
    key: str = "engine",
    base: str = BASE,
    readings: Mapping[str, Reading] = READINGS,
) -> list[dict[str, Any]]:
    """One row for each engine and number of clients: medians over the rounds, and ratios within each round.

    Args:
        cells: The measured cells.
        key: The cell's field that identifies what is compared.
        base: The value of that field to which ratios are formed.
        readings: The figures of a cell, by name.

    Returns:
        The rows.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell[key], cell["clients"]), []).append(cell)
    rows = []
    for (name, clients), group in groups.items():
        bases = {cell["round"]: cell for cell in groups[base, clients]}
        row: dict[str, Any] = {key: name, "clients": clients, "rounds": len(group)}
        for reading, read in readings.items():
            row[reading] = _median([read(cell) for cell in group])
            row[f"{reading}_ratio"] = _median([_ratio(read(cell), read(bases[cell["round"]])) for cell in group])
        rows.append(row)
    return rows


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def to_markdown(document: Mapping[str, Any]) -> str:
    """The rows as a table, with ratios to serial with the same number of clients in brackets."""
    headers = ("engine", "clients", "answers/min", "tokens/s", "terse p95", "verbose p95", "first token p50")
    cells = [
        (
            row["engine"],
            row["clients"],
            *(
                with_ratio(row, name, unit, is_base=row["engine"] == BASE)
                for name, unit in zip(READINGS, ("", "", " s", " s", " s"), strict=True)
            ),
        )
        for row in document["rows"]
    ]
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def with_ratio(row: Mapping[str, Any], name: str, unit: str, *, is_base: bool) -> str:
    """Format a figure of a row, with its ratio in brackets except for the base."""
    value, ratio = row[name], row[f"{name}_ratio"]
    if value is None:
        return "none"
    shown = f"{value:.1f}{unit}"
    return shown if is_base or ratio is None else f"{shown} ({ratio:.2f} x)"


def draw(document: Mapping[str, Any]) -> str:
    """Plot answers per minute and terse p95 latency over the number of clients, as SVG."""
    return to_svg(partial(_draw, document["rows"]), title="Answers under load", salt="serving", size=(8.5, 3.6))


def _draw(rows: Sequence[Mapping[str, Any]], figure: Any) -> None:
    panels = figure.subplots(1, 2)
    names = (("answers_per_minute", "answers per minute"), ("terse_p95_s", "terse answers, p95 of seconds"))
    for axes, (name, label) in zip(panels, names, strict=True):
        for engine, colour, marker in zip(ENGINES, (VERBOSE_COLOUR, TERSE_COLOUR), ("s", "o"), strict=True):
            points = [(row["clients"], row[name]) for row in rows if row["engine"] == engine]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=engine)
        axes.set_xlabel("clients at once")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({row["clients"] for row in rows}))
        axes.legend(frameon=False)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run")
    parser.add_argument("--output", type=Path, required=True, help="folder for serving.json, serving.md, serving.svg")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--warmup", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--measured", type=float, default=60.0, metavar="SECONDS")
    given = parser.parse_args()
    asked = f"--clients {' '.join(map(str, given.clients))} --rounds {given.rounds}"
    asked += f" --warmup {given.warmup:g} --measured {given.measured:g}"
    document = {
        "command": f"python -m benchmarks.serving_load {asked}",
        **measure(RunFolder(given.run), given.clients, given.rounds, given.warmup, given.measured),
    }
    write_text_atomically(given.output / "serving.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(given.output / "serving.md", to_markdown(document))
    write_text_atomically(given.output / "serving.svg", draw(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
