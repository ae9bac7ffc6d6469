"""The paired test against SciPy's, and its edges."""

import numpy as np
import pytest
from scipy import stats

from mrcnn.experiments.significance import paired_t_test


def test_it_is_scipys():
    rng = np.random.default_rng(0)
    for count in (2, 3, 10):
        ours, theirs = rng.normal(size=(2, count))
        found, expected = paired_t_test(ours, theirs), stats.ttest_rel(ours, theirs)
        assert found.mean == pytest.approx((ours - theirs).mean()) and found.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_three_seeds_need_a_mean_of_two_and_a_half_spreads():
    for mean, real in ((2.6, True), (2.4, False)):
        assert paired_t_test(np.array([-1, 0, 1]) + mean, [0, 0, 0]).is_real == real


def test_differences_that_are_all_alike():
    assert paired_t_test([0.5, 0.25], [0.25, 0.0]) == (0.25, 0.25, 0.25, 0.0)
    same = paired_t_test([0.1, 0.3], [0.1, 0.3])
    assert same.p == 1.0 and not same.is_real


def test_pairs():
    assert paired_t_test([0.1], [0.2]) is None
    with pytest.raises(ValueError, match="got 2 and 3 values"):
        paired_t_test([1, 2], [1, 2, 3])
