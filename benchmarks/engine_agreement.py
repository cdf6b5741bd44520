"""``make engine-agreement RUN=DIR``: whether an engine's answers agree with the model's under ``generate()``.

Writes ``agreement.json`` and ``agreement.md``; exit status 1 if the continuous engine disagrees. The model scores every
greedy answer including EOS in one pass; the gap of a token is how much likelier the best alternative was. In bfloat16
the order of summation changes logits and near ties swap, so padded batches show the effect of batching alone. Sampled
answers are scored, too: the mean surprisal of tokens drawn from a distribution equals its entropy. The standard error
of that mean follows from the distributions themselves: a sample that lacks rare tokens by chance is below the entropy
and hardly varies, so by its own spread the lack would look significant.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from acceptance.answers import ROUNDED_OUT_SHARE
from benchmarks.serving_load import PATIENCE_S
from harness.files import write_text_atomically
from harness.provenance import collect
from harness.snapshots.compare import token_divergence
from harness.statistics import median
from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

GREEDY = GenerationConfig(max_new_tokens=128)
AT_ONCE = 16
GAP_LIMIT_NATS = 0.5
"""Limit of a token's gap: four steps of bfloat16 logits between 16 and 32 (0.125 each). Set before the first run."""
EXCESS_LIMIT_ERRORS = 3.0
"""Limit of the mean surprisal above entropy of sampled answers, in standard errors."""
REFERENCE = "generate()"
CONTINUOUS = ("continuous, one at a time", f"continuous, {AT_ONCE} at once")

Request = tuple[str, Style]
Answer = tuple[tuple[int, ...], bool]
"""Token ids without EOS, and whether EOS followed."""
Answering = Callable[[Sequence[Request], Mapping[Style, GenerationConfig]], list[Answer]]


def measure(run: RunFolder, question_count: int) -> dict[str, Any]:
    """Greedy and sampled answers of each way of generating, scored by the model."""
    import torch

    from pipeline.model.loading import load_trained

    trained = load_trained(run)
    texts = [question.text for question in read_questions(HELD_OUT_QUESTIONS)[:question_count]]
    requests = [(text, style) for text in texts for style in Style]
    ways: dict[str, Answering] = {
        REFERENCE: lambda asked, limits: _alone(trained, asked, limits),
        "generate(), padded batches": lambda asked, limits: _padded(trained, asked, limits),
        CONTINUOUS[0]: lambda asked, limits: _continuous(trained, asked, limits, 1),
        CONTINUOUS[1]: lambda asked, limits: _continuous(trained, asked, limits, AT_ONCE),
    }
    found = {}
    for name, answer in ways.items():
        torch.manual_seed(0)
        greedy = answer(requests, dict.fromkeys(Style, GREEDY))
        sampled = answer(requests, GENERATION_PRESETS)
        found[name] = describe(trained, requests, greedy, sampled)
        print(json.dumps({name: {**found[name], "answers": len(greedy)}}), flush=True)
    return {
        "provenance": collect(Path(__file__).resolve().parents[1]),
        "target": trained.target.name,
        "device": torch.cuda.get_device_name() if trained.model.device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "questions": question_count,
        "ways": found,
    }


def _alone(trained: Any, requests: Sequence[Request], limits: Mapping[Style, GenerationConfig]) -> list[Answer]:
    from pipeline.generation.generate import generate_with_style

    return [
        _answer(generate_with_style(trained.model, trained.tokenizer, text, style, config=limits[style]))
        for text, style in requests
    ]


def _padded(trained: Any, requests: Sequence[Request], limits: Mapping[Style, GenerationConfig]) -> list[Answer]:
    from pipeline.generation.generate import generate_batch

    found: dict[Request, Answer] = {}
    for style in Style:
        mine = [request for request in requests if request[1] == style]
        for start in range(0, len(mine), AT_ONCE):
            rows = mine[start : start + AT_ONCE]
            generations = generate_batch(trained.model, trained.tokenizer, rows, limits[style])
            found |= dict(zip(rows, map(_answer, generations), strict=True))
    return [found[request] for request in requests]


def _continuous(
    trained: Any, requests: Sequence[Request], limits: Mapping[Style, GenerationConfig], at_once: int
) -> list[Answer]:
    from pipeline.engines.interface import AnswerRequest
    from pipeline.engines.selection import open_local

    engine = open_local("continuous", trained.model, trained.tokenizer, max_in_flight=at_once)
    try:
        found: list[Answer] = []
        for start in range(0, len(requests), at_once):
            rows = requests[start : start + at_once]
            tickets = [engine.submit(AnswerRequest(text, style, PATIENCE_S, limits[style])) for text, style in rows]
            found += [_answer(ticket.result()) for ticket in tickets]
        return found
    finally:
        engine.close()


def _answer(generation: Any) -> Answer:
    return generation.token_ids, generation.finish_reason == "eos"


def describe(
    trained: Any, requests: Sequence[Request], greedy: Sequence[Answer], sampled: Sequence[Answer]
) -> dict[str, Any]:
    """Score greedy answers, and answers sampled with the styles' presets."""
    from pipeline.generation.scoring import sampling_surprise

    gaps = [gap for request, answer in zip(requests, greedy, strict=True) for gap in _gaps(trained, request, answer)]
    surprises: dict[Style, list[tuple[float | None, float]]] = {style: [] for style in Style}
    for request, (ids, ended) in zip(requests, sampled, strict=True):
        read = sampling_surprise(trained.model, trained.tokenizer, request, ids, ended=ended)
        surprises[request[1]] += zip(*read, strict=True)
    return {
        "token_ids": [list(ids) for ids, _ in greedy],
        "tokens": len(gaps),
        "tokens_not_likeliest": sum(gap > 0 for gap in gaps),
        "largest_gap_nats": max(gaps),
        "median_tokens": {style.value: _median_length(requests, greedy, style) for style in Style},
        "sampled": {style.value: _excess(tokens) for style, tokens in surprises.items()},
        "sampled_median_tokens": {style.value: _median_length(requests, sampled, style) for style in Style},
    }


def _excess(tokens: Sequence[tuple[float | None, float]]) -> dict[str, float]:
    inside = [(surprise, variance) for surprise, variance in tokens if surprise is not None]
    return {
        "tokens": len(tokens),
        "outside": len(tokens) - len(inside),
        "excess_nats": fmean(surprise for surprise, _ in inside),
        "standard_error_nats": sum(variance for _, variance in inside) ** 0.5 / len(inside),
    }


def _median_length(requests: Sequence[Request], answers: Sequence[Answer], style: Style) -> float:
    return median([len(ids) for (_, asked), (ids, _) in zip(requests, answers, strict=True) if asked == style])


def _gaps(trained: Any, request: Request, answer: Answer) -> list[float]:
    """For each token, how much likelier the likeliest one was, in nats."""
    from pipeline.generation.scoring import answer_logits

    logits, tokens = answer_logits(trained.model, trained.tokenizer, request, answer[0], ended=answer[1])
    gaps: list[float] = (logits.amax(-1) - logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)).tolist()
    return gaps


def disagreements(ways: Mapping[str, Any]) -> list[str]:
    """Violations of the limits by the continuous engine; empty if there are none."""
    found = []
    for name in CONTINUOUS:
        if not ways[name]["largest_gap_nats"] <= GAP_LIMIT_NATS:
            found.append(f"{name}: another token was {ways[name]['largest_gap_nats']:.2f} nats likelier")
        for style, drawn in ways[name]["sampled"].items():
            if not abs(drawn["excess_nats"]) <= EXCESS_LIMIT_ERRORS * drawn["standard_error_nats"]:
                found.append(f"{name}: sampled {style} tokens are off by {_with_error(drawn)}")
            if not drawn["outside"] <= ROUNDED_OUT_SHARE * drawn["tokens"]:
                found.append(f"{name}: {drawn['outside']} of {drawn['tokens']} {style} tokens outside the nucleus")
    return found


def _with_error(drawn: Mapping[str, float]) -> str:
    return f"{drawn['excess_nats']:+.3f} ± {drawn['standard_error_nats']:.3f} nats/token"


def to_markdown(ways: Mapping[str, Any]) -> str:
    """A table with one row for each way of generating."""
    reference = ways[REFERENCE]["token_ids"]
    rows = [
        (
            name,
            f"{sum(token_divergence(*pair) is None for pair in zip(reference, way['token_ids'], strict=True))}"
            f" of {len(reference)}",
            f"{way['tokens_not_likeliest']} of {way['tokens']:,}",
            f"{way['largest_gap_nats']:.2f} nats",
            " / ".join(f"{way['median_tokens'][style.value]:g}" for style in Style),
            *(_with_error(way["sampled"][style.value]) for style in Style),
            " / ".join(f"{way['sampled'][style.value]['outside']}" for style in Style),
        )
        for name, way in ways.items()
    ]
    headers = (
        "answers of",
        "greedy: the same as alone",
        "tokens not the likeliest when read again",
        "largest gap",
        "median tokens, terse / verbose",
        "sampled terse, surprise over entropy",
        "sampled verbose, surprise over entropy",
        "outside the nucleus, terse / verbose",
    )
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def main() -> int:
    """Measure, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a completed run")
    parser.add_argument("--output", type=Path, required=True, help="folder for agreement.json and agreement.md")
    parser.add_argument("--questions", type=int, default=12, help="number of questions, each asked in both styles")
    given = parser.parse_args()
    document = {
        "command": f"python -m benchmarks.engine_agreement --questions {given.questions}",
        **measure(RunFolder(given.run), given.questions),
    }
    write_text_atomically(given.output / "agreement.json", json.dumps(document) + "\n")
    write_text_atomically(given.output / "agreement.md", to_markdown(document["ways"]))
    found = disagreements(document["ways"])
    print(to_markdown(document["ways"]))
    print("\n".join(found) or "the engines agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
