"""What cannot be a base says why, and what to do, in one line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.cli import main
from pipeline.config import Style, Target
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder
from pipeline.target_file import TARGET_FILE, read_fields
from pipeline.targets import recorded_target, resolve_target
from tests.tiny_bases import TINY_BASES, write_pairs

PAGE = Path(__file__).resolve().parents[4] / "docs" / "own-model.md"


@pytest.fixture
def copy_of(base_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A base's folder to be damaged."""
    return lambda name: Path(shutil.copytree(base_of(name), tmp_path / name))


def change_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def complaint_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``train`` says, which must be one line."""
    capsys.readouterr()
    data = write_pairs(folder.parent / "pairs.jsonl")
    arguments = ["train", "--base-model", str(folder), "--data", str(data), "--output", str(folder.parent / "run")]
    assert main(arguments) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert f": {folder}" in line
    assert not (folder.parent / "run").exists()
    return line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "quantised already (gptq); name the folder of the unquantised",
        ),
        ({"vision_config": {}}, "it reads images or sound, too; name a text-only model."),
        ({"is_encoder_decoder": True}, "it has an encoder and a decoder; name a decoder-only model."),
        ({"num_local_experts": 8}, "a mixture of experts, which would not be loaded in 4 bits; name a dense model."),
        ({"model_type": "own", "auto_map": {}}, "own needs the folder's own code, which is never run; name a model"),
        ({"model_type": "t5gemma-x"}, "t5gemma-x is no decoder-only language model of the installed transformers;"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM does not generate text;"),
        ({"model_type": None}, "lacks 'model_type'; restore the model's own config.json."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_model_of_another_kind(
    fields: dict[str, Any], message: str, copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of("llama")
    change_config(folder, **fields)
    assert message in complaint_of(folder, capsys)


def test_weights_that_are_no_safetensors(copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_of("llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has no *.safetensors; convert the weights." in complaint_of(folder, capsys)


def test_weights_that_are_cut_off(copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_of("llama")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "damaged" in complaint_of(folder, capsys)


def test_a_tokenizer_without_a_template(copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_of("gpt_neox")
    (folder / TARGET_FILE).write_text('device = "cpu"\n')
    assert 'the tokenizer has no chat template; put one into target.toml, such as template = "plain".' in complaint_of(
        folder, capsys
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ bos_token }}{% for m in messages %}{{ m['content'] }}[END]{% endfor %}",
            "'[END]', which is no special token",
        ),
        ("{{ raise_exception('never') }}", "cannot be used (never)"),
        ("{{ unclosed", "cannot be used ("),
    ],
    ids=["no end", "raises", "syntax"],
)
def test_a_template_that_is_of_no_use(
    template: str, message: str, copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of("gpt_neox")
    (folder / TARGET_FILE).write_text(f"device = 'cpu'\ntemplate = {json.dumps(template)}\n")
    assert message in complaint_of(folder, capsys)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('name = "a b"', "name: 'a b'; use letters, digits, '.', '_' and '-'."),
        ('name = "tiny-mistral"', "tiny-mistral is a target of the project; name it with --target, or"),
        ("memory = 3", "memory: no field of a target; use name, device,"),
        ("peak_memory_limit_gib = -1", "peak_memory_limit_gib: -1; use a positive number."),
        ("training_limit_s = nan", "training_limit_s: nan; use a positive number."),
        ('learned = "yes"', "learned: 'yes'; use true or false."),
        ('template = "llama3"', "template: 'llama3'; use mistral, chatml, plain or a Jinja template."),
        ('weights = "random"', "weights: 'random'; a base of your own has \"local\" ones, leave it out."),
        ("[style_words]\nterse = 'kurz'", "style_words: {'terse': 'kurz'}; use a table with words for terse and"),
        ("[lean]\nepochs = 1.5", "lean.epochs: 1.5 is of another kind than 1; correct it."),
        ("[lean]\nepochs = 0", "epochs must be at least 1, not 0."),
        ("[lean]\nrate = 1", "lean.rate: no setting of training; use micro_batch_size,"),
        ("name =", "not TOML ("),
    ],
)
def test_a_target_file_that_is_wrong(toml: str, message: str, tmp_path: Path) -> None:
    (tmp_path / TARGET_FILE).write_text(toml)
    with pytest.raises(PipelineError) as refusal:
        resolve_target(None, str(tmp_path))
    assert str(refusal.value).startswith(str(tmp_path))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_is_a_target_with_documented_limits_and_its_own_name(tmp_path: Path) -> None:
    target = resolve_target(None, str(tmp_path / "Qwen3-0.6B"))
    assert (target.name, target.device, target.weights) == ("Qwen3-0.6B", "cuda", "local")
    assert (target.peak_memory_limit_gib, target.training_limit_s) == (12.0, 2700.0)
    assert target.folder == str(tmp_path / "Qwen3-0.6B")


def test_a_target_file_may_lie_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "qwen.toml"
    file.write_text('name = "qwen"\n[style_words]\nterse = " kurz"\nverbose = " lang"\n')
    target = resolve_target(str(file), str(tmp_path / "weights"))
    assert (target.name, target.folder) == ("qwen", str(tmp_path / "weights"))
    assert target.style_words[Style.TERSE] == " kurz"
    assert resolve_target(str(file)).folder == str(tmp_path)


def test_own_weights_for_a_target_that_brings_its_own_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--target", "tiny-mistral", "--base-model", "anywhere"]) == 1
    assert "tiny-mistral brings its own weights; leave out --target, or --base-model." in capsys.readouterr().err


def test_a_record_whose_target_is_damaged_is_refused(tmp_path: Path) -> None:
    record = {"target": "own", "target_settings": {"name": "own", "device": "tpu"}, "base_model": "x"}
    with pytest.raises(PipelineError, match=r'run.json: device: \'tpu\'; use "cuda" or "cpu".'):
        recorded_target(record, RunFolder(tmp_path).record_file)


def test_the_pages_target_file_trains_a_base_within_its_settings(
    base_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    file = tmp_path / "example.toml"
    file.write_text(example, encoding="utf-8")
    assert set(read_fields(file)) == {field.name for field in dataclasses.fields(Target)} - {"folder", "weights"}
    named = ["--target", str(file), "--base-model", str(base_of("qwen3")), "--device", "cpu"]
    data = write_pairs(tmp_path / "pairs.jsonl")
    assert main(["train", *named, "--data", str(data), "--output", str(tmp_path / "run")]) == 0
    record = RunFolder(tmp_path / "run").read_record()
    assert record["target"] == "qwen3-0.6b"
    assert record["preset"]["training"]["learning_rate"] == 1e-3
    assert record["preset"]["training"]["epochs"] == 2
    assert main(["generate", "--run", str(tmp_path / "run"), "--prompt", "What is rain?", "--style", "terse"]) == 0


def test_the_page_names_every_architecture_that_is_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in TINY_BASES if f"`{name}`" not in text] == []


def test_weights_without_layers_are_no_decoder(
    copy_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of("llama")
    save_file({"classifier.weight": torch.zeros(2, 64)}, folder / "model.safetensors")
    assert "its weights have no layers of matrices or no token embeddings; name a decoder." in complaint_of(
        folder, capsys
    )


def test_a_target_file_that_is_missing_or_too_large_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    with pytest.raises(
        PipelineError, match=r"own\.toml: cannot be read \(No such file or directory\); name a target's"
    ):
        read_fields(file)
    file.write_text("#" * 2_000_000)
    with pytest.raises(PipelineError, match=r"own\.toml: larger than \d+ bytes; a target needs a few lines"):
        read_fields(file)
