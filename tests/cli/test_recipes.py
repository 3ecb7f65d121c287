"""Every recipe runs by one command: here a few steps and episodes of each on its real data."""

import json
import os
import re
import time
from importlib.resources import files

import pytest

from kshot.datasets import entry
from kshot.training.config import EMBEDDED, read_recipe, recipe_names

SHORT = ["--set=validation.episodes=4", "--set=validation.every=1"]


def with_few_episodes(recipe):
    """The recipe's text, four test episodes of each kind."""
    text = (files("kshot") / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    start = text.index("[[evaluation]]")
    rows = re.sub(r"^episodes = \d+\n", "", text[start:], flags=re.MULTILINE)
    return text[:start] + rows.replace("[[evaluation]]\n", "[[evaluation]]\nepisodes = 4\n")


@pytest.mark.filterwarnings("ignore:.*in two splits")  # CIFAR-100 has a few, as published
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(
            name,
            marks=[] if read_recipe(name).datasets[0].name in EMBEDDED else [pytest.mark.data],
        )
        for name in recipe_names()
        if name != "protonet-folder"  # of photos that a test in test_cli.py makes
    ],
)
def test_a_recipe_runs(cli, tmp_path, recipe):
    name = read_recipe(recipe).datasets[0].name
    if name not in EMBEDDED and "KSHOT_DATA" not in os.environ:
        pytest.skip("KSHOT_DATA does not name a folder with the real data sets")
    if name == "mini_imagenet" and not entry(name).present():
        pytest.skip("the folder that KSHOT_DATA names has no mini-imagenet")
    (tmp_path / "recipe.toml").write_text(with_few_episodes(recipe))
    steps = min(read_recipe(recipe).train.steps, 2)
    result = cli(
        "train", "recipe.toml", f"--set=train.steps={steps}", *SHORT, "--quiet", "--out=run"
    )
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    kinds = {(r["source"], r["task"], r["spec"]["query"], r["transductive"]) for r in records}
    assert len(kinds) >= len(read_recipe(recipe).evaluation)
    assert all(r["episodes"] == 4 for r in records)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_has_a_trial(recipe):
    config, whole = read_recipe(recipe, ["train.lr=0.5"], quick=True), read_recipe(recipe)
    assert {part.name for part in config.datasets} <= EMBEDDED
    assert config.train.steps <= 100
    assert config.dataset == whole.dataset or config.train.meta_batch <= 2
    assert config.train.lr == 0.5
    assert (config.learner, config.encoder) == (whole.learner, whole.encoder)
    assert [e.shot for e in config.evaluation] == [e.shot for e in whole.evaluation]


def test_a_trial_runs_without_data(cli, tmp_path, monkeypatch):
    """The options of the recipe's data are gone with its data."""
    monkeypatch.delenv("KSHOT_DATA", raising=False)
    few = ["--set=train.steps=2", "--set=validation.episodes=4", "--set=evaluation.episodes=4"]
    result = cli("train", "reptile-omniglot", "--quick", *few, "--quiet")
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "runs/reptile-omniglot-quick-001/results.json").read_text())
    assert {r["source"] for r in records} == {"glyphs/test"}
    assert {r["normalization"] for r in records if r["name"] == "Reptile"} == {"single", "task"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_every_trial_ends_within_three_minutes(cli, recipe):
    start = time.monotonic()
    result = cli("train", recipe, "--quick", "--quiet")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - start < 180
