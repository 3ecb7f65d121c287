"""Processes that share a meta-batch: each takes its tasks by number, one sum joins the gradients.

Under `torchrun` the processes are already there (`from_environment`); `local_workers` starts some
on this machine. Either way N processes give the answer of one, up to the order of summation, where
the learner has no randomness such as dropout.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from kshot.errors import ConfigError, WorkerError
from kshot.interrupt import signals_later

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""For a process that neither answers nor ends: the others also wait while the first evaluates."""

MEETING = timedelta(minutes=10)
"""For all processes to come together."""

TURN = timedelta(milliseconds=200)
"""Of waiting for another process: between two turns Python sees signals."""

CLOSING = timedelta(seconds=5)
"""For an exchange to notice that its processes have ended; torn down before, it may abort."""

RENDEZVOUS = "KSHOT_RENDEZVOUS"
"""Environment variable by which a worker that kshot has started finds the others."""


@dataclass(frozen=True)
class Worker:
    """A process that this one has started, and the file that it talks to."""

    rank: int
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> str | None:
        """How it has ended, with its last words; None while it runs."""
        if (code := self.process.poll()) is None:
            return None
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        lines = self.log.read_text(errors="replace").splitlines()
        last = next((f" ({line.strip()})" for line in reversed(lines) if line.strip()), "")
        return f"worker {self.rank} {how}{last}"


@dataclass(frozen=True)
class Processes:
    """The processes of a job, as one of them sees it.

    Attributes:
        rank: its number, from 0; the first one writes files and talks.
        size: how many there are.
        started: the others, where this one has started them.
        abandoned: exchanges that were not waited for to their end.
    """

    rank: int = 0
    size: int = 1
    started: Sequence[Worker] = field(default=(), repr=False)
    abandoned: list[dist.Work] = field(default_factory=list, repr=False)

    def share(self, index: Sequence[T]) -> Sequence[T]:
        """This process's part of a sequence that all of them know."""
        return index[self.rank :: self.size]

    def sum(self, tensors: Sequence[Tensor], meanwhile: Callable[[], None] = lambda: None) -> None:
        """Replace each tensor by its sum over the processes, in one exchange.

        Args:
            tensors: of the same shapes in all processes.
            meanwhile: called now and then while the others are awaited; what it raises ends the
                waiting.

        Raises:
            WorkerError: if another process has ended.
        """
        if self.size == 1:
            return
        flat = torch.cat([t.detach().flatten().cpu().double() for t in tensors])
        try:
            work = dist.all_reduce(flat, async_op=True)
            self.abandoned.append(work)
            while not _completed(work):
                meanwhile()
            self.abandoned.remove(work)
        except RuntimeError as error:
            raise WorkerError(
                f"{_who_ended(self.started) or 'another process has ended'}; go on from the last "
                "checkpoint by `kshot train --resume RUN`, where RUN is the folder of the run, "
                "with as many --workers as you like."
            ) from error
        parts = flat.split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))


def _completed(work: dist.Work) -> bool:
    """Wait a turn; RuntimeError if the exchange has failed."""
    try:
        work.wait(TURN)
    except RuntimeError:
        if not work.is_completed():
            return False
        work.wait()  # fails again, unless it has just completed
    return True


ALONE = Processes()


def from_environment() -> bool:
    """Whether this process was started as one of several, by `torchrun` or by `local_workers`."""
    return "WORLD_SIZE" in os.environ and _number("WORLD_SIZE") > 1


def own_rank() -> int:
    """This process's number among those of the environment; 0 where it is alone."""
    return _number("RANK") if from_environment() else 0


def _number(variable: str) -> int:
    try:
        return int(os.environ[variable])
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{variable}={os.environ.get(variable)!r} is no number, but WORLD_SIZE says that there "
            "are several processes: start them by torchrun, or unset WORLD_SIZE."
        ) from error


@cache
def join_processes() -> Processes:
    """Meet the other processes that the environment tells of, once and until this one ends.

    Raises:
        ConfigError: if they cannot be met, for example because the port is in use.
    """
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    file = os.environ.get(RENDEZVOUS)
    if file is not None:
        torch.set_num_threads(1)
    try:
        _meet(f"file://{file}" if file else "env://", rank, size)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {rank} of {size} cannot meet the others at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} "
            f"({str(error).splitlines()[0]}): set MASTER_PORT to a free port."
        ) from error
    return Processes(rank, size)


def _meet(where: str, rank: int, size: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Connect the processes when all are there: connecting hears neither signals nor deaths."""
    store, _, _ = next(rendezvous(where, rank, size, timeout=MEETING))
    store.set(f"here/{rank}", "")
    deadline = time.monotonic() + MEETING.total_seconds()
    while not store.check([f"here/{r}" for r in range(size)]):
        meanwhile()
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all of them came within {MEETING}")
        time.sleep(0.05)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)


@contextmanager
def local_workers(count: int, command: Sequence[str]) -> Iterator[Processes]:
    """Start `count - 1` further processes of this command and join them, a thread each.

    Raises:
        WorkerError: if one ends before it has joined, with its last words.
    """
    if count == 1:
        yield ALONE
        return
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="kshot-") as folder:
        file = Path(folder, "rendezvous")
        shared = os.environ | {
            RENDEZVOUS: str(file),
            "WORLD_SIZE": str(count),
            "OMP_NUM_THREADS": "1",
            "PYTHONSAFEPATH": "1",  # `-m` would put the current folder before the packages
        }
        started: list[Worker] = []
        joined = Processes(0, count, started)
        try:
            for rank in range(1, count):
                log = Path(folder, f"{rank}.log")
                with log.open("wb") as file_of_log, signals_later():
                    process = subprocess.Popen(
                        command,
                        env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=subprocess.DEVNULL,
                        stdout=file_of_log,
                        stderr=file_of_log,
                    )
                    started.append(Worker(rank, process, log))  # else nobody would end it
            torch.set_num_threads(1)
            try:
                _meet(f"file://{file}", 0, count, lambda: _check_all_run(started))
            except RuntimeError as error:
                why = _who_ended(started) or str(error).splitlines()[0]
                raise WorkerError(f"the training could not begin: {why}.") from error
            yield joined
        finally:
            for worker in started:
                worker.process.kill()  # it owns no file, and may be stuck in an exchange
            for worker in started:
                worker.process.wait()
            for work in joined.abandoned:  # fails, now that the others are gone
                with suppress(RuntimeError):
                    work.wait(CLOSING)
            if dist.is_initialized():
                dist.destroy_process_group()
            torch.set_num_threads(threads)


def _check_all_run(started: Sequence[Worker]) -> None:
    if (ended := _who_ended(started, patience=0)) is not None:
        raise WorkerError(f"the training could not begin: {ended}.")


def _who_ended(started: Sequence[Worker], patience: float = 5.0) -> str | None:
    """Which of the processes has ended, and how; a broken connection may be noticed before."""
    deadline = time.monotonic() + patience
    while True:
        for worker in started:
            if (ended := worker.end()) is not None:
                return ended
        if not started or time.monotonic() > deadline:
            return None
        time.sleep(0.05)
