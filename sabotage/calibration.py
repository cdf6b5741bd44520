"""How often the statistical criteria are wrong: operating curves and flip rates (``make calibration``).

No model is loaded: committed answers are judged. Lengths of real answers are resampled by question; what a result file
counts but does not list, such as looping answers, is drawn again (binomial). A broken answer replaces a healthy one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acceptance.answers import consistency
from acceptance.criteria import DOCUMENTED
from acceptance.test_coherence import COHERENCE
from harness import provenance
from harness.effects import mean_difference_interval
from harness.files import write_text_atomically
from harness.metrics import loss_trend
from harness.statistics import Proportion
from harness.verdict import Outcome, outcome_of
from pipeline.config import UNCONSTRAINED, Style
from pipeline.data.style import TERSE_LIMIT_TOKENS, VERBOSE_FLOOR_TOKENS
from sabotage.calibration_table import to_markdown

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "results" / "smollm2-135m"
DOSES_PERCENT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)
REPEATS = 1000
JUDGEMENTS = 300
"""How often the same model is judged for its flip rate."""
RESAMPLES = 200
"""Bootstrap samples inside one judgement; the gate takes ten times as many, for the same limits but for noise."""
LOOP_REPETITION = 0.97
"""seq-rep-4 of an answer of 256 tokens that repeats its first eight."""
REPLIES = {"deployment.generate_endpoint": 6, "deployment.under_load": 24, "deployment.served_answers": 24}
"""Replies of which none may be broken."""

Numbers = NDArray[Any]
Lengths = Mapping[Style, Numbers]
Measures = Mapping[str, object]
Judge = Callable[["Run", float, np.random.Generator], Measures]


@dataclass(frozen=True)
class Run:
    """Committed answers of one trained model.

    Attributes:
        name: Its folder below ``results``.
        lengths: Tokens of the greedy answers to the held-out questions, by style, in their order.
        untrained: The same of the base without the adapter.
        losses: Training loss of each step, in nats per token.
        measured: The measures of its acceptance.
    """

    name: str
    lengths: Lengths
    untrained: Lengths
    losses: Numbers
    measured: Measures

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read ``acceptance.json``, and the base's answers from the curve."""
        (subject,) = json.loads((folder / "acceptance.json").read_text(encoding="utf-8"))["subjects"]
        attached = {(a["name"], a["label"]): a["values"] for c in subject["criteria"] for a in c["attachments"]}
        judged = [c for c in subject["criteria"] if not c["id"].startswith("deployment.")]  # which use some names, too
        measured = {name: _value(value) for c in judged for name, value in c["measurements"].items()}
        lengths = {style: np.array(attached["answer length, unconstrained", style.value]) for style in Style}
        losses = np.array(attached["training loss", "loss"])
        return cls(folder.relative_to(MODEL).as_posix(), lengths, curve_lengths()[0], losses, measured)

    def drawn(self, name: str, rng: np.random.Generator, kept: float = 1.0) -> Proportion:
        """The share of that measure in another sample of its size, of which ``kept`` are unbroken."""
        share: Any = self.measured[name]
        return Proportion(int(rng.binomial(share.trials, kept * share.share)), share.trials)


def curve_lengths() -> dict[int, Lengths]:
    """Tokens of greedy answers to the held-out questions after training on so many examples."""
    points = json.loads((MODEL / "curve" / "curve.json").read_text(encoding="utf-8"))["points"]
    return {
        point["examples"]: {
            style: np.array([answer["tokens"] for answer in point["answers"][style.value]]) for style in Style
        }
        for point in points
    }


def _value(value: object) -> object:
    return Proportion(value["successes"], value["trials"]) if isinstance(value, dict) else value


def _answers(run: Run, broken: Lengths, dose: float, rng: np.random.Generator) -> dict[Style, Numbers]:
    """Answers to a sample of the questions, a share of the questions answered by ``broken``."""
    count = len(run.lengths[Style.TERSE])
    asked, is_broken = rng.integers(0, count, count), rng.random(count) < dose
    return {style: np.where(is_broken, broken[style][asked], run.lengths[style][asked]) for style in Style}


def _without_adapter(run: Run) -> Lengths:
    return run.untrained


def _style_ignored(run: Run) -> Lengths:
    return dict.fromkeys(Style, run.lengths[Style.VERBOSE])


def _separation(break_: Callable[[Run], Lengths]) -> Judge:
    def judge(run: Run, dose: float, rng: np.random.Generator) -> Measures:
        return separation(_answers(run, break_(run), dose, rng)) | {
            "preset_terse_whole_share": run.drawn("preset_terse_whole_share", rng),
            **{name: run.measured[name] for name in ("preset_terse_median_tokens", "preset_verbose_median_tokens")},
        }

    return judge


def separation(lengths: Lengths) -> dict[str, object]:
    """What ``style.token_separation`` measures of greedy answers."""
    terse, verbose = lengths[Style.TERSE], lengths[Style.VERBOSE]
    cap = UNCONSTRAINED.max_new_tokens
    return {
        "question_count": len(terse),
        "terse_median_tokens": float(np.median(terse)),
        "terse_in_bound_share": Proportion(int((terse < TERSE_LIMIT_TOKENS).sum()), len(terse)),
        "verbose_median_tokens": float(np.median(verbose)),
        "verbose_in_bound_share": Proportion(
            int(((verbose > VERBOSE_FLOOR_TOKENS) & (verbose < cap)).sum()), len(verbose)
        ),
    }


def _consistency(break_: Callable[[Run], Lengths]) -> Judge:
    def judge(run: Run, dose: float, rng: np.random.Generator) -> Measures:
        lengths = _answers(run, break_(run), dose, rng)
        pair = {style: [int(tokens) for tokens in lengths[style]] for style in Style}
        low, _ = mean_difference_interval(pair[Style.VERBOSE], pair[Style.TERSE], resamples=RESAMPLES)
        return {
            "question_count": len(pair[Style.TERSE]),
            **consistency([pair]),
            "token_effect_low_tokens": low,
            "adapter_effect_low_tokens": run.measured["adapter_effect_low_tokens"],
            "swapped_order_share": run.drawn("swapped_order_share", rng),
        }

    return judge


def _repetition(run: Run, dose: float, rng: np.random.Generator) -> Measures:
    loops = {name: run.drawn(name, rng) for name in ("looping_answer_share", "long_repeat_answer_share")}
    total = loops["looping_answer_share"].trials
    broken = int(rng.binomial(total, dose))
    mean: Any = run.measured["seq_rep_4_mean"]
    return {
        "answer_count": total,
        "seq_rep_4_mean": mean + (LOOP_REPETITION - mean) * broken / total,
        **{n: Proportion(min(total, broken + share.successes), total) for n, share in loops.items()},
    }


def _coherence(share: str) -> Judge:
    """Break one share; the others are as in the run."""
    names = ("ended_answer_share", "fluent_answer_share", "varied_answer_share")

    def judge(run: Run, dose: float, rng: np.random.Generator) -> Measures:
        drawn = {name: run.drawn(name, rng, 1 - dose if name == share else 1.0) for name in names}
        return {"reference_count": run.measured["reference_count"], **drawn}

    return judge


def _convergence(run: Run, dose: float, rng: np.random.Generator) -> Measures:
    losses = run.losses.copy()
    exchanged = np.flatnonzero(rng.random(len(losses)) < dose)
    losses[exchanged] = losses[rng.permutation(exchanged)]
    trend = loss_trend([float(loss) for loss in losses])
    return {name: getattr(trend, name) for name in DOCUMENTED["training.loss_converges"].required_measures}


CURVES: tuple[tuple[str, str, Judge], ...] = (
    ("style.token_separation", "questions answered without the adapter", _separation(_without_adapter)),
    ("style.token_separation", "questions whose style is ignored", _separation(_style_ignored)),
    ("style.consistency", "questions answered without the adapter", _consistency(_without_adapter)),
    ("style.consistency", "questions whose style is ignored", _consistency(_style_ignored)),
    ("style.no_repetition", "answers that loop", _repetition),
    ("style.coherence", "answers that do not end", _coherence("ended_answer_share")),
    ("style.coherence", "answers of shuffled words", _coherence("fluent_answer_share")),
    ("style.coherence", "answers that vary too little", _coherence("varied_answer_share")),
    ("training.loss_converges", "steps whose losses are exchanged", _convergence),
)
_CRITERIA = {**DOCUMENTED, COHERENCE.id: COHERENCE}


def outcome(criterion_id: str, measures: Measures) -> Outcome:
    """The outcome of a criterion, as the gate derives it from its bounds."""
    return outcome_of(bound.state(measures.get(bound.measure)) for bound in _CRITERIA[criterion_id].bounds)


def curve(run: Run, criterion_id: str, broken: str, judge: Judge, repeats: int) -> dict[str, Any]:
    """The operating curve of a criterion: how often it is FAIL and UNDECIDED at each dose of a fault."""
    rng = np.random.default_rng(0)
    points = []
    for percent in DOSES_PERCENT:
        found = [outcome(criterion_id, judge(run, percent / 100, rng)) for _ in range(repeats)]
        points.append(
            {"dose_percent": percent, "repeats": repeats}
            | {f"{kind.lower()}_count": found.count(kind) for kind in (Outcome.FAIL, Outcome.UNDECIDED)}
        )
    return {"criterion": criterion_id, "broken": broken, "points": points}


def flips(run: Run) -> dict[str, Any]:
    """How often one healthy model, judged by another sample of questions, does not pass."""
    rng = np.random.default_rng(1)
    healthy = {criterion_id: judge for criterion_id, _, judge in CURVES}  # at dose 0 each fault is the same
    missed = dict.fromkeys(healthy, 0)
    flipped = 0
    for _ in range(JUDGEMENTS):
        not_passed = [name for name, judge in healthy.items() if outcome(name, judge(run, 0.0, rng)) != Outcome.PASS]
        flipped += bool(not_passed)
        for name in not_passed:
            missed[name] += 1
    return {"run": run.name, "judgements": JUDGEMENTS, "flip_count": flipped, "not_passed": missed}


def graded(run: Run) -> list[dict[str, Any]]:
    """How runs of graded quality are judged on resampled questions: models trained on ever more examples."""
    rows = []
    for examples, lengths in curve_lengths().items():
        rng = np.random.default_rng(2)
        model = Run(f"{examples} examples", lengths, lengths, run.losses, run.measured)
        judge = _separation(_without_adapter)
        found = [outcome("style.token_separation", judge(model, 0.0, rng)) for _ in range(REPEATS)]
        counts = {f"{kind.lower()}_count": found.count(kind) for kind in (Outcome.FAIL, Outcome.UNDECIDED)}
        rows.append({"examples": examples, "repeats": REPEATS, **counts})
    return rows


def main() -> int:
    """Write ``calibration.json`` and its table."""
    parser = argparse.ArgumentParser(description="Estimate the gate's own error rates from committed answers.")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "sabotage", help="default: %(default)s")
    output = parser.parse_args().output
    provenance.require_clean(ROOT)
    runs = [Run.read(MODEL / name) for name in ("acceptance", "gpu/lean")]
    document = {
        "command": "make calibration",
        "provenance": provenance.collect(ROOT),
        "run": runs[0].name,
        "curves": [curve(runs[0], *of, REPEATS) for of in CURVES],
        "replies": [{"criterion": name, "reply_count": count} for name, count in REPLIES.items()],
        "flips": [flips(run) for run in runs],
        "graded": graded(runs[0]),
    }
    write_text_atomically(output / "calibration.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
    markdown = to_markdown(document)
    write_text_atomically(output / "calibration.md", markdown)
    print(markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
