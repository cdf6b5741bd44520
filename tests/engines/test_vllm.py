"""vLLM itself on this CPU: an adapter exported by us gives the trained model's log-probabilities, two on one base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from benchmarks.peers import running
from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest
from pipeline.engines.remote import RemoteEngine
from pipeline.generation.generate import styled_prompt_ids
from pipeline.model.loading import load_trained, load_untrained
from pipeline.release.export import export
from pipeline.release.proof import SAME_VALUES, Answer, Proof, compare, own_answers, score_with
from pipeline.run_folder import RunFolder
from tests.engine_environments import engine_folder, vllm_command

START_LIMIT_S, ANSWER_LIMIT_S = 900, 300


@pytest.fixture(scope="module")
def runs(taught: RunFolder, teach: Callable[[float], RunFolder]) -> dict[str, RunFolder]:
    """Two runs of one base, by the names of their adapters."""
    return {"first": taught, "second": teach(3e-2)}


@pytest.fixture(scope="module")
def url(runs: dict[str, RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM with both adapters on the base that was exported with the first."""
    work = tmp_path_factory.mktemp("vllm")
    for name, run in runs.items():
        export(run, work / name, form="adapter")
    adapters = {name: work / name / "adapter" for name in runs}
    base = work / "first" / "base"
    command = vllm_command(engine_folder("vllm"), base, name="base", dtype="float32", adapters=adapters)
    # Compiling takes longer than all that is asked here.
    with running([*command, "--enforce-eager"], work / "vllm.log", ready="/health", limit_s=START_LIMIT_S) as address:
        yield address


def scores(url: str, model: str, tokenizer: Any, answers: Sequence[Answer]) -> list[list[float]]:
    return [token_nll(url, model, styled_prompt_ids(tokenizer, *answer[:2]), list(answer[2])) for answer in answers]


def token_nll(url: str, model: str, prompt: list[int], answer: list[int]) -> list[float]:
    body = {"model": model, "prompt": prompt + answer, "max_tokens": 1, "prompt_logprobs": 0}
    replied = requests.post(f"{url}/v1/completions", json=body, timeout=ANSWER_LIMIT_S)
    assert replied.status_code == 200, replied.text
    (choice,) = replied.json()["choices"]
    found = choice["prompt_logprobs"][len(prompt) :]
    return [-alternatives[str(token)]["logprob"] for token, alternatives in zip(answer, found, strict=True)]


def prove(url: str, model: str, run: RunFolder) -> Proof:
    trained, untrained = load_trained(run), load_untrained(run)
    answers = own_answers(trained)
    expected = score_with(trained.model)(trained.tokenizer, answers)
    lost = score_with(untrained.model)(trained.tokenizer, answers)
    return compare(expected, scores(url, model, trained.tokenizer, answers), lost, SAME_VALUES)


def test_two_adapters_at_once_are_each_their_own_trained_model(url: str, runs: dict[str, RunFolder]) -> None:
    with ThreadPoolExecutor(len(runs)) as pool:
        proofs = dict(zip(runs, pool.map(lambda name: prove(url, name, runs[name]), runs), strict=True))
    assert {name: proof.violations for name, proof in proofs.items()} == {"first": [], "second": []}


def test_the_others_adapter_is_noticed(url: str, runs: dict[str, RunFolder]) -> None:
    assert not prove(url, "second", runs["first"]).holds


@pytest.mark.parametrize("style", Style)
def test_the_remote_engine_takes_its_answers_from_vllm(url: str, style: Style, tiny_tokenizer: Any) -> None:
    engine = RemoteEngine(f"{url}/v1", "first", tiny_tokenizer)
    try:
        request = AnswerRequest("What is rate limiting?", style, ANSWER_LIMIT_S)
        generation = engine.submit(request).result()
    finally:
        engine.close()
    assert generation.text
    assert generation.finish_reason in ("eos", "length")
