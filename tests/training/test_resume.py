"""A run that is killed and resumed ends with the weights of one that was never stopped."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import kshot
from kshot.errors import CheckpointError
from kshot.testing import gaussians
from kshot.training.validation import validate
from tests.conftest import SMALL

STEPS = 60
TRAIN = [
    *SMALL,
    f"--set=train.steps={STEPS}",
    "--set=train.meta_batch=2",
    "--set=validation.every=3",
    "--set=evaluation=[]",
]


def learner():
    torch.manual_seed(0)
    return kshot.ProtoNet(kshot.nn.MLP(8, hidden=(16,), norm=True))


def train(model, checkpoint=None, **options):
    return kshot.meta_train(
        model,
        gaussians()["train"],
        checkpoint=checkpoint,
        **{"query": 5, "steps": 12, "validate_every": 3, "meta_batch": 2, "progress": False}
        | options,
    )


class CrashError(Exception):
    pass


def fail_at_call(number):
    """The real validation, but for one call."""
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise CrashError
        return validate(*arguments)

    return failing


def crash_at(step):
    def on_row(row, best):
        if row.step == step:
            raise CrashError

    return on_row


@pytest.mark.parametrize("optimizer", ["adam", "sgd", lambda p: torch.optim.RMSprop(p, lr=1e-3)])
def test_a_crashed_training_goes_on_bit_for_bit(tmp_path, optimizer):
    whole, broken, resumed = learner(), learner(), learner()
    history = train(whole, optimizer=optimizer, schedule="cosine")
    options = {"optimizer": optimizer, "schedule": "cosine", "checkpoint": tmp_path / "c"}
    with pytest.raises(CrashError):
        train(broken, on_row=crash_at(8), **options)
    again = train(resumed, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [r.step for r in again.rows] == [r.step for r in history.rows]
    assert [r.loss for r in again.rows] == [r.loss for r in history.rows]


def test_a_training_cut_off_in_a_validation_repeats_it(tmp_path, monkeypatch):
    validation = kshot.FrozenEpisodes(gaussians()["test"], kshot.EpisodeSpec(5, 1, 5), 20)
    whole, resumed = learner(), learner()
    history = train(whole, validation=validation)
    with monkeypatch.context() as patch:
        patch.setattr("kshot.training.outer_loop.validate", fail_at_call(2))
        with pytest.raises(CrashError):
            train(learner(), tmp_path / "c", validation=validation)
    again = train(resumed, tmp_path / "c", validation=validation)
    assert [(r.step, r.loss, r.lr, r.validation) for r in again.rows] == [
        (r.step, r.loss, r.lr, r.validation) for r in history.rows
    ]
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_dropout_goes_on_where_it_was(tmp_path):
    def dropping():
        torch.manual_seed(0)
        return kshot.ProtoNet(torch.nn.Sequential(kshot.nn.MLP(8), torch.nn.Dropout(0.5)))

    whole, resumed = dropping(), dropping()
    train(whole)
    with pytest.raises(CrashError):
        train(dropping(), tmp_path / "c", on_row=crash_at(8))
    train(resumed, tmp_path / "c")
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_a_finished_training_stays_finished(tmp_path):
    model = learner()
    train(model, tmp_path / "c")
    rows = []
    history = train(learner(), tmp_path / "c", on_row=lambda row, best: rows.append(row))
    assert history.steps == 12
    assert rows == []


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    """By the attributes of its modules, or by the shapes of its weights where they have none."""

    class Scale(torch.nn.Module):
        def __init__(self, *shape):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(shape))

        def forward(self, rows):
            return rows * self.weight

    train(learner(), tmp_path / "c")
    with pytest.raises(CheckpointError, match="out_features=16, but this one has"):
        train(kshot.ProtoNet(kshot.nn.MLP(8, hidden=(32,), norm=True)), tmp_path / "c")
    train(kshot.ProtoNet(Scale(8)), tmp_path / "d")
    with pytest.raises(CheckpointError, match="does not fit"):
        train(kshot.ProtoNet(Scale(1)), tmp_path / "d")


def test_weights_are_no_checkpoint(small_run):
    with pytest.raises(CheckpointError, match="no checkpoint of this kshot"):
        train(learner(), small_run / "weights.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04pickle"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not kshot's"):
        train(learner(), tmp_path / "c")


def start(folder, *arguments):
    command = [sys.executable, "-m", "kshot", "train", *arguments, "--quiet"]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err


def kill_at_random(process, run, chance):
    """After a random time in training, or in the very moment when a checkpoint is being written."""
    deadline = time.monotonic() + 120
    while not (run / "checkpoint.safetensors").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, 1.5))
    else:
        skip = chance.randrange(6)
        while process.poll() is None and skip >= 0:
            skip -= any(run.glob(".checkpoint*"))
    process.send_signal(signal.SIGKILL)
    process.communicate()


def kill_and_resume(folder, kills, seed):
    """A training that is killed again and again; returns its weights at the end."""
    chance = random.Random(seed)
    run = folder / "killed"
    kill_at_random(start(folder, *TRAIN, "--out", "killed"), run, chance)
    for _ in range(kills - 1):
        if (run / "results.json").exists():
            break
        kill_at_random(start(folder, "--resume", "killed"), run, chance)
    if not (run / "results.json").exists():
        finish(start(folder, "--resume", "killed"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == sorted({r["step"] for r in rows})
    assert rows[-1]["step"] == STEPS
    assert not list(run.glob("checkpoint*"))
    return load_file(str(run / "weights.safetensors"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, *TRAIN, "--out", "whole"))
    return load_file(str(folder / "whole" / "weights.safetensors"))


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_killed_and_resumed(undisturbed, tmp_path):
    assert_same(kill_and_resume(tmp_path, 2, seed=0), undisturbed)


def wait_until(ready, process):
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps_logged(run):
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_killed_before_the_first_checkpoint_and_in_an_evaluation(tmp_path):
    run = tmp_path / "run"
    late = [*TRAIN[:-1], "--set=train.steps=20", "--set=validation.every=20"]
    finish(start(tmp_path, *late, TRAIN[-1], "--out", "whole"))
    first = start(tmp_path, *late, "--set=evaluation=[{episodes=300}]", "--out", "run")
    wait_until((run / "run.json").exists, first)
    first.kill()
    first.communicate()
    assert not (run / "checkpoint.safetensors").exists()
    (run / ".checkpoint.safetensors.x.part").touch()
    second = start(tmp_path, "--resume", "run")
    wait_until(lambda: steps_logged(run) == 20, second)
    time.sleep(0.1)
    second.kill()
    second.communicate()
    assert not (run / "results.json").exists()
    (run / "weights.safetensors").write_bytes(b"of a step that the checkpoint does not know")
    finish(start(tmp_path, "--resume", "run"))
    whole = load_file(str(tmp_path / "whole" / "weights.safetensors"))
    assert_same(load_file(str(run / "weights.safetensors")), whole)
    assert json.loads((run / "results.json").read_text())[0]["episodes"] == 300
    assert not list(run.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_and_resumed_twenty_times(undisturbed, tmp_path, seed):
    assert_same(kill_and_resume(tmp_path, 3, seed), undisturbed)


def test_another_file_in_the_place_of_the_checkpoint_is_named(cli, small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    shutil.copy(tmp_path / "run" / "weights.safetensors", tmp_path / "run/checkpoint.safetensors")
    result = cli("train", "--resume", "run")
    assert result.returncode == 2
    assert "is no checkpoint of a training" in result.stderr


def test_resume_teaches(cli, small_run, tmp_path):
    cases = {
        "has finished": ["--resume", str(small_run)],
        "there is no run folder": ["--resume", "nowhere"],
        "leave recipe, --set": ["protonet-glyphs", "--resume", str(small_run)],
    }
    for says, arguments in cases.items():
        result = cli("train", *arguments)
        assert result.returncode == 2
        assert says in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
