"""Summary statistics that refuse empty and non-finite samples instead of returning NaN.

numpy and scipy are imported where they are used: a suite without criteria must not pay for their import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_FURTHER_TRIALS = 10_000
"""How far ``further_trials`` looks."""


@dataclass(frozen=True)
class Proportion:
    """How many of a number of independent trials succeeded.

    Attributes:
        successes: Successful trials.
        trials: All trials, at least one.

    Raises:
        ValueError: The counts are not whole numbers with 0 <= successes <= trials and trials >= 1.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        """Refuse counts that no sample can have."""
        if type(self.successes) is not int or type(self.trials) is not int:
            raise ValueError("a proportion is made of two whole numbers")
        if not 0 <= self.successes <= self.trials or self.trials < 1:
            raise ValueError(f"{self.successes} of {self.trials} is not a proportion")

    @classmethod
    def of(cls, flags: Sequence[bool]) -> Proportion:
        """Count true flags.

        Raises:
            ValueError: There are no flags, or one is not a boolean (``bool(nan)`` would count as true).
        """
        return cls(round(share(flags) * len(flags)), len(flags))

    @property
    def share(self) -> float:
        """Successes over trials, between 0 and 1."""
        return self.successes / self.trials

    def low(self, confidence: float) -> float:
        """Lower one-sided Clopper-Pearson bound of the true share; covers ``confidence`` or more for every sample size.

        Source: Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
        Binomial", Biometrika 26; as ``scipy.stats.binomtest``, which searches for it a hundred times longer.
        """
        from scipy import special

        if self.successes == 0:
            return 0.0
        return float(special.betaincinv(self.successes, self.trials - self.successes + 1, 1 - confidence))

    def high(self, confidence: float) -> float:
        """Upper one-sided Clopper-Pearson bound of the true share; see ``low``."""
        from scipy import special

        if self.successes == self.trials:
            return 1.0
        return float(special.betaincinv(self.successes + 1, self.trials - self.successes, confidence))


def further_trials(sample: Proportion, decided: Callable[[Proportion], bool]) -> int | None:
    """Return the fewest further trials that decide a question if the observed share stays as it is.

    Args:
        sample: What was observed.
        decided: Whether a sample decides. Called with the number of successes nearest to the share.

    Returns:
        The number of further trials, or None where up to ``MOST_FURTHER_TRIALS`` do not: the share lies too close to
        the threshold.
    """
    # Rounding to whole successes makes the share fluctuate, so a larger sample may decide less: no binary search.
    for more in range(1, MOST_FURTHER_TRIALS + 1):
        trials = sample.trials + more
        successes = (2 * sample.successes * trials + sample.trials) // (2 * sample.trials)
        if decided(Proportion(successes, trials)):
            return more
    return None


def _sample(values: Sequence[float]) -> NDArray[Any]:
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"a sample has one dimension, got {array.ndim}")
    if array.size == 0:
        raise ValueError("an empty sample has no statistics")
    if not np.isfinite(array).all():
        raise ValueError("the sample holds a value that is not finite")
    return array


def quantile(values: Sequence[float], q: float) -> float:
    """Return the ``q``-quantile, interpolated linearly between the closest ranks.

    Args:
        values: The sample, shape (n,), n >= 1.
        q: The probability, between 0 and 1.

    Raises:
        ValueError: The sample is empty or holds a non-finite value, or ``q`` is outside [0, 1].
    """
    import numpy as np

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
        ValueError: There are no flags, or one is not a boolean (``bool(nan)`` would count as true).
    """
    import numpy as np

    if not all(isinstance(flag, bool | np.bool_) for flag in flags):
        raise ValueError("a share is taken of booleans only")
    return float(_sample(flags).mean())


def share_interval(flags: Sequence[bool], confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Wilson score interval of the share of true flags.

    Args:
        flags: The sample, shape (n,), n >= 1.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: There are no flags, or one is not a boolean.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", J. Am. Stat. Assoc. 22;
    ``scipy.stats.binomtest``.
    """
    from scipy import stats

    sample = Proportion.of(flags)
    interval = stats.binomtest(sample.successes, sample.trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the distribution-free confidence interval of the median, between order statistics of the sample.

    Args:
        values: The sample, shape (n,), n >= 1; too small a sample has an interval that ends in NaN.
        confidence: Coverage, between 0 and 1; discrete samples cover at least as much.

    Raises:
        ValueError: The sample is empty or holds a non-finite value.

    Source: Conover 1999, "Practical Nonparametric Statistics", section 3.2; ``scipy.stats.quantile_test``.
    """
    from scipy import stats

    interval = stats.quantile_test(_sample(values), p=0.5).confidence_interval(confidence)
    return float(interval.low), float(interval.high)
