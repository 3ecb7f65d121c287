"""Stored features as a data set."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kshot
from kshot.datasets import Dataset
from kshot.datasets.features import save_features
from kshot.errors import ConfigError, DataError
from kshot.testing import gaussians


@pytest.fixture
def embedded():
    """Three numbers for each example of the Gaussians."""
    data = gaussians(classes=20)
    splits = {
        n: s.with_x(torch.stack([s.x.mean(1), *s.x.T[:2]], 1)) for n, s in data.splits.items()
    }
    return data, splits


@pytest.fixture
def file(embedded, tmp_path):
    path = tmp_path / "features.safetensors"
    save_features(path, *embedded, "a mean")
    return path


def test_episodes_are_those_of_the_source(embedded, file):
    data, splits = embedded
    loaded = kshot.load("features", path=str(file))
    assert list(loaded.splits) == ["train", "test"]
    for name, split in splits.items():
        assert loaded[name].fingerprint == data[name].fingerprint
        assert loaded[name].classes == data[name].classes
        spec = kshot.EpisodeSpec(5, 2, 3)
        ours, source = (kshot.draw(s, spec, 7, range(4)) for s in (loaded[name], data[name]))
        assert torch.equal(ours.query.y, source.query.y)
        assert torch.equal(ours.query.x, kshot.draw(split, spec, 7, range(4)).query.x)
        assert torch.equal(ours.query.x[..., 0], source.query.x.mean(-1))
    assert loaded["test"].name == "features of gaussians/test"
    assert loaded.about == "gaussians embedded by a mean"


def test_bound_classes_stay_bound(embedded, tmp_path):
    data, splits = embedded
    groups = tuple(i % 2 for i in range(len(splits["test"].sizes)))
    changes = [{"variants": groups}, {"within": groups}, {"aligned": True}]
    for change in changes:
        split = replace(splits["test"], **change)
        save_features(tmp_path / "f", data, {"test": split}, "a mean")
        loaded = kshot.load("features", path=str(tmp_path / "f"))["test"]
        kept = {name: getattr(loaded, name) for name in ("variants", "within", "aligned")}
        assert kept == {"variants": None, "within": None, "aligned": False, **change}
        ours, source = (
            kshot.draw(s, kshot.EpisodeSpec(2, 1, 3), 0, range(4)) for s in (loaded, split)
        )
        assert torch.equal(ours.support.x, source.support.x)


def test_labels_keep_their_kind_where_json_has_it(tmp_path):
    x = torch.arange(8.0).reshape(8, 1)
    labels = [1, 1, "a", "a", (2, "b"), (2, "b"), None, None]
    data = Dataset.from_arrays(x, labels)
    save_features(tmp_path / "f", data, data.splits, "nothing")
    loaded = kshot.load("features", path=str(tmp_path / "f"))
    assert loaded["test"].classes == (1, "a", "(2, 'b')", "None")


def test_the_file_says_what_it_holds(file):
    with safe_open(str(file), framework="pt") as opened:
        facts = json.loads(opened.metadata()["features"])
    assert facts["kshot"] == kshot.__version__
    assert facts["encoder"] == "a mean"
    assert facts["splits"]["test"]["name"] == "gaussians/test"
    assert len(facts["splits"]["test"]["fingerprint"]) == 16


def truncated(path):
    path.write_bytes(path.read_bytes()[:-4])


def one_bit_off(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def not_safetensors(path):
    path.write_text("features, 1, 2, 3")


def foreign(path):
    save_file(load_file(str(path)), str(path))


def without_a_split(path):
    with safe_open(str(path), framework="pt") as opened:
        facts = opened.metadata()
    save_file({"train": load_file(str(path))["train"]}, str(path), facts)


def newer(path):
    with safe_open(str(path), framework="pt") as opened:
        text = opened.metadata()["features"].replace('"format": 1', '"format": 99')
    save_file(load_file(str(path)), str(path), {"features": text})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncated, "cannot be read as safetensors"),
        (not_safetensors, "cannot be read as safetensors"),
        (one_bit_off, "not what was written"),
        (foreign, "does not hold features"),
        (without_a_split, "damaged"),
        (newer, "upgrade kshot"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_files_that_are_none(file, spoil, says):
    spoil(file)
    with pytest.raises(DataError, match=says) as error:
        kshot.load("features", path=str(file))
    assert (
        "kshot embed" in str(error.value) or "embed again" in str(error.value) or "upgrade" in says
    )
    assert "\n" not in str(error.value)


def test_a_file_must_be_named():
    with pytest.raises(ConfigError, match="path=FILE"):
        kshot.load("features")
