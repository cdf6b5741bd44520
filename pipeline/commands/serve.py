"""``verbosity serve``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands import Command, run_arguments, text, trusted_key_argument
from pipeline.config import DEFAULT_PORT
from pipeline.errors import PipelineError
from pipeline.release.verify import check_verdict
from pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.engines.interface import Engine
    from pipeline.service.lifecycle import ServiceInfo

REMOTE_KEY_VARIABLE = "VERBOSITY_REMOTE_API_KEY"


def _configure(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--require-verdict",
        type=Path,
        metavar="FILE",
        help="start only if this verdict.json accepts the run in its current state on this machine",
    )
    trusted_key_argument(parser)
    parser.add_argument(
        "--engine",
        choices=("serial", "continuous", "remote"),
        help="serial: one answer at a time; continuous: batched; remote: by another server "
        "(default: continuous; serial with transformers 4)",
    )
    parser.add_argument(
        "--remote-url",
        type=text,
        action="append",
        metavar="URL",
        help="address of the OpenAI-compatible server for --engine remote, with /v1; may be repeated: a request "
        "goes to the one with the fewest in flight",
    )
    parser.add_argument(
        "--remote-model",
        type=text,
        metavar="NAME",
        help=f"that server's name for the run's model (set {REMOTE_KEY_VARIABLE} if it needs a key)",
    )
    parser.add_argument(
        "--max-in-flight",
        type=int,
        default=32,
        metavar="N",
        help="maximum of running and waiting answers; further requests get 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=28.0,
        metavar="SECONDS",
        help="time limit of one complete answer, then 504 (default: %(default)s)",
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help="SHA-256 digests of the accepted keys, one per line (or VERBOSITY_API_KEY_DIGESTS)",
    )
    parser.add_argument(
        "--allow-remote-without-key",
        action="store_true",
        help="accept requests from other machines without requiring a key",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin, such as https://example.org, use the server; may be repeated; * is any",
    )
    parser.add_argument("--log-prompts", action="store_true", help="log the users' prompts")


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.service.auth import KEYS_VARIABLE, ApiKeys
    from pipeline.service.cors import Origins
    from pipeline.service.lifecycle import Settings
    from pipeline.service.logs import logging_to_stderr
    from pipeline.service.server import is_loopback, run_server

    if arguments.max_in_flight < 1 or not 0 < arguments.timeout_s < float("inf"):
        raise PipelineError("--max-in-flight and --timeout-s must be positive.")
    remote = arguments.engine == "remote"
    if any((given is not None) is not remote for given in (arguments.remote_url, arguments.remote_model)):
        raise PipelineError("--remote-url and --remote-model belong to --engine remote; give all three or none.")
    if arguments.trust_key and not arguments.require_verdict:
        raise PipelineError("--trust-key checks the attestation of a verdict; name the verdict with --require-verdict.")
    keys = ApiKeys.load(arguments.api_keys, os.environ.get(KEYS_VARIABLE))
    if not (keys or arguments.allow_remote_without_key or is_loopback(arguments.host)):
        raise PipelineError(
            f"--host {arguments.host} accepts requests from other machines; give --api-keys FILE or "
            "--allow-remote-without-key."
        )
    origins = Origins(arguments.allow_origin)
    run = RunFolder(arguments.run)
    if arguments.require_verdict:
        _require_verdict(run, arguments)
    with logging_to_stderr():
        run_server(
            lambda: _load(run, arguments),
            Settings(timeout_s=arguments.timeout_s, keys=keys, log_prompts=arguments.log_prompts, origins=origins),
            host=arguments.host,
            port=arguments.port,
            max_in_flight=arguments.max_in_flight,
        )
    return 0


def _load(run: RunFolder, arguments: argparse.Namespace) -> tuple[Engine, ServiceInfo]:
    from pipeline.service.loading import Remote, load_local, load_remote

    bound, base_model = arguments.max_in_flight, arguments.base_model
    if arguments.engine == "remote":
        remote = Remote(tuple(arguments.remote_url), arguments.remote_model, os.environ.get(REMOTE_KEY_VARIABLE))
        return load_remote(run, remote, max_in_flight=bound, base_model=base_model)
    return load_local(run, arguments.engine, max_in_flight=bound, device=arguments.device, base_model=base_model)


def _require_verdict(run: RunFolder, arguments: argparse.Namespace) -> None:
    verdict: Path = arguments.require_verdict
    complaints = check_verdict(
        verdict,
        run,
        base_model=arguments.base_model,
        device=arguments.device,
        trusted_key=arguments.trust_key,
    )
    if complaints:
        raise PipelineError(f"not started: {verdict} does not cover {run.path}: {'; '.join(complaints)}")


COMMAND = Command("serve POST /generate and GET /health", _configure, _run, extra="serve")
