"""Whether a difference between two heads is more than chance over the seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.05
TEST = f"two-sided paired t-test over the seeds; real: p < {LEVEL}, not corrected for the number of comparisons"


class Difference(NamedTuple):
    """A mean difference over seeds, its 95% confidence interval, and the p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float

    @property
    def is_real(self) -> bool:
        return self.p < LEVEL


def paired_t_test(ours: Sequence[float], theirs: Sequence[float]) -> Difference | None:
    """The difference `ours - theirs` of paired values; None for fewer than two pairs.

    Two heads share initial weights, order of images and samples for each seed, so the spread of their differences
    counts, not that of their values (Student 1908). The differences are assumed to be normally distributed. Three seeds
    leave two degrees of freedom: the mean must be 2.5 times the spread of the differences to be real.

    Raises ValueError for lists of different lengths.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"expected pairs of values, got {len(ours)} and {len(theirs)} values")
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
