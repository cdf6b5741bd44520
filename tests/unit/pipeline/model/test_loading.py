from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import psutil
import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from pipeline.compat import attends_to_packed_rows
from pipeline.config import GIB, PRESETS, STYLE_WORDS, TARGETS, QuantizationConfig, Style
from pipeline.errors import PipelineError
from pipeline.model import dequantize as inference
from pipeline.model import fused
from pipeline.model.adapter import attach_adapter, save_adapter
from pipeline.model.base_models import base_model_folder
from pipeline.model.dequantize import for_inference
from pipeline.model.loading import hardware_preset, load_base, load_trained
from pipeline.model.quantization_report import quantization_census
from pipeline.model.shapes import SHAPES, model_config
from pipeline.model.style_embeddings import add_style_rows
from pipeline.model.tokenizer import load_tokenizer
from pipeline.run_folder import RunFolder
from sabotage.damage import lose_tensor
from tests.support import TINY

QUANTIZATION = hardware_preset(PRESETS["lean"], "cpu").quantization


def fresh_base(folder: Path, tokenizer: Any, quantization: QuantizationConfig = QUANTIZATION) -> Any:
    model = load_base(folder, quantization, "cpu")
    add_style_rows(model, tokenizer)
    return model


def test_the_file_of_the_weights_does_not_stay_in_memory(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "base")
    as_stored = dataclasses.replace(QUANTIZATION, compute_dtype="bfloat16")  # which is not converted, so not copied
    model = load_base(folder, as_stored, "cpu")
    mapped = {Path(one.path) for one in psutil.Process().memory_maps()}
    assert not [path for path in folder.glob("*.safetensors") if path.resolve() in mapped]
    assert model.get_input_embeddings().weight.isfinite().all()


def test_every_decoder_linear_is_nf4_with_double_quantisation(tiny_folder: Path) -> None:
    census = quantization_census(load_base(tiny_folder, QUANTIZATION, "cpu"))
    assert census.is_loaded_in_4bit
    assert census.nf4_double_quant_count == census.linear_count == 14
    assert 4.1 < census.bits_per_parameter < 4.6


def test_the_census_sees_a_model_that_is_not_in_4bit(tiny_folder: Path) -> None:
    census = quantization_census(load_base(tiny_folder, QuantizationConfig(load_in_4bit=False), "cpu"))
    assert not census.is_loaded_in_4bit
    assert census.nf4_double_quant_count == 0
    assert census.bits_per_parameter == 16


def test_the_census_sees_single_quantisation(tiny_folder: Path) -> None:
    census = quantization_census(load_base(tiny_folder, QuantizationConfig(double_quant=False), "cpu"))
    assert census.nf4_double_quant_count == 0


def test_style_rows_start_from_their_describing_words(tiny_folder: Path, tiny_tokenizer: Any) -> None:
    model = fresh_base(tiny_folder, tiny_tokenizer)
    weight = model.get_input_embeddings().weight
    for style in Style:
        words = tiny_tokenizer(STYLE_WORDS[style], add_special_tokens=False)["input_ids"]
        row = weight[tiny_tokenizer.convert_tokens_to_ids(style.token)]
        torch.testing.assert_close(row, weight[words].float().mean(0).to(row.dtype))
    assert weight.shape[0] == 32770
    assert not torch.equal(weight[-1], weight[-2])


def test_an_untrained_adapter_leaves_the_base_as_it_is(tiny_folder: Path, tiny_tokenizer: Any) -> None:
    ids = torch.tensor([[1, 3, 2592, 32768, 4]])
    base = fresh_base(tiny_folder, tiny_tokenizer)
    expected = base(input_ids=ids).logits
    adapted = attach_adapter(base, tiny_tokenizer, hardware_preset(PRESETS["lean"], "cpu")).eval()
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected)


def test_lean_trains_lora_and_the_two_rows_only(tiny_folder: Path, tiny_tokenizer: Any) -> None:
    adapted = attach_adapter(
        fresh_base(tiny_folder, tiny_tokenizer), tiny_tokenizer, hardware_preset(PRESETS["lean"], "cpu")
    )
    trainable = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    rows = {name: size for name, size in trainable.items() if "lora_" not in name}
    assert list(rows.values()) == [2 * SHAPES[TINY.name].hidden_size]
    assert len(trainable) - 1 == 2 * 7 * SHAPES[TINY.name].layers


def test_golden_trains_all_of_embeddings_and_head(tiny_folder: Path, tiny_tokenizer: Any) -> None:
    adapted = attach_adapter(
        fresh_base(tiny_folder, tiny_tokenizer), tiny_tokenizer, hardware_preset(PRESETS["golden"], "cpu")
    )
    whole = [p.numel() for name, p in adapted.named_parameters() if p.requires_grad and "lora_" not in name]
    assert whole == [32770 * SHAPES[TINY.name].hidden_size] * 2


def test_the_lean_adapter_file_holds_no_embedding_matrix(tiny_run: RunFolder) -> None:
    tensors = load_file(tiny_run.adapter / "adapter_model.safetensors")
    assert max(tensor.shape[0] for tensor in tensors.values()) < 1000
    assert sum("trainable_tokens_delta" in name for name in tensors) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_form_for_inference_gives_the_same_logits(
    dtype: Literal["float32", "bfloat16"],
    tiny_run: RunFolder,
    tiny_folder: Path,
    tiny_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from peft import PeftModel

    monkeypatch.setattr(inference, "cpu_compute_dtype", lambda: dtype)
    monkeypatch.setattr(inference, "multiplies_packed_on_cpu", lambda: False)
    base = fresh_base(tiny_folder, tiny_tokenizer, dataclasses.replace(QUANTIZATION, compute_dtype=dtype))
    adapted = PeftModel.from_pretrained(base, str(tiny_run.adapter))
    ids = torch.tensor([[1, 3, 2592, 32769, 4]])
    with torch.inference_mode():
        adapted.train()  # in evaluation bitsandbytes may answer from weights that it packed anew
        expected = adapted(input_ids=ids).logits
        unpacked = for_inference(adapted.eval())
        assert quantization_census(unpacked).nf4_double_quant_count == 0
        torch.testing.assert_close(unpacked(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_changed_adapter_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    weights = copy.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PipelineError, match="not the adapter that this run trained"):
        load_trained(copy)
    weights.unlink()
    with pytest.raises(PipelineError, match="safetensors"):
        load_trained(copy)


def test_an_adapter_that_lacks_a_tensor_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    lose_tensor(copy)
    with pytest.raises(PipelineError, match="lora_A"):
        load_trained(copy)


def test_an_unfinished_run_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    copy.update(status="running")
    with pytest.raises(PipelineError, match="running, not completed"):
        load_trained(copy)


def test_a_failed_save_leaves_the_earlier_adapter(tiny_run: RunFolder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_run.adapter, tmp_path / "adapter"))
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    class FullDisk:
        def save_pretrained(self, target: str, **_: Any) -> None:
            Path(target, "adapter_model.safetensors").write_bytes(b"half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_adapter(FullDisk(), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_weights_that_are_not_there_are_explained(tmp_path: Path) -> None:
    mistral = TARGETS["mistral-7b-v0.3"]
    with pytest.raises(PipelineError, match="--base-model or VERBOSITY_BASE_MODEL"):
        base_model_folder(mistral, str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(PipelineError, match=r"no \*\.safetensors"):
        base_model_folder(mistral, str(tmp_path))
    with pytest.raises(PipelineError, match="no usable tokenizer"):
        load_tokenizer(tmp_path, mistral)


def test_cuda_without_a_gpu_is_refused_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match="no CUDA device"):
        hardware_preset(PRESETS["golden"], "cuda")


def test_the_synthetic_shape_is_mistral_7b(tiny_folder: Path) -> None:
    shape = SHAPES["mistral-7b-v0.3-synthetic"]
    assert shape.parameter_count == 7_248_023_552
    index = json.loads((tiny_folder / "model.safetensors.index.json").read_text())
    tensors = {
        name: t for file in set(index["weight_map"].values()) for name, t in load_file(tiny_folder / file).items()
    }
    assert sum(t.numel() for t in tensors.values()) == SHAPES[TINY.name].parameter_count
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values()) < GIB


@pytest.mark.slow
@pytest.mark.versions
def test_the_embedded_target_loads_in_4bit_and_speaks() -> None:
    target = TARGETS["smollm2-135m"]
    folder = base_model_folder(target)
    model, tokenizer = load_base(folder, QUANTIZATION, "cpu"), load_tokenizer(folder, target)
    assert quantization_census(model).nf4_double_quant_count == 210
    assert model.get_memory_footprint() < 200e6
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert tokenizer.decode(model(input_ids=ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.parametrize(
    ("preset", "device", "processes", "attends", "packs"),
    [
        ("lean", "cuda", "1", True, True),
        ("golden", "cuda", "1", True, False),
        ("lean", "cpu", "1", False, True),
        ("lean", "cpu", "2", False, False),
        ("lean", "cuda", "2", True, False),
        ("lean", "cuda", "1", False, False),
    ],
    ids=[
        "lean",
        "golden",
        "on a CPU",
        "processes on a CPU",
        "several processes",
        "torch without variable-length attention",
    ],
)
def test_rows_are_packed_where_that_was_asked_for_and_works(
    preset: str, device: str, processes: str, attends: bool, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("pipeline.model.loading.attends_to_packed_rows", lambda: attends)
    monkeypatch.setenv("WORLD_SIZE", processes)
    assert hardware_preset(PRESETS[preset], device).training.padding_free is packs


def test_packed_rows_need_torchs_variable_length_attention() -> None:
    assert attends_to_packed_rows() == (Version(torch.__version__) >= Version("2.10"))


def test_an_adapter_that_is_gone_or_has_damaged_settings_is_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    (copy.adapter / "adapter_config.json").write_text("{")
    with pytest.raises(PipelineError, match=r"adapter_config\.json: cannot be read \(.+\); train again in another"):
        load_trained(copy)
    (copy.adapter / "adapter_config.json").unlink()
    with pytest.raises(PipelineError, match=r"adapter: no adapter here; train again in another folder"):
        load_trained(copy)


def test_a_base_that_transformers_cannot_load_is_named_with_its_words(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(tiny_folder / "config.json", tmp_path / "config.json")
    with pytest.raises(PipelineError, match=rf"^{tmp_path}: the base model cannot be loaded \(.*model.safetensors"):
        load_base(tmp_path, QUANTIZATION, "cpu")


@pytest.mark.parametrize("content", [None, b"{", b"\xff"], ids=["missing", "cut off", "no text"])
def test_a_configuration_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(PipelineError, match=rf"^{tmp_path}/config\.json: cannot be read \(.+\); name a model's folder"):
        model_config(tmp_path)


def test_a_tokenizer_that_takes_no_tokens_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreTrainedTokenizerBase, "add_tokens", lambda *arguments, **options: 0)
    with pytest.raises(PipelineError, match=r"the tokenizer splits <STYLE_TERSE>; use a tokenizer that does not"):
        load_tokenizer(tiny_folder, TINY)


@pytest.mark.parametrize(("free_gib", "form"), [(100, "dequantised"), (1, "nf4")])
def test_a_gpu_keeps_packed_weights_where_unpacked_ones_have_no_room(
    free_gib: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = SimpleNamespace(in_features=4096, out_features=4 * 4096)
    monkeypatch.setattr(fused, "Linear4bit", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free_gib * GIB, 141 * GIB))
    model = SimpleNamespace(device=torch.device("cuda"), modules=lambda: [object(), *[packed] * 32])
    assert fused.affordable_form(model) == form
    assert fused.affordable_form(SimpleNamespace(device=torch.device("cpu"))) == "merged"
