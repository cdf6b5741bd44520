"""Whether base models and tokenizers are present, complete and as expected."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import GIB, TARGETS, Style, Target
from pipeline.data.encoding import prompt_ids
from pipeline.doctor.findings import Finding
from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.model.base_models import base_model_folder, gguf_file, open_for_planning
from pipeline.model.shapes import SHAPES, MistralShape
from pipeline.model.tokenizer import style_token_ids

GOLDEN = TARGETS["mistral-7b-v0.3"]
EMBEDDED = TARGETS["smollm2-135m"]
INDEX = "model.safetensors.index.json"
PROBE = "What is rate limiting?"


def check_base_model() -> Finding:
    """Mistral's folder: its shape, and whether every file of its index is present and complete."""
    check = f"model.{GOLDEN.name}"
    try:
        folder = base_model_folder(GOLDEN)
        if MistralShape.of_folder(folder) != SHAPES[GOLDEN.name]:
            raise PipelineError(f"{folder}: config.json describes a model other than {GOLDEN.name}; name its folder.")
        files = _weight_files(folder)
    except PipelineError as error:
        detail, _, remedy = str(error).partition("; ")
        return Finding(check, "WARN", detail, remedy or "restore the model's files", blocks_golden=True)
    size_gib = sum(file.stat().st_size for file in files) / GIB
    digest = sha256_of(*(file for file in (folder / "config.json", folder / INDEX) if file.exists()))
    # Hashing 14 GB from a slow disk takes minutes; it is left to training and verdicts.
    detail = (
        f"{folder}: {len(files)} files, {size_gib:.1f} GiB; SHA-256 of config and index {digest[:16]}, not of weights"
    )
    return Finding(check, "OK", detail)


def _weight_files(folder: Path) -> list[Path]:
    """The files with the weights.

    Raises:
        PipelineError: One is missing or truncated.
    """
    index = folder / INDEX
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        files = [folder / name for name in sorted(set(content["weight_map"].values()))]
        wanted_bytes = int(content["metadata"]["total_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{index}: cannot be read ({error}); restore the model's own file.") from error
    if missing := [file.name for file in files if not file.is_file()]:
        raise PipelineError(f"{folder}: lacks {', '.join(missing)} of its index; restore the model's files.")
    if sum(file.stat().st_size for file in files) < wanted_bytes:
        raise PipelineError(f"{folder}: its weights are shorter than its index says; restore the model's files.")
    return files


def check_embedded_model() -> Finding:
    """Whether the embedded model's package is installed."""
    check = f"model.{EMBEDDED.name}"
    try:
        file = gguf_file()
    except PipelineError as error:
        detail, _, remedy = str(error).partition("; ")
        return Finding(check, "WARN", detail, remedy.removeprefix("run: ").removeprefix("reinstall it: "))
    return Finding(check, "OK", f"{file.name}, SHA-256 {sha256_of(file)[:16]}")


def check_tokenizer(target: Target) -> Finding:
    """A target's vocabulary size, style token ids, BOS and EOS."""
    check = f"tokenizer.{target.name}"
    try:
        with open_for_planning(target) as base:
            tokenizer = base.tokenizer
        size, ids = SHAPES[target.name].vocabulary_size, prompt_ids(tokenizer, PROBE)
    except PipelineError as error:
        return Finding(check, "WARN", str(error), "see the model above", blocks_golden=target is GOLDEN)
    styles, bos = style_token_ids(tokenizer), tokenizer.bos_token_id
    facts = {
        f"{len(tokenizer)} tokens": len(tokenizer) == size + len(Style),
        f"style tokens {' and '.join(map(str, styles))}": styles == [size, size + 1],
        "one BOS": ids[0] == bos and ids[1] != bos,
        "EOS": tokenizer.eos_token_id is not None,
    }
    if wrong := [fact for fact, holds in facts.items() if not holds]:
        detail = f"not as expected: {', '.join(wrong)}"
        return Finding(check, "FAIL", detail, "restore the model's tokenizer files", blocks_golden=target is GOLDEN)
    return Finding(check, "OK", ", ".join(facts))
