"""Writes the generated blocks of every page, and the tables and pictures beside result files: ``make docs``.

A block stands between ``<!-- name: begin -->`` and ``<!-- name: end -->``; its text is made by the function of that
name in ``docs/blocks``. Nothing else of a page is touched.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import (
    data_curve,
    engine_agreement,
    held_out,
    overload,
    serving_load,
    serving_peers,
    training_profile,
    training_report,
    versions,
)
from benchmarks.gpu import decoding, peer_report, planned, summary
from docs.blocks import BLOCKS
from docs.blocks.results import MODEL, RESULTS, SHAPE
from harness.files import write_text_atomically
from sabotage import calibration_table, picture

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- ([\w-]+): begin -->\n).*?(<!-- \2: end -->)", flags=re.DOTALL)
_MARKER = re.compile(r"<!-- ([\w-]+): (?:begin|end) -->")

DRAWN: Mapping[str, Callable[[Any], str]] = {
    f"{MODEL}/curve/curve.md": data_curve.to_markdown,
    f"{MODEL}/curve/curve.svg": data_curve.draw,
    f"{MODEL}/bench/bench.md": training_report.to_markdown,
    f"{MODEL}/bench/bench.svg": training_report.draw,
    f"{MODEL}/bench/profile.md": training_profile.to_markdown,
    f"{MODEL}/in-turn/held_out.md": held_out.to_markdown,
    f"{MODEL}/held-out/held_out.md": held_out.to_markdown,
    f"{MODEL}/gpu/held-out/held_out.md": held_out.to_markdown,
    f"{MODEL}/serving/overload.md": overload.to_markdown,
    **{
        f"{folder}/peers.md": serving_peers.to_markdown
        for folder in (f"{MODEL}/serving", f"{MODEL}/gpu", f"{SHAPE}/gpu")
    },
    "sabotage/calibration.md": calibration_table.to_markdown,
    "sabotage/matrix.md": picture.to_markdown,
    "sabotage/matrix.svg": picture.draw,
    f"{MODEL}/serving/serving.md": serving_load.to_markdown,
    f"{MODEL}/serving/serving.svg": serving_load.draw,
    f"{SHAPE}/planned/plan.md": planned.to_markdown,
    f"{SHAPE}/gpu/training.md": peer_report.to_markdown,
    f"{SHAPE}/gpu/decoding.md": decoding.to_markdown,
    **{
        f"{MODEL}/{folder}/agreement.md": lambda document: engine_agreement.to_markdown(document["ways"])
        for folder in ("gpu", "serving")
    },
}
"""Files below ``results/`` that are made from the JSON document of the same name."""


def pages() -> list[Path]:
    """Return every page that may hold generated blocks."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def rendered() -> Iterator[tuple[Path, str]]:
    """Yield each generated file with the text that it should have now.

    Raises:
        ValueError: A page's markers are unpaired, or name a block that nothing generates.
    """
    for page in pages():
        yield page, render(page)
    for name, draw in DRAWN.items():
        path = RESULTS / name
        yield path, draw(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    for target in (SHAPE, MODEL):
        yield RESULTS / target / "gpu" / "gpu.md", summary.to_markdown(summary.read_folder(RESULTS / target / "gpu"))
    folder = RESULTS / MODEL / "versions"
    sets = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in versions.SETS]
    yield folder / "versions.md", versions.to_markdown(*sets)


def render(page: Path) -> str:
    """Return a page with its generated blocks as they are now.

    Raises:
        ValueError: The page's markers are unpaired, or name a block that nothing generates.
    """
    text = page.read_text(encoding="utf-8")
    names = [match.group(2) for match in _BLOCK.finditer(text)]
    if unpaired := sorted(set(_MARKER.findall(_BLOCK.sub("", text)))):
        raise ValueError(f"{page.name}: markers without a counterpart: {', '.join(unpaired)}")
    if unknown := sorted(set(names) - BLOCKS.keys()):
        raise ValueError(f"{page.name}: no block in docs/blocks is called {', '.join(unknown)}")
    return _BLOCK.sub(lambda match: f"{match.group(1)}{BLOCKS[match.group(2)]()}{match.group(3)}", text)


def main() -> int:
    """Write what is stale, and name it."""
    for path, text in rendered():
        if path.read_text(encoding="utf-8") != text:
            write_text_atomically(path, text)
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
