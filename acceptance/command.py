"""``verbosity accept``: the acceptance of a run or a running server, wherever the project is installed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from acceptance.protocols import PROTOCOLS
from harness.commands import Command
from pipeline.commands import base_arguments
from pipeline.config import TARGETS
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder
from pipeline.targets import recorded_target

_SETTINGS = Path(__file__).with_name("gate.ini")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder of a completed training run; with --endpoint the one that the server is said to serve",
    )
    parser.add_argument("--endpoint", metavar="URL", help="running server (its key in VERBOSITY_API_KEY)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help=f"how the endpoint is asked (default: {PROTOCOLS[0]})")
    parser.add_argument("--model", metavar="NAME", help="the endpoint's name for the model, with --protocol openai")
    parser.add_argument(
        "--styles", type=Path, metavar="FILE", help="TOML table of how each style is asked for, with --protocol openai"
    )
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="questions of your own to judge on instead of the shipped ones"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="what was trained on, with which the questions are compared (default: beside them, or the shipped data)",
    )
    parser.add_argument(
        "--target",
        metavar="NAME|FILE.toml",
        help=f"target whose tokenizer recounts an endpoint's answers: {', '.join(TARGETS)}, or a file of your own",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("acceptance-results"),
        metavar="DIR",
        help="where the verdict and its report are written (default: %(default)s)",
    )
    parser.add_argument(
        "--full-sample", action="store_true", help="with --run: ask every question even of a model rejected early"
    )
    base_arguments(parser)


def _run(arguments: argparse.Namespace) -> int:
    import pytest  # noqa: F401  # reported as missing here, not by the process below

    if arguments.run is None and arguments.endpoint is None:
        raise PipelineError("nothing to judge: name --run DIR, --endpoint URL or both.")
    options = [f"--acceptance-dir={arguments.output.resolve()}"]
    target, marker = arguments.target, "deployment"
    if arguments.run is not None:
        options.append(f"--run-dir={arguments.run.resolve()}")
    if arguments.endpoint is None:
        run = RunFolder(arguments.run)
        target = None  # the run names it
        device = arguments.device or recorded_target(run.read_record(), run.record_file).device
        marker = "gpu" if device == "cuda" else "embedded"
    for name in ("endpoint", "protocol", "model", "device"):
        options += [f"--{name}={value}"] if (value := getattr(arguments, name)) else []
    options += [f"--target={target}"] if target else []
    for name, path in (("base-model", arguments.base_model), ("styles", arguments.styles)):
        options += [f"--{name}={Path(path).resolve()}"] if path else []
    options += ["--full-sample"] if arguments.full_sample else []
    # Not resolved: the digest of data and questions covers the name, and a link has one of its own.
    for name in ("questions", "data"):
        options += [f"--{name}={path.absolute()}"] if (path := getattr(arguments, name)) else []
    # Recorded outputs are those of the documented runs on a few machines, and lie in the checkout.
    options += ["-m", f"{marker} and not snapshot"]
    here = [f"--config-file={_SETTINGS}", f"--rootdir={Path.cwd()}"]
    command = [sys.executable, "-m", "pytest", "-v", *here, "--pyargs", "acceptance", *options]
    status = subprocess.run(command, check=False).returncode
    print("snapshots: not compared; in a checkout, pytest -m snapshot compares with golden/", flush=True)
    return status


ACCEPT = Command(
    "judge a run or a running server; exit status 0: ACCEPTED, 10: REJECTED, 11: INCOMPLETE",
    _configure,
    _run,
    extra="demo",
)
