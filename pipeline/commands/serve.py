"""``verbosity serve``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, run_arguments
from pipeline.errors import PipelineError
from pipeline.runs import RunFolder
from pipeline.verdicts import check_verdict


def _configure(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--require-verdict",
        type=Path,
        metavar="FILE",
        help="start only if this verdict.json accepts the run, here and as it is now",
    )


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from pipeline.config import GIB
    from pipeline.data.encoding import prompt_ids
    from pipeline.engines.serial import SerialEngine
    from pipeline.model import load_trained
    from pipeline.serve import ServiceInfo, create_app, run_server

    run = RunFolder(arguments.run)
    if arguments.require_verdict:
        _require_verdict(run, arguments)
    trained = load_trained(run, device=arguments.device, base_model=arguments.base_model)
    info = ServiceInfo(
        model=trained.target.name,
        adapter=trained.adapter_sha256,
        gpu_memory_gib=lambda: torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0,
        count_tokens=lambda prompt: len(prompt_ids(trained.tokenizer, prompt)),
        max_prompt_tokens=1024,
    )
    engine = SerialEngine(trained.model, trained.tokenizer)
    run_server(create_app(engine, info), engine, host=arguments.host, port=arguments.port)
    return 0


def _require_verdict(run: RunFolder, arguments: argparse.Namespace) -> None:
    verdict: Path = arguments.require_verdict
    complaints = check_verdict(verdict, run, base_model=arguments.base_model, device=arguments.device)
    if complaints:
        raise PipelineError(f"not started: {verdict} does not cover {run.path}: {'; '.join(complaints)}")


COMMAND = Command("serve POST /generate and GET /health", _configure, _run)
