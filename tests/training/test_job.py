"""What `kshot train` says of a run, and what it leaves of one that hardly began."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager

import torch

from kshot import interrupt
from kshot.engine.processes import local_workers
from kshot.training.config import read_recipe
from kshot.training.job import run
from tests.conftest import SMALL

SETTINGS = [word.removeprefix("--set=") for word in SMALL if word.startswith("--set=")]


def go(folder, *settings, **options):
    said = []
    config = read_recipe("protonet-glyphs", [*SETTINGS, *settings])
    cpu = torch.device("cpu")
    outcome = run(config, folder, device=cpu, progress=False, tell=said.append, **options)
    return outcome, said


def test_a_score_on_classes_of_the_training_is_named(tmp_path):
    targets = "evaluation=[{split='val', episodes=2}, {split='test', episodes=2}]"
    _, said = go(tmp_path / "run", "train.split=train+val", "train.steps=1", targets)
    (warning,) = [line for line in said if line.startswith("warning")]
    assert "269 classes of glyphs/val" in warning


HANGS = "import time; from kshot.engine.processes import join_processes as join; join()"


def test_a_first_step_that_is_given_up_leaves_what_can_be_resumed(tmp_path, monkeypatch):
    """The other process never answers."""
    monkeypatch.setattr(interrupt, "GRACE", 0.0)

    @contextmanager
    def processes(folder):
        before = signal.getsignal(signal.SIGINT)

        def ask():
            while signal.getsignal(signal.SIGINT) == before:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        with local_workers(2, [sys.executable, "-c", f"{HANGS}; time.sleep(60)"]) as group:
            threading.Thread(target=ask, daemon=True).start()
            yield group

    settings = ["train.meta_batch=2", "evaluation=[]"]
    outcome, said = go(tmp_path / "run", *settings, processes=processes)
    assert (outcome.history.steps, outcome.history.stopped) == (0, "interrupted")
    assert said == ["stopped before the first step"]
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    again, _ = go(tmp_path / "run", *settings, resume=True)
    assert again.history.steps == 4
