"""Every recipe runs by one command: here a few steps and episodes of each on its real data."""

import json
import os

import pytest

from kshot.training.config import read_recipe, recipe_names

EMBEDDED = {"glyphs", "sinusoid"}


def short(recipe):
    """Settings that leave everything of the recipe but its length."""
    config = read_recipe(recipe)
    rows = [
        {**e.model_dump(mode="json", exclude_defaults=True), "episodes": 4}
        for e in config.evaluation
    ]
    text = ", ".join(
        "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in row.items()) + "}" for row in rows
    )
    steps = ["train.steps=2", "validation.episodes=4", "validation.every=1"]
    return [f"--set={s}" for s in [*steps, f"evaluation=[{text}]"]], len(rows)


@pytest.mark.filterwarnings("ignore:.*in two splits")  # CIFAR-100 has a few, as published
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(
            name,
            marks=[] if read_recipe(name).datasets[0].name in EMBEDDED else [pytest.mark.data],
        )
        for name in recipe_names()
    ],
)
def test_a_recipe_runs(cli, tmp_path, recipe):
    if read_recipe(recipe).datasets[0].name not in EMBEDDED and "KSHOT_DATA" not in os.environ:
        pytest.skip("KSHOT_DATA does not name a folder with the real data sets")
    settings, count = short(recipe)
    result = cli("train", recipe, *settings, "--quiet", "--out", "run")
    assert result.returncode == 0, result.stderr
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len({(r["episode_hash"], r["transductive"]) for r in records}) >= count
    assert all(r["episodes"] == 4 for r in records)
