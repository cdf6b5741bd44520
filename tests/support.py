"""Helpers shared by tests of several folders."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipeline.config import TARGETS, GenerationConfig, Style, resolve_preset
from pipeline.files import TRAINING_DATA
from pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.generation.generate import Generation
    from pipeline.model.loading import LoadedModel
    from pipeline.training.train import TrainingRequest

ANNOUNCEMENT = "listening on "
VERBOSITY = [sys.executable, "-m", "pipeline.cli"]
"""The command line under test; sabotage replaces it with a broken one."""
TINY = TARGETS["tiny-mistral"]


def tiny_request(output: Path, preset: str = "lean", **overrides: Any) -> TrainingRequest:
    """A run on the tiny target over the first few shipped examples."""
    from pipeline.training.train import TrainingRequest

    resolved = resolve_preset(preset, TINY, **{"max_examples": 16, **overrides})
    return TrainingRequest(TINY, resolved, TRAINING_DATA, output, "cpu")


@dataclass(frozen=True)
class TrainingOutcome:
    """A training process that ended, successfully or not."""

    run: RunFolder
    exit_status: int


@dataclass(frozen=True)
class Answers:
    """Answers to the held-out questions, in their order.

    Attributes:
        unconstrained: Greedy with a high cap, one per question.
        presets: Under the documented presets, by sampling seed, for the first questions.
    """

    unconstrained: dict[Style, list[Generation]]
    presets: dict[int, dict[Style, list[Generation]]]

    @property
    def decodings(self) -> list[dict[Style, list[Generation]]]:
        """The unconstrained decoding and each sampled one."""
        return [self.unconstrained, *self.presets.values()]

    @property
    def every(self) -> list[Generation]:
        """All answers."""
        return [answer for decoding in self.decodings for answers in decoding.values() for answer in answers]


@dataclass(frozen=True)
class Counterfactuals:
    """Greedy answers to the first questions, each arm with one thing changed.

    Attributes:
        no_token: The trained model without a style token.
        adapter_off: The base model without the adapter, with each token.
        swapped: The trained model with the two tokens' rows swapped.
    """

    no_token: list[Generation]
    adapter_off: dict[Style, list[Generation]]
    swapped: dict[Style, list[Generation]]


def greedy_record(model: LoadedModel, question: str, style: Style, config: GenerationConfig) -> dict[str, Any]:
    """A greedy answer as ``harness.snapshots.compare`` takes it, with the likeliest tokens of every step."""
    from pipeline.generation.scoring import greedy_with_log_probabilities

    answer, likeliest = greedy_with_log_probabilities(model.model, model.tokenizer, question, style, config)
    return {
        "text": answer.text,
        "token_ids": list(answer.token_ids),
        "token_count": answer.token_count,
        "finish_reason": answer.finish_reason,
        "top5": [[[token, round(value, 4)] for token, value in step] for step in likeliest],
    }


@dataclass
class ServerProcess:
    """``verbosity serve`` on a free port.

    Attributes:
        arguments: Arguments after ``serve --port 0``.
        log_file: Where the server's standard error goes.
        start_limit_s: Seconds after which a server that has not announced itself is killed.
    """

    arguments: list[str]
    log_file: Path
    start_limit_s: float = 120.0
    url: str | None = None
    startup_s: float = float("nan")

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*VERBOSITY, "serve", "--port", "0", *self.arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        watchdog = threading.Timer(self.start_limit_s, self.process.kill)
        watchdog.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:  # ends when the server announces itself, exits or is killed
            if line.startswith(ANNOUNCEMENT):
                self.url = line.removeprefix(ANNOUNCEMENT).strip()
                self.startup_s = time.perf_counter() - started
                break
        watchdog.cancel()
        return self

    def stop(self) -> int:
        """Ask the server to end and return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
