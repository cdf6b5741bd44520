"""Bases of the user's own, of ten architectures: trained, loaded, served, exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.cli import main
from pipeline.config import GenerationConfig, Style, resolve_preset
from pipeline.data.encoding import encode, prompt_ids, render_prompt
from pipeline.data.formats import Example
from pipeline.data.source import Problems
from pipeline.data.text import spelled_control_token
from pipeline.engines.interface import AnswerRequest
from pipeline.engines.selection import open_local
from pipeline.generation.generate import generate_with_style
from pipeline.generation.scoring import answer_logits, token_nll
from pipeline.model.adapter import attach_adapter
from pipeline.model.base_models import BaseModelFiles, open_base_model
from pipeline.model.heads import has_plain_head
from pipeline.model.loading import hardware_preset, load_base, load_trained
from pipeline.model.style_embeddings import add_style_rows
from pipeline.targets import resolve_target
from pipeline.training.collation import padded_tensors
from pipeline.training.frozen_head_loss import use_answer_loss
from tests.tiny_bases import TINY_BASES
from tests.unit.pipeline.bases.conftest import Trained
from tests.unit.pipeline.engines.exact import exact_model

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROJECTIONS = {
    "phi3": ["o_proj", "down_proj", "gate_up_proj", "qkv_proj"],
    "gpt_neox": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
}
CHANGE_LOGITS = {"gemma2", "granite"}
GREEDY = GenerationConfig(max_new_tokens=12)
QUESTION = "What is rain?"


def opened(folder: Path) -> BaseModelFiles:
    return open_base_model(resolve_target(None, str(folder)))


def name_of(base: BaseModelFiles) -> str:
    return base.target.name.removeprefix("own-")


def test_every_projection_is_trained_and_the_record_says_on_what(trained: Trained) -> None:
    record = trained.run.read_record()
    assert record["target"] == f"own-{trained.name}"
    assert record["target_settings"]["lean"]["learning_rate"] == 2e-2
    assert record["preset"]["adapter"]["target_modules"] == PROJECTIONS.get(trained.name, SEVEN)
    assert record["quantization"]["nf4_double_quant_count"] == record["quantization"]["linear_count"]
    adapter = load_file(trained.run.adapter / "adapter_model.safetensors")
    moved = [bool(tensor.any()) for name, tensor in adapter.items() if "lora_B" in name]
    assert len(moved) == 2 * len(PROJECTIONS.get(trained.name, SEVEN))
    assert all(moved)


def test_a_run_is_loaded_without_naming_its_base_again(trained: Trained) -> None:
    loaded = load_trained(trained.run)
    assert loaded.target.folder == str(trained.folder)
    for style in Style:
        answer = generate_with_style(loaded.model, loaded.tokenizer, QUESTION, style, config=GREEDY)
        assert answer.token_count > 0


def test_prompts_have_the_templates_bos_and_answers_end_with_its_end(base: Path) -> None:
    files = opened(base)
    tokenizer, expected = files.tokenizer, TINY_BASES[name_of(files)]
    ids = prompt_ids(tokenizer, QUESTION)
    writes_bos = "bos_token" in (expected.template or "bos_token") and tokenizer.bos_token is not None
    assert ids.count(tokenizer.bos_token_id if writes_bos else -1) == writes_bos
    (encoded,) = encode(tokenizer, [Example(Style.TERSE, QUESTION, "Water.", "x:1")], 500, Problems())
    answer = encoded["input_ids"][encoded["prompt_length"] :]
    assert tokenizer.decode(answer).strip() == f"Water.{expected.ends}"
    assert answer.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id is not None


def test_a_prompt_asks_for_no_reasoning_and_is_the_same_on_every_day(base_of: Callable[[str], Path]) -> None:
    assert render_prompt(opened(base_of("qwen3")).tokenizer, QUESTION).endswith("<think>\n\n</think>\n\n")
    assert "Today: 01 Jan 2025<" in render_prompt(opened(base_of("smollm3")).tokenizer, QUESTION)


def test_the_loss_is_the_models_own(base: Path) -> None:
    files = opened(base)
    preset = hardware_preset(files.fit(resolve_preset("lean", files.target)), "cpu")
    model = load_base(base, preset.quantization, "cpu")
    add_style_rows(model, files.tokenizer, files.target.style_words)
    adapted = attach_adapter(model, files.tokenizer, preset).train()
    examples = [Example(style, QUESTION, f"It is {style}.", "x:1") for style in Style]
    rows = encode(files.tokenizer, examples, 500, Problems())
    batch: Any = padded_tensors(rows, files.tokenizer.pad_token_id, 1)
    own = adapted(**batch, num_items_in_batch=7).loss
    is_plain = has_plain_head(adapted)
    assert is_plain is (name_of(files) not in CHANGE_LOGITS)
    if is_plain:
        use_answer_loss(adapted)
        assert adapted(**batch, num_items_in_batch=7).loss.item() == pytest.approx(own.item(), rel=2e-2)


def test_likelihoods_are_those_of_the_models_own_logits(trained: Trained) -> None:
    exact = exact_model(trained.run)
    answer = tuple(exact.tokenizer("Water falls.", add_special_tokens=False)["input_ids"])
    logits, tokens = answer_logits(exact.model, exact.tokenizer, (QUESTION, Style.TERSE), answer, ended=False)
    expected = -logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    (nll,) = token_nll(exact.model, exact.tokenizer, [(QUESTION, Style.TERSE, answer)])
    assert torch.tensor(nll) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("engine_name", ["serial", "continuous"])
def test_engines_answer_as_generate_does(trained: Trained, engine_name: Any) -> None:
    exact = exact_model(trained.run)
    engine = open_local(engine_name, exact.model, exact.tokenizer, max_in_flight=2)
    try:
        tickets = [engine.submit(AnswerRequest(QUESTION, style, 60, GREEDY)) for style in Style]
        answers = [ticket.result().text for ticket in tickets]
    finally:
        engine.close()
    expected = [generate_with_style(exact.model, exact.tokenizer, QUESTION, s, config=GREEDY).text for s in Style]
    assert answers == expected


def test_the_export_answers_as_the_run_and_needs_nothing_of_ours(trained: Trained, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert main(["export", "--run", str(trained.run.path), "--output", str(tmp_path / "model")]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    loaded = load_trained(trained.run)
    assert prompt_ids(tokenizer, QUESTION) == prompt_ids(loaded.tokenizer, QUESTION)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.generation_config.eos_token_id == loaded.tokenizer.eos_token_id
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]


def test_a_plan_knows_the_sizes_of_the_weights(base: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Why?", "terse": "So.", "verbose": "There are reasons."}\n')
    capsys.readouterr()
    assert main(["plan", "--base-model", str(base), "--data", str(data)]) == 0
    printed = capsys.readouterr().out
    files = opened(base)
    model = load_base(base, resolve_preset("lean", files.target).quantization, "cpu")
    add_style_rows(model, files.tokenizer)
    counted = sum(_original_size(parameter) for parameter in model.parameters())
    assert f"{counted:,} parameters; " in printed
    preset = hardware_preset(files.fit(resolve_preset("lean", files.target)), "cpu")
    adapted = attach_adapter(model, files.tokenizer, preset)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert f"{trained:,} trained ones" in printed


def _original_size(parameter: torch.Tensor) -> int:
    state = getattr(parameter, "quant_state", None)
    return int((parameter.shape if state is None else state.shape).numel())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox", "granite"])
def test_golden_trains_and_exports_whole_embeddings_and_head(
    name: str, base_of: Callable[[str], Path], trained_on: Callable[[str], Trained], tmp_path: Path
) -> None:
    arguments = ["--base-model", str(base_of(name)), "--data", str(trained_on(name).data), "--preset", "golden"]
    run = tmp_path / "run"
    assert main(["train", *arguments, "--output", str(run), "--learning-rate", "1e-2"]) == 0
    assert main(["export", "--run", str(run), "--output", str(tmp_path / "model")]) == 0
    saved = json.loads((run / "adapter" / "adapter_config.json").read_text())["modules_to_save"]
    assert saved == (["embed_in", "embed_out"] if name == "gpt_neox" else ["embed_tokens", "lm_head"])


def test_white_space_and_tags_that_a_tokenizer_adds_stay_text(base_of: Callable[[str], Path]) -> None:
    tokenizer = opened(base_of("qwen3")).tokenizer
    tokenizer.add_tokens(["\n\n", "    ", "<b>", "</h2>", "<think>"])
    assert spelled_control_token("one\n\ntwo    three <b>four</h2>", tokenizer) is None
    assert spelled_control_token("a <think> b", tokenizer) == "<think>"
    assert spelled_control_token("a <|im_end|> b", tokenizer) == "<|im_end|>"
