"""Every recipe runs by one command: here a few steps and episodes of each on its real data."""

import json
import os
import re
from importlib.resources import files

import pytest

from kshot.training.config import read_recipe, recipe_names

EMBEDDED = {"glyphs", "sinusoid"}


SHORT = ["--set=train.steps=2", "--set=validation.episodes=4", "--set=validation.every=1"]


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
    if read_recipe(recipe).datasets[0].name not in EMBEDDED and "KSHOT_DATA" not in os.environ:
        pytest.skip("KSHOT_DATA does not name a folder with the real data sets")
    (tmp_path / "recipe.toml").write_text(with_few_episodes(recipe))
    result = cli("train", "recipe.toml", *SHORT, "--quiet", "--out", "run")
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    kinds = {(r["source"], r["task"], r["spec"]["query"], r["transductive"]) for r in records}
    assert len(kinds) >= len(read_recipe(recipe).evaluation)
    assert all(r["episodes"] == 4 for r in records)
