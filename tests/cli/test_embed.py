"""`kshot embed`, and learning from stored features."""

import json

import pytest
from safetensors import safe_open
from torch import nn

import kshot
from kshot.datasets.features import save_features
from kshot.testing import gaussians
from tests.conftest import SMALL


@pytest.fixture
def digits(cli, small_run, tmp_path):
    result = cli("embed", small_run, "--dataset", "digits", "--out", "f.safetensors")
    assert result.returncode == 0, result.stderr
    return tmp_path / "f.safetensors", result.stdout


def test_features_score_exactly_as_the_images(small_run, digits):
    file, out = digits
    images, features = kshot.load("digits"), kshot.load("features", path=str(file))
    assert "digits/test: 1,797 examples of 8 features" in " ".join(out.split())
    episodes = {"way": 10, "shot": 5, "episodes": 300}
    by_image = kshot.evaluate(kshot.load_run(small_run).learner, images["test"], **episodes)
    by_feature = kshot.evaluate(kshot.ProtoNet(nn.Identity()), features["test"], **episodes)
    assert by_feature.episode_hash == by_image.episode_hash
    assert by_feature.values.tolist() == by_image.values.tolist()


def test_the_file_tells_its_origin(digits):
    with safe_open(str(digits[0]), framework="pt") as file:
        facts = json.loads(file.metadata()["features"])
    assert facts["dataset"] == "digits"
    assert facts["licence"] == "CC BY 4.0 (UCI)"
    assert facts["splits"]["test"]["fingerprint"] == kshot.load("digits")["test"].fingerprint
    for part in ("conv4", '"channels": 8', "ProtoNet, protonet-glyphs, seed 0", "meta-steps"):
        assert part in facts["encoder"]


def test_runs_of_several_seeds_are_embedded_one_by_one(cli):
    assert cli("train", *SMALL, "--seeds", 2, "--set=evaluation=[]", "--out", "all").returncode == 0
    result = cli("embed", "all", "--out", "f")
    assert result.returncode == 2
    assert "embed by one, such as all/seed-0" in result.stderr


def test_all_splits_or_one(cli, small_run, tmp_path):
    assert cli("embed", small_run, "--split", "test", "--out", "one").returncode == 0
    assert list(kshot.load("features", path=str(tmp_path / "one")).splits) == ["test"]
    assert cli("embed", small_run, "--out", "all").returncode == 0
    features, glyphs = kshot.load("features", path=str(tmp_path / "all")), kshot.load("glyphs")
    assert {n: s.sizes for n, s in features.splits.items()} == {
        n: s.sizes for n, s in glyphs.splits.items()
    }


HEADS = {
    "protonet": ["--set=learner.distance=cosine"],
    "maml": [],
    "reptile": ["--set=learner.test_steps=3"],
    "meta_lstm": [],
    "snail": ["--set=learner.filters=8"],
    "tim": ["--set=encoder={name='mlp'}", "--set=learner.steps=5"],
    "nearest_neighbour": ["--set=encoder={name='mlp'}"],
}


@pytest.mark.parametrize("learner", HEADS)
def test_every_head_learns_from_stored_features(cli, tmp_path, learner):
    data = gaussians()
    embedded = {n: s.with_x(s.x[:, :6]) for n, s in data.splits.items()}
    save_features(tmp_path / "f", data, embedded, "its first six numbers")
    result = cli(
        "train",
        "--set=dataset={name='features', path='f'}",
        "--set=encoder={name='none'}",
        f"--set=learner={learner}",
        *HEADS[learner],
        "--set=train.steps=3",
        "--set=train.way=5",
        "--set=train.query=5",
        "--set=evaluation=[{episodes=20}]",
        "--quiet",
        "--out",
        "run",
    )
    assert result.returncode == 0, result.stderr
    assert "features of gaussians/test (path=f), 5-way 1-shot" in result.stdout
    assert cli("evaluate", "run", "--episodes", 5).returncode == 0


def test_a_head_without_weights_says_that_there_is_nothing_to_train(cli, tmp_path):
    data = gaussians()
    save_features(tmp_path / "f", data, {n: s.with_x(s.x) for n, s in data.splits.items()}, "none")
    dataset = "--set=dataset={name='features', path='f'}"
    head = ["--set=encoder={name='none'}", "--set=train.way=5", "--set=evaluation=[]"]
    result = cli("train", dataset, *head)
    assert result.returncode == 2
    assert "nothing to train" in result.stderr


@pytest.mark.parametrize(
    ("learner", "arguments", "says"),
    [
        ("protonet", ["--split", "tset"], "did you mean 'test'"),
        ("protonet", ["--dataset", "sinusoid"], "data set with classes"),
        ("protonet", ["--dataset", "digits", "--set", "flat=true"], "cannot embed digits/test"),
        ("protonet", ["--out", "/proc/f"], "cannot write"),
        ("maml", [], "has no encoder of its own"),
        ("task", [], "statistics of a whole task"),
    ],
)
def test_what_cannot_be_embedded(cli, small_run, tmp_path, learner, arguments, says):
    run = small_run
    if learner != "protonet":
        option = "normalization=task" if learner == "task" else "name=maml"
        assert cli("train", *SMALL, f"--set=learner.{option}", "--out", "run").returncode == 0
        run = "run"
    result = cli("embed", run, "--out", "f", *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] in ([], ["run"])
