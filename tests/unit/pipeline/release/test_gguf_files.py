"""What surrounds llama.cpp in an export: which files it is given, and what is refused. Itself: ``tests/engines``."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import Style
from pipeline.errors import PipelineError
from pipeline.files import sha256_of
from pipeline.model.tokenizer import style_token_ids
from pipeline.release import gguf_files, proof
from pipeline.release.checkpoints import ADAPTER, BASE
from pipeline.release.gguf_files import (
    ADAPTER_FILE,
    MODEL_FILE,
    require_llama_cpp,
    score_with_llama_cpp,
    write_model,
    write_model_and_adapter,
)
from pipeline.run_folder import RunFolder
from tests.unit.pipeline.release.fake_llama_cpp import Llama, install, write_converters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def package() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "PROOF_QUESTIONS", 1)  # two answers are enough to tell a lost adapter here
        yield install(patch)


@pytest.fixture(scope="module")
def converters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_converters(tmp_path_factory.mktemp("converters"))


@pytest.fixture(scope="module")
def exported(taught: RunFolder, converters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("gguf") / "model"
    command = ["export", "--run", str(taught.path), "--output", str(output), "--format", "gguf", "--dtype", "q8_0"]
    assert main([*command, "--llama-cpp", str(converters)]) == 0
    return output


def test_a_quantised_file_stands_alone_and_answers_as_the_trained_model(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {MODEL_FILE, "README.md", "export.json"}
    stated = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert stated["sha256"] == {MODEL_FILE: sha256_of(exported / MODEL_FILE)}
    assert stated["proof"]["mean_absolute_difference_nats"] < 0.05 < stated["proof"]["without_adapter_nats"]
    assert Llama.opened == []


def test_the_converter_gets_the_sentencepiece_model_and_the_style_tokens(exported: Path, tiny_tokenizer: Any) -> None:
    with zipfile.ZipFile(exported / MODEL_FILE) as given:
        assert "tokenizer.model" in given.namelist()
        added = json.loads(given.read("added_tokens.json"))
    assert added == dict(zip([style.token for style in Style], style_token_ids(tiny_tokenizer), strict=True))


def test_an_adapter_is_converted_in_float32_for_the_base_beside_it(tmp_path: Path) -> None:
    tell = 'import sys; open(sys.argv[sys.argv.index("--outfile") + 1], "w").write(" ".join(sys.argv[1:]))'
    converters, base, adapter = write_converters(tmp_path / "converters", tell), tmp_path / BASE, tmp_path / ADAPTER
    write_model_and_adapter(tmp_path, tmp_path, tmp_path, converters, "f16")
    model_file, adapter_file = tmp_path / MODEL_FILE, tmp_path / ADAPTER_FILE
    assert model_file.read_text() == f"{base} --outfile {model_file} --outtype f16"
    assert adapter_file.read_text() == f"{adapter} --base {base} --outfile {adapter_file} --outtype f32"


def test_a_file_that_begins_a_prompt_twice_is_refused_and_closed(
    exported: Path, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Llama, "bos_count", 2)
    with pytest.raises(PipelineError, match=r"reads the prompt .* as \[1, 1, .*, and the model was trained on \[1, 3"):
        score_with_llama_cpp(exported)(tiny_tokenizer, [("What is rain?", Style.TERSE, (5,))])
    assert Llama.opened == []


def test_a_type_that_llama_cpp_cannot_write_names_file_and_status(
    converters: Path, package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def refuse(*given: Any) -> int:
        asked.append(given)
        return 3

    monkeypatch.setattr(package, "llama_model_quantize", refuse)
    (source := tmp_path / "source").mkdir()
    with pytest.raises(PipelineError, match=r"model\.gguf: llama\.cpp could not quantise to q4_k_m \(status 3\); try"):
        write_model(source, tmp_path, tmp_path, converters, "q4_k_m")
    ((read, written, parameters),) = asked
    assert (Path(read.decode()), Path(written.decode())) == (source / MODEL_FILE, tmp_path / MODEL_FILE)
    assert parameters._obj.ftype == package.LLAMA_FTYPE_MOSTLY_Q4_K_M


def test_the_last_lines_of_a_converter_that_fails_are_shown(tmp_path: Path) -> None:
    failing = write_converters(tmp_path / "converters", "raise SystemExit('first\\nsecond\\nthird\\nnot supported')")
    with pytest.raises(PipelineError, match=r"hf_to_gguf\.py failed: second / third / not supported; use the conv"):
        write_model(tmp_path, tmp_path, tmp_path, failing, "f16")


def test_a_converter_that_does_not_end_is_stopped(
    converters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_files, "CONVERSION_LIMIT_S", 0)
    with pytest.raises(PipelineError, match=r"convert_hf_to_gguf\.py: not done after 0 s; use a faster machine"):
        write_model(tmp_path, tmp_path, tmp_path, converters, "f16")


def test_what_a_gguf_export_needs_is_named(converters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert require_llama_cpp(converters) == converters
    with pytest.raises(PipelineError, match=r"GGUF needs llama\.cpp's converters: --llama-cpp DIR \(pip download"):
        require_llama_cpp(None)
    (converters_of_models := tmp_path / "models").mkdir()
    (converters_of_models / gguf_files.MODEL_CONVERTER).touch()
    with pytest.raises(PipelineError, match=r"models: no convert_lora_to_gguf\.py there; pip download"):
        require_llama_cpp(converters_of_models)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(PipelineError, match=r"GGUF needs llama-cpp-python .*'verbosity\[gguf\]'"):
        require_llama_cpp(converters)
