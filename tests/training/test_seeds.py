"""`kshot train --seeds`: the spread over training seeds beside that over episodes."""

import json
import shutil

import pytest

from kshot.evaluation import show
from tests.conftest import SMALL

TRAIN = [*SMALL, "--set=train.steps=2", "--set=evaluation=[{episodes=20}]"]


@pytest.fixture
def finished(cli, tmp_path):
    result = cli("train", *TRAIN, "--seeds", 2, "--seed", 5, "--out", "all")
    assert result.returncode == 0, result.stderr
    return tmp_path / "all", result.stdout


def records(folder):
    return json.loads((folder / "results.json").read_text())


def test_the_spread_over_seeds(finished):
    folder, out = finished
    joined, parts = records(folder), [records(folder / f"seed-{seed}") for seed in (5, 6)]
    means = [part[0]["mean"] for part in parts]
    assert means[0] != means[1]
    assert joined[0]["training_seeds"] == [5, 6]
    assert joined[0]["mean"] == pytest.approx(sum(means) / 2)
    assert joined[0]["seed_std"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    assert joined[1]["seed_std"] is None  # pixels know no seed
    assert f"2 seeds ± {show('accuracy', joined[0]['seed_std']).removesuffix(' %')}" in out
    assert "2 seeds" in (folder / "report.html").read_text()


def test_a_stopped_folder_goes_on(finished, cli):
    folder, _ = finished
    before = records(folder)
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "seed-6")
    result = cli("train", "--resume", "all", "--quiet")
    assert result.returncode == 0, result.stderr
    assert [r["mean"] for r in records(folder)] == [r["mean"] for r in before]
    for arguments, says in (
        (["--resume", "all"], "has finished"),
        ([*TRAIN, "--seeds", 2, "--out", "all"], "already exists"),
    ):
        result = cli("train", *arguments)
        assert result.returncode == 2
        assert says in result.stderr
