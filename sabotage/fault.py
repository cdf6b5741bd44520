"""A broken pipeline as data, and short names of the criteria that catch one.

A fault is injected by replacing functions of the pipeline in the processes under test (``inject``), or by damaging a
finished run (``damage``). Nothing of the gate is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.run_folder import RunFolder

ADAPTER_SAVES, COMPLETES, CONVERGES = "training.adapter_saves", "training.completes", "training.loss_converges"
DURATION = "training.duration"
FOUR_BIT, MEMORY = "training.loads_in_4bit", "training.gpu_memory"
SEPARATION, CONSISTENCY, SPEED = "style.token_separation", "style.consistency", "style.generation_speed"
REPETITION, COHERENCE = "style.no_repetition", "style.coherence"
STARTS, HEALTH = "deployment.server_starts", "deployment.health_endpoint"
GENERATE, ERRORS = "deployment.generate_endpoint", "deployment.error_handling"
LOAD, SERVED = "deployment.under_load", "deployment.served_answers"
STYLE = (SEPARATION, CONSISTENCY, REPETITION, COHERENCE)
ANSWERS = (GENERATE, LOAD, SERVED)


@dataclass(frozen=True)
class Fault:
    """One broken pipeline.

    Attributes:
        name: Its name on the command line.
        what: What is broken, in one line.
        catches: Criteria that must turn to FAIL; none for a blind spot.
        may_follow: Criteria that depend on what is broken, and may FAIL or be UNDECIDED too.
        learned: Whether it shows on learned weights only; otherwise the tiny target is enough.
        trains: Whether the run is trained under the fault; otherwise a healthy run is judged under it.
        inject: Replaces functions of the pipeline in this process.
        damage: Damages a copy of a healthy run.
        seen: Address of a public thread about it, where it happened to others.
        blind_spot: Why no criterion can honestly claim to catch it, where none does.
    """

    name: str
    what: str
    catches: tuple[str, ...]
    may_follow: tuple[str, ...] = ()
    learned: bool = False
    trains: bool = False
    inject: Callable[[], None] | None = None
    damage: Callable[[RunFolder], None] | None = None
    seen: str = ""
    blind_spot: str = ""

    @property
    def target(self) -> Literal["smollm2-135m", "tiny-mistral"]:
        """The target that it runs on."""
        return "smollm2-135m" if self.learned else "tiny-mistral"
