"""`kshot evaluate`: protocols, options of data sets, records, training seeds."""

import json
import shutil

import pytest

from tests.conftest import SMALL

WAVES = ["--set=train.steps=3", "--set=validation.episodes=3", "--set=evaluation=[]", "--quiet"]


def test_the_whole_record(cli, small_run, tmp_path):
    result = cli("evaluate", small_run, "--episodes", 5, "--shot", 2, "--json", "r.json")
    assert result.returncode == 0, result.stderr
    learner, baseline = json.loads((tmp_path / "r.json").read_text())
    assert learner["name"] == "ProtoNet"
    assert learner["spec"] == {"way": 5, "shot": 2, "query": 15, "imbalanced": False}
    assert (learner["training_seeds"], learner["seed_std"]) == ([0], None)
    assert learner["meta_steps"] in (2, 4)
    assert (learner["normalization"], learner["transductive"]) == ("joint", False)
    assert (baseline["training_seeds"], baseline["meta_steps"]) == ([], 0)
    assert baseline["episode_hash"] == learner["episode_hash"]
    said = " ".join(result.stdout.split())
    assert f"5 episodes, 15 queries per class, seed 0, hash {learner['episode_hash']}" in said
    steps = f"{learner['meta_steps']} meta-steps, training seed 0"
    assert f"ProtoNet: inductive, normalisation joint, {steps}" in said
    assert "kshot 0." in said


def test_what_is_not_asked_is_as_in_the_recipe(cli, tmp_path):
    own = "--set=evaluation=[{way=3, shot=[1, 2], query=4, imbalanced=true, episodes=4}]"
    assert cli("train", *SMALL, own, "--out", "run").returncode == 0
    for asked, spec in (
        ([], {"way": 3, "shot": [1, 2], "query": 4, "imbalanced": True}),
        (["--shot", 2], {"way": 3, "shot": 2, "query": 4, "imbalanced": False}),
    ):
        # The folder of the record is made.
        scored = cli("evaluate", "run", "--episodes", 3, *asked, "--json", "new/r.json")
        assert scored.returncode == 0, scored.stderr
        assert not scored.stdout.startswith("\n")
        assert json.loads((tmp_path / "new" / "r.json").read_text())[0]["spec"] == spec


def test_a_run_that_has_not_finished_is_named(cli, tmp_path):
    broken = ["--set=train.lr=1e30", "--set=train.optimizer=sgd", "--out", "my run"]
    assert cli("train", *SMALL, *broken).returncode == 2
    said = " ".join(cli("evaluate", "my run", "--episodes", 3).stdout.split())
    assert "my run was stopped or has diverged" in said
    assert "kshot train --resume 'my run' goes on" in said


def test_the_protocol_is_stated_anew(cli, small_run, tmp_path):
    kinds = {}
    for protocol in ([], ["--transductive"], ["--inductive"]):
        result = cli("evaluate", small_run, "--episodes", 5, *protocol, "--json", "r.json")
        assert result.returncode == 0, result.stderr
        learner, baseline = json.loads((tmp_path / "r.json").read_text())
        kinds[tuple(protocol)] = (learner["transductive"], learner["normalization"])
        assert not baseline["transductive"]
    assert kinds == {
        (): (False, "joint"),
        ("--transductive",): (True, "task"),
        ("--inductive",): (False, "joint"),
    }


def test_maml_becomes_inductive(cli, tmp_path):
    trained = cli("train", *SMALL, "--set=learner.name=maml", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    for protocol, policy in (("--transductive", "task"), ("--inductive", "support")):
        result = cli("evaluate", "run", "--episodes", 5, protocol, "--json", "r.json")
        learner = json.loads((tmp_path / "r.json").read_text())[0]
        assert learner["normalization"] == policy
        assert f"MAML, 1 step: {protocol[2:]}, normalisation {policy}" in result.stdout


def test_inner_steps_may_be_asked_for(cli, small_run, tmp_path):
    assert cli("train", "maml-sinusoid", *WAVES, "--out", "run").returncode == 0
    found = {}
    for asked in ([], ["--test-steps", 5]):
        result = cli("evaluate", "run", "--episodes", 5, *asked, "--json", "r.json")
        assert result.returncode == 0, result.stderr
        (record,) = json.loads((tmp_path / "r.json").read_text())
        assert record["normalization"] == "none"
        found[record["name"]] = record["mean"]
    assert set(found) == {"MAML, 1 step", "MAML, 5 steps"}
    assert len(set(found.values())) == 2
    refused = cli("evaluate", small_run, "--test-steps", 5)
    assert refused.returncode == 2
    assert "ProtoNet takes no inner steps" in refused.stderr


def test_weights_of_another_run_are_named(cli, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    other = ["--set=encoder.channels=4", "--set=evaluation=[]", "--out", "other"]
    assert cli("train", *SMALL, *other).returncode == 0
    shutil.copy(tmp_path / "other" / "weights.safetensors", tmp_path / "run")
    result = cli("evaluate", "run")
    assert result.returncode == 2
    assert "does not fit its own recipe: encoder.layers.0.0.bias is (4,) and not (8,)" in (
        result.stderr
    )


def test_a_protocol_that_cannot_be(cli):
    assert cli("train", "maml-sinusoid", *WAVES, "--out", "run").returncode == 0
    result = cli("evaluate", "run", "--transductive")
    assert result.returncode == 2
    assert "run cannot be scored" in result.stderr
    assert "no batch normalisation" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_options_of_the_data_set(cli, small_run):
    """The run cannot take flat digits, which shows that the option has arrived."""
    result = cli("evaluate", small_run, "--dataset", "digits", "--set", "flat=true")
    assert result.returncode == 2
    assert "small cannot be scored on 5-way 1-shot tasks of digits/test" in result.stderr
    assert "an example is (64,)" in result.stderr
    result = cli("evaluate", small_run, "--dataset", "digits", "--set", "flatt=true")
    assert "did you mean 'flat'" in result.stderr
    assert "key=value" in cli("evaluate", small_run, "--set", "flat").stderr


@pytest.mark.parametrize(
    ("arguments", "replayed"),
    [
        (["--split", "val", "--query", 5], True),
        (["--split", "val", "--query", 5, "--dataset", "glyphs"], True),
        (["--split", "val", "--query", 6], False),
        (["--split", "val", "--query", 5, "--seed", 1], False),
        (["--query", 5], False),
    ],
)
def test_episodes_that_chose_the_weights_are_named(cli, small_run, arguments, replayed):
    result = cli("evaluate", small_run, "--episodes", 10, *arguments)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert ("weights were chosen by 4 of these episodes" in said) == replayed


def test_training_seeds_are_one_row(cli, tmp_path):
    seeds = ["--seeds", 2, "--seed", 3]
    assert cli("train", "maml-sinusoid", *WAVES, *seeds, "--out", "all").returncode == 0

    def record(folder):
        result = cli("evaluate", folder, "--shot", 5, "--episodes", 20, "--json", "r.json")
        assert result.returncode == 0, result.stderr
        return json.loads((tmp_path / "r.json").read_text())[0], result.stdout

    joined, out = record("all")
    parts = [record(f"all/seed-{seed}")[0]["mean"] for seed in (3, 4)]
    assert joined["training_seeds"] == [3, 4]
    assert joined["mean"] == pytest.approx(sum(parts) / 2)
    assert joined["seed_std"] == pytest.approx(abs(parts[0] - parts[1]) / 2**0.5)
    assert f"2 seeds ± {joined['seed_std']:.3f}" in out
    assert "training seeds 3, 4" in out


def test_several_sources(cli):
    """A run on a mixture is scored on it, or on one of its data sets."""
    mixed = ["--set", "dataset=['glyphs', 'glyphs']", *SMALL[1:]]
    trained = cli("train", *mixed, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    assert "glyphs+glyphs/test" in cli("evaluate", "run", "--episodes", 4).stdout
    assert "glyphs/test, 5-way" in cli("evaluate", "run", "--dataset=glyphs", "--episodes=4").stdout
