"""N processes give the answer of one."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kshot.engine.processes import ALONE, Worker, local_workers
from kshot.errors import WorkerError
from tests.conftest import SMALL

TRAIN = [
    *SMALL,
    "--set=train.meta_batch=3",
    "--set=train.way=[2, 5]",
    "--set=train.optimizer=sgd",
    "--set=evaluation=[]",
]
EVALUATE = "--set=evaluation=[{episodes=5}]"
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


def weights(folder):
    return load_file(str(folder / "weights.safetensors"))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    command = [sys.executable, "-m", "kshot", "train", *TRAIN, EVALUATE, "--out", "run"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "run"


def assert_close(run, by_one):
    one, many = weights(by_one), weights(run)
    assert one.keys() == many.keys()
    for name in one:
        assert torch.allclose(one[name], many[name], rtol=1e-5, atol=1e-5), name
    for a, b in zip(rows(by_one), rows(run), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["validation"] == b["validation"]


def test_two_workers_give_the_answer_of_one(program, tmp_path, by_one):
    """Uneven tasks in uneven shares; running statistics, validation and evaluation included."""
    result = program("train", *TRAIN, EVALUATE, "--workers", 2, "--out", "run")
    assert result.returncode == 0, result.stderr
    assert_close(tmp_path / "run", by_one)
    one, many = (json.loads((f / "results.json").read_text()) for f in (by_one, tmp_path / "run"))
    assert [r["name"] for r in one] == [r["name"] for r in many]
    for a, b in zip(one, many, strict=True):
        assert a["mean"] == pytest.approx(b["mean"], abs=1e-3)
        assert (a["episodes"], a["episode_hash"]) == (b["episodes"], b["episode_hash"])


def test_torchrun_works_the_same(tmp_path, by_one):
    """From several seeds, for which the processes meet once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "kshot", "train", *TRAIN, "--seeds", "2", "--out", "all"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert_close(tmp_path / "all" / "seed-0", by_one)
    assert rows(tmp_path / "all" / "seed-1")[-1]["step"] == 4


def worker_of(process):
    """The process that `process` has started as its worker."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := children.read_text().split():
            return int(found[-1])
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def begin(folder, *arguments):
    command = [sys.executable, "-m", "kshot", "train", *TRAIN, *arguments, "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--out", "run"], cwd=folder, text=True, **pipes)


@needs_proc
def test_a_worker_that_dies_ends_the_job_with_a_checkpoint(tmp_path, by_one):
    """It is named, nothing hangs, and another number of workers goes on."""
    process = begin(tmp_path, "--set=train.steps=100", "--set=train.lr=1e-3")
    run = tmp_path / "run"
    while not (run / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(worker_of(process), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "worker 1 was killed by signal 9" in err
    assert "--resume" in err
    assert len(err.strip().splitlines()) == 1
    command = [sys.executable, "-m", "kshot", "train", "--resume", "run", "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert rows(run)[-1]["step"] == 100


def under_way(folder):
    """A long training by two processes that has begun, and its run folder."""
    process = begin(folder, "--set=train.steps=9000", "--set=validation.every=9000")
    run = folder / "run"
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process, run


@needs_proc
def test_a_worker_that_hangs_does_not_keep_a_signal_away(tmp_path):
    """Without an answer the step is given up, and the checkpoint holds the one before."""
    process, run = under_way(tmp_path)
    os.kill(worker_of(process), signal.SIGSTOP)
    assert not (run / "checkpoint.safetensors").exists()
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "kshot train --resume run --workers 2" in out
    assert (run / "checkpoint.safetensors").exists()


@needs_proc
def test_a_signal_that_ends_a_worker_first_is_an_interrupt_all_the_same(tmp_path):
    process, run = under_way(tmp_path)
    process.send_signal(signal.SIGSTOP)
    os.kill(worker_of(process), signal.SIGKILL)
    process.terminate()
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert (run / "checkpoint.safetensors").exists()


@needs_proc
def test_a_signal_while_workers_start_leaves_no_process(tmp_path):
    process = begin(tmp_path)
    worker = worker_of(process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not Path(f"/proc/{worker}").exists()
    assert not (tmp_path / "run").exists()


def test_a_worker_ends_with_its_last_words(tmp_path):
    code = "print('how it went', input()); raise SystemExit('error: no memory')"
    log = tmp_path / "log"
    with log.open("wb") as file:
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=file)
    worker = Worker(1, process, log)
    assert worker.end() is None
    process.communicate(b"\n")
    assert worker.end() == "worker 1 ended with code 1 (error: no memory)"


def test_an_error_of_the_first_process_alone_ends_the_job(program, tmp_path):
    """Here a full disk: files may not grow beyond 4 KB, which stops the first checkpoint."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = program("train", *TRAIN, "--workers", 2, "--out", "run", preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert "cannot write" in result.stderr


def test_a_worker_that_cannot_begin_is_reported_with_its_words():
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    with pytest.raises(WorkerError, match=r"not begin: worker 1 ended.*no such luck"):
        local_workers(2, command).__enter__()


def test_a_worker_that_dies_while_another_is_awaited_is_noticed():
    """The one has come, the other never does."""
    code = """
import os, time
from kshot.engine import processes
if os.environ["RANK"] == "2":
    time.sleep(60)
def die():
    os.kill(os.getpid(), 9)
processes._meet("file://" + os.environ[processes.RENDEZVOUS], 1, 3, die)
"""
    start = time.monotonic()
    with pytest.raises(WorkerError, match="not begin: worker 1 was killed by signal 9"):
        local_workers(3, [sys.executable, "-c", code]).__enter__()
    assert time.monotonic() - start < 30


def test_alone():
    values = [torch.ones(2)]
    ALONE.sum(values)
    assert values[0].tolist() == [1, 1]
    assert ALONE.share(range(5)) == range(5)


BAD = {
    "a batch too small": (["--set=train.meta_batch=1", "--workers", 2], "cannot be shared"),
    "no workers": (["--workers", 0], "--workers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sharing(program, tmp_path, case):
    arguments, says = BAD[case]
    result = program("train", *SMALL, *arguments, "--out", "run")
    assert result.returncode == 2
    assert says in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("around", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "two", "RANK": "0"}])
def test_a_broken_environment_is_one_line(program, around):
    result = program("train", *TRAIN, "--out", "run", env=os.environ | around)
    assert result.returncode == 2, result.stderr
    assert "is no number" in result.stderr


def test_a_port_in_use_is_one_line(program):
    """As with several machines, where the meeting point is set by hand."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        around = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        result = program("train", *TRAIN, "--out", "run", env=os.environ | around)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "set MASTER_PORT to a free port" in result.stderr.splitlines()[-1]
