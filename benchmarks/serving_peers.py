"""``make serving-peers``: throughput and latency of our server and others' on the same machine, all streaming.

Writes ``peers.json`` and ``peers.md``. All servers run from the start and are asked in turn, so that the cells that are
compared lie close together; the warm-up covers what disconnected clients left to do. With ``--vllm`` run it by
``python -m tests.engine_environments vllm -m ...``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from benchmarks.chat import asking
from benchmarks.load import measure_load, summarise_answers
from benchmarks.peers import (
    LLAMA_CPP,
    TRANSFORMERS,
    VLLM,
    Server,
    export_model,
    llama_cpp,
    memory_mib,
    ours,
    transformers_serve,
    vllm,
)
from benchmarks.serving_load import READINGS, Reading, summarise, with_ratio
from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.run_folder import RunFolder
from tests.engine_environments import engine_folder

apply_environment()  # before torch is imported

PEERS = {VLLM: "--vllm", TRANSFORMERS: "--transformers-python", LLAMA_CPP: "--llama-python"}
"""The option of each peer."""
ALONE_CLIENTS = 8
"""With so many clients terse answers are measured without verbose ones beside them, too."""
ALONE, TERSE_P95 = "all terse", "terse_p95_s"
RATIO_LIMIT = 2.0
"""Of the p95 of terse answers beside verbose ones, to that of terse answers alone: the goal of our server."""


def _of_style(style: Style, figure: str, cell: Mapping[str, Any]) -> float | None:
    value: float | None = cell[style.value][figure]
    return value


COMPARED: dict[str, Reading] = {
    **{name: READINGS[name] for name in ("answers_per_minute", "tokens_per_s", TERSE_P95, "verbose_p95_s")},
    "verbose_first_token_p95_s": partial(_of_style, Style.VERBOSE, "first_token_p95_s"),
    "memory_mib": lambda cell: cell["memory_mib"],
}
COLUMNS = {
    "answers_per_minute": ("answers/min", ""),
    "tokens_per_s": ("tokens/s", ""),
    TERSE_P95: ("terse p95", " s"),
    "verbose_p95_s": ("verbose p95", " s"),
    "verbose_first_token_p95_s": ("verbose first token p95", " s"),
    "memory_mib": ("memory", " MiB"),
}
"""Heading and unit of each figure."""
LENGTHS: dict[str, Reading] = {
    f"{style.value}_tokens_mean": partial(_of_style, style, "tokens_mean") for style in Style
}


def measure(
    servers: Sequence[Server], clients: Sequence[int], rounds: int, warmup_s: float, measured_s: float, work: Path
) -> list[dict[str, Any]]:
    """Measure every server with every number of clients, in each round; styles alternate, or all are terse.

    Args:
        servers: The servers.
        clients: Numbers of concurrent clients.
        rounds: Number of measurements of each cell.
        warmup_s: Seconds of each cell whose answers do not count.
        measured_s: Seconds of each cell whose answers count.
        work: Folder for the servers' logs.

    Returns:
        The cells, each with the styles that its clients asked for and the server's memory at its end.
    """
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)]
    cells: list[dict[str, Any]] = []
    loads = [(at_once, tuple(Style)) for at_once in clients]
    loads += [(ALONE_CLIENTS, (Style.TERSE,))] if ALONE_CLIENTS in clients else []
    with ExitStack() as running:
        urls = [running.enter_context(server.open(work / f"{at}.log")) for at, server in enumerate(servers)]
        asked_in_turn = list(zip(servers, urls, strict=True))
        for number, (at_once, styles), (server, url) in tqdm(list(product(range(rounds), loads, asked_in_turn))):
            first: dict[str, str] = {}
            with asking(server, url, first) as ask:
                answers = measure_load(
                    ask, questions, clients=at_once, styles=styles, warmup_s=warmup_s, measured_s=measured_s
                )
            asked = {"round": number, "server": server.name, "clients": at_once, "styles": [*styles]}
            measured = {**summarise_answers(answers, measured_s), "memory_mib": memory_mib(url)}
            cells.append({**asked, **measured, "first_answers": first})
            tqdm.write(json.dumps(cells[-1]))  # keeps finished cells if a later one fails
    return cells


def to_document(servers: Sequence[Server], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results; ratios are to the first server with the same number of clients in the same round."""
    described = {
        server.name: {"versions": server.versions, "weights": server.weights, "remark": server.remark}
        for server in servers
    }
    both = [cell for cell in cells if len(cell["styles"]) == len(Style)]
    return {
        "limits": {style.value: GENERATION_PRESETS[style].max_new_tokens for style in Style},
        "servers": described,
        "left_out": {name: option for name, option in PEERS.items() if name not in described},
        "cells": list(cells),
        "rows": summarise(both, key="server", base=servers[0].name, readings={**COMPARED, **LENGTHS}),
        "starvation": [row for server in servers for row in _starvation(server.name, cells)],
    }


def _starvation(server: str, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A server's terse answers beside verbose ones, relative to as many clients that all ask for terse ones."""
    of_server = [cell for cell in cells if cell["server"] == server and cell["clients"] == ALONE_CLIENTS]
    loads = [{**cell, "load": ALONE if len(cell["styles"]) == 1 else "mixed"} for cell in of_server]
    rows = summarise(loads, key="load", base=ALONE, readings={TERSE_P95: READINGS[TERSE_P95]})
    return [{"server": server, **row} for row in rows]


def to_markdown(document: Mapping[str, Any]) -> str:
    """The rows as a table with ratios to our server in brackets, how terse answers fare, remarks, who is missing."""
    names = [name for name in COLUMNS if name in document["rows"][0]]  # older documents lack the later ones
    headers = ("server", "version", "weights", "clients", *(COLUMNS[name][0] for name in names))
    headers += ("tokens of an answer, terse and verbose",)
    rows = [_row(document, row, names) for row in document["rows"]]
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n\n"
    if starvation := document.get("starvation"):
        waits = [
            (row["server"], row["load"], with_ratio(row, TERSE_P95, " s", is_base=row["load"] == ALONE))
            for row in starvation
        ]
        table += tabulate(
            waits,
            headers=("server", f"what {ALONE_CLIENTS} clients ask", f"terse p95, goal {RATIO_LIMIT:g} x at most"),
            tablefmt="github",
            disable_numparse=True,
        )
        table += "\n\n"
    notes = [f"{name}: {server['remark']}." for name, server in document["servers"].items()]
    notes += [f"{name}: left out, since {option} was not given." for name, option in document["left_out"].items()]
    return table + "\n".join(f"- {note}" for note in notes) + "\n"


def _row(document: Mapping[str, Any], row: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    server = document["servers"][row["server"]]
    is_base = row["server"] == next(iter(document["servers"]))
    figures = [with_ratio(row, name, COLUMNS[name][1], is_base=is_base) for name in names]
    lengths = ", ".join("none" if row[name] is None else f"{row[name]:.0f}" for name in LENGTHS)
    return row["server"], next(iter(server["versions"].values())), server["weights"], row["clients"], *figures, lengths


def _servers(given: argparse.Namespace, work: Path) -> list[Server]:
    from pipeline.compat import cpu_compute_dtype

    target = RunFolder(given.run).read_record()["target"]
    servers = [ours(given.run, target, max(16, *given.clients))]
    exported, dtype = work / "exported", cpu_compute_dtype()  # as our server computes here
    if given.vllm or given.transformers_python is not None:
        export_model(given.run, exported, dtype)
    if given.vllm:
        servers += [vllm(engine_folder("vllm"), exported, dtype, all_cores=which) for which in (False, True)]
    if given.transformers_python is not None:
        for samples in (False, True) if given.transformers_sampling else (False,):
            servers.append(transformers_serve(given.transformers_python, exported, dtype, samples=samples))
    if given.llama_python is not None:
        servers.append(llama_cpp(given.llama_python))
    return servers


def _command(given: argparse.Namespace) -> str:
    """The command line, without this machine's paths."""
    named = {"--transformers-python": given.transformers_python, "--llama-python": given.llama_python}
    started = "tests.engine_environments vllm -m " if given.vllm else ""
    peers = " --vllm" if given.vllm else ""
    peers += "".join(f" {option} PYTHON" for option, python in named.items() if python is not None)
    peers += " --transformers-sampling" if given.transformers_sampling else ""
    asked = f"--clients {' '.join(map(str, given.clients))} --rounds {given.rounds}"
    asked += f" --warmup {given.warmup:g} --measured {given.measured:g}"
    return f"python -m {started}benchmarks.serving_peers --run RUN{peers} {asked}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run of the embedded target")
    parser.add_argument("--output", type=Path, required=True, help="folder for peers.json and peers.md")
    parser.add_argument("--vllm", action="store_true", help="measure vLLM, in a process that names its environment")
    parser.add_argument("--transformers-python", type=Path, help="interpreter with transformers[serving]")
    parser.add_argument("--transformers-sampling", action="store_true", help="also measure it with sampling enabled")
    parser.add_argument("--llama-python", type=Path, help="interpreter with llama-cpp-python[server]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
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
