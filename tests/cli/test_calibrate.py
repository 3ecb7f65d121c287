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

    (run / "calibration.json").write_text("{}")
    with pytest.raises(CheckpointError, match="measure it again"):
        kshot.FewShotClassifier(run).fit(x, y)


def test_data_without_the_splits(cli, run):
    done = cli("calibrate", "run", "--dataset", "sinusoid")
    assert done.returncode == 2
    assert "a calibration needs classes" in done.stderr
    assert not (run / "calibration.json").exists()
