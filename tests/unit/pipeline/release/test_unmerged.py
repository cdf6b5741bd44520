"""The adapter as plain LoRA beside a base: plain PEFT gives the trained model's answers with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.cli import main
from pipeline.errors import PipelineError
from pipeline.files import weights_digest
from pipeline.model.loading import LoadedModel
from pipeline.model.style_embeddings import add_style_rows
from pipeline.model.tokenizer import style_token_ids
from pipeline.release import export as export_module
from pipeline.release.checkpoints import load_unmerged, write_unmerged
from pipeline.release.export import export
from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.support import TINY, tiny_request


@pytest.fixture(scope="module")
def unmerged(taught: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unmerged") / "model"
    assert main(["export", "--run", str(taught.path), "--output", str(output), "--format", "adapter"]) == 0
    return output


def test_the_adapter_is_lora_alone_with_one_rank(unmerged: Path, taught: RunFolder, tiny_tokenizer: Any) -> None:
    settings = json.loads((unmerged / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["modules_to_save"] is None
    assert settings["trainable_token_indices"] is None
    assert settings["base_model_name_or_path"] is None
    tensors = load_file(unmerged / "adapter" / "adapter_model.safetensors")
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if "_A" in name}
    assert ranks == {settings["r"]}
    (select,) = [tensor for name, tensor in tensors.items() if name.endswith("lora_embedding_A")]
    (spread,) = [tensor for name, tensor in tensors.items() if name.endswith("lora_embedding_B")]
    rows = select.T[style_token_ids(tiny_tokenizer)] @ spread.T * (settings["lora_alpha"] / settings["r"])
    trained = load_file(taught.adapter / "adapter_model.safetensors")
    (expected,) = [tensor for name, tensor in trained.items() if name.endswith("trainable_tokens_delta")]
    assert torch.equal(rows, expected)


@pytest.mark.slow
@pytest.mark.versions
def test_two_adapters_share_one_base(unmerged: Path, tmp_path: Path) -> None:
    train(tiny_request(tmp_path / "run", accumulation_steps=1, learning_rate=3e-2))
    export(RunFolder(tmp_path / "run"), tmp_path / "other", form="adapter")
    assert weights_digest(tmp_path / "other" / "base") == weights_digest(unmerged / "base")
    assert weights_digest(tmp_path / "other" / "adapter") != weights_digest(unmerged / "adapter")


def test_the_proof_is_stated(unmerged: Path) -> None:
    stated = json.loads((unmerged / "export.json").read_text(encoding="utf-8"))
    assert (stated["format"], stated["dtype"]) == ("adapter", "float32")
    assert stated["sha256"]["base/"] == weights_digest(unmerged / "base")
    assert stated["proof"]["mean_absolute_difference_nats"] <= stated["proof"]["limits"]["mean_absolute_nats"]
    assert 'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "adapter")' in (
        unmerged / "README.md"
    ).read_text(encoding="utf-8")


def test_a_tied_head_keeps_its_rows(taught: RunFolder, tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_folder)
    config.tie_word_embeddings = True
    model = AutoModelForCausalLM.from_config(config)
    add_style_rows(model, tiny_tokenizer)
    head = model.get_output_embeddings().weight.detach().clone()
    write_unmerged(LoadedModel(model, tiny_tokenizer, TINY), taught, tiny_folder, tmp_path, torch.float32)
    written = load_file(tmp_path / "base" / "model.safetensors")
    assert torch.equal(written["lm_head.weight"], head)
    style_ids = style_token_ids(tiny_tokenizer)
    assert not written["model.embed_tokens.weight"][style_ids].any()
    assert head[style_ids].any()


@pytest.mark.slow
def test_an_export_that_loses_the_adapter_is_not_written(
    taught: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(folder: Path, dtype: torch.dtype) -> Any:
        model = load_unmerged(folder, dtype)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        return model

    monkeypatch.setattr(export_module, "load_unmerged", lose)
    with pytest.raises(PipelineError, match="not written, since the exported model answers differently"):
        export(taught, tmp_path / "model", form="adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_goldens_entire_matrices_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    train(tiny_request(tmp_path / "run", "golden", accumulation_steps=4))
    with pytest.raises(PipelineError, match=r"holds .*lm_head.* entire, .* --format merged or gguf"):
        export(RunFolder(tmp_path / "run"), tmp_path / "model", form="adapter")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "q8_0"], "--format merged has no weights of q8_0; choose --dtype float32 or bfloat16"),
        (
            ["--format", "gguf", "--dtype", "float32"],
            "--format gguf has no weights of float32; choose --dtype f16 or q8_0",
        ),
        (["--format", "gguf"], "GGUF needs llama.cpp's converters: --llama-cpp DIR (pip download"),
        (["--format", "gguf-adapter", "--llama-cpp", "."], "no convert_hf_to_gguf.py there; pip download"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    arguments: list[str], message: str, taught: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    assert main(["export", "--run", str(taught.path), "--output", str(output), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(("window", "kind"), [(None, "llama"), (4096, "mistral")])
def test_only_a_mistral_without_a_window_is_described_as_a_llama(
    window: int | None, kind: str, taught: RunFolder, tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "described"
    config = AutoConfig.from_pretrained(tiny_folder)
    config.sliding_window = window
    config.save_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config)
    add_style_rows(model, tiny_tokenizer)
    write_unmerged(LoadedModel(model, tiny_tokenizer, TINY), taught, folder, tmp_path, torch.float32)
    written = AutoConfig.from_pretrained(tmp_path / "base")
    assert written.model_type == kind
    for name in ("rope_parameters", "rope_theta"):  # transformers 5's name, and 4's
        assert getattr(written, name, None) == getattr(config, name, None)
