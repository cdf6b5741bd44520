"""The documented success criteria as data: what must be measured, and what counts as success."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Comparison = Literal["<", "<=", ">", ">=", "=="]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Bound:
    """One threshold on one measure.

    Attributes:
        measure: Name of the measure, unit included where it has one.
        comparison: How the measured value stands to the threshold on success.
        threshold: A finite number, or a boolean that the measure must equal.
        unit: Unit for display; empty for shares, ratios and booleans.
    """

    measure: str
    comparison: Comparison
    threshold: float | bool
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse a bound that could never be decided."""
        if self.comparison not in _OPERATORS:
            raise ValueError(f"{self.measure}: unknown comparison {self.comparison!r}")
        if isinstance(self.threshold, bool):
            if self.comparison != "==":
                raise ValueError(f"{self.measure}: a boolean threshold is compared with ==")
        elif not _is_finite_number(self.threshold):
            raise ValueError(f"{self.measure}: the threshold must be finite, got {self.threshold!r}")

    def holds(self, value: object) -> bool:
        """Return whether `value` meets the bound; NaN, infinities, None and other types never do."""
        if isinstance(self.threshold, bool):
            return isinstance(value, bool) and value is self.threshold
        return _is_finite_number(value) and _OPERATORS[self.comparison](value, self.threshold)

    def describe(self) -> str:
        """Return the bound as text, for example `terse_median_tokens < 50 tokens`."""
        return f"{self.measure} {self.limit}"

    @property
    def limit(self) -> str:
        """The bound without its measure, for example `< 50 tokens`."""
        threshold = str(self.threshold) if isinstance(self.threshold, bool) else f"{self.threshold:g}"
        return f"{self.comparison} {threshold} {self.unit}".rstrip()


def _is_finite_number(value: object) -> bool:
    # bool is a subclass of int: True must not pass for 1.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


@dataclass(frozen=True)
class Criterion:
    """One documented success criterion.

    Attributes:
        id: `group.name`, as used by the `criterion` mark.
        sentence: The documented sentence.
        bounds: All must hold.
        source: Where the sentence and the statistics come from.
        needs_learned_weights: Whether random weights can say nothing about it.
    """

    id: str
    sentence: str
    bounds: tuple[Bound, ...]
    source: str
    needs_learned_weights: bool = False

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def required_measures(self) -> tuple[str, ...]:
        """Names of the measures that a test must record, in order."""
        return tuple(bound.measure for bound in self.bounds)


_TRAINING = "golden document, success criteria: training"
_STYLE = "golden document, success criteria: style"
_DEPLOYMENT = "golden document, success criteria: deployment"

_CRITERIA = (
    Criterion(
        "training.loads_in_4bit",
        "Model loads in 4-bit",
        (
            Bound("is_loaded_in_4bit", "==", True),
            Bound("nf4_double_quant_linear_share", "==", 1.0),
            Bound("linear_bits_per_parameter", "<=", 4.6, "bits"),
        ),
        f"{_TRAINING}; Dettmers et al. 2023, QLoRA: NF4 with double quantisation takes 4.127 bits each",
    ),
    Criterion(
        "training.gpu_memory",
        "Training uses less than 12 GB of GPU memory",
        (Bound("peak_memory_gib", "<", 12.0, "GiB"),),
        _TRAINING,
    ),
    Criterion(
        "training.completes",
        "Training completes",
        (Bound("exit_status", "==", 0), Bound("completed_step_share", "==", 1.0)),
        _TRAINING,
    ),
    Criterion(
        "training.loss_converges",
        "Training loss falls",
        (
            Bound("non_finite_loss_count", "==", 0, "losses"),
            Bound("last_to_first_fifth_loss_ratio", "<", 1.0),
            Bound("loss_kendall_tau", "<", 0.0),
            Bound("loss_kendall_p_value", "<", 0.05),
        ),
        f"{_TRAINING}; project: one-sided Kendall test of the loss against the step",
        needs_learned_weights=True,
    ),
    Criterion(
        "training.adapter_saves",
        "The adapter is saved",
        (
            Bound("missing_tensor_count", "==", 0, "tensors"),
            Bound("non_finite_tensor_count", "==", 0, "tensors"),
            Bound("unmoved_lora_b_count", "==", 0, "tensors"),
            Bound("digest_matches", "==", True),
            Bound("reloads", "==", True),
        ),
        f"{_TRAINING}; project: lora_B starts at zero, so one that is still zero was not trained",
    ),
    Criterion(
        "style.token_separation",
        "TERSE answers stay under 50 tokens, VERBOSE answers exceed 80",
        (
            Bound("question_count", ">=", 20, "questions"),
            Bound("terse_median_tokens", "<", 50, "tokens"),
            Bound("terse_in_bound_share", ">=", 0.9),
            Bound("verbose_median_tokens", ">", 80, "tokens"),
            Bound("verbose_in_bound_share", ">=", 0.9),
            Bound("preset_terse_median_tokens", "<", 50, "tokens"),
            Bound("preset_verbose_median_tokens", ">", 80, "tokens"),
        ),
        f"{_STYLE}; project: an answer is in bound when it ended by itself on its style's side; 9 of 10 must",
        needs_learned_weights=True,
    ),
    Criterion(
        "style.consistency",
        "Style is consistent",
        (
            Bound("question_count", ">=", 20, "questions"),
            Bound("ordered_question_share", ">=", 0.9),
            Bound("own_side_answer_share", ">=", 0.9),
        ),
        f"{_STYLE}; project: VERBOSE longer than TERSE in every decoding of a question, and answers on their"
        " style's side of 65 tokens, the midpoint of 50 and 80",
        needs_learned_weights=True,
    ),
    Criterion(
        "style.generation_speed",
        "Generation takes less than 30 seconds",
        (
            Bound("response_count", ">=", 4, "responses"),
            Bound("terse_latency_max_s", "<", 30.0, "s"),
            Bound("verbose_latency_max_s", "<", 30.0, "s"),
        ),
        _STYLE,
    ),
    Criterion(
        "style.no_repetition",
        "Answers do not repeat themselves",
        (
            Bound("answer_count", ">=", 20, "answers"),
            Bound("seq_rep_4_mean", "<", 0.10),
            Bound("looping_answer_share", "<=", 0.10),
        ),
        f"{_STYLE}; Welleck et al. 2020, Neural Text Generation with Unlikelihood Training: seq-rep-4 is"
        " about 0.006 for human text and 0.44 for greedy maximum-likelihood text, so at 0.44 an answer loops",
        needs_learned_weights=True,
    ),
    Criterion(
        "deployment.server_starts",
        "The server starts",
        (Bound("ready", "==", True), Bound("startup_s", "<", 120.0, "s")),
        f"{_DEPLOYMENT}; project: two minutes to readiness",
    ),
    Criterion(
        "deployment.health_endpoint",
        "GET /health answers",
        (
            Bound("status_code", "==", 200),
            Bound("missing_field_count", "==", 0, "fields"),
            Bound("identity_matches", "==", True),
        ),
        _DEPLOYMENT,
    ),
    Criterion(
        "deployment.generate_endpoint",
        "POST /generate answers",
        (Bound("response_count", ">=", 2, "responses"), Bound("valid_response_share", "==", 1.0)),
        _DEPLOYMENT,
    ),
    Criterion(
        "deployment.error_handling",
        "Malformed requests are refused",
        (
            Bound("case_count", ">=", 10, "cases"),
            Bound("wrong_status_count", "==", 0, "cases"),
            Bound("non_json_body_count", "==", 0, "cases"),
            Bound("healthy_after", "==", True),
        ),
        _DEPLOYMENT,
    ),
)

DOCUMENTED: Mapping[str, Criterion] = MappingProxyType({criterion.id: criterion for criterion in _CRITERIA})
"""Every documented criterion by id, in the document's order."""
