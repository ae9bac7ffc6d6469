"""Whether a difference between two heads is more than the luck of the seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.05
TEST = f"two-sided paired t-test over the seeds; real: p < {LEVEL}, not corrected for the number of comparisons"


class Difference(NamedTuple):
    """A mean difference over seeds, the 95% interval of its true value, and the p-value of no difference at all."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def is_real(self) -> bool:
        return self.p < LEVEL


def paired_t_test(ours: Sequence[float], theirs: Sequence[float]) -> Difference | None:
    """The difference `ours - theirs` of values that belong together in pairs; None for fewer than two pairs.

    Two heads share initial weights, order of images and samples for each seed, so that the spread of their differences
    counts, not that of their values (Student 1908). It is assumed to be normal. Three seeds leave two degrees of
    freedom: the mean must be 2.5 times the spread of the differences to be real.

    Raises ValueError for lists of different lengths.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"pairs are compared, but there are {len(ours)} and {len(theirs)} values")
    if len(ours) < 2:
        return None
    from scipy import stats

    apart = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    mean, error = float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))
    if error < 1e-12:  # the same difference for every seed
        return Difference(mean, mean, mean, 0.0 if abs(mean) > 1e-12 else 1.0)
    freedom = len(apart) - 1
    reach = error * float(stats.t.ppf(0.975, freedom))
    return Difference(mean, mean - reach, mean + reach, 2 * float(stats.t.sf(abs(mean) / error, freedom)))
