"""vLLM itself on this CPU: an adapter exported by us gives the trained model's log-probabilities, two on one base."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests

from benchmarks.peers import running
from pipeline.config import Style
from pipeline.engines.interface import AnswerRequest
from pipeline.engines.remote import RemoteEngine
from pipeline.engines.same_model import SAME_MODEL_NATS, Sample, difference_nats, samples
from pipeline.generation.generate import styled_prompt_ids
from pipeline.model.base_models import base_model_folder
from pipeline.model.loading import load_trained, load_untrained
from pipeline.model.tokenizer import load_tokenizer
from pipeline.release.export import export
from pipeline.release.proof import SAME_VALUES, Answer, Proof, compare, own_answers, score_with
from pipeline.run_folder import RunFolder
from tests.engine_environments import engine_folder, vllm_command
from tests.smoke.gate import results
from tests.smoke.pages import commands
from tests.smoke.wheel import installed
from tests.support import TINY

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


@dataclass(frozen=True)
class Expected:
    """A run's own answers, and how likely they are to it and to its base without the adapter."""

    tokenizer: Any
    answers: list[Answer]
    trained: list[list[float]]
    untrained: list[list[float]]

    def prove(self, url: str, model: str) -> Proof:
        found = [token_nll(url, model, self.tokenizer, *answer) for answer in self.answers]
        return compare(self.trained, found, self.untrained, SAME_VALUES)


@pytest.fixture(scope="module")
def expected(runs: dict[str, RunFolder]) -> dict[str, Expected]:
    return {name: expect(run) for name, run in runs.items()}


def expect(run: RunFolder) -> Expected:
    trained, untrained = load_trained(run), load_untrained(run)
    answers, tokenizer = own_answers(trained), trained.tokenizer
    scores = [score_with(model.model)(tokenizer, answers) for model in (trained, untrained)]
    return Expected(tokenizer, answers, *scores)


def token_nll(
    url: str, model: str, tokenizer: Any, question: str, style: Style, answer: tuple[int, ...]
) -> list[float]:
    prompt = styled_prompt_ids(tokenizer, question, style)
    body = {"model": model, "prompt": [*prompt, *answer], "max_tokens": 1, "prompt_logprobs": 0}
    replied = requests.post(f"{url}/v1/completions", json=body, timeout=ANSWER_LIMIT_S)
    assert replied.status_code == 200, replied.text
    (choice,) = replied.json()["choices"]
    found = choice["prompt_logprobs"][len(prompt) :]
    return [-alternatives[str(token)]["logprob"] for token, alternatives in zip(answer, found, strict=True)]


@pytest.mark.parametrize("name", ["first", "second"])
def test_each_of_two_adapters_is_its_own_trained_model(url: str, expected: dict[str, Expected], name: str) -> None:
    """One request after another: prompt_logprobs of several ends vLLM 0.32 on a CPU where adapters are loaded."""
    assert expected[name].prove(url, name).violations == []


def test_the_others_adapter_is_noticed(url: str, expected: dict[str, Expected]) -> None:
    assert not expected["first"].prove(url, "second").holds


def test_engines_with_different_adapters_are_told_apart(url: str) -> None:
    async def sample(model: str) -> list[Sample]:
        async with httpx2.AsyncClient(base_url=f"{url}/v1") as client:
            return await samples(client, url, model)

    first, again, second = (asyncio.run(sample(model)) for model in ("first", "first", "second"))
    assert difference_nats(first, again) <= SAME_MODEL_NATS < difference_nats(first, second)


def test_remote_engines_take_answers_of_both_adapters_at_once(url: str, runs: dict[str, RunFolder]) -> None:
    tokenizer = load_tokenizer(base_model_folder(TINY), TINY)
    engines = [RemoteEngine([f"{url}/v1"], name, tokenizer) for name in runs]
    try:
        request = [AnswerRequest("What is rate limiting?", style, ANSWER_LIMIT_S) for style in Style]
        tickets = [engine.submit(one) for engine in engines for one in request]
        answers = [ticket.result() for ticket in tickets]
    finally:
        for engine in engines:
            engine.close()
    assert all(answer.text for answer in answers)
    assert {answer.finish_reason for answer in answers} <= {"eos", "length"}


def test_the_wheel_judges_it_from_an_empty_folder(url: str, site: Path, tmp_path: Path) -> None:
    """What the page says; random weights do not end their sentences, and vLLM's protocol and errors are in order."""
    named = {"http://127.0.0.1:8000": url, "tuned": "first", "FOLDER": str(base_model_folder(TINY))}
    accept, _ = commands("own-server.md", "verbosity accept", named)
    judged = installed(site, tmp_path, *accept)
    assert judged.returncode == 10, judged.stdout + judged.stderr
    found = results(tmp_path / "acceptance-results", url.removeprefix("http://"))
    assert found["deployment.error_handling"]["outcome"] == "PASS", found["deployment.error_handling"]["reason"]
    assert found["style.token_separation"]["outcome"] == "FAIL", found["style.token_separation"]["measurements"]
    assert "NOT_RUN" not in {criterion["outcome"] for criterion in found.values()}
