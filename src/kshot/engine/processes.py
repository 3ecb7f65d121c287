"""Processes that share a meta-batch: each takes its tasks by number, one sum joins the gradients.

Under `torchrun` the processes are already there (`from_environment`); `local_workers` starts some
on this machine. Either way N processes give the answer of one, up to the order of summation.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kshot.errors import ConfigError, WorkerError

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""For a process that neither answers nor ends."""

RENDEZVOUS = "KSHOT_RENDEZVOUS"
"""Environment variable by which a worker that kshot has started finds the others."""


@dataclass(frozen=True)
class Processes:
    """The processes of a job, as one of them sees it.

    Attributes:
        rank: its number, from 0; the first one writes files and talks.
        size: how many there are.
        started: the others, where this one has started them.
    """

    rank: int = 0
    size: int = 1
    started: Sequence[subprocess.Popen[bytes]] = field(default=(), repr=False)

    def share(self, index: Sequence[T]) -> Sequence[T]:
        """This process's part of a sequence that all of them know."""
        return index[self.rank :: self.size]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange.

        Raises:
            WorkerError: if another process has ended.
        """
        if self.size == 1:
            return
        flat = torch.cat([t.detach().flatten().double().cpu() for t in tensors])
        with self._blaming():
            dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.reshape(tensor.shape))

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank.

        Raises:
            WorkerError: if another process has ended.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._blaming():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """Turns a broken exchange into the error that says who is gone."""
        try:
            yield
        except RuntimeError as error:
            raise WorkerError(
                f"{_who_ended(self.started) or 'another process has ended'}; go on from the last "
                "checkpoint by `kshot train --resume`, with as many --workers as you like."
            ) from error


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


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Meet the other processes that the environment tells of.

    Raises:
        ConfigError: if they cannot be met, for example because the port is in use.
    """
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    file = os.environ.get(RENDEZVOUS)
    if file is not None:
        torch.set_num_threads(1)
        Path(f"{file}.{rank}").touch()
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{file}" if file else "env://",
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"process {rank} of {size} cannot meet the others at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} "
            f"({str(error).splitlines()[0]}): set MASTER_PORT to a free port."
        ) from error
    try:
        yield Processes(rank, size)
    finally:
        dist.destroy_process_group()


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
        started = []
        try:
            for rank in range(1, count):
                with Path(folder, f"{rank}.log").open("wb") as log:
                    process = subprocess.Popen(
                        command,
                        env=shared | {"RANK": str(rank)},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                started.append(process)
            _wait_until_ready(file, started)
            torch.set_num_threads(1)
            group = Processes(0, count, started)
            with group._blaming():
                dist.init_process_group(
                    "gloo",
                    init_method=f"file://{file}",
                    rank=0,
                    world_size=count,
                    timeout=PATIENCE,
                )
            yield group
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
            for process in started:
                process.kill()  # in an exchange it is deaf to gentler signals; it owns no file
            for process in started:
                process.wait()
            torch.set_num_threads(threads)


def _wait_until_ready(file: Path, started: Sequence[subprocess.Popen[bytes]]) -> None:
    while not all(Path(f"{file}.{rank}").exists() for rank in range(1, len(started) + 1)):
        if (ended := _who_ended(started, patience=0)) is not None:
            rank = next(i for i, p in enumerate(started, start=1) if p.returncode is not None)
            words = (file.parent / f"{rank}.log").read_text(errors="replace").split("\n")
            last = next((line for line in reversed(words) if line.strip()), "it said nothing")
            raise WorkerError(f"{ended} before it could begin: {last}")
        time.sleep(0.05)


def _who_ended(started: Sequence[subprocess.Popen[bytes]], patience: float = 5.0) -> str | None:
    """Which of the processes has ended, and how; a broken connection may be noticed before."""
    deadline = time.monotonic() + patience
    while True:
        for rank, process in enumerate(started, start=1):
            if (code := process.poll()) is not None:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                return f"worker {rank} {how}"
        if not started or time.monotonic() > deadline:
            return None
        time.sleep(0.05)
