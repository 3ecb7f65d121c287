"""Results over training seeds."""

import json
from dataclasses import replace

import numpy as np
import pytest

import kshot
from kshot.errors import EpisodeError
from kshot.evaluation import over_seeds
from kshot.evaluation.record import with_options
from kshot.testing import gaussians


def result(values, **changes):
    """A result with these scores of its episodes."""
    first = kshot.evaluate(
        kshot.NearestNeighbour(), gaussians()["test"], query=2, episodes=len(values)
    )
    values = np.array(values)
    return replace(first, values=values, mean=float(values.mean()), **changes)


def test_over_seeds_by_hand():
    a = result([0.5, 0.7, 0.9], training_seeds=(0,), meta_steps=100)
    b = result([0.7, 0.7, 0.7], training_seeds=(1,), meta_steps=80)
    c = result([0.9, 1.0, 1.0], training_seeds=(5,), meta_steps=90)
    joined = over_seeds([a, b, c])
    assert joined.values.tolist() == pytest.approx([0.7, 0.8, 2.6 / 3])
    assert joined.mean == pytest.approx((0.7 + 0.7 + 2.9 / 3) / 3)
    assert joined.interval == pytest.approx(1.96 * np.std([0.7, 0.8, 2.6 / 3], ddof=1) / 3**0.5)
    assert joined.seed_std == pytest.approx(np.std([0.7, 0.7, 2.9 / 3], ddof=1))
    assert joined.training_seeds == (0, 1, 5)
    assert joined.meta_steps == 100
    assert str(joined) == "78.89 ± 9.49 %, 3 seeds ± 15.40"
    record = json.loads(json.dumps(joined.as_dict()))
    assert record["training_seeds"] == [0, 1, 5]
    assert record["seed_std"] == joined.seed_std


def test_extra_scores_are_averaged_too():
    a = result([0.5, 0.7], training_seeds=(0,), extra={"coverage_90": 0.8})
    b = result([0.5, 0.9], training_seeds=(1,), extra={"coverage_90": 0.9})
    assert over_seeds([a, b]).extra["coverage_90"] == pytest.approx(0.85)


def test_one_seed_has_no_spread():
    alone = result([0.5, 0.7], training_seeds=(3,))
    assert over_seeds([alone]) is alone
    assert alone.seed_std is None
    assert "seeds" not in str(alone)


def test_a_baseline_that_knows_no_seed_stays_as_it_is():
    baseline = result([0.5, 0.7])
    assert over_seeds([baseline, result([0.5, 0.7])]) is baseline


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training_seeds": (0,)}, "each of several seeds"),
        ({"training_seeds": ()}, "each of several seeds"),
        ({"training_seeds": (1,), "episode_hash": "another"}, "same episodes"),
        ({"training_seeds": (1,), "transductive": True}, "protocol"),
    ],
)
def test_what_cannot_be_joined(changes, says):
    with pytest.raises(EpisodeError, match=says):
        over_seeds([result([0.5, 0.7], training_seeds=(0,)), result([0.4, 0.6], **changes)])


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "x/test"),
        ({"protocol": "vinyals", "resize": "lanczos", "seed": 0}, "x/test (vinyals, lanczos)"),
        ({"size": 28, "ink": "dark", "seed": 3}, "x/test (size=28, ink=dark, seed=3)"),
        ({"flat": True, "skip_unreadable": False}, "x/test (flat=true)"),
        (
            {"omniglot.protocol": "vinyals", "omniglot.seed": "0"},
            "x/test (omniglot.protocol=vinyals)",
        ),
        ({"splits": {"train": 0.5}}, 'x/test (splits={"train": 0.5})'),
    ],
)
def test_options_that_matter_are_shown(options, shown):
    assert with_options("x/test", options) == shown
    one = result([0.5, 0.7], source="x/test", options=options)
    assert one.heading == f"{shown}, 5-way 1-shot, 2 queries"


def test_what_is_not_finite_is_null_in_json():
    broken = result([0.5, 0.7], seed_std=float("nan"))
    assert json.loads(json.dumps(broken.as_dict(), allow_nan=False))["seed_std"] is None
