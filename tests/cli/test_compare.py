"""`kshot compare`."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kshot.datasets.features import save_features
from kshot.testing import gaussians
from tests.conftest import SMALL

WAVES = ["--set=train.steps=3", "--set=validation.episodes=3", "--set=evaluation=[]", "--quiet"]


FEATURES = [
    "--set=dataset={name='features'}",
    "--set=encoder={name='mlp'}",
    "--set=train={way=5, query=5, steps=2}",
    "--set=evaluation=[]",
    "--quiet",
]


def write_features(path):
    data = gaussians()
    save_features(path, data, data.splits, "nothing")
    return path


@pytest.fixture
def other(cli, tmp_path):
    """A second run, untouched by any training that would help."""
    result = cli("train", *SMALL, "--set=seed=7", "--set=train.steps=2", "--out", "other")
    assert result.returncode == 0, result.stderr
    return tmp_path / "other"


def test_runs_and_the_baseline_on_the_same_episodes(cli, small_run, other, tmp_path):
    result = cli("compare", small_run, other, "--episodes", 200, "--json", "c.json")
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "c.json").read_text())
    first, *rest = record["results"]
    assert [r["name"] for r in record["results"]] == ["small", "other", "1-NN, raw inputs"]
    assert {r["episode_hash"] for r in rest} == {first["episode_hash"]}
    for scored, difference in zip(rest, record["differences"], strict=True):
        assert difference["reference"] == "small"
        assert difference["mean"] == pytest.approx(scored["mean"] - first["mean"])
    # Pixels beat an encoder after four steps, and the table says so.
    assert record["differences"][1]["verdict"] == "better"
    row = next(line for line in result.stdout.splitlines() if line.startswith("1-NN"))
    assert row.split()[-2:] == ["better", "inductive"]
    assert f"{100 * record['differences'][1]['mean']:+.2f} ±" in row
    assert (tmp_path / "compare.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_alone_is_compared_with_the_baseline(cli, small_run, tmp_path):
    asked = ["--episodes", 5, "--dataset", "digits", "--way", 3, "--seed", 4, "--transductive"]
    result = cli("compare", small_run, *asked, "--out", "x.png", "--json", "c.json")
    assert result.returncode == 0, result.stderr
    scored, baseline = json.loads((tmp_path / "c.json").read_text())["results"]
    assert (scored["source"], scored["task"], scored["seed"]) == ("digits/test", "3-way 1-shot", 4)
    assert scored["transductive"]
    assert not baseline["transductive"]
    assert (tmp_path / "x.png").exists()


def test_regression(cli, tmp_path):
    for recipe in ("maml-sinusoid", "cnp-sinusoid"):
        assert cli("train", recipe, *WAVES, "--out", recipe).returncode == 0
    result = cli(
        "compare",
        "maml-sinusoid",
        "cnp-sinusoid",
        "--shot",
        5,
        "--episodes",
        50,
        "--json",
        "c.json",
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "c.json").read_text())
    assert [r["name"] for r in record["results"]] == ["maml-sinusoid", "cnp-sinusoid"]
    (difference,) = record["differences"]
    assert difference["metric"] == "mse"
    if difference["verdict"] != "not told apart":
        assert (difference["verdict"] == "worse") == (difference["mean"] > 0)
    assert "squared error" in result.stdout


def test_other_settings_of_the_data_are_named(cli, tmp_path):
    for name in ("a", "b"):
        file = write_features(tmp_path / f"{name}.safetensors")
        trained = cli("train", *FEATURES, f"--set=dataset.path={file}", "--out", name)
        assert trained.returncode == 0, trained.stderr
    said = " ".join(cli("compare", "a", "b", "--episodes", 5).stdout.split())
    assert "b: trained on data with other settings than a; all are scored on features of" in said
    assert "(path=a.safetensors)" in said
    chosen = ["--set", f"path={tmp_path / 'b.safetensors'}"]
    assert "other settings" not in cli("compare", "a", "b", "--episodes", 5, *chosen).stdout


def test_settings_are_those_of_the_first_runs_data_set(cli, small_run, tmp_path):
    noise = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "photos" / f"class{number // 6}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (28, 28), np.uint8)).save(path)
    photos = "--set=dataset={name='folder', path='photos', size=28, channels=1}"
    ways = ["--set=validation.way=2", "--set=validation.query=5", "--set=train.query=5"]
    trained = cli("train", *SMALL, photos, *ways, "--set=evaluation=[]", "--out", "mine")
    assert trained.returncode == 0, trained.stderr
    asked = ["--way", 2, "--query", 5, "--episodes", 3, "--set", "seed=1"]
    result = cli("compare", "mine", small_run, *asked)
    assert result.returncode == 0, result.stderr
    assert "small: trained on data with other settings than mine" in " ".join(result.stdout.split())
    bad(cli("compare", small_run, "mine", *asked), "glyphs has no options")


def test_runs_of_one_name_go_by_their_paths(cli, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "elsewhere" / "small")
    result = cli("compare", small_run, "elsewhere/small", "--episodes", 3)
    assert result.returncode == 0, result.stderr
    assert "elsewhere/small" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "there is no run folder nowhere"),
        (["--out", "/proc/c.png"], "cannot write"),
        (["--json", "/proc/c.json"], "cannot write"),
        (["--out", "c.pdf"], "ends in .png"),
        (["--way", 5000], "needs 5000 classes"),
    ],
)
def test_bad_comparisons(cli, small_run, tmp_path, arguments, says):
    bad(cli("compare", small_run, *arguments, "--episodes", 3), says)
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_take_the_data_is_named(cli, small_run):
    assert cli("train", "cnp-sinusoid", *WAVES, "--out", "waves").returncode == 0
    says = "waves cannot be scored on 5-way 1-shot tasks of glyphs/test: CNP is for regression"
    bad(cli("compare", small_run, "waves"), says)
    bad(cli("compare", small_run, small_run), "named twice")


def bad(result, says):
    assert result.returncode == 2, result.stdout
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
