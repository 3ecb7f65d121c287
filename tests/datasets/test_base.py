"""Anyone's arrays, and what is wrong with them."""

import numpy as np
import pytest
import torch

import kshot
from kshot.datasets import Split
from kshot.errors import ConfigError, DataError


def arrays(classes=4, examples=5):
    x = np.arange(classes * examples * 3, dtype=np.float32).reshape(-1, 3)
    return x, [f"c{i % classes}" for i in range(classes * examples)]


def test_any_hashable_labels_any_order():
    x, _ = arrays()
    labels = [("a", 1), 7, None, "text"] * 5
    split = kshot.Dataset.from_arrays(x, labels)["test"]
    assert split.classes == (("a", 1), 7, None, "text")
    assert split.sizes == (5, 5, 5, 5)
    assert torch.equal(split.x[:5], torch.from_numpy(x[::4]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.bool])
def test_any_dtype_is_kept(dtype):
    x = torch.ones(20, 2, 3).to(dtype)
    data = kshot.Dataset.from_arrays(x, [i % 2 for i in range(20)])["test"]
    e = kshot.draw(data, kshot.EpisodeSpec(2, 1, 2), 0, [0])
    # Bytes are images: they become floats in [0, 1]. Everything else stays what it is.
    assert e.support.x.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
    assert e.support.x.shape == (1, 2, 2, 3)


def test_splits_by_fraction_are_disjoint_and_seeded():
    x, y = arrays(classes=20)
    splits = {"train": 0.6, "val": 0.2, "test": 0.2}
    one, two, other = (kshot.Dataset.from_arrays(x, y, splits=splits, seed=s) for s in (0, 0, 1))
    classes = {name: set(one[name].classes) for name in splits}
    assert [len(c) for c in classes.values()] == [12, 4, 4]
    assert len(set.union(*classes.values())) == 20
    assert one["train"].classes == two["train"].classes != other["train"].classes


def test_shared_classes_are_refused():
    x, y = arrays()
    with pytest.raises(DataError, match="must not share"):
        kshot.Dataset.from_arrays(x, y, splits={"train": ["c0", "c1"], "test": ["c1", "c2"]})


def test_fingerprint_follows_the_data():
    x, y = arrays()
    prints = [
        kshot.Dataset.from_arrays(a, b)["test"].fingerprint
        for a, b in ((x, y), (x.copy(), list(y)), (x + 1, y), (x.astype(np.int64), y))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y: (np.where(x == 7, np.nan, x), y), "NaN or infinity .*example 2"),
        (lambda x, y: (x, y[:-1]), "20 examples but y has 19"),
        (lambda x, y: (x, [float("nan"), *y[1:]]), "label of example 0 is NaN"),
        (lambda x, y: (x, [[1, 0]] * 20), "one hashable value"),
        (lambda x, y: (x, ["same"] * 20), "needs at least 2"),
        (lambda x, y: (x[:0], []), "needs at least 2"),
        (lambda x, y: (np.float32(3), y), "single value"),
    ],
)
def test_bad_arrays(change, says):
    with pytest.raises(DataError, match=says):
        kshot.Dataset.from_arrays(*change(*arrays()))


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": 0.9, "test": 0.2}, "add up to 1"),
        ({"train": -0.5}, "positive"),
        ({"test": ["c0", "c9"]}, "no example has the class 'c9'"),
        ({"train": 0.9, "test": 0.01}, "no class"),
    ],
)
def test_bad_splits(splits, says):
    with pytest.raises(DataError, match=says):
        kshot.Dataset.from_arrays(*arrays(), splits=splits)


def test_unknown_names_teach():
    with pytest.raises(ConfigError, match="did you mean 'glyphs'"):
        kshot.load("glyph")
    with pytest.raises(ConfigError, match="no data set is called 3"):
        kshot.load(3)
    with pytest.raises(ConfigError, match="no split of digits is called '0'"):
        kshot.load("digits")[0]
    with pytest.raises(ConfigError, match="known: flat"):
        kshot.load("digits", size=3)
    with pytest.raises(ConfigError, match=r"split of digits.*known: test"):
        kshot.load("digits")["train"]


def test_data_sets_and_splits_print_as_one_line():
    x, y = arrays(classes=20)
    data = kshot.Dataset.from_arrays(x, y, splits={"train": 0.6, "test": 0.4})
    assert repr(data) == "<Dataset arrays: train (12 classes), test (8 classes)>"
    assert repr(data["test"]) == "<Split arrays/test: 8 classes, 40 examples (3,)>"
    assert repr(kshot.load("sinusoid")) == "<Dataset sinusoid: train, val, test>"


def test_one_family_in_two_splits_is_refused():
    family = kshot.testing.Planes()
    with pytest.raises(DataError, match="same task family"):
        kshot.Dataset("planes", {"train": family, "val": family})


def test_train_and_val_together_have_the_classes_of_both():
    x, y = arrays(classes=6)
    splits = {"train": ["c0", "c3"], "val": ["c5", "c1"], "test": ["c2", "c4"]}
    data = kshot.Dataset.from_arrays(x, y, splits=splits)
    joined = data["train+val"]
    assert joined.name == "arrays/train+val"
    assert joined.classes == ("c0", "c3", "c5", "c1")
    assert joined.sizes == (5,) * 4
    found, labels = joined.examples(slice(None)), joined.labels()
    for number, name in enumerate(joined.classes):
        expected = torch.from_numpy(x[[label == name for label in y]])
        assert torch.equal(found[labels == number], expected)
    assert joined.fingerprint not in {s.fingerprint for s in data.splits.values()}
    assert joined.fingerprint == data["train+val"].fingerprint != data["val+train"].fingerprint
    assert kshot.draw(joined, kshot.EpisodeSpec(4, 1, 4), 0, [0]).support.size == 4


@pytest.mark.parametrize("copies", [False, True])  # one tensor for all splits, or one for each
def test_joined_splits_find_their_rows(copies):
    x = torch.arange(100)

    def part(name, starts, sizes, **fields):
        classes = tuple(f"{name}{start}" for start in starts)
        features = {"a": x.clone() if copies else x, "b": x}
        return Split(
            f"d/{name}", features if copies else x, sizes, classes, starts=starts, **fields
        )

    one = part("train", (40, 0), (3, 5), variants=(1, 2), within=(7, 8))
    two = part("val", (90, 70, 20), (4, 2, 6), variants=(3, 3, 4), within=(7, 9, 9))
    joined = kshot.Dataset("d", {"train": one, "val": two})["train+val"]
    spans = [(40, 43), (0, 5), (90, 94), (70, 72), (20, 26)]
    found = joined.examples(slice(None))
    expected = torch.cat([x[a:b] for a, b in spans])
    assert torch.equal(found["b"] if copies else found, expected)
    assert (joined.x is x) == (not copies)
    assert joined.variants == (1, 2, 3, 3, 4)
    assert joined.within == (7, 8, 7, 9, 9)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("train+train", DataError, "two different splits"),
        ("train+valid", ConfigError, "did you mean 'val'"),
        ("train+", ConfigError, "split of arrays"),
    ],
)
def test_what_cannot_be_joined(name, error, says):
    x, y = arrays()
    data = kshot.Dataset.from_arrays(x, y, splits={"train": ["c0", "c1"], "val": ["c2", "c3"]})
    with pytest.raises(error, match=says):
        data[name]


def test_families_cannot_be_joined():
    with pytest.raises(DataError, match="that have classes"):
        kshot.load("sinusoid")["train+val"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (torch.zeros(20, 4), r"x/test is \(3,\) torch.float32, but of x/test \(4,\)"),
        (torch.zeros(20, 3, dtype=torch.float64), "torch.float64: load them with the same"),
        ({"a": torch.zeros(20, 3)}, r"a \(3,\)"),
    ],
)
def test_the_sources_of_a_mixture_are_alike(other, says):
    labels = [i % 4 for i in range(20)]
    splits = [
        kshot.Dataset.from_arrays(x, labels, name="x")["test"] for x in (torch.zeros(20, 3), other)
    ]
    with pytest.raises(DataError, match=says):
        kshot.Mixture("unlike", tuple(splits))


def test_a_mixture_needs_sources_with_classes():
    with pytest.raises(DataError, match="sinusoid/test is none"):
        kshot.Mixture("waves", (kshot.load("sinusoid")["test"],))
    with pytest.raises(DataError, match="needs splits with classes"):
        kshot.Mixture("nothing", ())
