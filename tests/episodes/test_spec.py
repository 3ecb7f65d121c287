"""What a spec says, and what it refuses."""

from dataclasses import replace

import pytest
import torch

import kshot
from kshot.episodes.spec import bounds
from kshot.errors import EpisodeError


def split(*sizes):
    labels = [c for c, size in enumerate(sizes) for _ in range(size)]
    return kshot.Dataset.from_arrays(torch.arange(len(labels)), labels, name="few")["test"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "5-way 1-shot"),
        ({"way": (3, 8), "shot": (1, 5), "imbalanced": True}, "3-8-way 1-5-shot imbalanced"),
        ({"way": (5, 50), "shot": "any"}, "5-50-way any-shot"),
        ({"way": 7, "shot": "any"}, "7-way any-shot"),
    ],
)
def test_describe(spec, says):
    assert kshot.EpisodeSpec(**spec).describe() == says


def test_bounds():
    assert bounds(3) == (3, 3)
    assert bounds((2, 4)) == (2, 4)
    assert bounds("any") == (1, 100)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"shot": "some"}, "'some': give a whole number .* or 'any'"),
        ({"shot": True}, "shot=True: give a whole number"),
        ({"way": 2.5}, r"way=2.5: give a whole number .* or a range \(low, high\)"),
        ({"way": []}, r"way=\[\]"),
        ({"way": [5, 2]}, r"way=\[5, 2\]"),
        ({"way": (2, 3, 4)}, "way="),
        ({"way": "any"}, "way='any'"),
        ({"query": (1, 2)}, r"query=\(1, 2\): give a whole number"),
        ({"shot": "any", "imbalanced": True}, "leave it out"),
        ({"shot": "any", "way": (5, 501)}, "at most 500"),
        ({"shot": "any", "way": 1}, "at least 2"),
    ],
)
def test_impossible_specs(spec, says):
    with pytest.raises(EpisodeError, match=says):
        kshot.EpisodeSpec(**spec)


def test_any_shot_needs_the_least_way_and_two_examples():
    spec = kshot.EpisodeSpec(way=(3, 50), shot="any")
    spec.check(split(2, 2, 2))
    with pytest.raises(EpisodeError, match="way=3 needs 3 classes, but few/test has 2"):
        spec.check(split(9, 9))
    with pytest.raises(EpisodeError, match=r"need 2 examples per class, but class 1 .* has 1"):
        spec.check(split(9, 1, 9))


def test_a_range_of_ways_with_given_shots_needs_all_of_it():
    with pytest.raises(EpisodeError, match="way=50 needs 50 classes"):
        kshot.EpisodeSpec(way=(3, 50), query=1).check(split(9, 9, 9))


def test_families_have_no_any_shot():
    with pytest.raises(EpisodeError, match="give one shot, not any"):
        kshot.EpisodeSpec(shot="any").check(kshot.load("sinusoid")["test"])


@pytest.mark.parametrize("spec", [{"shot": "any"}, {"shot": (1, 2), "imbalanced": True}])
def test_aligned_splits_have_one_shot_for_all_classes(spec):
    aligned = replace(split(*[9] * 5), aligned=True)
    with pytest.raises(EpisodeError, match="one shot"):
        kshot.EpisodeSpec(query=1, **spec).check(aligned)
    kshot.EpisodeSpec(shot=(1, 2), query=1).check(aligned)
