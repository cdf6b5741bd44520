"""Whether two servers have the same model: how likely the tokens of the same greedy answers are to each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import httpx2

from pipeline.config import Style
from pipeline.data.style import inject_token
from pipeline.errors import PipelineError

SAMPLE_TIMEOUT_S = 60.0
"""For the tokens by which replicas are compared; a busy one takes its time."""
SAMPLE_QUESTIONS = ("What is a canary release?", "Why do the tides come twice a day?")
SAMPLE_TOKENS = 16
ALTERNATIVES = 10
"""Likeliest tokens of each position; OpenAI and vLLM report up to 20."""
SAME_MODEL_NATS = 0.05
"""Mean absolute difference of log-probabilities within which two servers hold the same values: the limit that an export
is proved with (``pipeline.release.proof.SAME_VALUES``)."""

Distribution = Mapping[str, float]
"""Log-probabilities in nats of the likeliest tokens, by their text."""
Sample = Sequence[tuple[str, Distribution]]
"""A greedy answer: each token, and what else was likely there."""


async def samples(client: httpx2.AsyncClient, name: str, model: str) -> list[Sample]:
    """Beginnings of greedy answers in both styles.

    Args:
        client: Requests the server.
        name: The server's address, for errors.
        model: Its name for the model.

    Raises:
        PipelineError: It does not report log-probabilities, or does not answer.
    """
    contents = [inject_token(question, style) for question in SAMPLE_QUESTIONS for style in Style]
    found = [await _sample(client, name, model, content) for content in contents]
    if not any(likely for sample in found for _, likely in sample):
        raise PipelineError(_without_log_probabilities(name, "none in its answers"))
    return found


def _without_log_probabilities(name: str, reason: str) -> str:
    return (
        f"{name}: reports no log-probabilities, by which several servers are compared ({reason}); let it report them,"
        " or name one address only."
    )


async def _sample(client: httpx2.AsyncClient, name: str, model: str, content: str) -> Sample:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.0,
        "max_tokens": SAMPLE_TOKENS,
        "logprobs": True,
        "top_logprobs": ALTERNATIVES,
    }
    try:
        response = await client.post("chat/completions", json=body, timeout=SAMPLE_TIMEOUT_S)
        positions = response.raise_for_status().json()["choices"][0]["logprobs"]["content"]
        return [
            (str(at["token"]), {str(one["token"]): float(one["logprob"]) for one in at["top_logprobs"]})
            for at in positions
        ]
    except httpx2.TransportError as error:
        raise PipelineError(f"{name}: does not answer ({type(error).__name__}).") from error
    except (httpx2.HTTPStatusError, ValueError, KeyError, TypeError, IndexError) as error:
        raise PipelineError(_without_log_probabilities(name, str(error) or type(error).__name__)) from error


def difference_nats(expected: Sequence[Sample], found: Sequence[Sample]) -> float:
    """How far the log-probabilities of two servers are apart.

    Both answered the same questions greedily. Positions count to the first at which the tokens differ, it included; at
    each one the absolute differences are weighted by the probability that the first server gives to the token. A token
    that the second does not list counts as the least likely that it lists.

    Returns:
        The mean over the positions in nats; infinity if there is none to compare.
    """
    differences = []
    for one, other in zip(expected, found, strict=True):
        for (token, likely), (other_token, other_likely) in zip(one, other, strict=False):
            differences.append(_distance_nats(likely, other_likely))
            if token != other_token:
                break
    return sum(differences) / len(differences) if differences else math.inf


def _distance_nats(expected: Distribution, found: Distribution) -> float:
    least = min(found.values(), default=-math.inf)
    weights = {token: weight for token, nats in expected.items() if (weight := math.exp(nats)) > 0}
    distances = (weight * abs(expected[token] - found.get(token, least)) for token, weight in weights.items())
    return sum(distances) / sum(weights.values()) if weights else math.inf
