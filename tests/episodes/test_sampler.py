"""Episodes are counted: pure functions of data, spec, seed and number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import kshot
from kshot import philox
from kshot.episodes import class_names
from kshot.errors import EpisodeError


def numbered(classes=12, examples=9, first=0):
    """A split whose single feature tells class and example: first + 100 * class + example."""
    x = torch.tensor([[first + 100 * c + i] for c in range(classes) for i in range(examples)])
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


@pytest.mark.parametrize("index", [[], [-1], [1.5], 3.5, 3, [2**70], "0"])
def test_episode_numbers_are_natural(index):
    with pytest.raises(EpisodeError, match="from 0"):
        kshot.draw(numbered(), SPEC, 0, index)


def test_a_data_set_is_not_a_split():
    data = kshot.Dataset.from_arrays(torch.arange(20), [i % 4 for i in range(20)])
    with pytest.raises(EpisodeError, match=r"data\['test'\]"):
        kshot.draw(data, SPEC, 0, [0])


def classes_of(e):
    """The classes of each task of numbered data, a set per task."""
    tasks = zip(e.support.x, e.support.real, strict=True)
    return [set((x[real] // 100).flatten().tolist()) for x, real in tasks]


def test_the_classes_of_an_episode_have_names():
    spec = kshot.EpisodeSpec((2, 5), 1, 2)
    e = kshot.draw(numbered(), spec, 3, [4, 0, 9])
    named = class_names(numbered(), spec, 3, [4, 0, 9])
    for task, names in enumerate(named):
        real = e.query.real[task]
        for x, label in zip(e.query.x[task, real, 0], e.query.y[task, real], strict=True):
            assert names[label] == f"class {int(x) // 100}"
    assert [len(names) for names in named] == e.support.present().sum(1).tolist()
    assert class_names(kshot.load("sinusoid")["test"], SPEC, 0, [0, 1]) == [(), ()]
    with pytest.raises(EpisodeError, match="has 12"):
        class_names(numbered(), kshot.EpisodeSpec(20), 0, [0])


def test_the_classes_named_are_those_of_the_mixtures_source():
    one, two = numbered(), numbered(first=10_000)
    renamed = replace(two, classes=tuple(f"other {c}" for c in range(12)))
    both = kshot.Mixture("both", (one, renamed))
    x = kshot.draw(both, SPEC, 0, range(20)).support.x
    for values, names in zip(x, class_names(both, SPEC, 0, range(20)), strict=True):
        assert all(n.startswith("other" if values[0, 0] >= 10_000 else "class") for n in names)


def test_an_episode_holds_one_variant_of_a_thing_at_most():
    rotated = replace(numbered(), variants=tuple(c // 4 for c in range(12)))
    chosen = classes_of(kshot.draw(rotated, kshot.EpisodeSpec(3, 1, 1), 0, range(200)))
    assert all({c // 4 for c in classes} == {0, 1, 2} for classes in chosen)
    assert set.union(*chosen) == set(range(12))
    with pytest.raises(EpisodeError, match="can mix 3 at most"):
        kshot.draw(rotated, kshot.EpisodeSpec(4, 1, 1), 0, [0])


def test_a_task_stays_within_a_group_that_is_wide_enough():
    alphabets = replace(numbered(), within=(0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2))
    chosen = classes_of(kshot.draw(alphabets, SPEC, 0, range(200)))
    assert all(c <= set(range(2, 6)) or c <= set(range(6, 12)) for c in chosen)
    assert set.union(*chosen) == set(range(2, 12))
    assert 70 < sum(c <= set(range(2, 6)) for c in chosen) < 130
    with pytest.raises(EpisodeError, match="can mix 6 at most"):
        kshot.draw(alphabets, kshot.EpisodeSpec(7, 1, 1), 0, [0])


def test_any_shot_takes_every_group_of_the_least_way():
    alphabets = replace(numbered(), within=(0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2))
    spec = kshot.EpisodeSpec((2, 50), "any", 2)
    chosen = classes_of(kshot.draw(alphabets, spec, 0, range(300)))
    assert {1, 2} in chosen
    assert not any(0 in classes for classes in chosen)
    assert {len(c) for c in chosen} == set(range(2, 10))


def test_an_aligned_split_gives_the_same_examples_of_every_class():
    e = kshot.draw(replace(numbered(), aligned=True), SPEC, 0, range(50))
    for task in range(50):
        drawers = []
        for part in (e.support, e.query):
            numbers = [part.x[task, part.y[task] == c] % 100 for c in range(4)]
            drawers.append([set(n.flatten().tolist()) for n in numbers])
        support, query = drawers
        assert all(d == support[0] for d in support)
        assert all(d == query[0] for d in query)
        assert not support[0] & query[0]


def two_sources():
    return kshot.Mixture("both", (numbered(), numbered(classes=5, examples=20, first=10_000)))


def test_an_episode_of_a_mixture_comes_whole_from_one_source():
    e = kshot.draw(two_sources(), SPEC, 0, range(400))
    second = torch.cat([e.support.x, e.query.x], 1).squeeze(-1) >= 10_000
    assert torch.equal(second.any(1), second.all(1))
    assert 160 < second.all(1).sum() < 240


@pytest.mark.parametrize("spec", [SPEC, kshot.EpisodeSpec((2, 5), "any", 4)])
def test_an_episode_of_a_mixture_does_not_depend_on_its_batch(spec):
    batch = kshot.draw(two_sources(), spec, 0, range(12))
    assert 0 < (batch.support.x[:, 0] >= 10_000).sum() < 12
    for i in range(12):
        alone = kshot.draw(two_sources(), spec, 0, [i])
        for padded, plain in ((batch.support, alone.support), (batch.query, alone.query)):
            assert torch.equal(padded.x[i, padded.real[i]], plain.x[0])
            assert torch.equal(padded.y[i, padded.real[i]], plain.y[0])


def test_a_mixture_prepares_the_features_of_each_source():
    bytes_, floats = torch.arange(40, dtype=torch.uint8), torch.arange(40) / 255
    labels = [c for c in range(4) for _ in range(10)]
    sources = [
        kshot.Dataset.from_arrays({"b": x, "a": x}, labels)["test"] for x in (bytes_, floats)
    ]
    e = kshot.draw(kshot.Mixture("dicts", tuple(sources)), kshot.EpisodeSpec(3, 2, 2), 0, range(9))
    rows = e.support.x["a"] * 255
    assert torch.equal(e.support.x["a"], e.support.x["b"])
    assert torch.allclose(rows, rows.round(), atol=1e-4)
    for task in range(9):
        for label in range(3):
            assert len((rows[task, e.support.y[task] == label].round() // 10).unique()) == 1


def test_the_hash_of_a_mixture_follows_its_sources():
    mixture = two_sources()
    hashes = [
        kshot.FrozenEpisodes(source, SPEC, 10).hash
        for source in (
            mixture,
            two_sources(),
            kshot.Mixture("turned", mixture.sources[::-1]),
            kshot.Mixture("one", mixture.sources[:1]),
            mixture.sources[0],
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_every_source_of_a_mixture_is_checked():
    with pytest.raises(EpisodeError, match="way=6 needs 6 classes"):
        kshot.draw(two_sources(), kshot.EpisodeSpec(6, 1, 1), 0, [0])
    with pytest.raises(EpisodeError, match="of numbered/test has 9"):
        kshot.FrozenEpisodes(two_sources(), kshot.EpisodeSpec(5, 5, 5), 10)


def test_an_episode_knows_the_numbers_of_its_classes():
    split = kshot.load("glyphs")["test"]
    spec = kshot.EpisodeSpec(way=(2, 5), shot=1, query=2)
    episode = kshot.draw(split, spec, 0, range(6))
    names = class_names(split, spec, 0, range(6))
    for numbers, labels in zip(episode.classes.tolist(), names, strict=True):
        assert [split.classes[n] for n in numbers if n >= 0] == list(labels)
        assert numbers[len(labels) :] == [-1] * (5 - len(labels))
    part = episode.select(torch.tensor([2])).to("cpu")
    assert torch.equal(part.classes, episode.classes[2:3])


def test_classes_are_numbered_through_all_splits_of_a_mixture():
    data = kshot.load("glyphs")
    both = kshot.Mixture("both", (data["val"], data["test"]))
    spec = kshot.EpisodeSpec(way=3, shot=1, query=1)
    episode = kshot.draw(both, spec, 0, range(20))
    names = class_names(both, spec, 0, range(20))
    together = [*data["val"].classes, *data["test"].classes]
    assert [[together[n] for n in row] for row in episode.classes.tolist()] == list(
        map(list, names)
    )
