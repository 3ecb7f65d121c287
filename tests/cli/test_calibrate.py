"""`kshot calibrate`: measured on meta-validation, tested on meta-test, used by `kshot fit`."""

import json
import shutil

import numpy as np
import pytest

import kshot
from kshot.errors import CheckpointError


@pytest.fixture
def run(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


def test_the_road(cli, run, tmp_path):
    done = cli("calibrate", "run", "--episodes", 30, "--json", "c.json", "--out", "c.png")
    assert done.returncode == 0, done.stderr
    assert "Expected calibration error" in done.stdout
    record = json.loads((tmp_path / "c.json").read_text())
    assert (record["measured_on"], record["tested_on"]) == ("glyphs/val", "glyphs/test")
    assert 0 <= record["error_after"] <= 1
    found = [row["false_accepts"] for row in record["strangers"]]
    assert found == sorted(found)
    assert (tmp_path / "c.png").stat().st_size > 5000

    x = np.asarray(kshot.load("digits")["test"].x[::60, 0])
    y = np.asarray(kshot.load("digits")["test"].labels()[::60])
    model = kshot.FewShotClassifier(run, false_accepts=0.1).fit(x, y)
    assert model.confidence_.basis == "episodes of glyphs/val"
    assert model.confidence_.threshold is not None

    stale = json.loads((run / "calibration.json").read_text())
    (run / "calibration.json").write_text(json.dumps(stale | {"meta_steps": 10_000}))
    with pytest.raises(CheckpointError, match="with the weights of step 10000"):
        kshot.FewShotClassifier(run).fit(x, y)
    (run / "calibration.json").write_text("{}")
    with pytest.raises(CheckpointError, match="measure it again"):
        kshot.FewShotClassifier(run).fit(x, y)


def test_data_without_the_splits(cli, run):
    done = cli("calibrate", "run", "--dataset", "sinusoid")
    assert done.returncode == 2
    assert "a calibration needs classes" in done.stderr
    assert not (run / "calibration.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--way", 500), "way=750 needs 750 classes"),
        (("--episodes", 0), "equal to 1"),
        (("--way", 1), "equal to 2"),
    ],
)
def test_options_are_checked_before_the_measurement(cli, run, options, says):
    done = cli("calibrate", "run", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (run / "calibration.json").exists()


TINY = """
[dataset]
name = "glyphs"

[encoder]
name = "conv4"
channels = 4

[train]
way = 3
query = 2
meta_batch = 1
steps = 1

[validation]
way = 3
episodes = 2
"""


def test_classes_that_were_trained_on_say_nothing(cli, tmp_path):
    learner = '[learner]\nname = "protonet"\n'
    (tmp_path / "r.toml").write_text(
        TINY.replace("steps = 1", 'steps = 1\nsplit = "train+val"') + learner
    )
    assert cli("train", "r.toml", "--out", "r").returncode == 0
    done = cli("calibrate", "r")
    assert done.returncode == 2
    assert "was trained on classes of 'val'" in done.stderr


def test_a_learner_of_a_fixed_way_is_asked_no_wider_tasks(cli, tmp_path):
    learner = '[learner]\nname = "maml"\ninner_lr = 0.1\ninner_steps = 1\n'
    (tmp_path / "r.toml").write_text(TINY + learner)
    assert cli("train", "r.toml", "--out", "r").returncode == 0
    done = cli("calibrate", "r", "--way", 3, "--shot", 1, "--episodes", 5)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "calibration.json").read_text())["ways"] == [2]
    assert "built for 3 classes at most" in cli("calibrate", "r", "--way", 5).stderr
