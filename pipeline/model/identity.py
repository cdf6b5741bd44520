"""What decides a model's answers beside its weights: recorded by training, compared whenever a run is loaded."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import GENERATION_PRESETS
from pipeline.errors import PipelineError
from pipeline.files import sha256_of, sha256_of_text, weights_digest
from pipeline.model.base_models import BaseModelFiles
from pipeline.model.tokenizer import style_token_ids
from pipeline.run_folder import RunFolder, differences

logger = logging.getLogger(__name__)

RECORDED = "identity"
"""Field of ``run.json`` that holds ``base_settings`` and ``adapter_settings`` as they were when the run was trained."""
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt")
"""Patterns of a tokenizer's files; the chat template has its own digest, whichever file it is in."""
_WRITER_NOTES = frozenset({"transformers_version", "_name_or_path", "peft_version", "base_model_name_or_path"})


def adapter_settings(adapter: Path) -> dict[str, Any]:
    """What an adapter's configuration says of its answers.

    Raises:
        PipelineError: The file is missing or damaged.
    """
    return {"adapter_config": _settings(adapter / ADAPTER_CONFIG, "train again in another folder")}


def base_settings(base: BaseModelFiles) -> dict[str, Any]:
    """What a base model's files, its weights apart, and the pipeline's decoding limits say of its answers.

    Raises:
        PipelineError: ``config.json`` is missing or damaged.
    """
    tokenizer = base.tokenizer
    return {
        "base_config": base_config(base.folder),
        "tokenizer_files": {path.name: sha256_of(path) for path in tokenizer_files(base.folder)},
        "chat_template_sha256": sha256_of_text(tokenizer.chat_template),
        "special_tokens": {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")},
        "style_token_ids": style_token_ids(tokenizer),
        "generation": {style.value: dataclasses.asdict(preset) for style, preset in GENERATION_PRESETS.items()},
    }


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that its tokenizer consists of, sorted."""
    return sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)})


def base_config(folder: Path) -> dict[str, Any]:
    """The content of a base model's ``config.json``, without the fields that describe the program that wrote it.

    Raises:
        PipelineError: The file is missing or damaged.
    """
    return _settings(folder / "config.json", "restore the base model's files")


def _settings(path: Path, remedy: str) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: value for name, value in settings.items() if name not in _WRITER_NOTES}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise PipelineError(f"{path}: cannot be read ({error}); {remedy}.") from error


def require_same_adapter(run: RunFolder, record: Mapping[str, Any]) -> None:
    """Refuse an adapter whose weights or configuration are not those that the run saved.

    Raises:
        PipelineError: A field differs, or a file is missing or damaged.
    """
    if not (run.adapter / ADAPTER_CONFIG).is_file():
        raise PipelineError(f"{run.adapter}: no adapter here; train again in another folder.")
    if weights_digest(run.adapter) != record["adapter"]["sha256"]:
        raise PipelineError(f"{run.adapter}: not the adapter that this run trained; restore it or train again.")
    _require_same(run, record, adapter_settings(run.adapter), f"restore {run.adapter / ADAPTER_CONFIG} or train again")


def require_same_base(run: RunFolder, record: Mapping[str, Any], base: BaseModelFiles) -> None:
    """Refuse a base model, a tokenizer or decoding limits that are not those that the run was trained with.

    A run of an earlier version recorded less; what cannot be compared is logged as unknown.

    Raises:
        PipelineError: A field differs, or a file is missing or damaged.
    """
    here = {"base_model_sha256": weights_digest(base.folder)}
    remedy = f"restore {base.folder}, or name the base that this run was trained from with --base-model, or train again"
    _require_same(run, {RECORDED: {name: record[name] for name in here}}, here, remedy)
    _require_same(run, record, base_settings(base), remedy)
    if RECORDED not in record:
        logger.warning(
            "%s: written by an earlier version, without %r: whether tokenizer, template, limits and adapter_config.json"
            " are those of the training is unknown; train again, or serve with --require-verdict.",
            run.record_file,
            RECORDED,
        )


def _require_same(run: RunFolder, record: Mapping[str, Any], settings: dict[str, Any], remedy: str) -> None:
    if RECORDED not in record:
        return
    before = {name: record[RECORDED][name] for name in settings if name in record[RECORDED]}
    if fields := differences(settings, before):
        raise PipelineError(f"{run.path}: not as it was trained ({fields}); {remedy}.")
