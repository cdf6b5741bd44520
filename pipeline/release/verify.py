"""Whether a verdict covers a trained adapter: the gate judges it again, and its whole identity is recomputed."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.release.fingerprint import base_identity, environment_identity, run_identity
from pipeline.run_folder import RunFolder, flat_fields, show_field

SCHEMA_VERSION = 1
GATE_GROUP = "verbosity.gate"
"""Entry point group of installed gates; the pipeline imports none by name."""

_FIELDS: Mapping[str, type] = {
    "subject": dict,
    "decision": str,
    "identity": dict,
    "criteria_set": str,
    "criteria_version": str,
    "criteria": list,
    "document_sha256": str,
    "provenance": dict,
    "seal": dict,
}


def read_verdict(path: Path) -> dict[str, Any]:
    """Read a ``verdict.json``.

    Raises:
        PipelineError: The file is missing, damaged or of another schema version.
    """
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PipelineError(f"{path}: no verdict here ({error.strerror}); run the acceptance first.") from error
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror}); name a readable verdict.json.") from error
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path}: damaged ({error}); restore it or run the acceptance again.") from error
    if not isinstance(verdict, dict) or verdict.get("schema_version") != SCHEMA_VERSION:
        raise PipelineError(
            f"{path}: schema_version is not {SCHEMA_VERSION}, so this verdict cannot be read; use the "
            "verdict.json of an acceptance made with this version."
        )
    for name, kind in _FIELDS.items():
        if not isinstance(verdict.get(name), kind):
            raise PipelineError(f"{path}: {name} is missing or damaged; restore it or run the acceptance again.")
    return verdict


def find_run(folder: Path) -> RunFolder:
    """The run of a folder that is a run folder or the adapter inside one.

    Raises:
        PipelineError: There is no ``run.json``, which names target, preset and data.
    """
    for candidate in (folder, folder.resolve().parent):
        run = RunFolder(candidate)
        if run.record_file.is_file() and folder.resolve() in (run.path.resolve(), run.adapter.resolve()):
            return run
    raise PipelineError(
        f"{folder}: neither a run folder nor the adapter/ inside one; run.json is needed beside adapter/, because it "
        "names target, preset and data."
    )


def check_verdict(
    path: Path,
    adapter: Path | RunFolder,
    *,
    base_model: str | None = None,
    device: str | None = None,
    trusted_key: Path | None = None,
    note_environment: Callable[[str], None] | None = None,
) -> list[str]:
    """List all reasons why a verdict does not cover an adapter as it would run on this machine.

    Args:
        path: The ``verdict.json``.
        adapter: The run folder, or the adapter folder inside it.
        base_model: Folder of the base weights, for targets with local weights.
        device: ``cpu`` or ``cuda``; None takes the run's own.
        trusted_key: Public key that must have signed the attestation beside the verdict; None asks for none.
        note_environment: Called with each difference of device and packages, which then is not a complaint; so a CPU
            machine can verify a verdict from a GPU.

    Returns:
        Complaints, each naming its field; empty if the verdict covers the adapter.

    Raises:
        PipelineError: The verdict or the run cannot be read, or no gate is installed.
    """
    verdict = read_verdict(path)
    run = adapter if isinstance(adapter, RunFolder) else find_run(adapter)
    run.read_record()
    complaints = judged_again(path, trusted_key)
    if verdict["subject"].get("access") != "model":
        complaints.append("subject.access: a running server was judged, not an adapter")
    recorded = {name: value for name, value in verdict["identity"].items() if name != "environment"}
    complaints += _identity_complaints(recorded, run, base_model)
    differences = list(_differences("identity.environment", verdict["identity"].get("environment"), run, device))
    if note_environment is None:
        return complaints + differences
    for difference in differences:
        note_environment(difference)
    return complaints


def judged_again(path: Path, trusted_key: Path | None = None) -> list[str]:
    """List what is wrong with a verdict by itself: its seal, criteria, outcomes and decision; not what it covers.

    Args:
        path: The verdict's file.
        trusted_key: Public key with which its attestation must be signed; None asks for none.

    Raises:
        PipelineError: The file is no verdict, or no gate is installed.
    """
    verdict = read_verdict(path)
    complaints = [complaint for recheck in _gates("recheck") for complaint in recheck(verdict)]
    if trusted_key is not None:
        complaints += [complaint for check in _gates("attestation") for complaint in check(path, trusted_key)]
    if verdict["decision"] != "ACCEPTED":
        complaints.append(f"decision: {verdict['decision']}, not ACCEPTED")
    return complaints


def _gates(name: str) -> list[Callable[..., list[str]]]:
    found = importlib.metadata.entry_points(group=GATE_GROUP, name=name)
    if not found:
        raise PipelineError(
            f"no gate is installed that could judge the verdict again (entry point {name} of {GATE_GROUP}); "
            "install the project with its gate: pip install -e ."
        )
    gates = []
    for entry in found:
        try:
            gates.append(entry.load())
        except Exception as error:  # any error of a foreign module on import
            raise PipelineError(f"the gate {entry.value} cannot be loaded ({error}); reinstall it.") from error
    return gates


def _identity_complaints(recorded: Mapping[str, Any], run: RunFolder, base_model: str | None) -> list[str]:
    current: dict[str, Any] = {}
    complaints = []
    for part in (partial(run_identity, run), partial(base_identity, run, base_model)):
        try:
            current |= part()
        except PipelineError as error:  # what cannot be recomputed is not covered
            complaints.append(f"identity: cannot be computed here: {error}")
    for name, value in current.items():
        if name not in recorded:
            complaints.append(f"identity.{name}: not in the verdict; run the acceptance again")
        elif recorded[name] != value:
            complaints.append(
                f"identity.{name}: stale: judged {show_field(recorded, name)}, here {show_field(current, name)}"
            )
    if not complaints:
        complaints += [f"identity.{name}: unknown here" for name in recorded if name not in current]
    return complaints


def _differences(field: str, judged: object, run: RunFolder, device: str | None) -> Iterator[str]:
    before, here = flat_fields(judged, field), flat_fields(environment_identity(run, device), field)
    for name in sorted(before.keys() | here.keys()):
        if name not in before or name not in here or before[name] != here[name]:
            yield f"{name}: judged with {show_field(before, name)}, here {show_field(here, name)}"
