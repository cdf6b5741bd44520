"""Answers for ``verbosity demo --quick``: what a run's model and its base without the adapter say under the presets.

Usage: ``python -m benchmarks.recorded_answers --run RUN``; the files lie in ``pipeline/assets/recorded``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from acceptance.crowd import QUESTIONS
from acceptance.test_deployment import AT_ONCE
from acceptance.test_endpoint import QUESTION_COUNT
from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.formats import read_questions
from pipeline.environment import apply_environment
from pipeline.files import HELD_OUT_QUESTIONS, RECORDED_ANSWERS
from pipeline.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
PLACES = 32


def record(loaded: Any, what: str, run: RunFolder) -> dict[str, Any]:
    """What a loaded model answers to every question that a judged server is asked."""
    from pipeline.engines.many import Asked, generate_many

    held_out = [question.text for question in read_questions(HELD_OUT_QUESTIONS)]
    questions = list(dict.fromkeys([*held_out[:QUESTION_COUNT], *QUESTIONS, *(text for text, _ in AT_ONCE)]))
    asked = [Asked(text, style, GENERATION_PRESETS[style], seed=7) for style in Style for text in questions]
    answers = generate_many(loaded.model, loaded.tokenizer, asked, at_once=PLACES)
    return {
        "what": what,
        "command": "python -m benchmarks.recorded_answers",
        "provenance": collect(ROOT),
        "target": loaded.target.name,
        "adapter_sha256": run.read_record()["adapter"]["sha256"],
        "answers": [
            {"question": one.prompt, "style": one.style, "text": answer.text, "tokens": answer.token_count}
            for one, answer in zip(asked, answers, strict=True)
        ],
    }


def main() -> None:
    """Record both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a completed run of the embedded model")
    run = RunFolder(parser.parse_args().run)
    apply_environment()
    from pipeline.model.loading import load_trained, load_untrained

    for name, load, what in (
        ("healthy", load_trained, "the trained model"),
        ("untuned", load_untrained, "the base model, its adapter left out"),
    ):
        text = json.dumps(record(load(run), what, run), indent=1, ensure_ascii=False) + "\n"
        write_text_atomically(RECORDED_ANSWERS / f"{name}.json", text)


if __name__ == "__main__":
    main()
