"""What is judged, as chosen on the command line."""

from __future__ import annotations

import os
import re

import pytest

from acceptance.client import Endpoint
from acceptance.protocols import PROTOCOLS, OpenAIProtocol, OwnProtocol, ServerProtocol
from acceptance.styles import TOKEN_IN_FRONT, read_styles
from pipeline.config import Target
from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder
from pipeline.targets import recorded_target, resolve_target

DEFAULT_TARGETS = ("mistral-7b-v0.3", "smollm2-135m")
"""What an acceptance run means if nothing is named: the models whose weights are real."""


def judged_targets(config: pytest.Config) -> list[Target]:
    """The targets that the options name: by ``--target``, else by the run or the base model of the user's own.

    Raises:
        pytest.UsageError: There is no such target, or the run or the target's file is damaged.
    """
    names, base_model, folder = (config.getoption(name) for name in ("--target", "--base-model", "--run-dir"))
    try:
        if not names and folder is not None:
            run = RunFolder(folder)
            return [recorded_target(run.read_record(), run.record_file)]
        if not names and base_model:
            return [resolve_target(None, base_model)]
        return [resolve_target(name, base_model) for name in dict.fromkeys(names or DEFAULT_TARGETS)]
    except PipelineError as error:
        raise pytest.UsageError(str(error)) from error


_ENDPOINT: pytest.StashKey[Endpoint] = pytest.StashKey()


def chosen_endpoint(config: pytest.Config) -> Endpoint | None:
    """The server that ``--endpoint`` names, the same at every call; None without the option.

    Raises:
        pytest.UsageError: It is no address, or the options beside it do not fit it or each other.
    """
    if not config.getoption("--endpoint"):
        if named := [f"--{name}" for name in ("model", "styles") if config.getoption(f"--{name}")]:
            raise pytest.UsageError(f"{named[0]}: is for a server; name one with --endpoint")
        return None
    if _ENDPOINT not in config.stash:
        config.stash[_ENDPOINT] = _endpoint(config)
    return config.stash[_ENDPOINT]


def _endpoint(config: pytest.Config) -> Endpoint:
    url, protocol = config.getoption("--endpoint"), _protocol(config)
    is_openai = isinstance(protocol, OpenAIProtocol)
    # An address with a password would be written into the report.
    if not re.fullmatch(r"https?://[^\s/@?#]+" + (r"(/[^\s?#@]*)?" if is_openai else "/?"), url):
        example = "https://host/path" if is_openai else "http://127.0.0.1:8000"
        raise pytest.UsageError(f"--endpoint: not a URL such as {example}; a key goes into VERBOSITY_API_KEY")
    names = config.getoption("--target") or [None]
    if len(names) != 1:
        raise pytest.UsageError("--endpoint: name one tokenizer; --target may be given once")
    (tokenizer,) = names
    served, adapter = _served_run(config)
    return Endpoint(
        url.rstrip("/").removesuffix("/v1") if is_openai else url,
        tokenizer or served,
        os.environ.get("VERBOSITY_API_KEY"),
        protocol,
        is_recounted=bool(not is_openai or tokenizer or served or config.getoption("--base-model")),
        adapter_sha256=adapter,
    )


def _served_run(config: pytest.Config) -> tuple[str | None, str | None]:
    """Target and adapter of the run that the endpoint is said to serve; None without ``--run-dir``."""
    if (folder := config.getoption("--run-dir")) is None:
        return None, None
    # Imported here: every pytest in the checkout loads this module.
    from pipeline.release.fingerprint import run_identity

    try:
        identity = run_identity(RunFolder(folder))
    except PipelineError as error:
        raise pytest.UsageError(f"--run-dir: {error}") from error
    return identity["target"], identity["adapter_sha256"]


def _protocol(config: pytest.Config) -> ServerProtocol:
    model, styles = config.getoption("--model"), config.getoption("--styles")
    if config.getoption("--protocol") == PROTOCOLS[0]:
        if model or styles:
            raise pytest.UsageError("--model, --styles: are for --protocol openai")
        return OwnProtocol()
    if not model:
        raise pytest.UsageError("--protocol openai: name the model with --model, as GET /v1/models does")
    try:
        return OpenAIProtocol(model, TOKEN_IN_FRONT if styles is None else read_styles(styles))
    except PipelineError as error:
        raise pytest.UsageError(f"--styles: {error}") from error


def given_run(config: pytest.Config, target: Target) -> RunFolder | None:
    """The run that ``--run-dir`` names, or None.

    Raises:
        pytest.UsageError: There is no run in it, or it is not the run of this target and preset.
    """
    folder = config.getoption("--run-dir")
    if folder is None:
        return None
    run, preset = RunFolder(folder), config.getoption("--preset")
    try:
        record = run.read_record()
    except PipelineError as error:
        raise pytest.UsageError(f"--run-dir: {error}") from error
    if record["target"] != target.name:
        raise pytest.UsageError(f"--run-dir: a run of {record['target']}, not of {target.name}")
    if preset not in (None, record["preset"]["name"]):
        raise pytest.UsageError(f"--run-dir: trained with preset {record['preset']['name']}, not with {preset}")
    return run


def judged_preset(config: pytest.Config, target: Target) -> str:
    """The training preset of what is judged: the given run's, the chosen one, or the target's default."""
    run = given_run(config, target)
    if run is not None:
        trained_with: str = run.read_record()["preset"]["name"]
        return trained_with
    return config.getoption("--preset") or ("golden" if target.device == "cuda" else "lean")
