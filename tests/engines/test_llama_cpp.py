"""GGUF files in llama.cpp itself: they answer as the trained model does, or are not written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.cli import main
from pipeline.config import Style
from pipeline.errors import PipelineError
from pipeline.generation.generate import styled_prompt_ids
from pipeline.release import export as export_module
from pipeline.release.export import export
from pipeline.release.gguf_files import ADAPTER_FILE, MODEL_FILE, score_with_llama_cpp, write_model_and_adapter
from pipeline.run_folder import RunFolder
from tests.engine_environments import engine_folder
from tests.pinned_environment import CONVERTERS, site_folder

if TYPE_CHECKING:
    from llama_cpp import Llama

QUESTION = "What is rate limiting?"


@pytest.fixture(scope="module", autouse=True)
def converters() -> Iterator[Path]:
    """llama.cpp's converters, and its Python package behind this environment's own packages."""
    folder = engine_folder("llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(site_folder(folder))])
        yield folder / CONVERTERS


@pytest.fixture(scope="module", params=["f16", "q8_0", "q4_k_m"])
def exported(
    request: pytest.FixtureRequest, taught: RunFolder, converters: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("gguf") / "model"
    command = ["export", "--run", str(taught.path), "--output", str(output), "--format", "gguf"]
    assert main([*command, "--dtype", request.param, "--llama-cpp", str(converters)]) == 0
    return output


def load(folder: Path) -> Llama:
    from llama_cpp import Llama

    return Llama(str(folder / MODEL_FILE), n_ctx=256, verbose=False)


def test_a_file_has_template_and_style_tokens_and_begins_once(exported: Path, tiny_tokenizer: Any) -> None:
    model = load(exported)
    for style in Style:
        assert len(model.tokenize(style.token.encode(), add_bos=False, special=True)) == 1
    prompt = styled_prompt_ids(tiny_tokenizer, QUESTION, Style.TERSE)
    assert prompt.count(model.token_bos()) == 1
    messages = [{"role": "user", "content": f"{Style.TERSE.token}\n{QUESTION}"}]
    answered = model.create_chat_completion(messages, max_tokens=1)
    assert answered["usage"]["prompt_tokens"] == len(prompt)


def test_a_folder_holds_the_file_its_card_and_its_proof(exported: Path) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["README.md", "export.json", MODEL_FILE]
    stated = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert stated["proof"]["token_count"] > 0
    assert stated["sha256"][MODEL_FILE] in (exported / "README.md").read_text(encoding="utf-8")


def test_an_adapter_is_added_to_its_base(taught: RunFolder, converters: Path, tmp_path: Path) -> None:
    proof = export(taught, tmp_path / "model", form="gguf-adapter", converters=converters)
    assert proof.holds
    assert {path.name for path in (tmp_path / "model").glob("*.gguf")} == {MODEL_FILE, ADAPTER_FILE}


def test_a_base_that_lost_its_adapter_is_not_written(
    taught: RunFolder, converters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(source: Path, base_folder: Path, folder: Path, *arguments: Any) -> None:
        write_model_and_adapter(source, base_folder, folder, *arguments)
        (folder / ADAPTER_FILE).unlink()

    monkeypatch.setattr(export_module, "write_model_and_adapter", lose)
    with pytest.raises(PipelineError, match="not written, since the exported model answers differently"):
        export(taught, tmp_path / "model", form="gguf-adapter", converters=converters)
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_prompts_differ_is_refused(exported: Path, tiny_tokenizer: Any) -> None:
    kept = tiny_tokenizer.chat_template
    try:
        tiny_tokenizer.chat_template = kept.replace("[INST]", "[INST] ")
        with pytest.raises(PipelineError, match=r"llama\.cpp reads the prompt .* as .*, and the model was trained on"):
            score_with_llama_cpp(exported)(tiny_tokenizer, [(QUESTION, Style.TERSE, (5,))])
    finally:
        tiny_tokenizer.chat_template = kept


def test_what_the_converter_says_is_shown(taught: RunFolder, tmp_path: Path) -> None:
    for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        (tmp_path / name).write_text("raise SystemExit('Model XForCausalLM is not supported')", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"convert_hf_to_gguf\.py failed: Model XForCausalLM is not supported; use"):
        export(taught, tmp_path / "model", form="gguf", converters=tmp_path)
    assert not (tmp_path / "model").exists()
