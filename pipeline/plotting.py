"""Figures as SVG that is the same, byte for byte, for the same data."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

TERSE_COLOUR, VERBOSE_COLOUR = "#0072B2", "#D55E00"
"""Okabe and Ito's, which colour-blind readers tell apart."""


def to_svg(
    draw: Callable[[Any], None], *, title: str, salt: str, size: tuple[float, float], font_size: float = 10
) -> str:
    """An SVG document of what ``draw`` puts on a matplotlib figure.

    Args:
        draw: Draws on the figure that it is given.
        title: Title of the document, for those who hear it.
        salt: Makes the document's internal ids.
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
