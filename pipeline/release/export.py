"""Export a trained model as an ordinary model folder: adapter merged, checked by log-probabilities, with a card."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import Environment, StrictUndefined
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pipeline.compat import dtype_argument
from pipeline.config import GenerationConfig, Style
from pipeline.data.formats import read_questions
from pipeline.errors import PipelineError
from pipeline.files import ASSETS, HELD_OUT_QUESTIONS, building_folder, weights_digest, write_json, write_text
from pipeline.generation.generate import generate_batch
from pipeline.generation.scoring import token_nll
from pipeline.model.base_models import base_model_folder
from pipeline.model.dequantize import unpack
from pipeline.model.loading import LoadedModel, TrainedModel, load_trained, load_untrained
from pipeline.release.verify import check_verdict, read_verdict
from pipeline.run_folder import RunFolder

ExportDtype = Literal["float32", "bfloat16"]
MEAN_DIFFERENCE_LIMIT_NATS = 0.02
"""Limit of the mean signed change of a token's log-probability in the exported model."""
MEAN_ABSOLUTE_DIFFERENCE_LIMIT_NATS = 0.05
"""Limit of the mean absolute change of a token's log-probability; 4-bit inference in bfloat16 keeps eight bits."""
LEAST_LOSS_WITHOUT_ADAPTER = 5.0
"""Least ratio of the mean absolute change without the adapter to that of the export; otherwise the check could not
detect a lost adapter."""
PROOF_QUESTIONS = 6
_PROOF_LIMITS = GenerationConfig(max_new_tokens=48)


@dataclass(frozen=True, slots=True)
class Proof:
    """How the exported model scores the trained model's own answers.

    Attributes:
        answer_count: Greedy answers of the trained model, both styles.
        token_count: Tokens of those answers.
        mean_difference_nats: Mean of ln p(token | exported) - ln p(token | trained).
        mean_absolute_difference_nats: Mean of its absolute value.
        max_absolute_difference_nats: Largest absolute value.
        without_adapter_nats: The same mean for the base without the adapter, as a reference for a lost adapter.
    """

    answer_count: int
    token_count: int
    mean_difference_nats: float
    mean_absolute_difference_nats: float
    max_absolute_difference_nats: float
    without_adapter_nats: float

    @property
    def holds(self) -> bool:
        """Whether all limits are met; NaN never meets one."""
        return (
            abs(self.mean_difference_nats) <= MEAN_DIFFERENCE_LIMIT_NATS
            and self.mean_absolute_difference_nats <= MEAN_ABSOLUTE_DIFFERENCE_LIMIT_NATS
            and self.without_adapter_nats >= LEAST_LOSS_WITHOUT_ADAPTER * self.mean_absolute_difference_nats
        )


def export(
    run: RunFolder,
    output: Path,
    *,
    dtype: ExportDtype = "float32",
    verdict: Path | None = None,
    device: str | None = None,
    base_model: str | None = None,
) -> Proof:
    """Write a run's model as a folder that plain transformers loads, with adapter, tokenizer and model card.

    The 4-bit weights are unpacked and the adapter is merged in float32; merged into 4-bit weights it would be rounded
    away. The folder appears only after the written files were checked against the trained model.

    Args:
        run: A completed run.
        output: Folder to write; it must be empty or not exist.
        dtype: Type of the written weights; bfloat16 takes half the space and rounds the adapter's contribution.
        verdict: ``verdict.json`` that accepts this run, for the model card.
        device: ``cpu`` or ``cuda``, where the trained model is loaded; None takes the run's own.
        base_model: Folder of the base weights, for targets with local weights.

    Returns:
        The proof, as in ``export.json``.

    Raises:
        PipelineError: The run is not usable, the verdict does not accept it, the output exists, or the check failed.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PipelineError(f"{output}: already exists; choose another --output.")
    if verdict is not None and (complaints := check_verdict(verdict, run, base_model=base_model, device=device)):
        raise PipelineError(f"{verdict}: does not accept {run.path}: {'; '.join(complaints)}.")
    trained = load_trained(run, device=device, base_model=base_model)
    answers = _answers(trained)
    expected = _log_probabilities(trained.model, trained.tokenizer, answers)
    with building_folder(output) as folder:
        _write_merged(trained, base_model_folder(trained.target, base_model), folder, getattr(torch, dtype))
        trained.tokenizer.save_pretrained(folder)
        del trained
        _write_adapter(run, folder)
        proof = _prove(folder, dtype, answers, expected, load_untrained(run, device=device, base_model=base_model))
        if not proof.holds:
            raise PipelineError(f"{output}: not written, since the exported model answers differently: {proof}")
        write_json(folder / "export.json", {"dtype": dtype, "proof": asdict(proof)})
        write_text(folder / "README.md", _card(run, folder, dtype, proof, verdict))
    return proof


def _answers(trained: TrainedModel) -> list[tuple[str, Style, tuple[int, ...]]]:
    questions = [question.text for question in read_questions(HELD_OUT_QUESTIONS)[:PROOF_QUESTIONS]]
    requests = [(question, style) for style in Style for question in questions]
    generations = generate_batch(trained.model, trained.tokenizer, requests, _PROOF_LIMITS)
    answers = [(*request, answer.token_ids) for request, answer in zip(requests, generations, strict=True)]
    return [answer for answer in answers if answer[2]]


def _log_probabilities(model: Any, tokenizer: Any, answers: list[tuple[str, Style, tuple[int, ...]]]) -> torch.Tensor:
    nll = token_nll(model, tokenizer, answers)
    return -torch.tensor([value for row in nll for value in row], dtype=torch.float64)


def _prove(
    folder: Path,
    dtype: ExportDtype,
    answers: list[tuple[str, Style, tuple[int, ...]]],
    expected: torch.Tensor,
    untrained: LoadedModel,
) -> Proof:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    exported = AutoModelForCausalLM.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        **dtype_argument(getattr(torch, dtype)),
    ).eval()
    difference = _log_probabilities(exported, tokenizer, answers) - expected
    lost = _log_probabilities(untrained.model, untrained.tokenizer, answers) - expected
    return Proof(
        answer_count=len(answers),
        token_count=len(expected),
        mean_difference_nats=difference.mean().item(),
        mean_absolute_difference_nats=difference.abs().mean().item(),
        max_absolute_difference_nats=difference.abs().max().item(),
        without_adapter_nats=lost.abs().mean().item(),
    )


def _write_merged(trained: TrainedModel, base_folder: Path, folder: Path, dtype: torch.dtype) -> None:
    model = unpack(trained.model, dtype, merge=True)
    if isinstance(head := model.get_output_embeddings(), torch.nn.Linear):
        # A head tied to the embeddings would also get the trained rows, which are merged in place.
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    merged = model.merge_and_unload()
    config = AutoConfig.from_pretrained(base_folder, trust_remote_code=False, local_files_only=True)
    config.vocab_size = merged.get_input_embeddings().weight.shape[0]
    config.tie_word_embeddings = False
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, **dtype_argument(dtype))
    state = {name: tensor.to("cpu", dtype) for name, tensor in merged.state_dict().items()}
    plain.load_state_dict(state, strict=True, assign=True)
    plain.generation_config = merged.generation_config
    plain.generation_config.eos_token_id = trained.tokenizer.eos_token_id
    plain.generation_config.pad_token_id = trained.tokenizer.pad_token_id
    plain.save_pretrained(folder, safe_serialization=True)


def _write_adapter(run: RunFolder, folder: Path) -> None:
    # PEFT's own card is an empty form that names a local folder.
    shutil.copytree(run.adapter, folder / "adapter", ignore=shutil.ignore_patterns("README.md"))
    for path in [*folder.glob("tokenizer*"), *folder.glob("*.jinja"), *folder.glob("special_tokens_map.json")]:
        shutil.copyfile(path, folder / "adapter" / path.name)


def _card(run: RunFolder, folder: Path, dtype: ExportDtype, proof: Proof, verdict: Path | None) -> str:
    losses = [row["loss"] for row in run.read_metrics()]
    fifth = max(1, len(losses) // 5)
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["figure"] = _figure
    template = environment.from_string((ASSETS / "model_card.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        record=run.read_record(),
        verdict=read_verdict(verdict) if verdict else None,
        dtype=dtype,
        proof=proof,
        sha256=weights_digest(folder),
        first_loss=sum(losses[:fifth]) / fifth,
        last_loss=sum(losses[-fifth:]) / fifth,
    )


def _figure(value: Any) -> str:
    """Format a measurement: shares as counts, other numbers to four digits."""
    if isinstance(value, dict) and {"successes", "trials"} <= value.keys():
        return f"{value['successes']} of {value['trials']}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
