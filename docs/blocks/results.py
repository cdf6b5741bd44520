"""Tables of measured figures, each from the result file that it names, with the command and the machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    bench_demo,
    data_curve,
    engine_agreement,
    exports,
    held_out,
    narrow_field,
    overload,
    recipes,
    serving_load,
    serving_peers,
    suite_durations,
    training_profile,
    training_report,
    versions,
)
from benchmarks.gpu import decoding, peer_report, planned, summary
from docs.blocks.markdown import table
from harness.report.table import table_markdown
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
MODEL = "smollm2-135m"
SHAPE = "mistral-7b-v0.3-synthetic"
ACCEPTED = f"{MODEL}/acceptance/acceptance.json"
DEMO = f"{MODEL}/demo/demo.json"


def read(name: str) -> dict[str, Any]:
    """Return a result document by its path below ``results/``."""
    document: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return document


def measurements(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the one subject of an acceptance was measured at, by criterion."""
    (subject,) = document["subjects"]
    return {criterion["id"]: criterion["measurements"] for criterion in subject["criteria"]}


def origin(*names: str, command: str = "", device: str = "", with_commit: bool = True) -> str:
    """Return a line that says where a table comes from: files, command, machine, versions, commit.

    Args:
        *names: Paths below ``results/``; the first is described.
        command: What made it, where the document does not say.
        device: The accelerator, where the document does not say.
        with_commit: Whether to name the commit, which a table of several has itself.
    """
    document = read(names[0])
    document = document if "provenance" in document else {"command": document["command"], **document["runs"][0]}
    provenance = document["provenance"]
    gpu = device or provenance.get("gpu") or document.get("gpu", {}).get("name") or document.get("device")
    cores = f"{provenance['cpu_model']}, {provenance['cpu_count']} cores"
    packages = provenance["packages"]
    links = ", ".join(f"[{name}](../results/{name})" for name in names)
    commit = f"; commit {provenance['git_commit'][:7]}" if with_commit else ""
    return (
        f"{links}: `{command or document['command']}`; {cores if gpu in (None, 'cpu') else gpu}; torch"
        f" {packages['torch']}, transformers {packages['transformers']}{commit}.\n"
    )


def from_file(
    name: str, to_markdown: Callable[[dict[str, Any]], str], command: str = "", device: str = ""
) -> Callable[[], str]:
    """Return a block: the table of one document and where it comes from."""
    return lambda: f"{to_markdown(read(name)).strip()}\n\n{origin(name, command=command, device=device)}"


def readme_figures() -> str:
    """Return the README's three figures."""
    demo, matrix = read(DEMO), read("sabotage/matrix.json")
    healthy = matrix["healthy_count"] - matrix["false_reject_count"]
    fewest, criteria = min(len(trial["outcomes"]) for trial in matrix["healthy"]), len(matrix["criteria"])
    judged = f"all {criteria} criteria" if fewest == criteria else f"{fewest} criteria or more"
    waiting = f"; not run yet: {', '.join(names)}" if (names := matrix["faults_not_run"]) else ""
    golden, lean = (RunFolder(RESULTS / SHAPE / "gpu" / name).read_record() for name in ("golden", "lean"))
    lines = (
        f"**{demo['passed_count']} of {demo['criterion_count']} criteria passed**: `{MODEL}`, trained within"
        f" {demo['peak_memory']['rss_gib']:.1f} GiB and judged, together in {demo['duration_s'] / 60:.0f} minutes on"
        f" {demo['provenance']['cpu_count']} CPU cores (`make demo`).",
        f"**{matrix['caught_count']} of {matrix['fault_count']} broken pipelines rejected**, {healthy} of"
        f" {matrix['healthy_count']} healthy ones accepted, these by {judged}{waiting}"
        " ([matrix](results/sabotage/matrix.md)).",
        f"**1600 examples in {lean['duration_s']:.0f} s** within {_driver_gib(lean)}: training with `lean`, random"
        f" weights in Mistral-7B's shape, one NVIDIA H200; {golden['duration_s'] / 60:.0f} minutes and"
        f" {_driver_gib(golden)} with `golden` ([results](docs/results.md)).",
    )
    return "".join(f"- {line}\n" for line in lines)


def _driver_gib(run: dict[str, Any]) -> str:
    return f"{run['peak_memory']['cuda_driver_gib']:.1f} GiB"


def acceptance() -> str:
    """Return the acceptance of the embedded model by ``make demo``."""
    document = read(ACCEPTED)
    lines = [line for line in table_markdown(document).splitlines() if line.startswith("|")]
    worst = measurements(document)["style.token_separation"]
    tail = (
        f"Unconstrained, the longest TERSE answer had {worst['terse_worst_tokens']} tokens and the shortest VERBOSE"
        f" answer {worst['verbose_worst_tokens']}."
    )
    made_by = origin(ACCEPTED, command="make demo")
    return f"Verdict: **{document['decision']}**\n\n" + "\n".join(lines) + f"\n\n{tail}\n\n{made_by}"


def gpu_acceptance(target: str) -> str:
    """Return the tables of ``make gpu-acceptance`` for a target, with headings one level lower."""
    folder = f"{target}/gpu"
    tables = summary.to_markdown(summary.read_folder(RESULTS / folder)).replace("## ", "#### ")
    names = [f"{folder}/{preset}/acceptance.json" for preset in ("golden", "lean")]
    return f"{tables}\n{origin(*names, command=f'make gpu-acceptance TARGET={target}')}"


def runs_on_gpus() -> str:
    """Return the verdicts of every acceptance that was run on a GPU."""
    rows = []
    for path in sorted(RESULTS.glob("*/gpu/*/acceptance.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        (subject,) = document["subjects"]
        outcomes = [criterion["outcome"] for criterion in subject["criteria"]]
        counts = ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(sorted(outcomes, reverse=True)))
        failed = ", ".join(c["id"] for c in subject["criteria"] if c["outcome"] == "FAIL")
        load = measurements(document).get("deployment.under_load", {}).get("answer_latency_max_s")
        name = path.parent.relative_to(RESULTS).as_posix()
        run = RunFolder(path.parent).read_record()
        rows.append(
            (
                f"[{name}](../results/{name}/report.md)",
                document["provenance"]["gpu"],
                f"{run['preset']['name']}, {run['data']['examples']:,} examples",
                f"{document['decision']}: {counts}" + (f" ({failed})" if failed else ""),
                "not asked" if load is None else f"{load:.2f} s",
            )
        )
    return table(("run", "GPU", "trained with", "verdict", "slowest answer under load"), rows)


def packed_seeds() -> str:
    """Return held-out loss and style of padding-free training, beside the padded path's held-out loss."""
    folder = f"{MODEL}/gpu/held-out"
    padded = {run["seed"]: run for run in read(f"{MODEL}/held-out/held_out.json")["runs"] if run["variant"] == "lean"}
    packed = {run["seed"]: run for run in read(f"{folder}/held_out.json")["runs"]}
    rows = []
    for seed in sorted(packed):
        measured = measurements(read(f"{folder}/{seed}/acceptance.json"))
        separation, coherence = measured["style.token_separation"], measured["style.coherence"]
        shares = [separation["terse_in_bound_share"], separation["verbose_in_bound_share"]]
        shares += [coherence["ended_answer_share"], coherence["varied_answer_share"]]
        losses = [runs[seed]["held_out_nats_per_token"] for runs in (packed, padded)]
        rows.append((f"{seed}", *(f"{x:.4f}" for x in losses), *(f"{s['successes']} of {s['trials']}" for s in shares)))
    means = [sum(runs[seed]["held_out_nats_per_token"] for seed in packed) / len(packed) for runs in (packed, padded)]
    rows.append(("mean", *(f"{mean:.4f}" for mean in means), "", "", "", ""))
    headers = ("seed", "held-out loss", "of the padded path", "TERSE in bound", "VERBOSE in bound", "ended", "varied")
    return f"{table(headers, rows)}\n{origin(f'{folder}/held_out.json')}"


def agreement(name: str) -> str:
    """Return whether the engines' answers are the model's."""
    return f"{engine_agreement.to_markdown(read(name)['ways']).strip()}\n\n{origin(name)}"


def dependency_sets() -> str:
    """Return the comparison of the golden pins with today's releases."""
    names = [f"{MODEL}/versions/{each}.json" for each in versions.SETS]
    current, golden = map(read, names)
    return "\n\n".join((versions.to_markdown(current, golden).strip(), *map(origin, names)))


def sharded() -> str:
    """Return how a sharded run and one of several processes differ from one of a single GPU."""
    runs = {name: RunFolder(RESULTS / "tiny-mistral" / "fsdp" / name) for name in ("one", "sharded", "stopped", "ddp")}
    steps = {name: run.read_metrics() for name, run in runs.items()}
    digests = {name: run.read_record()["adapter"]["sha256"] for name, run in runs.items()}
    rows = []
    for name, what in (
        ("sharded", "FSDP, two GPUs"),
        ("stopped", "the same, stopped after its second step and started again"),
        ("ddp", "`torchrun`, two GPUs"),
    ):
        pairs = list(zip(steps["one"], steps[name], strict=True))
        loss = max(abs(one["loss"] - many["loss"]) for one, many in pairs)
        norm = max(abs(many["grad_norm"] / one["grad_norm"] - 1) for one, many in pairs)
        same = [other for other in ("one", "sharded") if other != name and digests[other] == digests[name]]
        twins = {"one": "one GPU", "sharded": "the unbroken sharded run"}
        rows.append((what, f"{loss:.1e}", f"{norm:.2%}", ", ".join(twins[other] for other in same) or "none"))
    headers = (
        "run of tiny-mistral",
        "loss, nats/token, off by at most",
        "gradient norm",
        "same adapter, byte for byte",
    )
    return table(headers, rows) + "\n[Records](../results/tiny-mistral/fsdp), commit and versions in each.\n"


def generated_requests() -> str:
    """Return how the generated requests of ``make abuse`` were answered."""
    name = "abuse/abuse.json"
    document = read(name)
    kinds = list(dict.fromkeys(row["by"] for row in document["rows"]))
    counts = {(row["by"], row["status"]): row["requests"] for row in document["rows"]}
    statuses = sorted({status for _, status in counts})
    rows = [(kind, *(f"{counts.get((kind, status), '')}" for status in statuses)) for kind in kinds]
    body = table(("requests by", *map(str, statuses)), rows)
    return f"{body}\n{document['requests']:,} requests. {origin(name, device='cpu')}"


def large_data() -> str:
    """Return memory and time of reading large files."""
    name = "data/large_data.json"
    rows = [
        (
            f"{point['examples']:,}",
            f"{point['file_mib']:.1f} MiB",
            f"{point['reading_s']:.1f} s",
            f"{point['from_cache_s']:.2f} s",
            f"{point['peak_rss_mib']:.0f} MiB",
        )
        for point in read(name)["points"]
    ]
    headers: Sequence[str] = ("examples", "file", "first reading", "from the cache", "peak memory of the process")
    return f"{table(headers, rows)}\n{origin(name)}"


def judged_exports() -> str:
    """Return the verdicts of the exported forms behind their engines, from a document for each that was judged."""
    names = {form: f"{MODEL}/exports/{form}.json" for form in exports.FORMS}
    judged = {form: read(name) for form, name in names.items() if (RESULTS / name).is_file()}
    if not judged:
        return "Not judged yet: no form has a result.\n"
    origins = "\n".join(origin(names[form]) for form in judged)
    return f"{exports.to_markdown(judged)}\n{origins}"


_H200 = "NVIDIA H200"
"""Of documents of serving, which name no device."""

BLOCKS: Mapping[str, Callable[[], str]] = {
    "readme-figures": readme_figures,
    "acceptance": acceptance,
    "demo-stages": from_file(DEMO, bench_demo.to_markdown),
    "curve": from_file(f"{MODEL}/curve/curve.json", data_curve.to_markdown),
    "bench": from_file(f"{MODEL}/bench/bench.json", training_report.to_markdown),
    "profile": from_file(f"{MODEL}/bench/profile.json", training_profile.to_markdown),
    "in-turn": from_file(f"{MODEL}/in-turn/held_out.json", held_out.to_markdown, "make in-turn"),
    "held-out": from_file(f"{MODEL}/held-out/held_out.json", held_out.to_markdown),
    "gpu-runs": runs_on_gpus,
    "gpu-shape": partial(gpu_acceptance, SHAPE),
    "gpu-embedded": partial(gpu_acceptance, MODEL),
    "gpu-training": from_file(f"{SHAPE}/gpu/training.json", peer_report.to_markdown),
    "gpu-seeds": packed_seeds,
    "serving-cpu": from_file(f"{MODEL}/serving/serving.json", serving_load.to_markdown),
    "serving-gpu": from_file(f"{MODEL}/gpu/peers.json", serving_peers.to_markdown, device=_H200),
    "serving-shape": from_file(f"{SHAPE}/gpu/peers.json", serving_peers.to_markdown, device=_H200),
    "gpu-decoding": from_file(f"{SHAPE}/gpu/decoding.json", decoding.to_markdown, "python -m benchmarks.gpu.decoding"),
    "overload": from_file(f"{MODEL}/serving/overload.json", overload.to_markdown),
    "peers": from_file(f"{MODEL}/serving/peers.json", serving_peers.to_markdown),
    "exports": judged_exports,
    "agreement-cpu": partial(agreement, f"{MODEL}/serving/agreement.json"),
    "agreement-gpu": partial(agreement, f"{MODEL}/gpu/agreement.json"),
    "gpu-planned": from_file(f"{SHAPE}/planned/plan.json", planned.to_markdown, device="planned, no GPU"),
    "versions": dependency_sets,
    "sharded": sharded,
    "generated-requests": generated_requests,
    "large-data": large_data,
    "test-commands": from_file("tests/durations.json", suite_durations.to_markdown),
    "recipes": from_file("smollm2-135m/recipes/recipes.json", recipes.to_markdown),
    "narrow-field": from_file("narrow-field/narrow_field.json", narrow_field.to_markdown),
}
