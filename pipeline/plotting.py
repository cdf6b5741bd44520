"""Figures as reproducible SVG: the same data gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

TERSE_COLOUR, VERBOSE_COLOUR = "#0072B2", "#D55E00"
"""From the colour-blind safe palette of Okabe and Ito."""


def to_svg(
    draw: Callable[[Any], None], *, title: str, salt: str, size: tuple[float, float], font_size: float = 10
) -> str:
    """Render a matplotlib figure as an SVG document.

    Args:
        draw: Draws on the figure passed to it.
        title: Title of the document, for screen readers.
        salt: Seed of the document's internal ids.
        size: Width and height in inches.
        font_size: In points.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "font.size": font_size}):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    return stream.getvalue()
