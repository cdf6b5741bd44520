"""``make serving-peers``: throughput and latency of our server, transformers' and llama.cpp's on the same machine.

Writes ``peers.json`` and ``peers.md``. The server is restarted for each cell, so that work left over from disconnected
clients does not affect the next one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from benchmarks.load import measure_load, summarise_answers
from benchmarks.peers import LLAMA_CPP, TRANSFORMERS, Server, asking, export_model, llama_cpp, ours, transformers_serve
from benchmarks.serving_load import READINGS, Reading, summarise, with_ratio
from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

PEERS = {TRANSFORMERS: "--transformers-python", LLAMA_CPP: "--llama-python"}
"""The option with the interpreter of each peer."""


def _tokens_mean(style: Style, cell: Mapping[str, Any]) -> float | None:
    mean: float | None = cell[style.value]["tokens_mean"]
    return mean


COMPARED = {name: READINGS[name] for name in ("answers_per_minute", "tokens_per_s", "terse_p95_s", "verbose_p95_s")}
LENGTHS: dict[str, Reading] = {f"{style.value}_tokens_mean": partial(_tokens_mean, style) for style in Style}


def measure(
    servers: Sequence[Server], clients: Sequence[int], rounds: int, warmup_s: float, measured_s: float, work: Path
) -> list[dict[str, Any]]:
    """Measure every server with every number of clients, in each round.

    Args:
        servers: The servers.
        clients: Numbers of concurrent clients.
        rounds: Number of measurements of each cell.
        warmup_s: Seconds of each cell whose answers do not count.
        measured_s: Seconds of each cell whose answers count.
        work: Folder for the servers' logs.

    Returns:
        The cells.
    """
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)]
    cells: list[dict[str, Any]] = []
    for number, at_once, server in tqdm([(r, c, s) for r in range(rounds) for c in clients for s in servers]):
        first: dict[str, str] = {}
        with server.open(work / "server.log") as url:
            ask = asking(server, url, first)
            answers = measure_load(ask, questions, clients=at_once, warmup_s=warmup_s, measured_s=measured_s)
        summary = summarise_answers(answers, measured_s)
        cells.append({"round": number, "server": server.name, "clients": at_once, **summary, "first_answers": first})
        tqdm.write(json.dumps(cells[-1]))  # keeps finished cells if a later one fails
    return cells


def to_document(servers: Sequence[Server], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results; ratios are to the first server with the same number of clients in the same round."""
    described = {
        server.name: {"versions": server.versions, "weights": server.weights, "remark": server.remark}
        for server in servers
    }
    return {
        "limits": {style.value: GENERATION_PRESETS[style].max_new_tokens for style in Style},
        "servers": described,
        "left_out": {name: option for name, option in PEERS.items() if name not in described},
        "cells": list(cells),
        "rows": summarise(cells, key="server", base=servers[0].name, readings={**COMPARED, **LENGTHS}),
    }


def to_markdown(document: Mapping[str, Any]) -> str:
    """The rows as a table with ratios to our server in brackets, then each server's remark and the missing ones."""
    headers = ("server", "version", "weights", "clients", "answers/min", "tokens/s", "terse p95", "verbose p95")
    rows = [_row(document, row) for row in document["rows"]]
    table = tabulate(
        rows, headers=(*headers, "tokens of an answer, terse and verbose"), tablefmt="github", disable_numparse=True
    )
    notes = [f"{name}: {server['remark']}." for name, server in document["servers"].items()]
    notes += [f"{name}: left out, since {option} was not given." for name, option in document["left_out"].items()]
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _row(document: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[Any, ...]:
    server = document["servers"][row["server"]]
    is_base = row["server"] == next(iter(document["servers"]))
    figures = [
        with_ratio(row, name, unit, is_base=is_base) for name, unit in zip(COMPARED, ("", "", " s", " s"), strict=True)
    ]
    lengths = ", ".join("none" if row[name] is None else f"{row[name]:.0f}" for name in LENGTHS)
    return row["server"], next(iter(server["versions"].values())), server["weights"], row["clients"], *figures, lengths


def _servers(given: argparse.Namespace, work: Path) -> list[Server]:
    from pipeline.compat import cpu_compute_dtype

    target = RunFolder(given.run).read_record()["target"]
    servers = [ours(given.run, target, max(16, *given.clients))]
    if given.transformers_python is not None:
        dtype = cpu_compute_dtype()  # as our server computes here
        exported = export_model(given.run, work / "exported", dtype)
        for samples in (False, True) if given.transformers_sampling else (False,):
            servers.append(transformers_serve(given.transformers_python, exported, dtype, samples=samples))
    if given.llama_python is not None:
        servers.append(llama_cpp(given.llama_python))
    return servers


def _command(given: argparse.Namespace) -> str:
    """The command line, without this machine's paths."""
    named = {"--transformers-python": given.transformers_python, "--llama-python": given.llama_python}
    peers = "".join(f" {option} PYTHON" for option, python in named.items() if python is not None)
    peers += " --transformers-sampling" if given.transformers_sampling else ""
    asked = f"--clients {' '.join(map(str, given.clients))} --rounds {given.rounds}"
    asked += f" --warmup {given.warmup:g} --measured {given.measured:g}"
    return f"python -m benchmarks.serving_peers --run RUN{peers} {asked}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run of the embedded target")
    parser.add_argument("--output", type=Path, required=True, help="folder for peers.json and peers.md")
    parser.add_argument("--transformers-python", type=Path, help="interpreter with transformers[serving]")
    parser.add_argument("--transformers-sampling", action="store_true", help="also measure it with sampling enabled")
    parser.add_argument("--llama-python", type=Path, help="interpreter with llama-cpp-python[server]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warmup", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--measured", type=float, default=120.0, metavar="SECONDS")
    given = parser.parse_args()
    provenance = collect(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        servers = _servers(given, work)
        cells = measure(servers, given.clients, given.rounds, given.warmup, given.measured, work)
    document = {"command": _command(given), "provenance": provenance, **to_document(servers, cells)}
    write_text_atomically(given.output / "peers.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(given.output / "peers.md", to_markdown(document))
    print(to_markdown(document))


if __name__ == "__main__":
    main()
