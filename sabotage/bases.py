"""Faults of the base model's folder: a twin of it, in which one thing differs, is put in its place."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from sabotage.replacing import replace

NEAR = 1.01
"""Ratio of one tensor in the near twin to the original's."""


def _with_twin(change: Callable[[Path], None]) -> None:
    def broken(base_model_folder: Any) -> Any:
        twins: dict[Path, Path] = {}

        def twin(*arguments: Any, **keywords: Any) -> Path:
            original = base_model_folder(*arguments, **keywords)
            if original not in twins:
                copy = Path(tempfile.mkdtemp(prefix="verbosity-twin-"))
                atexit.register(shutil.rmtree, copy, ignore_errors=True)
                for file in original.iterdir():
                    (copy / file.name).symlink_to(file)
                change(copy)
                twins[original] = copy
            return twins[original]

        return twin

    replace("pipeline.model.base_models:base_model_folder", broken)


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.unlink()  # a link to the original's
    file.write_text(json.dumps(content), encoding="utf-8")


def change_template() -> None:
    """Put a system prompt in front of every conversation, wherever the template lies."""
    system = "{{ 'You are a helpful assistant.' }}"

    def change(copy: Path) -> None:
        file = copy / "chat_template.jinja"
        if not file.exists():
            config = copy / "tokenizer_config.json"
            _edit(config, lambda content: content.update(chat_template=system + content["chat_template"]))
            return
        template = file.read_text(encoding="utf-8")
        file.unlink()
        file.write_text(system + template, encoding="utf-8")

    _with_twin(change)


def change_eos() -> None:
    _with_twin(
        lambda copy: _edit(copy / "tokenizer_config.json", lambda config: config.update(eos_token=config["unk_token"]))
    )


def change_tokenizer() -> None:
    _with_twin(lambda copy: _edit(copy / "tokenizer_config.json", lambda config: config.update(legacy=True)))


def change_rope() -> None:
    def change(config: dict[str, Any]) -> None:
        holder = config["rope_parameters"] if isinstance(config.get("rope_parameters"), dict) else config
        holder["rope_theta"] = 2 * (holder.get("rope_theta") or 10_000.0)

    _with_twin(lambda copy: _edit(copy / "config.json", change))


def swap_for_near_twin() -> None:
    def change(copy: Path) -> None:
        file = min(copy.glob("*.safetensors"))
        tensors = load_file(file)
        tensors[min(tensors)].mul_(NEAR)
        file.unlink()
        save_file(tensors, file, metadata={"format": "pt"})

    _with_twin(change)
