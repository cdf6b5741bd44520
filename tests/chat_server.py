"""A server of OpenAI's chat completions over real HTTP, without a model; tests break it one property at a time."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import GENERATION_PRESETS, Style
from pipeline.data.style import inject_token
from pipeline.files import TRAINING_DATA

MODEL = "tuned"
ROUTE = "/v1/chat/completions"
CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Response:
    """What the server sends."""

    status: int
    content: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def error(status: int, message: str, **headers: str) -> Response:
    return Response(status, {"error": {"message": message, "type": "invalid_request_error"}}, headers)


@functools.cache
def shipped_answers(count_tokens: CountTokens) -> dict[Style, list[str]]:
    """Answers of the shipped data that are well inside their style's bound."""
    pairs = [json.loads(line) for line in TRAINING_DATA.read_text(encoding="utf-8").splitlines()]
    texts = {
        style: [pair["messages"][-1]["content"] for pair in pairs if pair["id"].endswith(style)] for style in Style
    }
    fits = {Style.TERSE: range(10, 31), Style.VERBOSE: range(100, 200)}
    return {style: [text for text in texts[style] if count_tokens(text) in fits[style]][:200] for style in Style}


class ChatServer:
    """Answers each question in the style whose token is in front, beginning with its words and within the limits.

    Attributes:
        keys: The ``Authorization`` headers that came.
        bodies: The bodies of well-formed requests.
    """

    def __init__(self, count_tokens: CountTokens) -> None:
        self.count_tokens = count_tokens
        self.answers = shipped_answers(count_tokens)
        self.keys: list[str | None] = []
        self.bodies: list[dict[str, Any]] = []

    def respond(self, method: str, path: str, body: bytes) -> Response:
        if (method, path) == ("GET", "/v1/models"):
            return Response(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        if path != ROUTE:
            return error(404, "no such page")
        if method != "POST":
            return error(405, "use POST")
        try:
            request = json.loads(body)
            well_formed = self.is_well_formed(request)
        except (ValueError, RecursionError):
            well_formed = False
        if not well_formed:
            return self.refuse_malformed()
        self.bodies.append(request)
        return self.answer(request)

    def refuse_malformed(self) -> Response:
        return error(400, "malformed")

    def is_well_formed(self, request: Any) -> bool:
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
            return False
        numbers = [request.get(name, 1) for name in ("max_tokens", "temperature")]
        return all(isinstance(number, int | float) for number in numbers) and all(
            isinstance(message, dict) and isinstance(message.get("content"), str) for message in request["messages"]
        )

    def style_and_question(self, request: dict[str, Any]) -> tuple[Style, str]:
        message: str = request["messages"][-1]["content"]
        for style in Style:
            if message.startswith(inject_token("", style)):
                return style, message.removeprefix(inject_token("", style))
        return Style.VERBOSE, message

    def text(self, style: Style, question: str) -> str:
        texts = self.answers[style]
        words = f"{question} {texts[sum(question.encode()) % len(texts)]}".split()
        while self.count_tokens(text := " ".join(words)) > GENERATION_PRESETS[style].max_new_tokens - 1:
            words.pop()
        return text if text.endswith(".") else text.rstrip(",;:") + "."

    def usage(self, text: str) -> dict[str, int] | None:
        count = self.count_tokens(text)
        return {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": count + 5}

    def answer(self, request: dict[str, Any]) -> Response:
        text = self.text(*self.style_and_question(request))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        content: dict[str, Any] = {"object": "chat.completion", "model": MODEL, "choices": [choice]}
        usage = self.usage(text)
        return Response(200, content if usage is None else {**content, "usage": usage})


@contextmanager
def listening(server: ChatServer) -> Iterator[str]:
    """The server behind a real socket; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.keys.append(self.headers.get("Authorization"))
            response = server.respond(self.command, self.path, body)
            text = isinstance(response.content, str)
            content = (response.content if text else json.dumps(response.content)).encode()
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listener.server_port}"
        listener.shutdown()
        thread.join()
