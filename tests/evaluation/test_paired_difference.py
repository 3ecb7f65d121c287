"""Paired differences."""

from dataclasses import replace

import numpy as np
import pytest

import kshot
from kshot.errors import EpisodeError
from kshot.evaluation import paired_difference
from kshot.evaluation.plots import comparison
from kshot.testing import gaussians

EASY = kshot.evaluate(kshot.NearestNeighbour(), gaussians()["test"], query=2, episodes=4)


def result(values, name="a", metric="accuracy", **changes):
    values = np.array(values, dtype=float)
    return replace(EASY, name=name, values=values, mean=values.mean(), metric=metric, **changes)


def test_difference_by_hand():
    a, b = result([0.9, 0.8, 0.7, 0.6], "a"), result([0.8, 0.8, 0.6, 0.4], "b")
    d = paired_difference(a, b)
    assert (d.name, d.reference, d.episodes) == ("a", "b", 4)
    assert d.mean == pytest.approx(0.1)
    assert d.interval == pytest.approx(1.96 * np.std([0.1, 0, 0.1, 0.2], ddof=1) / 2)
    assert str(d) == "+10.00 ± 8.00"
    back = paired_difference(b, a)
    assert (back.mean, back.interval) == pytest.approx((-d.mean, d.interval))


def test_pairing_sees_what_two_intervals_do_not():
    """Episodes differ much more from each other than the methods do."""
    hard = np.random.default_rng(0).uniform(0.2, 0.9, 500)
    a, b = result(hard + 0.01 + 0.01 * (np.arange(500) % 2), "a"), result(hard, "b")
    spread = 1.96 * hard.std(ddof=1) / 500**0.5
    assert abs(a.mean - b.mean) < spread
    assert paired_difference(a, b).verdict == "better"


@pytest.mark.parametrize(
    ("values", "metric", "verdict"),
    [
        ([0.2, 0.3, 0.2, 0.3], "accuracy", "better"),
        ([-0.2, -0.3, -0.2, -0.3], "accuracy", "worse"),
        ([0.2, 0.3, 0.2, 0.3], "mse", "worse"),
        ([-0.2, -0.3, -0.2, -0.3], "mse", "better"),
        ([0.2, -0.3, 0.3, -0.2], "accuracy", "not told apart"),
        ([0, 0, 0, 0], "accuracy", "not told apart"),
        ([0.1, 0.1, 0.1, 0.1], "accuracy", "better"),
        ([float("nan"), 0, 0, 0], "mse", "not told apart"),
    ],
)
def test_the_verdict_is_whether_the_interval_excludes_zero(values, metric, verdict):
    difference = paired_difference(result(values, metric=metric), result([0] * 4, metric=metric))
    assert difference.verdict == verdict
    assert difference.as_dict()["verdict"] == verdict


def test_a_difference_that_is_not_finite_is_null():
    difference = paired_difference(result([float("nan"), 0, 0, 0]), result([0] * 4))
    assert difference.as_dict()["mean"] is None
    assert str(difference) == "not finite"


def test_other_episodes_cannot_be_paired():
    with pytest.raises(EpisodeError, match="same episodes"):
        paired_difference(result([0] * 4), result([0] * 4, episode_hash="another"))
    with pytest.raises(EpisodeError, match="scored by accuracy"):
        paired_difference(result([0] * 4), result([0] * 4, metric="mse"))


def test_the_picture_has_both_panels():
    results = [result([0.9, 0.8, 0.7, 0.6], "a"), result([0.8, 0.8, 0.6, 0.4], "b")]
    left, right = comparison(results, [paired_difference(results[1], results[0])]).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["a\ninductive", "b\ninductive"]
    assert len(left.containers) == 2
    assert len(right.containers) == 1
    assert "difference from a, points" in right.get_xlabel()
