"""Scoring answers: likelihoods, alternatives of each token, and the effect of exchanged style rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from pipeline.config import GENERATION_PRESETS, GenerationConfig, Style
from pipeline.data.batches import IGNORED_LABEL, collate
from pipeline.data.encoding import EncodedExample
from pipeline.errors import PipelineError
from pipeline.generation.generate import Generation, decoding, finished, styled_prompt_ids
from pipeline.model.heads import decoder_of, gives_heads_logits
from pipeline.model.openmp import map_on_cores
from pipeline.model.tokenizer import style_token_ids

TOP_TOKENS = 5
"""Alternatives kept for each generated token."""
_POSITIONS_AT_ONCE = 512
"""Positions whose logits are in memory together: 100 MB in float32 for a vocabulary of 49,000."""


def answer_nll(
    model: Any, tokenizer: Any, requests: Sequence[tuple[str, tuple[int, ...]]], *, batch_rows: int = 16
) -> list[float]:
    """Mean negative log-likelihood of answers after the plain chat prompt, without a style token.

    Formula: -1/T sum over t of ln p(token t | prompt, tokens before t); its exponential is the perplexity.

    Args:
        model: A causal model in evaluation mode, with an adapter or without.
        tokenizer: Its tokenizer, style tokens added.
        requests: Prompt and the answer's token ids without EOS, shape (T,), of each.
        batch_rows: Maximum requests per forward pass; rows of similar length are batched, padded on the right.

    Returns:
        Nats per answer token, in the order of the requests.

    Raises:
        PipelineError: An answer is empty, or a prompt contains a style token.

    Source: Jelinek et al. 1977, "Perplexity, a measure of the difficulty of speech recognition tasks".
    """
    plain = [(prompt, None, answer) for prompt, answer in requests]
    return [sum(row) / len(row) for row in token_nll(model, tokenizer, plain, batch_rows=batch_rows)]


def token_nll(
    model: Any,
    tokenizer: Any,
    requests: Sequence[tuple[str, Style | None, tuple[int, ...]]],
    *,
    batch_rows: int = 16,
) -> list[list[float]]:
    """Negative log-likelihood of each token of answers; ``answer_nll`` is their mean.

    Args:
        model: A causal model in evaluation mode, with an adapter or without.
        tokenizer: Its tokenizer, style tokens added.
        requests: Prompt, style (None adds no token) and the answer's token ids, shape (T,), of each.
        batch_rows: Maximum requests per forward pass; rows of similar length are batched, padded on the right.

    Returns:
        Nats, shape (T,), for each request, in their order.

    Raises:
        PipelineError: An answer is empty, or a prompt contains a style token.
    """
    rows: list[EncodedExample] = []
    for number, (prompt, style, answer) in enumerate(requests):
        if not answer:
            raise PipelineError(f"request {number} ({prompt!r}): an empty answer has no likelihood; leave it out.")
        head = styled_prompt_ids(tokenizer, prompt, style)
        rows.append(EncodedExample(input_ids=[*head, *answer], prompt_length=len(head)))
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]))
    scores: list[list[float]] = [[]] * len(rows)
    batches = [order[start : start + batch_rows] for start in range(0, len(order), batch_rows)]

    # All logits at once take a hundred times the memory, but Gemma 2 and others change them after the head.
    plain = gives_heads_logits(model)

    def scored(chosen: Sequence[int]) -> list[list[float]]:
        return _batch_nll(model, collate([rows[index] for index in chosen], tokenizer.pad_token_id), plain)

    workers = min(torch.get_num_threads(), len(batches)) if model.device.type == "cpu" else 1
    # The first pass lays a CPU's 4-bit weights out, which two threads must not do at once.
    first = [scored(chosen) for chosen in batches[:1]]
    for chosen, found in zip(batches, [*first, *map_on_cores(scored, batches[1:], workers)], strict=True):
        for index, score in zip(chosen, found, strict=True):
            scores[index] = score
    return scores


def _batch_nll(model: Any, batch: dict[str, list[list[int]]], plain: bool) -> list[list[float]]:
    columns = {name: torch.tensor(column, device=model.device) for name, column in batch.items()}
    labels = columns.pop("labels")[:, 1:]  # each position predicts the next token
    answered = labels != IGNORED_LABEL  # (rows, longest - 1)
    with torch.inference_mode():
        states = decoder_of(model)(**columns).last_hidden_state if plain else model(**columns).logits
        states = states[:, :-1][answered]  # (answer tokens, width)
        parts = zip(
            torch.split(states, _POSITIONS_AT_ONCE), torch.split(labels[answered], _POSITIONS_AT_ONCE), strict=True
        )
        head = model.get_output_embeddings() if plain else torch.nn.Identity()
        nll = torch.cat([cross_entropy(head(part).float(), tokens, reduction="none") for part, tokens in parts])
        return [row.tolist() for row in torch.split(nll, answered.sum(dim=1).tolist())]


def answer_logits(
    model: Any, tokenizer: Any, request: tuple[str, Style], answer: Sequence[int], *, ended: bool
) -> tuple[Tensor, Tensor]:
    """Logits of a given answer, computed in one forward pass.

    Args:
        model: A causal model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        request: Prompt and style.
        answer: The answer's token ids without EOS, shape (T,).
        ended: Whether EOS followed, which is then included.

    Returns:
        Logits in float32, shape (tokens, vocabulary), and the answer's tokens that they predict, shape (tokens,).

    Raises:
        PipelineError: The prompt contains a style token.
    """
    prompt = styled_prompt_ids(tokenizer, *request)
    tokens = [*answer, *([tokenizer.eos_token_id] if ended else [])]
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *tokens]], device=model.device)
        return model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float(), ids[0, len(prompt) :]


def sampling_surprise(
    model: Any, tokenizer: Any, request: tuple[str, Style], answer: Sequence[int], *, ended: bool
) -> tuple[list[float | None], list[float]]:
    """Surprisal of each token of an answer above the entropy of the distribution that the style's preset samples from.

    Formula: -ln q(token) - H(q) in nats, where q is the next token's distribution after the preset's temperature,
    nucleus (top_p) and minimum length. For tokens sampled from q the expectation is zero and the variance that of
    -ln q, the varentropy.

    Args:
        model: As for ``answer_logits``, like the other arguments.
        tokenizer: Its tokenizer.
        request: Prompt and style.
        answer: The answer's token ids without EOS.
        ended: Whether EOS followed.

    Returns:
        Nats for each token, None for one outside the nucleus, which cannot have been sampled; and the varentropy of
        each token's distribution in square nats.

    Raises:
        PipelineError: The prompt contains a style token.

    Source: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", for the nucleus; Kontoyiannis and
    Verdu 2014, "Optimal Lossless Data Compression: Non-Asymptotics and Asymptotics", for the varentropy.
    """
    likely, tokens = sampling_log_probabilities(model, tokenizer, request, answer, ended=ended)
    shares, surprisal = likely.exp(), -likely.nan_to_num(neginf=0.0)
    entropy = (shares * surprisal).sum(-1)
    varentropy = (shares * (surprisal - entropy.unsqueeze(-1)).square()).sum(-1)
    surprise = -likely.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return [value if math.isfinite(value) else None for value in (surprise - entropy).tolist()], varentropy.tolist()


def sampling_log_probabilities(
    model: Any, tokenizer: Any, request: tuple[str, Style], answer: Sequence[int], *, ended: bool
) -> tuple[Tensor, Tensor]:
    """What the style's preset samples each token of an answer from; arguments as for ``answer_logits``.

    Returns:
        Log-probabilities after temperature, nucleus and minimum length, shape (tokens, vocabulary), minus infinity
        outside the nucleus, and the answer's tokens, shape (tokens,).

    Raises:
        PipelineError: The prompt contains a style token.
    """
    preset = GENERATION_PRESETS[request[1]]
    logits, tokens = answer_logits(model, tokenizer, request, answer, ended=ended)
    logits[: preset.min_new_tokens, tokenizer.eos_token_id] = float("-inf")
    scores = TopPLogitsWarper(preset.top_p)(None, TemperatureLogitsWarper(preset.temperature)(None, logits))
    return scores.log_softmax(-1), tokens


def greedy_with_log_probabilities(
    model: Any, tokenizer: Any, prompt: str, style: Style | None, config: GenerationConfig
) -> tuple[Generation, list[list[tuple[int, float]]]]:
    """Answer one prompt greedily and return the likeliest alternatives of each token.

    Args:
        model: A model in evaluation mode.
        tokenizer: Its tokenizer, style tokens added.
        prompt: The user's prompt.
        style: The requested style; None adds no style token.
        config: Greedy limits without a minimum length, so that the model alone decides.

    Returns:
        The answer, and for each generated token including EOS the ``TOP_TOKENS`` likeliest ids with their natural
        log-probabilities, likeliest first. The first of each step is the generated token.

    Raises:
        PipelineError: The limits sample or set a minimum length, or the prompt contains a style token.
    """
    if config.temperature > 0 or config.min_new_tokens > 0:
        raise PipelineError("log-probabilities need greedy decoding: set temperature=0 and min_new_tokens=0.")
    started = time.perf_counter()
    ids = torch.tensor([styled_prompt_ids(tokenizer, prompt, style)], device=model.device)
    limits = decoding(config, tokenizer)
    limits.output_logits = limits.return_dict_in_generate = True
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=limits)
        answer = output.sequences[0, ids.shape[1] :].tolist()
        latency_s = time.perf_counter() - started
        steps = [_likeliest(logits[0], token) for logits, token in zip(output.logits, answer, strict=True)]
    return finished(answer, tokenizer, config, latency_s, style), steps


def _likeliest(logits: Tensor, chosen: int) -> list[tuple[int, float]]:
    top = logits.float().log_softmax(dim=-1).topk(TOP_TOKENS)
    return sorted(
        zip(top.indices.tolist(), top.values.tolist(), strict=True),
        # Logits in bfloat16 often tie, and topk breaks ties differently from the argmax of decoding.
        key=lambda pair: (-pair[1], pair[0] != chosen, pair[0]),
    )


@contextmanager
def swap_style_rows(model: Any, tokenizer: Any) -> Iterator[None]:
    """Exchange the embedding rows of the two style tokens inside the block, and restore them exactly.

    The rows are exchanged where the model looks them up: trained rows, a trained embedding, or the base's embedding. If
    the token determines the length, terse answers become long and verbose ones short.

    Args:
        model: A model with the style rows, with an adapter or without.
        tokenizer: Its tokenizer, style tokens added.
    """
    matrix, rows = _style_rows(model, tokenizer)
    with torch.no_grad():
        kept = matrix[rows].clone()
        matrix[rows] = kept.flip(0)
    try:
        yield
    finally:
        with torch.no_grad():
            matrix[rows] = kept


def _style_rows(model: Any, tokenizer: Any) -> tuple[Tensor, list[int]]:
    """The matrix where the input layer looks up the style tokens, and their row indices in it."""
    style_ids, embedding = style_token_ids(tokenizer), model.get_input_embeddings()
    if isinstance(embedding, TrainableTokensWrapper):
        order = embedding.token_adapter.token_indices["default"]
        return embedding.token_adapter.trainable_tokens_delta["default"], [order.index(token) for token in style_ids]
    if isinstance(embedding, ModulesToSaveWrapper):
        embedding = embedding.modules_to_save["default"]
    return embedding.weight, style_ids
