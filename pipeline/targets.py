"""Which base model a command or an acceptance means: one of the project's targets, or a folder of the user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import TARGETS, Target, get_target
from pipeline.errors import PipelineError
from pipeline.target_file import TARGET_FILE, read_fields


def resolve_target(name: str | None, base_model: str | None = None) -> Target:
    """The target that ``--target`` and ``--base-model`` mean together.

    Args:
        name: A target's name, or a TOML file that describes a base of the user's own; None if there is a base model.
        base_model: Folder of base weights. Without ``name`` it is a base of the user's own, described by the
            ``target.toml`` in it, if there is one. Without it a TOML file lies in the folder.

    Returns:
        The target; one of the user's own knows its folder.

    Raises:
        PipelineError: There is no such target, or the file is wrong; the message names the field and the remedy.
    """
    if name is not None and not name.endswith(".toml"):
        return get_target(name)
    file = Path(name) if name else Path(str(base_model)) / TARGET_FILE
    folder = Path(base_model) if base_model else file.parent
    fields = read_fields(file) if name or file.exists() else {}
    target = Target.of({"name": folder.resolve().name, **fields, "weights": fields.get("weights", "local")}, file)
    if target.name in TARGETS:
        raise PipelineError(
            f"{folder}: {target.name} is a target of the project; name it with --target, or give another name in"
            f" {file}."
        )
    if target.weights != "local":
        raise PipelineError(f'{file}: weights: {target.weights!r}; a base of your own has "local" ones, leave it out.')
    return _in_folder(target, folder)


def describe_target(target: Target) -> dict[str, Any]:
    """What a run's record holds of a target of the user's own; nothing of the project's targets but their name."""
    return {} if target.folder is None else {"target_settings": target.describe()}


def recorded_target(record: Mapping[str, Any], origin: Path) -> Target:
    """The target that a run was trained on.

    Args:
        record: As in ``run.json``.
        origin: That file, for messages.

    Raises:
        PipelineError: The target is not known, or its settings are damaged.
    """
    settings = record.get("target_settings")
    if settings is None:
        return get_target(record["target"])
    return _in_folder(Target.of(settings, origin), Path(record["base_model"]))


def _in_folder(target: Target, folder: Path) -> Target:
    return dataclasses.replace(target, folder=str(folder.resolve()))
