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

from harness.statistics import median

# Okabe and Ito's palette, which is safe for colour-blind readers; the page replaces it with its own light or dark one.
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_INK = "#1b1b1f"
_PANEL = "#fefefe"
_PAGE_COLOURS = {
    _INK: "var(--ink)",
    _PANEL: "var(--panel)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)},
}
_THRESHOLD_STYLES = ("--", ":", "-.")
# Narrow enough that the text stays legible when a phone scales the figure to its width.
_SIZE_INCHES = (5.2, 3.2)
_BINS = 24
_BOX_PARTS = tuple(f"boxplot.{part}props" for part in ("box", "whisker", "cap", "median"))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text for screen readers
    "font.size": 10,
    "figure.facecolor": _PANEL,
    "savefig.facecolor": _PANEL,
    "axes.facecolor": _PANEL,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.edgecolor": _PANEL,
    "text.color": _INK,
    "axes.titlecolor": _INK,
    **{f"{part}.color": _INK for part in ("xtick", "ytick", *_BOX_PARTS)},
    **{f"axes.{part}": _INK for part in ("edgecolor", "labelcolor")},
}


@dataclass(frozen=True)
class Figure:
    """One drawn figure.

    Attributes:
        name: File name without its ending.
        criterion_id: Criterion whose test attached the samples.
        title: What it shows, in one line.
        summary: Its samples in numbers, for readers who cannot see it.
        svg: The drawing, on a white background.
    """

    name: str
    criterion_id: str
    title: str
    summary: str
    svg: str

    @property
    def inline_svg(self) -> str:
        """The ``<svg>`` element alone, in the page's colours, its ids made unique so that several fit on one page."""
        element = self.svg[self.svg.index("<svg") :]
        # The metadata repeat the figure's label, in a vocabulary that HTML does not know.
        element = re.sub(r"\s*<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
        element = re.sub(r'\bid="', f'id="{self.name}-', element)
        element = re.sub(r'(href="#|url\(#)', rf"\g<1>{self.name}-", element)
        for colour, variable in _PAGE_COLOURS.items():
            element = element.replace(colour, variable)
        return element


def draw(subject: Mapping[str, Any]) -> list[Figure]:
    """Draw the attachments of one subject of the result document, one figure per attachment name."""
    figures = []
    for criterion in subject["criteria"]:
        for name in dict.fromkeys(attachment["name"] for attachment in criterion["attachments"]):
            samples = [entry for entry in criterion["attachments"] if entry["name"] == name]
            short = name.replace("_", " ")
            title = f"{subject['name']}, {criterion['id']}: {short}"
            slug = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{subject['name']}-{criterion['id']}-{name}")
            svg = _svg(slug, title, short, samples, criterion["bounds"])
            figures.append(Figure(slug, criterion["id"], title, _summary(samples), svg))
    return figures


def _summary(samples: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for sample in samples:
        values = _finite(_numbers(sample["values"]))
        left_out = len(sample["values"]) - len(values)
        text = f"{sample['label']}: n = {len(sample['values'])}"
        if values and sample["kind"] == "series":
            text += f", first {values[0]:.4g}, last {values[-1]:.4g} {sample['unit']}"
        elif values:
            text += f", median {median(values):.4g}, {min(values):.4g} to {max(values):.4g} {sample['unit']}"
        parts.append(text.rstrip() + (f" ({left_out} not finite)" if left_out else ""))
    return "; ".join(parts)


def _svg(
    slug: str, title: str, short: str, samples: Sequence[Mapping[str, Any]], bounds: Sequence[Mapping[str, Any]]
) -> str:
    kind, unit = samples[0]["kind"], samples[0]["unit"]
    thresholds = sorted({bound["threshold"] for bound in bounds if unit and bound["unit"] == unit})
    # The salt and the absent date make equal results give equal files.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": slug}):
        canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        _DRAWERS[kind](axes, [(entry["label"], _numbers(entry["values"])) for entry in samples], unit)
        for number, threshold in enumerate(thresholds):
            line = axes.axvline if kind == "distribution" else axes.axhline
            style = _THRESHOLD_STYLES[number % len(_THRESHOLD_STYLES)]
            line(threshold, color=_INK, linestyle=style, label=f"threshold {threshold:g} {unit}")
        if kind == "latency":
            # After the threshold lines: fixing one end of the axis stops it from growing at the other.
            axes.set_ylim(bottom=0)
        axes.set_title(short, fontsize=11, loc="left")
        axes.legend(fontsize=9)
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return stream.getvalue()


def _numbers(values: Sequence[float | str]) -> list[float]:
    # The document writes NaN and infinities as strings.
    return [float(value) for value in values]


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _draw_series(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    for (label, values), colour in zip(samples, _cycle(len(samples)), strict=True):
        # A non-finite value leaves a gap, which is what a reader should see.
        drawn = [value if math.isfinite(value) else math.nan for value in values]
        axes.plot(range(1, len(drawn) + 1), drawn, color=colour, marker=".", markersize=4, linewidth=1.2, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(unit)


def _draw_distribution(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    pooled = [value for _, values in samples for value in _finite(values)]
    span = (min(pooled), max(pooled)) if pooled else (0.0, 1.0)
    for (label, values), colour in zip(samples, _cycle(len(samples)), strict=True):
        axes.hist(_finite(values), bins=_BINS, range=span, color=colour, alpha=0.7, label=label)
    axes.set_xlabel(unit)
    axes.set_ylabel("count")


def _draw_latency(axes: Axes, samples: Sequence[tuple[str, list[float]]], unit: str) -> None:
    for position, ((label, values), colour) in enumerate(zip(samples, _cycle(len(samples)), strict=True), start=1):
        finite = _finite(values)
        if finite:
            axes.boxplot(finite, positions=[position], widths=0.5, manage_ticks=False, showfliers=False)
        axes.plot([position] * len(finite), finite, "o", color=colour, alpha=0.7, label=label)
    axes.set_xticks(range(1, len(samples) + 1), [label for label, _ in samples])
    axes.set_xlim(0.4, len(samples) + 0.6)
    axes.set_ylabel(unit)


def _cycle(count: int) -> list[str]:
    return [_SERIES[index % len(_SERIES)] for index in range(count)]


_DRAWERS = {"series": _draw_series, "distribution": _draw_distribution, "latency": _draw_latency}
