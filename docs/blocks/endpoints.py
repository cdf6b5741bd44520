"""Servers of others that were judged from outside, each with the trained model behind it and with the base alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from docs.blocks.markdown import table
from docs.blocks.results import MODEL, RESULTS, measurements, origin

FOLDER = f"{MODEL}/endpoints"
MEDIANS = ("preset_terse_median_tokens", "preset_verbose_median_tokens")


def judged_endpoints() -> str:
    """Return a row for each judged server."""
    shown = table(("endpoint", "server", "verdict", "median tokens", "not passed", "commit"), _rows())
    first = f"{FOLDER}/vllm-tuned/server.json"
    return f"{shown}\n{origin(first, command='python -m benchmarks.endpoints').rpartition('; commit')[0]}.\n"


def _rows() -> Iterator[tuple[str, ...]]:
    for path in sorted((RESULTS / FOLDER).glob("*/server.json")):
        server = json.loads(path.read_text(encoding="utf-8"))
        document = json.loads((path.parent / "acceptance.json").read_text(encoding="utf-8"))
        package, version = next(iter(server["packages"].items()))
        name = path.parent.name
        yield (
            f"[{name}](../results/{FOLDER}/{name}/report.md)",
            f"{package} {version}",
            server["decision"],
            _medians(document),
            _not_passed(document) or "none",
            server["provenance"]["git_commit"][:7],
        )


def _medians(document: Mapping[str, Any]) -> str:
    measured = measurements(document)["style.token_separation"]
    return ", ".join(f"{measured[name]:.3g}" if name in measured else "none" for name in MEDIANS)


def _not_passed(document: Mapping[str, Any]) -> str:
    (subject,) = document["subjects"]
    others = (one for one in subject["criteria"] if one["outcome"] != "PASS")
    return ", ".join(f"{one['id']} {one['outcome']}" for one in others)


BLOCKS: Mapping[str, Callable[[], str]] = {"endpoints": judged_endpoints}
