"""The run folder: whole files, and loading only what is ours."""

import json
import shutil

import pytest
import torch

import kshot
from kshot.errors import CheckpointError
from kshot.training.run import RunFolder, read_results
from tests.conftest import SMALL


@pytest.fixture
def run(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "run")


def edit(run, **changes):
    path = run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_run_folder_holds_everything(run):
    names = {p.name for p in run.iterdir()} - {"tensorboard"}
    assert names == {
        "metrics.jsonl",
        "report.html",
        "results.json",
        "run.json",
        "scores.safetensors",
        "weights.safetensors",
    }
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    assert [r["step"] for r in rows if r["validation"] is not None] == [2, 4]
    records = json.loads((run / "results.json").read_text())
    assert [r["name"] for r in records] == [
        "ProtoNet",
        "1-NN, raw inputs",
        "untrained encoder",
    ]
    assert len({r["episode_hash"] for r in records}) == 1
    page = (run / "report.html").read_text()
    assert page.count("<img") >= 5
    for score in ("ProtoNet", "1-NN, raw inputs", "untrained encoder"):
        assert score in page
    assert json.loads((run / "run.json").read_text())["config"]["train"]["steps"] == 4


def test_a_loaded_run_answers_as_recorded(run):
    loaded = kshot.load_run(run)
    assert loaded.meta_steps in (2, 4)
    result = kshot.evaluate(loaded.learner, kshot.load("glyphs")["test"], episodes=4)
    recorded = json.loads((run / "results.json").read_text())[0]
    assert result.mean == pytest.approx(recorded["mean"])
    assert result.episode_hash == recorded["episode_hash"]


def test_a_run_is_written_by_one_process_at_a_time(run):
    (run / "results.json").unlink()
    second = RunFolder.reopen(run)
    with RunFolder.reopen(run), pytest.raises(CheckpointError, match="another process is at"):
        second.__enter__()
    with RunFolder.reopen(run):
        pass


def test_damaged_results_do_not_ask_for_another_training(run):
    (run / "results.json").write_text("[{}]")
    with pytest.raises(CheckpointError, match="but not its weights: `kshot evaluate"):
        read_results(run)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_training_that_cannot_begin_leaves_nothing(cli, tmp_path, seeds):
    result = cli("train", *SMALL, "--set=train.schedule=cosin", "--out=a/b/c", "--seeds", seeds)
    assert result.returncode == 2
    assert "did you mean 'cosine'" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: shutil.rmtree(run), "there is no run folder"),
        (lambda run: (run / "run.json").unlink(), "not a kshot run"),
        (lambda run: (run / "run.json").write_text("{"), "not a kshot run"),
        (lambda run: (run / "run.json").write_text('["foreign"]'), "not a kshot run"),
        (lambda run: edit(run, format=99, kshot="9.0"), "upgrade kshot"),
        (lambda run: (run / "weights.safetensors").write_bytes(b"not weights"), "damaged"),
        (lambda run: (run / "weights.safetensors").unlink(), "no weights yet.*--resume"),
        (lambda run: edit(run, format=1, kshot="0.0"), "train it again"),
        (lambda run: edit(run, task_shape={"x_shape": [1, 28, 28]}), "damaged"),
    ],
)
def test_folders_that_cannot_be_loaded(run, harm, says):
    harm(run)
    with pytest.raises(CheckpointError, match=says):
        kshot.load_run(run)


def test_pickles_are_never_read(run):
    torch.save({"weights": torch.zeros(1)}, run / "weights.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        kshot.load_run(run)
