"""``verbosity generate``."""

from __future__ import annotations

import argparse
import json

from pipeline.commands import Command, run_arguments
from pipeline.config import Style
from pipeline.data.style import detect_style
from pipeline.run_folder import RunFolder


def _configure(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to answer")
    parser.add_argument("--style", choices=tuple(Style), help="default: detected from the prompt's words")
    parser.add_argument("--json", action="store_true", help="print JSON with token count, finish reason and latency")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.generation.generate import generate_with_style
    from pipeline.model.loading import load_trained

    trained = load_trained(RunFolder(arguments.run), device=arguments.device, base_model=arguments.base_model)
    style = Style(arguments.style) if arguments.style else detect_style(arguments.prompt)
    answer = generate_with_style(trained.model, trained.tokenizer, arguments.prompt, style)
    if arguments.json:
        fields = {"response": answer.text, "style": style, "tokens": answer.token_count, "latency": answer.latency_s}
        print(json.dumps({**fields, "finish_reason": answer.finish_reason}, ensure_ascii=False))
    else:
        print(answer.text)
    return 0


COMMAND = Command("answer one prompt with a trained adapter", _configure, _run, extra="train")
