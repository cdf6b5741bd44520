"""The documented success criteria as data, with the statistics that the project chose for each sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from acceptance.early import EARLY
from harness.answers import Answer
from harness.criteria import Bound, Criterion, Need
from harness.criteria_set import CriteriaSet, MeasuresOfAnswers

_LEARNED = (Need.LEARNED_WEIGHTS,)
_MODEL = (Need.MODEL,)
_CONFIDENCE = 0.95

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
        needs=_MODEL,
    ),
    Criterion(
        "training.gpu_memory",
        "Training uses less than 12 GB of GPU memory",
        (Bound("peak_memory_gib", "<", 12.0, "GiB"),),
        _TRAINING,
        needs=_MODEL,
    ),
    Criterion(
        "training.completes",
        "Training completes",
        (Bound("exit_status", "==", 0), Bound("completed_step_share", "==", 1.0)),
        _TRAINING,
        needs=_MODEL,
    ),
    Criterion(
        "training.duration",
        "Training on 1600 examples takes at most 45 minutes",
        (Bound("duration_of_1600_examples_s", "<=", 2700.0, "s"),),
        "golden document, expected times: 30 to 45 minutes on an A10G; project: at the rate of the run at hand",
        needs=_MODEL,
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
        needs=(Need.MODEL, Need.LEARNED_WEIGHTS),
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
        needs=_MODEL,
    ),
    Criterion(
        "style.token_separation",
        "TERSE answers stay under 50 tokens, VERBOSE answers exceed 80",
        (
            Bound("question_count", ">=", 20, "questions"),
            Bound("terse_median_tokens", "<", 50, "tokens", needs=_MODEL),
            Bound("terse_in_bound_share", ">=", 0.9, confidence=_CONFIDENCE, needs=_MODEL),
            Bound("verbose_median_tokens", ">", 80, "tokens", needs=_MODEL),
            Bound("verbose_in_bound_share", ">=", 0.9, confidence=_CONFIDENCE, needs=_MODEL),
            Bound("preset_terse_median_tokens", "<", 50, "tokens"),
            Bound("preset_terse_whole_share", ">=", 0.5, confidence=_CONFIDENCE),
            Bound("preset_verbose_median_tokens", ">", 80, "tokens"),
        ),
        f"{_STYLE}; project: an answer is in bound when it ended by itself on its style's side, and of all questions of"
        " the kind 9 in 10 must; preset medians are the worst of the seeds; the TERSE preset cuts at 32 tokens, so half"
        " of its answers must end as a sentence does",
        needs=_LEARNED,
    ),
    Criterion(
        "style.consistency",
        "Style is consistent",
        (
            Bound("question_count", ">=", 20, "questions"),
            Bound("ordered_question_share", ">=", 0.9, confidence=_CONFIDENCE),
            Bound("own_side_question_share", ">=", 0.9, confidence=_CONFIDENCE),
            Bound("token_effect_low_tokens", ">", 30, "tokens"),
            Bound("adapter_effect_low_tokens", ">", 0, "tokens", needs=_MODEL),
            Bound("swapped_order_share", ">=", 0.8, confidence=_CONFIDENCE, needs=_MODEL),
        ),
        f"{_STYLE}; project: in every decoding of a question VERBOSE is longer than TERSE, and both lie on their"
        " style's side of 65 tokens, the midpoint of 50 and 80. The token causes it: the mean difference exceeds the"
        " documented gap of 30 tokens, exceeds what the base model shows without the adapter, and turns round when the"
        " two tokens' rows are swapped (95 % bootstrap intervals over questions)",
        needs=_LEARNED,
    ),
    Criterion(
        "style.generation_speed",
        "Generation takes less than 30 seconds",
        (
            Bound("warm_up_count", ">=", 1, "responses"),
            Bound("response_count", ">=", 12, "responses"),
            Bound("terse_latency_max_s", "<", 30.0, "s"),
            Bound("verbose_latency_max_s", "<", 30.0, "s"),
        ),
        f"{_STYLE}; project: no answer may take longer; p50, p95 and p99 are recorded beside the maximum",
    ),
    Criterion(
        "style.no_repetition",
        "Answers do not repeat themselves",
        (
            Bound("answer_count", ">=", 20, "answers"),
            Bound("seq_rep_4_mean", "<", 0.10),
            Bound("looping_answer_share", "<=", 0.10, confidence=_CONFIDENCE),
            Bound("long_repeat_answer_share", "<=", 0.10, confidence=_CONFIDENCE),
        ),
        f"{_STYLE}; Welleck et al. 2020, Neural Text Generation with Unlikelihood Training: seq-rep-4 is"
        " about 0.006 for human text and 0.44 for greedy maximum-likelihood text, so at 0.44 an answer loops; project:"
        " a span of 32 tokens, a whole TERSE answer, said twice is a long repeat",
        needs=_LEARNED,
    ),
    Criterion(
        "deployment.server_starts",
        "The server starts",
        (Bound("ready", "==", True), Bound("startup_s", "<", 120.0, "s")),
        f"{_DEPLOYMENT}; project: two minutes to readiness",
        needs=_MODEL,
    ),
    Criterion(
        "deployment.health_endpoint",
        "GET /health answers",
        (
            Bound("status_code", "==", 200),
            Bound("missing_field_count", "==", 0, "fields"),
            Bound("identity_matches", "==", True, needs=_MODEL),
        ),
        _DEPLOYMENT,
    ),
    Criterion(
        "deployment.generate_endpoint",
        "POST /generate answers",
        (
            Bound("response_count", ">=", 6, "responses"),
            Bound("valid_response_share", "==", 1.0),
            Bound("miscounted_response_count", "==", 0, "responses", needs=_LEARNED),
            Bound("misplaced_answer_count", "==", 0, "responses", needs=_LEARNED),
        ),
        f"{_DEPLOYMENT}; project: `tokens` agrees with the text within 2 tokens or a tenth, and of requests sent at"
        " once no answer names the subject of another question instead of its own",
    ),
    Criterion(
        "deployment.under_load",
        "Requests are answered under load",
        (
            Bound("client_count", ">=", 8, "clients"),
            Bound("question_count", ">=", 24, "questions"),
            Bound("answered_question_share", "==", 1.0),
            Bound("wrong_reply_count", "==", 0, "replies"),
            Bound("answer_latency_max_s", "<", 30.0, "s"),
            Bound("health_latency_p95_s", "<", 1.0, "s"),
            Bound("misplaced_answer_count", "==", 0, "responses", needs=_LEARNED),
        ),
        f"{_DEPLOYMENT}; project: the 30 seconds of one answer hold for each of 8 clients that ask without a pause. A"
        " server may refuse what it cannot answer in time, with 503 and Retry-After within a second, and the client"
        " asks again; every question is answered in the end. /health answers 200 throughout, nearly always within the"
        " second that a Kubernetes probe waits by default",
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

_TIMED: Mapping[str, frozenset[str]] = {
    "training.duration": frozenset({"duration_of_1600_examples_s"}),
    "style.generation_speed": frozenset({"terse_latency_max_s", "verbose_latency_max_s"}),
    "deployment.server_starts": frozenset({"ready", "startup_s"}),
    "deployment.generate_endpoint": frozenset({"valid_response_share", "miscounted_response_count"}),
    "deployment.under_load": frozenset(
        {"answered_question_share", "wrong_reply_count", "answer_latency_max_s", "health_latency_p95_s"}
    ),
}


def _measure(criterion_id: str, answers: Sequence[Answer]) -> Mapping[str, object]:
    from acceptance.measures import FROM_ANSWERS  # imports scipy, which few users of the criteria need

    return FROM_ANSWERS[criterion_id](answers)


_KEPT = ("style.token_separation", "style.consistency", "style.generation_speed", "style.no_repetition")
_FROM_ANSWERS: Mapping[str, MeasuresOfAnswers] = {id_: partial(_measure, id_) for id_ in _KEPT}

DOCUMENTED = CriteriaSet("verbosity", _CRITERIA, _TIMED, _FROM_ANSWERS, {"style.token_separation": EARLY})
"""Every documented criterion by id, in the document's order."""
