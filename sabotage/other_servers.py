"""Faults of serving that others reported: prompts, sampling, merging, caches, counts, replicas, health."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from pipeline.config import Style
from sabotage.replacing import replace
from sabotage.serving import when_busy, with_bodies, with_generations, with_problems, with_served_model

KEPT_TOKENS = 8
"""Tokens that a context cut short keeps of a prompt."""
KEPT_CHARACTERS = 200
"""Characters that are read of a long prompt; the gate's questions are shorter."""
DEFAULT_MAX_TOKENS = 16
"""Cap of an answer where a client names none, as in OpenAI's first API."""


def _with_served_prompts(change: Callable[[Any, list[int], str, Style | None], list[int]]) -> None:
    """Change the token ids of every prompt in the server's process only; ``change`` also sees tokenizer and request."""

    def changing(styled_prompt_ids: Any) -> Any:
        def changed(tokenizer: Any, prompt: str, style: Style | None) -> list[int]:
            return change(tokenizer, styled_prompt_ids(tokenizer, prompt, style), prompt, style)

        return changed

    def broken(load_trained: Any) -> Any:
        def load(*arguments: Any, **keywords: Any) -> Any:
            replace("pipeline.generation.generate:styled_prompt_ids", changing)
            return load_trained(*arguments, **keywords)

        return load

    replace("pipeline.service.loading:load_trained", broken)


def double_bos() -> None:
    _with_served_prompts(lambda tokenizer, ids, prompt, style: [tokenizer.bos_token_id, *ids])


def leave_template_out() -> None:
    def plain(tokenizer: Any, ids: list[int], prompt: str, style: Style | None) -> list[int]:
        text = f"{style.token}\n{prompt}" if style else prompt
        bare: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return bare

    _with_served_prompts(plain)


def cut_context() -> None:
    _with_served_prompts(lambda tokenizer, ids, prompt, style: ids[-KEPT_TOKENS:])


def _with_limits(change: Callable[[Any], Any]) -> None:
    def broken(request: Any) -> Any:
        return lambda prompt, style, timeout_s, limits: request(prompt, style, timeout_s, change(limits))

    replace("pipeline.engines.interface:AnswerRequest", broken)


def sample_by_default() -> None:
    _with_limits(lambda limits: dataclasses.replace(limits, temperature=1.0, top_p=1.0))


def cap_by_default() -> None:
    _with_limits(lambda limits: dataclasses.replace(limits, min_new_tokens=0, max_new_tokens=DEFAULT_MAX_TOKENS))


def merge_twice() -> None:
    def double(model: Any) -> Any:
        for module in model.modules():
            if isinstance(scaling := getattr(module, "scaling", None), dict):
                scaling.update({name: 2 * value for name, value in scaling.items()})
        return model

    with_served_model(double)


def merge_into_4bit() -> None:
    with_served_model(lambda model: model.merge_and_unload())


def keep_stale_answers() -> None:
    """Answer from a cache that knows a prompt's words but not its style."""
    first: dict[str, Any] = {}
    with_generations(lambda request, generation: first.setdefault(request.prompt, generation))


def answer_nothing() -> None:
    with_generations(lambda request, generation: dataclasses.replace(generation, text="", token_ids=()))


def overflow() -> None:
    """Repeat the first token of the vocabulary, as a model does whose half precision has overflowed."""
    with_generations(lambda request, generation: dataclasses.replace(generation, text="!" * len(generation.token_ids)))


def _with_answers(change: Callable[[dict[str, Any], str], dict[str, Any]]) -> None:
    """Change the body of each answer; ``change`` also sees the prompt."""
    from flask import request

    def changed(fields: dict[str, Any]) -> dict[str, Any]:
        return change(fields, request.get_json()["prompt"]) if "tokens" in fields else fields

    with_bodies(changed)


def count_prompt() -> None:
    _with_answers(lambda fields, prompt: {**fields, "tokens": fields["tokens"] + len(prompt.split())})


def count_before_stripping() -> None:
    _with_answers(lambda fields, prompt: {**fields, "tokens": fields["tokens"] + 1})


def repeat_prompt() -> None:
    _with_answers(lambda fields, prompt: {**fields, "response": f"{prompt} {fields['response']}"})


def answer_as_an_older_version() -> None:
    """Let every second answer come from a replica that still calls the field ``text``."""
    turns = itertools.cycle((False, True))

    def change(fields: dict[str, Any], prompt: str) -> dict[str, Any]:
        return {"text" if n == "response" else n: value for n, value in fields.items()} if next(turns) else fields

    _with_answers(change)


def stay_loading() -> None:
    with_bodies(lambda fields: {**fields, "status": "loading"} if "gpu_memory" in fields else fields)


def show_memory_as_text() -> None:
    with_bodies(lambda fields: {n: f"{value} GiB" if n == "gpu_memory" else value for n, value in fields.items()})


def _with_requests(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the fields of each request before anything checks them."""

    def broken(parse_json: Any) -> Any:
        def parse(body: bytes) -> Any:
            value = parse_json(body)
            if isinstance(value, dict):
                change(value)
            return value

        return parse

    replace("pipeline.service.bodies:parse_json", broken)


def accept_unknown_styles() -> None:
    known = [style.value for style in Style]

    def change(fields: dict[str, Any]) -> None:
        if fields.get("style") not in (None, *known):
            fields["style"] = Style.TERSE.value

    _with_requests(change)


def cut_long_prompts() -> None:
    """Answer a prompt of any length, of which only the end is read."""

    def change(fields: dict[str, Any]) -> None:
        if isinstance(prompt := fields.get("prompt"), str):
            fields["prompt"] = prompt[-KEPT_CHARACTERS:]

    _with_requests(change)


def refuse_bluntly() -> None:
    """Refuse what is too much without saying when to ask again."""
    from pipeline.engines.interface import EngineBusyError

    def act() -> None:
        raise EngineBusyError("busy")

    when_busy(act)
    with_problems(lambda response, status: response.headers.pop("Retry-After", None))


def keep_an_old_replica() -> None:
    """Let every second request go to a replica that still has the base without the adapter."""

    def broken(load_local: Any) -> Any:
        def load(run: Any, engine: Any, **options: Any) -> Any:
            from pipeline.engines.selection import DEFAULT_ENGINE, open_local
            from pipeline.model.loading import load_untrained

            new, info = load_local(run, engine, **options)
            base = load_untrained(run, device=options["device"], base_model=options["base_model"])
            name, bound = engine or DEFAULT_ENGINE, options["max_in_flight"]
            return Replicas(new, open_local(name, base.model, base.tokenizer, max_in_flight=bound)), info

        return load

    replace("pipeline.service.loading:load_local", broken)


class Replicas:
    """Two engines that answer in turn; in all else the first one speaks for both."""

    def __init__(self, *engines: Any) -> None:
        self._engines, self._turns = engines, itertools.cycle(engines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engines[0], name)

    def submit(self, request: Any) -> Any:
        return next(self._turns).submit(request)

    def cancel(self, ticket: Any) -> None:
        ticket.cancel()

    def close(self, drain_s: float = 0.0) -> None:
        for engine in self._engines:
            engine.close(drain_s)
