"""What a loaded data set says of its options."""

import json
from dataclasses import replace

import pytest

import kshot
from kshot.errors import ConfigError, DataError
from kshot.testing import gaussians


def test_a_data_set_and_its_splits_tell_their_options():
    digits = kshot.load("digits", flat=True)
    assert digits.options == {"flat": True}
    assert digits["test"].options == {"flat": True}
    assert kshot.load("digits").options == {"flat": False}
    record = kshot.evaluate(kshot.NearestNeighbour(), digits["test"], episodes=2).as_dict()
    assert json.loads(json.dumps(record))["options"] == {"flat": True}


def test_a_path_is_told_by_its_last_part_and_episodes_do_not_depend_on_it(tmp_path):
    from kshot.datasets.features import save_features

    data = gaussians()
    save_features(tmp_path / "f.safetensors", data, {"test": data["test"]}, "nothing")
    stored = kshot.load("features", path=str(tmp_path / "f.safetensors"))
    assert stored["test"].options == {"path": "f.safetensors"}
    assert stored["test"].fingerprint == data["test"].fingerprint


def test_a_mixture_tells_whose_options_they_are():
    digits, glyphs = kshot.load("digits")["test"], kshot.load("glyphs")["test"]
    assert kshot.Mixture("both", (digits, glyphs)).options == {"digits.flat": "False"}
    inverted = replace(digits, options={"flat": True})
    assert kshot.Mixture("two", (digits, inverted)).options == {"digits.flat": "False + True"}


def test_a_data_set_without_options_says_so():
    with pytest.raises(ConfigError, match="glyphs has no options: leave 'size' out"):
        kshot.load("glyphs", size=28)


@pytest.mark.parametrize("value", [[1], (1, 2), {"a": 1}])
def test_several_values_for_one_are_refused(value):
    with pytest.raises(ConfigError, match=r"size=.* of the data set folder: give one value"):
        kshot.load("folder", path="photos", size=value)


@pytest.mark.parametrize("name", ["folder", "omniglot", "features"])
def test_a_path_may_be_of_any_kind(tmp_path, name):
    for path in (2024, tmp_path / "missing"):
        with pytest.raises(DataError, match=str(path)):
            kshot.load(name, path=path)
