"""Recipes: every key is known, every mistake is explained."""

import pytest

from kshot.errors import ConfigError
from kshot.training.config import read_recipe, recipe_names


def test_every_recipe_is_valid_and_explains_itself():
    assert "protonet-glyphs" in recipe_names()
    for name in recipe_names():
        config = read_recipe(name)
        assert config.name == name
        assert config.evaluation


def test_settings_change_values():
    config = read_recipe(
        "protonet-glyphs",
        ["train.steps=7", "learner.distance=cosine", "train.shot=[1, 5]", "seed=3", "train.clip=1"],
    )
    assert (config.train.steps, config.train.shot, config.seed) == (7, (1, 5), 3)
    assert config.learner.options == {"distance": "cosine"}
    assert config.train.clip == 1.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["train.step=7"], "did you mean 'steps'"),
        (["trian.steps=7"], "did you mean 'train'"),
        (["train.steps=many"], "train.steps.*integer.*'many'"),
        (["train.optimizer=lion"], "adam"),
        (["validation.episodes=1"], "greater than or equal to 2"),
        (["steps"], "key=value"),
        (["name.deep=1"], "not a section"),
        (["train=5"], "train: give a table"),
        (["train.shot=true"], "shot.*got True"),
        (["train.shot=[1, true]"], "shot.*got"),
        (["train.shot=5.0"], "shot.*got 5.0"),
        (["train.steps=true"], "steps.*got True"),
        (["train.steps='10'"], "steps.*got '10'"),
        (["train.lr='1e-3'"], "lr.*got '1e-3'"),
        (["train.imbalanced=1"], "imbalanced.*got 1"),
        (["seed=true"], "seed.*got True"),
        (["evaluation=[{shot=true}]"], "shot.*got True"),
        (["evaluation=[{wai=5}]"], "did you mean 'way'"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(ConfigError, match=says):
        read_recipe("protonet-glyphs", settings)


def test_a_name_alone_takes_options_too(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("dataset = 'glyphs'\nencoder = 'conv4'\nlearner = 'protonet'\n")
    config = read_recipe(str(path), ["encoder.channels=8", "learner.distance=cosine"])
    assert (config.encoder.name, config.encoder.options) == ("conv4", {"channels": 8})
    assert config.learner.name == "protonet"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[dataset", "not valid TOML"),
        ("name = 'x'", "learner is missing"),
        ("[dataset]\nname='glyphs'\n[learner]\nname='maml'\n[extra]\na=1", "extra"),
    ],
)
def test_bad_recipe_files(tmp_path, text, says):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_recipe(str(path))


def test_missing_recipes():
    with pytest.raises(ConfigError, match="did you mean 'protonet-glyphs'"):
        read_recipe("protonet-glyph")
    with pytest.raises(ConfigError, match="no recipe file"):
        read_recipe("missing.toml")
