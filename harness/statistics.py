"""Summary statistics that refuse empty and non-finite samples instead of returning NaN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def _sample(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"a sample has one dimension, got {array.ndim}")
    if array.size == 0:
        raise ValueError("an empty sample has no statistics")
    if not np.isfinite(array).all():
        raise ValueError("the sample holds a value that is not finite")
    return array


def quantile(values: Sequence[float], q: float) -> float:
    """Return the `q`-quantile, interpolated linearly between the closest ranks.

    Args:
        values: The sample, shape (n,), n >= 1.
        q: The probability, between 0 and 1.

    Raises:
        ValueError: The sample is empty or holds a non-finite value, or `q` is outside [0, 1].
    """
    return float(np.quantile(_sample(values), q, method="linear"))


def median(values: Sequence[float]) -> float:
    """Return the median of the sample, shape (n,).

    Raises:
        ValueError: The sample is empty or holds a non-finite value.
    """
    return quantile(values, 0.5)


def share(flags: Sequence[bool]) -> float:
    """Return the share of true flags, between 0 and 1.

    Raises:
        ValueError: There are no flags, or one is not a boolean (`bool(nan)` would count as true).
    """
    if not all(isinstance(flag, bool | np.bool_) for flag in flags):
        raise ValueError("a share is taken of booleans only")
    return float(_sample(flags).mean())
