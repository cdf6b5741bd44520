"""``make versions``: the same inputs on both dependency sets, compared by first loss and greedy answers.

An adapter of the embedded target is trained on the golden pins; each set then records its first training step and its
answers with and without that adapter. ``python -m benchmarks.versions record SET WORK`` reads ``WORK/run`` and writes
``WORK/SET.json``; ``compare WORK DIR`` writes both and ``versions.md`` to ``DIR``; exit status 1 if the sets disagree.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from acceptance.evidence import greedy_record
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.snapshots.compare import answers_difference, first_token_difference, token_divergence
from harness.snapshots.extension import to_text
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import GenerationConfig, Preset, Style, get_target, resolve_preset
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS, TRAINING_DATA
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

ROOT = Path(__file__).resolve().parents[1]
SETS = ("current", "golden")
PRESET_NAMES = ("golden", "lean")
QUESTION_COUNT = 5
FIRST_TOKENS = GenerationConfig(max_new_tokens=64)
LOSS_TOLERANCE = 1e-2
"""Limit of the relative difference of the first step's loss in bfloat16; set before the first comparison."""


def record(run: RunFolder) -> dict[str, Any]:
    """Record this dependency set's results.

    Args:
        run: The run with the adapter, trained on either set.

    Returns:
        JSON values: digests of the inputs, the first step of each preset, answers with and without the adapter.
    """
    import torch

    from pipeline.model.loading import load_trained, load_untrained

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["VERBOSITY_CACHE"] = scratch  # each set prepares the base model itself
        steps = {name: _first_step(name, Path(scratch)) for name in PRESET_NAMES}
        base = load_untrained(run)
        quantized_sha256 = _quantized_digest(base.model)  # before the first answer, which may repack the weights
        untrained = _answers(base)
        trained = load_trained(run)
        return {
            "command": "make versions",
            "provenance": collect(ROOT),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "quantized_sha256": quantized_sha256,
            "first_step": steps,
            "adapter": {"sha256": trained.adapter_sha256, "trained_with": run.read_record()["versions"]},
            "answers": {"without adapter": untrained, "with the adapter": _answers(trained)},
        }


def _first_step(name: str, scratch: Path) -> dict[str, Any]:
    from pipeline.data.store import tokenised
    from pipeline.model.base_models import open_base_model
    from pipeline.training.train import TrainingRequest, train

    target, preset = get_target(DEFAULT_TARGET), _one_step(name)
    run = RunFolder(scratch / name)
    made = train(TrainingRequest(target, preset, TRAINING_DATA, run.path, target.device))
    base = open_base_model(target)
    data, _ = tokenised(TRAINING_DATA, base.tokenizer, base.folder, preset.training)
    (row,) = run.read_metrics()
    return {
        "examples": len(data),
        "loss": row["loss"],
        "grad_norm": row["grad_norm"],
        "compute_dtype": made["preset"]["quantization"]["compute_dtype"],
        "base_model_sha256": made["base_model_sha256"],
        "token_ids_sha256": _digest([list(ids) for ids in data["input_ids"]]),
    }


def _one_step(name: str) -> Preset:
    """A preset limited to the examples of one optimizer step."""
    target = get_target(DEFAULT_TARGET)
    window = resolve_preset(name, target).training.window_examples
    return resolve_preset(name, target, max_examples=window, epochs=1)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _quantized_digest(model: Any) -> str:
    """SHA-256 over the 4-bit values and scales of all quantised layers."""
    import bitsandbytes

    digest = hashlib.sha256()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.weight.quant_state
            for tensor in (module.weight.data, state.absmax, state.state2.absmax):
                digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _answers(model: Any) -> dict[str, Any]:
    questions = read_questions(HELD_OUT_QUESTIONS)[:QUESTION_COUNT]
    return {
        f"{style}: {question.text}": greedy_record(model, question.text, style, FIRST_TOKENS)
        for style in Style
        for question in questions
    }


def disagreements(current: Mapping[str, Any], golden: Mapping[str, Any]) -> list[str]:
    """Differences of the sets beyond the tolerances; empty if there are none."""
    found = []
    for name in PRESET_NAMES:
        before, now = golden["first_step"][name], current["first_step"][name]
        for key in ("examples", "compute_dtype", "base_model_sha256", "token_ids_sha256"):
            if before[key] != now[key]:
                found.append(f"{name}: not the same inputs, {key} {now[key]} instead of {before[key]}")
        if not _relative(before["loss"], now["loss"]) <= LOSS_TOLERANCE:
            found.append(f"{name}: first loss {now['loss']} instead of {before['loss']}")
    if golden["adapter"] != current["adapter"]:
        found.append("not the same adapter")
    if golden["answers"].keys() != current["answers"].keys():
        found.append("not the same models answered")
    for model, answers in golden["answers"].items():
        if different := answers_difference(answers, current["answers"].get(model), first_token_difference):
            found.append(f"{model}: {different}")
    return found


def _relative(before: float, now: float) -> float:
    return abs(now - before) / abs(before)


def to_markdown(current: Mapping[str, Any], golden: Mapping[str, Any]) -> str:
    """Both sets side by side."""
    steps = tabulate(
        list(_step_rows(current, golden)),
        headers=("first step", "golden pins", "current set", "difference", "limit"),
        tablefmt="github",
        disable_numparse=True,
    )
    answers = tabulate(
        [_answer_row(name, golden["answers"][name], current["answers"][name]) for name in golden["answers"]],
        headers=(
            "first tokens of greedy answers",
            "the same",
            "part at a token likely to both",
            "differ",
            "first to part",
            "largest move before",
            "mean move",
        ),
        tablefmt="github",
        disable_numparse=True,
    )
    return f"{steps}\n\n{answers}\n"


def _step_rows(current: Mapping[str, Any], golden: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name in PRESET_NAMES:
        before, now = golden["first_step"][name], current["first_step"][name]
        for key, unit, limit in (("loss", "nats/token", f"{LOSS_TOLERANCE:.0%}"), ("grad_norm", "gradient norm", "")):
            label = f"{name}, {before['examples']} examples, {unit}"
            relative = f"{_relative(before[key], now[key]):.3%}"
            yield label, f"{before[key]:.4f}", f"{now[key]:.4f}", relative, limit


def _answer_row(name: str, golden: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[str, ...]:
    pairs = [(golden[question], current[question]) for question in golden]
    parted = [
        index for pair in pairs if (index := token_divergence(*(answer["token_ids"] for answer in pair))) is not None
    ]
    different = sum(first_token_difference(*pair) is not None for pair in pairs)
    moves = [move for pair in pairs for move in _moves(*pair)]
    return (
        f"{name} ({len(pairs)})",
        f"{len(pairs) - len(parted)}",
        f"{len(parted) - different}",
        f"{different}",
        f"token {min(parted)}" if parted else "",
        f"{max(moves):.2f} nats",
        f"{sum(moves) / len(moves):.3f} nats",
    )


def _moves(golden: Mapping[str, Any], current: Mapping[str, Any]) -> Sequence[float]:
    """Absolute change of each token's log-probability, up to the first token that differs, in nats."""
    index = token_divergence(golden["token_ids"], current["token_ids"])
    common = len(golden["token_ids"]) if index is None else index
    pairs = zip(golden["top5"][:common], current["top5"][:common], strict=True)
    return [abs(before[0][1] - now[0][1]) for before, now in pairs]


def main() -> int:
    """Record one set, or compare both."""
    action, *arguments = sys.argv[1:]
    if action == "record":
        name, work = arguments[0], Path(arguments[1])
        write_text_atomically(work / f"{name}.json", to_text(record(RunFolder(work / "run"))))
        return 0
    source, folder = map(Path, arguments)
    documents = {name: json.loads((source / f"{name}.json").read_text(encoding="utf-8")) for name in SETS}
    current, golden = (documents[name] for name in SETS)
    for name, document in documents.items():
        write_text_atomically(folder / f"{name}.json", to_text(document))
    write_text_atomically(folder / "versions.md", to_markdown(current, golden))
    print(to_markdown(current, golden))
    found = disagreements(current, golden)
    print("\n".join(found) or "the sets agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
