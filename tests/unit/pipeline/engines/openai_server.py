"""A process that answers OpenAI's chat completions from a tiny run, as far as `remote` asks; arguments: RUN and KEY."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from pipeline.config import GenerationConfig, Style
from pipeline.data.style import inject_token
from pipeline.engines.interface import AnswerRequest
from pipeline.engines.serial import SerialEngine
from pipeline.generation.generate import styled_prompt_ids
from pipeline.model.loading import LoadedModel
from pipeline.run_folder import RunFolder

LIMIT_TOKENS = 5000
BREAKS_OFF, REFUSED = "Break off, please.", "Refuse, please."


def prompt_of(body: dict[str, Any]) -> tuple[str, Style]:
    """The only message, without its style's token."""
    (message,) = body["messages"]
    assert (message["role"], body["model"]) == ("user", "tiny")
    (style,) = (style for style in Style if message["content"].startswith(inject_token("", style)))
    return message["content"].removeprefix(inject_token("", style)), style


def answer_request(body: dict[str, Any]) -> AnswerRequest:
    """The request in a body; a member that is missing fails."""
    assert body["stream"]
    # What servers add unasked is off, as ours has none of it.
    assert body["top_k"] > 1_000_000
    assert (body["min_p"], body["repetition_penalty"], body["repeat_penalty"]) == (0, 1, 1)
    prompt, style = prompt_of(body)
    limits = GenerationConfig(body["temperature"], body["top_p"], body["min_tokens"], body["max_tokens"])
    return AnswerRequest(prompt, style, 600, limits)


def likely_tokens(model: LoadedModel, body: dict[str, Any]) -> list[dict[str, Any]]:
    """A greedy answer's tokens with those that are likeliest in their places."""
    ids, positions = list(styled_prompt_ids(model.tokenizer, *prompt_of(body))), []
    for _ in range(body["max_tokens"]):
        with torch.inference_mode():
            row = model.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        top = row.topk(body["top_logprobs"])
        listed = [
            {"token": f"id {token}", "logprob": nats}
            for token, nats in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        positions.append(listed[0] | {"top_logprobs": listed})
        ids.append(int(top.indices[0]))
    return positions


class Server(ThreadingHTTPServer):
    """Lets as many clients connect at once as a test has."""

    request_queue_size = 64
    daemon_threads = True


def create_server(trained: LoadedModel, engine: SerialEngine, key: str) -> Server:
    """The server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._json(200, {"data": [{"id": "tiny", "max_model_len": LIMIT_TOKENS}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers.get("Authorization") != f"Bearer {key}":
                self._json(401, {"error": {"message": "no such key"}})
                return
            if body.get("logprobs"):
                self._json(200, {"choices": [{"logprobs": {"content": likely_tokens(trained, body)}}]})
                return
            request = answer_request(body)
            if request.prompt == REFUSED:
                self._json(400, {"error": {"message": "not that"}})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            ticket = engine.submit(request)
            try:
                for piece in ticket.deltas():
                    self._event({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
                if request.prompt == BREAKS_OFF:
                    return
                reason = {"eos": "stop", "length": "length"}[ticket.result().finish_reason]
                self._event({"choices": [{"delta": {}, "finish_reason": reason}]})
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                engine.cancel(ticket)

        def _event(self, event: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()

        def _json(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    return Server(("127.0.0.1", 0), Handler)


@contextmanager
def openai_process(run: RunFolder, key: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process that serves a run, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", __name__, str(run.path), key],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[4],
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Announce the address and serve until killed."""
    from tests.unit.pipeline.engines.exact import exact_model

    trained = exact_model(RunFolder(Path(sys.argv[1])))
    server = create_server(trained, SerialEngine(trained.model, trained.tokenizer, max_in_flight=64), sys.argv[2])
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
