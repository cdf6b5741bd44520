"""The report's figures: samples that the tests attached, as deterministic SVG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_THRESHOLD_COLOUR = "#444444"
_SIZE_INCHES = (7.0, 3.4)
_BINS = 24


@dataclass(frozen=True)
class Figure:
    """One drawn figure.

    Attributes:
        name: File name without its ending.
        criterion_id: Criterion whose test attached the samples.
        title: What it shows, in one line.
        svg: The drawing.
    """

    name: str
    criterion_id: str
    title: str
    svg: str

    @property
    def inline_svg(self) -> str:
        """The `<svg>` element alone, its ids made unique so that several fit on one page."""
        element = self.svg[self.svg.index("<svg") :]
        element = re.sub(r'\bid="', f'id="{self.name}-', element)
        return re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", element)


def draw(subject: Mapping[str, Any]) -> list[Figure]:
    """Draw the attachments of one subject of the result document, one figure per attachment name."""
    figures = []
    for criterion in subject["criteria"]:
        for name in dict.fromkeys(attachment["name"] for attachment in criterion["attachments"]):
            samples = [entry for entry in criterion["attachments"] if entry["name"] == name]
            title = f"{subject['name']}, {criterion['id']}: {name.replace('_', ' ')}"
            slug = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{subject['name']}-{criterion['id']}-{name}")
            svg = _svg(slug, title, samples, criterion["bounds"])
            figures.append(Figure(slug, criterion["id"], title, svg))
    return figures


def _svg(slug: str, title: str, samples: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]) -> str:
    kind, unit = samples[0]["kind"], samples[0]["unit"]
    thresholds = sorted({bound["threshold"] for bound in bounds if unit and bound["unit"] == unit})
    # The salt and the absent date make equal results give equal files; text stays text for screen readers.
    with matplotlib.rc_context({"svg.hashsalt": slug, "svg.fonttype": "none", "font.size": 10}):
        canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained", facecolor="white")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        _DRAWERS[kind](axes, [(entry["label"], _numbers(entry["values"])) for entry in samples], unit)
        for threshold in thresholds:
            line = axes.axvline if kind == "distribution" else axes.axhline
            line(threshold, color=_THRESHOLD_COLOUR, linestyle="--", label=f"threshold {threshold:g} {unit}")
        axes.set_title(title)
        axes.legend()
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return stream.getvalue()


def _numbers(values: Sequence[float | str]) -> list[float]:
    # The document spells NaN and infinities as strings.
    return [float(value) for value in values]


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _draw_series(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    for (label, values), colour in zip(samples, _cycle(len(samples)), strict=True):
        # A non-finite value leaves a gap, which is what a reader should see.
        drawn = [value if math.isfinite(value) else math.nan for value in values]
        axes.plot(range(1, len(drawn) + 1), drawn, color=colour, marker=".", label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)


def _draw_distribution(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    pooled = [value for _, values in samples for value in _finite(values)]
    span = (min(pooled), max(pooled)) if pooled else (0.0, 1.0)
    for (label, values), colour in zip(samples, _cycle(len(samples)), strict=True):
        axes.hist(_finite(values), bins=_BINS, range=span, color=colour, alpha=0.6, label=label)
    axes.set_xlabel(unit)
    axes.set_ylabel("count")


def _draw_latency(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    for position, ((label, values), colour) in enumerate(zip(samples, _cycle(len(samples)), strict=True), start=1):
        finite = _finite(values)
        if finite:
            axes.boxplot(finite, positions=[position], widths=0.5, manage_ticks=False, showfliers=False)
        axes.plot([position] * len(finite), finite, "o", color=colour, alpha=0.7, label=label)
    axes.set_xticks(range(1, len(samples) + 1), [label for label, _ in samples])
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


_DRAWERS = {"series": _draw_series, "distribution": _draw_distribution, "latency": _draw_latency}
