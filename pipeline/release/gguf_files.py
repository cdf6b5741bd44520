"""Exports for llama.cpp: GGUF files by its own converters and quantisation, checked by running them.

Needs llama-cpp-python (``verbosity[gguf]``) and a folder with llama.cpp's converters, which that package leaves out.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer

from pipeline.config import Style
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.generation.generate import styled_prompt_ids
from pipeline.release.checkpoints import ADAPTER, BASE
from pipeline.release.proof import Answer, Score

if TYPE_CHECKING:
    from llama_cpp import Llama

MODEL_FILE, ADAPTER_FILE = "model.gguf", "adapter.gguf"
MODEL_CONVERTER, ADAPTER_CONVERTER = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
FLOAT_TYPE = "f16"
QUANTIZED_TYPES = {"q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M"}
"""llama.cpp's names of the types that a file of 16 bits is quantised to."""
CONVERSION_LIMIT_S = 3600


def require_llama_cpp(converters: Path | None) -> Path:
    """The folder of llama.cpp's converters.

    Raises:
        PipelineError: None is named, they are not in it, or llama-cpp-python is not installed.
    """
    remedy = (
        "pip download --no-deps --no-binary llama-cpp-python llama-cpp-python, unpack it and name its folder"
        " vendor/llama.cpp, or name a checkout of llama.cpp"
    )
    if converters is None:
        raise PipelineError(f"GGUF needs llama.cpp's converters: --llama-cpp DIR ({remedy}).")
    for name in (MODEL_CONVERTER, ADAPTER_CONVERTER):
        if not (converters / name).is_file():
            raise PipelineError(f"{converters}: no {name} there; {remedy}.")
    try:
        import llama_cpp  # noqa: F401
    except ImportError as error:
        raise PipelineError(
            f"GGUF needs llama-cpp-python ({error}); run: pip install 'verbosity[gguf]', which compiles llama.cpp."
        ) from error
    return converters


def write_model(source: Path, base_folder: Path, folder: Path, converters: Path, kind: str) -> None:
    """Convert a model folder to a GGUF file of one type.

    Args:
        source: The model folder, in float32; files that the converter wants are added to it.
        base_folder: The base model's folder.
        folder: Where ``model.gguf`` goes.
        converters: Folder with llama.cpp's converters.
        kind: ``f16`` or one of ``QUANTIZED_TYPES``.

    Raises:
        PipelineError: llama.cpp could not convert or quantise it.
    """
    _add_sentencepiece_model(source, base_folder)
    final = folder / MODEL_FILE
    converted = final if kind == FLOAT_TYPE else source / MODEL_FILE
    _convert(converters / MODEL_CONVERTER, source, "--outfile", converted, "--outtype", FLOAT_TYPE)
    if converted != final:
        _quantize(converted, final, kind)


def write_model_and_adapter(source: Path, base_folder: Path, folder: Path, converters: Path, kind: str) -> None:
    """Convert base and adapter of ``write_unmerged``; the type is the base's, and the adapter keeps float32."""
    write_model(source / BASE, base_folder, folder, converters, kind)
    outputs = ("--outfile", folder / ADAPTER_FILE, "--outtype", "f32")
    _convert(converters / ADAPTER_CONVERTER, source / ADAPTER, "--base", source / BASE, *outputs)


def score_with_llama_cpp(folder: Path) -> Score:
    """The score of the files in ``folder`` by llama.cpp, which also compares its prompts with ours, token by token."""

    def score(tokenizer: Any, answers: Sequence[Answer]) -> list[list[float]]:
        from llama_cpp import Llama

        prompts = [styled_prompt_ids(tokenizer, question, style) for question, style, _ in answers]
        rows = [(prompt, list(answer)) for prompt, (*_, answer) in zip(prompts, answers, strict=True)]
        adapter = folder / ADAPTER_FILE
        model = Llama(
            str(folder / MODEL_FILE),
            lora_path=str(adapter) if adapter.exists() else None,
            n_ctx=max(len(prompt) + len(answer) for prompt, answer in rows),
            n_threads=os.cpu_count(),
            logits_all=True,
            verbose=False,
        )
        try:
            for (question, style, _), prompt in zip(answers, prompts, strict=True):
                _require_same_prompt(model, f"{style.token}\n{question}", prompt)
            return [_token_nll(model, *row) for row in rows]
        finally:
            model.close()

    return score


def _token_nll(model: Llama, prompt: list[int], answer: list[int]) -> list[float]:
    model.reset()
    model.eval(prompt + answer)
    logits = torch.from_numpy(model.scores[len(prompt) - 1 : len(prompt) + len(answer) - 1]).double()
    likelihoods = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
    return (-likelihoods).tolist()


def _require_same_prompt(model: Llama, content: str, expected: list[int]) -> None:
    """Compare what an engine makes of a message: the file's template, one id for each style, and exactly one BOS.

    Raises:
        PipelineError: It makes something else.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    bos, eos = (model.detokenize([token], special=True).decode() for token in (model.token_bos(), model.token_eos()))
    template = model.metadata.get("tokenizer.chat_template", "")
    formatted = Jinja2ChatFormatter(template, eos, bos)(messages=[{"role": "user", "content": content}])
    found = model.tokenize(formatted.prompt.encode(), add_bos=not formatted.added_special, special=True)
    if found != expected:
        raise PipelineError(
            f"llama.cpp reads the prompt {content!r} as {found}, and the model was trained on {expected};"
            " this tokenizer or chat template does not survive the conversion, so export with --format merged."
        )


def _add_sentencepiece_model(source: Path, base_folder: Path) -> None:
    """Add the base's ``tokenizer.model``, which transformers 5 leaves out; without it the converter guesses scores."""
    if (model := base_folder / "tokenizer.model").is_file():
        shutil.copyfile(model, source / model.name)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        write_json(
            source / "added_tokens.json", {style.token: tokenizer.convert_tokens_to_ids(style.token) for style in Style}
        )


def _convert(script: Path, source: Path, *arguments: str | Path) -> None:
    # Its own gguf package lies beside the script and goes with it.
    command = [sys.executable, str(script), str(source), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERSION_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PipelineError(f"{script}: not done after {CONVERSION_LIMIT_S} s; use a faster machine.") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-3:]
        raise PipelineError(f"{script} failed: {' / '.join(lines)}; use the converters of another llama.cpp release.")


def _quantize(source: Path, final: Path, kind: str) -> None:
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, QUANTIZED_TYPES[kind])
    status = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(final), ctypes.byref(parameters))
    if status != 0:
        raise PipelineError(f"{final}: llama.cpp could not quantise to {kind} (status {status}); try another --dtype.")
