"""The known limits of transformers' continuous batching, each behind its guard."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from pipeline.compat import TRANSFORMERS_5
from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.engines.interface import AnswerRequest, EngineFailedError, RequestTooLongError
from pipeline.engines.selection import open_local
from pipeline.errors import PipelineError
from pipeline.generation.generate import generate_with_style, styled_prompt_ids
from pipeline.model.loading import LoadedModel, TrainedModel
from tests.unit.pipeline.engines.conftest import needs_continuous_batching, until

if TYPE_CHECKING:
    from pipeline.engines.continuous import ContinuousEngine

PINNED = "5.23.0"
GREEDY = GenerationConfig(max_new_tokens=16)
continuous = needs_continuous_batching


def request(prompt: str = "Why?", limits: GenerationConfig = GREEDY, style: Style = Style.TERSE) -> AnswerRequest:
    return AnswerRequest(prompt, style, 300, limits)


def open_continuous(model: LoadedModel, **settings: int) -> ContinuousEngine:
    from pipeline.engines.continuous import ContinuousEngine

    return ContinuousEngine(model.model, model.tokenizer, **settings)


@pytest.fixture
def engine(exact: LoadedModel) -> Iterator[ContinuousEngine]:
    engine = open_continuous(exact)
    yield engine
    engine.close()


@pytest.fixture
def eager_to_end(exact: LoadedModel) -> Iterator[LoadedModel]:
    """The model with an end so likely that no nucleus holds anything else."""
    eos = exact.tokenizer.eos_token_id

    def ends(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., eos] += 1000
        return logits

    hook = exact.model.get_output_embeddings().register_forward_hook(ends)
    yield exact
    hook.remove()


@pytest.mark.skipif(TRANSFORMERS_5, reason=f"transformers {transformers.__version__} batches continuously")
def test_without_continuous_batching_the_choice_is_refused_in_words(exact: LoadedModel) -> None:
    with pytest.raises(PipelineError, match=r"needs a transformers .*4\.54.*choose the engine serial"):
        open_local("continuous", exact.model, exact.tokenizer, max_in_flight=2)


@continuous
def test_private_names_are_those_of_the_pinned_release() -> None:
    """The engine uses these; after an upgrade read each again in transformers before this line is changed."""
    from transformers.generation.continuous_batching import cb_logits_processors, continuous_api, requests

    assert transformers.__version__ == PINNED
    manager = continuous_api.ContinuousBatchingManager
    assert {"request_id", "max_new_tokens", "streaming", "logit_processor_kwargs"} <= set(
        inspect.signature(manager.add_request).parameters
    )
    assert {"timeout", "hard_stop"} <= set(inspect.signature(manager.stop).parameters)
    processors = cb_logits_processors.ContinuousBatchingLogitsProcessorList(LogitsProcessorList())
    assert (list(processors.logits_processor), processors.tensors_required) == ([], 0)
    assert callable(processors._retrieve_processors_kwargs)
    state = requests.RequestState("id", [1, 2], max_new_tokens=9, logit_processor_kwargs={"greedy": True})
    assert (state.initial_tokens, state._true_initial_tokens, state.generated_len()) == ([1, 2], 0, 0)
    state.generated_tokens = [3]
    again = state.create_equivalent_initial_request()
    assert (again.initial_tokens, again._true_initial_tokens, again.generated_len()) == ([1, 2, 3], 2, 0)
    assert continuous_api.BackgroundThreadStatus().fatal_error is None


@continuous
def test_the_processors_stand_in_their_order_and_none_cuts_at_fifty(engine: ContinuousEngine) -> None:
    processors = engine._manager.logit_processor
    names = [type(processor).__name__ for processor in processors.logits_processor]
    assert names == ["MinNewTokens", "Greedy", "ContinuousBatchingTemperatureLogitsWarper", "QuickTopP"]
    assert set(processors.supported_keys) == {"min_new_tokens", "greedy", "temperature", "top_p"}
    assert processors.tensors_required == len(names)


@continuous
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_the_least_number_of_tokens_is_kept(eager_to_end: LoadedModel, temperature: float) -> None:
    limits = GenerationConfig(temperature, 0.9, min_new_tokens=10, max_new_tokens=30)
    alone = generate_with_style(eager_to_end.model, eager_to_end.tokenizer, "Why?", Style.TERSE, config=limits)
    assert (alone.token_count, alone.finish_reason) == (10, "eos")
    engine = open_continuous(eager_to_end)
    free = engine.submit(request(limits=GenerationConfig(temperature, 0.9, max_new_tokens=30)))
    bound = engine.submit(request(limits=limits)).result()
    assert free.result().token_count == 0
    assert (bound.token_count, bound.finish_reason) == (10, "eos")
    if temperature == 0:
        assert bound.text == alone.text
    assert engine.stats().alive
    engine.close()


@continuous
def test_a_request_as_large_as_the_cache_is_answered_and_a_larger_one_refused(exact: LoadedModel) -> None:
    engine = open_continuous(exact, cache_tokens=128)
    room = 128 - len(styled_prompt_ids(exact.tokenizer, "Why?", Style.TERSE))
    with pytest.raises(RequestTooLongError) as refusal:
        engine.submit(request(limits=GenerationConfig(min_new_tokens=room + 1, max_new_tokens=room + 1)))
    assert refusal.value.limit_tokens == 128
    filling = GenerationConfig(min_new_tokens=room, max_new_tokens=room)
    assert engine.submit(request(limits=filling)).result().token_count == room
    assert engine.stats().alive
    engine.close()


@continuous
def test_more_answers_than_the_cache_holds_come_out_the_same(exact: LoadedModel) -> None:
    limits = GenerationConfig(min_new_tokens=100, max_new_tokens=100)
    prompts = [f"Why {number}?" for number in range(6)]
    alone = [generate_with_style(exact.model, exact.tokenizer, p, Style.TERSE, config=limits).text for p in prompts]
    engine = open_continuous(exact, cache_tokens=256)
    tickets = [engine.submit(request(prompt, limits)) for prompt in prompts]
    assert [ticket.result().text for ticket in tickets] == alone
    assert all("".join(ticket.deltas()) == ticket.result().text for ticket in tickets)
    engine.close()


@continuous
def test_a_prompt_longer_than_a_step_is_answered(exact: LoadedModel) -> None:
    prompt = " ".join(f"word{number}" for number in range(60))
    alone = generate_with_style(exact.model, exact.tokenizer, prompt, Style.TERSE, config=GREEDY)
    engine = open_continuous(exact, batch_tokens=32, max_in_flight=4)
    assert engine.submit(request(prompt)).result().text == alone.text
    engine.close()


@continuous
@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), torch.OutOfMemoryError("out of memory")], ids=["error", "memory"]
)
def test_the_death_of_the_engines_thread_reaches_everybody(
    engine: ContinuousEngine, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise error

    running = engine.submit(request(limits=GenerationConfig(min_new_tokens=3000, max_new_tokens=3000)))
    assert next(running.deltas())
    monkeypatch.setattr(engine._manager, "_generation_step", broken)
    waiting = engine.submit(request())
    for ticket in (running, waiting):
        with pytest.raises(EngineFailedError):
            ticket.result()
    assert until(lambda: not engine.stats().alive)
    assert engine.stats().in_flight == 0
    with pytest.raises(EngineFailedError):
        engine.submit(request())


@continuous
def test_a_cancelled_answer_takes_no_more_steps(engine: ContinuousEngine) -> None:
    ticket = engine.submit(request(limits=GenerationConfig(min_new_tokens=3000, max_new_tokens=3000)))
    assert next(ticket.deltas())
    engine.cancel(ticket)
    assert until(lambda: not engine._manager.batch_processor.has_pending_requests())


@continuous
def test_an_engine_that_makes_no_progress_says_so(engine: ContinuousEngine) -> None:
    assert engine.stats().stalled_s == 0
    with engine._manager.pause():
        engine.submit(request())
        assert until(lambda: engine.stats().stalled_s > 0.2)
        assert engine.stats().alive


@continuous
def test_the_model_is_as_before_when_the_engine_is_closed(exact: LoadedModel) -> None:
    before = generate_with_style(exact.model, exact.tokenizer, "Why?", Style.TERSE, config=GREEDY)
    open_continuous(exact).close()
    after = generate_with_style(exact.model, exact.tokenizer, "Why?", Style.TERSE, config=GREEDY)
    assert after.token_ids == before.token_ids


@continuous
def test_a_4_bit_model_with_its_adapter_answers(tiny_trained: TrainedModel) -> None:
    alone = generate_with_style(tiny_trained.model, tiny_trained.tokenizer, "Why?", Style.TERSE, config=GREEDY)
    engine = open_continuous(tiny_trained)
    got = engine.submit(request()).result()
    several = [engine.submit(AnswerRequest(f"Why {number}?", style, 300)) for number in range(3) for style in Style]
    for ticket in several:
        preset = GENERATION_PRESETS[ticket.request.style]
        assert preset.min_new_tokens <= ticket.result().token_count <= preset.max_new_tokens
    engine.close()
    assert got.token_ids == alone.token_ids


@continuous
@pytest.mark.parametrize("spread", [4.0, 0.01], ids=["peaked", "flat"])
def test_each_row_is_sampled_under_its_own_temperature_and_nucleus(engine: ContinuousEngine, spread: float) -> None:
    torch.manual_seed(0)
    configs = [*GENERATION_PRESETS.values(), GenerationConfig(1.0, 1.0), GenerationConfig(0.7, 0.5)]
    scores = spread * torch.randn(len(configs), 5000)
    requests = [_scheduled(config) for config in configs]
    processors = engine._manager.logit_processor
    arguments = torch.zeros((processors.tensors_required, len(configs)), dtype=torch.int32)
    processors.prepare_tensor_args(requests, arguments)
    got = processors(torch.zeros(len(configs), dtype=torch.int32), scores.clone(), arguments)
    for row, config in enumerate(configs):
        warped = TemperatureLogitsWarper(config.temperature)(torch.empty(0), scores[row : row + 1])
        if config.top_p < 1:
            warped = TopPLogitsWarper(config.top_p)(torch.empty(0), warped)
        torch.testing.assert_close(got[row], warped[0])
    assert (got.isfinite().sum(-1)[:2] < 5000).all()


@continuous
def test_a_greedy_row_keeps_its_best_token_alone(engine: ContinuousEngine) -> None:
    scores = torch.randn(2, 300)
    processors = engine._manager.logit_processor
    arguments = torch.zeros((processors.tensors_required, 2), dtype=torch.int32)
    processors.prepare_tensor_args([_scheduled(GenerationConfig()), _scheduled(GenerationConfig(0.7, 0.9))], arguments)
    got = processors(torch.zeros(2, dtype=torch.int32), scores.clone(), arguments)
    assert got[0].isfinite().nonzero().flatten().tolist() == [scores[0].argmax().item()]
    assert got[1].isfinite().sum() > 1


def _scheduled(config: GenerationConfig) -> SimpleNamespace:
    from transformers.generation.continuous_batching.requests import RequestState

    from pipeline.engines.continuous import _choice

    state = RequestState("id", [1], logit_processor_kwargs=_choice(config) | {"min_new_tokens": 0})
    return SimpleNamespace(state=state, has_new_token=True)
