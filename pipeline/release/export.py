"""Export a trained model in a form that other engines load, proved by log-probabilities, with a model card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal

import torch
from jinja2 import Environment, StrictUndefined
from transformers import AutoTokenizer

from pipeline.errors import PipelineError
from pipeline.files import ASSETS, building_folder, sha256_of, weights_digest, write_json, write_text
from pipeline.model.base_models import base_model_folder
from pipeline.model.loading import load_trained, load_untrained
from pipeline.release.checkpoints import (
    ADAPTER,
    BASE,
    load_plain,
    load_unmerged,
    require_plain_lora,
    write_merged,
    write_unmerged,
)
from pipeline.release.gguf_files import (
    require_llama_cpp,
    score_with_llama_cpp,
    write_model,
    write_model_and_adapter,
)
from pipeline.release.proof import (
    ROUNDED_AGAIN,
    SAME_VALUES,
    Proof,
    ProofLimits,
    Score,
    compare,
    own_answers,
    score_with,
)
from pipeline.release.verify import check_verdict, read_verdict
from pipeline.run_folder import RunFolder

ExportFormat = Literal["merged", "adapter", "gguf", "gguf-adapter"]
UNMERGED, GGUF = ("adapter", "gguf-adapter"), ("gguf", "gguf-adapter")
_FLOAT_TYPES = {"float32": SAME_VALUES, "bfloat16": SAME_VALUES}
_GGUF_TYPES = {"f16": SAME_VALUES, "q8_0": SAME_VALUES, "q4_k_m": ROUNDED_AGAIN}
FORMATS: MappingProxyType[ExportFormat, dict[str, ProofLimits]] = MappingProxyType(
    {"merged": _FLOAT_TYPES, "adapter": _FLOAT_TYPES, "gguf": _GGUF_TYPES, "gguf-adapter": _GGUF_TYPES}
)
"""The types of weights that each format takes, the default first, and how far each may change a log-probability."""


def export(
    run: RunFolder,
    output: Path,
    *,
    form: ExportFormat = "merged",
    dtype: str | None = None,
    verdict: Path | None = None,
    device: str | None = None,
    base_model: str | None = None,
    converters: Path | None = None,
) -> Proof:
    """Write a run's model for other engines; the folder appears only after the written files were checked.

    Args:
        run: A completed run.
        output: Folder to write; it must be empty or not exist.
        form: ``merged``: a folder that plain transformers loads. ``adapter``: plain LoRA beside a base of unpacked
            weights. ``gguf`` and ``gguf-adapter``: the same two for llama.cpp.
        dtype: Type of the written weights, one of ``FORMATS``; None takes the format's first.
        verdict: ``verdict.json`` that accepts this run, for the model card.
        device: ``cpu`` or ``cuda``, where the trained model is loaded; None takes the run's own.
        base_model: Folder of the base weights, for targets with local weights.
        converters: Folder with llama.cpp's converters, for the GGUF formats.

    Returns:
        The proof, as in ``export.json``.

    Raises:
        PipelineError: The run is not usable, the verdict does not accept it, the output exists, the format does not
            suit the type or the adapter, or the check failed.
    """
    dtype = dtype or next(iter(FORMATS[form]))
    _require_suitable(run, output, form, dtype)
    if form in GGUF:
        converters = require_llama_cpp(converters)
    if verdict is not None and (complaints := check_verdict(verdict, run, base_model=base_model, device=device)):
        raise PipelineError(f"{verdict}: does not accept {run.path}: {'; '.join(complaints)}.")
    trained = load_trained(run, device=device, base_model=base_model)
    base_folder = base_model_folder(trained.target, base_model)
    answers = own_answers(trained)
    expected = score_with(trained.model)(trained.tokenizer, answers)
    with building_folder(output) as folder, TemporaryDirectory(dir=folder) as between:
        # GGUF files are converted from a folder of float32.
        plain = Path(between) if form in GGUF else folder
        plain_dtype = torch.float32 if form in GGUF else getattr(torch, dtype)
        if form not in UNMERGED:
            write_merged(trained, run, base_folder, plain, plain_dtype)
        del trained
        untrained = load_untrained(run, device=device, base_model=base_model)
        lost = score_with(untrained.model)(untrained.tokenizer, answers)
        if form in UNMERGED:
            write_unmerged(untrained, run, base_folder, plain, plain_dtype)
        del untrained
        if converters is not None:
            convert = write_model_and_adapter if form in UNMERGED else write_model
            convert(plain, base_folder, folder, converters, dtype)
        found = _score_of(form, folder, plain_dtype)(_tokenizer(plain, form), answers)
        proof = compare(expected, found, lost, FORMATS[form][dtype])
        _require_proof(proof, output, dtype)
        digests = _digests(folder, form)
        content = {"format": form, "dtype": dtype, "sha256": digests, "proof": asdict(proof)}
        write_json(folder / "export.json", content)
        write_text(folder / "README.md", _card(run, content, proof, verdict))
    return proof


def _require_suitable(run: RunFolder, output: Path, form: ExportFormat, dtype: str) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PipelineError(f"{output}: already exists; choose another --output.")
    if dtype not in FORMATS[form]:
        raise PipelineError(f"--format {form} has no weights of {dtype}; choose --dtype {' or '.join(FORMATS[form])}.")
    if form in UNMERGED:
        require_plain_lora(run)


def _require_proof(proof: Proof, output: Path, dtype: str) -> None:
    if not proof.holds:
        finer = {"bfloat16": "float32", "q8_0": "f16", "q4_k_m": "q8_0"}
        remedy = f"export with --dtype {finer[dtype]}" if dtype in finer else "train until the styles differ"
        reasons = "; ".join(proof.violations)
        raise PipelineError(
            f"{output}: not written, since the exported model answers differently: {reasons}; {remedy}."
        )


def _tokenizer(plain: Path, form: ExportFormat) -> Any:
    folder = plain / BASE if form in UNMERGED else plain
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _score_of(form: ExportFormat, folder: Path, dtype: torch.dtype) -> Score:
    if form in GGUF:
        return score_with_llama_cpp(folder)
    return score_with(load_unmerged(folder, dtype) if form in UNMERGED else load_plain(folder, dtype))


def _digests(folder: Path, form: ExportFormat) -> dict[str, str]:
    """SHA-256 of what an engine loads, by its place in the folder."""
    if form in GGUF:
        return {path.name: sha256_of(path) for path in sorted(folder.glob("*.gguf"))}
    places = {f"{name}/": folder / name for name in (BASE, ADAPTER)} if form in UNMERGED else {".": folder}
    return {place: weights_digest(path) for place, path in places.items()}


def _card(run: RunFolder, content: dict[str, Any], proof: Proof, verdict: Path | None) -> str:
    losses = [row["loss"] for row in run.read_metrics()]
    fifth = max(1, len(losses) // 5)
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["figure"] = _figure
    template = environment.from_string((ASSETS / "model_card.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        content,
        record=run.read_record(),
        verdict=read_verdict(verdict) if verdict else None,
        proof=proof,
        first_loss=sum(losses[:fifth]) / fifth,
        last_loss=sum(losses[-fifth:]) / fifth,
    )


def _figure(value: Any) -> str:
    """Format a measurement: shares as counts, other numbers to four digits."""
    if isinstance(value, dict) and {"successes", "trials"} <= value.keys():
        return f"{value['successes']} of {value['trials']}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
