"""Episodes are counted: pure functions of data, spec, seed and number."""

import numpy as np
import pytest
import torch

import kshot
from kshot import philox
from kshot.errors import EpisodeError


def numbered(classes=12, examples=9):
    """A split whose single feature tells class and example: 100 * class + example."""
    x = torch.tensor([[100 * c + i] for c in range(classes) for i in range(examples)])
    y = [f"class {c}" for c in range(classes) for _ in range(examples)]
    return kshot.Dataset.from_arrays(x, y, name="numbered")["test"]


SPEC = kshot.EpisodeSpec(way=4, shot=2, query=3)


def test_the_same_arguments_give_the_same_episodes_for_ever():
    """Golden values: a change here changes every published episode hash."""
    e = kshot.draw(numbered(), SPEC, 7, [0, 5])
    assert e.support.x[0, :, 0].tolist() == GOLDEN_SUPPORT
    assert e.support.y[0].tolist() == GOLDEN_LABELS
    assert kshot.FrozenEpisodes(numbered(), SPEC, 10, 7).hash == GOLDEN_HASH


GOLDEN_SUPPORT = [4, 905, 502, 407, 507, 404, 0, 907]
GOLDEN_LABELS = [1, 3, 2, 0, 2, 0, 1, 3]
GOLDEN_HASH = "431231e00e0a6c7c"


def test_an_episode_does_not_depend_on_its_batch():
    batch = kshot.draw(numbered(), SPEC, 0, [3, 8, 1])
    for position, i in enumerate([3, 8, 1]):
        alone = kshot.draw(numbered(), SPEC, 0, [i])
        assert torch.equal(batch.support.x[position], alone.support.x[0])
        assert torch.equal(batch.query.y[position], alone.query.y[0])


def test_support_and_query_are_disjoint_and_labels_are_carried():
    for i in range(50):
        e = kshot.draw(numbered(), SPEC, 0, [i])
        support, query = e.support.x[0, :, 0], e.query.x[0, :, 0]
        assert not set(support.tolist()) & set(query.tolist())
        for label in range(4):
            of_class = torch.cat([support[e.support.y[0] == label], query[e.query.y[0] == label]])
            assert len(of_class) == 5
            assert len(set((of_class // 100).tolist())) == 1


def test_examples_are_not_sorted_by_class():
    labels = [kshot.draw(numbered(), SPEC, 0, [i]).support.y[0].tolist() for i in range(5)]
    assert any(row != sorted(row) for row in labels)


def test_classes_and_examples_are_drawn_evenly():
    e = kshot.draw(numbered(), SPEC, 0, range(2000))
    values = torch.cat([e.support.x, e.query.x], 1).flatten().numpy()
    per_class = np.bincount(values // 100, minlength=12)
    per_example = np.bincount(values % 100, minlength=9)
    assert per_class.std() / per_class.mean() < 0.06
    assert per_example.std() / per_example.mean() < 0.06


def test_seed_spec_and_data_each_change_the_episodes():
    base = kshot.draw(numbered(), SPEC, 0, [0]).support.x
    other_seed = kshot.draw(numbered(), SPEC, 1, [0]).support.x
    other_data = kshot.draw(numbered(examples=10), SPEC, 0, [0]).support.x
    assert not torch.equal(base, other_seed)
    assert not torch.equal(base, other_data)


def test_other_features_keep_the_episodes():
    split = numbered()
    features = split.with_x(split.x.float() * 2)
    a, b = (kshot.draw(s, SPEC, 0, range(5)) for s in (split, features))
    assert torch.equal(2 * a.support.x, b.support.x)
    assert kshot.FrozenEpisodes(split, SPEC, 5).hash == kshot.FrozenEpisodes(features, SPEC, 5).hash


def test_uneven_tasks_are_padded_and_masked():
    spec = kshot.EpisodeSpec(way=(2, 5), shot=(1, 4), query=2, imbalanced=True)
    e = kshot.draw(numbered(), spec, 0, range(40))
    ways = e.support.present().sum(1)
    assert (ways.min(), ways.max(), e.way) == (2, 5, 5)
    counts = e.support.one_hot(torch.float32).sum(1)
    assert counts.max() == 4
    assert (counts[e.support.present()] >= 1).all()
    assert any(len(set(row[row > 0].tolist())) > 1 for row in counts)
    assert torch.equal(e.query.real.sum(1), 2 * ways)
    balanced = kshot.draw(numbered(), kshot.EpisodeSpec((2, 5), (1, 4), 2), 0, range(40))
    for row in balanced.support.one_hot(torch.float32).sum(1):
        assert len(set(row[row > 0].tolist())) == 1


def test_classes_of_different_sizes():
    x = torch.arange(30)
    data = kshot.Dataset.from_arrays(x, [0] * 4 + [1] * 9 + [2] * 17)["test"]
    for i in range(30):
        e = kshot.draw(data, kshot.EpisodeSpec(3, 1, 3), 0, [i])
        rows = torch.cat([e.support.x, e.query.x], 1)[0]
        assert len(set(rows.tolist())) == 12


def test_batches_of_frozen_episodes_cover_the_range_once():
    frozen = kshot.FrozenEpisodes(numbered(), SPEC, 10, seed=2, start=5)
    keys = torch.cat([e.key for e in frozen.batches(4)])
    assert keys.tolist() == list(range(5, 15))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"way": 20}, "has 12"),
        ({"way": 3, "shot": 5, "query": 5}, "shot \\+ query = 10"),
        ({"way": 1}, "at least 2"),
        ({"shot": 0}, "at least 1"),
        ({"query": -1}, "at least 0"),
        ({"way": (5, 3)}, "range"),
        ({"shot": 2, "imbalanced": True}, "range of shots"),
    ],
)
def test_impossible_episodes(spec, says):
    with pytest.raises(EpisodeError, match=says):
        kshot.draw(numbered(), kshot.EpisodeSpec(**spec), 0, [0])


def test_words_are_stable_and_streams_differ():
    golden = [0x2F4BA6408E4D89B, 0x3DD62B0B9CA8C5B2, 0x1C8667A55D902E79, 0x907D7A052FD5B4DC]
    assert philox.words(0, 0, 4).tolist() == golden
    assert philox.words(0, 0, 8)[:4].tolist() == philox.words(0, 0, 4).tolist()
    assert philox.words(0, 1, 4).tolist() != philox.words(0, 0, 4).tolist()
    assert philox.words(0, 0, 4, stream=1).tolist() != philox.words(0, 0, 4).tolist()
    unit = philox.uniform(philox.words(3, 0, 10_000))
    assert 0 <= unit.min() < unit.max() < 1
    assert abs(unit.mean() - 0.5) < 0.01
    dice = philox.integers(philox.words(3, 1, 6000), 1, 6)
    assert sorted(set(dice.tolist())) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("index", [[], [-1], [1.5], 3.5, [2**70]])
def test_episode_numbers_are_natural(index):
    with pytest.raises(EpisodeError, match="from 0"):
        kshot.draw(numbered(), SPEC, 0, index)


def test_a_data_set_is_not_a_split():
    data = kshot.Dataset.from_arrays(torch.arange(20), [i % 4 for i in range(20)])
    with pytest.raises(EpisodeError, match=r"data\['test'\]"):
        kshot.draw(data, SPEC, 0, [0])
