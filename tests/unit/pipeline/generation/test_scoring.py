from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.config import PRESETS, GenerationConfig, Style
from pipeline.errors import PipelineError
from pipeline.generation import scoring
from pipeline.generation.generate import generate_batch, styled_prompt_ids
from pipeline.generation.scoring import answer_nll, greedy_with_log_probabilities, sampling_surprise, swap_style_rows
from pipeline.model import dequantize as inference
from pipeline.model import loading as model
from pipeline.model.adapter import attach_adapter
from pipeline.model.loading import LoadedModel, TrainedModel, hardware_preset, load_base, load_trained, load_untrained
from pipeline.model.quantization_report import quantization_census
from pipeline.model.style_embeddings import add_style_rows
from pipeline.run_folder import RunFolder
from tests.support import torch_threads

REQUESTS = [
    ("Why?", (12986, 28699)),
    ("What is rate limiting?", tuple(range(1000, 1040))),
    ("What is a canary release, and who needs one?", (2,)),
    ("What is caching?", tuple(range(3000, 2990, -1))),
]
ONE_BY_ONE_LIMITS = GenerationConfig(max_new_tokens=8)


@pytest.fixture(scope="module")
def plain_cpu() -> Iterator[None]:
    """A CPU without bfloat16 arithmetic."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (model, inference):
            patch.setattr(module, "cpu_compute_dtype", lambda: "float32")
        patch.setattr(inference, "multiplies_packed_on_cpu", lambda: False)
        yield


@pytest.fixture(scope="module")
def untrained(tiny_run: RunFolder, plain_cpu: None) -> LoadedModel:
    return load_untrained(tiny_run)


@pytest.fixture(scope="module")
def trained_float32(tiny_run: RunFolder, plain_cpu: None) -> TrainedModel:
    return load_trained(tiny_run)


@pytest.fixture(scope="module")
def golden(tiny_folder: Path, tiny_tokenizer: Any) -> Any:
    """Whole embeddings as golden trains them, on the tiny base."""
    preset = hardware_preset(PRESETS["golden"], "cpu")
    base = load_base(tiny_folder, preset.quantization, "cpu")
    add_style_rows(base, tiny_tokenizer)
    return attach_adapter(base, tiny_tokenizer, preset).eval()


def logits(loaded: Any, tokenizer: Any, prompt: str, style: Style) -> torch.Tensor:
    with torch.inference_mode():
        output: torch.Tensor = loaded(input_ids=torch.tensor([styled_prompt_ids(tokenizer, prompt, style)])).logits
    return output[0, -1]


def plain_nll(loaded: Any, tokenizer: Any, prompt: str, answer: tuple[int, ...]) -> float:
    """The definition, one token after the other."""
    ids, total = styled_prompt_ids(tokenizer, prompt, None), 0.0
    for token in answer:
        with torch.inference_mode():
            last = loaded(input_ids=torch.tensor([ids])).logits[0, -1].double()
        total += (last.logsumexp(0) - last[token]).item()
        ids = [*ids, token]
    return total / len(answer)


def test_the_first_pass_has_the_model_to_itself(untrained: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass lays 4-bit weights out; two at once spoiled them."""
    readers: list[threading.Thread] = []

    def read(loaded: Any, batch: dict[str, list[list[int]]], plain: bool) -> list[list[float]]:
        readers.append(threading.current_thread())
        return [[1.0]] * len(batch["input_ids"])

    monkeypatch.setattr(scoring, "_batch_nll", read)
    with torch_threads(2):
        assert answer_nll(untrained.model, untrained.tokenizer, REQUESTS, batch_rows=1) == [1.0] * 4
    assert readers[0] is threading.current_thread()
    assert threading.current_thread() not in readers[1:]


def test_nll_is_the_definition(untrained: LoadedModel, trained_float32: TrainedModel) -> None:
    for loaded in (untrained, trained_float32):
        expected = [plain_nll(loaded.model, loaded.tokenizer, *request) for request in REQUESTS]
        assert answer_nll(loaded.model, loaded.tokenizer, REQUESTS) == pytest.approx(expected, abs=1e-4)
        assert len({round(value, 3) for value in expected}) == len(expected)


@pytest.mark.parametrize(("batch_rows", "threads"), [(1, 1), (1, 2), (2, 1), (2, 5), (3, 1)])
def test_nll_does_not_depend_on_batches_and_cores(untrained: LoadedModel, batch_rows: int, threads: int) -> None:
    together = answer_nll(untrained.model, untrained.tokenizer, REQUESTS)
    with torch_threads(threads):
        apart = answer_nll(untrained.model, untrained.tokenizer, REQUESTS, batch_rows=batch_rows)
    assert apart == pytest.approx(together, abs=1e-4)


def test_nll_does_not_depend_on_how_many_logits_exist_together(
    untrained: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = answer_nll(untrained.model, untrained.tokenizer, REQUESTS)
    seen = []
    head = untrained.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[0]))
    monkeypatch.setattr(scoring, "_POSITIONS_AT_ONCE", 7)
    apart = answer_nll(untrained.model, untrained.tokenizer, REQUESTS)
    handle.remove()
    assert apart == pytest.approx(together, abs=1e-5)
    assert max(seen) == 7
    probe_rows = seen[0]  # whether anything follows the head
    assert sum(seen) - probe_rows == sum(len(answer) for _, answer in REQUESTS)


def test_nll_in_the_form_of_this_machine(tiny_trained: TrainedModel) -> None:
    expected = [plain_nll(tiny_trained.model, tiny_trained.tokenizer, *request) for request in REQUESTS]
    scores = answer_nll(tiny_trained.model, tiny_trained.tokenizer, REQUESTS)
    assert scores == pytest.approx(expected, abs=0.03)  # bfloat16 keeps eight bits


def test_nll_refuses_what_has_none(untrained: LoadedModel) -> None:
    assert answer_nll(untrained.model, untrained.tokenizer, []) == []
    with pytest.raises(PipelineError, match=r"request 1 \('Why not\?'\): an empty answer"):
        answer_nll(untrained.model, untrained.tokenizer, [("Why?", (5,)), ("Why not?", ())])
    with pytest.raises(PipelineError, match="contains <STYLE_TERSE>"):
        answer_nll(untrained.model, untrained.tokenizer, [("<STYLE_TERSE> Why?", (5,))])


def test_the_untrained_model_is_the_unpacked_base(
    untrained: LoadedModel, tiny_folder: Path, tiny_tokenizer: Any, plain_cpu: None
) -> None:
    base = load_base(tiny_folder, hardware_preset(PRESETS["lean"], "cpu").quantization, "cpu")
    add_style_rows(base, tiny_tokenizer)
    base.train()  # in evaluation bitsandbytes computes in bfloat16 where the CPU can
    linears = [module for module in untrained.model.modules() if isinstance(module, torch.nn.Linear)]
    assert {(type(module), module.weight.dtype) for module in linears} == {(torch.nn.Linear, torch.float32)}
    assert not untrained.model.training
    assert not any("lora" in name for name, _ in untrained.model.named_parameters())
    for style in Style:
        torch.testing.assert_close(
            logits(untrained.model, tiny_tokenizer, "Why?", style),
            logits(base, tiny_tokenizer, "Why?", style),
            rtol=1e-4,
            atol=1e-4,
        )


def test_the_untrained_model_stays_packed_where_4bit_is_fast(
    tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "multiplies_packed_on_cpu", lambda: True)
    packed = load_untrained(tiny_run).model
    assert packed.is_loaded_in_4bit
    assert quantization_census(packed).nf4_double_quant_count == 14


def test_no_4bit_layer_is_left_of_a_trained_model(trained_float32: TrainedModel) -> None:
    assert trained_float32.census.nf4_double_quant_count == 14
    assert quantization_census(trained_float32.model).nf4_double_quant_count == 0


def test_the_first_of_the_likeliest_tokens_is_the_chosen_one(tiny_trained: TrainedModel) -> None:
    loaded, tokenizer = tiny_trained.model, tiny_trained.tokenizer
    answer, steps = greedy_with_log_probabilities(loaded, tokenizer, "Why?", Style.VERBOSE, ONE_BY_ONE_LIMITS)
    (plain,) = generate_batch(loaded, tokenizer, [("Why?", Style.VERBOSE)], ONE_BY_ONE_LIMITS)
    assert (answer.token_ids, answer.text, answer.finish_reason, answer.style) == (
        plain.token_ids,
        plain.text,
        plain.finish_reason,
        plain.style,
    )
    assert tuple(step[0][0] for step in steps) == answer.token_ids
    for step in steps:
        assert len({token for token, _ in step}) == 5
        assert [value for _, value in step] == sorted((value for _, value in step), reverse=True)
        assert step[0][1] < 0


def test_log_probabilities_are_the_models(trained_float32: TrainedModel) -> None:
    loaded, tokenizer = trained_float32.model, trained_float32.tokenizer
    _, steps = greedy_with_log_probabilities(loaded, tokenizer, "Why?", Style.TERSE, ONE_BY_ONE_LIMITS)
    first = logits(loaded, tokenizer, "Why?", Style.TERSE).float().log_softmax(0).topk(5)
    assert [token for token, _ in steps[0]] == first.indices.tolist()
    assert [value for _, value in steps[0]] == pytest.approx(first.values.tolist(), abs=1e-4)


def test_the_end_of_an_answer_is_a_step(trained_float32: TrainedModel) -> None:
    tokenizer = copy.deepcopy(trained_float32.tokenizer)
    answer, _ = greedy_with_log_probabilities(trained_float32.model, tokenizer, "Why?", None, ONE_BY_ONE_LIMITS)
    third = answer.token_ids[2]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(third)
    ended, steps = greedy_with_log_probabilities(trained_float32.model, tokenizer, "Why?", None, ONE_BY_ONE_LIMITS)
    assert ended.finish_reason == "eos"
    assert ended.token_ids == answer.token_ids[: answer.token_ids.index(third)]
    assert len(steps) == len(ended.token_ids) + 1
    assert steps[-1][0][0] == third


def test_equal_logits_put_the_chosen_token_first() -> None:
    tied = torch.tensor([0.0, 3.0, 3.0, 3.0, 1.0, 2.0, -1.0], dtype=torch.bfloat16)
    for chosen in (1, 2, 3):
        likeliest = scoring._likeliest(tied, chosen)
        assert likeliest[0][0] == chosen
        assert sorted(token for token, _ in likeliest) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("limits", [GenerationConfig(temperature=0.1), GenerationConfig(min_new_tokens=4)])
def test_log_probabilities_of_other_decoding_are_refused(tiny_trained: TrainedModel, limits: GenerationConfig) -> None:
    with pytest.raises(PipelineError, match="greedy"):
        greedy_with_log_probabilities(tiny_trained.model, tiny_trained.tokenizer, "Why?", Style.TERSE, limits)


@pytest.mark.parametrize("kind", ["lean", "golden", "untrained"])
def test_exchanged_rows_exchange_the_styles_and_come_back(
    kind: str, tiny_trained: TrainedModel, golden: Any, untrained: LoadedModel
) -> None:
    loaded = {"lean": tiny_trained.model, "golden": golden, "untrained": untrained.model}[kind]
    tokenizer = tiny_trained.tokenizer
    before = {style: logits(loaded, tokenizer, "Why?", style) for style in Style}
    # After a first answer, since bitsandbytes repacks 4-bit weights for the CPU in it.
    weights = {name: parameter.clone() for name, parameter in loaded.named_parameters()}
    assert not torch.equal(before[Style.TERSE], before[Style.VERBOSE])
    with swap_style_rows(loaded, tokenizer):
        for style, other in ((Style.TERSE, Style.VERBOSE), (Style.VERBOSE, Style.TERSE)):
            assert torch.equal(logits(loaded, tokenizer, "Why?", style)[:-2], before[other][:-2])
    assert all(torch.equal(parameter, weights[name]) for name, parameter in loaded.named_parameters())
    assert all(torch.equal(logits(loaded, tokenizer, "Why?", style), before[style]) for style in Style)


def test_exchanged_rows_come_back_after_an_error(tiny_trained: TrainedModel) -> None:
    matrix, rows = scoring._style_rows(tiny_trained.model, tiny_trained.tokenizer)
    before = matrix.detach().clone()

    def fail_midway() -> None:
        with swap_style_rows(tiny_trained.model, tiny_trained.tokenizer):
            assert torch.equal(matrix[rows], before[rows].flip(0))
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    assert torch.equal(matrix, before)


class FixedModel:
    """Finds three tokens likely after anything, with these shares at a temperature, and all others hardly."""

    device = torch.device("cpu")

    def __init__(self, tokens: tuple[int, ...], shares: tuple[float, ...], temperature: float, width: int) -> None:
        self.row = torch.full((width,), -100.0)
        self.row[list(tokens)] = temperature * torch.tensor(shares).log()

    def __call__(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.row.repeat(1, input_ids.shape[1], 1))


def test_sampled_tokens_are_as_surprising_as_the_preset_is_uncertain(tiny_tokenizer: Any) -> None:
    tokens, shares = (1000, 2000, 3000), (0.6, 0.3, 0.1)
    model = FixedModel(tokens, shares, 0.1, len(tiny_tokenizer))
    read, variances = sampling_surprise(model, tiny_tokenizer, ("Why?", Style.TERSE), tokens, ended=True)
    assert read[-1] is None, "an end that nothing announced"
    assert [value is None for value in read[:-1]] == [False] * 3
    assert sum(share * value for share, value in zip(shares, read, strict=False) if value) == pytest.approx(0, abs=1e-5)
    assert read[0] == pytest.approx(-math.log(0.6) + sum(share * math.log(share) for share in shares), abs=1e-5)
    squares = [value**2 for value in read if value is not None]
    varentropy = sum(share * square for share, square in zip(shares, squares, strict=True))
    assert variances == pytest.approx([varentropy] * 4, abs=1e-5)


def test_what_a_preset_cannot_sample_is_outside(tiny_tokenizer: Any) -> None:
    end = tiny_tokenizer.eos_token_id
    model = FixedModel((1000, end, 3000), (0.6, 0.35, 0.05), 0.7, len(tiny_tokenizer))
    request = ("Why?", Style.VERBOSE)
    beyond_the_nucleus, _ = sampling_surprise(model, tiny_tokenizer, request, (1000, 3000), ended=False)
    assert [value is None for value in beyond_the_nucleus] == [False, True]
    early, _ = sampling_surprise(model, tiny_tokenizer, request, (1000,) * 63, ended=True)
    in_time, _ = sampling_surprise(model, tiny_tokenizer, request, (1000,) * 64, ended=True)
    assert (early[-1] is None, in_time[-1] is None) == (True, False)
