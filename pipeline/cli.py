"""The ``verbosity`` command: one table of subcommands."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pipeline.config import (
    GOLDEN_ENVIRONMENT,
    PRESETS,
    PROJECT_ENVIRONMENT,
    TARGETS,
    Style,
    get_target,
    resolve_preset,
)
from pipeline.data.style import detect_style
from pipeline.errors import PipelineError
from pipeline.files import HELD_OUT_QUESTIONS, TRAINING_DATA
from pipeline.runs import RunFolder

DEFAULT_TARGET = "smollm2-135m"
CHECKED_TOKENIZERS: Mapping[str, str] = MappingProxyType({"Mistral v0.3": "tiny-mistral", "SmolLM2": DEFAULT_TARGET})
"""Tokenizers that ``data check`` counts with, each by a target that has it and needs no weights of the user's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: what it is for, its arguments, and what it does (returning the exit status)."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def apply_environment() -> None:
    """Set the environment variables that the user has not set; torch reads them when it is imported."""
    for name, value in {**GOLDEN_ENVIRONMENT, **PROJECT_ENVIRONMENT}.items():
        os.environ.setdefault(name, value)


def _base_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to run (default: the target's own)")
    parser.add_argument("--base-model", metavar="DIR", help="folder of Mistral's weights (or VERBOSITY_BASE_MODEL)")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder of a completed training run")
    _base_arguments(parser)


def _configure_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=tuple(TARGETS), default=DEFAULT_TARGET, help="base model (default: %(default)s)"
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="lean",
        help="golden: the documented configuration to the letter; lean: smaller and faster (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=TRAINING_DATA,
        metavar="PATH",
        help="JSONL file, plain or gzip, or a folder of them (default: the shipped set)",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="run folder; an unfinished run in it goes on"
    )
    parser.add_argument("--max-examples", type=int, metavar="N", help="train on the first N examples")
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="peak learning rate (default: the preset's)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of order, dropout and adapter (default: 42)")
    _base_arguments(parser)


def _train(arguments: argparse.Namespace) -> int:
    from pipeline.train import TrainingRequest, train

    target = get_target(arguments.target)
    preset = resolve_preset(
        arguments.preset,
        target,
        max_examples=arguments.max_examples,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    device = arguments.device or target.device
    record = train(TrainingRequest(target, preset, arguments.data, arguments.output, device, arguments.base_model))
    steps, duration_s = record["completed_steps"], record["duration_s"]
    print(f"trained {steps} steps in {duration_s:.0f} s; adapter: {RunFolder(arguments.output).adapter}")
    return 0


def _configure_data(parser: argparse.ArgumentParser) -> None:
    check = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "check", help="say what a data set is made of and whether it can teach two styles; exit status 1 if not"
    )
    check.add_argument(
        "path",
        type=Path,
        nargs="?",
        default=TRAINING_DATA,
        metavar="PATH",
        help="JSONL file, plain or gzip, or a folder of them (default: the shipped set)",
    )
    check.add_argument(
        "--held-out",
        type=Path,
        default=HELD_OUT_QUESTIONS,
        metavar="FILE",
        help="questions that must not be among the data (default: the shipped ones)",
    )
    check.add_argument(
        "--output", type=Path, metavar="DIR", help="write check.json, check.md and answer_tokens.svg there"
    )


def _data(arguments: argparse.Namespace) -> int:
    from pipeline.data.check import check_examples
    from pipeline.data.encoding import answer_lengths
    from pipeline.data.formats import find_sources, read_questions
    from pipeline.data.report import describe_files, is_clean, to_markdown, write_report
    from pipeline.data.store import stream_with_progress
    from pipeline.model import load_tokenizer
    from pipeline.targets import base_model_folder

    sources = find_sources(arguments.path)
    max_tokens = PRESETS["lean"].training.max_sequence_tokens
    targets = {name: TARGETS[target] for name, target in CHECKED_TOKENIZERS.items()}
    counters = {
        name: partial(answer_lengths, load_tokenizer(base_model_folder(target), target), max_tokens)
        for name, target in targets.items()
    }
    document = check_examples(stream_with_progress(sources), read_questions(arguments.held_out), counters)
    document = {"files": describe_files(sources), **document}
    print(to_markdown(document), end="")
    if arguments.output:
        write_report(document, arguments.output)
    return 0 if is_clean(document) else 1


def _configure_generate(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what to answer")
    parser.add_argument("--style", choices=tuple(Style), help="default: detected from the prompt's words")
    parser.add_argument("--json", action="store_true", help="print tokens, finish reason and latency too, as JSON")


def _generate(arguments: argparse.Namespace) -> int:
    from pipeline.generate import generate_with_style
    from pipeline.model import load_trained

    trained = load_trained(RunFolder(arguments.run), device=arguments.device, base_model=arguments.base_model)
    style = Style(arguments.style) if arguments.style else detect_style(arguments.prompt)
    answer = generate_with_style(trained.model, trained.tokenizer, arguments.prompt, style)
    if arguments.json:
        fields = {"response": answer.text, "style": style, "tokens": answer.token_count, "latency": answer.latency_s}
        print(json.dumps({**fields, "finish_reason": answer.finish_reason}, ensure_ascii=False))
    else:
        print(answer.text)
    return 0


def _configure_serve(parser: argparse.ArgumentParser) -> None:
    _run_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")


def _serve(arguments: argparse.Namespace) -> int:
    import torch

    from pipeline.config import GIB
    from pipeline.data.encoding import prompt_ids
    from pipeline.engines import SerialEngine
    from pipeline.generate import Generation, generate_with_style
    from pipeline.model import load_trained
    from pipeline.serve import ServiceInfo, create_app, run_server

    trained = load_trained(RunFolder(arguments.run), device=arguments.device, base_model=arguments.base_model)

    def generate(prompt: str, style: Style, max_time_s: float) -> Generation:
        return generate_with_style(trained.model, trained.tokenizer, prompt, style, max_time_s=max_time_s)

    info = ServiceInfo(
        model=trained.target.name,
        adapter=trained.adapter_sha256,
        gpu_memory_gib=lambda: torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0,
        count_tokens=lambda prompt: len(prompt_ids(trained.tokenizer, prompt)),
        max_prompt_tokens=1024,
    )
    engine = SerialEngine(generate)
    run_server(create_app(engine, info), engine, host=arguments.host, port=arguments.port)
    return 0


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", choices=tuple(TARGETS), default=DEFAULT_TARGET, help="base model (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("demo-results"), metavar="DIR", help="default: %(default)s")


def _demo(arguments: argparse.Namespace) -> int:
    from pipeline.demo import run_demo

    return run_demo(get_target(arguments.target), arguments.output)


def _configure_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(arguments: argparse.Namespace) -> int:
    from pipeline.doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(
                f"{finding.level:4}  {finding.subject}: {finding.detail}"
                + (f" -> {finding.remedy}" if finding.remedy else "")
            )
    return 1 if any(finding.level == "FAIL" for finding in findings) else 0


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "train": Command("train a style adapter on a 4-bit base model", _configure_train, _train),
        "data": Command("check training data, the shipped set or your own", _configure_data, _data),
        "generate": Command("answer one prompt with a trained adapter", _configure_generate, _generate),
        "serve": Command("serve POST /generate and GET /health", _configure_serve, _serve),
        "demo": Command("the main job: train the embedded model, accept it, show the verdict", _configure_demo, _demo),
        "doctor": Command("say what this machine can run, and why not", _configure_doctor, _doctor),
    }
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="verbosity", description="Train, serve and accept a model with two style tokens."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.configure(subparsers.add_parser(name, help=command.help, description=command.help))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a ``PipelineError`` ends as one line on standard error and exit status 1."""
    apply_environment()
    options = build_parser().parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options)
    except PipelineError as error:
        print(f"verbosity {options.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
