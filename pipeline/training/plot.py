"""What a training run did, step by step, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.plotting import TERSE_COLOUR, to_svg


def draw_training(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss, learning rate, gradient norm, speed and memory against the step, as SVG.

    Args:
        rows: A run's metrics, one mapping per optimizer step.
    """
    steps = [row["step"] for row in rows]
    memory = "cuda_reserved_gib" if "cuda_reserved_gib" in rows[0] else "rss_gib"
    panels = (
        ("loss\nnats/token", [row["loss"] for row in rows]),
        ("learning rate\n1/step", [row["learning_rate"] for row in rows]),
        ("gradient norm", [row["grad_norm"] for row in rows]),
        ("speed\ntokens/s", _tokens_per_s(rows)),
        ("peak memory\nGiB", [row[memory] for row in rows]),
    )

    def draw(figure: Any) -> None:
        for axes, (label, values) in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
            axes.plot(steps, values, color=TERSE_COLOUR, linewidth=1)
            axes.set_ylabel(label)
            axes.grid(color="#DDDDDD")
        axes.set_xlabel("optimizer step")

    return to_svg(draw, title="Training, step by step", salt="training", size=(7.0, 9.0))


def _tokens_per_s(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Each step's speed; where a resumed run began anew, time may have stood still."""
    starts_s = [0.0, *(row["elapsed_s"] for row in rows)]
    spans_s = [row["elapsed_s"] - start for row, start in zip(rows, starts_s, strict=False)]
    return [row["tokens"] / span if span > 0 else float("nan") for row, span in zip(rows, spans_s, strict=True)]
